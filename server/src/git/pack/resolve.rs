//! The second pass over a pack: every delta on its base.
//!
//! Bases come before what is built on them: a depth-first walk from each whole object (and from objects of the
//! repository, in thin packs) keeps the objects on the path from the root in memory, within a budget; what the budget
//! drops is made again when a further child needs it.
//!
//! The trees of deltas below different roots have nothing to do with each other, but that a delta may name its base by an id
//! that any of them makes; and so have the trees below different children. So threads take trees, and a thread that has
//! nothing left to do gets a part of another one's.
//!
//! Memory, beside the pack's entries: [`PATH_BYTES_MAX`] for what is on all paths together; and what one step takes (a base, a
//! delta, what they make, and its way into a block), for each thread of objects of [`LARGE_BYTES`] at most, and for one thread of
//! objects of any size: from the first large one of a tree to the tree's end it holds [`Trees::large`], for which others wait.
//!
//! Lock order: [`Trees::large`], then those of the threads, the targets and the ingest, each of them alone.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use flate2::Decompress;
use govc_engine::{
    Error, Kind, Limits, Oid, Result, Snapshot,
    block::{Base, Location, apply_delta_limited, delta_sizes},
};
use parking_lot::{Mutex, MutexGuard};

use super::{
    entry::EntryKind,
    sink::{Resolved, Sink, Sinks, Whole},
    spool::Spool,
    stream::{PackEntry, check_expanded, inflate_step, spool_error},
    workers::{Feed, IngestThreads, Job, Turn, run},
};

/// Bytes of objects on the paths of all threads that are kept.
const PATH_BYTES_MAX: usize = 192 << 20;
/// Trees with objects larger than this, in bytes, are worked on by one thread at a time.
const LARGE_BYTES: usize = 4 << 20;
/// Longest chain of deltas in a pack; git itself makes 50, and 4095 at most. An input of a fuzzer can have a longer one.
pub(super) const CHAIN_MAX: usize = if cfg!(fuzzing) { 256 } else { 8192 };
/// Deltas on one object that another thread is given at once.
const HANDED_MAX: usize = 1024;

/// A stored chain is no longer, so that reading an object costs little; what would make it longer is stored whole.
pub(super) const STORED_CHAIN_MAX: u32 = 64;
/// Nor do its objects have more bytes together than this, or than a few times the object at its end.
const STORED_CHAIN_BYTES_MAX: u64 = 64 << 20;
const STORED_CHAIN_FACTOR: u64 = 8;

/// What the first pass found out.
pub(super) struct Found {
    pub(super) entries: Vec<PackEntry>,
    pub(super) wholes: Vec<Whole>,
    pub(super) expanded: u64,
}

/// A pack whose deltas are to be resolved.
pub(super) struct Resolution<'t, 'i> {
    pub(super) found: &'t Found,
    pub(super) spool: &'t Spool,
    pub(super) limits: &'t Limits,
    pub(super) snapshot: &'t Snapshot,
    pub(super) sinks: &'t Sinks<'i>,
    pub(super) threads: &'t IngestThreads,
}

impl<'i> Resolution<'_, 'i> {
    /// Resolves every delta, into `sink` on the calling thread, which also tells `progress` how many have been.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] for deltas whose bases are nowhere (missing, in a cycle, or no entry at all),
    /// [`govc_engine::ErrorKind::Corrupt`] for deltas that do not fit their bases, [`govc_engine::ErrorKind::TooLarge`]
    /// over a limit; as [`Sink::resolved`].
    pub(super) fn run(&self, sink: Sink<'i>, progress: &mut dyn FnMut(usize)) -> Result<Sink<'i>> {
        let children = Children::of(&self.found.entries)?;
        if children.is_empty() {
            return Ok(sink);
        }
        let trees = Trees {
            resolution: self,
            children,
            expanded: AtomicU64::new(self.found.expanded),
            resolved: AtomicUsize::new(0),
            path_bytes: AtomicUsize::new(0),
            large: Mutex::new(()),
        };
        let mut resolver = Resolver::new(&trees, sink, Some(progress));
        run(&&trees, self.threads, &mut resolver, |feed| trees.feed_wholes(feed))?;
        // What is left stands on objects of the repository, or on nothing.
        run(&&trees, self.threads, &mut resolver, |feed| trees.feed_bases(feed))?;
        trees.children.check_all_taken()?;
        Ok(resolver.sink)
    }
}

