//! What asks a running server from the command line.

mod search;

pub(crate) use search::SearchArgs;
