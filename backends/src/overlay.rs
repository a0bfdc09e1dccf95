//! A wrapper that keeps writes in memory and leaves what is under it alone, so that a store that must not change (a copy
//! that is checked, one that another process serves) can be opened like any other.
//!
//! Memory has an entry for each key that was written: its value, or that it is gone. A reader asks memory first. A scan
//! merges both in key order; what memory holds is taken at the moment of the call, and what is under it must not change.

use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Op, Precondition,
    Scan, Sync, Usage,
};
use imbl::OrdMap;
use parking_lot::RwLock;

use crate::memory::precondition_failed;
use crate::span::Span;

/// What is written over each key: a value, or nothing.
type Layer = OrdMap<Bytes, Option<Bytes>>;

/// A [`Backend`] whose writes go to memory only.
pub struct OverlayBackend {
    under: Arc<dyn Backend>,
    layers: RwLock<[Layer; Family::ALL.len()]>,
    /// Set once; orders nothing.
    closed: AtomicBool,
}

impl OverlayBackend {
    /// Nothing written yet over `under`, which nobody may write from now on.
    pub fn new(under: Arc<dyn Backend>) -> Self {
        Self { under, layers: RwLock::default(), closed: AtomicBool::new(false) }
    }

    fn check_open(&self) -> BackendResult<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(BackendError::new(BackendErrorKind::Closed, "the overlay is closed"));
        }
        Ok(())
    }

    fn check(&self, layers: &[Layer], preconditions: &[Precondition]) -> BackendResult<()> {
        for (index, precondition) in preconditions.iter().enumerate() {
            let (family, key, wanted) = match precondition {
                Precondition::Absent { family, key } => (*family, key, None),
                Precondition::Value { family, key, value } => (*family, key, Some(value)),
            };
            let found = match layers[family as usize].get(key.as_slice()) {
                Some(written) => written.clone(),
                None => self.under.get(family, key)?,
            };
            if found.as_ref() != wanted {
                return Err(precondition_failed(index, family, key));
            }
        }
        Ok(())
    }

    /// The writes of `op` over the layer of its family.
    fn apply(&self, layers: &mut [Layer], op: Op) -> BackendResult<()> {
        match op {
            Op::Put { family, key, value } => {
                layers[family as usize].insert(Bytes::from(key), Some(value));
            }
            Op::Delete { family, key } => {
                layers[family as usize].insert(Bytes::from(key), None);
            }
            Op::DeleteRange { family, from, to } => {
                let Some(span) = Span::new(from, Some(to)) else { return Ok(()) };
                let layer = &mut layers[family as usize];
                let written: Vec<Bytes> = layer.range::<_, [u8]>(span.bounds()).map(|(key, _)| key.clone()).collect();
                let under = self.under.scan(family, span.into_scan())?;
                let under = under.map(|entry| entry.map(|(key, _)| key)).collect::<BackendResult<Vec<_>>>()?;
                for key in written.into_iter().chain(under) {
                    layer.insert(key, None);
                }
            }
        }
        Ok(())
    }
}

impl Backend for OverlayBackend {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.check_open()?;
        if let Some(written) = self.layers.read()[family as usize].get(key) {
            return Ok(written.clone());
        }
        self.under.get(family, key)
    }

    fn get_many(&self, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
        self.check_open()?;
        let layer = self.layers.read()[family as usize].clone();
        let mut found: Vec<_> = keys.iter().map(|key| layer.get(key.as_slice()).cloned()).collect();
        let open: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
        let asked: Vec<Vec<u8>> = open.iter().map(|at| keys[*at].clone()).collect();
        for (at, value) in open.into_iter().zip(self.under.get_many(family, &asked)?) {
            found[at] = Some(value);
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.check_open()?;
        let layer = self.layers.read()[family as usize].clone();
        let reverse = scan.reverse;
        let under = self.under.scan(family, scan.clone())?;
        let Some(span) = Span::of(scan) else { return Ok(Box::new(std::iter::empty())) };
        let mut written: Vec<_> =
            layer.range::<_, [u8]>(span.bounds()).map(|(key, value)| (key.clone(), value.clone())).collect();
        if reverse {
            written.reverse();
        }
        Ok(Box::new(Merged { written: written.into_iter().peekable(), under: under.peekable(), reverse }))
    }

    fn write(&self, batch: Batch, _sync: Sync) -> BackendResult<()> {
        let mut layers = self.layers.write();
        self.check_open()?;
        self.check(&*layers, &batch.preconditions)?;
        // On a copy, which shares everything: an error under it leaves nothing half done.
        let mut changed = layers.clone();
        for op in batch.ops {
            self.apply(&mut changed, op)?;
        }
        *layers = changed;
        Ok(())
    }

    fn sync(&self) -> BackendResult<()> {
        self.check_open()
    }

    fn describe(&self) -> Description {
        Description { durable: false, ..self.under.describe() }
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.check_open()?;
        self.under.usage()
    }

    /// Forgets what was written; `under` stays open.
    fn close(&self) -> BackendResult<()> {
        self.closed.store(true, Ordering::Relaxed);
        *self.layers.write() = Default::default();
        Ok(())
    }
}

/// What was written, and what is under it where nothing was.
struct Merged<W: Iterator<Item = (Bytes, Option<Bytes>)>, U: Iterator<Item = BackendResult<(Bytes, Bytes)>>> {
    written: Peekable<W>,
    under: Peekable<U>,
    reverse: bool,
}

impl<W, U> Iterator for Merged<W, U>
where
    W: Iterator<Item = (Bytes, Option<Bytes>)>,
    U: Iterator<Item = BackendResult<(Bytes, Bytes)>>,
{
    type Item = BackendResult<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((written, _)) = self.written.peek() else { return self.under.next() };
            if let Some(under) = self.under.peek() {
                let Ok((under, _)) = under else { return self.under.next() };
                if if self.reverse { under > written } else { under < written } {
                    return self.under.next();
                }
                if under == written {
                    self.under.next();
                }
            }
            if let Some((key, Some(value))) = self.written.next() {
                return Some(Ok((key, value)));
            }
        }
    }
}
