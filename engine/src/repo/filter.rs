//! Filters: which of the objects that a walk reaches are sent, for clones that leave some out and ask for them later.
//!
//! A filter is one set of conditions, all of which must hold; of several filters, joined, an object must pass each. What
//! was asked for by its own id is always sent. How each condition counts is git's
//! (`Documentation/rev-list-options`, `list-objects-filter.c`), with one difference: whether an object is sent never
//! depends on the order in which its paths are met. It is sent if it passes at any one of them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use super::{
    TREE_DEPTH_MAX, check_deadline,
    oid_set::OidSet,
    reach::{ReachWalk, Similar},
};
use crate::{
    Error, ErrorKind, Result,
    object::{Kind, Oid, tree_entries},
};

/// Pairs of a tree and a path that one walk may meet: a tree that holds another twice doubles its paths.
const PLACES_MAX: usize = 1 << 22;
/// Bytes of what a walk comes back to: a place far below the root is known by its whole path.
const DEEP_BYTES_MAX: usize = 64 << 20;
/// Entries of trees between two looks at the clock.
const ENTRIES_PER_LOOK: usize = 4096;
/// Blobs whose sizes are asked for at once.
const SIZES_AT_ONCE: usize = 4096;

/// Decides by paths.
pub trait PathRule: Send + Sync {
    /// Whether what is at `path`, relative to the root and without slashes around it, is meant; the root itself is empty.
    /// `None` leaves it to the directory above.
    fn takes(&self, path: &[u8], is_tree: bool) -> Option<bool>;
}

/// Conditions on objects; without any, everything passes.
#[derive(Clone, Default)]
pub struct Filter {
    /// Only blobs of fewer bytes than this: with 0, none at all.
    pub blob_bytes: Option<u64>,
    /// Only trees and blobs that are less deep than this. Root trees are at 0, what is in them at 1.
    pub depth: Option<u64>,
    /// Only objects of each of these kinds: of two different ones, nothing.
    pub kinds: Vec<Kind>,
    /// Only blobs at paths that each of these takes.
    pub paths: Vec<Arc<dyn PathRule>>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blob_bytes, depth, kinds, paths } = self;
        write!(f, "Filter({blob_bytes:?}, {depth:?}, {kinds:?}, {} paths)", paths.len())
    }
}

impl Filter {
    /// Whether all objects of a kind pass, so that a receiver whose filter this is has all that its history needs.
    pub fn takes_all(&self, kind: Kind) -> bool {
        let by_place = match kind {
            Kind::Commit | Kind::Tag => true,
            Kind::Tree => self.depth.is_none(),
            Kind::Blob => self.depth.is_none() && self.blob_bytes.is_none() && self.paths.is_empty(),
        };
        by_place && self.allows(kind)
    }

    /// Whether objects of a kind may pass.
    fn allows(&self, kind: Kind) -> bool {
        self.kinds.iter().all(|wanted| *wanted == kind)
    }

    /// Whether blobs may pass.
    fn allows_blobs(&self) -> bool {
        self.allows(Kind::Blob) && self.blob_bytes != Some(0)
    }

    /// Whether something at this depth, or below, may pass.
    fn allows_depth(&self, depth: u64) -> bool {
        (self.allows(Kind::Tree) || self.allows_blobs()) && self.depth.is_none_or(|limit| depth < limit)
    }

    /// Whether an object may pass in one place and not in another.
    fn is_by_place(&self) -> bool {
        self.depth.is_some() || !self.paths.is_empty()
    }
}

