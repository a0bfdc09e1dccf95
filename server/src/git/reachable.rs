//! Which objects a client may have by their ids: those that the references and realities of a version lead to.
//!
//! A tip is found among the references. For anything else (a partial clone asks for blobs and trees, CI systems for
//! commits) there is a walk from the tips, the newest commits first, through each tree once. It stops as soon as everything
//! is found and goes on from there when more is asked, so that what all clients of a repository ask costs one walk
//! through it, and a refusal no more than that. It also survives new versions, as long as they lead to all that earlier
//! ones did. Two shortcuts come before: commits and their root trees are sought without looking into trees, and a kept
//! pack whose tips are reached tells of every object that it holds.
//!
//! Lock order: the list, never held while anything is read; then one repository's walk.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use govc_engine::{CommitLinks, Error, ErrorKind, Kind, Oid, RepoId, Result, Snapshot, tree_entries};
use parking_lot::Mutex;

use super::cache::PackCache;

/// Ids that all walks together remember: up to 48 MiB.
const IDS_MAX: usize = 1 << 20;
/// New commits that are looked through for the tips of an earlier version.
const NEW_COMMITS_MAX: usize = 4096;
/// Objects that are asked for at once.
const HEADERS_AT_ONCE: usize = 4096;

/// What is known of the repositories that were asked about last.
#[derive(Default)]
pub(crate) struct Reachable {
    repos: Mutex<HashMap<RepoId, Arc<Entry>>>,
    clock: AtomicU64,
}

#[derive(Default)]
struct Entry {
    walk: Mutex<Walk>,
    /// When it was used last, by the clock of the list. Orders nothing.
    used: AtomicU64,
    /// Ids that the walk remembers, told when it rests. Orders nothing.
    ids: AtomicUsize,
}

