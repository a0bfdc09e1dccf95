//! Where a page of results begins.
//!
//! Files are ranked in windows: the first so many of the order of results, then the next. A cursor says which window and
//! where in it; both depend on the searched commits alone, which the caller keeps the same from page to page.

use std::hash::Hasher as _;

use govc_engine::Result;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::scan::Position;
use crate::{
    opaque,
    place::Place,
    query::{Count, Query},
};

/// Where a page begins. Opaque: its text form may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Of the query and the commits.
    pub(crate) fingerprint: u64,
    /// The window begins behind this.
    pub(crate) after: Option<Position>,
    /// Where the window ends, if a page of it was given before.
    pub(crate) end: Option<WindowEnd>,
    /// How many files of the window were shown.
    pub(crate) shown: u32,
    /// What was counted in the windows before.
    pub(crate) files_before: u64,
    pub(crate) matches_before: u64,
}

/// Where a window ends that was gone through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WindowEnd {
    /// Nothing of it is behind this.
    pub(crate) position: Position,
    /// Whether nothing follows it.
    pub(crate) is_last: bool,
}

impl Cursor {
    /// As text: hexadecimal digits.
    pub fn encode(&self) -> String {
        opaque::encode(self)
    }

    /// Reads what [`Cursor::encode`] made.
    ///
    /// # Errors
    /// Invalid for anything else.
    pub fn decode(text: &str) -> Result<Self> {
        opaque::decode(text)
    }
}

/// What a cursor must agree with: the query, but for what it counts, and the commits.
pub(crate) fn fingerprint(query: &Query, places: &[Place]) -> u64 {
    let mut query = query.clone();
    query.options.count = Count::Page;
    let mut hash = Xxh3::new();
    hash.write(query.to_string().as_bytes());
    for place in places {
        hash.write(place.repo.as_bytes());
        hash.write(place.commit.as_bytes());
    }
    hash.finish()
}
