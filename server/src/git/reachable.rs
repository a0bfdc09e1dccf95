//! Which objects a client may have by their ids: those that the references and realities of a version lead to, and what
//! they led to a moment ago, for a fetch asks for what it was told of before.
//!
//! A tip is found among the references. For anything else (a partial clone asks for blobs and trees, CI systems for
//! commits) there is a walk from the tips. It stops as soon as everything is found and goes on from there when more is
//! asked, so that what all clients of a repository ask costs one walk through it, and a refusal no more than that. It also
//! survives new versions, as long as they lead to all that earlier ones did. Commits are walked newest first, and as far
//! ahead of the trees as a commit or a root tree is sought; a kept pack whose tips were met tells of every object that it
//! holds.
//!
//! Lock order: the list, never held while anything is read; then one repository's walk.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use govc_engine::{Error, ErrorKind, GitRules, Kind, Oid, RefChange, Repo, RepoId, Result, Snapshot, tree_entries};
use parking_lot::Mutex;

use super::cache::{KeptPack, PackCache};
use super::visible::Visible;

/// What an id that is remembered takes of memory: its first eight bytes, and the set's room.
const ID_BYTES: u64 = 20;
/// What a walk takes beside its ids, in ids.
const WALK_IDS: usize = 64;
/// The least memory for all walks together.
const MEMORY_MIN_BYTES: u64 = 16 << 20;
/// The part of the storage's budget that all walks together may take, beside it.
const MEMORY_PART: u64 = 32;
/// New commits that are looked through for the tips of an earlier version.
const NEW_COMMITS_MAX: usize = 4096;
/// Versions that are looked through for tips of a moment ago.
const RECENT_VERSIONS_MAX: usize = 8192;
/// Versions that are read at once.
const VERSIONS_AT_ONCE: usize = 512;
/// Objects that are asked for at once.
const HEADERS_AT_ONCE: usize = 4096;
/// Requests that may wait for one repository's walk; each holds a thread of the work pool.
const WAITING_MAX: usize = 4;

/// What is known of the repositories that were asked about last.
pub(crate) struct Reachable {
    repos: Mutex<HashMap<RepoId, Arc<Entry>>>,
    clock: AtomicU64,
    /// Ids that all walks together remember.
    ids_max: usize,
    grace: Duration,
}

#[derive(Default)]
struct Entry {
    walk: Mutex<Walk>,
    waiting: AtomicUsize,
    /// When it was used last, by the clock of the list. Orders nothing.
    used: AtomicU64,
    /// Ids that the walk remembers, told when it rests. Orders nothing.
    ids: AtomicUsize,
}

impl Reachable {
    /// `memory_bytes` is the storage's budget, of which this takes a thirty-second beside it; `grace` is how long what a
    /// reference named may be asked for after it has moved.
    pub(crate) fn new(memory_bytes: u64, grace: Duration) -> Self {
        let ids_max = (memory_bytes / MEMORY_PART).max(MEMORY_MIN_BYTES) / ID_BYTES;
        let ids_max = usize::try_from(ids_max).unwrap_or(usize::MAX);
        Self { repos: Mutex::default(), clock: AtomicU64::new(0), ids_max, grace }
    }

    /// Those of `oids` that a client of `snapshot` may not have, as far as the repository has them at all.
    ///
    /// # Errors
    /// `Cancelled` after the deadline, `Unavailable` if too many wait for the same, and what reading fails with.
    pub(crate) fn missing(
        &self,
        snapshot: &Snapshot,
        packs: &PackCache,
        oids: &[Oid],
        deadline: Instant,
    ) -> Result<HashSet<Oid>> {
        let mut sought: HashSet<Oid> = oids.iter().copied().collect();
        find_tips(snapshot, &mut sought);
        if sought.is_empty() {
            return Ok(sought);
        }
        // Nothing is searched for what is not there.
        let all: Vec<Oid> = sought.drain().collect();
        let (mut absent, mut sought) = (Vec::new(), Sought::default());
        for some in all.chunks(HEADERS_AT_ONCE) {
            in_time(deadline)?;
            for (oid, header) in some.iter().zip(snapshot.headers(some)?) {
                match header {
                    Some((Kind::Blob, _)) => drop(sought.blobs.insert(*oid)),
                    Some(_) => drop(sought.others.insert(*oid)),
                    None => absent.push(*oid),
                }
            }
        }
        if !sought.is_empty() {
            let repo = snapshot.repo();
            let entry = self.entry(repo.id());
            let searched = entry.turn(deadline, |walk| {
                let searched = self.search(walk, repo, packs, &mut sought, deadline);
                if searched.as_ref().is_err_and(|error| *error.kind() != ErrorKind::Cancelled)
                    || walk.ids() > self.ids_max
                {
                    *walk = Walk::default();
                }
                entry.ids.store(walk.ids() + WALK_IDS, Ordering::Relaxed);
                searched
            });
            self.make_room(repo.id());
            searched?;
        }
        absent.extend(sought.blobs);
        absent.extend(sought.others);
        Ok(absent.into_iter().collect())
    }

