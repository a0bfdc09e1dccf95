//! Keys of the families, and the variable-length integers of values; `engine/FORMAT.md` is their document.

use crate::{
    Error, Result,
    object::{ObjectFormat, Oid},
    refs::RefName,
    store::{LfsOid, PoolId, RepoId, Seq},
};

/// The smallest key greater than every key with this prefix; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

pub(crate) const FORMAT: &[u8] = b"format";
pub(crate) const STORE_ID: &[u8] = b"store_id";
pub(crate) const UNFINISHED: &[u8] = b"unfinished";
pub(crate) const INTENT: &[u8] = b"intent/";
pub(crate) const SEGMENT_ROW: &[u8] = b"segment/";
pub(crate) const NOTE: &[u8] = b"note/";
pub(crate) const LFS_OBJECT: &[u8] = b"lfs/";
pub(crate) const LFS_OPEN: &[u8] = b"lfs_open/";
pub(crate) const LFS_LOCK: &[u8] = b"lfs_lock/";
pub(crate) const LFS_LOCKED: &[u8] = b"lfs_locked/";
/// Where the number of a segment stands in the keys of blocks; no segment has this one.
pub(crate) const LFS_SEGMENT: u32 = u32::MAX;
/// How long the key of a chunk is, which no block's is.
pub(crate) const LFS_CHUNK_LEN: usize = 20;
pub(crate) const NEXT_SEGMENT: &[u8] = b"next_segment";
pub(crate) const NEXT_SEQ: &[u8] = b"next_seq";
pub(crate) const FEED_FLOOR: &[u8] = b"feed_floor";
pub(crate) const NEXT_REPO: &[u8] = b"next_repo";
pub(crate) const FEED: u8 = b'f';
pub(crate) const VERSION: u8 = b'v';

pub(crate) fn repo(repo: RepoId) -> Vec<u8> {
    repo.0.to_be_bytes().to_vec()
}

pub(crate) fn reference(repo: RepoId, name: &RefName) -> Vec<u8> {
    [&repo.0.to_be_bytes(), name.as_bytes()].concat()
}

pub(crate) fn version(repo: RepoId, number: u64) -> Vec<u8> {
    [&[VERSION][..], &repo.0.to_be_bytes(), &number.to_be_bytes()].concat()
}

pub(crate) fn versions(repo: RepoId) -> Vec<u8> {
    [&[VERSION][..], &repo.0.to_be_bytes()].concat()
}

pub(crate) fn feed(seq: Seq) -> Vec<u8> {
    [&[FEED][..], &seq.0.to_be_bytes()].concat()
}

pub(crate) fn journal(seq: Seq) -> Vec<u8> {
    seq.0.to_be_bytes().to_vec()
}

pub(crate) fn pool(pool: PoolId) -> Vec<u8> {
    pool.0.to_be_bytes().to_vec()
}

pub(crate) fn id(pool: PoolId, oid: &Oid) -> Vec<u8> {
    [&pool.0.to_be_bytes(), oid.as_bytes()].concat()
}

pub(crate) fn segment(pool: PoolId, segment: u32) -> Vec<u8> {
    [&pool.0.to_be_bytes()[..], &segment.to_be_bytes()].concat()
}

pub(crate) fn block_part(pool: PoolId, segment: u32, block: u32, part: u16) -> Vec<u8> {
    [&pool.0.to_be_bytes()[..], &segment.to_be_bytes(), &block.to_be_bytes(), &part.to_be_bytes()].concat()
}

pub(crate) fn intent(segment: u32) -> Vec<u8> {
    [INTENT, &segment.to_be_bytes()].concat()
}

pub(crate) fn segment_rows_of(pool: PoolId) -> Vec<u8> {
    [SEGMENT_ROW, &pool.0.to_be_bytes()].concat()
}

pub(crate) fn segment_row(pool: PoolId, segment: u32) -> Vec<u8> {
    [SEGMENT_ROW, &pool.0.to_be_bytes(), &segment.to_be_bytes()].concat()
}

