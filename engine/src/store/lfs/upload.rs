//! A content on its way in.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{CHECKSUM_BYTES, LFS_CHUNK_BYTES, LfsOid, LfsRow, removal};
use crate::{
    Error, Result,
    backend::{Batch, Family, Sync, key},
    store::{
        core::Core,
        identity::Feature,
        state::{Repo, RepoState},
    },
    sync::{atomic::Ordering, thread},
};

/// What a chunk takes of a memory repository's share beside its bytes.
const MEMORY_CHUNK_BYTES: u64 = 128;

/// Bytes that come one after the other, of which nothing is visible before [`LfsUpload::finish`]. Dropped before, it
/// leaves nothing behind.
pub struct LfsUpload {
    core: Arc<Core>,
    repo: Arc<RepoState>,
    oid: LfsOid,
    hash: Sha256,
    /// What is not written yet, less than a chunk.
    chunk: Vec<u8>,
    /// Chunks that are written.
    chunks: u32,
    size: u64,
    /// Taken with the first chunk.
    number: Option<u32>,
    held_bytes: u64,
    /// Whether a row leads to the chunks, or may.
    kept: bool,
}

impl Repo {
    /// Begins to take in the content with this hash; `None` if the repository has it, which is durable then.
    ///
    /// # Errors
    /// When the store is read-only or the repository has been deleted; else when the storage fails.
    pub fn lfs_upload(&self, oid: LfsOid) -> Result<Option<LfsUpload>> {
        self.core.health.check_writable()?;
        if self.is_deleted() {
            return Err(Error::not_found(format!("repository {} has been deleted", self.name())));
        }
        if self.lfs_object(&oid)?.is_some() {
            // Whoever brought it may not have been told yet.
            self.sync_lfs()?;
            return Ok(None);
        }
        Ok(Some(LfsUpload {
            core: self.core.clone(),
            repo: self.state.clone(),
            oid,
            hash: Sha256::new(),
            chunk: Vec::new(),
            chunks: 0,
            size: 0,
            number: None,
            held_bytes: 0,
            kept: false,
        }))
    }
}

impl LfsUpload {
    /// How many bytes have come.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Takes the next bytes; holds less than [`LFS_CHUNK_BYTES`] of them in memory.
    ///
    /// # Errors
    /// When the storage fails or is full, or a memory repository exceeds the budget.
    pub fn write(&mut self, mut data: &[u8]) -> Result<()> {
        self.hash.update(data);
        self.size += data.len() as u64;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(LFS_CHUNK_BYTES - self.chunk.len()));
            // In one piece with what is put behind it.
            self.chunk.reserve(now.len() + CHECKSUM_BYTES);
            self.chunk.extend_from_slice(now);
            data = later;
            if self.chunk.len() == LFS_CHUNK_BYTES {
                self.write_chunk()?;
            }
        }
        Ok(())
    }

    /// Ends the content, which is durable and visible on return.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the bytes are not those of the hash, [`crate::ErrorKind::NotFound`] if the
    /// repository has been deleted; else as [`LfsUpload::write`]. Nothing is visible then, unless what is there could not
    /// be made durable.
    pub fn finish(mut self) -> Result<()> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        let found = LfsOid(std::mem::take(&mut self.hash).finalize().into());
        if found != self.oid {
            return Err(Error::invalid(format!("the content has the SHA-256 {found}, not {}", self.oid)));
        }
        let number = self.number()?;
        let since = self.repo.published.load().number;
        let row = LfsRow { number, size: self.size, since, millis: self.core.now_millis() };
        let deleted = || Error::not_found(format!("repository {} has been deleted", self.repo.record.load().name));
        let pool = &self.repo.pool;
        if let Some(memory) = &pool.memory {
            if self.repo.deleted.load(Ordering::Acquire) {
                return Err(deleted());
            }
            // Who comes second leaves what is there.
            self.kept = memory.make_segments().lfs.pin().try_insert(self.oid, row).is_ok();
            return Ok(());
        }
        let core = self.core.clone();
        let _publishing = core.publishing();
        core.health.check_writable()?;
        core.raise_format(Feature::LargeContents)?;
        {
            // Nothing is written of a pool that has been removed: who removes it holds this too.
            let _rows = core.id_rows.lock();
            if self.repo.deleted.load(Ordering::Acquire) || pool.is_purged() {
                return Err(deleted());
            }
            // Who comes second leaves what is there.
            if core.lfs_row(pool, &self.oid)?.is_none() {
                self.install(row)?;
            }
        }
        // Others wait for the lock, so not under it. It takes the chunks along, which were written before.
        core.sync_lfs()
    }

    /// Writes the row that leads to the chunks.
    fn install(&mut self, row: LfsRow) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(Family::Meta, key::lfs_object(self.repo.pool.id, &self.oid), row.encode());
        batch.delete(Family::Meta, key::lfs_open(row.number));
        // From here on the row may be there, whatever comes of the write.
        self.kept = true;
        self.core.backend.write(batch, Sync::No).map_err(|error| {
            if error.kind.is_passing() {
                self.kept = false;
            } else {
                self.core.health.poison(&error.message);
            }
            error.into()
        })
    }

    fn number(&mut self) -> Result<u32> {
        if let Some(number) = self.number {
            return Ok(number);
        }
        let number = self.core.segments.take(&*self.core.backend)?;
        self.number = Some(number);
        Ok(number)
    }

    fn write_chunk(&mut self) -> Result<()> {
        let number = self.number()?;
        let chunk = self.chunks;
        self.chunks = chunk.checked_add(1).ok_or_else(|| Error::too_large("a content has too many chunks"))?;
        let pool = &self.repo.pool;
        if let Some(memory) = &pool.memory {
            let bytes = self.chunk.len() as u64 + MEMORY_CHUNK_BYTES;
            self.core.hold_blocks(pool, bytes)?;
            self.held_bytes += bytes;
            let data = Bytes::from(std::mem::take(&mut self.chunk).into_boxed_slice());
            memory.make_segments().blocks.pin().insert((number, chunk), data);
            return Ok(());
        }
        self.core.health.check_writable()?;
        if chunk == 0 {
            self.core.raise_format(Feature::LargeContents)?;
        }
        let mut value = std::mem::take(&mut self.chunk);
        key::seal(&mut value);
        let mut batch = Batch::new();
        if chunk == 0 {
            batch.put(Family::Meta, key::lfs_open(number), key::pool(pool.id));
        }
        batch.put(Family::Blocks, key::lfs_chunk(pool.id, number, chunk), value);
        Ok(self.core.backend.write(batch, Sync::No)?)
    }
}

impl Drop for LfsUpload {
    fn drop(&mut self) {
        let Some(number) = self.number.filter(|_| !self.kept && self.chunks > 0) else { return };
        let pool = &self.repo.pool;
        if let Some(memory) = &pool.memory {
            let segments = memory.make_segments();
            let blocks = segments.blocks.pin();
            (0..self.chunks).for_each(|chunk| {
                blocks.remove(&(number, chunk));
            });
            self.core.free_blocks(pool, self.held_bytes);
            return;
        }
        // After a failed write nobody knows what is there; the next opening finds out.
        if thread::panicking() || self.core.health.check_not_poisoned().is_err() {
            return;
        }
        if let Err(error) = self.core.backend.write(removal(pool.id, number), Sync::No) {
            tracing::warn!(number, %error, "chunks of an unfinished upload stay until the store is opened again");
        }
    }
}

impl std::fmt::Debug for LfsUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LfsUpload").field("oid", &self.oid).field("size", &self.size).finish_non_exhaustive()
    }
}
