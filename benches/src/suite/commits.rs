//! How many commits of one file a second does the server acknowledge over HTTP?
//!
//! 64 keep-alive connections, a branch each, RocksDB. After the durable run the server is killed without
//! a warning and started again before the comparison: every acknowledged commit must be in the history of
//! a clone. No peer answers the same question (`git push` is two orders slower and syncs no reference),
//! so three bounds stand beside it, measured in the same run and named for what they are:
//! a plain log that is synced (`fdatasync`) after every 64 records of 1 KiB, which no group commit of 64 waiting
//! clients can pass in syncs, RocksDB alone with a synced batch of 64 such records at a time, and `git fast-import` making the same commits in one process with no
//! client, no HTTP and no sync between commits.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use govc_backends::{RocksBackend, RocksOptions};
use govc_engine::backend::{Backend, Batch, Family, Sync};

use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::generate;
use crate::git::{Git, finish};
use crate::load::commits::{self as load, FILES, Load, Outcome};
use crate::random::Random;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::{Cost, Subject, measure};

const SUITE: &str = "commits";
const CONNECTIONS: usize = 64;
const IMPORTED_COMMITS: usize = 50_000;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const LOG_RECORD_BYTES: usize = 1024;
const REPOSITORY: &str = "commits";

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (mut log_rates, mut backend_rates, mut import_rates) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=bench.runs {
        progress(&format!("commits, bounds, run {number} of {}", bench.runs));
        let folder = bench.fresh_folder()?;
        log_rates.push(append_log_rate(folder.path(), Duration::from_secs(bench.seconds))?);
        backend_rates.push(backend_rate(folder.path(), Duration::from_secs(bench.seconds))?);
        import_rates.push(fast_import_rate(&bench.git, folder.path())?);
    }
    let synced = [
        ("bound: raw log, fdatasync per 64 records", median(log_rates)),
        ("bound: RocksDB alone, a synced batch per 64 records", median(backend_rates)),
    ];
    let import = ("bound: git fast-import, in process, no syncs", median(import_rates));
    for durability in ["durable", "memory"] {
        rows.extend(with_durability(bench, durability, synced, import)?);
    }
    Ok(rows)
}

/// A bound's name and its rate.
type Bound = (&'static str, f64);

fn with_durability(bench: &Bench, durability: &'static str, synced: [Bound; 2], import: Bound) -> Result<Vec<Row>> {
    let [mut rates, mut p50, mut p99, mut cpu_micros, mut counted, mut grown] = [(); 6].map(|()| Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("commits, {durability}, run {number} of {}", bench.runs));
        let Run { cost, memory, complete } = one_run(bench, durability)?;
        let outcome = &cost.output;
        verified &= complete;
        counted.push(memory.0 / MEBIBYTE);
        grown.push(memory.1 / MEBIBYTE);
        rates.push(outcome.rate());
        p50.push(outcome.quantile_millis(0.5));
        p99.push(outcome.quantile_millis(0.99));
        cpu_micros.push(cost.cpu.whole * 1e6 / outcome.acknowledged.len().max(1) as f64);
    }
    let row = |work: &str, unit, values| {
        let work = format!("one-file commits over HTTP, {CONNECTIONS} connections, {work}");
        Row::new(SUITE, work, unit, median(values)).durability(durability).verified(verified)
    };
    let mut rows = vec![];
    if durability == "durable" {
        rows.extend(synced.map(|(bound, rate)| row("rate", "1/s", rates.clone()).beside(bound, rate)));
    }
    rows.push(row("rate", "1/s", rates).beside(import.0, import.1));
    rows.push(row("p50", "ms", p50));
    rows.push(row("p99", "ms", p99));
    rows.push(row("server CPU per commit", "us", cpu_micros));
    if durability == "memory" {
        // With a durable repository the process grows by the buffers of the backend, too.
        rows.push(row("memory that the server counts", "MiB", counted).beside("growth of the process", median(grown)));
    }
    Ok(rows)
}

/// What one load on a fresh server gave.
struct Run {
    cost: Cost<Outcome>,
    /// Bytes that the server counts more than before, and that its process takes more.
    memory: (f64, f64),
    /// Whether every acknowledged commit was found afterwards.
    complete: bool,
}

fn one_run(bench: &Bench, durability: &'static str) -> Result<Run> {
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    let mut server = Govc::start(&bench.govc, &data)?;
    server.create(&NewRepository { name: REPOSITORY, default_branch: "main", durability })?;
    let time = Duration::from_secs(bench.seconds);
    let load = Load {
        address: server.address(),
        repository: REPOSITORY,
        connections: CONNECTIONS,
        time,
        pause: Duration::ZERO,
    };
    let before = server.resident_bytes()?;
    let cost = measure(&server, || load::run(&load))?;
    let after = server.resident_bytes()?;
    let memory = (after.0 - before.0, after.1 - before.1);
    if durability == "durable" {
        server.kill()?;
        server = Govc::start(&bench.govc, &data)?;
    }
    let url = server.url(REPOSITORY);
    let complete = holds_all(&bench.git, &url, &cost.output.acknowledged, folder.path())?;
    server.stop()?;
    Ok(Run { cost, memory, complete })
}

