//! A zip file with the choices of `git archive`: deflated unless that makes a file larger, links and executable files with
//! their modes, the commit's id as the comment.
//!
//! It is written from beginning to end, without going back: the sizes of large files stand behind them. Of what the
//! directory at the end needs, a few bytes an entry are kept ([`Zip::kept_bytes`]); names come from a second walk.
//! Source: PKWARE's APPNOTE.TXT 6.3; git's `archive-zip`, for its choices.

use std::io::Write as _;

use flate2::{Compression, Crc, write::DeflateEncoder};
use govc_engine::{Error, Oid, Result};

use super::entries::EntryKind;

/// Files up to this size are compressed in one go, and may then be stored as they are.
pub(super) const WHOLE_BYTES_MAX: u64 = 256 << 10;
const LEVEL: u32 = 6;
/// From here on, 32 bits are not enough.
const SHORT_MAX: u64 = 0xffff_ffff;
/// A streamed file of more bytes says its sizes in 64 bits: how small it becomes is not known in front.
const STREAMED_SHORT_MAX: u64 = 0x7fff_ffff;

const STREAMED: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

/// How much of a file tells whether it is a text, in bytes.
const TEXT_CHECK_BYTES: usize = 8000;

/// Writes a zip file.
pub(super) struct Zip {
    times: Times,
    commit: Oid,
    /// What was written; in the second walk, where the entry's header is.
    offset: u64,
    /// [`Kept`]s, one behind the other.
    kept: Vec<u8>,
    count: u64,
    streaming: Option<Streaming>,
    directory: Option<Directory>,
}

/// When the commit was made, as zip files say it.
#[derive(Debug, Clone, Copy)]
struct Times {
    date: u16,
    time: u16,
    unix: Option<i32>,
}

/// A large file on its way.
struct Streaming {
    encoder: DeflateEncoder<Vec<u8>>,
    crc: Crc,
    kept: Kept,
}

/// The directory at the end, as far as it is written.
struct Directory {
    begin: u64,
    bytes: u64,
    /// Where the next entry's [`Kept`] begins.
    at: usize,
}

/// What the directory says of an entry beside its name and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kept {
    deflated: bool,
    streamed: bool,
    text: bool,
    crc: u32,
    compressed: u64,
    size: u64,
}

impl Zip {
    /// Begins a file with the tree of a commit that was made then, in seconds since the epoch.
    pub(super) fn new(commit: Oid, seconds: i64) -> Self {
        let times = Times::of(seconds);
        Self { times, commit, offset: 0, kept: Vec::new(), count: 0, streaming: None, directory: None }
    }

