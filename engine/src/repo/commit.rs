//! The atomic commit: any number of file changes on a branch, from nothing but their description.
//!
//! Changes apply in order to an overlay of the base's directories; only directories that change are read, and
//! re-made by splicing. The commit is published with the expectation that the branch still is where the overlay
//! began, so two writers never overwrite one another.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use bytes::Bytes;

use super::{
    TREE_DEPTH_MAX, check_deadline, check_depth,
    files::{NameIndex, find_entry},
    merge::{Merged, merge_trees},
};
use crate::{
    Error, ErrorKind, Result,
    object::{
        Commit, EntryMode, Kind, ObjectFormat, Oid, Signature, TreeEdit, check_path_component, edit_tree, tree_entries,
    },
    refs::{Expected, RefEdit, RefName},
    store::{Cause, Published, Repo, Transaction},
};

/// Longest path in bytes, as most file systems have it.
const PATH_LEN_MAX: usize = 4096;
/// How often a commit without an expectation is redone when the branch moves under it.
const ATTEMPTS_MAX: usize = 100;
/// After this many searches of one directory from its beginning, an index of it has paid for itself.
const SEARCHES_MAX: u32 = 8;

/// The bytes of a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// These.
    Bytes(Bytes),
    /// Those of a blob that the repository has.
    Blob(Oid),
}

/// One change of a commit.
#[derive(Debug, Clone)]
pub enum Change {
    /// Creates or replaces a file.
    Put {
        /// The file.
        path: Vec<u8>,
        /// Its content.
        content: Content,
        /// Its mode; by default the mode that it has, or a plain file's.
        mode: Option<EntryMode>,
    },
    /// Removes a file, or a directory with all that is in it.
    Delete {
        /// The file or directory.
        path: Vec<u8>,
    },
    /// Moves a file or directory.
    Move {
        /// What it was.
        from: Vec<u8>,
        /// What it becomes; must not exist.
        path: Vec<u8>,
        /// New content, for files.
        content: Option<Content>,
        /// New mode, for files.
        mode: Option<EntryMode>,
    },
    /// Changes a file's mode.
    Chmod {
        /// The file.
        path: Vec<u8>,
        /// Its new mode.
        mode: EntryMode,
    },
}

impl Change {
    /// Creates or replaces a file with these bytes.
    pub fn put(path: impl Into<Vec<u8>>, content: impl Into<Bytes>) -> Self {
        Self::Put { path: path.into(), content: Content::Bytes(content.into()), mode: None }
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn delete(path: impl Into<Vec<u8>>) -> Self {
        Self::Delete { path: path.into() }
    }
}

/// What becomes of a commit whose branch has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// It fails.
    #[default]
    Fail,
    /// Its changes are redone on the new head, unless both touch the same paths.
    Rebase,
    /// It is made where it belongs, and merged with the new head, unless both touch the same paths.
    Merge,
}

/// A commit to be made.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// The branch that gets the commit.
    pub branch: RefName,
    /// The message.
    pub message: String,
    /// Who wrote the change.
    pub author: Signature,
    /// Who commits it.
    pub committer: Signature,
    /// The changes, applied in order.
    pub changes: Vec<Change>,
    /// What the branch must be, or what the changes were made for.
    pub expected_head: Expected,
    /// What to do when it is something else.
    pub on_conflict: OnConflict,
    /// The commit to begin from when the branch does not exist.
    pub create_branch_from: Option<Oid>,
    /// Whether a commit that changes nothing is made.
    pub allow_empty: bool,
    /// Who calls, for the version's record.
    pub actor: String,
    /// When to give up.
    pub deadline: Option<Instant>,
}

impl CommitRequest {
    /// A commit of `author` on a branch, wherever that is by then; its fields say how else it could be.
    pub fn new(branch: RefName, message: impl Into<String>, author: Signature, changes: Vec<Change>) -> Self {
        Self {
            branch,
            message: message.into(),
            actor: author.name_lossy(),
            committer: author.clone(),
            author,
            changes,
            expected_head: Expected::Any,
            on_conflict: OnConflict::Fail,
            create_branch_from: None,
            allow_empty: false,
            deadline: None,
        }
    }
}

