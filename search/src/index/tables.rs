//! Which blobs there are and what chunks they are made of: the part of the index that every query reads.
//!
//! Blobs and chunks have dense numbers. A blob gets its number when a query or the indexer first meets it, whether or not
//! it is indexed; numbers are not kept beyond the process. Everything here is in memory, loaded from the log when
//! the index is opened.

use std::ops::Range;

use govc_engine::{Error, Oid, Result};
use smallvec::SmallVec;

use super::{
    contents::{Contents, Text},
    log::{Batch, BlobContent, BlobRecord},
    messages::Messages,
};
use crate::numbers::Numbers;

/// A blob's number.
pub(crate) type BlobNo = u32;
/// A chunk's number: its place in the order in which chunks came.
pub(crate) type ChunkNo = u32;

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobState {
    /// It was met, and is not indexed.
    Unknown,
    /// Its chunks: a range of `lists`.
    Text { start: u64, count: u32 },
    /// It has a NUL where git looks for one.
    Binary,
    /// It is text, and too large to be indexed: read whenever it is searched.
    Large,
}

pub(super) struct BlobRow {
    oid: Oid,
    size: u64,
    state: BlobState,
}

pub(crate) struct Tables {
    numbers: Numbers,
    blobs: Vec<BlobRow>,
    /// The chunks of all blobs, those of each together and in order.
    lists: Vec<ChunkNo>,
    /// Where each chunk's text begins, and at the end where the last one ends.
    starts: Vec<u64>,
    /// The line feeds of each chunk.
    newlines: Vec<u32>,
    /// Which blobs have a chunk.
    holders: Vec<SmallVec<[BlobNo; 2]>>,
    holders_more_bytes: u64,
    pub(super) contents: Contents,
    pub(crate) messages: Messages,
}

impl Tables {
    pub(super) fn new(contents: Contents, messages: Messages) -> Self {
        let (numbers, blobs, lists, holders) = (Numbers::default(), Vec::new(), Vec::new(), Vec::new());
        let newlines = Vec::new();
        Self { numbers, blobs, lists, starts: vec![0], newlines, holders, holders_more_bytes: 0, contents, messages }
    }

    /// The number of a blob, if it has one.
    pub(crate) fn number(&self, oid: &Oid) -> Option<BlobNo> {
        self.numbers.get(oid)
    }

    /// The number of a blob, which gets one if it has none.
    pub(crate) fn number_or_new(&mut self, oid: Oid) -> BlobNo {
        if let Some(number) = self.numbers.get(&oid) {
            return number;
        }
        // A repository of four thousand million blobs does not fit into memory either.
        let number = u32::try_from(self.blobs.len()).unwrap_or(u32::MAX);
        self.blobs.push(BlobRow { oid, size: 0, state: BlobState::Unknown });
        self.numbers.insert(&oid, number);
        number
    }

    /// How many blobs have a number.
    pub(crate) fn blob_count(&self) -> usize {
        self.blobs.len()
    }

    /// How many chunks there are.
    pub(crate) fn chunk_count(&self) -> usize {
        self.holders.len()
    }

    /// The id of a blob.
    pub(crate) fn oid(&self, blob: BlobNo) -> Option<Oid> {
        self.blobs.get(blob as usize).map(|row| row.oid)
    }

    /// What is known of a blob.
    pub(crate) fn state(&self, blob: BlobNo) -> BlobState {
        self.blobs.get(blob as usize).map_or(BlobState::Unknown, |row| row.state)
    }

    /// The size of an indexed blob, in bytes.
    pub(crate) fn size(&self, blob: BlobNo) -> u64 {
        self.blobs.get(blob as usize).map_or(0, |row| row.size)
    }

    /// The blobs that have a chunk.
    pub(crate) fn holders(&self, chunk: ChunkNo) -> &[BlobNo] {
        self.holders.get(chunk as usize).map_or(&[], |blobs| blobs)
    }

