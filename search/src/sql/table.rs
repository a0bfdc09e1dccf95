//! Tables that are not stored, as SQLite sees them: the one place where its interface is implemented.
//!
//! A [`Table`] says which tests it can make use of, what rows then cost, and gives the rows; a test that it uses only
//! narrows what is read, and SQLite makes it again on each row. So a table may give too many rows, never too few.
//!
//! SQLite joins the branches of an `OR` by rowid, so rows have one that is the same in every scan: a hash of what
//! tells them apart.

use std::{
    borrow::Cow,
    ffi::{CStr, c_int},
    hash::{BuildHasher, Hasher},
    marker::PhantomData,
    sync::Arc,
};

use govc_engine::Result;
use rusqlite::vtab::{
    Context, Filters, IndexConstraintOp, IndexFlags, IndexInfo, VTab, VTabConnection, VTabCursor, sqlite3_vtab,
    sqlite3_vtab_cursor,
};

use super::{
    run::Run,
    value::{Argument, Cell},
};

/// One of the tables.
pub(super) trait Table: Send + Sync + Sized + 'static {
    /// `CREATE TABLE`, for the columns.
    const DECLARATION: &'static CStr;
    /// The tests that the table can make use of, at most 31.
    const SLOTS: &'static [Slot];
    /// Its rows.
    type Rows: Rows;

    /// What a scan costs with these tests.
    fn estimate(run: &Run, given: Given) -> Estimate;

    /// The rows that may pass the tests; `None` if there are none.
    ///
    /// # Errors
    /// When storage fails, or an argument is not what the table can read.
    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<Self::Rows>>;
}

/// The rows of a scan, one after the other.
pub(super) trait Rows {
    /// Goes to the first or next row; whether there is one.
    fn advance(&mut self) -> Result<bool>;

    /// The row's value in a column.
    fn cell(&self, column: usize) -> Result<Cell<'_>>;

    /// Hashes what tells the row from all others.
    fn identify(&self, hasher: &mut dyn Hasher);
}

/// A test that a table can make use of.
pub(super) struct Slot {
    pub(super) column: usize,
    pub(super) test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    /// The argument of a table-valued function: a hidden column that a scan needs to know.
    Argument,
    Equal,
    /// `>` or `>=`.
    AtLeast,
    /// `<` or `<=`.
    AtMost,
    Like,
    Glob,
}

impl Test {
    fn of(operator: &IndexConstraintOp) -> &'static [Self] {
        match operator {
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_EQ => &[Test::Argument, Test::Equal],
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GT | IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GE => {
                &[Test::AtLeast]
            }
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LT | IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LE => {
                &[Test::AtMost]
            }
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_LIKE => &[Test::Like],
            IndexConstraintOp::SQLITE_INDEX_CONSTRAINT_GLOB => &[Test::Glob],
            _ => &[],
        }
    }

    /// Whether it depends on how the statement wants texts to be compared.
    fn is_comparison(self) -> bool {
        matches!(self, Test::Equal | Test::AtLeast | Test::AtMost)
    }
}

/// Which slots a scan is given, as bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given(u32);

impl Given {
    pub(super) fn has(self, slot: usize) -> bool {
        self.0 & (1 << slot) != 0
    }
}

/// What a scan is given: by slot, what to compare with.
pub(super) struct Tests(Vec<Option<Argument>>);

impl Tests {
    pub(super) fn get(&self, slot: usize) -> Option<&Argument> {
        self.0.get(slot)?.as_ref()
    }
}

/// What a scan costs. Only ratios matter.
pub(super) struct Estimate {
    /// In about microseconds.
    pub(super) cost: f64,
    pub(super) rows: i64,
    /// Whether there is one row at most.
    pub(super) is_unique: bool,
}

/// A table of one connection.
#[repr(C)]
pub(super) struct Handle<T> {
    /// Must be first.
    base: sqlite3_vtab,
    run: Arc<Run>,
    table: PhantomData<T>,
}

// SAFETY: the struct is `repr(C)` and SQLite's is its first field.
unsafe impl<'vtab, T: Table> VTab<'vtab> for Handle<T> {
    type Aux = Arc<Run>;
    type Cursor = Cursor<T>;