/// A commit that was made.
#[derive(Debug)]
pub struct Committed {
    /// The commit.
    pub oid: Oid,
    /// Its tree.
    pub tree: Oid,
    /// Its parents.
    pub parents: Vec<Oid>,
    /// Its publication; the commit is acknowledged by the ticket in it.
    pub published: Published,
}

impl Repo {
    /// Makes a commit. Memory speed; wait for the ticket to have it durable.
    ///
    /// Without an expectation, a branch that moves meanwhile gets the changes on top of its new head, or with
    /// [`OnConflict::Rebase`] and [`OnConflict::Merge`] only if that did not touch the same paths.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the branch is not as expected and the changes cannot be redone, [`ErrorKind::NotFound`] for paths, blobs or a branch
    /// that do not exist, [`ErrorKind::Exists`] for the target of a move, [`ErrorKind::Invalid`] for paths that
    /// escape, name `.git`, or run through files, and for commits that change nothing, [`ErrorKind::Cancelled`] after
    /// the deadline. Nothing was changed then.
    pub fn commit(&self, request: CommitRequest) -> Result<Committed> {
        let lineage = self.lineage();
        self.attempt(&request, Ready::publish).map_err(|error| self.confirm(error, lineage))
    }

    /// Does everything that [`Repo::commit`] does but publish; gives the tree that the commit would have.
    ///
    /// # Errors
    /// As [`Repo::commit`].
    pub(super) fn check_commit(&self, request: CommitRequest) -> Result<Oid> {
        let lineage = self.lineage();
        let checked = self.attempt(&request, |ready| ready.transaction.prepare().map(|_| ready.tree));
        checked.map_err(|error| self.confirm(error, lineage))
    }

    /// Prepares a commit and does with it what `finish` does, again when another writer was faster.
    fn attempt<T>(&self, request: &CommitRequest, finish: impl Fn(Ready) -> Result<T>) -> Result<T> {
        if !request.branch.is_branch() && !request.branch.is_reality() {
            return Err(Error::invalid(format!("{} is neither a branch nor a reality", request.branch)));
        }
        let (count, limit) = (request.changes.len(), self.limits().changes_max);
        if count > limit {
            return Err(Error::limit("changes in one commit", count, limit));
        }
        let mut attempts = 0;
        // What the changes are made for, once it is known.
        let mut base = match (request.on_conflict, request.expected_head) {
            (OnConflict::Rebase | OnConflict::Merge, Expected::Is(oid)) => Some(oid),
            _ => None,
        };
        loop {
            attempts += 1;
            let outcome = self.try_commit(request, &mut base).and_then(|ready| {
                // Only a reference that moved since it was looked at is worth another attempt.
                let may_retry = request.on_conflict != OnConflict::Fail || request.expected_head == Expected::Any;
                finish(ready).map_err(|error| match error.kind() {
                    ErrorKind::Conflict(_) if may_retry => Attempt::Raced(error),
                    _ => Attempt::Failed(error),
                })
            });
            match outcome {
                Err(Attempt::Raced(_)) if attempts < ATTEMPTS_MAX => check_deadline(request.deadline)?,
                Err(Attempt::Raced(error) | Attempt::Failed(error)) => return Err(error),
                Ok(finished) => return Ok(finished),
            }
        }
    }

