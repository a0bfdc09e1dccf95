//! Where a page of a history begins: behind a commit, or behind a file of one.
//!
//! Commits stand in the order of their corrected dates, then of their ids, which depends on history alone. So a cursor
//! means the same while the index grows, and, when the caller takes a later snapshot, it goes on at the same commit.

use std::hash::Hasher as _;

use govc_engine::{Oid, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::HistoryOptions;
use crate::{opaque, query::Query};

/// Where a page begins. Opaque: its text form may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryCursor {
    /// Of the query and what is listed.
    pub(super) fingerprint: u64,
    /// `None` for the beginning.
    pub(super) after: Option<After>,
}

/// The last row of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct After {
    pub(super) corrected_seconds: i64,
    pub(super) commit: Vec<u8>,
    /// If files are listed.
    pub(super) path: Option<Vec<u8>>,
}

impl HistoryCursor {
    /// As text: hexadecimal digits.
    pub fn encode(&self) -> String {
        opaque::encode(self)
    }

    /// Reads what [`HistoryCursor::encode`] made.
    ///
    /// # Errors
    /// Invalid for anything else.
    pub fn decode(text: &str) -> Result<Self> {
        opaque::decode(text)
    }
}

impl After {
    /// The commit's place in the order; `None` if the cursor was made up.
    pub(super) fn key(&self) -> Option<(i64, Oid)> {
        Some((self.corrected_seconds, Oid::from_bytes(&self.commit).ok()?))
    }
}

/// What a cursor must agree with.
pub(super) fn fingerprint(query: &Query, options: &HistoryOptions) -> u64 {
    let mut hash = Xxh3::new();
    hash.write(query.to_string().as_bytes());
    hash.write(&[options.list as u8, u8::from(options.oldest_first), u8::from(options.all_parents)]);
    hash.finish()
}
