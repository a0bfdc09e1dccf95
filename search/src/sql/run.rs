//! What the tables of one query share: the snapshot, the deadline, walked histories, and what went wrong.
//!
//! SQLite knows errors by number and text. Ours are kept here, whole, while SQLite unwinds by a mere number; so are
//! panics, which must not cross its frames.

use std::{
    any::Any,
    collections::hash_map::RandomState,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use govc_engine::{Error, ErrorKind, Kind, Oid, RefName, Result, Snapshot};
use parking_lot::Mutex;
use rusqlite::ffi;

use super::{
    connection::VALUE_BYTES_MAX,
    history::History,
    memory,
    value::{Argument, shown},
};
use crate::corpus::Corpus;

/// How many histories are kept for the next scan. A join over branches needs one at a time; one over two
/// revisions two.
const HISTORIES_MAX: usize = 4;
/// Steps of a loop between two looks at the clock.
const STEPS: u32 = 4096;

/// One query under way. All of it happens on one thread, although SQLite's interface demands `Sync`.
pub(super) struct Run {
    pub(super) snapshot: Snapshot,
    pub(super) corpus: Arc<Corpus>,
    pub(super) deadline: Option<Instant>,
    /// Makes rowids of what tells rows apart.
    pub(super) hasher: RandomState,
    /// The least recently used first.
    histories: Mutex<Vec<(Oid, Arc<Mutex<History>>)>>,
    /// The first one; what follows is its consequence.
    failure: Mutex<Option<Failure>>,
    /// What the authorizer refused first.
    refused: Mutex<Option<String>>,
    /// Contents that were too large to be values, or whose definitions cannot be told. Only counted, so any order will do.
    contents_left_out: AtomicU64,
    /// Largest value, in bytes. Set before the statement runs.
    value_bytes_max: AtomicUsize,
}

enum Failure {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

/// A revision that a table was asked for.
#[derive(Debug, Clone)]
pub(super) struct Rev {
    /// As it was said.
    pub(super) name: Vec<u8>,
    pub(super) oid: Oid,
}

impl Run {
    pub(super) fn new(snapshot: Snapshot, corpus: Arc<Corpus>, deadline: Option<Instant>) -> Self {
        Self {
            snapshot,
            corpus,
            deadline,
            hasher: RandomState::new(),
            histories: Mutex::default(),
            failure: Mutex::default(),
            refused: Mutex::default(),
            contents_left_out: AtomicU64::new(0),
            value_bytes_max: AtomicUsize::new(VALUE_BYTES_MAX),
        }
    }

    /// Runs what SQLite called, so that its failure is kept and no panic gets out.
    pub(super) fn guard<T>(&self, work: impl FnOnce() -> Result<T>) -> rusqlite::Result<T> {
        if memory::is_exceeded() {
            return Err(failed(ffi::SQLITE_NOMEM));
        }
        let failure = match catch_unwind(AssertUnwindSafe(|| memory::suspended(work))) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::Error(error),
            Err(panic) => Failure::Panic(panic),
        };
        self.failure.lock().get_or_insert(failure);
        Err(failed(ffi::SQLITE_ERROR))
    }

    /// The error of ours that SQLite was stopped by, if it was.
    ///
    /// # Panics
    /// Where it was a panic.
    pub(super) fn take_failure(&self) -> Option<Error> {
        match self.failure.lock().take()? {
            Failure::Error(error) => Some(error),
            Failure::Panic(panic) => resume_unwind(panic),
        }
    }

    /// Notes what the statement may not do.
    pub(super) fn refuse(&self, what: String) {
        self.refused.lock().get_or_insert(what);
    }

    pub(super) fn take_refused(&self) -> Option<String> {
        self.refused.lock().take()
    }

    pub(super) fn bound_values(&self, bytes: usize) {
        self.value_bytes_max.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn value_bytes_max(&self) -> usize {
        self.value_bytes_max.load(Ordering::Relaxed)
    }

    /// Whether a blob is too large for a value, with room for the rest of a row; notes that its content is left out.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) fn leaves_out(&self, blob: &Oid) -> Result<bool> {
        let size = self.snapshot.header(blob)?.map_or(0, |(_, size)| size);
        let is_left_out = size > self.value_bytes_max() as u64 / 2;
        if is_left_out {
            self.leave_out();
        }
        Ok(is_left_out)
    }

    /// Notes that a file's content, or what it defines, is not in the answer.
    pub(super) fn leave_out(&self) {
        self.contents_left_out.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn contents_left_out(&self) -> u64 {
        self.contents_left_out.load(Ordering::Relaxed)
    }

    pub(super) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// # Errors
    /// Cancelled after the deadline.
    pub(super) fn check_deadline(&self) -> Result<()> {
        if self.is_late() {
            return Err(Error::new(ErrorKind::Cancelled, "the time for this query is over"));
        }
        Ok(())
    }

    /// What a table's `rev` names: `HEAD` if it was not said. `None` if there is nothing to be read: it is NULL, or
    /// nothing was said and there is no commit yet.
    ///
    /// # Errors
    /// Not found or invalid if it names nothing.
    pub(super) fn rev(&self, argument: Option<&Argument>) -> Result<Option<Rev>> {
        let name = match argument {
            None => match self.snapshot.reference(self.snapshot.head()) {
                Some(oid) => return Ok(Some(Rev { name: b"HEAD".to_vec(), oid })),
                None => return Ok(None),
            },
            Some(Argument::Null) => return Ok(None),
            Some(Argument::Text(name)) => name.clone(),
            // An abbreviated hash without letters.
            Some(Argument::Integer(number)) => number.to_string().into_bytes(),
            Some(Argument::Other) => return Err(Error::invalid("rev is not a text")),
        };
        let oid = match std::str::from_utf8(&name) {
            Ok(text) => self.snapshot.resolve_until(text, self.deadline)?,
            Err(_) => self.reference_of_bytes(&name)?,
        };
        Ok(Some(Rev { name, oid }))
    }

    /// As [`Run::rev`], of which the commit is wanted.
    pub(super) fn commit_rev(&self, argument: Option<&Argument>) -> Result<Option<Rev>> {
        let Some(rev) = self.rev(argument)? else { return Ok(None) };
        match self.snapshot.peel(rev.oid)? {
            (oid, Kind::Commit) => Ok(Some(Rev { oid, ..rev })),
            (_, kind) => Err(Error::invalid(format!("rev {:?} names a {kind}, not a commit", shown(&rev.name)))),
        }
    }

    fn reference_of_bytes(&self, name: &[u8]) -> Result<Oid> {
        let prefixes: [&[u8]; 4] = [b"", b"refs/", b"refs/tags/", b"refs/heads/"];
        let found = prefixes.iter().find_map(|prefix| {
            let name = RefName::new([prefix, name].concat()).ok()?;
            self.snapshot.reference(&name)
        });
        found.ok_or_else(|| Error::not_found(format!("revision {:?} does not exist", shown(name))))
    }

    /// The history of a commit, as far as it was walked before.
    pub(super) fn history(&self, tip: Oid) -> Result<Arc<Mutex<History>>> {
        let mut histories = self.histories.lock();
        let known = histories.iter().position(|(of, _)| *of == tip);
        let entry = match known {
            Some(at) => histories.remove(at),
            None => (tip, Arc::new(Mutex::new(History::new(&self.snapshot, tip)?))),
        };
        if histories.len() >= HISTORIES_MAX {
            histories.remove(0);
        }
        let history = Arc::clone(&entry.1);
        histories.push(entry);
        Ok(history)
    }

    /// A blob's bytes.
    pub(super) fn blob(&self, oid: &Oid) -> Result<Bytes> {
        self.check_deadline()?;
        self.snapshot.object_of(oid, Kind::Blob)
    }
}

/// An error for SQLite that takes no memory of its own.
pub(super) fn failed(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// Looks at the clock now and then in a loop of small steps.
pub(super) struct Ticker<'a> {
    run: &'a Run,
    steps: u32,
}

impl<'a> Ticker<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run, steps: 0 }
    }

    /// # Errors
    /// Cancelled after the deadline.
    pub(super) fn tick(&mut self) -> Result<()> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS) { self.run.check_deadline() } else { Ok(()) }
    }
}
