//! What is counted against the memory budget beside objects: blocks, rows and references.
//!
//! References are counted with what their map takes, for each repository what it does not share with the one that it was
//! forked from.

use std::sync::Arc;

use super::{core::Core, pool::Pool, state::RepoState, version::Version};
use crate::{
    Error, ErrorKind, Result,
    sync::atomic::{AtomicU64, Ordering},
};

/// The memory of a repository's references.
pub(crate) struct ReferenceBytes {
    /// Those that it shares with its source, in bytes. Written when it is made or opened.
    shared: AtomicU64,
    /// What is counted for it; [`FORGOTTEN`] once it is deleted. Written by whoever publishes.
    counted: AtomicU64,
}

const FORGOTTEN: u64 = u64::MAX;

impl ReferenceBytes {
    /// Of a repository that begins with `shared` bytes of its source, not counted again.
    pub(crate) fn new(shared: u64) -> Self {
        Self { shared: AtomicU64::new(shared), counted: AtomicU64::new(0) }
    }

    pub(crate) fn set_shared(&self, bytes: u64) {
        self.shared.store(bytes, Ordering::Relaxed);
    }
}

impl Core {
    /// Makes a version visible to readers, unless a later one is, and counts its references.
    pub(crate) fn publish(&self, repo: &RepoState, version: &Arc<Version>) {
        repo.publish(version);
        self.count_references(repo);
    }

    /// Counts the references of a repository as readers see them now.
    pub(crate) fn count_references(&self, repo: &RepoState) {
        let ReferenceBytes { shared, counted } = &repo.reference_bytes;
        let visible = || repo.published.load().refs.resident_bytes().saturating_sub(shared.load(Ordering::Relaxed));
        let mut before = counted.load(Ordering::Relaxed);
        loop {
            // Anew each time: who was overtaken must not count what is no longer there.
            let now = visible();
            if before == now || before == FORGOTTEN {
                return;
            }
            // Taken before it is counted: what a deletion gives back has been taken.
            let more = now.saturating_sub(before);
            self.take_references(&repo.pool, more);
            match counted.compare_exchange_weak(before, now, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.free_references(&repo.pool, before.saturating_sub(now));
                    before = now;
                }
                Err(found) => {
                    self.free_references(&repo.pool, more);
                    before = found;
                }
            }
        }
    }

    /// Counts the references of a deleted repository no more. Those of a memory repository go with its pool.
    pub(crate) fn forget_references(&self, repo: &RepoState) {
        let before = repo.reference_bytes.counted.swap(FORGOTTEN, Ordering::Relaxed);
        if before != FORGOTTEN && repo.pool.memory.is_none() {
            self.table.unreserve(before);
        }
    }

    fn take_references(&self, pool: &Pool, bytes: u64) {
        if let Some(memory) = &pool.memory {
            // Its writer has asked whether there is room.
            self.memory_held_bytes.fetch_add(bytes, Ordering::Relaxed);
            memory.held_bytes.fetch_add(bytes, Ordering::Relaxed);
            memory.block_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.table.reserve(bytes);
    }

    fn free_references(&self, pool: &Pool, bytes: u64) {
        match pool.memory {
            Some(_) => self.free_blocks(pool, bytes),
            None => self.table.unreserve(bytes),
        }
    }

    /// What all memory repositories together may take, in bytes.
    fn memory_limit(&self) -> u64 {
        self.options.memory_budget_bytes / 2
    }

    /// How many bytes memory repositories must give up before one of them may take so much more.
    pub(crate) fn memory_shortage(&self, bytes: u64) -> u64 {
        self.memory_held_bytes.load(Ordering::Relaxed).saturating_add(bytes).saturating_sub(self.memory_limit())
    }

    /// Says that memory repositories may not take so much more.
    pub(crate) fn over_memory_limit(&self, bytes: u64) -> Error {
        let limit = self.memory_limit();
        let message = format!("memory repositories may hold {limit} bytes in all; {bytes} more do not fit");
        Error::new(ErrorKind::OutOfBudget, message)
    }

    /// Reserves memory for a memory repository.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBudget`] if memory repositories alone would exceed the budget.
    pub(crate) fn hold_memory(&self, pool: &Pool, bytes: u64) -> Result<()> {
        let Some(memory) = &pool.memory else { return Ok(()) };
        let limit = self.memory_limit();
        let grow = |held: u64| held.checked_add(bytes).filter(|held| *held <= limit);
        if self.memory_held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_err() {
            return Err(self.over_memory_limit(bytes));
        }
        memory.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Gives memory of a memory repository back.
    pub(crate) fn free_memory(&self, pool: &Pool, bytes: u64) {
        let Some(memory) = &pool.memory else { return };
        // Deletion frees everything at once, so what a writer gives back afterwards counts for nothing.
        let shrink = |held: u64| Some(held.saturating_sub(bytes));
        let held = memory.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shrink).unwrap_or(0);
        self.memory_held_bytes.fetch_sub(held.min(bytes), Ordering::Relaxed);
    }

    /// Reserves memory for blocks or the history of a memory repository, which the object table makes room for.
    ///
    /// # Errors
    /// As [`Core::hold_memory`].
    pub(crate) fn hold_blocks(&self, pool: &Pool, bytes: u64) -> Result<()> {
        self.hold_memory(pool, bytes)?;
        if let Some(memory) = &pool.memory {
            memory.block_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.table.reserve(bytes);
        }
        Ok(())
    }

    /// Gives back what [`Core::hold_blocks`] took.
    pub(crate) fn free_blocks(&self, pool: &Pool, bytes: u64) {
        self.free_memory(pool, bytes);
        if let Some(memory) = &pool.memory {
            let shrink = |held: u64| Some(held.saturating_sub(bytes));
            let held = memory.block_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, shrink).unwrap_or(0);
            self.table.unreserve(held.min(bytes));
        }
    }
}
