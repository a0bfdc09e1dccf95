//! A backend in this process's memory: fast, complete, and gone with the process.
//!
//! Each family is a persistent ordered map. A batch is checked and applied under one write lock, so it is atomic
//! for every reader; a scan copies the map's root (a pointer) and then walks a moment that no later write
//! changes, holding no lock. Keys and values are kept as the [`Bytes`] that came in: a value that is a slice of a
//! larger buffer keeps that buffer alive.

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Op, Precondition,
    Scan, Sync, Usage,
};
use imbl::OrdMap;
use parking_lot::RwLock;

use crate::span::Span;

/// Entries that a scan takes from its map at a time; one descent of the tree for each page.
const PAGE_ENTRIES: usize = 256;

/// A [`Backend`] that keeps everything in memory. [`Sync::Yes`] promises nothing beyond the process.
pub struct MemoryBackend {
    /// `None` once closed.
    content: RwLock<Option<Content>>,
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackend {
    /// An empty backend.
    pub fn new() -> Self {
        Self { content: RwLock::new(Some(Content::default())) }
    }

    /// An independent backend that begins with what this one holds now. Takes constant time and shares all
    /// entries until either side changes them.
    ///
    /// # Errors
    /// [`BackendErrorKind::Closed`].
    pub fn fork(&self) -> BackendResult<Self> {
        let content = self.read(Content::clone)?;
        Ok(Self { content: RwLock::new(Some(content)) })
    }

    fn read<T>(&self, look: impl FnOnce(&Content) -> T) -> BackendResult<T> {
        self.content.read().as_ref().map(look).ok_or_else(closed)
    }
}

impl Backend for MemoryBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.read(|content| content.table(family).entries.get(key).cloned())
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        self.read(|content| {
            let entries = &content.table(family).entries;
            keys.iter().map(|key| entries.get(key.as_slice()).cloned()).collect()
        })
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        let entries = self.read(|content| content.table(family).entries.clone())?;
        Ok(Box::new(Walk::new(entries, scan).map(Ok)))
    }

    fn write(&self, batch: Batch, _sync: Sync) -> BackendResult<()> {
        let mut content = self.content.write();
        let content = content.as_mut().ok_or_else(closed)?;
        content.check(&batch.preconditions)?;
        content.apply(batch.ops);
        Ok(())
    }

    fn sync(&self) -> BackendResult<()> {
        self.read(|_| ())
    }

    fn describe(&self) -> Description {
        Description { kind: "memory", location: "this process".to_owned(), durable: false }
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.read(|content| {
            let families = Family::ALL.iter().map(|&family| (family, content.table(family).bytes)).collect();
            Usage { disk_bytes: None, families }
        })
    }

    fn close(&self) -> BackendResult<()> {
        *self.content.write() = None;
        Ok(())
    }
}

fn closed() -> BackendError {
    BackendError::new(BackendErrorKind::Closed, "the memory backend is closed")
}

/// One moment of all families. Cloning is a few pointers.
#[derive(Clone, Default)]
struct Content {
    tables: [Table; Family::ALL.len()],
}

/// One moment of one family.
#[derive(Clone, Default)]
struct Table {
    entries: OrdMap<Bytes, Bytes>,
    /// Bytes of all keys and values.
    bytes: u64,
}

impl Content {
    fn table(&self, family: Family) -> &Table {
        &self.tables[family as usize]
    }

    /// Whether all preconditions hold; the first that does not is named.
    fn check(&self, preconditions: &[Precondition]) -> BackendResult<()> {
        for (index, precondition) in preconditions.iter().enumerate() {
            let (holds, family, key) = match precondition {
                Precondition::Absent { family, key } => {
                    (!self.table(*family).entries.contains_key(key.as_slice()), *family, key)
                }
                Precondition::Value { family, key, value } => {
                    (self.table(*family).entries.get(key.as_slice()) == Some(value), *family, key)
                }
            };
            if !holds {
                return Err(precondition_failed(index, family, key));
            }
        }
        Ok(())
    }

    fn apply(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Put { family, key, value } => self.tables[family as usize].put(key, value),
                Op::Delete { family, key } => self.tables[family as usize].delete(&key),
                Op::DeleteRange { family, from, to } => {
                    self.tables[family as usize].delete_range(from, to);
                }
            }
        }
    }
}

impl Table {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        let (key_bytes, value_bytes) = (key.len(), value.len());
        match self.entries.insert(Bytes::from(key), value) {
            Some(old) => self.bytes -= old.len() as u64,
            None => self.bytes += key_bytes as u64,
        }
        self.bytes += value_bytes as u64;
    }

    fn delete(&mut self, key: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }

    fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        let Some(span) = Span::new(from, Some(to)) else { return };
        let keys: Vec<Bytes> = self.entries.range::<_, [u8]>(span.bounds()).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.delete(&key);
        }
    }
}

/// The error of a precondition that does not hold, the same words for every backend.
pub(crate) fn precondition_failed(index: usize, family: Family, key: &[u8]) -> BackendError {
    BackendError::new(
        BackendErrorKind::PreconditionFailed { index },
        format!("precondition {index} on {} key {} does not hold", family.name(), key.escape_ascii()),
    )
}

/// A walk over one moment of one family. It owns its map, so it outlives every lock; it takes entries by the
/// page because an iterator of the map would have to borrow from its own struct.
struct Walk {
    entries: OrdMap<Bytes, Bytes>,
    /// What lies beyond `page`; `None` at the end.
    rest: Option<Span>,
    reverse: bool,
    page: std::vec::IntoIter<(Bytes, Bytes)>,
}

impl Walk {
    fn new(entries: OrdMap<Bytes, Bytes>, scan: Scan) -> Self {
        let reverse = scan.reverse;
        Self { entries, rest: Span::of(scan), reverse, page: Vec::new().into_iter() }
    }

    fn next_page(&mut self) {
        let Some(span) = self.rest.take() else { return };
        let own = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let range = self.entries.range::<_, [u8]>(span.bounds());
        let page: Vec<_> = if self.reverse {
            range.rev().map(own).take(PAGE_ENTRIES).collect()
        } else {
            range.map(own).take(PAGE_ENTRIES).collect()
        };
        if let Some((last, _)) = page.last()
            && page.len() == PAGE_ENTRIES
        {
            self.rest = if self.reverse { span.before(last) } else { span.after(last) };
        }
        self.page = page.into_iter();
    }
}

impl Iterator for Walk {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.as_slice().is_empty() {
            self.next_page();
        }
        self.page.next()
    }
}
