//! The wrappers keep the contract of what they wrap, and do what they are for.

use std::sync::Arc;

use govc_backends::contract::{self, Subject};
use govc_backends::observed::{BOUNDS_MICROS, Call, CallFigures, FamilyFigures, ObservedBackend};
use govc_backends::{FaultBackend, FaultPlan, MemoryBackend, OverlayBackend};
use govc_engine::backend::{Backend, BackendErrorKind, Batch, Family, Scan, Sync};

use crate::put;

/// What does not outlive its handle.
struct Fresh(fn() -> Arc<dyn Backend>);

impl Subject for Fresh {
    fn open(&mut self) -> Arc<dyn Backend> {
        (self.0)()
    }

    fn reopen(&mut self) -> Option<Arc<dyn Backend>> {
        None
    }
}

#[test]
fn observed_keeps_the_contract() {
    contract::run(&mut Fresh(|| Arc::new(ObservedBackend::new(Arc::new(MemoryBackend::new())))));
}

#[test]
fn overlay_keeps_the_contract_over_nothing() {
    contract::run(&mut Fresh(|| Arc::new(OverlayBackend::new(Arc::new(MemoryBackend::new())))));
}

/// Every key of the contract's checks that was there and has been removed is under it.
#[test]
fn overlay_keeps_the_contract_over_removed_entries() {
    contract::run(&mut Fresh(|| {
        let under = MemoryBackend::new();
        let mut batch = Batch::new();
        for family in Family::ALL {
            for byte in 0..=u8::MAX {
                batch.put(family, vec![byte], vec![byte]);
                batch.put(family, vec![byte, byte], vec![byte]);
            }
            batch.put(family, Vec::new(), &b"empty"[..]);
        }
        under.write(batch, Sync::No).expect("fill");
        let overlay = OverlayBackend::new(Arc::new(under));
        let mut batch = Batch::new();
        for family in Family::ALL {
            batch.delete(family, Vec::new());
            batch.delete_range(family, vec![0], vec![255; 3]);
        }
        overlay.write(batch, Sync::No).expect("remove");
        Arc::new(overlay)
    }));
}

#[test]
fn an_overlay_changes_nothing_under_it() {
    let under = Arc::new(MemoryBackend::new());
    for key in [b"a", b"c", b"e"] {
        under.write(put(key, b"under"), Sync::No).expect("fill");
    }
    let overlay = OverlayBackend::new(under.clone());
    let mut batch = Batch::new();
    batch.require_value(Family::Refs, b"a".to_vec(), &b"under"[..]);
    batch.require_absent(Family::Refs, b"b".to_vec());
    batch.put(Family::Refs, b"b".to_vec(), &b"over"[..]);
    batch.put(Family::Refs, b"c".to_vec(), &b"over"[..]);
    batch.delete(Family::Refs, b"e".to_vec());
    overlay.write(batch, Sync::Yes).expect("write");
    let mut refused = put(b"x", b"x");
    refused.require_value(Family::Refs, b"c".to_vec(), &b"under"[..]);
    let error = overlay.write(refused, Sync::Yes).expect_err("c was written");
    assert_eq!(error.kind, BackendErrorKind::PreconditionFailed { index: 0 });

    let text = |backend: &dyn Backend, scan: Scan| -> String {
        let entries = backend.scan(Family::Refs, scan).expect("scan").map(|entry| entry.expect("entry"));
        entries.map(|(key, value)| format!("{}={} ", key.escape_ascii(), value.escape_ascii())).collect()
    };
    assert_eq!(text(&overlay, Scan::all()), "a=under b=over c=over ");
    assert_eq!(text(&overlay, Scan::all().reversed()), "c=over b=over a=under ");
    assert_eq!(text(&*under, Scan::all()), "a=under c=under e=under ");
    overlay.close().expect("close");
    assert_eq!(text(&*under, Scan::all()), "a=under c=under e=under ");
}

#[test]
fn what_is_asked_is_counted_by_family_and_call() {
    let fault = Arc::new(FaultBackend::new(FaultPlan::none()));
    let observed = ObservedBackend::new(fault.clone());
    observed.write(put(b"ab", b"123"), Sync::Yes).expect("write");
    observed.write(put(b"cd", b"4567"), Sync::No).expect("write");
    let mut batch = Batch::new();
    batch.delete(Family::Ids, b"x".to_vec());
    batch.delete_range(Family::Ids, b"x".to_vec(), b"y".to_vec());
    observed.write(batch, Sync::No).expect("write");
    fault.fail_next_write();
    observed.write(put(b"lost", b"lost"), Sync::Yes).expect_err("planned");
    observed.sync().expect("sync");
    assert!(observed.get(Family::Refs, b"ab").expect("get").is_some());
    let keys = [b"cd".to_vec(), b"no".to_vec()];
    assert_eq!(observed.get_many(Family::Refs, &keys).expect("get_many").len(), 2);
    assert_eq!(observed.scan(Family::Refs, Scan::all()).expect("scan").count(), 2);
    assert_eq!(observed.scan(Family::Refs, Scan::all()).expect("scan").take(1).count(), 1);

    let figures = observed.figures();
    for (family, found) in figures.families {
        let wanted = match family {
            Family::Refs => FamilyFigures {
                keys_read: 3,
                keys_missed: 1,
                bytes_read: 7,
                scans: 2,
                entries_scanned: 3,
                bytes_scanned: 5 + 6 + 5,
                keys_written: 2,
                bytes_written: 11,
                removals: 0,
            },
            Family::Ids => FamilyFigures { removals: 2, ..FamilyFigures::default() },
            _ => FamilyFigures::default(),
        };
        assert_eq!(found, wanted, "{}", family.name());
    }
    let calls: Vec<_> = figures.calls.iter().map(|(call, figures)| (*call, figures.calls, figures.errors)).collect();
    let wanted = [
        (Call::Get, 1, 0),
        (Call::GetMany, 1, 0),
        (Call::Scan, 2, 0),
        (Call::Write, 2, 0),
        (Call::WriteSynced, 2, 1),
        (Call::Sync, 1, 0),
    ];
    assert_eq!(calls, wanted);
}

#[test]
fn calls_are_timed_in_classes() {
    let delay = std::time::Duration::from_millis(30);
    let slow = FaultBackend::new(FaultPlan::none().delay_seeded(1, 1000, delay));
    let observed = ObservedBackend::new(Arc::new(slow));
    observed.write(put(b"a", b"a"), Sync::No).expect("write");
    let figures = observed.figures();
    let CallFigures { total, classes, .. } = figures.calls[Call::Write as usize].1;
    assert!(total >= delay);
    let class = classes.iter().position(|count| *count > 0).expect("a class");
    // The class is that of the time, whatever it was.
    let micros = total.as_nanos() as u64;
    assert!(class == BOUNDS_MICROS.len() || micros <= BOUNDS_MICROS[class] * 1000);
    assert!(micros > BOUNDS_MICROS[class - 1] * 1000);
}
