//! The second pass over a pack: every delta on its base.
//!
//! Bases come before what is built on them: a depth-first walk from each whole object (and from objects of the
//! repository, in thin packs) keeps the objects on the path from the root in memory, within a budget; what the budget
//! drops is made again when a further child needs it.

use std::{collections::HashMap, rc::Rc};

use flate2::Decompress;
use govc_engine::{
    Error, Kind, Limits, ObjectFormat, Oid, Result, Snapshot,
    block::{Base, Location, apply_delta_limited},
    hash_object,
};

use super::{
    entry::EntryKind,
    spool::Spool,
    stream::{PackEntry, check_expanded, inflate_step, spool_error},
};

/// Bytes of objects on the path that are kept.
const PATH_BYTES_MAX: usize = 192 << 20;
/// Longest chain of deltas in a pack; git itself makes 50, and 4095 at most. An input of a fuzzer can have a longer one.
const CHAIN_MAX: usize = if cfg!(fuzzing) { 256 } else { 8192 };

/// A stored chain is no longer, so that reading an object costs little; what would make it longer is stored whole.
const STORED_CHAIN_MAX: u32 = 64;
/// Nor do its objects have more bytes together than this, or than a few times the object at its end.
const STORED_CHAIN_BYTES_MAX: u64 = 64 << 20;
const STORED_CHAIN_FACTOR: u64 = 8;

/// What the first pass found out.
pub(super) struct Found {
    pub(super) entries: Vec<PackEntry>,
    /// The whole objects: entry, id, kind, and where they are stored if they are.
    pub(super) wholes: Vec<Whole>,
    pub(super) expanded: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Whole {
    pub(super) entry: u32,
    pub(super) oid: Oid,
    pub(super) kind: Kind,
    pub(super) location: Option<Location>,
}

/// An object that a delta has made.
pub(super) struct Resolved<'a> {
    pub(super) entry: u32,
    pub(super) oid: Oid,
    pub(super) kind: Kind,
    pub(super) data: &'a Rc<Vec<u8>>,
    pub(super) delta: &'a [u8],
    /// Where the base is; `None` if it is not among the pack's objects in blocks, or the chain is long enough.
    pub(super) base: Option<Base>,
    /// Whether the chain begins at an object that the pack does not hold.
    pub(super) is_thin: bool,
}

/// Takes objects as they are resolved; says where each has been stored, if it has.
pub(super) type Take<'a> = dyn FnMut(Resolved<'_>) -> Result<Option<Location>> + 'a;

/// Resolves every delta of a pack.
///
/// # Errors
/// [`govc_engine::ErrorKind::Invalid`] for deltas whose bases are nowhere (missing, in a cycle, or no entry at all),
/// [`govc_engine::ErrorKind::Corrupt`] for deltas that do not fit their bases, [`govc_engine::ErrorKind::TooLarge`]
/// over a limit; whatever `take` gives.
pub(super) fn resolve(
    found: &Found,
    spool: &Spool,
    limits: &Limits,
    snapshot: &Snapshot,
    take: &mut Take<'_>,
) -> Result<()> {
    let mut children = Children::of(&found.entries)?;
    if children.is_empty() {
        return Ok(());
    }
    let mut resolver = Resolver {
        format: snapshot.object_format(),
        entries: &found.entries,
        spool,
        limits,
        inflate: Decompress::new(true),
        input: vec![0; 64 << 10],
        expanded: found.expanded,
        path: Vec::new(),
        path_bytes: 0,
        is_thin: false,
    };
    for whole in &found.wholes {
        let below = children.take(Some(whole.entry), &whole.oid);
        if !below.is_empty() {
            let root = Root::Entry(whole.entry);
            resolver.walk(root, whole.kind, whole.location.map(near), below, &mut children, take)?;
        }
    }
    // What is left stands on objects of the repository, or on nothing.
    resolver.is_thin = true;
    let mut bases: Vec<Oid> = children.by_oid.keys().copied().collect();
    bases.sort_unstable();
    for base in bases {
        let Some(object) = snapshot.try_object(&base)? else { continue };
        let below = children.take(None, &base);
        if !below.is_empty() {
            let root = Root::External(Rc::new(object.data.to_vec()));
            resolver.walk(root, object.kind, None, below, &mut children, take)?;
        }
    }
    match children.unresolved() {
        0 => Ok(()),
        count => {
            let base = children.by_oid.keys().min();
            let base = base.map_or_else(String::new, |base| format!(", among them on {base}"));
            Err(Error::invalid(format!("pack: {count} deltas have missing bases{base}")))
        }
    }
}

