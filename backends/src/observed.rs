//! A wrapper that counts and times what a backend is asked, by family.
//!
//! Counters are atomics that order nothing: a reader of [`ObservedBackend::figures`] may see one call's count without its
//! time. Two looks at the clock cost as much as a twentieth of a read that a cache answers, so of [`Backend::get`] each
//! eighth call is timed, and the seven after it count as having taken as long: calls are counted exactly, times are a sample.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use govc_engine::backend::{Backend, BackendResult, Batch, Description, Entries, Family, Op, Scan, Sync, Usage};

/// Upper bounds of the classes in which calls are timed, in microseconds; the last class has none.
pub const BOUNDS_MICROS: [u64; 12] = [5, 20, 50, 100, 250, 500, 1_000, 5_000, 20_000, 100_000, 1_000_000, 10_000_000];

/// Of so many single reads of a family one is timed.
const READS_TIMED_OF: u64 = 8;

/// What a backend is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Call {
    /// [`Backend::get`].
    Get,
    /// [`Backend::get_many`].
    GetMany,
    /// [`Backend::scan`], up to and with its first entry.
    Scan,
    /// [`Backend::write`] with [`Sync::No`].
    Write,
    /// [`Backend::write`] with [`Sync::Yes`].
    WriteSynced,
    /// [`Backend::sync`].
    Sync,
}

impl Call {
    /// All calls.
    pub const ALL: [Call; 6] = [Call::Get, Call::GetMany, Call::Scan, Call::Write, Call::WriteSynced, Call::Sync];

    /// The call's word.
    pub fn name(self) -> &'static str {
        match self {
            Call::Get => "get",
            Call::GetMany => "get_many",
            Call::Scan => "scan",
            Call::Write => "write",
            Call::WriteSynced => "write_synced",
            Call::Sync => "sync",
        }
    }
}

/// What was read and written in one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FamilyFigures {
    /// Keys that were asked for by themselves or with others.
    pub keys_read: u64,
    /// Those of them that were not there.
    pub keys_missed: u64,
    /// Bytes of the values that were there.
    pub bytes_read: u64,
    /// Scans.
    pub scans: u64,
    /// Entries that scans gave.
    pub entries_scanned: u64,
    /// Bytes of their keys and values.
    pub bytes_scanned: u64,
    /// Keys that were set.
    pub keys_written: u64,
    /// Bytes of their keys and values.
    pub bytes_written: u64,
    /// Keys and ranges that were removed.
    pub removals: u64,
}

/// How long calls of one kind took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFigures {
    /// How many there were, failed ones too.
    pub calls: u64,
    /// How many failed, those refused for a precondition too.
    pub errors: u64,
    /// Their times together; of [`Call::Get`] from a sample.
    pub total: Duration,
    /// How many took no longer than each of [`BOUNDS_MICROS`] and longer than the one before; the last longer than all.
    pub classes: [u64; BOUNDS_MICROS.len() + 1],
}

/// All figures since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// By family, in the order of [`Family::ALL`].
    pub families: Vec<(Family, FamilyFigures)>,
    /// By call, in the order of [`Call::ALL`]; closing and describing are not counted.
    pub calls: Vec<(Call, CallFigures)>,
}

/// A [`Backend`] that counts and times another one's work.
pub struct ObservedBackend {
    inner: Arc<dyn Backend>,
    families: [FamilyCounters; Family::ALL.len()],
    calls: [CallCounters; Call::ALL.len()],
}

#[derive(Default)]
struct FamilyCounters {
    /// Calls of `get`, which choose those to be timed.
    gets: AtomicU64,
    /// What the last of them that was timed took, in nanoseconds.
    last_get: AtomicU64,
    keys_read: AtomicU64,
    keys_missed: AtomicU64,
    bytes_read: AtomicU64,
    scans: AtomicU64,
    entries_scanned: AtomicU64,
    bytes_scanned: AtomicU64,
    keys_written: AtomicU64,
    bytes_written: AtomicU64,
    removals: AtomicU64,
}

#[derive(Default)]
struct CallCounters {
    errors: AtomicU64,
    nanos: AtomicU64,
    classes: [AtomicU64; BOUNDS_MICROS.len() + 1],
}

fn nanos_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, more: usize) {
    if more > 0 {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }
}

impl ObservedBackend {
    /// Counts what `inner` is asked from now on.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, families: Default::default(), calls: Default::default() }
    }

    /// What has been counted so far.
    pub fn figures(&self) -> Figures {
        Figures {
            families: Family::ALL.iter().map(|&family| (family, self.family(family).figures())).collect(),
            calls: Call::ALL.iter().map(|&call| (call, self.calls[call as usize].figures())).collect(),
        }
    }

    fn family(&self, family: Family) -> &FamilyCounters {
        &self.families[family as usize]
    }

    fn timed<T>(&self, call: Call, work: impl FnOnce() -> BackendResult<T>) -> BackendResult<T> {
        let begin = Instant::now();
        let result = work();
        self.calls[call as usize].count(nanos_since(begin), result.is_err());
        result
    }
}

