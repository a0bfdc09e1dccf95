//! What asks a running server from the command line.

mod ask;
mod reindex;
mod search;

pub(crate) use reindex::ReindexArgs;
pub(crate) use search::SearchArgs;
