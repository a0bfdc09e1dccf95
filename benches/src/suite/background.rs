//! What does compaction cost those who commit meanwhile, and does a store that is written to all the time settle?
//!
//! 64 connections commit durably to one repository while another, the history, is compacted again and again as fast as it
//! goes; the same without a compaction is measured in turn, on the same server. Then sixteen connections commit at a
//! steady rate for sixty times as long, with the server's own compactions as they come by default: what is in the journal
//! must stay bounded, and what a commit takes must not grow. Last, the disk that a history took comes back after its
//! deletion and one compaction of what is left.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::commits::holds_all;
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::history::History;
use crate::http::Client;
use crate::load::commits::{self as load, Load};
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

const SUITE: &str = "background";
const CONNECTIONS: usize = 64;
const STEADY_CONNECTIONS: usize = 16;
const STEADY_PAUSE: Duration = Duration::from_millis(30);
const STEADY_TIMES: u64 = 60;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the backend may take to give back what it does not need any more.
const BACK_MAX: Duration = Duration::from_secs(120);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for history in &bench.histories {
        rows.extend(beside(bench, history)?);
        rows.push(deleted(bench, history)?);
    }
    rows.extend(steady(bench)?);
    Ok(rows)
}

/// A server that holds a history, and compacts when it is asked.
fn holding(bench: &Bench, history: &History, folder: &Path) -> Result<Govc> {
    let settings = [("GOVC_COMPACTION_ENABLED", "false")];
    let server = Govc::start_with(&bench.govc, &folder.join("data"), &settings)?;
    let default_branch = &history.default_branch(&bench.git);
    server.create(&NewRepository { name: &history.name, default_branch, durability: "durable" })?;
    history.push(&bench.git, &server.url(&history.name))?;
    Ok(server)
}

fn beside(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    let folder = bench.fresh_folder()?;
    let server = holding(bench, history, folder.path())?;
    let time = Duration::from_secs(bench.seconds);
    let [mut rates, mut p99s, mut quiet_rates, mut quiet_p99s] = [(); 4].map(|()| Vec::new());
    let mut verified = true;
    let mut compactions = 0;
    for number in 1..=bench.runs {
        for compacts in [false, true] {
            progress(&format!(
                "commits beside {}, run {number} of {}, compacting: {compacts}",
                history.name, bench.runs
            ));
            let repository = &format!("commits-{number}-{compacts}");
            server.create(&NewRepository { name: repository, default_branch: "main", durability: "durable" })?;
            let load =
                Load { address: server.address(), repository, connections: CONNECTIONS, time, pause: Duration::ZERO };
            let outcome = if compacts {
                let (outcome, done) = while_compacting(&server, &history.name, || load::run(&load))?;
                compactions += done;
                outcome
            } else {
                load::run(&load)?
            };
            let (rates, p99s) = if compacts { (&mut rates, &mut p99s) } else { (&mut quiet_rates, &mut quiet_p99s) };
            rates.push(outcome.rate());
            p99s.push(outcome.quantile_millis(0.99));
            verified &= holds_all(&bench.git, &server.url(repository), &outcome.acknowledged, folder.path())?;
        }
    }
    let facts = history.facts(&bench.git)?;
    verified &= history.verify_remote(&facts, &bench.git, &server.url(&history.name), folder.path())?;
    verified &= compactions > 0;
    server.stop()?;
    let row = |work: &str, unit, values, quiet| {
        let work = format!("{work} of {CONNECTIONS} committers while {} is compacted", history.name);
        Row::new(SUITE, work, unit, median(values))
            .durability("durable")
            .verified(verified)
            .beside("without a compaction", median(quiet))
    };
    Ok(vec![row("rate", "1/s", rates, quiet_rates), row("p99", "ms", p99s, quiet_p99s)])
}

/// Does something while a repository is compacted again and again; what came of it, and how many compactions were under
/// way meanwhile.
fn while_compacting<T>(server: &Govc, repository: &str, work: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let compacting = scope.spawn(|| -> Result<usize> {
            let mut client = Client::connect(server.address())?;
            let mut begun = 0;
            while !over.load(Ordering::Relaxed) {
                if client.get_json(&format!("/api/v1/repos/{repository}/compaction"))?["state"] == "idle" {
                    client.post_json(&format!("/api/v1/repos/{repository}/compact"), &json!({}))?;
                    begun += 1;
                }
                thread::sleep(Duration::from_millis(20));
            }
            // Unless it has just ended.
            let _ = client.request_empty("DELETE", &format!("/api/v1/repos/{repository}/compaction"));
            Ok(begun)
        });
        // It is under way before the clock starts.
        thread::sleep(Duration::from_millis(500));
        let done = work();
        over.store(true, Ordering::Relaxed);
        let begun = compacting.join().map_err(|_| Error::new("a thread of the bench panicked"))??;
        Ok((done?, begun))
    })
}

