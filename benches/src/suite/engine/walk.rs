//! A walk through a whole history, every commit once, by commit date: govc in process, beside gitoxide in process and
//! `git rev-list --all --count`, whose start is counted (some 2 ms), both with a commit-graph. All have been there before:
//! the first walk of each does not count.

use std::path::{Path, PathBuf};
use std::time::Instant;

use gix_traverse::commit::Simple;
use gix_traverse::commit::simple::{CommitTimeOrder, Sorting};
use govc_engine::{Kind, Oid, Snapshot};

use super::{SUITE, create, load::load, open};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::history::History;
use crate::report::{Row, median};

const WALKS: u32 = 10;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    bench.histories.iter().map(|history| walk(bench, history)).collect::<Result<Vec<_>>>().map(|rows| rows.concat())
}

fn walk(bench: &Bench, history: &History) -> Result<Vec<Row>> {
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
    let gitoxide = Gitoxide::open(&copy)?;
    let (mut ours, mut gitoxides, mut gits, mut verified) = (Vec::new(), Vec::new(), Vec::new(), true);
    let mut commits = 0;
    for number in 0..=bench.runs * WALKS {
        let (count, our_seconds) = timed(|| count(&snapshot, tips(&snapshot)?))?;
        let (gitoxide_count, gitoxide_seconds) = timed(|| gitoxide.count(&snapshot))?;
        let (lines, git_seconds) = timed(|| bench.git.lines(&copy, ["rev-list", "--all", "--count"]))?;
        commits = count;
        verified &= gitoxide_count == commits && lines.concat().trim() == commits.to_string();
        if number > 0 {
            for (rates, seconds) in
                [(&mut ours, our_seconds), (&mut gitoxides, gitoxide_seconds), (&mut gits, git_seconds)]
            {
                rates.push(commits as f64 / seconds);
            }
        }
    }
    let row = Row::new(SUITE, format!("walk of {} ({commits} commits)", history.name), "1/s", median(ours));
    let row = row.verified(verified);
    Ok(vec![
        row.clone().beside("gitoxide, commit-graph", median(gitoxides)),
        row.beside("git rev-list --all --count, commit-graph", median(gits)),
    ])
}

/// What the work gave, and its seconds.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let done = work()?;
    Ok((done, start.elapsed().as_secs_f64()))
}

/// The commits that references name, tags followed.
fn tips(snapshot: &Snapshot) -> Result<Vec<Oid>> {
    let peeled = snapshot.references().map(|(_, oid)| snapshot.peel(*oid).context(|| "peel".into()));
    let commits = peeled.filter_map(|peeled| match peeled {
        Ok((oid, kind)) => (kind == Kind::Commit).then_some(Ok(oid)),
        Err(error) => Some(Err(error)),
    });
    commits.collect()
}

/// gitoxide's object database and commit-graph of a repository.
struct Gitoxide {
    objects: gix_odb::Handle,
    graph: PathBuf,
}

impl Gitoxide {
    fn open(repository: &Path) -> Result<Gitoxide> {
        let objects = repository.join("objects");
        let graph = objects.join("info").join("commit-graph");
        let objects = gix_odb::at(objects, gix_hash::Kind::Sha1).context(|| "gitoxide".into())?;
        Ok(Gitoxide { objects, graph })
    }

    /// Commits that the references reach. The graph is mapped anew, which takes microseconds, because a walk keeps it.
    fn count(&self, snapshot: &Snapshot) -> Result<usize> {
        let graph = gix_commitgraph::at(&self.graph, gix_hash::Kind::Sha1, None);
        let graph = graph.map_err(|error| Error::new(format!("gitoxide: {error}")))?;
        let tips = tips(snapshot)?;
        let tips = tips.iter().map(|oid| gix_hash::ObjectId::from_bytes_or_panic(oid.as_bytes()));
        let walk = Simple::new(tips, &self.objects)
            .commit_graph(Some(graph))
            .sorting(Sorting::ByCommitTime(CommitTimeOrder::NewestFirst));
        let mut walk = walk.map_err(|error| Error::new(format!("gitoxide: {error}")))?;
        walk.try_fold(0, |count, commit| match commit {
            Ok(_) => Ok(count + 1),
            Err(error) => Err(Error::new(format!("gitoxide: {error}"))),
        })
    }
}

/// Commits that these reach, in govc.
pub(super) fn count(snapshot: &Snapshot, tips: impl IntoIterator<Item = Oid>) -> Result<usize> {
    let mut walk = snapshot.walk();
    for oid in tips {
        walk.follow(oid).context(|| "walk".into())?;
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
