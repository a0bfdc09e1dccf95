//! A million commits in one repository, a million references in another: what other rows measure in small repositories,
//! once more in these, beside a small one of the same run.

use std::time::{Duration, Instant};

use govc_engine::{Expected, NewRealities, Oid, RefEdit, RefName, Repo, RepoName, Store, hash_object};

use super::{SUITE, branch, commits::SHAPES, create, open, publish, request, walk};
use crate::bench::{Bench, progress};
use crate::error::{Context, Result};
use crate::random::Random;
use crate::report::{Row, median};

const MANY: usize = 1_000_000;
/// Commits of the small repository.
const FEW: usize = 10_000;
const COMMITS: usize = 20_000;
/// How often what makes a thousand things in one call is done.
const CALLS: usize = 20;
const AT_ONCE: usize = 1000;
const FORKS: usize = 1000;
const READS: usize = 300_000;
const WALKS: usize = 3;

pub(super) fn run(_: &Bench) -> Result<Vec<Row>> {
    let small = figures("a small repository", FEW, 1)?;
    let mut rows = Vec::new();
    for (what, commits, references) in [("a million commits", MANY, 1), ("a million references", FEW, MANY)] {
        for (large, small) in figures(what, commits, references)?.into_iter().zip(&small) {
            let row = Row::new(SUITE, format!("{}, with {what}", large.work), large.unit, large.value);
            let row = row.beside("govc, a small repository", small.value);
            rows.push(row.durability("memory").verified(large.verified && small.verified));
        }
    }
    Ok(rows)
}

struct Figure {
    work: &'static str,
    unit: &'static str,
    value: f64,
    verified: bool,
}

fn figures(what: &str, commits: usize, references: usize) -> Result<Vec<Figure>> {
    progress(&format!("engine, {what}"));
    let store = open()?;
    let repo = create(&store, "large")?;
    let main = branch("main")?;
    let shape = &SHAPES[0];
    let mut random = Random::new(1);
    let mut head = commit(&repo, &main, shape.all(&mut random), None)?;
    let mut ids = Vec::new();
    for _ in 0..commits {
        head = commit(&repo, &main, shape.changes(&mut random), None)?;
        ids.push(head);
    }
    let names = (0..references).map(|at| branch(&format!("many/{at:07}"))).collect::<Result<Vec<_>>>()?;
    for names in names.chunks(AT_ONCE * 10) {
        publish(&repo, names.iter().map(|name| edit(name, head)).collect())?;
    }
    let made = repo.snapshot();
    let held = made.reference_count() == references + 1;
    Ok(vec![
        commit_rate(&repo, &main, &mut random)?,
        branches(&repo, head, held)?,
        one_by_one(&repo, head)?,
        realities(&repo, head)?,
        forks(&store, &repo)?,
        reads(&repo, &ids)?,
        walks(&repo, &main, commits + COMMITS + 1)?,
    ])
}

fn commit(repo: &Repo, branch: &RefName, files: Vec<(String, String)>, from: Option<Oid>) -> Result<Oid> {
    Ok(repo.commit(request(branch, files, from)?).context(|| "commit".into())?.oid)
}

fn edit(name: &RefName, target: Oid) -> RefEdit {
    RefEdit { name: name.clone(), expected: Expected::Absent, target: Some(target) }
}

fn commit_rate(repo: &Repo, branch: &RefName, random: &mut Random) -> Result<Figure> {
    let requests = (0..COMMITS).map(|_| request(branch, SHAPES[0].changes(random), None));
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let before = repo.stats().version;
    let start = Instant::now();
    for request in requests {
        repo.commit(request).context(|| "commit".into())?;
    }
    let value = COMMITS as f64 / start.elapsed().as_secs_f64();
    let verified = repo.stats().version - before == COMMITS as u64;
    Ok(Figure { work: "commits of 1 of 100 files", unit: "1/s", value, verified })
}

