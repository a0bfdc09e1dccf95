//! What is wrong with stored contents and locks: rows that cannot be read, chunks that are missing, bytes of another hash,
//! locks of which half is there.

use sha2::{Digest as _, Sha256};

use super::{LfsOid, LfsRow, lock, unsealed_chunk};
use crate::{
    Error, ErrorKind, Progress, Result,
    backend::{Backend, Family, Scan, key},
    store::ids::PoolId,
};

/// Reads a row of the family `meta` by itself, if it is one of these.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it is damaged.
pub(crate) fn meta_row(row_key: &[u8], value: &[u8]) -> Result<()> {
    if row_key.starts_with(key::LFS_OBJECT) {
        object_key(row_key)?;
        LfsRow::decode(value)?;
    } else if row_key.starts_with(key::LFS_LOCK) {
        lock::read(row_key, value)?;
    }
    Ok(())
}

/// Reads a row of the family `blocks` by itself; whether it is a chunk.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it is damaged.
pub(crate) fn chunk_row(row_key: &[u8], value: &bytes::Bytes) -> Result<bool> {
    let is_chunk = row_key.len() == key::LFS_CHUNK_LEN && row_key.get(8..12) == Some(&key::LFS_SEGMENT.to_be_bytes());
    if is_chunk {
        unsealed_chunk(value)?;
    }
    Ok(is_chunk)
}

/// Reads every content to its end; `find` is told of each that is not what its row says. `knows` tells whether there is
/// such a pool.
///
/// # Errors
/// When the backend fails, and [`ErrorKind::Cancelled`].
pub(crate) fn contents(
    backend: &dyn Backend,
    knows: impl Fn(PoolId) -> bool,
    progress: &dyn Progress,
    mut find: impl FnMut(String),
) -> Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    progress.begin("large contents", None);
    for row in backend.scan(Family::Meta, Scan::prefix(key::LFS_OBJECT))? {
        let (row_key, value) = row?;
        // What cannot be read has been told already.
        let (Ok((pool, oid)), Ok(row)) = (object_key(&row_key), LfsRow::decode(&value)) else { continue };
        count += 1;
        bytes += row.size;
        if !knows(pool) {
            find(format!("large content {oid} belongs to repository {}, which is unknown", pool.0));
            continue;
        }
        match hash(backend, pool, row, progress) {
            Ok(found) if found == oid => {}
            Ok(found) => find(format!("large content {oid} of repository {} has the SHA-256 {found}", pool.0)),
            Err(error) if *error.kind() == ErrorKind::Corrupt => {
                find(format!("large content {oid} of repository {}: {error}", pool.0));
            }
            Err(error) => return Err(error),
        }
    }
    progress.end();
    Ok((count, bytes))
}

fn hash(backend: &dyn Backend, pool: PoolId, row: LfsRow, progress: &dyn Progress) -> Result<LfsOid> {
    let mut hash = Sha256::new();
    for (chunk, bytes) in (0..).map_while(|chunk: u32| Some((chunk, row.chunk_bytes(u64::from(chunk))?))) {
        if progress.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "ended on request"));
        }
        let found = backend.get(Family::Blocks, &key::lfs_chunk(pool, row.number, chunk))?;
        let found = found.ok_or_else(|| Error::corrupt(format!("chunk {chunk} is missing")))?;
        let data = unsealed_chunk(&found)?;
        if data.len() != bytes {
            return Err(Error::corrupt(format!("chunk {chunk} has {} bytes, not {bytes}", data.len())));
        }
        hash.update(&data);
        progress.advance(bytes as u64);
    }
    Ok(LfsOid(hash.finalize().into()))
}

/// Looks whether both rows of every lock are there; `find` is told of each that has only one.
///
/// # Errors
/// When the backend fails.
pub(crate) fn locks(backend: &dyn Backend, mut find: impl FnMut(String)) -> Result<()> {
    for row in backend.scan(Family::Meta, Scan::prefix(key::LFS_LOCK))? {
        let (row_key, value) = row?;
        // What cannot be read has been told already.
        let Ok((pool, lock)) =
            pool_of(key::LFS_LOCK, &row_key).and_then(|(pool, _)| Ok((pool, lock::read(&row_key, &value)?)))
        else {
            continue;
        };
        let number = backend.get(Family::Meta, &key::lfs_locked_path(pool, &lock.path))?;
        if number.as_deref() != Some(&lock.number.to_be_bytes()[..]) {
            find(format!("lock {} of repository {} is not found by its path {:?}", lock.number, pool.0, lock.path));
        }
    }
    for row in backend.scan(Family::Meta, Scan::prefix(key::LFS_LOCKED))? {
        let (row_key, number) = row?;
        let (pool, path) = pool_of(key::LFS_LOCKED, &row_key)?;
        let path = String::from_utf8_lossy(path);
        let lock = match number.first_chunk::<4>() {
            Some(number) => backend.get(Family::Meta, &key::lfs_lock(pool, u32::from_be_bytes(*number)))?,
            None => None,
        };
        if lock.is_none() {
            find(format!("path {path:?} of repository {} has a lock that is not there", pool.0));
        }
    }
    Ok(())
}

/// The pool and the content that a row's key names.
fn object_key(row_key: &[u8]) -> Result<(PoolId, LfsOid)> {
    let (pool, oid) = pool_of(key::LFS_OBJECT, row_key)?;
    let oid: [u8; 32] = oid.try_into().map_err(|_| Error::corrupt("the key of a large content is malformed"))?;
    Ok((pool, LfsOid(oid)))
}

/// The pool in a key behind `prefix`, and what follows.
fn pool_of<'a>(prefix: &[u8], row_key: &'a [u8]) -> Result<(PoolId, &'a [u8])> {
    let found = row_key.strip_prefix(prefix).and_then(|rest| rest.split_first_chunk::<8>());
    let (pool, rest) = found.ok_or_else(|| Error::corrupt("the key of a large content or lock is malformed"))?;
    Ok((PoolId(u64::from_be_bytes(*pool)), rest))
}
