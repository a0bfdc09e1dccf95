//! Lists of references, and fetches: shallow, full, and of what came since.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, sink};
use std::process::Stdio;
use std::time::Duration;

use super::PEER;
use crate::bench::{Bench, progress};
use crate::error::{Context, Result};
use crate::git::{Git, finish};
use crate::history::History;
use crate::http::Client;
use crate::load::repeat::{self, Repeat};
use crate::peer::GitHttp;
use crate::report::{Row, median};
use crate::server::Govc;
use crate::subject::{Subject, measure};
use crate::wire::{self, Fetch};

const SUITE: &str = "fetches";
const LISTERS: usize = 64;
const CLONERS: usize = 8;
const FULL_CLONERS: usize = 2;
/// Different commits that are cloned for the first time, so that clock ticks can tell what one costs.
const FIRST_CLONES: usize = 20;
const NEW_COMMITS: usize = 100;
/// Pushes of one commit, each with a full clone behind it.
const CLONES_AFTER_PUSHES: usize = 5;

/// One kind of request, and what it shall bring.
struct Work {
    what: String,
    requests: Vec<Vec<u8>>,
    connections: usize,
    /// For `git rev-list --objects`: which objects the first request brings; none for a list of references.
    objects: Option<Vec<String>>,
}

pub(super) fn rows(bench: &Bench, history: &History, server: &Govc, peer: &GitHttp) -> Result<Vec<Row>> {
    let git = &bench.git;
    let name = &history.name;
    let tip = one_id(git, history, &history.default_branch(git))?;
    let mut rows = first_clones(bench, history, server, peer, &tip)?;

    let before = one_id(git, history, &format!("{tip}~{NEW_COMMITS}"))?;
    let since = git.lines(&history.path, ["rev-list", "--count", &format!("{before}..{tip}")])?.concat();
    let references = git.references(&history.path)?;
    let all = references.iter().filter_map(|line| line.split(' ').next()).collect();
    let works = [
        Work {
            what: format!("ls-refs of {name} ({} references), {LISTERS} connections", references.len()),
            requests: vec![wire::list_request(&[])],
            connections: LISTERS,
            objects: None,
        },
        Work {
            what: format!("shallow clone of {name}, repeated, {CLONERS} connections"),
            requests: vec![Fetch { wants: vec![&tip], depth: Some(1), ..Fetch::default() }.request()],
            connections: CLONERS,
            objects: Some(vec!["-1".into(), tip.clone()]),
        },
        Work {
            what: format!("fetch of {since} commits of {name}, {CLONERS} connections"),
            requests: vec![Fetch { wants: vec![&tip], haves: vec![&before], ..Fetch::default() }.request()],
            connections: CLONERS,
            objects: Some(vec![tip.clone(), format!("^{before}")]),
        },
        Work {
            what: format!("full clone of {name}, repeated, {FULL_CLONERS} connections"),
            requests: vec![Fetch { wants: all, ..Fetch::default() }.request()],
            connections: FULL_CLONERS,
            objects: Some(vec!["--all".into()]),
        },
    ];
    for work in &works {
        rows.extend(one_work(bench, history, server, peer, work)?);
    }
    rows.extend(clones_after_pushes(bench, history, server, peer, &tip)?);
    Ok(rows)
}

/// Rate, latency and size of one kind of request, beside the peer's.
fn one_work(bench: &Bench, history: &History, server: &Govc, peer: &GitHttp, work: &Work) -> Result<Vec<Row>> {
    let mut verified = true;
    if work.objects.is_some() {
        verified &=
            brings_what_it_shall(bench, history, server, work)? && brings_what_it_shall(bench, history, peer, work)?;
    } else {
        let ours = wire::list(&mut Client::connect(server.address())?, &history.name)?;
        verified &= same_references(ours, wire::list(&mut Client::connect(peer.address())?, &history.name)?);
    }
    let [mut rate, mut peer_rate, mut p99, mut peer_p99, mut size, mut peer_size] = [(); 6].map(|()| Vec::new());
    for number in 1..=bench.runs {
        progress(&format!("{}, run {number} of {}", work.what, bench.runs));
        for (subject, rate, p99, size) in [
            (server as &dyn Subject, &mut rate, &mut p99, &mut size),
            (peer, &mut peer_rate, &mut peer_p99, &mut peer_size),
        ] {
            let outcome = repeat::run(&Repeat {
                address: subject.address(),
                path: &wire::fetch_path(&history.name),
                headers: &wire::FETCH_HEADERS,
                bodies: &work.requests,
                connections: work.connections,
                time: Duration::from_secs(bench.seconds),
            })?;
            rate.push(outcome.rate());
            p99.push(outcome.quantile_millis(0.99));
            size.push(outcome.answer_bytes.1 as f64 / 1024.0);
            // git deltas with several threads, and never makes quite the same pack again.
            verified &= outcome.answer_bytes.0 as f64 > 0.9 * outcome.answer_bytes.1 as f64;
        }
    }
    let row = |what: &str, unit, ours: Vec<f64>, peers: Vec<f64>| {
        let work = format!("{}, {what}", work.what);
        Row::new(SUITE, work, unit, median(ours)).beside(PEER, median(peers)).verified(verified)
    };
    let mut rows = vec![row("rate", "1/s", rate, peer_rate), row("p99", "ms", p99, peer_p99)];
    if work.objects.is_some() {
        rows.push(row("answer", "KiB", size, peer_size));
    }
    Ok(rows)
}

