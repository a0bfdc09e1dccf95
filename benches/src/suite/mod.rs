//! The suites: one file a question. `make bench SUITE=name` runs one of them.

mod background;
mod clone;
mod commits;
mod compaction;
mod decode;
mod engine;
mod open;
mod push;
mod reads;
mod search;
mod soak;
mod wire;

use crate::bench::Bench;
use crate::error::Result;
use crate::report::Row;

/// A named question.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Measures, verifies and gives the rows.
    pub(crate) run: fn(&Bench) -> Result<Vec<Row>>,
}

/// All of them, in the order in which they run.
pub(crate) const SUITES: &[Suite] = &[
    Suite { name: "push", run: push::run },
    Suite { name: "clone", run: clone::run },
    Suite { name: "fetches", run: wire::fetches },
    Suite { name: "pushes", run: wire::pushes },
    Suite { name: "references", run: wire::references },
    Suite { name: "commits", run: commits::run },
    Suite { name: "reads", run: reads::run },
    Suite { name: "search", run: search::run },
    Suite { name: "open", run: open::run },
    Suite { name: "engine", run: engine::run },
    Suite { name: "compaction", run: compaction::run },
    Suite { name: "background", run: background::run },
    Suite { name: "soak", run: soak::run },
];
