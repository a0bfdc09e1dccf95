//! Tables and statements.
//!
//! A table for each family, `key` and `value`, in one of two shapes. Small entries lie in the tree of their keys
//! (`WITHOUT ROWID`): one descent finds them. Large values (blocks, journal) lie in a tree of row numbers, whose
//! inner pages hold numbers alone and whose new rows always come last, with an index of the keys beside it; in the
//! tree of keys the beginning of each value would lie in the inner pages too, and leave eight keys to a page.
//!
//! `sizes` holds the bytes of each family as of some commit not long ago; see [`super::sizes`].

use govc_engine::backend::Family;

/// Version of the tables, SQLite's `user_version`. A file of a higher one is refused.
pub(super) const VERSION: i32 = 1;
/// SQLite's `application_id`: "govc".
pub(super) const APPLICATION: i32 = i32::from_be_bytes(*b"govc");

/// What one family's table is asked.
pub(super) struct Statements {
    /// Makes the table.
    pub(super) create: &'static str,
    /// key → value.
    pub(super) get: &'static str,
    /// key, value; changes nothing if the key is there.
    pub(super) insert: &'static str,
    /// key, value; the key is there.
    pub(super) update: &'static str,
    /// key → bytes of the value, without reading it.
    pub(super) value_bytes: &'static str,
    /// key.
    pub(super) delete: &'static str,
    /// from, to → bytes of keys and values.
    pub(super) range_bytes: &'static str,
    /// from, to.
    pub(super) delete_range: &'static str,
    /// from → entries to the end.
    pub(super) up: &'static str,
    /// from, to → entries.
    pub(super) up_to: &'static str,
    /// from → entries from the end.
    pub(super) down: &'static str,
    /// from, to → entries, greatest first.
    pub(super) down_from: &'static str,
}

macro_rules! statements {
    ($table:literal, $create:expr) => {
        &Statements {
            create: $create,
            get: concat!("SELECT value FROM ", $table, " WHERE key = ?1"),
            insert: concat!("INSERT INTO ", $table, " (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING"),
            update: concat!("UPDATE ", $table, " SET value = ?2 WHERE key = ?1"),
            value_bytes: concat!("SELECT length(value) FROM ", $table, " WHERE key = ?1"),
            delete: concat!("DELETE FROM ", $table, " WHERE key = ?1"),
            range_bytes: concat!(
                "SELECT coalesce(sum(length(key) + length(value)), 0) FROM ",
                $table,
                " WHERE key >= ?1 AND key < ?2"
            ),
            delete_range: concat!("DELETE FROM ", $table, " WHERE key >= ?1 AND key < ?2"),
            up: concat!("SELECT key, value FROM ", $table, " WHERE key >= ?1 ORDER BY key"),
            up_to: concat!("SELECT key, value FROM ", $table, " WHERE key >= ?1 AND key < ?2 ORDER BY key"),
            down: concat!("SELECT key, value FROM ", $table, " WHERE key >= ?1 ORDER BY key DESC"),
            down_from: concat!("SELECT key, value FROM ", $table, " WHERE key >= ?1 AND key < ?2 ORDER BY key DESC"),
        }
    };
}

macro_rules! small {
    ($table:literal) => {
        statements!(
            $table,
            concat!(
                "CREATE TABLE ",
                $table,
                " (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID"
            )
        )
    };
}

macro_rules! large {
    ($table:literal) => {
        statements!($table, concat!("CREATE TABLE ", $table, " (key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT"))
    };
}

/// The statements of a family.
pub(super) fn of(family: Family) -> &'static Statements {
    match family {
        Family::Catalog => small!("catalog"),
        Family::Refs => small!("refs"),
        Family::History => small!("history"),
        Family::Journal => large!("journal"),
        Family::Blocks => large!("blocks"),
        Family::Ids => small!("ids"),
        Family::Meta => small!("meta"),
    }
}

/// Makes the table of the families' sizes.
pub(super) const CREATE_SIZES: &str =
    "CREATE TABLE sizes (family TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID";
/// family → bytes.
pub(super) const SIZE: &str = "SELECT bytes FROM sizes WHERE family = ?1";
/// family, bytes.
pub(super) const SET_SIZE: &str =
    "INSERT INTO sizes (family, bytes) VALUES (?1, ?2) ON CONFLICT (family) DO UPDATE SET bytes = excluded.bytes";
