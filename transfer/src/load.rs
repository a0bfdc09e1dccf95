//! Writing many rows: in batches of some MiB that are not synced, with one sync in the end.

use bytes::Bytes;
use govc_engine::{Backend, Batch, Family};

use crate::{Progress, Result, error::check_cancelled};

const BATCH_BYTES: usize = 4 << 20;
const BATCH_ROWS: usize = 20_000;

/// Rows on their way into a backend.
pub(crate) struct Load<'a> {
    to: &'a dyn Backend,
    batch: Batch,
    progress: &'a dyn Progress,
}

impl<'a> Load<'a> {
    pub(crate) fn new(to: &'a dyn Backend, progress: &'a dyn Progress) -> Self {
        Self { to, batch: Batch::new(), progress }
    }

    pub(crate) fn put(&mut self, family: Family, key: &Bytes, value: Bytes) -> Result<()> {
        self.batch.put(family, key.to_vec(), value);
        self.write_when_large()
    }

    pub(crate) fn delete(&mut self, family: Family, key: &Bytes) -> Result<()> {
        self.batch.delete(family, key.to_vec());
        self.write_when_large()
    }

    fn write_when_large(&mut self) -> Result<()> {
        if self.batch.byte_len() >= BATCH_BYTES || self.batch.ops.len() >= BATCH_ROWS {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        check_cancelled(self.progress)?;
        Ok(self.to.write(std::mem::take(&mut self.batch), govc_engine::backend::Sync::No)?)
    }

    /// Writes what is left and makes all of it durable.
    pub(crate) fn finish(mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.write()?;
        }
        Ok(self.to.sync()?)
    }
}
