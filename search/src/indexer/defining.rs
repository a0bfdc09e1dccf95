//! Having the files of all tips told what they define: the least urgent work of the indexer.
//!
//! What was published last comes first, then the tips of all references. A directory that was gone through need not be
//! again, for what a file's language depends on is its content and its name: two tips cost what they differ in. There is
//! no position: each start goes through the tips, which is quick where records are there.
//!
//! Parsing is a thousand times slower than searching, so it waits for those who write: while something was published a
//! moment ago, it takes a tenth of the time. A file that cannot be told now is tried again later, less and less often; when
//! several in a row cannot, all of it rests.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use govc_engine::{Error, ErrorKind, Kind, Oid, RefName, Repo, Result, tree_entries};

use super::tips;
use crate::{
    corpus::Corpus,
    definitions::Definer,
    index::{BlobNo, BlobState},
    language::{Language, by_path, head},
    symbols::{Skipped, is_supported},
    view::is_file,
};

/// How long files are told before there is a look at what else there is to do.
const TURN: Duration = Duration::from_millis(100);
/// How long after a publication the store is taken to be written to.
const QUIET: Duration = Duration::from_secs(1);
/// How many times as long as a turn took it then rests.
const RESTS: u32 = 9;
/// Files, and bytes of their records, after which they are committed; and how long they wait for it at most.
const COMMIT_FILES: usize = 500;
const COMMIT_BYTES: usize = 4 << 20;
const COMMIT_AGE_MAX: Duration = Duration::from_secs(1);
/// References that were published and wait; when there are more, all tips are gone through again.
const WALKS_MAX: usize = 1000;
/// Trees that are remembered to be done; some 40 bytes each.
const DONE_TREES_MAX: usize = 500_000;
/// Files that are remembered to be tried again; more are left to who asks for them.
const LATER_MAX: usize = 100_000;
/// How often a file is tried before it is left to who asks for it.
const TRIES_MAX: u32 = 10;
/// How long is waited before a file is tried again, first; twice as long each time.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Files in a row without an answer after which all of it rests, and how long at most.
const FAILURES_MAX: u32 = 3;
const REST_MAX: Duration = Duration::from_secs(60);

/// Where the work is.
#[derive(Default)]
pub(super) struct Defining {
    /// Repositories whose tips are still to be gone through.
    repos: Vec<Repo>,
    /// Whether all repositories were listed.
    is_listed: bool,
    /// What is gone through, the last one first: what was published last.
    walks: Vec<Walk>,
    /// Trees of which everything below is gone through or about to be, some of them.
    done: HashSet<Oid>,
    /// Whether a repository was deleted while it was gone through, so that all are to be looked at once more.
    is_stale: bool,
    /// Files that could not be told.
    later: Vec<Later>,
    /// How many in a row could not.
    failures: u32,
    rest_until: Option<Instant>,
    written_at: Option<Instant>,
    committed_at: Option<Instant>,
}

/// Tips that are gone through.
struct Walk {
    repo: Repo,
    /// The reference, if it is one alone.
    name: Option<RefName>,
    /// What is pointed at.
    tips: Vec<Oid>,
    /// Directories of the tip that was looked at last.
    trees: Vec<Oid>,
    /// Files of the tree that was read last.
    files: Vec<(Oid, Vec<u8>)>,
    /// The trees that it has put among those that are done.
    seen: Vec<Oid>,
}

/// A file that is to be tried again.
struct Later {
    oid: Oid,
    blob: BlobNo,
    language: Language,
    tries: u32,
    at: Instant,
}

impl Defining {
    /// Notes that the store is written to.
    pub(super) fn note_write(&mut self) {
        self.written_at = Some(Instant::now());
    }

    /// Takes up what a reference was pointed at.
    pub(super) fn publish(&mut self, repo: &Repo, name: &RefName, tip: Oid) {
        // What it was pointed at before, and nobody has begun with, is none of the tips any more.
        self.walks.retain(|walk| walk.is_begun() || walk.repo.id() != repo.id() || walk.name.as_ref() != Some(name));
        if self.walks.len() >= WALKS_MAX {
            self.begin_again();
        }
        self.walks.push(Walk::new(repo.clone(), Some(name.clone()), vec![tip]));
    }

    /// Has all tips gone through again.
    fn begin_again(&mut self) {
        self.walks.clear();
        self.repos.clear();
        self.done.clear();
        self.is_listed = false;
    }

    /// Whether the repositories are to be listed.
    pub(super) fn wants_repos(&self) -> bool {
        !self.is_listed && self.repos.is_empty()
    }

