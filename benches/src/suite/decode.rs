//! How fast does what compaction stored come back? Every object of the store once, in the order in which it is stored; and
//! single objects at the end of a chain of fifty deltas, with nothing in memory but what little a cache of megabytes kept.
//!
//! The peer of the latter is libgit2, in process as well, with objects at the same depth of the pack that
//! `git gc --aggressive` made. Rates are of one thread and without hashing; that the objects are right is shown by who
//! calls.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use govc_backends::{RocksBackend, RocksOptions};
use govc_engine::{Oid, Place, RepoName, Snapshot, Store, StoreOptions};

use crate::bench::Bench;
use crate::error::{Context, Error, Result};
use crate::report::median;

/// The deltas of a chain that compaction and git make at most.
const DEPTH: u32 = 50;
const MEMORY_BYTES: u64 = 1 << 30;
/// The least that a store can be given.
const LITTLE_MEMORY_BYTES: u64 = 16 << 20;
/// Objects that are read one by one.
const SAMPLES: usize = 200;

/// What reading gave.
pub(super) struct Decoded {
    /// Bytes of objects a second, every object once.
    pub(super) bytes_per_second: f64,
    /// The median for an object behind [`DEPTH`] deltas, in microseconds.
    pub(super) deep_micros: f64,
}

/// Reads the history that a stopped server holds.
pub(super) fn ours(data: &Path, name: &str) -> Result<Decoded> {
    let store = open(data, MEMORY_BYTES)?;
    let (bytes_per_second, deep) = {
        let repo = store.repo(&repo_name(name)?).context(|| format!("there is no repository {name}"))?;
        let oids = repo.stored_ids().context(|| "cannot list what is stored".into())?;
        let snapshot = repo.snapshot();
        let places = snapshot.locate(&oids).context(|| "cannot locate what is stored".into())?;
        let mut placed: Vec<(Place, Oid)> = places.into_iter().flatten().zip(oids.iter().copied()).collect();
        if placed.len() != oids.len() {
            return Err(Error::new("something that is stored is nowhere"));
        }
        placed.sort_unstable_by_key(|(place, _)| *place);
        let start = Instant::now();
        let mut bytes = 0;
        for (_, oid) in &placed {
            bytes += snapshot.object(oid).context(|| "cannot read an object".into())?.data.len();
        }
        (bytes as f64 / start.elapsed().as_secs_f64(), spread(deepest(&snapshot, &placed)?))
    };
    store.close().context(|| "cannot close the store".into())?;
    let store = open(data, LITTLE_MEMORY_BYTES)?;
    let repo = store.repo(&repo_name(name)?).context(|| format!("there is no repository {name}"))?;
    let snapshot = repo.snapshot();
    let mut micros = Vec::new();
    for oid in &deep {
        let start = Instant::now();
        snapshot.object(oid).context(|| "cannot read an object".into())?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop((snapshot, repo));
    store.close().context(|| "cannot close the store".into())?;
    Ok(Decoded { bytes_per_second, deep_micros: median(micros) })
}

/// The median for an object behind [`DEPTH`] deltas of git's, in microseconds; `None` if there is none.
pub(super) fn theirs(bench: &Bench, repository: &Path) -> Result<Option<f64>> {
    let mut command = bench.git.command(repository);
    let packs = repository.join("objects/pack");
    let entries = std::fs::read_dir(&packs).context(|| format!("cannot list {}", packs.display()))?;
    let indexes = entries.filter_map(|entry| Some(entry.ok()?.path()));
    command.args(["verify-pack", "-v"]).args(indexes.filter(|path| path.extension().is_some_and(|kind| kind == "idx")));
    let output = command.output().context(|| "cannot run git verify-pack".into())?;
    // Of a delta: id, kind, size, size in the pack, offset, depth, base.
    let deep = String::from_utf8_lossy(&output.stdout);
    let deep = deep.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        (columns.len() == 7 && columns[5].parse() == Ok(DEPTH)).then(|| columns[0].to_owned())
    });
    let deep = spread(deep.collect());
    let repository = git2::Repository::open_bare(repository).context(|| "libgit2 cannot open a repository".into())?;
    let odb = repository.odb().context(|| "libgit2 cannot open a repository".into())?;
    let mut micros = Vec::new();
    for id in &deep {
        let oid = git2::Oid::from_str(id).context(|| format!("{id} is no id"))?;
        let start = Instant::now();
        odb.read(oid).context(|| format!("libgit2 cannot read {id}"))?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok((!micros.is_empty()).then(|| median(micros)))
}

/// Objects behind as many deltas as any has.
fn deepest(snapshot: &Snapshot, placed: &[(Place, Oid)]) -> Result<Vec<Oid>> {
    let mut depths: HashMap<Place, u32> = HashMap::new();
    let mut deep = Vec::new();
    for (place, oid) in placed {
        let mut chain = vec![*place];
        let base_depth = loop {
            let Some(at) = chain.last().copied() else { break 0 };
            if let Some(depth) = depths.get(&at) {
                chain.pop();
                break *depth;
            }
            match snapshot.record(at).context(|| "cannot read a record".into())?.base {
                Some(base) => chain.push(base),
                None => {
                    depths.insert(at, 0);
                    chain.pop();
                    break 0;
                }
            }
        };
        for (above, at) in chain.into_iter().rev().enumerate() {
            depths.insert(at, base_depth + 1 + above as u32);
        }
        if depths.get(place) == Some(&DEPTH) {
            deep.push(*oid);
        }
    }
    Ok(deep)
}

/// [`SAMPLES`] of them, from the whole range, far from one another.
fn spread<T>(all: Vec<T>) -> Vec<T> {
    let step = (all.len() / SAMPLES).max(1);
    all.into_iter().step_by(step).take(SAMPLES).collect()
}

fn open(data: &Path, memory_budget_bytes: u64) -> Result<Store> {
    let backend = RocksBackend::open(data.join("rocksdb"), RocksOptions::default());
    let backend = backend.context(|| "cannot open RocksDB".into())?;
    let options = StoreOptions { memory_budget_bytes, ..StoreOptions::default() };
    Store::open(Arc::new(backend), options).context(|| "cannot open the store".into())
}

fn repo_name(name: &str) -> Result<RepoName> {
    RepoName::new(name).context(|| "a name".into())
}
