//! Reachability for packs: every object that some tips reach and others do not.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    time::Instant,
};

use super::{TREE_DEPTH_MAX, check_deadline, filter::Filter, oid_set::GuardedOidSet, walk::Queued};
use crate::{
    Error, ErrorKind, Result,
    object::{EntryMode, Kind, Oid, links, tree_entries},
    store::Snapshot,
};

/// What a pack is made for.
#[derive(Default)]
pub struct ReachOptions<'a> {
    /// What the receiver wants: commits, tags, trees or blobs.
    pub wants: &'a [Oid],
    /// Commits (or tags of them) that the receiver has with everything they reach.
    pub haves: &'a [Oid],
    /// Commits whose parents the receiver will not have.
    pub shallow: &'a [Oid],
    /// Commits that the receiver has, but not their parents.
    pub client_shallow: &'a [Oid],
    /// What the receiver takes of all that; everything without one. What it wants by itself it takes.
    pub filter: Option<&'a Filter>,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Asked at every tree and now and then between commits; its error ends the walk. Not while a filter is followed.
    pub check: Option<&'a dyn Fn() -> Result<()>>,
}

/// The objects for a pack, commits first, newest first, then tags, trees and blobs as their commits need them.
#[derive(Debug, Default)]
pub struct Reach {
    /// The objects to send, each once, with their kinds.
    pub objects: Vec<(Oid, Kind)>,
    /// Parents of what is sent that the receiver has: all of them are reached by the wants.
    pub edge: HashSet<Oid>,
    /// Trees of the commits at the border, which the receiver has.
    pub edge_trees: Vec<Oid>,
    /// For trees and blobs to send, what else is at the same path; empty without a border, where nobody asks.
    pub similar: HashMap<Oid, Similar>,
}

/// Objects of the same kind at the path of an object to send: bases for deltas. With a filter that does not take all
/// objects of the kind, the receiver may have neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Similar {
    /// In a tree at the border: the receiver has it.
    pub at_edge: Option<Oid>,
    /// In the tree of the commit before in the order of sending: it is sent earlier, or the receiver has it.
    pub newer: Option<Oid>,
}

const INTERESTING: u8 = 1;
const UNINTERESTING: u8 = 2;

impl Snapshot {
    /// Finds what the wants reach and the haves do not.
    ///
    /// Like git, it takes the trees of the border's commits for the whole of what the receiver has of trees and
    /// blobs, so some objects may be sent that an older commit of the receiver holds.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if a wanted object or one that it reaches is missing,
    /// [`crate::ErrorKind::Cancelled`] after the deadline; what `check` ends it with.
    pub fn reach(&self, options: &ReachOptions<'_>) -> Result<Reach> {
        let mut walk = ReachWalk {
            snapshot: self,
            options,
            seen: GuardedOidSet::default(),
            deep: Vec::new(),
            deep_noted: GuardedOidSet::default(),
            reach: Reach::default(),
        };
        let mut roots = Vec::new();
        let mut tips = Vec::new();
        for want in options.wants {
            walk.want(*want, &mut tips, &mut roots)?;
        }
        let haves = walk.have_commits()?;
        let commits = walk.commits(&tips, &haves)?;
        if let Some(filter) = options.filter {
            walk.filtered(filter, &tips, roots, &commits)?;
            return Ok(walk.reach);
        }
        for tree in walk.reach.edge_trees.clone() {
            walk.mark_tree(tree)?;
        }
        for (_, tree) in &commits {
            roots.push((*tree, Kind::Tree));
        }
        walk.reach.objects.splice(0..0, commits.iter().map(|(oid, _)| (*oid, Kind::Commit)));
        let at_edge = walk.reach.edge_trees.first().copied();
        let mut similar = Similar { at_edge, newer: None };
        for (oid, kind) in roots {
            match kind {
                Kind::Tree => {
                    walk.tree(oid, 0, similar)?;
                    while let Some((tree, similar)) = walk.deep.pop() {
                        walk.tree(tree, 0, similar)?;
                    }
                    similar.newer = at_edge.map(|_| oid);
                }
                kind if walk.seen.insert(oid) => walk.reach.objects.push((oid, kind)),
                _ => {}
            }
        }
        Ok(walk.reach)
    }
}

pub(super) struct ReachWalk<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) options: &'a ReachOptions<'a>,
    /// Trees, blobs and tags that are sent or that the receiver has.
    pub(super) seen: GuardedOidSet,
    /// Trees that lie deeper than the walk recurses, which it comes back to: several pushes can build what one may not have.
    deep: Vec<(Oid, Similar)>,
    /// Every tree that was ever in `deep`.
    deep_noted: GuardedOidSet,
    pub(super) reach: Reach,
}