    /// What `name` named before it went, if that was a moment ago.
    ///
    /// # Errors
    /// What reading fails with.
    pub(crate) fn recently(&self, repo: &Repo, name: &[u8]) -> Result<Option<Oid>> {
        let mut found = None;
        recent_changes(repo, self.grace, |change, _| {
            if found.is_none() && change.name.as_bytes() == name {
                found = change.before;
            }
        })?;
        Ok(found)
    }

    fn search(
        &self,
        walk: &mut Walk,
        repo: &Repo,
        packs: &PackCache,
        sought: &mut Sought,
        deadline: Instant,
    ) -> Result<()> {
        // The newest, so that the versions of a walk only go up.
        let snapshot = repo.snapshot();
        walk.follow(&snapshot, self.grace, deadline)?;
        walk.search(&snapshot, &packs.of(repo.id()), sought, self.ids_max, deadline)
    }

    fn entry(&self, repo: RepoId) -> Arc<Entry> {
        let entry = Arc::clone(self.repos.lock().entry(repo).or_default());
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        entry
    }

    /// Forgets what was used least until the rest is within bounds; `but` is spared.
    fn make_room(&self, but: RepoId) {
        let mut repos = self.repos.lock();
        while repos.values().map(|entry| entry.ids.load(Ordering::Relaxed)).sum::<usize>() > self.ids_max {
            let others = repos.iter().filter(|(repo, _)| **repo != but);
            let oldest = others.min_by_key(|(_, entry)| entry.used.load(Ordering::Relaxed)).map(|(repo, _)| *repo);
            // The one that is spared is within bounds by itself.
            let Some(oldest) = oldest else { break };
            repos.remove(&oldest);
        }
    }

    /// Forgets repositories that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(RepoId) -> bool) {
        self.repos.lock().retain(|repo, _| exists(*repo));
    }
}

impl Entry {
    /// Runs `work` when nobody else has the walk.
    fn turn<T>(&self, deadline: Instant, work: impl FnOnce(&mut Walk) -> Result<T>) -> Result<T> {
        let mut walk = match self.walk.try_lock() {
            Some(walk) => walk,
            None => {
                let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
                let walk = (waiting < WAITING_MAX).then(|| self.walk.try_lock_until(deadline));
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                let busy =
                    || Error::new(ErrorKind::Unavailable, "many fetches by id of this repository wait; try again");
                walk.ok_or_else(busy)?.ok_or_else(time_is_over)?
            }
        };
        work(&mut walk)
    }
}

fn time_is_over() -> Error {
    Error::new(ErrorKind::Cancelled, "the time for this request is over")
}

fn in_time(deadline: Instant) -> Result<()> {
    if Instant::now() >= deadline { Err(time_is_over()) } else { Ok(()) }
}

/// Everything that a client may see named, realities included: they are advertised to who asks for them.
fn tips(visible: &Visible<'_>) -> impl Iterator<Item = Oid> {
    let realities = visible.realities(b"").map(|(_, reality)| reality.head);
    visible.references().map(|(_, oid)| *oid).chain(realities)
}

/// Takes out of `sought` what is named; looks no further once nothing is left.
fn find_tips(snapshot: &Snapshot, sought: &mut HashSet<Oid>) {
    let visible = Visible::of(snapshot);
    for tip in visible.head().into_iter().chain(tips(&visible)) {
        if sought.remove(&tip) && sought.is_empty() {
            return;
        }
    }
}

