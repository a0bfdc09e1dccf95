//! A backend in a schema of a PostgreSQL database: a table for each [`Family`].
//!
//! What always holds:
//! - A batch is one transaction. `Sync::Yes` answers when its commit record is on the server's disk, and with it all
//!   earlier ones; `Sync::No` answers when it is visible. What a crash of the server takes away is a suffix of the
//!   unsynced writes, and a handle that lives through it notices and writes no more.
//! - Batches share an advisory lock of the transaction; those with preconditions or deletes have it alone. So a check
//!   and its write happen in one moment, also among several processes.
//! - Every write looks, under that lock, whether the epoch is still its own; opening a store starts a new epoch. So
//!   a server that was taken over cannot write, however late its bytes arrive.
//! - A write whose connection breaks is made again under its own number, and is done once.
//!
//! The trait is synchronous and its callers may be threads of any runtime. A call runs on the thread that makes it
//! (`call.rs`, `wire.rs`); a small runtime beside it has the timers, tells of sockets, and runs scans and the lease.

mod address;
mod call;
mod changes;
mod failure;
mod lease;
mod moment;
mod options;
mod patience;
mod reader;
mod scan;
mod schema;
mod session;
mod store;
mod tls;
mod wire;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Scan, Sync, Usage,
};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

pub use moment::PostgresMoment;
pub use options::PostgresOptions;

use self::address::Address;
use self::failure::ConnectError;
use self::lease::Lease;
use self::session::{Facts, Session};
use self::store::{Keys, Store, place};
use crate::span::Span;

/// Threads of the runtime.
const THREADS: usize = 2;

/// A [`Backend`] in a schema of a PostgreSQL database. The schema stays locked until the value is closed or dropped.
pub struct PostgresBackend {
    store: Arc<Store>,
    facts: Facts,
    lease: Mutex<Lease>,
    threads: Threads,
}

impl PostgresBackend {
    /// Opens the store in the database of `url` (`postgres://user:password@host:port/database?sslmode=...`), in the
    /// schema that it or the options name, which is created if it is not there.
    ///
    /// # Errors
    /// [`BackendErrorKind::Locked`] if another server has it open, [`BackendErrorKind::Unavailable`] if the database
    /// cannot be reached, [`BackendErrorKind::Full`] if there is no room, [`BackendErrorKind::Failed`] otherwise: the
    /// message says what to do, and never holds the password.
    pub fn open(url: &str, options: PostgresOptions) -> BackendResult<Self> {
        let (address, options) = address_of(url, options)?;
        let threads = Threads::start(THREADS)?;
        let (store, facts, lease) = threads.run(open(address, options)).map_err(|error| error.error)?;
        Ok(Self { store, facts, lease: Mutex::new(lease), threads })
    }

    /// Opens the store of `url` as it is now, also while a server has it open and writes it: later writes are not seen, and
    /// every write to the moment fails. Changes nothing.
    ///
    /// # Errors
    /// As [`PostgresBackend::open`], but never [`BackendErrorKind::Locked`]; [`BackendErrorKind::Failed`] if there is no store.
    pub fn open_to_read(url: &str, options: PostgresOptions) -> BackendResult<PostgresMoment> {
        PostgresMoment::open(url, options)
    }

    /// Removes the store of `url` with all that it holds, if there is one.
    ///
    /// # Errors
    /// As [`PostgresBackend::open`]; [`BackendErrorKind::Locked`] if a server has it open.
    pub fn remove(url: &str, options: PostgresOptions) -> BackendResult<()> {
        let (address, options) = address_of(url, options)?;
        Threads::start(1)?.run(schema::remove(&address, &options)).map_err(|error| error.error)
    }

    /// What an administrator should know about the server's settings.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.facts.fsync {
            warnings.push("fsync is off on the server: a crash of its machine loses or damages the store".to_owned());
        }
        if !self.facts.full_page_writes {
            warnings
                .push("full_page_writes is off on the server: a crash of its machine can damage the store".to_owned());
        }
        warnings
    }
}

