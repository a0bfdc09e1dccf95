//! Git LFS: large contents beside a repository, under `/{repo}.git/info/lfs`.
//!
//! | file | owns |
//! |---|---|
//! | `route` | paths, methods, which repository |
//! | `answer` | the media type, errors in its shape |
//! | `batch` | which contents there are, and where they go |
//! | `transfer` | contents on their way in and out |
//! | `lock` | who has reserved a path |
//!
//! Contents are the engine's ([`govc_engine::LfsObject`]): in chunks, through the same backend as everything, verified
//! before anything is visible. There are no users: everyone who reaches the server may read and write. The owner of a lock
//! is the name that a client gives with its credentials, which nobody checks.
//!
//! Deliberately absent: transfers other than `basic`, links that expire, contents that go when no file names them any more.
//! Source: git-lfs, `docs/api`.

mod answer;
mod batch;
mod lock;
mod route;
mod transfer;

pub(crate) use route::router;
