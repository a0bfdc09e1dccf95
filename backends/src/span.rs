//! A non-empty stretch of keys `from..to`, the form to which all bounds are brought.
//!
//! Byte strings have immediate successors (`key` followed by a zero byte), so each kind of bound has an equal
//! half-open form. With it the backends deal with one shape, and an inverted range is empty instead of an
//! error (or, in some libraries, a panic).

use std::ops::Bound;

use govc_engine::backend::Scan;

/// The keys `from..to`; to the end where `to` is absent. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Option<Vec<u8>>,
}

impl Span {
    /// The keys `from..to`, unless there can be none.
    pub(crate) fn new(from: Vec<u8>, to: Option<Vec<u8>>) -> Option<Self> {
        match &to {
            Some(to) if *to <= from => None,
            _ => Some(Self { from, to }),
        }
    }

    /// The keys of a scan, unless there can be none.
    pub(crate) fn of(scan: Scan) -> Option<Self> {
        let from = match scan.from {
            Bound::Included(key) => key,
            Bound::Excluded(key) => successor(key),
            Bound::Unbounded => Vec::new(),
        };
        let to = match scan.to {
            Bound::Included(key) => Some(successor(key)),
            Bound::Excluded(key) => Some(key),
            Bound::Unbounded => None,
        };
        Self::new(from, to)
    }

    /// An ascending scan of these keys.
    pub(crate) fn into_scan(self) -> Scan {
        let to = self.to.map_or(Bound::Unbounded, Bound::Excluded);
        Scan { from: Bound::Included(self.from), to, reverse: false }
    }

    /// What is left after an ascending visit of the keys up to `key`.
    pub(crate) fn after(self, key: &[u8]) -> Option<Self> {
        Self::new(successor(key.to_vec()), self.to)
    }

    /// What is left after a descending visit of the keys down to `key`.
    pub(crate) fn before(self, key: &[u8]) -> Option<Self> {
        Self::new(self.from, Some(key.to_vec()))
    }

    /// The span as borrowed bounds.
    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.from), self.to.as_deref().map_or(Bound::Unbounded, Bound::Excluded))
    }
}

/// The least key greater than `key`.
fn successor(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
