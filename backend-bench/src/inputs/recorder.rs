//! What the engine writes when a history is imported: recorded once, so that each backend is also loaded directly with
//! the very same batches, and so that all that a backend holds can be compared with what it must hold.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use govc_backends::MemoryBackend;
use govc_engine::BackendResult;
use govc_engine::backend::{Backend, Batch, Description, Entries, Family, Op, Scan, Sync, Usage};
use parking_lot::Mutex;

use super::History;
use crate::error::Result;
use crate::measure::Digest;
use crate::plan::Stop;
use crate::store;

/// The batches of an import, and what they make of an empty backend.
pub(crate) struct Recorded {
    pub(crate) batches: Vec<(Batch, Sync)>,
    /// Bytes of keys and values in all batches.
    pub(crate) written_bytes: u64,
    /// Bytes of keys and values that are there in the end.
    pub(crate) stored_bytes: u64,
    /// Every entry that is there in the end, by family, in key order.
    pub(crate) entries: Vec<(Family, Vec<(Bytes, Bytes)>)>,
    /// The objects that share a block, as positions in the history; for each block.
    pub(crate) blocks: Vec<Range<usize>>,
}

impl Recorded {
    /// Imports a history into memory.
    pub(crate) fn of(history: &History, stop: &Stop) -> Result<Self> {
        let recorder = Arc::new(Recorder { inner: MemoryBackend::new(), batches: Mutex::default() });
        let opened = store::open(recorder.clone(), store::MEMORY_BYTES)?;
        let blocks = store::import(&opened, history, stop)?;
        opened.close()?;
        drop(opened);
        let mut entries = Vec::new();
        let mut stored_bytes = 0;
        for family in Family::ALL {
            let of = recorder.inner.scan(family, Scan::all())?.collect::<BackendResult<Vec<_>>>()?;
            stored_bytes += of.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
            entries.push((family, of));
        }
        let batches = std::mem::take(&mut *recorder.batches.lock());
        let written_bytes = batches.iter().map(|(batch, _)| batch.byte_len() as u64).sum();
        Ok(Self { batches, written_bytes, stored_bytes, entries, blocks })
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for (family, entries) in &self.entries {
            entries.iter().for_each(|(key, value)| digest.add(&[family.name().as_bytes(), key, value]));
        }
        digest
    }

    /// The entries of a family.
    pub(crate) fn family(&self, family: Family) -> &[(Bytes, Bytes)] {
        self.entries.iter().find(|(of, _)| *of == family).map_or(&[], |(_, entries)| entries)
    }

    /// How many puts there are in all batches.
    pub(crate) fn puts(&self) -> u64 {
        let is_put = |op: &&Op| matches!(op, Op::Put { .. });
        self.batches.iter().map(|(batch, _)| batch.ops.iter().filter(is_put).count() as u64).sum()
    }
}

/// A store's identity is drawn at random; here it is always the same, as all else that a seed makes.
const STORE_ID: &[u8] = b"store_id";

/// A memory backend that remembers its batches, and that closing leaves as it is.
struct Recorder {
    inner: MemoryBackend,
    batches: Mutex<Vec<(Batch, Sync)>>,
}

impl Backend for Recorder {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.inner.get(family, key)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.inner.scan(family, scan)
    }

    fn write(&self, mut batch: Batch, sync: Sync) -> BackendResult<()> {
        for op in &mut batch.ops {
            if let Op::Put { family: Family::Meta, key, value } = op
                && key == STORE_ID
            {
                *value = Bytes::from_static(&[7; 16]);
            }
        }
        // Under the lock, so that the order is the one in which they were applied.
        let mut batches = self.batches.lock();
        self.inner.write(batch.clone(), sync)?;
        batches.push((batch, sync));
        Ok(())
    }

    fn sync(&self) -> BackendResult<()> {
        self.inner.sync()
    }

    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.inner.usage()
    }

    fn close(&self) -> BackendResult<()> {
        Ok(())
    }
}
