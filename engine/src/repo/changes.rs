//! What a commit changes: files and line counts against its first parent.

use std::{cmp::Ordering, time::Instant};

use imara_diff::{Algorithm, Diff, InternedInput};

use super::{check_deadline, check_depth};
use crate::{
    Result,
    object::{EntryMode, Kind, Oid, TreeEntry, name_order, tree_entries},
    store::Snapshot,
};

/// What the changed paths of one answer may take, in bytes.
const CHANGED_BYTES_MAX: usize = 256 << 20;
/// What a directory that is gone through takes of that.
const TREE_BYTES: usize = 64;
/// Files larger than this are not counted line by line, in bytes.
const COUNTED_BYTES_MAX: u64 = 8 << 20;
/// Git's own test for binary: a NUL among the first bytes.
const BINARY_PROBE_BYTES: usize = 8000;

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeStatus {
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// Its content or permission changed.
    Modified,
    /// It changed between file, link and submodule.
    TypeChanged,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The path from the root.
    pub path: Vec<u8>,
    /// What became of it.
    pub status: ChangeStatus,
    /// What it was.
    pub old: Option<(EntryMode, Oid)>,
    /// What it is.
    pub new: Option<(EntryMode, Oid)>,
    /// Lines added; `None` for binary or very large files and submodules.
    pub additions: Option<u64>,
    /// Lines removed; likewise.
    pub deletions: Option<u64>,
}

impl FileChange {
    /// What became of a path that was and is so, none of its lines counted.
    pub fn uncounted(path: Vec<u8>, old: Option<(EntryMode, Oid)>, new: Option<(EntryMode, Oid)>) -> Self {
        let status = match (old, new) {
            (None, _) => ChangeStatus::Added,
            (_, None) => ChangeStatus::Deleted,
            (Some((a, _)), Some((b, _))) if a.type_bits() != b.type_bits() => ChangeStatus::TypeChanged,
            _ => ChangeStatus::Modified,
        };
        Self { path, status, old, new, additions: None, deletions: None }
    }
}

/// The changed paths of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// The paths, in git's order.
    pub files: Vec<FileChange>,
    /// Whether there are more than the limit.
    pub truncated: bool,
}

/// A path at which two trees differ; directories are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// The path from the root.
    pub path: Vec<u8>,
    /// What it was.
    pub old: Option<(EntryMode, Oid)>,
    /// What it is.
    pub new: Option<(EntryMode, Oid)>,
}

type Side = Option<(EntryMode, Oid)>;

impl Snapshot {
    /// The paths at which two trees differ, in git's order, at most `limit` and 256 MiB of them, and whether there are more.
    /// No tree at all is an empty one; no blob is read.
    ///
    /// # Errors
    /// As [`Snapshot::changes`].
    pub fn tree_changes(
        &self,
        old_tree: Option<Oid>,
        new_tree: Option<Oid>,
        limit: usize,
        deadline: Option<Instant>,
    ) -> Result<(Vec<PathChange>, bool)> {
        let mut diff = TreeDiff {
            snapshot: self,
            found: Vec::new(),
            limit,
            budget_bytes: CHANGED_BYTES_MAX,
            truncated: false,
            deadline,
        };
        diff.trees(old_tree, new_tree, &mut Vec::new(), 0)?;
        Ok((diff.found, diff.truncated))
    }

    /// What a commit changes against its first parent, or the empty tree; renames are a deletion and an addition.
    ///
    /// # Errors
    /// When objects are missing; [`crate::ErrorKind::Cancelled`] after the deadline.
    pub fn changes(&self, commit: Oid, limit: usize, deadline: Option<Instant>) -> Result<ChangeSet> {
        let parent = self.commit(&commit)?.parents.first().copied();
        self.changes_between(parent, commit, limit, deadline)
    }

    /// As [`Snapshot::changes`], but no file is read: lines are counted by [`Snapshot::line_counts`].
    ///
    /// # Errors
    /// As [`Snapshot::changes`].
    pub fn changed_paths(&self, commit: Oid, limit: usize, deadline: Option<Instant>) -> Result<ChangeSet> {
        let links = self.commit_links(&commit)?;
        let parent = links.parents.first().map(|parent| self.commit_links(parent)).transpose()?;
        let (found, truncated) =
            self.tree_changes(parent.map(|parent| parent.tree), Some(links.tree), limit, deadline)?;
        let files =
            found.into_iter().map(|PathChange { path, old, new }| FileChange::uncounted(path, old, new)).collect();
        Ok(ChangeSet { files, truncated })
    }

    /// The lines that a change adds and removes; `None` for binary or very large files and submodules.
    ///
    /// # Errors
    /// When objects are missing.
    pub fn line_counts(&self, change: &FileChange) -> Result<Option<(u64, u64)>> {
        self.count_lines(change.old, change.new)
    }

