//! The rows of a backend in order, without a tool's own note.

use std::{cmp::Ordering, iter::Peekable};

use bytes::Bytes;
use govc_engine::{Backend, Family, Holding, Scan};

use crate::{Error, Result};

/// A row: its key and value.
pub(crate) type Row = (Bytes, Bytes);

/// The rows of a family, ascending.
pub(crate) fn rows(backend: &dyn Backend, family: Family) -> Result<impl Iterator<Item = Result<Row>>> {
    let entries = backend.scan(family, Scan::all())?;
    Ok(entries
        .filter(move |entry| !entry.as_ref().is_ok_and(|(key, _)| Holding::is_note(family, key)))
        .map(|entry| entry.map_err(Error::from)))
}

/// What two sequences have of the next key.
pub(crate) enum Found<A, B> {
    Left(Bytes, A),
    Right(Bytes, B),
    Both(Bytes, A, B),
}

/// Two sequences in ascending order of keys, side by side.
pub(crate) struct Side<L: Iterator, R: Iterator> {
    left: Peekable<L>,
    right: Peekable<R>,
}

impl<L: Iterator, R: Iterator> Side<L, R> {
    pub(crate) fn by_side(left: L, right: R) -> Self {
        Self { left: left.peekable(), right: right.peekable() }
    }
}

impl<L, R, A, B> Iterator for Side<L, R>
where
    L: Iterator<Item = Result<(Bytes, A)>>,
    R: Iterator<Item = Result<(Bytes, B)>>,
{
    type Item = Result<Found<A, B>>;

    fn next(&mut self) -> Option<Self::Item> {
        // An error of either side is told as soon as it is seen.
        let order = match (self.left.peek(), self.right.peek()) {
            (Some(Ok((left, _))), Some(Ok((right, _)))) => left.cmp(right),
            (None, _) | (_, Some(Err(_))) => Ordering::Greater,
            (_, None) | (Some(Err(_)), _) => Ordering::Less,
        };
        let left = if order.is_le() { self.left.next() } else { None };
        let right = if order.is_ge() { self.right.next() } else { None };
        Some(match (left, right) {
            (None, None) => return None,
            (Some(Err(error)), _) | (_, Some(Err(error))) => Err(error),
            (Some(Ok((key, left))), None) => Ok(Found::Left(key, left)),
            (None, Some(Ok((key, right)))) => Ok(Found::Right(key, right)),
            (Some(Ok((key, left))), Some(Ok((_, right)))) => Ok(Found::Both(key, left, right)),
        })
    }
}
