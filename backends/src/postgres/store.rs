//! What all calls on one opened store share: where it is, its sessions, and the verdict on its writes.
//!
//! Sessions are opened when they are needed and kept. Waiting for one cannot deadlock: a read or write has its
//! session for one exchange and waits for nobody meanwhile; a scan that goes beyond its first page keeps its session
//! but gives up its place among the readers, and takes one among the scans without waiting.
//!
//! Locks: `idle` and `slots` are held for a push or a pop, never across an `.await`.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_postgres::error::SqlState;

use super::address::Address;
use super::failure::ConnectError;
use super::options::PostgresOptions;
use super::session::Session;

/// A place to write from: one session at a time, and the numbers of its writes.
pub(super) struct Slot {
    pub(super) number: i32,
    pub(super) session: Option<Session>,
    /// The last number that is taken.
    pub(super) seq: i64,
    /// The last number that an acknowledged write has; it is stored, or a write was lost.
    pub(super) solid: i64,
}

/// One opened store.
pub(super) struct Store {
    pub(super) address: Address,
    pub(super) options: PostgresOptions,
    /// The advisory lock that writes share.
    pub(super) lock_key: i64,
    /// The advisory lock of the one server that has the store open.
    pub(super) lease_key: i64,
    pub(super) epoch: i64,
    /// `Slot::solid` of each slot. Stored (release) when a write is acknowledged, loaded (acquire) before what is
    /// stored is asked for.
    solid: Vec<AtomicI64>,
    pub(super) readers: Semaphore,
    pub(super) scans: Arc<Semaphore>,
    pub(super) writers: Semaphore,
    idle: Mutex<Vec<Session>>,
    slots: Mutex<Vec<Slot>>,
    /// Why nothing is written any more, once that is so.
    verdict: OnceLock<BackendError>,
    /// Set by `close` (release) while it has all writers, read by every call (acquire).
    closed: AtomicBool,
}

impl Store {
    pub(super) fn new(address: Address, options: PostgresOptions, keys: Keys, epoch: i64) -> Self {
        let slots = (0..options.writers()).map(|number| Slot {
            number: i32::try_from(number).unwrap_or(i32::MAX),
            session: None,
            seq: 0,
            solid: 0,
        });
        Self {
            lock_key: keys.writes,
            lease_key: keys.lease,
            epoch,
            solid: (0..options.writers()).map(|_| AtomicI64::new(0)).collect(),
            readers: Semaphore::new(options.readers()),
            scans: Arc::new(Semaphore::new((options.scans_max as usize).min(Semaphore::MAX_PERMITS))),
            writers: Semaphore::new(options.writers()),
            idle: Mutex::new(Vec::new()),
            slots: Mutex::new(slots.collect()),
            verdict: OnceLock::new(),
            closed: AtomicBool::new(false),
            address,
            options,
        }
    }

    /// The store in words: address and schema.
    pub(super) fn place(&self) -> String {
        place(&self.address, &self.options)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.idle.lock().clear();
    }

    /// Ends the sessions that nobody uses.
    pub(super) fn end_sessions(&self) {
        self.idle.lock().clear();
        self.slots.lock().iter_mut().for_each(|slot| slot.session = None);
    }

    pub(super) fn check_open(&self) -> BackendResult<()> {
        if self.is_closed() {
            return Err(BackendError::new(
                BackendErrorKind::Closed,
                format!("the store at {} is closed", self.place()),
            ));
        }
        Ok(())
    }

    pub(super) fn verdict(&self) -> Option<&BackendError> {
        self.verdict.get()
    }

    /// Notes that another server has the store, and tells it.
    pub(super) fn fence(&self) -> BackendError {
        let message = format!(
            "another server has taken over the store at {}; nothing was written, and no later write will be",
            self.place()
        );
        self.condemn(BackendErrorKind::Fenced, message)
    }

    /// Notes why nothing may be written until the store is opened again, and tells it. The first verdict stays.
    pub(super) fn fail(&self, words: &str) -> BackendError {
        let message = format!("the store at {} takes no writes until it is opened again: {words}", self.place());
        self.condemn(BackendErrorKind::Failed, message)
    }

