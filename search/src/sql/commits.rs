//! `commits`: those that a revision reaches, the newest first.

use std::{cell::OnceCell, ffi::CStr, hash::Hasher, sync::Arc};

use govc_engine::{Commit, CommitLinks, Oid, Result};
use parking_lot::Mutex;

use super::{
    history::History,
    run::{Rev, Run},
    table::{Estimate, Given, Rows, Slot, Table, Test, Tests},
    value::{Argument, Cell},
};

const HASH: usize = 0;
const REV: usize = 11;

const BY_REV: usize = 0;
const BY_HASH: usize = 1;

pub(super) struct Commits;

impl Table for Commits {
    const DECLARATION: &'static CStr = c"CREATE TABLE commits(
        hash TEXT, tree TEXT, parents TEXT,
        author_name TEXT, author_email TEXT, author_date INTEGER,
        committer_name TEXT, committer_email TEXT, committer_date INTEGER,
        message TEXT, subject TEXT, rev TEXT HIDDEN)";
    const SLOTS: &'static [Slot] =
        &[Slot { column: REV, test: Test::Argument }, Slot { column: HASH, test: Test::Equal }];
    type Rows = CommitRows;

    fn estimate(_: &Run, given: Given) -> Estimate {
        if given.has(BY_HASH) {
            return Estimate { cost: 5.0, rows: 1, is_unique: true };
        }
        Estimate { cost: 20_000.0, rows: 20_000, is_unique: false }
    }

    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<CommitRows>> {
        let Some(rev) = run.commit_rev(tests.get(BY_REV))? else { return Ok(None) };
        let Some(scan) = CommitScan::new(run, &rev, tests.get(BY_HASH))? else { return Ok(None) };
        Ok(Some(CommitRows { run: Arc::clone(run), rev, scan, current: None, parsed: OnceCell::new() }))
    }
}

pub(super) struct CommitRows {
    run: Arc<Run>,
    rev: Rev,
    scan: CommitScan,
    current: Option<(Oid, CommitLinks)>,
    /// Of the current one, if a column was asked for that needs it.
    parsed: OnceCell<Commit>,
}

impl Rows for CommitRows {
    fn advance(&mut self) -> Result<bool> {
        self.parsed.take();
        self.current = self.scan.next(&self.run)?;
        Ok(self.current.is_some())
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let Some((oid, links)) = &self.current else { return Ok(Cell::Null) };
        match column {
            HASH => return Ok(Cell::string(oid)),
            1 => return Ok(Cell::string(links.tree)),
            2 => {
                let parents: Vec<String> = links.parents.iter().map(Oid::to_string).collect();
                return Ok(Cell::string(parents.join(" ")));
            }
            REV => return Ok(Cell::text(&self.rev.name)),
            _ => {}
        }
        let commit = self.commit(oid)?;
        Ok(match column {
            3 => Cell::text(&commit.author.name),
            4 => Cell::text(&commit.author.email),
            5 => Cell::Integer(commit.author.seconds),
            6 => Cell::text(&commit.committer.name),
            7 => Cell::text(&commit.committer.email),
            8 => Cell::Integer(commit.committer.seconds),
            9 => Cell::text(&commit.message),
            10 => Cell::Text(subject(&commit.message).into()),
            _ => Cell::Null,
        })
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.rev.name);
        if let Some((oid, _)) = &self.current {
            hasher.write(oid.as_bytes());
        }
    }
}

impl CommitRows {
    fn commit(&self, oid: &Oid) -> Result<&Commit> {
        if let Some(commit) = self.parsed.get() {
            return Ok(commit);
        }
        let commit = self.run.snapshot.commit(oid)?;
        Ok(self.parsed.get_or_init(|| commit))
    }
}

/// The commits of a history, or one of them.
pub(super) enum CommitScan {
    All { history: Arc<Mutex<History>>, next: usize },
    One(Option<(Oid, CommitLinks)>),
}

impl CommitScan {
    /// The commits that `rev` reaches; with a `hash`, the one of them that has it. `None` if there is none.
    pub(super) fn new(run: &Run, rev: &Rev, hash: Option<&Argument>) -> Result<Option<Self>> {
        let text = match hash {
            Some(Argument::Text(text)) => text,
            // What else is compared with a hash is converted to no hash, or is what SQLite makes of all rows.
            Some(Argument::Null) => return Ok(None),
            None | Some(Argument::Integer(_) | Argument::Other) => {
                return Ok(Some(CommitScan::All { history: run.history(rev.oid)?, next: 0 }));
            }
        };
        let is_canonical = !text.iter().any(u8::is_ascii_uppercase);
        let Some(oid) = run.snapshot.object_format().oid_from_hex(text).ok().filter(|_| is_canonical) else {
            return Ok(None);
        };
        // Reading it first spares walking a history for what is not there at all.
        if !run.snapshot.contains(&oid)? || !run.history(rev.oid)?.lock().contains(run, &oid)? {
            return Ok(None);
        }
        Ok(Some(CommitScan::One(Some((oid, run.snapshot.commit_links(&oid)?)))))
    }

    pub(super) fn next(&mut self, run: &Run) -> Result<Option<(Oid, CommitLinks)>> {
        match self {
            CommitScan::All { history, next } => {
                let found = history.lock().get(run, *next)?;
                *next += 1;
                Ok(found)
            }
            CommitScan::One(commit) => Ok(commit.take()),
        }
    }
}

/// The first paragraph of a message on one line, as `git log --format=%s` shows it.
fn subject(message: &[u8]) -> Vec<u8> {
    let lines = message.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let first: Vec<&[u8]> = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect();
    first.join(&b' ')
}

#[cfg(test)]
mod tests {
    use super::subject;

    #[test]
    fn a_subject_is_the_first_paragraph_on_one_line() {
        let check = |message: &str, expected: &str| assert_eq!(subject(message.as_bytes()), expected.as_bytes());
        check("", "");
        check("one", "one");
        check("one\ntwo  \n\nthree\n", "one two");
        check("\n\n one\r\n\r\ntwo", " one");
    }
}
