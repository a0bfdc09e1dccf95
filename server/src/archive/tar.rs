//! A tar file as `git archive` writes it, to the byte: POSIX ustar, with pax headers for what does not fit in it.
//!
//! The commit's id is the comment of a global header. Owners are root, modes those of a umask of 002, times the commit's.
//! Source: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Interchange Format"; git's `archive-tar`, for its choices.

use govc_engine::Oid;

use super::entries::EntryKind;

const RECORD_BYTES: usize = 512;
/// What a tar file is a multiple of.
const BLOCK_BYTES: u64 = 20 * RECORD_BYTES as u64;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// The largest number of eleven octal digits.
const NUMBER_MAX: u64 = 0o77_777_777_777;

/// Writes the headers of a tar file, and what is between its files.
#[derive(Debug)]
pub(super) struct Tar {
    /// In seconds since the epoch, as far as a header can say it.
    seconds: u64,
    /// What was written.
    bytes: u64,
}

/// What a header says beside its name.
struct Header<'a> {
    type_flag: u8,
    mode: u32,
    size: u64,
    prefix: &'a [u8],
    link: &'a [u8],
}

impl Tar {
    /// Begins a file with the commit that it is of.
    pub(super) fn begin(commit: Oid, seconds: i64, out: &mut Vec<u8>) -> Self {
        let seconds = u64::try_from(seconds).unwrap_or_default();
        let mut tar = Self { seconds: seconds.min(NUMBER_MAX), bytes: 0 };
        let mut comment = Vec::new();
        pax_record(&mut comment, "comment", commit.to_string().as_bytes());
        if seconds > NUMBER_MAX {
            pax_record(&mut comment, "mtime", seconds.to_string().as_bytes());
        }
        tar.pax(b'g', b"pax_global_header", &comment, out);
        tar
    }

    /// Writes what is in front of an entry's content: of a file's with `size` bytes, or of the link to `target`.
    pub(super) fn entry(&mut self, path: &[u8], kind: EntryKind, oid: Oid, content: Content<'_>, out: &mut Vec<u8>) {
        let (type_flag, mode) = match kind {
            EntryKind::File { executable: true } => (b'0', 0o775),
            EntryKind::File { executable: false } => (b'0', 0o664),
            EntryKind::Link => (b'2', 0o777),
            EntryKind::Directory => (b'5', 0o775),
        };
        let mut extended = Vec::new();
        let (long_name, long_link, size);
        let (prefix, name) = match split(path) {
            Some(parts) => parts,
            None => {
                pax_record(&mut extended, "path", path);
                long_name = format!("{oid}.data");
                (b"".as_slice(), long_name.as_bytes())
            }
        };
        let link = match content {
            Content::Target(target) if target.len() > NAME_BYTES => {
                pax_record(&mut extended, "linkpath", target);
                long_link = format!("see {oid}.paxheader");
                long_link.as_bytes()
            }
            Content::Target(target) => target,
            _ => b"",
        };
        match content {
            Content::Bytes(bytes) if bytes > NUMBER_MAX => {
                pax_record(&mut extended, "size", bytes.to_string().as_bytes());
                size = 0;
            }
            Content::Bytes(bytes) => size = bytes,
            _ => size = 0,
        }
        if !extended.is_empty() {
            self.pax(b'x', format!("{oid}.paxheader").as_bytes(), &extended, out);
        }
        self.header(name, &Header { type_flag, mode, size, prefix, link }, out);
    }

    /// Writes a part of a file's content.
    pub(super) fn content(&mut self, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(data);
        self.bytes += data.len() as u64;
    }

    /// Writes what is behind a file's content.
    pub(super) fn pad(&mut self, out: &mut Vec<u8>) {
        self.zeros(self.bytes.next_multiple_of(RECORD_BYTES as u64) - self.bytes, out);
    }

