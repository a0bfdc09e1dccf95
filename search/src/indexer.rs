//! Keeping the index up with the store: one pass over everything that there is, then the feed.
//!
//! The pass takes the tips of all references first, so that searches of branches become fast soon, and then all of history;
//! between, what is published goes in front. The position in the feed is stored with the index when the pass is over,
//! and then with each commit: what comes after a restart begins there. Publishing knows nothing of it, and a search is
//! exact whatever is indexed, so there is nothing to lose here but time.
//!
//! Which files are in which commits ([`crate::presence`]) comes last, and has no position: each start looks whether it has
//! what references point at, which is quick if it does, so that what a crash or damage took is added again. What a commit
//! says ([`crate::index::messages`]) is added with it, and each start looks for commits that lack it.
//!
//! What files define ([`defining`]) comes after all else, in short turns. While writers come at machine rate, it mostly rests
//! ([`pace`]).
//!
//! Repositories that are only in memory are not indexed: their contents must not be on a disk.

mod defining;
mod messages;
mod pace;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use govc_engine::{
    Durability, Error, ErrorKind, Kind, Oid, Publication, ReachOptions, RefChange, Repo, RepoId, RepoName, Result, Seq,
    Snapshot, Store, tree_entries,
};
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use self::defining::Defining;
use crate::{corpus::Corpus, index::BlobNo, view::is_file};

/// New text after which the index is committed at once, in bytes; while the pass is under way, more.
const COMMIT_BYTES: usize = 16 << 20;
const COMMIT_BYTES_IN_PASS: usize = 64 << 20;
/// How long what is new waits for a commit at most.
const COMMIT_AGE_MAX: Duration = Duration::from_secs(1);
/// The same while more publications wait than are taken together.
const COMMIT_AGE_MAX_IN_BURST: Duration = Duration::from_secs(10);
/// Publications that are taken together.
const FEED_LIMIT: usize = 1000;
/// Repositories that are listed together.
const LIST_LIMIT: usize = 1000;
/// Commits of one publication that are taken one by one; of more, all that they reach is listed first.
const COMMITS_MAX: usize = 1000;
/// After so many commits in a row without anything new, what is in front of them is taken to be known.
const BARREN_MAX: usize = 64;
/// Commits that are remembered to be done.
const DONE_MAX: usize = 200_000;
/// Trees that are remembered to be done; some 40 bytes each.
const DONE_TREES_MAX: usize = 500_000;
/// How long histories are added before the feed is looked at.
const TURN: Duration = Duration::from_secs(5);
/// How long the feed is waited for at once.
const WAIT: Duration = Duration::from_millis(100);

/// What the indexer does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IndexerState {
    /// It goes over everything that there is.
    #[default]
    Building,
    /// It follows what is published.
    Following,
}

/// How far the indexer is.
#[derive(Debug, Clone, Default)]
pub struct IndexerStatus {
    /// What it does.
    pub state: IndexerState,
    /// Repositories of the pass, done and all.
    pub repos: (u64, u64),
    /// The position in the feed up to which everything is indexed and committed.
    pub position: Seq,
    /// The newest position in the feed when it last looked.
    pub newest: Seq,
    /// Blobs and commits that could not be read and are left out until the index is made anew.
    pub unreadable: u64,
    /// The last of these, as text.
    pub last_error: Option<String>,
}

/// Follows a store and keeps a corpus up with it.
pub struct Indexer {
    store: Store,
    corpus: Arc<Corpus>,
    status: Arc<Mutex<IndexerStatus>>,
    /// Where the feed is taken from next; ahead of what is committed.
    position: Seq,
    /// Whether the first pass is over.
    is_complete: bool,
    /// Whether all of the feed could be followed since that pass began.
    is_gapless: bool,
    /// Whether the histories of all repositories were looked at.
    has_histories: bool,
    /// All repositories by their ids, as of the last time that one was not found.
    names: HashMap<RepoId, RepoName>,
    /// Whether they were listed since the publications came that are being taken.
    are_names_fresh: bool,
    /// Whether publications are being taken.
    is_following: bool,
    /// Commits whose files are all indexed, some of them.
    done: HashSet<Oid>,
    /// Trees of which everything below is indexed or about to be, some of them.
    done_trees: HashSet<Oid>,
    committed_at: Instant,
    /// What files define.
    defining: Defining,
}

