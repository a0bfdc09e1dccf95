//! One server for one store: a session that holds an advisory lock for as long as the store is open.
//!
//! The lock keeps a second server out; the epoch keeps a first one from writing that lost the lock without knowing.
//! Opening takes the lock and then the next epoch. When the lock's session breaks, writes go on, because each looks at
//! the epoch; a task takes the lock again. Only if another server came in between is the handle fenced.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use govc_engine::backend::{BackendError, BackendErrorKind};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;

use super::address::Address;
use super::failure::ConnectError;
use super::options::PostgresOptions;
use super::patience::Patience;
use super::session::Session;
use super::store::{Keys, Store, place};

/// How long an opening waits for the lock: the session of a process that was killed just now may still be ending.
const LOCK_PATIENCE: Duration = Duration::from_millis(1500);
/// How often the session shows that it still has the lock.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a statement of the lease may take before its session counts as broken.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long dropping a store waits for the lock to be given back.
const RELEASE_MAX: Duration = Duration::from_secs(3);

/// Connects and takes the lock.
pub(super) async fn take(address: &Address, options: &PostgresOptions) -> Result<Session, ConnectError> {
    let mut starting = Patience::of(options.outage_max);
    let session = loop {
        match Session::open(address, options, "lease").await {
            Err(error) if error.passing && starting.pause().await => {}
            result => break result?,
        }
    };
    let keys = Keys::of(&options.schema);
    let mut patience = Patience::of(LOCK_PATIENCE);
    loop {
        if lock(&session, keys.lease).await.map_err(|error| ConnectError::of(address, &error))? {
            return Ok(session);
        }
        if !patience.pause().await {
            return Err(locked(&session, address, options, keys.lease).await.into());
        }
    }
}

async fn lock(session: &Session, key: i64) -> Result<bool, tokio_postgres::Error> {
    session.link.drive(session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&key])).await?.try_get(0)
}

/// The error of a store that another server has open, with what can be learnt of that.
async fn locked(session: &Session, address: &Address, options: &PostgresOptions, key: i64) -> BackendError {
    let sql =
        "SELECT format('%s, process %s, from %s, since %s', coalesce(quote_literal(a.application_name), 'unknown'),
            l.pid, coalesce(host(a.client_addr), 'this machine or unknown'), coalesce(a.backend_start::text, 'unknown'))
        FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
            AND l.classid = (($1::bigint >> 32) & 4294967295)::oid AND l.objid = ($1::bigint & 4294967295)::oid";
    let holder = match session.link.drive(session.client.query_opt(sql, &[&key])).await {
        Ok(Some(row)) => row.try_get::<_, String>(0).unwrap_or_default(),
        _ => "it does not show who".to_owned(),
    };
    let message =
        format!("the store at PostgreSQL {} is in use by another server (session {holder})", place(address, options));
    BackendError::new(BackendErrorKind::Locked, message)
}

/// The task that keeps the lock.
pub(super) struct Lease {
    /// Dropped or used to end the task.
    stop: Option<oneshot::Sender<()>>,
    ended: mpsc::Receiver<()>,
}

impl Lease {
    /// Starts the task, on the current runtime, with the session that has the lock.
    pub(super) fn keep(store: Arc<Store>, session: Session) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = mpsc::channel();
        tokio::spawn(async move {
            keep(&store, session, stopped).await;
            // Nobody may be waiting.
            let _ = end.send(());
        });
        Self { stop: Some(stop), ended }
    }

    /// Gives the lock back, and waits for that.
    pub(super) fn release(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
            // When it takes too long the end of the connection does it.
            let _ = self.ended.recv_timeout(RELEASE_MAX);
        }
    }
}

/// What came of an attempt to have the lock again.
enum Regained {
    Yes(Box<Session>),
    Fenced,
    NotYet,
}

async fn keep(store: &Store, mut session: Session, mut stop: oneshot::Receiver<()>) {
    loop {
        let broken = tokio::select! {
            _ = &mut stop => {
                let unlock = async {
                    session.client.query("SELECT pg_advisory_unlock($1)", &[&store.lease_key]).await
                };
                let _ = timeout(ANSWER_MAX, session.link.drive(unlock)).await;
                return;
            }
            () = session.link.ended() => true,
            () = sleep(HEARTBEAT) => false,
        };
        if !broken && holds(&session, store.lease_key).await {
            continue;
        }
        session.abandon();
        let mut patience = Patience::endless();
        session = loop {
            tokio::select! {
                _ = &mut stop => return,
                _ = patience.pause() => {}
            }
            match regain(store).await {
                Regained::Yes(session) => break *session,
                Regained::NotYet => {}
                Regained::Fenced => {
                    store.fence();
                    return;
                }
            }
        };
    }
}

/// Whether the session has the lock: behind a pooler that hands out sessions by transaction it would not be its own.
async fn holds(session: &Session, key: i64) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND l.pid = pg_backend_pid() AND l.pid = $2 AND l.classid = (($1::bigint >> 32) & 4294967295)::oid
        AND l.objid = ($1::bigint & 4294967295)::oid)";
    let parameters: [&(dyn ToSql + Sync); 2] = [&key, &session.facts.pid];
    match timeout(ANSWER_MAX, session.link.drive(session.client.query_one(sql, &parameters))).await {
        Ok(Ok(row)) => row.try_get(0).unwrap_or(false),
        _ => false,
    }
}

async fn regain(store: &Store) -> Regained {
    // Opening it compares the epochs, too.
    let Ok(session) = store.connect("lease").await else { return Regained::NotYet };
    let locked = lock(&session, store.lease_key).await.unwrap_or(false);
    // Another server may have come and gone between.
    let epoch = match session.link.drive(session.client.query_one("SELECT epoch FROM lease", &[])).await {
        Ok(row) => row.try_get::<_, i64>(0).ok(),
        Err(_) => None,
    };
    match epoch {
        Some(epoch) if epoch != store.epoch => Regained::Fenced,
        Some(_) if locked => Regained::Yes(Box::new(session)),
        _ => Regained::NotYet,
    }
}
