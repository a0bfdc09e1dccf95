//! What the models share: stores on a disk that can fail, commits, and readers that check what they see.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use govc_backends::{FaultBackend, FaultPlan, Survivors};
use govc_engine::{
    At, Cause, Commit, Durability, Expected, Kind, ObjectFormat, Oid, Published, RefEdit, RefName, Repo, RepoName,
    RepoSettings, Result, Seq, Signature, Store, StoreOptions,
};
use shuttle::{
    rand::{Rng, thread_rng},
    thread,
};

/// The references of one version.
pub(crate) type References = BTreeMap<RefName, Oid>;

pub(crate) fn disk() -> Arc<FaultBackend> {
    Arc::new(FaultBackend::new(FaultPlan::none()))
}

/// The next life of a disk after a crash, or after a clean close.
pub(crate) fn crash(disk: &FaultBackend, survivors: Survivors) -> Arc<FaultBackend> {
    Arc::new(FaultBackend::over(&disk.crash(survivors).unwrap(), FaultPlan::none()).unwrap())
}

/// A store that settles at closing only, or, as drawn, after each group.
pub(crate) fn open(disk: &Arc<FaultBackend>) -> Store {
    let options = StoreOptions {
        memory_budget_bytes: 16 << 20,
        settle_bytes: if draw(2) == 0 { 1 } else { usize::MAX },
        // For ever, as time goes in a model: what waits for a sync waits for one that has another reason.
        relaxed_delay_max: Duration::from_secs(3600),
        clock: Arc::new(|| 1_700_000_000_000),
        ..StoreOptions::default()
    };
    Store::open(disk.clone(), options).unwrap()
}

/// A number below `end`, of the schedule's choice.
pub(crate) fn draw(end: u64) -> u64 {
    thread_rng().gen_range(0..end)
}

pub(crate) fn name(name: &str) -> RepoName {
    RepoName::new(name).unwrap()
}

pub(crate) fn create(store: &Store, durability: Durability) -> Repo {
    store.create(&name("a"), RepoSettings { durability, ..RepoSettings::default() }, "tester").unwrap()
}

pub(crate) fn branch(short: impl std::fmt::Display) -> RefName {
    RefName::branch(&short.to_string()).unwrap()
}

/// Points a reference at a new commit with this message and these parents; also gives the commit if that is refused.
pub(crate) fn set(repo: &Repo, name: &RefName, expected: Expected, text: &str) -> (Oid, Result<Published>) {
    let signature = Signature::new("Tester", "tester@example.com", 1, 0).unwrap();
    let parents = match expected {
        Expected::Is(parent) => [parent].into_iter().collect(),
        _ => [].into_iter().collect(),
    };
    let commit = Commit {
        tree: ObjectFormat::Sha1.empty_tree(),
        parents,
        author: signature.clone(),
        committer: signature,
        encoding: None,
        extra_headers: Vec::new(),
        message: text.as_bytes().to_vec(),
    };
    let mut transaction = repo.begin("tester", Cause::Api);
    let oid = transaction.put(Kind::Commit, commit.to_bytes().into()).unwrap();
    transaction.edit(RefEdit { name: name.clone(), expected, target: Some(oid) }).unwrap();
    (oid, transaction.prepare().and_then(|prepared| prepared.publish()))
}

/// [`set`], which succeeds, and waits until it is as durable as promised.
pub(crate) fn set_durably(repo: &Repo, name: &RefName, expected: Expected, text: &str) -> Oid {
    let (oid, published) = set(repo, name, expected, text);
    published.unwrap().ticket.wait().unwrap();
    oid
}

/// What a reference must be for a writer who has set it to this, or not yet.
pub(crate) fn expect(now: Option<Oid>) -> Expected {
    now.map_or(Expected::Absent, Expected::Is)
}

/// What a writer was told.
#[derive(Default)]
pub(crate) struct Told {
    /// Version, reference and commit of what was published, by this writer's order.
    pub(crate) published: Vec<(u64, RefName, Oid)>,
    /// How many of those were acknowledged.
    pub(crate) acknowledged: usize,
}

impl Told {
    pub(crate) fn acknowledged(&self) -> &[(u64, RefName, Oid)] {
        &self.published[..self.acknowledged]
    }
}

/// One reader, and all it has seen.
pub(crate) struct Reader {
    pub(crate) repo: Repo,
    newest: u64,
    pub(crate) seen: BTreeMap<u64, References>,
}

impl Reader {
    pub(crate) fn new(repo: &Repo) -> Self {
        Self { repo: repo.clone(), newest: 0, seen: BTreeMap::new() }
    }

    /// Looks at the repository: versions only grow, never change, and all that they name can be read.
    pub(crate) fn look(&mut self) {
        let snapshot = self.repo.snapshot();
        let number = snapshot.version().number;
        assert!(number >= self.newest, "from version {} back to {number}", self.newest);
        self.newest = number;
        let references: References = snapshot.references().map(|(name, oid)| (name.clone(), *oid)).collect();
        for (name, oid) in &references {
            let commit = snapshot.commit(oid).unwrap_or_else(|error| panic!("{name} in version {number}: {error}"));
            for parent in &commit.parents {
                assert!(snapshot.contains(parent).unwrap(), "{name} in version {number}: its parent is not there");
            }
        }
        let before = self.seen.insert(number, references.clone());
        assert!(before.is_none_or(|before| before == references), "version {number} has changed");
    }

    /// Looks until `done`, and once more.
    pub(crate) fn watch(repo: &Repo, done: &Arc<AtomicBool>) -> thread::JoinHandle<Self> {
        let (mut reader, done) = (Self::new(repo), done.clone());
        thread::spawn(move || {
            while !done.load(Ordering::SeqCst) {
                reader.look();
                thread::yield_now();
            }
            reader.look();
            reader
        })
    }
}

/// The references after those of the first version and what writers published up to `version`.
pub(crate) fn references_at(told: &[Told], version: u64) -> References {
    let mut all: Vec<_> = told.iter().flat_map(|told| &told.published).collect();
    all.sort();
    let until = all.iter().filter(|(number, ..)| *number <= version);
    until.map(|(_, name, oid)| (name.clone(), *oid)).collect()
}

/// Checks that a repository is at `version`, reads well, and had before that what `told` says.
pub(crate) fn check_history(repo: &Repo, told: &[Told], version: u64) {
    let mut reader = Reader::new(repo);
    reader.look();
    assert_eq!(reader.seen.into_iter().collect::<Vec<_>>(), [(version, references_at(told, version))]);
    for number in 1..=version {
        let snapshot = repo.at(At::Version(number), None).unwrap_or_else(|error| panic!("version {number}: {error}"));
        let references: References = snapshot.references().map(|(name, oid)| (name.clone(), *oid)).collect();
        assert_eq!(references, references_at(told, number), "version {number}");
    }
    let numbers: Vec<_> = repo.versions(None, 100).unwrap().iter().map(|version| version.version).collect();
    assert_eq!(numbers, (1..=version).rev().collect::<Vec<_>>(), "versions are dense");
}

/// Checks that the feed has each version that writers were told of once, in order.
pub(crate) fn check_feed(store: &Store, version: u64) {
    let feed = store.feed_after(Seq(0), 100).unwrap();
    assert!(feed.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let versions: Vec<_> = feed.iter().map(|publication| publication.version).collect();
    assert_eq!(versions, (2..=version).collect::<Vec<_>>(), "the feed");
}