fn near(location: Location) -> Base {
    Base::Near { block: location.block, slot: location.slot }
}

/// The deltas by what they stand on. Each is given once, to whichever thread comes first.
struct Children {
    /// By base entry, sorted: pairs of base and delta.
    by_entry: Vec<(u32, u32)>,
    by_oid: HashMap<Oid, OnId>,
    /// How many of `by_entry` were given.
    taken: AtomicUsize,
}

/// The deltas that name one id. Their flag orders nothing: what they stand on is in the hands of who sets it.
#[derive(Default)]
struct OnId {
    entries: Vec<u32>,
    is_taken: AtomicBool,
}

impl Children {
    fn of(entries: &[PackEntry]) -> Result<Self> {
        let mut by_entry = Vec::new();
        let mut by_oid: HashMap<Oid, OnId> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let index = index as u32;
            match entry.kind {
                EntryKind::Whole(_) => {}
                EntryKind::RefDelta(base) => by_oid.entry(base).or_default().entries.push(index),
                EntryKind::OfsDelta(distance) => {
                    let base = entry.offset.checked_sub(distance).filter(|_| distance > 0);
                    let base = base.and_then(|at| entries.binary_search_by_key(&at, |entry| entry.offset).ok());
                    let base = base.ok_or_else(|| {
                        Error::invalid(format!("pack entry at {}: its base is no entry of the pack", entry.offset))
                    })?;
                    by_entry.push((base as u32, index));
                }
            }
        }
        by_entry.sort_unstable();
        Ok(Self { by_entry, by_oid, taken: AtomicUsize::new(0) })
    }

    fn is_empty(&self) -> bool {
        self.by_entry.is_empty() && self.by_oid.is_empty()
    }

    /// The deltas on an entry and on an id.
    fn take(&self, entry: Option<u32>, oid: &Oid) -> Vec<u32> {
        let mut below = Vec::new();
        if let Some(entry) = entry {
            let from = self.by_entry.partition_point(|(base, _)| *base < entry);
            below.extend(self.by_entry[from..].iter().take_while(|(base, _)| *base == entry).map(|(_, child)| *child));
            if !below.is_empty() {
                self.taken.fetch_add(below.len(), Ordering::Relaxed);
            }
        }
        if let Some(more) = self.by_oid.get(oid)
            && !more.is_taken.swap(true, Ordering::Relaxed)
        {
            below.extend_from_slice(&more.entries);
        }
        below
    }

    /// Whether deltas name an entry as their base.
    fn are_on(&self, entry: u32) -> bool {
        self.by_entry.binary_search_by_key(&entry, |(base, _)| *base).is_ok()
    }

    /// The ids that deltas still wait for, in their order.
    fn bases(&self) -> Vec<Oid> {
        let is_left = |on: &OnId| !on.is_taken.load(Ordering::Relaxed);
        let mut bases: Vec<Oid> = self.by_oid.iter().filter(|(_, on)| is_left(on)).map(|(oid, _)| *oid).collect();
        bases.sort_unstable();
        bases
    }

    fn check_all_taken(&self) -> Result<()> {
        let bases = self.bases();
        let on_ids: usize = bases.iter().filter_map(|base| self.by_oid.get(base)).map(|on| on.entries.len()).sum();
        match self.by_entry.len() - self.taken.load(Ordering::Relaxed) + on_ids {
            0 => Ok(()),
            count => {
                let base = bases.first().map_or_else(String::new, |base| format!(", among them on {base}"));
                Err(Error::invalid(format!("pack: {count} deltas have missing bases{base}")))
            }
        }
    }
}

