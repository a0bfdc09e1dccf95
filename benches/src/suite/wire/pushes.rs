//! Pushes of one commit, raw, from eight clients at once.
//!
//! Durable repositories stand beside a peer that is told to sync everything (`core.fsync=all`): by default git leaves
//! loose objects and references to the operating system. Memory repositories stand beside that default, which the
//! durable ones are shown beside, too.

use std::time::Duration;

use super::PEER;
use crate::bench::{Bench, progress};
use crate::error::{Error, Result};
use crate::load::pushes::{self, Load, Outcome};
use crate::peer::GitHttp;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
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
            verified &= arrived(bench, &server, durability, &outcome)?;
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
            if !arrived(bench, &peer, name, &outcome)? {
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
    rows.extend(super::clients::pushers(bench)?);
    Ok(rows)
}

fn push(bench: &Bench, subject: &dyn Subject, repository: &str) -> Result<Outcome> {
    let time = Duration::from_secs(bench.seconds);
    pushes::run(&Load { address: subject.address(), repository, connections: PUSHERS, time })
}

/// Whether a clone has each branch where its last acknowledgement left it, with all commits.
fn arrived(bench: &Bench, subject: &dyn Subject, repository: &str, outcome: &Outcome) -> Result<bool> {
    let git = &bench.git;
    let folder = bench.fresh_folder()?;
    let path = folder.path().join("copy.git");
    let mut command = git.command(folder.path());
    command.args(["clone", "--quiet", "--mirror", &subject.url(repository)]).arg(&path);
    crate::git::finish(command)?;
    let commits = git.lines(&path, ["rev-list", "--count", "--all"])?.concat();
    Ok(git.references(&path)? == outcome.references && commits == outcome.commits.to_string())
}
