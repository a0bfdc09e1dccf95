//! One commit's bytes in one value, each write synced: by one writer, then by all writers of the profile at once.

use std::time::Instant;

use govc_engine::backend::{Batch, Family, Sync};

use super::{Context, EVERY_ENTRY, compare, joined};
use crate::error::Result;
use crate::measure::{Digest, Latencies, Pace, Taken};
use crate::report::{Layer, Row};

/// Keys of different writers are so far apart.
const WRITER_BITS: u32 = 40;

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let writers = context.inputs.shape.writers;
    let alone = measure(context, 1, "raw-write-alone", "one synced value a commit, 1 writer".to_owned())?;
    let together =
        measure(context, writers, "raw-write-together", format!("one synced value a commit, {writers} writers"))?;
    Ok(vec![alone, together])
}

fn measure(context: &mut Context<'_, '_>, writers: usize, id: &str, work: String) -> Result<Row> {
    let inputs = context.inputs;
    let (mut all, mut latencies, mut digest) = (Vec::new(), Latencies::new()?, Digest::default());
    for repetition in context.repetitions() {
        context.show(&work, repetition);
        let backend = context.bench.fresh()?;
        let pace = Pace::of(context.plan, 2).shared(writers);
        let start = Instant::now();
        let done = std::thread::scope(|scope| {
            let threads = (0..writers as u64).map(|writer| {
                let (pace, backend) = (&pace, &*backend);
                scope.spawn(move || {
                    let (mut taken, mut latencies) = (Taken::default(), Latencies::new()?);
                    while pace.goes_on(&taken)? {
                        let number = writer << WRITER_BITS | taken.operations;
                        let value = inputs.record(number);
                        taken.operations += 1;
                        taken.bytes += value.len() as u64;
                        let mut batch = Batch::new();
                        batch.put(Family::Journal, number.to_be_bytes().to_vec(), value);
                        taken.time(Some(&mut latencies), || backend.write(batch, Sync::Yes))?;
                    }
                    Ok((taken, latencies))
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| joined(thread.join())).collect::<Result<Vec<_>>>()
        })?;
        let elapsed = start.elapsed();
        let mut taken = Taken::default();
        for (of, its) in &done {
            taken.operations += of.operations;
            taken.busy += of.busy;
            latencies.add(its);
        }
        // One writer's values are made between its writes; of several, time is what passes.
        if writers > 1 {
            taken.busy = elapsed;
        }
        all.push(taken);
        context.progress.detail("verifying");
        let backend = context.bench.stored(backend)?;
        let expected = done.iter().enumerate().flat_map(|(writer, (of, _))| {
            let numbers = (0..of.operations).map(move |at| (writer as u64) << WRITER_BITS | at);
            numbers.map(|number| Ok((number.to_be_bytes(), inputs.record(number))))
        });
        digest = compare(&*backend, Family::Journal, expected)?;
        backend.close()?;
    }
    let row = Row::rate(id, Layer::Raw, work, "1/s", &all).latency(&latencies);
    Ok(row.durability(context.synced_each()).verified(EVERY_ENTRY, digest))
}
