//! What watches an import: who tells people how far it is, and what bounds it.

use std::cell::Cell;
use std::io::{self, Read};
use std::time::Instant;

use govc_engine::{Error, ErrorKind, Progress, Result, Silent};

/// Hears how far an import is, and may end it.
pub(crate) trait Watch: Progress {
    /// A text for people; one that ends with a carriage return will be overwritten by the next.
    fn say(&self, text: &str);
}

impl Watch for Silent {
    fn say(&self, _text: &str) {}
}

/// How long an import may go on: until somebody ends it, or its time is over.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    watch: &'a dyn Watch,
    deadline: Option<Instant>,
}

impl<'a> Patience<'a> {
    /// One that never ends.
    #[cfg(test)]
    pub(super) const ENDLESS: Self = Self { watch: &Silent, deadline: None };

    pub(super) fn new(watch: &'a dyn Watch, deadline: Option<Instant>) -> Self {
        Self { watch, deadline }
    }

    /// Who is told how far it is.
    pub(super) fn watch(&self) -> &'a dyn Watch {
        self.watch
    }

    /// # Errors
    /// [`ErrorKind::Cancelled`] once somebody has ended it, [`ErrorKind::Unavailable`] after its time.
    pub(super) fn check(&self) -> Result<()> {
        if self.watch.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "the import was interrupted; the repository is as it was"));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::new(ErrorKind::Unavailable, "the time for the import is over (--timeout)"));
        }
        Ok(())
    }
}

/// What all packs of an import together may take.
pub(super) struct Bounds {
    taken_bytes: Cell<u64>,
    bytes_max: u64,
}

impl Bounds {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { taken_bytes: Cell::new(0), bytes_max }
    }

    /// Bytes that have come.
    pub(super) fn taken(&self) -> u64 {
        self.taken_bytes.get()
    }
}

/// A pack on its way in: counted, shown, and broken off when it must be. Its errors wrap the engine's.
pub(super) struct Watched<'a> {
    input: &'a mut dyn Read,
    /// What is done with it, for people.
    what: &'static str,
    bounds: &'a Bounds,
    patience: Patience<'a>,
    /// The pack's header, as far as it has come.
    header: Vec<u8>,
}

/// Signature, version, number of objects.
const HEADER_LEN: usize = 12;

impl<'a> Watched<'a> {
    pub(super) fn new(input: &'a mut dyn Read, what: &'static str, bounds: &'a Bounds, patience: Patience<'a>) -> Self {
        Self { input, what, bounds, patience, header: Vec::with_capacity(HEADER_LEN) }
    }

    /// Begins to show, once the pack has said how many objects it has.
    fn see_header(&mut self, bytes: &[u8]) {
        let wanted = HEADER_LEN - self.header.len();
        if wanted == 0 {
            return;
        }
        self.header.extend_from_slice(bytes.get(..wanted).unwrap_or(bytes));
        if let (HEADER_LEN, Some(count)) = (self.header.len(), self.header.last_chunk::<4>()) {
            let count = u32::from_be_bytes(*count);
            self.patience.watch.begin(&format!("{} {count} objects", self.what), None);
            self.patience.watch.advance(HEADER_LEN as u64);
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.patience.check().map_err(io::Error::other)?;
        let read = self.input.read(into)?;
        let taken = self.bounds.taken_bytes.get().saturating_add(read as u64);
        self.bounds.taken_bytes.set(taken);
        if taken > self.bounds.bytes_max {
            let max = self.bounds.bytes_max;
            let error = Error::too_large(format!("the source sends more than {max} bytes (--max-size)"));
            return Err(io::Error::other(error));
        }
        if self.header.len() < HEADER_LEN {
            self.see_header(into.get(..read).unwrap_or_default());
        } else {
            self.patience.watch.advance(read as u64);
        }
        Ok(read)
    }
}

/// The engine's error that an input's error wraps, or one that says that it could not be read.
pub(super) fn read_error(error: io::Error, from: &str) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => Error::new(ErrorKind::Unavailable, format!("reading from {from} failed: {error}")).with_source(error),
    }
}