impl ReachWalk<'_> {
    fn check(&self) -> Result<()> {
        self.options.check.map_or(Ok(()), |check| check())?;
        check_deadline(self.options.deadline)
    }

    /// Follows a want through its tags to a commit, or to a tree or blob.
    fn want(&mut self, want: Oid, tips: &mut Vec<Oid>, roots: &mut Vec<(Oid, Kind)>) -> Result<()> {
        let mut at = want;
        loop {
            let (kind, _) =
                self.snapshot.header(&at)?.ok_or_else(|| Error::not_found(format!("object {at} does not exist")))?;
            match kind {
                Kind::Commit => tips.push(at),
                Kind::Tree | Kind::Blob => roots.push((at, kind)),
                Kind::Tag => {
                    let target = self.snapshot.tag(&at)?.target;
                    if self.seen.insert(at) {
                        self.reach.objects.push((at, Kind::Tag));
                    }
                    at = target;
                    continue;
                }
            }
            return Ok(());
        }
    }

    fn have_commits(&self) -> Result<Vec<Oid>> {
        let mut commits = Vec::new();
        for have in self.options.haves {
            if !self.snapshot.contains(have)? {
                continue;
            }
            match self.snapshot.peel(*have) {
                Ok((oid, Kind::Commit)) => commits.push(oid),
                Ok(_) => {}
                // It has gone since.
                Err(error) if *error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(commits)
    }

    /// The commits to send with their trees, newest first; notes the trees of the border.
    fn commits(&mut self, tips: &[Oid], haves: &[Oid]) -> Result<Vec<(Oid, Oid)>> {
        let shallow: HashSet<&Oid> = self.options.shallow.iter().collect();
        let client_shallow: HashSet<&Oid> = self.options.client_shallow.iter().collect();
        let mut flags: HashMap<Oid, u8> = HashMap::new();
        let mut queue = BinaryHeap::new();
        let mut found = 0usize;
        // Commits to send that have not had their turn.
        let mut waiting: HashSet<Oid> = HashSet::new();
        let mut sent = Vec::new();
        let mut edge = Vec::new();
        let start = tips.iter().map(|oid| (*oid, INTERESTING)).chain(haves.iter().map(|oid| (*oid, UNINTERESTING)));
        let mut pending: Vec<(Oid, u8)> = start.collect();
        // How many uninteresting commits are looked at after the last interesting one, against skewed clocks.
        let mut slop = 64;
        loop {
            for (oid, flag) in pending.drain(..) {
                let old = flags.get(&oid).copied().unwrap_or(0);
                if old & flag == flag {
                    continue;
                }
                flags.insert(oid, old | flag);
                if old | flag == INTERESTING {
                    waiting.insert(oid);
                } else {
                    waiting.remove(&oid);
                }
                // A commit is queued for each new flag, so that "uninteresting" overtakes what was queued before.
                let seconds = match self.snapshot.commit_links(&oid) {
                    // What nothing leads to here may go at any moment; then it is no border.
                    Err(error) if flag == UNINTERESTING && *error.kind() == ErrorKind::NotFound => continue,
                    links => links?.seconds,
                };
                queue.push(Queued { seconds, found: Reverse(found), of: oid });
                found += 1;
            }
            let Some(Queued { of: oid, .. }) = queue.pop() else { break };
            waiting.remove(&oid);
            if found.is_multiple_of(1024) {
                self.check()?;
            }
            let flag = flags.get(&oid).copied().unwrap_or(0);
            let data = match self.snapshot.object_of(&oid, Kind::Commit) {
                Err(error) if flag & UNINTERESTING != 0 && *error.kind() == ErrorKind::NotFound => continue,
                data => data?,
            };
            let links = links(oid.format(), Kind::Commit, &data)?;
            let mut targets = links.targets.iter().map(|(oid, _)| *oid);
            let tree = targets.next().ok_or_else(|| Error::corrupt(format!("commit {oid} has no tree")))?;
            let cut = if flag & UNINTERESTING != 0 { client_shallow.contains(&oid) } else { shallow.contains(&oid) };
            let parents = if cut { Vec::new() } else { targets.collect::<Vec<_>>() };
            if flag & UNINTERESTING != 0 {
                edge.push((oid, tree));
                if waiting.is_empty() {
                    slop -= 1;
                    if slop == 0 {
                        break;
                    }
                }
                pending.extend(parents.into_iter().map(|parent| (parent, UNINTERESTING)));
            } else {
                sent.push((oid, tree));
                pending.extend(parents.into_iter().map(|parent| (parent, INTERESTING)));
            }
        }
        // A commit may have been found to be the receiver's after it was noted.
        sent.retain(|(oid, _)| flags.get(oid).is_some_and(|flag| flag & UNINTERESTING == 0));
        if !sent.is_empty() || !tips.is_empty() {
            self.note_edge(&sent, &edge, &flags)?;
        }
        Ok(sent)
    }

    /// The trees at the border: of uninteresting parents of what is sent; if there are none, of the haves.
    fn note_edge(&mut self, sent: &[(Oid, Oid)], edge: &[(Oid, Oid)], flags: &HashMap<Oid, u8>) -> Result<()> {
        let trees: HashMap<Oid, Oid> = edge.iter().copied().collect();
        let mut noted = HashSet::new();
        for (oid, _) in sent {
            for parent in &self.snapshot.commit(oid)?.parents {
                if flags.get(parent).is_some_and(|flag| flag & UNINTERESTING != 0)
                    && self.reach.edge.insert(*parent)
                    && let Some(tree) = trees.get(parent)
                    && noted.insert(*tree)
                {
                    self.reach.edge_trees.push(*tree);
                }
            }
        }
        for have in self.options.haves.iter().take(32) {
            if let Some(tree) = trees.get(have)
                && noted.insert(*tree)
            {
                self.reach.edge_trees.push(*tree);
            }
        }
        Ok(())
    }

    /// Marks everything in a tree as the receiver's.
    pub(super) fn mark_tree(&mut self, tree: Oid) -> Result<()> {
        let mut open = Vec::new();
        if self.seen.insert(tree) {
            open.push(tree);
        }
        while let Some(tree) = open.pop() {
            // The receiver may have trees that this repository lost; they are no hindrance.
            let Some(object) = self.snapshot.try_object(&tree)? else { continue };
            for entry in tree_entries(self.snapshot.object_format(), &object.data) {
                let entry = entry?;
                if !entry.mode.is_submodule() && self.seen.insert(entry.oid) && entry.mode.is_tree() {
                    open.push(entry.oid);
                }
            }
        }
        Ok(())
    }

    /// Adds a tree and what is in it, as far as it is new.
    fn tree(&mut self, tree: Oid, depth: usize, similar: Similar) -> Result<()> {
        if depth > TREE_DEPTH_MAX {
            // Millions of entries may name one tree.
            if !self.seen.contains(&tree) && self.deep_noted.insert(tree) {
                self.deep.push((tree, similar));
            }
            return Ok(());
        }
        if !self.seen.insert(tree) {
            return Ok(());
        }
        self.check()?;
        self.add(tree, Kind::Tree, similar);
        let data = self.snapshot.object_of(&tree, Kind::Tree)?;
        let similar = self.similar_entries(&data, similar)?;
        for entry in tree_entries(self.snapshot.object_format(), &data) {
            let entry = entry?;
            let mode: EntryMode = entry.mode;
            let similar = similar.get(&entry.name[..]).copied().unwrap_or_default();
            if mode.is_tree() {
                self.tree(entry.oid, depth + 1, similar)?;
            } else if !mode.is_submodule() && self.seen.insert(entry.oid) {
                self.add(entry.oid, Kind::Blob, similar);
            }
        }
        Ok(())
    }

    pub(super) fn add(&mut self, oid: Oid, kind: Kind, similar: Similar) {
        self.reach.objects.push((oid, kind));
        if similar != Similar::default() {
            self.reach.similar.insert(oid, similar);
        }
    }

    /// For the new entries of a tree, by name, what the trees like it have under the same name.
    pub(super) fn similar_entries<'d>(
        &self,
        data: &'d [u8],
        trees: Similar,
    ) -> Result<HashMap<Cow<'d, [u8]>, Similar>> {
        let mut found: HashMap<Cow<'d, [u8]>, Similar> = HashMap::new();
        if trees == Similar::default() {
            return Ok(found);
        }
        let mut is_tree: HashMap<Cow<'d, [u8]>, bool> = HashMap::new();
        for entry in tree_entries(self.snapshot.object_format(), data) {
            let entry = entry?;
            if !entry.mode.is_submodule() && !self.seen.contains(&entry.oid) {
                is_tree.insert(entry.name, entry.mode.is_tree());
            }
        }
        for (oid, is_edge) in [(trees.at_edge, true), (trees.newer, false)] {
            let Some(oid) = oid else { continue };
            let Some(object) = self.snapshot.try_object(&oid)? else { continue };
            for entry in tree_entries(self.snapshot.object_format(), &object.data) {
                let entry = entry?;
                if entry.mode.is_submodule() {
                    continue;
                }
                if let Some((name, _)) =
                    is_tree.get_key_value(&entry.name[..]).filter(|(_, tree)| **tree == entry.mode.is_tree())
                {
                    let similar = found.entry(name.clone()).or_default();
                    let place = if is_edge { &mut similar.at_edge } else { &mut similar.newer };
                    *place = Some(entry.oid);
                }
            }
        }
        Ok(found)
    }
}
