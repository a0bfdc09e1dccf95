//! All references of a version: ordinary ones, and realities beside them.

use std::{ops::RangeBounds, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};

use super::{RefChange, RefName, edit::DirectoryCheck};
use crate::{Error, Result, object::Oid};

/// Where realities of one call began, and when they end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The version that they began from.
    pub version: u64,
    /// The commit that they began at.
    pub base: Oid,
    /// The branch that it was read from, if any.
    pub from: Option<RefName>,
    /// When they were made, in milliseconds since the Unix epoch.
    pub created_millis: i64,
    /// When their time is over, likewise; `None` if it never is.
    pub expires_millis: Option<i64>,
}

/// An isolated line of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reality {
    /// Its newest commit.
    pub head: Oid,
    /// Shared by all realities that were made in one call.
    pub origin: Arc<Origin>,
}

impl Reality {
    /// Whether its time is over.
    pub fn is_expired(&self, now_millis: i64) -> bool {
        self.origin.expires_millis.is_some_and(|expires| expires <= now_millis)
    }
}

/// What is known of directories while many references are set in one map.
#[derive(Default)]
pub(crate) struct NameCheck {
    ordinary: DirectoryCheck,
    realities: DirectoryCheck,
}

/// References by name. Realities have a map of their own, so that nothing which lists references meets them, and a
/// version without them is made in no time.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefMap {
    ordinary: OrdMap<RefName, Oid>,
    /// How many of them are branches.
    branches: usize,
    realities: OrdMap<RefName, Reality>,
    /// Bytes of all names, of either map.
    name_bytes: usize,
    reality_name_bytes: usize,
}

/// Memory that a reference takes beside the bytes of its name: what counts the name, and its share of the map's nodes.
const REFERENCE_BYTES: usize = 188;

impl RefMap {
    /// What any reference points at.
    pub(crate) fn get(&self, name: &RefName) -> Option<Oid> {
        if name.is_reality() {
            return self.realities.get(name).map(|reality| reality.head);
        }
        self.ordinary.get(name).copied()
    }

    pub(crate) fn reality(&self, name: &RefName) -> Option<&Reality> {
        self.realities.get(name)
    }

    /// How many references there are beside realities.
    pub(crate) fn len(&self) -> usize {
        self.ordinary.len()
    }

    pub(crate) fn branch_count(&self) -> usize {
        self.branches
    }

    pub(crate) fn reality_count(&self) -> usize {
        self.realities.len()
    }

    /// The references beside realities in a range of names, in order.
    pub(crate) fn range(&self, range: impl RangeBounds<RefName>) -> impl Iterator<Item = (&RefName, &Oid)> {
        self.ordinary.range(range)
    }

    /// The realities in a range of names, in order.
    pub(crate) fn realities(&self, range: impl RangeBounds<RefName>) -> impl Iterator<Item = (&RefName, &Reality)> {
        self.realities.range(range)
    }

    /// Sets a reference that is no new reality.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a new reality: it needs an origin.
    pub(crate) fn set(&mut self, name: RefName, oid: Oid) -> Result<()> {
        if !name.is_reality() {
            let (is_branch, len) = (name.is_branch(), name.as_bytes().len());
            if self.ordinary.insert(name, oid).is_none() {
                self.branches += usize::from(is_branch);
                self.name_bytes += len;
            }
            return Ok(());
        }
        match self.realities.get_mut(&name) {
            Some(reality) => {
                reality.head = oid;
                Ok(())
            }
            None => {
                Err(Error::invalid(format!("{name} is under refs/realities/ and does not exist; make it a reality")))
            }
        }
    }

    /// Sets any reference, a new reality with `origin`.
    ///
    /// # Errors
    /// As [`RefMap::set`] without an origin.
    pub(crate) fn set_from(&mut self, name: RefName, oid: Oid, origin: Option<&Arc<Origin>>) -> Result<()> {
        match origin {
            Some(origin) if name.is_reality() && !self.realities.contains_key(&name) => {
                self.reality_name_bytes += name.as_bytes().len();
                self.realities.insert(name, Reality { head: oid, origin: origin.clone() });
                Ok(())
            }
            _ => self.set(name, oid),
        }
    }

    pub(crate) fn remove(&mut self, name: &RefName) {
        let len = name.as_bytes().len();
        if name.is_reality() {
            if self.realities.remove(name).is_some() {
                self.reality_name_bytes -= len;
            }
        } else if self.ordinary.remove(name).is_some() {
            self.branches -= usize::from(name.is_branch());
            self.name_bytes -= len;
        }
    }

    /// Memory that the map takes, about, in bytes, as if it shared nothing with others.
    pub(crate) fn resident_bytes(&self) -> u64 {
        ((self.ordinary.len() + self.realities.len()) * REFERENCE_BYTES + self.name_bytes + self.reality_name_bytes)
            as u64
    }

    /// Checks a new reference that has just been set.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Exists`] if the name is another reference's directory, or has one for its directory.
    pub(crate) fn check_directories(&self, name: &RefName, check: &mut NameCheck) -> Result<()> {
        if name.is_reality() {
            return check.realities.check(&self.realities, name);
        }
        check.ordinary.check(&self.ordinary, name)
    }

    /// What makes this map from `before`.
    pub(crate) fn changes_since(&self, before: &RefMap) -> Vec<RefChange> {
        let ordinary = before.ordinary.diff(&self.ordinary).map(|item| change(item, |oid| *oid));
        let realities = before.realities.diff(&self.realities).map(|item| change(item, |reality| reality.head));
        ordinary.chain(realities).collect()
    }

    /// The same references without realities.
    #[must_use]
    pub(crate) fn without_realities(&self) -> Self {
        let Self { ordinary, branches, name_bytes, .. } = self;
        Self { ordinary: ordinary.clone(), branches: *branches, name_bytes: *name_bytes, ..Self::default() }
    }
}

fn change<V>(item: DiffItem<'_, '_, RefName, V>, oid: impl Fn(&V) -> Oid) -> RefChange {
    match item {
        DiffItem::Add(name, after) => RefChange { name: name.clone(), before: None, after: Some(oid(after)) },
        DiffItem::Remove(name, before) => RefChange { name: name.clone(), before: Some(oid(before)), after: None },
        DiffItem::Update { old, new } => {
            RefChange { name: new.0.clone(), before: Some(oid(old.1)), after: Some(oid(new.1)) }
        }
    }
}
