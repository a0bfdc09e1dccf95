//! How long from the start of the process to its ready line, with real histories in the store?
//!
//! One store holds all histories. It is opened after a clean stop, and after `kill -9` at the end of
//! a second of commits from 64 connections, when the journal has a tail that no checkpoint covers. No peer
//! opens a store, so there is none. The file system's cache is warm.

use std::path::Path;
use std::time::Duration;

use crate::bench::{Bench, progress};
use crate::error::Result;
use crate::load::commits::{self, Load};
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;
use crate::suite::commits::holds_all;

const SUITE: &str = "open";
const CONNECTIONS: usize = 64;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    fill(bench, &data)?;
    let (mut clean, mut killed, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("open, run {number} of {}", bench.runs));
        let server = Govc::start(&bench.govc, &data)?;
        clean.push(server.ready_after().as_secs_f64());

        let repository = &format!("tail{number}");
        server.create(&NewRepository { name: repository, default_branch: "main", durability: "durable" })?;
        let time = Duration::from_secs(1);
        let load =
            Load { address: server.address(), repository, connections: CONNECTIONS, time, pause: Duration::ZERO };
        let acknowledged = commits::run(&load)?.acknowledged;
        commits.push(acknowledged.len() as f64);
        server.kill()?;

        let server = Govc::start(&bench.govc, &data)?;
        killed.push(server.ready_after().as_secs_f64());
        verified &= holds_all(&bench.git, &server.url(repository), &acknowledged, folder.path())?;
        for history in &bench.histories {
            let shown = bench.git.remote_references(folder.path(), &server.url(&history.name))?;
            verified &= shown == bench.git.references(&history.path)?;
        }
        server.stop()?;
    }
    verified &= objects_are_complete(bench, &data, folder.path())?;

    let names: Vec<&str> = bench.histories.iter().map(|history| history.name.as_str()).collect();
    let row = |work: String, values| {
        let work = format!("open a store with {}, {work}", names.join(" and "));
        Row::new(SUITE, work, "s", median(values)).durability("durable").verified(verified)
    };
    let tail = format!("after kill -9 at the end of {:.0} commits", median(commits));
    Ok(vec![row("after a clean stop".into(), clean), row(tail, killed)])
}

/// Pushes all histories into a new store and stops the server cleanly.
fn fill(bench: &Bench, data: &Path) -> Result<()> {
    let server = Govc::start(&bench.govc, data)?;
    for history in &bench.histories {
        progress(&format!("open: pushing {}", history.name));
        let default_branch = &history.default_branch(&bench.git);
        server.create(&NewRepository { name: &history.name, default_branch, durability: "durable" })?;
        history.push(&bench.git, &server.url(&history.name))?;
    }
    server.stop()
}

/// After all the kills, every history must still be there, object by object.
fn objects_are_complete(bench: &Bench, data: &Path, folder: &Path) -> Result<bool> {
    let server = Govc::start(&bench.govc, data)?;
    let mut complete = true;
    for history in &bench.histories {
        let facts = history.facts(&bench.git)?;
        complete &= history.verify_remote(&facts, &bench.git, &server.url(&history.name), folder)?;
    }
    server.stop()?;
    Ok(complete)
}
