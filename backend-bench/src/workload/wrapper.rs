//! What a wrapper around the backend costs: hot reads and unsynced writes with and without it, taking turns.

use std::sync::Arc;

use govc_engine::backend::{Backend, Batch, Family, Sync};

use super::{Context, check_value};
use crate::error::Result;
use crate::measure::{Digest, Pace, Taken};
use crate::random::Random;
use crate::report::{Layer, Row};

/// Calls of one turn: long enough that taking the time costs nothing beside them.
const TURN: u64 = 500;

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let Some(wrapper) = context.plan.wrapper.clone() else { return Ok(Vec::new()) };
    let backend = context.loaded()?;
    let wrapped = wrapper.around(backend.clone());
    let entries = context.inputs.import.family(Family::Ids);
    let order = Random::of(context.inputs.seed, 150).order(entries.len());
    // Without, with; and of each a figure for every repetition.
    let subjects: [&Arc<dyn Backend>; 2] = [&backend, &wrapped];
    let (mut gets, mut writes) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    let mut operations = 0;
    for repetition in context.repetitions() {
        context.show("with and without the wrapper", repetition);
        let (mut read, mut written) = ([Taken::default(), Taken::default()], [Taken::default(), Taken::default()]);
        let pace = Pace::of(context.plan, 4);
        let mut turns = 0_usize;
        while pace.goes_on(&read[0])? {
            for (which, backend) in subjects.iter().enumerate() {
                let keys = (0..TURN as usize).map(|at| &entries[order[(turns * TURN as usize + at) % order.len()]].0);
                let keys: Vec<_> = keys.collect();
                read[which].time(None, || keys.iter().try_for_each(|key| backend.get(Family::Ids, key).map(drop)))?;
                read[which].operations += TURN;
                let batch = |at: u64| {
                    let mut batch = Batch::new();
                    batch.put(Family::Meta, key(at), &b"a small value"[..]);
                    batch
                };
                let batches: Vec<Batch> = (0..TURN).map(batch).collect();
                let write = |batch| backend.write(batch, Sync::No);
                written[which].time(None, || batches.into_iter().try_for_each(write))?;
                written[which].operations += TURN;
            }
            turns += 1;
        }
        for which in 0..2 {
            operations += read[which].operations;
            gets[which].push(1e9 / read[which].per_second());
            writes[which].push(1e9 / written[which].per_second());
        }
    }
    for at in 0..TURN {
        let found = wrapped.get(Family::Meta, &key(at))?;
        check_value(found.as_ref(), b"a small value", &"a value written through the wrapper")?;
    }
    let mut digest = Digest::default();
    for (key, value) in entries {
        check_value(wrapped.get(Family::Ids, key)?.as_ref(), value, &"a value read through the wrapper")?;
        digest.add(&[key, value]);
    }
    drop(wrapped);
    backend.close()?;
    let [get_without, get_with] = gets;
    let [write_without, write_with] = writes;
    let row = |id: &str, work: &str, durability: &str, values| {
        let row = Row::new(id, Layer::Raw, work, "ns", values).lower_is_better().operations(operations / 2);
        row.durability(durability).verified("every value through the wrapper", digest)
    };
    Ok(vec![
        row("wrapper-get-without", "get one row of an id, without the wrapper", "read", get_without),
        row("wrapper-get", "get one row of an id, through the wrapper", "read", get_with),
        row("wrapper-write-without", "write one small value, without the wrapper", "not synced", write_without),
        row("wrapper-write", "write one small value, through the wrapper", "not synced", write_with),
    ])
}

fn key(at: u64) -> Vec<u8> {
    [b"wrapper/", &at.to_be_bytes()[..]].concat()
}
