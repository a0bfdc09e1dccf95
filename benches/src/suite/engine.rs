//! What does the engine do in process, without a server: commits, branches, objects by id?
//!
//! Commits are made in memory on both sides: a `memory` repository of govc, and libgit2 with its in-memory object
//! backend (mempack) and no other, its checks switched off. Both build the same trees from the same changes and give the same
//! ids; libgit2 makes no reference, which is to its advantage. libgit2 has two ways to change a tree, and the faster one
//! of each run counts.
//!
//! References are peered with `git update-ref --stdin` (files, one transaction), objects by id with
//! `git cat-file --batch` on the same objects in one pack.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use git2::build::TreeUpdateBuilder;
use govc_backends::MemoryBackend;
use govc_engine::{
    Cause, Change, CommitRequest, Content, Durability, Expected, Kind, Oid, OnConflict, RefEdit, RefName, Repo,
    RepoName, RepoSettings, Signature, Store, StoreOptions,
};

use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::random::Random;
use crate::report::{Row, median};

const SUITE: &str = "engine";
const SECONDS: i64 = 1_700_000_000;
const MEMORY_BYTES: u64 = 12 << 30;
/// Branches of the call that makes many, and of those made one by one.
const BRANCHES_AT_ONCE: usize = 1000;
const BRANCHES_ONE_BY_ONE: usize = 100_000;
/// Objects that are read by id, and how often.
const HOT_OBJECTS: usize = 100_000;
const HOT_READS: usize = 300_000;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for shape in &SHAPES {
        rows.extend(commits(bench, shape)?);
    }
    rows.push(two_threads(bench)?);
    rows.extend(branches(bench)?);
    rows.push(hot_objects(bench)?);
    Ok(rows)
}

/// A tree, and how much of it a commit changes.
struct Shape {
    name: &'static str,
    /// No directories if 1.
    folders: usize,
    files: usize,
    changed: usize,
    commits: usize,
}

const SHAPES: [Shape; 4] = [
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

    fn all(&self, random: &mut Random) -> Vec<(String, String)> {
        (0..self.files).map(|file| (self.path(file), random.line())).collect()
    }

    /// The changes of one commit: so many different files, each with a new line.
    fn changes(&self, random: &mut Random) -> Vec<(String, String)> {
        let first = random.below(self.files);
        // A stride without a common factor visits different files.
        (0..self.changed).map(|at| (self.path((first + at * 7) % self.files), random.line())).collect()
    }
}

fn commits(bench: &Bench, shape: &Shape) -> Result<Vec<Row>> {
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
    Ok(vec![row.beside("libgit2 mempack, no reference", median(peers)).durability("memory").verified(verified)])
}

fn open() -> Result<Store> {
    let options = StoreOptions { memory_budget_bytes: MEMORY_BYTES, ..StoreOptions::default() };
    Store::open(Arc::new(MemoryBackend::new()), options).context(|| "cannot open a store".into())
}

fn create(store: &Store, name: &str) -> Result<Repo> {
    let name = RepoName::new(name).context(|| "a name".into())?;
    let settings = RepoSettings { durability: Durability::Memory, ..RepoSettings::default() };
    store.create(&name, settings, "bench").context(|| "cannot create a repository".into())
}

fn branch(name: &str) -> Result<RefName> {
    RefName::branch(name).context(|| "a branch name".into())
}

fn request(branch: &RefName, files: Vec<(String, String)>, from: Option<Oid>) -> Result<CommitRequest> {
    let person = Signature::new("Bench", "bench@example.com", SECONDS, 0).context(|| "a signature".into())?;
    let put = |(path, text): (String, String)| Change::Put {
        path: path.into_bytes(),
        content: Content::Bytes(text.into()),
        mode: None,
    };
    Ok(CommitRequest {
        branch: branch.clone(),
        message: "change".into(),
        author: person.clone(),
        committer: person,
        changes: files.into_iter().map(put).collect(),
        expected_head: Expected::Any,
        on_conflict: OnConflict::Fail,
        create_branch_from: from,
        allow_empty: true,
        actor: "bench".into(),
        deadline: None,
    })
}

