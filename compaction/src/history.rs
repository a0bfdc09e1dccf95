//! The order of planning: by kind, then by path, the newest version of each path first.
//!
//! Paths and ages come from a walk over the newest version's history. What that does not reach has no path and comes
//! last of its kind.

use std::collections::{BinaryHeap, HashMap};

use govc_engine::{Kind, Oid, Progress, Result, Rewrite, object::links, tree_entries};

/// Which path an object has first been met at; objects of one path are versions of one another.
type Path = u32;
/// Of what no reference reaches.
const NO_PATH: Path = Path::MAX;

/// An object that has its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ordered {
    /// Which of the rewrite's objects it is.
    pub(crate) at: u32,
    pub(crate) kind: Kind,
    /// The path's place among all paths.
    pub(crate) path: Path,
}

/// Puts the objects of a rewrite in order.
///
/// # Errors
/// When an object cannot be read, and [`govc_engine::ErrorKind::Cancelled`].
pub(crate) fn order(rewrite: &Rewrite, progress: &dyn Progress) -> Result<Vec<Ordered>> {
    let mut walk = Walk::new(rewrite, progress);
    let snapshot = rewrite.repo().snapshot();
    let realities = snapshot.realities(None).map(|(_, reality)| reality.head);
    let tips: Vec<Oid> = snapshot.references().map(|(_, oid)| *oid).chain(realities).collect();
    progress.begin("history", None);
    walk.run(&tips)?;
    progress.end();
    Ok(walk.into_order())
}

struct Walk<'a> {
    rewrite: &'a Rewrite,
    progress: &'a dyn Progress,
    paths: Paths,
    /// For each object its path and when it was met, once it was.
    met: Vec<Option<(Path, u32)>>,
    count: u32,
    /// Trees that were read.
    trees: u32,
    /// Commits by their dates, then the first that was met.
    commits: BinaryHeap<(i64, std::cmp::Reverse<u32>, u32)>,
}

impl<'a> Walk<'a> {
    fn new(rewrite: &'a Rewrite, progress: &'a dyn Progress) -> Self {
        let met = vec![None; rewrite.objects().len()];
        Self { rewrite, progress, paths: Paths::default(), met, count: 0, trees: 0, commits: BinaryHeap::new() }
    }

    /// Notes an object, unless it is not rewritten or was met before: which it is.
    fn meet(&mut self, oid: &Oid, path: Path) -> Option<usize> {
        let at = self.rewrite.position(oid).filter(|at| self.met[*at].is_none())?;
        self.met[at] = Some((path, self.count));
        self.count += 1;
        Some(at)
    }

    fn run(&mut self, tips: &[Oid]) -> Result<()> {
        for tip in tips {
            self.follow(*tip)?;
        }
        let mut steps = 0u32;
        while let Some((_, _, at)) = self.commits.pop() {
            steps += 1;
            if steps.is_multiple_of(64) {
                check_cancelled(self.progress)?;
            }
            let commit = links(Kind::Commit, &self.rewrite.read(at as usize)?)?;
            for (target, kind) in commit.targets {
                match kind {
                    Some(Kind::Tree) => self.tree(&target)?,
                    _ => self.follow(target)?,
                }
            }
        }
        Ok(())
    }

    /// Meets a commit, or what a tag leads to.
    fn follow(&mut self, oid: Oid) -> Result<()> {
        let mut next = Some(oid);
        while let Some(oid) = next.take() {
            let Some(at) = self.rewrite.position(&oid).filter(|at| self.met[*at].is_none()) else { break };
            match self.rewrite.objects()[at].kind {
                Kind::Tree => self.tree(&oid)?,
                kind => {
                    self.meet(&oid, ROOT);
                    if kind == Kind::Blob {
                        break;
                    }
                    let links = links(kind, &self.rewrite.read(at)?)?;
                    match kind {
                        Kind::Commit => {
                            self.commits.push((links.commit_seconds, std::cmp::Reverse(self.count), at as u32));
                        }
                        _ => next = links.targets.first().map(|(target, _)| *target),
                    }
                }
            }
        }
        Ok(())
    }