impl ReachWalk<'_> {
    /// Completes a walk whose commits are found: adds what passes of them, of `roots`, which were asked for, and of the
    /// trees of the commits.
    pub(super) fn filtered(
        &mut self,
        filter: &Filter,
        tips: &[Oid],
        roots: Vec<(Oid, Kind)>,
        commits: &[(Oid, Oid)],
    ) -> Result<()> {
        let wanted: HashSet<&Oid> = tips.iter().collect();
        let sent = commits.iter().filter(|(oid, _)| filter.allows(Kind::Commit) || wanted.contains(oid));
        self.reach.objects.splice(0..0, sent.map(|(oid, _)| (*oid, Kind::Commit)));
        let wanted_blobs: HashSet<Oid> =
            roots.iter().filter(|(_, kind)| *kind == Kind::Blob).map(|(oid, _)| *oid).collect();
        let edge_trees = self.reach.edge_trees.clone();
        let mut places = Places {
            walk: self,
            filter,
            met: Met::default(),
            path: Vec::new(),
            deep: Vec::new(),
            deep_bytes: 0,
            entries: 0,
        };
        // Before what the receiver has is marked: it may have left out just this. Blobs first, for a tree may hold them.
        for oid in &wanted_blobs {
            places.walk.seen.insert(*oid);
        }
        places.walk.reach.objects.extend(wanted_blobs.iter().map(|oid| (*oid, Kind::Blob)));
        for (oid, _) in roots.into_iter().filter(|(_, kind)| *kind == Kind::Tree) {
            places.wanted_tree(oid)?;
        }
        if filter.allows_depth(0) {
            for tree in &edge_trees {
                places.walk.mark_tree(*tree)?;
            }
            let at_edge = edge_trees.first().copied();
            let mut similar = Similar { at_edge, newer: None };
            for (_, tree) in commits {
                places.root_tree(*tree, similar)?;
                similar.newer = at_edge.map(|_| *tree);
            }
        }
        match filter.blob_bytes {
            None | Some(0) => Ok(()),
            Some(limit) => self.drop_blobs(limit, &wanted_blobs),
        }
    }

    /// Takes out the blobs of `limit` bytes or more that were not asked for.
    fn drop_blobs(&mut self, limit: u64, wanted: &HashSet<Oid>) -> Result<()> {
        let blobs = self.reach.objects.iter().filter(|(oid, kind)| *kind == Kind::Blob && !wanted.contains(oid));
        let blobs: Vec<Oid> = blobs.map(|(oid, _)| *oid).collect();
        let mut large = OidSet::default();
        for some in blobs.chunks(SIZES_AT_ONCE) {
            check_deadline(self.options.deadline)?;
            for (oid, header) in some.iter().zip(self.snapshot.headers(some)?) {
                let (_, size) = header.ok_or_else(|| Error::not_found(format!("object {oid} does not exist")))?;
                if size >= limit {
                    large.insert(*oid);
                }
            }
        }
        self.reach.objects.retain(|(oid, _)| !large.contains(oid));
        Ok(())
    }
}

/// What has been met of trees that are not settled: those of which more may pass in another place.
#[derive(Default)]
struct Met {
    /// Trees that are sent.
    sent: OidSet,
    /// The least depth at which a tree was met.
    depths: HashMap<Oid, u64>,
    /// Hashes of a tree's id and of the path at which it was met.
    paths: HashSet<(u64, u64)>,
}

/// A walk through trees that knows where it is.
struct Places<'w, 'a, 'f> {
    walk: &'w mut ReachWalk<'a>,
    filter: &'f Filter,
    met: Met,
    /// Of the tree or blob at hand, without slashes around it.
    path: Vec<u8>,
    /// What lies deeper than the walk recurses, which it comes back to.
    deep: Vec<Deep>,
    deep_bytes: usize,
    entries: usize,
}

/// A tree that waits, and where it is.
struct Deep {
    oid: Oid,
    path: Vec<u8>,
    depth: u64,
    rules: Vec<bool>,
    similar: Similar,
}

impl Deep {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.len() + self.rules.len()
    }
}

/// Where a tree is.
struct At<'r> {
    /// From the root, for the filter.
    depth: u64,
    /// From where the walk began, for the limit on recursion.
    level: usize,
    /// What each rule says of it.
    rules: &'r [bool],
    /// Whether it was asked for by itself.
    is_wanted: bool,
}

