//! What pools take: a row for each published segment, so that nobody has to read blocks to know.

use std::collections::BTreeMap;

use super::{
    Store,
    ids::PoolId,
    state::{Repo, RepoState},
};
use crate::{
    Error, Result,
    backend::{
        Batch, Family, Scan,
        key::{self, Reader, put_varint},
    },
};

/// What is stored of a repository, without what it was forked from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredPool {
    /// Bytes of blocks that are as they came.
    pub fresh_bytes: u64,
    /// Segments that they are in.
    pub fresh_segments: u64,
    /// Bytes of blocks that were stored anew.
    pub compacted_bytes: u64,
    /// When that was last, in milliseconds since the Unix epoch.
    pub compacted_millis: Option<i64>,
    /// The first version that was retained then.
    pub first_version: u64,
    /// zstd's level of that.
    pub level: i32,
}

/// The row of a published segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentRow {
    /// Bytes of its blocks.
    pub(super) bytes: u64,
    /// How it was stored anew; `None` if it is as it came.
    pub(super) compacted: Option<Compacted>,
}

/// How a segment was stored anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compacted {
    pub(super) millis: i64,
    /// The first version that the repository retained.
    pub(super) first_version: u64,
    /// zstd's level, from 1.
    pub(super) level: u8,
    /// Whether its index is the pool's: objects without a row are where it says.
    pub(super) is_indexed: bool,
}

impl SegmentRow {
    const FRESH: u8 = 1;
    const COMPACTED: u8 = 2;
    const INDEXED: u8 = 3;

    pub(super) fn encode(&self) -> Vec<u8> {
        let version = match self.compacted {
            None => Self::FRESH,
            Some(Compacted { is_indexed: false, .. }) => Self::COMPACTED,
            Some(Compacted { is_indexed: true, .. }) => Self::INDEXED,
        };
        let mut out = vec![version];
        put_varint(&mut out, self.bytes);
        if let Some(Compacted { millis, first_version, level, .. }) = self.compacted {
            put_varint(&mut out, u64::try_from(millis).unwrap_or_default());
            put_varint(&mut out, first_version);
            out.push(level);
        }
        out
    }

    /// Whether its index is the pool's.
    pub(super) fn is_indexed(&self) -> bool {
        self.compacted.is_some_and(|compacted| compacted.is_indexed)
    }

    /// The same when the pool's index is another's.
    pub(super) fn without_index(self) -> Self {
        Self { compacted: self.compacted.map(|how| Compacted { is_indexed: false, ..how }), ..self }
    }

    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it is no row of a segment.
    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(value);
        let version = reader.byte()?;
        if !(Self::FRESH..=Self::INDEXED).contains(&version) {
            return Err(Error::corrupt(format!("a segment's row has version {version}; this program knows 1 to 3")));
        }
        let bytes = reader.varint()?;
        let compacted = match version {
            Self::FRESH => None,
            _ => Some(Compacted {
                millis: i64::try_from(reader.varint()?).unwrap_or(i64::MAX),
                first_version: reader.varint()?,
                level: reader.byte()?,
                is_indexed: version == Self::INDEXED,
            }),
        };
        Ok(Self { bytes, compacted })
    }
}

impl StoredPool {
    fn add(&mut self, row: SegmentRow) {
        match row.compacted {
            None => {
                self.fresh_bytes += row.bytes;
                self.fresh_segments += 1;
            }
            Some(Compacted { millis, first_version, level, .. }) => {
                self.compacted_bytes += row.bytes;
                if self.compacted_millis.is_none_or(|last| last < millis) {
                    self.compacted_millis = Some(millis);
                    self.first_version = first_version;
                    self.level = i32::from(level);
                }
            }
        }
    }
}

/// Adds to `batch` that nothing is known any more of a pool's segments.
pub(super) fn forget_segments(batch: &mut Batch, pool: PoolId) {
    let prefix = key::segment_rows_of(pool);
    if let Some(end) = key::after_prefix(&prefix) {
        batch.delete_range(Family::Meta, prefix, end);
    }
}

impl Store {
    /// What is stored of each repository that stores anything. Reads a row for each segment.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn stored_pools(&self) -> Result<Vec<(Repo, StoredPool)>> {
        let core = self.core();
        let mut pools: BTreeMap<PoolId, StoredPool> = BTreeMap::new();
        for row in core.backend.scan(Family::Meta, Scan::prefix(key::SEGMENT_ROW))? {
            let (row_key, value) = row?;
            let pool = row_key.get(key::SEGMENT_ROW.len()..).and_then(|rest| rest.first_chunk::<8>());
            let pool =
                PoolId(u64::from_be_bytes(*pool.ok_or_else(|| Error::corrupt("a segment's row names no pool"))?));
            match SegmentRow::decode(&value) {
                Ok(row) => pools.entry(pool).or_default().add(row),
                // The others are known none the less.
                Err(error) => tracing::warn!(%error, "what a segment takes is not known"),
            }
        }
        let repos = core.catalog.all();
        let repo = |state: &std::sync::Arc<RepoState>| Repo { core: core.clone(), state: state.clone() };
        Ok(repos.values().filter_map(|state| Some((repo(state), pools.remove(&state.pool.id)?))).collect())
    }
}

impl Repo {
    /// Forgets the versions that are not retained any more, as settling does where there is something to settle.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn forget_versions(&self) -> Result<()> {
        self.core.forget_versions(&self.state)
    }

    /// The first version that is retained, beside the newest.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn first_version(&self) -> Result<u64> {
        Ok(self.core.first_row(&self.state)?.unwrap_or_else(|| self.state.published.load().number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written_and_no_others() {
        let fresh = SegmentRow { bytes: 1 << 40, compacted: None };
        let compacted = SegmentRow {
            bytes: 7,
            compacted: Some(Compacted { millis: 1 << 41, first_version: 300, level: 19, is_indexed: false }),
        };
        let indexed =
            SegmentRow { compacted: compacted.compacted.map(|how| Compacted { is_indexed: true, ..how }), ..compacted };
        for row in [fresh, compacted, indexed] {
            let value = row.encode();
            assert_eq!(SegmentRow::decode(&value).unwrap(), row);
            for end in 0..value.len() {
                assert!(SegmentRow::decode(&value[..end]).is_err());
            }
        }
        assert!(SegmentRow::decode(&[4, 1]).is_err());
        let mut pool = StoredPool::default();
        [fresh, compacted, fresh].into_iter().for_each(|row| pool.add(row));
        assert_eq!((pool.fresh_bytes, pool.fresh_segments, pool.compacted_bytes), (2 << 40, 2, 7));
        assert_eq!((pool.compacted_millis, pool.first_version, pool.level), (Some(1 << 41), 300, 19));
    }
}
