//! The index of a pack, version 2: ids in order, with the CRC-32 and the place of each entry.
//!
//! Source: git's `Documentation/gitformat-pack.adoc`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};

use flate2::Crc;
use govc_engine::{ObjectFormat, Oid, Result, object::PackHasher};

const MAGIC: &[u8] = b"\xfftOc\0\0\0\x02";
/// Offsets from here on stand in a table of their own.
const FAR: u64 = 1 << 31;
const READ_BYTES: usize = 1 << 20;

/// One entry of the pack.
struct Entry {
    oid: Oid,
    offset: u64,
    crc: u32,
}

/// Writes the index of the pack in `pack`, of the `format`, of which `entries` are all and which ends with its checksum. Gives the pack's
/// length in bytes and its checksum.
///
/// # Errors
/// When a file cannot be read or written.
pub(super) fn write(
    format: ObjectFormat,
    entries: Vec<(Oid, u64)>,
    pack: &mut File,
    out: &mut dyn Write,
) -> io::Result<(u64, Oid)> {
    let mut entries: Vec<Entry> = entries.into_iter().map(|(oid, offset)| Entry { oid, offset, crc: 0 }).collect();
    let (bytes, checksum) = sum(format, &mut entries, pack)?;
    entries.sort_unstable_by_key(|entry| entry.oid);
    let mut out = Hashed { out, hasher: PackHasher::new(format) };
    out.write_all(MAGIC)?;
    let mut seen = 0usize;
    for first in 0..=u8::MAX {
        seen += entries.get(seen..).map_or(0, |rest| rest.partition_point(|entry| first_byte(&entry.oid) <= first));
        out.write_all(&(seen as u32).to_be_bytes())?;
    }
    for entry in &entries {
        out.write_all(entry.oid.as_bytes())?;
    }
    for entry in &entries {
        out.write_all(&entry.crc.to_be_bytes())?;
    }
    let mut far = Vec::new();
    for entry in &entries {
        let word = match u32::try_from(entry.offset) {
            Ok(near) if entry.offset < FAR => near,
            _ => {
                far.push(entry.offset);
                // The highest bit says that this is a number in the other table.
                FAR as u32 | (far.len() - 1) as u32
            }
        };
        out.write_all(&word.to_be_bytes())?;
    }
    for offset in far {
        out.write_all(&offset.to_be_bytes())?;
    }
    out.write_all(checksum.as_bytes())?;
    let Hashed { out, hasher } = out;
    out.write_all(finished(hasher)?.as_bytes())?;
    out.flush()?;
    Ok((bytes, checksum))
}

fn first_byte(oid: &Oid) -> u8 {
    oid.as_bytes().first().copied().unwrap_or_default()
}

fn finished(hasher: PackHasher) -> io::Result<Oid> {
    let hash: Result<Oid> = hasher.finish();
    hash.map_err(io::Error::other)
}

/// Reads the pack from beginning to end and fills in every entry's CRC.
fn sum(format: ObjectFormat, entries: &mut [Entry], pack: &mut File) -> io::Result<(u64, Oid)> {
    entries.sort_unstable_by_key(|entry| entry.offset);
    let bytes = pack.seek(SeekFrom::End(0))?;
    let end = bytes.checked_sub(format.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
    let ends: Vec<u64> = entries.iter().skip(1).map(|entry| entry.offset).chain([end]).collect();
    let mut at = entries.first().map_or(end, |entry| entry.offset);
    pack.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::with_capacity(READ_BYTES, &*pack);
    let mut piece = vec![0; READ_BYTES];
    for (entry, end) in entries.iter_mut().zip(ends) {
        let mut crc = Crc::new();
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
            let piece = piece.get_mut(..len).unwrap_or_default();
            reader.read_exact(piece)?;
            crc.update(piece);
            at += len as u64;
        }
        entry.crc = crc.sum();
    }
    let mut checksum = vec![0; format.len()];
    reader.read_exact(&mut checksum)?;
    Ok((bytes, format.oid_from_bytes(&checksum).map_err(io::Error::other)?))
}

/// Hashes what goes through.
struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: PackHasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_two_gigabytes_stand_in_a_table_of_their_own() {
        ObjectFormat::ALL.into_iter().for_each(check_far_places);
    }

    fn check_far_places(format: ObjectFormat) {
        let id_len = format.len();
        let mut pack = tempfile::tempfile().expect("a file");
        // A sparse file: entries at its beginning and far behind, then the checksum.
        let (near, far) = (12u64, (1u64 << 31) + 5);
        pack.set_len(far + 3 + id_len as u64).expect("a sparse file");
        let one = Oid::from_bytes(&vec![1; id_len]).expect("an id");
        let two = Oid::from_bytes(&vec![2; id_len]).expect("an id");
        let mut index = Vec::new();
        let (bytes, checksum) = write(format, vec![(two, far), (one, near)], &mut pack, &mut index).expect("room");
        assert_eq!((bytes, checksum), (far + 3 + id_len as u64, format.null()));
        let words = |from: usize, count: usize| -> Vec<u32> {
            let bytes = index[from..from + 4 * count].chunks_exact(4);
            bytes.map(|word| u32::from_be_bytes(word.try_into().expect("four bytes"))).collect()
        };
        assert_eq!(words(8, 4), [0, 1, 2, 2]);
        let offsets = 8 + 1024 + 2 * id_len + 2 * 4;
        assert_eq!(words(offsets, 4), vec![12, 1 << 31, 0, 0x8000_0005]);
        assert_eq!(index.len(), offsets + 2 * 4 + 8 + 2 * id_len);
        // Three zero bytes.
        assert_eq!(words(offsets - 4, 1), [0xff41_d912]);
    }
}