fn near(location: Location) -> Base {
    Base::Near { block: location.block, slot: location.slot }
}

/// The deltas by what they stand on.
struct Children {
    /// By base entry, sorted: pairs of base and delta.
    by_entry: Vec<(u32, u32)>,
    by_oid: HashMap<Oid, Vec<u32>>,
    taken: usize,
}

impl Children {
    fn of(entries: &[PackEntry]) -> Result<Self> {
        let mut by_entry = Vec::new();
        let mut by_oid: HashMap<Oid, Vec<u32>> = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let index = index as u32;
            match entry.kind {
                EntryKind::Whole(_) => {}
                EntryKind::RefDelta(base) => by_oid.entry(base).or_default().push(index),
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
        Ok(Self { by_entry, by_oid, taken: 0 })
    }

    fn is_empty(&self) -> bool {
        self.by_entry.is_empty() && self.by_oid.is_empty()
    }

    /// The deltas on an entry and on an id; those by id are given once.
    fn take(&mut self, entry: Option<u32>, oid: &Oid) -> Vec<u32> {
        let mut below = Vec::new();
        if let Some(entry) = entry {
            let from = self.by_entry.partition_point(|(base, _)| *base < entry);
            below.extend(self.by_entry[from..].iter().take_while(|(base, _)| *base == entry).map(|(_, child)| *child));
            self.taken += below.len();
        }
        if let Some(more) = self.by_oid.remove(oid) {
            below.extend(more);
        }
        below
    }

    fn unresolved(&self) -> usize {
        self.by_entry.len() - self.taken + self.by_oid.values().map(Vec::len).sum::<usize>()
    }
}

enum Root {
    Entry(u32),
    External(Rc<Vec<u8>>),
}

/// An object on the path from the root, whose children are being resolved.
struct Node {
    /// The delta's entry; for the root, how to get it.
    entry: Option<u32>,
    external: Option<Rc<Vec<u8>>>,
    data: Option<Rc<Vec<u8>>>,
    base: Option<Base>,
    /// What is read for it: deltas, and bytes of objects.
    chain: (u32, u64),
    children: Vec<u32>,
    next: usize,
}

struct Resolver<'a> {
    format: ObjectFormat,
    entries: &'a [PackEntry],
    spool: &'a Spool,
    limits: &'a Limits,
    inflate: Decompress,
    input: Vec<u8>,
    expanded: u64,
    path: Vec<Node>,
    path_bytes: usize,
    is_thin: bool,
}

