//! The search of a store over time: restarts, a folder that cannot be used, an index made anew, a feed that has forgotten.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use govc_backends::{FaultBackend, FaultPlan};
use govc_engine::{Cause, Health, Repo, Retention, Seq, Store, StoreOptions};
use govc_search::{
    Corpus, FindOptions, GrepQuery, Indexer, IndexerState, IndexerStatus, Search, SearchOptions, SearchStatus, find,
    grep,
};
use parking_lot::Mutex;

use super::world::{World, commit, create, memory_store, place, point, publish, put, query_of, request};

/// Only a guard against waiting for ever.
const WITHIN: Duration = Duration::from_secs(60);

/// A store with a repository of three files, and a folder for its index.
struct Served {
    store: Store,
    repo: Repo,
    place: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let store = memory_store(StoreOptions::default());
        let repo = create(&store, "demo");
        // Longer than any nonsense that may take its place on the disk.
        let text = |name: &str| format!("{}needle in {name}\n", "a line of a file\n".repeat(50));
        commit(&repo, "main", ["a.rs", "b.rs", "c.rs"].map(|name| put(name, text(name).as_bytes())).to_vec());
        Self { store, repo, place: tempfile::tempdir().expect("a folder") }
    }

    fn folder(&self) -> PathBuf {
        self.place.path().join("search")
    }

    fn open(&self) -> Search {
        let options = SearchOptions { folder: Some(self.folder()), budget_bytes: 8 << 20, ..SearchOptions::default() };
        Search::open(self.store.clone(), options).expect("a folder that cannot be used is no error")
    }

    fn put(&self, path: &str, text: &str) {
        commit(&self.repo, "main", vec![put(path, text.as_bytes())]);
    }

    /// Waits until the index has everything.
    fn followed(&self, search: &Search) -> SearchStatus {
        eventually(search, |status| {
            status.indexer.state == IndexerState::Following && status.indexer.position == self.store.feed_last()
        })
    }

    #[track_caller]
    fn check(&self, search: &Search, query: &str, expected: u64) {
        let found = find(&search.corpus(), &query_of(query), &[place(&self.repo, "main")], &FindOptions::default());
        let found = found.expect("found");
        assert_eq!((found.total_files, found.is_exact), (expected, true), "{query}");
    }

    /// The folders of indexes.
    fn indexes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.store.close().expect("close");
    }
}

