//! Large contents beside a repository's objects, for Git LFS: found by the SHA-256 of their bytes, stored in chunks.
//!
//! Chunks go to the backend unsynced as they come, after an intent that names the upload, and nothing leads to them. What
//! makes a content visible is one small row, written after all chunks and only if their hash is the one that was
//! promised, together with the removal of the intent; then all is synced. An upload that is dropped before removes its
//! chunks; what a crash cut off, the next opening removes ([`super::recovery`]).
//!
//! Contents belong to a pool, as objects do: a fork finds those that its source got up to the version that was forked,
//! and what comes at later versions of either is its own. They stay until nobody needs the pool: no reference leads to a content, only texts
//! of files do, which the engine does not read.
//!
//! | file | owns |
//! |---|---|
//! | `mod` | ids, rows, reading |
//! | `upload` | bytes on their way in |
//! | `lock` | who has reserved a path |
//! | `check` | what [`super::Fsck`] finds of them |

mod check;
mod lock;
mod upload;

use std::{fmt, str::FromStr};

use bytes::Bytes;

pub(super) use self::check::{chunk_row, contents, locks, meta_row};
pub use self::{lock::LfsLock, upload::LfsUpload};
use super::{core::Core, ids::PoolId, pool::Pool, state::Repo};
use crate::{
    Error, Result,
    backend::{
        Batch, Family,
        key::{self, Reader, check_version, put_varint, seal, unseal},
    },
};

/// In how many bytes contents are stored together; the last chunk of a content has fewer.
pub const LFS_CHUNK_BYTES: usize = 1 << 20;
/// What stands behind a stored chunk.
const CHECKSUM_BYTES: usize = 4;
/// The version of [`LfsRow`] that is written.
const VERSION: u8 = 1;

/// The SHA-256 of a content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LfsOid([u8; 32]);

/// A content that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LfsObject {
    oid: LfsOid,
    size: u64,
    /// The pool that it is in, the repository's own or one under it.
    pool: PoolId,
    /// The upload that brought it.
    number: u32,
}

/// Where a content is: a value of the family `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LfsRow {
    pub(super) number: u32,
    pub(super) size: u64,
    /// The version that readers of the repository saw when it came.
    pub(super) since: u64,
    /// When that was, in milliseconds since the Unix epoch.
    pub(super) millis: i64,
}

impl LfsOid {
    /// The id of these bytes of a hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for LfsOid {
    type Err = Error;

