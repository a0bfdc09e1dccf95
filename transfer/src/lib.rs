//! Moving a whole store: copies between any two backends, backups to files, restoration from them.
//!
//! Rows are moved as they are; only [`Holding`](govc_engine::Holding) is known of what they mean. What is moved must be one
//! moment of a store that nobody changes meanwhile: a backend that no server has open, or one opened to be read.
//!
//! | to learn | read |
//! |---|---|
//! | how a copy goes on where it ended, and how it is checked | `copy.rs` |
//! | what a backup file holds, byte by byte | `backup/file.rs` |
//! | how an incremental backup finds what has changed | `backup/create.rs` |
//! | how files become a store again | `backup/restore.rs` |
//!
//! ```
//! use std::sync::Arc;
//!
//! use govc_backends::MemoryBackend;
//! use govc_engine::{Store, StoreOptions};
//! use govc_transfer::{CopyOptions, Silent, copy};
//!
//! let source = Arc::new(MemoryBackend::new());
//! let store = Store::open(source.clone(), StoreOptions::default())?;
//! // One moment of it, while it is open.
//! let moment = source.fork()?;
//! let target = Arc::new(MemoryBackend::new());
//! let copied = copy(&moment, &*target, CopyOptions::default(), &Silent)?;
//! assert_eq!(copied.written, copied.rows());
//! let copy = Store::open(target, StoreOptions::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod backup;
mod copy;
mod digest;
mod error;
mod load;
mod rows;

pub use copy::{Copied, CopyOptions, copy};
pub use digest::{Count, Digest};
pub use error::{Error, ErrorKind, Result};
pub use govc_engine::{Progress, Silent};
