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
    /// The storage cannot be reached; writes are tried and fail until it can, what is in memory can be read.
    Unavailable(String),
    /// A write or sync failed and nobody knows what is on disk: read-only until the store is opened anew.
    Poisoned(String),
    /// Closing or closed.
    Closed,
}

const OK: u8 = 0;
const FULL: u8 = 1;
const UNAVAILABLE: u8 = 2;
const POISONED: u8 = 3;
const CLOSED: u8 = 4;

/// The current health: one relaxed load for those who ask whether all is well.
#[derive(Default)]
pub(crate) struct HealthCell {
    /// Written under the lock of `reason`; read by every publication.
    state: AtomicU8,
    /// Stays set when a poisoned store is closed.
    poisoned: AtomicBool,
    /// Whether the last write was refused, for room or because the storage could not be reached, whatever else is the
    /// matter.
    refused: AtomicBool,
    /// Whether the last refusal was because it could not be reached.
    away: AtomicBool,
    reason: Mutex<String>,
}

impl HealthCell {
    pub(crate) fn get(&self) -> Health {
        let reason = self.reason.lock();
        match self.state.load(Ordering::Acquire) {
            OK => Health::Ok,
            FULL => Health::Full(reason.clone()),
            UNAVAILABLE => Health::Unavailable(reason.clone()),
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
        self.refused.store(false, Ordering::Release);
        if matches!(self.state.load(Ordering::Acquire), FULL | UNAVAILABLE) {
            self.set(OK, "");
        }
    }

    /// Notes that the storage took nothing of a write, with an error that passes.
    pub(crate) fn set_refused(&self, error: &Error) {
        let is_away = *error.kind() == ErrorKind::Unavailable;
        self.away.store(is_away, Ordering::Release);
        self.refused.store(true, Ordering::Release);
        let state = if is_away { UNAVAILABLE } else { FULL };
        self.set(state, error.message());
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

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// An error of the kind of the last refusal, for those who do not even try, or who built on what was refused.
    pub(crate) fn refusal(&self, message: &str) -> Error {
        let is_away = self.away.load(Ordering::Acquire);
        Error::new(if is_away { ErrorKind::Unavailable } else { ErrorKind::StorageFull }, message)
    }

    /// # Errors
    /// [`ErrorKind::Closed`] unless writes can be tried.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            OK | FULL | UNAVAILABLE => Ok(()),
            POISONED => {
                let why = self.reason.lock().clone();
                Err(Error::new(ErrorKind::Closed, format!("the store is read-only after a failed write: {why}")))
            }
            _ => Err(Error::new(ErrorKind::Closed, "the store is closed")),
        }
    }
}
