//! What does it cost the server to take a whole history?
//!
//! The real client pushes everything (`git push --mirror`) to a fresh govc and to a fresh repository
//! behind `git http-backend`, in turns. The peer is given twice: as it is installed (it stores the pack
//! unchecked), and with `receive.fsckObjects`, which checks what govc always checks. git syncs the pack
//! before it answers, but neither references nor folders. The kernel keeps no peak memory of processes
//! that have ended, so the peer has none.
//!
//! What the peer does not do at all, indexing and compaction, is off beside it; with both, until the server is at rest
//! again, there are rows of their own. So there are of a server with a memory budget that the history is far beyond.

use crate::bench::{Bench, progress};
use crate::error::Result;
use crate::git::Git;
use crate::history::{Facts, History};
use crate::peer::GitHttp;
use crate::report::{Row, median};
use crate::server::{ALONE, Govc, NewRepository};
use crate::subject::{Cost, Subject, measure};

const SUITE: &str = "push";
/// A budget far below what a history takes.
const BUDGET: &str = "64MiB";
const BUDGET_MEBIBYTES: f64 = 64.0;
/// How far above its budget a server may come.
const OVER_BUDGET_MEBIBYTES: f64 = 512.0;
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Flaws that real histories contain; git is told to let them pass, as govc does.
const TOLERATED: [&str; 14] = [
    "zeroPaddedFilemode",
    "zeroPaddedDate",
    "badTimezone",
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "multipleAuthors",
    "gitmodulesUrl",
    "gitmodulesName",
];

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for history in &bench.histories {
        rows.extend(one_history(bench, history)?);
    }
    Ok(rows)
}

/// What each run gave.
#[derive(Default)]
struct Figures {
    cpu: Vec<f64>,
    whole_cpu: Vec<f64>,
    wall: Vec<f64>,
    /// MiB. The peer's are not known.
    peaks: Vec<f64>,
}

impl Figures {
    fn add<T>(&mut self, cost: &Cost<T>) {
        self.cpu.push(cost.cpu.core);
        self.whole_cpu.push(cost.cpu.whole);
        self.wall.push(cost.wall.as_secs_f64());
    }
}

fn one_history(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    let git = &bench.git;
    let facts = history.facts(git)?;
    let [mut ours, mut small, mut with_index, mut plain, mut checked] = [(); 5].map(|()| Figures::default());
    let in_budget = [&ALONE[..], &[("GOVC_MEMORY", BUDGET)]].concat();
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("push of {}, run {number} of {}", history.name, bench.runs));
        for (figures, settings) in [(&mut ours, &ALONE[..]), (&mut small, &in_budget), (&mut with_index, &[])] {
            let (cost, peak) = push_to_govc(bench, history, &facts, settings, number == bench.runs)?;
            verified &= cost.output;
            figures.add(&cost);
            figures.peaks.push(peak as f64 / MEBIBYTE);
        }

        let folder = bench.fresh_folder()?;
        let peer = GitHttp::start(git, &folder.path().join("repositories"))?;
        plain.add(&push_to_peer(&peer, git, history, &facts, false)?);
        checked.add(&push_to_peer(&peer, git, history, &facts, true)?);
    }

    let name = &history.name;
    let row = |work: &str, unit, values| {
        let work = format!("push of {name}, {work}");
        Row::new(SUITE, work, unit, median(values)).durability("durable").verified(verified)
    };
    Ok(vec![
        row("server CPU", "s", ours.cpu.clone()).beside("git receive-pack, checks off", median(plain.cpu)),
        row("server CPU", "s", ours.cpu.clone()).beside("git receive-pack, fsckObjects", median(checked.cpu)),
        row("server CPU", "s", ours.cpu).beside("nginx + fcgiwrap + git, checks off", median(plain.whole_cpu)),
        row("wall time with the client", "s", ours.wall)
            .beside("nginx + fcgiwrap + git, checks off", median(plain.wall)),
        row("peak memory", "MiB", ours.peaks),
        row(&format!("server CPU, budget of {BUDGET}"), "s", small.cpu),
        row(&format!("peak memory, budget of {BUDGET}"), "MiB", small.peaks)
            .beside("the budget and 512 MiB", BUDGET_MEBIBYTES + OVER_BUDGET_MEBIBYTES),
        row("server CPU with indexing and compaction", "s", with_index.cpu),
        row("wall time with the client, indexing beside it", "s", with_index.wall),
        row("peak memory with indexing and compaction", "MiB", with_index.peaks),
    ])
}

/// The cost, with whether everything arrived, and the peak memory at that moment.
fn push_to_govc(
    bench: &Bench,
    history: &History,
    facts: &Facts,
    settings: &[(&str, &str)],
    compare_objects: bool,
) -> Result<(Cost<bool>, u64)> {
    let git = &bench.git;
    let folder = bench.fresh_folder()?;
    let server = Govc::start_with(&bench.govc, &folder.path().join("data"), settings)?;
    let default_branch = &history.default_branch(git);
    server.create(&NewRepository { name: &history.name, default_branch, durability: "durable" })?;
    let url = server.url(&history.name);
    let cost = measure(&server, || history.push(git, &url))?;
    let peak = server.peak_bytes()?;
    let mut complete = git.remote_references(folder.path(), &url)? == facts.references;
    if compare_objects {
        complete &= history.verify_remote(facts, git, &url, folder.path())?;
    }
    server.stop()?;
    Ok((Cost { output: complete, cpu: cost.cpu, wall: cost.wall }, peak))
}

fn push_to_peer(peer: &GitHttp, git: &Git, history: &History, facts: &Facts, checks: bool) -> Result<Cost<()>> {
    let name = if checks { "checked" } else { "plain" };
    let path = peer.create(git, name)?;
    if checks {
        git.run(&path, ["config", "receive.fsckObjects", "true"])?;
        for flaw in TOLERATED {
            git.run(&path, ["config", &format!("receive.fsck.{flaw}"), "warn"])?;
        }
    }
    let url = peer.url(name);
    let cost = measure(peer, || history.push(git, &url))?;
    // A peer that did not do the work must not be compared with.
    if git.references(&path)? != facts.references {
        return Err(crate::error::Error::new(format!("the peer did not take all of {}", history.name)));
    }
    Ok(cost)
}
