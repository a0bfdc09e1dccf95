//! Planning: against which base each object is stored.
//!
//! Candidates are the last versions of the same path, then objects that share features, then ancestors in the chain of the
//! path's last version: without those, a path of many versions would begin a new chain whenever the last ones are all as
//! deep as they may be. A delta wins that is short for its depth.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use govc_engine::{Kind, Result, block::DeltaIndex};

use crate::features::{FEATURES, features};

/// Versions of the same path that are tried.
const VERSIONS: usize = 8;
/// Objects with the same features that are tried.
const ALIKE: usize = 8;
/// Objects that are remembered for each feature.
const REMEMBERED: usize = 2;
/// Hops back in a chain to its first ancestor that is tried; then twice as many, and so on.
const FIRST_HOPS: u32 = 8;
/// Smaller objects are stored whole.
const DELTA_BYTES_MIN: usize = 32;
/// A base that is so many times smaller than the object is of no use.
const SMALLER_MAX: u64 = 32;

/// An object in the order of planning, by its place there.
pub(crate) type Index = u32;

/// How an object is stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Delta { base: Index, delta: Vec<u8> },
}

/// What was decided of an object.
#[derive(Debug, Clone, Copy)]
struct Decided {
    /// Deltas below it.
    depth: u32,
    base: Option<Index>,
    size: u64,
    /// Of which path it is.
    path: u32,
}

/// Decides object by object; to be told of them in their order, one kind at a time.
pub(crate) struct Planner {
    depth_max: u32,
    decided: Vec<Decided>,
    /// The last objects with each feature.
    alike: HashMap<u64, [Option<Index>; REMEMBERED]>,
    bases: Bases,
    kind: Option<Kind>,
    /// The first object of the kind.
    first: Index,
}

impl Planner {
    /// With chains of at most `depth_max` deltas, and so many bytes for bases.
    pub(crate) fn new(depth_max: u32, base_bytes_max: usize) -> Self {
        let bases = Bases { indexed: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max: base_bytes_max };
        Self { depth_max, decided: Vec::new(), alike: HashMap::new(), bases, kind: None, first: 0 }
    }

    /// Decides how the next object is stored; `read` gives the bytes of an earlier one.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn next(
        &mut self,
        kind: Kind,
        path: u32,
        data: &Bytes,
        read: impl Fn(Index) -> Result<Bytes>,
    ) -> Result<Form> {
        if self.kind != Some(kind) {
            self.kind = Some(kind);
            self.first = self.decided.len() as Index;
            self.alike.clear();
            self.bases.clear();
        }
        let me = self.decided.len() as Index;
        let features = features(kind, data);
        let form = if data.len() < DELTA_BYTES_MIN { Form::Whole } else { self.best(path, data, &features, read)? };
        let (depth, base) = match &form {
            Form::Whole => (0, None),
            Form::Delta { base, .. } => (self.decided[*base as usize].depth + 1, Some(*base)),
        };
        self.decided.push(Decided { depth, base, size: data.len() as u64, path });
        for feature in features.into_iter().flatten() {
            let last = self.alike.entry(feature).or_default();
            last.rotate_right(1);
            last[0] = Some(me);
        }
        // The next version of the path will try it.
        self.bases.remember(me, data);
        Ok(form)
    }

    /// The best of all candidates.
    fn best(
        &mut self,
        path: u32,
        data: &Bytes,
        features: &Option<[u64; FEATURES]>,
        read: impl Fn(Index) -> Result<Bytes>,
    ) -> Result<Form> {
        let mut best: Option<(Index, Vec<u8>)> = None;
        for candidate in self.candidates(path, features) {
            let of = self.decided[candidate as usize];
            if of.depth >= self.depth_max || of.size < data.len() as u64 / SMALLER_MAX {
                continue;
            }
            // As git's packer does: a deeper base must give a shorter delta.
            let (limit, best_depth) = match &best {
                Some((base, delta)) => (delta.len(), self.decided[*base as usize].depth + 1),
                None => (data.len() / 4 * 3, 1),
            };
            let left = (self.depth_max - of.depth) as usize;
            let limit = limit * left / (self.depth_max - best_depth.min(self.depth_max) + 1) as usize;
            let Some(len_max) = limit.checked_sub(1) else { continue };
            let base = self.bases.get(candidate, &read)?;
            if let Some(delta) = base.delta(data, len_max) {
                best = Some((candidate, delta));
            }
        }
        Ok(best.map_or(Form::Whole, |(base, delta)| Form::Delta { base, delta }))
    }

    /// Objects that may be a good base, the likeliest first.
    fn candidates(&self, path: u32, features: &Option<[u64; FEATURES]>) -> Vec<Index> {
        let me = self.decided.len() as Index;
        let mut found: Vec<Index> = Vec::with_capacity(VERSIONS + ALIKE + 4);
        let same_path = |at: &Index| self.decided[*at as usize].path == path;
        found.extend((self.first..me).rev().take(VERSIONS).take_while(same_path));
        let mut alike: Vec<(usize, Index)> = Vec::with_capacity(FEATURES * REMEMBERED);
        for other in features.iter().flatten().filter_map(|feature| self.alike.get(feature)).flatten().flatten() {
            match alike.iter_mut().find(|(_, at)| at == other) {
                Some((shared, _)) => *shared += 1,
                None => alike.push((1, *other)),
            }
        }
        // Of those that share as much, the latest.
        alike.sort_unstable_by(|a, b| b.cmp(a));
        for (_, other) in alike.into_iter().take(ALIKE) {
            if !found.contains(&other) {
                found.push(other);
            }
        }
        if let Some(last) = (self.first..me).next_back().filter(same_path) {
            self.ancestors(last, &mut found);
        }
        found
    }

    /// Adds the ancestors of an object at 8, 16, 32, … hops, and the root of its chain.
    fn ancestors(&self, of: Index, found: &mut Vec<Index>) {
        let (mut at, mut hops, mut wanted) = (of, 0, FIRST_HOPS);
        while let Some(base) = self.decided[at as usize].base {
            (at, hops) = (base, hops + 1);
            if hops == wanted || self.decided[at as usize].base.is_none() {
                wanted *= 2;
                if !found.contains(&at) {
                    found.push(at);
                }
            }
        }
    }
}

