//! Searches beside other work: how soon what is published is found, how many can search at once, and what indexing costs
//! those who publish.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::SUITE;
use super::asked::{Searcher, results};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::http::Client;
use crate::load::commits::{self, Load};
use crate::load::quantile_millis;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::{Subject, measure};

/// Commits whose visibility is measured while nothing else goes on.
const QUIET_COMMITS: usize = 300;
const STEADY_CONNECTIONS: usize = 16;
const STEADY_PAUSE: Duration = Duration::from_millis(30);
const SEARCHERS: usize = 32;
const COMMITTERS: usize = 64;
/// Searches that do not find what was acknowledged before they are given up.
const TRIES_MAX: usize = 1000;

/// From the acknowledgement of a commit to the answer of a search that finds it; alone, and under a steady load.
pub(super) fn visibility(bench: &Bench, server: &Govc, repository: &str) -> Result<Vec<Row>> {
    progress("search: visible after publishing");
    let mut tokens = 0;
    let quiet = visible(server, repository, &mut tokens, |done| done < QUIET_COMMITS)?;
    server.create(&NewRepository { name: "steady", default_branch: "main", durability: "durable" })?;
    let load = Load {
        address: server.address(),
        repository: "steady",
        connections: STEADY_CONNECTIONS,
        time: Duration::from_secs(bench.seconds * u64::from(bench.runs)),
        pause: STEADY_PAUSE,
    };
    let over = AtomicBool::new(false);
    let (outcome, busy) = thread::scope(|scope| {
        let committing = scope.spawn(|| {
            let outcome = commits::run(&load);
            over.store(true, Ordering::Relaxed);
            outcome
        });
        // The load's first commits are over.
        thread::sleep(Duration::from_millis(500));
        let busy = visible(server, repository, &mut tokens, |_| !over.load(Ordering::Relaxed));
        let outcome = committing.join().map_err(|_| Error::new("a thread of the bench panicked"))?;
        Ok::<_, Error>((outcome?, busy?))
    })?;
    let rate = outcome.rate();
    let row = |when: &str, seen: &Visible| {
        let work = format!("from a commit's acknowledgement to the answer that has it, {when}, p99");
        // What the first search does not find makes the row a wrong one.
        let p99 = quantile_millis(&seen.micros, 0.99);
        Row::new(SUITE, work, "ms", p99).durability("durable").verified(seen.missed == 0)
    };
    Ok(vec![
        row(&format!("{} commits one by one", quiet.micros.len()), &quiet),
        row(&format!("{} commits beside {rate:.0} others a second", busy.micros.len()), &busy),
    ])
}

/// What it took until commits were found.
struct Visible {
    /// Sorted.
    micros: Vec<u32>,
    /// Searches that did not find what had been acknowledged.
    missed: usize,
}

