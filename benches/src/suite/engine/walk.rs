//! A walk through a whole history, every commit once, by commit date: govc in process, beside `git rev-list --all --count`
//! with a commit-graph, whose start is counted (some 2 ms). Both have been there before: the second walk of each counts.

use std::time::Instant;

use govc_engine::{Kind, Snapshot};

use super::{SUITE, create, load::load, open};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::history::History;
use crate::report::{Row, median};

const WALKS: u32 = 10;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    bench.histories.iter().map(|history| walk(bench, history)).collect()
}

fn walk(bench: &Bench, history: &History) -> Result<Row> {
    progress(&format!("engine, walk of {}", history.name));
    let store = open()?;
    let repo = create(&store, "walked")?;
    load(bench, history, &repo)?;
    let snapshot = repo.snapshot();
    let folder = bench.fresh_folder()?;
    let copy = folder.path().join("copy.git");
    let mut command = bench.git.command(folder.path());
    command.args(["clone", "--quiet", "--mirror", "--local"]).arg(&history.path).arg(&copy);
    crate::git::finish(command)?;
    bench.git.run(&copy, ["commit-graph", "write", "--reachable"])?;
    let (mut ours, mut peers, mut verified) = (Vec::new(), Vec::new(), true);
    let mut commits = 0;
    for number in 0..=bench.runs * WALKS {
        let start = Instant::now();
        commits = count(&snapshot)?;
        let seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let lines = bench.git.lines(&copy, ["rev-list", "--all", "--count"])?;
        let peer_seconds = start.elapsed().as_secs_f64();
        verified &= lines.concat().trim() == commits.to_string();
        if number > 0 {
            ours.push(commits as f64 / seconds);
            peers.push(commits as f64 / peer_seconds);
        }
    }
    let row = Row::new(SUITE, format!("walk of {} ({commits} commits)", history.name), "1/s", median(ours));
    Ok(row.beside("git rev-list --all --count, commit-graph", median(peers)).verified(verified))
}

/// Commits that the references reach.
fn count(snapshot: &Snapshot) -> Result<usize> {
    let mut walk = snapshot.walk();
    for (_, oid) in snapshot.references() {
        if let (oid, Kind::Commit) = snapshot.peel(*oid).context(|| "peel".into())? {
            walk.follow(oid).context(|| "walk".into())?;
        }
    }
    let mut last = i64::MAX;
    let mut count = 0;
    for commit in walk {
        let (_, links) = commit.context(|| "walk".into())?;
        last = last.min(links.seconds);
        count += 1;
    }
    if count > 0 && last == i64::MAX { Err(Error::new("commits without a date")) } else { Ok(count) }
}