/// Indexed bases, the last that were indexed.
struct Bases {
    indexed: HashMap<Index, Arc<DeltaIndex<Bytes>>>,
    order: VecDeque<Index>,
    bytes: usize,
    bytes_max: usize,
}

impl Bases {
    fn clear(&mut self) {
        self.indexed.clear();
        self.order.clear();
        self.bytes = 0;
    }

    fn remember(&mut self, at: Index, data: &Bytes) {
        if data.len() >= DELTA_BYTES_MIN {
            self.insert(at, data.clone());
        }
    }

    fn get(&mut self, at: Index, read: impl Fn(Index) -> Result<Bytes>) -> Result<Arc<DeltaIndex<Bytes>>> {
        match self.indexed.get(&at) {
            Some(base) => Ok(base.clone()),
            None => Ok(self.insert(at, read(at)?)),
        }
    }

    fn insert(&mut self, at: Index, data: Bytes) -> Arc<DeltaIndex<Bytes>> {
        let base = Arc::new(DeltaIndex::new(data));
        self.bytes += base.resident_bytes();
        self.indexed.insert(at, base.clone());
        self.order.push_back(at);
        while self.bytes > self.bytes_max
            && let Some(first) = self.order.pop_front()
        {
            if let Some(gone) = self.indexed.remove(&first) {
                self.bytes -= gone.resident_bytes();
            }
        }
        base
    }
}

#[cfg(test)]
mod tests {
    use govc_engine::block::apply_delta;

    use super::*;

    /// Plans versions of one path, and makes each from its form again.
    fn plan(depth_max: u32, versions: &[Bytes]) -> Vec<u32> {
        let mut planner = Planner::new(depth_max, 1 << 20);
        let mut depths = Vec::new();
        for version in versions {
            let read = |at: Index| Ok(versions[at as usize].clone());
            match planner.next(Kind::Blob, 7, version, read).expect("reading does not fail") {
                Form::Whole => depths.push(0),
                Form::Delta { base, delta } => {
                    assert_eq!(apply_delta(&versions[base as usize], &delta).expect("a delta"), *version);
                    depths.push(depths[base as usize] + 1);
                }
            }
        }
        depths
    }

    /// Files of a hundred lines, each with one line that differs from the one before.
    fn versions(count: usize) -> Vec<Bytes> {
        let mut lines: Vec<String> = (0..100).map(|line| format!("line {line} of a file of many lines\n")).collect();
        let mut versions = Vec::new();
        for version in 0..count {
            lines[version % 100] = format!("this line was changed by version {version}\n");
            versions.push(Bytes::from(lines.concat()));
        }
        versions
    }

    #[test]
    fn only_the_newest_of_many_versions_is_whole() {
        let depths = plan(50, &versions(400));
        assert_eq!(depths.iter().filter(|depth| **depth == 0).count(), 1, "{depths:?}");
        assert!(depths.iter().all(|depth| *depth <= 50));
    }

    #[test]
    fn chains_are_no_deeper_than_asked_for() {
        let depths = plan(3, &versions(100));
        assert_eq!(depths.iter().max(), Some(&3));
    }

    #[test]
    fn what_is_alike_at_another_path_is_found() {
        let [first, other, renamed] = ["a", "b", "a"].map(|word| {
            Bytes::from((0..200).map(|line| format!("{word} line {line} with some text\n")).collect::<String>())
        });
        let mut planner = Planner::new(50, 1 << 20);
        let contents = [first.clone(), other.clone()];
        let read = |at: Index| Ok(contents[at as usize].clone());
        assert_eq!(planner.next(Kind::Blob, 1, &first, read).expect("planned"), Form::Whole);
        assert_eq!(planner.next(Kind::Blob, 2, &other, read).expect("planned"), Form::Whole);
        let form = planner.next(Kind::Blob, 3, &renamed, read).expect("planned");
        assert!(matches!(form, Form::Delta { base: 0, .. }), "{form:?}");
    }

    #[test]
    fn objects_of_another_kind_are_no_bases() {
        let data = versions(1).remove(0);
        let mut planner = Planner::new(50, 1 << 20);
        let read = |_: Index| Ok(data.clone());
        planner.next(Kind::Tree, 1, &data, read).expect("planned");
        assert_eq!(planner.next(Kind::Blob, 1, &data, read).expect("planned"), Form::Whole);
    }
}