    /// The chunks of a blob, in order; empty unless it is indexed text.
    pub(crate) fn chunks(&self, blob: BlobNo) -> &[ChunkNo] {
        match self.state(blob) {
            BlobState::Text { start, count } => {
                let start = usize::try_from(start).unwrap_or(usize::MAX);
                self.lists.get(start..start.saturating_add(count as usize)).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// Where a chunk's text is.
    pub(crate) fn range(&self, chunk: ChunkNo) -> Range<u64> {
        let at = chunk as usize;
        let place = |at: usize| self.starts.get(at).copied().unwrap_or(0);
        place(at)..place(at + 1)
    }

    /// How many line feeds a chunk has.
    pub(crate) fn newlines(&self, chunk: ChunkNo) -> u64 {
        self.newlines.get(chunk as usize).copied().map_or(0, u64::from)
    }

    /// The text of a chunk.
    pub(crate) fn text(&self, chunk: ChunkNo) -> Option<Text> {
        self.contents.text(self.range(chunk))
    }

    /// How many blobs are indexed text.
    pub(super) fn text_count(&self) -> u64 {
        self.blobs.iter().filter(|row| matches!(row.state, BlobState::Text { .. })).count() as u64
    }

    /// The texts of all indexed blobs together, in bytes: what the index would hold if nothing were shared.
    pub(super) fn raw_bytes(&self) -> u64 {
        self.blobs.iter().filter(|row| matches!(row.state, BlobState::Text { .. })).map(|row| row.size).sum()
    }

    /// Adds what a batch brings; its texts are in `contents`.
    pub(super) fn add(&mut self, batch: &Batch) -> Result<()> {
        if batch.chunk_newlines.len() != batch.chunk_bytes.len() || batch.digests.len() != batch.chunk_bytes.len() {
            return Err(Error::corrupt("the search index's log has figures of other chunks than it names"));
        }
        let chunk_count = self.newlines.len() + batch.chunk_newlines.len();
        let is_there = |chunk: &ChunkNo| (*chunk as usize) < chunk_count;
        let is_made_of = |blob: &BlobRecord| match &blob.content {
            BlobContent::Text(chunks) => chunks.iter().all(is_there),
            BlobContent::Binary | BlobContent::Large => true,
        };
        if !batch.blobs.iter().all(is_made_of) {
            return Err(Error::corrupt("the search index's log names chunks that it does not have"));
        }
        let mut end = self.starts.last().copied().unwrap_or(0);
        self.newlines.extend(&batch.chunk_newlines);
        for bytes in &batch.chunk_bytes {
            end += u64::from(*bytes);
            self.starts.push(end);
            self.holders.push(SmallVec::new());
        }
        for blob in &batch.blobs {
            let number = self.number_or_new(Oid::from_bytes(&blob.oid)?);
            let state = match &blob.content {
                BlobContent::Binary => BlobState::Binary,
                BlobContent::Large => BlobState::Large,
                BlobContent::Text(chunks) => {
                    let start = self.lists.len() as u64;
                    self.lists.extend(chunks);
                    chunks.iter().for_each(|chunk| self.hold(*chunk, number));
                    BlobState::Text { start, count: u32::try_from(chunks.len()).unwrap_or(u32::MAX) }
                }
            };
            if let Some(row) = self.blobs.get_mut(number as usize) {
                (row.size, row.state) = (blob.size, state);
            }
        }
        self.messages.add(&batch.messages)
    }

    fn hold(&mut self, chunk: ChunkNo, blob: BlobNo) {
        let Some(holders) = self.holders.get_mut(chunk as usize) else { return };
        // A blob may have a chunk twice; its chunks come together.
        if holders.last() != Some(&blob) {
            let before = if holders.spilled() { holders.capacity() } else { 0 };
            holders.push(blob);
            let after = if holders.spilled() { holders.capacity() } else { 0 };
            self.holders_more_bytes += (after - before) as u64 * 4;
        }
    }

    /// Memory of the tables without the texts, in bytes, about.
    pub(super) fn resident_bytes(&self) -> u64 {
        let bytes = |count: usize, each: usize| (count * each) as u64;
        self.numbers.resident_bytes()
            + bytes(self.blobs.capacity(), size_of::<BlobRow>())
            + bytes(self.lists.capacity(), size_of::<ChunkNo>())
            + bytes(self.starts.capacity(), size_of::<u64>())
            + bytes(self.newlines.capacity(), size_of::<u32>())
            + bytes(self.holders.capacity(), size_of::<SmallVec<[BlobNo; 2]>>())
            + self.holders_more_bytes
            + self.messages.resident_bytes()
    }
}