/// Makes the first commit of all files, then the measured ones; commits a second, and the last one.
fn our_commits(repo: &Repo, branch: &RefName, shape: &Shape, seed: u64) -> Result<(f64, Oid)> {
    let commit = |request| repo.commit(request).context(|| "a commit failed".into());
    let mut random = Random::new(seed);
    commit(request(branch, shape.all(&mut random), None)?)?;
    let requests = (0..shape.commits).map(|_| request(branch, shape.changes(&mut random), None));
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut head = Oid::null();
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

/// Two threads, each on a branch of its own, against one thread.
fn two_threads(bench: &Bench) -> Result<Row> {
    let shape = &SHAPES[0];
    let (mut both, mut alone) = (Vec::new(), Vec::new());
    let mut verified = true;
    for number in 1..=bench.runs {
        progress(&format!("engine, two threads, run {number} of {}", bench.runs));
        let store = open()?;
        alone.push(our_commits(&create(&store, "alone")?, &branch("main")?, shape, 1)?.0);
        let repo = create(&store, "both")?;
        // The first commits exist before the clock starts, so each thread makes its own start.
        let mut random = Random::new(1);
        let root = repo.commit(request(&branch("main")?, shape.all(&mut random), None)?).context(|| "commit".into())?;
        let prepared = (0..2u64).map(|thread| {
            let name = branch(&format!("b{thread}"))?;
            let mut random = Random::new(10 + thread);
            let first = request(&name, shape.changes(&mut random), Some(root.oid))?;
            repo.commit(first).context(|| "commit".into())?;
            (0..shape.commits).map(|_| request(&name, shape.changes(&mut random), None)).collect::<Result<Vec<_>>>()
        });
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        let before = repo.stats().version;
        let start = Instant::now();
        std::thread::scope(|scope| {
            let commit_all = |requests: Vec<CommitRequest>| -> Result<()> {
                for request in requests {
                    repo.commit(request).context(|| "commit".into())?;
                }
                Ok(())
            };
            let threads: Vec<_> =
                prepared.into_iter().map(|requests| scope.spawn(move || commit_all(requests))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| Error::new("a thread panicked"))?)
        })?;
        both.push(2.0 * shape.commits as f64 / start.elapsed().as_secs_f64());
        verified &= repo.stats().version - before == 2 * shape.commits as u64;
    }
    let row = Row::new(SUITE, format!("commits of {}, two threads, a branch each", shape.name), "1/s", median(both));
    Ok(row.beside("govc, one thread", median(alone)).durability("memory").verified(verified))
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

fn publish(repo: &Repo, edits: Vec<RefEdit>) -> Result<()> {
    let mut transaction = repo.begin("bench", Cause::Api);
    for edit in edits {
        transaction.edit(edit).context(|| "an edit".into())?;
    }
    let published = transaction.prepare().and_then(|prepared| prepared.publish()).context(|| "publish".into())?;
    published.ticket.wait().context(|| "publish".into())
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

fn feed(mut command: Command, input: &[u8]) -> Result<()> {
    let mut child = command.spawn().context(|| "cannot start git".into())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).context(|| "cannot write to git".into())?;
    }
    let status = child.wait().context(|| "cannot wait for git".into())?;
    if status.success() { Ok(()) } else { Err(Error::new(format!("git failed: {status}"))) }
}

