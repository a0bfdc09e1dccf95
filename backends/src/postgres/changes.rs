//! What a batch leaves, in the form that the function `write` takes.
//!
//! Operations apply in order; the same comes of deleting all ranges first, then single keys, then putting the last
//! value of each key, if whatever an earlier operation did to a key within a later range is forgotten. So every key
//! appears once and in ascending order, and two batches that only put lock their rows in the same order: they
//! cannot deadlock. A batch that deletes takes the lock alone, because a key that is not there cannot be locked.
//!
//! A batch larger than a call is split into several calls of one transaction, which bounds the memory of both sides.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use govc_engine::backend::{Batch, Family, Op, Precondition};
use tokio_postgres::types::ToSql;

/// Keys and values of one call, unless a single value is larger.
const CALL_BYTES: usize = 4 << 20;
/// Rows of one call.
const CALL_ROWS: usize = 16 << 10;

/// What one call does to one family. An absent list costs four bytes on the wire.
#[derive(Default)]
struct Part<'a> {
    from: Option<Vec<&'a [u8]>>,
    to: Option<Vec<&'a [u8]>>,
    gone: Option<Vec<&'a [u8]>>,
    keys: Option<Vec<&'a [u8]>>,
    values: Option<Vec<&'a [u8]>>,
}

/// One call of `write`.
#[derive(Default)]
pub(super) struct Call<'a> {
    asked_families: Option<Vec<i16>>,
    asked_keys: Option<Vec<&'a [u8]>>,
    asked_values: Option<Vec<Option<&'a [u8]>>>,
    parts: [Part<'a>; Family::ALL.len()],
}

impl Call<'_> {
    /// The parameters, after those that this call does not know.
    pub(super) fn push_parameters<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) {
        parameters.push(&self.asked_families);
        parameters.push(&self.asked_keys);
        parameters.push(&self.asked_values);
        for part in &self.parts {
            for list in [&part.from, &part.to, &part.gone, &part.keys, &part.values] {
                parameters.push(list);
            }
        }
    }
}

/// A batch, ready to be sent. The first call has the preconditions.
pub(super) struct Changes<'a> {
    pub(super) calls: Vec<Call<'a>>,
    /// Whether nothing else may be written meanwhile.
    pub(super) alone: bool,
}

impl<'a> Changes<'a> {
    /// A call that writes only its number.
    pub(super) fn none() -> Self {
        Self { calls: vec![Call::default()], alone: false }
    }

    pub(super) fn of(batch: &'a Batch) -> Self {
        let mut calls = Calls::default();
        calls.ask(&batch.preconditions);
        let mut alone = !batch.preconditions.is_empty();
        let families = outcomes(&batch.ops);
        for (family, outcome) in Family::ALL.into_iter().zip(&families) {
            for (from, to) in &outcome.ranges {
                alone = true;
                let part = calls.part(family, from.len() + to.len());
                part.from.get_or_insert_default().push(from);
                part.to.get_or_insert_default().push(to);
            }
            for (key, value) in &outcome.keys {
                if value.is_none() {
                    alone = true;
                    calls.part(family, key.len()).gone.get_or_insert_default().push(key);
                }
            }
        }
        for (family, outcome) in Family::ALL.into_iter().zip(&families) {
            for (key, value) in &outcome.keys {
                if let Some(value) = value {
                    let part = calls.part(family, key.len() + value.len());
                    part.keys.get_or_insert_default().push(key);
                    part.values.get_or_insert_default().push(value);
                }
            }
        }
        calls.full.push(calls.current);
        Self { calls: calls.full, alone }
    }
}

/// What is left of a batch in one family.
#[derive(Default)]
struct Outcome<'a> {
    ranges: Vec<(&'a [u8], &'a [u8])>,
    keys: BTreeMap<&'a [u8], Option<&'a Bytes>>,
}

fn outcomes(ops: &[Op]) -> [Outcome<'_>; Family::ALL.len()] {
    let mut families: [Outcome<'_>; Family::ALL.len()] = Default::default();
    for op in ops {
        match op {
            Op::Put { family, key, value } => {
                families[*family as usize].keys.insert(key, Some(value));
            }
            Op::Delete { family, key } => {
                families[*family as usize].keys.insert(key, None);
            }
            Op::DeleteRange { family, from, to } if from < to => {
                let outcome = &mut families[*family as usize];
                let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                let within: Vec<&[u8]> = outcome.keys.range::<[u8], _>(bounds).map(|(key, _)| *key).collect();
                for key in within {
                    outcome.keys.remove(key);
                }
                outcome.ranges.push((from, to));
            }
            Op::DeleteRange { .. } => {}
        }
    }
    families
}

/// Calls under construction.
#[derive(Default)]
struct Calls<'a> {
    full: Vec<Call<'a>>,
    current: Call<'a>,
    bytes: usize,
    rows: usize,
}

impl<'a> Calls<'a> {
    fn ask(&mut self, preconditions: &'a [Precondition]) {
        for precondition in preconditions {
            let (family, key, value) = match precondition {
                Precondition::Absent { family, key } => (family, key, None),
                Precondition::Value { family, key, value } => (family, key, Some(&value[..])),
            };
            self.current.asked_families.get_or_insert_default().push(*family as i16);
            self.current.asked_keys.get_or_insert_default().push(key);
            self.current.asked_values.get_or_insert_default().push(value);
        }
    }

    /// The part of a family in a call with room for so many bytes.
    fn part(&mut self, family: Family, bytes: usize) -> &mut Part<'a> {
        if self.rows > 0 && (self.bytes + bytes > CALL_BYTES || self.rows >= CALL_ROWS) {
            self.full.push(std::mem::take(&mut self.current));
            (self.bytes, self.rows) = (0, 0);
        }
        self.bytes += bytes;
        self.rows += 1;
        &mut self.current.parts[family as usize]
    }
}
