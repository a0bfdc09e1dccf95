//! The directories of searched commits, in memory, by the ids of their trees.
//!
//! A [`Dir`] has the files below it by the numbers of their blobs, with the set of all numbers, so "is this blob in this
//! commit, and where" needs no list for each commit: commits share the directories that they have in common, and a new
//! commit costs the directories that it changed. Symbolic links and submodules are not searched and not in it.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Instant};

use govc_engine::{EntryMode, Error, Kind, Oid, Result, Snapshot, tree_entries};
use quick_cache::{Weighter, sync::Cache};
use roaring::RoaringBitmap;

use crate::{
    deadline,
    importance::{Tier, Tiers},
    index::{Bits, BlobNo, Index},
};

/// How deep directories may nest: beyond any that a client can check out.
const DEPTH_MAX: usize = 1024;
/// What separates names in [`Dir::names`]: no name has it.
const SEPARATOR: u8 = b'/';

/// A directory with everything below it.
pub(crate) struct Dir {
    /// The names of all entries, each with a separator behind it.
    names: Box<[u8]>,
    /// In the tree's order.
    entries: Box<[Entry]>,
    blobs: RoaringBitmap,
    files: u64,
    /// What the files below are, by this directory's names and those below it.
    tiers: Tiers,
    /// How many directories are nested in it at most.
    height: usize,
}

struct Entry {
    /// Where the name ends in `names`; the separator stands there.
    name_end: u32,
    /// What the name says.
    tier: Tier,
    node: Node,
}

enum Node {
    File(BlobNo),
    Dir(Arc<Dir>),
}

/// An entry of a directory.
pub(crate) enum Child<'a> {
    /// A regular file.
    File(BlobNo),
    /// A directory.
    Dir(&'a Arc<Dir>),
}

impl Dir {
    /// The blobs of all files below.
    pub(crate) fn blobs(&self) -> &RoaringBitmap {
        &self.blobs
    }

    /// How many files are below.
    pub(crate) fn files(&self) -> u64 {
        self.files
    }

    /// What the files below are, in a directory that does not say more.
    pub(crate) fn tiers(&self) -> Tiers {
        self.tiers
    }

    /// The names of all entries, each with a slash behind it.
    pub(crate) fn names(&self) -> &[u8] {
        &self.names
    }

    /// The entries in the tree's order, which is that of their paths: name, what the name says, what it is.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&[u8], Tier, Child<'_>)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let end = entry.name_end as usize;
            let name = self.names.get(start..end).unwrap_or_default();
            start = end + 1;
            let child = match &entry.node {
                Node::File(blob) => Child::File(*blob),
                Node::Dir(dir) => Child::Dir(dir),
            };
            (name, entry.tier, child)
        })
    }

    fn weight_bytes(&self) -> u64 {
        let bitmap = self.blobs.serialized_size() + 64;
        (size_of::<Self>() + self.names.len() + self.entries.len() * size_of::<Entry>() + bitmap) as u64
    }
}

/// What a cached directory takes.
#[derive(Clone)]
struct Weigh;

impl Weighter<Oid, Arc<Dir>> for Weigh {
    fn weight(&self, _: &Oid, dir: &Arc<Dir>) -> u64 {
        dir.weight_bytes()
    }
}

impl Weighter<Oid, Arc<Bits>> for Weigh {
    fn weight(&self, _: &Oid, scope: &Arc<Bits>) -> u64 {
        64 + scope.bytes()
    }
}

/// The directories that were used of late, within a budget.
pub(crate) struct Views {
    dirs: Cache<Oid, Arc<Dir>, Weigh>,
    /// The blobs below those of them that were searched.
    scopes: Cache<Oid, Arc<Bits>, Weigh>,
}

/// The share of the budget that is for scopes.
const SCOPES_SHARE: u64 = 8;
/// What a scope takes about, in bytes.
const SCOPE_BYTES: u64 = 4096;

