//! How fast are reads of one hot file over HTTP, and do writers hold them up?
//!
//! `wrk` with 64 connections asks for a file of 1 KiB: from govc as `raw` at the default branch, and from nginx as a
//! static file of the same bytes. Both log every request, as they do out of the box. Then the same file is read at a
//! steady rate, first alone and then while a writer commits to the same repository without a pause.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::http::Client;
use crate::load::commits::{self, Load};
use crate::load::reads::{self, Reads};
use crate::nginx::{Nginx, find_program};
use crate::random::Random;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

const SUITE: &str = "reads";
const REPOSITORY: &str = "reads";
const FILE: &str = "hot.txt";
const FILE_BYTES: usize = 1024;
const HOT_CONNECTIONS: u32 = 64;
const STEADY_CONNECTIONS: u32 = 16;
const STEADY_RATE: u32 = 2000;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut random = Random::new(1);
    let mut content = String::new();
    while content.len() < FILE_BYTES {
        content.push_str(&random.line());
        content.push('\n');
    }
    content.truncate(FILE_BYTES);
    let mut rows = hot(bench, &content)?;
    rows.extend(beside_a_writer(bench, &content)?);
    Ok(rows)
}

fn start(bench: &Bench, content: &str) -> Result<(Govc, TempDir)> {
    let folder = bench.fresh_folder()?;
    let server = Govc::start(&bench.govc, &folder.path().join("data"))?;
    server.create(&NewRepository { name: REPOSITORY, default_branch: "main", durability: "durable" })?;
    let body = serde_json::json!({
        "branch": "main",
        "message": "Add a file",
        "changes": [{"op": "put", "path": FILE, "content": content}],
    });
    let path = format!("/api/v1/repos/{REPOSITORY}/commits");
    Client::connect(server.address())?.post_json(&path, &body)?;
    Ok((server, folder))
}

fn raw_path() -> String {
    format!("/api/v1/repos/{REPOSITORY}/raw/{FILE}")
}

fn hot(bench: &Bench, content: &str) -> Result<Vec<Row>> {
    let (server, _folder) = start(bench, content)?;
    let files = StaticFiles::start(content)?;
    let (mut ours, mut peers, mut p99, mut peer_p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("reads, hot, run {number} of {}", bench.runs));
        let ours_now = wrk(&format!("http://{}{}", server.address(), raw_path()), bench.seconds)?;
        let peers_now = wrk(&format!("http://{}/{FILE}", files.nginx.address()), bench.seconds)?;
        for (wrk, rates, p99s) in [(ours_now, &mut ours, &mut p99), (peers_now, &mut peers, &mut peer_p99)] {
            // wrk does not look at bodies; that each answer has the file's bytes and more is told by their sum.
            verified &= wrk.bytes_per_request > FILE_BYTES as f64;
            rates.push(wrk.rate);
            p99s.push(wrk.p99_millis);
        }
    }
    for (address, path) in [(server.address(), raw_path()), (files.nginx.address(), format!("/{FILE}"))] {
        let time = Duration::from_millis(200);
        let reads = Reads { address, path: &path, content: content.as_bytes(), connections: 4, rate: 1000, time };
        verified &= reads::run(&reads)?.len() > 0;
    }
    server.stop()?;
    let row = |what: &str, unit, ours, peers| {
        let work = format!("hot file of 1 KiB over HTTP, wrk -c{HOT_CONNECTIONS}, {what}");
        Row::new(SUITE, work, unit, median(ours)).beside("nginx, static file", median(peers)).verified(verified)
    };
    Ok(vec![row("rate", "1/s", ours, peers), row("p99", "ms", p99, peer_p99)])
}

