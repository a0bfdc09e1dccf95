//! The order of planning: by kind, then by path, the newest version of each path first.
//!
//! Paths and ages come from the engine's walk over the history. What that does not reach, and stays, has no path and comes
//! last of its kind.

use std::collections::HashMap;

use govc_engine::{Kind, Progress, Result, Rewrite, Tracer};

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

/// Follows a repository's history, and puts what is to be stored in order.
///
/// # Errors
/// When an object cannot be read, and [`govc_engine::ErrorKind::Cancelled`].
pub(crate) fn order(rewrite: &mut Rewrite, progress: &dyn Progress) -> Result<Vec<Ordered>> {
    let mut met = Met { paths: Paths::default(), of: vec![None; rewrite.objects().len()], count: 0 };
    rewrite.follow(&mut met, progress)?;
    Ok(met.into_order(rewrite))
}

/// What a walk has met.
struct Met {
    paths: Paths,
    /// For each object its path and when it was met, once it was.
    of: Vec<Option<(Path, u32)>>,
    count: u32,
}

impl Tracer for Met {
    fn below(&mut self, parent: Path, name: &[u8]) -> Path {
        self.paths.below(parent, name)
    }

    fn met(&mut self, at: usize, path: Path) {
        self.of[at] = Some((path, self.count));
        self.count += 1;
    }
}

impl Met {
    fn into_order(self, rewrite: &Rewrite) -> Vec<Ordered> {
        let ranks = self.paths.ranks();
        let rank = |path: Path| ranks.get(path as usize).copied().unwrap_or(NO_PATH);
        let mut order: Vec<_> = (self.of.iter().zip(rewrite.objects()).enumerate())
            .filter(|(at, _)| !rewrite.is_left_out(*at))
            .map(|(at, (met, object))| {
                let (path, age) = met.map_or((NO_PATH, 0), |(path, age)| (rank(path), age));
                (Ordered { at: at as u32, kind: object.kind, path }, age)
            })
            .collect();
        order.sort_unstable_by_key(|(object, age)| (object.kind as u8, object.path, *age, object.at));
        order.into_iter().map(|(object, _)| object).collect()
    }
}

/// The path of root trees, and of what is in none.
const ROOT: Path = <dyn Tracer>::ROOT;

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
