//! One connection with its settings and its prepared statements.
//!
//! Settings that an administrator may have made for interactive users (timeouts, above all) are set to what the store
//! needs, for this session alone. The planner is told to use indexes: it would take a small or never analysed table
//! for one to read and sort whole, and keep that plan when the table has grown.

use std::collections::HashMap;

use govc_engine::backend::{BackendError, BackendErrorKind, Family};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage, Statement};

use super::address::{Address, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, UNACKNOWLEDGED_MAX};
use super::failure::ConnectError;
use super::options::PostgresOptions;
use super::schema;
use super::wire::{Candidate, Link, Wire, candidates};

/// PostgreSQL 13, in the form of `server_version_num`.
const VERSION_MIN: i32 = 130_000;

/// A statement that is prepared once in each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Query {
    Get(Family),
    GetMany(Family),
    Scan { family: Family, bounded: bool, reverse: bool },
    Write,
}

impl Query {
    fn text(self) -> String {
        match self {
            Query::Get(family) => format!("SELECT value FROM {} WHERE key = $1", family.name()),
            Query::GetMany(family) => format!("SELECT key, value FROM {} WHERE key = ANY ($1)", family.name()),
            Query::Scan { family, bounded, reverse } => format!(
                "SELECT key, value FROM {} WHERE key >= $1{} ORDER BY key{}",
                family.name(),
                if bounded { " AND key < $2" } else { "" },
                if reverse { " DESC" } else { "" }
            ),
            Query::Write => schema::call_write(),
        }
    }
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) pid: i32,
    pub(super) fsync: bool,
    pub(super) full_page_writes: bool,
}

/// A connection, used by one call at a time. Whatever asks with `client` is run by `link`, or nothing is sent.
pub(super) struct Session {
    // Dropped in this order: the client takes leave, statements have nobody to be told of, and the link sends what there is.
    pub(super) client: Client,
    pub(super) statements: Statements,
    pub(super) link: Link,
    pub(super) facts: Facts,
}

/// The statements that a session has prepared.
#[derive(Default)]
pub(super) struct Statements(Mutex<HashMap<Query, Statement>>);

impl Session {
    /// Connects and makes the settings. `role` is added to the application's name. Of several servers the first is taken that
    /// can hold a store.
    pub(super) async fn open(address: &Address, options: &PostgresOptions, role: &str) -> Result<Self, ConnectError> {
        let mut last = None;
        for candidate in candidates(&address.config) {
            match Self::connect(&candidate, address, options, role).await {
                Ok(session) => return Ok(session),
                Err(error) => last = Some(error),
            }
        }
        // A URL without any host is refused when it is read.
        Err(last.unwrap_or_else(|| ConnectError::timed_out(address, options.connect_timeout)))
    }

    async fn connect(
        candidate: &Candidate,
        address: &Address,
        options: &PostgresOptions,
        role: &str,
    ) -> Result<Self, ConnectError> {
        let mut config = address.config.clone();
        config.application_name(format!("{} {role}", address.application));
        let wire = candidate.connect(&config).await.map_err(|error| ConnectError::unreached(address, &error))?;
        // What is said then is bounded as well.
        let patience = options.connect_timeout.max(*config.get_connect_timeout().unwrap_or(&options.connect_timeout));
        match timeout(patience, Self::begin(wire, candidate, address, &config, options)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::timed_out(address, patience)),
        }
    }

    async fn begin(
        wire: Wire,
        candidate: &Candidate,
        address: &Address,
        config: &Config,
        options: &PostgresOptions,
    ) -> Result<Self, ConnectError> {
        let of = |error: tokio_postgres::Error| ConnectError::of(address, &error);
        let mut tls = address.tls.clone();
        let Ok(tls) = MakeTlsConnect::<Wire>::make_tls_connect(&mut tls, &candidate.host);
        let (client, connection) = config.connect_raw(wire, tls).await.map_err(of)?;
        let link = Link::new(connection);
        let answers = link.drive(client.simple_query(&set_up(options))).await.map_err(of)?;
        let facts = facts(address, &answers)?;
        Ok(Self { client, statements: Statements::default(), link, facts })
    }

    pub(super) fn is_open(&self) -> bool {
        self.link.is_open()
    }

    /// Ends the connection at once, with what it may still be receiving.
    pub(super) fn abandon(self) {
        self.link.cut();
    }

    /// A statement, prepared with the first use.
    pub(super) async fn statement(&self, query: Query) -> Result<Statement, tokio_postgres::Error> {
        self.statements.get(&self.client, query).await
    }
}