    /// How many bytes are kept of the entries so far.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.capacity() as u64
    }

    /// Writes a directory.
    pub(super) fn directory(&mut self, path: &[u8], out: &mut Vec<u8>) {
        self.local(path, Kept::default(), out);
        self.keep(Kept::default());
    }

    /// Writes a link, or a file of few bytes. `is_text` of a file if its attributes say so.
    ///
    /// # Errors
    /// When compression fails.
    pub(super) fn whole(
        &mut self,
        path: &[u8],
        kind: EntryKind,
        data: &[u8],
        is_text: Option<bool>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let mut crc = Crc::new();
        crc.update(data);
        let size = data.len() as u64;
        let text = is_text.unwrap_or_else(|| looks_like_text(data));
        let stored = Kept { text, crc: crc.sum(), compressed: size, size, ..Kept::default() };
        let mut packed = Vec::new();
        if kind != EntryKind::Link && size > 0 {
            let mut encoder = DeflateEncoder::new(packed, Compression::new(LEVEL));
            packed = encoder.write_all(data).and_then(|()| encoder.finish()).map_err(failed)?;
        }
        let deflated = !packed.is_empty() && (packed.len() as u64) < size;
        let (kept, content) = if deflated {
            (Kept { deflated, compressed: packed.len() as u64, ..stored }, packed.as_slice())
        } else {
            (stored, data)
        };
        self.local(path, kept, out);
        self.write(content, out);
        self.keep(kept);
        Ok(())
    }

    /// Begins a file of many bytes.
    pub(super) fn begin(&mut self, path: &[u8], data: &[u8], is_text: Option<bool>, out: &mut Vec<u8>) {
        let text = is_text.unwrap_or_else(|| looks_like_text(data));
        let kept = Kept { deflated: true, streamed: true, text, size: data.len() as u64, ..Kept::default() };
        self.local(path, kept, out);
        let encoder = DeflateEncoder::new(Vec::new(), Compression::new(LEVEL));
        self.streaming = Some(Streaming { encoder, crc: Crc::new(), kept });
    }

    /// Writes a part of that file.
    ///
    /// # Errors
    /// When compression fails.
    pub(super) fn content(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if let Some(streaming) = &mut self.streaming {
            streaming.crc.update(data);
            streaming.encoder.write_all(data).map_err(failed)?;
            let packed = std::mem::take(streaming.encoder.get_mut());
            streaming.kept.compressed += packed.len() as u64;
            self.write(&packed, out);
        }
        Ok(())
    }

    /// Writes what is behind that file.
    ///
    /// # Errors
    /// When compression fails.
    pub(super) fn end_content(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(streaming) = self.streaming.take() else { return Ok(()) };
        let packed = streaming.encoder.finish().map_err(failed)?;
        self.write(&packed, out);
        let mut kept = streaming.kept;
        kept.compressed += packed.len() as u64;
        kept.crc = streaming.crc.sum();
        let mut descriptor = Fields::default();
        descriptor.u32(0x0807_4b50).u32(kept.crc);
        for size in [kept.compressed, kept.size] {
            if kept.is_long() {
                descriptor.u64(size)
            } else {
                descriptor.clamped_u32(size)
            };
        }
        self.write(&descriptor.0, out);
        self.keep(kept);
        Ok(())
    }

    /// Writes an entry of the directory, in the order in which the entries were written.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Corrupt`] if there were not so many.
    pub(super) fn listed(&mut self, path: &[u8], kind: EntryKind, out: &mut Vec<u8>) -> Result<()> {
        let begin = self.offset;
        let directory = self.directory.get_or_insert_with(|| {
            self.offset = 0;
            Directory { begin, bytes: 0, at: 0 }
        });
        let (kept, at) = Kept::read(&self.kept, directory.at)
            .ok_or_else(|| Error::corrupt("the tree changed while it was archived"))?;
        let offset = self.offset;
        let mut long = Fields::default();
        for number in [kept.size, kept.compressed, offset] {
            if number >= SHORT_MAX {
                long.u64(number);
            }
        }
        let time = self.times.extra();
        let long_bytes = if long.0.is_empty() { 0 } else { long.0.len() + 4 };
        let (made_by, mode) = match kind {
            EntryKind::Directory => (0, 16),
            EntryKind::File { executable: false } => (0, 0),
            EntryKind::File { executable: true } => (0x0317, 0o100_755 << 16),
            EntryKind::Link => (0x0317, 0o120_777 << 16),
        };
        let mut entry = Fields::default();
        entry.u32(0x0201_4b50).u16(made_by);
        kept.head(path, self.times, long_bytes > 0, &mut entry);
        entry.u32(kept.crc).clamped_u32(kept.compressed).clamped_u32(kept.size);
        entry.u16(short(path.len())).u16(short(time.len() + long_bytes)).u16(0).u16(0);
        entry.u16(u16::from(kept.text && kind != EntryKind::Directory)).u32(mode).clamped_u32(offset);
        entry.0.extend_from_slice(path);
        entry.0.extend_from_slice(&time);
        if long_bytes > 0 {
            entry.u16(1).u16(short(long.0.len()));
            entry.0.extend_from_slice(&long.0);
        }
        out.extend_from_slice(&entry.0);
        directory.bytes += entry.0.len() as u64;
        directory.at = at;
        self.offset += kept.local_bytes(path, self.times);
        Ok(())
    }

    /// Writes the end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        let nothing = Directory { begin: self.offset, bytes: 0, at: 0 };
        let Directory { begin, bytes, .. } = self.directory.take().unwrap_or(nothing);
        let count = self.count;
        let mut end = Fields::default();
        if count >= 0xffff || bytes >= SHORT_MAX || begin >= SHORT_MAX {
            end.u32(0x0606_4b50).u64(44).u16(0x032d).u16(45).u32(0).u32(0);
            end.u64(count).u64(count).u64(bytes).u64(begin);
            end.u32(0x0706_4b50).u32(0).u64(begin + bytes).u32(1);
        }
        let comment = self.commit.to_string();
        let shown = u16::try_from(count).unwrap_or(u16::MAX);
        end.u32(0x0605_4b50).u16(0).u16(0).u16(shown).u16(shown).clamped_u32(bytes).clamped_u32(begin);
        end.u16(short(comment.len()));
        out.extend_from_slice(&end.0);
        out.extend_from_slice(comment.as_bytes());
    }

    /// Writes an entry's header.
    fn local(&mut self, path: &[u8], kept: Kept, out: &mut Vec<u8>) {
        let time = self.times.extra();
        let is_long = kept.is_long();
        let mut header = Fields::default();
        header.u32(0x0403_4b50);
        kept.head(path, self.times, is_long, &mut header);
        match (kept.streamed, is_long) {
            (true, true) => header.u32(0).u32(u32::MAX).u32(u32::MAX),
            (true, false) => header.u32(0).u32(0).u32(0),
            (false, _) => header.u32(kept.crc).clamped_u32(kept.compressed).clamped_u32(kept.size),
        };
        header.u16(short(path.len())).u16(short(time.len() + if is_long { 20 } else { 0 }));
        header.0.extend_from_slice(path);
        header.0.extend_from_slice(&time);
        if is_long {
            header.u16(1).u16(16).u64(0).u64(0);
        }
        self.write(&header.0, out);
    }

    fn write(&mut self, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(data);
        self.offset += data.len() as u64;
    }

    fn keep(&mut self, kept: Kept) {
        kept.write(&mut self.kept);
        self.count += 1;
    }
}

