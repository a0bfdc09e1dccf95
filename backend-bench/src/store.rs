//! The engine as the workloads use it: a store with a clock that stands still, so that equal work leaves equal bytes.

use std::ops::Range;
use std::sync::Arc;

use govc_engine::block::{Base, Location};
use govc_engine::{
    Backend, Cause, Change, CommitRequest, ErrorKind, Expected, Oid, RefEdit, RefName, Repo, RepoName, RepoSettings,
    Signature, Store, StoreOptions,
};

use crate::error::Result;
use crate::inputs::History;
use crate::plan::Stop;

/// Memory of a store, unless a workload is about little of it.
pub(crate) const MEMORY_BYTES: u64 = 512 << 20;
/// The least that a store takes; what it must read then comes from the backend.
pub(crate) const LITTLE_MEMORY_BYTES: u64 = 16 << 20;

const MILLIS: i64 = 1_700_000_000_000;
const HISTORY: &str = "bench/history";

pub(crate) fn open(backend: Arc<dyn Backend>, memory_budget_bytes: u64) -> Result<Store> {
    let clock = Arc::new(|| MILLIS);
    Ok(Store::open(backend, StoreOptions { memory_budget_bytes, clock, ..StoreOptions::default() })?)
}

/// A durable repository of this name, made if it is not there.
pub(crate) fn repo(store: &Store, name: &str) -> Result<Repo> {
    let name = RepoName::new(name)?;
    match store.repo(&name) {
        Err(error) if *error.kind() == ErrorKind::NotFound => {
            Ok(store.create(&name, RepoSettings::default(), "bench")?)
        }
        other => Ok(other?),
    }
}

/// The repository that [`import`] fills.
pub(crate) fn imported(store: &Store) -> Result<Repo> {
    Ok(store.repo(&RepoName::new(HISTORY)?)?)
}

pub(crate) fn branch(name: &str) -> Result<RefName> {
    Ok(RefName::branch(name)?)
}

/// A commit of these files on a branch, which begins at `from` if it is not there.
pub(crate) fn request(branch: &RefName, files: Vec<(String, String)>, from: Option<Oid>) -> Result<CommitRequest> {
    let person = Signature::new("Bench", "bench@example.com", MILLIS / 1000, 0)?;
    let changes = files.into_iter().map(|(path, text)| Change::put(path, text)).collect();
    let request = CommitRequest::new(branch.clone(), "change", person, changes);
    Ok(CommitRequest { allow_empty: true, create_branch_from: from, ..request })
}

/// Stores a history as a push of it would, and waits until it is durable. Gives the objects of each block.
pub(crate) fn import(store: &Store, history: &History, stop: &Stop) -> Result<Vec<Range<usize>>> {
    let repo = repo(store, HISTORY)?;
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let mut blocks: Vec<Range<usize>> = Vec::new();
    let mut block = None;
    let mut locations: Vec<Location> = Vec::with_capacity(history.objects.len());
    for (at, object) in history.objects.iter().enumerate() {
        stop.check()?;
        let base = match object.base {
            None => Base::Whole,
            Some(base) => Base::Near { block: locations[base].block, slot: locations[base].slot },
        };
        let location = lane.add(object.oid, object.kind, object.size, base, &object.body)?;
        locations.push(location);
        match blocks.last_mut() {
            Some(last) if block == Some(location.block) => last.end = at + 1,
            _ => blocks.push(at..at + 1),
        }
        block = Some(location.block);
    }
    lane.finish()?;
    let mut transaction = repo.begin("bench", Cause::Import);
    transaction.attach(ingest.finish()?)?;
    transaction.edit(RefEdit { name: branch("main")?, expected: Expected::Absent, target: Some(history.head) })?;
    transaction.prepare()?.publish()?.ticket.wait()?;
    Ok(blocks)
}