fn visible(server: &Govc, repository: &str, tokens: &mut u64, goes_on: impl Fn(usize) -> bool) -> Result<Visible> {
    let mut client = Client::connect(server.address())?;
    let mut searcher = Searcher::connect(server, repository)?;
    let path = format!("/api/v1/repos/{repository}/commits");
    let mut seen = Visible { micros: Vec::new(), missed: 0 };
    while goes_on(seen.micros.len()) {
        *tokens += 1;
        let token = format!("visible-token-{tokens:06}-end");
        let put =
            json!({"op": "put", "path": format!("visible/{}.txt", *tokens % 100), "content": format!("{token}\n")});
        let body = json!({"branch": "main", "message": "Change", "changes": [put]});
        client.post_json(&path, &body)?;
        let acknowledged = Instant::now();
        let query = format!("case:yes content:\"{token}\"");
        let mut tries = 0;
        while !searcher.finds(&query)? {
            tries += 1;
            if tries > TRIES_MAX {
                return Err(Error::new(format!("a commit with {token} was acknowledged and is not found")));
            }
        }
        seen.missed += tries;
        seen.micros.push(u32::try_from(acknowledged.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    seen.micros.sort_unstable();
    Ok(seen)
}

/// Pages a second that one and many searchers get, each going through all queries.
pub(super) fn searchers(bench: &Bench, server: &Govc, repository: &str, queries: &[String]) -> Result<Vec<Row>> {
    let mut first = Searcher::connect(server, repository)?;
    let pages = queries.iter().map(|query| first.page(query)).collect::<Result<Vec<_>>>()?;
    let expected: Vec<(&str, &str)> =
        queries.iter().zip(&pages).map(|(query, page)| (query.as_str(), results(page))).collect();
    let [mut rates, mut p99s, mut rates_of_one, mut p99s_of_one] = [(); 4].map(|()| Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        for (count, rates, p99s) in [(1, &mut rates_of_one, &mut p99s_of_one), (SEARCHERS, &mut rates, &mut p99s)] {
            progress(&format!("search: {count} at once, run {number} of {}", bench.runs));
            let (rate, p99, right) = at_once(bench, server, repository, &expected, count)?;
            rates.push(rate);
            p99s.push(p99);
            verified &= right;
        }
    }
    let row = |what: &str, unit, values, ones| {
        let work = format!("pages over HTTP, all queries in turn, {SEARCHERS} searchers at once, {what}");
        Row::new(SUITE, work, unit, median(values)).beside("one searcher", median(ones)).verified(verified)
    };
    Ok(vec![row("rate", "1/s", rates, rates_of_one), row("p99", "ms", p99s, p99s_of_one)])
}

fn at_once(
    bench: &Bench,
    server: &Govc,
    repository: &str,
    expected: &[(&str, &str)],
    count: usize,
) -> Result<(f64, f64, bool)> {
    let until = Instant::now() + Duration::from_secs(bench.seconds);
    let begun = Instant::now();
    let done = thread::scope(|scope| {
        let searching: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || -> Result<(Vec<u32>, bool)> {
                    let mut searcher = Searcher::connect(server, repository)?;
                    let (mut taken, mut right) = (Vec::new(), true);
                    // Each begins elsewhere, so that not all ask the same at the same time.
                    let mut turns = expected.iter().cycle().skip(number * expected.len() / count);
                    while Instant::now() < until {
                        let (query, wanted) = turns.next().context(|| "there are no queries".into())?;
                        let start = Instant::now();
                        let page = searcher.page(query)?;
                        taken.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
                        right &= results(&page) == *wanted;
                    }
                    Ok((taken, right))
                })
            })
            .collect();
        let joined = searching.into_iter().map(|one| one.join().map_err(|_| Error::new("a searcher panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    let elapsed = begun.elapsed().as_secs_f64();
    let right = done.iter().all(|(_, right)| *right);
    let mut taken: Vec<u32> = done.into_iter().flat_map(|(taken, _)| taken).collect();
    taken.sort_unstable();
    Ok((taken.len() as f64 / elapsed, quantile_millis(&taken, 0.99), right))
}

/// Commits a second with and without a search index, and the server's CPU time of each.
pub(super) fn publishing(bench: &Bench) -> Result<Vec<Row>> {
    let [mut rates, mut cpus, mut rates_without, mut cpus_without] = [(); 4].map(|()| Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        for (enabled, rates, cpus) in
            [("true", &mut rates, &mut cpus), ("false", &mut rates_without, &mut cpus_without)]
        {
            progress(&format!("search: publishing, index: {enabled}, run {number} of {}", bench.runs));
            let folder = bench.fresh_folder()?;
            let settings = [("GOVC_SEARCH_ENABLED", enabled), ("GOVC_COMPACTION_ENABLED", "false")];
            let server = Govc::start_with(&bench.govc, &folder.path().join("data"), &settings)?;
            server.create(&NewRepository { name: "commits", default_branch: "main", durability: "durable" })?;
            let load = Load {
                address: server.address(),
                repository: "commits",
                connections: COMMITTERS,
                time: Duration::from_secs(bench.seconds),
                pause: Duration::ZERO,
            };
            let cost = measure(&server, || commits::run(&load))?;
            let commits = cost.output.acknowledged.len().max(1) as f64;
            rates.push(cost.output.rate());
            cpus.push(cost.cpu.whole * 1e6 / commits);
            let url = server.url("commits");
            verified &= crate::suite::commits::holds_all(&bench.git, &url, &cost.output.acknowledged, folder.path())?;
            server.stop()?;
        }
    }
    let row = |what: &str, unit, values, without| {
        let work = format!("one-file commits over HTTP, {COMMITTERS} connections, with a search index, {what}");
        Row::new(SUITE, work, unit, median(values))
            .durability("durable")
            .verified(verified)
            .beside("without one", median(without))
    };
    Ok(vec![row("rate", "1/s", rates, rates_without), row("server CPU per commit", "us", cpus, cpus_without)])
}
