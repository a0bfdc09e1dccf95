//! Locks: who has reserved a path. They hold nobody back by themselves; clients ask before they push.
//!
//! A lock has two rows, one by its number and one by its path, which come and go together: so a path has one lock.

use crate::{
    Error, Result,
    backend::{
        Batch, Family, Scan, Sync,
        key::{self, Reader, check_version, put_bytes, put_varint, seal, unseal},
    },
    store::{identity::Feature, state::Repo},
    sync::atomic::Ordering,
};

const VERSION: u8 = 1;
/// The longest path that can be locked, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// The longest name of an owner, in bytes.
const OWNER_BYTES_MAX: usize = 256;

/// A lock on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LfsLock {
    /// No other lock of any repository ever has the same.
    pub number: u32,
    /// From the repository's root.
    pub path: String,
    /// Who made it.
    pub owner: String,
    /// When, in milliseconds since the Unix epoch.
    pub millis: i64,
}

impl LfsLock {
    fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_bytes(&mut out, self.path.as_bytes());
        put_bytes(&mut out, self.owner.as_bytes());
        put_varint(&mut out, self.millis as u64);
        seal(&mut out);
        out
    }

    pub(super) fn decode(number: u32, value: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(unseal(value, "a lock")?);
        check_version(&mut reader, VERSION, "a lock")?;
        let (path, owner) = (reader.string()?.to_owned(), reader.string()?.to_owned());
        Ok(Self { number, path, owner, millis: reader.varint()? as i64 })
    }
}

/// Checks that a path can be locked.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
fn check_path(path: &str) -> Result<()> {
    let is_bad = path.len() > PATH_BYTES_MAX
        || path.contains('\0')
        || path.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if is_bad {
        let rule = "a locked path is relative to the repository's root, without empty parts, `.` and `..`";
        return Err(Error::invalid(format!("{rule}, and has at most {PATH_BYTES_MAX} bytes")));
    }
    Ok(())
}

impl Repo {
    /// Locks a path for `owner`; gives the lock, or, as the inner error, the one that the path has already. It is durable
    /// on return.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for what is no path or no owner's name; else when the storage fails or is full.
    pub fn lfs_lock(&self, path: &str, owner: &str) -> Result<std::result::Result<LfsLock, LfsLock>> {
        check_path(path)?;
        if owner.is_empty() || owner.len() > OWNER_BYTES_MAX {
            return Err(Error::invalid(format!("an owner's name has 1 to {OWNER_BYTES_MAX} bytes")));
        }
        let lock = {
            let _publishing = self.core.publishing();
            self.core.health.check_writable()?;
            let number = self.core.segments.take(&*self.core.backend)?;
            let _rows = self.core.id_rows.lock();
            self.check_there()?;
            if let Some(lock) = self.lfs_lock_on(path)? {
                return Ok(Err(lock));
            }
            let millis = self.core.now_millis();
            let lock = LfsLock { number, path: path.to_owned(), owner: owner.to_owned(), millis };
            let pool = self.state.pool.id;
            match &self.state.pool.memory {
                Some(memory) => {
                    memory.make_segments().lfs_locks.lock().insert(number, lock.clone());
                }
                None => {
                    self.core.raise_format(Feature::LargeContents)?;
                    let mut batch = Batch::new();
                    batch.put(Family::Meta, key::lfs_locked_path(pool, path), number.to_be_bytes().to_vec());
                    batch.put(Family::Meta, key::lfs_lock(pool, number), lock.encode());
                    self.write_locks(batch)?;
                }
            }
            lock
        };
        self.sync_lfs()?;
        Ok(Ok(lock))
    }

    /// Removes a lock, if `may` lets it; gives it back. That is durable on return.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`]; what `may` says; else when the storage fails.
    pub fn lfs_unlock(&self, number: u32, may: impl FnOnce(&LfsLock) -> Result<()>) -> Result<LfsLock> {
        let lock = {
            let _publishing = self.core.publishing();
            self.core.health.check_writable()?;
            let _rows = self.core.id_rows.lock();
            self.check_there()?;
            let lock = self.lfs_lock_numbered(number)?;
            let lock = lock.ok_or_else(|| Error::not_found(format!("there is no lock {number}")))?;
            may(&lock)?;
            let pool = self.state.pool.id;
            match &self.state.pool.memory {
                Some(memory) => {
                    memory.make_segments().lfs_locks.lock().remove(&number);
                }
                None => {
                    let mut batch = Batch::new();
                    batch.delete(Family::Meta, key::lfs_locked_path(pool, &lock.path));
                    batch.delete(Family::Meta, key::lfs_lock(pool, number));
                    batch.uses_reserve = true;
                    self.write_locks(batch)?;
                }
            }
            lock
        };
        self.sync_lfs()?;
        Ok(lock)
    }

