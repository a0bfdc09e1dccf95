//! Reading files and directories of a tree.

use std::{borrow::Cow, cmp::Ordering, ops::ControlFlow};

use bytes::Bytes;

use super::check_depth;
use crate::{
    Error, Result,
    object::{EntryMode, Kind, ObjectFormat, Oid, TreeEntry, tree_entries},
    store::Snapshot,
};

/// Takes a path with its mode and object; may end the walk.
pub type Visit<'a> = dyn FnMut(&[u8], EntryMode, Oid) -> Result<ControlFlow<()>> + 'a;

/// How a directory is listed.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Files and submodules of all depths instead of the directory's own entries.
    pub recursive: bool,
    /// The last path of the page before, as it was given.
    pub after: Option<Vec<u8>>,
    /// Most entries to give.
    pub limit: usize,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The path from the root.
    pub path: Vec<u8>,
    /// The mode.
    pub mode: EntryMode,
    /// The object, or another repository's commit.
    pub oid: Oid,
    /// The object's kind by the mode.
    pub kind: Kind,
    /// A file's size in bytes.
    pub size: Option<u64>,
}

/// One page of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, in git's order.
    pub entries: Vec<ListedEntry>,
    /// Whether there are more.
    pub more: bool,
}

impl Snapshot {
    /// The entry at `path` below a commit, tag or tree; the empty path gives the root tree.
    ///
    /// # Errors
    /// When an object on the way is missing or no tree at all.
    pub fn entry(&self, root: Oid, path: &[u8]) -> Result<Option<TreeEntry<'static>>> {
        let mut entry = TreeEntry { mode: EntryMode::TREE, name: Vec::new().into(), oid: self.root_tree(root)? };
        for component in path.split(|b| *b == b'/').filter(|component| !component.is_empty()) {
            if !entry.mode.is_tree() {
                return Ok(None);
            }
            let data = self.object_of(&entry.oid, Kind::Tree)?;
            match find_entry(self.object_format(), &data, component)? {
                Some(found) => entry = found.into_owned(),
                None => return Ok(None),
            }
        }
        Ok(Some(entry))
    }

    /// The tree of a commit, of a tag's target, or the tree itself.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for a blob; else as [`Snapshot::peel`].
    pub fn root_tree(&self, oid: Oid) -> Result<Oid> {
        match self.peel(oid)? {
            (oid, Kind::Tree) => Ok(oid),
            (oid, Kind::Commit) => Ok(self.commit(&oid)?.tree),
            (oid, kind) => Err(Error::invalid(format!("object {oid} is a {kind} and has no files"))),
        }
    }

    /// Lists the directory at `path` below a commit or tree.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if there is no directory at `path`; else when objects are missing.
    pub fn list(&self, root: Oid, path: &[u8], options: ListOptions) -> Result<Listing> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let directory = self.entry(root, path)?.filter(|entry| entry.mode.is_tree());
        let directory = directory.ok_or_else(|| Error::not_found(format!("there is no directory {:?}", shown())))?;
        let mut prefix = path.to_vec();
        if !prefix.is_empty() && !prefix.ends_with(b"/") {
            prefix.push(b'/');
        }
        let after = match options.after {
            Some(mut after) if !options.recursive => {
                if self.entry(root, &after)?.is_some_and(|entry| entry.mode.is_tree()) {
                    after.push(b'/');
                }
                Some(after)
            }
            after => after,
        };
        let mut walk = Walk { snapshot: self, after, recursive: options.recursive };
        let mut entries: Vec<ListedEntry> = Vec::new();
        let mut more = false;
        let _ = walk.directory(directory.oid, &mut prefix, 0, &mut |path, mode, oid| {
            if entries.len() == options.limit {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            let kind = match () {
                () if mode.is_tree() => Kind::Tree,
                () if mode.is_submodule() => Kind::Commit,
                () => Kind::Blob,
            };
            let size = if kind == Kind::Blob { self.header(&oid)?.map(|(_, size)| size) } else { None };
            entries.push(ListedEntry { path: path.to_vec(), mode, oid, kind, size });
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Listing { entries, more })
    }

    /// Visits every file and submodule below a tree in git's order; paths begin with `prefix`, which ends in a slash
    /// or is empty. The visitor may end the walk.
    ///
    /// # Errors
    /// When objects are missing, directories are nested too deep, or the visitor fails.
    pub fn walk_files(&self, tree: Oid, prefix: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        let mut walk = Walk { snapshot: self, after: None, recursive: true };
        walk.directory(tree, &mut prefix.to_vec(), 0, visit).map(|_| ())
    }
}