/// What shallow clones cost that nobody has asked for before, of commits spread over the history.
fn first_clones(bench: &Bench, history: &History, server: &Govc, peer: &GitHttp, tip: &str) -> Result<Vec<Row>> {
    let git = &bench.git;
    let name = &history.name;
    let commits = git.lines(&history.path, ["rev-list", "--first-parent", tip])?;
    let step = (commits.len() / FIRST_CLONES).max(1);
    // Only what a reference names may be asked for: branches of both copies do.
    let chosen: Vec<&String> = commits.iter().skip(step / 2).step_by(step).take(FIRST_CLONES).collect();
    for (number, commit) in chosen.iter().enumerate() {
        let reference = format!("refs/bench/{number}");
        git.run(&peer.path(name), ["update-ref", &reference, commit])?;
        let url = server.url(name);
        git.run(&history.path, ["push", "--quiet", &url, &format!("{commit}:{reference}")])?;
    }
    progress(&format!("{} first shallow clones of {name}", chosen.len()));
    let requests: Vec<_> = chosen
        .iter()
        .map(|commit| Fetch { wants: vec![commit], depth: Some(1), ..Fetch::default() }.request())
        .collect();
    let all_once = |subject: &dyn Subject| {
        let mut client = Client::connect(subject.address())?;
        requests.iter().map(|request| wire::send(&mut client, name, request, &mut sink())).sum::<Result<u64>>()
    };
    let (ours, peers) = (measure(server, || all_once(server))?, measure(peer, || all_once(peer))?);
    let mut verified = true;
    for (commit, request) in chosen.iter().zip(requests.iter()).take(3) {
        let objects = Some(vec!["-1".into(), commit.to_string()]);
        let work = Work { what: String::new(), requests: vec![request.clone()], connections: 1, objects };
        verified &= brings_what_it_shall(bench, history, server, &work)?;
    }
    let url = server.url(name);
    for number in 0..chosen.len() {
        let reference = format!("refs/bench/{number}");
        git.run(&peer.path(name), ["update-ref", "-d", &reference])?;
        git.run(&history.path, ["push", "--quiet", &url, &format!(":{reference}")])?;
    }
    let count = chosen.len() as f64;
    let row = |what: &str, unit, ours: f64, peers: f64| {
        let work = format!("shallow clone of {name}, first of its commit, {what}");
        Row::new(SUITE, work, unit, ours / count).beside(PEER, peers / count).verified(verified)
    };
    Ok(vec![
        row("server CPU, git's processes alone", "s", ours.cpu.core, peers.cpu.core),
        row("time", "s", ours.wall.as_secs_f64(), peers.wall.as_secs_f64()),
        row("pack", "KiB", ours.output as f64 / 1024.0, peers.output as f64 / 1024.0),
    ])
}

