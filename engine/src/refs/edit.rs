//! Wanted changes of references, and the rule that no reference is another's directory.

use imbl::OrdMap;

use super::RefName;
use crate::{Error, Result, object::Oid};

/// What must hold of a reference before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: the change wins over whatever is there.
    Any,
    /// The reference is absent.
    Absent,
    /// The reference holds exactly this id.
    Is(Oid),
}

impl Expected {
    /// Whether `actual` is what is expected.
    pub fn holds(self, actual: Option<Oid>) -> bool {
        match self {
            Expected::Any => true,
            Expected::Absent => actual.is_none(),
            Expected::Is(oid) => actual == Some(oid),
        }
    }

    /// The expected id, for a conflict's report.
    pub(crate) fn oid(self) -> Option<Oid> {
        match self {
            Expected::Is(oid) => Some(oid),
            Expected::Any | Expected::Absent => None,
        }
    }
}

/// A wanted change of one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefEdit {
    /// The reference.
    pub name: RefName,
    /// What must hold before.
    pub expected: Expected,
    /// The new id; `None` deletes the reference.
    pub target: Option<Oid>,
}

/// A change of one reference that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefChange {
    /// The reference.
    pub name: RefName,
    /// What it was; `None` if it was absent.
    pub before: Option<Oid>,
    /// What it became; `None` if it was deleted.
    pub after: Option<Oid>,
}

/// Refuses `name` if an existing reference is its directory or lies below it, as git's files could not hold both.
///
/// # Errors
/// [`crate::ErrorKind::Exists`] naming the reference that is in the way.
pub(super) fn check_directory_conflicts<V: Clone>(refs: &OrdMap<RefName, V>, name: &RefName) -> Result<()> {
    let in_the_way = |other: &RefName| {
        Error::new(crate::ErrorKind::Exists, format!("reference {name} cannot be created: {other} exists"))
    };
    let bytes = name.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'/') {
        let parent = RefName::probe(&bytes[..at]);
        if refs.contains_key(&parent) {
            return Err(in_the_way(&parent));
        }
    }
    let below = RefName::probe(&[bytes, b"/"].concat());
    match refs.range(below.clone()..).next() {
        Some((other, _)) if other.as_bytes().starts_with(below.as_bytes()) => Err(in_the_way(other)),
        _ => Ok(()),
    }
}
