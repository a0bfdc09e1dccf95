//! What a backend holds as a whole: nothing, a store with its identity, or a store that is still being filled by a tool.
//!
//! A store gets a random identity when it is begun, and keeps it when its rows are copied. While a copy or restoration
//! fills a backend, a note says so; [`super::Store::open`] refuses it then, and who goes on knows what it began.

use std::fmt;

use super::core::Core;
use crate::{
    Error, Result,
    backend::{Backend, Batch, Family, Scan, Sync, key},
};

/// The versions of the whole layout, the first one first.
const FORMATS: [&[u8]; 3] = [b"govc store 1", b"govc store 2", b"govc store 3"];

/// What programs do not understand that know only earlier versions of the layout. Each goes with all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    /// Objects are in an index instead of rows: such a program would miss them.
    Indexes = 1,
    /// Chunks of large contents are behind the blocks of a pool: such a program would take them for a segment that nothing
    /// leads to, and remove them when it stores the pool anew.
    LargeContents = 2,
}

/// What tells a store, and its copies, from others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    fn new() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::new(crate::ErrorKind::Backend, format!("the system gives no random numbers: {error}"))
        })?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for StoreId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a backend holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Nothing at all.
    Nothing,
    /// A store.
    Store(StoreId),
    /// What a tool has not finished, with its note.
    Unfinished(String),
}

impl Holding {
    /// Looks at a backend, without changing it.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it holds something else, or a store of another format; else when the backend fails.
    pub fn of(backend: &dyn Backend) -> Result<Self> {
        if let Some(note) = backend.get(Family::Meta, key::UNFINISHED)? {
            return Ok(Self::Unfinished(String::from_utf8_lossy(&note).into_owned()));
        }
        if !is_store(backend)? {
            return Ok(Self::Nothing);
        }
        let id = stored_id(backend)?;
        id.map(Self::Store).ok_or_else(|| {
            Error::corrupt(
                "the store has no identity yet: it is given one when this version serves it for the first time",
            )
        })
    }

    /// The identity that is stored in a backend, whether what it holds is finished or not.
    ///
    /// # Errors
    /// When the backend fails or the row is damaged.
    pub fn stored_id(backend: &dyn Backend) -> Result<Option<StoreId>> {
        stored_id(backend)
    }

    /// A number that each opening of the store in a backend raises, so that of two copies of one moment the one that has
    /// been served since has the greater.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn openings(backend: &dyn Backend) -> Result<u64> {
        backend.get(Family::Meta, key::NEXT_SEQ)?.map_or(Ok(0), |stored| key::trailing_u64(&stored))
    }

    /// Notes in a backend that a tool begins to fill it, durably.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn begin_filling(backend: &dyn Backend, note: &str) -> Result<()> {
        let mut batch = Batch::new();
        batch.put(Family::Meta, key::UNFINISHED.to_vec(), note.as_bytes().to_vec());
        Ok(backend.write(batch, Sync::Yes)?)
    }

    /// Whether this is the row of a tool's note, which is no part of a store.
    pub fn is_note(family: Family, row_key: &[u8]) -> bool {
        family == Family::Meta && row_key == key::UNFINISHED
    }

    /// Notes that the tool is done, with everything it wrote durable.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn end_filling(backend: &dyn Backend) -> Result<()> {
        let mut batch = Batch::new();
        batch.delete(Family::Meta, key::UNFINISHED.to_vec());
        Ok(backend.write(batch, Sync::Yes)?)
    }
}

/// Whether a backend holds a store of this format, or nothing.
fn is_store(backend: &dyn Backend) -> Result<bool> {
    let Some(format) = backend.get(Family::Meta, key::FORMAT)? else {
        for family in Family::ALL {
            if backend.scan(family, Scan::all())?.next().transpose()?.is_some() {
                return Err(Error::corrupt("the storage holds data of an unknown format"));
            }
        }
        return Ok(false);
    };
    level(&format).map(|_| true)
}

/// The place of a version among [`FORMATS`].
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if it is not one of them.
fn level(format: &[u8]) -> Result<usize> {
    FORMATS.iter().position(|known| *known == format).ok_or_else(|| {
        let [found, first, last] = [format, FORMATS[0], FORMATS[FORMATS.len() - 1]].map(String::from_utf8_lossy);
        Error::corrupt(format!("the storage holds {found:?}; this program reads {first:?} to {last:?}"))
    })
}

fn stored_id(backend: &dyn Backend) -> Result<Option<StoreId>> {
    let stored = backend.get(Family::Meta, key::STORE_ID)?;
    let read = |stored: bytes::Bytes| {
        let id = <[u8; 16]>::try_from(&stored[..]).map_err(|_| Error::corrupt("the store's identity is damaged"))?;
        Ok(StoreId(id))
    };
    stored.map(read).transpose()
}

/// Makes sure that a backend holds a store that is finished, or begins one in an empty backend; gives its identity.
pub(crate) fn open(backend: &dyn Backend) -> Result<StoreId> {
    if let Some(note) = backend.get(Family::Meta, key::UNFINISHED)? {
        let note = String::from_utf8_lossy(&note);
        return Err(Error::invalid(format!("the storage is not finished: {note}; let that end, or begin it again")));
    }
    if is_store(backend)?
        && let Some(id) = stored_id(backend)?
    {
        return Ok(id);
    }
    let id = StoreId::new()?;
    let mut batch = Batch::new();
    batch.put(Family::Meta, key::FORMAT.to_vec(), FORMATS[0]);
    batch.put(Family::Meta, key::STORE_ID.to_vec(), id.0.to_vec());
    backend.write(batch, Sync::Yes)?;
    Ok(id)
}

impl Core {
    /// Says in the backend that the store is not for programs that do not know `feature`, unless it says so already. That
    /// is not synced: what is written from now on reaches the disk after it.
    ///
    /// # Errors
    /// When the backend fails; the caller writes nothing of the feature then.
    pub(super) fn raise_format(&self, feature: Feature) -> Result<()> {
        let wanted = feature as usize;
        // Under one lock, so that nobody takes back what another has said.
        let mut said = self.format.lock();
        if said.is_some_and(|said| said >= wanted) {
            return Ok(());
        }
        let stored = self.backend.get(Family::Meta, key::FORMAT)?;
        let stored = level(&stored.ok_or_else(|| Error::corrupt("the storage does not say its format any more"))?)?;
        if stored < wanted {
            let mut batch = Batch::new();
            batch.put(Family::Meta, key::FORMAT.to_vec(), FORMATS[wanted]);
            self.backend.write(batch, Sync::No)?;
        }
        *said = Some(stored.max(wanted));
        Ok(())
    }
}
