//! Reads of the imported history, directly: rows of ids and blocks that are there, ids that are not, several in one
//! call, blocks with cold caches, scans. Each value is compared at once, outside the time that counts.

use std::sync::Arc;

use bytes::Bytes;
use govc_engine::backend::{Backend, Family, Scan};

use super::{Context, check_value, import::verify_loaded};
use crate::error::{Error, Result};
use crate::measure::{Digest, Latencies, Pace, Taken};
use crate::random::Random;
use crate::report::{Layer, Row};
use crate::subject::Coldness;

/// Keys of one call of `get_many`.
const MANY: usize = 64;
/// Figures that share the workload's seconds.
const BESIDE: u32 = 7;
const READ: &str = "read";
const EVERY_VALUE: &str = "every value as it was read";

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let mut backend = context.loaded()?;
    let mut rows = Vec::new();
    for (id, family, work) in [
        ("raw-get-id", Family::Ids, "get one row of an id, hot"),
        ("raw-get-block", Family::Blocks, "get one block, hot"),
    ] {
        let (mut figure, order) = (Figure::new()?, order(context, family));
        for repetition in context.repetitions() {
            context.show(work, repetition);
            gets(context, &*backend, family, &order, &mut figure)?;
        }
        rows.push(figure.row(id, work));
    }
    rows.push(absent(context, &*backend)?);
    rows.push(many(context, &*backend)?);
    let (cold, again) = cold(context, backend)?;
    backend = again;
    rows.extend(cold);
    rows.push(scan(context, &*backend, Family::Blocks, "raw-scan-blocks", "scan all blocks")?);
    rows.push(scan(context, &*backend, Family::Ids, "raw-scan-ids", "scan all rows of ids")?);
    context.progress.detail("verifying");
    verify_loaded(context, &*backend, &Family::ALL)?;
    backend.close()?;
    Ok(rows)
}

/// The entries of a family, in the order in which they are read.
fn order<'a>(context: &Context<'a, '_>, family: Family) -> Vec<&'a (Bytes, Bytes)> {
    let entries = context.inputs.import.family(family);
    let order = Random::of(context.inputs.seed, 100 + family as u64).order(entries.len());
    order.into_iter().map(|at| &entries[at]).collect()
}

/// What a figure has so far.
struct Figure {
    taken: Vec<Taken>,
    latencies: Latencies,
    digest: Digest,
}

impl Figure {
    fn new() -> Result<Self> {
        Ok(Self { taken: Vec::new(), latencies: Latencies::new()?, digest: Digest::default() })
    }

    fn row(&self, id: &str, work: &str) -> Row {
        let row = Row::rate(id, Layer::Raw, work, "1/s", &self.taken).latency(&self.latencies);
        row.durability(READ).verified(EVERY_VALUE, self.digest)
    }
}

fn gets(
    context: &Context<'_, '_>,
    backend: &dyn Backend,
    family: Family,
    order: &[&(Bytes, Bytes)],
    figure: &mut Figure,
) -> Result<()> {
    let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
    figure.digest = Digest::default();
    for (key, value) in order.iter().cycle() {
        if !pace.goes_on(&taken)? {
            break;
        }
        let found = taken.time(Some(&mut figure.latencies), || backend.get(family, key))?;
        check_value(found.as_ref(), value, &format_args!("{} {}", family.name(), key.escape_ascii()))?;
        figure.digest.add(&[key, value]);
        taken.operations += 1;
    }
    figure.taken.push(taken);
    Ok(())
}

/// Ids that nothing has: as long as those that are there, and among them in order.
fn absent(context: &mut Context<'_, '_>, backend: &dyn Backend) -> Result<Row> {
    let work = "get one row of an id that is not there";
    let mut figure = Figure::new()?;
    let order = order(context, Family::Ids);
    for repetition in context.repetitions() {
        context.show(work, repetition);
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        figure.digest = Digest::default();
        let mut random = Random::of(context.inputs.seed, 90);
        while pace.goes_on(&taken)? {
            // The pool of an id that is there, and an id that no hash gives in the life of this benchmark.
            let mut key = order[random.below(order.len())].0.to_vec();
            let tail = key.len().saturating_sub(8);
            key[tail..].copy_from_slice(&random.next().to_be_bytes());
            let found = taken.time(Some(&mut figure.latencies), || backend.get(Family::Ids, &key))?;
            if found.is_some() {
                return Err(Error::wrong(format!("ids {} is there and was never written", key.escape_ascii())));
            }
            figure.digest.add(&[&key]);
            taken.operations += 1;
        }
        figure.taken.push(taken);
    }
    Ok(figure.row("raw-get-absent", work))
}

