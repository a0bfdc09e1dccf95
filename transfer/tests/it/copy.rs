//! Copies are the same, go on where they ended, and take nothing for theirs that is not.

use std::sync::Arc;

use bytes::Bytes;
use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, Survivors};
use govc_engine::backend::{
    Backend, BackendErrorKind, BackendResult, Batch, Description, Entries, Family, Op, Scan, Sync, Usage,
};
use govc_engine::{Holding, Store};
use govc_transfer::{CopyOptions, ErrorKind, Silent, copy};

use crate::{Impatient, later, options, rows, seen, source};

#[test]
fn a_copy_has_the_same_rows_and_is_a_store() {
    let (from, to) = (source(), Arc::new(MemoryBackend::new()));
    let copied = copy(&*from, &*to, CopyOptions::default(), &Silent).unwrap();
    assert_eq!(rows(&*from), rows(&*to));
    assert_eq!((copied.written, copied.removed), (rows(&*from).len() as u64, 0));
    assert_eq!(copied.rows(), copied.written);
    assert_eq!(Holding::of(&*to).unwrap(), Holding::Store(copied.store));
    let found = seen(&to);
    assert_eq!(found, seen(&from));
    assert_eq!(found.len(), 2);
}

#[test]
fn a_copy_that_failed_goes_on_whatever_the_source_did() {
    let (from, later) = {
        let from = source();
        let later = later(&from);
        (from, later)
    };
    let mut finished = 0;
    for nth in 1.. {
        let target = FaultBackend::new(FaultPlan::none().fail_write(nth));
        if copy(&*from, &target, CopyOptions::default(), &Silent).is_ok() {
            break;
        }
        let disk = Arc::new(target.crash(Survivors::Drawn(nth)).unwrap());
        if matches!(Holding::of(&*disk).unwrap(), Holding::Unfinished(_)) {
            let error = Store::open(disk.clone(), options()).map(drop).unwrap_err();
            assert!(error.to_string().contains("not finished: a copy of store"), "{error}");
            finished += 1;
        }
        copy(&*later, &*disk, CopyOptions::default(), &Silent).unwrap();
        assert_eq!(rows(&*later), rows(&*disk), "write {nth} failed");
    }
    assert!(finished >= 3, "a mark and some batches were written before it failed: {finished}");
}

#[test]
fn a_copy_ends_on_request_and_goes_on() {
    let (from, to) = (source(), Arc::new(MemoryBackend::new()));
    let error = copy(&*from, &*to, CopyOptions::default(), &Impatient::new(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(matches!(Holding::of(&*to).unwrap(), Holding::Unfinished(_)));
    let total = rows(&*from).len() as u64;
    let copied = copy(&*from, &*to, CopyOptions::default(), &Silent).unwrap();
    assert_eq!(copied.rows(), total);
    assert_eq!(rows(&*from), rows(&*to));
}

#[test]
fn a_finished_copy_is_brought_up_to_date_only_when_told() {
    let (from, to) = (source(), MemoryBackend::new());
    copy(&*from, &to, CopyOptions::default(), &Silent).unwrap();
    let later = later(&from);
    let before = rows(&to);
    let error = copy(&*later, &to, CopyOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert_eq!(rows(&to), before);

    let copied = copy(&*later, &to, CopyOptions { update: true }, &Silent).unwrap();
    assert_eq!(rows(&*later), rows(&to));
    assert!(copied.removed > 0 && copied.written > 0 && copied.written < copied.rows(), "{copied:?}");
    let again = copy(&*later, &to, CopyOptions { update: true }, &Silent).unwrap();
    assert_eq!((again.written, again.removed), (0, 0));
}

/// The line of a move, run again after the new server has started, or the wrong way round.
#[test]
fn a_copy_that_was_served_since_is_not_rolled_back() {
    let (from, to) = (source(), Arc::new(MemoryBackend::new()));
    copy(&*from, &*to, CopyOptions::default(), &Silent).unwrap();
    crate::commit(&to, &["two"], 1, true);
    let served = Arc::new(to.fork().unwrap());
    let before = rows(&*served);
    let error = copy(&*from, &*served, CopyOptions { update: true }, &Silent).unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("served since"), "{error}");
    assert_eq!(rows(&*served), before);
    copy(&*served, &*from, CopyOptions { update: true }, &Silent).unwrap();
    assert_eq!(rows(&*from), before);
}

#[test]
fn what_is_no_target_is_left_alone() {
    let from = source();
    let other = MemoryBackend::new();
    other.write(put(Family::Refs, b"x", b"y"), Sync::No).unwrap();
    let filling = MemoryBackend::new();
    Holding::begin_filling(&filling, "something else").unwrap();
    for (target, words) in [(&*source(), "another store"), (&other, "not empty"), (&filling, "something else")] {
        let before = rows(target);
        let error = copy(&*from, target, CopyOptions { update: true }, &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(rows(target), before);
    }
    for (source, words) in [(&MemoryBackend::new(), "no store"), (&filling, "not finished")] {
        let target = MemoryBackend::new();
        let error = copy(source, &target, CopyOptions::default(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(Holding::of(&target).unwrap(), Holding::Nothing);
    }
}

/// Flips a bit of one value on its way in.
struct Flipping(MemoryBackend);

impl Backend for Flipping {
    fn get(&self, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
        self.0.get(family, key)
    }

    fn scan(&self, family: Family, scan: Scan) -> BackendResult<Entries<'_>> {
        self.0.scan(family, scan)
    }

    fn write(&self, mut batch: Batch, sync: Sync) -> BackendResult<()> {
        if let Some(Op::Put { value, .. }) =
            batch.ops.iter_mut().find(|op| matches!(op, Op::Put { family: Family::Blocks, .. }))
        {
            let mut flipped = value.to_vec();
            flipped[7] ^= 1;
            *value = flipped.into();
        }
        self.0.write(batch, sync)
    }

    fn sync(&self) -> BackendResult<()> {
        self.0.sync()
    }

    fn describe(&self) -> Description {
        self.0.describe()
    }

    fn usage(&self) -> BackendResult<Usage> {
        self.0.usage()
    }

    fn close(&self) -> BackendResult<()> {
        self.0.close()
    }
}

#[test]
fn a_copy_that_is_not_the_same_is_not_finished() {
    let (from, to) = (source(), Flipping(MemoryBackend::new()));
    let error = copy(&*from, &to, CopyOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unequal);
    assert!(error.to_string().contains("family blocks"), "{error}");
    assert!(matches!(Holding::of(&to).unwrap(), Holding::Unfinished(_)));
}

#[test]
fn a_full_target_says_so() {
    let to = FaultBackend::new(FaultPlan::none());
    to.set_full(true);
    let error = copy(&*source(), &to, CopyOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert_eq!(to.write(put(Family::Refs, b"x", b"y"), Sync::No).unwrap_err().kind, BackendErrorKind::Full);
    to.set_full(false);
    copy(&*source(), &to, CopyOptions::default(), &Silent).unwrap();
}

fn put(family: Family, key: &[u8], value: &'static [u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(family, key.to_vec(), value);
    batch
}