    fn connect(
        _: &mut VTabConnection,
        run: Option<&Arc<Run>>,
        _: &[u8],
        _: &[u8],
        _: &[u8],
        _: &[&[u8]],
    ) -> rusqlite::Result<(Cow<'static, CStr>, Self)> {
        let run = run.ok_or_else(|| super::run::failed(rusqlite::ffi::SQLITE_MISUSE))?;
        let handle = Self { base: sqlite3_vtab::default(), run: Arc::clone(run), table: PhantomData };
        Ok((Cow::Borrowed(T::DECLARATION), handle))
    }

    fn best_index(&self, info: &mut IndexInfo) -> rusqlite::Result<bool> {
        self.run.guard(|| Ok(plan::<T>(&self.run, info)))
    }

    fn open(&'vtab mut self) -> rusqlite::Result<Cursor<T>> {
        Ok(Cursor { base: sqlite3_vtab_cursor::default(), run: Arc::clone(&self.run), rows: None })
    }
}

/// Chooses the tests for a scan; whether it is possible so.
fn plan<T: Table>(run: &Run, info: &mut IndexInfo) -> bool {
    let mut chosen: Vec<Option<usize>> = vec![None; T::SLOTS.len()];
    for (index, constraint) in info.constraints().enumerate() {
        let tests = Test::of(&constraint.operator());
        let fits = |slot: &Slot| {
            usize::try_from(constraint.column()).is_ok_and(|column| column == slot.column) && tests.contains(&slot.test)
        };
        let Some(slot) = T::SLOTS.iter().position(fits) else { continue };
        let test = T::SLOTS[slot].test;
        if !constraint.is_usable() {
            // Without its argument, the table would read another revision.
            if test == Test::Argument {
                return false;
            }
            continue;
        }
        if test.is_comparison() && !info.collation(index).is_ok_and(|name| name.eq_ignore_ascii_case("BINARY")) {
            continue;
        }
        chosen[slot].get_or_insert(index);
    }
    let mut given = 0;
    let mut arguments = 0;
    for (slot, index) in chosen.iter().enumerate() {
        if let Some(index) = index {
            given |= 1 << slot;
            arguments += 1;
            info.constraint_usage(*index).set_argv_index(arguments);
        }
    }
    let estimate = T::estimate(run, Given(given));
    info.set_idx_num(c_int::try_from(given).unwrap_or(0));
    info.set_estimated_cost(estimate.cost);
    info.set_estimated_rows(estimate.rows);
    if estimate.is_unique {
        info.set_idx_flags(IndexFlags::SQLITE_INDEX_SCAN_UNIQUE);
    }
    true
}

/// A scan of a table.
#[repr(C)]
pub(super) struct Cursor<T: Table> {
    /// Must be first.
    base: sqlite3_vtab_cursor,
    run: Arc<Run>,
    /// `None` at the end.
    rows: Option<T::Rows>,
}

// SAFETY: the struct is `repr(C)` and SQLite's is its first field.
unsafe impl<T: Table> VTabCursor for Cursor<T> {
    fn filter(&mut self, given: c_int, _: Option<&str>, arguments: &Filters<'_>) -> rusqlite::Result<()> {
        self.rows = None;
        self.rows = self.run.guard(|| {
            let given = Given(u32::try_from(given).unwrap_or(0));
            let mut arguments = arguments.iter().map(Argument::read);
            let of = |slot| if given.has(slot) { arguments.next() } else { None };
            let tests = Tests((0..T::SLOTS.len()).map(of).collect());
            match T::scan(&self.run, &tests)? {
                Some(mut rows) => Ok(rows.advance()?.then_some(rows)),
                None => Ok(None),
            }
        })?;
        Ok(())
    }

    fn next(&mut self) -> rusqlite::Result<()> {
        let rows = &mut self.rows;
        let is_end = self.run.guard(|| match rows {
            Some(rows) => Ok(!rows.advance()?),
            None => Ok(true),
        })?;
        if is_end {
            self.rows = None;
        }
        Ok(())
    }

    fn eof(&self) -> bool {
        self.rows.is_none()
    }

    fn column(&self, context: &mut Context, column: c_int) -> rusqlite::Result<()> {
        let cell = self.run.guard(|| match (&self.rows, usize::try_from(column)) {
            (Some(rows), Ok(column)) => rows.cell(column),
            _ => Ok(Cell::Null),
        })?;
        context.set_result(cell)
    }

    fn rowid(&self) -> rusqlite::Result<i64> {
        self.run.guard(|| {
            let mut hasher = self.run.hasher.build_hasher();
            if let Some(rows) = &self.rows {
                rows.identify(&mut hasher);
            }
            Ok(hasher.finish().cast_signed())
        })
    }
}
