//! The encoding of a block: a directory of records and their bodies, one zstd frame, one checksum.

use bytes::Bytes;

use super::frame;
use crate::{
    Error, Result,
    backend::key::{Reader, check_version, put_varint, seal, unseal},
    object::Kind,
};

/// The version of the block encoding that this program writes.
const VERSION: u8 = 1;
/// Payload after which a block is closed, in bytes.
const TARGET_BYTES: usize = 64 << 10;
/// Largest value that is given to a backend in one piece, in bytes.
const PART_BYTES: usize = 4 << 20;
/// Most records in a block, so that slots stay small.
const RECORDS_MAX: usize = 4096;

/// What stands around a block's frame, at most, in bytes: version, number and length, checksum.
const AROUND_BYTES_MAX: usize = 1 + 5 + 5 + 4;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The segment: the blocks of one ingest or one rewrite, which come and go together.
    pub segment: u32,
    /// The block within the segment.
    pub block: u32,
    /// The record within the block.
    pub slot: u16,
}

/// What a record's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The object itself.
    Whole,
    /// A delta against the record at this block and slot of the same segment.
    Near {
        /// The base's block.
        block: u32,
        /// The base's slot.
        slot: u16,
    },
}

/// One record's entry in the directory of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// The object's kind.
    pub kind: Kind,
    /// The object's size in bytes.
    pub size: u64,
    /// What the body is.
    pub base: Base,
    start: u32,
    len: u32,
}

impl RecordHeader {
    /// Bytes of the body: the object's, or the delta's.
    pub fn stored_len(&self) -> usize {
        self.len as usize
    }
}

/// Collects records until a block is full.
#[derive(Default)]
pub struct BlockBuilder {
    directory: Vec<u8>,
    pub(super) bodies: Vec<u8>,
    count: usize,
}

impl BlockBuilder {
    /// The slot that the next record gets.
    pub fn next_slot(&self) -> u16 {
        self.count as u16
    }

    /// Whether the block must be finished before a body of `len` bytes is added.
    pub fn is_full_for(&self, len: usize) -> bool {
        self.count > 0 && (self.bodies.len() + len > TARGET_BYTES + TARGET_BYTES / 4 || self.count >= RECORDS_MAX)
            || self.bodies.len() >= TARGET_BYTES
    }

    /// Whether nothing was added since the last block.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a record to the block numbered `block`.
    pub fn push(&mut self, block: u32, kind: Kind, size: u64, base: Base, body: &[u8]) -> u16 {
        let slot = self.next_slot();
        let out = &mut self.directory;
        let tag = |encoding: u8| kind as u8 | encoding << 4;
        match base {
            Base::Whole => out.push(tag(0)),
            Base::Near { block: base_block, slot: base_slot } if base_block == block => {
                out.push(tag(1));
                put_varint(out, u64::from(base_slot));
            }
            Base::Near { block: base_block, slot: base_slot } => {
                out.push(tag(2));
                put_varint(out, u64::from(base_block));
                put_varint(out, u64::from(base_slot));
            }
        }
        put_varint(out, body.len() as u64);
        if base != Base::Whole {
            put_varint(out, size);
        }
        self.bodies.extend_from_slice(body);
        self.count += 1;
        slot
    }

    /// Closes the block numbered `block` and gives its encoding; the builder starts anew.
    ///
    /// # Errors
    /// [`crate::ErrorKind::TooLarge`] if the payload is 4 GiB or more, or zstd fails.
    pub fn finish(&mut self, block: u32, level: i32) -> Result<Vec<u8>> {
        let fill = |payload: &mut Vec<u8>| {
            put_varint(payload, self.count as u64);
            payload.append(&mut self.directory);
            payload.append(&mut self.bodies);
            // A large body's room is not kept for small ones.
            self.bodies.shrink_to(2 * TARGET_BYTES);
            self.count = 0;
        };
        frame::compress(level, fill, |raw_len, frame| {
            let raw_len = u32::try_from(raw_len).map_err(|_| Error::too_large("a block exceeds 4 GiB"))?;
            let mut out = Vec::with_capacity(frame.len() + AROUND_BYTES_MAX);
            out.push(VERSION);
            put_varint(&mut out, u64::from(block));
            put_varint(&mut out, u64::from(raw_len));
            out.extend_from_slice(frame);
            seal(&mut out);
            Ok(out)
        })
    }
}

/// A block in memory, decompressed, with its directory parsed.
#[derive(Debug)]
pub struct DecodedBlock {
    payload: Bytes,
    records: Vec<RecordHeader>,
}

