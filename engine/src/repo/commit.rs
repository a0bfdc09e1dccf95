//! The atomic commit: any number of file changes on a branch, from nothing but their description.
//!
//! Changes apply in order to an overlay of the base's directories; only directories that change are read, and
//! re-made by splicing. The commit is published with the expectation that the branch still is where the overlay
//! began, so two writers never overwrite one another.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::files::find_entry;
use crate::{
    Error, ErrorKind, Result,
    object::{Commit, EntryMode, Kind, Oid, Signature, TreeEdit, check_path_component, edit_tree},
    refs::{Expected, RefEdit, RefName},
    store::{Cause, Published, Repo, Transaction},
};

/// Longest path in bytes, as most file systems have it.
const PATH_LEN_MAX: usize = 4096;
/// How often a commit without an expectation is redone when the branch moves under it.
const ATTEMPTS_MAX: usize = 100;

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
    /// What the branch must be.
    pub expected_head: Expected,
    /// The commit to begin from when the branch does not exist.
    pub create_branch_from: Option<Oid>,
    /// Whether a commit that changes nothing is made.
    pub allow_empty: bool,
    /// Who calls, for the version's record.
    pub actor: String,
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
    /// Without an expectation, a branch that moves meanwhile gets the changes on top of its new head.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the branch is not as expected, [`ErrorKind::NotFound`] for paths, blobs or a branch
    /// that do not exist, [`ErrorKind::Exists`] for the target of a move, [`ErrorKind::Invalid`] for paths that
    /// escape, name `.git`, or run through files, and for commits that change nothing.
    pub fn commit(&self, request: CommitRequest) -> Result<Committed> {
        if !request.branch.is_branch() {
            return Err(Error::invalid(format!("{} is not a branch", request.branch)));
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.try_commit(&request) {
                Err(error)
                    if matches!(error.kind(), ErrorKind::Conflict(_))
                        && request.expected_head == Expected::Any
                        && attempts < ATTEMPTS_MAX => {}
                outcome => return outcome,
            }
        }
    }

    fn try_commit(&self, request: &CommitRequest) -> Result<Committed> {
        let mut transaction = self.begin(&request.actor, Cause::Commit);
        let tip = transaction.tip();
        let head = tip.reference(&request.branch);
        if !request.expected_head.holds(head) {
            return Err(Error::conflict(&request.branch.as_str(), request.expected_head.oid(), head));
        }
        let parent = match (head, request.create_branch_from) {
            (Some(head), _) => Some(head),
            (None, Some(from)) => match tip.header(&from)? {
                Some((Kind::Commit, _)) => Some(from),
                Some((kind, _)) => return Err(Error::invalid(format!("{from} is a {kind}, not a commit"))),
                None => return Err(Error::not_found(format!("commit {from} does not exist"))),
            },
            // A repository's first commit needs no base; a further branch must say what it begins from.
            (None, None) if tip.reference_count() == 0 => None,
            (None, None) => {
                return Err(Error::not_found(format!(
                    "branch {} does not exist; create_branch_from says what it begins from",
                    request.branch.short()
                )));
            }
        };
        let base = match parent {
            Some(parent) => Some(tip.commit(&parent)?.tree),
            None => None,
        };
        let tree = apply_changes(&mut transaction, base, &request.changes)?;
        let unchanged = base.unwrap_or_else(Oid::empty_tree) == tree && head.is_some();
        if unchanged && !request.allow_empty {
            return Err(Error::invalid("the commit changes nothing"));
        }
        let commit = Commit {
            tree,
            parents: parent.into_iter().collect(),
            author: request.author.clone(),
            committer: request.committer.clone(),
            encoding: None,
            extra_headers: Vec::new(),
            message: message_bytes(&request.message)?,
        };
        let oid = transaction.put(Kind::Commit, commit.to_bytes().into())?;
        let expected = head.map_or(Expected::Absent, Expected::Is);
        transaction.edit(RefEdit { name: request.branch.clone(), expected, target: Some(oid) })?;
        let published = transaction.prepare()?.publish()?;
        Ok(Committed { oid, tree, parents: parent.into_iter().collect(), published })
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

/// A directory of the base with changes laid over it.
#[derive(Default)]
struct Directory {
    base: Bytes,
    over: BTreeMap<Vec<u8>, Node>,
}

/// What a name is in an overlay.
enum Node {
    Gone,
    Entry(EntryMode, Oid),
    Directory(Box<Directory>),
}

fn apply_changes(transaction: &mut Transaction, base: Option<Oid>, changes: &[Change]) -> Result<Oid> {
    let base = match base {
        Some(tree) => transaction.object(&tree)?.data,
        None => Bytes::new(),
    };
    let mut root = Directory { base, over: BTreeMap::new() };
    for change in changes {
        apply(transaction, &mut root, change)?;
    }
    match root.write(transaction)? {
        Some(tree) => Ok(tree),
        None => transaction.put(Kind::Tree, Bytes::new()),
    }
}

fn apply(transaction: &mut Transaction, root: &mut Directory, change: &Change) -> Result<()> {
    match change {
        Change::Put { path, content, mode } => {
            let (directory, name) = root.parent_of(transaction, path, true)?;
            let old = directory.get(name)?;
            let mode = match (mode, &old) {
                (_, Some((old, _))) if old.is_tree() => return Err(Error::invalid(at(path, "is a directory"))),
                (Some(mode), _) => *mode,
                (None, Some((old, _))) if old.is_blob() => *old,
                (None, _) => EntryMode::BLOB,
            };
            let name = name.to_vec();
            check_file_mode(path, mode)?;
            let oid = store_content(transaction, content)?;
            root.parent_of(transaction, path, true)?.0.over.insert(name, Node::Entry(mode, oid));
        }
        Change::Delete { path } => {
            root.take(transaction, path)?;
        }
        Change::Move { from, path, content, mode } => {
            let is_within = path.strip_prefix(&from[..]).is_some_and(|rest| rest.first() == Some(&b'/'));
            if from == path || is_within {
                return Err(Error::invalid(at(path, "cannot be moved to or into itself")));
            }
            let moved = root.take(transaction, from)?;
            let node = match moved {
                Node::Entry(old_mode, old_oid) if !old_mode.is_tree() => {
                    let mode = mode.unwrap_or(old_mode);
                    if !mode.is_submodule() {
                        check_file_mode(path, mode)?;
                    }
                    let oid = match content {
                        Some(content) => store_content(transaction, content)?,
                        None => old_oid,
                    };
                    Node::Entry(mode, oid)
                }
                _ if content.is_some() || mode.is_some() => {
                    return Err(Error::invalid(at(from, "is a directory and takes no content or mode")));
                }
                directory => directory,
            };
            let (directory, name) = root.parent_of(transaction, path, true)?;
            if directory.get(name)?.is_some() {
                return Err(Error::new(ErrorKind::Exists, at(path, "exists already")));
            }
            directory.over.insert(name.to_vec(), node);
        }
        Change::Chmod { path, mode } => {
            let (directory, name) = root.parent_of(transaction, path, false)?;
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

fn store_content(transaction: &mut Transaction, content: &Content) -> Result<Oid> {
    match content {
        Content::Bytes(bytes) => transaction.put(Kind::Blob, bytes.clone()),
        Content::Blob(oid) => match transaction.object(oid)?.kind {
            Kind::Blob => Ok(*oid),
            kind => Err(Error::invalid(format!("object {oid} is a {kind}, not a blob"))),
        },
    }
}

impl Directory {
    fn open(transaction: &Transaction, tree: Oid) -> Result<Self> {
        Ok(Self { base: transaction.object(&tree)?.data, over: BTreeMap::new() })
    }

    /// What a name is now.
    fn get(&self, name: &[u8]) -> Result<Option<(EntryMode, Oid)>> {
        match self.over.get(name) {
            Some(Node::Gone) => Ok(None),
            Some(Node::Entry(mode, oid)) => Ok(Some((*mode, *oid))),
            Some(Node::Directory(directory)) if directory.is_empty()? => Ok(None),
            Some(Node::Directory(_)) => Ok(Some((EntryMode::TREE, Oid::null()))),
            None => Ok(find_entry(&self.base, name)?.map(|entry| (entry.mode, entry.oid))),
        }
    }

    /// Whether nothing is left in it.
    fn is_empty(&self) -> Result<bool> {
        for entry in crate::object::tree_entries(&self.base) {
            if !self.over.contains_key(&*entry?.name) {
                return Ok(false);
            }
        }
        for name in self.over.keys() {
            if self.get(name)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The directory that holds `path`, and the last component; missing directories are made if `create`.
    fn parent_of<'d, 'p>(
        &'d mut self,
        transaction: &Transaction,
        path: &'p [u8],
        create: bool,
    ) -> Result<(&'d mut Directory, &'p [u8])> {
        if path.is_empty() || path.len() > PATH_LEN_MAX {
            return Err(Error::invalid(format!("a path has 1 to {PATH_LEN_MAX} bytes")));
        }
        for component in path.split(|b| *b == b'/') {
            if let Some(finding) = check_path_component(component, false) {
                return Err(Error::invalid(at(path, &format!("is not allowed ({finding})"))));
            }
        }
        let mut directory = self;
        let mut rest = path;
        while let Some(slash) = rest.iter().position(|b| *b == b'/') {
            let (name, below) = (&rest[..slash], &rest[slash + 1..]);
            directory = directory.child(transaction, name, path, create)?;
            rest = below;
        }
        Ok((directory, rest))
    }

    fn child(&mut self, transaction: &Transaction, name: &[u8], path: &[u8], create: bool) -> Result<&mut Directory> {
        if !matches!(self.over.get(name), Some(Node::Directory(_))) {
            let opened = match self.get(name)? {
                Some((mode, oid)) if mode.is_tree() => Directory::open(transaction, oid)?,
                Some(_) => return Err(Error::invalid(at(path, "runs through a file"))),
                None if create => Directory::default(),
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
    fn take(&mut self, transaction: &Transaction, path: &[u8]) -> Result<Node> {
        let (directory, name) = self.parent_of(transaction, path, false)?;
        let Some((mode, oid)) = directory.get(name)? else { return Err(Error::not_found(at(path, "does not exist"))) };
        match directory.over.insert(name.to_vec(), Node::Gone) {
            Some(node @ Node::Directory(_)) => Ok(node),
            _ => Ok(Node::Entry(mode, oid)),
        }
    }

    /// Stores the directory and what changed below it; `None` if nothing is left, as git keeps no empty directories.
    fn write(self, transaction: &mut Transaction) -> Result<Option<Oid>> {
        let mut edits = BTreeMap::new();
        for (name, node) in self.over {
            let edit = match node {
                Node::Gone => TreeEdit::Remove,
                Node::Entry(mode, oid) => TreeEdit::Set(mode, oid),
                Node::Directory(directory) => match directory.write(transaction)? {
                    Some(tree) => TreeEdit::Set(EntryMode::TREE, tree),
                    None => TreeEdit::Remove,
                },
            };
            edits.insert(name, edit);
        }
        let data = edit_tree(&self.base, &edits)?;
        if data.is_empty() {
            return Ok(None);
        }
        transaction.put(Kind::Tree, data.into()).map(Some)
    }
}
