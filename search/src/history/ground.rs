//! The commits of a question: those that the presence index has, and behind them, numbered on, those that are read.
//!
//! The numbers of a commit's parents are smaller than its own, here as there.

use std::{collections::HashMap, sync::Arc, time::Instant};

use govc_engine::{CommitLinks, Error, ErrorKind, Oid, Result, Snapshot};

use crate::{
    corpus::Corpus,
    deadline,
    index::Bits,
    numbers::Numbers,
    presence::{Change, CommitNo, NONE, PathNo, Row, Rows},
};

/// Changes of commits that are not indexed that one question may read.
const READ_CHANGES_MAX: usize = 8_000_000;
/// Commits between two looks at the clock.
const CLOCK_COMMITS: usize = 256;

/// The commits of a question.
pub(super) struct Ground<'a> {
    corpus: &'a Corpus,
    snapshot: &'a Snapshot,
    until: Option<Instant>,
    indexed: Arc<Rows>,
    /// The commits that are read: as if they were all there are, so that their numbers begin at 0 in here.
    read: Vec<ReadCommit>,
    numbers: Numbers,
    changes: Vec<Change>,
    paths: Vec<Arc<[u8]>>,
    path_numbers: HashMap<Arc<[u8]>, PathNo>,
}

struct ReadCommit {
    row: Row,
    /// What it points at; taken when its changes are read.
    links: Option<CommitLinks>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(corpus: &'a Corpus, snapshot: &'a Snapshot, until: Option<Instant>) -> Self {
        Self {
            corpus,
            snapshot,
            until,
            indexed: corpus.presence.rows(),
            read: Vec::new(),
            numbers: Numbers::default(),
            changes: Vec::new(),
            paths: Vec::new(),
            path_numbers: HashMap::new(),
        }
    }

    fn number(&self, oid: &Oid) -> Option<CommitNo> {
        self.numbers.get(oid).or_else(|| self.corpus.presence.number(&self.indexed, oid))
    }

    /// The number of a commit, for which what is not indexed of its history is read; not yet what it changes.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when a commit cannot be read.
    pub(super) fn find(&mut self, tip: Oid) -> Result<CommitNo> {
        let mut path: Vec<(Oid, Option<CommitLinks>)> = vec![(tip, None)];
        let mut steps = 0_usize;
        while let Some((oid, links)) = path.pop() {
            steps += 1;
            if steps.is_multiple_of(CLOCK_COMMITS) {
                deadline::check(self.until)?;
            }
            if self.number(&oid).is_some() {
                continue;
            }
            if let Some(links) = links {
                self.add(oid, links)?;
                continue;
            }
            let links = self.snapshot.commit_links(&oid)?;
            let parents = links.parents.clone();
            path.push((oid, Some(links)));
            path.extend(parents.iter().rev().map(|parent| (*parent, None)));
        }
        self.number(&tip).ok_or_else(|| Error::not_found(format!("commit {tip} does not exist")))
    }

    fn add(&mut self, oid: Oid, links: CommitLinks) -> Result<()> {
        let too_many = || Error::new(ErrorKind::LimitExceeded, "the history has too many commits");
        let number = u32::try_from(self.commit_count()).ok().filter(|number| *number < NONE).ok_or_else(too_many)?;
        let mut parents = Vec::with_capacity(links.parents.len());
        for parent in &links.parents {
            parents
                .push(self.number(parent).ok_or_else(|| Error::not_found(format!("commit {parent} does not exist")))?);
        }
        let after = |parent: &CommitNo| Some(self.commit(*parent)?.corrected_seconds.saturating_add(1));
        let row = Row {
            oid,
            seconds: links.seconds,
            corrected_seconds: parents.iter().filter_map(after).fold(links.seconds, i64::max),
            first_parent: parents.first().copied().unwrap_or(NONE),
            more_parents: parents.get(1..).unwrap_or_default().into(),
            changes_start: 0,
            change_count: 0,
        };
        self.read.push(ReadCommit { row, links: Some(links) });
        self.numbers.insert(&oid, number);
        Ok(())
    }