    fn try_commit(&self, request: &CommitRequest, base: &mut Option<Oid>) -> Result<Ready, Attempt> {
        let mut transaction = self.begin(&request.actor, Cause::Commit);
        transaction.expect_races();
        let tip = transaction.tip();
        let head = tip.reference(&request.branch);
        if request.branch.is_reality() {
            // Nobody makes one by committing to it.
            tip.reality(&request.branch)?;
        }
        let conflict = || Error::conflict(&request.branch.as_str(), request.expected_head.oid(), head);
        let is_commit = |oid: &Oid| Ok::<_, Error>(tip.header(oid)?.is_some_and(|(kind, _)| kind == Kind::Commit));
        if !request.expected_head.holds(head) {
            // Changes for a commit that is known can be redone, if there is something to redo them on.
            match *base {
                Some(base) if head.is_some() && is_commit(&base)? => {}
                _ => return Err(conflict().into()),
            }
        }
        if request.on_conflict != OnConflict::Fail && base.is_none() {
            *base = head;
        }
        let parent = match (base.or(head), request.create_branch_from) {
            (Some(parent), _) => Some(parent),
            (None, Some(from)) => match tip.header(&from)? {
                Some((Kind::Commit, _)) => Some(from),
                Some((kind, _)) => return Err(Error::invalid(format!("{from} is a {kind}, not a commit")).into()),
                None => return Err(Error::not_found(format!("commit {from} does not exist")).into()),
            },
            // A repository's first commit needs no base; a further branch must say what it begins from.
            (None, None) if tip.reference_count() == 0 => None,
            (None, None) => {
                return Err(Error::not_found(format!(
                    "branch {} does not exist; create_branch_from says what it begins from",
                    request.branch.short()
                ))
                .into());
            }
        };
        let parent_tree = match parent {
            Some(parent) => Some(tip.tree_of(&parent)?),
            None => None,
        };
        let mut draft = Draft { transaction: &mut transaction, deadline: request.deadline };
        let tree = draft.apply_all(parent_tree, &request.changes)?;
        let made = match (head, parent, parent_tree) {
            (Some(head), Some(parent), Some(parent_tree)) if head != parent => {
                let moved = Moved { head, head_tree: tip.tree_of(&head)?, parent, parent_tree, tree };
                moved.redo(&mut transaction, request, conflict)?
            }
            _ => {
                let parents = parent.into_iter().collect();
                let is_new = parent_tree.unwrap_or_else(|| tip.object_format().empty_tree()) != tree || head.is_none();
                Made { tree, parents, message: message_bytes(&request.message)?, is_new }
            }
        };
        if !made.is_new && !request.allow_empty {
            return Err(Error::invalid("the commit changes nothing").into());
        }
        let parents = made.parents.clone();
        let tree = made.tree;
        let oid = transaction.put(Kind::Commit, made.commit(request).into())?;
        let expected = head.map_or(Expected::Absent, Expected::Is);
        transaction.edit(RefEdit { name: request.branch.clone(), expected, target: Some(oid) })?;
        Ok(Ready { transaction, oid, tree, parents })
    }
}

/// A commit in a transaction that is not published.
struct Ready {
    transaction: Transaction,
    oid: Oid,
    tree: Oid,
    parents: Vec<Oid>,
}

impl Ready {
    fn publish(self) -> Result<Committed> {
        let published = self.transaction.prepare()?.publish()?;
        Ok(Committed { oid: self.oid, tree: self.tree, parents: self.parents, published })
    }
}

/// Why a commit was not made: because another writer was faster, or for good.
enum Attempt {
    Raced(Error),
    Failed(Error),
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Attempt::Failed(error)
    }
}

/// A commit but for its people.
struct Made {
    tree: Oid,
    parents: Vec<Oid>,
    message: Vec<u8>,
    /// Whether it changes anything.
    is_new: bool,
}

impl Made {
    fn commit(self, request: &CommitRequest) -> Vec<u8> {
        let commit = Commit {
            tree: self.tree,
            parents: self.parents.into_iter().collect(),
            author: request.author.clone(),
            committer: request.committer.clone(),
            encoding: None,
            extra_headers: Vec::new(),
            message: self.message,
        };
        commit.to_bytes()
    }
}

/// Changes that were made for a commit which is the branch's head no more.
struct Moved {
    head: Oid,
    head_tree: Oid,
    /// What they were made for, and its tree.
    parent: Oid,
    parent_tree: Oid,
    /// What they make of that tree.
    tree: Oid,
}

impl Moved {
    /// The commit that has the changes on top of the head.
    fn redo(
        self,
        transaction: &mut Transaction,
        request: &CommitRequest,
        conflict: impl Fn() -> Error,
    ) -> Result<Made> {
        let merged = merge_trees(transaction, self.parent_tree, self.head_tree, self.tree, request.deadline)?;
        let tree = match merged {
            Merged::Tree(tree) => tree,
            Merged::Conflicts(paths) => return Err(conflict().with_paths(&paths)),
        };
        let is_new = tree != self.head_tree;
        let message = message_bytes(&request.message)?;
        if request.on_conflict != OnConflict::Merge {
            return Ok(Made { tree, parents: vec![self.head], message, is_new });
        }
        let side = Made { tree: self.tree, parents: vec![self.parent], message, is_new };
        let side = transaction.put(Kind::Commit, side.commit(request).into())?;
        let message = format!("Merge {side} into {}", request.branch.short());
        Ok(Made { tree, parents: vec![self.head, side], message: message_bytes(&message)?, is_new })
    }
}