/// The trees of deltas of a pack, and what the threads that resolve them share. The numbers order nothing.
struct Trees<'t, 'i> {
    resolution: &'t Resolution<'t, 'i>,
    children: Children,
    /// Bytes that have come out of the pack.
    expanded: AtomicU64,
    /// Deltas that are done.
    resolved: AtomicUsize,
    /// Bytes that the threads' paths keep.
    path_bytes: AtomicUsize,
    /// Held by the one thread whose tree has come to a large object.
    large: Mutex<()>,
}

/// What a thread resolves next.
enum Piece {
    Tree(Tree),
    /// What stands on an object that the pack does not hold.
    OnBase(Oid),
}

/// An object and deltas on it.
struct Tree {
    root: Root,
    kind: Kind,
    /// Where it is stored.
    base: Option<Base>,
    chain: (u32, u64),
    /// How many deltas there are between it and the root that it belongs to.
    depth: usize,
    below: Vec<u32>,
    is_thin: bool,
}

enum Root {
    Entry(u32),
    Data(Bytes),
}

impl Tree {
    /// About what it takes while it waits.
    fn held_bytes(&self) -> usize {
        let data = match &self.root {
            Root::Entry(_) => 0,
            Root::Data(data) => data.len(),
        };
        data + size_of::<Self>() + size_of_val(&self.below[..])
    }
}

impl<'t, 'i> Trees<'t, 'i> {
    fn feed_wholes(&'t self, feed: &mut Feed<'_, '_, '_, &'t Self>) -> Result<()> {
        for whole in &self.resolution.found.wholes {
            let below = self.children.take(Some(whole.entry), &whole.oid);
            if !below.is_empty() {
                let (root, base) = (Root::Entry(whole.entry), whole.location.map(near));
                let tree = Tree { root, kind: whole.kind, base, chain: (0, 0), depth: 0, below, is_thin: false };
                let bytes = tree.held_bytes();
                Self::feed(feed, Piece::Tree(tree), bytes)?;
            }
        }
        Ok(())
    }

    fn feed_bases(&'t self, feed: &mut Feed<'_, '_, '_, &'t Self>) -> Result<()> {
        let bases = self.children.bases();
        bases.into_iter().try_for_each(|base| Self::feed(feed, Piece::OnBase(base), size_of::<Piece>()))
    }

    fn feed(feed: &mut Feed<'_, '_, '_, &'t Self>, piece: Piece, bytes: usize) -> Result<()> {
        match feed.worker().sink.has_spilled() {
            true => feed.give(piece, bytes),
            false => feed.keep(piece),
        }
    }

    fn entries(&self) -> &'t [PackEntry] {
        &self.resolution.found.entries
    }

    fn count_expanded(&self, bytes: usize) -> Result<()> {
        let expanded = self.expanded.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64);
        check_expanded(expanded, self.resolution.limits)
    }
}

impl<'t, 'i> Job for &'t Trees<'t, 'i> {
    type Piece = Piece;
    type Worker = Resolver<'t, 'i>;

    fn worker(&self) -> Resolver<'t, 'i> {
        let trees = *self;
        Resolver::new(trees, trees.resolution.sinks.take(), None)
    }

    fn work(&self, resolver: &mut Resolver<'t, 'i>, piece: Piece, turn: &Turn<'_, '_, Self>) -> Result<()> {
        let base = match piece {
            Piece::Tree(tree) => return Walk::new(resolver, tree, None).run(turn),
            Piece::OnBase(base) => base,
        };
        let Some((kind, len)) = self.resolution.snapshot.header(&base)? else { return Ok(()) };
        let below = self.children.take(None, &base);
        if below.is_empty() {
            return Ok(());
        }
        let large = is_large(len).then(|| self.large.lock());
        let root = Root::Data(self.resolution.snapshot.object(&base)?.data);
        let tree = Tree { root, kind, base: None, chain: (0, 0), depth: 0, below, is_thin: true };
        Walk::new(resolver, tree, large).run(turn)
    }

    fn end(&self, resolver: Resolver<'t, 'i>) {
        self.resolution.sinks.put(resolver.sink);
    }
}

