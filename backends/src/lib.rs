//! Implementations of the engine's [`Backend`](govc_engine::backend::Backend): an atomic, ordered, named map.
//!
//! | module | holds |
//! |---|---|
//! | [`memory`] | persistent maps in this process: nothing survives it |
//! | `rocksdb` (feature `rocksdb`) | one RocksDB folder, the default for durable stores |
//! | `sqlite` (feature `sqlite`) | one SQLite database in a folder of its own |
//! | `postgres` (feature `postgres`) | a schema of a PostgreSQL database, for stores that live on a database server |
//! | [`fault`] | a wrapper for tests: failing writes and syncs, a full disk, a crash |
//! | [`observed`] | a wrapper that counts and times what a backend is asked, by family |
//! | [`overlay`] | a wrapper that keeps writes in memory and leaves what is under it alone |
//! | [`location`] | where a store is, by a word or a URL, and how it is opened |
//! | [`contract`] | the checks that every backend passes |
//!
//! A backend gives no meaning to keys and values. Which one to open, and where, is the caller's decision.
//!
//! ```
//! use govc_backends::MemoryBackend;
//! use govc_engine::backend::{Backend, Batch, Family, Sync};
//!
//! let backend = MemoryBackend::new();
//! let mut batch = Batch::new();
//! batch.require_absent(Family::Meta, b"format".to_vec());
//! batch.put(Family::Meta, b"format".to_vec(), &b"1"[..]);
//! backend.write(batch, Sync::Yes)?;
//! assert_eq!(backend.get(Family::Meta, b"format")?.as_deref(), Some(&b"1"[..]));
//! # Ok::<(), govc_engine::backend::BackendError>(())
//! ```

pub mod contract;
pub mod fault;
pub mod location;
pub mod memory;
pub mod observed;
pub mod overlay;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
#[cfg(any(feature = "rocksdb", feature = "sqlite"))]
mod room;
mod span;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use crate::fault::{FaultBackend, FaultPlan, Survivors};
pub use crate::location::{Location, OpenOptions};
pub use crate::memory::MemoryBackend;
pub use crate::observed::ObservedBackend;
pub use crate::overlay::OverlayBackend;
#[cfg(feature = "postgres")]
pub use crate::postgres::{PostgresBackend, PostgresMoment, PostgresOptions};
#[cfg(feature = "rocksdb")]
pub use crate::rocksdb::{RocksBackend, RocksOptions};
#[cfg(feature = "sqlite")]
pub use crate::sqlite::{SqliteBackend, SqliteMoment, SqliteOptions};
