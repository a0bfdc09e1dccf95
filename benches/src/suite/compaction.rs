//! How small does compaction make a history, and at what cost?
//!
//! The history is pushed to a fresh govc, the server is stopped, and `govc compact` stores it anew; then again with
//! `--archive`. The peer is `git gc --aggressive` (window 250, depth 50) on a clone. Sizes are of everything that holds or
//! finds objects: keys and values of blocks and ids here, packs and their indexes there. CPU seconds are those of the
//! command and all of its children; peaks are looked at every few milliseconds. After each compaction a clone is compared
//! object by object. Then what was compacted, not archived, is read back (`decode.rs`).

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::decode;
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::history::{Facts, History};
use crate::process::{Spent, run_measured};
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

const SUITE: &str = "compaction";
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const PEER: &str = "git gc --aggressive";
/// The folder of the clone that it packs.
const THEIRS: &str = "theirs.git";

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for history in &bench.histories {
        rows.extend(one_history(bench, history)?);
    }
    Ok(rows)
}

/// What each run of one subject gave.
#[derive(Default)]
struct Figures {
    bytes: Vec<f64>,
    cpu: Vec<f64>,
    peak: Vec<f64>,
}

impl Figures {
    fn add(&mut self, bytes: u64, spent: &Spent) {
        self.bytes.push(bytes as f64 / MEBIBYTE);
        self.cpu.push(spent.cpu_seconds);
        self.peak.push(spent.peak_bytes as f64 / MEBIBYTE);
    }
}

fn one_history(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    let facts = history.facts(&bench.git)?;
    let (mut plain, mut archived, mut theirs) = (Figures::default(), Figures::default(), Figures::default());
    let (mut rates, mut deep, mut their_deep) = (Vec::new(), Vec::new(), Vec::new());
    let mut pushed = Vec::new();
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("compaction of {}, run {number} of {}", history.name, bench.runs));
        let folder = bench.fresh_folder()?;
        let data = folder.path().join("data");
        let server = Govc::start(&bench.govc, &data)?;
        let default_branch = &history.default_branch(&bench.git);
        server.create(&NewRepository { name: &history.name, default_branch, durability: "durable" })?;
        history.push(&bench.git, &server.url(&history.name))?;
        server.stop()?;
        pushed.push(stored_bytes(bench, &data)? as f64 / MEBIBYTE);
        for (figures, flags) in [(&mut plain, &[][..]), (&mut archived, &["--archive"][..])] {
            progress(&format!("compaction of {}: govc compact {}", history.name, flags.concat()));
            let mut command = Govc::command(&bench.govc, "compact", &data);
            command.args(flags);
            let spent = run_measured(command)?;
            figures.add(stored_bytes(bench, &data)?, &spent);
            verified &= is_whole(bench, history, &facts, &data, folder.path())?;
            if flags.is_empty() {
                progress(&format!("compaction of {}: reading it back", history.name));
                let decoded = decode::ours(&data, &history.name)?;
                rates.push(decoded.bytes_per_second / 1e9);
                deep.push(decoded.deep_micros);
            }
        }
        progress(&format!("compaction of {}: {PEER}", history.name));
        let (bytes, spent) = theirs_of(bench, history, folder.path())?;
        theirs.add(bytes, &spent);
        their_deep.extend(decode::theirs(bench, &folder.path().join(THEIRS))?);
    }
    let name = &history.name;
    let row = |work: &str, unit, values: &Vec<f64>| {
        Row::new(SUITE, format!("{name}: {work}"), unit, median(values.clone()))
            .durability("durable")
            .verified(verified)
    };
    let beside = |values: &Vec<f64>| median(values.clone());
    Ok(vec![
        row("stored bytes, as pushed", "MiB", &pushed).beside(PEER, beside(&theirs.bytes)),
        row("stored bytes, compacted", "MiB", &plain.bytes).beside(PEER, beside(&theirs.bytes)),
        row("stored bytes, archived", "MiB", &archived.bytes).beside(PEER, beside(&theirs.bytes)),
        row("CPU, compacting", "s", &plain.cpu).beside(PEER, beside(&theirs.cpu)),
        row("CPU, archiving what is compacted", "s", &archived.cpu).beside(PEER, beside(&theirs.cpu)),
        row("peak memory, compacting", "MiB", &plain.peak).beside(PEER, beside(&theirs.peak)),
        row("every object once, one thread", "GB/s", &rates),
        row("an object behind 50 deltas, p50", "us", &deep).beside("libgit2, the same depth", beside(&their_deep)),
    ])
}

/// What `govc stats --json` says, as far as it matters here.
#[derive(Deserialize)]
struct Stats {
    families: std::collections::BTreeMap<String, Size>,
}

#[derive(Deserialize)]
struct Size {
    bytes: u64,
}

/// Keys and values of blocks and ids.
fn stored_bytes(bench: &Bench, data: &Path) -> Result<u64> {
    let mut command = Govc::command(&bench.govc, "stats", data);
    let output = command.arg("--json").output().context(|| "cannot run govc stats".into())?;
    let stats: Stats =
        serde_json::from_slice(&output.stdout).context(|| "what govc stats says is not understood".into())?;
    let of = |family: &str| {
        let size = stats.families.get(family).map(|size| size.bytes);
        size.context(|| format!("govc stats says nothing of {family}"))
    };
    Ok(of("blocks")? + of("ids")?)
}

fn is_whole(bench: &Bench, history: &History, facts: &Facts, data: &Path, folder: &Path) -> Result<bool> {
    let server = Govc::start(&bench.govc, data)?;
    let whole = history.verify_remote(facts, &bench.git, &server.url(&history.name), folder)?;
    server.stop()?;
    Ok(whole)
}

/// The bytes of packs and indexes after `git gc --aggressive`, and what it took.
fn theirs_of(bench: &Bench, history: &History, folder: &Path) -> Result<(u64, Spent)> {
    let path = folder.join(THEIRS);
    let mut clone = bench.git.command(folder);
    clone.args(["clone", "--quiet", "--mirror", "--no-local"]).arg(&history.path).arg(&path);
    crate::git::finish(clone)?;
    let mut gc = bench.git.command(&path);
    gc.args(["-c", "gc.aggressiveWindow=250", "-c", "gc.aggressiveDepth=50", "gc", "--quiet", "--aggressive"]);
    gc.arg("--prune=now");
    let spent = run_measured(gc)?;
    let packs = path.join("objects/pack");
    let mut bytes = 0;
    let entries = fs::read_dir(&packs).context(|| format!("cannot list {}", packs.display()))?;
    for entry in entries {
        let entry = entry.context(|| format!("cannot list {}", packs.display()))?;
        let name = entry.file_name();
        let counts = Path::new(&name).extension().is_some_and(|kind| kind == "pack" || kind == "idx");
        if counts {
            bytes += entry.metadata().context(|| "cannot look at a pack".into())?.len();
        }
    }
    if bytes == 0 {
        return Err(Error::new(format!("git made no pack of {}", history.name)));
    }
    Ok((bytes, spent))
}