    /// Reads 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid("an object is named by a SHA-256 of 64 lower-case hexadecimal digits");
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(invalid()),
                };
                *byte = *byte << 4 | value;
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for LfsOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LfsOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl LfsObject {
    /// The SHA-256 of its bytes.
    pub fn oid(&self) -> LfsOid {
        self.oid
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl LfsRow {
    fn encode(self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, u64::from(self.number));
        put_varint(&mut out, self.size);
        put_varint(&mut out, self.since);
        put_varint(&mut out, self.millis as u64);
        seal(&mut out);
        out
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let body = unseal(value, "the row of a large content")?;
        let mut reader = Reader::new(body);
        check_version(&mut reader, VERSION, "the row of a large content")?;
        let row = Self {
            number: reader.varint_u32()?,
            size: reader.varint()?,
            since: reader.varint()?,
            millis: reader.varint()? as i64,
        };
        if !reader.is_empty() {
            return Err(Error::corrupt("the row of a large content goes on"));
        }
        Ok(row)
    }

    /// How many bytes the chunk of this number has; `None` if there is none.
    pub(super) fn chunk_bytes(self, chunk: u64) -> Option<usize> {
        chunk_bytes(self.size, chunk)
    }
}

/// How many bytes a chunk of a content of `size` bytes has; `None` behind the last.
fn chunk_bytes(size: u64, chunk: u64) -> Option<usize> {
    let left = size.checked_sub(chunk.checked_mul(LFS_CHUNK_BYTES as u64)?).filter(|left| *left > 0)?;
    Some(usize::try_from(left).unwrap_or(usize::MAX).min(LFS_CHUNK_BYTES))
}

impl Repo {
    /// The content with this hash, if the repository has it.
    ///
    /// # Errors
    /// When the storage fails or is damaged.
    pub fn lfs_object(&self, oid: &LfsOid) -> Result<Option<LfsObject>> {
        for (layer, until) in self.state.pool.layers() {
            if let Some(row) = self.core.lfs_row(layer, oid)?.filter(|row| row.since <= until) {
                return Ok(Some(LfsObject { oid: *oid, size: row.size, pool: layer.id, number: row.number }));
            }
        }
        Ok(None)
    }

    /// The bytes of a content from `chunk * LFS_CHUNK_BYTES` on, at most that many.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] behind the end; [`crate::ErrorKind::NotFound`] if the repository has been deleted
    /// meanwhile; else when the storage fails or is damaged.
    pub fn lfs_chunk(&self, object: &LfsObject, chunk: u64) -> Result<Bytes> {
        let behind = || Error::invalid(format!("object {} has no chunk {chunk}", object.oid));
        let bytes = chunk_bytes(object.size, chunk).ok_or_else(behind)?;
        let chunk = u32::try_from(chunk).map_err(|_| behind())?;
        let layer = self.state.pool.layers().map(|(layer, _)| layer).find(|layer| layer.id == object.pool);
        let memory = layer.and_then(|layer| layer.memory.as_ref());
        let found = match memory {
            Some(memory) => memory.segments().and_then(|all| all.blocks.pin().get(&(object.number, chunk)).cloned()),
            None => {
                let row = self.core.backend.get(Family::Blocks, &key::lfs_chunk(object.pool, object.number, chunk))?;
                row.map(|row| unsealed_chunk(&row)).transpose()?
            }
        };
        match found {
            Some(found) if found.len() == bytes => Ok(found),
            None if self.is_deleted() => Err(Error::not_found(format!("repository {} has been deleted", self.name()))),
            _ => Err(Error::corrupt(format!("chunk {chunk} of object {} is not there", object.oid))),
        }
    }
}

/// The bytes of a stored chunk.
fn unsealed_chunk(row: &Bytes) -> Result<Bytes> {
    let len = unseal(row, "a chunk of a large content")?.len();
    Ok(row.slice(..len))
}

impl Repo {
    /// Makes what was written of contents and locks durable, unless nothing ever is.
    fn sync_lfs(&self) -> Result<()> {
        if self.state.pool.memory.is_some() { Ok(()) } else { self.core.sync_lfs() }
    }
}

impl Core {
    /// Where a pool itself has a content.
    fn lfs_row(&self, pool: &Pool, oid: &LfsOid) -> Result<Option<LfsRow>> {
        if let Some(memory) = &pool.memory {
            return Ok(memory.segments().and_then(|all| all.lfs.pin().get(oid).copied()));
        }
        let row = self.backend.get(Family::Meta, &key::lfs_object(pool.id, oid))?;
        row.map(|row| LfsRow::decode(&row)).transpose()
    }

    /// Makes what was written durable.
    fn sync_lfs(&self) -> Result<()> {
        self.health.check_not_poisoned()?;
        self.backend.sync().map_err(|error| {
            if !error.kind.is_passing() {
                self.health.poison(&error.message);
            }
            error.into()
        })
    }
}

/// Adds to `batch` that nothing is known any more of the contents and locks of a repository, given its pool. Chunks are
/// among its blocks.
pub(super) fn forget(batch: &mut Batch, pool: PoolId) {
    for prefix in [key::lfs_objects(pool), key::lfs_locks(pool), key::lfs_locked_paths(pool)] {
        if let Some(end) = key::after_prefix(&prefix) {
            batch.delete_range(Family::Meta, prefix, end);
        }
    }
}

/// What removes the chunks of an upload that was never finished.
pub(super) fn removal(pool: PoolId, number: u32) -> Batch {
    let mut batch = Batch::new();
    let prefix = key::lfs_chunks(pool, number);
    if let Some(end) = key::after_prefix(&prefix) {
        batch.delete_range(Family::Blocks, prefix, end);
    }
    batch.delete(Family::Meta, key::lfs_open(number));
    batch.uses_reserve = true;
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_lower_case_digits() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(text.parse::<LfsOid>().unwrap().to_string(), text);
        for other in [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), "g".repeat(64), "é".repeat(32)] {
            assert!(other.parse::<LfsOid>().is_err(), "{other}");
        }
    }

    #[test]
    fn rows_are_read_as_they_were_written_and_no_others() {
        let row = LfsRow { number: 7, size: 5 << 30, since: 3, millis: 1 << 41 };
        let value = row.encode();
        assert_eq!(LfsRow::decode(&value).unwrap(), row);
        for end in 0..value.len() {
            assert!(LfsRow::decode(&value[..end]).is_err());
        }
        let mut newer = value[..value.len() - 4].to_vec();
        newer[0] = 2;
        seal(&mut newer);
        assert!(LfsRow::decode(&newer).is_err());
    }

    #[test]
    fn chunks_end_where_the_content_ends() {
        let chunk = LFS_CHUNK_BYTES as u64;
        for (size, expected) in
            [(0, vec![]), (1, vec![1]), (chunk, vec![chunk]), (2 * chunk + 5, vec![chunk, chunk, 5])]
        {
            let found: Vec<u64> = (0..).map_while(|at| chunk_bytes(size, at)).map(|bytes| bytes as u64).collect();
            assert_eq!(found, expected, "{size}");
        }
        assert_eq!(chunk_bytes(u64::MAX, u64::MAX), None);
    }
}
