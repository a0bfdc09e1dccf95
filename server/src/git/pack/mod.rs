//! Git's packs (Documentation/gitformat-pack.adoc): receiving and sending them.
//!
//! | file | owns |
//! |---|---|
//! | `entry` | the header of an entry |
//! | `spool` | a pack on its way in or out, in memory or in a temporary file |
//! | `stream` | the first pass: entries as they arrive, in bounded memory |
//! | `resolve` | the second pass: deltas on their bases |
//! | `receive` | both passes, the checks, and what a push does with the result |
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
pub(crate) mod spool;
mod stream;
pub(crate) mod write;

pub(crate) use stream::inflate;
