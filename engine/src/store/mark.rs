//! Marking: which objects of a pool are reached, by references, retained versions, realities, or what a reader holds.
//!
//! The walk goes from the newest commits to the oldest, through trees with their names, so that who rewrites a pool learns
//! at which path, and how late, each object is met. It goes through what is on its way to the pool, too, but not into what
//! lies under it, which is complete by itself.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashSet},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{push_certificate::PushCertificate, rewrite::Rewrite, state::Repo, table::Scope, version::Version};
use crate::{
    Error, ErrorKind, Progress, Result,
    backend::{Family, Scan, key},
    object::{Kind, Oid, links, tree_entries},
};

/// Trees or commits that are read between two questions whether to go on.
const STEPS_PER_QUESTION: u32 = 64;

/// Is told what a walk over a repository's history meets.
pub trait Tracer {
    /// A number for what is called `name` in the directory of a number; root trees have zero.
    fn below(&mut self, parent: u32, name: &[u8]) -> u32;

    /// The object of this place in [`Rewrite::objects`] is met, once. A commit's path is that of its tree.
    fn met(&mut self, at: usize, path: u32);
}

impl dyn Tracer + '_ {
    /// The path of root trees.
    pub const ROOT: u32 = 0;
}

const ROOT: u32 = <dyn Tracer>::ROOT;

/// What has been met.
pub(super) struct Marks {
    /// Of each object of the rewrite, whether it was.
    met: Vec<bool>,
    /// Others that were: on their way to the pool, or under it.
    others: HashSet<Oid>,
    /// What was reached and is nowhere.
    pub(super) missing: Option<Oid>,
    commits: BinaryHeap<Queued>,
    found: u32,
    steps: u32,
}

/// A commit whose turn is to come: the newest first, of equals that which was found first.
struct Queued {
    seconds: i64,
    found: Reverse<u32>,
    targets: SmallVec<[(Oid, Option<Kind>); 2]>,
}

impl Queued {
    fn rank(&self) -> (i64, Reverse<u32>) {
        (self.seconds, self.found)
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Marks {
    pub(super) fn new(objects: usize) -> Self {
        Self {
            met: vec![false; objects],
            others: HashSet::new(),
            missing: None,
            commits: BinaryHeap::new(),
            found: 0,
            steps: 0,
        }
    }

    pub(super) fn has_met(&self, at: usize) -> bool {
        self.met[at]
    }
}

/// One walk from some roots.
pub(super) struct Walk<'a> {
    pub(super) rewrite: &'a Rewrite,
    pub(super) marks: &'a mut Marks,
    pub(super) tracer: &'a mut dyn Tracer,
    pub(super) progress: &'a dyn Progress,
}

impl Walk<'_> {
    /// Meets all that the roots reach and was not met before.
    pub(super) fn run(&mut self, roots: &[Oid]) -> Result<()> {
        for root in roots {
            self.follow(*root)?;
        }
        while let Some(commit) = self.marks.commits.pop() {
            for (target, kind) in commit.targets {
                match kind {
                    Some(Kind::Tree) => self.tree(target)?,
                    _ => self.follow(target)?,
                }
            }
        }
        Ok(())
    }

    /// Notes that an object is met at a path; whether for the first time.
    fn meet(&mut self, oid: &Oid, path: u32) -> bool {
        let Some(at) = self.rewrite.position(oid) else { return self.marks.others.insert(*oid) };
        if std::mem::replace(&mut self.marks.met[at], true) {
            return false;
        }
        self.tracer.met(at, path);
        true
    }

