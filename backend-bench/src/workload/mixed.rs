//! Mixed load: all writers of the profile at once, nine reads of the imported history to one synced write, directly and
//! through the engine.

use std::thread;

use bytes::Bytes;
use govc_engine::backend::{Backend, Batch, Family, Sync};

use super::commits::{EVERY_BRANCH, Writer, first_commit};
use super::{Context, EVERY_ENTRY, check_value, compare, joined, objects};
use crate::error::Result;
use crate::inputs::Inputs;
use crate::measure::{Digest, Latencies, Pace, Taken};
use crate::random::Random;
use crate::report::{Layer, Row};
use crate::store;

/// One in so many operations is a write.
const WRITE_EVERY: u64 = 10;
const WRITER_BITS: u32 = 40;
/// The engine's memory: a part of the history, so that some reads reach the backend.
const MEMORY_BYTES: u64 = 64 << 20;

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let (mut raw, mut engine) = (Figures::new()?, Figures::new()?);
    for repetition in context.repetitions() {
        context.show("mixed load", repetition);
        directly(context, &mut raw)?;
        context.show("mixed load through the engine", repetition);
        through_engine(context, &mut engine)?;
    }
    let threads = context.inputs.shape.writers;
    let synced = context.synced_each();
    let what = format!("{threads} clients, 90 % reads of an id and its block, 10 % synced values");
    let mut rows = raw.rows(("raw-mixed", "raw-mixed-writes"), Layer::Raw, &what, synced, EVERY_ENTRY);
    let what = format!("{threads} clients, 90 % objects by id, 10 % durable commits");
    rows.extend(engine.rows(("mixed", "mixed-writes"), Layer::Engine, &what, synced, EVERY_BRANCH));
    Ok(rows)
}

/// What one client did: reads and writes apart.
struct Client {
    reads: Taken,
    read_latencies: Latencies,
    writes: Taken,
    write_latencies: Latencies,
    /// Of what it read.
    digest: Digest,
}

impl Client {
    fn new() -> Result<Self> {
        Ok(Self {
            reads: Taken::default(),
            read_latencies: Latencies::new()?,
            writes: Taken::default(),
            write_latencies: Latencies::new()?,
            digest: Digest::default(),
        })
    }

    /// Reads and writes until the pace ends it.
    fn work(
        mut self,
        (inputs, pace, number): (&Inputs, &Pace, usize),
        mut read: impl FnMut(&mut Self, &mut Random) -> Result<()>,
        mut write: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<Self> {
        let mut random = Random::of(inputs.seed, 130 + number as u64);
        loop {
            let (reads, writes) = (&self.reads, &self.writes);
            let operations = reads.operations + writes.operations;
            if !pace.goes_on(&Taken { operations, bytes: writes.bytes, busy: reads.busy + writes.busy })? {
                return Ok(self);
            }
            // Clients take turns in beginning with a write, so that they do not all write at once.
            let is_write = (operations + number as u64).is_multiple_of(WRITE_EVERY);
            if is_write { write(&mut self)? } else { read(&mut self, &mut random)? }
        }
    }
}

/// What all clients did in all repetitions.
struct Figures {
    rates: Vec<f64>,
    write_rates: Vec<f64>,
    operations: u64,
    writes: u64,
    read_latencies: Latencies,
    write_latencies: Latencies,
    read: Digest,
    written: Digest,
}

impl Figures {
    fn new() -> Result<Self> {
        Ok(Self {
            rates: Vec::new(),
            write_rates: Vec::new(),
            operations: 0,
            writes: 0,
            read_latencies: Latencies::new()?,
            write_latencies: Latencies::new()?,
            read: Digest::default(),
            written: Digest::default(),
        })
    }

    fn add(&mut self, clients: &[&Client], written: Digest) {
        let (mut rate, mut write_rate, mut read) = (0.0, 0.0, Digest::default());
        for client in clients {
            // Comparing what was read is no part of the load, so a client's time is that of its calls.
            let seconds = (client.reads.busy + client.writes.busy).as_secs_f64().max(1e-9);
            rate += (client.reads.operations + client.writes.operations) as f64 / seconds;
            write_rate += client.writes.operations as f64 / seconds;
            self.operations += client.reads.operations + client.writes.operations;
            self.writes += client.writes.operations;
            self.read_latencies.add(&client.read_latencies);
            self.write_latencies.add(&client.write_latencies);
            read.merge(client.digest);
        }
        self.rates.push(rate);
        self.write_rates.push(write_rate);
        (self.read, self.written) = (read, written);
    }

