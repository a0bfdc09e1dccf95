//! Slices as packs: one that comes is checked and kept; all that are here are read as one.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use govc_engine::{Error, ObjectFormat, Result, object::PackHasher};

use super::{Slice, write_error};
use crate::git::pack::spool::Folder;
use crate::import::watch::read_error;

const HEADER_LEN: u64 = 12;
const COPY_BYTES: usize = 256 << 10;
/// Bytes written between two looks at the disk's free space.
const ROOM_BYTES: u64 = 4 << 20;

/// Copies a pack of the `format` to a file, and checks that it is one and has the checksum that it states.
pub(super) fn copy_checked(
    format: ObjectFormat,
    pack: &mut dyn Read,
    file: &mut File,
    path: &Path,
    room: &Folder,
    url: &str,
) -> Result<Slice> {
    let damaged = |why: &str| Error::invalid(format!("the pack of {url} {why}"));
    let mut out = BufWriter::with_capacity(COPY_BYTES, file);
    let mut hasher = PackHasher::new(format);
    let mut buffer = vec![0; COPY_BYTES];
    // The last bytes so far: they may be the checksum.
    let mut tail = Vec::new();
    let mut bytes = 0u64;
    let mut header = Vec::new();
    loop {
        let read = match pack.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(error, url)),
        };
        let piece = buffer.get(..read).unwrap_or_default();
        if bytes % ROOM_BYTES + read as u64 >= ROOM_BYTES {
            room.check_room(ROOM_BYTES).map_err(|error| write_error(path, error))?;
        }
        out.write_all(piece).map_err(|error| write_error(path, error))?;
        bytes += read as u64;
        let wanted = (HEADER_LEN as usize).saturating_sub(header.len());
        header.extend_from_slice(piece.get(..wanted).unwrap_or(piece));
        tail.extend_from_slice(piece);
        let sure = tail.len().saturating_sub(format.len());
        hasher.update(tail.get(..sure).unwrap_or_default());
        tail.drain(..sure);
    }
    out.flush().map_err(|error| write_error(path, error))?;
    let count = header.last_chunk::<4>().filter(|_| bytes >= HEADER_LEN + format.len() as u64);
    let count = count.ok_or_else(|| damaged("ends early"))?;
    if !header.starts_with(b"PACK\0\0\0\x02") {
        return Err(damaged("is no pack of version 2"));
    }
    if hasher.finish()?.as_bytes() != tail {
        return Err(damaged("is not what its checksum says"));
    }
    Ok(Slice { bytes, objects: u32::from_be_bytes(*count) })
}

/// The entries of several packs as one: distances between entries stay as they are.
pub(super) struct Joined {
    format: ObjectFormat,
    parts: std::vec::IntoIter<(PathBuf, u64)>,
    now: Box<dyn Read>,
    /// Until the checksum is made.
    hasher: Option<PackHasher>,
    from_file: bool,
}

impl Joined {
    /// So many entries, of packs of so many bytes and the `format`.
    pub(super) fn new(format: ObjectFormat, objects: u32, parts: Vec<(PathBuf, u64)>) -> Self {
        let header = [&b"PACK\0\0\0\x02"[..], &objects.to_be_bytes()].concat();
        let mut hasher = PackHasher::new(format);
        hasher.update(&header);
        Self {
            format,
            parts: parts.into_iter(),
            now: Box::new(io::Cursor::new(header)),
            hasher: Some(hasher),
            from_file: false,
        }
    }

    /// The entries of the next pack, or the checksum; whether there is something.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some((path, bytes)) = self.parts.next() {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(HEADER_LEN))?;
            let entries = bytes.saturating_sub(HEADER_LEN + self.format.len() as u64);
            self.now = Box::new(BufReader::with_capacity(COPY_BYTES, file).take(entries));
            self.from_file = true;
            return Ok(true);
        }
        let Some(hasher) = self.hasher.take() else { return Ok(false) };
        let checksum = hasher.finish().map_err(io::Error::other)?;
        self.now = Box::new(io::Cursor::new(checksum.as_bytes().to_vec()));
        self.from_file = false;
        Ok(true)
    }
}

impl Read for Joined {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.now.read(into).map_err(|error| io::Error::other(read_error(error, "a slice on disk")))?;
            if read > 0 || into.is_empty() {
                if let Some(hasher) = self.hasher.as_mut().filter(|_| self.from_file) {
                    hasher.update(into.get(..read).unwrap_or_default());
                }
                return Ok(read);
            }
            if !self.advance().map_err(|error| io::Error::other(read_error(error, "a slice on disk")))? {
                return Ok(0);
            }
        }
    }
}