fn is_large(len: u64) -> bool {
    len > LARGE_BYTES as u64
}

/// An object on the path from the root, whose children are being resolved.
struct Node {
    /// How to get it: the delta's entry; of the root, what that is.
    root: Root,
    len: usize,
    data: Option<Bytes>,
    base: Option<Base>,
    /// What is read for it: deltas, and bytes of objects.
    chain: (u32, u64),
    children: Vec<u32>,
    next: usize,
}

impl Node {
    /// Its bytes, if they need not be made again.
    fn held(&self) -> Option<&Bytes> {
        match &self.root {
            Root::Data(data) => Some(data),
            Root::Entry(_) => self.data.as_ref(),
        }
    }

    /// The last half of the deltas that are left, but [`HANDED_MAX`] at most: there may be millions.
    fn split(&mut self) -> Vec<u32> {
        let left = self.children.len() - self.next;
        self.children.split_off(self.children.len() - left.div_ceil(2).min(HANDED_MAX))
    }
}

/// What one thread resolves with.
struct Resolver<'t, 'i> {
    trees: &'t Trees<'t, 'i>,
    sink: Sink<'i>,
    /// On the calling thread.
    progress: Option<&'t mut dyn FnMut(usize)>,
    inflate: Decompress,
    input: Vec<u8>,
}

impl<'t, 'i> Resolver<'t, 'i> {
    fn new(trees: &'t Trees<'t, 'i>, sink: Sink<'i>, progress: Option<&'t mut dyn FnMut(usize)>) -> Self {
        Self { trees, sink, progress, inflate: Decompress::new(true), input: vec![0; 64 << 10] }
    }

    /// Inflates an entry from the spool.
    fn inflate(&mut self, index: u32) -> Result<Vec<u8>> {
        let (entries, spool) = (self.trees.entries(), self.trees.resolution.spool);
        let entry = &entries[index as usize];
        let size = usize::try_from(entry.size).map_err(|_| Error::too_large("an object is beyond memory"))?;
        let mut out = Vec::new();
        let mut offset = entry.offset + u64::from(entry.header_len);
        // The first read takes what the entry can be at most, if that is little.
        let next = entries.get(index as usize + 1).map_or(u64::MAX, |next| next.offset);
        self.inflate.reset(true);
        loop {
            let want = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX).clamp(1, self.input.len());
            let read = spool.read_at(offset, &mut self.input[..want]).map_err(spool_error)?;
            if read == 0 {
                return Err(Error::corrupt("the kept pack ends early"));
            }
            let step = inflate_step(&mut self.inflate, &self.input[..read], &mut out, size)?;
            if step.ended {
                return Ok(out);
            }
            offset += step.consumed as u64;
        }
    }
}

/// One thread's way through a tree. The fields go in their order: the objects before `large` is released.
struct Walk<'w, 't, 'i> {
    resolver: &'w mut Resolver<'t, 'i>,
    kind: Kind,
    depth: usize,
    is_thin: bool,
    path: Vec<Node>,
    /// Its part of what all paths keep.
    path_bytes: usize,
    /// No node before this one has anything to hand on.
    first: usize,
    /// Held from the first large object on.
    large: Option<MutexGuard<'t, ()>>,
}

impl Drop for Walk<'_, '_, '_> {
    fn drop(&mut self) {
        self.resolver.trees.path_bytes.fetch_sub(self.path_bytes, Ordering::Relaxed);
    }
}