    /// Meets a root tree and all in it that was not met before.
    fn tree(&mut self, oid: &Oid) -> Result<()> {
        let Some(at) = self.meet(oid, ROOT) else { return Ok(()) };
        let mut open = vec![(at, ROOT)];
        while let Some((at, path)) = open.pop() {
            self.trees += 1;
            if self.trees.is_multiple_of(64) {
                check_cancelled(self.progress)?;
            }
            let data = self.rewrite.read(at)?;
            for entry in tree_entries(&data) {
                let entry = entry?;
                if entry.mode.is_submodule()
                    || self.rewrite.position(&entry.oid).is_none_or(|at| self.met[at].is_some())
                {
                    continue;
                }
                let below = self.paths.below(path, &entry.name);
                if let Some(at) = self.meet(&entry.oid, below)
                    && entry.mode.is_tree()
                {
                    open.push((at, below));
                }
            }
        }
        Ok(())
    }

    fn into_order(self) -> Vec<Ordered> {
        let ranks = self.paths.ranks();
        let rank = |path: Path| ranks.get(path as usize).copied().unwrap_or(NO_PATH);
        let mut order: Vec<_> = (self.met.iter().zip(self.rewrite.objects()).enumerate())
            .map(|(at, (met, object))| {
                let (path, age) = met.map_or((NO_PATH, 0), |(path, age)| (rank(path), age));
                (Ordered { at: at as u32, kind: object.kind, path }, age)
            })
            .collect();
        order.sort_unstable_by_key(|(object, age)| (object.kind as u8, object.path, *age, object.at));
        order.into_iter().map(|(object, _)| object).collect()
    }
}

fn check_cancelled(progress: &dyn Progress) -> Result<()> {
    match progress.is_cancelled() {
        true => Err(govc_engine::Error::new(govc_engine::ErrorKind::Cancelled, "ended on request")),
        false => Ok(()),
    }
}

/// The path of root trees, and of what is in none.
const ROOT: Path = 0;

/// Paths by number. Each is a name below another.
struct Paths {
    numbers: HashMap<(Path, Box<[u8]>), Path>,
    names: Vec<(Path, Box<[u8]>)>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { numbers: HashMap::new(), names: vec![(ROOT, Box::default())] }
    }
}

impl Paths {
    fn below(&mut self, parent: Path, name: &[u8]) -> Path {
        let next = self.names.len() as Path;
        let number = *self.numbers.entry((parent, name.into())).or_insert(next);
        if number == next {
            self.names.push((parent, name.into()));
        }
        number
    }

    /// For each path its place in the order of a walk through all directories, each in the order of its names.
    fn ranks(&self) -> Vec<Path> {
        let mut below: Vec<Path> = (1..self.names.len() as Path).collect();
        below.sort_unstable_by_key(|path| &self.names[*path as usize]);
        let first_below = |parent: Path| below.partition_point(|path| self.names[*path as usize].0 < parent);
        let mut ranks = vec![0; self.names.len()];
        let (mut open, mut rank) = (vec![ROOT], 0);
        while let Some(path) = open.pop() {
            ranks[path as usize] = rank;
            rank += 1;
            open.extend(below[first_below(path)..first_below(path + 1)].iter().rev());
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_ranked_as_a_walk_comes_to_them() {
        let mut paths = Paths::default();
        let src = paths.below(ROOT, b"src");
        let doc = paths.below(ROOT, b"doc");
        let main = paths.below(src, b"main");
        assert_eq!(paths.below(src, b"main"), main);
        let ranks = paths.ranks();
        let rank = |path: Path| ranks[path as usize];
        assert_eq!([ROOT, doc, src, main].map(rank), [0, 1, 2, 3]);
    }
}
