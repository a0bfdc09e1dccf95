//! Commits through the engine, durable, each answered before the writer makes its next: one writer alone, then all
//! writers of the profile at once, each on a branch of its own (the commit storm).

use std::collections::BTreeMap;
use std::time::Instant;

use govc_engine::{Oid, RefName, Repo, Snapshot};

use super::{Context, joined};
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::measure::{Digest, Latencies, Pace, Taken};
use crate::plan::{Shape, Stop};
use crate::report::{Layer, Row};
use crate::store;

/// How branches were compared.
pub(super) const EVERY_BRANCH: &str = "every branch, its history and changed files, after reopening";

pub(super) fn run(context: &mut Context<'_, '_>) -> Result<Vec<Row>> {
    let Shape { writers, repositories, files, changed, .. } = context.inputs.shape;
    let what = format!("durable commits of {changed} of {files} files");
    let alone = measure(context, "commit-alone", format!("{what}, 1 writer"), (1, 1))?;
    let work = format!("{what}, {writers} writers in {repositories} repositories");
    let together = measure(context, "commit-together", work, (writers, repositories))?;
    Ok(vec![alone, together])
}

/// A writer, which commits to its own branch, and what it did.
pub(super) struct Writer<'a> {
    inputs: &'a Inputs,
    number: usize,
    branch: RefName,
    base: Oid,
    head: Oid,
    commits: u64,
    /// The last text of each file that it changed.
    files: BTreeMap<String, String>,
}

impl<'a> Writer<'a> {
    /// A writer whose branch will begin at `base`.
    pub(super) fn new(inputs: &'a Inputs, number: usize, base: Oid) -> Result<Self> {
        let branch = store::branch(&format!("agent-{number}"))?;
        Ok(Self { inputs, number, branch, base, head: base, commits: 0, files: BTreeMap::new() })
    }

    /// Makes the next commit and waits until it is durable.
    pub(super) fn commit(&mut self, repo: &Repo, taken: &mut Taken, latencies: &mut Latencies) -> Result<()> {
        let changes = self.changes();
        taken.bytes += changes.iter().map(|(_, text)| text.len() as u64).sum::<u64>();
        let request = store::request(&self.branch, changes.clone(), Some(self.base))?;
        self.head = taken.time(Some(latencies), || -> govc_engine::Result<Oid> {
            let made = repo.commit(request)?;
            made.published.ticket.wait()?;
            Ok(made.oid)
        })?;
        taken.operations += 1;
        self.commits += 1;
        self.files.extend(changes);
        Ok(())
    }

    /// The files of the next commit.
    fn changes(&self) -> Vec<(String, String)> {
        let (shape, number) = (self.inputs.shape, (self.number as u64 + 1) << 40 | self.commits << 8);
        let first = (self.commits as usize * 31 + self.number) % shape.files;
        // A stride without a common factor visits different files.
        let path = |at: usize| path_of(shape, (first + at * 7) % shape.files);
        (0..shape.changed).map(|at| (path(at), self.inputs.file(number | at as u64))).collect()
    }

    /// Compares the branch, its history and its files with what was answered.
    pub(super) fn verify(&self, snapshot: &Snapshot, stop: &Stop, digest: &mut Digest) -> Result<()> {
        let branch = &self.branch;
        if self.commits > 0 && snapshot.reference(branch) != Some(self.head) {
            return Err(Error::wrong(format!("branch {branch} is not at its last commit")));
        }
        let (mut at, mut commits) = (self.head, 0);
        while at != self.base {
            stop.check()?;
            let parent = snapshot.commit(&at)?.parents.first().copied();
            at = parent.ok_or_else(|| Error::wrong(format!("the history of {branch} does not reach its base")))?;
            commits += 1;
        }
        if commits != self.commits {
            let answered = self.commits;
            return Err(Error::wrong(format!("branch {branch} has {commits} commits, {answered} were answered")));
        }
        for (path, text) in &self.files {
            let entry = snapshot.entry(self.head, path.as_bytes())?;
            let entry = entry.ok_or_else(|| Error::wrong(format!("{path} of {branch} is not there")))?;
            if snapshot.object(&entry.oid)?.data != text.as_bytes() {
                return Err(Error::wrong(format!("{path} of {branch} is not what was committed")));
            }
        }
        // A commit's id covers everything below it.
        digest.add(&[branch.as_bytes(), self.head.as_bytes()]);
        Ok(())
    }
}

fn measure(
    context: &mut Context<'_, '_>,
    id: &str,
    work: String,
    (writers, repositories): (usize, usize),
) -> Result<Row> {
    let inputs = context.inputs;
    let (mut all, mut latencies, mut digest) = (Vec::new(), Latencies::new()?, Digest::default());
    for repetition in context.repetitions() {
        context.show(&work, repetition);
        let opened = store::open(context.bench.fresh()?, store::MEMORY_BYTES)?;
        let mut repos = Vec::new();
        for number in 0..repositories {
            let repo = store::repo(&opened, &name_of(number))?;
            let base = first_commit(inputs, &repo)?;
            repos.push((repo, base));
        }
        let pace = Pace::of(context.plan, 2).shared(writers);
        let start = Instant::now();
        let done = std::thread::scope(|scope| {
            let threads = (0..writers).map(|number| {
                let (pace, (repo, base)) = (&pace, &repos[number % repositories]);
                scope.spawn(move || {
                    let mut writer = Writer::new(inputs, number, *base)?;
                    let (mut taken, mut latencies) = (Taken::default(), Latencies::new()?);
                    while pace.goes_on(&taken)? {
                        writer.commit(repo, &mut taken, &mut latencies)?;
                    }
                    Ok((writer, taken, latencies))
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| joined(thread.join())).collect::<Result<Vec<_>>>()
        })?;
        let elapsed = start.elapsed();
        let operations = done.iter().map(|(_, taken, _)| taken.operations).sum();
        let busy = if writers == 1 { done.iter().map(|(_, taken, _)| taken.busy).sum() } else { elapsed };
        all.push(Taken { operations, busy, ..Taken::default() });
        done.iter().for_each(|(_, _, its)| latencies.add(its));
        drop(repos);
        opened.close()?;
        drop(opened);
        context.progress.detail("verifying");
        let opened = store::open(context.bench.reopen()?, store::MEMORY_BYTES)?;
        digest = Digest::default();
        for (writer, _, _) in &done {
            let snapshot = store::repo(&opened, &name_of(writer.number % repositories))?.snapshot();
            writer.verify(&snapshot, &context.plan.stop, &mut digest)?;
        }
        opened.close()?;
    }
    let row = Row::rate(id, Layer::Engine, work, "1/s", &all).latency(&latencies).durability(context.synced_each());
    Ok(row.verified(EVERY_BRANCH, digest))
}

fn name_of(repository: usize) -> String {
    format!("bench/agents-{repository}")
}

fn path_of(shape: Shape, file: usize) -> String {
    format!("part{:02}/file{:04}.c", file % shape.folders, file / shape.folders)
}

/// All files, on a branch of their own.
pub(super) fn first_commit(inputs: &Inputs, repo: &Repo) -> Result<Oid> {
    let files = (0..inputs.shape.files).map(|file| (path_of(inputs.shape, file), inputs.file(file as u64)));
    let made = repo.commit(store::request(&store::branch("main")?, files.collect(), None)?)?;
    made.published.ticket.wait()?;
    Ok(made.oid)
}
