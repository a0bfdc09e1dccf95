//! When a search has to end.

use std::time::Instant;

use govc_engine::{Error, ErrorKind, Result};

/// Whether the time is over.
pub(crate) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Checks that there is time left.
///
/// # Errors
/// Cancelled if there is none.
pub(crate) fn check(deadline: Option<Instant>) -> Result<()> {
    if is_past(deadline) {
        return Err(Error::new(ErrorKind::Cancelled, "the search took too long"));
    }
    Ok(())
}
