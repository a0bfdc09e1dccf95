//! What is asked and answered about commits.

use std::{ops::Range, time::Instant};

use govc_engine::{Commit, Oid, Result};
use serde::{Deserialize, Serialize};

use crate::{aggregate::GroupBy, find::Partial, groups::Groups, opaque};

/// How to answer.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// Commits of a page.
    pub commits_max: usize,
    /// Where the page begins.
    pub cursor: Option<CommitCursor>,
    /// What all that are found are counted by.
    pub group_by: Option<GroupBy>,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
}

/// Where a page of commits begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitCursor {
    pub(super) fingerprint: u64,
    pub(super) place: u32,
    /// The last commit that was looked at.
    pub(super) after: Vec<u8>,
    pub(super) found: u64,
}

impl CommitCursor {
    /// As text: hexadecimal digits.
    pub fn encode(&self) -> String {
        opaque::encode(self)
    }

    /// Reads what [`CommitCursor::encode`] made.
    ///
    /// # Errors
    /// Invalid for anything else.
    pub fn decode(text: &str) -> Result<Self> {
        opaque::decode(text)
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct CommitsFound {
    /// The commits, newest first for each place.
    pub commits: Vec<CommitHit>,
    /// How many match, as far as was counted, with the pages in front.
    pub total: u64,
    /// Whether that is all of them.
    pub is_exact: bool,
    /// Why not everything was searched, if that is so for another reason than the page's end.
    pub partial: Option<Partial>,
    /// Where the next page begins, if there may be one.
    pub next: Option<CommitCursor>,
    /// Those that were counted on this page, by [`CommitOptions::group_by`].
    pub groups: Groups,
    /// How many commits were looked at: neither the index nor an earlier question could say whether they match.
    pub commits_read: u64,
}

/// A commit that matches.
#[derive(Debug, Clone)]
pub struct CommitHit {
    /// The repository's name.
    pub repo: String,
    /// What was asked for.
    pub rev: String,
    /// The commit's id.
    pub oid: Oid,
    /// The commit.
    pub commit: Commit,
    /// Where patterns match in the message, in bytes.
    pub message_matches: Vec<Range<usize>>,
}
