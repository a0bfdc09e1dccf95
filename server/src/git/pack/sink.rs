//! Where a pack's objects go once they are hashed and checked: into memory while they are few and small, then into
//! blocks. Each thread has a sink with blocks of its own; only the calling thread's holds objects in memory.

use std::collections::HashMap;

use bytes::Bytes;
use govc_engine::{
    Ingest, Kind, Lane, Oid, Result,
    block::{Base, Location},
};
use parking_lot::Mutex;

use super::targets::NotedTargets;

/// What rides in the journal at most; beyond either, a push goes into blocks.
const RIDE_BYTES_MAX: usize = 1 << 20;
const RIDE_OBJECTS_MAX: usize = 2000;
/// Deltas of one chunk of [`Made`].
const CHUNK: usize = 64 << 10;

/// Objects held in memory until their transaction.
pub(super) type Riding = HashMap<Oid, (Kind, Bytes)>;

/// An object that came whole: entry, id, kind, and where it is stored if it is.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    pub(super) entry: u32,
    pub(super) oid: Oid,
    pub(super) kind: Kind,
    pub(super) location: Option<Location>,
}

/// An object that a delta has made.
pub(super) struct Resolved<'a> {
    pub(super) entry: u32,
    pub(super) kind: Kind,
    pub(super) data: &'a Bytes,
    pub(super) delta: &'a [u8],
    /// Where the base is; `None` if it is not among the pack's objects in blocks, or the chain is long enough.
    pub(super) base: Option<Base>,
    /// Whether the chain begins at an object that the pack does not hold.
    pub(super) is_thin: bool,
}

/// The entries that are deltas, and what they have made; in chunks that are moved and dropped one by one: of large packs, all
/// together have gigabytes.
pub(super) type Made = Vec<Vec<(u32, Oid)>>;

/// The sinks of one pack.
pub(super) struct Sinks<'a> {
    ingest: &'a Ingest,
    targets: &'a NotedTargets,
    /// Of threads that have ended, for those that begin.
    others: Mutex<Vec<Sink<'a>>>,
}

/// What all sinks have got.
pub(super) struct Stored {
    pub(super) riding: Riding,
    /// Whether there is something in blocks.
    pub(super) spilled: bool,
    /// `None` if the pack stands on objects that it does not hold.
    pub(super) made: Option<Made>,
}

impl<'a> Sinks<'a> {
    pub(super) fn new(ingest: &'a Ingest, targets: &'a NotedTargets) -> Self {
        Self { ingest, targets, others: Mutex::default() }
    }

