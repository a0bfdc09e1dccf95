//! Three-way merges of trees by path: what only one side changed is taken from it, what both changed differently is a
//! conflict, whatever the lines say.

use std::{cmp::Ordering, collections::BTreeMap, time::Instant};

use bytes::Bytes;

use super::{check_deadline, check_depth, files::find_entry};
use crate::{
    Result,
    object::{EntryMode, Kind, ObjectFormat, Oid, TreeEdit, TreeEntry, edit_tree, name_order, tree_entries},
    store::Transaction,
};

/// Conflicting paths that are reported; there may be more.
const CONFLICTS_MAX: usize = 100;

/// What came of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Merged {
    /// The tree with the changes of both sides, put into the transaction.
    Tree(Oid),
    /// The paths that both sides changed, in git's order; at most [`CONFLICTS_MAX`].
    Conflicts(Vec<Vec<u8>>),
}

type Side = Option<(EntryMode, Oid)>;

/// Does to `ours` what made `theirs` of `base`.
///
/// # Errors
/// When a tree is missing or damaged; [`crate::ErrorKind::Cancelled`] after the deadline.
pub(crate) fn merge_trees(
    transaction: &mut Transaction,
    base: Oid,
    ours: Oid,
    theirs: Oid,
    deadline: Option<Instant>,
) -> Result<Merged> {
    let mut merge = Merge { transaction, conflicts: Vec::new(), deadline };
    let tree = merge.trees(Some(base), ours, Some(theirs), &mut Vec::new(), 0)?;
    if !merge.conflicts.is_empty() {
        return Ok(Merged::Conflicts(merge.conflicts));
    }
    match tree {
        Some(tree) => Ok(Merged::Tree(tree)),
        None => merge.transaction.put(Kind::Tree, Bytes::new()).map(Merged::Tree),
    }
}

struct Merge<'a> {
    transaction: &'a mut Transaction,
    conflicts: Vec<Vec<u8>>,
    deadline: Option<Instant>,
}

impl Merge<'_> {
    /// The merged tree, or `None` if nothing is left in it; no tree is an empty one.
    fn trees(
        &mut self,
        base: Option<Oid>,
        ours: Oid,
        theirs: Option<Oid>,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<Option<Oid>> {
        check_deadline(self.deadline)?;
        check_depth(depth)?;
        let format = ours.format();
        let data = self.tree(Some(ours))?;
        let mut edits = BTreeMap::new();
        for (name, before, after) in changed_names(format, &self.tree(base)?, &self.tree(theirs)?)? {
            let own = find_entry(format, &data, &name)?.map(|entry| (entry.mode, entry.oid));
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if let Some(edit) = self.entry(before, own, after, path, depth)? {
                edits.insert(name, edit);
            }
            path.truncate(length);
            if self.conflicts.len() >= CONFLICTS_MAX {
                break;
            }
        }
        if edits.is_empty() {
            return Ok(Some(ours));
        }
        let merged = edit_tree(format, &data, &edits)?;
        if merged.is_empty() {
            return Ok(None);
        }
        self.transaction.put(Kind::Tree, merged.into()).map(Some)
    }

    /// What becomes of a name that `theirs` has changed; `None` if it stays as ours.
    fn entry(
        &mut self,
        base: Side,
        ours: Side,
        theirs: Side,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<Option<TreeEdit>> {
        if ours == theirs {
            return Ok(None);
        }
        if ours == base {
            return Ok(Some(theirs.map_or(TreeEdit::Remove, |(mode, oid)| TreeEdit::Set(mode, oid))));
        }
        // Both sides changed it. Directories may have done so in different places.
        let tree = |side: Side| side.filter(|(mode, _)| mode.is_tree()).map(|(_, oid)| oid);
        let is_tree_or_absent = |side: Side| side.is_none_or(|(mode, _)| mode.is_tree());
        match tree(ours) {
            Some(own) if is_tree_or_absent(base) && is_tree_or_absent(theirs) => {
                let merged = self.trees(tree(base), own, tree(theirs), path, depth + 1)?;
                Ok(match merged {
                    Some(same) if same == own => None,
                    Some(merged) => Some(TreeEdit::Set(EntryMode::TREE, merged)),
                    None => Some(TreeEdit::Remove),
                })
            }
            _ if ours.is_none() && tree(base).is_some() && tree(theirs).is_some() => {
                // We removed the directory, they changed it: what is new there goes well with that, all else does not.
                let empty = self.transaction.repo().object_format().empty_tree();
                let added = self.trees(tree(base), empty, tree(theirs), path, depth + 1)?;
                Ok(added.filter(|added| *added != empty).map(|added| TreeEdit::Set(EntryMode::TREE, added)))
            }
            _ => {
                self.conflicts.push(path.clone());
                Ok(None)
            }
        }
    }

    fn tree(&self, oid: Option<Oid>) -> Result<Bytes> {
        match oid.filter(|oid| !oid.is_empty_tree()) {
            Some(oid) => Ok(self.transaction.object(&oid)?.data),
            None => Ok(Bytes::new()),
        }
    }
}

/// The names that differ between two directories, each once, with what they are in either.
fn changed_names(format: ObjectFormat, old: &[u8], new: &[u8]) -> Result<Vec<(Vec<u8>, Side, Side)>> {
    let mut found: BTreeMap<Vec<u8>, (Side, Side)> = BTreeMap::new();
    let side = |entry: &TreeEntry<'_>| Some((entry.mode, entry.oid));
    let (mut olds, mut news) = (tree_entries(format, old).peekable(), tree_entries(format, new).peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => break,
            (Some(Ok(old)), Some(Ok(new))) => name_order(&old.name, old.mode.is_tree(), &new.name, new.mode.is_tree()),
            (None, _) | (_, Some(Err(_))) => Ordering::Greater,
            (_, None) | (Some(Err(_)), _) => Ordering::Less,
        };
        let old = if order == Ordering::Greater { None } else { olds.next().transpose()? };
        let new = if order == Ordering::Less { None } else { news.next().transpose()? };
        if let (Some(old), Some(new)) = (&old, &new)
            && side(old) == side(new)
        {
            continue;
        }
        // A name that became a directory, or was one, stands in two places.
        if let Some(old) = old {
            found.entry(old.name.to_vec()).or_default().0 = side(&old);
        }
        if let Some(new) = new {
            found.entry(new.name.to_vec()).or_default().1 = side(&new);
        }
    }
    Ok(found.into_iter().map(|(name, (old, new))| (name, old, new)).collect())
}
