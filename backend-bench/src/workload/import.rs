//! The bulk import of a history: through the engine, which makes blocks of it, and directly, with the very batches that
//! the engine writes. Also what it leaves: bytes on the disk, and bytes written on the way there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use govc_engine::BackendResult;
use govc_engine::backend::{Backend, Batch, Description, Entries, Family, Scan, Sync, Usage};
use parking_lot::Mutex;

use super::{Context, EVERY_ENTRY, EVERY_OBJECT, compare};
use crate::disk;
use crate::error::Result;
use crate::measure::{Digest, Taken};
use crate::report::{Layer, Row, bytes};
use crate::store;

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let (mut raw, mut storage, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sizes, mut amplifications) = (Vec::new(), Vec::new());
    let (mut entries, mut objects) = (Digest::default(), Digest::default());
    let start = Instant::now();
    for repetition in context.repetitions() {
        context.show("import", repetition);
        let written_before = written(context);
        let backend = context.bench.fresh()?;
        let taken = replay(context, &*backend)?;
        backend.close()?;
        drop(backend);
        if let (Some(before), Some(after)) = (written_before, written(context)) {
            amplifications.push((after - before) as f64 / context.inputs.import.written_bytes as f64);
        }
        sizes.extend(context.bench.subject.disk_bytes());
        raw.push(taken);
        context.progress.detail("verifying");
        entries = verify_entries(context)?;

        context.show("import through the engine", repetition);
        let (its_storage, its_whole) = through_engine(context)?;
        storage.push(its_storage);
        whole.push(its_whole);
        context.progress.detail("verifying");
        objects = verify_objects(context)?;
        // A history is imported whole or not at all, so time is kept by the repetitions.
        if start.elapsed() > Duration::from_secs(context.plan.seconds) * 3 {
            break;
        }
    }
    let import = &context.inputs.import;
    let synced = context.synced_once();
    let mut rows = vec![
        Row::throughput("raw-import", Layer::Raw, "import, the engine's batches written directly", &raw)
            .durability(synced)
            .note("bytes are those of keys and values")
            .verified(EVERY_ENTRY, entries),
        Row::throughput("import-storage", Layer::Engine, "import, the engine's storage step alone", &storage)
            .durability(synced)
            .note("the engine's time in calls of the backend, and the bytes of keys and values in them")
            .verified(EVERY_OBJECT, objects),
        Row::throughput("import", Layer::Engine, "import, objects made into blocks and stored", &whole)
            .durability(synced)
            .note("bytes are those of objects and deltas as they come in; one thread")
            .verified(EVERY_OBJECT, objects),
    ];
    if let Some(size) = sizes.last() {
        let ratios = sizes.iter().map(|size| *size as f64 / import.stored_bytes as f64).collect();
        let (size, stored) = (bytes(*size), bytes(import.stored_bytes));
        let row = Row::new("disk-size", Layer::Raw, "disk after the import, by bytes of keys and values", "×", ratios);
        let row = row.lower_is_better().durability(synced).verified(EVERY_ENTRY, entries);
        rows.push(row.operations(import.puts()).note(format!("{size} for {stored}, closed")));
    }
    if !amplifications.is_empty() {
        let work = "bytes written to storage for the import, by bytes of keys and values";
        let row = Row::new("write-amplification", Layer::Raw, work, "×", amplifications).lower_is_better();
        let row = row.operations(import.puts()).durability(synced).verified(EVERY_ENTRY, entries);
        rows.push(row.note("write_bytes of /proc/self/io, from opening to closing"));
    }
    Ok(rows)
}

/// Bytes that this process has had written, if the backend writes in this process and the kernel tells.
fn written(context: &Context<'_, '_>) -> Option<u64> {
    context.bench.subject.folder()?;
    // On a tmpfs nothing is ever written.
    disk::written_bytes().filter(|bytes| *bytes > 0)
}

/// Writes the recorded batches, and syncs.
fn replay(context: &Context<'_, '_>, backend: &dyn Backend) -> Result<Taken> {
    let import = &context.inputs.import;
    let mut taken = Taken { operations: import.puts(), bytes: import.written_bytes, ..Taken::default() };
    for (batch, sync) in &import.batches {
        context.plan.stop.check()?;
        let batch = batch.clone();
        taken.time(None, || backend.write(batch, *sync))?;
    }
    taken.time(None, || backend.sync())?;
    Ok(taken)
}

/// Every entry of every family.
fn verify_entries(context: &mut Context<'_, '_>) -> Result<Digest> {
    let backend = context.bench.reopen()?;
    verify_loaded(context, &*backend, &Family::ALL)?;
    backend.close()?;
    Ok(context.inputs.import.digest())
}

/// Compares all that a backend holds in these families with all that the import leaves there.
pub(super) fn verify_loaded(context: &Context<'_, '_>, backend: &dyn Backend, families: &[Family]) -> Result<()> {
    for family in families {
        context.plan.stop.check()?;
        let entries = context.inputs.import.family(*family);
        compare(backend, *family, entries.iter().map(|(key, value)| Ok((key, value))))?;
    }
    Ok(())
}

/// Imports through the engine: what its calls of the backend took, and what all of it took.
fn through_engine(context: &mut Context<'_, '_>) -> Result<(Taken, Taken)> {
    let history = &context.inputs.history;
    let timed = Arc::new(Timed { inner: context.bench.fresh()?, taken: Mutex::default() });
    let opened = store::open(timed.clone(), store::MEMORY_BYTES)?;
    *timed.taken.lock() = Taken::default();
    let mut whole = Taken { operations: history.objects.len() as u64, bytes: history.bytes, ..Taken::default() };
    whole.time(None, || store::import(&opened, history, &context.plan.stop))?;
    let storage = std::mem::take(&mut *timed.taken.lock());
    opened.close()?;
    Ok((storage, whole))
}

fn verify_objects(context: &mut Context<'_, '_>) -> Result<Digest> {
    let opened = store::open(context.bench.reopen()?, store::MEMORY_BYTES)?;
    let snapshot = store::imported(&opened)?.snapshot();
    let mut digest = Digest::default();
    for object in &context.inputs.history.objects {
        context.plan.stop.check()?;
        let found = snapshot.object(&object.oid)?;
        object.check(found.kind, &found.data)?;
        digest.add(&[object.oid.as_bytes(), &found.data]);
    }
    drop(snapshot);
    opened.close()?;
    Ok(digest)
}

/// A backend whose writes are timed.
struct Timed {
    inner: Arc<dyn Backend>,
    taken: Mutex<Taken>,
}

impl Timed {
    fn time(&self, operations: u64, bytes: u64, call: impl FnOnce() -> BackendResult<()>) -> BackendResult<()> {
        let start = Instant::now();
        let result = call();
        let mut taken = self.taken.lock();
        taken.busy += start.elapsed();
        taken.operations += operations;
        taken.bytes += bytes;
        result
    }
}

impl Backend for Timed {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.inner.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        self.inner.get_many(family, keys)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.inner.scan(family, scan)
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        let (operations, bytes) = (batch.ops.len() as u64, batch.byte_len() as u64);
        self.time(operations, bytes, || self.inner.write(batch, sync))
    }

    fn sync(&self) -> BackendResult<()> {
        self.time(0, 0, || self.inner.sync())
    }

    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.inner.usage()
    }

    fn close(&self) -> BackendResult<()> {
        self.inner.close()
    }
}