/// Tells, the newest first, of each change within `grace`, and how long it still is within it.
fn recent_changes(repo: &Repo, grace: Duration, mut tell: impl FnMut(&RefChange, Duration)) -> Result<()> {
    let rules = repo.git_rules();
    if grace.is_zero() {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut before, mut left) = (None, RECENT_VERSIONS_MAX);
    while left > 0 {
        let page = repo.versions(before, VERSIONS_AT_ONCE.min(left))?;
        for version in &page {
            let made = Duration::from_millis(u64::try_from(version.time_millis).unwrap_or_default());
            let Some(left) = (made + grace).checked_sub(now).filter(|left| !left.is_zero()) else { return Ok(()) };
            let shown = version.changes.refs.iter().filter(|change| !rules.hides(change.name.as_bytes()));
            shown.for_each(|change| tell(change, left));
        }
        left = left.saturating_sub(page.len());
        let Some(last) = page.last() else { return Ok(()) };
        before = Some(last.version);
    }
    Ok(())
}

/// Objects that are there and that nothing was found yet to lead to.
#[derive(Default)]
struct Sought {
    blobs: HashSet<Oid>,
    /// Commits, tags and trees.
    others: HashSet<Oid>,
}

impl Sought {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.others.is_empty()
    }

    fn retain(&mut self, keep: impl Fn(&Oid) -> bool) {
        self.blobs.retain(&keep);
        self.others.retain(&keep);
    }

    fn any(&self, is: impl Fn(&Oid) -> bool) -> bool {
        self.blobs.iter().chain(&self.others).any(is)
    }
}

/// A walk from the tips of a version, as far as it has got.
#[derive(Default)]
struct Walk {
    /// The version, by its number; `None` before the first.
    version: Option<u64>,
    /// What was hidden in it.
    rules: Arc<GitRules>,
    /// Those of the version, and of a moment before.
    tips: HashSet<Oid>,
    /// When the first of those that were only recent must be looked at again.
    until: Option<Instant>,
    /// What has been met, by the first bytes of the ids: commits, tags, trees, and blobs as far as there is room.
    seen: HashSet<u64>,
    /// Met commits whose parents are still to be met, the newest first.
    commits: BinaryHeap<(i64, Oid)>,
    /// Root trees of commits that have been passed, whose entries are still to be met, the newest first.
    roots: BinaryHeap<(i64, Oid)>,
    /// Met trees within one of those, likewise.
    trees: Vec<Oid>,
}

impl Walk {
    /// Takes out of `sought` what the version leads to.
    fn search(
        &mut self,
        snapshot: &Snapshot,
        packs: &[Arc<KeptPack>],
        sought: &mut Sought,
        ids_max: usize,
        deadline: Instant,
    ) -> Result<()> {
        sought.retain(|oid| !self.has(oid));
        for pack in packs {
            if !sought.any(|oid| pack.find(oid).is_some()) {
                continue;
            }
            while !pack.tips.iter().all(|tip| self.has(tip))
                && let Some((seconds, commit)) = self.commits.pop()
            {
                in_time(deadline)?;
                self.pass(snapshot, seconds, commit, sought)?;
            }
            if pack.tips.iter().all(|tip| self.has(tip)) {
                sought.retain(|oid| pack.find(oid).is_none());
            }
        }
        while !sought.is_empty() {
            in_time(deadline)?;
            // Of commits and root trees nothing can be found in trees.
            let ahead = !sought.others.is_empty()
                || (self.trees.is_empty() && self.commits.peek().map(|at| at.0) >= self.roots.peek().map(|at| at.0));
            let commit = if ahead { self.commits.pop() } else { None };
            match commit {
                Some((seconds, commit)) => self.pass(snapshot, seconds, commit, sought)?,
                None => {
                    let Some(tree) = self.trees.pop().or_else(|| self.roots.pop().map(|(_, tree)| tree)) else { break };
                    self.enter(snapshot, tree, sought, ids_max)?;
                }
            }
        }
        Ok(())
    }

    fn has(&self, oid: &Oid) -> bool {
        self.seen.contains(&oid.bits())
    }

    /// Ids that it remembers.
    fn ids(&self) -> usize {
        self.seen.len() + self.tips.len()
    }