    /// Writes the end: two empty records at least, and what makes the blocks full.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        let end = (self.bytes + 2 * RECORD_BYTES as u64).next_multiple_of(BLOCK_BYTES);
        self.zeros(end - self.bytes, out);
    }

    fn zeros(&mut self, count: u64, out: &mut Vec<u8>) {
        let count = usize::try_from(count).unwrap_or_default();
        out.resize(out.len() + count, 0);
        self.bytes += count as u64;
    }

    /// Writes an extended header and its records.
    fn pax(&mut self, type_flag: u8, name: &[u8], records: &[u8], out: &mut Vec<u8>) {
        let size = records.len() as u64;
        self.header(name, &Header { type_flag, mode: 0o666, size, prefix: b"", link: b"" }, out);
        self.content(records, out);
        self.pad(out);
    }

    fn header(&mut self, name: &[u8], header: &Header<'_>, out: &mut Vec<u8>) {
        let mut record = Vec::with_capacity(RECORD_BYTES);
        let mut field = |bytes: usize, text: &[u8]| {
            let end = record.len() + bytes;
            record.extend_from_slice(text);
            record.resize(end, 0);
        };
        field(NAME_BYTES, name);
        field(8, format!("{:07o}", header.mode).as_bytes());
        field(8, b"0000000");
        field(8, b"0000000");
        field(12, format!("{:011o}", header.size).as_bytes());
        field(12, format!("{:011o}", self.seconds).as_bytes());
        // The checksum counts itself as blanks.
        field(8, b"        ");
        field(1, &[header.type_flag]);
        field(NAME_BYTES, header.link);
        field(8, b"ustar\x0000");
        field(32, b"root");
        field(32, b"root");
        field(8, b"0000000");
        field(8, b"0000000");
        field(PREFIX_BYTES, header.prefix);
        field(12, b"");
        let sum: u32 = record.iter().map(|byte| u32::from(*byte)).sum();
        let checksum = 148..156;
        record.splice(checksum, format!("{sum:07o}\0").into_bytes());
        out.extend_from_slice(&record);
        self.bytes += record.len() as u64;
    }
}

/// What belongs to an entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    Nothing,
    /// So many bytes follow.
    Bytes(u64),
    /// Where a link leads.
    Target(&'a [u8]),
}

/// A path as prefix and name, if a header has room for it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= NAME_BYTES {
        return Some((b"", path));
    }
    let end = path.strip_suffix(b"/").unwrap_or(path).len().min(PREFIX_BYTES);
    let slash = path.get(..end)?.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0)?;
    let name = path.get(slash + 1..)?;
    (name.len() <= NAME_BYTES).then_some((path.get(..slash)?, name))
}

/// Adds `length key=value\n`; the length counts its own digits.
fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::{pax_record, split};

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for (value, length) in [(0, 4), (4, 8), (5, 9), (6, 11), (7, 12), (93, 98), (94, 99), (95, 101), (96, 102)] {
            let mut record = Vec::new();
            pax_record(&mut record, "", &vec![b'x'; value]);
            assert_eq!(record.len(), length, "of {value} bytes");
            assert!(record.starts_with(format!("{length} =").as_bytes()));
        }
    }

    #[test]
    fn long_paths_are_split_where_it_fits() {
        let (d, f) = ("d".repeat(90), "f".repeat(100));
        assert_eq!(split(f.as_bytes()), Some((b"".as_slice(), f.as_bytes())));
        assert_eq!(split(format!("{d}/{f}").as_bytes()), Some((d.as_bytes(), f.as_bytes())));
        assert_eq!(split(format!("{d}/{f}x").as_bytes()), None);
        assert_eq!(split(format!("/{f}").as_bytes()), None, "nothing is no prefix");
        let directory = format!("{d}/{}/", "f".repeat(99));
        assert_eq!(split(directory.as_bytes()).map(|(_, name)| name.len()), Some(100));
        assert_eq!(split(format!("{}/{f}", "d".repeat(155)).as_bytes()), None);
        let deep = format!("{}/{}/{}", "a".repeat(80), "b".repeat(74), "c".repeat(20));
        assert_eq!(split(deep.as_bytes()).map(|(prefix, _)| prefix.len()), Some(80), "the slash at 155 is too far");
    }
}
