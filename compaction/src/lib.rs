//! Compaction: a pool's objects stored anew, each as a delta against the base that makes it small.
//!
//! ```text
//! history.rs   in which order: by kind, then path, newest first
//! features.rs  which objects are alike, whatever their paths
//! plan.rs      against which base each is stored
//! compact.rs   reads, plans and writes a pool, and has the engine install it
//! schedule.rs  when a pool is worth it, and which first
//! ```
//!
//! The engine owns encodings, reading and installing ([`govc_engine::Rewrite`]); here it is only decided what is stored
//! how.

#![warn(missing_docs)]

mod compact;
mod features;
mod history;
mod plan;
mod schedule;

pub use compact::{CompactOptions, compact};
pub use schedule::{Due, Schedule};