impl Views {
    /// Keeps at most `budget_bytes` of directories, about.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        // A directory takes half a kilobyte or so.
        let items = |item_bytes| usize::try_from(budget_bytes / item_bytes).unwrap_or(usize::MAX).clamp(1, 1 << 24);
        let scopes_bytes = budget_bytes / SCOPES_SHARE;
        Self {
            dirs: Cache::with_weighter(items(512), budget_bytes - scopes_bytes, Weigh),
            scopes: Cache::with_weighter(items(SCOPES_SHARE * SCOPE_BYTES), scopes_bytes, Weigh),
        }
    }

    /// What the kept directories take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.dirs.weight() + self.scopes.weight()
    }

    /// The blobs of all files below the directory that `tree` is.
    pub(crate) fn scope(&self, tree: Oid, dir: &Dir) -> Arc<Bits> {
        if let Some(known) = self.scopes.get(&tree) {
            return known;
        }
        let mut scope = Bits::default();
        dir.blobs().iter().for_each(|blob| scope.insert(blob));
        let scope = Arc::new(scope);
        self.scopes.insert(tree, scope.clone());
        scope
    }

    /// The directory that a tree is.
    ///
    /// # Errors
    /// Invalid if directories nest too deep; cancelled at the deadline; else when the tree cannot be read.
    pub(crate) fn dir(
        &self,
        snapshot: &Snapshot,
        index: &Index,
        tree: Oid,
        until: Option<Instant>,
    ) -> Result<Arc<Dir>> {
        Build { views: self, snapshot, index, until, made: RefCell::default() }.dir(tree, 0)
    }
}

/// Makes directories of trees.
struct Build<'a> {
    views: &'a Views,
    snapshot: &'a Snapshot,
    index: &'a Index,
    until: Option<Instant>,
    /// What was made on the way, whether or not the cache keeps it: a tree may stand in many places.
    made: RefCell<HashMap<Oid, Arc<Dir>>>,
}

impl Build<'_> {
    fn dir(&self, tree: Oid, depth: usize) -> Result<Arc<Dir>> {
        let known = self.made.borrow().get(&tree).cloned().or_else(|| self.views.dirs.get(&tree));
        let height = known.as_ref().map_or(0, |dir| dir.height);
        if depth + height > DEPTH_MAX {
            return Err(Error::invalid(format!("directories nest deeper than {DEPTH_MAX}")));
        }
        if let Some(dir) = known {
            return Ok(dir);
        }
        deadline::check(self.until)?;
        let dir = Arc::new(self.read(tree, depth)?);
        self.views.dirs.insert(tree, dir.clone());
        self.made.borrow_mut().insert(tree, dir.clone());
        Ok(dir)
    }

    fn read(&self, tree: Oid, depth: usize) -> Result<Dir> {
        let data =
            if tree.is_empty_tree() { bytes::Bytes::new() } else { self.snapshot.object_of(&tree, Kind::Tree)? };
        let mut oids = Vec::new();
        for entry in tree_entries(tree.format(), &data) {
            let entry = entry?;
            if is_file(entry.mode) {
                oids.push(entry.oid);
            }
        }
        let numbers = self.index.numbers(&oids);
        let mut blobs = RoaringBitmap::new();
        blobs.extend(&numbers);
        let (mut names, mut entries, mut files, mut height) = (Vec::new(), Vec::new(), numbers.len() as u64, 0);
        let mut numbers = numbers.into_iter();
        let mut tiers = Tiers::default();
        for entry in tree_entries(tree.format(), &data) {
            let entry = entry?;
            let tier = if entry.mode.is_tree() { Tier::of_dir(&entry.name) } else { Tier::of_file(&entry.name) };
            let node = match () {
                () if is_file(entry.mode) => {
                    tiers.insert(tier);
                    numbers.next().map(Node::File)
                }
                () if entry.mode.is_tree() => {
                    let dir = self.dir(entry.oid, depth + 1)?;
                    blobs |= dir.blobs();
                    tiers.unite(dir.tiers.below(tier));
                    files = files.saturating_add(dir.files());
                    height = height.max(dir.height + 1);
                    Some(Node::Dir(dir))
                }
                () => None,
            };
            if let Some(node) = node {
                names.extend_from_slice(&entry.name);
                let name_end = u32::try_from(names.len()).map_err(|_| Error::too_large("a directory is too large"))?;
                names.push(SEPARATOR);
                entries.push(Entry { name_end, tier, node });
            }
        }
        Ok(Dir { names: names.into(), entries: entries.into(), blobs, files, tiers, height })
    }
}

/// Whether an entry is a file: no link, no submodule.
pub(crate) fn is_file(mode: EntryMode) -> bool {
    mode.is_blob() && mode != EntryMode::SYMLINK
}