/// Waits for what the thread that indexes brings about.
#[track_caller]
fn eventually(search: &Search, holds: impl Fn(&SearchStatus) -> bool) -> SearchStatus {
    let begun = Instant::now();
    loop {
        let status = search.status();
        if holds(&status) {
            return status;
        }
        assert!(begun.elapsed() < WITHIN, "it never came: {status:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_restart_goes_on_where_the_index_ended() {
    let served = Served::new();
    let search = served.open();
    // What commits say comes last, and has no position.
    let first = eventually(&search, |status| status.figures.messages == 1);
    assert_eq!((first.figures.blobs, first.indexer.repos, first.rebuilds), (3, (1, 1), 0));
    assert!(first.figures.raw_bytes > 0 && first.figures.log_bytes > 0 && first.last_error.is_none());
    drop(search);
    let search = served.open();
    let again = served.followed(&search);
    assert_eq!((again.figures, again.indexer.repos), (first.figures, (0, 0)), "nothing is gone over again");
    drop(search);
    served.put("new.rs", "a newcomer\n");
    let search = served.open();
    served.check(&search, "newcomer", 1);
    let newer = served.followed(&search);
    assert_eq!((newer.figures.blobs, newer.indexer.repos), (4, (0, 0)), "what came meanwhile is all that is new");
    assert_eq!((newer.indexer.unreadable, newer.last_error), (0, None));
    served.check(&search, "needle", 3);
}

#[test]
fn a_rebuild_leaves_out_what_is_gone() {
    let served = Served::new();
    let other = create(&served.store, "other");
    commit(&other, "main", vec![put("gone.rs", b"soon gone\n")]);
    let search = served.open();
    assert_eq!(served.followed(&search).figures.blobs, 4);
    served.store.delete(&other.name()).expect("deleted");
    assert_eq!(served.followed(&search).figures.blobs, 4, "until it is made anew");
    let before = served.indexes();
    assert!(search.rebuild());
    let status = eventually(&search, |status| status.rebuilds == 1);
    assert_eq!((status.figures.blobs, status.rebuild.is_none(), status.last_error), (3, true, None));
    assert_eq!(status.indexer.position, served.store.feed_last());
    served.check(&search, "needle", 3);
    // The one before takes no room any more, and the next start takes the new one.
    let after = served.indexes();
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    drop(search);
    let search = served.open();
    let status = served.followed(&search);
    assert_eq!((status.figures.blobs, status.indexer.repos, status.rebuilds), (3, (0, 0), 0));
}

#[test]
fn an_index_in_memory_is_made_anew_as_well() {
    let served = Served::new();
    let search = Search::open(served.store.clone(), SearchOptions::default()).expect("opened");
    assert_eq!(served.followed(&search).figures.blobs, 3);
    assert!(search.rebuild());
    let status = eventually(&search, |status| status.rebuilds == 1);
    assert_eq!((status.figures.blobs, status.indexer.state), (3, IndexerState::Following));
    served.put("new.rs", "a newcomer\n");
    assert_eq!(served.followed(&search).figures.blobs, 4, "it goes on");
}

#[test]
fn while_the_disk_fails_searches_read_and_afterwards_the_index_goes_on() {
    let served = Served::new();
    let search = served.open();
    served.followed(&search);
    // Whatever is written by its name from now on fails.
    let aside = served.place.path().join("aside");
    fs::rename(served.folder(), &aside).expect("renamed");
    fs::write(served.folder(), b"in the way").expect("written");
    served.put("new.rs", "a newcomer\n");
    served.check(&search, "newcomer", 1);
    let failing = eventually(&search, |status| status.last_error.is_some());
    let error = failing.last_error.expect("an error");
    assert!(error.contains("search index") || error.contains("cannot"), "{error}");
    assert!(failing.indexer.position < served.store.feed_last(), "it is behind, and says so");
    served.put("newest.rs", "a newcomer as well\n");
    served.check(&search, "newcomer", 2);
    served.check(&search, "needle", 3);

    fs::remove_file(served.folder()).expect("removed");
    fs::rename(&aside, served.folder()).expect("renamed");
    let status = served.followed(&search);
    assert_eq!((status.figures.blobs, status.indexer.repos), (5, (0, 0)), "it goes on with what was committed");
    served.check(&search, "newcomer", 2);
    // What was written then is there after a restart.
    drop(search);
    let search = served.open();
    assert_eq!(served.followed(&search).figures.blobs, 5);
}

/// A search whose index cannot be opened answers by reading, says why, and has one once it can be opened.
#[track_caller]
fn without_an_index(served: &Served, because: &str, mend: impl FnOnce()) {
    let search = served.open();
    for (query, expected) in [("needle", 3), ("content:/need.e in [ab]/", 2), ("path:a.rs", 1)] {
        served.check(&search, query, expected);
    }
    let status = eventually(&search, |status| status.last_error.is_some());
    assert!(status.last_error.as_ref().is_some_and(|error| error.contains(because)), "{status:?}");
    assert_eq!((status.figures.blobs, status.indexer.state), (0, IndexerState::Building));
    mend();
    search.rebuild();
    assert_eq!(served.followed(&search).figures.blobs, 3);
    served.check(&search, "needle", 3);
}

#[test]
fn a_file_in_the_place_of_the_folder_keeps_nobody_from_searching() {
    let served = Served::new();
    fs::write(served.folder(), b"a file").expect("written");
    without_an_index(&served, "cannot create", || fs::remove_file(served.folder()).expect("removed"));
}

#[test]
fn an_index_that_somebody_else_has_keeps_nobody_from_searching() {
    let served = Served::new();
    drop(served.open());
    let index = served.indexes().pop().expect("an index");
    let held = Corpus::open(&index, 8 << 20, None).expect("opened");
    without_an_index(&served, "cannot write the search index", || {
        assert_eq!(served.indexes(), [index], "it was not taken for a damaged one");
        drop(held);
    });
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    let mut all = Vec::new();
    files(from, &mut all);
    for path in all {
        let target = to.join(path.strip_prefix(from).expect("below"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        fs::copy(&path, &target).expect("copied");
    }
}

#[test]
fn a_damaged_index_is_made_anew() {
    let served = Served::new();
    let search = served.open();
    served.followed(&search);
    drop(search);
    let whole = served.place.path().join("whole");
    fs::rename(served.folder(), &whole).expect("renamed");
    let mut all = Vec::new();
    files(&whole, &mut all);
    assert!(all.len() >= 8, "{all:?}");
    for path in &all {
        for damage in ["removed", "emptied", "nonsense"] {
            let _ = fs::remove_dir_all(served.folder());
            copy(&whole, &served.folder());
            let path = served.folder().join(path.strip_prefix(&whole).expect("below"));
            match damage {
                "removed" => fs::remove_file(&path).expect("removed"),
                "emptied" => fs::write(&path, b"").expect("written"),
                _ => fs::write(&path, b"nonsense").expect("written"),
            }
            let search = served.open();
            let what = format!("{damage}: {}", path.display());
            let grepped = GrepQuery { pattern: "needle".into(), ..GrepQuery::default() };
            let snapshot = served.repo.snapshot();
            let head = snapshot.resolve_commit("main").expect("a commit");
            let answer = grep(&snapshot, head, &grepped, Some(&search.corpus())).expect("grep");
            assert_eq!(answer.lines.len(), 3, "{what}");
            for query in ["content:needle", "content:nowhere"] {
                let places = [place(&served.repo, "main")];
                let found = find(&search.corpus(), &query_of(query), &places, &FindOptions::default());
                let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
                let expected = if query == "content:needle" { 3 } else { 0 };
                assert_eq!((found.total_files, found.is_exact), (expected, true), "{what}");
            }
            // By itself, with the first that is asked of it at the latest.
            let status = eventually(&search, |status| status.figures.blobs == 3 && status.last_error.is_none());
            assert_eq!(status.indexer.unreadable, 0, "{what}");
            served.check(&search, "needle", 3);
        }
    }
    assert_eq!(served.indexes().len(), 1, "what is damaged is removed");
}

#[test]
fn an_index_of_another_version_is_made_anew() {
    let served = Served::new();
    let search = served.open();
    served.followed(&search);
    drop(search);
    let index = served.indexes().pop().expect("an index");
    let meta = index.join("grams").join("meta.json");
    let text = fs::read_to_string(&meta).expect("read");
    let newer = text.replace(r#"\"format\":"#, r#"\"format\":9"#);
    assert_ne!(newer, text);
    fs::write(&meta, newer).expect("written");
    let search = served.open();
    served.check(&search, "needle", 3);
    let status = served.followed(&search);
    assert_eq!((status.figures.blobs, status.indexer.repos, status.last_error), (3, (1, 1), None));
    assert!(!served.indexes().contains(&index));
}

/// A store that forgets, and whose clock a test sets.
struct Forgetful {
    world: World,
    clock: Arc<AtomicI64>,
    status: Arc<Mutex<IndexerStatus>>,
}

impl Forgetful {
    fn new() -> Self {
        let clock = Arc::new(AtomicI64::new(1_000_000));
        let now = clock.clone();
        let options = StoreOptions {
            memory_budget_bytes: 16 << 20,
            retention: Retention { age_max: Duration::from_millis(500), ..Retention::default() },
            clock: Arc::new(move || now.load(Ordering::Relaxed)),
            ..StoreOptions::default()
        };
        let world = World::with(memory_store(options), Corpus::in_memory(8 << 20, None).expect("corpus"));
        world.put("main", &[("old.rs", b"old\n")]);
        Self { world, clock, status: Arc::default() }
    }

    fn indexer(&self) -> Indexer {
        Indexer::new(self.world.store.clone(), self.world.corpus.clone(), self.status.clone())
    }

    /// Publishes so much that what is in the feed now is no longer kept, and a file among it.
    fn forget(&self) {
        let before = self.world.store.feed_last();
        let tip = self.world.put("main", &[("new.rs", b"new\n")]);
        for round in 0..12 {
            self.clock.fetch_add(1000, Ordering::Relaxed);
            let mut transaction = self.world.repo.begin("test", Cause::Api);
            for number in 0..600 {
                point(&mut transaction, &format!("of-round-{round}/branch-{number}"), tip);
            }
            publish(transaction);
            self.world.store.settle();
        }
        assert!(self.world.store.feed_first() > before, "the feed has forgotten");
    }

    fn check(&self) {
        let status = self.status.lock().clone();
        assert_eq!((status.state, status.position), (IndexerState::Following, self.world.store.feed_last()));
        assert_eq!((status.unreadable, status.last_error), (0, None));
        assert_eq!(self.world.corpus.figures().blobs, 2, "what came meanwhile is indexed");
    }
}

#[test]
fn what_the_feed_has_forgotten_is_found_by_going_over_everything() {
    // While nobody indexed.
    let forgetful = Forgetful::new();
    forgetful.indexer().index_all(&|| false).expect("indexed");
    forgetful.forget();
    let mut indexer = forgetful.indexer();
    assert_eq!(forgetful.status.lock().state, IndexerState::Building);
    indexer.index_all(&|| false).expect("indexed");
    assert_eq!(forgetful.status.lock().repos, (1, 1));
    forgetful.check();

    // While the indexer was held up.
    let forgetful = Forgetful::new();
    let mut indexer = forgetful.indexer();
    indexer.index_all(&|| false).expect("indexed");
    forgetful.forget();
    let begun = Instant::now();
    let is_done = || {
        let status = forgetful.status.lock();
        assert!(begun.elapsed() < WITHIN, "it never came: {status:?}");
        status.state == IndexerState::Following && status.position == forgetful.world.store.feed_last()
    };
    indexer.run(&is_done).expect("indexed");
    forgetful.check();
}

#[test]
fn a_position_of_another_store_is_not_gone_on_from() {
    let world = World::new();
    for number in 0..20 {
        world.put("main", &[("f.rs", format!("version {number}\n").as_bytes())]);
    }
    world.index();
    assert_eq!(world.corpus.figures().blobs, 20);
    let other = World::new();
    other.put("main", &[("g.rs", b"of another store\n")]);
    assert!(other.store.feed_last() < world.store.feed_last());
    let status: Arc<Mutex<IndexerStatus>> = Arc::default();
    let mut indexer = Indexer::new(other.store.clone(), world.corpus.clone(), status.clone());
    let begun = status.lock().clone();
    assert_eq!((begun.state, begun.position), (IndexerState::Building, Seq(0)));
    indexer.index_all(&|| false).expect("indexed");
    assert_eq!((world.corpus.figures().blobs, status.lock().position), (21, other.store.feed_last()));
}

#[test]
fn positions_that_stay_empty_are_passed() {
    let backend = Arc::new(FaultBackend::new(FaultPlan::none()));
    let store = Store::open(backend.clone(), StoreOptions::default()).expect("open");
    let world = World::with(store, Corpus::in_memory(8 << 20, None).expect("corpus"));
    world.put("main", &[("f.rs", b"before\n")]);
    let status: Arc<Mutex<IndexerStatus>> = Arc::default();
    let mut indexer = Indexer::new(world.store.clone(), world.corpus.clone(), status.clone());
    indexer.index_all(&|| false).expect("indexed");
    let before = status.lock().position;
    backend.be_full_once(1);
    let lost = world.repo.commit(request("main", "lost", 1_700_000_000, vec![put("f.rs", b"lost\n")]));
    lost.and_then(|committed| committed.published.ticket.wait()).expect_err("the disk was full");
    let begun = Instant::now();
    while world.store.health() != Health::Ok {
        assert!(begun.elapsed() < WITHIN, "the store does not try again");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(world.store.feed_last() > before, "there is a position without a publication");
    indexer.index_all(&|| false).expect("indexed");
    assert_eq!(status.lock().position, world.store.feed_last(), "it is not behind");
    world.put("main", &[("g.rs", b"after\n")]);
    indexer.index_all(&|| false).expect("indexed");
    assert_eq!((status.lock().position, world.corpus.figures().blobs), (world.store.feed_last(), 2));
}