    /// What differs between two commits, or the empty tree and one.
    ///
    /// # Errors
    /// As [`Snapshot::changes`].
    pub fn changes_between(
        &self,
        old: Option<Oid>,
        new: Oid,
        limit: usize,
        deadline: Option<Instant>,
    ) -> Result<ChangeSet> {
        let old_tree = old.map(|old| Ok::<_, crate::Error>(self.commit(&old)?.tree)).transpose()?;
        let new = self.commit(&new)?;
        let (found, truncated) = self.tree_changes(old_tree, Some(new.tree), limit, deadline)?;
        let describe = |PathChange { path, old, new }| {
            check_deadline(deadline)?;
            self.describe(path, old, new)
        };
        let files = found.into_iter().map(describe).collect::<Result<_>>()?;
        Ok(ChangeSet { files, truncated })
    }

    fn describe(&self, path: Vec<u8>, old: Side, new: Side) -> Result<FileChange> {
        let (additions, deletions) = self.count_lines(old, new)?.unzip();
        Ok(FileChange { additions, deletions, ..FileChange::uncounted(path, old, new) })
    }

    fn count_lines(&self, old: Side, new: Side) -> Result<Option<(u64, u64)>> {
        if old.map(|(_, oid)| oid) == new.map(|(_, oid)| oid) {
            return Ok(Some((0, 0)));
        }
        let (Some(old), Some(new)) = (self.text(old)?, self.text(new)?) else { return Ok(None) };
        let input = InternedInput::new(&old[..], &new[..]);
        let diff = Diff::compute(Algorithm::Myers, &input);
        Ok(Some((u64::from(diff.count_additions()), u64::from(diff.count_removals()))))
    }

    /// A side's text: empty where there is nothing, `None` where lines are not counted.
    fn text(&self, side: Side) -> Result<Option<bytes::Bytes>> {
        let Some((mode, oid)) = side else { return Ok(Some(bytes::Bytes::new())) };
        if !mode.is_blob() || self.header(&oid)?.is_none_or(|(_, size)| size > COUNTED_BYTES_MAX) {
            return Ok(None);
        }
        let data = self.object_of(&oid, Kind::Blob)?;
        let binary = data[..data.len().min(BINARY_PROBE_BYTES)].contains(&0);
        Ok((!binary).then_some(data))
    }
}

struct TreeDiff<'a> {
    snapshot: &'a Snapshot,
    found: Vec<PathChange>,
    limit: usize,
    /// What is found may still take, and trees may still be gone through: a small push can name very many, with long names.
    budget_bytes: usize,
    truncated: bool,
    deadline: Option<Instant>,
}

impl TreeDiff<'_> {
    /// Takes from the budget; whether there was as much.
    fn spend(&mut self, bytes: usize) -> bool {
        let left = self.budget_bytes.checked_sub(bytes);
        self.truncated |= left.is_none();
        self.budget_bytes = left.unwrap_or(0);
        left.is_some()
    }

    fn trees(&mut self, old: Option<Oid>, new: Option<Oid>, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        if old == new || self.truncated {
            return Ok(());
        }
        check_depth(depth)?;
        check_deadline(self.deadline)?;
        if !self.spend(TREE_BYTES) {
            return Ok(());
        }
        let format = self.snapshot.object_format();
        let read = |tree: Option<Oid>| match tree {
            // The empty tree need not be stored.
            Some(tree) if tree != format.empty_tree() => self.snapshot.object_of(&tree, Kind::Tree),
            _ => Ok(bytes::Bytes::new()),
        };
        let (old, new) = (read(old)?, read(new)?);
        let (mut old, mut new) = (tree_entries(format, &old).peekable(), tree_entries(format, &new).peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(Ok(a)), Some(Ok(b))) => name_order(&a.name, a.mode.is_tree(), &b.name, b.mode.is_tree()),
                // The error itself comes out below.
                (Some(Err(_)), _) => Ordering::Less,
                (_, Some(Err(_))) => Ordering::Greater,
            };
            let before = if order.is_le() { old.next().transpose()? } else { None };
            let after = if order.is_ge() { new.next().transpose()? } else { None };
            self.entries(before, after, path, depth)?;
            if self.truncated {
                return Ok(());
            }
        }
    }

    fn entries(
        &mut self,
        old: Option<TreeEntry<'_>>,
        new: Option<TreeEntry<'_>>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<()> {
        let side = |entry: &Option<TreeEntry<'_>>| entry.as_ref().map(|entry| (entry.mode, entry.oid));
        let (before, after) = (side(&old), side(&new));
        if before == after {
            return Ok(());
        }
        let parent_len = path.len();
        if let Some(entry) = old.or(new) {
            path.extend_from_slice(&entry.name);
        }
        let tree_of = |side: Side| side.filter(|(mode, _)| mode.is_tree()).map(|(_, oid)| oid);
        let file_of = |side: Side| side.filter(|(mode, _)| !mode.is_tree());
        let (old_file, new_file) = (file_of(before), file_of(after));
        if old_file != new_file {
            if self.found.len() == self.limit {
                self.truncated = true;
            } else if self.spend(size_of::<PathChange>() + path.len()) {
                self.found.push(PathChange { path: path.clone(), old: old_file, new: new_file });
            }
        }
        let (old_tree, new_tree) = (tree_of(before), tree_of(after));
        if old_tree != new_tree {
            path.push(b'/');
            self.trees(old_tree, new_tree, path, depth + 1)?;
        }
        path.truncate(parent_len);
        Ok(())
    }
}
