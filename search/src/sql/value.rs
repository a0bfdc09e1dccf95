//! Values as they pass between SQLite and the tables.
//!
//! Texts of Git are bytes: paths, names and messages need not be UTF-8. SQLite compares and carries such texts
//! faithfully, so they go in as they are; only the answer replaces what is not UTF-8.

use std::borrow::Cow;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// A value of a statement or an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// No value.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text. In an answer, what is not UTF-8 is replaced; `CAST(x AS BLOB)` gives the bytes.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

impl SqlValue {
    pub(super) fn read(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => SqlValue::Null,
            ValueRef::Integer(number) => SqlValue::Integer(number),
            ValueRef::Real(number) => SqlValue::Real(number),
            ValueRef::Text(text) => SqlValue::Text(shown(text).into_owned()),
            ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
        }
    }

    /// Roughly what the value takes in memory and in an answer, in bytes.
    pub(super) fn weight_bytes(&self) -> usize {
        32 + match self {
            SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_) => 0,
            SqlValue::Text(text) => text.len(),
            SqlValue::Blob(bytes) => bytes.len(),
        }
    }
}

impl ToSql for SqlValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            SqlValue::Null => ValueRef::Null,
            SqlValue::Integer(number) => ValueRef::Integer(*number),
            SqlValue::Real(number) => ValueRef::Real(*number),
            SqlValue::Text(text) => ValueRef::Text(text.as_bytes()),
            SqlValue::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A text with what is not UTF-8 replaced.
pub(super) fn shown(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// A row's value in one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell<'a> {
    Null,
    Integer(i64),
    /// Any bytes.
    Text(Cow<'a, [u8]>),
    Blob(Cow<'a, [u8]>),
}

impl<'a> Cell<'a> {
    pub(super) fn text(text: &'a [u8]) -> Self {
        Cell::Text(Cow::Borrowed(text))
    }

    pub(super) fn string(text: impl ToString) -> Self {
        Cell::Text(Cow::Owned(text.to_string().into_bytes()))
    }

    pub(super) fn count(count: u64) -> Self {
        Cell::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn maybe<T>(value: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Cell::Null, cell)
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Integer(number) => ValueRef::Integer(*number),
            Cell::Text(text) => ValueRef::Text(text),
            Cell::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// What a pushed-down test compares with, as far as tables can use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Argument {
    Null,
    Integer(i64),
    Text(Vec<u8>),
    Other,
}

impl Argument {
    pub(super) fn read(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Argument::Null,
            ValueRef::Integer(number) => Argument::Integer(number),
            ValueRef::Text(text) => Argument::Text(text.to_vec()),
            ValueRef::Real(_) | ValueRef::Blob(_) => Argument::Other,
        }
    }
}
