//! Free space of a folder's file system, and the reserve of it that writes leave alone.

use std::path::PathBuf;

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult};

/// The file system that a folder is on, and how much of it stays free.
pub(crate) struct Room {
    folder: PathBuf,
    reserve_bytes: u64,
}

impl Room {
    /// The room of a folder that exists. A file system that cannot tell its free space is refused now, rather than
    /// at the first write.
    pub(crate) fn of(folder: PathBuf, reserve_bytes: u64) -> BackendResult<Self> {
        let room = Self { folder, reserve_bytes };
        room.free_bytes()?;
        Ok(room)
    }

    /// Checks that a batch of `batch_bytes` fits, which takes `needed_bytes` in all, and leaves the reserve unless
    /// it makes room in the end.
    ///
    /// # Errors
    /// [`BackendErrorKind::Full`] if it does not; [`BackendErrorKind::Failed`] if the free space cannot be told.
    pub(crate) fn check(&self, batch_bytes: usize, needed_bytes: u64, uses_reserve: bool) -> BackendResult<()> {
        let free = self.free_bytes()?;
        let reserve_bytes = if uses_reserve { 0 } else { self.reserve_bytes };
        let needed = reserve_bytes.saturating_add(needed_bytes);
        if free < needed {
            let message = format!(
                "the disk of {} is full: {free} bytes are free, {needed} are needed to write {batch_bytes}",
                self.folder.display()
            );
            return Err(BackendError::new(BackendErrorKind::Full, message));
        }
        Ok(())
    }

    /// Bytes that an ordinary user may still write to the file system.
    fn free_bytes(&self) -> BackendResult<u64> {
        let status = rustix::fs::statvfs(self.folder.as_path()).map_err(|error| {
            let message = format!("cannot tell the free space of {}: {error}", self.folder.display());
            BackendError::new(BackendErrorKind::Failed, message)
        })?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}
