//! Slices come back, and lies leave them as they were.

use govc_engine::object::PackHasher;

use super::*;

fn oid(byte: u8) -> Oid {
    Oid::from_bytes(&[byte; 20]).expect("an id")
}

fn references() -> References {
    let mut references = References::default();
    for (name, byte) in [("refs/heads/main", 1), ("refs/heads/other", 1), ("refs/tags/v\u{e9}", 2)] {
        references.take(name.as_bytes(), oid(byte), Scope::Mirror, 10).expect("a reference");
    }
    references.set_head(b"refs/heads/main");
    references
}

/// A pack of so many objects, made of anything: nothing looks into it here.
fn pack(objects: u32, entries: &[u8]) -> Vec<u8> {
    let mut bytes = [&b"PACK\0\0\0\x02"[..], &objects.to_be_bytes(), entries].concat();
    let mut hasher = PackHasher::new(ObjectFormat::Sha1);
    hasher.update(&bytes);
    bytes.extend_from_slice(hasher.finish().expect("a hash").as_bytes());
    bytes
}

#[test]
fn slices_come_back_after_an_interruption_and_are_one_pack() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("imports/x");
    let mut slices = Slices::begin(&folder, "http://x/y", references(), 10, 0).expect("room");
    let ask = slices.ask(true);
    assert_eq!((ask.wants, ask.haves, ask.depth), (&[oid(1), oid(2)][..], &[][..], Some(10)));
    assert_eq!(slices.ask(false).depth, None);
    slices.take(&mut &pack(2, b"onetwo")[..], &[oid(7), oid(8)], &[]).expect("a slice");
    assert!(!slices.is_complete());

    let mut slices = Slices::open(&folder, "http://x/y", 0).expect("slices");
    let ask = slices.ask(true);
    assert_eq!((ask.haves, ask.depth), (&[oid(1), oid(2)][..], Some(50)), "a small slice lets the next be deeper");
    assert_eq!(ask.shallow, [oid(7), oid(8)]);
    slices.take(&mut &pack(1, b"three")[..], &[oid(9)], &[oid(7), oid(8)]).expect("a slice");
    slices.take(&mut &pack(0, b"")[..], &[], &[oid(9)]).expect("a slice");
    assert!(slices.is_complete());

    let slices = Slices::open(&folder, "http://x/y", 0).expect("slices");
    assert!(slices.is_complete());
    assert_eq!(slices.references().all, references().all);
    assert_eq!(slices.references().head, references().head);
    let mut joined = Vec::new();
    slices.pack().expect("a pack").read_to_end(&mut joined).expect("readable");
    assert_eq!(joined, pack(3, b"onetwothree"));
    slices.discard();
    assert!(!place.path().join("imports").exists());
}

#[test]
fn what_is_damaged_is_not_gone_on_with() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("x");
    let begin = || {
        let mut slices = Slices::begin(&folder, "http://x/y", references(), 10, 0).expect("room");
        slices.take(&mut &pack(2, b"onetwo")[..], &[oid(7)], &[]).expect("a slice");
    };
    begin();
    assert!(Slices::open(&folder, "http://x/other", 0).is_none());
    assert!(!folder.exists());
    begin();
    std::fs::write(folder.join("1.pack"), b"cut").expect("a file");
    assert!(Slices::open(&folder, "http://x/y", 0).is_none());
    begin();
    let state = std::fs::read(folder.join("state")).expect("a state");
    for cut in 0..state.len() {
        assert!(Slices::parse(&folder, &state[..cut]).is_none_or(|slices| slices.wants.len() < 3));
    }
    std::fs::write(folder.join("state"), b"govc import 2\n").expect("a file");
    assert!(Slices::open(&folder, "http://x/y", 0).is_none());
}

#[test]
fn a_lying_server_leaves_the_slices_as_they_were() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("x");
    let mut slices = Slices::begin(&folder, "http://x/y", references(), 10, 0).expect("room");
    slices.take(&mut &pack(2, b"onetwo")[..], &[oid(7)], &[]).expect("a slice");
    let mut wrong = pack(1, b"three");
    *wrong.last_mut().expect("bytes") ^= 1;
    for (bytes, word) in [
        (&wrong[..], "checksum"),
        (&pack(1, b"three")[..20], "ends early"),
        (&b"PACK\0\0\0\x03\0\0\0\0aaaaaaaaaaaaaaaaaaaa"[..], "version 2"),
        (b"", "ends early"),
        // Nothing more, and the history does not end.
        (&pack(0, b"")[..], "shallow clone"),
    ] {
        let error = slices.take(&mut &bytes[..], &[], &[]).expect_err(word);
        assert!(error.message().contains(word), "{error}");
    }
    assert_eq!(Slices::open(&folder, "http://x/y", 0).expect("slices").slices, slices.slices);
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 2, "a state and a slice");
}

#[test]
fn slices_leave_the_reserve_free() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("x");
    let mut slices = Slices::begin(&folder, "http://x/y", references(), 10, u64::MAX).expect("room");
    slices.take(&mut &pack(2, b"onetwo")[..], &[oid(7)], &[]).expect("what is small needs no room");
    let error = slices.take(&mut &pack(1, &vec![7; 5 << 20])[..], &[oid(7)], &[]).expect_err("no room");
    assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}");
    assert_eq!(Slices::open(&folder, "http://x/y", 0).expect("slices").held().0, 1);
}
