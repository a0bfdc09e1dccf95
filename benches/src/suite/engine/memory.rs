//! How much memory does a repository, a fork, a reality take when nobody uses it? What the process's resident memory
//! grows by, for many of them; they stay until all are measured, for memory that is freed would be used again unseen.

use std::time::Duration;

use govc_engine::{NewRealities, RefName, RepoName, Store};

use super::{SUITE, branch, commits::SHAPES, create, open, request};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::random::Random;
use crate::report::{Row, median};

const MANY: usize = 20_000;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut kept = Vec::new();
    let rows = [
        row(bench, "repository", &mut kept, repositories)?,
        row(bench, "fork", &mut kept, forks)?,
        row(bench, "reality", &mut kept, realities)?,
    ];
    Ok(rows.into())
}

fn row(bench: &Bench, kind: &str, kept: &mut Vec<Store>, measure: impl Fn(&Store) -> Result<f64>) -> Result<Row> {
    progress(&format!("engine, memory of a {kind}"));
    let mut bytes = Vec::new();
    for _ in 0..bench.runs {
        let store = open()?;
        bytes.push(measure(&store)?);
        kept.push(store);
    }
    let verified = bytes.iter().all(|bytes| *bytes > 0.0);
    let work = format!("memory of an idle {kind}, one of {MANY}");
    Ok(Row::new(SUITE, work, "bytes", median(bytes)).durability("memory").verified(verified))
}

/// Bytes of the process that are in memory.
fn resident() -> Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").context(|| "cannot read /proc/self/statm".into())?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.map(|pages| pages * 4096.0).ok_or_else(|| Error::new("/proc/self/statm has no resident pages"))
}

/// What one of [`MANY`] takes that `make` makes, beside the first thousand.
fn each(mut make: impl FnMut(std::ops::Range<usize>) -> Result<()>) -> Result<f64> {
    make(0..1000)?;
    let before = resident()?;
    make(1000..1000 + MANY)?;
    Ok((resident()? - before).max(0.0) / MANY as f64)
}

fn repositories(store: &Store) -> Result<f64> {
    each(|mut range| range.try_for_each(|at| create(store, &format!("repository-{at}")).map(drop)))
}

fn forks(store: &Store) -> Result<f64> {
    let source = create(store, "source")?;
    let mut random = Random::new(1);
    source.commit(request(&branch("main")?, SHAPES[0].all(&mut random), None)?).context(|| "commit".into())?;
    let fork = |at: usize| {
        let name = RepoName::new(&format!("fork-{at}")).context(|| "a name".into())?;
        store.fork(&source.name(), &name, "bench").context(|| "fork".into()).map(drop)
    };
    each(|mut range| range.try_for_each(fork))
}

fn realities(store: &Store) -> Result<f64> {
    let repo = create(store, "realities")?;
    let mut random = Random::new(1);
    let first = repo.commit(request(&branch("main")?, SHAPES[0].all(&mut random), None)?);
    let first = first.context(|| "commit".into())?;
    each(|range| {
        let name = |at| RefName::reality(&format!("agent/{at:06}")).context(|| "a name".into());
        let new = NewRealities {
            names: range.map(name).collect::<Result<_>>()?,
            base: first.oid,
            version: first.published.version,
            from: None,
            ttl: Some(Duration::from_secs(3600)),
            actor: "bench".into(),
        };
        repo.create_realities(new).context(|| "realities".into()).map(drop)
    })
}