fn branches(repo: &Repo, target: Oid, held: bool) -> Result<Figure> {
    let before = repo.snapshot().reference_count();
    let mut taken = Vec::new();
    for call in 0..CALLS {
        let names = (0..AT_ONCE).map(|at| branch(&format!("agent/{call}/{at:04}"))).collect::<Result<Vec<_>>>()?;
        let edits = names.iter().map(|name| edit(name, target)).collect();
        let start = Instant::now();
        publish(repo, edits)?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let verified = held && repo.snapshot().reference_count() == before + CALLS * AT_ONCE;
    Ok(Figure { work: "1000 branches in one call", unit: "ms", value: median(taken), verified })
}

fn one_by_one(repo: &Repo, target: Oid) -> Result<Figure> {
    let names = (0..COMMITS).map(|at| branch(&format!("one/{at:06}"))).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    for name in &names {
        publish(repo, vec![edit(name, target)])?;
    }
    let value = COMMITS as f64 / start.elapsed().as_secs_f64();
    let snapshot = repo.snapshot();
    let verified = names.iter().all(|name| snapshot.reference(name) == Some(target));
    Ok(Figure { work: "branches one by one", unit: "1/s", value, verified })
}

fn realities(repo: &Repo, base: Oid) -> Result<Figure> {
    let version = repo.stats().version;
    let mut taken = Vec::new();
    for call in 0..CALLS {
        let names = (0..AT_ONCE).map(|at| RefName::reality(&format!("agent/{call}/{at:04}")));
        let names = names.collect::<std::result::Result<_, _>>().context(|| "a name".into())?;
        let ttl = Some(Duration::from_secs(3600));
        let new = NewRealities { names, base, version, from: None, ttl, actor: "bench".into() };
        let start = Instant::now();
        repo.create_realities(new).context(|| "realities".into())?.ticket.wait().context(|| "realities".into())?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let verified = repo.snapshot().realities(None).count() == CALLS * AT_ONCE;
    Ok(Figure { work: "1000 realities in one call", unit: "ms", value: median(taken), verified })
}

fn forks(store: &Store, repo: &Repo) -> Result<Figure> {
    let (mut taken, mut verified) = (Vec::new(), true);
    let count = repo.snapshot().reference_count();
    for number in 0..FORKS {
        let name = RepoName::new(&format!("fork-{number}")).context(|| "a name".into())?;
        let start = Instant::now();
        let fork = store.fork(&repo.name(), &name, "bench").context(|| "fork".into())?;
        taken.push(start.elapsed().as_secs_f64() * 1e6);
        verified &= fork.snapshot().reference_count() == count;
    }
    Ok(Figure { work: "fork", unit: "us", value: median(taken), verified })
}

/// Random commits by id.
fn reads(repo: &Repo, ids: &[Oid]) -> Result<Figure> {
    let snapshot = repo.snapshot();
    let mut random = Random::new(7);
    let order: Vec<Oid> = (0..READS).map(|_| ids[random.below(ids.len())]).collect();
    let mut bytes = 0;
    let start = Instant::now();
    for oid in &order {
        bytes += snapshot.object(oid).context(|| "read".into())?.data.len();
    }
    let value = READS as f64 / start.elapsed().as_secs_f64();
    let is_itself = |oid: &Oid| {
        let hashed = snapshot.object(oid).and_then(|object| hash_object(oid.format(), object.kind, &object.data));
        hashed.is_ok_and(|hashed| hashed == *oid)
    };
    let verified = bytes > 0 && order.iter().take(1000).all(is_itself);
    Ok(Figure { work: "random commits by id", unit: "1/s", value, verified })
}

/// From the head of one branch.
fn walks(repo: &Repo, branch: &RefName, commits: usize) -> Result<Figure> {
    let snapshot = repo.snapshot();
    let (mut rates, mut verified) = (Vec::new(), true);
    for number in 0..=WALKS {
        let start = Instant::now();
        let count = walk::count(&snapshot, snapshot.reference(branch))?;
        verified &= count == commits;
        if number > 0 {
            rates.push(count as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(Figure { work: "walk, commits", unit: "1/s", value: median(rates), verified })
}
