//! Presence: which files are in which commits, for all commits of a store at once.
//!
//! Kept is what each commit changes against its first parent: (path, blob before, blob after). On the forest of first
//! parents these are the ends of the intervals in which a file is present, so which commits contain something is one
//! pass over the commits of a question, parents first: what the first parent has, and what the commit adds and removes.
//!
//! **Why not the intervals themselves,** as sets over an Euler tour of the forest? A commit in the midst of the tour moves
//! the numbers of all that is behind it, in every set, and a branch that continues an old commit has to name all that it
//! inherits. Changes are facts of the commit alone: numbers are given once, the file is appended to, nothing is ever
//! renumbered. The pass that this costs takes some ten milliseconds for the 240,000 changes of redis's 40,000 commits, no more
//! than finding out which blobs match.
//!
//! **Forks cost nothing and isolation is the question's:** the index knows commits and no repositories. A fork's commits
//! are those of its source. Which of them a question may see are those that its snapshot's references reach.
//!
//! What always holds: the parents of a commit in the index are in it, with smaller numbers. Nothing in it is the truth; a
//! commit that it does not have is read from the store.

mod change;
mod file;
mod grown;
mod rows;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use govc_engine::{Error, ErrorKind, Oid, Result, Snapshot};
use parking_lot::{Mutex, RwLock};

use self::{
    change::read,
    file::{ChangeRecord, CommitRecord, Frame},
};
pub(crate) use self::{
    change::{FileChange, Recent},
    rows::{Change, CommitNo, NONE, PathNo, Row, Rows},
};
use crate::{
    deadline,
    frame::FramesFile,
    index::{BlobNo, Index},
    numbers::Numbers,
};

/// What the index may take in memory, in bytes: commits beyond it are read when they are asked about.
const RESIDENT_BYTES_MAX: u64 = 2 << 30;
/// Changes that are added between two commits of the index, about.
const PENDING_CHANGES_MAX: usize = 100_000;
/// Commits that are remembered to be unreadable.
const REFUSED_MAX: usize = 10_000;

/// Figures of the presence index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PresenceFigures {
    /// Commits that it has.
    pub commits: u64,
    /// Files that these change, each against its first parent.
    pub changes: u64,
    /// Distinct paths.
    pub paths: u64,
    /// What it takes on the disk, in bytes.
    pub stored_bytes: u64,
    /// What it takes of the process's own memory, in bytes, about.
    pub resident_bytes: u64,
    /// Whether it has reached its limit in memory and takes up no more commits.
    pub is_full: bool,
}

/// The presence index.
pub(crate) struct Presence {
    /// What is committed; replaced by who holds `writer`.
    current: ArcSwap<Rows>,
    /// The numbers of commits, those that are not committed yet among them.
    numbers: RwLock<Numbers>,
    /// `None` once it is released.
    writer: Mutex<Option<Writer>>,
    /// Written by who commits; for figures.
    stored_bytes: AtomicU64,
    /// Set once by the writer when the limit is reached; for figures.
    is_full: AtomicBool,
    /// What questions have read.
    pub(crate) recent: Recent,
}

/// What only the one that adds needs.
struct Writer {
    file: Option<FramesFile>,
    rows: Rows,
    paths: HashMap<Arc<[u8]>, PathNo>,
    /// The blobs' numbers in the file, counted from 1, by those in the index; 0 for those that it does not have.
    stored: Vec<u32>,
    stored_count: u32,
    pending: Frame,
    pending_changes: usize,
    last_new: i64,
    /// Commits that cannot be added.
    refused: HashMap<Oid, String>,
    /// Writing failed: what is in memory and in the file may differ.
    is_broken: bool,
}

impl Presence {
    /// An index in memory, which remembers `recent_bytes` of what questions have read.
    pub(crate) fn in_memory(recent_bytes: u64) -> Self {
        Self::of(Writer::new(), Numbers::default(), recent_bytes)
    }