impl Kept {
    /// Whether the sizes in front of and behind the content have 64 bits.
    fn is_long(self) -> bool {
        self.size > if self.streamed { STREAMED_SHORT_MAX } else { SHORT_MAX }
    }

    /// Writes what both of an entry's headers begin with.
    fn head(self, path: &[u8], times: Times, is_long: bool, to: &mut Fields) {
        let is_utf8 = !path.is_ascii() && std::str::from_utf8(path).is_ok();
        let flags = if self.streamed { STREAMED } else { 0 } | if is_utf8 { UTF8 } else { 0 };
        let needed = if is_long || self.is_long() { 45 } else { 20 };
        to.u16(needed).u16(flags).u16(if self.deflated { 8 } else { 0 }).u16(times.time).u16(times.date);
    }

    /// How many bytes there are from the beginning of an entry to that of the next.
    fn local_bytes(self, path: &[u8], times: Times) -> u64 {
        let long = if self.is_long() { 20 } else { 0 };
        let behind = match (self.streamed, self.is_long()) {
            (false, _) => 0,
            (true, false) => 16,
            (true, true) => 24,
        };
        (30 + path.len() + times.extra().len() + long + behind) as u64 + self.compressed
    }

    /// Adds itself: flags, checksum, and the sizes in as few bytes as they need.
    fn write(self, to: &mut Vec<u8>) {
        to.push(u8::from(self.deflated) | u8::from(self.streamed) << 1 | u8::from(self.text) << 2);
        to.extend_from_slice(&self.crc.to_le_bytes());
        for mut number in [self.compressed, self.size] {
            while number >= 0x80 {
                to.push(number as u8 | 0x80);
                number >>= 7;
            }
            to.push(number as u8);
        }
    }