    /// Goes over to the snapshot's version; begins anew if that does not lead to all that the walk has met.
    fn follow(&mut self, snapshot: &Snapshot, grace: Duration, deadline: Instant) -> Result<()> {
        let number = snapshot.version().number;
        let visible = Visible::of(snapshot);
        if self.rules != *visible.rules() {
            *self = Self { rules: Arc::clone(visible.rules()), ..Self::default() };
        }
        if self.version == Some(number) && self.until.is_none_or(|until| Instant::now() < until) {
            return Ok(());
        }
        let mut now: HashSet<Oid> = tips(&visible).collect();
        let (mut recent, mut until) = (HashSet::new(), None);
        recent_changes(snapshot.repo(), grace, |change, left| {
            if let Some(before) = change.before.filter(|before| !now.contains(before)) {
                recent.insert(before);
                until = Some(until.map_or(left, |until: Duration| until.min(left)));
            }
        })?;
        now.extend(recent);
        let gone: HashSet<Oid> = self.tips.difference(&now).copied().collect();
        if !self.leads_to(snapshot, &now, gone, deadline)? {
            *self = Self { rules: Arc::clone(visible.rules()), ..Self::default() };
        }
        for tip in now.difference(&self.tips).copied().collect::<Vec<_>>() {
            self.meet_tip(snapshot, tip, deadline)?;
        }
        self.tips = now;
        self.version = Some(number);
        self.until = until.map(|until| Instant::now() + until);
        Ok(())
    }

    /// Whether `tips`, the new ones first, lead to all that is gone, and soon.
    fn leads_to(
        &self,
        snapshot: &Snapshot,
        tips: &HashSet<Oid>,
        mut gone: HashSet<Oid>,
        deadline: Instant,
    ) -> Result<bool> {
        if gone.is_empty() {
            return Ok(true);
        }
        let mut queue = BinaryHeap::new();
        let mut met = HashSet::new();
        let head = Visible::of(snapshot).head();
        let kept = head.into_iter().chain(tips.intersection(&self.tips).copied());
        for tip in tips.difference(&self.tips).copied().chain(kept).take(NEW_COMMITS_MAX) {
            let (through, target) = peeled(snapshot, tip, deadline)?;
            met.extend(&through);
            gone.retain(|oid| !through.contains(oid));
            if let Some((Kind::Commit, oid)) = target {
                queue.push((snapshot.commit_links(&oid)?.seconds, oid));
            }
        }
        for _ in 0..NEW_COMMITS_MAX {
            if gone.is_empty() {
                break;
            }
            let Some((_, oid)) = queue.pop() else { break };
            in_time(deadline)?;
            gone.remove(&oid);
            for parent in &snapshot.commit_links(&oid)?.parents {
                if met.insert(*parent) {
                    queue.push((snapshot.commit_links(parent)?.seconds, *parent));
                }
            }
        }
        Ok(gone.is_empty())
    }

    /// Meets the parents and the tree of a commit.
    fn pass(&mut self, snapshot: &Snapshot, seconds: i64, commit: Oid, sought: &mut Sought) -> Result<()> {
        let links = snapshot.commit_links(&commit)?;
        for parent in links.parents {
            sought.others.remove(&parent);
            if !self.has(&parent) {
                self.commits.push((snapshot.commit_links(&parent)?.seconds, parent));
                self.seen.insert(parent.bits());
            }
        }
        sought.others.remove(&links.tree);
        if self.seen.insert(links.tree.bits()) {
            self.roots.push((seconds, links.tree));
        }
        Ok(())
    }

    /// Meets the entries of a tree.
    fn enter(&mut self, snapshot: &Snapshot, tree: Oid, sought: &mut Sought, ids_max: usize) -> Result<()> {
        let Some(object) = snapshot.try_object(&tree)? else { return Ok(()) };
        for entry in tree_entries(snapshot.object_format(), &object.data) {
            let entry = entry?;
            if entry.mode.is_tree() {
                sought.others.remove(&entry.oid);
                if self.seen.insert(entry.oid.bits()) {
                    self.trees.push(entry.oid);
                }
            } else if !entry.mode.is_submodule() {
                sought.blobs.remove(&entry.oid);
                // Beyond the bounds the walk is not kept; then only what is not to be walked twice counts.
                if self.ids() <= ids_max {
                    self.seen.insert(entry.oid.bits());
                }
            }
        }
        Ok(())
    }

    /// Meets a tip, and what a tag leads to.
    fn meet_tip(&mut self, snapshot: &Snapshot, tip: Oid, deadline: Instant) -> Result<()> {
        let (through, target) = peeled(snapshot, tip, deadline)?;
        let known = target.is_some_and(|(_, oid)| self.has(&oid));
        match target {
            Some((Kind::Commit, oid)) if !known => self.commits.push((snapshot.commit_links(&oid)?.seconds, oid)),
            Some((Kind::Tree, oid)) if !known => self.trees.push(oid),
            _ => {}
        }
        self.seen.extend(through.iter().map(Oid::bits));
        Ok(())
    }
}

