//! The suite finds what it is there to find: each defect fails the check that names it.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use govc_backends::contract::{self, Subject};
use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, Survivors};
use govc_engine::backend::{
    Backend, BackendError, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Op, Precondition,
    Scan, Sync, Usage,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Defect {
    /// Drops preconditions.
    IgnoresPreconditions,
    /// Names the wrong precondition.
    MiscountsPreconditions,
    /// Writes each operation by itself.
    TearsBatches,
    /// Takes the end of a deleted range too.
    DeletesRangeEnd,
    /// Applies deletions first.
    DeletesFirst,
    /// Keeps two families in one place.
    MixesFamilies,
    /// Takes an excluded bound for an included one.
    IncludesExcluded,
    /// Never scans backwards.
    IgnoresReverse,
    /// Shows an open scan what is written later.
    ScansLive,
    /// Checks, and writes some time later.
    ChecksEarly,
    /// Has a lock around checked writes only.
    LocksOnlyChecked,
    /// Answers after it was closed.
    StaysOpen,
}

struct Broken {
    inner: MemoryBackend,
    defect: Defect,
    lock: Mutex<()>,
}

impl Broken {
    fn family(&self, family: Family) -> Family {
        if self.defect == Defect::MixesFamilies && family == Family::Blocks { Family::Ids } else { family }
    }

    fn check_early(&self, batch: &mut Batch) -> BackendResult<()> {
        let mut probe = Batch::new();
        probe.preconditions = std::mem::take(&mut batch.preconditions);
        let checked = !probe.preconditions.is_empty();
        self.inner.write(probe, Sync::No)?;
        if checked {
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Backend for Broken {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.inner.get(self.family(family), key)
    }

    fn scan(&self, family: Family, mut scan: Scan) -> BackendResult<Entries<'_>> {
        let family = self.family(family);
        match self.defect {
            Defect::IgnoresReverse => scan.reverse = false,
            Defect::IncludesExcluded => {
                if let Bound::Excluded(key) = scan.from {
                    scan.from = Bound::Included(key);
                }
            }
            Defect::ScansLive => {
                let first: Vec<_> = self.inner.scan(family, scan.clone())?.take(1).collect();
                // A snapshot only once the rest is asked for.
                let rest = std::iter::once_with(move || self.inner.scan(family, scan))
                    .flat_map(|rest| rest.into_iter().flatten().skip(1));
                return Ok(Box::new(first.into_iter().chain(rest)));
            }
            _ => {}
        }
        self.inner.scan(family, scan)
    }

    fn write(&self, mut batch: Batch, sync: Sync) -> BackendResult<()> {
        for op in &mut batch.ops {
            match op {
                Op::Put { family, .. } | Op::Delete { family, .. } => *family = self.family(*family),
                Op::DeleteRange { family, to, .. } => {
                    *family = self.family(*family);
                    if self.defect == Defect::DeletesRangeEnd {
                        to.push(0);
                    }
                }
            }
        }
        for precondition in &mut batch.preconditions {
            let (Precondition::Absent { family, .. } | Precondition::Value { family, .. }) = precondition;
            *family = self.family(*family);
        }
        match self.defect {
            Defect::IgnoresPreconditions => batch.preconditions.clear(),
            Defect::DeletesFirst => batch.ops.sort_by_key(|op| matches!(op, Op::Put { .. })),
            Defect::ChecksEarly => self.check_early(&mut batch)?,
            Defect::LocksOnlyChecked if !batch.preconditions.is_empty() => {
                let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
                self.check_early(&mut batch)?;
                return self.inner.write(batch, sync);
            }
            Defect::TearsBatches => {
                let mut probe = Batch::new();
                probe.preconditions = std::mem::take(&mut batch.preconditions);
                for op in std::mem::take(&mut batch.ops) {
                    probe.ops.push(op);
                    self.inner.write(std::mem::take(&mut probe), sync)?;
                    std::thread::yield_now();
                }
                return self.inner.write(probe, sync);
            }
            _ => {}
        }
        self.inner.write(batch, sync).map_err(|mut error: BackendError| {
            if let (Defect::MiscountsPreconditions, BackendErrorKind::PreconditionFailed { index }) =
                (self.defect, &mut error.kind)
            {
                *index = 0;
            }
            error
        })
    }

    fn sync(&self) -> BackendResult<()> {
        self.inner.sync()
    }

    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.inner.usage()
    }

    fn close(&self) -> BackendResult<()> {
        if self.defect == Defect::StaysOpen { Ok(()) } else { self.inner.close() }
    }
}

impl Subject for Defect {
    fn open(&mut self) -> Arc<dyn Backend> {
        Arc::new(Broken { inner: MemoryBackend::new(), defect: *self, lock: Mutex::new(()) })
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        None
    }
}

/// The message with which the suite refuses a subject, which is empty if it does not.
fn refusal(subject: &mut dyn Subject) -> String {
    match catch_unwind(AssertUnwindSafe(|| contract::run(subject))) {
        Ok(()) => String::new(),
        Err(panic) => *panic.downcast::<String>().expect("a message"),
    }
}

#[test]
fn each_defect_fails_the_check_that_names_it() {
    let cases = [
        (Defect::IgnoresPreconditions, "failed_precondition_writes_nothing: "),
        (Defect::MiscountsPreconditions, "failed_precondition_writes_nothing: "),
        (Defect::TearsBatches, "readers_see_whole_batches: "),
        (Defect::DeletesRangeEnd, "delete_range_is_half_open: "),
        (Defect::DeletesFirst, "last_operation_on_a_key_wins: "),
        (Defect::MixesFamilies, "families_are_isolated: "),
        (Defect::IncludesExcluded, "scan_bounds_agree_with_a_model: "),
        (Defect::IgnoresReverse, "scan_bounds_agree_with_a_model: "),
        (Defect::ScansLive, "scan_shows_one_moment: "),
        (Defect::ChecksEarly, "one_creator_wins: "),
        (Defect::LocksOnlyChecked, "plain_writes_stay_out_of_checked_ones: "),
        (Defect::StaysOpen, "closed_backend_answers_closed: "),
    ];
    for (mut defect, name) in cases {
        let message = refusal(&mut defect);
        assert!(message.starts_with(name), "{defect:?}: {message}");
    }
}

/// A store whose syncs do nothing from its first day on, found only by opening it again.
struct Forgetful {
    last: Option<Arc<FaultBackend>>,
}

impl Subject for Forgetful {
    fn open(&mut self) -> Arc<dyn Backend> {
        // A failed sync freezes what is durable; here that is nothing.
        let backend = Arc::new(FaultBackend::new(FaultPlan::none().fail_sync(1)));
        backend.sync().expect_err("the first sync fails");
        self.last = Some(Arc::clone(&backend));
        backend
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        let disk = self.last.take()?.crash(Survivors::Synced).expect("crash");
        Some(Arc::new(disk))
    }
}

#[test]
fn a_backend_whose_syncs_do_nothing_is_refused() {
    let message = refusal(&mut Forgetful { last: None });
    assert!(message.starts_with("large_values: "), "{message}");
}
