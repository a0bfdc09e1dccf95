//! What PostgreSQL's errors mean to the caller, and to a call that may try again.
//!
//! The severity decides what became of a statement: after ERROR the session lives and its transaction is rolled
//! back, so nothing was written; after FATAL, PANIC or a broken connection it may have been committed.

use std::error::Error as _;
use std::time::Duration;

use govc_engine::backend::{BackendError, BackendErrorKind};
use tokio_postgres::error::{DbError, Severity, SqlState};

use super::address::Address;

/// What to do about an error of a session.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The session is gone, and what became of its last statement is open.
    Lost(String),
    /// The transaction was rolled back by chance; the same again may do.
    Again(String),
    /// The transaction was rolled back, and would be again.
    Refused(BackendError),
}

impl Trouble {
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let words = words(error);
        let Some(db) = error.as_db_error() else {
            // These two are met before anything is sent; tokio-postgres has no other way to tell.
            let text = error.to_string();
            if text.starts_with("error encoding") || text.starts_with("error serializing") {
                return Self::Refused(BackendError::new(BackendErrorKind::Unavailable, words));
            }
            return Self::Lost(words);
        };
        if !matches!(db.parsed_severity(), Some(Severity::Error)) {
            return Self::Lost(words);
        }
        let code = db.code();
        if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::QUERY_CANCELED]
            .contains(code)
        {
            return Self::Again(words);
        }
        // A standby, or a primary that became one: the name may lead to the new primary.
        if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
            return Self::Lost(words);
        }
        let kind = if *code == SqlState::DISK_FULL {
            BackendErrorKind::Full
        } else if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) {
            BackendErrorKind::Corrupt
        } else {
            BackendErrorKind::Unavailable
        };
        Self::Refused(BackendError::new(kind, words))
    }
}

/// An error in words: the server's own where there are such.
pub(super) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return db_words(db);
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn db_words(error: &DbError) -> String {
    let mut text = format!("{} (SQLSTATE {})", error.message(), error.code().code());
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

/// Why no session could be had.
#[derive(Debug)]
pub(super) struct ConnectError {
    pub(super) error: BackendError,
    /// Whether it passes by itself, as a server that starts does.
    pub(super) passing: bool,
}

impl ConnectError {
    pub(super) fn timed_out(address: &Address, after: Duration) -> Self {
        let message = format!("cannot connect to PostgreSQL at {}: no answer within {after:?}", address.shown);
        Self { error: BackendError::new(BackendErrorKind::Unavailable, message), passing: false }
    }

    /// An error of reaching the server, before anything is said.
    pub(super) fn unreached(address: &Address, error: &std::io::Error) -> Self {
        let words = format!("error connecting to server: {error}");
        let (kind, advice) = other_advice(&words);
        Self { error: BackendError::new(kind, told(address, &words, &advice)), passing: false }
    }

    /// An error of connecting or of the first statements.
    pub(super) fn of(address: &Address, error: &tokio_postgres::Error) -> Self {
        let (kind, advice) = match error.as_db_error() {
            Some(db) => db_advice(address, db),
            None => other_advice(&words(error)),
        };
        let passing = error.code() == Some(&SqlState::CANNOT_CONNECT_NOW);
        Self { error: BackendError::new(kind, told(address, &words(error), &advice)), passing }
    }
}

fn told(address: &Address, words: &str, advice: &str) -> String {
    let separator = if advice.is_empty() { "" } else { "; " };
    format!("cannot open the store at PostgreSQL {}: {words}{separator}{advice}", address.shown)
}

impl From<BackendError> for ConnectError {
    fn from(error: BackendError) -> Self {
        Self { error, passing: false }
    }
}

fn db_advice(address: &Address, error: &DbError) -> (BackendErrorKind, String) {
    let (user, database) = (address.user(), address.database());
    let failed = |advice: String| (BackendErrorKind::Failed, advice);
    let code = error.code();
    if *code == SqlState::INVALID_CATALOG_NAME {
        failed(format!("create it: CREATE DATABASE \"{database}\" OWNER \"{user}\""))
    } else if *code == SqlState::INVALID_PASSWORD {
        failed(format!("check the password in the URL, and the role \"{user}\""))
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        failed(format!(
            "check that the role \"{user}\" exists and may log in, and that pg_hba.conf has a line for this address; \
             where that line is hostssl, sslmode=require or stricter is needed"
        ))
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        failed(format!(
            "the role \"{user}\" lacks a right: it must own the schema and its tables, or be allowed to create the \
             schema (GRANT CREATE ON DATABASE \"{database}\" TO \"{user}\")"
        ))
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        let advice = "raise the server's max_connections, or the role's or database's connection limit, or lower \
                      connections_max";
        (BackendErrorKind::Unavailable, advice.to_owned())
    } else if *code == SqlState::CANNOT_CONNECT_NOW {
        (BackendErrorKind::Unavailable, String::new())
    } else if *code == SqlState::DISK_FULL {
        (BackendErrorKind::Full, "make room on the server's disk".to_owned())
    } else {
        failed(String::new())
    }
}

fn other_advice(words: &str) -> (BackendErrorKind, String) {
    let has = |part: &str| words.contains(part);
    if has("TLS") || has("certificate") {
        let advice = if has("does not support TLS") {
            "the server offers no TLS: turn it on there (ssl = on), or connect with sslmode=disable"
        } else if has("UnknownIssuer") || has("BadSignature") || has("CaUsedAsEndEntity") {
            "the server's certificate is not signed by an authority in sslrootcert"
        } else if has("NotValidForName") || has("not valid for name") {
            "the server's certificate is for another host: connect by a name that it has, or use sslmode=verify-ca"
        } else if has("Expired") || has("expired") {
            "the server's certificate has expired"
        } else {
            ""
        };
        return (BackendErrorKind::Failed, advice.to_owned());
    }
    if has("password missing") {
        return (BackendErrorKind::Failed, "the server asks for a password, and the URL has none".to_owned());
    }
    let advice = if has("lookup") || has("resolve") {
        "check the host's name in the URL"
    } else if has("refused") || has("No such file") {
        "check that the server runs and listens there (listen_addresses, port, unix_socket_directories)"
    } else {
        ""
    };
    (BackendErrorKind::Unavailable, advice.to_owned())
}