/// Whether to end: the index is left as it was last committed.
type Stop<'a> = &'a dyn Fn() -> bool;

impl Indexer {
    /// An indexer of `store` into `corpus`, which nobody else writes to.
    pub fn new(store: Store, corpus: Arc<Corpus>, status: Arc<Mutex<IndexerStatus>>) -> Self {
        let position = corpus.index.position();
        let newest = store.feed_last();
        // A position that the store has not reached is another store's.
        let known = position.filter(|position| *position <= newest && *position >= store.feed_first());
        let state = if known.is_some() { IndexerState::Following } else { IndexerState::Building };
        *status.lock() =
            IndexerStatus { state, position: known.unwrap_or_default(), newest, ..IndexerStatus::default() };
        Self {
            position: known.unwrap_or(newest),
            is_complete: known.is_some(),
            is_gapless: true,
            has_histories: false,
            store,
            corpus,
            status,
            names: HashMap::new(),
            are_names_fresh: false,
            is_following: false,
            done: HashSet::new(),
            done_trees: HashSet::new(),
            committed_at: Instant::now(),
            defining: Defining::default(),
        }
    }

    /// Keeps the index up until `stop` says to end.
    ///
    /// # Errors
    /// When the index cannot be written or the store cannot be read. The corpus is then to be opened anew.
    pub fn run(&mut self, stop: Stop<'_>) -> Result<()> {
        while !stop() {
            self.catch_up(stop)?;
            let is_due = self.committed_at.elapsed() >= COMMIT_AGE_MAX;
            let is_pending = self.corpus.index.is_pending() || self.corpus.presence.is_pending();
            if is_due && (is_pending || self.is_behind()) && !stop() {
                self.commit()?;
            }
            if !self.define(stop)? {
                self.store.feed_wait(self.position, WAIT);
            }
        }
        Ok(())
    }

    /// Has files told what they define for a moment, if there is nothing else to do; whether there is more to do at once.
    fn define(&mut self, stop: Stop<'_>) -> Result<bool> {
        let is_current = self.is_complete && self.has_histories && !self.corpus.index.is_pending();
        if stop() || !is_current || !self.corpus.definitions.can_tell() {
            return Ok(false);
        }
        self.list_to_define();
        let (store, position) = (self.store.clone(), self.position);
        self.defining.turn(&self.corpus, &|| stop() || store.feed_last() > position)
    }

    fn list_to_define(&mut self) {
        if self.defining.wants_repos() {
            let repos = self.list();
            self.defining.take_repos(repos);
        }
    }

    /// Indexes everything that is published by now, and records what the files of all tips define, as far as that can be
    /// told now.
    ///
    /// # Errors
    /// As [`Indexer::run`].
    pub fn define_all(&mut self, stop: Stop<'_>) -> Result<()> {
        self.index_all(stop)?;
        if stop() || !self.corpus.definitions.can_tell() {
            return Ok(());
        }
        loop {
            self.list_to_define();
            self.defining.finish(&self.corpus, stop)?;
            // A repository that was deleted meanwhile may have hidden what another one has.
            if stop() || !self.defining.wants_repos() {
                return Ok(());
            }
        }
    }

    /// Indexes everything that is published by now, and commits it.
    ///
    /// # Errors
    /// As [`Indexer::run`].
    pub fn index_all(&mut self, stop: Stop<'_>) -> Result<()> {
        self.catch_up(stop)?;
        self.commit()
    }

    fn catch_up(&mut self, stop: Stop<'_>) -> Result<()> {
        loop {
            if !self.is_complete {
                self.pass(stop)?;
            }
            while !stop() && self.follow(stop)? {
                if self.committed_at.elapsed() >= COMMIT_AGE_MAX_IN_BURST {
                    self.commit()?;
                }
            }
            // It was away for longer than the feed is kept.
            if self.is_complete || stop() {
                break;
            }
        }
        if !self.has_histories {
            self.add_histories(stop)?;
        }
        Ok(())
    }

