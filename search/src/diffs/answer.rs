//! What a search in diffs answers with.

use govc_engine::{ChangeStatus, Commit, Oid};

use super::cursor::DiffCursor;
use crate::{find::Partial, line::MatchSpan};

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct DiffsFound {
    /// The commits, newest first for each repository.
    pub commits: Vec<DiffHit>,
    /// How many commits match, as far as was counted, with the pages in front.
    pub total: u64,
    /// How many files of them, likewise.
    pub total_files: u64,
    /// How many lines of these, likewise.
    pub total_lines: u64,
    /// Whether that is all of them.
    pub is_exact: bool,
    /// Why not everything was searched, if that is so for another reason than the page's end.
    pub partial: Option<Partial>,
    /// Where the next page begins, if there may be one.
    pub next: Option<DiffCursor>,
    /// Changed files that may match and were not compared, because they are binary or too large; with the pages in front.
    pub files_skipped: u64,
    /// Commits not all of whose files were compared: a tree of theirs cannot be read, they change more than half a million
    /// files, or they took more than all the time. With the pages in front.
    pub commits_skipped: u64,
    /// Commits that were gone through for this page, those of the pages in front among them.
    pub commits_read: u64,
    /// Files whose lines were compared for this page.
    pub files_compared: u64,
}

/// A commit that changes lines that match.
#[derive(Debug, Clone)]
pub struct DiffHit {
    /// The repository's name.
    pub repo: String,
    /// What was asked for.
    pub rev: String,
    /// The commit's id.
    pub oid: Oid,
    /// The commit.
    pub commit: Commit,
    /// The first files that match, in git's order.
    pub files: Vec<DiffFile>,
    /// How many files match.
    pub total_files: u64,
    /// How many lines of all of them match.
    pub total_lines: u64,
    /// Whether all of its files were gone through; else the time was over, or there is one that cannot be read.
    pub is_whole: bool,
}

/// A changed file that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffFile {
    /// The path as stored.
    pub path: Vec<u8>,
    /// What became of it: added, deleted or modified.
    pub status: ChangeStatus,
    /// The blob before.
    pub old: Option<Oid>,
    /// The blob after.
    pub new: Option<Oid>,
    /// How many added lines match.
    pub lines_added: u64,
    /// How many removed lines match.
    pub lines_removed: u64,
    /// The first lines that match, in the order in which a diff has them.
    pub lines: Vec<DiffLine>,
}

/// An added or removed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// Whether it was added or removed.
    pub sign: LineSign,
    /// Its number, from 1: in the file after if it was added, before if it was removed.
    pub line_number: u64,
    /// The line without its newline; what is not UTF-8 is replaced.
    pub content: String,
    /// Whether `content` is only the beginning of a very long line.
    pub cut: bool,
    /// Where patterns match in `content`, in order.
    pub matches: Vec<MatchSpan>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineSign {
    /// It was added.
    Added,
    /// It was removed.
    Removed,
}

impl LineSign {
    /// As diffs write it: `+` or `-`.
    pub fn as_char(self) -> char {
        match self {
            LineSign::Added => '+',
            LineSign::Removed => '-',
        }
    }
}

impl DiffFile {
    /// Roughly what the file takes in an answer without its lines, in bytes.
    pub(super) fn weight_bytes(&self) -> usize {
        256 + self.path.len()
    }
}

impl DiffLine {
    /// Roughly what the line takes in an answer, in bytes.
    pub(super) fn weight_bytes(&self) -> usize {
        128 + self.content.len() + self.matches.len() * 32
    }
}
