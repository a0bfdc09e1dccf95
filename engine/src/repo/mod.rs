//! The operations on a repository, one verb a file: readers on [`crate::Snapshot`], writers on [`crate::Repo`].

mod changes;
mod commit;
mod connectivity;
mod files;
mod log;
mod reach;
mod references;
mod resolve;

pub use changes::{ChangeSet, ChangeStatus, FileChange};
pub use commit::{Change, CommitRequest, Committed, Content};
pub use connectivity::{Connectivity, Known};
pub use files::{ListOptions, ListedEntry, Listing, Visit};
pub use log::{LogCursor, LogOptions, LogPage};
pub use reach::{Reach, ReachOptions};

/// # Errors
/// [`crate::ErrorKind::Cancelled`] once `deadline` has passed.
pub(crate) fn check_deadline(deadline: Option<std::time::Instant>) -> crate::Result<()> {
    if deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
        return Err(crate::Error::new(crate::ErrorKind::Cancelled, "the time for this request is over"));
    }
    Ok(())
}
