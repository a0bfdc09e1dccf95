//! Branches, realities and forks, in process. Branches are peered with `git update-ref --stdin` (files, one transaction).

use std::process::Stdio;
use std::time::{Duration, Instant};

use govc_engine::{Expected, NewRealities, Oid, RefEdit, RefName, Repo, RepoName};

use super::{SUITE, branch, commits::SHAPES, create, feed, load::load, open, publish, request};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::history::History;
use crate::random::Random;
use crate::report::{Row, median};

/// Branches of the call that makes many, and of those made one by one.
const BRANCHES_AT_ONCE: usize = 1000;
const BRANCHES_ONE_BY_ONE: usize = 100_000;
const REALITIES: usize = 1000;
const FORKS: usize = 10_000;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = branches(bench)?;
    rows.push(realities(bench)?);
    for history in &bench.histories {
        rows.push(forks(bench, history)?);
    }
    Ok(rows)
}

fn edits(names: &[RefName], target: Oid) -> Vec<RefEdit> {
    names.iter().map(|name| RefEdit { name: name.clone(), expected: Expected::Absent, target: Some(target) }).collect()
}

fn branches(bench: &Bench) -> Result<Vec<Row>> {
    let names = |count: usize| (0..count).map(|at| branch(&format!("agent/{at:06}"))).collect::<Result<Vec<_>>>();
    let (mut at_once, mut one_by_one) = (Vec::new(), Vec::new());
    let (mut git_at_once, mut git_one_by_one) = (Vec::new(), Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("engine, branches, run {number} of {}", bench.runs));
        let store = open()?;
        let repo = create(&store, "branches")?;
        let mut random = Random::new(1);
        let first = repo.commit(request(&branch("main")?, SHAPES[0].all(&mut random), None)?);
        let target = first.context(|| "commit".into())?.oid;

        let (few, many) = (names(BRANCHES_AT_ONCE)?, names(BRANCHES_ONE_BY_ONE)?);
        let mut taken = Vec::new();
        for _ in 0..20 {
            let repo = create(&store, &format!("at-once-{}", taken.len()))?;
            let mut random = Random::new(1);
            let first = repo.commit(request(&branch("main")?, SHAPES[0].all(&mut random), None)?);
            let target = first.context(|| "commit".into())?.oid;
            let edits = edits(&few, target);
            let start = Instant::now();
            publish(&repo, edits)?;
            taken.push(start.elapsed().as_secs_f64() * 1e3);
            verified &= repo.snapshot().reference_count() == BRANCHES_AT_ONCE + 1;
        }
        at_once.push(median(taken));

        let start = Instant::now();
        for name in &many {
            publish(&repo, edits(std::slice::from_ref(name), target))?;
        }
        one_by_one.push(BRANCHES_ONE_BY_ONE as f64 / start.elapsed().as_secs_f64());
        let snapshot = repo.snapshot();
        verified &= many.iter().all(|name| snapshot.reference(name) == Some(target));

        git_at_once.push(git_branches(bench, &few)? * 1e3);
        git_one_by_one.push(BRANCHES_ONE_BY_ONE as f64 / git_branches(bench, &many)?);
    }
    let done = |row: Row| row.durability("memory").verified(verified);
    let work = format!("{BRANCHES_AT_ONCE} branches in one call");
    let once = Row::new(SUITE, work, "ms", median(at_once)).beside("git update-ref --stdin", median(git_at_once));
    let work = format!("{BRANCHES_ONE_BY_ONE} branches one by one (git: in one transaction)");
    let each = Row::new(SUITE, work, "1/s", median(one_by_one));
    Ok(vec![done(once), done(each.beside("git update-ref --stdin", median(git_one_by_one)))])
}

fn realities(bench: &Bench) -> Result<Row> {
    let mut taken = Vec::new();
    let mut verified = true;
    for number in 1..=bench.runs * 20 {
        let store = open()?;
        let repo = create(&store, &format!("realities-{number}"))?;
        let mut random = Random::new(1);
        let first = repo.commit(request(&branch("main")?, SHAPES[0].all(&mut random), None)?);
        let first = first.context(|| "commit".into())?;
        let names = (0..REALITIES).map(|at| RefName::reality(&format!("agent/{at:06}")));
        let new = NewRealities {
            names: names.collect::<std::result::Result<_, _>>().context(|| "a name".into())?,
            base: first.oid,
            version: first.published.version,
            from: Some(branch("main")?),
            ttl: Some(Duration::from_secs(3600)),
            actor: "bench".into(),
        };
        let start = Instant::now();
        let made = repo.create_realities(new).context(|| "realities".into())?;
        made.ticket.wait().context(|| "realities".into())?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
        verified &= repo.snapshot().realities(None).count() == REALITIES;
    }
    let row = Row::new(SUITE, format!("{REALITIES} realities in one call"), "ms", median(taken));
    Ok(row.durability("memory").verified(verified))
}

fn forks(bench: &Bench, history: &History) -> Result<Row> {
    progress(&format!("engine, forks of {}", history.name));
    let store = open()?;
    let source = create(&store, "source")?;
    let objects = load(bench, history, &source)?;
    let (mut taken, mut made) = (Vec::new(), Vec::new());
    for number in 0..FORKS {
        let name = RepoName::new(&format!("fork-{number}")).context(|| "a name".into())?;
        let start = Instant::now();
        let fork = store.fork(&source.name(), &name, "bench").context(|| "fork".into())?;
        taken.push(start.elapsed().as_secs_f64() * 1e6);
        made.push(fork);
    }
    let snapshot = source.snapshot();
    let holds = |fork: &Repo| {
        let copy = fork.snapshot();
        snapshot.references().eq(copy.references()) && copy.references().all(|(_, oid)| copy.object(oid).is_ok())
    };
    let verified = made.iter().step_by(100).all(holds);
    let work = format!("fork of {} ({objects} objects, {} references)", history.name, snapshot.reference_count());
    Ok(Row::new(SUITE, work, "us", median(taken)).durability("memory").verified(verified))
}

/// Seconds that git takes for as many branches in one transaction, its start included.
fn git_branches(bench: &Bench, names: &[RefName]) -> Result<f64> {
    let folder = bench.fresh_folder()?;
    bench.git.run(folder.path(), ["init", "--quiet", "--bare", "."])?;
    let tree = bench.git.lines(folder.path(), ["hash-object", "-w", "-t", "tree", "/dev/null"])?.concat();
    let commit = bench.git.lines(folder.path(), ["commit-tree", "-m", "first", &tree])?.concat();
    let script: String = names.iter().map(|name| format!("create {name} {commit}\n")).collect();
    let mut command = bench.git.command(folder.path());
    command.args(["update-ref", "--stdin"]).stdin(Stdio::piped());
    let start = Instant::now();
    feed(command, script.as_bytes())?;
    let seconds = start.elapsed().as_secs_f64();
    let made = bench.git.lines(folder.path(), ["for-each-ref", "--format=%(refname)", "refs/heads"])?.len();
    if made != names.len() {
        return Err(Error::new(format!("git made {made} branches")));
    }
    Ok(seconds)
}
