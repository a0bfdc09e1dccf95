//! Objects by id through the engine: in memory, not there at all, past its memory, and all of a history as a clone
//! reads it.

use std::ops::Range;

use govc_engine::backend::{Backend, Family};
use govc_engine::{Oid, Snapshot};

use super::{Context, import::verify_loaded};
use crate::error::{Error, Result};
use crate::inputs::Incoming;
use crate::measure::{Digest, Latencies, Pace, Taken};
use crate::random::Random;
use crate::report::{Layer, Row};
use crate::store;

/// Figures that share the workload's seconds.
const BESIDE: u32 = 4;
/// Objects that are read hot: so many fit into the memory of the store whatever they are.
const HOT_OBJECTS: usize = 10_000;
const HOT_BYTES: u64 = 64 << 20;
/// Rows that are read at once to make a backend warm.
const WARM_ROWS: usize = 256;
const READ: &str = "read";
const EVERY_OBJECT: &str = "every object as it was read";

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let backend = context.loaded()?;
    backend.close()?;
    drop(backend);
    let mut rows = in_memory(context)?;
    rows.push(past_memory(context, false)?);
    if context.inputs.history.objects.iter().any(|object| object.base.is_some()) {
        rows.push(past_memory(context, true)?);
    }
    rows.extend(clone(context)?);
    context.progress.detail("verifying");
    let backend = context.bench.reopen()?;
    // Opening a store raises numbers in other families.
    verify_loaded(context, &*backend, &[Family::Blocks, Family::Ids])?;
    backend.close()?;
    Ok(rows)
}

/// Reads an object, which counts, and compares it, which does not.
pub(super) fn read(
    snapshot: &Snapshot,
    object: &Incoming,
    taken: &mut Taken,
    latencies: Option<&mut Latencies>,
    digest: &mut Digest,
) -> Result<()> {
    let found = taken.time(latencies, || snapshot.object(&object.oid))?;
    object.check(found.kind, &found.data)?;
    digest.add(&[object.oid.as_bytes(), &found.data]);
    taken.operations += 1;
    Ok(())
}

fn in_memory(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let opened = store::open(context.bench.reopen()?, store::MEMORY_BYTES)?;
    let snapshot = store::imported(&opened)?.snapshot();
    let objects = &context.inputs.history.objects;
    let mut order: Vec<&Incoming> = Vec::new();
    let mut bytes = 0;
    for at in Random::of(context.inputs.seed, 110).order(objects.len()).into_iter().take(HOT_OBJECTS) {
        bytes += objects[at].size;
        if bytes > HOT_BYTES {
            break;
        }
        snapshot.object(&objects[at].oid)?;
        order.push(&objects[at]);
    }
    let (mut hot, mut hot_latencies, mut hot_digest) = (Vec::new(), Latencies::new()?, Digest::default());
    let (mut absent, mut absent_latencies, mut absent_digest) = (Vec::new(), Latencies::new()?, Digest::default());
    for repetition in context.repetitions() {
        context.show("objects in memory", repetition);
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        hot_digest = Digest::default();
        for object in order.iter().cycle() {
            if !pace.goes_on(&taken)? {
                break;
            }
            read(&snapshot, object, &mut taken, Some(&mut hot_latencies), &mut hot_digest)?;
        }
        hot.push(taken);

        context.show("objects that are not there", repetition);
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        let mut random = Random::of(context.inputs.seed, 111);
        absent_digest = Digest::default();
        while pace.goes_on(&taken)? {
            let mut id = [0; 20];
            id.chunks_mut(4).for_each(|part| part.copy_from_slice(&random.next().to_be_bytes()[..4]));
            let oid = Oid::from_bytes(&id)?;
            let found = taken.time(Some(&mut absent_latencies), || snapshot.try_object(&oid))?;
            if found.is_some() {
                return Err(Error::wrong(format!("object {oid} is there and was never imported")));
            }
            absent_digest.add(&[&id]);
            taken.operations += 1;
        }
        absent.push(taken);
    }
    drop(snapshot);
    opened.close()?;
    let hot = Row::rate("object-hot", Layer::Engine, "object by id, in the engine's memory", "1/s", &hot);
    let absent = Row::rate("object-absent", Layer::Engine, "object by id that is not there", "1/s", &absent);
    Ok(vec![
        hot.latency(&hot_latencies).durability(READ).verified(EVERY_OBJECT, hot_digest),
        absent.latency(&absent_latencies).durability(READ).verified("every answer as it was given", absent_digest),
    ])
}

