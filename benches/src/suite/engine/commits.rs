//! Commits in process, in memory on both sides: a `memory` repository of govc, and libgit2 with its in-memory object
//! backend (mempack) and no other, its checks switched off. Both build the same trees from the same changes and give the same
//! ids; libgit2 makes no reference, which is to its advantage. libgit2 has two ways to change a tree, and the faster one
//! of each run counts.

use std::time::Instant;

use git2::build::TreeUpdateBuilder;
use govc_engine::{CommitRequest, Kind, Oid, RefName, Repo};

use super::{SECONDS, SUITE, branch, create, open, request};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::random::Random;
use crate::report::{Row, median};

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for shape in &SHAPES {
        rows.push(commits(bench, shape)?);
    }
    rows.extend(two_threads(bench)?);
    Ok(rows)
}

/// A tree, and how much of it a commit changes.
pub(super) struct Shape {
    name: &'static str,
    /// No directories if 1.
    folders: usize,
    files: usize,
    changed: usize,
    commits: usize,
}

pub(super) const SHAPES: [Shape; 4] = [
    Shape { name: "1 of 100 files (10x10)", folders: 10, files: 100, changed: 1, commits: 40_000 },
    Shape { name: "10 of 100 files (10x10)", folders: 10, files: 100, changed: 10, commits: 10_000 },
    Shape { name: "1 of 1000 files (10x100)", folders: 10, files: 1000, changed: 1, commits: 20_000 },
    Shape { name: "1 of 1000 files (flat)", folders: 1, files: 1000, changed: 1, commits: 10_000 },
];

impl Shape {
    fn path(&self, file: usize) -> String {
        match self.folders {
            1 => format!("file{file:04}"),
            folders => format!("part{}/file{:04}", file % folders, file / folders),
        }
    }

    pub(super) fn all(&self, random: &mut Random) -> Vec<(String, String)> {
        (0..self.files).map(|file| (self.path(file), random.line())).collect()
    }

    /// The changes of one commit: so many different files, each with a new line.
    pub(super) fn changes(&self, random: &mut Random) -> Vec<(String, String)> {
        let first = random.below(self.files);
        // A stride without a common factor visits different files.
        (0..self.changed).map(|at| (self.path((first + at * 7) % self.files), random.line())).collect()
    }
}

fn commits(bench: &Bench, shape: &Shape) -> Result<Row> {
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("engine, commits of {}, run {number} of {}", shape.name, bench.runs));
        let store = open()?;
        let repo = create(&store, "commits")?;
        let (rate, head) = our_commits(&repo, &branch("main")?, shape, 1)?;
        ours.push(rate);
        verified &= holds(&repo, shape, head)?;
        let mut best = 0.0f64;
        for way in [Way::Update, Way::Builder] {
            let (rate, peer_head) = mempack_commits(shape, way)?;
            best = best.max(rate);
            verified &= peer_head == head.to_string();
        }
        peers.push(best);
    }
    let row = Row::new(SUITE, format!("commits of {}, one thread", shape.name), "1/s", median(ours));
    Ok(row.beside("libgit2 mempack, no reference", median(peers)).durability("memory").verified(verified))
}

/// Makes the first commit of all files, then the measured ones; commits a second, and the last one.
fn our_commits(repo: &Repo, branch: &RefName, shape: &Shape, seed: u64) -> Result<(f64, Oid)> {
    let commit = |request| repo.commit(request).context(|| "a commit failed".into());
    let mut random = Random::new(seed);
    commit(request(branch, shape.all(&mut random), None)?)?;
    let requests = (0..shape.commits).map(|_| request(branch, shape.changes(&mut random), None));
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut head = repo.object_format().null();
    for request in requests {
        head = commit(request)?.oid;
    }
    Ok((shape.commits as f64 / start.elapsed().as_secs_f64(), head))
}

/// Whether readers find the last commit at its branch and every file of it.
fn holds(repo: &Repo, shape: &Shape, head: Oid) -> Result<bool> {
    let snapshot = repo.snapshot();
    let mut found = snapshot.reference(&branch("main")?) == Some(head);
    for file in 0..shape.files {
        let entry = snapshot.entry(head, shape.path(file).as_bytes()).context(|| "cannot read".into())?;
        found &= match entry {
            Some(entry) => snapshot.object(&entry.oid).context(|| "cannot read".into())?.kind == Kind::Blob,
            None => false,
        };
    }
    Ok(found)
}

/// The two ways in which libgit2 changes a tree.
#[derive(Clone, Copy)]
enum Way {
    /// `git_tree_create_updated`.
    Update,
    /// `git_treebuilder`, one for each folder.
    Builder,
}

