//! Does the server stay what it is while real clients push, fetch and clone for a long time?
//!
//! Workers with branches of their own share a few repositories. Whatever one pushes to govc (commits, branches set back,
//! branches deleted, tags) it pushes to a shadow of the repository as well, which git keeps in a folder. Between that they
//! fetch into copies that they have had from the start, and clone: whole, shallow and partial. In the end every repository
//! must be its shadow, reference for reference and object for object, after a restart too, and the server's memory, with a
//! budget that is filled early, what it was after a third of the time. `--seconds 1800` makes it the soak of half an hour.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::generate::import;
use crate::git::{Git, finish};
use crate::random::Random;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

const SUITE: &str = "soak";
const MEBIBYTE: f64 = 1024.0 * 1024.0;
const REPOSITORIES: usize = 3;
const WORKERS: usize = 6;
const BRANCHES_OF_A_WORKER: usize = 4;
const FILES: usize = 60;
/// Small, so that what the server keeps in memory reaches it soon.
const SETTINGS: [(&str, &str); 2] = [("GOVC_MEMORY", "128MiB"), ("GOVC_COMPACTION_MIN_GROWTH", "256KiB")];
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// From here on memory that still grows is a fault; before, the budget fills.
const FILLED_AFTER: Duration = Duration::from_secs(900);
/// What the median of the last third may be of that of the second.
const GROWTH_MAX: f64 = 1.05;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let git = &bench.git;
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    let server = Govc::start_with(&bench.govc, &data, &SETTINGS)?;
    let mut shadows = Vec::new();
    for number in 0..REPOSITORIES {
        let name = format!("soak-{number}");
        server.create(&NewRepository { name: &name, default_branch: "main", durability: "durable" })?;
        let shadow = folder.path().join(format!("{name}.git"));
        init(git, &shadow)?;
        let first = folder.path().join(format!("{name}-first.git"));
        init(git, &first)?;
        import(git, &first, |out| {
            writeln!(out, "commit refs/heads/main\ncommitter Soak <soak@example.com> 1700000000 +0000\ndata 5\nStart")
        })?;
        for to in [&server.url(&name), &shadow.to_string_lossy().into_owned()] {
            git.run(&first, ["push", "--quiet", to, "main"])?;
        }
        shadows.push((name, shadow));
    }
    let time = Duration::from_secs(bench.seconds);
    progress(&format!("soak: {WORKERS} workers for {} s", bench.seconds));
    let done: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let samples = thread::scope(|scope| {
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let (name, shadow) = &shadows[number % REPOSITORIES];
            let (url, path) = (server.url(name), folder.path().join(format!("worker-{number}")));
            let (done, is_over) = (&done, &is_over);
            workers.push(scope.spawn(move || {
                let result = Worker::new(git, number, url, shadow.clone(), path).and_then(|mut worker| {
                    while start.elapsed() < time && !is_over.load(Ordering::Relaxed) {
                        let what = worker.step()?;
                        *done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entry(what).or_default() += 1;
                    }
                    Ok(())
                });
                // The first failure ends the run.
                is_over.store(true, Ordering::Relaxed);
                result
            }));
        }
        let mut samples = Ok(Vec::new());
        while let Ok(taken) = &mut samples
            && start.elapsed() < time
            && !is_over.load(Ordering::Relaxed)
        {
            match server.metric("process_resident_memory_bytes") {
                Ok(bytes) => taken.push(bytes / MEBIBYTE),
                Err(error) => samples = Err(error),
            }
            thread::sleep(SAMPLE_EVERY);
        }
        is_over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().map_err(|_| Error::new("a worker panicked"))??;
        }
        samples
    })?;
    let elapsed = start.elapsed();
    let mut verified = true;
    for (name, shadow) in &shadows {
        verified &= is_shadow(bench, &server.url(name), shadow)?;
    }
    server.kill()?;
    let server = Govc::start_with(&bench.govc, &data, &SETTINGS)?;
    for (name, shadow) in &shadows {
        verified &= is_shadow(bench, &server.url(name), shadow)?;
    }
    server.stop()?;

    let third = samples.len() / 3;
    let (second, last) = (samples.get(third..2 * third), samples.get(2 * third..));
    let [second, last] = [second, last].map(|part| median(part.unwrap_or_default().to_vec()));
    let is_flat = elapsed < FILLED_AFTER || last <= second * GROWTH_MAX;
    let mut rows = vec![
        Row::new(SUITE, format!("memory in the last third of {} s", elapsed.as_secs()), "MiB", last)
            .beside("in the second third", second)
            .verified(verified && is_flat),
    ];
    let done = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let counted = |(what, count)| Row::new(SUITE, format!("{what}, all"), "times", count as f64).verified(verified);
    rows.extend(done.into_iter().map(counted));
    Ok(rows.into_iter().map(|row| row.durability("durable")).collect())
}

fn init(git: &Git, path: &Path) -> Result<()> {
    let mut command = git.command(path.parent().unwrap_or(path));
    command.args(["init", "--quiet", "--bare"]).arg(path);
    finish(command).map(drop)
}

