//! The operations on a repository, one verb a file: readers on [`crate::Snapshot`], writers on [`crate::Repo`].

mod ancestry;
mod changes;
mod commit;
mod connectivity;
mod files;
mod filter;
mod integrate;
mod log;
mod merge;
mod oid_set;
mod reach;
mod reality;
mod references;
mod resolve;
mod staging;
mod walk;

pub use ancestry::merge_base;
pub use changes::{ChangeSet, ChangeStatus, FileChange, PathChange};
pub use commit::{Change, CommitRequest, Committed, Content, OnConflict};
pub use connectivity::{Connectivity, Known};
pub use files::{ListOptions, ListedEntry, Listing, Visit};
pub use filter::{Filter, PathRule};
pub use integrate::{Integration, Promotion};
pub use log::{LogCursor, LogOptions, LogPage};
pub use oid_set::IdHasher;
pub use reach::{Reach, ReachOptions, Similar};
pub use reality::{Comparison, NewRealities, PromoteRequest, Promoted};
pub use resolve::TAG_DEPTH_MAX;
pub use staging::{CommitDetails, Staging};
pub use walk::Walk;

/// Directories may be nested this deep in what is written at once, and in what is read by paths: walks over trees recurse. Several
/// pushes can build deeper ones; those are fetched and kept like others.
pub const TREE_DEPTH_MAX: usize = 1024;

/// # Errors
/// [`crate::ErrorKind::TooLarge`] for a directory at this depth.
pub(crate) fn check_depth(depth: usize) -> crate::Result<()> {
    if depth > TREE_DEPTH_MAX {
        let message = format!("directories are nested deeper than {TREE_DEPTH_MAX}");
        return Err(crate::Error::new(crate::ErrorKind::TooLarge, message));
    }
    Ok(())
}

/// # Errors
/// [`crate::ErrorKind::Cancelled`] once `deadline` has passed.
pub(crate) fn check_deadline(deadline: Option<std::time::Instant>) -> crate::Result<()> {
    if deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline) {
        return Err(crate::Error::new(crate::ErrorKind::Cancelled, "the time for this request is over"));
    }
    Ok(())
}