impl Statements {
    pub(super) async fn get(&self, client: &Client, query: Query) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.0.lock().get(&query) {
            return Ok(statement.clone());
        }
        let statement = client.prepare(&query.text()).await?;
        self.0.lock().insert(query, statement.clone());
        Ok(statement)
    }
}

fn set_up(options: &PostgresOptions) -> String {
    let search_path = format!("{}, pg_temp", options.quoted_schema()).replace('\'', "''");
    // All of them can be set by anyone. Those that this server does not know, being older, are left out by the join.
    // `synchronous_commit` may be stricter (`remote_apply`), so only `off` is changed; but it is set in any case, or a later
    // change of the server's files would reach the session.
    format!(
        "SELECT set_config(
            s.name,
            CASE WHEN s.name = 'synchronous_commit' AND s.setting <> 'off' THEN s.setting ELSE v.value END,
            false
        ) FROM (VALUES
            ('search_path', '{search_path}'),
            ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0'),
            ('idle_session_timeout', '0'), ('transaction_timeout', '0'),
            ('default_transaction_isolation', 'read committed'), ('synchronous_commit', 'on'),
            ('standard_conforming_strings', 'on'), ('client_min_messages', 'warning'), ('jit', 'off'),
            ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
            ('enable_sort', 'off'),
            ('tcp_keepalives_idle', '{}'), ('tcp_keepalives_interval', '{}'), ('tcp_keepalives_count', '{}'),
            ('tcp_user_timeout', '{}')
        ) AS v (name, value) JOIN pg_settings AS s ON s.name = v.name;
        SELECT current_setting('server_version_num'), pg_is_in_recovery(), current_setting('transaction_read_only'),
            current_setting('fsync'), current_setting('full_page_writes'), pg_backend_pid()",
        KEEPALIVE_IDLE.as_secs(),
        KEEPALIVE_INTERVAL.as_secs(),
        KEEPALIVE_RETRIES,
        UNACKNOWLEDGED_MAX.as_millis()
    )
}

/// Reads the last row of the set-up, and refuses a server that cannot hold a store.
fn facts(address: &Address, answers: &[SimpleQueryMessage]) -> Result<Facts, ConnectError> {
    let refuse = |kind: BackendErrorKind, words: &str| {
        let message = format!("cannot open the store at PostgreSQL {}: {words}", address.shown);
        Err(BackendError::new(kind, message).into())
    };
    let row = answers.iter().rev().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let Some(row) = row.filter(|row| row.len() == 6) else {
        return refuse(BackendErrorKind::Failed, "the server does not tell its settings");
    };
    let text = |at: usize| row.get(at).unwrap_or_default();
    let version: i32 = text(0).parse().unwrap_or(0);
    if version < VERSION_MIN {
        let words = format!("the server is too old ({}); PostgreSQL 13 or newer is needed", version / 10_000);
        return refuse(BackendErrorKind::Failed, &words);
    }
    if text(1) == "t" {
        return refuse(BackendErrorKind::Unavailable, "the server is a standby, which is read-only; name the primary");
    }
    if text(2) == "on" {
        return refuse(
            BackendErrorKind::Unavailable,
            "default_transaction_read_only is on for this server, database or role; turn it off for this one",
        );
    }
    let pid = text(5).parse().unwrap_or(0);
    Ok(Facts { pid, fsync: text(3) == "on", full_page_writes: text(4) == "on" })
}
