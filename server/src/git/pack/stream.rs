//! The first pass over a pack: entries as they arrive.
//!
//! Each entry is inflated once to find its end; the compressed bytes go to the spool, whole objects to the caller.
//! Nothing is allocated for what an entry only claims to be, and everything is counted against the limits first.

use std::io::{self, Read, Write};

use flate2::{Decompress, FlushDecompress, Status};
use govc_engine::{Error, ErrorKind, Limits, ObjectFormat, Oid, Result, object::PackHasher};

use crate::git::bridge::Flow;

use super::{
    entry::{EntryKind, HEADER_BYTES_MAX, read_header},
    spool::Spool,
};

/// Bytes read from the body at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes inflated at once: room is zeroed before it is filled, so more would cost more than it gives.
const INFLATE_BYTES: usize = 64 << 10;
/// Room kept from one object to the next, in bytes.
const ROOM_BYTES_KEPT: usize = 1 << 20;

/// One entry of the pack, as the second pass needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackEntry {
    /// Where its header begins.
    pub(super) offset: u64,
    /// Where its compressed data begin, from `offset`.
    pub(super) header_len: u8,
    pub(super) kind: EntryKind,
    /// Bytes when inflated: of the object, or of the delta.
    pub(super) size: u64,
}

/// A pack that is being read.
pub(super) struct PackStream<'a> {
    format: ObjectFormat,
    body: &'a mut dyn Read,
    limits: Limits,
    spool: Spool,
    hasher: PackHasher,
    /// Read from the body and not consumed: `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    inflate: Decompress,
    remaining: u32,
    expanded: u64,
}

/// Gives `take` what each entry of a pack holds: an object, or a delta as it is. For fuzzing.
///
/// # Errors
/// As [`PackStream::open`], [`PackStream::next`] and [`PackStream::finish`].
pub(crate) fn inflate(
    format: ObjectFormat,
    pack: &mut dyn Read,
    limits: Limits,
    take: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let mut stream = PackStream::open(format, pack, Spool::new(None), limits)?;
    let mut data = Vec::new();
    while stream.next(&mut data)?.is_some() {
        take(&data);
    }
    stream.finish(None).map(drop)
}

/// What the body's error means to the pusher.
fn body_error(error: io::Error) -> Error {
    // The bridge wraps the engine's errors, such as a limit or a client that went away.
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::new(ErrorKind::Cancelled, format!("the pack could not be read: {error}")),
    }
}

pub(super) fn spool_error(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Backend,
    };
    Error::new(kind, format!("the pack could not be kept: {error}")).with_source(error)
}

