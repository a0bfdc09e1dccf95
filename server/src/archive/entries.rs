//! What goes into an archive, one after the other in git's order, without holding more than the directories on the way.
//!
//! A directory comes before the first of its files, and not at all if it has none; as with git, one that is left out
//! itself counts. The walk reads an object
//! only when it has leave for its bytes: who asks for the next entry may be told how much leave is missing.

use std::time::Instant;

use bytes::Bytes;
use govc_engine::{Error, Kind, Oid, Result, Snapshot, TreeEntry, tree_entries};

use super::attributes::{BYTES_MAX, Name, Rules, Value, Values};

/// Directories may be nested this deep.
const DEPTH_MAX: usize = 1024;
/// The longest path of an entry, in bytes: what a zip file can name.
pub(super) const PATH_BYTES_MAX: usize = u16::MAX as usize;
const ATTRIBUTES_FILE: &[u8] = b".gitattributes";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File {
        executable: bool,
    },
    Link,
    /// A directory, or where a submodule would be.
    Directory,
}

/// An entry. Its path is [`Entries::path`].
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kind: EntryKind,
    pub(super) oid: Oid,
    /// What attributes say of a file.
    pub(super) values: Values,
}

/// The next step of a walk.
#[derive(Debug)]
pub(super) enum Next {
    Entry(Entry),
    /// The walk cannot go on before it may hold so many bytes.
    Needs(u64),
    /// It took long enough.
    Pause,
    End,
}

/// A walk through the tree of a commit.
pub(super) struct Entries {
    snapshot: Snapshot,
    root: Oid,
    /// The parts of the only path that is wanted; empty for all.
    only: Vec<Vec<u8>>,
    frames: Vec<Frame>,
    rules: Rules,
    /// The path of the entry that was given last; a directory's ends in a slash.
    path: Vec<u8>,
    /// A file that waits for its directories: its path, and what it is if it goes in.
    file: Option<(Vec<u8>, Option<Entry>)>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Walking,
    Ended,
}

/// A directory on the way.
struct Frame {
    oid: Oid,
    data: Bytes,
    /// Where the next entry begins.
    at: usize,
    /// How many bytes of the path are before the names of its entries.
    base_len: usize,
    /// Whether it was given as an entry; the root never is.
    given: bool,
    /// Whether it has rules of its own.
    has_rules: bool,
}

impl Entries {
    /// The walk through `root`, or through what is at the path `only` of it.
    ///
    /// # Errors
    /// Never; what is wrong with the tree is found on the way.
    pub(super) fn new(snapshot: Snapshot, root: Oid, only: &[u8]) -> Result<Self> {
        let only = only.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect();
        Ok(Self {
            snapshot,
            root,
            only,
            frames: Vec::new(),
            rules: Rules::new(b"")?,
            path: Vec::new(),
            file: None,
            state: State::New,
        })
    }

    /// The same walk from its beginning.
    pub(super) fn again(&self) -> Result<Self> {
        let only = self.only.join(b"/".as_slice());
        Self::new(self.snapshot.clone(), self.root, &only)
    }

    /// The objects.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The path of the entry that [`Entries::next`] gave last, from the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// How many bytes the walk holds.
    pub(super) fn held_bytes(&self) -> u64 {
        let frames: u64 = self.frames.iter().map(|frame| frame.data.len() as u64).sum();
        frames.saturating_add(self.rules.memory_bytes())
    }