fn beside_a_writer(bench: &Bench, content: &str) -> Result<Vec<Row>> {
    let [mut idle, mut busy, mut idle_median, mut busy_median, mut written] = [(); 5].map(|()| Vec::new());
    let time = Duration::from_secs(bench.seconds);
    for number in 1..=bench.runs {
        progress(&format!("reads, beside a writer, run {number} of {}", bench.runs));
        let (server, _folder) = start(bench, content)?;
        let path = raw_path();
        let address = server.address();
        let connections = STEADY_CONNECTIONS;
        let steady = Reads { address, path: &path, content: content.as_bytes(), connections, rate: STEADY_RATE, time };
        let alone = reads::run(&steady)?;
        idle.push(alone.quantile_millis(0.99));
        idle_median.push(alone.quantile_millis(0.5));
        let storm = Load {
            address,
            repository: REPOSITORY,
            connections: 1,
            time: time + Duration::from_secs(1),
            pause: Duration::ZERO,
        };
        let (beside, storm) = thread::scope(|scope| {
            let storm = scope.spawn(|| commits::run(&storm));
            // Until the writer is at work.
            thread::sleep(Duration::from_millis(500));
            let beside = reads::run(&steady)?;
            let storm = storm.join().map_err(|_| Error::new("the writer panicked"))??;
            Ok::<_, Error>((beside, storm))
        })?;
        busy.push(beside.quantile_millis(0.99));
        busy_median.push(beside.quantile_millis(0.5));
        written.push(storm.rate());
        server.stop()?;
    }
    let writer = format!("while one connection makes {:.0} durable commits a second", median(written));
    let row = |what: &str, busy, idle| {
        // Every answer was compared: a read of anything else ends the run.
        let work = format!("{STEADY_RATE} reads a second on {STEADY_CONNECTIONS} connections, {writer}, {what}");
        Row::new(SUITE, work, "ms", median(busy)).beside("the same without the writer", median(idle)).verified(true)
    };
    Ok(vec![row("p99", busy, idle), row("p50", busy_median, idle_median)])
}

/// nginx over a folder with one file.
struct StaticFiles {
    nginx: Nginx,
    _folder: TempDir,
}

impl StaticFiles {
    fn start(content: &str) -> Result<StaticFiles> {
        let folder = tempfile::tempdir().context(|| "cannot make a temporary folder".into())?;
        let root = folder.path().join("files");
        let write = || "cannot write nginx's file".into();
        fs::create_dir(&root).context(write)?;
        fs::write(root.join(FILE), content).context(write)?;
        let root = crate::nginx::quotable(&root)?;
        let log = folder.path().join("access.log");
        let http = format!(
            "  access_log \"{}\";\n  sendfile on;\n  open_file_cache max=100;\n  keepalive_requests 1000000000;\n",
            crate::nginx::quotable(&log)?
        );
        let nginx = Nginx::start(folder.path(), &http, &format!("    root \"{root}\";\n"))?;
        Ok(StaticFiles { nginx, _folder: folder })
    }
}

/// What wrk says.
struct Wrk {
    rate: f64,
    p99_millis: f64,
    bytes_per_request: f64,
}

fn wrk(url: &str, seconds: u64) -> Result<Wrk> {
    let mut command = Command::new(find_program("wrk")?);
    command.args(["-t1", &format!("-c{HOT_CONNECTIONS}"), &format!("-d{seconds}s"), "-s"]);
    let folder = tempfile::tempdir().context(|| "cannot make a temporary folder".into())?;
    let script = folder.path().join("summary.lua");
    fs::write(&script, SUMMARY).context(|| "cannot write wrk's script".into())?;
    let output = command.arg(&script).arg(url).output().context(|| "cannot start wrk".into())?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Figures in full instead of wrk's own table, which rounds them.
const SUMMARY: &str = "done = function(summary, latency)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format(\"figures %d %d %d %f %d\\n\",
    summary.requests, summary.duration, summary.bytes, latency:percentile(99.0), failed))
end
";

fn parse(output: &str) -> Result<Wrk> {
    let figures = output.lines().find_map(|line| line.strip_prefix("figures "));
    let numbers: Vec<f64> = figures.unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [requests, micros, bytes, p99_micros, 0.0] if requests > 0.0 && micros > 0.0 => {
            Ok(Wrk { rate: requests / micros * 1e6, p99_millis: p99_micros / 1e3, bytes_per_request: bytes / requests })
        }
        _ => Err(Error::new(format!("wrk failed: {}", output.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn figures_of_wrk() {
        let wrk = parse("Running 1s test\nfigures 1000 2000000 1500000 1234.5 0\n").unwrap();
        assert_eq!((wrk.rate, wrk.p99_millis, wrk.bytes_per_request), (500.0, 1.2345, 1500.0));
        assert!(parse("figures 1000 2000000 1500000 1234.5 3").is_err(), "three requests failed");
        assert!(parse("unable to connect").is_err());
    }
}
