//! Where a page of diffs begins: behind a commit.

use govc_engine::Result;
use serde::{Deserialize, Serialize};

use crate::opaque;

/// Where a page begins. Opaque: its text form may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffCursor {
    /// Of the query and the commits.
    pub(super) fingerprint: u64,
    pub(super) seen: Seen,
}

/// A commit that was looked at, and what was counted up to it, with the pages in front.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The first place of its repository.
    pub(super) place: u32,
    /// Its id; empty in front of the first one.
    pub(super) commit: Vec<u8>,
    pub(super) counted: Counted,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) commits: u64,
    pub(super) files: u64,
    pub(super) lines: u64,
    pub(super) files_skipped: u64,
    pub(super) commits_skipped: u64,
    /// Whether a text was too large to be compared.
    pub(super) is_incomplete: bool,
    /// Whether something could not be read.
    pub(super) is_unreadable: bool,
}

impl DiffCursor {
    /// As text: hexadecimal digits.
    pub fn encode(&self) -> String {
        opaque::encode(self)
    }

    /// Reads what [`DiffCursor::encode`] made.
    ///
    /// # Errors
    /// Invalid for anything else.
    pub fn decode(text: &str) -> Result<Self> {
        opaque::decode(text)
    }
}