    /// The calling thread's sink, for a pack of so many entries.
    pub(super) fn first(&self, entries: u32) -> Sink<'a> {
        self.sink(entries as usize > RIDE_OBJECTS_MAX)
    }

    /// A sink for a thread beside the calling one, which is started only when that one's goes into blocks.
    pub(super) fn take(&self) -> Sink<'a> {
        self.others.lock().pop().unwrap_or_else(|| self.sink(true))
    }

    /// Takes back what a thread has had.
    pub(super) fn put(&self, sink: Sink<'a>) {
        self.others.lock().push(sink);
    }

    fn sink(&self, spilled: bool) -> Sink<'a> {
        Sink {
            targets: self.targets,
            lane: self.ingest.lane(),
            riding: Vec::new(),
            riding_bytes: 0,
            spilled,
            wholes: Vec::new(),
            made: Some(Made::new()),
        }
    }

    /// The whole objects that have come, in the order of their entries.
    pub(super) fn wholes(&self, first: &mut Sink<'_>) -> Vec<Whole> {
        let mut wholes = std::mem::take(&mut first.wholes);
        for sink in self.others.lock().iter_mut() {
            wholes.append(&mut sink.wholes);
        }
        wholes.sort_unstable_by_key(|whole| whole.entry);
        wholes
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Lane::finish`].
    pub(super) fn finish(self, first: Sink<'_>) -> Result<Stored> {
        let riding = first.riding.into_iter().map(|(_, oid, kind, data)| (oid, (kind, data))).collect();
        let (spilled, mut made) = (first.spilled, first.made);
        first.lane.finish()?;
        for sink in self.others.into_inner() {
            made = made.zip(sink.made).map(|(made, more)| made.into_iter().chain(more).collect());
            sink.lane.finish()?;
        }
        Ok(Stored { riding, spilled, made })
    }
}

/// What one thread does with objects.
pub(super) struct Sink<'a> {
    targets: &'a NotedTargets,
    lane: Lane<'a>,
    /// With the entry, for objects that are no deltas.
    riding: Vec<(Option<u32>, Oid, Kind, Bytes)>,
    riding_bytes: usize,
    spilled: bool,
    wholes: Vec<Whole>,
    /// `None` once a chain began at an object that the pack does not hold: nobody asks for it then.
    made: Option<Made>,
}

impl Sink<'_> {
    /// Whether objects go into blocks: from then on other threads may work beside this one.
    pub(super) fn has_spilled(&self) -> bool {
        self.spilled
    }

    /// Takes a whole object.
    ///
    /// # Errors
    /// `Invalid` or `Corrupt` for what is refused; as [`Lane::add`].
    pub(super) fn whole(&mut self, entry: u32, kind: Kind, data: &[u8]) -> Result<()> {
        let oid = self.targets.check(kind, data)?;
        let location = if self.spilled {
            Some(self.lane.add(oid, kind, data.len() as u64, Base::Whole, data)?)
        } else {
            self.ride(Some(entry), oid, kind, Bytes::copy_from_slice(data))?
        };
        self.wholes.push(Whole { entry, oid, kind, location });
        Ok(())
    }

    /// Takes an object that a delta has made; gives its id, and where it is stored if it is.
    ///
    /// # Errors
    /// As [`Sink::whole`].
    pub(super) fn resolved(&mut self, object: &Resolved<'_>) -> Result<(Oid, Option<Location>)> {
        let Resolved { entry, kind, data, delta, base, is_thin } = *object;
        let oid = self.targets.check(kind, data)?;
        if is_thin {
            self.made = None;
        }
        if let Some(made) = &mut self.made {
            match made.last_mut().filter(|chunk| chunk.len() < CHUNK) {
                Some(chunk) => chunk.push((entry, oid)),
                None => made.push(vec![(entry, oid)]),
            }
        }
        if !self.spilled {
            return Ok((oid, self.ride(None, oid, kind, data.clone())?));
        }
        // On an object outside of the pack a chain begins anew: else each push would make it longer.
        let (base, body) = base.map_or((Base::Whole, &data[..]), |base| (base, delta));
        Ok((oid, Some(self.lane.add(oid, kind, data.len() as u64, base, body)?)))
    }

    fn ride(&mut self, entry: Option<u32>, oid: Oid, kind: Kind, data: Bytes) -> Result<Option<Location>> {
        if self.riding_bytes + data.len() <= RIDE_BYTES_MAX && self.riding.len() < RIDE_OBJECTS_MAX {
            self.riding_bytes += data.len();
            self.riding.push((entry, oid, kind, data));
            return Ok(None);
        }
        self.spilled = true;
        let location = self.lane.add(oid, kind, data.len() as u64, Base::Whole, &data)?;
        self.spill()?;
        Ok(Some(location))
    }

    /// Moves what rides into blocks.
    fn spill(&mut self) -> Result<()> {
        for (entry, oid, kind, data) in self.riding.drain(..) {
            let location = self.lane.add(oid, kind, data.len() as u64, Base::Whole, &data)?;
            let place = |entry| self.wholes.binary_search_by_key(&entry, |whole| whole.entry).ok();
            if let Some(whole) = entry.and_then(place).and_then(|at| self.wholes.get_mut(at)) {
                whole.location = Some(location);
            }
        }
        Ok(())
    }
}