fn mempack_commits(shape: &Shape, way: Way) -> Result<(f64, String)> {
    // Nothing but memory: with a folder beside it libgit2 would look there first, with checks it would read all it names.
    git2::opts::strict_object_creation(false);
    git2::opts::strict_hash_verification(false);
    let odb = git2::Odb::new().context(|| "libgit2".into())?;
    odb.add_new_mempack_backend(1000).context(|| "libgit2".into())?;
    let repository = git2::Repository::from_odb(odb).context(|| "libgit2".into())?;
    let person = git2::Signature::new("Bench", "bench@example.com", &git2::Time::new(SECONDS, 0));
    let person = person.context(|| "libgit2".into())?;
    let mut random = Random::new(1);
    let empty = repository.treebuilder(None).and_then(|builder| builder.write()).context(|| "libgit2".into())?;
    let first = peer_tree(&repository, empty, &shape.all(&mut random), Way::Update).context(|| "libgit2".into())?;
    let commit = |tree: git2::Oid, parent: Option<git2::Oid>| -> std::result::Result<git2::Oid, git2::Error> {
        let tree = repository.find_tree(tree)?;
        let parent = parent.map(|parent| repository.find_commit(parent)).transpose()?;
        let parents: Vec<_> = parent.iter().collect();
        repository.commit(None, &person, &person, "change\n", &tree, &parents)
    };
    let mut tree = first;
    let mut head = commit(tree, None).context(|| "libgit2".into())?;
    let changes: Vec<_> = (0..shape.commits).map(|_| shape.changes(&mut random)).collect();
    let start = Instant::now();
    for changes in &changes {
        tree = peer_tree(&repository, tree, changes, way).context(|| "libgit2".into())?;
        head = commit(tree, Some(head)).context(|| "libgit2".into())?;
    }
    Ok((shape.commits as f64 / start.elapsed().as_secs_f64(), head.to_string()))
}

fn peer_tree(
    repository: &git2::Repository,
    base: git2::Oid,
    files: &[(String, String)],
    way: Way,
) -> std::result::Result<git2::Oid, git2::Error> {
    let base = repository.find_tree(base)?;
    match way {
        Way::Update => {
            let mut update = TreeUpdateBuilder::new();
            for (path, text) in files {
                update.upsert(path.as_str(), repository.blob(text.as_bytes())?, git2::FileMode::Blob);
            }
            update.create_updated(repository, &base)
        }
        Way::Builder => {
            let mut root = repository.treebuilder(Some(&base))?;
            let mut folders = std::collections::BTreeMap::new();
            for (path, text) in files {
                let blob = repository.blob(text.as_bytes())?;
                match path.split_once('/') {
                    None => {
                        root.insert(path, blob, 0o100_644)?;
                    }
                    Some((folder, name)) => {
                        if !folders.contains_key(folder) {
                            let id = base.get_name(folder).map(|entry| entry.id());
                            let tree = id.map(|id| repository.find_tree(id)).transpose()?;
                            folders.insert(folder, repository.treebuilder(tree.as_ref())?);
                        }
                        if let Some(builder) = folders.get_mut(folder) {
                            builder.insert(name, blob, 0o100_644)?;
                        }
                    }
                }
            }
            for (folder, builder) in folders {
                root.insert(folder, builder.write()?, 0o040_000)?;
            }
            root.write()
        }
    }
}

/// Two threads, each on a branch of its own, against one thread; and how much two threads get done that share nothing
/// but the process, each with a store of its own: what the machine and the allocator leave to be had.
fn two_threads(bench: &Bench) -> Result<Vec<Row>> {
    let shape = &SHAPES[0];
    let (mut both, mut apart, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("engine, two threads, run {number} of {}", bench.runs));
        let store = open()?;
        alone.push(our_commits(&create(&store, "alone")?, &branch("main")?, shape, 1)?.0);
        let repo = create(&store, "both")?;
        let root = first_commit(&repo, shape)?;
        let lines = [line(&repo, shape, root, 0)?, line(&repo, shape, root, 1)?];
        let before = repo.stats().version;
        both.push(at_once(lines.map(|requests| (&repo, requests)))?);
        verified &= repo.stats().version - before == 2 * shape.commits as u64;

        let stores = [open()?, open()?];
        let repos = [create(&stores[0], "apart")?, create(&stores[1], "apart")?];
        let roots = [first_commit(&repos[0], shape)?, first_commit(&repos[1], shape)?];
        let lines = [line(&repos[0], shape, roots[0], 0)?, line(&repos[1], shape, roots[1], 1)?];
        let [first, second] = lines;
        apart.push(at_once([(&repos[0], first), (&repos[1], second)])?);
    }
    let (both, alone) = (median(both), median(alone));
    let row = Row::new(SUITE, format!("commits of {}, two threads, a branch each", shape.name), "1/s", both);
    let row = row.durability("memory").verified(verified);
    let bound = "bound: two threads, a store each";
    Ok(vec![row.clone().beside("govc, one thread", alone), row.beside(bound, median(apart))])
}

fn first_commit(repo: &Repo, shape: &Shape) -> Result<Oid> {
    let first = request(&branch("main")?, shape.all(&mut Random::new(1)), None)?;
    Ok(repo.commit(first).context(|| "commit".into())?.oid)
}

/// Makes a branch at `root` and gives the commits that it will get.
fn line(repo: &Repo, shape: &Shape, root: Oid, number: u64) -> Result<Vec<CommitRequest>> {
    let name = branch(&format!("b{number}"))?;
    let mut random = Random::new(10 + number);
    let first = request(&name, shape.changes(&mut random), Some(root))?;
    repo.commit(first).context(|| "commit".into())?;
    (0..shape.commits).map(|_| request(&name, shape.changes(&mut random), None)).collect()
}

/// Commits a second of two threads together.
fn at_once(lines: [(&Repo, Vec<CommitRequest>); 2]) -> Result<f64> {
    let count: usize = lines.iter().map(|(_, requests)| requests.len()).sum();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let commit_all = |repo: &Repo, requests: Vec<CommitRequest>| -> Result<()> {
            for request in requests {
                repo.commit(request).context(|| "commit".into())?;
            }
            Ok(())
        };
        let threads = lines.map(|(repo, requests)| scope.spawn(move || commit_all(repo, requests)));
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| Error::new("a thread panicked"))?)
    })?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
