//! What one commit changes against its first parent, as far as it is searched: regular files, whose contents differ.

use std::{sync::Arc, time::Instant};

use govc_engine::{CommitLinks, EntryMode, Error, Oid, PathChange, Result, Snapshot};
use quick_cache::{Weighter, sync::Cache};

use crate::view::is_file;

/// Paths that one commit may change.
const CHANGES_MAX: usize = 500_000;

/// A path at which a commit differs from its first parent. It never has the same blob on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileChange {
    pub(crate) path: Box<[u8]>,
    pub(crate) old: Option<Oid>,
    pub(crate) new: Option<Oid>,
}

/// Reads what a commit changes.
///
/// # Errors
/// Too large if that is more than half a million paths; cancelled at the deadline; else when an object cannot be read.
pub(crate) fn read(
    snapshot: &Snapshot,
    commit: &Oid,
    links: &CommitLinks,
    until: Option<Instant>,
) -> Result<Vec<FileChange>> {
    let tree_of = |parent: &Oid| snapshot.commit_links(parent).map(|links| links.tree);
    let find = || {
        let before = links.parents.first().map(tree_of).transpose()?;
        snapshot.tree_changes(before, Some(links.tree), CHANGES_MAX, until)
    };
    let (paths, is_more) = find().map_err(|error| error.context(format!("commit {commit}")))?;
    if is_more {
        let message = format!("commit {commit} changes more than {CHANGES_MAX} paths, or very long ones");
        return Err(Error::new(govc_engine::ErrorKind::TooLarge, message));
    }
    Ok(paths.into_iter().filter_map(searched).collect())
}

/// The change as searches see it: symbolic links and submodules are nothing to them, and permissions no difference.
fn searched(change: PathChange) -> Option<FileChange> {
    let file = |side: Option<(EntryMode, Oid)>| side.filter(|(mode, _)| is_file(*mode)).map(|(_, oid)| oid);
    let (old, new) = (file(change.old), file(change.new));
    (old != new).then(|| FileChange { path: change.path.into(), old, new })
}

/// The changes of commits that are not indexed, as far as they were read of late: a question that ran out of time finds
/// there what it had read.
pub(crate) struct Recent {
    changes: Cache<Oid, Arc<[FileChange]>, Weigh>,
}

/// What the changes of a commit take.
#[derive(Clone)]
struct Weigh;

impl Weighter<Oid, Arc<[FileChange]>> for Weigh {
    fn weight(&self, _: &Oid, changes: &Arc<[FileChange]>) -> u64 {
        let paths: usize = changes.iter().map(|change| change.path.len() + size_of::<FileChange>()).sum();
        (paths + 128) as u64
    }
}

impl Recent {
    /// Keeps at most `budget_bytes`, about.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let items = usize::try_from(budget_bytes / 256).unwrap_or(usize::MAX).clamp(1, 1 << 24);
        Self { changes: Cache::with_weighter(items, budget_bytes, Weigh) }
    }

    /// What they take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.changes.weight()
    }

    /// What a commit changes.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn read(
        &self,
        snapshot: &Snapshot,
        commit: &Oid,
        links: &CommitLinks,
        until: Option<Instant>,
    ) -> Result<Arc<[FileChange]>> {
        if let Some(known) = self.changes.get(commit) {
            return Ok(known);
        }
        let changes: Arc<[FileChange]> = read(snapshot, commit, links, until)?.into();
        self.changes.insert(*commit, changes.clone());
        Ok(changes)
    }
}
