//! The govc server: Git repositories over HTTP, as an API and as Git's own protocol.
//!
//! | module | what it owns |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`config`] | settings: flags, environment, file |
//! | `serve` | sockets, signals, starting and stopping |
//! | `app` | what all handlers share |
//! | `http` | REST under `/api/v1`, health, metrics, problem documents |
//! | [`git`] | Git's protocol: references, packs, pushes |
//! | `lfs` | Git LFS: large contents and locks |
//! | `archive` | the files of a commit as tar and zip |
//! | `ssh` | Git over SSH: who may come in, channels |
//! | `tls`, `connection` | HTTPS; HTTP on a connection |
//! | `export` | repositories written as files that git reads |
//! | `import` | repositories brought in from folders, bundles and Git servers |
//! | `work` | bounded threads for long work |
//! | `telemetry` | log, metrics, the layers around every request |
//!
//! Deliberately absent: anything that starts a program or a shell, reads a git configuration, or knows how
//! data are stored. Only [`config`] reads files and the environment.
//!
//! ```
//! use govc_server::App;
//! use govc_backends::Location;
//! use govc_server::config::Config;
//!
//! let mut config = Config::default();
//! config.storage.backend = Location::Memory;
//! let app = App::open(config)?;
//! let routes = govc_server::router(app);
//! # let _ = routes;
//! # Ok::<(), govc_server::OpenError>(())
//! ```

mod admin;
mod app;
mod archive;
pub mod cli;
mod client;
mod compaction;
pub mod config;
mod connection;
mod definitions;
mod export;
pub mod git;
mod http;
mod import;
mod lfs;
mod pattern;
mod pauses;
mod priority;
mod serve;
mod ssh;
mod telemetry;
mod tls;
mod transactions;
mod work;

pub use app::{App, OpenError};
pub use archive::fuzz_attributes;
pub use import::fuzz_import;
pub use serve::router;
pub use ssh::fuzz_keys;
pub use telemetry::Metrics;
pub use work::{WorkError, WorkOptions, WorkPool, WorkStats};
