//! Groups of 64 and of 512 objects, each group synced: through the engine in one transaction, directly as one value for
//! the group, directly as one row for each object under its id. The three take turns in each repetition.

use bytes::Bytes;
use govc_engine::backend::{Backend, Batch, Family, Sync};
use govc_engine::{Cause, Expected, Kind, ObjectFormat, Oid, RefEdit, hash_object};

use super::{Context, EVERY_ENTRY, EVERY_OBJECT, compare};
use crate::error::{Error, Result};
use crate::inputs::{Inputs, Object};
use crate::measure::{Digest, Latencies, Pace, Taken};
use crate::report::{Layer, Row};
use crate::store;

const SIZES: [u64; 2] = [64, 512];

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for size in SIZES {
        rows.extend(measure(context, size)?);
    }
    Ok(rows)
}

/// What one way of writing has given so far.
struct Way {
    taken: Vec<Taken>,
    latencies: Latencies,
    digest: Digest,
}

fn measure(context: &mut Context<'_, '_>, size: u64) -> Result<Vec<Row>> {
    let new = || Ok::<_, Error>(Way { taken: Vec::new(), latencies: Latencies::new()?, digest: Digest::default() });
    let (mut single, mut grouped, mut engine) = (new()?, new()?, new()?);
    for repetition in context.repetitions() {
        context.show(&format!("groups of {size}"), repetition);
        raw(context, size, &mut single, Layout::RowEach)?;
        raw(context, size, &mut grouped, Layout::OneValue)?;
        through_engine(context, size, &mut engine)?;
    }
    let synced = context.synced_each();
    let row = |id: &str, layer, work: String, way: &Way| {
        Row::rate(&format!("{id}-{size}"), layer, work, "objects/s", &way.taken)
            .latency(&way.latencies)
            .durability(synced)
            .note("percentiles are of groups; ids are computed beforehand")
    };
    let rows = row("raw-rows", Layer::Raw, format!("synced groups of {size} objects, a row each by id"), &single);
    let group = row("raw-group", Layer::Raw, format!("synced groups of {size} objects, one value a group"), &grouped);
    let through = row("group", Layer::Engine, format!("durable transactions of {size} objects"), &engine);
    Ok(vec![
        rows.verified(EVERY_ENTRY, single.digest),
        group.verified(EVERY_ENTRY, grouped.digest),
        through.verified(EVERY_OBJECT, engine.digest),
    ])
}

/// The objects of a group, and their bytes together.
fn group(inputs: &Inputs, number: u64, size: u64) -> Result<(Vec<Object>, u64)> {
    let objects = (number * size..(number + 1) * size).map(|at| inputs.object(at)).collect::<Result<Vec<_>>>()?;
    let bytes = objects.iter().map(|object| object.data.len() as u64).sum();
    Ok((objects, bytes))
}

/// How a group is written directly.
#[derive(Clone, Copy)]
enum Layout {
    /// A row for each object under its id, as a store without a journal would have them.
    RowEach,
    /// One value for the group: ids and bytes one after the other.
    OneValue,
}

impl Layout {
    fn batch(self, number: u64, objects: &[Object]) -> Batch {
        let mut batch = Batch::new();
        match self {
            Layout::RowEach => {
                for object in objects {
                    batch.put(Family::Journal, object.oid.as_bytes().to_vec(), object.data.clone());
                }
            }
            Layout::OneValue => batch.put(Family::Journal, number.to_be_bytes().to_vec(), value(objects)),
        }
        batch
    }

    /// Compares what a backend holds with so many groups.
    fn verify(self, backend: &dyn Backend, inputs: &Inputs, groups: u64, size: u64) -> Result<Digest> {
        match self {
            Layout::RowEach => {
                // Only the ids are kept, contents are made again.
                let id = |at| Ok::<_, Error>((inputs.object(at)?.oid, at));
                let mut order = (0..groups * size).map(id).collect::<Result<Vec<_>>>()?;
                order.sort_unstable();
                let rows = order.into_iter().map(|(oid, at)| Ok((oid.as_bytes().to_vec(), inputs.object(at)?.data)));
                compare(backend, Family::Journal, rows)
            }
            Layout::OneValue => {
                let values =
                    (0..groups).map(|number| Ok((number.to_be_bytes(), value(&group(inputs, number, size)?.0))));
                compare(backend, Family::Journal, values)
            }
        }
    }
}

