//! Git's packs (Documentation/gitformat-pack.adoc): receiving and sending them.
//!
//! | file | owns |
//! |---|---|
//! | `entry` | the header of an entry |
//! | `spool` | a pack on its way in or out, in memory or in a temporary file |
//! | `stream` | the first pass: entries as they arrive, in bounded memory; what has come of a pack that comes slowly |
//! | `resolve` | the second pass: deltas on their bases |
//! | `receive` | both passes, and what a push does with the result |
//! | `workers` | the threads of both passes |
//! | `sink` | what a thread does with objects: hashing, checking, storing |
//! | `targets`, `nesting` | what objects point at; how deep trees lie in each other |
//! | `send` | what a fetch is sent: a kept pack, one that is being made for another client, or a new one |
//! | `shared` | packs while they are made, for all who want them |
//! | `deliver` | sending them, each client at its own speed and without a thread |
//! | `write` | making packs |

pub(crate) mod deliver;
pub(crate) mod entry;
mod nesting;
pub(crate) mod receive;
mod resolve;
pub(crate) mod send;
pub(crate) mod shared;
mod sink;
pub(crate) mod spool;
pub(crate) mod stream;
mod targets;
pub(crate) mod workers;
pub(crate) mod write;

pub(crate) use stream::inflate;