    /// Adds the histories of all repositories to the presence index. What is published meanwhile goes in front, and is
    /// found by looking again.
    fn add_histories(&mut self, stop: Stop<'_>) -> Result<()> {
        let mut added = 1;
        while added > 0 {
            added = 0;
            for repo in self.list() {
                let snapshot = repo.snapshot();
                for tip in tips(&snapshot) {
                    loop {
                        let some = self.add_presence(&repo, &snapshot, tip, Some(TURN), stop)?;
                        if stop() {
                            return Ok(());
                        }
                        if some == 0 {
                            break;
                        }
                        added += some;
                        self.commit()?;
                        while !stop() && self.follow(stop)? {}
                    }
                }
            }
        }
        self.corpus.presence.commit()?;
        self.add_missing_messages(stop)?;
        self.has_histories = !stop();
        Ok(())
    }

    /// Adds what a reference points at, and all that it follows from, to the presence index, and what these commits say; how
    /// many were new. What cannot be read, or is too large, is read by who asks for it.
    fn add_presence(
        &mut self,
        repo: &Repo,
        snapshot: &Snapshot,
        tip: Oid,
        turn: Option<Duration>,
        stop: Stop<'_>,
    ) -> Result<u64> {
        if self.corpus.presence.is_known(&tip) {
            return Ok(0);
        }
        let mut added = Vec::new();
        let mut add = |tip| match snapshot.peel(tip)? {
            (commit, Kind::Commit) => {
                let corpus = &self.corpus;
                corpus.presence.add_history(snapshot, &corpus.index, commit, turn, stop, &mut added)
            }
            _ => Ok(()),
        };
        let done = add(tip);
        let is_whole = done.is_ok();
        match done {
            Err(error) if matches!(error.kind(), ErrorKind::TooLarge | ErrorKind::LimitExceeded) => {
                self.note(repo, &error);
            }
            done => self.allow_missing(repo, done)?,
        }
        self.add_messages(repo, snapshot, &added, stop)?;
        // What stopped at an error would stop there again.
        Ok(if is_whole { added.len() as u64 } else { 0 })
    }

    /// Whether positions were passed that the index does not know of.
    fn is_behind(&self) -> bool {
        self.is_complete && self.status.lock().position < self.position
    }

    fn commit(&mut self) -> Result<()> {
        self.corpus.presence.commit()?;
        let position = self.is_complete.then_some(self.position);
        self.corpus.index.commit(position)?;
        // So that the next question need not.
        self.corpus.message_numbers();
        self.committed_at = Instant::now();
        let mut status = self.status.lock();
        status.position = position.unwrap_or(status.position);
        status.newest = self.store.feed_last();
        Ok(())
    }

    /// Goes over all repositories: the tips of their references, then their histories.
    fn pass(&mut self, stop: Stop<'_>) -> Result<()> {
        self.position = self.store.feed_last();
        self.is_gapless = true;
        self.status.lock().state = IndexerState::Building;
        for is_history in [false, true] {
            let repos = self.list();
            self.status.lock().repos = (0, repos.len() as u64);
            for repo in &repos {
                if stop() {
                    return Ok(());
                }
                let snapshot = repo.snapshot();
                let done = match is_history {
                    true => self.add_history(&snapshot, tips(&snapshot), stop),
                    false => self.add_tips(&snapshot, stop),
                };
                self.allow_missing(repo, done)?;
                self.status.lock().repos.0 += 1;
            }
        }
        if !stop() && self.is_gapless {
            self.is_complete = true;
            self.status.lock().state = IndexerState::Following;
            self.commit()?;
        }
        Ok(())
    }

