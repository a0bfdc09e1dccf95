//! The file of what is recorded of definitions, in `FORMAT.md`: a head, then frames of files.
//!
//! Any beginning of it is a record of fewer files. So what is behind the last frame that is whole is cut off, and the
//! indexer has these files told again.

use std::path::Path;

use govc_engine::Result;
use serde::{Deserialize, Serialize};

use crate::frame::FramesFile;

/// The name of the file.
const FILE_NAME: &str = "symbols";
/// How it begins: what it is, and the version of its format. The version of the definitions follows, in 8 bytes.
const MAGIC: &[u8; 12] = b"govcsyms\x01\0\0\0";
/// What is in front of the first frame, in bytes.
const HEAD_BYTES: usize = 20;

/// What one commit of the records adds. Names are numbered in the order in which the file has them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Frame {
    /// The names that come for the first time.
    pub(super) names: Vec<Vec<u8>>,
    pub(super) files: Vec<FileRecord>,
}

/// A blob that was told in one language.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileRecord {
    pub(super) oid: Vec<u8>,
    /// The language's stable number.
    pub(super) language: u32,
    pub(super) told: Told,
}

/// What was told of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    /// Its definitions: see [`super::code`].
    Symbols(Vec<u8>),
    /// They will not be told: it is too large, too dangerous, or defines too much.
    TooLarge,
    Hazardous,
    TooMany,
}

/// Opens the file in `folder`, of which each frame is given to `each`; another version of definitions begins it anew.
///
/// # Errors
/// As [`FramesFile::open`].
pub(super) fn open(folder: &Path, version: u64, each: impl FnMut(Frame) -> bool) -> Result<FramesFile> {
    FramesFile::open(folder.join(FILE_NAME), &head(version), each)
}

fn head(version: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let bytes = MAGIC.iter().copied().chain(version.to_le_bytes());
    head.iter_mut().zip(bytes).for_each(|(byte, value)| *byte = value);
    head
}