impl<'a> PackStream<'a> {
    /// Reads the header of a pack of the `format`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is no pack of version 2 or 3, [`ErrorKind::TooLarge`] for more objects than are
    /// allowed.
    pub(super) fn open(format: ObjectFormat, body: &'a mut dyn Read, spool: Spool, limits: Limits) -> Result<Self> {
        let mut stream = Self {
            format,
            body,
            limits,
            spool,
            hasher: PackHasher::new(format),
            buffer: vec![0; READ_BYTES].into(),
            start: 0,
            end: 0,
            inflate: Decompress::new(true),
            remaining: 0,
            expanded: 0,
        };
        let header: [u8; 12] = match stream.need(12)? {
            Some(bytes) => bytes[..12].try_into().expect("twelve bytes were asked for"),
            None => return Err(Error::invalid("pack: it ends in its header")),
        };
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..4] != b"PACK" {
            return Err(Error::invalid("pack: it does not begin with PACK"));
        }
        if !(2..=3).contains(&word(4)) {
            return Err(Error::invalid(format!("pack: version {} is not supported", word(4))));
        }
        stream.remaining = word(8);
        if u64::from(stream.remaining) > limits.pack_objects_max {
            let (count, limit) = (stream.remaining, limits.pack_objects_max);
            return Err(Error::too_large(format!("pack: it claims {count} objects; the limit is {limit}")));
        }
        stream.consume(12)?;
        Ok(stream)
    }

    /// How many entries are still to come.
    pub(super) fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Reads the next entry; a whole object's bytes, or a delta's, are put into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is malformed or the pack ends, [`ErrorKind::TooLarge`] over a limit.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<PackEntry>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let (format, offset) = (self.format, self.spool.len());
        let mut wanted = 1;
        let (kind, size, header_len) = loop {
            let Some(bytes) = self.need(wanted)? else { return Err(ends_early()) };
            if let Some(header) = read_header(format, &bytes[..bytes.len().min(HEADER_BYTES_MAX + 10)])? {
                break header;
            }
            wanted = bytes.len() + 1;
        };
        self.consume(header_len)?;
        if size > self.limits.object_bytes_max {
            let limit = self.limits.object_bytes_max;
            return Err(Error::too_large(format!("pack: an object of {size} bytes; the limit is {limit}")));
        }
        self.count_expanded(size)?;
        self.inflate_entry(size, out).map_err(|error| error.context(format!("pack entry at {offset}")))?;
        self.remaining -= 1;
        Ok(Some(PackEntry { offset, header_len: header_len as u8, kind, size }))
    }

    /// Counts bytes that come out of the pack.
    pub(super) fn count_expanded(&mut self, bytes: u64) -> Result<()> {
        self.expanded = self.expanded.saturating_add(bytes);
        check_expanded(self.expanded, &self.limits)
    }

    /// Reads the trailer and makes sure that nothing follows, as far as that can be known: a body that is `live` goes on, and is
    /// told that the pack is there. Gives the spool without the trailer, the checksum and
    /// what has been counted.
    pub(super) fn finish(mut self, live: Option<&Flow>) -> Result<(Spool, Oid, u64)> {
        let format = self.format;
        let computed = std::mem::replace(&mut self.hasher, PackHasher::new(format)).finish()?;
        let Some(bytes) = self.need(format.len())? else { return Err(ends_early()) };
        let stated = format.oid_from_bytes(&bytes[..format.len()])?;
        if computed != stated {
            return Err(Error::invalid("pack: its checksum does not match its content"));
        }
        self.start += format.len();
        let is_followed = match live {
            Some(_) => self.start < self.end,
            None => self.need(1)?.is_some(),
        };
        if is_followed {
            return Err(Error::invalid("pack: there are bytes after its end"));
        }
        if let Some(flow) = live {
            flow.set_received();
        }
        Ok((self.spool, stated, self.expanded))
    }

    /// At least `count` bytes that are not consumed, or `None` if the body ends before.
    fn need(&mut self, count: usize) -> Result<Option<&[u8]>> {
        while self.end - self.start < count {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match self.body.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(None),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(body_error(error)),
            }
        }
        Ok(Some(&self.buffer[self.start..self.end]))
    }

    /// Passes `count` bytes on to the checksum and the spool.
    fn consume(&mut self, count: usize) -> Result<()> {
        let bytes = &self.buffer[self.start..self.start + count];
        self.hasher.update(bytes);
        self.spool.write_all(bytes).map_err(spool_error)?;
        self.start += count;
        Ok(())
    }

    fn inflate_entry(&mut self, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let size = usize::try_from(size).map_err(|_| Error::too_large("an object is beyond memory"))?;
        out.clear();
        out.shrink_to(size.max(ROOM_BYTES_KEPT));
        self.inflate.reset(true);
        loop {
            if self.need(1)?.is_none() {
                return Err(ends_early());
            }
            let step = inflate_step(&mut self.inflate, &self.buffer[self.start..self.end], out, size)?;
            self.consume(step.consumed)?;
            if step.ended {
                return Ok(());
            }
        }
    }
}

pub(super) fn check_expanded(expanded: u64, limits: &Limits) -> Result<()> {
    let limit = limits.pack_expanded_bytes_max;
    if expanded > limit {
        return Err(Error::too_large(format!("pack: its objects have more than {limit} bytes in all")));
    }
    Ok(())
}

fn ends_early() -> Error {
    Error::invalid("pack: it ends early")
}

pub(super) struct Step {
    pub(super) consumed: usize,
    pub(super) ended: bool,
}