    /// The next entry, if the walk needs to hold no more than `granted_bytes` for it and finds it until then.
    ///
    /// # Errors
    /// When objects are missing, or the tree has names that must not be in an archive, or is too deep.
    pub(super) fn next(&mut self, granted_bytes: u64, until: Instant) -> Result<Next> {
        let format = self.snapshot.object_format();
        if self.state == State::New {
            if let Some(missing) = self.enter(self.root, 0, granted_bytes)? {
                return Ok(Next::Needs(missing));
            }
            self.state = State::Walking;
        }
        loop {
            if let Some(entry) = self.give_file() {
                return Ok(Next::Entry(entry));
            }
            if Instant::now() >= until {
                return Ok(Next::Pause);
            }
            let Some(frame) = self.frames.last() else {
                self.state = State::Ended;
                return Ok(Next::End);
            };
            let base_len = frame.base_len;
            let depth = self.frames.len();
            self.path.truncate(base_len);
            let Some(entry) = tree_entries(format, frame.data.get(frame.at..).unwrap_or_default()).next() else {
                if self.frames.pop().is_some_and(|frame| frame.has_rules) {
                    self.rules.leave();
                }
                continue;
            };
            let entry = entry?.into_owned();
            let end = frame.at + encoded_len(frame.data.get(frame.at..).unwrap_or_default(), &entry);
            let wanted = self.only.get(depth - 1);
            let is_tree = entry.mode.is_tree();
            // Above the wanted path, nothing else is looked at.
            let is_on_the_way =
                wanted.is_none_or(|wanted| *wanted == *entry.name) && (is_tree || depth >= self.only.len());
            if is_on_the_way {
                check_name(&entry.name)?;
                self.path.extend_from_slice(&entry.name);
                let mode = u32::from_str_radix(&entry.mode.to_octal(), 8).unwrap_or_default();
                let kind = match mode & 0o170_000 {
                    0o100_000 => EntryKind::File { executable: mode & 0o100 != 0 },
                    0o120_000 => EntryKind::Link,
                    _ => EntryKind::Directory,
                };
                if kind == EntryKind::Directory {
                    self.path.push(b'/');
                }
                if self.path.len() > PATH_BYTES_MAX {
                    return Err(Error::too_large(format!("a path has more than {PATH_BYTES_MAX} bytes")));
                }
                let values = self.rules.of(&self.path)?;
                let is_ignored = *values.get(Name::ExportIgnore) == Value::Set;
                if !is_tree {
                    let oid = entry.oid;
                    self.file = Some((self.path.clone(), (!is_ignored).then_some(Entry { kind, oid, values })));
                } else if !is_ignored {
                    let below = self.path.len();
                    if let Some(missing) = self.enter(entry.oid, below, granted_bytes)? {
                        return Ok(Next::Needs(missing));
                    }
                }
            }
            if let Some(frame) = self.frames.get_mut(depth - 1) {
                frame.at = end;
            }
        }
    }

    /// The first of the directories of the file that waits which was not given yet, or the file.
    fn give_file(&mut self) -> Option<Entry> {
        let (path, _) = self.file.as_ref()?;
        if let Some(frame) = self.frames.iter_mut().skip(1).find(|frame| !frame.given) {
            frame.given = true;
            self.path.clear();
            self.path.extend_from_slice(path.get(..frame.base_len).unwrap_or_default());
            return Some(Entry { kind: EntryKind::Directory, oid: frame.oid, values: Values::default() });
        }
        let (path, entry) = self.file.take()?;
        self.path = path;
        entry
    }

