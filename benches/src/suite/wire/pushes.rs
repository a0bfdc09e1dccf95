//! Pushes of one commit, raw, from eight clients at once.
//!
//! Durable repositories stand beside a peer that is told to sync everything (`core.fsync=all`): by default git leaves
//! loose objects and references to the operating system. Memory repositories stand beside that default, which the
//! durable ones are shown beside, too.
//!
//! These begin empty. That a push costs no more where a whole history is, rows of each history show, without indexing and
//! compaction of it at the same time.

use std::path::Path;
use std::time::Duration;

use super::{PEER, copy};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::git::{finish, sort_references};
use crate::history::History;
use crate::load::pushes::{self, Load, Outcome};
use crate::peer::GitHttp;
use crate::report::{Row, median};
use crate::server::{ALONE, Govc, NewRepository};
use crate::subject::Subject;

const SUITE: &str = "pushes";
const PUSHERS: usize = 8;

#[derive(Default)]
struct Figures {
    rate: Vec<f64>,
    p99: Vec<f64>,
}

impl Figures {
    fn add(&mut self, outcome: &Outcome) {
        self.rate.push(outcome.rate());
        self.p99.push(outcome.quantile_millis(0.99));
    }
}

pub(in crate::suite) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let git = &bench.git;
    let [mut durable, mut memory, mut synced, mut default] = [(); 4].map(|()| Figures::default());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("pushes of one commit, run {number} of {}", bench.runs));
        let folder = bench.fresh_folder()?;
        let server = Govc::start(&bench.govc, &folder.path().join("data"))?;
        for (durability, figures) in [("durable", &mut durable), ("memory", &mut memory)] {
            server.create(&NewRepository { name: durability, default_branch: "main", durability })?;
            let outcome = push(bench, &server, durability)?;
            verified &= arrived(bench, &server, durability, &outcome, None)?;
            figures.add(&outcome);
        }
        server.stop()?;
        let peer = GitHttp::start(git, &folder.path().join("repositories"))?;
        for (name, figures) in [("synced", &mut synced), ("default", &mut default)] {
            let path = peer.create(git, name)?;
            if name == "synced" {
                git.run(&path, ["config", "core.fsync", "all"])?;
            }
            let outcome = push(bench, &peer, name)?;
            if !arrived(bench, &peer, name, &outcome, None)? {
                return Err(Error::new("the peer lost pushes"));
            }
            figures.add(&outcome);
        }
    }
    let (all, some) = (format!("{PEER}, core.fsync=all"), format!("{PEER}, core.fsync as it comes"));
    let row = |what: &str, unit, durability, ours: &[f64], peer: &str, peers: &[f64]| {
        let work = format!("push of one commit, {PUSHERS} connections, {what}");
        let row = Row::new(SUITE, work, unit, median(ours.to_vec())).beside(peer, median(peers.to_vec()));
        row.durability(durability).verified(verified)
    };
    let mut rows = vec![
        row("rate", "1/s", "durable", &durable.rate, &all, &synced.rate),
        row("p99", "ms", "durable", &durable.p99, &all, &synced.p99),
        row("rate", "1/s", "durable", &durable.rate, &some, &default.rate),
        row("rate", "1/s", "memory", &memory.rate, &some, &default.rate),
        row("p99", "ms", "memory", &memory.p99, &some, &default.p99),
    ];
    for history in &bench.histories {
        rows.extend(into(bench, history)?);
    }
    rows.extend(super::clients::pushers(bench)?);
    Ok(rows)
}

/// Pushes into a repository that has a whole history.
fn into(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    let (git, name) = (&bench.git, &history.name);
    let [mut ours, mut peers] = [(); 2].map(|()| Figures::default());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("pushes of one commit into {name}, run {number} of {}", bench.runs));
        let folder = bench.fresh_folder()?;
        let server = Govc::start_with(&bench.govc, &folder.path().join("data"), &ALONE)?;
        let default_branch = &history.default_branch(git);
        server.create(&NewRepository { name, default_branch, durability: "durable" })?;
        history.push(git, &server.url(name))?;
        let outcome = push(bench, &server, name)?;
        verified &= arrived(bench, &server, name, &outcome, Some(history))?;
        ours.add(&outcome);
        server.stop()?;
        let peer = GitHttp::start(git, &folder.path().join("repositories"))?;
        copy(git, history, &peer.path(name))?;
        git.run(&peer.path(name), ["config", "core.fsync", "all"])?;
        let outcome = push(bench, &peer, name)?;
        if !arrived(bench, &peer, name, &outcome, Some(history))? {
            return Err(Error::new("the peer lost pushes"));
        }
        peers.add(&outcome);
    }
    let peer = format!("{PEER}, core.fsync=all");
    let row = |what: &str, unit, ours: Vec<f64>, peers: Vec<f64>| {
        let work = format!("push of one commit into {name}, {PUSHERS} connections, {what}");
        Row::new(SUITE, work, unit, median(ours)).beside(&peer, median(peers)).durability("durable").verified(verified)
    };
    Ok(vec![row("rate", "1/s", ours.rate, peers.rate), row("p99", "ms", ours.p99, peers.p99)])
}

fn push(bench: &Bench, subject: &dyn Subject, repository: &str) -> Result<Outcome> {
    let time = Duration::from_secs(bench.seconds);
    pushes::run(&Load { address: subject.address(), repository, connections: PUSHERS, time })
}

/// Whether a clone has each branch where its last acknowledgement left it, with all commits, and all that was there before.
fn arrived(
    bench: &Bench,
    subject: &dyn Subject,
    repository: &str,
    outcome: &Outcome,
    before: Option<&History>,
) -> Result<bool> {
    let git = &bench.git;
    let folder = bench.fresh_folder()?;
    let path = folder.path().join("copy.git");
    let mut command = git.command(folder.path());
    command.args(["clone", "--quiet", "--mirror", &subject.url(repository)]).arg(&path);
    finish(command)?;
    let commits = |path: &Path| -> Result<usize> {
        let count = git.lines(path, ["rev-list", "--count", "--all"])?.concat();
        count.parse().context(|| format!("git counts {count} commits"))
    };
    let (mut references, mut expected) = (outcome.references.clone(), outcome.commits);
    if let Some(history) = before {
        references.extend(git.references(&history.path)?);
        sort_references(&mut references);
        expected += commits(&history.path)?;
    }
    Ok(git.references(&path)? == references && commits(&path)? == expected)
}