    fn condemn(&self, kind: BackendErrorKind, message: String) -> BackendError {
        self.verdict.get_or_init(|| BackendError::new(kind, message)).clone()
    }

    /// The error of a call that tried long enough. Nothing of it was written.
    pub(super) fn unavailable(&self, last: &str) -> BackendError {
        let message =
            format!("the store at {} cannot be reached, tried for {:?}: {last}", self.place(), self.options.outage_max);
        BackendError::new(BackendErrorKind::Unavailable, message)
    }

    /// A session for reading. The caller has a place among the readers.
    pub(super) async fn take_reader(&self) -> Result<Session, ConnectError> {
        loop {
            let Some(session) = self.idle.lock().pop() else { break };
            if session.is_open() {
                return Ok(session);
            }
        }
        self.connect("reader").await
    }

    pub(super) fn give_back(&self, session: Session) {
        let mut idle = self.idle.lock();
        if session.is_open() && idle.len() < self.options.readers() && !self.is_closed() {
            idle.push(session);
        }
    }

    /// A slot. The caller has a place among the writers, which are as many as the slots.
    pub(super) fn take_slot(&self) -> Option<Slot> {
        self.slots.lock().pop()
    }

    pub(super) fn give_slot_back(&self, slot: Slot) {
        self.slots.lock().push(slot);
    }

    /// Notes that a slot's write is acknowledged.
    pub(super) fn acknowledge(&self, slot: &Slot) {
        if let Some(solid) = usize::try_from(slot.number).ok().and_then(|number| self.solid.get(number)) {
            solid.store(slot.solid, Ordering::Release);
        }
    }

    /// Opens a session, and looks whether the store is still what this handle left. All sessions end when a server
    /// crashes, so no write can follow a loss unless this has noticed it.
    pub(super) async fn connect(&self, role: &str) -> Result<Session, ConnectError> {
        let solid: Vec<i64> = self.solid.iter().map(|solid| solid.load(Ordering::Acquire)).collect();
        let session = Session::open(&self.address, &self.options, role).await?;
        let sql = "SELECT (SELECT epoch FROM lease), ARRAY(SELECT seq FROM writes WHERE epoch = $1 ORDER BY slot)";
        let (epoch, stored): (Option<i64>, Vec<i64>) =
            match session.link.drive(session.client.query_one(sql, &[&self.epoch])).await {
                Ok(row) => {
                    let of = |error: tokio_postgres::Error| ConnectError::of(&self.address, &error);
                    (row.try_get(0).map_err(of)?, row.try_get(1).map_err(of)?)
                }
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => (None, Vec::new()),
                Err(error) => return Err(ConnectError::of(&self.address, &error)),
            };
        if epoch.is_some_and(|epoch| epoch > self.epoch) {
            self.fence();
        } else if epoch != Some(self.epoch)
            || stored.len() < solid.len()
            || stored.iter().zip(&solid).any(|(stored, solid)| stored < solid)
        {
            self.fail(LOST);
        }
        Ok(session)
    }
}

/// Why a handle is given up whose acknowledged writes are gone.
pub(super) const LOST: &str = "writes that were acknowledged before they were synced are gone, through a crash of the \
                               database server (or it was replaced by an older copy), so what was read before no longer \
                               agrees with what is stored";

/// The store in words.
pub(super) fn place(address: &Address, options: &PostgresOptions) -> String {
    format!("{} schema {}", address.shown, options.schema)
}

/// The numbers of a store's advisory locks in its database.
pub(super) struct Keys {
    pub(super) writes: i64,
    pub(super) lease: i64,
}

impl Keys {
    pub(super) fn of(schema: &str) -> Self {
        Self { writes: key("writes", schema), lease: key("lease", schema) }
    }
}

/// 64 bits of a name: FNV-1a, as in <http://www.isthe.com/chongo/tech/comp/fnv/>. Never changes: it is how two
/// versions of govc meet.
fn key(purpose: &str, schema: &str) -> i64 {
    let bytes = ["govc", purpose, schema].into_iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash.cast_signed()
}
