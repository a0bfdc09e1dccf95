//! How many bytes of keys and values each family holds.
//!
//! SQLite cannot tell without reading the whole file, so the writer counts. The counts are part of a commit when they
//! have moved far enough since they last were, and when the store is closed: a page more in each commit would cost
//! small ones dearly. What a crash can make wrong is [`DRIFT_BYTES`] of each family.

use std::ops::{Index, IndexMut};

use govc_engine::backend::Family;
use rusqlite::{Connection, OptionalExtension, params};

use super::schema;

/// How far a count may be from the one that is stored.
const DRIFT_BYTES: u64 = 1 << 20;

/// Bytes of each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes([u64; Family::ALL.len()]);

impl Index<Family> for Sizes {
    type Output = u64;

    fn index(&self, family: Family) -> &u64 {
        &self.0[family as usize]
    }
}

impl IndexMut<Family> for Sizes {
    fn index_mut(&mut self, family: Family) -> &mut u64 {
        &mut self.0[family as usize]
    }
}

impl Sizes {
    /// What is stored.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut sizes = Self::default();
        let mut statement = connection.prepare(schema::SIZE)?;
        for family in Family::ALL {
            let bytes: Option<i64> = statement.query_row([family.name()], |row| row.get(0)).optional()?;
            sizes[family] = bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        }
        Ok(sizes)
    }

    /// Stores these counts where `stored` differs.
    pub(super) fn store(&self, connection: &Connection, stored: &Self) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(schema::SET_SIZE)?;
        for family in Family::ALL {
            if self[family] != stored[family] {
                let bytes = i64::try_from(self[family]).unwrap_or(i64::MAX);
                statement.execute(params![family.name(), bytes])?;
            }
        }
        Ok(())
    }

    /// Whether any family has gone far from what is stored.
    pub(super) fn is_far_from(&self, stored: &Self) -> bool {
        Family::ALL.iter().any(|&family| self[family].abs_diff(stored[family]) >= DRIFT_BYTES)
    }

    pub(super) fn grow(&mut self, family: Family, bytes: usize) {
        self[family] = self[family].saturating_add(bytes as u64);
    }

    /// Counts that a crash made wrong may be too small.
    pub(super) fn shrink(&mut self, family: Family, bytes: u64) {
        self[family] = self[family].saturating_sub(bytes);
    }
}
