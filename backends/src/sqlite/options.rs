//! What can be set on a SQLite store, and how each connection is set up.
//!
//! Fixed on purpose: a write-ahead log whose checkpoints are asked for by name (SQLite's own would run inside
//! somebody's commit), and no memory mapping of the database, because a disk that cannot read a mapped page kills the
//! process instead of answering with an error.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// More than the statements of all families.
const STATEMENTS_CACHED: usize = 128;

/// What can be set on a SQLite store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Bytes of pages that the writer keeps. A batch that changes more spills into the log before its end.
    pub write_cache_bytes: usize,
    /// Bytes of pages that each reading connection keeps; any commit empties them.
    pub read_cache_bytes: usize,
    /// Reading connections that wait for the next reader. More are opened when more read at once, and closed after.
    pub readers_idle_max: usize,
    /// Bytes of log after which its pages are copied to where they belong. The log grows beyond that while they are
    /// copied, and as long as a scan holds on to an old moment.
    pub log_bytes: u64,
    /// Free bytes that writes leave on the file system. A write that would go below is refused with
    /// [`Full`](govc_engine::backend::BackendErrorKind::Full) before anything of it is written.
    pub reserve_bytes: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            write_cache_bytes: 32 << 20,
            read_cache_bytes: 2 << 20,
            readers_idle_max: 8,
            log_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
        }
    }
}

impl SqliteOptions {
    /// A connection for the one writer. Its commits reach the log, but not the disk: syncs are this crate's own
    /// (see [`super::log`]). `NORMAL` still syncs the log's header when the log begins anew, before what follows.
    pub(super) fn writer(&self, file: &Path) -> rusqlite::Result<Connection> {
        let connection = open(file)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "cache_size", kibibytes(self.write_cache_bytes))?;
        connection.pragma_update(None, "journal_size_limit", self.log_bytes as i64)?;
        Ok(connection)
    }

    /// A connection for one reader at a time.
    pub(super) fn reader(&self, file: &Path) -> rusqlite::Result<Connection> {
        let connection = open(file)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", kibibytes(self.read_cache_bytes))?;
        Ok(connection)
    }

    /// A connection for checkpoints, which sync the log before they copy and the database after. It waits for readers
    /// no longer than `wait`.
    pub(super) fn checkpointer(&self, file: &Path, wait: Duration) -> rusqlite::Result<Connection> {
        let connection = open(file)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(wait)?;
        Ok(connection)
    }
}

/// A connection to a database that exists, with what all connections have in common.
pub(super) fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, FLAGS)?;
    set_up(&connection)?;
    Ok(connection)
}

/// A connection to a database that is made if it is not there.
pub(super) fn create(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, FLAGS | OpenFlags::SQLITE_OPEN_CREATE)?;
    set_up(&connection)?;
    Ok(connection)
}

/// A connection is used by one thread at a time, which the types see to. Readers, too, may write as far as the file is
/// concerned: whoever opens a database first makes the index of its log. SQLite's ordinary locks let other processes
/// read a moment while the store is written ([`super::moment`]); that costs a read some two microseconds.
const FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX).union(OpenFlags::SQLITE_OPEN_EXRESCODE);

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // After a failed sync the log must stay as it is until it is replayed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

/// SQLite takes a cache's size in pages, or negative in KiB.
fn kibibytes(bytes: usize) -> i64 {
    -i64::try_from(bytes >> 10).unwrap_or(i64::from(i32::MAX)).clamp(64, i64::from(i32::MAX))
}
