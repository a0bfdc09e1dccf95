//! The real client: clones as one waits for them, and pushes, alone and from many at once.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::PEER;
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::generate::import;
use crate::git::{finish, sort_references};
use crate::history::History;
use crate::peer::GitHttp;
use crate::random::Random;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

/// Pushers at once, and pushes of each.
const CREWS: [(usize, usize); 3] = [(1, 20), (8, 10), (32, 4)];
const SHALLOW_TIMES: u32 = 5;
const FILES: usize = 200;

/// Wall time of `git clone --bare`, full and shallow.
pub(super) fn clones(bench: &Bench, history: &History, server: &Govc, peer: &GitHttp) -> Result<Vec<Row>> {
    let name = &history.name;
    let facts = history.facts(&bench.git)?;
    let mut verified = history.verify_remote(&facts, &bench.git, &server.url(name), bench.fresh_folder()?.path())?;
    let [mut full, mut peer_full, mut shallow, mut peer_shallow] = [(); 4].map(|()| Vec::new());
    for number in 1..=bench.runs {
        progress(&format!("real clones of {name}, run {number} of {}", bench.runs));
        for (subject, full, shallow) in
            [(server as &dyn Subject, &mut full, &mut shallow), (peer, &mut peer_full, &mut peer_shallow)]
        {
            full.push(clone(bench, &subject.url(name), &[])?.as_secs_f64());
            for _ in 0..SHALLOW_TIMES {
                shallow.push(clone(bench, &subject.url(name), &["--depth=1"])?.as_secs_f64());
            }
        }
    }
    verified &= full.len() == bench.runs as usize;
    let row = |what: &str, ours, peers| {
        let work = format!("real git client, {what} clone of {name}, wall time");
        Row::new("fetches", work, "s", median(ours)).beside(PEER, median(peers)).verified(verified)
    };
    Ok(vec![row("full", full, peer_full), row("shallow", shallow, peer_shallow)])
}

/// How long a clone takes. What it brought is checked for references only: that objects are missing makes git fail.
fn clone(bench: &Bench, url: &str, options: &[&str]) -> Result<Duration> {
    let folder = bench.fresh_folder()?;
    let path = folder.path().join("copy.git");
    let mut command = bench.git.command(folder.path());
    command.args(["clone", "--quiet", "--bare"]).args(options).arg(url).arg(&path);
    let start = Instant::now();
    finish(command)?;
    let elapsed = start.elapsed();
    bench.git.run(&path, ["rev-parse", "--verify", "HEAD"])?;
    Ok(elapsed)
}

/// Pushes of one commit with the real client, each pusher to its own branch of one repository.
pub(super) fn pushers(bench: &Bench) -> Result<Vec<Row>> {
    let source = Source::make(bench)?;
    let mut rows = Vec::new();
    for (pushers, pushes) in CREWS {
        let [mut rate, mut peer_rate, mut p50, mut peer_p50] = [(); 4].map(|()| Vec::new());
        let mut verified = true;
        for number in 1..=bench.runs {
            progress(&format!("{pushers} real pushers, run {number} of {}", bench.runs));
            let folder = bench.fresh_folder()?;
            let server = Govc::start(&bench.govc, &folder.path().join("data"))?;
            server.create(&NewRepository { name: "crew", default_branch: "main", durability: "durable" })?;
            let peer = GitHttp::start(&bench.git, &folder.path().join("repositories"))?;
            peer.create(&bench.git, "crew")?;
            for (subject, rate, p50) in
                [(&server as &dyn Subject, &mut rate, &mut p50), (&peer, &mut peer_rate, &mut peer_p50)]
            {
                let (elapsed, mut each) = source.push(bench, &subject.url("crew"), pushers, pushes)?;
                rate.push((pushers * pushes) as f64 / elapsed.as_secs_f64());
                p50.append(&mut each);
                verified &= source.arrived(bench, &subject.url("crew"), pushers, pushes)?;
            }
            server.stop()?;
        }
        let row = |what: &str, unit, ours, peers| {
            let who = if pushers == 1 { "alone".to_owned() } else { format!("{pushers} at once") };
            let work = format!("real git client, push of one commit, {who}, {what}");
            let peer = format!("{PEER}, core.fsync as it comes");
            Row::new("pushes", work, unit, median(ours))
                .beside(peer, median(peers))
                .durability("durable")
                .verified(verified)
        };
        rows.push(if pushers == 1 { row("p50", "s", p50, peer_p50) } else { row("rate", "1/s", rate, peer_rate) });
    }
    Ok(rows)
}