/// A message as git stores it: with a newline at its end.
pub(super) fn message_bytes(message: &str) -> Result<Vec<u8>> {
    if message.contains('\0') {
        return Err(Error::invalid("a message cannot contain NUL"));
    }
    let mut bytes = message.trim_end_matches(['\n', ' ', '\t', '\r']).as_bytes().to_vec();
    if bytes.is_empty() {
        return Err(Error::invalid("the message is empty"));
    }
    bytes.push(b'\n');
    Ok(bytes)
}

/// Where a commit's trees and blobs come from and go to, and until when.
struct Draft<'a> {
    transaction: &'a mut Transaction,
    deadline: Option<Instant>,
}

/// A directory of the base with changes laid over it.
struct Directory {
    format: ObjectFormat,
    base: Bytes,
    over: BTreeMap<Vec<u8>, Node>,
    /// How often `base` was searched from its beginning.
    searches: u32,
    /// Made when `base` has been searched often.
    index: Option<NameIndex>,
}

/// What a name is in an overlay.
enum Node {
    Gone,
    Entry(EntryMode, Oid),
    Directory(Box<Directory>),
}

impl Draft<'_> {
    /// Applies the changes in order and gives the new root tree.
    fn apply_all(&mut self, base: Option<Oid>, changes: &[Change]) -> Result<Oid> {
        let mut root = match base {
            Some(tree) => self.open(tree)?,
            None => Directory::new(self.transaction.repo().object_format(), Bytes::new()),
        };
        for change in changes {
            self.check_deadline()?;
            apply(self, &mut root, change)?;
        }
        match root.write(self)? {
            Some(tree) => Ok(tree),
            None => self.transaction.put(Kind::Tree, Bytes::new()),
        }
    }

    fn open(&self, tree: Oid) -> Result<Directory> {
        self.check_deadline()?;
        Ok(Directory::new(tree.format(), self.transaction.object(&tree)?.data))
    }

    fn store(&mut self, content: &Content) -> Result<Oid> {
        match content {
            Content::Bytes(bytes) => self.transaction.put(Kind::Blob, bytes.clone()),
            Content::Blob(oid) => match self.transaction.kind_of(oid)? {
                Kind::Blob => Ok(*oid),
                kind => Err(Error::invalid(format!("object {oid} is a {kind}, not a blob"))),
            },
        }
    }

    fn check_deadline(&self) -> Result<()> {
        check_deadline(self.deadline)
    }
}

fn apply(draft: &mut Draft<'_>, root: &mut Directory, change: &Change) -> Result<()> {
    match change {
        Change::Put { path, content, mode } => {
            let (directory, name) = root.parent_of(draft, path, true)?;
            let old = directory.get(name)?;
            let mode = match (mode, &old) {
                (_, Some((old, _))) if old.is_tree() => return Err(Error::invalid(at(path, "is a directory"))),
                (Some(mode), _) => *mode,
                (None, Some((old, _))) if old.is_blob() => *old,
                (None, _) => EntryMode::BLOB,
            };
            check_file_mode(path, mode)?;
            let oid = draft.store(content)?;
            directory.over.insert(name.to_vec(), Node::Entry(mode, oid));
        }
        Change::Delete { path } => {
            root.take(draft, path)?;
        }
        Change::Move { from, path, content, mode } => {
            let is_within = path.strip_prefix(&from[..]).is_some_and(|rest| rest.first() == Some(&b'/'));
            if from == path || is_within {
                return Err(Error::invalid(at(path, "cannot be moved to or into itself")));
            }
            let moved = root.take(draft, from)?;
            let node = match moved {
                Node::Entry(old_mode, old_oid) if !old_mode.is_tree() => {
                    let mode = mode.unwrap_or(old_mode);
                    if !mode.is_submodule() {
                        check_file_mode(path, mode)?;
                    }
                    let oid = match content {
                        Some(content) => draft.store(content)?,
                        None => old_oid,
                    };
                    Node::Entry(mode, oid)
                }
                _ if content.is_some() || mode.is_some() => {
                    return Err(Error::invalid(at(from, "is a directory and takes no content or mode")));
                }
                directory => directory,
            };
            if depth_of(path) > depth_of(from) {
                let below = height(draft, &node, TREE_DEPTH_MAX, &mut HashMap::new())?;
                check_depth(depth_of(path) + below)?;
            }
            let (directory, name) = root.parent_of(draft, path, true)?;
            if directory.get(name)?.is_some() {
                return Err(Error::new(ErrorKind::Exists, at(path, "exists already")));
            }
            directory.over.insert(name.to_vec(), node);
        }
        Change::Chmod { path, mode } => {
            let (directory, name) = root.parent_of(draft, path, false)?;
            let Some((old, oid)) = directory.get(name)? else {
                return Err(Error::not_found(at(path, "does not exist")));
            };
            check_file_mode(path, *mode)?;
            if !old.is_blob() {
                return Err(Error::invalid(at(path, "is not a file")));
            }
            directory.over.insert(name.to_vec(), Node::Entry(*mode, oid));
        }
    }
    Ok(())
}