    fn rows(&self, ids: (&str, &str), layer: Layer, what: &str, synced: &str, verified: &str) -> Vec<Row> {
        let all = Row::new(ids.0, layer, format!("mixed: {what}"), "1/s", self.rates.clone());
        let writes =
            Row::new(ids.1, layer, format!("mixed, its writes alone: {what}"), "1/s", self.write_rates.clone());
        let all = all
            .operations(self.operations)
            .latency(&self.read_latencies)
            .note("percentiles are of single reads: directly, of an id or of a block");
        vec![
            all.durability(synced).verified("every value as it was read", self.read),
            writes
                .operations(self.writes)
                .latency(&self.write_latencies)
                .durability(synced)
                .verified(verified, self.written),
        ]
    }
}

fn directly(context: &mut Context<'_, '_>, figures: &mut Figures) -> Result<()> {
    let inputs = context.inputs;
    let backend = context.loaded()?;
    let threads = inputs.shape.writers;
    let pace = Pace::of(context.plan, 2).shared(threads);
    let (ids, blocks) = (inputs.import.family(Family::Ids), inputs.import.family(Family::Blocks));
    let clients = thread::scope(|scope| {
        let clients = (0..threads).map(|number| {
            let (backend, pace) = (&*backend, &pace);
            scope.spawn(move || {
                let read = |client: &mut Client, random: &mut Random| {
                    for (family, entries) in [(Family::Ids, ids), (Family::Blocks, blocks)] {
                        get(backend, family, &entries[random.below(entries.len())], client)?;
                    }
                    client.reads.operations += 1;
                    Ok(())
                };
                let write = |client: &mut Client| {
                    let key = key_of(number, client.writes.operations);
                    let value = inputs.record(key);
                    client.writes.bytes += value.len() as u64;
                    let mut batch = Batch::new();
                    batch.put(Family::Journal, key.to_be_bytes().to_vec(), value);
                    client.writes.time(Some(&mut client.write_latencies), || backend.write(batch, Sync::Yes))?;
                    client.writes.operations += 1;
                    Ok(())
                };
                Client::new()?.work((inputs, pace, number), read, write)
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| joined(client.join())).collect::<Result<Vec<_>>>()
    })?;
    context.progress.detail("verifying");
    let backend = context.bench.stored(backend)?;
    let expected = clients.iter().enumerate().flat_map(|(number, client)| {
        let keys = (0..client.writes.operations).map(move |at| key_of(number, at));
        keys.map(|key| Ok((key.to_be_bytes(), inputs.record(key))))
    });
    let written = compare(&*backend, Family::Journal, expected)?;
    backend.close()?;
    figures.add(&clients.iter().collect::<Vec<_>>(), written);
    Ok(())
}

fn key_of(client: usize, write: u64) -> u64 {
    (client as u64 + 1) << WRITER_BITS | write
}

fn get(backend: &dyn Backend, family: Family, (key, value): &(Bytes, Bytes), client: &mut Client) -> Result<()> {
    let found = client.reads.time(Some(&mut client.read_latencies), || backend.get(family, key))?;
    check_value(found.as_ref(), value, &format_args!("{} {}", family.name(), key.escape_ascii()))?;
    client.digest.add(&[key, value]);
    Ok(())
}

fn through_engine(context: &mut Context<'_, '_>, figures: &mut Figures) -> Result<()> {
    let inputs = context.inputs;
    let backend = context.loaded()?;
    let opened = store::open(backend, MEMORY_BYTES)?;
    let snapshot = store::imported(&opened)?.snapshot();
    let repo = store::repo(&opened, "bench/mixed")?;
    let base = first_commit(inputs, &repo)?;
    let threads = inputs.shape.writers;
    let pace = Pace::of(context.plan, 2).shared(threads);
    let done = thread::scope(|scope| {
        let clients = (0..threads).map(|number| {
            let (pace, snapshot, repo) = (&pace, &snapshot, &repo);
            scope.spawn(move || {
                let mut writer = Writer::new(inputs, number, base)?;
                let objects = &inputs.history.objects;
                let read = |client: &mut Client, random: &mut Random| {
                    let object = &objects[random.below(objects.len())];
                    let Client { reads, read_latencies, digest, .. } = client;
                    objects::read(snapshot, object, reads, Some(read_latencies), digest)
                };
                let write = |client: &mut Client| writer.commit(repo, &mut client.writes, &mut client.write_latencies);
                let client = Client::new()?.work((inputs, pace, number), read, write)?;
                Ok((client, writer))
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| joined(client.join())).collect::<Result<Vec<_>>>()
    })?;
    drop((snapshot, repo));
    opened.close()?;
    drop(opened);
    context.progress.detail("verifying");
    let opened = store::open(context.bench.reopen()?, MEMORY_BYTES)?;
    let snapshot = store::repo(&opened, "bench/mixed")?.snapshot();
    let mut written = Digest::default();
    for (_, writer) in &done {
        writer.verify(&snapshot, &context.plan.stop, &mut written)?;
    }
    drop(snapshot);
    opened.close()?;
    figures.add(&done.iter().map(|(client, _)| client).collect::<Vec<_>>(), written);
    Ok(())
}