/// A URL taken apart; a schema that it names goes before the options'.
fn address_of(url: &str, options: PostgresOptions) -> BackendResult<(Address, PostgresOptions)> {
    let mut address = Address::parse(url, options.connect_timeout)?;
    let schema = address.schema.take().unwrap_or(options.schema);
    let options = PostgresOptions { schema, ..options };
    options.check()?;
    Ok((address, options))
}

/// The threads beside the callers'.
struct Threads {
    /// Taken when the value is dropped, without waiting for tasks: that would panic on a thread of another runtime.
    runtime: Option<Runtime>,
}

impl Threads {
    fn start(count: usize) -> BackendResult<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(count).thread_name("govc-postgres").enable_all().build();
        let runtime = runtime.map_err(|error| {
            BackendError::new(BackendErrorKind::Failed, format!("cannot start the threads of the database: {error}"))
        })?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs work on the caller's thread, to its end, with the timers and sockets of these.
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let _context = self.runtime.as_ref().map(Runtime::enter);
        // The caller may be a task, which is to give way after so many polls; here nobody would take it.
        call::block_on(tokio::task::unconstrained(work))
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn open(address: Address, options: PostgresOptions) -> Result<(Arc<Store>, Facts, Lease), ConnectError> {
    let mut session = lease::take(&address, &options).await?;
    let Session { client, link, .. } = &mut session;
    link.drive(schema::prepare(client, &address, &options)).await?;
    let keys = Keys::of(&options.schema);
    let epoch = link.drive(schema::take_epoch(client, keys.writes, options.writers())).await;
    let epoch = epoch.map_err(|error| ConnectError::of(&address, &error))?;
    let store = Arc::new(Store::new(address, options, keys, epoch));
    let reader = store.connect("reader").await?;
    if reader.facts.pid == session.facts.pid {
        let message = format!(
            "a connection pooler in front of PostgreSQL {} hands out sessions by transaction, and a lock of a session \
             would not hold; connect to the server itself, or set the pooler to sessions",
            place(&store.address, &store.options)
        );
        return Err(BackendError::new(BackendErrorKind::Failed, message).into());
    }
    store.give_back(reader);
    let facts = session.facts.clone();
    Ok((Arc::clone(&store), facts, Lease::keep(store, session)))
}

impl Backend for PostgresBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.store.check_open()?;
        self.threads.run(reader::get(&self.store, family, key))
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        self.store.check_open()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.threads.run(reader::get_many(&self.store, family, keys))
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.store.check_open()?;
        let reverse = scan.reverse;
        let Some(span) = Span::of(scan) else { return Ok(Box::new(std::iter::empty())) };
        let (walker, walk) = scan::pair(Arc::clone(&self.store), family, span, reverse);
        self.threads.spawn(walker.run());
        Ok(Box::new(walk.begin()?))
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        self.store.check_open()?;
        if let Some(verdict) = self.store.verdict() {
            return Err(verdict.clone());
        }
        if batch.ops.is_empty() && batch.preconditions.is_empty() && sync == Sync::No {
            return Ok(());
        }
        self.threads.run(writer::write(&self.store, &batch, sync))
    }

    fn sync(&self) -> BackendResult<()> {
        // An empty transaction would flush nothing; a number of its own flushes the log up to it.
        self.write(Batch::new(), Sync::Yes)
    }

    fn describe(&self) -> Description {
        let location = place(&self.store.address, &self.store.options);
        Description { kind: "postgres", location, durable: self.facts.fsync }
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.store.check_open()?;
        self.threads.run(reader::usage(&self.store))
    }

    fn close(&self) -> BackendResult<()> {
        let mut lease = self.lease.lock();
        if self.store.is_closed() {
            return Ok(());
        }
        let synced = self.threads.run(writer::close(&self.store));
        lease.release();
        synced
    }
}

impl Drop for PostgresBackend {
    fn drop(&mut self) {
        self.lease.lock().release();
        // While there are threads that tell of sockets, so that they can take leave.
        self.store.end_sessions();
    }
}
