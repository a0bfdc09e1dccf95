//! When the log is on the disk: commits that wait for it share syncs.
//!
//! SQLite's own way to a durable commit is `synchronous=FULL`, which syncs while the writer is held, so that the next
//! commit cannot even begin. Here commits only reach the log, one after another, and get numbers; whoever wants his to
//! be durable waits until a sync has begun after it and ended. One of those who wait does the sync, for all commits
//! until then. It is a sync of the log's file through a handle of its own, which covers whatever was written through
//! any handle.
//!
//! A commit that a checkpoint has moved to the database meanwhile is durable too: a checkpoint syncs the log before it
//! copies, and the database before the log may begin anew.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};

/// The log of a database, as far as syncs are concerned.
pub(super) struct Log {
    /// Open from the beginning, so that it is told of every failure of writing back.
    file: File,
    /// Number of the last commit. Written by whoever holds the writer, after the commit (release); read by whoever
    /// syncs, before the sync (acquire).
    committed: AtomicU64,
    state: Mutex<State>,
    /// Told whenever a sync has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Number of the last commit known to be durable.
    synced: u64,
    /// Whether somebody syncs.
    syncing: bool,
    /// Why a sync failed. None after it says anything about what is on the disk.
    failed: Option<String>,
}

impl Log {
    /// The log of this name, which a connection has open.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        // What an earlier life left there belongs to no commit of this one, so no later sync need come to it.
        file.sync_data()?;
        Ok(Self { file, committed: AtomicU64::new(0), state: Mutex::default(), ended: Condvar::new() })
    }

    /// Numbers a commit; the caller holds the writer.
    pub(super) fn commit(&self) -> u64 {
        self.committed.fetch_add(1, Ordering::Release) + 1
    }

    /// Number of the last commit.
    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Returns when the commit of this number, and all before it, are on the disk.
    ///
    /// # Errors
    /// In words, when this sync or any before it failed.
    pub(super) fn sync(&self, number: u64) -> Result<(), String> {
        let mut state = self.state.lock();
        loop {
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            if state.synced >= number {
                return Ok(());
            }
            if state.syncing {
                self.ended.wait(&mut state);
                continue;
            }
            state.syncing = true;
            drop(state);
            let until = self.committed();
            let result = self.file.sync_data();
            state = self.state.lock();
            state.syncing = false;
            match result {
                Ok(()) => state.synced = until,
                Err(error) => state.failed = Some(format!("cannot sync the log: {error}")),
            }
            self.ended.notify_all();
        }
    }
}