fn value(objects: &[Object]) -> Bytes {
    let mut value = Vec::new();
    for object in objects {
        value.extend_from_slice(object.oid.as_bytes());
        value.extend_from_slice(&object.data);
    }
    value.into()
}

fn raw(context: &mut Context<'_, '_>, size: u64, way: &mut Way, layout: Layout) -> Result<()> {
    let inputs = context.inputs;
    let backend = context.bench.fresh()?;
    let pace = Pace::of(context.plan, 3);
    let (mut taken, mut groups) = (Taken::default(), 0);
    while pace.goes_on(&taken)? {
        let (objects, bytes) = group(inputs, groups, size)?;
        let batch = layout.batch(groups, &objects);
        taken.time(Some(&mut way.latencies), || backend.write(batch, Sync::Yes))?;
        groups += 1;
        taken.operations += size;
        taken.bytes += bytes;
    }
    way.taken.push(taken);
    context.progress.detail("verifying");
    let backend = context.bench.stored(backend)?;
    way.digest = layout.verify(&*backend, inputs, groups, size)?;
    Ok(backend.close()?)
}

/// A transaction for each group, with a branch of its own, and the wait for its ticket.
fn through_engine(context: &mut Context<'_, '_>, size: u64, way: &mut Way) -> Result<()> {
    let inputs = context.inputs;
    let opened = store::open(context.bench.fresh()?, store::MEMORY_BYTES)?;
    let repo = store::repo(&opened, "bench/groups")?;
    let pace = Pace::of(context.plan, 3);
    let (mut taken, mut groups) = (Taken::default(), 0);
    // A branch names a commit: it takes the place of the group's last object.
    while pace.goes_on(&taken)? {
        let (mut objects, bytes) = group(inputs, groups, size)?;
        let head = finish(&mut objects, groups)?;
        let name = store::branch(&format!("group-{groups}"))?;
        taken.time(Some(&mut way.latencies), || -> govc_engine::Result<()> {
            let mut transaction = repo.begin("bench", Cause::Push);
            for object in objects {
                transaction.put_hashed(object.oid, object.kind, object.data);
            }
            transaction.edit(RefEdit { name, expected: Expected::Absent, target: Some(head) })?;
            transaction.prepare()?.publish()?.ticket.wait()
        })?;
        groups += 1;
        taken.operations += size;
        taken.bytes += bytes;
    }
    way.taken.push(taken);
    drop(repo);
    opened.close()?;
    drop(opened);
    context.progress.detail("verifying");
    let opened = store::open(context.bench.reopen()?, store::MEMORY_BYTES)?;
    let snapshot = store::repo(&opened, "bench/groups")?.snapshot();
    way.digest = Digest::default();
    for number in 0..groups {
        context.plan.stop.check()?;
        let (mut objects, _) = group(inputs, number, size)?;
        let head = finish(&mut objects, number)?;
        if snapshot.reference(&store::branch(&format!("group-{number}"))?) != Some(head) {
            return Err(Error::wrong(format!("the branch of group {number} is not there")));
        }
        for object in &objects {
            let found = snapshot.object(&object.oid)?;
            if found.kind != object.kind || found.data != object.data {
                return Err(Error::wrong(format!("object {} is not what was written", object.oid)));
            }
            way.digest.add(&[object.oid.as_bytes(), &found.data]);
        }
    }
    drop(snapshot);
    Ok(opened.close()?)
}

/// Puts a commit in the place of the group's last object.
fn finish(objects: &mut [Object], number: u64) -> Result<Oid> {
    let Some(last) = objects.last_mut() else { return Ok(ObjectFormat::Sha1.null()) };
    // The tree need not be there: whoever publishes vouches for it, and nobody walks here.
    let who = format!("Bench <bench@example.com> {} +0000", 1_700_000_000 + number);
    let text = format!("tree {}\nauthor {who}\ncommitter {who}\n\ngroup {number}\n", last.oid);
    let oid = hash_object(ObjectFormat::Sha1, Kind::Commit, text.as_bytes())?;
    *last = Object { oid, kind: Kind::Commit, data: text.into() };
    Ok(oid)
}
