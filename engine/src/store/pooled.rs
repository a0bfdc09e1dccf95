//! Maps and queues by pool and id in which an entry has the room for an id of its own format: those of SHA-1 repositories,
//! most of what there is, take no more than if there were no others.

use std::collections::VecDeque;

use govc_id_table::{Guard, Id, IdTable};

use super::ids::{PoolId, PooledId};
use crate::object::{ObjectFormat, Oid, OidBytes};

/// An id of `N` bytes in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key<const N: usize> {
    pool: PoolId,
    oid: [u8; N],
}

impl<const N: usize> Id for Key<N> {
    /// Bits of the object's id, which are uniform, mixed with the pool.
    #[inline]
    fn bits(&self) -> u64 {
        let bits = self.oid.first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first));
        bits ^ self.pool.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl<const N: usize> Key<N>
where
    [u8; N]: Into<Oid>,
{
    fn id(self) -> PooledId {
        PooledId { pool: self.pool, oid: self.oid.into() }
    }
}

/// Values by pool and id.
pub(crate) struct PooledTable<V: Send + Sync + 'static> {
    sha1: IdTable<Key<20>, V>,
    sha256: IdTable<Key<32>, V>,
}

/// Calls a method of the table that a key belongs to.
macro_rules! of_format {
    ($table:expr, $key:expr, $method:ident($($before:tt)*) $(, $argument:expr)*) => {{
        let PooledId { pool, oid } = $key;
        match oid.by_format() {
            OidBytes::Sha1(oid) => $table.sha1.$method($($before)* Key { pool: *pool, oid: *oid } $(, $argument)*),
            OidBytes::Sha256(oid) => $table.sha256.$method($($before)* Key { pool: *pool, oid: *oid } $(, $argument)*),
        }
    }};
}

impl<V: Send + Sync + 'static> PooledTable<V> {
    pub(crate) fn new() -> Self {
        Self { sha1: IdTable::new(), sha256: IdTable::new() }
    }

    #[inline]
    pub(crate) fn get<'g>(&'g self, key: &PooledId, guard: &'g Guard) -> Option<&'g V> {
        of_format!(self, key, get(&), guard)
    }

    /// The value of a key, made if there was none, and whether it was.
    pub(crate) fn get_or_insert_with<'g>(
        &'g self,
        key: &PooledId,
        make: impl FnOnce() -> V,
        guard: &'g Guard,
    ) -> (&'g V, bool) {
        of_format!(self, key, get_or_insert_with(), make, guard)
    }

    /// Removes an entry for which `pred` holds; whether there was one. Of all calls exactly one removes an entry.
    pub(crate) fn remove_if(&self, key: &PooledId, pred: impl Fn(&V) -> bool, guard: &Guard) -> bool {
        of_format!(self, key, remove_if(&), pred, guard)
    }

    /// The entries, as [`IdTable::iter`] gives them.
    pub(crate) fn iter<'g>(&'g self, guard: &'g Guard) -> impl Iterator<Item = (PooledId, &'g V)> {
        let sha1 = self.sha1.iter(guard).map(|(key, value)| (key.id(), value));
        let sha256 = self.sha256.iter(guard).map(|(key, value)| (key.id(), value));
        sha1.chain(sha256)
    }

    pub(crate) fn len(&self) -> usize {
        self.sha1.len() + self.sha256.len()
    }
}

/// Keys in the order in which they came, by format.
#[derive(Default)]
pub(crate) struct PooledQueue {
    sha1: VecDeque<Key<20>>,
    sha256: VecDeque<Key<32>>,
}

impl PooledQueue {
    /// Puts a key behind the others of its format.
    pub(crate) fn push_back(&mut self, PooledId { pool, oid }: PooledId) {
        match oid.by_format() {
            OidBytes::Sha1(oid) => self.sha1.push_back(Key { pool, oid: *oid }),
            OidBytes::Sha256(oid) => self.sha256.push_back(Key { pool, oid: *oid }),
        }
    }

    /// Takes the first key of a format.
    pub(crate) fn pop_front(&mut self, format: ObjectFormat) -> Option<PooledId> {
        match format {
            ObjectFormat::Sha1 => self.sha1.pop_front().map(Key::id),
            ObjectFormat::Sha256 => self.sha256.pop_front().map(Key::id),
        }
    }
}
