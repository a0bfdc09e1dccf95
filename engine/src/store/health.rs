//! Whether the store can be written.

use crate::{
    Error, ErrorKind, Result,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

/// Whether a store can be written, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Reads and writes.
    Ok,
    /// The storage is full; writes are tried and fail until there is room, reads go on.
    Full(String),
    /// A write or sync failed and nobody knows what is on disk: read-only until the store is opened anew.
    Poisoned(String),
    /// Closing or closed.
    Closed,
}

const OK: u8 = 0;
const FULL: u8 = 1;
const POISONED: u8 = 2;
const CLOSED: u8 = 3;

/// The current health: one relaxed load for those who ask whether all is well.
#[derive(Default)]
pub(crate) struct HealthCell {
    /// Written under the lock of `reason`; read by every publication.
    state: AtomicU8,
    /// Stays set when a poisoned store is closed.
    poisoned: AtomicBool,
    /// Whether the last write found no room, whatever else is the matter.
    full: AtomicBool,
    reason: Mutex<String>,
}

impl HealthCell {
    pub(crate) fn get(&self) -> Health {
        let reason = self.reason.lock();
        match self.state.load(Ordering::Acquire) {
            OK => Health::Ok,
            FULL => Health::Full(reason.clone()),
            POISONED => Health::Poisoned(reason.clone()),
            _ => Health::Closed,
        }
    }

    fn set(&self, state: u8, why: &str) {
        let mut reason = self.reason.lock();
        // Poison and closing are for good.
        if self.state.load(Ordering::Acquire) < POISONED || state == CLOSED {
            self.state.store(state, Ordering::Release);
            why.clone_into(&mut reason);
        }
    }

    pub(crate) fn set_ok(&self) {
        self.full.store(false, Ordering::Release);
        if self.state.load(Ordering::Acquire) == FULL {
            self.set(OK, "");
        }
    }

    pub(crate) fn set_full(&self, why: &str) {
        self.full.store(true, Ordering::Release);
        self.set(FULL, why);
    }

    pub(crate) fn poison(&self, why: &str) {
        tracing::error!(reason = why, "the store is poisoned: read-only until it is opened again");
        self.poisoned.store(true, Ordering::Release);
        self.set(POISONED, why);
    }

    /// For those who finish what was accepted while the store closes.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] if the store is poisoned.
    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the store is read-only after a failed write"));
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.set(CLOSED, "");
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// # Errors
    /// [`ErrorKind::Closed`] unless writes can be tried.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            OK | FULL => Ok(()),
            POISONED => {
                let why = self.reason.lock().clone();
                Err(Error::new(ErrorKind::Closed, format!("the store is read-only after a failed write: {why}")))
            }
            _ => Err(Error::new(ErrorKind::Closed, "the store is closed")),
        }
    }
}