    /// Opens the index in a folder. What of it is damaged is to be added again, with what came after it.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open(folder: &Path, index: &Index, recent_bytes: u64) -> Result<Self> {
        let mut writer = Writer::new();
        let (mut numbers, mut blobs) = (Numbers::default(), Vec::new());
        let file = file::open(folder, |frame| writer.load(&frame, index, &mut blobs, &mut numbers).is_some())?;
        writer.file = Some(file);
        Ok(Self::of(writer, numbers, recent_bytes))
    }

    fn of(writer: Writer, numbers: Numbers, recent_bytes: u64) -> Self {
        Self {
            current: ArcSwap::from_pointee(writer.rows.clone()),
            numbers: RwLock::new(numbers),
            stored_bytes: AtomicU64::new(writer.file.as_ref().map_or(0, FramesFile::end)),
            is_full: AtomicBool::new(false),
            recent: Recent::new(recent_bytes),
            writer: Mutex::new(Some(writer)),
        }
    }

    /// What is committed.
    pub(crate) fn rows(&self) -> Arc<Rows> {
        self.current.load_full()
    }

    /// The number of a commit that `rows` has.
    pub(crate) fn number(&self, rows: &Rows, oid: &Oid) -> Option<CommitNo> {
        let number = self.numbers.read().get(oid);
        number.filter(|number| (*number as usize) < rows.commit_count())
    }

    /// Adds a commit and all that it follows from, committing now and then, until `stop` says to end, or `turn` is over
    /// since the first one. Gives to `added` the commits that were new.
    ///
    /// # Errors
    /// As the store's when a commit, or one in front of it, cannot be read: what comes before stays added. Else when
    /// the file cannot be written.
    pub(crate) fn add_history(
        &self,
        snapshot: &Snapshot,
        index: &Index,
        tip: Oid,
        turn: Option<Duration>,
        stop: &dyn Fn() -> bool,
        added: &mut Vec<Oid>,
    ) -> Result<()> {
        let mut until = None;
        let mut path = vec![(tip, None)];
        // Each commit behind its parents, the first one first, so that neighbours of the forest mostly are neighbours.
        while let Some((oid, links)) = path.pop() {
            if stop() || self.is_full() {
                break;
            }
            if self.is_known(&oid) {
                continue;
            }
            let Some(links) = links else {
                let links = snapshot.commit_links(&oid)?;
                let parents = links.parents.clone();
                path.push((oid, Some(links)));
                path.extend(parents.iter().rev().filter(|parent| !self.is_known(parent)).map(|parent| (*parent, None)));
                continue;
            };
            self.add(snapshot, index, oid, &links)?;
            added.push(oid);
            // The way to the first one does not count: it is gone again in each turn.
            until = until.or(turn.map(|turn| Instant::now() + turn));
            if deadline::is_past(until) {
                break;
            }
            if self.writer.lock().as_ref().is_some_and(|writer| writer.pending_changes >= PENDING_CHANGES_MAX) {
                self.commit()?;
            }
        }
        Ok(())
    }

    /// Whether a commit is in it, committed or not.
    pub(crate) fn is_known(&self, oid: &Oid) -> bool {
        self.numbers.read().get(oid).is_some()
    }

    /// Whether no more commits are taken up.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    fn add(&self, snapshot: &Snapshot, index: &Index, oid: Oid, links: &govc_engine::CommitLinks) -> Result<()> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        if let Some(reason) = writer.refused.get(&oid) {
            return Err(Error::corrupt(format!("commit {oid} could not be read before: {reason}")));
        }
        let known = self.numbers.read();
        let parents: Option<Vec<CommitNo>> = links.parents.iter().map(|parent| known.get(parent)).collect();
        drop(known);
        let parents =
            parents.ok_or_else(|| Error::invalid(format!("commit {oid} has a parent that is not indexed")))?;
        let changes = read(snapshot, &oid, links, None);
        if let Err(error) = &changes
            && writer.refused.len() < REFUSED_MAX
        {
            writer.refused.insert(oid, error.to_string());
        }
        let number = writer.add(oid, links.seconds, &parents, &changes?, index)?;
        self.numbers.write().insert(&oid, number);
        Ok(())
    }

    /// Whether anything waits to be committed.
    pub(crate) fn is_pending(&self) -> bool {
        self.writer.lock().as_ref().is_some_and(|writer| !writer.pending.commits.is_empty())
    }

    /// Commits what was added: it is on the disk and questions find it when this returns.
    ///
    /// # Errors
    /// When it cannot be written; the index is then to be opened anew.
    pub(crate) fn commit(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        if writer.is_broken {
            return Err(Error::new(ErrorKind::Closed, "a commit of the presence index failed earlier"));
        }
        let frame = std::mem::take(&mut writer.pending);
        (writer.pending_changes, writer.last_new) = (0, 0);
        if frame.commits.is_empty() {
            return Ok(());
        }
        writer.is_broken = true;
        if let Some(file) = &mut writer.file {
            file.append(&frame)?;
            self.stored_bytes.store(file.end(), Ordering::Relaxed);
        }
        writer.is_broken = false;
        self.current.store(Arc::new(writer.rows.clone()));
        if writer.rows.resident_bytes() > RESIDENT_BYTES_MAX {
            self.is_full.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Lets another open the folder: nothing can be added any more.
    pub(crate) fn release(&self) {
        *self.writer.lock() = None;
    }

    /// Figures for people.
    pub(crate) fn figures(&self) -> PresenceFigures {
        let rows = self.rows();
        let map = self.numbers.read().resident_bytes();
        // The writer has the paths a second time, and four bytes for each blob; it is not asked, since it may be writing.
        let paths = rows.path_count() * (size_of::<(Arc<[u8]>, PathNo)>() + 1) * 2;
        PresenceFigures {
            commits: rows.commit_count() as u64,
            changes: rows.change_count() as u64,
            paths: rows.path_count() as u64,
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
            resident_bytes: rows.resident_bytes() + map + paths as u64,
            is_full: self.is_full(),
        }
    }
}

fn released() -> Error {
    Error::new(ErrorKind::Closed, "the presence index is released")
}

impl Writer {
    fn new() -> Self {
        Self {
            file: None,
            rows: Rows::default(),
            paths: HashMap::new(),
            stored: Vec::new(),
            stored_count: 0,
            pending: Frame::default(),
            pending_changes: 0,
            last_new: 0,
            refused: HashMap::new(),
            is_broken: false,
        }
    }

    /// Takes a frame of the file; `None` if it is not what a writer wrote, and then none of it.
    fn load(&mut self, frame: &Frame, index: &Index, blobs: &mut Vec<BlobNo>, numbers: &mut Numbers) -> Option<()> {
        let oids = |ids: &[Vec<u8>]| ids.iter().map(|id| Oid::from_bytes(id).ok()).collect::<Option<Vec<Oid>>>();
        let first = self.rows.commit_count();
        let fresh = index.numbers(&oids(&frame.blobs)?);
        let known = blobs.len();
        blobs.extend(fresh);
        let path_count = self.rows.path_count() + frame.paths.len();
        let decoded = decoded(frame, blobs, path_count, first);
        let Some(commits) = decoded else {
            blobs.truncate(known);
            return None;
        };
        for blob in blobs.iter().skip(known) {
            self.store(*blob);
        }
        for path in &frame.paths {
            self.intern(path);
        }
        for (number, (oid, seconds, parents, changes)) in (first..).zip(commits) {
            self.rows.add_commit(oid, seconds, &parents, &changes);
            numbers.insert(&oid, u32::try_from(number).ok()?);
        }
        Some(())
    }

    /// The number of a path, and whether it is new.
    fn intern(&mut self, path: &[u8]) -> (PathNo, bool) {
        if let Some(known) = self.paths.get(path) {
            return (*known, false);
        }
        // `Rows::has_room` was asked.
        let number = u32::try_from(self.rows.path_count()).unwrap_or(NONE);
        let path: Arc<[u8]> = path.into();
        self.rows.add_path(path.clone());
        self.paths.insert(path, number);
        (number, true)
    }

    /// The number of a blob in the file, counted from 1, and whether it is new.
    fn store(&mut self, blob: BlobNo) -> (u32, bool) {
        let at = blob as usize;
        if at >= self.stored.len() {
            self.stored.resize(at + 1, 0);
        }
        let stored = &mut self.stored[at];
        let is_new = *stored == 0;
        if is_new {
            self.stored_count += 1;
            *stored = self.stored_count;
        }
        (*stored, is_new)
    }

    fn add(
        &mut self,
        oid: Oid,
        seconds: i64,
        parents: &[CommitNo],
        changes: &[FileChange],
        index: &Index,
    ) -> Result<CommitNo> {
        if !self.rows.has_room(changes.len()) {
            return Err(Error::new(ErrorKind::LimitExceeded, "the presence index has too many commits"));
        }
        let number = u32::try_from(self.rows.commit_count()).unwrap_or(NONE);
        let (mut rows, mut records) = (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        let sides: Vec<Oid> = changes.iter().flat_map(|change| [change.old, change.new]).flatten().collect();
        let mut blobs = index.numbers(&sides).into_iter().zip(sides);
        for change in changes {
            let (path, is_new) = self.intern(&change.path);
            if is_new {
                self.pending.paths.push(change.path.to_vec());
            }
            let mut side = |side: Option<Oid>| {
                let Some((blob, oid)) = side.and_then(|_| blobs.next()) else { return (NONE, 0) };
                let (stored, is_new) = self.store(blob);
                if is_new {
                    self.pending.blobs.push(oid.as_bytes().to_vec());
                }
                (blob, stored)
            };
            let ((old, stored_old), (new, stored_new)) = (side(change.old), side(change.new));
            rows.push(Change { path, old, new });
            let new_step = i64::from(stored_new) - std::mem::replace(&mut self.last_new, i64::from(stored_new));
            records.push(ChangeRecord { path, old: stored_old, new_step });
        }
        self.pending_changes += 1 + changes.len();
        let before = parents.iter().map(|parent| number - parent).collect();
        self.pending.commits.push(CommitRecord {
            oid: oid.as_bytes().to_vec(),
            seconds,
            parents: before,
            changes: records,
        });
        self.rows.add_commit(oid, seconds, parents, &rows);
        Ok(number)
    }
}

/// A commit of a frame.
type Decoded = (Oid, i64, Vec<CommitNo>, Vec<Change>);

/// The commits of a frame, of which the first gets the number `first`; `None` if it names what there is not.
fn decoded(frame: &Frame, blobs: &[BlobNo], path_count: usize, first: usize) -> Option<Vec<Decoded>> {
    let blob = |stored: i64| match usize::try_from(stored).ok()?.checked_sub(1) {
        None => Some(NONE),
        Some(at) => blobs.get(at).copied(),
    };
    let mut last_new = 0_i64;
    let mut commits = Vec::with_capacity(frame.commits.len());
    for (number, record) in (first..).zip(&frame.commits) {
        let number = u32::try_from(number).ok()?;
        let parent = |before: &u32| number.checked_sub(*before).filter(|_| *before > 0);
        let parents = record.parents.iter().map(parent).collect::<Option<Vec<_>>>()?;
        let mut changes = Vec::with_capacity(record.changes.len());
        for change in &record.changes {
            last_new = last_new.checked_add(change.new_step)?;
            let path = Some(change.path).filter(|path| (*path as usize) < path_count)?;
            changes.push(Change { path, old: blob(i64::from(change.old))?, new: blob(last_new)? });
        }
        commits.push((Oid::from_bytes(&record.oid).ok()?, record.seconds, parents, changes));
    }
    Some(commits)
}
