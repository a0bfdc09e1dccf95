//! Maps by object ids.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use govc_engine::Oid;

pub(crate) type OidMap<V> = HashMap<Oid, V, BuildHasherDefault<OidHasher>>;
pub(crate) type OidSet = HashSet<Oid, BuildHasherDefault<OidHasher>>;

/// Ids are uniform, so their own bits are their hash.
#[derive(Default)]
pub(crate) struct OidHasher(u64);

impl Hasher for OidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_isize(&mut self, _: isize) {}

    fn write_usize(&mut self, _: usize) {}
}
