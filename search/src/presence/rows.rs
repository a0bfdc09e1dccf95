//! Commits as the presence index has them: numbered so that parents come first, with what each changes against its first
//! parent.

use std::sync::Arc;

use govc_engine::Oid;

use super::grown::Grown;
use crate::index::{Bits, BlobNo};

/// A commit's number: larger than those of its parents.
pub(crate) type CommitNo = u32;
/// The number of a path.
pub(crate) type PathNo = u32;
/// No commit, or no blob.
pub(crate) const NONE: u32 = u32::MAX;

/// A commit.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) oid: Oid,
    /// When it says that it was committed, in seconds since 1970.
    pub(crate) seconds: i64,
    /// When it was committed, in seconds since 1970; if that is not after all of its parents, a second after the last of
    /// them, as git's generation numbers have it (version 2, git's `commit-graph` documentation). Grows along history
    /// whatever the clocks said.
    pub(crate) corrected_seconds: i64,
    pub(crate) first_parent: CommitNo,
    /// All parents but the first.
    pub(crate) more_parents: Box<[CommitNo]>,
    /// Its changes among those of all commits.
    pub(crate) changes_start: u32,
    pub(crate) change_count: u32,
}

impl Row {
    /// All parents.
    pub(crate) fn parents(&self) -> impl Iterator<Item = CommitNo> {
        std::iter::once(self.first_parent).filter(|parent| *parent != NONE).chain(self.more_parents.iter().copied())
    }
}

/// What a commit changes at one path against its first parent: [`NONE`] is no searched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: PathNo,
    pub(crate) old: BlobNo,
    pub(crate) new: BlobNo,
}

/// Commits, their changes and the paths of these. A clone stays as it is and shares what it has with later ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    commits: Grown<Row>,
    changes: Grown<Change>,
    paths: Grown<Arc<[u8]>>,
    /// What lies behind pointers of commits and paths, in bytes.
    heap_bytes: u64,
}

impl Rows {
    /// How many commits there are.
    pub(crate) fn commit_count(&self) -> usize {
        self.commits.len()
    }

    /// How many changes there are.
    pub(crate) fn change_count(&self) -> usize {
        self.changes.len()
    }

    /// How many paths there are.
    pub(crate) fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// A commit.
    pub(crate) fn commit(&self, number: CommitNo) -> Option<&Row> {
        self.commits.get(number as usize)
    }

    /// The changes of one of its commits.
    pub(crate) fn changes(&self, row: &Row) -> impl Iterator<Item = Change> {
        self.changes.range(row.changes_start as usize, row.change_count as usize).copied()
    }

    /// A path.
    pub(crate) fn path(&self, number: PathNo) -> Option<&Arc<[u8]>> {
        self.paths.get(number as usize)
    }

    /// Adds a path.
    pub(crate) fn add_path(&mut self, path: Arc<[u8]>) {
        self.heap_bytes += path.len() as u64 + 16;
        self.paths.push(path);
    }

    /// Adds a commit behind its parents, `seconds` being what it says itself.
    pub(crate) fn add_commit(&mut self, oid: Oid, seconds: i64, parents: &[CommitNo], changes: &[Change]) {
        let (first_parent, more) = parents.split_first().map_or((NONE, &[][..]), |(first, more)| (*first, more));
        let after = |parent: &CommitNo| Some(self.commit(*parent)?.corrected_seconds.saturating_add(1));
        let corrected_seconds = parents.iter().filter_map(after).fold(seconds, i64::max);
        let count = |count: usize| u32::try_from(count).unwrap_or(NONE);
        let (changes_start, change_count) = (count(self.changes.len()), count(changes.len()));
        changes.iter().for_each(|change| self.changes.push(*change));
        self.heap_bytes += size_of_val(more) as u64;
        let more_parents = more.into();
        self.commits.push(Row {
            oid,
            seconds,
            corrected_seconds,
            first_parent,
            more_parents,
            changes_start,
            change_count,
        });
    }

    /// All that some commits follow from, and these.
    pub(crate) fn reached(&self, tips: &[CommitNo]) -> Bits {
        let mut reached = Bits::none(self.commit_count());
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

    /// Whether so many more commits and changes still get numbers.
    pub(crate) fn has_room(&self, changes: usize) -> bool {
        let room = |count: usize| count < NONE as usize / 2;
        room(self.changes.len() + changes) && room(self.commits.len()) && room(self.paths.len() + changes)
    }

    /// What it takes in memory, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let rows = self.commits.len() * size_of::<Row>() + self.changes.len() * size_of::<Change>();
        (rows + self.paths.len() * size_of::<Arc<[u8]>>()) as u64 + self.heap_bytes
    }
}