impl<'w, 't, 'i> Walk<'w, 't, 'i> {
    fn new(resolver: &'w mut Resolver<'t, 'i>, tree: Tree, large: Option<MutexGuard<'t, ()>>) -> Self {
        let Tree { root, kind, base, chain, depth, below, is_thin } = tree;
        let len = match &root {
            Root::Entry(entry) => usize::try_from(resolver.trees.entries()[*entry as usize].size).unwrap_or(usize::MAX),
            Root::Data(data) => data.len(),
        };
        let path = vec![Node { root, len, data: None, base, chain, children: below, next: 0 }];
        Self { resolver, kind, depth, is_thin, path, path_bytes: 0, first: 0, large }
    }

    /// Makes everything below the root.
    fn run(mut self, turn: &Turn<'_, '_, &'t Trees<'t, 'i>>) -> Result<()> {
        while let Some(top) = self.path.len().checked_sub(1) {
            let node = &mut self.path[top];
            let Some(&child) = node.children.get(node.next) else {
                self.forget(top);
                self.path.pop();
                self.first = self.first.min(top);
                continue;
            };
            node.next += 1;
            if turn.is_in_vain() {
                break;
            }
            if turn.is_wanted() {
                self.hand_on(turn);
            }
            self.step(top, child)?;
        }
        Ok(())
    }

