//! Sets of ids for walks, which hold one for each object of a history: an id has the room of its own format.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use crate::object::{Oid, OidBytes};

/// The hash of ids that hashing has made, which are uniform already: their own bits. Ids that others choose, such as those that
/// trees point at, could be chosen alike.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    // What else of an id is hashed, its kind and length, is the same for all.
    fn write_u8(&mut self, _: u8) {}
    fn write_usize(&mut self, _: usize) {}
    fn write_isize(&mut self, _: isize) {}
}

/// Ids, each once, by their own bits.
pub(crate) type OidSet = Ids<BuildHasherDefault<IdHasher>>;

/// The same of ids that others choose, who might choose them alike.
pub(crate) type GuardedOidSet = Ids<RandomState>;

#[derive(Debug, Default)]
pub(crate) struct Ids<S> {
    sha1: HashSet<[u8; 20], S>,
    sha256: HashSet<[u8; 32], S>,
}

impl<S: BuildHasher> Ids<S> {
    /// Adds an id; whether it is new.
    pub(crate) fn insert(&mut self, oid: Oid) -> bool {
        match oid.by_format() {
            OidBytes::Sha1(oid) => self.sha1.insert(*oid),
            OidBytes::Sha256(oid) => self.sha256.insert(*oid),
        }
    }

    pub(crate) fn contains(&self, oid: &Oid) -> bool {
        match oid.by_format() {
            OidBytes::Sha1(oid) => self.sha1.contains(oid),
            OidBytes::Sha256(oid) => self.sha256.contains(oid),
        }
    }

    /// Adds all ids of another set.
    pub(crate) fn append(&mut self, other: Self) {
        self.sha1.extend(other.sha1);
        self.sha256.extend(other.sha256);
    }
}
