//! What does a full clone cost the server, and how many bytes does it send?
//!
//! A raw client replays the requests of `git clone` and drops the pack, so that only the server is
//! measured. The peer serves a copy that `git repack -adq` has put into one pack, once without bitmaps
//! and once with them. govc is measured twice as well: the first clone after a start, with nothing in
//! memory but what opening brings, and the clones after it. The file system's cache is warm for all.
//!
//! Those copy the pack that was kept of the push. What a clone costs of which nothing is kept has rows of its own: of what
//! is stored as it was pushed, and compacted. Indexing and compaction beside it are off.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::Stdio;

use crate::bench::{Bench, progress};
use crate::error::{Context, Result};
use crate::git::{Git, finish, sort_references};
use crate::history::{Facts, History};
use crate::http::Client;
use crate::peer::GitHttp;
use crate::report::{Row, median};
use crate::server::{ALONE, Govc, NewRepository};
use crate::subject::{Cost, Subject, measure, measure_repeated};
use crate::wire;

const SUITE: &str = "clone";
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const REPACK: [&str; 5] = ["repack", "-adq", "--window=50", "--depth=50", "--no-write-bitmap-index"];
const REPACK_BITMAPS: [&str; 5] = ["repack", "-adq", "--window=50", "--depth=50", "--write-bitmap-index"];

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for history in &bench.histories {
        rows.extend(one_history(bench, history)?);
    }
    Ok(rows)
}

/// What each run gave; the bytes are the same in all.
#[derive(Default)]
struct Figures {
    cpu: Vec<f64>,
    whole_cpu: Vec<f64>,
    wall: Vec<f64>,
    mebibytes: Vec<f64>,
}

impl Figures {
    fn add(&mut self, cost: &Cost<u64>) {
        self.cpu.push(cost.cpu.core);
        self.whole_cpu.push(cost.cpu.whole);
        self.wall.push(cost.wall.as_secs_f64());
        self.mebibytes.push(cost.output as f64 / MEBIBYTE);
    }
}

fn one_history(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    let git = &bench.git;
    let name = &history.name;
    let facts = history.facts(git)?;
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    progress(&format!("clone of {name}: filling govc and the peer"));
    let server = Govc::start_with(&bench.govc, &data, &ALONE)?;
    let default_branch = &history.default_branch(git);
    server.create(&NewRepository { name, default_branch, durability: "durable" })?;
    history.push(git, &server.url(name))?;
    server.stop()?;
    let peer = GitHttp::start(git, &folder.path().join("repositories"))?;
    copy(git, history, &peer.path("plain"), &REPACK)?;
    copy(git, history, &peer.path("bitmap"), &REPACK_BITMAPS)?;

    let [mut first, mut again, mut plain, mut bitmap] = [(); 4].map(|()| Figures::default());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("clone of {name}, run {number} of {}", bench.runs));
        let server = Govc::start_with(&bench.govc, &data, &ALONE)?;
        first.add(&measure(&server, || clone_into_nothing(&server, name))?);
        again.add(&measure_repeated(&server, || clone_into_nothing(&server, name))?);
        if number == bench.runs {
            verified = verify(git, &server, name, &facts, folder.path())?;
        }
        server.stop()?;
        plain.add(&measure_repeated(&peer, || clone_into_nothing(&peer, "plain"))?);
        bitmap.add(&measure_repeated(&peer, || clone_into_nothing(&peer, "bitmap"))?);
    }
    let [mut made, mut compacted] = [(); 2].map(|()| Figures::default());
    for figures in [&mut made, &mut compacted] {
        progress(&format!("clone of {name}, of which nothing is kept"));
        for number in 1..=bench.runs {
            let packs = data.join("packs");
            std::fs::remove_dir_all(&packs).context(|| format!("cannot remove {}", packs.display()))?;
            let server = Govc::start_with(&bench.govc, &data, &ALONE)?;
            figures.add(&measure(&server, || clone_into_nothing(&server, name))?);
            if number == bench.runs {
                verified &= verify(git, &server, name, &facts, bench.fresh_folder()?.path())?;
            }
            server.stop()?;
        }
        finish(Govc::command(&bench.govc, "compact", &data))?;
    }

    let row = |work: &str, unit, values: &[f64]| {
        Row::new(SUITE, format!("full clone of {name}, {work}"), unit, median(values.to_vec())).verified(verified)
    };
    let beside = |row: Row, peer: &str, values: &[f64]| row.beside(peer, median(values.to_vec()));
    let (without, with) = ("git upload-pack, repacked, no bitmaps", "git upload-pack, repacked, bitmaps");
    let whole = "nginx + fcgiwrap + git, bitmaps";
    let after_start = "server CPU, first after a start";
    Ok(vec![
        beside(row(after_start, "s", &first.cpu), without, &plain.cpu),
        beside(row(after_start, "s", &first.cpu), with, &bitmap.cpu),
        beside(row("server CPU, again", "s", &again.cpu), without, &plain.cpu),
        beside(row("server CPU, again", "s", &again.cpu), with, &bitmap.cpu),
        beside(row("server CPU, again", "s", &again.whole_cpu), whole, &bitmap.whole_cpu),
        beside(row("pack", "MiB", &first.mebibytes), without, &plain.mebibytes),
        beside(row("pack", "MiB", &first.mebibytes), with, &bitmap.mebibytes),
        beside(row("wall time, again", "s", &again.wall), whole, &bitmap.wall),
        beside(row("server CPU, nothing kept", "s", &made.cpu), without, &plain.cpu),
        beside(row("pack, nothing kept", "MiB", &made.mebibytes), without, &plain.mebibytes),
        beside(row("server CPU, nothing kept, compacted", "s", &compacted.cpu), without, &plain.cpu),
        beside(row("pack, nothing kept, compacted", "MiB", &compacted.mebibytes), without, &plain.mebibytes),
    ])
}

/// Makes the peer's copy: the same references, one pack.
fn copy(git: &Git, history: &History, path: &Path, repack: &[&str]) -> Result<()> {
    let mut command = git.command(&history.path);
    command.args(["clone", "--quiet", "--mirror", "--no-hardlinks"]).arg(&history.path).arg(path);
    finish(command)?;
    git.run(path, repack).map(drop)
}

fn clone_into_nothing(subject: &dyn Subject, repository: &str) -> Result<u64> {
    let mut client = Client::connect(subject.address())?;
    let references = wire::list(&mut client, repository)?;
    wire::fetch(&mut client, repository, &references, &mut std::io::sink())
}

/// Fetches once more, has git index the pack, and compares references and objects with the source.
fn verify(git: &Git, server: &Govc, repository: &str, facts: &Facts, folder: &Path) -> Result<bool> {
    let path = folder.join("received.git");
    let pack = folder.join("received.pack");
    git.run(folder, ["init", "--quiet", "--bare", "received.git"])?;
    let mut client = Client::connect(server.address())?;
    let all = wire::list(&mut client, repository)?;
    let file = File::create(&pack).context(|| "cannot write a received pack".into())?;
    let mut writer = BufWriter::new(file);
    wire::fetch(&mut client, repository, &all, &mut writer)?;
    writer.into_inner().context(|| "cannot write a received pack".into())?;

    let mut command = git.command(&path);
    let input = File::open(&pack).context(|| "cannot read a received pack".into())?;
    command.args(["index-pack", "--stdin"]).stdin(Stdio::from(input));
    finish(command)?;
    let mut references: Vec<String> = all.into_iter().filter(|line| !line.ends_with(" HEAD")).collect();
    sort_references(&mut references);
    Ok(references == facts.references && git.stored_objects(&path)? == facts.objects)
}
