//! Telling a person, or nobody, how far long work on a whole store is.

/// What hears of progress, and may ask for the end.
pub trait Progress: Sync {
    /// A stretch of work begins; of about so many bytes, if that is known.
    fn begin(&self, what: &str, bytes: Option<u64>);

    /// So many bytes more are done.
    fn advance(&self, bytes: u64);

    /// The stretch is done.
    fn end(&self);

    /// A piece of the work is done, and nothing is held that others wait for: the place to rest. [`Progress::advance`] is
    /// another; no other question may take its time.
    fn rest(&self) {}

    /// Whether the work is to end as soon as it can. Asked at least once for each batch.
    fn is_cancelled(&self) -> bool;
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _bytes: Option<u64>) {}

    fn advance(&self, _bytes: u64) {}

    fn end(&self) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}
