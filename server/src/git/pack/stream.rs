//! The first pass over a pack: entries as they arrive.
//!
//! Each entry is inflated once to find its end; the compressed bytes go to the spool, whole objects to the caller.
//! Nothing is allocated for what an entry only claims to be, and everything is counted against the limits first.
//!
//! Where the body gives up on a slow client, the spool has all that was consumed, and a [`Part`] goes on from there: it finds
//! the end of what comes, keeps it, and makes nothing of it. A stream over its spool then reads that again.

use std::io::{self, Read, Write};

use flate2::{Decompress, FlushDecompress, Status};
use govc_engine::{Error, ErrorKind, Limits, ObjectFormat, Oid, Result, object::PackHasher};

use crate::git::{bridge::Flow, inlet::GivenUp};

use super::{
    entry::{EntryKind, HEADER_BYTES_MAX, read_header},
    spool::Spool,
};

/// Bytes of a pack's own header.
const HEADER_BYTES: usize = 12;
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
    /// How much was in the spool at first, and how much of that has been read back: all of it, before anything of the body is.
    kept: u64,
    read_back: u64,
    /// How much was consumed.
    position: u64,
    hasher: PackHasher,
    /// Read and not consumed: `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    inflate: Decompress,
    /// Entries that have not been read; `None` before the header has.
    remaining: Option<u32>,
    /// The size of the entry that is being inflated.
    entry: Option<u64>,
    expanded: u64,
    has_given_up: bool,
}

/// Gives `take` what each entry of a pack holds: an object, or a delta as it is. For fuzzing.
///
/// # Errors
/// As [`PackStream::open`], [`PackStream::next`] and [`PackStream::end`].
pub(crate) fn inflate(
    format: ObjectFormat,
    pack: &mut dyn Read,
    limits: Limits,
    take: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let mut stream = PackStream::new(format, pack, Spool::new(None), limits);
    stream.open()?;
    let mut data = Vec::new();
    while stream.next(&mut data)?.is_some() {
        take(&data);
    }
    stream.end(None).map(drop)
}

/// What the body's error means to the pusher.
pub(crate) fn body_error(error: io::Error) -> Error {
    // The bridge wraps the engine's errors, such as a limit or a client that went away.
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::new(ErrorKind::Cancelled, format!("the pack could not be read: {error}")),
    }
}

pub(crate) fn spool_error(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Backend,
    };
    Error::new(kind, format!("the pack could not be kept: {error}")).with_source(error)
}

impl<'a> PackStream<'a> {
    /// A pack of the `format`: what is in `spool`, and then what is in `body`.
    pub(super) fn new(format: ObjectFormat, body: &'a mut dyn Read, spool: Spool, limits: Limits) -> Self {
        Self {
            format,
            body,
            limits,
            kept: spool.len(),
            read_back: 0,
            position: 0,
            spool,
            hasher: PackHasher::new(format),
            buffer: vec![0; READ_BYTES].into(),
            start: 0,
            end: 0,
            inflate: Decompress::new(true),
            remaining: None,
            entry: None,
            expanded: 0,
            has_given_up: false,
        }
    }

    /// Reads the header; gives how many entries follow.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is no pack of version 2 or 3, [`ErrorKind::TooLarge`] for more objects than are
    /// allowed.
    pub(super) fn open(&mut self) -> Result<u32> {
        let entries = match self.need(HEADER_BYTES)?.and_then(|bytes| bytes.first_chunk().copied()) {
            Some(header) => read_pack_header(&header, &self.limits)?,
            None => return Err(Error::invalid("pack: it ends in its header")),
        };
        self.consume(HEADER_BYTES)?;
        self.remaining = Some(entries);
        Ok(entries)
    }