/// Random reads of objects that are in memory.
fn hot_objects(bench: &Bench) -> Result<Row> {
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    let mut verified = true;
    let mut random = Random::new(5);
    let blobs: Vec<String> =
        (0..HOT_OBJECTS).map(|_| (0..12).map(|_| random.line() + "\n").collect::<String>()).collect();
    let folder = bench.fresh_folder()?;
    pack(bench, folder.path(), &blobs)?;
    let store = open()?;
    let repo = create(&store, "objects")?;
    let mut transaction = repo.begin("bench", Cause::Api);
    let ids = blobs
        .iter()
        .map(|blob| transaction.put(Kind::Blob, blob.clone().into()))
        .collect::<std::result::Result<Vec<_>, _>>();
    let ids = ids.context(|| "put".into())?;
    let tree = tree_of(&ids);
    let tree = transaction.put(Kind::Tree, tree.into()).context(|| "put".into())?;
    let commit = format!("tree {tree}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx\n");
    let commit = transaction.put(Kind::Commit, commit.into_bytes().into()).context(|| "put".into())?;
    let name = branch("main")?;
    transaction
        .edit(RefEdit { name, expected: Expected::Absent, target: Some(commit) })
        .and_then(|()| transaction.prepare()?.publish())
        .context(|| "publish".into())?;
    let order: Vec<usize> = (0..HOT_READS).map(|_| random.below(HOT_OBJECTS)).collect();
    for number in 1..=bench.runs {
        progress(&format!("engine, objects by id, run {number} of {}", bench.runs));
        let snapshot = repo.snapshot();
        let start = Instant::now();
        let mut bytes = 0;
        for &at in &order {
            bytes += snapshot.object(&ids[at]).context(|| "read".into())?.data.len();
        }
        ours.push(HOT_READS as f64 / start.elapsed().as_secs_f64());
        verified &= bytes == order.iter().map(|&at| blobs[at].len()).sum::<usize>();
        let wrong = |at: &usize| snapshot.object(&ids[*at]).is_ok_and(|object| object.data != blobs[*at].as_bytes());
        verified &= !order.iter().take(1000).any(wrong);
        // A peer that answers a tenth as fast need not be asked as often.
        let mut batch = CatFile::start(bench, folder.path())?;
        let fewer = &order[..HOT_READS / 3];
        let start = Instant::now();
        let mut bytes = 0;
        for &at in fewer {
            bytes += batch.read(&ids[at])?;
        }
        peers.push(fewer.len() as f64 / start.elapsed().as_secs_f64());
        verified &= bytes == fewer.iter().map(|&at| blobs[at].len()).sum::<usize>();
    }
    let row = Row::new(SUITE, format!("{HOT_OBJECTS} hot blobs in random order, by id"), "1/s", median(ours));
    Ok(row.beside("git cat-file --batch, one pack", median(peers)).verified(verified))
}

fn tree_of(ids: &[Oid]) -> Vec<u8> {
    let mut tree = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        tree.extend_from_slice(format!("100644 {at:08}\0").as_bytes());
        tree.extend_from_slice(id.as_bytes());
    }
    tree
}

/// A repository that has the blobs in one pack.
fn pack(bench: &Bench, folder: &Path, blobs: &[String]) -> Result<()> {
    bench.git.run(folder, ["init", "--quiet", "--bare", "."])?;
    let mut stream = String::new();
    for blob in blobs {
        stream += &format!("blob\ndata {}\n{blob}\n", blob.len());
    }
    let mut command = bench.git.command(folder);
    command.args(["fast-import", "--quiet"]).stdin(Stdio::piped());
    feed(command, stream.as_bytes())
}

/// A running `git cat-file --batch`.
struct CatFile {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
    data: Vec<u8>,
}

impl CatFile {
    fn start(bench: &Bench, folder: &Path) -> Result<CatFile> {
        let mut command = bench.git.command(folder);
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context(|| "cannot start git cat-file".into())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        match (input, output) {
            (Some(input), Some(output)) => {
                Ok(CatFile { child, input, output: BufReader::new(output), line: String::new(), data: Vec::new() })
            }
            _ => Err(Error::new("git cat-file has no pipes")),
        }
    }

    /// Asks for an object; its length.
    fn read(&mut self, oid: &Oid) -> Result<usize> {
        self.line.clear();
        writeln!(self.input, "{oid}").context(|| "cannot write to git cat-file".into())?;
        self.output.read_line(&mut self.line).context(|| "cannot read from git cat-file".into())?;
        let length = self.line.trim_end().rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or_else(|| Error::new(format!("git cat-file says {:?}", self.line)))?;
        self.data.resize(length + 1, 0);
        self.output.read_exact(&mut self.data).context(|| "cannot read from git cat-file".into())?;
        Ok(length)
    }
}

impl Drop for CatFile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
