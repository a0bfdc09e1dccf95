//! The file of the presence index, in `FORMAT.md`: a head, then frames of commits, parents first.
//!
//! Any beginning of it is an index of fewer commits. So there is nothing to decide after a crash: what is behind the last
//! frame that is whole is cut off, and the indexer adds the commits again.

use std::path::Path;

use govc_engine::Result;
use serde::{Deserialize, Serialize};

use crate::frame::FramesFile;

/// The name of the file.
const FILE_NAME: &str = "history";
/// How it begins: what it is, and the version of its format.
const HEAD: &[u8; 12] = b"govchist\x01\0\0\0";

/// What one commit of the index adds. Blobs and paths are numbered in the order in which the file has them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Frame {
    /// Ids of the blobs that come for the first time.
    pub(super) blobs: Vec<Vec<u8>>,
    /// The paths that come for the first time.
    pub(super) paths: Vec<Vec<u8>>,
    /// The commits.
    pub(super) commits: Vec<CommitRecord>,
}

/// A commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CommitRecord {
    pub(super) oid: Vec<u8>,
    /// When it says that it was committed, in seconds since 1970.
    pub(super) seconds: i64,
    /// Its parents: how many commits before it each is.
    pub(super) parents: Vec<u32>,
    pub(super) changes: Vec<ChangeRecord>,
}

/// A change against the first parent. Of blobs, 0 is none and others count from 1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ChangeRecord {
    pub(super) path: u32,
    pub(super) old: u32,
    /// The step from the one before in the frame: what is new mostly has the next number.
    pub(super) new_step: i64,
}

/// Opens the file in `folder`, of which each frame is given to `each`.
///
/// # Errors
/// As [`FramesFile::open`].
pub(super) fn open(folder: &Path, each: impl FnMut(Frame) -> bool) -> Result<FramesFile> {
    FramesFile::open(folder.join(FILE_NAME), HEAD, each)
}
