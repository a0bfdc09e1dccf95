//! Wanted changes of references, and the rule that no reference is another's directory.

use std::ops::Bound;

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

/// Refuses references that are another's directory or lie below one, as git's files could not hold both. Remembers the
/// directory that it looked at last, for many references are made in one.
#[derive(Default)]
pub(super) struct DirectoryCheck {
    /// No reference stands at this path or at one above it.
    free: Vec<u8>,
}

impl DirectoryCheck {
    /// Checks a name that has just been put into `refs`. After an error the check knows nothing any more.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Exists`] naming the reference that is in the way.
    pub(super) fn check<V: Clone>(&mut self, refs: &OrdMap<RefName, V>, name: &RefName) -> Result<()> {
        let in_the_way = |other: &RefName| {
            Error::new(crate::ErrorKind::Exists, format!("reference {name} cannot be created: {other} exists"))
        };
        let bytes = name.as_bytes();
        let directory = bytes.iter().rposition(|b| *b == b'/').map_or(&[][..], |at| &bytes[..at]);
        // A name that is put at the remembered directory, or above it, later finds what lies below it.
        if self.free != directory {
            let ends = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
            for parent in ends.map(|end| RefName::probe(&bytes[..end])) {
                if refs.contains_key(&parent) {
                    return Err(in_the_way(&parent));
                }
            }
            self.free.clear();
            self.free.extend_from_slice(directory);
        }
        let is_below = |other: &RefName| other.as_bytes().get(bytes.len()) == Some(&b'/');
        let after = |from: Bound<RefName>| refs.range((from, Bound::Unbounded)).next().map(|(other, _)| other);
        // Between a name and what lies below it only its own longer names can stand, such as `name-2`.
        match after(Bound::Excluded(name.clone())).filter(|other| other.as_bytes().starts_with(bytes)) {
            None => Ok(()),
            Some(other) if is_below(other) => Err(in_the_way(other)),
            Some(_) => {
                let below = RefName::probe(&[bytes, b"/"].concat());
                match after(Bound::Included(below.clone())) {
                    Some(other) if other.as_bytes().starts_with(below.as_bytes()) => Err(in_the_way(other)),
                    _ => Ok(()),
                }
            }
        }
    }
}