    /// Reads what those of `commits` change that are not indexed.
    ///
    /// # Errors
    /// A limit is exceeded by eight million changes; cancelled at the deadline, up to which what was read is
    /// remembered; else when an object cannot be read.
    pub(super) fn read_changes(&mut self, commits: &Bits) -> Result<()> {
        let first = self.indexed.commit_count();
        for at in 0..self.read.len() {
            let Some(commit) = self.read.get_mut(at) else { break };
            if !u32::try_from(first + at).is_ok_and(|number| commits.contains(number)) {
                continue;
            }
            let Some(links) = commit.links.take() else { continue };
            let oid = commit.row.oid;
            deadline::check(self.until)?;
            let changes = self.corpus.presence.recent.read(self.snapshot, &oid, &links, self.until)?;
            let start = self.changes.len();
            if start + changes.len() > READ_CHANGES_MAX {
                let message = format!("commits that are not indexed change more than {READ_CHANGES_MAX} files");
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            let sides: Vec<Oid> = changes.iter().flat_map(|change| [change.old, change.new]).flatten().collect();
            let mut blobs = self.corpus.index.numbers(&sides).into_iter();
            for change in changes.iter() {
                let path = self.path_number(&change.path);
                let mut side = |side: Option<Oid>| side.and_then(|_| blobs.next()).unwrap_or(NONE);
                let (old, new) = (side(change.old), side(change.new));
                self.changes.push(Change { path, old, new });
            }
            // There are fewer changes than `READ_CHANGES_MAX`.
            let count = |count: usize| u32::try_from(count).unwrap_or(0);
            if let Some(commit) = self.read.get_mut(at) {
                (commit.row.changes_start, commit.row.change_count) = (count(start), count(changes.len()));
            }
        }
        Ok(())
    }

    /// The number of a path of a commit that is read: behind those that are indexed.
    fn path_number(&mut self, path: &[u8]) -> PathNo {
        if let Some(known) = self.path_numbers.get(path) {
            return *known;
        }
        let number = u32::try_from(self.path_count()).unwrap_or(NONE);
        let path: Arc<[u8]> = path.into();
        self.paths.push(path.clone());
        self.path_numbers.insert(path, number);
        number
    }

    /// How many commits have numbers.
    pub(super) fn commit_count(&self) -> usize {
        self.indexed.commit_count() + self.read.len()
    }

    /// How many of them are not indexed.
    pub(super) fn read_count(&self) -> usize {
        self.read.len()
    }

    /// How many paths have numbers. A path may have two.
    pub(super) fn path_count(&self) -> usize {
        self.indexed.path_count() + self.paths.len()
    }

    /// A commit.
    pub(super) fn commit(&self, number: CommitNo) -> Option<&Row> {
        match (number as usize).checked_sub(self.indexed.commit_count()) {
            None => self.indexed.commit(number),
            Some(at) => self.read.get(at).map(|commit| &commit.row),
        }
    }

    /// A path.
    pub(super) fn path(&self, number: PathNo) -> &[u8] {
        match (number as usize).checked_sub(self.indexed.path_count()) {
            None => self.indexed.path(number).map_or(&[], |path| path),
            Some(at) => self.paths.get(at).map_or(&[], |path| path),
        }
    }

    /// Gives what a commit changes, in the order of its paths.
    pub(super) fn changes(&self, number: CommitNo, each: &mut dyn FnMut(Change)) {
        match (number as usize).checked_sub(self.indexed.commit_count()) {
            None => self.indexed.commit(number).into_iter().flat_map(|row| self.indexed.changes(row)).for_each(each),
            Some(at) => {
                let row = self.read.get(at).map(|commit| (commit.row.changes_start as usize, commit.row.change_count));
                let (start, count) = row.unwrap_or_default();
                self.changes.get(start..start + count as usize).unwrap_or_default().iter().copied().for_each(each);
            }
        }
    }

    /// All that some commits follow from, and these.
    pub(super) fn reached(&self, tips: &[CommitNo]) -> Bits {
        let mut reached = Bits::none(0);
        tips.iter().for_each(|tip| reached.insert(*tip));
        let mut end = NONE;
        while let Some(number) = reached.last_below(end) {
            if let Some(row) = self.commit(number) {
                row.parents().for_each(|parent| reached.insert(parent));
            }
            end = number;
        }
        reached
    }

    /// Some commits and, of each, the first parent, the first parent of that, and so on.
    pub(super) fn first_parents(&self, tips: &[CommitNo]) -> Bits {
        let mut chain = Bits::none(0);
        for tip in tips {
            let mut at = *tip;
            while at != NONE && !chain.contains(at) {
                chain.insert(at);
                at = self.commit(at).map_or(NONE, |row| row.first_parent);
            }
        }
        chain
    }
}
