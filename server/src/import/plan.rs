//! Which references change, and which must not.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use govc_engine::{
    CommitLinks, Error, Expected, Kind, Known as _, Oid, RefEdit, RefName, Result, Snapshot, merge_base,
};

use super::shown;
use super::source::{Head, References, Scope};
use super::watch::Patience;
use crate::git::pack::receive::Received;

/// Refused references that are named one by one.
const NAMED_MAX: usize = 10;
/// Commits between two looks at who may have had enough.
const STEP: usize = 1024;

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
    /// [`govc_engine::ErrorKind::Invalid`] naming those that do not; what `patience` ends with.
    pub(super) fn check_moves(
        &self,
        snapshot: &Snapshot,
        received: Option<&Received>,
        patience: Patience<'_>,
    ) -> Result<()> {
        let history = History { snapshot, received, patience, brought: RefCell::default(), reads: Cell::new(0) };
        let mut lost = Vec::new();
        for (name, old, new) in &self.moves {
            if merge_base(&|oid| history.commit(oid), *old, *new, None)? != Some(*old) {
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

/// The commits that are here and those that were received.
struct History<'a> {
    snapshot: &'a Snapshot,
    received: Option<&'a Received>,
    patience: Patience<'a>,
    /// What was received and read already.
    brought: RefCell<HashMap<Oid, CommitLinks>>,
    /// How often a commit was asked for.
    reads: Cell<usize>,
}

impl History<'_> {
    /// What a commit points at: nothing, if it is missing or no commit, which others refuse it for.
    fn commit(&self, oid: &Oid) -> Result<CommitLinks> {
        self.reads.set(self.reads.get() + 1);
        if self.reads.get().is_multiple_of(STEP) {
            self.patience.check()?;
        }
        if let Some(links) = self.brought.borrow().get(oid) {
            return Ok(links.clone());
        }
        let nothing =
            || CommitLinks { tree: self.snapshot.object_format().null(), parents: Default::default(), seconds: 0 };
        match self.received.map(|received| received.brought(oid)).transpose()?.flatten() {
            Some((kind, links)) => {
                let parents = links.targets.iter().filter(|(_, kind)| *kind == Some(Kind::Commit));
                let parents = parents.map(|(oid, _)| *oid).filter(|_| kind == Kind::Commit).collect();
                let links = CommitLinks { parents, seconds: links.commit_seconds, ..nothing() };
                self.brought.borrow_mut().insert(*oid, links.clone());
                Ok(links)
            }
            None => match self.snapshot.commit_links(oid) {
                Err(_) if self.snapshot.header(oid)?.is_none_or(|(kind, _)| kind != Kind::Commit) => Ok(nothing()),
                links => links,
            },
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use govc_backends::MemoryBackend;
    use govc_engine::{Cause, RepoName, RepoSettings, Silent, Store, StoreOptions};

    use super::*;

    #[test]
    fn a_long_history_is_walked_with_patience() {
        let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).expect("a store");
        let name = RepoName::new("a").expect("a name");
        let repo = store.create(&name, RepoSettings::default(), "test").expect("a repository");
        let mut transaction = repo.begin("test", Cause::Import);
        let tree = transaction.put(Kind::Tree, bytes::Bytes::new()).expect("a tree");
        let mut line: Vec<Oid> = Vec::new();
        for at in 0..3 * STEP {
            let parent = line.last().map(|oid| format!("parent {oid}\n")).unwrap_or_default();
            let person = format!("Ada <ada@example.org> {} +0000", 1_700_000_000 + at);
            let text = format!("tree {tree}\n{parent}author {person}\ncommitter {person}\n\nmore\n");
            line.push(transaction.put(Kind::Commit, text.into_bytes().into()).expect("a commit"));
        }
        let main = RefName::branch("main").expect("a name");
        let (old, new) = (line[0], line[line.len() - 1]);
        transaction
            .edit(RefEdit { name: main.clone(), expected: Expected::Absent, target: Some(new) })
            .expect("an edit");
        transaction.prepare().expect("prepared").publish().expect("published").ticket.wait().expect("durable");
        let snapshot = repo.snapshot();
        let plan = |old, new| {
            let moves = vec![(main.clone(), old, new)];
            Plan { edits: Vec::new(), head: None, added: 0, updated: 0, deleted: 0, moves }
        };
        plan(old, new).check_moves(&snapshot, None, Patience::ENDLESS).expect("it follows");
        let error = plan(new, old).check_moves(&snapshot, None, Patience::ENDLESS).expect_err("it does not");
        assert!(error.message().contains("does not follow"), "{error}");
        let nowhere = Oid::from_bytes(&[1; 20]).expect("an id");
        for new in [nowhere, tree] {
            let error = plan(old, new).check_moves(&snapshot, None, Patience::ENDLESS).expect_err("no commit");
            assert!(error.message().contains("does not follow"), "{error}");
        }
        let over = Patience::new(&Silent, Some(Instant::now()));
        let error = plan(old, new).check_moves(&snapshot, None, over).expect_err("the time is over");
        assert!(error.message().contains("--timeout"), "{error}");
    }
}