/// Inflates from `input` into `out` until the input is used up or the stream ends, which it must do at exactly
/// `size` bytes; `out` grows with what really comes.
pub(super) fn inflate_step(inflate: &mut Decompress, input: &[u8], out: &mut Vec<u8>, size: usize) -> Result<Step> {
    let mut consumed = 0;
    loop {
        let filled = out.len();
        // One byte of room beyond the size shows a stream that goes on.
        let room = (size + 1 - filled).min(INFLATE_BYTES);
        if out.capacity() - filled < room {
            out.reserve_exact((size + 1 - filled).min(filled.max(INFLATE_BYTES)));
        }
        out.resize(filled + room, 0);
        let (in_before, out_before) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(&input[consumed..], &mut out[filled..], FlushDecompress::None);
        let (read, made) = ((inflate.total_in() - in_before) as usize, (inflate.total_out() - out_before) as usize);
        out.truncate(filled + made);
        let status = status.map_err(|error| Error::invalid(format!("the zlib stream is damaged: {error}")))?;
        consumed += read;
        if out.len() > size {
            return Err(Error::invalid(format!("more than the {size} bytes that it announces")));
        }
        match status {
            Status::StreamEnd if out.len() == size => return Ok(Step { consumed, ended: true }),
            Status::StreamEnd => {
                return Err(Error::invalid(format!("{} bytes instead of the {size} that it announces", out.len())));
            }
            // Full room may hide more output that needs no more input.
            _ if consumed == input.len() && made < room => return Ok(Step { consumed, ended: false }),
            _ if read == 0 && made == 0 => return Err(Error::invalid("the zlib stream is damaged")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deflated(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    /// Inflates in pieces of `piece` bytes, as a body brings them.
    fn inflate(stream: &[u8], size: usize, piece: usize, out: &mut Vec<u8>) -> Result<bool> {
        out.clear();
        let mut inflate = Decompress::new(true);
        let mut at = 0;
        while at < stream.len() {
            let input = &stream[at..stream.len().min(at + piece)];
            let step = inflate_step(&mut inflate, input, out, size)?;
            at += step.consumed;
            if step.ended {
                return Ok(true);
            }
        }
        Ok(false)
    }

    #[test]
    fn streams_of_any_size_are_inflated_in_pieces() {
        for size in [0, 1, 1000, INFLATE_BYTES - 1, INFLATE_BYTES, INFLATE_BYTES + 1, 700_001] {
            let random = |at: usize| ((at * 2_654_435_761) >> 7) as u8;
            for data in [vec![7; size], (0..size).map(random).collect::<Vec<u8>>()] {
                let stream = deflated(&data);
                let mut out = Vec::new();
                for piece in [1 + stream.len() / 3, 4096, READ_BYTES] {
                    assert!(inflate(&stream, size, piece, &mut out).expect("a sound stream"), "{size} bytes");
                    assert!(out == data, "{size} bytes in pieces of {piece}");
                    assert!(inflate(&stream, size + 1, piece, &mut out).is_err(), "{size} bytes instead of more");
                    assert!(size == 0 || inflate(&stream, size - 1, piece, &mut out).is_err(), "{size}: too many");
                }
                assert!(!inflate(&stream[..stream.len() - 1], size, 4096, &mut out).expect("sound so far"));
            }
        }
    }

    #[test]
    fn room_is_taken_for_what_comes_and_not_for_what_is_announced() {
        let mut out = Vec::new();
        assert!(!inflate(&deflated(&[7; 1000])[..10], 100 << 20, 4096, &mut out).expect("sound so far"));
        assert!(out.capacity() <= 2 * INFLATE_BYTES, "{} bytes", out.capacity());
    }

    #[test]
    fn a_large_object_leaves_no_room_behind_for_small_ones() {
        let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
        for data in [vec![7; 8 << 20], vec![7; 10]] {
            super::super::entry::write_header(&mut pack, EntryKind::Whole(govc_engine::Kind::Blob), data.len() as u64);
            pack.extend(deflated(&data));
        }
        let mut body = &pack[..];
        let mut stream =
            PackStream::open(ObjectFormat::Sha1, &mut body, Spool::new(None), Limits::default()).expect("a pack");
        let mut data = Vec::new();
        stream.next(&mut data).expect("sound").expect("an entry");
        assert_eq!(data.len(), 8 << 20);
        stream.next(&mut data).expect("sound").expect("an entry");
        assert_eq!(data, [7; 10]);
        assert!(data.capacity() <= 2 * ROOM_BYTES_KEPT, "{} bytes", data.capacity());
    }
}
