//! The checks that every backend passes, named one by one.
//!
//! A [`Subject`] says how to open a new, empty store and how to open the same store again. [`run`] runs every
//! check; a backend's tests call it, and a backend that fails panics with a message that begins with the
//! check's name. The checks hold what the documentation of [`Backend`] promises, and nothing more: a backend
//! may lose unsynced writes when it is opened again, as long as it loses a suffix of them.

mod concurrency;
mod durability;
mod scans;
mod writes;

use std::fmt::Debug;
use std::sync::Arc;

use govc_engine::backend::{Backend, BackendErrorKind, BackendResult, Entries};

/// A backend under test.
pub trait Subject {
    /// Opens a new, empty store, which later calls of [`Subject::reopen`] mean.
    fn open(&mut self) -> Arc<dyn Backend>;

    /// Opens the store of the last [`Subject::open`] again; the suite has dropped all handles on it. `None` if
    /// the backend does not outlive its handle.
    fn reopen(&mut self) -> Option<Arc<dyn Backend>>;
}

/// What a check does with its subject.
pub type CheckFn = fn(&Check, &mut dyn Subject);

/// Every check, by name, in the order in which [`run`] runs them.
pub const CHECKS: &[(&str, CheckFn)] = &[
    ("put_get_delete", writes::put_get_delete),
    ("last_operation_on_a_key_wins", writes::last_operation_on_a_key_wins),
    ("families_are_isolated", writes::families_are_isolated),
    ("delete_range_is_half_open", writes::delete_range_is_half_open),
    ("failed_precondition_writes_nothing", writes::failed_precondition_writes_nothing),
    ("preconditions_see_the_state_before_the_batch", writes::preconditions_see_the_state_before_the_batch),
    ("large_values", writes::large_values),
    ("scan_bounds_agree_with_a_model", scans::scan_bounds_agree_with_a_model),
    ("prefix_scans", scans::prefix_scans),
    ("scan_shows_one_moment", scans::scan_shows_one_moment),
    ("get_many_keeps_the_order", scans::get_many_keeps_the_order),
    ("readers_see_whole_batches", concurrency::readers_see_whole_batches),
    ("one_creator_wins", concurrency::one_creator_wins),
    ("no_increment_is_lost", concurrency::no_increment_is_lost),
    ("plain_writes_stay_out_of_checked_ones", concurrency::plain_writes_stay_out_of_checked_ones),
    ("synced_writes_survive", durability::synced_writes_survive),
    ("lost_writes_are_a_suffix", durability::lost_writes_are_a_suffix),
    ("random_batches_agree_with_a_model", durability::random_batches_agree_with_a_model),
    ("closed_backend_answers_closed", durability::closed_backend_answers_closed),
    ("usage_names_every_family", durability::usage_names_every_family),
];

/// Runs every check.
///
/// # Panics
/// If the backend does not keep the contract; the message names the check.
pub fn run(subject: &mut dyn Subject) {
    for &(name, check) in CHECKS {
        check(&Check { name }, subject);
    }
}

/// The check that is running; its methods panic with its name.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    name: &'static str,
}

impl Check {
    /// The value of a call that must succeed.
    #[track_caller]
    fn ok<T>(&self, what: &str, result: BackendResult<T>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => panic!("{}: {what}: {error} ({:?})", self.name, error.kind),
        }
    }

    /// A call that must fail in this way.
    #[track_caller]
    fn fails<T>(&self, what: &str, result: BackendResult<T>, kind: BackendErrorKind) {
        match result {
            Ok(_) => panic!("{}: {what}: succeeded instead of {kind:?}", self.name),
            Err(error) => self.same(what, error.kind, kind),
        }
    }

    /// Two values that must be equal.
    #[track_caller]
    fn same<T: PartialEq + Debug>(&self, what: &str, found: T, wanted: T) {
        assert!(found == wanted, "{}: {what}: found {found:?}, wanted {wanted:?}", self.name);
    }

    /// A statement that must hold.
    #[track_caller]
    fn holds(&self, what: &str, statement: bool) {
        assert!(statement, "{}: {what}", self.name);
    }

    /// The keys and values of a scan, copied.
    #[track_caller]
    fn entries(&self, what: &str, scan: BackendResult<Entries<'_>>) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.ok(what, scan)
            .map(|entry| {
                let (key, value) = self.ok(what, entry);
                (key.to_vec(), value.to_vec())
            })
            .collect()
    }

    /// The result of a thread of this check, whose panic becomes this thread's.
    fn joined<T>(&self, joined: std::thread::Result<T>) -> T {
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
