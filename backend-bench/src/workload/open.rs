//! Opening a large store after it was closed: the backend alone, and the engine on it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use govc_engine::block::Base;
use govc_engine::{Cause, Expected, Kind, ObjectFormat, RefEdit, hash_object};

use super::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::inputs::Object;
use crate::measure::Digest;
use crate::random::Random;
use crate::report::{Layer, Row};
use crate::store;

/// Publications that bring the objects and references: one alone would be a batch of hundreds of megabytes.
const PUBLICATIONS: usize = 10;
/// Making the store is not bounded by the plan's seconds, which it would not fit into, but by these at least.
const MAKING_MIN: Duration = Duration::from_secs(120);
/// Objects that are read to see whether they are there.
const SAMPLE: usize = 1000;
const REPO: &str = "bench/large";

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let (objects, references) = (context.plan.amounts.open_objects, context.plan.amounts.open_references);
    context.progress.detail(&format!("making a store with {objects} objects"));
    make(context)?;
    let (mut raw, mut engine, mut digest) = (Vec::new(), Vec::new(), Digest::default());
    for repetition in context.repetitions() {
        context.show("opening", repetition);
        let start = Instant::now();
        let backend = context.bench.reopen()?;
        let opened_backend = Instant::now();
        let opened = store::open(backend, store::MEMORY_BYTES)?;
        let ready = Instant::now();
        raw.push((opened_backend - start).as_secs_f64() * 1e3);
        engine.push((ready - start).as_secs_f64() * 1e3);

        let snapshot = store::repo(&opened, REPO)?.snapshot();
        let found = snapshot.reference_count();
        if found != references {
            return Err(Error::wrong(format!("{found} of {references} references are there")));
        }
        digest = Digest::default();
        let mut random = Random::of(context.inputs.seed, 140);
        for _ in 0..SAMPLE.min(objects) {
            let object = blob(random.below(objects))?;
            let data = snapshot.object(&object.oid)?.data;
            if data != object.data {
                return Err(Error::wrong(format!("object {} is not what was stored", object.oid)));
            }
            digest.add(&[object.oid.as_bytes(), &data]);
        }
        drop(snapshot);
        opened.close()?;
    }
    let what = format!("{objects} objects, {references} references");
    let verified = "the number of references and 1000 random objects";
    let row = |id, layer, work: String, values: Vec<f64>| {
        let row = Row::new(id, layer, work, "ms", values).lower_is_better();
        let row = row.operations(context.plan.amounts.repetitions as u64).durability("read").verified(verified, digest);
        row.note("closed in order before; files in the page cache")
    };
    let mut rows = Vec::new();
    // The handle of a backend that keeps nothing was never given back.
    if !context.bench.is_volatile() {
        rows.push(row("raw-open", Layer::Raw, format!("open the backend alone: {what}"), raw));
    }
    rows.push(row("open", Layer::Engine, format!("open the store, ready to read: {what}"), engine));
    Ok(rows)
}

/// A small blob, like no other of another number.
fn blob(number: usize) -> Result<Object> {
    let data = Bytes::from(format!("object {number:012}\n"));
    Ok(Object { oid: hash_object(ObjectFormat::Sha1, Kind::Blob, &data)?, kind: Kind::Blob, data })
}

fn make(context: &mut Context<'_, '_>) -> Result<()> {
    let amounts = context.plan.amounts;
    let limit = MAKING_MIN.max(Duration::from_secs(context.plan.seconds) * 20);
    let start = Instant::now();
    let opened = store::open(context.bench.fresh()?, store::MEMORY_BYTES)?;
    let repo = store::repo(&opened, REPO)?;
    let share = |count: usize, part: usize| count * part / PUBLICATIONS..count * (part + 1) / PUBLICATIONS;
    for part in 0..PUBLICATIONS {
        let ingest = repo.ingest();
        let mut lane = ingest.lane();
        for number in share(amounts.open_objects, part) {
            let object = blob(number)?;
            lane.add(object.oid, object.kind, object.data.len() as u64, Base::Whole, &object.data)?;
            context.plan.stop.check()?;
        }
        lane.finish()?;
        let mut transaction = repo.begin("bench", Cause::Import);
        let who = format!("Bench <bench@example.com> {} +0000", 1_700_000_000 + part);
        // The tree need not be there: nobody walks.
        let tree = blob(0)?.oid;
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\npart {part}\n");
        let target = Some(transaction.put(Kind::Commit, text.into())?);
        transaction.attach(ingest.finish()?)?;
        for number in share(amounts.open_references, part) {
            let name = store::branch(&format!("topic/{number:07}"))?;
            transaction.edit(RefEdit { name, expected: Expected::Absent, target })?;
        }
        transaction.prepare()?.publish()?.ticket.wait()?;
        context.progress.detail(&format!("making a store, {} of {PUBLICATIONS}", part + 1));
        if start.elapsed() > limit {
            let (objects, seconds) = (amounts.open_objects, limit.as_secs());
            let message = format!("a store with {objects} objects was not made within {seconds} seconds");
            return Err(Error::new(ErrorKind::TooSlow, message));
        }
    }
    drop(repo);
    Ok(opened.close()?)
}