impl Places<'_, '_, '_> {
    fn root_tree(&mut self, oid: Oid, similar: Similar) -> Result<()> {
        let rules: Vec<bool> = self.filter.paths.iter().map(|rule| rule.takes(b"", true).unwrap_or_default()).collect();
        self.whole_tree(oid, &At { depth: 0, level: 0, rules: &rules, is_wanted: false }, similar)
    }

    /// A tree that was asked for: like git, what is in it counts as at depth 0, and at no path that is taken.
    fn wanted_tree(&mut self, oid: Oid) -> Result<()> {
        let rules = vec![false; self.filter.paths.len()];
        let at = At { depth: 0, level: 0, rules: &rules, is_wanted: true };
        self.whole_tree(oid, &at, Similar::default())
    }

    fn whole_tree(&mut self, oid: Oid, at: &At<'_>, similar: Similar) -> Result<()> {
        self.tree(oid, at, similar)?;
        while let Some(deep) = self.deep.pop() {
            self.deep_bytes -= deep.bytes();
            let Deep { oid, path, depth, rules, similar } = deep;
            self.path = path;
            self.tree(oid, &At { depth, level: 0, rules: &rules, is_wanted: false }, similar)?;
        }
        self.path.clear();
        Ok(())
    }

    /// Adds what passes of a tree and all below it. Whether it is settled: nothing more of it can pass anywhere else.
    fn tree(&mut self, oid: Oid, at: &At<'_>, similar: Similar) -> Result<bool> {
        if self.walk.seen.contains(&oid) {
            // It may have been settled without being sent.
            if at.is_wanted && self.met.sent.insert(oid) {
                self.walk.add(oid, Kind::Tree, similar);
            }
            return Ok(true);
        }
        if at.level > TREE_DEPTH_MAX {
            let (path, rules) = (self.path.clone(), at.rules.to_vec());
            let deep = Deep { oid, path, depth: at.depth, rules, similar };
            self.deep_bytes += deep.bytes();
            if self.deep_bytes > DEEP_BYTES_MAX {
                let message = "the history has too many directories too far below the root to filter";
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
            self.deep.push(deep);
            // Where places make no difference, all of it will have passed.
            return Ok(!self.filter.is_by_place());
        }
        check_deadline(self.walk.options.deadline)?;
        if !self.is_news(oid, at)? {
            return Ok(false);
        }
        let passes = self.filter.allows(Kind::Tree) && self.filter.depth.is_none_or(|limit| at.depth < limit);
        if (at.is_wanted || passes) && self.met.sent.insert(oid) {
            self.walk.add(oid, Kind::Tree, similar);
        }
        let below = if at.is_wanted { 0 } else { at.depth + 1 };
        if !self.filter.allows_depth(below) {
            return Ok(false);
        }
        let is_settled = self.entries(oid, below, at, similar)?;
        if is_settled {
            self.walk.seen.insert(oid);
        }
        Ok(is_settled)
    }

    /// Whether a tree is met where more of it may pass than before.
    fn is_news(&mut self, oid: Oid, at: &At<'_>) -> Result<bool> {
        if !self.filter.is_by_place() {
            return Ok(true);
        }
        if self.filter.paths.is_empty() {
            // What is in a tree that was asked for is one less deep.
            let depth = if at.is_wanted { 0 } else { at.depth + 1 };
            let least = self.met.depths.entry(oid).or_insert(u64::MAX);
            return Ok(std::mem::replace(least, depth.min(*least)) > depth);
        }
        if self.met.paths.len() >= PLACES_MAX {
            let message = format!("the history has more than {PLACES_MAX} pairs of a directory and a path to filter");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let mut hasher = DefaultHasher::new();
        (&self.path, at.is_wanted).hash(&mut hasher);
        Ok(self.met.paths.insert((oid.bits(), hasher.finish())))
    }

    fn entries(&mut self, oid: Oid, depth: u64, at: &At<'_>, similar: Similar) -> Result<bool> {
        let data = self.walk.snapshot.object_of(&oid, Kind::Tree)?;
        let similar = self.walk.similar_entries(&data, similar)?;
        let (mut is_settled, len, takes_blobs) = (true, self.path.len(), self.filter.allows_blobs());
        for entry in tree_entries(oid.format(), &data) {
            let entry = entry?;
            self.entries += 1;
            // Rules may take long for one path.
            if !self.filter.paths.is_empty() || self.entries.is_multiple_of(ENTRIES_PER_LOOK) {
                check_deadline(self.walk.options.deadline)?;
            }
            let is_tree = entry.mode.is_tree();
            let is_blob = !is_tree && !entry.mode.is_submodule();
            let may_pass = is_tree || (is_blob && takes_blobs && !self.walk.seen.contains(&entry.oid));
            if !may_pass {
                continue;
            }
            let mut rules = Vec::new();
            if !self.filter.paths.is_empty() {
                if len > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&entry.name);
                let all = self.filter.paths.iter().zip(at.rules);
                rules.extend(all.map(|(rule, above)| rule.takes(&self.path, is_tree).unwrap_or(*above)));
            }
            let similar = similar.get(&entry.name[..]).copied().unwrap_or_default();
            if is_tree {
                let at = At { depth, level: at.level + 1, rules: &rules, is_wanted: false };
                is_settled &= self.tree(entry.oid, &at, similar)?;
            } else if rules.iter().all(|taken| *taken) {
                // At this depth everything may pass, or the walk would not be here.
                self.walk.seen.insert(entry.oid);
                self.walk.add(entry.oid, Kind::Blob, similar);
            } else {
                is_settled = false;
            }
            self.path.truncate(len);
        }
        Ok(is_settled)
    }
}
