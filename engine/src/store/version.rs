//! Versions: immutable maps of all references of a repository.

use std::sync::Arc;

use imbl::OrdMap;

use super::ids::Cause;
use crate::{
    Error, Result,
    object::Oid,
    refs::{RefEdit, RefName, check_directory_conflicts},
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
    /// The branch that `HEAD` names; it need not exist.
    pub head: RefName,
    pub(crate) refs: OrdMap<RefName, Oid>,
    /// Grows when unpublished versions are given up after a failed write, so that what was built on them fails too.
    pub(crate) lineage: u64,
    /// The newest version up to this one whose writer was answered before it was written; zero if none was. A version
    /// below it is never given up.
    pub(crate) acknowledged: u64,
}

impl Version {
    /// The references after `edits`, whose expectations must hold.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Conflict`] for an expectation that does not hold, [`crate::ErrorKind::Exists`] when a
    /// reference would be another's directory.
    pub(crate) fn edited(&self, edits: &[RefEdit]) -> Result<OrdMap<RefName, Oid>> {
        for edit in edits {
            let actual = self.refs.get(&edit.name).copied();
            if !edit.expected.holds(actual) {
                return Err(Error::conflict(&edit.name.as_str(), edit.expected.oid(), actual));
            }
        }
        let mut refs = self.refs.clone();
        for edit in edits.iter().filter(|edit| edit.target.is_none()) {
            refs.remove(&edit.name);
        }
        for edit in edits {
            let Some(target) = edit.target else { continue };
            if refs.insert(edit.name.clone(), target).is_none() {
                check_directory_conflicts(&refs, &edit.name)?;
            }
        }
        Ok(refs)
    }
}
