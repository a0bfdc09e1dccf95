//! Versions: immutable maps of all references of a repository, and what made each from the one before.

use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};
use parking_lot::Mutex;

use super::ids::Cause;
use crate::{
    Error, Result,
    object::Oid,
    refs::{RefChange, RefEdit, RefName, check_directory_conflicts},
};

/// References by name.
pub(crate) type Refs = OrdMap<RefName, Oid>;

/// All references of a repository at one moment; shares all but what changed with its neighbours.
#[derive(Debug, Clone)]
pub struct Version {
    /// Dense, per repository, from 1.
    pub number: u64,
    /// When it was published, in milliseconds since the Unix epoch; never before its predecessor.
    pub time_millis: i64,
    /// Who published it.
    pub actor: Arc<str>,
    /// Why.
    pub cause: Cause,
    /// The branch that `HEAD` names; it need not exist.
    pub head: RefName,
    pub(crate) refs: Refs,
    /// Grows when unpublished versions are given up after a failed write, so that what was built on them fails too.
    pub(crate) lineage: u64,
    /// The newest version up to this one whose writer was answered before it was written; zero if none was. A version
    /// below it is never given up.
    pub(crate) acknowledged: u64,
    pub(crate) previous: Previous,
}

/// What made a version from the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The references that changed.
    pub refs: Arc<[RefChange]>,
    /// The change of `HEAD`, if it changed.
    pub head: Option<HeadChange>,
}

/// `HEAD` names another branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadChange {
    /// The branch that it named.
    pub before: RefName,
    /// The branch that it names.
    pub after: RefName,
}

impl Changes {
    pub(crate) fn none() -> Self {
        Self { refs: Arc::new([]), head: None }
    }
}

impl Version {
    /// The references after `edits`, whose expectations must hold, and what changed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] for an expectation that does not hold, [`crate::ErrorKind::Exists`] when a
    /// reference would be another's directory.
    pub(crate) fn edited(&self, edits: &[RefEdit]) -> Result<(Refs, Arc<[RefChange]>)> {
        let change = |edit: &RefEdit| {
            let before = self.refs.get(&edit.name).copied();
            if !edit.expected.holds(before) {
                return Err(Error::conflict(&edit.name.as_str(), edit.expected.oid(), before));
            }
            Ok(RefChange { name: edit.name.clone(), before, after: edit.target })
        };
        let changes = edits.iter().map(change).collect::<Result<Arc<[_]>>>()?;
        let mut refs = self.refs.clone();
        for change in changes.iter().filter(|change| change.after.is_none()) {
            refs.remove(&change.name);
        }
        for change in changes.iter() {
            let Some(target) = change.after else { continue };
            refs.insert(change.name.clone(), target);
            if change.before.is_none() {
                check_directory_conflicts(&refs, &change.name)?;
            }
        }
        Ok((refs, changes))
    }

    /// What made this version from the one before, found by comparing the two.
    pub(crate) fn changes_since(&self, before: &Version) -> Changes {
        let change = |item: DiffItem<'_, '_, RefName, Oid>| match item {
            DiffItem::Add(name, after) => RefChange { name: name.clone(), before: None, after: Some(*after) },
            DiffItem::Remove(name, before) => RefChange { name: name.clone(), before: Some(*before), after: None },
            DiffItem::Update { old, new } => {
                RefChange { name: new.0.clone(), before: Some(*old.1), after: Some(*new.1) }
            }
        };
        let head =
            (self.head != before.head).then(|| HeadChange { before: before.head.clone(), after: self.head.clone() });
        Changes { refs: before.refs.diff(&self.refs).map(change).collect(), head }
    }
}

/// The version before, as long as it is needed to read earlier ones: until it can be had from the history.
#[derive(Default)]
pub(crate) struct Previous(Mutex<Option<Arc<Version>>>);

impl Previous {
    pub(crate) fn new(version: Arc<Version>) -> Self {
        Self(Mutex::new(Some(version)))
    }

    pub(crate) fn get(&self) -> Option<Arc<Version>> {
        self.0.lock().clone()
    }

    /// Lets go of the version before.
    pub(crate) fn cut(&self) {
        // One by one, for a chain may be longer than the stack is deep.
        let mut next = self.0.lock().take();
        while let Some(version) = next {
            next = Arc::into_inner(version).and_then(|version| version.previous.0.lock().take());
        }
    }
}

impl Drop for Previous {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Clone for Previous {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.get()))
    }
}

impl std::fmt::Debug for Previous {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.get().map(|version| version.number))
    }
}