impl DecodedBlock {
    /// Checks and decodes a block.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] for anything but what [`BlockBuilder::finish`] makes, or a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let body = unseal(bytes, "a block")?;
        let mut reader = Reader::new(body);
        check_version(&mut reader, VERSION, "a block")?;
        let number = reader.varint_u32()?;
        let raw_len = reader.varint_u32()? as usize;
        let frame = reader.take(reader.len())?;
        // The frame's own size, when present, must agree before memory is taken for it.
        let framed = zstd::zstd_safe::get_frame_content_size(frame).ok().flatten();
        if framed != Some(raw_len as u64) {
            return Err(Error::corrupt("a block's frame has another size than its header"));
        }
        let payload = frame::decompress(frame, raw_len)?;
        if payload.len() != raw_len {
            return Err(Error::corrupt("a block has another size than its header says"));
        }
        let records = read_directory(&payload, number)?;
        Ok(Self { payload: payload.into(), records })
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The header of a record.
    pub fn header(&self, slot: usize) -> Option<&RecordHeader> {
        self.records.get(slot)
    }

    /// The body of a record, sharing the block's memory.
    pub fn body(&self, slot: usize) -> Option<Bytes> {
        let record = self.records.get(slot)?;
        let start = record.start as usize;
        Some(self.payload.slice(start..start + record.len as usize))
    }

    /// Bytes that the block takes in memory.
    pub fn resident_bytes(&self) -> usize {
        allocated(self.payload.len()) + self.records.len() * size_of::<RecordHeader>() + size_of::<Self>()
    }
}

/// What an allocator takes for a block's bytes, about: it rounds such sizes up by an eighth and more.
pub(crate) fn allocated(len: usize) -> usize {
    len + len / 8
}

fn read_directory(payload: &[u8], number: u32) -> Result<Vec<RecordHeader>> {
    let mut reader = Reader::new(payload);
    let count = reader.usize()?;
    if count > RECORDS_MAX {
        return Err(Error::corrupt("a block announces too many records"));
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = reader.byte()?;
        let kind = Kind::from_number(tag & 0xf).ok_or_else(|| Error::corrupt("a record has no known kind"))?;
        let slot = |reader: &mut Reader<'_>| {
            u16::try_from(reader.varint()?).map_err(|_| Error::corrupt("a record's base is out of range"))
        };
        let base = match tag >> 4 {
            0 => Base::Whole,
            1 => Base::Near { block: number, slot: slot(&mut reader)? },
            2 => Base::Near { block: reader.varint_u32()?, slot: slot(&mut reader)? },
            _ => return Err(Error::corrupt("a record has an unknown encoding")),
        };
        let len = reader.varint_u32()?;
        let size = if base == Base::Whole { u64::from(len) } else { reader.varint()? };
        records.push(RecordHeader { kind, size, base, start: 0, len });
    }
    let mut start = payload.len() - reader.len();
    for record in &mut records {
        record.start = start as u32;
        start += record.len as usize;
        if start > payload.len() {
            return Err(Error::corrupt("a record reaches past its block"));
        }
    }
    if start != payload.len() {
        return Err(Error::corrupt("a block has bytes that belong to no record"));
    }
    Ok(records)
}

/// Splits a block into values of a size that backends like; the first says how many follow.
pub(crate) fn split_parts(block: Vec<u8>) -> Vec<Bytes> {
    let more = block.len().saturating_sub(1) / PART_BYTES;
    let block = Bytes::from(block);
    (0..=more)
        .map(|part| {
            let piece = block.slice(part * PART_BYTES..((part + 1) * PART_BYTES).min(block.len()));
            if part > 0 {
                return piece;
            }
            let mut first = Vec::with_capacity(piece.len() + 2);
            put_varint(&mut first, more as u64);
            first.extend_from_slice(&piece);
            first.into()
        })
        .collect()
}

/// Undoes [`split_parts`]: `more` gives the part of a number from 1.
pub(crate) fn join_parts(first: Bytes, mut more: impl FnMut(u16) -> Result<Bytes>) -> Result<Bytes> {
    let mut reader = Reader::new(&first);
    let count = u16::try_from(reader.varint()?).map_err(|_| Error::corrupt("a block has too many parts"))?;
    let head = first.slice(first.len() - reader.len()..);
    if count == 0 {
        return Ok(head);
    }
    let mut whole = head.to_vec();
    for part in 1..=count {
        whole.extend_from_slice(&more(part)?);
    }
    Ok(whole.into())
}
