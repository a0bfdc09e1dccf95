//! Finding things in a govc repository.
//!
//! A search receives a [`govc_engine::Snapshot`] and returns finished answers as of that version: it knows
//! nothing of HTTP or of people, keeps no state between calls and never sees a half-published change.
//!
//! - [`grep()`] reads every wanted file of one commit and reports matching lines.
//!
//! ```
//! use std::sync::Arc;
//! use govc_engine::{RepoName, RepoSettings, Store, StoreOptions};
//!
//! # fn main() -> govc_engine::Result<()> {
//! let store = Store::open(Arc::new(govc_backends::MemoryBackend::new()), StoreOptions::default())?;
//! let repo = store.create(&RepoName::new("demo")?, RepoSettings::default(), "example")?;
//! // No commit yet, so there is nothing to search in; a pattern is checked before anything is read.
//! assert!(repo.snapshot().resolve_commit("HEAD").is_err());
//! let query = govc_search::GrepQuery { pattern: "fn (".into(), regex: true, ..Default::default() };
//! assert!(query.check().is_err());
//! store.close()
//! # }
//! ```

mod grep;
mod line;
mod paths;

pub use grep::{GrepAnswer, GrepQuery, Stop, grep};
pub use line::{GrepLine, MatchSpan};