    /// Takes up all repositories.
    pub(super) fn take_repos(&mut self, repos: Vec<Repo>) {
        (self.repos, self.is_listed) = (repos, true);
    }

    /// Has files told for a moment, or until `is_over`; whether there is more to do at once.
    ///
    /// # Errors
    /// When the store cannot be read or the records cannot be written.
    pub(super) fn turn(&mut self, corpus: &Corpus, is_over: &dyn Fn() -> bool) -> Result<bool> {
        let begun = Instant::now();
        let is_resting = self.rest_until.is_some_and(|until| begun < until);
        let mut is_more = !is_resting && !corpus.definitions.records.is_full();
        while is_more && !is_over() && begun.elapsed() < TURN {
            let failures = self.failures;
            is_more = self.step(corpus, Some(begun))?;
            if self.failures > failures && self.failures >= FAILURES_MAX {
                let rest = RETRY_MIN.saturating_mul(1 << (self.failures - FAILURES_MAX).min(16)).min(REST_MAX);
                self.rest_until = Some(Instant::now() + rest);
                is_more = false;
            }
        }
        self.commit_if_due(corpus, is_more)?;
        let is_written_to = self.written_at.is_some_and(|at| at.elapsed() < QUIET);
        if is_more && is_written_to {
            let now = Instant::now();
            self.rest_until = Some(now + (now - begun) * RESTS);
            is_more = false;
        }
        Ok(is_more)
    }

    /// Has everything told that can be told now, each file that could not be before among it, and commits it.
    ///
    /// # Errors
    /// As [`Defining::turn`].
    pub(super) fn finish(&mut self, corpus: &Corpus, stop: &dyn Fn() -> bool) -> Result<()> {
        for later in std::mem::take(&mut self.later) {
            if stop() {
                break;
            }
            self.tell(corpus, (later.blob, later.oid), later.language, later.tries)?;
        }
        while !stop() && self.step(corpus, None)? {
            self.commit_if_due(corpus, true)?;
        }
        self.commit_if_due(corpus, false)
    }

    fn commit_if_due(&mut self, corpus: &Corpus, is_more: bool) -> Result<()> {
        let records = &corpus.definitions.records;
        let (files, bytes) = records.pending();
        let is_old = self.committed_at.is_none_or(|at| at.elapsed() >= COMMIT_AGE_MAX);
        if files > 0 && (!is_more || is_old || files >= COMMIT_FILES || bytes >= COMMIT_BYTES) {
            records.commit()?;
            self.committed_at = Some(Instant::now());
        }
        let waiting = self.walks.iter().map(|walk| walk.files.len()).sum::<usize>() + self.later.len();
        let is_complete = self.is_listed && self.repos.is_empty() && self.walks.is_empty();
        records.set_progress(waiting, is_complete);
        Ok(())
    }

    /// Does one thing; whether there was anything to do. What failed is tried again if its time was before `now`.
    fn step(&mut self, corpus: &Corpus, now: Option<Instant>) -> Result<bool> {
        if self.walks.last().is_some_and(|walk| walk.repo.is_deleted()) {
            // Another one may have what it had, and was passed over for it.
            if let Some(walk) = self.walks.pop().filter(Walk::is_begun) {
                for tree in &walk.seen {
                    self.done.remove(tree);
                }
                self.is_stale = true;
            }
            return Ok(true);
        }
        if let Some(walk) = self.walks.last_mut() {
            if let Some((oid, name)) = walk.files.pop() {
                self.file(corpus, oid, &name)?;
            } else if let Some(tree) = walk.trees.pop() {
                self.tree(tree)?;
            } else if let Some(tip) = walk.tips.pop() {
                self.tip(tip)?;
            } else {
                self.walks.pop();
            }
            return Ok(true);
        }
        if let Some(repo) = self.repos.pop() {
            let tips = tips(&repo.snapshot());
            self.walks.push(Walk::new(repo, None, tips));
            return Ok(true);
        }
        if std::mem::take(&mut self.is_stale) {
            // What is done is not gone through again.
            self.is_listed = false;
            return Ok(false);
        }
        let due = self.later.iter().position(|later| now.is_some_and(|now| later.at <= now));
        let Some(later) = due.map(|at| self.later.swap_remove(at)) else { return Ok(false) };
        self.tell(corpus, (later.blob, later.oid), later.language, later.tries)?;
        Ok(true)
    }