    fn trees(&self) -> &'t Trees<'t, 'i> {
        self.resolver.trees
    }

    fn lock_large(&mut self) {
        let trees = self.trees();
        self.large.get_or_insert_with(|| trees.large.lock());
    }

    /// Makes one object, and puts it on the path if there are deltas on it.
    fn step(&mut self, top: usize, child: u32) -> Result<()> {
        let (base_len, delta, data) = self.make(top, child)?;
        let trees = self.trees();
        trees.count_expanded(data.len())?;
        let (deltas, bytes) = self.path[top].chain;
        let chain = (deltas + 1, bytes.saturating_add(base_len));
        let is_short = chain.0 <= STORED_CHAIN_MAX
            && chain.1 <= STORED_CHAIN_BYTES_MAX.max(STORED_CHAIN_FACTOR * data.len() as u64);
        let base = self.path[top].base.filter(|_| is_short);
        let (kind, is_thin) = (self.kind, self.is_thin);
        let object = Resolved { entry: child, kind, data: &data, delta: &delta, base, is_thin };
        let (oid, location) = self.resolver.sink.resolved(&object)?;
        let resolved = trees.resolved.fetch_add(1, Ordering::Relaxed) + 1;
        // It may wait for the pusher, for whom others need not wait.
        if self.large.is_none()
            && let Some(progress) = &mut self.resolver.progress
        {
            progress(resolved);
        }
        let children = trees.children.take(Some(child), &oid);
        if !children.is_empty() {
            if self.depth + self.path.len() >= CHAIN_MAX {
                return Err(Error::too_large(format!("pack: a chain of more than {CHAIN_MAX} deltas")));
            }
            let (root, len, base) = (Root::Entry(child), data.len(), location.map(near));
            let chain = if object.base.is_some() { chain } else { (0, 0) };
            self.keep(Node { root, len, data: Some(data), base, chain, children, next: 0 });
        }
        Ok(())
    }

    /// The length of a delta's base, the delta, and what it makes.
    fn make(&mut self, top: usize, child: u32) -> Result<(u64, Vec<u8>, Bytes)> {
        let (trees, node) = (self.trees(), &self.path[top]);
        let entry = &trees.entries()[child as usize];
        if is_large(node.len as u64) || is_large(entry.size) {
            self.lock_large();
        }
        let base = self.data(top)?;
        if self.path[top].next == self.path[top].children.len() {
            // Nobody needs it again: a long chain keeps two objects, not all.
            self.forget(top);
        }
        let delta = self.resolver.inflate(child)?;
        if delta_sizes(&delta).is_ok_and(|(_, made)| is_large(made)) {
            self.lock_large();
        }
        let data = apply_delta_limited(&base, &delta, trees.resolution.limits.object_bytes_max)
            .map_err(|error| error.context(format!("pack entry at {}", entry.offset)))?;
        Ok((base.len() as u64, delta, data.into()))
    }

    /// Gives others a part of what is left of the node nearest to the root that has several deltas left, or one on which
    /// there are more.
    fn hand_on(&mut self, turn: &Turn<'_, '_, &'t Trees<'t, 'i>>) {
        let trees = self.trees();
        let top = self.path.len() - 1;
        let has_part = |at: &usize| {
            let node = &self.path[*at];
            let is_worth_it = match &node.children[node.next..] {
                [] => false,
                // Nor would this thread have much left, if it were the last node's.
                [one] => *at < top && trees.children.are_on(*one),
                _ => true,
            };
            is_worth_it && node.held().is_some_and(|data| data.len() <= LARGE_BYTES)
        };
        let found = (self.first..=top).find(has_part);
        self.first = found.unwrap_or(top);
        let Some(at) = found else { return };
        let node = &mut self.path[at];
        let Some(data) = node.held().cloned() else { return };
        let below = node.split();
        let (base, chain, depth) = (node.base, node.chain, self.depth + at);
        let tree = Tree { root: Root::Data(data), kind: self.kind, base, chain, depth, below, is_thin: self.is_thin };
        let bytes = tree.held_bytes();
        if let Some(Piece::Tree(tree)) = turn.hand_on(Piece::Tree(tree), bytes) {
            node.children.extend(tree.below);
        } else if node.next == node.children.len() && at < top {
            self.forget(at);
        }
    }

    /// Adds a node to the path, and drops data near the root when the paths have too much, and this one no less than its
    /// share.
    fn keep(&mut self, node: Node) {
        self.count(node.data.as_ref().map_or(0, Bytes::len));
        self.path.push(node);
        let share = PATH_BYTES_MAX / self.trees().resolution.threads.processors();
        for at in 0..self.path.len() - 1 {
            if self.path_bytes <= share || self.trees().path_bytes.load(Ordering::Relaxed) <= PATH_BYTES_MAX {
                break;
            }
            self.forget(at);
        }
    }

    fn count(&mut self, bytes: usize) {
        debug_assert!(bytes <= LARGE_BYTES || self.large.is_some(), "a large object is kept by who holds the lock");
        self.path_bytes += bytes;
        self.trees().path_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn forget(&mut self, at: usize) {
        if let Some(data) = self.path[at].data.take() {
            self.path_bytes -= data.len();
            self.trees().path_bytes.fetch_sub(data.len(), Ordering::Relaxed);
        }
    }

    /// The object of a node, made again if it was dropped.
    fn data(&mut self, index: usize) -> Result<Bytes> {
        let known = (0..=index).rev().find(|at| self.path[*at].held().is_some());
        let mut data = match known {
            Some(at) => self.path[at].held().cloned().unwrap_or_default(),
            None => self.inflate_node(0)?.into(),
        };
        for at in known.unwrap_or(0) + 1..=index {
            let delta = self.inflate_node(at)?;
            // Making an object again costs as much as making it: it counts.
            self.trees().count_expanded(data.len())?;
            data = apply_delta_limited(&data, &delta, self.trees().resolution.limits.object_bytes_max)?.into();
        }
        if self.path[index].held().is_none() {
            self.path[index].data = Some(data.clone());
            self.count(data.len());
            self.first = self.first.min(index);
        }
        Ok(data)
    }

    /// Inflates the entry of a node that has one.
    fn inflate_node(&mut self, at: usize) -> Result<Vec<u8>> {
        match self.path[at].root {
            Root::Entry(entry) => self.resolver.inflate(entry),
            Root::Data(_) => unreachable!("what is held need not be made"),
        }
    }
}

#[cfg(test)]
mod tests;