    /// An object of the pool, or on its way there; `None` if it lies under it, or is missing.
    fn read(&mut self, oid: &Oid) -> Result<Option<(Kind, Bytes)>> {
        self.marks.steps += 1;
        if self.marks.steps.is_multiple_of(STEPS_PER_QUESTION) {
            self.progress.rest();
            if self.progress.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "ended on request; everything stays as it was"));
            }
        }
        if let Some(at) = self.rewrite.position(oid) {
            return Ok(Some((self.rewrite.objects()[at].kind, self.rewrite.read(at)?)));
        }
        let Repo { core, state } = self.rewrite.repo();
        if let Some(object) = core.find_own(&state.pool, oid)? {
            return Ok(Some((object.kind, object.data)));
        }
        if core.header(&state.pool, oid, Scope::Any)?.is_none() {
            self.marks.missing.get_or_insert(*oid);
        }
        Ok(None)
    }

    /// Meets a commit, whose turn then comes, or what a tag leads to.
    fn follow(&mut self, oid: Oid) -> Result<()> {
        let mut next = Some(oid);
        while let Some(oid) = next.take() {
            // Trees have a walk of their own, which must find them new.
            let is_tree = |at: usize| self.rewrite.objects()[at].kind == Kind::Tree;
            if self.rewrite.position(&oid).is_some_and(is_tree) {
                return self.tree(oid);
            }
            if !self.meet(&oid, ROOT) {
                break;
            }
            let Some((kind, data)) = self.read(&oid)? else { break };
            match kind {
                Kind::Blob => {}
                Kind::Tree => self.entries(&data, ROOT)?,
                Kind::Tag => next = links(oid.format(), kind, &data)?.targets.first().map(|(target, _)| *target),
                Kind::Commit => {
                    let links = links(oid.format(), kind, &data)?;
                    self.marks.found += 1;
                    self.marks.commits.push(Queued {
                        seconds: links.commit_seconds,
                        found: Reverse(self.marks.found),
                        targets: links.targets.into_iter().collect(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Meets a root tree and all in it.
    fn tree(&mut self, oid: Oid) -> Result<()> {
        if self.meet(&oid, ROOT)
            && let Some((_, data)) = self.read(&oid)?
        {
            self.entries(&data, ROOT)?;
        }
        Ok(())
    }

    /// Meets all below a tree.
    fn entries(&mut self, data: &[u8], path: u32) -> Result<()> {
        let format = self.rewrite.object_format();
        let mut open = vec![(Bytes::copy_from_slice(data), path)];
        while let Some((data, path)) = open.pop() {
            for entry in tree_entries(format, &data) {
                let entry = entry?;
                if entry.mode.is_submodule() || self.has_met(&entry.oid) {
                    continue;
                }
                let below = self.tracer.below(path, &entry.name);
                self.meet(&entry.oid, below);
                let is_own = self.rewrite.position(&entry.oid).is_some();
                // Of a blob that is here nothing is to be known.
                if (entry.mode.is_tree() || !is_own)
                    && let Some((Kind::Tree, data)) = self.read(&entry.oid)?
                {
                    open.push((data, below));
                }
            }
        }
        Ok(())
    }

    fn has_met(&self, oid: &Oid) -> bool {
        match self.rewrite.position(oid) {
            Some(at) => self.marks.met[at],
            None => self.marks.others.contains(oid),
        }
    }
}

impl Repo {
    /// Everything that something leads to which can be read, or built on, now: it may hold more.
    ///
    /// In this order, so that a version on its way from one to the other is seen: those that are not settled, the rows of
    /// those that are retained, those that are held.
    pub(super) fn roots(&self, progress: &dyn Progress) -> Result<Vec<Oid>> {
        let state = &*self.state;
        let mut roots = Roots::default();
        let tip = state.tip.load_full();
        roots.version(&tip);
        let mut version = tip;
        while let Some(previous) = version.previous.get() {
            roots.certificate(version.certificate.as_deref());
            for change in version.changes_since(&previous).refs.iter() {
                let reality = previous.refs.reality(&change.name);
                roots.changes([(change.before, change.after), (reality.map(|reality| reality.origin.base), None)]);
            }
            version = previous;
        }
        for version in [&state.published, &state.written, &state.settled] {
            roots.version(&version.load_full());
        }
        let rows = self.core.backend.scan(Family::History, Scan::prefix(&key::versions(state.id)))?;
        for (at, row) in rows.enumerate() {
            if at % 1024 == 0 && progress.is_cancelled() {
                return Err(Error::new(ErrorKind::Cancelled, "ended on request; everything stays as it was"));
            }
            let (version_key, value) = row?;
            let row = super::record::VersionRow::decode(state.id, key::trailing_u64(&version_key)?, &value)?;
            roots.certificate(row.certificate.as_deref());
            // Realities have no past.
            let ordinary = row.changes.refs.iter().filter(|change| !change.name.is_reality());
            // The version before the first is not retained.
            roots.changes(ordinary.map(|change| (change.before.filter(|_| at > 0), change.after)));
        }
        // Also when a settling has just replaced it.
        roots.version(&state.settled.load_full());
        for version in state.held.lock().get() {
            roots.version(&version);
        }
        Ok(roots.found)
    }
}

/// Ids, each once.
#[derive(Default)]
struct Roots {
    found: Vec<Oid>,
    seen: HashSet<Oid>,
}

impl Roots {
    fn add(&mut self, oid: Oid) {
        if self.seen.insert(oid) {
            self.found.push(oid);
        }
    }

    fn changes(&mut self, changes: impl IntoIterator<Item = (Option<Oid>, Option<Oid>)>) {
        for (before, after) in changes {
            before.into_iter().chain(after).for_each(|oid| self.add(oid));
        }
    }

    fn certificate(&mut self, certificate: Option<&PushCertificate>) {
        certificate.into_iter().for_each(|certificate| self.add(certificate.oid));
    }

    fn version(&mut self, version: &Version) {
        self.certificate(version.certificate.as_deref());
        version.refs.range(..).for_each(|(_, oid)| self.add(*oid));
        for (_, reality) in version.refs.realities(..) {
            self.add(reality.head);
            self.add(reality.origin.base);
        }
    }
}
