//! `changes`: the paths that each commit of a history changes against its first parent.

use std::{cell::OnceCell, collections::HashMap, ffi::CStr, hash::Hasher, sync::Arc, vec::IntoIter};

use govc_engine::{
    ChangeStatus, CommitLinks, EntryMode, Error, ErrorKind, FileChange, Kind, Oid, Result, tree_entries,
};

use super::{
    commits::CommitScan,
    run::{Rev, Run},
    table::{Estimate, Given, Rows, Slot, Table, Test, Tests},
    value::{Argument, Cell},
};

const COMMIT_HASH: usize = 0;
const PATH: usize = 1;
const REV: usize = 9;

const BY_REV: usize = 0;
const BY_COMMIT: usize = 1;
const BY_PATH: usize = 2;

pub(super) struct Changes;

impl Table for Changes {
    const DECLARATION: &'static CStr = c"CREATE TABLE changes(
        commit_hash TEXT, path TEXT, kind TEXT, old_mode TEXT, new_mode TEXT, old_hash TEXT, new_hash TEXT,
        additions INTEGER, deletions INTEGER, rev TEXT HIDDEN)";
    const SLOTS: &'static [Slot] = &[
        Slot { column: REV, test: Test::Argument },
        Slot { column: COMMIT_HASH, test: Test::Equal },
        Slot { column: PATH, test: Test::Equal },
    ];
    type Rows = ChangeRows;

    fn estimate(_: &Run, given: Given) -> Estimate {
        let (cost, rows) = match (given.has(BY_COMMIT), given.has(BY_PATH)) {
            (true, true) => (30.0, 1),
            (true, false) => (100.0, 10),
            (false, true) => (200_000.0, 100),
            (false, false) => (2_000_000.0, 200_000),
        };
        Estimate { cost, rows, is_unique: false }
    }

    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<ChangeRows>> {
        let Some(rev) = run.commit_rev(tests.get(BY_REV))? else { return Ok(None) };
        let Some(commits) = CommitScan::new(run, &rev, tests.get(BY_COMMIT))? else { return Ok(None) };
        let finder = match tests.get(BY_PATH) {
            Some(Argument::Text(path)) => Finder::Path(PathFinder::new(path)),
            Some(Argument::Null) => return Ok(None),
            None | Some(Argument::Integer(_) | Argument::Other) => Finder::All,
        };
        Ok(Some(ChangeRows {
            run: Arc::clone(run),
            rev,
            commits,
            finder,
            commit: None,
            changes: Vec::new().into_iter(),
            current: None,
            counts: OnceCell::new(),
        }))
    }
}

pub(super) struct ChangeRows {
    run: Arc<Run>,
    rev: Rev,
    commits: CommitScan,
    finder: Finder,
    /// Whose changes they are.
    commit: Option<Oid>,
    /// Those that follow.
    changes: IntoIter<FileChange>,
    current: Option<FileChange>,
    /// Lines added and removed, once they were asked for.
    counts: OnceCell<Option<(u64, u64)>>,
}

impl Rows for ChangeRows {
    fn advance(&mut self) -> Result<bool> {
        self.counts.take();
        loop {
            self.current = self.changes.next();
            if self.current.is_some() {
                return Ok(true);
            }
            let Some((oid, links)) = self.commits.next(&self.run)? else { return Ok(false) };
            self.run.check_deadline()?;
            self.commit = Some(oid);
            self.changes = self.finder.changes(&self.run, oid, &links)?.into_iter();
        }
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let (Some(change), Some(commit)) = (&self.current, &self.commit) else { return Ok(Cell::Null) };
        let mode = |side: Option<(EntryMode, Oid)>| Cell::maybe(side, |(mode, _)| Cell::string(mode.to_octal()));
        let hash = |side: Option<(EntryMode, Oid)>| Cell::maybe(side, |(_, oid)| Cell::string(oid));
        Ok(match column {
            COMMIT_HASH => Cell::string(commit),
            PATH => Cell::text(&change.path),
            2 => Cell::text(kind(change.status).as_bytes()),
            3 => mode(change.old),
            4 => mode(change.new),
            5 => hash(change.old),
            6 => hash(change.new),
            7 => Cell::maybe(self.counts(change)?, |(added, _)| Cell::count(added)),
            8 => Cell::maybe(self.counts(change)?, |(_, removed)| Cell::count(removed)),
            REV => Cell::text(&self.rev.name),
            _ => Cell::Null,
        })
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.rev.name);
        if let (Some(change), Some(commit)) = (&self.current, &self.commit) {
            hasher.write(commit.as_bytes());
            hasher.write(&change.path);
        }
    }
}

