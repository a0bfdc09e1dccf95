//! The whole publish path under shuttle: a scheduler that decides at every lock, atomic and channel which thread goes on.
//!
//! Each test is a model: a small store, a few writers and readers, and what must hold in every order of their steps. The
//! engine's README tells how to run them and what they leave out; `run.rs`, how often they run and how a failure is
//! repeated.

#![cfg(shuttle)]
#![allow(clippy::unwrap_used, reason = "a model that fails may panic")]

mod conflict;
mod crash;
mod failure;
mod lifetime;
mod publish;
mod run;
mod world;
