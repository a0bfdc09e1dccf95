//! The tests of `it`, with repositories of SHA-256 ids.

#[path = "../it/main.rs"]
mod it;
