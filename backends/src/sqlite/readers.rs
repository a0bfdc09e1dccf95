//! Connections that read. Whoever needs one takes one that waits or opens another, so nobody ever waits for a
//! connection, however many scans are open in one thread.

use std::ops::Deref;
use std::path::PathBuf;

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, Statement};

use super::options::SqliteOptions;

/// The connections that read.
pub(super) struct Readers {
    file: PathBuf,
    options: SqliteOptions,
    /// Those that wait; `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
}

impl Readers {
    /// Opens the first connection, so that a file that cannot be read is found out.
    pub(super) fn open(file: PathBuf, options: SqliteOptions) -> rusqlite::Result<Self> {
        let first = options.reader(&file)?;
        Ok(Self { file, options, idle: Mutex::new(Some(vec![first])) })
    }

    /// A connection that nobody else has.
    pub(super) fn take(&self) -> rusqlite::Result<Reader<'_>> {
        let waiting = self.idle.lock().as_mut().and_then(Vec::pop);
        let connection = match waiting {
            Some(connection) => connection,
            None => self.options.reader(&self.file)?,
        };
        Ok(Reader { home: self, connection: Some(connection) })
    }

    /// Closes those that wait, and lets the others be closed when they come back.
    pub(super) fn close(&self) {
        drop(self.idle.lock().take());
    }
}

/// A connection on loan.
pub(super) struct Reader<'a> {
    home: &'a Readers,
    /// There until it is dropped.
    connection: Option<Connection>,
}

impl Reader<'_> {
    /// The value of a key.
    pub(super) fn get(&self, statement: &str, key: &[u8]) -> rusqlite::Result<Option<Bytes>> {
        get(&mut *self.prepare_cached(statement)?, key)
    }

    /// The values of several keys at one moment. They are looked up in their order in the tree, so that keys of one
    /// page find it in the cache.
    pub(super) fn get_many(&self, statement: &str, keys: &[Vec<u8>]) -> rusqlite::Result<Vec<Option<Bytes>>> {
        self.execute_batch("BEGIN")?;
        let mut statement = self.prepare_cached(statement)?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&at| &keys[at]);
        let mut values = vec![None; keys.len()];
        for at in order {
            values[at] = get(&mut statement, &keys[at])?;
        }
        Ok(values)
    }
}

/// The value of a key, by a statement that asks for it.
pub(super) fn get(statement: &mut Statement<'_>, key: &[u8]) -> rusqlite::Result<Option<Bytes>> {
    let mut rows = statement.query([key])?;
    rows.next()?.map(|row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?))).transpose()
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a connection is given back only by drop")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // A moment that was held would be held on, so a connection that does not let go of it is closed.
        if !connection.is_autocommit() && connection.execute_batch("ROLLBACK").is_err() {
            return;
        }
        if let Some(idle) = self.home.idle.lock().as_mut()
            && idle.len() < self.home.options.readers_idle_max
        {
            idle.push(connection);
        }
    }
}
