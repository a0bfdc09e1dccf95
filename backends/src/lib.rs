//! Implementations of the engine's [`Backend`](govc_engine::backend::Backend): an atomic, ordered, named map.
//!
//! | module | holds |
//! |---|---|
//! | [`memory`] | persistent maps in this process: nothing survives it |
//! | `rocksdb` (feature `rocksdb`) | one RocksDB folder, the default for durable stores |
//! | [`fault`] | a wrapper for tests: failing writes and syncs, a full disk, a crash |
//! | [`contract`] | the checks that every backend passes |
//!
//! A backend gives no meaning to keys and values. Which one to open, and where, is the server's decision.
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
pub mod memory;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
mod span;

pub use crate::fault::{FaultBackend, FaultPlan, Survivors};
pub use crate::memory::MemoryBackend;
#[cfg(feature = "rocksdb")]
pub use crate::rocksdb::{RocksBackend, RocksOptions};
