//! The contract suite on every backend, the suite itself against broken backends, and what each backend promises
//! beyond the contract.

mod broken;
mod fault;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "sqlite")]
mod sqlite;
mod wrappers;

use std::sync::Arc;

use govc_backends::contract::{self, Subject};
use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, Survivors};
use govc_engine::backend::{Backend, Batch, Family, Sync};

/// Memory does not outlive its handle.
struct Memory;

impl Subject for Memory {
    fn open(&mut self) -> Arc<dyn Backend> {
        Arc::new(MemoryBackend::new())
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        None
    }
}

/// Opening again is a crash that keeps as much of the unsynced writes as is drawn.
struct Crashing {
    survivors: fn(u64) -> Survivors,
    lives: u64,
    last: Option<Arc<FaultBackend>>,
}

impl Crashing {
    fn keep(&mut self, backend: FaultBackend) -> Arc<dyn Backend> {
        let backend = Arc::new(backend);
        self.last = Some(Arc::clone(&backend));
        backend
    }
}

impl Subject for Crashing {
    fn open(&mut self) -> Arc<dyn Backend> {
        self.keep(FaultBackend::new(FaultPlan::none()))
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        self.lives += 1;
        let last = self.last.take().expect("opened before");
        let disk = last.crash((self.survivors)(self.lives)).expect("the first crash of this life");
        Some(self.keep(FaultBackend::over(&disk, FaultPlan::none()).expect("an open disk")))
    }
}

#[test]
fn memory_keeps_the_contract() {
    contract::run(&mut Memory);
}

#[test]
fn fault_keeps_the_contract_when_a_crash_loses_all_unsynced_writes() {
    contract::run(&mut Crashing { survivors: |_| Survivors::Synced, lives: 0, last: None });
}

#[test]
fn fault_keeps_the_contract_when_a_crash_loses_some_unsynced_writes() {
    contract::run(&mut Crashing { survivors: Survivors::Drawn, lives: 0, last: None });
}

/// A batch of one put.
fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Refs, key.to_vec(), value.to_vec());
    batch
}

fn get(backend: &dyn Backend, key: &[u8]) -> Option<Vec<u8>> {
    backend.get(Family::Refs, key).expect("get").map(|value| value.to_vec())
}

#[test]
fn a_memory_fork_goes_its_own_way() {
    let one = MemoryBackend::new();
    one.write(put(b"a", b"1"), Sync::No).expect("write");
    let other = one.fork().expect("fork");
    one.write(put(b"a", b"2"), Sync::No).expect("write");
    other.write(put(b"b", b"3"), Sync::No).expect("write");
    assert_eq!((get(&one, b"a"), get(&one, b"b")), (Some(b"2".to_vec()), None));
    assert_eq!((get(&other, b"a"), get(&other, b"b")), (Some(b"1".to_vec()), Some(b"3".to_vec())));
}

#[test]
fn memory_counts_the_bytes_of_each_family() {
    let backend = MemoryBackend::new();
    let refs = |backend: &MemoryBackend| {
        let usage = backend.usage().expect("usage");
        usage.families.into_iter().find(|(family, _)| *family == Family::Refs).map(|(_, bytes)| bytes)
    };
    backend.write(put(b"key", b"0123456789"), Sync::No).expect("write");
    assert_eq!(refs(&backend), Some(13));
    backend.write(put(b"key", b"01"), Sync::No).expect("write");
    backend.write(put(b"other", b""), Sync::No).expect("write");
    assert_eq!(refs(&backend), Some(10));
    let mut batch = Batch::new();
    batch.delete(Family::Refs, b"other".to_vec());
    batch.delete_range(Family::Refs, b"a".to_vec(), b"z".to_vec());
    backend.write(batch, Sync::No).expect("write");
    assert_eq!(refs(&backend), Some(0));
}
