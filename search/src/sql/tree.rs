//! The files of a tree, one after the other, without the directories that cannot hold a wanted one.

use std::{sync::Arc, vec::IntoIter};

use govc_engine::{EntryMode, Error, ErrorKind, Kind, Oid, Result, TreeEntry, tree_entries};

use super::{
    run::Run,
    table::{Slot, Test, Tests},
    value::Argument,
};

/// Directories may be nested this deep, as in the engine's own walks.
const DEPTH_MAX: usize = 1024;

/// What is known of the wanted paths.
#[derive(Debug, Default)]
pub(super) struct Bounds(Vec<Bound>);

#[derive(Debug)]
enum Bound {
    Equal(Vec<u8>),
    AtLeast(Vec<u8>),
    AtMost(Vec<u8>),
    Prefix(Vec<u8>),
    /// Without regard to the case of ASCII letters.
    FoldedPrefix(Vec<u8>),
    Nothing,
}

impl Bounds {
    /// Reads a table's tests on its paths.
    pub(super) fn new(slots: &[Slot], path_column: usize, tests: &Tests) -> Self {
        let on_path = slots.iter().enumerate().filter(|(_, slot)| slot.column == path_column);
        Self(on_path.filter_map(|(at, slot)| Bound::new(slot.test, tests.get(at)?)).collect())
    }

    /// Whether a file of this path may be wanted.
    fn admits(&self, path: &[u8]) -> bool {
        self.0.iter().all(|bound| bound.admits(path))
    }

    /// Whether a file of a directory, whose path ends in a slash, may be wanted.
    fn admits_below(&self, directory: &[u8]) -> bool {
        self.0.iter().all(|bound| bound.admits_below(directory))
    }
}

impl Bound {
    /// `None` if the comparison says nothing about the beginning of a path: what is no text is left to SQLite, which
    /// may convert it.
    fn new(test: Test, argument: &Argument) -> Option<Self> {
        let text = match argument {
            Argument::Text(text) => text.clone(),
            Argument::Null => return Some(Bound::Nothing),
            Argument::Integer(_) | Argument::Other => return None,
        };
        let before = |special: &[u8]| text.iter().copied().take_while(|byte| !special.contains(byte)).collect();
        Some(match test {
            Test::Equal => Bound::Equal(text),
            Test::AtLeast => Bound::AtLeast(text),
            Test::AtMost => Bound::AtMost(text),
            Test::Like => Bound::FoldedPrefix(before(b"%_")),
            Test::Glob => Bound::Prefix(before(b"*?[")),
            Test::Argument => return None,
        })
    }

    fn admits(&self, path: &[u8]) -> bool {
        match self {
            Bound::Equal(text) => path == text,
            Bound::AtLeast(text) => path >= text.as_slice(),
            Bound::AtMost(text) => path <= text.as_slice(),
            Bound::Prefix(prefix) => path.starts_with(prefix),
            Bound::FoldedPrefix(prefix) => starts_folded(path, prefix),
            Bound::Nothing => false,
        }
    }

    fn admits_below(&self, directory: &[u8]) -> bool {
        match self {
            Bound::Equal(text) => text.starts_with(directory),
            // All paths below begin with the directory's, and are longer.
            Bound::AtLeast(text) => directory >= text.as_slice() || text.starts_with(directory),
            Bound::AtMost(text) => directory <= text.as_slice(),
            Bound::Prefix(prefix) => directory.starts_with(prefix) || prefix.starts_with(directory),
            Bound::FoldedPrefix(prefix) => starts_folded(directory, prefix) || starts_folded(prefix, directory),
            Bound::Nothing => false,
        }
    }
}

fn starts_folded(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A walk over files and submodules in the tree's order.
pub(super) struct TreeWalk {
    run: Arc<Run>,
    bounds: Bounds,
    /// Of the file that the walk is at, or the directory.
    path: Vec<u8>,
    levels: Vec<Level>,
}

struct Level {
    /// Those that may be, or hold, wanted files.
    entries: IntoIter<TreeEntry<'static>>,
    /// Bytes of the directory's path, with its slash.
    path_len: usize,
}

impl TreeWalk {
    pub(super) fn new(run: &Arc<Run>, root: Oid, bounds: Bounds) -> Result<Self> {
        let mut walk = Self { run: Arc::clone(run), bounds, path: Vec::new(), levels: Vec::new() };
        walk.enter(root)?;
        Ok(walk)
    }

    /// Goes to the next wanted file.
    ///
    /// # Errors
    /// When a tree cannot be read, directories are nested too deep, or the deadline has passed.
    pub(super) fn advance(&mut self) -> Result<Option<(EntryMode, Oid)>> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            let Some(entry) = level.entries.next() else {
                self.levels.pop();
                continue;
            };
            self.path.extend_from_slice(&entry.name);
            if !entry.mode.is_tree() {
                return Ok(Some((entry.mode, entry.oid)));
            }
            self.path.push(b'/');
            self.enter(entry.oid)?;
        }
        Ok(None)
    }

    /// Where the walk is.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Goes into the directory that `path` names.
    fn enter(&mut self, tree: Oid) -> Result<()> {
        if self.levels.len() > DEPTH_MAX {
            let message = format!("directories are nested deeper than {DEPTH_MAX}");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.run.check_deadline()?;
        let data = self.run.snapshot.object_of(&tree, Kind::Tree)?;
        let path_len = self.path.len();
        let mut entries = Vec::new();
        for entry in tree_entries(tree.format(), &data) {
            let entry = entry?;
            self.path.extend_from_slice(&entry.name);
            let is_wanted = if entry.mode.is_tree() {
                self.path.push(b'/');
                self.bounds.admits_below(&self.path)
            } else {
                self.bounds.admits(&self.path)
            };
            self.path.truncate(path_len);
            if is_wanted {
                entries.push(entry.into_owned());
            }
        }
        self.levels.push(Level { entries: entries.into_iter(), path_len });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Bounds};
    use crate::sql::{table::Test, value::Argument};

    /// No bound may keep a walk out of a directory that holds an admitted path.
    #[test]
    fn directories_of_admitted_paths_are_entered() {
        let names = ["a", "A", "b", "ab", "a.", "a-", "a0", "é", "_", "%"];
        let mut paths: Vec<String> = Vec::new();
        for one in names {
            paths.push(one.to_owned());
            for two in names {
                paths.push(format!("{one}/{two}"));
                paths.extend(names.map(|three| format!("{one}/{two}/{three}")));
            }
        }
        let texts = ["", "a", "A/", "a/a", "a/b/", "a/b/a", "a/*", "a/%", "a/_", "a.", "a0", "é/a", "b/a?", "zz", "%"];
        for text in texts {
            for test in [Test::Equal, Test::AtLeast, Test::AtMost, Test::Like, Test::Glob] {
                let argument = Argument::Text(text.as_bytes().to_vec());
                let bounds = Bounds(vec![Bound::new(test, &argument).expect("a bound")]);
                for path in paths.iter().filter(|path| bounds.admits(path.as_bytes())) {
                    for (slash, _) in path.match_indices('/') {
                        let directory = &path[..=slash];
                        assert!(bounds.admits_below(directory.as_bytes()), "{test:?} {text:?}: {path} in {directory}");
                    }
                }
            }
        }
    }
}
