//! The file of the presence index, in `FORMAT.md`: a head, then frames of commits, parents first.
//!
//! Any beginning of it is an index of fewer commits. So there is nothing to decide after a crash: what is behind the last
//! frame that is whole is cut off, and the indexer adds the commits again.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use govc_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::{frame, index::failure};

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

/// The file, open for appending.
pub(super) struct HistoryFile {
    file: File,
    path: PathBuf,
    end: u64,
}

impl HistoryFile {
    /// Opens the file in `folder`, which is begun if it is not there or not of this format, and gives each frame to `each`;
    /// behind one that is damaged, or that `each` refuses, the file is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn open(folder: &Path, mut each: impl FnMut(Frame) -> bool) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let opened = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let mut opened = Self { file: opened.map_err(|error| failure("open", &path, error))?, path, end: 0 };
        let bytes = opened.file.metadata().map_err(|error| opened.failed("measure", error))?.len();
        if opened.has_head(bytes)? {
            opened.end = HEAD.len() as u64;
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
            opened.file.write_all(HEAD).map_err(|error| opened.failed("write", error))?;
            opened.end = HEAD.len() as u64;
        }
        Ok(opened)
    }

    fn has_head(&mut self, bytes: u64) -> Result<bool> {
        let mut head = [0; HEAD.len()];
        if bytes < head.len() as u64 {
            return Ok(false);
        }
        self.file.read_exact(&mut head).map_err(|error| self.failed("read", error))?;
        Ok(head == *HEAD)
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
            .map_err(|error| Error::invalid("commits cannot be written").with_source(error))?;
        let bytes = frame::append(&mut self.file, &payload).map_err(|error| self.failed("write", error))?;
        self.end += bytes;
        Ok(())
    }
}
