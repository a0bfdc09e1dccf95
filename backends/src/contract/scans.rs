//! Checks of scans and of reading several keys.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use govc_engine::backend::{Batch, Family, Scan, Sync};

use super::{Check, Subject};

/// More than a scan may fetch at a time.
const MANY: u32 = 3000;

pub(super) fn scan_bounds_agree_with_a_model(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let keys: [&[u8]; 8] = [b"\0", b"a", b"a\0", b"a\xff", b"b", b"c", b"\xff", b"\xff\xff"];
    let mut model = BTreeMap::new();
    let mut batch = Batch::new();
    for (number, key) in keys.into_iter().enumerate() {
        let value = vec![number as u8];
        batch.put(Family::Ids, key.to_vec(), value.clone());
        model.insert(key.to_vec(), value);
    }
    // Neighbouring families hold keys within all bounds.
    batch.put(Family::Blocks, b"a".to_vec(), &b"other"[..]);
    batch.put(Family::Meta, b"a".to_vec(), &b"other"[..]);
    check.ok("write", backend.write(batch, Sync::No));

    let mut bounds = vec![Bound::Unbounded];
    for key in keys.into_iter().chain([&b""[..], b"aa", b"bb", b"\xff\xff\xff"]) {
        bounds.push(Bound::Included(key.to_vec()));
        bounds.push(Bound::Excluded(key.to_vec()));
    }
    for from in &bounds {
        for to in &bounds {
            for reverse in [false, true] {
                let within = |key: &Vec<u8>| RangeBounds::<Vec<u8>>::contains(&(from.as_ref(), to.as_ref()), key);
                let mut wanted: Vec<(Vec<u8>, Vec<u8>)> = model
                    .iter()
                    .filter(|(key, _)| within(key))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                if reverse {
                    wanted.reverse();
                }
                let scan = Scan { from: from.clone(), to: to.clone(), reverse };
                let what = format!("{scan:?}");
                check.same(&what, check.entries(&what, backend.scan(Family::Ids, scan)), wanted);
            }
        }
    }
}

pub(super) fn prefix_scans(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let keys: [&[u8]; 9] =
        [b"a", b"ab", b"ab\0", b"ab\xff", b"ab\xff\xff", b"ac", b"\xff", b"\xff\xff", b"\xff\xff\x01"];
    let mut batch = Batch::new();
    for key in keys {
        batch.put(Family::History, key.to_vec(), &b""[..]);
    }
    check.ok("write", backend.write(batch, Sync::No));
    for prefix in [&b""[..], b"a", b"ab", b"ab\xff", b"b", b"\xff", b"\xff\xff", b"\xff\xff\xff"] {
        for reverse in [false, true] {
            let mut wanted: Vec<Vec<u8>> =
                keys.iter().filter(|key| key.starts_with(prefix)).map(|key| key.to_vec()).collect();
            let mut scan = Scan::prefix(prefix);
            if reverse {
                wanted.reverse();
                scan = scan.reversed();
            }
            let what = format!("prefix {}, reverse {reverse}", prefix.escape_ascii());
            let found = check.entries(&what, backend.scan(Family::History, scan));
            check.same(&what, found.into_iter().map(|(key, _)| key).collect(), wanted);
        }
    }
}

pub(super) fn scan_shows_one_moment(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let mut batch = Batch::new();
    for number in 0..MANY {
        batch.put(Family::Refs, number.to_be_bytes().to_vec(), number.to_be_bytes().to_vec());
    }
    check.ok("fill", backend.write(batch, Sync::No));

    for reverse in [false, true] {
        let scan = if reverse { Scan::all().reversed() } else { Scan::all() };
        let mut entries = check.ok("scan", backend.scan(Family::Refs, scan));
        let first = entries.next().map(|entry| check.ok("first entry", entry).0.to_vec());
        let wanted = if reverse { MANY - 1 } else { 0 };
        check.same("first key", first, Some(wanted.to_be_bytes().to_vec()));

        let mut batch = Batch::new();
        for number in 0..MANY {
            match number % 3 {
                0 => batch.delete(Family::Refs, number.to_be_bytes().to_vec()),
                1 => batch.put(Family::Refs, number.to_be_bytes().to_vec(), &b"changed"[..]),
                _ => {
                    let mut between = number.to_be_bytes().to_vec();
                    between.push(0);
                    batch.put(Family::Refs, between, &b"new"[..]);
                }
            }
        }
        check.ok("write during a scan", backend.write(batch, Sync::No));

        let mut seen = 1;
        for entry in entries {
            let (key, value) = check.ok("entry", entry);
            check.same("an entry of the scan's moment", &key, &value);
            seen += 1;
        }
        check.same("entries of the scan's moment", seen, MANY);

        // Back to the beginning for the other direction.
        let mut batch = Batch::new();
        batch.delete_range(Family::Refs, Vec::new(), vec![0xff; 8]);
        for number in 0..MANY {
            batch.put(Family::Refs, number.to_be_bytes().to_vec(), number.to_be_bytes().to_vec());
        }
        check.ok("fill again", backend.write(batch, Sync::No));
    }
}

pub(super) fn get_many_keeps_the_order(check: &Check, subject: &mut dyn Subject) {
    let backend = subject.open();
    let mut batch = Batch::new();
    for key in [b"a", b"b", b"c"] {
        batch.put(Family::Ids, key.to_vec(), key.to_vec());
    }
    check.ok("write", backend.write(batch, Sync::No));
    let keys: Vec<Vec<u8>> = ["c", "nowhere", "a", "c", "", "b"].map(|key| key.as_bytes().to_vec()).into();
    let found = check.ok("get_many", backend.get_many(Family::Ids, &keys));
    let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
    let wanted: Vec<Option<&[u8]>> = vec![Some(b"c"), None, Some(b"a"), Some(b"c"), None, Some(b"b")];
    check.same("values", found, wanted);
    check.same("values of no keys", check.ok("get_many", backend.get_many(Family::Ids, &[])), Vec::new());
}