/// One object of each block, in random order, from a store that has just been opened: the engine has none of them, so
/// it reads the row and the block and decodes that; of an object that is stored as a delta, the blocks of its bases, too. The
/// backend has read all of them before.
fn past_memory(context: &mut Context<'_, '_>, deltas: bool) -> Result<Row> {
    let inputs = context.inputs;
    let (mut all, mut latencies, mut digest) = (Vec::new(), Latencies::new()?, Digest::default());
    let mut medians = Vec::new();
    for repetition in context.repetitions() {
        context.show("objects past memory", repetition);
        let mut random = Random::of(inputs.seed, 120);
        let blocks = random.order(inputs.import.blocks.len()).into_iter().map(|at| inputs.import.blocks[at].clone());
        let of_block = |block: Range<usize>| {
            let objects = &inputs.history.objects[block];
            let first = random.below(objects.len());
            let mut from_there = objects[first..].iter().chain(&objects[..first]);
            from_there.find(|object| object.base.is_some() == deltas)
        };
        let order: Vec<&Incoming> = blocks.filter_map(of_block).collect();
        let backend = context.bench.reopen()?;
        warm(context, &*backend)?;
        let opened = store::open(backend, store::LITTLE_MEMORY_BYTES)?;
        let snapshot = store::imported(&opened)?.snapshot();
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        let mut its = Latencies::new()?;
        digest = Digest::default();
        for object in order {
            if !pace.goes_on(&taken)? {
                break;
            }
            read(&snapshot, object, &mut taken, Some(&mut its), &mut digest)?;
        }
        let stats = opened.stats();
        if stats.cache_misses_total < taken.operations {
            let hits = taken.operations - stats.cache_misses_total;
            return Err(Error::wrong(format!("{hits} of {} objects were in memory already", taken.operations)));
        }
        drop(snapshot);
        opened.close()?;
        medians.push(its.micros_at(0.5));
        latencies.add(&its);
        all.push(taken);
    }
    let (id, work, note) = if deltas {
        let work = "object by id past the engine's memory, stored as a delta, median time";
        ("delta-past-memory", work, "its bases are read, too, as many as there are; backend warm")
    } else {
        let work = "object by id past the engine's memory, median time";
        ("object-past-memory", work, "each whole, from a block that was not read before; backend warm")
    };
    let row = Row::new(id, Layer::Engine, work, "µs", medians).lower_is_better();
    let row = row.operations(all.iter().map(|taken| taken.operations).sum()).latency(&latencies);
    Ok(row.durability(READ).verified(EVERY_OBJECT, digest).note(note))
}

/// Reads what the engine will read.
fn warm(context: &Context<'_, '_>, backend: &dyn Backend) -> Result<()> {
    for family in [Family::Blocks, Family::Ids] {
        for rows in context.inputs.import.family(family).chunks(WARM_ROWS) {
            let keys: Vec<Vec<u8>> = rows.iter().map(|(key, _)| key.to_vec()).collect();
            backend.get_many(family, &keys)?;
            context.plan.stop.check()?;
        }
    }
    Ok(())
}

/// Every object of the history in its order, from a store that has just been opened.
fn clone(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let (mut all, mut digest) = (Vec::new(), Digest::default());
    for repetition in context.repetitions() {
        context.show("clone", repetition);
        let opened = store::open(context.bench.reopen()?, store::MEMORY_BYTES)?;
        let snapshot = store::imported(&opened)?.snapshot();
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        digest = Digest::default();
        let mut bytes = 0;
        for object in &context.inputs.history.objects {
            if !pace.goes_on(&taken)? {
                break;
            }
            read(&snapshot, object, &mut taken, None, &mut digest)?;
            bytes += object.size;
        }
        taken.bytes = bytes;
        drop(snapshot);
        opened.close()?;
        all.push(taken);
    }
    let work = "clone: every object in the order of its import, engine just opened";
    let row = Row::throughput("clone", Layer::Engine, work, &all).durability(READ).verified(EVERY_OBJECT, digest);
    Ok(vec![row.note("bytes are those of objects; one reader")])
}