impl Reachable {
    /// Those of `oids` that a client of `snapshot` may not have, as far as the repository has them at all.
    ///
    /// # Errors
    /// `Cancelled` after the deadline, and what reading fails with.
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
        let all: Vec<Oid> = sought.iter().copied().collect();
        let (mut absent, mut kinds) = (Vec::new(), HashMap::new());
        for some in all.chunks(HEADERS_AT_ONCE) {
            in_time(deadline)?;
            for (oid, header) in some.iter().zip(snapshot.headers(some)?) {
                match header {
                    Some((kind, _)) => drop(kinds.insert(*oid, kind)),
                    None => absent.push(*oid),
                }
            }
        }
        sought.retain(|oid| kinds.contains_key(oid));
        if !sought.is_empty() {
            let id = snapshot.repo().id();
            let entry = self.entry(id);
            let mut walk = entry
                .walk
                .try_lock_until(deadline)
                .ok_or_else(|| Error::new(ErrorKind::Cancelled, "the time for this request is over"))?;
            let searched = walk.search(snapshot, packs, &mut sought, &kinds, deadline);
            if searched.as_ref().is_err_and(|error| *error.kind() != ErrorKind::Cancelled) || walk.ids() > IDS_MAX {
                *walk = Walk::default();
            }
            entry.ids.store(walk.ids(), Ordering::Relaxed);
            drop(walk);
            self.make_room(id);
            searched?;
        }
        sought.extend(absent);
        Ok(sought)
    }

    fn entry(&self, repo: RepoId) -> Arc<Entry> {
        let entry = Arc::clone(self.repos.lock().entry(repo).or_default());
        entry.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        entry
    }

    /// Forgets what was used least until the rest is within bounds; `but` is spared.
    fn make_room(&self, but: RepoId) {
        let mut repos = self.repos.lock();
        while repos.values().map(|entry| entry.ids.load(Ordering::Relaxed)).sum::<usize>() > IDS_MAX {
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

fn in_time(deadline: Instant) -> Result<()> {
    if Instant::now() >= deadline {
        return Err(Error::new(ErrorKind::Cancelled, "the time for this request is over"));
    }
    Ok(())
}

/// Everything that a client may see named, realities included: they are advertised to who asks for them.
fn tips(snapshot: &Snapshot) -> impl Iterator<Item = Oid> {
    let realities = snapshot.realities_with_prefix(b"").map(|(_, reality)| reality.head);
    snapshot.references().map(|(_, oid)| *oid).chain(realities)
}

/// Takes out of `sought` what is named; looks no further once nothing is left.
fn find_tips(snapshot: &Snapshot, sought: &mut HashSet<Oid>) {
    let head = snapshot.reference(snapshot.head());
    for tip in head.into_iter().chain(tips(snapshot)) {
        if sought.remove(&tip) && sought.is_empty() {
            return;
        }
    }
}

/// A walk from the tips of a version, as far as it has got.
#[derive(Default)]
struct Walk {
    /// The version, by its number; `None` before the first.
    version: Option<u64>,
    tips: HashSet<Oid>,
    /// What has been met: commits, tags, trees, and blobs as far as there is room.
    seen: HashSet<Oid>,
    /// Met commits whose parents and trees are still to be met, the newest first.
    commits: BinaryHeap<(i64, Oid)>,
    /// Met trees whose entries are still to be met.
    trees: Vec<Oid>,
}

impl Walk {
    /// Takes out of `sought` what the version leads to.
    fn search(
        &mut self,
        snapshot: &Snapshot,
        packs: &PackCache,
        sought: &mut HashSet<Oid>,
        kinds: &HashMap<Oid, Kind>,
        deadline: Instant,
    ) -> Result<()> {
        self.follow_version(snapshot, deadline)?;
        sought.retain(|oid| !self.seen.contains(oid));
        if sought.is_empty() || self.is_complete() {
            return Ok(());
        }
        let packs = packs.of(snapshot.repo().id());
        let ends = packs.iter().flat_map(|pack| &pack.tips).filter(|tip| !self.seen.contains(*tip));
        let shallow = sought.iter().filter(|oid| kinds.get(*oid) != Some(&Kind::Blob));
        let shallow: HashSet<Oid> = shallow.chain(ends).copied().collect();
        let left = self.search_commits(snapshot, shallow.clone(), deadline)?;
        sought.retain(|oid| !shallow.contains(oid) || left.contains(oid));
        for pack in packs.iter().filter(|pack| !pack.tips.iter().any(|tip| left.contains(tip))) {
            sought.retain(|oid| pack.find(oid).is_none());
        }
        while !sought.is_empty() && !self.is_complete() {
            in_time(deadline)?;
            self.step(snapshot, sought)?;
        }
        Ok(())
    }

    /// Ids that it remembers.
    fn ids(&self) -> usize {
        self.seen.len() + self.tips.len()
    }

    fn is_complete(&self) -> bool {
        self.commits.is_empty() && self.trees.is_empty()
    }

    /// Goes over to the snapshot's version; begins anew if that does not lead to all that the walk has met.
    fn follow_version(&mut self, snapshot: &Snapshot, deadline: Instant) -> Result<()> {
        let number = snapshot.version().number;
        if self.version == Some(number) {
            return Ok(());
        }
        let now: HashSet<Oid> = tips(snapshot).collect();
        let gone: HashSet<Oid> = self.tips.difference(&now).copied().collect();
        // An older snapshot may come after a newer one.
        if self.version.is_some_and(|version| version > number) || !self.leads_to(snapshot, &now, gone, deadline)? {
            *self = Self::default();
        }
        self.version = Some(number);
        for tip in now.difference(&self.tips).copied().collect::<Vec<_>>() {
            self.meet_tip(snapshot, tip)?;
        }
        self.tips = now;
        Ok(())
    }

    /// Whether the new ones of `tips` lead to all that is gone, and soon.
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
        for tip in tips.difference(&self.tips) {
            queue_commit(snapshot, *tip, &mut met, &mut queue)?;
        }
        for _ in 0..NEW_COMMITS_MAX {
            let Some((_, oid)) = queue.pop() else { break };
            in_time(deadline)?;
            if gone.remove(&oid) && gone.is_empty() {
                return Ok(true);
            }
            queue_parents(snapshot, &snapshot.commit_links(&oid)?, &mut met, &mut queue)?;
        }
        Ok(false)
    }

    /// Searches commits, tags and root trees, without looking into trees; gives what was not found.
    fn search_commits(&self, snapshot: &Snapshot, mut sought: HashSet<Oid>, deadline: Instant) -> Result<HashSet<Oid>> {
        let mut queue = BinaryHeap::new();
        let mut met = HashSet::new();
        for tip in &self.tips {
            queue_commit(snapshot, *tip, &mut met, &mut queue)?;
        }
        sought.retain(|oid| !met.contains(oid));
        while !sought.is_empty()
            && let Some((_, oid)) = queue.pop()
        {
            in_time(deadline)?;
            sought.remove(&oid);
            let links = snapshot.commit_links(&oid)?;
            sought.remove(&links.tree);
            queue_parents(snapshot, &links, &mut met, &mut queue)?;
        }
        Ok(sought)
    }

    /// Goes on by one tree or commit.
    fn step(&mut self, snapshot: &Snapshot, sought: &mut HashSet<Oid>) -> Result<()> {
        if let Some(tree) = self.trees.pop() {
            let Some(object) = snapshot.try_object(&tree)? else { return Ok(()) };
            for entry in tree_entries(&object.data) {
                let entry = entry?;
                if entry.mode.is_tree() {
                    self.meet_tree(entry.oid, sought);
                } else if !entry.mode.is_submodule() {
                    sought.remove(&entry.oid);
                    // Beyond the bounds the walk is not kept; then only what is not to be walked twice counts.
                    if self.ids() <= IDS_MAX {
                        self.seen.insert(entry.oid);
                    }
                }
            }
        } else if let Some((_, commit)) = self.commits.pop() {
            let links = snapshot.commit_links(&commit)?;
            for parent in links.parents {
                sought.remove(&parent);
                if !self.seen.contains(&parent) {
                    self.commits.push((snapshot.commit_links(&parent)?.seconds, parent));
                    self.seen.insert(parent);
                }
            }
            self.meet_tree(links.tree, sought);
        }
        Ok(())
    }

    fn meet_tree(&mut self, oid: Oid, sought: &mut HashSet<Oid>) {
        sought.remove(&oid);
        if self.seen.insert(oid) {
            self.trees.push(oid);
        }
    }

    /// Meets a tip, and what a tag leads to.
    fn meet_tip(&mut self, snapshot: &Snapshot, tip: Oid) -> Result<()> {
        let mut at = tip;
        while !self.seen.contains(&at) {
            let target = match snapshot.header(&at)? {
                Some((Kind::Commit, _)) => {
                    self.commits.push((snapshot.commit_links(&at)?.seconds, at));
                    None
                }
                Some((Kind::Tree, _)) => {
                    self.trees.push(at);
                    None
                }
                Some((Kind::Tag, _)) => Some(snapshot.tag(&at)?.target),
                Some((Kind::Blob, _)) | None => None,
            };
            self.seen.insert(at);
            let Some(target) = target else { break };
            at = target;
        }
        Ok(())
    }
}

/// Queues the parents of a commit, each once.
fn queue_parents(
    snapshot: &Snapshot,
    links: &CommitLinks,
    met: &mut HashSet<Oid>,
    queue: &mut BinaryHeap<(i64, Oid)>,
) -> Result<()> {
    for parent in &links.parents {
        if met.insert(*parent) {
            queue.push((snapshot.commit_links(parent)?.seconds, *parent));
        }
    }
    Ok(())
}

/// Queues the commit that an object is or leads to, and notes everything on the way, each once.
fn queue_commit(
    snapshot: &Snapshot,
    oid: Oid,
    met: &mut HashSet<Oid>,
    queue: &mut BinaryHeap<(i64, Oid)>,
) -> Result<()> {
    let mut at = oid;
    while met.insert(at) {
        match snapshot.header(&at)? {
            Some((Kind::Commit, _)) => queue.push((snapshot.commit_links(&at)?.seconds, at)),
            Some((Kind::Tag, _)) => {
                at = snapshot.tag(&at)?.target;
                continue;
            }
            _ => {}
        }
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    }

    impl Place {
        fn new() -> Self {
            let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).unwrap();
            let settings = RepoSettings { durability: Durability::Memory, ..RepoSettings::default() };
            let repo = store.create(&RepoName::new("r").unwrap(), settings, "test").unwrap();
            let options = PackCacheOptions { dir: None, memory_bytes: 1 << 20, disk_bytes: 0, reserve_bytes: 0 };
            let packs = PackCache::open(options).unwrap();
            Self { _store: store, repo, packs, reachable: Reachable::default() }
        }

        /// A commit of one file on a branch: commit, root tree, and the file in a directory.
        fn commit(&self, branch: &str, content: &str) -> [Oid; 3] {
            let person = Signature::new("Ada", "ada@example.org", 1_700_000_000, 0).unwrap();
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
        assert_eq!(place.met(), few, "commits and root trees are found without looking into trees");
        assert_eq!(place.missing(&[commits[20][2]]), []);
        let more = place.met();
        assert!((80..150).contains(&more), "{more} ids were met");
        // A commit on top leads to all that has been met.
        let [_, _, file] = place.commit("main", "on top");
        assert_eq!(place.missing(&[file, commits[20][2]]), []);
        assert!(place.met() >= more, "the walk has begun anew");
        // Going back does not.
        place.point("main", Some(commits[10][0]));
        assert_eq!(place.missing(&[commits[5][2], commits[20][2]]), [commits[20][2]]);
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