    /// Looks at a tip of the walk in front.
    fn tip(&mut self, tip: Oid) -> Result<()> {
        let Some(walk) = self.walks.last() else { return Ok(()) };
        let (repo, snapshot) = (walk.repo.clone(), walk.repo.snapshot());
        // It may have gone on, or be gone.
        if walk.name.as_ref().is_some_and(|name| snapshot.reference(name) != Some(tip)) {
            return Ok(());
        }
        let tree = snapshot.peel(tip).and_then(|(oid, kind)| match kind {
            Kind::Commit => snapshot.commit(&oid).map(|commit| Some(commit.tree)),
            _ => Ok(None),
        });
        let tree = self.allow_missing(&repo, tree)?.flatten();
        if let Some(walk) = self.walks.last_mut() {
            walk.trees.extend(tree);
        }
        Ok(())
    }

    /// Reads a tree of the walk in front.
    fn tree(&mut self, tree: Oid) -> Result<()> {
        let Some(repo) = self.walks.last().map(|walk| walk.repo.clone()) else { return Ok(()) };
        if tree.is_empty_tree() || self.done.contains(&tree) {
            return Ok(());
        }
        let read = repo.snapshot().object_of(&tree, Kind::Tree).and_then(|data| {
            let (mut trees, mut files) = (Vec::new(), Vec::new());
            for entry in tree_entries(tree.format(), &data) {
                let entry = entry?;
                match () {
                    () if is_file(entry.mode) => files.push((entry.oid, entry.name.to_vec())),
                    () if entry.mode.is_tree() => trees.push(entry.oid),
                    () => {}
                }
            }
            Ok((trees, files))
        });
        let Some((trees, files)) = self.allow_missing(&repo, read)? else { return Ok(()) };
        if self.done.len() >= DONE_TREES_MAX {
            self.done.clear();
        }
        self.done.insert(tree);
        if let Some(walk) = self.walks.last_mut() {
            walk.seen.push(tree);
            walk.trees.extend(trees);
            walk.files = files;
        }
        Ok(())
    }

    /// What is lost or damaged is passed over; another repository may have what is below, and is gone through whole.
    fn allow_missing<T>(&mut self, repo: &Repo, read: Result<T>) -> Result<Option<T>> {
        let is_missing = |error: &Error| {
            matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid | ErrorKind::TooLarge)
        };
        match read {
            // The index has noted it.
            Err(error) if repo.is_deleted() || is_missing(&error) => {
                self.done.clear();
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Has a file told unless it is recorded, or is none that can be.
    fn file(&mut self, corpus: &Corpus, oid: Oid, name: &[u8]) -> Result<()> {
        if by_path(name).is_some_and(|language| !is_supported(language)) {
            return Ok(());
        }
        let blob = corpus.number(oid);
        let is_text = matches!(corpus.index.tables().state(blob), BlobState::Text { .. });
        if !is_text {
            return Ok(());
        }
        let language = corpus.language(blob, name, || Ok(head(&corpus.index.text(blob)).to_vec()))?;
        match language.filter(|language| is_supported(*language)) {
            Some(language) => self.tell(corpus, (blob, oid), language, 0),
            None => Ok(()),
        }
    }

    fn tell(&mut self, corpus: &Corpus, (blob, oid): (BlobNo, Oid), language: Language, tries: u32) -> Result<()> {
        let definitions = &corpus.definitions;
        let Some(definer): Option<&Arc<dyn Definer>> = definitions.definer() else { return Ok(()) };
        if definitions.records.is_full() || definitions.records.has(blob, language) {
            return Ok(());
        }
        let content = corpus.index.text(blob);
        let told = definer.definitions(language, &content);
        if definitions.records.add((blob, oid), language, &content, &told)? {
            self.failures = 0;
            return Ok(());
        }
        match told {
            Ok(_) | Err(Skipped::Unsupported) => return Ok(()),
            // The file's fault, mostly.
            Err(Skipped::TooSlow) => self.failures = 0,
            Err(_) => self.failures = self.failures.saturating_add(1),
        }
        if tries + 1 < TRIES_MAX && self.later.len() < LATER_MAX {
            let at = Instant::now() + RETRY_MIN * (1 << tries.min(16));
            self.later.push(Later { oid, blob, language, tries: tries + 1, at });
        }
        Ok(())
    }
}

impl Walk {
    fn new(repo: Repo, name: Option<RefName>, tips: Vec<Oid>) -> Self {
        Self { repo, name, tips, trees: Vec::new(), files: Vec::new(), seen: Vec::new() }
    }

    fn is_begun(&self) -> bool {
        !self.trees.is_empty() || !self.files.is_empty()
    }
}