/// What a tip leads to through tags: each object from it on, and the last one with its kind if it is there.
type Peeled = (Vec<Oid>, Option<(Kind, Oid)>);

fn peeled(snapshot: &Snapshot, oid: Oid, deadline: Instant) -> Result<Peeled> {
    let (mut through, mut at) = (vec![oid], oid);
    loop {
        in_time(deadline)?;
        match snapshot.header(&at)? {
            Some((Kind::Tag, _)) => at = snapshot.tag(&at)?.target,
            found => return Ok((through, found.map(|(kind, _)| (kind, at)))),
        }
        through.push(at);
    }
}

#[cfg(test)]
mod tests {
    use govc_backends::MemoryBackend;
    use govc_engine::{
        Change, CommitRequest, Durability, Expected, RefEdit, RefName, Repo, RepoName, RepoSettings, Signature, Store,
        StoreOptions,
    };

    use super::*;
    use crate::git::PackCacheOptions;

    struct Place {
        /// Open as long as the test.
        _store: Store,
        repo: Repo,
        packs: PackCache,
        reachable: Reachable,
        commits: AtomicU64,
    }

    impl Place {
        /// One without memory of what references named.
        fn new() -> Self {
            Self::with_grace(Duration::ZERO)
        }

        fn with_grace(grace: Duration) -> Self {
            let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).unwrap();
            let settings = RepoSettings { durability: Durability::Memory, ..RepoSettings::default() };
            let repo = store.create(&RepoName::new("r").unwrap(), settings, "test").unwrap();
            let options = PackCacheOptions { dir: None, memory_bytes: 1 << 20, disk_bytes: 0, reserve_bytes: 0 };
            let packs = PackCache::open(options).unwrap();
            Self { _store: store, repo, packs, reachable: Reachable::new(0, grace), commits: AtomicU64::new(0) }
        }

        /// A commit of one file on a branch, newer than those before: commit, root tree, and the file in a directory.
        fn commit(&self, branch: &str, content: &str) -> [Oid; 3] {
            let seconds = 1_700_000_000 + self.commits.fetch_add(1, Ordering::Relaxed).cast_signed();
            let person = Signature::new("Ada", "ada@example.org", seconds, 0).unwrap();
            let changes = vec![Change::put("dir/file", content.to_owned())];
            let request = CommitRequest::new(RefName::branch(branch).unwrap(), content, person, changes);
            let commit = self.repo.commit(request).unwrap();
            commit.published.ticket.wait().unwrap();
            let snapshot = self.repo.snapshot();
            let file = snapshot.entry(commit.oid, b"dir/file").unwrap().unwrap().oid;
            [commit.oid, snapshot.root_tree(commit.oid).unwrap(), file]
        }

        fn point(&self, branch: &str, target: Option<Oid>) {
            let mut transaction = self.repo.begin("test", govc_engine::Cause::Api);
            let name = RefName::branch(branch).unwrap();
            transaction.edit(RefEdit { name, expected: Expected::Any, target }).unwrap();
            transaction.prepare().unwrap().publish().unwrap().ticket.wait().unwrap();
        }

        fn missing(&self, oids: &[Oid]) -> Vec<Oid> {
            let deadline = Instant::now() + Duration::from_secs(600);
            let missing = self.reachable.missing(&self.repo.snapshot(), &self.packs, oids, deadline).unwrap();
            oids.iter().filter(|oid| missing.contains(*oid)).copied().collect()
        }

