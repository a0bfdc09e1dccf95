//! The file that says what is in the index: batches of chunks, blobs and messages, one frame each, in `FORMAT.md`.
//!
//! A frame is written and synced before the commit of the trigrams that knows of its end, so what lies behind that end
//! was never seen and is cut off.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

use govc_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::{failure, tables::ChunkNo};
use crate::frame;

/// The name of the file.
const FILE_NAME: &str = "blobs";

/// The start of a chunk's BLAKE3 hash: chunks with the same one are the same chunk.
pub(super) type Digest = [u8; 16];

/// What one commit of the index adds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Batch {
    /// The new chunks, in the order of their numbers.
    pub(super) digests: Vec<Digest>,
    /// The bytes of each.
    pub(super) chunk_bytes: Vec<u32>,
    /// The line feeds of each.
    pub(super) chunk_newlines: Vec<u32>,
    /// The blobs.
    pub(super) blobs: Vec<BlobRecord>,
    /// The messages, in the order of their numbers.
    pub(super) messages: Vec<MessageRecord>,
}

impl Batch {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.messages.is_empty()
    }
}

/// The message of a commit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MessageRecord {
    pub(super) commit: Vec<u8>,
    /// What its text takes.
    pub(super) bytes: u32,
}

/// An indexed blob.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BlobRecord {
    pub(super) oid: Vec<u8>,
    pub(super) size: u64,
    pub(super) content: BlobContent,
}

/// What a blob is to the index.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BlobContent {
    /// Its chunks, in order.
    #[serde(with = "steps")]
    Text(Vec<ChunkNo>),
    Binary,
    Large,
}

/// Chunk numbers, each as the step from the one before: in a new file, ones.
mod steps {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::ChunkNo;

    pub(super) fn serialize<S: Serializer>(numbers: &[ChunkNo], serializer: S) -> Result<S::Ok, S::Error> {
        let mut before = 0;
        let step = |number: &ChunkNo| i64::from(*number) - std::mem::replace(&mut before, i64::from(*number));
        numbers.iter().map(step).collect::<Vec<i64>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ChunkNo>, D::Error> {
        let mut number = 0_i64;
        let mut numbers = Vec::new();
        for step in Vec::<i64>::deserialize(deserializer)? {
            number = number.wrapping_add(step);
            let chunk =
                ChunkNo::try_from(number).map_err(|_| serde::de::Error::custom("a chunk number is out of range"))?;
            numbers.push(chunk);
        }
        Ok(numbers)
    }
}

/// The log, open for appending.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    end: u64,
}

impl Log {
    /// Opens the log in `folder`, cuts it at `end`, and gives each batch to `each`.
    ///
    /// # Errors
    /// Corrupt if it is shorter than `end` or a frame is damaged; else when it cannot be read or written.
    pub(super) fn open(folder: &Path, end: u64, mut each: impl FnMut(Batch) -> Result<()>) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let mut file = file.map_err(|error| failure("open", &path, error))?;
        let bytes = file.metadata().map_err(|error| failure("measure", &path, error))?.len();
        if bytes < end {
            return Err(Error::corrupt("the search index's log ends too early"));
        }
        file.set_len(end).map_err(|error| failure("shorten", &path, error))?;
        let mut read = 0;
        while read < end {
            let payload = frame::read(&mut file, end - read).map_err(|error| failure("read", &path, error))?;
            let payload = payload.ok_or_else(|| Error::corrupt("the search index's log is damaged"))?;
            read += (frame::HEAD_BYTES + payload.len()) as u64;
            let batch = postcard::from_bytes(&payload)
                .map_err(|error| Error::corrupt("the search index's log is damaged").with_source(error))?;
            each(batch)?;
        }
        Ok(Self { file, path, end })
    }

    /// Where the log ends, in bytes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Appends a batch, which is synced when this returns.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<()> {
        let payload = postcard::to_stdvec(batch)
            .map_err(|error| Error::invalid("a batch cannot be written").with_source(error))?;
        let bytes = frame::append(&mut self.file, &payload).map_err(|error| failure("write", &self.path, error))?;
        self.end += bytes;
        Ok(())
    }
}