    /// A repository may be deleted, or be damaged, while others are to be indexed.
    fn allow_missing(&self, repo: &Repo, done: Result<()>) -> Result<()> {
        match done {
            Err(error)
                if repo.is_deleted()
                    || matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::TooLarge
                    ) =>
            {
                if !repo.is_deleted() {
                    self.note(repo, &error);
                }
                Ok(())
            }
            done => done,
        }
    }

    /// Reports what cannot be indexed.
    fn note(&self, repo: &Repo, error: &Error) {
        let mut status = self.status.lock();
        status.unreadable += 1;
        status.last_error = Some(format!("{}: {error}", repo.name()));
    }

    /// The repositories that are indexed.
    fn list(&mut self) -> Vec<Repo> {
        let mut repos = Vec::new();
        let mut after = None;
        loop {
            let some = self.store.list(after.as_ref(), LIST_LIMIT);
            let Some(last) = some.last() else { break };
            after = Some(last.name());
            repos.extend(some);
        }
        self.names = repos.iter().map(|repo| (repo.id(), repo.name())).collect();
        repos.retain(is_indexed);
        repos
    }

    /// The files of all tips.
    fn add_tips(&mut self, snapshot: &Snapshot, stop: Stop<'_>) -> Result<()> {
        for tip in tips(snapshot) {
            if stop() {
                return Ok(());
            }
            self.add_tip(snapshot, tip, stop)?;
        }
        Ok(())
    }

    /// The files of what a reference points at, which may be any object.
    fn add_tip(&mut self, snapshot: &Snapshot, tip: Oid, stop: Stop<'_>) -> Result<()> {
        let (oid, kind) = snapshot.peel(tip)?;
        if kind == Kind::Commit && !self.done.contains(&oid) {
            self.add_files(snapshot, oid, stop)?;
        }
        Ok(())
    }

    /// All blobs that some tips reach.
    fn add_history(&mut self, snapshot: &Snapshot, wants: Vec<Oid>, stop: Stop<'_>) -> Result<()> {
        if wants.is_empty() {
            return Ok(());
        }
        let reach = snapshot.reach(&ReachOptions { wants: &wants, ..ReachOptions::default() })?;
        let blobs: Vec<Oid> =
            reach.objects.iter().filter(|(_, kind)| *kind == Kind::Blob).map(|(oid, _)| *oid).collect();
        drop(reach);
        for some in blobs.chunks(4096) {
            let numbers = self.corpus.index.numbers(some);
            self.add_blobs(snapshot, &numbers, stop)?;
        }
        Ok(())
    }

    /// The files of one commit; whether any is new.
    fn add_files(&mut self, snapshot: &Snapshot, commit: Oid, stop: Stop<'_>) -> Result<bool> {
        let tree = snapshot.commit(&commit)?.tree;
        let (blobs, trees) = self.unknown_below(snapshot, tree, stop)?;
        let numbers = RoaringBitmap::from_iter(self.corpus.index.numbers(&blobs));
        let fresh: Vec<BlobNo> = self.corpus.index.unknown(&numbers);
        self.add_blobs(snapshot, &fresh, stop)?;
        if stop() {
            return Ok(true);
        }
        if self.done.len() >= DONE_MAX {
            self.done.clear();
        }
        if self.done_trees.len() >= DONE_TREES_MAX {
            self.done_trees.clear();
        }
        self.done.insert(commit);
        self.done_trees.extend(trees);
        Ok(!fresh.is_empty())
    }

    /// The files below a tree, without what is below trees that were gone through, and the other trees. Two commits
    /// have most directories in common, so this takes what a commit changed.
    fn unknown_below(&self, snapshot: &Snapshot, tree: Oid, stop: Stop<'_>) -> Result<(Vec<Oid>, HashSet<Oid>)> {
        let (mut blobs, mut trees, mut queue) = (Vec::new(), HashSet::new(), vec![tree]);
        while let Some(tree) = queue.pop() {
            if tree.is_empty_tree() || self.done_trees.contains(&tree) || !trees.insert(tree) {
                continue;
            }
            if stop() {
                break;
            }
            for entry in tree_entries(tree.format(), &snapshot.object_of(&tree, Kind::Tree)?) {
                let entry = entry?;
                match () {
                    () if is_file(entry.mode) => blobs.push(entry.oid),
                    () if entry.mode.is_tree() => queue.push(entry.oid),
                    () => {}
                }
            }
        }
        Ok((blobs, trees))
    }

    fn add_blobs(&mut self, snapshot: &Snapshot, blobs: &[BlobNo], stop: Stop<'_>) -> Result<()> {
        for blob in blobs {
            if stop() {
                return Ok(());
            }
            let Some(oid) = self.corpus.index.take_up(*blob) else { continue };
            match snapshot.object_in_passing(&oid, Kind::Blob) {
                Ok(data) => self.corpus.index.add(oid, &data)?,
                Err(error) => {
                    self.corpus.index.put_back(*blob);
                    // What else there is is not to wait for what is lost.
                    if !matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::TooLarge
                    ) {
                        return Err(error);
                    }
                    self.note(snapshot.repo(), &error);
                    continue;
                }
            }
            let commit_bytes = if self.is_complete { COMMIT_BYTES } else { COMMIT_BYTES_IN_PASS };
            if self.corpus.index.pending_bytes() >= commit_bytes {
                self.commit_between(stop)?;
            }
        }
        Ok(())
    }

    /// Commits in the midst of something: what was passed of the feed is not all indexed.
    fn commit_between(&mut self, stop: Stop<'_>) -> Result<()> {
        self.corpus.index.commit(None)?;
        self.committed_at = Instant::now();
        if !self.is_complete && !self.is_following && !stop() {
            // What is published meanwhile is what people look for.
            self.follow(stop)?;
        }
        Ok(())
    }

    /// Takes some publications; whether there may be more.
    fn follow(&mut self, stop: Stop<'_>) -> Result<bool> {
        // Before the publications: positions up to here that are not among them stay empty.
        let newest = self.store.feed_last();
        let publications = match self.store.feed_after(self.position, FEED_LIMIT) {
            Err(error) if *error.kind() == ErrorKind::Gone => {
                // It was away for longer than the feed is kept.
                (self.is_complete, self.is_gapless) = (false, false);
                self.position = newest;
                return Ok(false);
            }
            publications => publications?,
        };
        self.status.lock().newest = newest;
        let Some((last, time_millis)) = publications.last().map(|last| (last.seq, last.time_millis)) else {
            self.position = self.position.max(newest);
            return Ok(false);
        };
        let is_more = publications.len() == FEED_LIMIT;
        self.are_names_fresh = false;
        self.defining.note_write();
        self.is_following = true;
        let begun = Instant::now();
        let taken = publications.iter().try_for_each(|publication| self.take(publication, stop));
        self.is_following = false;
        taken?;
        if stop() {
            return Ok(false);
        }
        self.position = last;
        if is_more && self.has_histories {
            pace::rest(begun.elapsed(), time_millis, &|| self.store.feed_last(), stop);
        }
        Ok(is_more)
    }

    fn take(&mut self, publication: &Publication, stop: Stop<'_>) -> Result<()> {
        if stop() {
            return Ok(());
        }
        let Some(repo) = self.repo(publication.repo) else { return Ok(()) };
        let snapshot = repo.snapshot();
        for change in publication.changes.refs.iter() {
            let done = self.add_change(&snapshot, change, stop);
            self.allow_missing(&repo, done)?;
            let Some(after) = change.after else { continue };
            self.defining.publish(&repo, &change.name, after);
            if self.has_histories {
                self.add_presence(&repo, &snapshot, after, None, stop)?;
            }
        }
        Ok(())
    }

    /// The repository of an id, unless it is gone or not indexed.
    fn repo(&mut self, id: RepoId) -> Option<Repo> {
        let known = |names: &HashMap<RepoId, RepoName>, store: &Store| {
            names.get(&id).and_then(|name| store.repo(name).ok()).filter(|repo| repo.id() == id)
        };
        let mut repo = known(&self.names, &self.store);
        if repo.is_none() && !self.are_names_fresh {
            self.list();
            self.are_names_fresh = true;
            repo = known(&self.names, &self.store);
        }
        repo.filter(is_indexed)
    }

    /// The files of the commits that a change of a reference brought.
    fn add_change(&mut self, snapshot: &Snapshot, change: &RefChange, stop: Stop<'_>) -> Result<()> {
        let Some(after) = change.after else { return Ok(()) };
        let (tip, kind) = snapshot.peel(after)?;
        if kind != Kind::Commit {
            return Ok(());
        }
        let (mut queue, mut count, mut barren) = (vec![tip], 0, 0);
        while let Some(commit) = queue.pop() {
            if stop() || barren >= BARREN_MAX {
                return Ok(());
            }
            if Some(commit) == change.before || self.done.contains(&commit) {
                continue;
            }
            if count >= COMMITS_MAX {
                return self.add_history(snapshot, vec![tip], stop);
            }
            count += 1;
            let is_new = self.add_files(snapshot, commit, stop)?;
            barren = if is_new { 0 } else { barren + 1 };
            queue.extend(snapshot.commit(&commit)?.parents);
        }
        Ok(())
    }
}

/// What the references of a snapshot point at.
fn tips(snapshot: &Snapshot) -> Vec<Oid> {
    let tips: HashSet<Oid> = snapshot.references().map(|(_, oid)| *oid).collect();
    tips.into_iter().collect()
}

/// Whether a repository's contents may be in the index.
fn is_indexed(repo: &Repo) -> bool {
    repo.settings().durability != Durability::Memory
}
