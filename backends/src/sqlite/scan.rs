//! A walk over one moment of one family.
//!
//! The walk holds a connection with a read transaction, and takes entries by the page, because rows of a statement
//! would have to borrow from their own walk. The first page is read at once: that is what fixes the moment, and a walk
//! that ends within it, as most do, has given its connection back before the caller sees the first entry. A longer one
//! keeps the log from beginning anew until it is dropped.

use bytes::Bytes;
use govc_engine::backend::{BackendResult, Family};
use rusqlite::{Connection, params};

use super::readers::Reader;
use super::{Shared, failure, schema};
use crate::span::Span;

/// Entries of the first page and of the later ones.
const FIRST_PAGE: PageLimits = PageLimits { entries: 128, bytes: 256 << 10 };
pub(super) const LATER_PAGES: PageLimits = PageLimits { entries: 1024, bytes: 1 << 20 };

pub(super) struct PageLimits {
    entries: usize,
    /// A page ends with the entry that goes beyond.
    bytes: usize,
}

/// A walk over one moment of one family.
pub(super) struct Walk<'a> {
    shared: &'a Shared,
    family: Family,
    reverse: bool,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
    /// The moment, and what of it lies beyond `page`; `None` at the end.
    rest: Option<(Reader<'a>, Span)>,
}

impl<'a> Walk<'a> {
    /// Begins a walk; its moment is now.
    pub(super) fn begin(shared: &'a Shared, family: Family, span: Span, reverse: bool) -> BackendResult<Self> {
        let reader = shared.reader()?;
        reader.execute_batch("BEGIN").map_err(|error| failure::of_read(shared.folder(), &error))?;
        let mut walk = Self { shared, family, reverse, page: Vec::new().into_iter(), rest: Some((reader, span)) };
        walk.turn(&FIRST_PAGE)?;
        Ok(walk)
    }

    /// Reads the next page. At the end, and after a failure, the moment is let go.
    fn turn(&mut self, limits: &PageLimits) -> BackendResult<()> {
        let Some((reader, span)) = self.rest.take() else { return Ok(()) };
        self.shared.check_open()?;
        let (page, ended) = read(&reader, self.family, &span, self.reverse, limits)
            .map_err(|error| failure::of_read(self.shared.folder(), &error))?;
        if !ended && let Some((last, _)) = page.last() {
            let rest = if self.reverse { span.before(last) } else { span.after(last) };
            self.rest = rest.map(|rest| (reader, rest));
        }
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = BackendResult<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.as_slice().is_empty()
            && let Err(error) = self.turn(&LATER_PAGES)
        {
            return Some(Err(error));
        }
        self.page.next().map(Ok)
    }
}

/// Entries of a page, and whether they are the last ones.
pub(super) type Page = (Vec<(Bytes, Bytes)>, bool);

/// Reads a page.
pub(super) fn read(
    connection: &Connection,
    family: Family,
    span: &Span,
    reverse: bool,
    limits: &PageLimits,
) -> rusqlite::Result<Page> {
    let statements = schema::of(family);
    let sql = match (reverse, &span.to) {
        (false, None) => statements.up,
        (false, Some(_)) => statements.up_to,
        (true, None) => statements.down,
        (true, Some(_)) => statements.down_from,
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = match &span.to {
        None => statement.query([&span.from])?,
        Some(to) => statement.query(params![span.from, to])?,
    };
    let mut page = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let (key, value) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
        bytes += key.len() + value.len();
        page.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if page.len() >= limits.entries || bytes >= limits.bytes {
            return Ok((page, false));
        }
    }
    Ok((page, true))
}