/// Whether a fresh clone has the shadow's references and objects.
fn is_shadow(bench: &Bench, url: &str, shadow: &Path) -> Result<bool> {
    let git = &bench.git;
    let folder = bench.fresh_folder()?;
    let copy = folder.path().join("copy.git");
    clone(git, url, &copy, &["--mirror"])?;
    git.run(&copy, ["fsck", "--strict", "--no-dangling", "--no-progress"])?;
    Ok(git.references(&copy)? == git.references(shadow)?
        && git.reachable_objects(&copy)? == git.reachable_objects(shadow)?)
}

fn clone(git: &Git, url: &str, path: &Path, options: &[&str]) -> Result<()> {
    let mut command = git.command(path.parent().unwrap_or(path));
    command.args(["clone", "--quiet", "--bare"]).args(options).arg(url).arg(path);
    finish(command).map(drop)
}

/// One client of one repository.
struct Worker<'a> {
    git: &'a Git,
    number: usize,
    url: String,
    shadow: PathBuf,
    folder: PathBuf,
    random: Random,
    /// Commits of each branch, none while it is not there.
    branches: [usize; BRANCHES_OF_A_WORKER],
    steps: usize,
}

impl<'a> Worker<'a> {
    fn new(git: &'a Git, number: usize, url: String, shadow: PathBuf, folder: PathBuf) -> Result<Worker<'a>> {
        std::fs::create_dir_all(&folder).context(|| "cannot make a worker's folder".into())?;
        let random = Random::new(900 + number as u64);
        let worker = Worker { git, number, url, shadow, folder, random, branches: Default::default(), steps: 0 };
        init(git, &worker.local())?;
        init(git, &worker.follower())?;
        Ok(worker)
    }

    /// Where commits are made.
    fn local(&self) -> PathBuf {
        self.folder.join("local.git")
    }

    /// A copy that is fetched into.
    fn follower(&self) -> PathBuf {
        self.folder.join("follower.git")
    }

    fn branch(&self, index: usize) -> String {
        format!("refs/heads/worker-{}/{index}", self.number)
    }

    /// Does one thing and names it.
    fn step(&mut self) -> Result<&'static str> {
        self.steps += 1;
        let index = self.random.below(BRANCHES_OF_A_WORKER);
        let branch = self.branch(index);
        match (self.random.below(100), self.branches[index]) {
            (0..=49, _) | (_, 0) => {
                let commits = 1 + self.random.below(3);
                self.commit(&branch, self.branches[index] == 0, commits)?;
                self.branches[index] += commits;
                self.push(&[&branch])?;
                Ok("push of commits")
            }
            (50..=54, commits) if commits > 1 => {
                self.git.run(&self.local(), ["update-ref", &branch, &format!("{branch}~1")])?;
                self.branches[index] -= 1;
                self.push(&[&format!("+{branch}")])?;
                Ok("push that sets a branch back")
            }
            (55..=58, _) => {
                self.git.run(&self.local(), ["update-ref", "-d", &branch])?;
                self.branches[index] = 0;
                self.push(&[&format!(":{branch}")])?;
                Ok("push that deletes a branch")
            }
            (59..=63, _) => {
                let tag = format!("worker-{}-{}", self.number, self.steps);
                self.git.run(&self.local(), ["tag", "-a", "-m", "A tag", &tag, &branch])?;
                self.push(&[&format!("refs/tags/{tag}")])?;
                Ok("push of a tag")
            }
            (64..=81, _) => {
                let what = ["fetch", "--quiet", "--prune", &self.url, "+refs/*:refs/*"];
                self.git.run(&self.follower(), what)?;
                Ok("fetch")
            }
            (82..=88, _) => self.clone(&["--depth=1"], "shallow clone"),
            (89..=94, _) => self.clone(&["--filter=blob:none"], "clone without blobs"),
            _ => self.clone(&[], "full clone"),
        }
    }

    fn commit(&mut self, branch: &str, is_new: bool, commits: usize) -> Result<()> {
        let steps = self.steps;
        let random = &mut self.random;
        import(self.git, &self.folder.join("local.git"), |out| {
            for number in 0..commits {
                let text: String = (0..20 + random.below(30)).map(|_| random.line() + "\n").collect();
                let file = random.below(FILES);
                write!(out, "commit {branch}\ncommitter Soak <soak@example.com> {} +0000\n", 1_700_000_000 + steps)?;
                write!(out, "data 4\nSoak\n")?;
                if !is_new && number == 0 {
                    writeln!(out, "from {branch}^0")?;
                }
                write!(out, "M 644 inline part{}/file{file}\ndata {}\n{text}\n", file % 7, text.len())?;
            }
            Ok(())
        })
    }

    /// To govc first: what it refuses, the shadow must not have.
    fn push(&self, what: &[&str]) -> Result<()> {
        let shadow = self.shadow.to_string_lossy();
        for to in [self.url.as_str(), &shadow] {
            self.git.run(&self.local(), ["push", "--quiet", to].iter().chain(what))?;
        }
        Ok(())
    }

    fn clone(&self, options: &[&str], what: &'static str) -> Result<&'static str> {
        let path = self.folder.join(format!("clone-{}.git", self.steps));
        clone(self.git, &self.url, &path, options)?;
        self.git.run(&path, ["rev-list", "--count", "--all"])?;
        std::fs::remove_dir_all(&path).context(|| "cannot remove a clone".into())?;
        Ok(what)
    }
}
