//! Backups: one moment of a store in a file, whole or as what has changed since another backup.

mod create;
mod file;
mod restore;

pub use create::{BackupOptions, Made, create};
pub use file::{Header, fuzz_backup};
pub use restore::{Restored, restore};
