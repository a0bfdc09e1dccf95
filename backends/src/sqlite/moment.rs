//! One moment of a database that another process may have open and write.
//!
//! One connection holds a read transaction from the beginning to the end; scans take pages through it, gets go between
//! them. As long as it is held the owner's log cannot begin anew, and grows with what the owner writes.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Scan, Sync, Usage,
};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use super::folder::{self, Files};
use super::options::SqliteOptions;
use super::sizes::Sizes;
use super::{failure, readers, scan, schema};
use crate::span::Span;

/// A [`Backend`] that shows one moment; every write fails.
pub struct SqliteMoment {
    files: Files,
    /// In its transaction; `None` once closed.
    connection: Mutex<Option<Connection>>,
}

impl SqliteMoment {
    /// Opens the store in `folder` as it is now.
    ///
    /// # Errors
    /// [`BackendErrorKind::Failed`] if there is none, or another program's; [`BackendErrorKind::Corrupt`] if it is damaged.
    pub(super) fn open(folder: &Path) -> BackendResult<Self> {
        let files = Files::of(folder);
        if !files.database().exists() {
            let message = format!("there is no store in {}", folder.display());
            return Err(BackendError::new(BackendErrorKind::Failed, message));
        }
        // Within the owner's own process, which has no reason to, this would take its lock of the database away; those of
        // readers and writers are held on the log's index.
        folder::check(&files.database())?;
        let begin = || {
            let connection = SqliteOptions::default().reader(&files.database())?;
            connection.execute_batch("BEGIN")?;
            // The first look fixes the moment.
            Sizes::load(&connection)?;
            Ok(connection)
        };
        let connection = begin().map_err(|error| failure::of_open(folder, &error))?;
        Ok(Self { files, connection: Mutex::new(Some(connection)) })
    }

    fn read<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> BackendResult<T> {
        let mut held: MutexGuard<'_, Option<Connection>> = self.connection.lock();
        let Some(connection) = &*held else {
            let message = format!("the store in {} is closed", self.folder().display());
            return Err(BackendError::new(BackendErrorKind::Closed, message));
        };
        let answer = ask(connection).map_err(|error| failure::of_read(self.folder(), &error));
        if answer.is_err() && connection.is_autocommit() {
            // SQLite ended the transaction; what is read from here on would be another moment.
            *held = None;
        }
        answer
    }

    fn folder(&self) -> &PathBuf {
        self.files.folder()
    }

    fn refusal(&self) -> BackendError {
        if let Err(closed) = self.read(|_| Ok(())) {
            return closed;
        }
        let message = format!("the store in {} was opened only to be read", self.folder().display());
        BackendError::new(BackendErrorKind::Failed, message)
    }
}

impl Backend for SqliteMoment {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.read(|connection| readers::get(&mut *connection.prepare_cached(schema::of(family).get)?, key))
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.read(|_| Ok(()))?;
        let reverse = scan.reverse;
        Ok(Box::new(Pages { moment: self, family, rest: Span::of(scan), reverse, page: Vec::new().into_iter() }))
    }

    fn write(&self, _batch: Batch, _sync: Sync) -> BackendResult<()> {
        Err(self.refusal())
    }

    fn sync(&self) -> BackendResult<()> {
        Err(self.refusal())
    }

    fn describe(&self) -> Description {
        Description { kind: "sqlite", location: self.folder().display().to_string(), durable: true }
    }

    fn usage(&self) -> BackendResult<Usage> {
        let sizes = self.read(Sizes::load)?;
        let families = Family::ALL.iter().map(|&family| (family, sizes[family])).collect();
        Ok(Usage { disk_bytes: Some(self.files.disk_bytes()), families })
    }

    fn close(&self) -> BackendResult<()> {
        drop(self.connection.lock().take());
        Ok(())
    }
}

/// A walk, page by page.
struct Pages<'a> {
    moment: &'a SqliteMoment,
    family: Family,
    /// What lies beyond `page`; `None` at the end.
    rest: Option<Span>,
    reverse: bool,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl Pages<'_> {
    fn turn(&mut self) -> BackendResult<()> {
        let Some(span) = self.rest.take() else { return Ok(()) };
        let (page, ended) = self
            .moment
            .read(|connection| scan::read(connection, self.family, &span, self.reverse, &scan::LATER_PAGES))?;
        if !ended && let Some((last, _)) = page.last() {
            self.rest = if self.reverse { span.before(last) } else { span.after(last) };
        }
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Pages<'_> {
    type Item = BackendResult<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.as_slice().is_empty()
            && let Err(error) = self.turn()
        {
            return Some(Err(error));
        }
        self.page.next().map(Ok)
    }
}