    /// Reads the next entry; a whole object's bytes, or a delta's, are put into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is malformed or the pack ends, [`ErrorKind::TooLarge`] over a limit.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<PackEntry>> {
        let Some(later) = self.remaining.and_then(|remaining| remaining.checked_sub(1)) else { return Ok(None) };
        let (format, offset) = (self.format, self.position);
        let mut wanted = 1;
        let (kind, size, header_len) = loop {
            let Some(bytes) = self.need(wanted)? else { return Err(ends_early()) };
            if let Some(header) = read_header(format, &bytes[..bytes.len().min(HEADER_BYTES_MAX + 10)])? {
                break header;
            }
            wanted = bytes.len() + 1;
        };
        self.consume(header_len)?;
        check_size(size, &self.limits)?;
        self.count_expanded(size)?;
        self.inflate.reset(true);
        self.entry = Some(size);
        self.inflate_entry(size, out).map_err(|error| error.context(format!("pack entry at {offset}")))?;
        (self.entry, self.remaining) = (None, Some(later));
        Ok(Some(PackEntry { offset, header_len: header_len as u8, kind, size }))
    }

    /// Counts bytes that come out of the pack.
    pub(super) fn count_expanded(&mut self, bytes: u64) -> Result<()> {
        self.expanded = self.expanded.saturating_add(bytes);
        check_expanded(self.expanded, &self.limits)
    }

    /// Reads the trailer and makes sure that nothing follows, as far as that can be known: a body that is `live` goes on, and is
    /// told that the pack is there. Gives the checksum.
    pub(super) fn end(&mut self, live: Option<&Flow>) -> Result<Oid> {
        let format = self.format;
        let computed = std::mem::replace(&mut self.hasher, PackHasher::new(format)).finish()?;
        let Some(bytes) = self.need(format.len())? else { return Err(ends_early()) };
        let stated = format.oid_from_bytes(&bytes[..format.len()])?;
        if computed != stated {
            return Err(Error::invalid("pack: its checksum does not match its content"));
        }
        let is_followed = match live {
            Some(_) => self.end - self.start > format.len(),
            None => self.need(format.len() + 1)?.is_some(),
        };
        if is_followed {
            return Err(Error::invalid("pack: there are bytes after its end"));
        }
        if let Some(flow) = live {
            flow.set_received();
        }
        Ok(stated)
    }

    /// The spool, which has the pack without its trailer, and how many bytes have come out of the pack.
    pub(super) fn into_spool(self) -> (Spool, u64) {
        (self.spool, self.expanded)
    }

    /// Whether the body gave up on a slow client, so that the rest may yet come.
    pub(super) fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// What has come.
    pub(super) fn into_part(self) -> Part {
        let Self { format, limits, spool, buffer, start, end, inflate, remaining, entry, expanded, .. } = self;
        let scan = Scan { format, limits, inflate, remaining, entry, expanded, is_broken: false };
        Part { spool, scan, rest: buffer[start..end].to_vec() }
    }

    /// At least `count` bytes that are not consumed, or `None` if the body ends before.
    fn need(&mut self, count: usize) -> Result<Option<&[u8]>> {
        while self.end - self.start < count {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let into = &mut self.buffer[self.end..];
            if self.read_back < self.kept {
                let read = self.spool.read_at(self.read_back, into).map_err(spool_error)?;
                self.read_back += read as u64;
                self.end += read;
                continue;
            }
            match self.body.read(into) {
                Ok(0) => return Ok(None),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.has_given_up = GivenUp::is_reason_of(&error);
                    return Err(body_error(error));
                }
            }
        }
        Ok(Some(&self.buffer[self.start..self.end]))
    }

    /// Passes `count` bytes on to the checksum and the spool.
    fn consume(&mut self, count: usize) -> Result<()> {
        let bytes = &self.buffer[self.start..self.start + count];
        self.hasher.update(bytes);
        let kept = self.kept.saturating_sub(self.position).min(count as u64) as usize;
        self.spool.write_all(&bytes[kept..]).map_err(spool_error)?;
        self.start += count;
        self.position += count as u64;
        Ok(())
    }

    fn inflate_entry(&mut self, size: u64, out: &mut Vec<u8>) -> Result<()> {
        let size = usize::try_from(size).map_err(|_| Error::too_large("an object is beyond memory"))?;
        out.clear();
        out.shrink_to(size.max(ROOM_BYTES_KEPT));
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

/// How many entries follow the header of a pack.
fn read_pack_header(header: &[u8; HEADER_BYTES], limits: &Limits) -> Result<u32> {
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if &header[..4] != b"PACK" {
        return Err(Error::invalid("pack: it does not begin with PACK"));
    }
    if !(2..=3).contains(&word(4)) {
        return Err(Error::invalid(format!("pack: version {} is not supported", word(4))));
    }
    let (count, limit) = (word(8), limits.pack_objects_max);
    if u64::from(count) > limit {
        return Err(Error::too_large(format!("pack: it claims {count} objects; the limit is {limit}")));
    }
    Ok(count)
}

/// The beginning of a pack that comes slowly. What is behind its entries stays in memory.
pub(crate) struct Part {
    /// The header and entries that have come, the last of them maybe not whole.
    spool: Spool,
    scan: Scan,
    /// What has come and is not in the spool.
    rest: Vec<u8>,
}

impl Part {
    /// How many bytes have come.
    pub(crate) fn len(&self) -> u64 {
        self.spool.len() + self.rest.len() as u64
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.spool.memory_bytes() + self.rest.capacity() as u64
    }

    /// Takes in what has come, and puts it away.
    ///
    /// # Errors
    /// [`ErrorKind::StorageFull`], and whatever else the disk fails with.
    pub(crate) fn take_in(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let entries = self.scan.pass(&self.rest);
        self.spool.write_all(&self.rest[..entries]).and_then(|()| self.spool.put_away()).map_err(spool_error)?;
        self.rest.drain(..entries);
        self.rest.shrink_to(HEADER_BYTES_MAX);
        Ok(())
    }

    /// Whether nothing more is needed: there is so much behind the entries, or they are damaged.
    pub(crate) fn is_enough(&self, behind: usize) -> bool {
        self.scan.is_broken || self.scan.is_at_end() && self.rest.len() >= behind
    }

    /// The spool, and what has come behind what is in there.
    pub(crate) fn into_parts(self) -> (Spool, Vec<u8>) {
        (self.spool, self.rest)
    }
}

/// Finds the end of a pack's entries in bytes that come bit by bit. It is as strict as [`PackStream`] and no stricter: that says
/// what is wrong with a pack in which something is.
struct Scan {
    format: ObjectFormat,
    limits: Limits,
    inflate: Decompress,
    remaining: Option<u32>,
    entry: Option<u64>,
    expanded: u64,
    is_broken: bool,
}

impl Scan {
    fn is_at_end(&self) -> bool {
        self.remaining == Some(0) && self.entry.is_none()
    }

    /// How many of `bytes` belong to the entries and need not be seen again.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut scratch = vec![0; INFLATE_BYTES];
        let mut passed = 0;
        while !self.is_broken {
            match self.step(&bytes[passed..], &mut scratch) {
                Ok(Some(count)) => passed += count,
                Ok(None) => break,
                Err(_) => self.is_broken = true,
            }
        }
        passed
    }

    /// Passes a header or a part of an entry; `None` if more bytes are needed for that, or the entries have ended.
    fn step(&mut self, bytes: &[u8], scratch: &mut [u8]) -> Result<Option<usize>> {
        if let Some(size) = self.entry {
            let Step { consumed, ended } = skip_step(&mut self.inflate, bytes, scratch, size)?;
            if ended {
                self.entry = None;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(1));
            }
            return Ok(Some(consumed).filter(|consumed| ended || *consumed > 0));
        }
        match self.remaining {
            None => {
                let Some(header) = bytes.first_chunk() else { return Ok(None) };
                self.remaining = Some(read_pack_header(header, &self.limits)?);
                Ok(Some(HEADER_BYTES))
            }
            Some(0) => Ok(None),
            Some(_) => {
                let head = &bytes[..bytes.len().min(HEADER_BYTES_MAX + 10)];
                let Some((_, size, header_len)) = read_header(self.format, head)? else { return Ok(None) };
                check_size(size, &self.limits)?;
                self.expanded = self.expanded.saturating_add(size);
                check_expanded(self.expanded, &self.limits)?;
                self.inflate.reset(true);
                self.entry = Some(size);
                Ok(Some(header_len))
            }
        }
    }
}

