//! One moment of a store that a server may have open and write: a read-only transaction from the beginning to the end.
//!
//! Takes no lease and changes nothing. While it is held, PostgreSQL keeps the rows that the moment shows, so that what
//! the server removes takes room until then.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Scan, Sync, Usage,
};
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::address::Address;
use super::failure::{ConnectError, words};
use super::options::PostgresOptions;
use super::session::Session;
use super::{Threads, address_of, schema};
use crate::span::Span;

/// How long taking leave may take.
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// Bytes that a page of a scan aims at.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of the first page, and the most of any: their sizes are not known before.
const FIRST_ROWS: usize = 16;
const ROWS_MAX: usize = 8 << 10;

/// A [`Backend`] that shows one moment; every write fails.
pub struct PostgresMoment {
    place: String,
    /// `None` once closed.
    session: Mutex<Option<Session>>,
    threads: Threads,
}

impl PostgresMoment {
    /// Opens the store of `url` as it is now.
    pub(super) fn open(url: &str, options: PostgresOptions) -> BackendResult<Self> {
        let (address, options) = address_of(url, options)?;
        let threads = Threads::start(1)?;
        let place = super::place(&address, &options);
        let session = threads.run(begin(&address, &options)).map_err(|error| error.error)?;
        Ok(Self { place, session: Mutex::new(Some(session)), threads })
    }

    /// Asks one statement. Scans and gets take turns in the one session.
    fn ask(&self, sql: &str, parameters: &[&(dyn ToSql + std::marker::Sync)]) -> BackendResult<Vec<Row>> {
        let session = self.session.lock();
        let Some(session) = &*session else {
            return Err(BackendError::new(BackendErrorKind::Closed, format!("the store at {} is closed", self.place)));
        };
        self.threads.run(session.link.drive(session.client.query(sql, parameters))).map_err(|error| {
            // A moment that breaks off cannot be had again.
            let message = format!("cannot read the store at {}: {}", self.place, words(&error));
            BackendError::new(BackendErrorKind::Failed, message)
        })
    }

    fn column(&self, row: &Row, at: usize) -> BackendResult<Bytes> {
        row.try_get::<_, &[u8]>(at).map(Bytes::copy_from_slice).map_err(|error| {
            let message = format!("the store at {} has a column that is not as it was made: {error}", self.place);
            BackendError::new(BackendErrorKind::Corrupt, message)
        })
    }

    fn refusal(&self) -> BackendError {
        if self.session.lock().is_none() {
            return BackendError::new(BackendErrorKind::Closed, format!("the store at {} is closed", self.place));
        }
        let message = format!("the store at {} was opened only to be read", self.place);
        BackendError::new(BackendErrorKind::Failed, message)
    }
}

async fn begin(address: &Address, options: &PostgresOptions) -> Result<Session, ConnectError> {
    let session = Session::open(address, options, "moment").await?;
    let Session { client, link, .. } = &session;
    link.drive(schema::check(client, address, options)).await?;
    let of = |error: tokio_postgres::Error| ConnectError::of(address, &error);
    link.drive(client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).await.map_err(of)?;
    // The first look fixes the moment.
    link.drive(client.query_one("SELECT epoch FROM lease", &[])).await.map_err(of)?;
    Ok(session)
}

impl Backend for PostgresMoment {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        let sql = format!("SELECT value FROM {} WHERE key = $1", family.name());
        let rows = self.ask(&sql, &[&key])?;
        rows.first().map(|row| self.column(row, 0)).transpose()
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        let sql = format!("SELECT key, value FROM {} WHERE key = ANY ($1)", family.name());
        let mut found = HashMap::with_capacity(keys.len());
        for row in self.ask(&sql, &[&keys])? {
            found.insert(self.column(&row, 0)?, self.column(&row, 1)?);
        }
        Ok(keys.iter().map(|key| found.get(&key[..]).cloned()).collect())
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        let reverse = scan.reverse;
        let mut pages = Pages {
            moment: self,
            family,
            rest: Span::of(scan),
            reverse,
            rows: FIRST_ROWS,
            page: Vec::new().into_iter(),
        };
        pages.turn()?;
        Ok(Box::new(pages))
    }

    fn write(&self, _batch: Batch, _sync: Sync) -> BackendResult<()> {
        Err(self.refusal())
    }

    fn sync(&self) -> BackendResult<()> {
        Err(self.refusal())
    }

    fn describe(&self) -> Description {
        Description { kind: "postgres", location: self.place.clone(), durable: true }
    }

    fn usage(&self) -> BackendResult<Usage> {
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            let sql = format!("SELECT pg_total_relation_size('{}')", family.name());
            let size = self.ask(&sql, &[])?.first().and_then(|row| row.try_get::<_, i64>(0).ok());
            families.push((family, size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)));
        }
        Ok(Usage { disk_bytes: Some(families.iter().map(|(_, bytes)| bytes).sum()), families })
    }

    fn close(&self) -> BackendResult<()> {
        if let Some(session) = self.session.lock().take() {
            // Nothing depends on it; a server notes a transaction that is left open.
            let end = session.link.drive(session.client.batch_execute("ROLLBACK"));
            let _ = self.threads.run(async { timeout(LEAVE_MAX, end).await });
        }
        Ok(())
    }
}

impl Drop for PostgresMoment {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// A walk, page by page.
struct Pages<'a> {
    moment: &'a PostgresMoment,
    family: Family,
    /// What lies beyond `page`; `None` at the end.
    rest: Option<Span>,
    reverse: bool,
    /// Rows of the next page.
    rows: usize,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl Pages<'_> {
    fn turn(&mut self) -> BackendResult<()> {
        let Some(span) = self.rest.take() else { return Ok(()) };
        let mut parameters: Vec<&(dyn ToSql + std::marker::Sync)> = vec![&span.from];
        let below = match &span.to {
            Some(to) => {
                parameters.push(to);
                " AND key < $2"
            }
            None => "",
        };
        let (table, order) = (self.family.name(), if self.reverse { " DESC" } else { "" });
        let limit = self.rows;
        let sql = format!("SELECT key, value FROM {table} WHERE key >= $1{below} ORDER BY key{order} LIMIT {limit}");
        let rows = self.moment.ask(&sql, &parameters)?;
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            page.push((self.moment.column(row, 0)?, self.moment.column(row, 1)?));
        }
        if rows.len() == limit
            && let Some((last, _)) = page.last()
        {
            self.rest = if self.reverse { span.before(last) } else { span.after(last) };
            let bytes: usize = page.iter().map(|(key, value): &(Bytes, Bytes)| key.len() + value.len()).sum();
            // At most twice as many as before: sizes may change, and a page is in memory as a whole.
            let wanted = (PAGE_BYTES * page.len() / bytes.max(1)).clamp(1, ROWS_MAX);
            self.rows = wanted.min(2 * self.rows);
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
