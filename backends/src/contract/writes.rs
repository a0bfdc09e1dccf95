//! Checks of single batches: what they leave, in which order their operations apply, when they are refused.

use bytes::Bytes;
use govc_engine::backend::{BackendErrorKind, Batch, Family, Scan, Sync};

use super::{Check, Subject};

/// Larger than any buffer of any backend.
const LARGE_BYTES: usize = 64 << 20;

pub(super) fn put_get_delete(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    check.same("get from an empty store", check.ok("get", backend.get(Family::Ids, b"key")), None);
    check.same("scan of an empty store", check.entries("scan", backend.scan(Family::Ids, Scan::all())), Vec::new());

    let values: [&'static [u8]; 3] = [b"", b"\0", b"\xff\x00value"];
    for (number, value) in values.into_iter().enumerate() {
        let sync = if number == 0 { Sync::Yes } else { Sync::No };
        let mut batch = Batch::new();
        batch.put(Family::Ids, b"key".to_vec(), value);
        check.ok("put", backend.write(batch, sync));
        let found = check.ok("get", backend.get(Family::Ids, b"key"));
        check.same("value as it was put", found.as_deref(), Some(value));
    }
    for near in [&b"ke"[..], b"key\0", b"kez", b"KEY"] {
        check.same("get of a near key", check.ok("get", backend.get(Family::Ids, near)), None);
    }

    let mut batch = Batch::new();
    batch.delete(Family::Ids, b"key".to_vec());
    batch.delete(Family::Ids, b"never there".to_vec());
    check.ok("delete", backend.write(batch, Sync::No));
    check.same("get after delete", check.ok("get", backend.get(Family::Ids, b"key")), None);

    check.ok("an empty batch", backend.write(Batch::new(), Sync::No));
    check.ok("an empty synced batch", backend.write(Batch::new(), Sync::Yes));
    check.ok("sync", backend.sync());
}

pub(super) fn last_operation_on_a_key_wins(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let mut batch = Batch::new();
    batch.put(Family::Refs, b"a".to_vec(), &b"1"[..]);
    batch.put(Family::Refs, b"a".to_vec(), &b"2"[..]);
    batch.put(Family::Refs, b"b".to_vec(), &b"1"[..]);
    batch.delete(Family::Refs, b"b".to_vec());
    batch.delete(Family::Refs, b"c".to_vec());
    batch.put(Family::Refs, b"c".to_vec(), &b"3"[..]);
    batch.put(Family::Refs, b"d".to_vec(), &b"1"[..]);
    batch.delete_range(Family::Refs, b"d".to_vec(), b"f".to_vec());
    batch.put(Family::Refs, b"e".to_vec(), &b"4"[..]);
    check.ok("write", backend.write(batch, Sync::No));
    let wanted = [(b"a", b"2"), (b"c", b"3"), (b"e", b"4")].map(|(key, value)| (key.to_vec(), value.to_vec()));
    check.same("entries", check.entries("scan", backend.scan(Family::Refs, Scan::all())), wanted.to_vec());
}

pub(super) fn families_are_isolated(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let mut batch = Batch::new();
    for family in Family::ALL {
        batch.put(family, b"key".to_vec(), family.name().as_bytes());
    }
    check.ok("write", backend.write(batch, Sync::No));
    let mut batch = Batch::new();
    batch.delete(Family::Catalog, b"key".to_vec());
    batch.delete_range(Family::Meta, Vec::new(), b"z".to_vec());
    batch.put(Family::Journal, b"other".to_vec(), &b""[..]);
    check.ok("write", backend.write(batch, Sync::No));

    for family in Family::ALL {
        let own = (b"key".to_vec(), family.name().as_bytes().to_vec());
        let wanted = match family {
            Family::Catalog | Family::Meta => Vec::new(),
            Family::Journal => vec![own, (b"other".to_vec(), Vec::new())],
            _ => vec![own],
        };
        let found = check.entries("scan", backend.scan(family, Scan::all()));
        check.same(&format!("entries of {}", family.name()), found, wanted);
    }
}

pub(super) fn delete_range_is_half_open(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let keys: [&[u8]; 7] = [b"a", b"b", b"b\0", b"b\xff\xff", b"c", b"c\0", b"d"];
    let fill = || {
        let mut batch = Batch::new();
        for key in keys {
            batch.put(Family::Blocks, key.to_vec(), &b"value"[..]);
        }
        check.ok("fill", backend.write(batch, Sync::No));
    };
    let cases: [(&[u8], &[u8]); 6] =
        [(b"b", b"c"), (b"b", b"b"), (b"c", b"b"), (b"", b"b\0"), (b"b\0", b"\xff\xff"), (b"x", b"z")];
    for (from, to) in cases {
        fill();
        let mut batch = Batch::new();
        batch.delete_range(Family::Blocks, from.to_vec(), to.to_vec());
        check.ok("delete_range", backend.write(batch, Sync::No));
        let left = check.entries("scan", backend.scan(Family::Blocks, Scan::all()));
        let left: Vec<Vec<u8>> = left.into_iter().map(|(key, _)| key).collect();
        let wanted: Vec<Vec<u8>> =
            keys.iter().filter(|key| !(from <= **key && **key < to)).map(|key| key.to_vec()).collect();
        check.same(&format!("keys left by {}..{}", from.escape_ascii(), to.escape_ascii()), left, wanted);
    }
}

pub(super) fn failed_precondition_writes_nothing(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let mut batch = Batch::new();
    batch.put(Family::History, b"there".to_vec(), &b"1"[..]);
    check.ok("fill", backend.write(batch, Sync::No));

    type Require = fn(&mut Batch);
    let refused: [(&str, usize, Require); 5] = [
        ("absent, but there", 0, |batch| batch.require_absent(Family::History, b"there".to_vec())),
        ("another value", 1, |batch| {
            batch.require_absent(Family::History, b"nowhere".to_vec());
            batch.require_value(Family::History, b"there".to_vec(), &b"2"[..]);
        }),
        ("a value that begins alike", 0, |batch| {
            batch.require_value(Family::History, b"there".to_vec(), &b"11"[..]);
        }),
        ("a value, but absent", 0, |batch| {
            batch.require_value(Family::History, b"nowhere".to_vec(), &b""[..]);
        }),
        ("the value in another family", 2, |batch| {
            batch.require_value(Family::History, b"there".to_vec(), &b"1"[..]);
            batch.require_absent(Family::Refs, b"there".to_vec());
            batch.require_value(Family::Refs, b"there".to_vec(), &b"1"[..]);
        }),
    ];
    for (what, index, require) in refused {
        let mut batch = Batch::new();
        batch.put(Family::History, b"new".to_vec(), &b"new"[..]);
        batch.delete(Family::History, b"there".to_vec());
        require(&mut batch);
        check.fails(what, backend.write(batch, Sync::Yes), BackendErrorKind::PreconditionFailed { index });
        let wanted = vec![(b"there".to_vec(), b"1".to_vec())];
        check.same(what, check.entries("scan", backend.scan(Family::History, Scan::all())), wanted);
    }

    let mut batch = Batch::new();
    batch.require_value(Family::History, b"there".to_vec(), &b"1"[..]);
    batch.require_absent(Family::History, b"nowhere".to_vec());
    check.ok("preconditions that hold, and nothing to write", backend.write(batch.clone(), Sync::Yes));
    batch.put(Family::History, b"new".to_vec(), &b"new"[..]);
    check.ok("preconditions that hold", backend.write(batch, Sync::No));
    check.same(
        "value written under preconditions",
        check.ok("get", backend.get(Family::History, b"new")).as_deref(),
        Some(&b"new"[..]),
    );
}

pub(super) fn preconditions_see_the_state_before_the_batch(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    for turn in 0..2_u8 {
        let mut batch = Batch::new();
        if turn == 0 {
            batch.require_absent(Family::Catalog, b"key".to_vec());
        } else {
            batch.require_value(Family::Catalog, b"key".to_vec(), vec![0_u8]);
        }
        batch.put(Family::Catalog, b"key".to_vec(), vec![turn]);
        check.ok("a batch that writes the key it asks about", backend.write(batch, Sync::No));
    }
    let found = check.ok("get", backend.get(Family::Catalog, b"key"));
    check.same("value", found.as_deref(), Some(&[1][..]));
}

pub(super) fn large_values(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    // Not compressible into nothing, and different at each position.
    let value: Vec<u8> = (0..LARGE_BYTES).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 13) as u8).collect();
    let value = Bytes::from(value);
    let mut batch = Batch::new();
    batch.put(Family::Blocks, b"large".to_vec(), value.clone());
    batch.put(Family::Blocks, b"small".to_vec(), &b"small"[..]);
    check.ok("write of 64 MiB", backend.write(batch, Sync::Yes));

    // Compared by hand: a message with 64 MiB of numbers helps nobody.
    let found = check.ok("get", backend.get(Family::Blocks, b"large"));
    check.holds("large value as it was put", found.as_ref() == Some(&value));
    let scanned = check.entries("scan", backend.scan(Family::Blocks, Scan::prefix(b"large")));
    check.holds("large value in a scan", scanned.len() == 1 && scanned[0].1 == value);
    check.same(
        "the value beside it",
        check.ok("get", backend.get(Family::Blocks, b"small")).as_deref(),
        Some(&b"small"[..]),
    );
    drop(backend);
    if let Some(backend) = subject.reopen() {
        let found = check.ok("get", backend.get(Family::Blocks, b"large"));
        check.holds("large value after opening again", found.as_ref() == Some(&value));
    }
}