fn check_size(size: u64, limits: &Limits) -> Result<()> {
    let limit = limits.object_bytes_max;
    if size > limit {
        return Err(Error::too_large(format!("pack: an object of {size} bytes; the limit is {limit}")));
    }
    Ok(())
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

/// As [`inflate_step`], of a stream that began with the last reset; what comes out goes nowhere.
fn skip_step(inflate: &mut Decompress, input: &[u8], scratch: &mut [u8], size: u64) -> Result<Step> {
    let mut consumed = 0;
    loop {
        let (in_before, out_before) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress(&input[consumed..], scratch, FlushDecompress::None);
        let (read, made) = ((inflate.total_in() - in_before) as usize, (inflate.total_out() - out_before) as usize);
        let status = status.map_err(|error| Error::invalid(format!("the zlib stream is damaged: {error}")))?;
        consumed += read;
        let is_size = inflate.total_out() == size;
        match status {
            Status::StreamEnd if is_size => return Ok(Step { consumed, ended: true }),
            Status::StreamEnd => return Err(Error::invalid("the zlib stream is shorter than it announces")),
            _ if inflate.total_out() > size => {
                return Err(Error::invalid("the zlib stream is longer than it announces"));
            }
            _ if consumed == input.len() && made < scratch.len() => return Ok(Step { consumed, ended: false }),
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

    /// Gives up behind so many bytes.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::Error::new(io::ErrorKind::WouldBlock, GivenUp)),
                read => Ok(read),
            }
        }
    }

    /// A pack of a large object, an empty one, a delta of either kind and a small one.
    fn sample(format: ObjectFormat) -> Vec<u8> {
        let noise: Vec<u8> = (0..200_000usize).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        let entries = [
            (EntryKind::Whole(govc_engine::Kind::Blob), noise),
            (EntryKind::Whole(govc_engine::Kind::Blob), Vec::new()),
            (EntryKind::OfsDelta(300), b"some delta".to_vec()),
            (EntryKind::RefDelta(format.empty_tree()), vec![9; 100_000]),
            (EntryKind::Whole(govc_engine::Kind::Blob), b"small".to_vec()),
        ];
        let mut pack = [&b"PACK\0\0\0\x02\0\0\0"[..], &[entries.len() as u8]].concat();
        for (kind, data) in entries {
            super::super::entry::write_header(&mut pack, kind, data.len() as u64);
            pack.extend(deflated(&data));
        }
        let mut hasher = PackHasher::new(format);
        hasher.update(&pack);
        pack.extend_from_slice(hasher.finish().expect("an ordinary pack").as_bytes());
        pack
    }

    /// Reads a pack to its end, or as far as it comes.
    fn read_all(stream: &mut PackStream<'_>) -> Result<(Vec<(u64, u64)>, Oid)> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        stream.open()?;
        while let Some(entry) = stream.next(&mut data)? {
            entries.push((entry.offset, entry.size));
        }
        Ok((entries, stream.end(None)?))
    }

    /// What has come when `before` has, and then `after` in pieces of so many bytes as long as that is not enough.
    fn part_of(format: ObjectFormat, before: &[u8], after: &[u8], piece: usize, behind: usize) -> (Part, usize) {
        let mut body = Slow(before);
        let mut stream = PackStream::new(format, &mut body, Spool::new(None), Limits::default());
        assert!(read_all(&mut stream).is_err() && stream.has_given_up());
        let mut part = stream.into_part();
        part.take_in(&[]).expect("memory takes it");
        let mut pieces = after.chunks(piece);
        while !part.is_enough(behind)
            && let Some(piece) = pieces.next()
        {
            part.take_in(piece).expect("memory takes it");
        }
        (part, pieces.map(<[u8]>::len).sum())
    }

    #[test]
    fn a_pack_that_comes_slowly_is_the_same_pack() {
        for format in ObjectFormat::ALL {
            let pack = sample(format);
            let entries_end = pack.len() - format.len();
            let mut body = &pack[..];
            let mut stream = PackStream::new(format, &mut body, Spool::new(None), Limits::default());
            let whole = read_all(&mut stream).expect("a sound pack");
            let border = |at: usize| at < 40 || at + 200 > pack.len() || at.is_multiple_of(10_007);
            for cut in (0..=pack.len()).filter(|at| border(*at)) {
                for piece in [1, 7, 4096, pack.len()] {
                    if piece == 1 && cut + 1000 < pack.len() {
                        continue;
                    }
                    let (part, unread) = part_of(format, &pack[..cut], &pack[cut..], piece, format.len());
                    assert_eq!((part.len(), unread), (pack.len() as u64, 0), "cut at {cut}, pieces of {piece}");
                    assert!(part.is_enough(format.len()) && !part.is_enough(format.len() + 1));
                    let (spool, behind) = part.into_parts();
                    assert_eq!((spool.len(), behind.len()), (entries_end as u64, format.len()));
                    let mut behind = &behind[..];
                    let mut stream = PackStream::new(format, &mut behind, spool, Limits::default());
                    assert_eq!(read_all(&mut stream).expect("a sound pack"), whole, "cut at {cut}");
                    let mut kept = vec![0; pack.len()];
                    let len = stream.into_spool().0.read_at(0, &mut kept).expect("memory");
                    assert!(kept[..len] == pack[..entries_end], "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_pack_that_comes_slowly_needs_no_more_and_says_the_same() {
        let format = ObjectFormat::Sha1;
        let pack = sample(format);
        let damages: [(usize, u8); 5] = [(0, 1), (7, 9), (12, 0x60), (30, 0xff), (pack.len() - 25, 0xff)];
        for (at, bits) in damages {
            let mut damaged = pack.clone();
            damaged[at] ^= bits;
            let mut body = &damaged[..];
            let mut stream = PackStream::new(format, &mut body, Spool::new(None), Limits::default());
            let said = read_all(&mut stream).expect_err("it is damaged").to_string();
            let cut = at.min(8);
            let (part, unread) = part_of(format, &damaged[..cut], &damaged[cut..], 64, usize::MAX);
            assert!(part.is_enough(usize::MAX) && (unread > 0 || at > 1000), "damaged at {at}");
            let (spool, behind) = part.into_parts();
            let mut behind = &behind[..];
            let mut stream = PackStream::new(format, &mut behind, spool, Limits::default());
            assert_eq!(read_all(&mut stream).expect_err("it is damaged").to_string(), said, "damaged at {at}");
        }
    }

    #[test]
    fn a_large_object_leaves_no_room_behind_for_small_ones() {
        let mut pack = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
        for data in [vec![7; 8 << 20], vec![7; 10]] {
            super::super::entry::write_header(&mut pack, EntryKind::Whole(govc_engine::Kind::Blob), data.len() as u64);
            pack.extend(deflated(&data));
        }
        let mut body = &pack[..];
        let mut stream = PackStream::new(ObjectFormat::Sha1, &mut body, Spool::new(None), Limits::default());
        stream.open().expect("a pack");
        let mut data = Vec::new();
        stream.next(&mut data).expect("sound").expect("an entry");
        assert_eq!(data.len(), 8 << 20);
        stream.next(&mut data).expect("sound").expect("an entry");
        assert_eq!(data, [7; 10]);
        assert!(data.capacity() <= 2 * ROOM_BYTES_KEPT, "{} bytes", data.capacity());
    }
}
