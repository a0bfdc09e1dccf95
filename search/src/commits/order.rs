//! The order of commits: that of [`Snapshot::walk`], the newest first, of commits with as many seconds the one that was found
//! first. It depends on the commits that it begins at alone, not on what is indexed.
//!
//! A walk goes by numbers where the presence index has a commit, and reads it where not. Where it has all, the order is kept,
//! as far as it was asked for, and the next question goes on from there.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet},
    sync::Arc,
    time::Instant,
};

use govc_engine::{CommitLinks, Error, Oid, Result, Snapshot};
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};
use roaring::RoaringBitmap;

use crate::{
    corpus::Corpus,
    deadline,
    presence::{CommitNo, Presence, Rows},
};

/// Commits of an order that are walked at once.
const BLOCK: usize = 512;
/// Orders that are expected: so few that the cache keeps them in one part, and one of a million commits fits.
const ITEMS: usize = 31;
/// Commits that are walked first where some are read.
const WALKED_MIN: usize = 64;

/// Those that wait for their turn: the newest first, then in the order in which they were found.
struct Queue<T> {
    waiting: BinaryHeap<(i64, Reverse<usize>, T)>,
    found: usize,
}

impl<T: Ord> Queue<T> {
    fn new() -> Self {
        Self { waiting: BinaryHeap::new(), found: 0 }
    }

    fn push(&mut self, seconds: i64, of: T) {
        self.waiting.push((seconds, Reverse(self.found), of));
        self.found += 1;
    }

    fn pop(&mut self) -> Option<T> {
        self.waiting.pop().map(|(_, _, of)| of)
    }
}

/// A walk through commits that are all indexed.
struct IndexedWalk {
    /// A history's commits mostly have neighbouring numbers, of however many there are.
    seen: RoaringBitmap,
    queue: Queue<CommitNo>,
}

impl IndexedWalk {
    fn follow(&mut self, rows: &Rows, commit: CommitNo) {
        if let Some(row) = rows.commit(commit).filter(|_| self.seen.insert(commit)) {
            self.queue.push(row.seconds, commit);
        }
    }

    fn next(&mut self, rows: &Rows) -> Option<CommitNo> {
        let commit = self.queue.pop()?;
        for parent in rows.commit(commit).into_iter().flat_map(|row| row.parents()) {
            self.follow(rows, parent);
        }
        Some(commit)
    }

    fn bytes(&self) -> u64 {
        self.seen.serialized_size() as u64
            + (self.queue.waiting.capacity() * size_of::<(i64, Reverse<usize>, CommitNo)>()) as u64
    }
}

/// The order of the commits that some tips reach, all of which are indexed.
pub(crate) struct Order {
    state: Mutex<Ordered>,
}

/// How far an order is known.
struct Ordered {
    blocks: Vec<Arc<[CommitNo]>>,
    /// What comes behind; `None` at the end.
    walk: Option<IndexedWalk>,
}

impl Order {
    fn new(rows: &Rows, tips: &[CommitNo]) -> Self {
        let mut walk = IndexedWalk { seen: RoaringBitmap::new(), queue: Queue::new() };
        tips.iter().for_each(|tip| walk.follow(rows, *tip));
        Self { state: Mutex::new(Ordered { blocks: Vec::new(), walk: Some(walk) }) }
    }

    /// The commits of one block, `None` behind the last. Blocks in front of it were asked for before.
    pub(super) fn block(&self, at: usize, rows: &Rows) -> Option<Arc<[CommitNo]>> {
        let mut state = self.state.lock();
        if let Some(block) = state.blocks.get(at) {
            return Some(block.clone());
        }
        let walk = state.walk.as_mut()?;
        let block: Arc<[CommitNo]> = std::iter::from_fn(|| walk.next(rows)).take(BLOCK).collect();
        if block.len() < BLOCK {
            state.walk = None;
        }
        state.blocks.push(block.clone());
        Some(block)
    }

    /// What it takes, in bytes, about.
    fn bytes(&self) -> u64 {
        let state = self.state.lock();
        let walk = state.walk.as_ref().map_or(0, IndexedWalk::bytes);
        256 + walk + (state.blocks.len() * (BLOCK * size_of::<CommitNo>() + 32)) as u64
    }
}

/// What orders are kept by: a hash of the ids of the tips.
type Key = [u8; 32];

/// An order, as long as it was when it was kept.
#[derive(Clone)]
struct Kept {
    order: Arc<Order>,
    /// So many commits were indexed: who knows fewer cannot go on with it.
    commits: usize,
    bytes: u64,
}

/// What a kept order takes. Orders grow while they are kept, and the cache must not see that.
#[derive(Clone)]
struct Weigh;

impl Weighter<Key, Kept> for Weigh {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        kept.bytes
    }
}

/// Orders of late, within a budget.
pub(crate) struct Orders {
    kept: Cache<Key, Kept, Weigh>,
}

impl Orders {
    /// Keeps at most `budget_bytes`, about.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self { kept: Cache::with_weighter(ITEMS, budget_bytes, Weigh) }
    }

    /// What they take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.kept.weight()
    }

    /// The order of what some commits reach; `None` if one of them is not indexed.
    pub(super) fn of<'a>(&'a self, presence: &Presence, rows: &'a Rows, tips: &[Oid]) -> Option<Ordering<'a>> {
        let ids: Vec<u8> = tips.iter().flat_map(|tip| tip.as_bytes()).copied().collect();
        let key = *blake3::hash(&ids).as_bytes();
        let kept = match self.kept.get(&key).filter(|kept| kept.commits <= rows.commit_count()) {
            Some(kept) => kept,
            None => {
                let numbers = tips.iter().map(|tip| presence.number(rows, tip)).collect::<Option<Vec<CommitNo>>>()?;
                Kept { order: Arc::new(Order::new(rows, &numbers)), commits: rows.commit_count(), bytes: 0 }
            }
        };
        Some(Ordering { orders: self, rows, key, kept, next: 0 })
    }
}