/// What full clones cost when each follows a push of one commit, so that none is of what was cloned before.
fn clones_after_pushes(bench: &Bench, history: &History, server: &Govc, peer: &GitHttp, tip: &str) -> Result<Vec<Row>> {
    const REFERENCE: &str = "refs/heads/bench-after-push";
    let git = &bench.git;
    let name = &history.name;
    let place = peer.path(name);
    let references = git.references(&history.path)?;
    let all: Vec<&str> = references.iter().filter_map(|line| line.split(' ').next()).collect();
    progress(&format!("{CLONES_AFTER_PUSHES} full clones of {name}, each after a push"));
    let [mut cpu, mut peer_cpu, mut wall, mut peer_wall] = [(); 4].map(|()| Vec::new());
    let (mut parent, mut verified) = (tip.to_owned(), true);
    for number in 0..CLONES_AFTER_PUSHES {
        let tree = format!("{parent}^{{tree}}");
        let message = format!("after push {number}");
        let author = ["-c", "user.name=Bench", "-c", "user.email=bench@example.com"];
        let commit = [&author[..], &["commit-tree", &tree, "-p", &parent, "-m", &message]].concat();
        parent = git.lines(&place, commit)?.concat();
        git.run(&place, ["update-ref", REFERENCE, &parent])?;
        git.run(&place, ["push", "--quiet", &server.url(name), REFERENCE])?;
        let request = Fetch { wants: [&all[..], &[&parent]].concat(), ..Fetch::default() }.request();
        for (subject, cpu, wall) in
            [(server as &dyn Subject, &mut cpu, &mut wall), (peer, &mut peer_cpu, &mut peer_wall)]
        {
            let mut client = Client::connect(subject.address())?;
            let measured = measure(subject, || wire::send(&mut client, name, &request, &mut sink()))?;
            cpu.push(measured.cpu.core);
            wall.push(measured.wall.as_secs_f64());
        }
        if number == 0 {
            let objects = Some(vec!["--all".into()]);
            let place = History { name: name.clone(), path: place.clone() };
            let work = Work { what: String::new(), requests: vec![request], connections: 1, objects };
            verified &= brings_what_it_shall(bench, &place, server, &work)?;
        }
    }
    git.run(&place, ["push", "--quiet", &server.url(name), &format!(":{REFERENCE}")])?;
    git.run(&place, ["update-ref", "-d", REFERENCE])?;
    let row = |what: &str, ours: Vec<f64>, peers: Vec<f64>| {
        let work = format!("full clone of {name} after a push of one commit, {what}");
        Row::new(SUITE, work, "s", median(ours)).beside(PEER, median(peers)).verified(verified)
    };
    Ok(vec![row("server CPU, git's processes alone", cpu, peer_cpu), row("time", wall, peer_wall)])
}

/// Whether git, given the pack, finds the objects in it that it must hold, and none that nobody asked for. What has come
/// back from older commits, a server may send or not.
fn brings_what_it_shall(bench: &Bench, history: &History, subject: &dyn Subject, work: &Work) -> Result<bool> {
    let git = &bench.git;
    let Some((request, objects)) = work.requests.first().zip(work.objects.as_ref()) else { return Ok(true) };
    let folder = bench.fresh_folder()?;
    let pack = folder.path().join("received.pack");
    let mut writer = BufWriter::new(File::create(&pack).context(|| "cannot write a received pack".into())?);
    wire::send(&mut Client::connect(subject.address())?, &history.name, request, &mut writer)?;
    writer.into_inner().context(|| "cannot write a received pack".into())?;
    git.run(folder.path(), ["init", "--quiet", "--bare", "received.git"])?;
    let received = folder.path().join("received.git");
    let mut command = git.command(&received);
    let input = File::open(&pack).context(|| "cannot read a received pack".into())?;
    command.args(["index-pack", "--stdin"]).stdin(Stdio::from(input));
    finish(command)?;
    let listed = |which: &[&str]| {
        let arguments = ["rev-list", "--objects", "--no-object-names"].iter().chain(which);
        git.lines(&history.path, arguments).map(HashSet::<String>::from_iter)
    };
    let all: Vec<&str> = objects.iter().map(String::as_str).collect();
    let (without, of): (Vec<&str>, Vec<&str>) = all.iter().partition(|object| object.starts_with('^'));
    let without: Vec<&str> = without.iter().map(|object| object.trim_start_matches('^')).collect();
    let most = listed(&all)?;
    // Past the newest commits that the client has, git does not look for what it may list.
    let least: HashSet<String> = if without.is_empty() { most.clone() } else { &listed(&of)? - &listed(&without)? };
    let received: HashSet<String> = git.stored_objects(&received)?.into_iter().collect();
    let is_right = least.is_subset(&received) && received.is_subset(&most);
    if !is_right {
        let (missing, more) = (least.difference(&received).count(), received.difference(&most).count());
        progress(&format!("{}: {missing} objects are missing, {more} are too many", work.what));
    }
    Ok(is_right)
}

fn one_id(git: &Git, history: &History, name: &str) -> Result<String> {
    Ok(git.lines(&history.path, ["rev-parse", "--verify", name])?.concat())
}

fn same_references(mut ours: Vec<String>, mut peers: Vec<String>) -> bool {
    ours.sort_unstable();
    peers.sort_unstable();
    ours == peers
}