impl FamilyCounters {
    fn count_value(&self, value: Option<&Bytes>) {
        match value {
            Some(value) => add(&self.bytes_read, value.len()),
            None => add(&self.keys_missed, 1),
        }
    }

    fn count_scanned(&self, entries: usize, bytes: usize) {
        add(&self.entries_scanned, entries);
        add(&self.bytes_scanned, bytes);
    }

    fn figures(&self) -> FamilyFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FamilyFigures {
            keys_read: read(&self.keys_read),
            keys_missed: read(&self.keys_missed),
            bytes_read: read(&self.bytes_read),
            scans: read(&self.scans),
            entries_scanned: read(&self.entries_scanned),
            bytes_scanned: read(&self.bytes_scanned),
            keys_written: read(&self.keys_written),
            bytes_written: read(&self.bytes_written),
            removals: read(&self.removals),
        }
    }
}

impl CallCounters {
    fn count(&self, nanos: u64, failed: bool) {
        let class = BOUNDS_MICROS.partition_point(|bound| bound * 1000 < nanos);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        add(&self.errors, usize::from(failed));
    }

    fn figures(&self) -> CallFigures {
        let classes = std::array::from_fn(|at| self.classes[at].load(Ordering::Relaxed));
        CallFigures {
            calls: classes.iter().sum(),
            errors: self.errors.load(Ordering::Relaxed),
            total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
            classes,
        }
    }
}

/// What a batch did to each family, told once it is written.
#[derive(Default, Clone, Copy)]
struct Written {
    keys: usize,
    bytes: usize,
    removals: usize,
}

fn written(batch: &Batch) -> [Written; Family::ALL.len()] {
    let mut families = [Written::default(); Family::ALL.len()];
    for op in &batch.ops {
        match op {
            Op::Put { family, key, value } => {
                let family = &mut families[*family as usize];
                family.keys += 1;
                family.bytes += key.len() + value.len();
            }
            Op::Delete { family, .. } | Op::DeleteRange { family, .. } => families[*family as usize].removals += 1,
        }
    }
    families
}

/// Entries on their way through, told when they are dropped.
struct Counted<'a> {
    first: Option<BackendResult<(Bytes, Bytes)>>,
    rest: Entries<'a>,
    family: &'a FamilyCounters,
    entries: usize,
    bytes: usize,
}

impl Iterator for Counted<'_> {
    type Item = BackendResult<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.first.take().or_else(|| self.rest.next());
        if let Some(Ok((key, value))) = &entry {
            self.entries += 1;
            self.bytes += key.len() + value.len();
        }
        entry
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.family.count_scanned(self.entries, self.bytes);
    }
}

impl Backend for ObservedBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        let counters = self.family(family);
        let value = if counters.gets.fetch_add(1, Ordering::Relaxed).is_multiple_of(READS_TIMED_OF) {
            let begin = Instant::now();
            let value = self.inner.get(family, key);
            counters.last_get.store(nanos_since(begin), Ordering::Relaxed);
            value
        } else {
            self.inner.get(family, key)
        };
        self.calls[Call::Get as usize].count(counters.last_get.load(Ordering::Relaxed), value.is_err());
        let value = value?;
        add(&counters.keys_read, 1);
        counters.count_value(value.as_ref());
        Ok(value)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        let values = self.timed(Call::GetMany, || self.inner.get_many(family, keys))?;
        let counters = self.family(family);
        add(&counters.keys_read, values.len());
        values.iter().for_each(|value| counters.count_value(value.as_ref()));
        Ok(values)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        let (first, rest) = self.timed(Call::Scan, || {
            let mut rest = self.inner.scan(family, scan)?;
            Ok((rest.next(), rest))
        })?;
        let family = self.family(family);
        add(&family.scans, 1);
        Ok(Box::new(Counted { first, rest, family, entries: 0, bytes: 0 }))
    }

    fn write(&self, batch: Batch, sync: Sync) -> BackendResult<()> {
        let families = written(&batch);
        let call = if sync == Sync::Yes { Call::WriteSynced } else { Call::Write };
        self.timed(call, || self.inner.write(batch, sync))?;
        for (family, written) in self.families.iter().zip(families) {
            add(&family.keys_written, written.keys);
            add(&family.bytes_written, written.bytes);
            add(&family.removals, written.removals);
        }
        Ok(())
    }

    fn sync(&self) -> BackendResult<()> {
        self.timed(Call::Sync, || self.inner.sync())
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
