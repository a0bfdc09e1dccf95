//! Commits by their messages, beside `git log --grep` on the same history.

use std::time::Instant;

use super::SUITE;
use super::asked::percent_encoded;
use super::geomean;
use crate::bench::{Bench, progress};
use crate::error::{Context, Result};
use crate::history::History;
use crate::http::Client;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

/// Common in most histories, rare, in the generated one, and nowhere.
const WORDS: [&str; 6] = ["fix", "memory leak", "Merge", "Change 12", "measurements", "nowhere_qzx"];

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for history in &bench.histories {
        rows.extend(one_history(bench, history)?);
    }
    Ok(rows)
}

fn one_history(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    progress(&format!("search: messages of {}", history.name));
    let folder = bench.fresh_folder()?;
    let server = Govc::start_with(&bench.govc, &folder.path().join("data"), &[("GOVC_COMPACTION_ENABLED", "false")])?;
    let branch = &history.default_branch(&bench.git);
    server.create(&NewRepository { name: &history.name, default_branch: branch, durability: "durable" })?;
    history.push(&bench.git, &server.url(&history.name))?;
    let commits = bench.git.lines(&history.path, ["rev-list", "--count", "--all"])?;
    let commits = commits.first().and_then(|count| count.parse().ok()).context(|| "git counts no commits".into())?;
    super::asked::await_all(&server, commits)?;
    let mut client = Client::connect(server.address())?;
    let [mut all, mut page, mut git_all, mut git_page] = [(); 4].map(|()| Vec::new());
    let mut verified = true;
    for word in WORDS {
        let mut ask = |more: &str| -> Result<(u64, f64)> {
            let query = percent_encoded(&format!("case:yes message:\"{word}\"{more}"));
            let path = format!("/api/v1/repos/{}/search/commits?limit=50&q={query}", history.name);
            timed(bench.runs + 1, || {
                let found = client.get_json(&path)?["total_commits"].as_u64();
                found.context(|| "an answer has no total".into())
            })
        };
        let ((count, taken), (_, taken_page)) = (ask(" count:all")?, ask("")?);
        let git = |more: &[&str]| {
            let grep = format!("--grep={word}");
            let arguments = [&["log", "--format=%H", "--fixed-strings", &grep], more, &[branch]].concat();
            timed(bench.runs, || Ok(bench.git.lines(&history.path, &arguments)?.len() as u64))
        };
        let ((git_count, git_taken), (_, git_taken_page)) = (git(&[])?, git(&["--max-count=50"])?);
        if count != git_count {
            progress(&format!("search: {count} messages with {word:?}, by git {git_count}"));
            verified = false;
        }
        all.push(taken);
        page.push(taken_page);
        git_all.push(git_taken);
        git_page.push(git_taken_page);
    }
    server.stop()?;
    let row = |work: &str, peer: &str, values: &[f64], peers: &[f64]| {
        let work = format!("messages of {}, {} queries over HTTP, {work}, geomean", history.name, WORDS.len());
        Row::new(SUITE, work, "ms", geomean(values)).beside(peer, geomean(peers)).verified(verified)
    };
    Ok(vec![
        row("all counted", "git log --grep", &all, &git_all),
        row("page of 50", "git log --grep --max-count=50", &page, &git_page),
    ])
}

/// The result of the last run, and the median of their milliseconds.
fn timed(runs: u32, mut work: impl FnMut() -> Result<u64>) -> Result<(u64, f64)> {
    let (mut last, mut taken) = (0, Vec::new());
    for _ in 0..runs {
        let start = Instant::now();
        last = work()?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((last, median(taken)))
}