    /// Goes into a directory whose entries' paths have `base_len` bytes before their names, with its own rules; gives the
    /// bytes that it lacks the leave for.
    fn enter(&mut self, oid: Oid, base_len: usize, granted_bytes: u64) -> Result<Option<u64>> {
        if self.frames.len() > DEPTH_MAX {
            return Err(Error::too_large(format!("directories are nested deeper than {DEPTH_MAX}")));
        }
        let tree_bytes = size_of(&self.snapshot, oid, Kind::Tree)?;
        let mut wanted_bytes = self.held_bytes().saturating_add(tree_bytes);
        if wanted_bytes > granted_bytes {
            return Ok(Some(wanted_bytes));
        }
        let data = self.snapshot.object_of(&oid, Kind::Tree)?;
        let mut rules = None;
        for entry in tree_entries(self.snapshot.object_format(), &data) {
            let entry = entry?;
            if *entry.name == *ATTRIBUTES_FILE && entry.mode.is_blob() && entry.mode.to_octal().starts_with("10") {
                rules = Some(entry.oid);
                break;
            }
        }
        if let Some(rules) = rules {
            let bytes = size_of(&self.snapshot, rules, Kind::Blob)?;
            if bytes > BYTES_MAX {
                return Err(Error::too_large(format!("a .gitattributes file has more than {BYTES_MAX} bytes")));
            }
            // What is read from it takes more than its bytes.
            wanted_bytes = wanted_bytes.saturating_add(bytes.saturating_mul(8));
            if wanted_bytes > granted_bytes {
                return Ok(Some(wanted_bytes));
            }
            let text = self.snapshot.object_of(&rules, Kind::Blob)?;
            if self.frames.is_empty() {
                self.rules = Rules::new(&text)?;
            } else {
                self.rules.enter(&text, base_len)?;
            }
        }
        let has_rules = rules.is_some();
        self.frames.push(Frame { oid, data, at: 0, base_len, given: false, has_rules });
        Ok(None)
    }
}

/// An object's size in bytes.
///
/// # Errors
/// [`govc_engine::ErrorKind::Corrupt`] if it is missing or of another kind.
pub(super) fn size_of(snapshot: &Snapshot, oid: Oid, kind: Kind) -> Result<u64> {
    match snapshot.header(&oid)? {
        Some((found, size)) if found == kind => Ok(size),
        Some((found, _)) => Err(Error::corrupt(format!("object {oid} is a {found}, not a {kind}"))),
        None => Err(Error::corrupt(format!("object {oid} is missing"))),
    }
}

/// How many bytes the first entry of a tree takes.
fn encoded_len(data: &[u8], entry: &TreeEntry<'_>) -> usize {
    let mode_len = data.iter().take_while(|byte| **byte != b' ').count();
    mode_len + 1 + entry.name.len() + 1 + entry.oid.as_bytes().len()
}

/// Refuses names that would let an archive write outside of where it is unpacked, or into a repository's own folder.
fn check_name(name: &[u8]) -> Result<()> {
    let is_bad = matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.eq_ignore_ascii_case(b".git");
    if is_bad {
        let name = String::from_utf8_lossy(name);
        return Err(Error::invalid(format!("the tree has an entry {name:?}, which must not be in an archive")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use govc_backends::MemoryBackend;
    use govc_engine::{
        Change, CommitRequest, Durability, RefName, RepoName, RepoSettings, Signature, Store, StoreOptions,
    };

    use super::*;

    #[test]
    fn a_walk_that_takes_long_pauses_and_goes_on() {
        let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).unwrap();
        let settings = RepoSettings { durability: Durability::Memory, ..RepoSettings::default() };
        let repo = store.create(&RepoName::new("r").unwrap(), settings, "test").unwrap();
        let person = Signature::new("Ada", "ada@example.org", 1_700_000_000, 0).unwrap();
        // Nothing of this is given but the last.
        let mut changes = vec![Change::put(".gitattributes", "* export-ignore\nlast -export-ignore\n")];
        changes.extend((0..100).map(|at| Change::put(format!("file{at}"), "x")));
        changes.push(Change::put("last", "x"));
        let request = CommitRequest::new(RefName::branch("main").unwrap(), "m", person, changes);
        let commit = repo.commit(request).unwrap().oid;
        let snapshot = repo.snapshot();
        let root = snapshot.root_tree(commit).unwrap();
        let mut entries = Entries::new(snapshot, root, b"").unwrap();
        let past = Instant::now();
        assert!(matches!(entries.next(u64::MAX, past), Ok(Next::Pause)));
        let later = past + Duration::from_secs(600);
        assert!(matches!(entries.next(u64::MAX, later), Ok(Next::Entry(_))));
        assert_eq!(entries.path(), b"last");
        assert!(matches!(entries.next(u64::MAX, past), Ok(Next::Pause)));
        assert!(matches!(entries.next(u64::MAX, later), Ok(Next::End)));
    }
}