        fn met(&self) -> usize {
            self.reachable.entry(self.repo.id()).walk.lock().seen.len()
        }
    }

    #[test]
    fn what_the_tips_lead_to_is_there_and_nothing_else() {
        let place = Place::new();
        let first = place.commit("main", "one");
        let second = place.commit("main", "two");
        place.point("side", Some(second[0]));
        let apart = place.commit("side", "three");
        let all = [first, second, apart].concat();
        assert_eq!(place.missing(&all), []);
        let nowhere = Oid::from_hex(&[b'1'; 40]).unwrap();
        assert_eq!(place.missing(&[first[2], nowhere]), [nowhere]);
        // The branch's commit, tree and file go with it; of the others the branch had nothing alone.
        place.point("side", None);
        assert_eq!(place.missing(&all), apart);
        assert_eq!(place.missing(&all), apart, "a refusal is remembered");
        place.point("side", Some(apart[0]));
        assert_eq!(place.missing(&all), []);
    }

    #[test]
    fn a_walk_stops_and_goes_on_also_over_versions() {
        let place = Place::new();
        let commits: Vec<[Oid; 3]> = (0..50).map(|at| place.commit("main", &format!("content {at}"))).collect();
        assert_eq!(place.missing(&[commits[49][0]]), []);
        assert_eq!(place.met(), 0, "a tip needs no walk");
        assert_eq!(place.missing(&[commits[48][2]]), []);
        let few = place.met();
        assert!(few < 20, "{few} ids were met");
        assert_eq!(place.missing(&[commits[3][0], commits[4][1]]), []);
        let commits_and_roots = place.met();
        // All commits but three with their root trees, and what had been met of the last two.
        assert!((94..110).contains(&commits_and_roots), "{commits_and_roots} ids were met");
        assert_eq!(place.missing(&[commits[5][0], commits[6][1]]), []);
        assert_eq!(place.met(), commits_and_roots, "what was passed is remembered");
        assert_eq!(place.missing(&[commits[20][2]]), []);
        let more = place.met();
        assert!((150..165).contains(&more), "{more} ids were met");
        // A commit on top leads to all that has been met.
        let [_, _, file] = place.commit("main", "on top");
        assert_eq!(place.missing(&[file, commits[20][2]]), []);
        assert!(place.met() >= more, "the walk has begun anew");
        // Going back does not.
        place.point("main", Some(commits[10][0]));
        assert_eq!(place.missing(&[commits[5][2], commits[20][2]]), [commits[20][2]]);
    }

    #[test]
    fn what_was_named_a_moment_ago_leads_to_objects_for_as_long_as_that() {
        let grace = Duration::from_millis(700);
        let place = Place::with_grace(grace);
        place.commit("main", "one");
        place.point("side", Some(place.commit("main", "two")[0]));
        let apart = place.commit("side", "three");
        let began = Instant::now();
        place.point("side", None);
        let missing = place.missing(&apart);
        let is_recent = began.elapsed() < grace;
        assert!(!is_recent || missing.is_empty(), "{missing:?}");
        let named = place.reachable.recently(&place.repo, b"refs/heads/side").unwrap();
        assert!(named == Some(apart[0]) || began.elapsed() >= grace);
        assert_eq!(place.reachable.recently(&place.repo, b"refs/heads/other").unwrap(), None);
        // No version comes that would tell of the end.
        let end = Instant::now() + Duration::from_secs(60);
        while place.missing(&apart) != apart {
            assert!(Instant::now() < end, "it is never forgotten");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(place.reachable.recently(&place.repo, b"refs/heads/side").unwrap(), None);
    }

    #[test]
    fn a_merged_branch_may_go_without_a_new_walk() {
        let place = Place::new();
        let commits: Vec<[Oid; 3]> = (0..20).map(|at| place.commit("main", &format!("content {at}"))).collect();
        place.point("merged", Some(commits[15][0]));
        assert_eq!(place.missing(&[commits[0][2]]), []);
        let all = place.met();
        place.point("merged", None);
        assert_eq!(place.missing(&[commits[1][2]]), []);
        assert_eq!(place.met(), all, "the walk has begun anew");
    }

    #[test]
    fn only_few_wait_for_a_walk() {
        let place = Place::new();
        let [commit, ..] = place.commit("main", "one");
        place.commit("main", "two");
        let entry = place.reachable.entry(place.repo.id());
        let walk = entry.walk.lock();
        let ask = &|deadline| place.reachable.missing(&place.repo.snapshot(), &place.packs, &[commit], deadline);
        std::thread::scope(|scope| {
            let later = Instant::now() + Duration::from_secs(600);
            let waiting: Vec<_> = (0..WAITING_MAX).map(|_| scope.spawn(move || ask(later))).collect();
            while entry.waiting.load(Ordering::Relaxed) < WAITING_MAX {
                std::thread::yield_now();
            }
            assert_eq!(*ask(later).unwrap_err().kind(), ErrorKind::Unavailable);
            drop(walk);
            for thread in waiting {
                assert_eq!(thread.join().unwrap().unwrap(), HashSet::new());
            }
        });
    }

    #[test]
    fn time_ends_a_walk_which_goes_on_later() {
        let place = Place::new();
        let [_, _, file] = place.commit("main", "one");
        place.commit("main", "two");
        let snapshot = place.repo.snapshot();
        let error = place.reachable.missing(&snapshot, &place.packs, &[file], Instant::now()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Cancelled);
        assert_eq!(place.missing(&[file]), []);
    }
}