impl Resolver<'_> {
    fn walk(
        &mut self,
        root: Root,
        kind: Kind,
        base: Option<Base>,
        below: Vec<u32>,
        children: &mut Children,
        take: &mut Take<'_>,
    ) -> Result<()> {
        let (entry, external) = match root {
            Root::Entry(entry) => (Some(entry), None),
            Root::External(data) => (None, Some(data)),
        };
        self.path.clear();
        self.path_bytes = 0;
        self.path.push(Node { entry, external, data: None, base, chain: (0, 0), children: below, next: 0 });
        while let Some(top) = self.path.len().checked_sub(1) {
            let Some(&child) = self.path[top].children.get(self.path[top].next) else {
                if let Some(data) = self.path.pop().and_then(|node| node.data) {
                    self.path_bytes -= data.len();
                }
                continue;
            };
            self.path[top].next += 1;
            let base_data = self.data(top)?;
            let is_last = self.path[top].next == self.path[top].children.len();
            if is_last {
                // Nobody needs it again: a long chain keeps two objects, not all.
                if let Some(data) = self.path[top].data.take() {
                    self.path_bytes -= data.len();
                }
            }
            let delta = self.inflate(child)?;
            let limit = self.limits.object_bytes_max;
            let offset = self.entries[child as usize].offset;
            let data = apply_delta_limited(&base_data, &delta, limit)
                .map_err(|error| error.context(format!("pack entry at {offset}")))?;
            let base_len = base_data.len() as u64;
            drop(base_data);
            self.expanded = self.expanded.saturating_add(data.len() as u64);
            check_expanded(self.expanded, self.limits)?;
            let oid = hash_object(self.format, kind, &data)?;
            let data = Rc::new(data);
            let (deltas, bytes) = self.path[top].chain;
            let chain = (deltas + 1, bytes.saturating_add(base_len));
            let is_short = chain.0 <= STORED_CHAIN_MAX
                && chain.1 <= STORED_CHAIN_BYTES_MAX.max(STORED_CHAIN_FACTOR * data.len() as u64);
            let base = self.path[top].base.filter(|_| is_short);
            let resolved =
                Resolved { entry: child, oid, kind, data: &data, delta: &delta, base, is_thin: self.is_thin };
            let location = take(resolved)?;
            let below = children.take(Some(child), &oid);
            if !below.is_empty() {
                if self.path.len() >= CHAIN_MAX {
                    return Err(Error::too_large(format!("pack: a chain of more than {CHAIN_MAX} deltas")));
                }
                self.keep(Node {
                    entry: Some(child),
                    external: None,
                    data: Some(data),
                    base: location.map(near),
                    chain: if base.is_some() { chain } else { (0, 0) },
                    children: below,
                    next: 0,
                });
            }
        }
        Ok(())
    }

    /// Adds a node to the path, and drops data near the root when there is too much.
    fn keep(&mut self, node: Node) {
        self.path_bytes += node.data.as_ref().map_or(0, |data| data.len());
        self.path.push(node);
        let last = self.path.len() - 1;
        for node in &mut self.path[..last] {
            if self.path_bytes <= PATH_BYTES_MAX {
                break;
            }
            if let Some(data) = node.data.take() {
                self.path_bytes -= data.len();
            }
        }
    }

    /// The object of a node, made again if it was dropped.
    fn data(&mut self, index: usize) -> Result<Rc<Vec<u8>>> {
        let known = (0..=index).rev().find(|at| self.path[*at].data.is_some()).unwrap_or(0);
        let mut data = match (&self.path[known].data, &self.path[known].external, self.path[known].entry) {
            (Some(data), _, _) => data.clone(),
            (None, Some(external), _) => external.clone(),
            (None, None, Some(entry)) => Rc::new(self.inflate(entry)?),
            (None, None, None) => unreachable!("a root is an entry or an object"),
        };
        for at in known + 1..=index {
            let entry = self.path[at].entry.expect("only a root has no entry");
            let delta = self.inflate(entry)?;
            // Making an object again costs as much as making it: it counts.
            self.expanded = self.expanded.saturating_add(data.len() as u64);
            check_expanded(self.expanded, self.limits)?;
            data = Rc::new(apply_delta_limited(&data, &delta, self.limits.object_bytes_max)?);
        }
        if self.path[index].data.is_none() {
            self.path_bytes += data.len();
            self.path[index].data = Some(data.clone());
        }
        Ok(data)
    }

    /// Inflates an entry from the spool.
    fn inflate(&mut self, index: u32) -> Result<Vec<u8>> {
        let entry = &self.entries[index as usize];
        let size = usize::try_from(entry.size).map_err(|_| Error::too_large("an object is beyond memory"))?;
        let mut out = Vec::new();
        let mut offset = entry.offset + u64::from(entry.header_len);
        // The first read takes what the entry can be at most, if that is little.
        let next = self.entries.get(index as usize + 1).map_or(u64::MAX, |next| next.offset);
        self.inflate.reset(true);
        loop {
            let want = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX).clamp(1, self.input.len());
            let read = self.spool.read_at(offset, &mut self.input[..want]).map_err(spool_error)?;
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
