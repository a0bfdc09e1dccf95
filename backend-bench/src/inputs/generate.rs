//! A generated history in memory: a tree of folders whose files change a few lines at a time, on one branch.

use bytes::Bytes;
use govc_engine::{Kind, ObjectFormat, Oid, hash_object};

use super::{History, Incoming};
use crate::error::Result;
use crate::plan::{Shape, Stop};
use crate::random::Random;

/// Lines of a new file: from the first number, up to so many more.
const LINES: (usize, usize) = (20, 60);
/// Lines that a change replaces at most.
const LINES_CHANGED: usize = 3;

/// Makes a history of so many commits.
pub(super) fn history(seed: u64, shape: Shape, commits: usize, stop: &Stop) -> Result<History> {
    let mut making = Making {
        random: Random::of(seed, 1),
        shape,
        files: vec![Vec::new(); shape.files],
        blobs: vec![ObjectFormat::Sha1.null(); shape.files],
        folders: vec![ObjectFormat::Sha1.null(); shape.folders],
        objects: Vec::new(),
        bytes: 0,
    };
    let mut head = None;
    let mut ranges = Vec::with_capacity(commits);
    for number in 0..commits {
        stop.check()?;
        let first = making.objects.len();
        head = Some(making.commit(number, head)?);
        ranges.push(first..making.objects.len());
    }
    let Making { objects, bytes, .. } = making;
    let name = format!("generated, {commits} commits that change {} of {} files", shape.changed, shape.files);
    Ok(History { name, objects, head: head.unwrap_or(ObjectFormat::Sha1.null()), bytes, commits: ranges })
}

struct Making {
    random: Random,
    shape: Shape,
    /// The lines of each file.
    files: Vec<Vec<String>>,
    blobs: Vec<Oid>,
    folders: Vec<Oid>,
    objects: Vec<Incoming>,
    bytes: u64,
}

impl Making {
    /// Makes the next commit: its blobs, the folders that changed, the root, and itself.
    fn commit(&mut self, number: usize, parent: Option<Oid>) -> Result<Oid> {
        let changed: Vec<usize> = if parent.is_none() {
            (0..self.shape.files).collect()
        } else {
            let first = self.random.below(self.shape.files);
            // A stride without a common factor visits different files.
            (0..self.shape.changed).map(|at| (first + at * 7) % self.shape.files).collect()
        };
        let mut stale = vec![false; self.shape.folders];
        for file in changed {
            self.change(file);
            self.blobs[file] = self.add(Kind::Blob, self.files[file].concat().into())?;
            stale[file % self.shape.folders] = true;
        }
        for folder in (0..self.shape.folders).filter(|folder| stale[*folder]) {
            let inside = (folder..self.shape.files).step_by(self.shape.folders);
            let entries =
                inside.map(|file| (format!("100644 file{:04}.c", file / self.shape.folders), self.blobs[file]));
            self.folders[folder] = self.add(Kind::Tree, tree(entries))?;
        }
        let entries = self.folders.iter().enumerate().map(|(at, oid)| (format!("40000 part{at:02}"), *oid));
        let root = self.add(Kind::Tree, tree(entries))?;
        let parent = parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
        let time = 1_600_000_000 + number * 60;
        let who = format!("Ann Author <ann@example.com> {time} +0100");
        let text = format!("tree {root}\n{parent}author {who}\ncommitter {who}\n\nChange {number}\n");
        self.add(Kind::Commit, text.into())
    }

    fn change(&mut self, file: usize) {
        let lines = &mut self.files[file];
        if lines.is_empty() {
            let count = LINES.0 + self.random.below(LINES.1);
            lines.extend((0..count).map(|_| self.random.line()));
            return;
        }
        for _ in 0..=self.random.below(LINES_CHANGED) {
            let at = self.random.below(lines.len());
            lines[at] = self.random.line();
        }
    }

    fn add(&mut self, kind: Kind, data: Bytes) -> Result<Oid> {
        let oid = hash_object(ObjectFormat::Sha1, kind, &data)?;
        self.bytes += data.len() as u64;
        self.objects.push(Incoming::whole(oid, kind, data));
        Ok(oid)
    }
}

/// A tree's bytes; the entries come in the order of their names.
fn tree(entries: impl Iterator<Item = (String, Oid)>) -> Bytes {
    let mut tree = Vec::new();
    for (name, oid) in entries {
        tree.extend_from_slice(name.as_bytes());
        tree.push(0);
        tree.extend_from_slice(oid.as_bytes());
    }
    tree.into()
}
