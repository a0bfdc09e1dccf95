//! The memory engine of govc: Git values, references, versions, transactions, and the formats they are stored in.
//!
//! The engine knows nothing of HTTP, users or any database; it is given a [`backend::Backend`] and is synchronous.
//! What it stores and how is in `FORMAT.md`.
//!
//! # Use as a library
//!
//! A [`Store`] is opened on a backend and holds repositories. Reads go through a [`Snapshot`], which never changes; a
//! write returns as soon as later writers can build on it, with a [`Ticket`] to wait on for its durability.
//!
//! ```
//! use std::sync::Arc;
//!
//! use govc_backends::MemoryBackend;
//! use govc_engine::{Change, CommitRequest, RefName, RepoName, RepoSettings, Signature, Store, StoreOptions};
//!
//! // Open a store, create a repository, commit.
//! let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default())?;
//! let repo = store.create(&RepoName::new("ada/notes")?, RepoSettings::default(), "ada")?;
//! let (main, ada) = (RefName::branch("main")?, Signature::new("Ada", "ada@example.org", 1_700_000_000, 60)?);
//! let changes = vec![Change::put("README.md", "# Notes\n"), Change::put("src/lib.rs", "// nothing yet\n")];
//! let first = repo.commit(CommitRequest::new(main.clone(), "begin", ada.clone(), changes))?;
//! // In a durable repository, readers see it from here on.
//! first.published.ticket.wait()?;
//!
//! // Read: a file of a branch, a directory, the history.
//! let snapshot = repo.snapshot();
//! let file = snapshot.entry(first.oid, b"README.md")?.expect("it was committed");
//! assert_eq!(snapshot.object(&file.oid)?.data, "# Notes\n");
//! assert_eq!(snapshot.resolve("main")?, first.oid);
//! assert_eq!(snapshot.commit(&first.oid)?.message, b"begin\n");
//!
//! // Branch, and commit there; the first snapshot stays as it is.
//! let topic = RefName::branch("topic")?;
//! repo.create_ref(topic.clone(), first.oid, "ada")?.ticket.wait()?;
//! let changes = vec![Change::delete("src")];
//! repo.commit(CommitRequest::new(topic.clone(), "tidy", ada, changes))?.published.ticket.wait()?;
//! assert!(snapshot.reference(&topic).is_none());
//! assert_eq!(repo.snapshot().reference_count(), 2);
//! # Ok::<(), govc_engine::Error>(())
//! ```
//!
//! Any earlier version can be read, by number or time, and restored:
//!
//! ```
//! # use std::sync::Arc;
//! # use govc_backends::MemoryBackend;
//! # use govc_engine::{Change, CommitRequest, RefName, RepoName, RepoSettings, Signature, Store, StoreOptions};
//! use govc_engine::At;
//!
//! # let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default())?;
//! # let repo = store.create(&RepoName::new("notes")?, RepoSettings::default(), "ada")?;
//! # let (main, ada) = (RefName::branch("main")?, Signature::new("Ada", "ada@example.org", 1_700_000_000, 60)?);
//! let put = |text: &'static str| CommitRequest::new(main.clone(), text, ada.clone(), vec![Change::put("file", text)]);
//! let (one, two) = (repo.commit(put("one"))?, repo.commit(put("two"))?);
//! two.published.ticket.wait()?;
//! let before = repo.at(At::Version(one.published.version), None)?;
//! assert_eq!(before.reference(&main), Some(one.oid));
//!
//! repo.restore(one.published.version, "ada", None)?.ticket.wait()?;
//! assert_eq!(repo.snapshot().reference(&main), Some(one.oid));
//! let causes: Vec<_> = repo.versions(None, 10)?.iter().map(|version| version.cause.as_str()).collect();
//! assert_eq!(causes, ["restore", "commit", "commit", "create"]);
//! # Ok::<(), govc_engine::Error>(())
//! ```
//!
//! Realities are isolated lines of work, made by the thousand in one call, promoted to a branch or dropped:
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use govc_backends::MemoryBackend;
//! # use govc_engine::{Change, CommitRequest, RefName, RepoName, RepoSettings, Signature, Store, StoreOptions};
//! use govc_engine::{NewRealities, PromoteRequest, Promotion};
//!
//! # let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default())?;
//! # let repo = store.create(&RepoName::new("notes")?, RepoSettings::default(), "ada")?;
//! # let (main, ada) = (RefName::branch("main")?, Signature::new("Ada", "ada@example.org", 1_700_000_000, 60)?);
//! let first = repo.commit(CommitRequest::new(main.clone(), "begin", ada.clone(), vec![Change::put("config", "0")]))?;
//! let names = (0..1000).map(|at| RefName::reality(&format!("try-{at}"))).collect::<Result<Vec<_>, _>>()?;
//! repo.create_realities(NewRealities {
//!     names: names.clone(),
//!     base: first.oid,
//!     version: first.published.version,
//!     from: Some(main.clone()),
//!     ttl: Some(Duration::from_secs(3600)),
//!     actor: "ada".to_owned(),
//! })?;
//! let tried = repo.commit(CommitRequest::new(names[7].clone(), "7", ada.clone(), vec![Change::put("config", "7")]))?;
//! let promoted = repo.promote(&PromoteRequest {
//!     reality: names[7].clone(),
//!     target: main.clone(),
//!     promotion: Promotion::FastForward,
//!     keep: false,
//!     committer: ada,
//!     message: None,
//!     actor: "ada".to_owned(),
//!     deadline: None,
//! })?;
//! promoted.published.ticket.wait()?;
//! assert_eq!(repo.snapshot().reference(&main), Some(tried.oid));
//! assert_eq!(repo.snapshot().realities(None).count(), 999);
//! # Ok::<(), govc_engine::Error>(())
//! ```
//!
//! A fork has what its source has now, costs nothing, and outlives it:
//!
//! ```
//! # use std::sync::Arc;
//! # use govc_backends::MemoryBackend;
//! # use govc_engine::{Change, CommitRequest, RefName, RepoName, RepoSettings, Signature, Store, StoreOptions};
//! # let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default())?;
//! # let source = RepoName::new("notes")?;
//! # let repo = store.create(&source, RepoSettings::default(), "ada")?;
//! # let (main, ada) = (RefName::branch("main")?, Signature::new("Ada", "ada@example.org", 1_700_000_000, 60)?);
//! # let first = repo.commit(CommitRequest::new(main.clone(), "begin", ada.clone(), vec![Change::put("file", "0")]))?;
//! # first.published.ticket.wait()?;
//! let fork = store.fork(&source, &RepoName::new("bob/notes")?, "bob")?;
//! store.delete(&source)?;
//! assert_eq!(fork.snapshot().commit(&first.oid)?.message, b"begin\n");
//! # Ok::<(), govc_engine::Error>(())
//! ```
//!
//! Objects, expectations and several references at once are [`Transaction`]'s; staged changes, checked before they are
//! committed, [`Staging`]'s; what happened since, in order, [`Store::feed_after`]'s.

#![warn(missing_docs)]

pub mod backend;
pub mod block;
mod error;
pub mod object;
mod progress;
pub mod refs;
pub mod repo;
pub mod store;
mod sync;

pub use backend::{Backend, BackendError, BackendErrorKind, BackendResult, Batch, Family, Scan};
pub use error::{Error, ErrorKind, RefConflict, Result};
pub use object::{
    Commit, EntryMode, Kind, ObjectFormat, Oid, OidPrefix, Signature, Tag, TreeEntry, hash_object, tree_entries,
};
pub use object::{ObjectHasher, PackHasher};
pub use progress::{Progress, Silent};
pub use refs::{Expected, Origin, Reality, RefChange, RefEdit, RefName};
pub use repo::*;
pub use store::*;
