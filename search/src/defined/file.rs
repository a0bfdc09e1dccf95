//! The file of what is recorded of definitions, in `FORMAT.md`: a head, then frames of files.
//!
//! Any beginning of it is a record of fewer files. So what is behind the last frame that is whole is cut off, and the
//! indexer has these files told again.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use govc_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::{frame, index::failure};

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

/// The file, open for appending.
pub(super) struct SymbolsFile {
    file: File,
    path: PathBuf,
    end: u64,
}

impl SymbolsFile {
    /// Opens the file in `folder`, which is begun if it is not there, or not of this format and version of definitions, and
    /// gives each frame to `each`; behind one that is damaged, or that `each` refuses, the file is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn open(folder: &Path, version: u64, mut each: impl FnMut(Frame) -> bool) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let opened = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let mut opened = Self { file: opened.map_err(|error| failure("open", &path, error))?, path, end: 0 };
        let bytes = opened.file.metadata().map_err(|error| opened.failed("measure", error))?.len();
        let expected = head(version);
        if opened.has_head(bytes, &expected)? {
            opened.end = HEAD_BYTES as u64;
            while let Some(payload) =
                frame::read(&mut opened.file, bytes - opened.end).map_err(|error| opened.failed("read", error))?
            {
                if !postcard::from_bytes(&payload).is_ok_and(&mut each) {
                    break;
                }
                opened.end += (frame::HEAD_BYTES + payload.len()) as u64;
            }
        }
        opened.file.set_len(opened.end).map_err(|error| opened.failed("shorten", error))?;
        if opened.end == 0 {
            opened.file.write_all(&expected).map_err(|error| opened.failed("write", error))?;
            opened.end = HEAD_BYTES as u64;
        }
        Ok(opened)
    }

    fn has_head(&mut self, bytes: u64, expected: &[u8; HEAD_BYTES]) -> Result<bool> {
        let mut head = [0; HEAD_BYTES];
        if bytes < head.len() as u64 {
            return Ok(false);
        }
        self.file.read_exact(&mut head).map_err(|error| self.failed("read", error))?;
        Ok(head == *expected)
    }

    fn failed(&self, verb: &str, error: std::io::Error) -> Error {
        failure(verb, &self.path, error)
    }

    /// Where the file ends, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Appends a frame, which is synced when this returns.
    ///
    /// # Errors
    /// When it cannot be written: the file may then have a part of it.
    pub(super) fn append(&mut self, frame: &Frame) -> Result<()> {
        let payload = postcard::to_stdvec(frame)
            .map_err(|error| Error::invalid("definitions cannot be written").with_source(error))?;
        let bytes = frame::append(&mut self.file, &payload).map_err(|error| self.failed("write", error))?;
        self.end += bytes;
        Ok(())
    }
}

fn head(version: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let bytes = MAGIC.iter().copied().chain(version.to_le_bytes());
    head.iter_mut().zip(bytes).for_each(|(byte, value)| *byte = value);
    head
}