/// A repository with all commits that will be pushed, each named by `refs/steps/<pusher>/<push>`.
struct Source {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Source {
    fn make(bench: &Bench) -> Result<Source> {
        let folder = bench.fresh_folder()?;
        let path = folder.path().join("source.git");
        let mut command = bench.git.command(folder.path());
        command.args(["init", "--quiet", "--bare"]).arg(&path);
        finish(command)?;
        import(&bench.git, &path, |out| {
            let mut random = Random::new(8);
            let mut text = || (0..20).map(|_| random.line() + "\n").collect::<String>();
            let who = "committer Bench <bench@example.com>";
            write!(out, "commit refs/heads/main\nmark :1\n{who} 1700000000 +0000\ndata 6\nStart\n\n")?;
            for file in 0..FILES {
                let text = text();
                write!(out, "M 644 inline {}\ndata {}\n{text}\n", path_of(file), text.len())?;
            }
            for (pusher, push) in most_steps() {
                let from = if push == 0 { 1 } else { mark_of(pusher, push - 1) };
                let (file, text) = (path_of(pusher * 7 + push), text());
                let mark = mark_of(pusher, push);
                write!(out, "commit refs/steps/{pusher}/{push}\nmark :{mark}\n{who} {} +0000\n", 1_700_000_001 + push)?;
                write!(out, "data 7\nChange\n\nfrom :{from}\nM 644 inline {file}\ndata {}\n{text}\n", text.len())?;
            }
            Ok(())
        })?;
        bench.git.run(&path, ["pack-refs", "--all"])?;
        Ok(Source { path, _folder: folder })
    }

    /// Time of all, and of each push in seconds.
    fn push(&self, bench: &Bench, url: &str, pushers: usize, pushes: usize) -> Result<(Duration, Vec<f64>)> {
        bench.git.run(&self.path, ["push", "--quiet", url, "refs/heads/main"])?;
        let start = Instant::now();
        let each = thread::scope(|scope| {
            let crew: Vec<_> = (0..pushers)
                .map(|pusher| {
                    scope.spawn(move || (0..pushes).map(|push| self.push_step(bench, url, pusher, push)).collect())
                })
                .collect();
            let mut each = Vec::new();
            for pusher in crew {
                let times: Result<Vec<f64>> = pusher.join().map_err(|_| Error::new("a pusher panicked"))?;
                each.extend(times?);
            }
            Ok::<_, Error>(each)
        })?;
        Ok((start.elapsed(), each))
    }

    fn push_step(&self, bench: &Bench, url: &str, pusher: usize, push: usize) -> Result<f64> {
        let start = Instant::now();
        let what = format!("refs/steps/{pusher}/{push}:refs/heads/agent-{pusher}");
        bench.git.run(&self.path, ["push", "--quiet", url, &what])?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Whether each branch is where its last push left it, and a clone finds all that they reach.
    fn arrived(&self, bench: &Bench, url: &str, pushers: usize, pushes: usize) -> Result<bool> {
        let git = &bench.git;
        let id = |name: &str| Ok::<_, Error>(git.lines(&self.path, ["rev-parse", "--verify", name])?.concat());
        let mut expected = vec![format!("{} refs/heads/main", id("refs/heads/main")?)];
        for pusher in 0..pushers {
            let last = id(&format!("refs/steps/{pusher}/{}", pushes - 1))?;
            expected.push(format!("{last} refs/heads/agent-{pusher}"));
        }
        sort_references(&mut expected);
        let folder = bench.fresh_folder()?;
        let path: &Path = &folder.path().join("copy.git");
        let mut command = git.command(folder.path());
        command.args(["clone", "--quiet", "--mirror", url]).arg(path);
        finish(command)?;
        git.run(path, ["fsck", "--connectivity-only"]).context(|| "what was pushed is not whole".into())?;
        Ok(git.references(path)? == expected)
    }
}

/// What the largest crews need.
fn most_steps() -> impl Iterator<Item = (usize, usize)> {
    let pushers = CREWS.iter().map(|(pushers, _)| *pushers).max().unwrap_or(0);
    let steps =
        move |pusher: usize| CREWS.iter().filter(move |(pushers, _)| *pushers > pusher).map(|(_, steps)| *steps).max();
    (0..pushers).flat_map(move |pusher| (0..steps(pusher).unwrap_or(0)).map(move |push| (pusher, push)))
}

fn mark_of(pusher: usize, push: usize) -> usize {
    2 + pusher * 1000 + push
}

fn path_of(file: usize) -> String {
    format!("part{}/file{}.txt", file / 10 % (FILES / 10), file % 10)
}
