//! SQL over one version of one repository.
//!
//! `commits`, `files`, `branches`, `tags`, `symbols` and `changes` are virtual tables of SQLite over a
//! [`govc_engine::Snapshot`]: nothing is copied or indexed, a scan reads what it needs, and the whole of `SELECT` is
//! there. Columns and examples are in `search/SQL.md`.
//!
//! A statement comes from anyone, so it runs in a connection of its own that can only read the tables
//! ([`connection`]), in bounded memory ([`memory`]), until its deadline. Storage errors come out as they are, never as
//! a text of SQLite's.
//!
//! Deliberately absent: writes, `ATTACH`, pragmas and temporary tables, by the authorizer; `REGEXP`, because no
//! deadline could stop an expression on a large value; `LIMIT` as something pushed down, because tables are read row
//! by row, only as far as SQLite asks.

mod changes;
mod commits;
mod connection;
mod files;
mod functions;
mod history;
#[allow(unsafe_code, reason = "SQLite takes its allocator as functions on raw blocks")]
mod memory;
mod pattern;
mod references;
mod run;
mod symbols;
#[allow(unsafe_code, reason = "rusqlite's traits for virtual tables are unsafe to implement")]
mod table;
mod tree;
mod value;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use govc_engine::{Error, ErrorKind, Result, Snapshot};
use rusqlite::{Connection, ErrorCode, Row, Statement};

pub use value::SqlValue;

use self::{memory::Refusal, run::Run};
use crate::{Corpus, Stop};

/// Most rows of one answer.
pub const SQL_ROWS_MAX: usize = 10_000;

/// One statement, and when to stop.
#[derive(Debug, Clone)]
pub struct SqlQuery {
    /// Exactly one `SELECT`, of at most 64 KiB.
    pub text: String,
    /// The values of `?1`, `?2`, ..., as many as the statement has.
    pub params: Vec<SqlValue>,
    /// After how many rows to stop; at most [`SQL_ROWS_MAX`].
    pub rows_max: usize,
    /// After about how many bytes of answer to stop.
    pub answer_bytes_max: usize,
    /// What SQLite may take at one time, for sorting, grouping and interim results, in bytes.
    pub memory_bytes_max: usize,
    /// When to stop.
    pub deadline: Option<Instant>,
}

impl Default for SqlQuery {
    fn default() -> Self {
        Self {
            text: String::new(),
            params: Vec::new(),
            rows_max: 1000,
            answer_bytes_max: 16 << 20,
            memory_bytes_max: 128 << 20,
            deadline: None,
        }
    }
}

/// The rows of a statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SqlAnswer {
    /// The names of the columns; none if the deadline had passed before the statement was compiled.
    pub columns: Vec<String>,
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<SqlValue>>,
    /// Why the statement was ended early; `None` if these are all rows.
    pub stopped: Option<Stop>,
    /// How many times a file was too large for a value, so that its `content` was NULL, or its symbols left out: more
    /// than 8 MiB, or less in statements of very many operations. Or its symbols cannot be told.
    pub contents_left_out: u64,
}

/// Has SQLite count memory by query; whether it does. Without it [`sql`] refuses to work.
///
/// Call it before anything in the process uses SQLite, such as a storage backend; afterwards it is too late. [`sql`]
/// itself calls it, which is enough where nothing else uses SQLite.
pub fn account_sql_memory() -> bool {
    memory::install()
}

/// Runs one `SELECT` over the tables of a snapshot. Languages and definitions are told and kept by the corpus.
///
/// # Errors
/// Invalid if the statement is malformed, is not one `SELECT`, or uses what it may not, with SQLite's reason and the
/// position, if it gives one; not found if a `rev` names nothing; limit exceeded if it needs more memory than it may
/// take, too large if a value would have more than 16 MiB; unavailable if memory is not counted, see
/// [`account_sql_memory`]; corrupt or backend if stored data cannot be read. A deadline is no error: the answer has the
/// rows up to it, which may be none.
pub fn sql(corpus: &Arc<Corpus>, snapshot: &Snapshot, query: &SqlQuery) -> Result<SqlAnswer> {
    query.check()?;
    if !account_sql_memory() {
        let message = "SQL is not available: SQLite was in use before its memory could be counted";
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let run = Arc::new(Run::new(snapshot.clone(), Arc::clone(corpus), query.deadline));
    let mut answer = SqlAnswer::default();
    let ended = memory::metered(query.memory_bytes_max, query.deadline, || {
        execute(&run, query, &mut answer).or_else(|error| why(&run, query, error).map(Some))
    });
    answer.stopped = ended?;
    answer.contents_left_out = run.contents_left_out();
    Ok(answer)
}

impl SqlQuery {
    /// What SQLite would not refuse, or not clearly.
    fn check(&self) -> Result<()> {
        if self.text.len() > connection::TEXT_BYTES_MAX {
            return Err(Error::invalid(format!("the statement has more than {} bytes", connection::TEXT_BYTES_MAX)));
        }
        match self.text.find('\0') {
            Some(at) => Err(Error::invalid(format!("the statement has a NUL, at byte {at}"))),
            None => Ok(()),
        }
    }
}

/// Why a statement could not be run to its end.
enum Failed {
    Sqlite(rusqlite::Error),
    Refused(String),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Failed::Sqlite(error)
    }
}