/// An order that is gone through, and kept when that is over.
pub(super) struct Ordering<'a> {
    orders: &'a Orders,
    rows: &'a Rows,
    key: Key,
    kept: Kept,
    next: usize,
}

impl Ordering<'_> {
    /// The next commits; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Arc<[CommitNo]>> {
        self.next += 1;
        self.kept.order.block(self.next - 1, self.rows)
    }
}

impl Drop for Ordering<'_> {
    fn drop(&mut self) {
        let bytes = self.kept.order.bytes();
        if bytes != self.kept.bytes {
            self.orders.kept.insert(self.key, Kept { bytes, ..self.kept.clone() });
        }
    }
}

/// A commit that a walk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Met {
    /// The presence index has it.
    Indexed(CommitNo),
    /// It is to be read.
    Read(Oid),
}

/// A walk through commits of which some are read.
pub(super) struct Walk<'a> {
    presence: &'a Presence,
    rows: &'a Rows,
    snapshot: &'a Snapshot,
    /// A history's commits mostly have neighbouring numbers, of however many there are.
    seen: RoaringBitmap,
    seen_read: HashSet<Oid>,
    queue: Queue<Waiting>,
    read: Vec<(Oid, CommitLinks)>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Waiting {
    Indexed(CommitNo),
    /// Its place in `read`.
    Read(usize),
}

impl<'a> Walk<'a> {
    /// A walk that is still to be told where it begins.
    pub(super) fn new(presence: &'a Presence, rows: &'a Rows, snapshot: &'a Snapshot) -> Self {
        let (seen, seen_read) = (RoaringBitmap::new(), HashSet::new());
        Self { presence, rows, snapshot, seen, seen_read, queue: Queue::new(), read: Vec::new() }
    }

    /// Will come to a commit, unless it has been there before.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn follow(&mut self, oid: Oid) -> Result<()> {
        if let Some(commit) = self.presence.number(self.rows, &oid) {
            self.follow_indexed(commit);
        } else if self.seen_read.insert(oid) {
            let links = self.snapshot.commit_links(&oid)?;
            self.queue.push(links.seconds, Waiting::Read(self.read.len()));
            self.read.push((oid, links));
        }
        Ok(())
    }

    fn follow_indexed(&mut self, commit: CommitNo) {
        if let Some(row) = self.rows.commit(commit).filter(|_| self.seen.insert(commit)) {
            self.queue.push(row.seconds, Waiting::Indexed(commit));
        }
    }

    /// The next commit, after which its parents will come.
    ///
    /// # Errors
    /// When one of these cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<Met>> {
        Ok(match self.queue.pop() {
            None => None,
            Some(Waiting::Indexed(commit)) => {
                let rows = self.rows;
                rows.commit(commit).into_iter().flat_map(|row| row.parents()).for_each(|at| self.follow_indexed(at));
                Some(Met::Indexed(commit))
            }
            Some(Waiting::Read(at)) => {
                let Some((oid, links)) = self.read.get(at) else { return Ok(None) };
                let (oid, parents) = (*oid, links.parents.clone());
                parents.iter().try_for_each(|parent| self.follow(*parent))?;
                Some(Met::Read(oid))
            }
        })
    }
}

/// Where the commits of a question come from, some at a time.
pub(super) enum Source<'a> {
    /// All of them are indexed.
    Kept(Ordering<'a>),
    /// Some are read: ever more at once, since a page may need few.
    Walked { walk: Walk<'a>, count: usize, failed: Option<Error> },
}

impl<'a> Source<'a> {
    /// The commits that some tips reach.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when a tip cannot be read.
    pub(super) fn new(
        corpus: &'a Corpus,
        rows: &'a Rows,
        snapshot: &'a Snapshot,
        tips: &[Oid],
        until: Option<Instant>,
    ) -> Result<Self> {
        if let Some(ordering) = corpus.orders.of(&corpus.presence, rows, tips) {
            return Ok(Self::Kept(ordering));
        }
        let mut walk = Walk::new(&corpus.presence, rows, snapshot);
        for some in tips.chunks(BLOCK) {
            deadline::check(until)?;
            some.iter().try_for_each(|tip| walk.follow(*tip))?;
        }
        Ok(Self::Walked { walk, count: WALKED_MIN, failed: None })
    }

    /// Puts the next commits into `met`, which is empty behind the last one.
    ///
    /// # Errors
    /// When the next commit cannot be read.
    pub(super) fn next(&mut self, met: &mut Vec<Met>, until: Option<Instant>) -> Result<()> {
        met.clear();
        match self {
            Source::Kept(ordering) => {
                met.extend(ordering.next().iter().flat_map(|block| block.iter()).map(|at| Met::Indexed(*at)));
            }
            Source::Walked { walk, count, failed } => {
                if let Some(error) = failed.take() {
                    return Err(error);
                }
                while met.len() < *count {
                    match walk.next() {
                        Ok(Some(next)) => met.push(next),
                        Ok(None) => break,
                        Err(error) if met.is_empty() => return Err(error),
                        // Those in front of it come first.
                        Err(error) => {
                            *failed = Some(error);
                            break;
                        }
                    }
                    if met.len().is_multiple_of(WALKED_MIN) && deadline::is_past(until) {
                        break;
                    }
                }
                *count = (*count * 2).min(BLOCK);
            }
        }
        Ok(())
    }
}