    /// What is at `at`, and where the next one is.
    fn read(from: &[u8], at: usize) -> Option<(Self, usize)> {
        let (flags, rest) = from.get(at..)?.split_first()?;
        let (crc, mut rest) = rest.split_first_chunk::<4>()?;
        let mut numbers = [0u64; 2];
        for number in &mut numbers {
            let mut shift = 0;
            loop {
                let (byte, after) = rest.split_first()?;
                rest = after;
                *number |= u64::from(byte & 0x7f).checked_shl(shift)?;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        let [compressed, size] = numbers;
        let has = |bit: u8| flags & bit != 0;
        let crc = u32::from_le_bytes(*crc);
        let kept = Self { deflated: has(1), streamed: has(2), text: has(4), crc, compressed, size };
        Some((kept, from.len() - rest.len()))
    }
}

impl Times {
    /// As near as the format comes: 1980 to 2107 in steps of two seconds, in UTC, and in seconds until 2038.
    fn of(seconds: i64) -> Self {
        let first = jiff::civil::date(1980, 1, 1).at(0, 0, 0, 0);
        let last = jiff::civil::date(2107, 12, 31).at(23, 59, 58, 0);
        let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let moment = jiff::tz::Offset::UTC.to_datetime(moment).clamp(first, last);
        let number = |value: i16| u16::try_from(value).unwrap_or_default();
        let small = |value: i8| number(i16::from(value));
        let date = (number(moment.year()) - 1980) << 9 | small(moment.month()) << 5 | small(moment.day());
        let time = small(moment.hour()) << 11 | small(moment.minute()) << 5 | (small(moment.second()) / 2);
        Self { date, time, unix: i32::try_from(seconds).ok() }
    }

    /// The extra field with the exact time.
    fn extra(self) -> Vec<u8> {
        let mut extra = Fields::default();
        if let Some(unix) = self.unix {
            extra.u16(0x5455).u16(5);
            extra.0.push(1);
            extra.0.extend_from_slice(&unix.to_le_bytes());
        }
        extra.0
    }
}

/// Numbers in the order of a zip file, lowest byte first.
#[derive(Debug, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u16(&mut self, number: u16) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    /// The number, or the largest that fits, which says that it is elsewhere.
    fn clamped_u32(&mut self, number: u64) -> &mut Self {
        self.u32(u32::try_from(number).unwrap_or(u32::MAX))
    }
}

/// Lengths that were checked before: paths and extra fields.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Git's guess.
fn looks_like_text(data: &[u8]) -> bool {
    !data.iter().take(TEXT_CHECK_BYTES).any(|byte| *byte == 0)
}

fn failed(error: std::io::Error) -> Error {
    Error::corrupt(format!("compression failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{Kept, Times};

    #[test]
    fn what_is_kept_is_read_back() {
        let first =
            Kept { deflated: true, text: true, crc: 0xdead_beef, compressed: 127, size: 128, ..Kept::default() };
        let second = Kept { streamed: true, deflated: true, compressed: u64::MAX, size: 1 << 32, ..Kept::default() };
        let mut bytes = Vec::new();
        first.write(&mut bytes);
        second.write(&mut bytes);
        let (found, at) = Kept::read(&bytes, 0).expect("the first");
        assert_eq!((found, at), (first, 8));
        assert_eq!(Kept::read(&bytes, at), Some((second, bytes.len())));
        assert_eq!(Kept::read(&bytes, bytes.len()), None);
        assert_eq!(Kept::read(bytes.get(..6).expect("a part"), 0), None);
    }

    #[test]
    fn times_are_those_of_dos() {
        let of = |seconds| (Times::of(seconds).date, Times::of(seconds).time, Times::of(seconds).unix);
        // 2023-11-14 22:13:20.
        let (date, time) = (43 << 9 | 11 << 5 | 14, 22 << 11 | 13 << 5 | 10);
        assert_eq!(of(1_700_000_000), (date, time, Some(1_700_000_000)));
        assert_eq!(of(0), (1 << 5 | 1, 0, Some(0)));
        assert_eq!(of(-1), (1 << 5 | 1, 0, Some(-1)));
        assert_eq!(of(i64::MAX).2, None);
        assert_eq!(of(1 << 33).0 >> 9, 127, "the last year that can be said");
    }
}
