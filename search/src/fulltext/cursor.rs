//! Where a page of ranked files begins: behind one file, in the order that all have.

use std::cmp::Reverse;

use govc_engine::Result;
use serde::{Deserialize, Serialize};

use super::score::Score;
use crate::{importance::Tier, opaque};

/// Where a file stands: the higher score first, then the tier, the number of the place, the path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Rank {
    /// The bits of the score: no score is negative, so they have its order.
    pub(super) score_bits: Reverse<u64>,
    pub(super) tier: Tier,
    pub(super) place: u32,
    pub(super) path: Vec<u8>,
}

impl Rank {
    pub(super) fn of(score: Score, tier: Tier, place: u32, path: Vec<u8>) -> Self {
        Self { score_bits: Reverse(score.score.to_bits()), tier, place, path }
    }
}

/// Where a page begins. Opaque: its text form may change. It belongs to a query and to commits; with the same ones each
/// file is on one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullTextCursor {
    /// Of the query and the commits.
    pub(super) fingerprint: u64,
    /// The last file that was shown.
    pub(super) after: Rank,
}

impl FullTextCursor {
    /// As text: hexadecimal digits.
    pub fn encode(&self) -> String {
        opaque::encode(self)
    }

    /// Reads what [`FullTextCursor::encode`] made.
    ///
    /// # Errors
    /// Invalid for anything else.
    pub fn decode(text: &str) -> Result<Self> {
        opaque::decode(text)
    }
}
