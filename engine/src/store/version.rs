//! Versions: immutable maps of all references of a repository, and what made each from the one before.

use std::sync::Arc;

use super::{ids::Cause, push_certificate::PushCertificate};
use crate::{
    Error, Result,
    refs::{NameCheck, Origin, RefChange, RefEdit, RefMap, RefName},
    sync::Mutex,
};

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
    /// What was signed of the push that made it. Of a version that was settled before the store was opened, its row has it.
    pub certificate: Option<Arc<PushCertificate>>,
    /// The branch that `HEAD` names; it need not exist.
    pub head: RefName,
    pub(crate) refs: RefMap,
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
    /// Where the realities began that are new.
    pub origin: Option<Arc<Origin>>,
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
        Self { refs: Arc::new([]), head: None, origin: None }
    }
}

impl Version {
    /// The references after `edits`, whose expectations must hold, and what changed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] for an expectation that does not hold, [`crate::ErrorKind::Exists`] when a
    /// reference would be another's directory, [`crate::ErrorKind::Invalid`] for a new reality without an origin.
    pub(crate) fn edited(&self, edits: &[RefEdit], origin: Option<&Arc<Origin>>) -> Result<(RefMap, Arc<[RefChange]>)> {
        let change = |edit: &RefEdit| {
            let before = self.refs.get(&edit.name);
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
        let mut check = NameCheck::default();
        for change in changes.iter() {
            let Some(target) = change.after else { continue };
            refs.set_from(change.name.clone(), target, origin)?;
            if change.before.is_none() {
                refs.check_directories(&change.name, &mut check)?;
            }
        }
        Ok((refs, changes))
    }

    /// The references after changes that were made once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the changes cannot have been made.
    pub(crate) fn replayed(&self, changes: &Changes) -> Result<RefMap> {
        let mut refs = self.refs.clone();
        for change in changes.refs.iter() {
            match change.after {
                Some(oid) => refs
                    .set_from(change.name.clone(), oid, changes.origin.as_ref())
                    .map_err(|error| Error::corrupt(error.message()))?,
                None => refs.remove(&change.name),
            }
        }
        Ok(refs)
    }

    /// What made this version from the one before, found by comparing the two.
    pub(crate) fn changes_since(&self, before: &Version) -> Changes {
        let head =
            (self.head != before.head).then(|| HeadChange { before: before.head.clone(), after: self.head.clone() });
        let refs = self.refs.changes_since(&before.refs);
        let is_new = |change: &&RefChange| change.before.is_none() && change.name.is_reality();
        let origin = refs.iter().find(is_new).and_then(|change| self.refs.reality(&change.name));
        let origin = origin.map(|reality| reality.origin.clone());
        Changes { refs: refs.into(), head, origin }
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
