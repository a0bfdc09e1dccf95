//! Does the server stay what it is while real clients push, fetch and clone for a long time?
//!
//! Workers with branches of their own share a few repositories, one of them of SHA-256; half of them come over SSH. Whatever
//! one pushes to govc (commits, branches set back, branches deleted, tags) or has the API commit, it pushes to a shadow of the
//! repository as well, which git keeps in a folder. Between that they fetch into copies that they have had from the start, and
//! clone: whole, partial, and shallow, to be deepened and completed. In the end every repository
//! must be its shadow, reference for reference and object for object, after a restart too, and the server's memory, with a
//! budget that is filled early, what it was after a third of the time. `--seconds 1800` makes it the soak of half an hour.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::generate::import;
use crate::git::{Git, finish};
use crate::http::Client;
use crate::random::Random;
use crate::report::{Row, median};
use crate::server::Govc;
use crate::subject::{Subject, free_address};

const SUITE: &str = "soak";
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// Their object formats.
const REPOSITORIES: [&str; 3] = ["sha1", "sha1", "sha256"];
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
    let ssh = free_address()?.to_string();
    let keys = who_comes_over_ssh(git, folder.path())?;
    let settings = [&SETTINGS[..], &[("GOVC_SSH_LISTEN", &ssh), ("GOVC_SSH_AUTHORIZED_KEYS", &keys)]].concat();
    let server = Govc::start_with(&bench.govc, &data, &settings)?;
    let mut shadows = Vec::new();
    for (number, format) in REPOSITORIES.into_iter().enumerate() {
        let name = format!("soak-{number}");
        let body = serde_json::json!({ "id": name, "default_branch": "main", "object_format": format });
        Client::connect(server.address())?.post_json("/api/v1/repos", &body)?;
        let shadow = folder.path().join(format!("{name}.git"));
        init(git, &shadow, format)?;
        let first = folder.path().join(format!("{name}-first.git"));
        init(git, &first, format)?;
        import(git, &first, |out| {
            writeln!(out, "commit refs/heads/main\ncommitter Soak <soak@example.com> 1700000000 +0000\ndata 5\nStart")
        })?;
        for to in [&server.url(&name), &shadow.to_string_lossy().into_owned()] {
            git.run(&first, ["push", "--quiet", to, "main"])?;
        }
        shadows.push((name, shadow, format));
    }
    let time = Duration::from_secs(bench.seconds);
    progress(&format!("soak: {WORKERS} workers for {} s", bench.seconds));
    let done: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let samples = thread::scope(|scope| {
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let (name, shadow, format) = &shadows[number % REPOSITORIES.len()];
            let is_ssh = number >= REPOSITORIES.len();
            let url = if is_ssh { format!("ssh://git@{ssh}/{name}.git") } else { server.url(name) };
            let place = Place { api: server.address(), name: name.clone(), url, shadow: shadow.clone(), format };
            let path = folder.path().join(format!("worker-{number}"));
            let (done, is_over) = (&done, &is_over);
            workers.push(scope.spawn(move || {
                let result = Worker::new(git, number, place, path).and_then(|mut worker| {
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
    for (name, shadow, _) in &shadows {
        verified &= is_shadow(bench, &server.url(name), shadow)?;
    }
    server.kill()?;
    let server = Govc::start_with(&bench.govc, &data, &settings)?;
    for (name, shadow, _) in &shadows {
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

/// Makes a key for git to come with, and gives the list that names it.
fn who_comes_over_ssh(git: &Git, folder: &Path) -> Result<String> {
    let key = folder.join("key");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    finish(command)?;
    let options = "-F /dev/null -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
    let program = format!("ssh -i {} {options} -o LogLevel=ERROR", key.display());
    git.run(folder, ["config", "--global", "core.sshCommand", &program])?;
    Ok(key.with_extension("pub").to_string_lossy().into_owned())
}

fn init(git: &Git, path: &Path, format: &str) -> Result<()> {
    let mut command = git.command(path.parent().unwrap_or(path));
    command.args(["init", "--quiet", "--bare", "--object-format", format]).arg(path);
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

/// A repository as a worker comes to it, and what it must be.
struct Place {
    api: SocketAddr,
    name: String,
    url: String,
    shadow: PathBuf,
    format: &'static str,
}

/// One client of one repository.
struct Worker<'a> {
    git: &'a Git,
    number: usize,
    place: Place,
    folder: PathBuf,
    random: Random,
    /// Commits of each branch, none while it is not there.
    branches: [usize; BRANCHES_OF_A_WORKER],
    steps: usize,
}

impl<'a> Worker<'a> {
    fn new(git: &'a Git, number: usize, place: Place, folder: PathBuf) -> Result<Worker<'a>> {
        std::fs::create_dir_all(&folder).context(|| "cannot make a worker's folder".into())?;
        let random = Random::new(900 + number as u64);
        let worker = Worker { git, number, place, folder, random, branches: Default::default(), steps: 0 };
        init(git, &worker.local(), worker.place.format)?;
        init(git, &worker.follower(), worker.place.format)?;
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
            (0..=44, _) | (_, 0) => {
                let commits = 1 + self.random.below(3);
                self.commit(&branch, self.branches[index] == 0, commits)?;
                self.branches[index] += commits;
                self.push(&[&branch])?;
                Ok("push of commits")
            }
            (45..=49, _) => {
                self.commit_over_the_api(&branch)?;
                self.branches[index] += 1;
                Ok("commit over the API")
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
                let what = ["fetch", "--quiet", "--prune", &self.place.url, "+refs/*:refs/*"];
                self.git.run(&self.follower(), what)?;
                Ok("fetch")
            }
            (82..=88, _) => {
                let path = self.clone(&["--depth=1", "--no-single-branch"])?;
                for further in ["--deepen=2", "--unshallow"] {
                    let what = ["fetch", "--quiet", further, &self.place.url, "+refs/heads/*:refs/heads/*"];
                    // Another worker may have deleted or set back branches meanwhile, and left nothing that is cut off.
                    if path.join("shallow").exists() {
                        self.git.run(&path, what)?;
                    }
                }
                self.look_at(&path)?;
                Ok("shallow clone, deepened and completed")
            }
            (89..=94, _) => {
                let path = self.clone(&["--filter=blob:none"])?;
                self.look_at(&path)?;
                Ok("clone without blobs")
            }
            _ => {
                let path = self.clone(&[])?;
                self.look_at(&path)?;
                Ok("full clone")
            }
        }
    }

    /// A commit that the server makes, brought to the shadow.
    fn commit_over_the_api(&mut self, branch: &str) -> Result<()> {
        let content = self.random.line() + "\n";
        let file = format!("part{}/of-the-api", self.random.below(7));
        let body = serde_json::json!({
            "branch": branch.trim_start_matches("refs/heads/"),
            "message": "Soak",
            "changes": [{ "op": "put", "path": file, "content": content }],
        });
        Client::connect(self.place.api)?.post_json(&format!("/api/v1/repos/{}/commits", self.place.name), &body)?;
        let refspec = format!("{branch}:{branch}");
        self.git.run(&self.local(), ["fetch", "--quiet", &self.place.url, &refspec])?;
        let shadow = self.place.shadow.to_string_lossy();
        self.git.run(&self.local(), ["push", "--quiet", &shadow, branch]).map(drop)
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
        let shadow = self.place.shadow.to_string_lossy();
        for to in [self.place.url.as_str(), &shadow] {
            self.git.run(&self.local(), ["push", "--quiet", to].iter().chain(what))?;
        }
        Ok(())
    }

    fn clone(&self, options: &[&str]) -> Result<PathBuf> {
        let path = self.folder.join(format!("clone-{}.git", self.steps));
        clone(self.git, &self.place.url, &path, options)?;
        Ok(path)
    }

    /// Whether git finds all in a clone, which then goes.
    fn look_at(&self, path: &Path) -> Result<()> {
        self.git.run(path, ["rev-list", "--count", "--all"])?;
        std::fs::remove_dir_all(path).context(|| "cannot remove a clone".into())
    }
}