/// Where the chunks of a pool's large contents begin, behind all of its blocks.
pub(crate) fn lfs_of(pool: PoolId) -> Vec<u8> {
    segment(pool, LFS_SEGMENT)
}

pub(crate) fn lfs_chunks(pool: PoolId, number: u32) -> Vec<u8> {
    [&lfs_of(pool)[..], &number.to_be_bytes()].concat()
}

pub(crate) fn lfs_chunk(pool: PoolId, number: u32, chunk: u32) -> Vec<u8> {
    [&lfs_chunks(pool, number)[..], &chunk.to_be_bytes()].concat()
}

pub(crate) fn lfs_objects(pool: PoolId) -> Vec<u8> {
    [LFS_OBJECT, &pool.0.to_be_bytes()].concat()
}

pub(crate) fn lfs_object(pool: PoolId, oid: &LfsOid) -> Vec<u8> {
    [LFS_OBJECT, &pool.0.to_be_bytes(), oid.as_bytes()].concat()
}

pub(crate) fn lfs_open(number: u32) -> Vec<u8> {
    [LFS_OPEN, &number.to_be_bytes()].concat()
}

pub(crate) fn lfs_locks(pool: PoolId) -> Vec<u8> {
    [LFS_LOCK, &pool.0.to_be_bytes()].concat()
}

pub(crate) fn lfs_lock(pool: PoolId, number: u32) -> Vec<u8> {
    [LFS_LOCK, &pool.0.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

pub(crate) fn lfs_locked_paths(pool: PoolId) -> Vec<u8> {
    [LFS_LOCKED, &pool.0.to_be_bytes()].concat()
}

pub(crate) fn lfs_locked_path(pool: PoolId, path: &str) -> Vec<u8> {
    [LFS_LOCKED, &pool.0.to_be_bytes(), path.as_bytes()].concat()
}

pub(crate) fn note(name: &[u8]) -> Vec<u8> {
    [NOTE, name].concat()
}

/// Reads a big-endian number at the end of a key.
pub(crate) fn trailing_u64(key: &[u8]) -> Result<u64> {
    let bytes = key.last_chunk::<8>().ok_or_else(|| Error::corrupt("a stored key is too short"))?;
    Ok(u64::from_be_bytes(*bytes))
}

/// Appends an unsigned integer, seven bits a byte, least first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads values written by [`put_varint`] and [`put_bytes`]; every overrun is an error, never a panic.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn short() -> Error {
        Error::corrupt("a stored value ends early")
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.rest.split_first().ok_or_else(Self::short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::corrupt("a stored number is too long"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| Error::corrupt("a stored number is out of range"))
    }

    pub(crate) fn usize(&mut self) -> Result<usize> {
        usize::try_from(self.varint()?).map_err(|_| Error::corrupt("a stored number is out of range"))
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        if len > self.rest.len() {
            return Err(Self::short());
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.usize()?;
        self.take(len)
    }

    pub(crate) fn string(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::corrupt("a stored text is not UTF-8"))
    }

    pub(crate) fn oid(&mut self, format: ObjectFormat) -> Result<Oid> {
        Oid::from_bytes(self.take(format.len())?)
    }
}

/// Appends a checksum over everything in `out`.
pub(crate) fn seal(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Checks and removes the checksum of [`seal`].
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`], naming `what`.
pub(crate) fn unseal<'a>(bytes: &'a [u8], what: &str) -> Result<&'a [u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| Error::corrupt(format!("{what} is too short")))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(Error::corrupt(format!("{what} fails its checksum")));
    }
    Ok(body)
}

/// Checks the version byte that opens every value.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if it is newer than `known`.
pub(crate) fn check_version(reader: &mut Reader<'_>, known: u8, what: &str) -> Result<u8> {
    let version = reader.byte()?;
    if version == 0 || version > known {
        return Err(Error::corrupt(format!("{what} has version {version}; this program knows up to {known}")));
    }
    Ok(version)
}