/// Fills the answer; gives what it was stopped by, if that was the answer itself.
fn execute(run: &Arc<Run>, query: &SqlQuery, answer: &mut SqlAnswer) -> Result<Option<Stop>, Failed> {
    let is_select = Arc::new(AtomicBool::new(false));
    let connection = connection::open(run, &is_select)?;
    let mut statement = prepare(&connection, query)?;
    if !is_select.load(Ordering::Relaxed) || !statement.readonly() {
        return Err(Failed::Refused("only SELECT is available".to_owned()));
    }
    if statement.is_explain() == 0 {
        run.bound_values(connection::bound_values(&connection, &query.text)?);
    }
    answer.columns = memory::suspended(|| statement.column_names().map(str::to_owned).collect());
    let mut answer_bytes: usize = answer.columns.iter().map(|name| 32 + name.len()).sum();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        if answer.rows.len() >= query.rows_max.min(SQL_ROWS_MAX) {
            return Ok(Some(Stop::Limit));
        }
        let values = memory::suspended(|| read(row, answer.columns.len()))?;
        answer_bytes = values.iter().map(SqlValue::weight_bytes).fold(answer_bytes, usize::saturating_add);
        if answer_bytes > query.answer_bytes_max {
            return Ok(Some(Stop::Size));
        }
        answer.rows.push(values);
    }
    Ok(None)
}

fn prepare<'a>(connection: &'a Connection, query: &SqlQuery) -> Result<Statement<'a>, Failed> {
    let mut statement = connection.prepare(&query.text)?;
    let (wanted, given) = (statement.parameter_count(), query.params.len());
    if wanted != given {
        return Err(Failed::Refused(format!("the statement has {wanted} parameters, but {given} values are given")));
    }
    for (index, value) in query.params.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(statement)
}

fn read(row: &Row<'_>, columns: usize) -> rusqlite::Result<Vec<SqlValue>> {
    (0..columns).map(|column| Ok(SqlValue::read(row.get_ref(column)?))).collect()
}

/// What a failure means to the caller: a stop, or an error.
fn why(run: &Run, query: &SqlQuery, failed: Failed) -> Result<Stop> {
    match run.take_failure() {
        Some(error) if *error.kind() == ErrorKind::Cancelled => return Ok(Stop::Deadline),
        Some(error) => return Err(error),
        None => {}
    }
    if let Some(refused) = run.take_refused() {
        return Err(Error::invalid(refused));
    }
    let error = match failed {
        Failed::Refused(message) => return Err(Error::invalid(message)),
        Failed::Sqlite(error) => error,
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => Ok(Stop::Deadline),
        Some(ErrorCode::OutOfMemory) => match memory::refusal() {
            Some(Refusal::Deadline) => Ok(Stop::Deadline),
            Some(Refusal::Limit) => {
                let message = format!("the query needs more than {} bytes of memory", query.memory_bytes_max);
                Err(Error::new(ErrorKind::LimitExceeded, message))
            }
            None => Err(Error::new(ErrorKind::LimitExceeded, "the statement is too long when compiled")),
        },
        Some(ErrorCode::TooBig) => {
            let message = format!("a value has more than {} bytes", run.value_bytes_max());
            Err(Error::new(ErrorKind::TooLarge, message))
        }
        _ => Err(Error::invalid(describe(error))),
    }
}

/// SQLite's words.
fn describe(error: rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, offset, .. } => format!("{msg}, at byte {offset}"),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message,
        rusqlite::Error::MultipleStatement => "there is more than one statement".to_owned(),
        error => error.to_string(),
    }
}