impl ChangeRows {
    fn counts(&self, change: &FileChange) -> Result<Option<(u64, u64)>> {
        if let Some(counts) = self.counts.get() {
            return Ok(*counts);
        }
        self.run.check_deadline()?;
        let counts = self.run.snapshot.line_counts(change)?;
        Ok(*self.counts.get_or_init(|| counts))
    }
}

fn kind(status: ChangeStatus) -> &'static str {
    match status {
        ChangeStatus::Added => "added",
        ChangeStatus::Deleted => "deleted",
        ChangeStatus::Modified => "modified",
        ChangeStatus::TypeChanged => "type_changed",
    }
}

/// Paths that one commit may change.
const CHANGES_MAX: usize = 1_000_000;

/// Finds what a commit changes.
enum Finder {
    All,
    Path(PathFinder),
}

impl Finder {
    fn changes(&mut self, run: &Run, commit: Oid, links: &CommitLinks) -> Result<Vec<FileChange>> {
        match self {
            Finder::All => {
                let changes = run.snapshot.changed_paths(commit, CHANGES_MAX, run.deadline)?;
                if changes.truncated {
                    let message = format!("commit {commit} changes too many paths for a statement: ask for one path");
                    return Err(Error::new(ErrorKind::TooLarge, message));
                }
                Ok(changes.files)
            }
            Finder::Path(finder) => {
                let parent = links.parents.first().map(|parent| run.snapshot.commit_links(parent)).transpose()?;
                let change = finder.change(run, parent.map(|parent| parent.tree), links.tree)?;
                Ok(change.into_iter().collect())
            }
        }
    }
}

type Entry = Option<(EntryMode, Oid)>;

/// Looks for one path in the trees of a history. Most trees are met twice, as a commit's and as its parent's, and in
/// most commits the first names of the path lead to the same tree in both.
struct PathFinder {
    path: Vec<u8>,
    /// The path's names; none if no tree can have it, as where one is empty.
    names: Vec<Vec<u8>>,
    /// What a tree has under the name of this place.
    known: HashMap<(Oid, usize), Entry>,
}

impl PathFinder {
    fn new(path: &[u8]) -> Self {
        let names: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let is_plain = names.iter().all(|name| !name.is_empty());
        Self { path: path.to_vec(), names: if is_plain { names } else { Vec::new() }, known: HashMap::new() }
    }

    /// What became of the file or submodule at the path.
    fn change(&mut self, run: &Run, old: Option<Oid>, new: Oid) -> Result<Option<FileChange>> {
        let tree = |entry: Entry| entry.filter(|(mode, _)| mode.is_tree()).map(|(_, oid)| oid);
        let file = |entry: Entry| entry.filter(|(mode, _)| !mode.is_tree());
        let (mut old, mut new) = (old, Some(new));
        for place in 0..self.names.len() {
            let (before, after) = (self.entry(run, old, place)?, self.entry(run, new, place)?);
            if place + 1 == self.names.len() && file(before) != file(after) {
                return Ok(Some(FileChange::uncounted(self.path.clone(), file(before), file(after))));
            }
            if before == after {
                return Ok(None);
            }
            (old, new) = (tree(before), tree(after));
        }
        Ok(None)
    }

    fn entry(&mut self, run: &Run, tree: Option<Oid>, place: usize) -> Result<Entry> {
        let (Some(tree), Some(name)) = (tree, self.names.get(place)) else { return Ok(None) };
        if let Some(known) = self.known.get(&(tree, place)) {
            return Ok(*known);
        }
        let data = run.snapshot.object_of(&tree, Kind::Tree)?;
        let mut found = None;
        for entry in tree_entries(tree.format(), &data) {
            let entry = entry?;
            if *entry.name == **name {
                found = Some((entry.mode, entry.oid));
                break;
            }
        }
        self.known.insert((tree, place), found);
        Ok(found)
    }
}