fn steady(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    let server = Govc::start(&bench.govc, &data)?;
    let repository = "steady";
    server.create(&NewRepository { name: repository, default_branch: "main", durability: "durable" })?;
    let time = Duration::from_secs(bench.seconds * STEADY_TIMES);
    let load =
        Load { address: server.address(), repository, connections: STEADY_CONNECTIONS, time, pause: STEADY_PAUSE };
    progress(&format!("a steady load for {} s", time.as_secs()));
    let over = AtomicBool::new(false);
    let (outcome, samples) = thread::scope(|scope| {
        let sampling = scope.spawn(|| samples(&server, &data, &over));
        let outcome = load::run(&load);
        over.store(true, Ordering::Relaxed);
        let samples = sampling.join().map_err(|_| Error::new("a thread of the bench panicked"))?;
        Ok::<_, Error>((outcome?, samples?))
    })?;
    let compactions =
        Client::connect(server.address())?.get_json("/api/v1/compaction")?["totals"]["automatic"].as_f64();
    let verified = holds_all(&bench.git, &server.url(repository), &outcome.acknowledged, folder.path())?;
    server.stop()?;
    let middle = samples.len() / 2;
    let most = |samples: &[Sample], of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
    let per_commit = |sample: &Sample| sample.disk_bytes / sample.commits.max(1.0);
    let row = |work: &str, unit, value| {
        let work = format!("{} s of {:.0} commits/s: {work}", time.as_secs(), outcome.rate());
        Row::new(SUITE, work, unit, value).durability("durable").verified(verified)
    };
    let (first, second) = samples.split_at(middle);
    Ok(vec![
        row("journal at most, second half", "MiB", most(second, |sample| sample.unsettled_bytes) / MEBIBYTE)
            .beside("first half", most(first, |sample| sample.unsettled_bytes) / MEBIBYTE),
        row("oldest in the journal, at most", "s", most(&samples, |sample| sample.unsettled_seconds)),
        row("disk a commit, at the end", "B", samples.last().map_or(0.0, per_commit))
            .beside("in the middle", samples.get(middle).map_or(0.0, per_commit)),
        row("disk at the end", "MiB", samples.last().map_or(0.0, |sample| sample.disk_bytes) / MEBIBYTE),
        row("compactions that began by themselves", "", compactions.unwrap_or_default()),
    ])
}

/// What the server takes at one moment.
struct Sample {
    unsettled_bytes: f64,
    unsettled_seconds: f64,
    disk_bytes: f64,
    commits: f64,
}

fn samples(server: &Govc, data: &Path, over: &AtomicBool) -> Result<Vec<Sample>> {
    let mut found = Vec::new();
    while !over.load(Ordering::Relaxed) {
        thread::sleep(SAMPLE_INTERVAL);
        let value = |name| server.metric(name);
        found.push(Sample {
            unsettled_bytes: value("govc_unsettled_bytes")?,
            unsettled_seconds: value("govc_unsettled_age_seconds")?,
            disk_bytes: folder_bytes(data)? as f64,
            commits: value("govc_published_total")?,
        });
    }
    Ok(found)
}

fn deleted(bench: &Bench, history: &History) -> Result<Row> {
    progress(&format!("the disk after the deletion of {}", history.name));
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    let stays = "stays";
    let server = Govc::start(&bench.govc, &data)?;
    server.create(&NewRepository { name: stays, default_branch: "main", durability: "durable" })?;
    history.push(&bench.git, &server.url(stays))?;
    compacted(&server, stays)?;
    let before = settled_bytes(&server, &data, None)?;
    let default_branch = &history.default_branch(&bench.git);
    server.create(&NewRepository { name: "goes", default_branch, durability: "durable" })?;
    history.push(&bench.git, &server.url("goes"))?;
    Client::connect(server.address())?.request_empty("DELETE", "/api/v1/repos/goes")?;
    compacted(&server, stays)?;
    let after = settled_bytes(&server, &data, Some(before))?;
    let facts = history.facts(&bench.git)?;
    let verified = history.verify_remote(&facts, &bench.git, &server.url(stays), folder.path())?;
    server.stop()?;
    Ok(Row::new(SUITE, format!("{}: disk after a copy was deleted", history.name), "MiB", after as f64 / MEBIBYTE)
        .durability("durable")
        .verified(verified)
        .beside("before it came", before as f64 / MEBIBYTE))
}

/// Has a repository compacted and waits for it.
fn compacted(server: &Govc, repository: &str) -> Result<()> {
    let mut client = Client::connect(server.address())?;
    client.post_json(&format!("/api/v1/repos/{repository}/compact"), &json!({}))?;
    loop {
        let info = client.get_json(&format!("/api/v1/repos/{repository}/compaction"))?;
        match (info["state"].as_str(), info["last"]["outcome"].as_str()) {
            (Some("idle"), Some("done")) => return Ok(()),
            (Some("idle"), _) => return Err(Error::new(format!("a compaction came to nothing: {info}"))),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The bytes of the data folder once they do not change any more, or are within a hundredth of `wanted`.
fn settled_bytes(server: &Govc, data: &Path, wanted: Option<u64>) -> Result<u64> {
    let start = Instant::now();
    let mut last = (folder_bytes(data)?, Instant::now());
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = folder_bytes(data)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        let is_back = wanted.is_some_and(|wanted| now <= wanted + wanted / 100);
        let is_settled = last.1.elapsed() > Duration::from_secs(20) && server.metric("govc_compaction_running")? == 0.0;
        if is_back || is_settled || start.elapsed() > BACK_MAX {
            return Ok(now);
        }
    }
}

/// Bytes of all files in a folder, kept packs aside: they are a cache.
fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    let entries = std::fs::read_dir(folder).context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.context(|| format!("cannot list {}", folder.display()))?;
        // What goes meanwhile takes nothing.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            if entry.file_name() != "packs" {
                bytes += folder_bytes(&entry.path())?;
            }
        } else {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}
