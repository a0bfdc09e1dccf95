//! Which references change, and which must not.

use std::collections::HashSet;

use govc_engine::{Error, Expected, Kind, Known as _, Oid, RefEdit, RefName, Result, Snapshot};

use super::shown;
use super::source::{Head, References, Scope};
use crate::git::pack::receive::Received;

/// Refused references that are named one by one.
const NAMED_MAX: usize = 10;

/// What an import changes.
pub(super) struct Plan {
    /// Deletions first: a deleted `a` makes way for `a/b`. Else in the order of names.
    pub(super) edits: Vec<RefEdit>,
    /// The branch that `HEAD` is to name.
    pub(super) head: Option<RefName>,
    pub(super) added: usize,
    pub(super) updated: usize,
    pub(super) deleted: usize,
    /// Branches that may only go on: name, old, new.
    moves: Vec<(RefName, Oid, Oid)>,
}

impl Plan {
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] for tags that would change, and for a mirror that would lose everything.
    pub(super) fn new(snapshot: &Snapshot, references: &References, scope: Scope, force: bool) -> Result<Self> {
        let mut plan = Self { edits: Vec::new(), head: None, added: 0, updated: 0, deleted: 0, moves: Vec::new() };
        if scope == Scope::Mirror {
            let gone = snapshot.references().filter(|(name, _)| !references.all.contains_key(*name));
            for (name, oid) in gone {
                plan.edits.push(RefEdit { name: name.clone(), expected: Expected::Is(*oid), target: None });
            }
            plan.deleted = plan.edits.len();
            if references.all.is_empty() && plan.deleted > 0 && !force {
                let count = plan.deleted;
                return Err(Error::invalid(format!(
                    "the source has no references; all {count} of {} would be deleted (--force does that)",
                    snapshot.repo().name()
                )));
            }
        }
        let mut tags = Vec::new();
        for (name, oid) in &references.all {
            let old = snapshot.reference(name);
            match old {
                Some(old) if old == *oid => continue,
                None => plan.added += 1,
                Some(old) => {
                    plan.updated += 1;
                    if scope == Scope::BranchesAndTags && !force {
                        if name.is_tag() {
                            tags.push(format!("{} would change from {old} to {oid}", shown(name)));
                        } else {
                            plan.moves.push((name.clone(), old, *oid));
                        }
                    }
                }
            }
            let expected = old.map_or(Expected::Absent, Expected::Is);
            plan.edits.push(RefEdit { name: name.clone(), expected, target: Some(*oid) });
        }
        refuse(&tags)?;
        if scope == Scope::Mirror || snapshot.reference_count() == 0 {
            plan.head = first_head(references).filter(|head| head != snapshot.head());
        }
        Ok(plan)
    }

    /// Checks that branches go on from where they are.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] naming those that do not.
    pub(super) fn check_moves(&self, snapshot: &Snapshot, received: Option<&Received>) -> Result<()> {
        let mut lost = Vec::new();
        for (name, old, new) in &self.moves {
            if !follows(snapshot, received, *old, *new)? {
                lost.push(format!("{} would go from {old} to {new}, which does not follow from it", shown(name)));
            }
        }
        refuse(&lost)
    }
}

fn refuse(refused: &[String]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let more = match refused.len().checked_sub(NAMED_MAX) {
        Some(more) if more > 0 => format!("; and {more} more"),
        _ => String::new(),
    };
    let named = refused.get(..NAMED_MAX).unwrap_or(refused).join("; ");
    Err(Error::invalid(format!("nothing was changed: {named}{more} (--force overwrites)")))
}

/// Whether `new`, a commit that is here or was received, follows from `old`.
fn follows(snapshot: &Snapshot, received: Option<&Received>, old: Oid, new: Oid) -> Result<bool> {
    let mut seen = HashSet::new();
    let mut here = Vec::new();
    let mut queue = vec![new];
    while let Some(oid) = queue.pop() {
        if oid == old {
            return Ok(true);
        }
        if !seen.insert(oid) {
            continue;
        }
        match received.map(|received| received.brought(&oid)).transpose()?.flatten() {
            Some((Kind::Commit, links)) => {
                let parents = links.targets.into_iter().filter(|(_, kind)| *kind == Some(Kind::Commit));
                queue.extend(parents.map(|(oid, _)| oid));
            }
            // A branch that is no commit is refused for that.
            Some(_) => {}
            None => here.push(oid),
        }
    }
    for oid in here {
        if snapshot.header(&oid)?.is_some_and(|(kind, _)| kind == Kind::Commit)
            && snapshot.is_ancestor(old, oid, None)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The branch that `HEAD` names: what it does at the source; where it is detached, a branch at the same commit, or else one
/// of the usual names, or the only one.
pub(super) fn first_head(references: &References) -> Option<RefName> {
    let branches = || references.all.iter().filter(|(name, _)| name.is_branch());
    let usual = |wanted: Option<Oid>| {
        let fits = |name: &&str| {
            let name = RefName::branch(name).ok()?;
            let oid = references.all.get(&name)?;
            wanted.is_none_or(|wanted| wanted == *oid).then_some(name)
        };
        ["main", "master"].iter().find_map(fits)
    };
    match &references.head {
        Head::Branch(branch) => Some(branch.clone()),
        Head::Detached(oid) => usual(Some(*oid))
            .or_else(|| branches().find(|(_, at)| *at == oid).map(|(name, _)| name.clone()))
            .or_else(|| usual(None)),
        Head::Unknown => usual(None),
    }
    .or_else(|| branches().next().filter(|_| branches().count() == 1).map(|(name, _)| name.clone()))
}
