//! What a question about a history answers.

use std::time::Duration;

use govc_engine::{Commit, Oid, RefName, Signature};

use super::cursor::HistoryCursor;
use crate::find::Partial;

/// What is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HistoryList {
    /// The commits with which the query begins to match, or ends to.
    #[default]
    Events,
    /// The files with which it does, each with its commit.
    Files,
    /// The commits that contain a match.
    Commits,
}

/// What became of a match with a commit, against its first parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It is new.
    Appeared,
    /// It is gone.
    Gone,
}

/// A commit of an answer.
#[derive(Debug, Clone)]
pub struct HistoryCommit {
    /// Its id.
    pub oid: Oid,
    /// Who wrote it, and when.
    pub author: Signature,
    /// When it was committed, in seconds since 1970.
    pub committed_seconds: i64,
    /// The first line of its message.
    pub subject: String,
    /// How many of its files match.
    pub files: u64,
}

impl HistoryCommit {
    pub(super) fn new(oid: Oid, commit: Commit, files: u32) -> Self {
        let (subject, committed_seconds) = (commit.subject(), commit.committer.seconds);
        Self { oid, author: commit.author, committed_seconds, subject, files: u64::from(files) }
    }
}

/// A file that matches where it did not in the first parent, or the other way round. A renamed file is gone and appeared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTransition {
    /// The path as stored.
    pub path: Vec<u8>,
    /// What became of the match.
    pub transition: Transition,
    /// The blob that matches: the new one, or the one that was there before.
    pub blob: Oid,
}

/// A commit that contains a match where its first parent has none, or the other way round.
#[derive(Debug, Clone)]
pub struct HistoryEvent {
    /// The commit.
    pub commit: HistoryCommit,
    /// What became of the matches.
    pub transition: Transition,
    /// The files that are the reason, the first hundred.
    pub files: Vec<FileTransition>,
}

/// A page of what is listed.
#[derive(Debug, Clone)]
pub enum HistoryRows {
    /// For [`HistoryList::Events`].
    Events(Vec<HistoryEvent>),
    /// For [`HistoryList::Files`].
    Files(Vec<(HistoryCommit, FileTransition)>),
    /// For [`HistoryList::Commits`].
    Commits(Vec<HistoryCommit>),
}

impl HistoryRows {
    pub(super) fn none(list: HistoryList) -> Self {
        match list {
            HistoryList::Events => Self::Events(Vec::new()),
            HistoryList::Files => Self::Files(Vec::new()),
            HistoryList::Commits => Self::Commits(Vec::new()),
        }
    }
}

/// A branch or tag on which the query matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRef {
    /// Its name.
    pub name: RefName,
    /// Its commit.
    pub commit: Oid,
    /// How many files match there.
    pub files: u64,
}

/// The answer. Unless it is partial, all of it is exact at the moment of the snapshot.
#[derive(Debug, Clone)]
pub struct HistoryAnswer {
    /// A page of what is listed.
    pub rows: HistoryRows,
    /// How many rows there are on all pages.
    pub total_rows: u64,
    /// The first commit that contains a match, by date, no commit before those that it follows from.
    pub first: Option<HistoryCommit>,
    /// The last one.
    pub last: Option<HistoryCommit>,
    /// How many commits contain one, of all that are reached, by whatever parents.
    pub total_commits: u64,
    /// The branches on whose tips it matches now, of those that the question begins at: the first thousand.
    pub branches: Vec<HistoryRef>,
    /// How many these are in all.
    pub total_branches: u64,
    /// The tags likewise, if they were asked for.
    pub tags: Vec<HistoryRef>,
    /// How many these are in all.
    pub total_tags: u64,
    /// Why this is not all: [`Partial::Deadline`] if there was no time for an answer: the counts are 0 then, and going on at
    /// `next` takes up the work where it was left. [`Partial::Unreadable`] if the store has lost some files, which are
    /// taken not to match.
    pub partial: Option<Partial>,
    /// Where the next page begins, if there is one.
    pub next: Option<HistoryCursor>,
    /// How the answer was found.
    pub explain: HistoryExplain,
}

/// How an answer was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistoryExplain {
    /// Commits that the question is about.
    pub commits: u64,
    /// Those of them that were read because they are not indexed.
    pub commits_read: u64,
    /// Distinct pieces of text that were looked at.
    pub chunks_read: u64,
    /// Files that were looked at as a whole.
    pub files_read: u64,
    /// Until the commits were known.
    pub walk_time: Duration,
    /// Until the matching files were known, from the beginning.
    pub match_time: Duration,
    /// In all.
    pub total_time: Duration,
}
