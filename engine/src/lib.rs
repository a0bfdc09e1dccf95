//! The memory engine of govc: Git values, references, versions, transactions, and the formats they are stored in.
//!
//! The engine knows nothing of HTTP, users or any database; it is given a [`backend::Backend`] and is synchronous.
//! What it stores and how is in `FORMAT.md`.

#![warn(missing_docs)]

pub mod backend;
pub mod block;
mod error;
pub mod object;
pub mod refs;
pub mod repo;
pub mod store;

pub use backend::{Backend, BackendError, BackendErrorKind, BackendResult, Batch, Family, Scan};
pub use error::{Error, ErrorKind, RefConflict, Result};
pub use object::{Commit, EntryMode, Kind, Oid, OidPrefix, Signature, Tag, TreeEntry, hash_object, tree_entries};
pub use object::{ObjectHasher, PackHasher};
pub use refs::{Expected, Origin, Reality, RefChange, RefEdit, RefName};
pub use repo::*;
pub use store::*;
