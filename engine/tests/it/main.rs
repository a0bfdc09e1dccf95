//! The engine through its public interface, on backends that can fail, fill up and crash.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod budget;
mod commit;
mod conflict;
mod failure;
mod feed;
mod fork;
mod format;
mod fsck;
mod garbage;
mod helper;
mod history;
mod lanes;
mod lfs;
mod linear;
mod model;
mod publish;
mod read;
mod reality;
mod recovery;
mod rewrite;
mod segments;