/// Whether a clone's history contains all these commits. The clone checks by itself that everything that
/// they need is there.
pub(crate) fn holds_all(git: &Git, url: &str, acknowledged: &[String], folder: &Path) -> Result<bool> {
    let copy = tempfile::tempdir_in(folder).context(|| "cannot make a folder for a clone".into())?;
    let path = copy.path().join("copy.git");
    let mut command = git.command(folder);
    command.args(["clone", "--quiet", "--mirror", url]).arg(&path);
    finish(command)?;
    let commits: HashSet<String> = git.lines(&path, ["rev-list", "--all"])?.into_iter().collect();
    let missing = acknowledged.iter().filter(|id| !commits.contains(*id)).count();
    if missing > 0 {
        progress(&format!("{missing} of {} acknowledged commits are missing", acknowledged.len()));
    }
    Ok(missing == 0 && !acknowledged.is_empty())
}

/// Records a second of a log that does nothing else, on the file system that the server uses.
fn append_log_rate(folder: &Path, time: Duration) -> Result<f64> {
    let mut random = Random::new(3);
    let group: Vec<u8> = (0..LOG_RECORD_BYTES * CONNECTIONS).map(|_| random.below(256) as u8).collect();
    let path = folder.join("log");
    let mut log = File::create(&path).context(|| "cannot make a log".into())?;
    let start = Instant::now();
    let mut records = 0;
    while start.elapsed() < time {
        log.write_all(&group).and_then(|()| log.sync_data()).context(|| "cannot write a log".into())?;
        records += CONNECTIONS;
    }
    let rate = records as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).context(|| "cannot remove a log".into())?;
    Ok(rate)
}

/// Records a second that the backend takes from one writer, in synced batches.
fn backend_rate(folder: &Path, time: Duration) -> Result<f64> {
    let path = folder.join("rocksdb");
    let failed = || "RocksDB failed".into();
    let backend = RocksBackend::open(&path, RocksOptions::default()).context(failed)?;
    let mut random = Random::new(4);
    let record: Bytes = (0..LOG_RECORD_BYTES).map(|_| random.below(256) as u8).collect();
    let start = Instant::now();
    let mut records = 0u64;
    while start.elapsed() < time {
        let mut batch = Batch::new();
        for _ in 0..CONNECTIONS {
            batch.put(Family::Journal, records.to_be_bytes().to_vec(), record.clone());
            records += 1;
        }
        backend.write(batch, Sync::Yes).context(failed)?;
    }
    let rate = records as f64 / start.elapsed().as_secs_f64();
    let last = backend.get(Family::Journal, &(records - 1).to_be_bytes()).context(failed)?;
    drop(backend);
    std::fs::remove_dir_all(&path).context(|| "cannot remove RocksDB's folder".into())?;
    if last.as_deref() == Some(&*record) { Ok(rate) } else { Err(Error::new("RocksDB lost a record")) }
}

/// Commits a second of `git fast-import`, its start and its end included.
fn fast_import_rate(git: &Git, folder: &Path) -> Result<f64> {
    git.run(folder, ["init", "--quiet", "--bare", "import.git"])?;
    let mut stream = Vec::new();
    write_commits(&mut stream).context(|| "cannot write commits".into())?;
    let path = folder.join("import.git");
    let start = Instant::now();
    generate::import(git, &path, |input| input.write_all(&stream))?;
    let rate = IMPORTED_COMMITS as f64 / start.elapsed().as_secs_f64();
    let count = git.lines(&path, ["rev-list", "--all", "--count"])?.concat();
    if count.trim() != (IMPORTED_COMMITS + 1).to_string() {
        return Err(Error::new(format!("git fast-import made {count} commits")));
    }
    Ok(rate)
}

/// The commits of the load as a fast-import stream: 100 files, then one of them at a time, on 64
/// branches in turn.
fn write_commits(out: &mut dyn Write) -> std::io::Result<()> {
    const PERSON: &str = "Bench <bench@example.com> 1700000000 +0000";
    let mut random = Random::new(2);
    writeln!(out, "commit refs/heads/main\nmark :1\ncommitter {PERSON}\ndata 5\nStart")?;
    for index in 0..FILES {
        put(out, index, &random.line())?;
    }
    for number in 0..IMPORTED_COMMITS {
        let branch = number % CONNECTIONS;
        let path = random.below(FILES);
        let message = format!("Change {}", load::path_of(path));
        writeln!(out, "commit refs/heads/agent-{branch}\ncommitter {PERSON}\ndata {}\n{message}", message.len())?;
        if number < CONNECTIONS {
            writeln!(out, "from :1")?;
        }
        put(out, path, &load::content(&mut random))?;
    }
    Ok(())
}

fn put(out: &mut dyn Write, index: usize, content: &str) -> std::io::Result<()> {
    writeln!(out, "M 100644 inline {}\ndata {}\n{content}", load::path_of(index), content.len())
}
