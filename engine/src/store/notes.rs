//! Notes: small rows that whoever embeds the store keeps in it, and that mean nothing to the store.

use bytes::Bytes;

use super::Store;
use crate::{
    Result,
    backend::{Batch, Family, Scan, Sync, key},
};

impl Store {
    /// Keeps a note under a name, or removes it. It is durable on return.
    ///
    /// # Errors
    /// When the store is read-only or the backend fails; nobody knows then whether it is kept, unless there was no room.
    pub fn set_note(&self, name: &[u8], note: Option<Bytes>) -> Result<()> {
        let core = self.core();
        let _publishing = core.publishing();
        core.health.check_writable()?;
        let mut batch = Batch::new();
        match note {
            Some(note) => batch.put(Family::Meta, key::note(name), note),
            None => {
                batch.uses_reserve = true;
                batch.delete(Family::Meta, key::note(name));
            }
        }
        Ok(core.backend.write(batch, Sync::Yes)?)
    }

    /// The notes whose names begin with `prefix`, with their names, in order.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn notes(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let rows = self.core().backend.scan(Family::Meta, Scan::prefix(&key::note(prefix)))?;
        rows.map(|row| row.map(|(name, note)| (name.slice(key::NOTE.len()..), note)).map_err(Into::into)).collect()
    }
}
