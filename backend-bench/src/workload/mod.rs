//! The workloads, one noun a file, in the order in which they run; each empties the backend first.

mod commits;
mod groups;
mod import;
mod mixed;
mod objects;
mod open;
mod reads;
mod wrapper;
mod writes;

use std::sync::Arc;

use bytes::Bytes;
use govc_engine::backend::{Backend, Family, Scan};

use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::measure::Digest;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Row;
use crate::subject::{Bench, Survival};

/// A piece of work, which gives one row or several.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Context<'_, '_>) -> Result<Vec<Row>>,
}

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload { name: "writes", run: writes::run },
    Workload { name: "commits", run: commits::run },
    Workload { name: "groups", run: groups::run },
    Workload { name: "import", run: import::run },
    Workload { name: "reads", run: reads::run },
    Workload { name: "objects", run: objects::run },
    Workload { name: "mixed", run: mixed::run },
    Workload { name: "opening", run: open::run },
    Workload { name: "wrapper", run: wrapper::run },
];

/// Which rows are to be read beside which: what the engine does beside the backend alone, with the same records in the
/// same run.
pub(crate) const BESIDE: &[(&str, &str)] = &[
    ("commit-alone", "raw-write-alone"),
    ("commit-together", "raw-write-together"),
    ("raw-group-64", "raw-rows-64"),
    ("group-64", "raw-group-64"),
    ("raw-group-512", "raw-rows-512"),
    ("group-512", "raw-group-512"),
    ("import-storage", "raw-import"),
    ("raw-get-block-cold", "raw-get-block"),
    ("mixed", "raw-mixed"),
    ("mixed-writes", "raw-mixed-writes"),
    ("open", "raw-open"),
    ("wrapper-get", "wrapper-get-without"),
    ("wrapper-write", "wrapper-write-without"),
];

/// What a workload has.
pub(crate) struct Context<'a, 'b> {
    pub(crate) plan: &'a Plan,
    pub(crate) inputs: &'a Inputs,
    pub(crate) bench: &'a mut Bench<'b>,
    pub(crate) progress: &'a mut dyn Progress,
}

/// How the entries of a backend were compared.
const EVERY_ENTRY: &str = "every entry, after reopening";
/// How the objects of a store were compared.
const EVERY_OBJECT: &str = "every object by id, after reopening";

impl Context<'_, '_> {
    /// The numbers of the repetitions, each shown as it begins.
    pub(crate) fn repetitions(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.plan.amounts.repetitions
    }

    pub(crate) fn show(&mut self, work: &str, repetition: usize) {
        let of = self.plan.amounts.repetitions;
        self.progress.detail(&format!("{work}, {repetition} of {of}"));
    }

    /// What is promised of a write that was synced before it counted.
    pub(crate) fn synced_each(&self) -> &'static str {
        match self.bench.subject.survival() {
            Survival::Nothing => "memory only",
            Survival::Process => "each synced, process only",
            Survival::Machine => "each synced",
        }
    }

    /// What is promised of writes that one sync in the end made durable, which counts.
    pub(crate) fn synced_once(&self) -> &'static str {
        match self.bench.subject.survival() {
            Survival::Nothing => "memory only",
            Survival::Process => "synced once, process only",
            Survival::Machine => "synced once in the end",
        }
    }

    /// An empty backend, loaded with what the engine writes when the history is imported.
    pub(crate) fn loaded(&mut self) -> Result<Arc<dyn Backend>> {
        self.progress.detail("loading the history");
        let backend = self.bench.fresh()?;
        for (batch, sync) in &self.inputs.import.batches {
            self.plan.stop.check()?;
            backend.write(batch.clone(), *sync)?;
        }
        backend.sync()?;
        Ok(backend)
    }
}

/// Compares all entries of a family with those that must be there, which come in key order.
pub(crate) fn compare<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    backend: &dyn Backend,
    family: Family,
    mut expected: impl Iterator<Item = Result<(K, V)>>,
) -> Result<Digest> {
    let mut digest = Digest::default();
    let place = |key: &[u8]| format!("{} {}", family.name(), key.escape_ascii());
    for entry in backend.scan(family, Scan::all())? {
        let (key, value) = entry?;
        let Some(wanted) = expected.next() else {
            return Err(Error::wrong(format!("the entry {} was never written", place(&key))));
        };
        let (wanted_key, wanted_value) = wanted?;
        if key != wanted_key.as_ref() {
            let message = format!("the entry {} is not there, {} is", place(wanted_key.as_ref()), place(&key));
            return Err(Error::wrong(message));
        }
        if value != wanted_value.as_ref() {
            return Err(Error::wrong(format!("the value of {} is not what was written", place(&key))));
        }
        digest.add(&[family.name().as_bytes(), &key, &value]);
    }
    match expected.next() {
        None => Ok(digest),
        Some(wanted) => Err(Error::wrong(format!("the entry {} is not there", place(wanted?.0.as_ref())))),
    }
}

/// Checks one value that was read.
pub(crate) fn check_value(found: Option<&Bytes>, wanted: &[u8], what: &dyn std::fmt::Display) -> Result<()> {
    match found {
        Some(found) if found == wanted => Ok(()),
        Some(_) => Err(Error::wrong(format!("{what} is not what was written"))),
        None => Err(Error::wrong(format!("{what} is not there"))),
    }
}

/// The results of threads, whose panics become errors.
pub(crate) fn joined<T>(joined: std::thread::Result<Result<T>>) -> Result<T> {
    joined.unwrap_or_else(|_| Err(Error::wrong("a thread of the benchmark panicked")))
}