fn many(context: &mut Context<'_, '_>, backend: &dyn Backend) -> Result<Row> {
    let work = format!("get rows of ids, {MANY} in one call, hot");
    let mut figure = Figure::new()?;
    let order = order(context, Family::Ids);
    for repetition in context.repetitions() {
        context.show(&work, repetition);
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        figure.digest = Digest::default();
        for chunk in order.chunks(MANY).cycle() {
            if !pace.goes_on(&taken)? {
                break;
            }
            let keys: Vec<Vec<u8>> = chunk.iter().map(|(key, _)| key.to_vec()).collect();
            let found = taken.time(Some(&mut figure.latencies), || backend.get_many(Family::Ids, &keys))?;
            if found.len() != keys.len() {
                return Err(Error::wrong(format!("{} values for {} keys", found.len(), keys.len())));
            }
            for ((key, value), found) in chunk.iter().zip(&found) {
                check_value(found.as_ref(), value, &format_args!("ids {}", key.escape_ascii()))?;
                figure.digest.add(&[key, value]);
            }
            taken.operations += chunk.len() as u64;
        }
        figure.taken.push(taken);
    }
    let row = figure.row("raw-get-many", &work);
    Ok(row.note(format!("the rate is of rows, percentiles are of calls of {MANY}")))
}

/// Each block once, after as much was forgotten as can be; and the backend, opened again.
fn cold(context: &mut Context<'_, '_>, mut backend: Arc<dyn Backend>) -> Result<(Option<Row>, Arc<dyn Backend>)> {
    let work = "get one block, cold";
    if context.bench.is_volatile() {
        return Ok((None, backend));
    }
    let (mut figure, order) = (Figure::new()?, order(context, Family::Blocks));
    let mut coldness = Coldness::ReopenedOnly;
    for repetition in context.repetitions() {
        context.show(work, repetition);
        (backend, coldness) = context.bench.cold(backend)?;
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        figure.digest = Digest::default();
        for (key, value) in &order {
            if !pace.goes_on(&taken)? {
                break;
            }
            let found = taken.time(Some(&mut figure.latencies), || backend.get(Family::Blocks, key))?;
            check_value(found.as_ref(), value, &format_args!("blocks {}", key.escape_ascii()))?;
            figure.digest.add(&[key, value]);
            taken.operations += 1;
        }
        figure.taken.push(taken);
    }
    let note = match coldness {
        Coldness::Dropped => {
            "cold: opened again, its files dropped from the page cache; what the disk itself caches stays"
        }
        Coldness::ReopenedOnly => "cold: opened again only; whoever keeps the files still has them in memory",
    };
    Ok((Some(figure.row("raw-get-block-cold", work).note(note)), backend))
}

fn scan(context: &mut Context<'_, '_>, backend: &dyn Backend, family: Family, id: &str, work: &str) -> Result<Row> {
    let mut all = Vec::new();
    let expected = context.inputs.import.family(family).len() as u64;
    for repetition in context.repetitions() {
        context.show(work, repetition);
        let (pace, mut taken) = (Pace::of(context.plan, BESIDE), Taken::default());
        // A scan is measured whole. Reads have no limit of bytes.
        let mut scans = 0;
        while scans == 0 || pace.goes_on(&Taken { operations: taken.operations, busy: taken.busy, bytes: 0 })? {
            let (entries, bytes) = taken.time(None, || -> Result<(u64, u64)> {
                let (mut entries, mut bytes) = (0, 0);
                for entry in backend.scan(family, Scan::all())? {
                    let (key, value) = entry?;
                    entries += 1;
                    bytes += (key.len() + value.len()) as u64;
                }
                Ok((entries, bytes))
            })?;
            if entries != expected {
                return Err(Error::wrong(format!("a scan of {} gives {entries} of {expected} entries", family.name())));
            }
            taken.operations += entries;
            taken.bytes += bytes;
            scans += 1;
        }
        all.push(taken);
    }
    let row = match family {
        Family::Blocks => Row::throughput(id, Layer::Raw, work, &all),
        _ => Row::rate(id, Layer::Raw, work, "entries/s", &all),
    };
    let mut digest = Digest::default();
    context.inputs.import.family(family).iter().for_each(|(key, value)| digest.add(&[key, value]));
    Ok(row.durability(READ).verified("every entry, once more afterwards", digest))
}
