//! Records of pools: what is in blocks, with caches of decoded blocks and of bases of deltas.
//!
//! A store has one reader for everybody; work on a whole pool brings its own, so that it drives nothing out of that one.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    clock::ClockCache,
    ids::PoolId,
    pool::Pool,
    snapshot::{Place, Stored},
};
use crate::{
    Error, Result,
    backend::{Backend, Family, key},
    block::{Base, DecodedBlock, Location, RecordHeader, apply_delta, apply_deltas, join_parts},
};

/// Longest chain of deltas that a reader follows; longer ones are damage or an attack.
pub(crate) const CHAIN_MAX: usize = 10_000;

/// Bytes of the deltas of a chain that are applied at once; larger ones are read again and applied one by one.
const DELTA_BYTES_MAX: usize = 16 << 20;

/// Reads records.
pub(crate) struct Records {
    backend: Arc<dyn Backend>,
    blocks: ClockCache<(PoolId, u32, u32), Arc<DecodedBlock>>,
    bases: ClockCache<(PoolId, Location), Bytes>,
}

impl Records {
    /// With so many bytes for decoded blocks, and for objects that others are deltas against.
    pub(crate) fn new(backend: Arc<dyn Backend>, block_bytes: u64, base_bytes: u64) -> Self {
        Self { backend, blocks: ClockCache::new(block_bytes), bases: ClockCache::new(base_bytes) }
    }

    /// Bytes of memory that the caches hold.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.blocks.used_bytes() + self.bases.used_bytes()
    }

    /// A record as it is stored.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if it is not there.
    pub(crate) fn record(&self, pool: &Pool, location: Location) -> Result<Stored> {
        let block = self.block(pool, location.segment, location.block)?;
        let (header, body) = record_of(&block, location)?;
        let base = match header.base {
            Base::Whole => None,
            Base::Near { block, slot } => {
                Some(Place { pool: pool.id, location: Location { segment: location.segment, block, slot } })
            }
        };
        Ok(Stored { kind: header.kind, size: header.size, base, body })
    }

    /// The bytes of the object whose record is at `location`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if a block is not there, [`crate::ErrorKind::Corrupt`] if one is damaged.
    pub(crate) fn materialise(&self, pool: &Pool, location: Location) -> Result<Bytes> {
        let (mut chain, mut deltas, mut delta_bytes) = (Vec::new(), Vec::new(), 0);
        let mut at = location;
        let base = loop {
            if let Some(data) = self.bases.get(&(pool.id, at)) {
                break data;
            }
            let Stored { base, body, .. } = self.record(pool, at)?;
            let Some(base) = base else {
                // Not a slice of the block, which would stay in memory as long as the object.
                let data = Bytes::copy_from_slice(&body);
                self.keep_base(pool, at, &data);
                break data;
            };
            if chain.len() == CHAIN_MAX {
                return Err(Error::corrupt(format!("a chain of more than {CHAIN_MAX} deltas")));
            }
            chain.push(at);
            delta_bytes += body.len();
            if delta_bytes <= DELTA_BYTES_MAX {
                // Likewise, of each delta.
                deltas.push(Bytes::copy_from_slice(&body));
            } else {
                deltas = Vec::new();
            }
            at = base.location;
        };
        if chain.is_empty() {
            return Ok(base);
        }
        let data = if deltas.len() == chain.len() {
            deltas.reverse();
            apply_deltas(&base, &deltas)?.into()
        } else {
            let mut data = base;
            for at in chain.into_iter().rev() {
                data = apply_delta(&data, &self.record(pool, at)?.body)?.into();
            }
            data
        };
        self.keep_base(pool, location, &data);
        Ok(data)
    }

    fn keep_base(&self, pool: &Pool, at: Location, data: &Bytes) {
        self.bases.insert((pool.id, at), data.clone(), data.len() as u64 + 96);
    }

    fn block(&self, pool: &Pool, segment: u32, block: u32) -> Result<Arc<DecodedBlock>> {
        let cache_key = (pool.id, segment, block);
        if let Some(decoded) = self.blocks.get(&cache_key) {
            return Ok(decoded);
        }
        let missing = || Error::not_found(format!("block {segment}/{block} of pool {} is missing", pool.id.0));
        let encoded = match &pool.memory {
            Some(memory) => {
                let found = memory.segments().and_then(|held| held.blocks.pin().get(&(segment, block)).cloned());
                found.ok_or_else(missing)?
            }
            None => {
                let part = |part: u16| -> Result<Bytes> {
                    let key = key::block_part(pool.id, segment, block, part);
                    self.backend.get(Family::Blocks, &key)?.ok_or_else(missing)
                };
                join_parts(part(0)?, part)?
            }
        };
        let decoded = Arc::new(DecodedBlock::decode(&encoded)?);
        self.blocks.insert(cache_key, decoded.clone(), decoded.resident_bytes() as u64);
        Ok(decoded)
    }
}

fn record_of(block: &DecodedBlock, at: Location) -> Result<(RecordHeader, Bytes)> {
    let slot = usize::from(at.slot);
    match (block.header(slot), block.body(slot)) {
        (Some(header), Some(body)) => Ok((*header, body)),
        _ => Err(Error::corrupt(format!("block {}/{} has no record {slot}", at.segment, at.block))),
    }
}
