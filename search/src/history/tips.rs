//! Where a question about a history begins: branches and tags, or the revisions that the query names.

use std::{collections::HashSet, time::Instant};

use govc_engine::{Error, ErrorKind, Kind, Oid, RefName, Result, Snapshot};

use crate::{
    deadline,
    place::{PLACES_MAX, branches},
    query::Options,
};

/// References between two looks at the clock.
const CLOCK_REFS: usize = 1024;

/// A commit that a question begins at.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    /// The reference that it is the tip of; `None` for a revision.
    pub(super) name: Option<RefName>,
    pub(super) commit: Oid,
}

/// All branches and tags, or what the query's `branch:` and `rev:` say.
///
/// # Errors
/// Not found if a revision is not there; invalid if a branch's glob is malformed; cancelled at the deadline; a limit is
/// exceeded by a hundred thousand references.
pub(super) fn tips(snapshot: &Snapshot, options: &Options, until: Option<Instant>) -> Result<Vec<Tip>> {
    let mut tips = Vec::new();
    if options.revs.is_empty() && options.branches.is_empty() {
        for prefix in [&b"refs/heads/"[..], b"refs/tags/"] {
            for (number, (name, target)) in snapshot.references_with_prefix(prefix).enumerate() {
                if number % CLOCK_REFS == 0 {
                    deadline::check(until)?;
                }
                if let (commit, Kind::Commit) = snapshot.peel(*target)? {
                    tips.push(Tip { name: Some(name.clone()), commit });
                }
            }
        }
    }
    for glob in &options.branches {
        let named = branches(snapshot, glob, until)?;
        tips.extend(named.into_iter().map(|(name, commit)| Tip { name: Some(name), commit }));
    }
    for rev in &options.revs {
        let commit = snapshot.resolve_commit_until(rev, until)?;
        tips.push(Tip { name: None, commit });
    }
    if tips.len() > PLACES_MAX {
        let message = format!("the question begins at more than {PLACES_MAX} references");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    let mut seen = HashSet::new();
    tips.retain(|tip| tip.name.as_ref().is_none_or(|name| seen.insert(name.clone())));
    Ok(tips)
}

/// The commits that any reference points at, through tags.
///
/// # Errors
/// Cancelled at the deadline; else when a tag cannot be read.
pub(super) fn all_tips(snapshot: &Snapshot, until: Option<Instant>) -> Result<HashSet<Oid>> {
    let mut tips = HashSet::new();
    for (number, (_, target)) in snapshot.references().enumerate() {
        if number % CLOCK_REFS == 0 {
            deadline::check(until)?;
        }
        if let (commit, Kind::Commit) = snapshot.peel(*target)? {
            tips.insert(commit);
        }
    }
    Ok(tips)
}