/// How many directories a path goes through.
fn depth_of(path: &[u8]) -> usize {
    path.iter().filter(|b| **b == b'/').count()
}

/// How many directories are nested in a node, itself included; `heights` remembers those of stored ones.
///
/// # Errors
/// [`ErrorKind::TooLarge`] over `limit`.
fn height(draft: &Draft<'_>, node: &Node, limit: usize, heights: &mut HashMap<Oid, usize>) -> Result<usize> {
    match node {
        Node::Directory(directory) => directory.height(draft, limit, heights),
        Node::Entry(mode, tree) if mode.is_tree() => {
            if let Some(known) = heights.get(tree) {
                return Ok(*known);
            }
            let height = draft.open(*tree)?.height(draft, limit, heights)?;
            heights.insert(*tree, height);
            Ok(height)
        }
        Node::Entry(..) | Node::Gone => Ok(0),
    }
}

fn at(path: &[u8], what: &str) -> String {
    format!("path {:?} {what}", String::from_utf8_lossy(path))
}

fn check_file_mode(path: &[u8], mode: EntryMode) -> Result<()> {
    if !mode.is_blob() {
        return Err(Error::invalid(at(path, "can only get a mode of 100644, 100755 or 120000")));
    }
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    match check_path_component(name, mode == EntryMode::SYMLINK) {
        Some(finding) => Err(Error::invalid(at(path, &format!("is not allowed ({finding})")))),
        None => Ok(()),
    }
}

impl Directory {
    fn new(format: ObjectFormat, base: Bytes) -> Self {
        Self { format, base, over: BTreeMap::new(), searches: 0, index: None }
    }

    fn height(&self, draft: &Draft<'_>, limit: usize, heights: &mut HashMap<Oid, usize>) -> Result<usize> {
        let Some(limit) = limit.checked_sub(1) else { return check_depth(usize::MAX).map(|()| 0) };
        let mut highest = 0;
        for node in self.over.values() {
            highest = highest.max(height(draft, node, limit, heights)?);
        }
        for entry in tree_entries(self.format, &self.base) {
            let entry = entry?;
            if entry.mode.is_tree() && !self.over.contains_key(&*entry.name) {
                let node = Node::Entry(entry.mode, entry.oid);
                highest = highest.max(height(draft, &node, limit, heights)?);
            }
        }
        Ok(highest + 1)
    }

    /// What a name is now.
    fn get(&mut self, name: &[u8]) -> Result<Option<(EntryMode, Oid)>> {
        match self.over.get(name) {
            Some(Node::Gone) => Ok(None),
            Some(Node::Entry(mode, oid)) => Ok(Some((*mode, *oid))),
            Some(Node::Directory(directory)) if directory.is_empty()? => Ok(None),
            Some(Node::Directory(_)) => Ok(Some((EntryMode::TREE, self.format.null()))),
            None => self.get_base(name),
        }
    }