/// The entry of this name in a tree.
pub(crate) fn find_entry<'a>(format: ObjectFormat, tree: &'a Bytes, name: &[u8]) -> Result<Option<TreeEntry<'a>>> {
    for entry in tree_entries(format, tree) {
        let entry = entry?;
        if *entry.name == *name {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Finds entries of one tree by name without reading all that stand before them.
///
/// Directories of git's order stand as if their names ended in a slash, and foreign trees in any order: so the index
/// has an order of its own, in which each name is once.
pub(crate) struct NameIndex {
    format: ObjectFormat,
    /// Where entries begin, by name; of entries with one name, the first.
    starts: Vec<usize>,
}

impl NameIndex {
    /// Indexes `tree`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it is not a tree.
    pub(crate) fn new(format: ObjectFormat, tree: &[u8]) -> Result<Self> {
        let mut entries: Vec<(Cow<'_, [u8]>, usize)> = Vec::new();
        let mut start = 0;
        for entry in tree_entries(format, tree) {
            let entry = entry?;
            entries.push((entry.name.clone(), start));
            let mode_len = tree[start..].iter().take_while(|b| **b != b' ').count();
            start += mode_len + 1 + entry.name.len() + 1 + format.len();
        }
        // A stable sort, and one that is fast where nearly all is in order.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, first| later.0 == first.0);
        Ok(Self { format, starts: entries.into_iter().map(|(_, start)| start).collect() })
    }

    /// The entry of this name in the same tree.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it is another tree.
    pub(crate) fn find<'a>(&self, tree: &'a [u8], name: &[u8]) -> Result<Option<TreeEntry<'a>>> {
        let entry_at = |start: usize| {
            let entry = tree_entries(self.format, tree.get(start..).unwrap_or_default()).next();
            entry.unwrap_or_else(|| Err(Error::corrupt("the tree is not the indexed one")))
        };
        let (mut low, mut high) = (0, self.starts.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = entry_at(self.starts[middle])?;
            match (*entry.name).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Some(entry)),
            }
        }
        Ok(None)
    }
}

struct Walk<'a> {
    snapshot: &'a Snapshot,
    /// Paths up to and including this one are skipped; a directory's ends in a slash.
    after: Option<Vec<u8>>,
    recursive: bool,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        tree: Oid,
        path: &mut Vec<u8>,
        depth: usize,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        check_depth(depth)?;
        let data = self.snapshot.object_of(&tree, Kind::Tree)?;
        let parent_len = path.len();
        for entry in tree_entries(self.snapshot.object_format(), &data) {
            let entry = entry?;
            path.extend_from_slice(&entry.name);
            let step = if self.recursive && entry.mode.is_tree() {
                path.push(b'/');
                // A directory that lies wholly before the last page's end has nothing to give.
                match &self.after {
                    Some(after) if !after.starts_with(path) && *after > *path => ControlFlow::Continue(()),
                    _ => self.directory(entry.oid, path, depth + 1, visit)?,
                }
            } else if self.is_past(path, entry.mode.is_tree()) {
                visit(path, entry.mode, entry.oid)?
            } else {
                ControlFlow::Continue(())
            };
            path.truncate(parent_len);
            if step.is_break() {
                return Ok(step);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether `path` comes after the last page. Directories sort as if they ended in a slash, so that the bytes of
    /// the paths order a walk.
    fn is_past(&self, path: &[u8], is_tree: bool) -> bool {
        let Some(after) = &self.after else { return true };
        if is_tree { [path, b"/"].concat() > *after } else { path > after.as_slice() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{NameIndex, find_entry};
    use crate::object::ObjectFormat;

    const FORMAT: ObjectFormat = ObjectFormat::Sha1;

    fn tree(entries: &[(&str, &str, u8)]) -> Bytes {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            data.extend_from_slice(&[*id; FORMAT.len()]);
        }
        data.into()
    }

    #[test]
    fn an_index_finds_what_a_search_finds() {
        let trees = [
            tree(&[]),
            tree(&[("100644", "a", 1)]),
            tree(&[("100644", "a.b", 1), ("40000", "a", 2), ("100755", "a0", 3), ("120000", "b", 4)]),
            // As old programs and forgers write them: padded modes, any order, a name twice.
            tree(&[("100644", "z", 1), ("040000", "a", 2), ("100644", "m", 3), ("100644", "a", 4)]),
        ];
        for tree in trees {
            let index = NameIndex::new(FORMAT, &tree).unwrap();
            for name in ["a", "a.b", "a0", "b", "m", "z", "", "aa", "zz"] {
                let name = name.as_bytes();
                assert_eq!(
                    index.find(&tree, name).unwrap(),
                    find_entry(FORMAT, &tree, name).unwrap(),
                    "{name:?} in {tree:?}"
                );
            }
        }
        assert!(NameIndex::new(FORMAT, b"100644 cut\0short").is_err());
    }
}
