//! The benchmark of storage backends, for users: the same work on each, contents verified, and a report.
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | what is to be measured |
//! | [`subject`] | a backend under measurement |
//! | [`progress`] | what is shown meanwhile |
//! | [`report`] | what was found: table, `report.json`, `report.html` |
//! | [`compare`] | two reports beside each other |
//!
//! What each workload does is in the crate's `README.md`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use govc_backend_bench::{Amounts, Plan, Profile, Silent, Subject, Survival, run};
//! use govc_backends::MemoryBackend;
//! use govc_engine::{Backend, BackendResult};
//!
//! struct Memory;
//!
//! impl Subject for Memory {
//!     fn name(&self) -> &str {
//!         "memory"
//!     }
//!
//!     fn survival(&self) -> Survival {
//!         Survival::Nothing
//!     }
//!
//!     fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
//!         Ok(Arc::new(MemoryBackend::new()))
//!     }
//!
//!     fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
//!         None
//!     }
//!
//!     fn clear(&mut self) {}
//! }
//!
//! let plan = Plan { amounts: Amounts::brief(), ..Plan::new(Profile::Agents) };
//! let report = run(&plan, &mut [Box::new(Memory)], &mut Silent)?;
//! assert!(report.is_complete());
//! println!("{}", report.table());
//! # Ok::<(), govc_backend_bench::Error>(())
//! ```

pub mod compare;
mod disk;
mod error;
mod inputs;
mod machine;
mod measure;
pub mod plan;
pub mod progress;
mod random;
pub mod report;
mod run;
mod store;
pub mod subject;
mod workload;

pub use compare::Comparison;
pub use error::{Error, ErrorKind, Result};
pub use machine::Machine;
pub use plan::{Amounts, Plan, Profile, Stop, Wrapper, workloads};
pub use progress::{Bar, Progress, Silent};
pub use report::Report;
pub use run::run;
pub use subject::{Subject, Survival};