    /// What a name was. One search costs less than an index, thousands would cost the square of the directory.
    fn get_base(&mut self, name: &[u8]) -> Result<Option<(EntryMode, Oid)>> {
        if self.index.is_none() && self.searches == SEARCHES_MAX {
            self.index = Some(NameIndex::new(self.format, &self.base)?);
        }
        let found = match &self.index {
            Some(index) => index.find(&self.base, name)?,
            None => {
                self.searches += 1;
                find_entry(self.format, &self.base, name)?
            }
        };
        Ok(found.map(|entry| (entry.mode, entry.oid)))
    }

    /// Whether nothing is left in it.
    fn is_empty(&self) -> Result<bool> {
        for entry in tree_entries(self.format, &self.base) {
            if !self.over.contains_key(&*entry?.name) {
                return Ok(false);
            }
        }
        for node in self.over.values() {
            match node {
                Node::Gone => {}
                Node::Directory(directory) if directory.is_empty()? => {}
                Node::Entry(..) | Node::Directory(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The directory that holds `path`, and the last component; missing directories are made if `create`.
    fn parent_of<'d, 'p>(
        &'d mut self,
        draft: &Draft<'_>,
        path: &'p [u8],
        create: bool,
    ) -> Result<(&'d mut Directory, &'p [u8])> {
        if path.is_empty() || path.len() > PATH_LEN_MAX {
            return Err(Error::invalid(format!("a path has 1 to {PATH_LEN_MAX} bytes")));
        }
        check_depth(depth_of(path))?;
        for component in path.split(|b| *b == b'/') {
            if let Some(finding) = check_path_component(component, false) {
                return Err(Error::invalid(at(path, &format!("is not allowed ({finding})"))));
            }
        }
        let mut directory = self;
        let mut rest = path;
        while let Some(slash) = rest.iter().position(|b| *b == b'/') {
            let (name, below) = (&rest[..slash], &rest[slash + 1..]);
            directory = directory.child(draft, name, path, create)?;
            rest = below;
        }
        Ok((directory, rest))
    }

    fn child(&mut self, draft: &Draft<'_>, name: &[u8], path: &[u8], create: bool) -> Result<&mut Directory> {
        if !matches!(self.over.get(name), Some(Node::Directory(_))) {
            let opened = match self.get(name)? {
                Some((mode, oid)) if mode.is_tree() => draft.open(oid)?,
                Some(_) => return Err(Error::invalid(at(path, "runs through a file"))),
                None if create => Directory::new(self.format, Bytes::new()),
                None => return Err(Error::not_found(at(path, "does not exist"))),
            };
            self.over.insert(name.to_vec(), Node::Directory(Box::new(opened)));
        }
        match self.over.get_mut(name) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => unreachable!("it was put there above"),
        }
    }

    /// Takes a file or directory out.
    fn take(&mut self, draft: &Draft<'_>, path: &[u8]) -> Result<Node> {
        let (directory, name) = self.parent_of(draft, path, false)?;
        let Some((mode, oid)) = directory.get(name)? else { return Err(Error::not_found(at(path, "does not exist"))) };
        match directory.over.insert(name.to_vec(), Node::Gone) {
            Some(node @ Node::Directory(_)) => Ok(node),
            _ => Ok(Node::Entry(mode, oid)),
        }
    }

    /// Stores the directory and what changed below it; `None` if nothing is left, as git keeps no empty directories.
    fn write(self, draft: &mut Draft<'_>) -> Result<Option<Oid>> {
        draft.check_deadline()?;
        let mut edits = BTreeMap::new();
        for (name, node) in self.over {
            let edit = match node {
                Node::Gone => TreeEdit::Remove,
                Node::Entry(mode, oid) => TreeEdit::Set(mode, oid),
                Node::Directory(directory) => match directory.write(draft)? {
                    Some(tree) => TreeEdit::Set(EntryMode::TREE, tree),
                    None => TreeEdit::Remove,
                },
            };
            edits.insert(name, edit);
        }
        let data = edit_tree(self.format, &self.base, &edits)?;
        if data.is_empty() {
            return Ok(None);
        }
        draft.transaction.put(Kind::Tree, data.into()).map(Some)
    }
}
