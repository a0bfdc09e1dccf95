//! Workloads and figures of govc, each beside a peer in the same run.
//!
//! The release `govc` binary and its peers are driven as separate processes, the way an operator runs
//! them, so that a figure contains everything that a request costs and nothing of the client's; only the suite
//! `engine` measures in process, as a program that embeds the engine does. Seeds
//! are fixed, values are medians, contents are verified after the work, and a missing peer is an error:
//! no row is ever made up.
//!
//! | question | file |
//! |---|---|
//! | what is measured | `suite/` (one file a suite) |
//! | who is measured | `subject`, `server` (govc), `nginx`, `peer` (nginx, fcgiwrap and git) |
//! | on what data | `history`, `generate`, `random` |
//! | who asks | `git` (the real client), `http` and `wire` (raw clones), `load` (commits, reads) |
//! | what comes out | `process` (CPU, memory), `report`, `machine` |
//!
//! ```no_run
//! use clap::Parser;
//!
//! let options = govc_benches::Options::parse_from(["govc-bench", "push", "--runs", "5"]);
//! let all_verified = govc_benches::run(&options)?;
//! # assert!(all_verified);
//! # Ok::<(), govc_benches::Error>(())
//! ```

mod bench;
mod error;
mod generate;
mod git;
mod history;
mod http;
mod load;
mod machine;
mod nginx;
mod peer;
mod process;
mod random;
mod report;
mod server;
mod subject;
mod suite;
mod wire;

pub use bench::{Options, run};
pub use error::{Error, Result};