    /// The locks with numbers greater than `after`, in the order in which they were made, at most `limit`.
    ///
    /// # Errors
    /// When the storage fails or is damaged.
    pub fn lfs_locks(&self, after: Option<u32>, limit: usize) -> Result<Vec<LfsLock>> {
        use std::ops::Bound;
        let pool = &self.state.pool;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        if let Some(memory) = &pool.memory {
            let Some(all) = memory.segments() else { return Ok(Vec::new()) };
            return Ok(all
                .lfs_locks
                .lock()
                .range((from, Bound::Unbounded))
                .take(limit)
                .map(|(_, lock)| lock.clone())
                .collect());
        }
        let mut scan = Scan::prefix(&key::lfs_locks(pool.id));
        if let Some(after) = after {
            scan.from = Bound::Excluded(key::lfs_lock(pool.id, after));
        }
        let rows = self.core.backend.scan(Family::Meta, scan)?;
        rows.take(limit).map(|row| row.map_err(Error::from).and_then(|(at, value)| read(&at, &value))).collect()
    }

    /// The lock of this number.
    ///
    /// # Errors
    /// When the storage fails or is damaged.
    pub fn lfs_lock_numbered(&self, number: u32) -> Result<Option<LfsLock>> {
        let pool = &self.state.pool;
        if let Some(memory) = &pool.memory {
            return Ok(memory.segments().and_then(|all| all.lfs_locks.lock().get(&number).cloned()));
        }
        let row = self.core.backend.get(Family::Meta, &key::lfs_lock(pool.id, number))?;
        row.map(|row| LfsLock::decode(number, &row)).transpose()
    }

    /// The lock on a path.
    ///
    /// # Errors
    /// When the storage fails or is damaged.
    pub fn lfs_lock_on(&self, path: &str) -> Result<Option<LfsLock>> {
        let pool = &self.state.pool;
        if let Some(memory) = &pool.memory {
            let all = memory.segments();
            return Ok(all.and_then(|all| all.lfs_locks.lock().values().find(|lock| lock.path == path).cloned()));
        }
        match self.core.backend.get(Family::Meta, &key::lfs_locked_path(pool.id, path))? {
            None => Ok(None),
            // One without the other is damage, and no reason to refuse that path for ever.
            Some(number) => self.lfs_lock_numbered(number_of(&number)?),
        }
    }

    fn check_there(&self) -> Result<()> {
        if self.state.deleted.load(Ordering::Acquire) || self.state.pool.is_purged() {
            return Err(Error::not_found(format!("repository {} has been deleted", self.name())));
        }
        Ok(())
    }

    /// Writes rows that are synced later.
    fn write_locks(&self, batch: Batch) -> Result<()> {
        self.core.backend.write(batch, Sync::No).map_err(|error| {
            if !error.kind.is_passing() {
                self.core.health.poison(&error.message);
            }
            error.into()
        })
    }
}

/// Reads a row with its key.
pub(super) fn read(row_key: &[u8], value: &[u8]) -> Result<LfsLock> {
    LfsLock::decode(number_of(row_key)?, value)
}

/// The number at the end of a key or a value.
fn number_of(bytes: &[u8]) -> Result<u32> {
    let number = bytes.last_chunk::<4>().ok_or_else(|| Error::corrupt("the number of a lock is too short"))?;
    Ok(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_are_locked() {
        for path in ["a", "dir/file.bin", "a..b", "ä/ö"] {
            assert!(check_path(path).is_ok(), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\0", &"x".repeat(1025)] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn locks_are_read_as_they_were_written() {
        let lock = LfsLock { number: 9, path: "a/b".to_owned(), owner: "ada".to_owned(), millis: 1 << 41 };
        let value = lock.encode();
        assert_eq!(LfsLock::decode(9, &value).unwrap(), lock);
        for end in 0..value.len() {
            assert!(LfsLock::decode(9, &value[..end]).is_err());
        }
    }
}
