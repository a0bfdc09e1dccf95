//! The tests of `it` that depend on ids, with repositories of SHA-256.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "../it/budget.rs"]
mod budget;
#[path = "../it/commit.rs"]
mod commit;
#[path = "../it/conflict.rs"]
mod conflict;
#[path = "../it/failure.rs"]
mod failure;
#[path = "../it/feed.rs"]
mod feed;
#[path = "../it/fork.rs"]
mod fork;
#[path = "../it/fsck.rs"]
mod fsck;
#[path = "../it/garbage.rs"]
mod garbage;
#[path = "../it/helper.rs"]
mod helper;
#[path = "../it/history.rs"]
mod history;
#[path = "../it/lanes.rs"]
mod lanes;
#[path = "../it/linear.rs"]
mod linear;
#[path = "../it/model.rs"]
mod model;
#[path = "../it/publish.rs"]
mod publish;
#[path = "../it/read.rs"]
mod read;
#[path = "../it/reality.rs"]
mod reality;
#[path = "../it/recovery.rs"]
mod recovery;
#[path = "../it/rewrite.rs"]
mod rewrite;
#[path = "../it/segments.rs"]
mod segments;
