//! Blocks and deltas: what goes in comes out, and whatever else is decoded is an error, never a panic.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    Error, ErrorKind, Kind,
    backend::key::{put_varint, seal},
};

type Record = (Kind, Base, u64, Vec<u8>);

fn build(number: u32, records: &[Record]) -> Vec<u8> {
    let mut builder = BlockBuilder::default();
    for (slot, (kind, base, size, body)) in records.iter().enumerate() {
        assert_eq!(usize::from(builder.push(number, *kind, *size, *base, body)), slot);
    }
    builder.finish(number, 3).unwrap()
}

fn check(number: u32, records: &[Record]) {
    let block = DecodedBlock::decode(&build(number, records)).unwrap();
    assert_eq!((block.len(), block.is_empty()), (records.len(), records.is_empty()));
    for (slot, (kind, base, size, body)) in records.iter().enumerate() {
        let header = block.header(slot).unwrap();
        let expected_size = if *base == Base::Whole { body.len() as u64 } else { *size };
        assert_eq!(
            (header.kind, header.base, header.size, header.stored_len()),
            (*kind, *base, expected_size, body.len())
        );
        assert_eq!(block.body(slot).unwrap(), body.as_slice());
    }
    assert!(block.header(records.len()).is_none() && block.body(records.len()).is_none());
}

fn sample() -> Vec<Record> {
    vec![
        (Kind::Commit, Base::Whole, 0, b"commit".to_vec()),
        (Kind::Tree, Base::Near { block: 7, slot: 0 }, 1 << 40, b"delta in this block".to_vec()),
        (Kind::Blob, Base::Near { block: 6, slot: 4095 }, 3, Vec::new()),
        (Kind::Tag, Base::Near { block: u32::MAX, slot: u16::MAX }, u64::MAX, vec![b'x'; 5000]),
    ]
}

#[test]
fn every_kind_of_record_comes_back() {
    check(7, &sample());
    check(0, &[]);
    check(u32::MAX, &sample());
}

#[test]
fn a_builder_starts_anew_and_says_when_it_is_full() {
    let mut builder = BlockBuilder::default();
    assert!(builder.is_empty() && !builder.is_full_for(1 << 30), "one body may be larger than a block");
    builder.push(0, Kind::Blob, 0, Base::Whole, &[0; 60 << 10]);
    assert!(!builder.is_full_for(1 << 10) && builder.is_full_for(64 << 10));
    builder.push(0, Kind::Blob, 0, Base::Whole, &[0; 8 << 10]);
    assert!(builder.is_full_for(0));
    builder.finish(0, 3).unwrap();
    assert!(builder.is_empty() && builder.next_slot() == 0 && !builder.is_full_for(0));
    for _ in 0..4096 {
        assert!(!builder.is_full_for(1));
        builder.push(1, Kind::Blob, 0, Base::Whole, b"x");
    }
    assert!(builder.is_full_for(1), "slots stay small");
    assert_eq!(DecodedBlock::decode(&builder.finish(1, 3).unwrap()).unwrap().len(), 4096);
    builder.push(2, Kind::Blob, 0, Base::Whole, &[0; 1 << 20]);
    builder.finish(2, 3).unwrap();
    assert!(builder.bodies.capacity() < 1 << 18, "the room of a large body is given back");
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    let encoded = build(7, &sample());
    for end in 0..encoded.len() {
        assert_eq!(DecodedBlock::decode(&encoded[..end]).unwrap_err().kind(), &ErrorKind::Corrupt, "cut at {end}");
    }
    for at in 0..encoded.len() * 8 {
        let mut damaged = encoded.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        assert_eq!(DecodedBlock::decode(&damaged).unwrap_err().kind(), &ErrorKind::Corrupt, "bit {at}");
    }
    let longer = [&encoded[..], b"x"].concat();
    assert!(DecodedBlock::decode(&longer).is_err());
}

/// A block with this payload and a right checksum, as damage before the checksum would leave it.
fn sealed(version: u8, payload: &[u8], announced: u64) -> Vec<u8> {
    let mut out = vec![version];
    put_varint(&mut out, 0);
    put_varint(&mut out, announced);
    out.extend_from_slice(&zstd::bulk::compress(payload, 1).unwrap());
    seal(&mut out);
    out
}

#[test]
fn lies_under_a_right_checksum_are_errors() {
    let good: &[u8] = &[1, 3, 2, b'a', b'b'];
    assert_eq!(DecodedBlock::decode(&sealed(1, good, 5)).unwrap().body(0).unwrap(), &b"ab"[..]);
    for (what, version, payload, announced) in [
        ("a newer version", 2, good, 5),
        ("version 0", 0, good, 5),
        ("a smaller size", 1, good, 4),
        ("a larger size", 1, good, 6),
        ("a size beyond 32 bits", 1, good, 1 << 33),
        ("no count", 1, &[], 0),
        ("an unknown kind", 1, &[1, 5, 0], 3),
        ("kind 0", 1, &[1, 0, 0], 3),
        ("an unknown encoding", 1, &[1, 0x43, 0], 3),
        ("a body past the end", 1, &[1, 3, 3, b'a', b'b'], 5),
        ("bytes of no record", 1, &[1, 3, 1, b'a', b'b'], 5),
        ("more records than there are", 1, &[2, 3, 2, b'a', b'b'], 5),
        ("too many records", 1, &[0x81, 0x20], 2),
        ("a slot beyond 16 bits", 1, &[1, 0x13, 0xff, 0xff, 0x7f, 0, 0], 7),
        ("a far base that ends early", 1, &[1, 0x33, 1, 2, 3], 5),
    ] {
        let outcome = DecodedBlock::decode(&sealed(version, payload, announced));
        assert!(outcome.is_err_and(|error| matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid)), "{what}");
    }
}

#[test]
fn large_blocks_travel_in_parts() {
    const PART: usize = 4 << 20;
    for (len, parts) in
        [(0, 1), (1, 1), (PART - 1, 1), (PART, 1), (PART + 1, 2), (2 * PART, 2), (2 * PART + 1, 3), (9 << 20, 3)]
    {
        let block: Vec<u8> = (0..len).map(|at| (at / 3 % 251) as u8).collect();
        let pieces = split_parts(block.clone());
        assert_eq!(pieces.len(), parts, "{len}");
        assert!(pieces.iter().all(|piece| piece.len() <= PART + 3), "{len}");
        let mut asked = Vec::new();
        let joined = join_parts(pieces[0].clone(), |part| {
            asked.push(part);
            Ok(pieces[usize::from(part)].clone())
        });
        assert!(joined.unwrap() == block, "{len}");
        assert_eq!(asked, (1..parts as u16).collect::<Vec<_>>());
        if parts > 1 {
            let missing = join_parts(pieces[0].clone(), |_| Err(Error::not_found("gone")));
            assert_eq!(missing.unwrap_err().kind(), &ErrorKind::NotFound);
        }
    }
    assert!(join_parts(Bytes::new(), |_| Ok(Bytes::new())).is_err());
    assert!(
        join_parts(Bytes::from_static(&[0xff, 0xff, 0x7f]), |_| Ok(Bytes::new())).is_err(),
        "more parts than numbers"
    );
}

fn delta(base_len: u64, out_len: u64, instructions: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, base_len);
    put_varint(&mut out, out_len);
    instructions.iter().for_each(|instruction| out.extend_from_slice(instruction));
    out
}

#[test]
fn deltas_copy_and_insert() {
    let base: Vec<u8> = (0..70_000u32).map(|at| (at % 253) as u8).collect();
    let copy_all_operands: &[u8] = &[0xff, 0x03, 0x01, 0x00, 0x00, 0x04, 0x00, 0x00];
    let table: &[(Vec<u8>, Vec<u8>)] = &[
        (delta(70_000, 0, &[]), Vec::new()),
        (delta(70_000, 3, &[b"\x03abc"]), b"abc".to_vec()),
        (delta(70_000, 4, &[&[0x91, 10, 4]]), base[10..14].to_vec()),
        (delta(70_000, 4, &[copy_all_operands]), base[259..263].to_vec()),
        (delta(70_000, 0x10000, &[&[0x80]]), base[..0x10000].to_vec()),
        (delta(70_000, 0x10000, &[&[0x81, 9]]), base[9..9 + 0x10000].to_vec()),
        (delta(70_000, 7, &[b"\x02xy", &[0x90, 3], b"\x02zz"]), [b"xy", &base[..3], b"zz"].concat()),
    ];
    for (delta, expected) in table {
        assert!(apply_delta(&base, delta).unwrap() == *expected, "{:?}", &delta[..delta.len().min(20)]);
        assert_eq!(delta_sizes(delta).unwrap(), (70_000, expected.len() as u64));
        assert_eq!(apply_delta_limited(&base, delta, expected.len() as u64).unwrap().len(), expected.len());
        if let Some(limit) = expected.len().checked_sub(1) {
            let outcome = apply_delta_limited(&base, delta, limit as u64);
            assert_eq!(outcome.unwrap_err().kind(), &ErrorKind::TooLarge);
        }
    }
}

#[test]
fn malformed_deltas_are_errors() {
    let base = b"0123456789";
    for (what, delta) in [
        ("another base", delta(9, 3, &[b"\x03abc"])),
        ("the reserved instruction", delta(10, 3, &[b"\x03abc", &[0]])),
        ("too little made", delta(10, 4, &[b"\x03abc"])),
        ("too much made", delta(10, 2, &[b"\x03abc"])),
        ("more made later", delta(10, 3, &[b"\x03abc", b"\x01d"])),
        ("a copy that begins outside", delta(10, 1, &[&[0x91, 10, 1]])),
        ("a copy that ends outside", delta(10, 5, &[&[0x91, 6, 5]])),
        ("a copy far outside", delta(10, 5, &[&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]])),
        ("a header that is too long", [0xff; 12].to_vec()),
        ("a huge announcement", delta(10, u64::MAX >> 1, &[b"\x03abc"])),
        ("nothing", Vec::new()),
    ] {
        assert!(apply_delta(base, &delta).is_err_and(|error| *error.kind() == ErrorKind::Corrupt), "{what}");
    }
    let whole = delta(10, 12, &[b"\x03abc", &[0xb1, 2, 4, 0], b"\x02xy", &[0x91, 7, 3]]);
    assert_eq!(apply_delta(base, &whole).unwrap(), b"abc2345xy789");
    for end in 0..whole.len() {
        assert_eq!(apply_delta(base, &whole[..end]).unwrap_err().kind(), &ErrorKind::Corrupt, "cut at {end}");
    }
}

#[test]
fn deltas_are_small_and_make_their_target() {
    let base: Vec<u8> = (0..4000).flat_map(|line| format!("line {line} of the file\n").into_bytes()).collect();
    let check = |base: &[u8], target: &[u8], len_max: usize| {
        let delta = make_delta(base, target, len_max).unwrap_or_else(|| panic!("longer than {len_max}"));
        assert!(delta.len() <= len_max);
        assert_eq!(apply_delta(base, &delta).unwrap(), target);
    };
    check(&base, &base, 16);
    check(&base, b"", 8);
    check(b"", b"all new", 16);
    check(b"short", b"short", 16);
    let edited = String::from_utf8(base.clone()).unwrap().replace("line 1234 of", "another 1234 in");
    check(&base, edited.as_bytes(), 64);
    let moved = [&base[50_000..], b"between", &base[..50_000]].concat();
    check(&base, &moved, 64);
    let zeros = vec![0; 1 << 20];
    check(&zeros, &zeros[..1 << 19], 64);
    check(&base, &zeros, 1 << 21);
    assert_eq!(make_delta(&base, &zeros, 1 << 10), None);
}

fn any_record() -> impl Strategy<Value = Record> {
    let kind = prop::sample::select(vec![Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag]);
    let base = prop_oneof![
        Just(Base::Whole),
        (0..4u32, any::<u16>()).prop_map(|(block, slot)| Base::Near { block, slot }),
        (any::<u32>(), any::<u16>()).prop_map(|(block, slot)| Base::Near { block, slot }),
    ];
    (kind, base, any::<u64>(), prop::collection::vec(any::<u8>(), 0..300))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_made_makes_its_target(
        base in prop::collection::vec(0..4u8, 0..2000),
        pieces in prop::collection::vec((any::<prop::sample::Index>(), 0..300usize, 0..4u8), 0..20),
    ) {
        let mut target = Vec::new();
        for (from, len, byte) in &pieces {
            let from = from.index(base.len() + 1);
            target.extend_from_slice(&base[from..base.len().min(from + len)]);
            target.push(*byte);
        }
        let delta = make_delta(&base, &target, usize::MAX).unwrap();
        prop_assert_eq!(apply_delta(&base, &delta).unwrap(), target);
    }

    #[test]
    fn blocks_round_trip(number in 0..4u32, records in prop::collection::vec(any_record(), 0..40)) {
        check(number, &records);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(payload in prop::collection::vec(any::<u8>(), 0..64), damage in any::<(usize, u8)>()) {
        fuzz_block(&payload);
        fuzz_delta(&payload);
        let _ = DecodedBlock::decode(&sealed(1, &payload, payload.len() as u64));
        let mut damaged = build(7, &sample());
        damaged.truncate(damaged.len() - 4);
        let at = damage.0 % damaged.len();
        damaged[at] ^= damage.1;
        fuzz_block(&damaged);
    }
}

/// The seeds of the fuzz target: what is called `bad-*` is refused for its reason, everything else is applied.
#[test]
fn seeds_of_delta() {
    let seeds = [
        ("copy-insert", None),
        ("copy-offset", None),
        ("insert", None),
        ("bad-base-size", Some("for a base of 52 bytes, not 51")),
        ("bad-copy-cut", Some("delta copy ends early")),
        ("bad-copy-far", Some("copies from outside of its base")),
        ("bad-copy-past", Some("copies from outside of its base")),
        ("bad-empty", Some("delta header ends early")),
        ("bad-insert-cut", Some("inserts more than it carries")),
        ("bad-reserved", Some("reserved instruction 0")),
        ("bad-result-long", Some("makes more than it announces")),
        ("bad-result-short", Some("makes 5 bytes but announces 6")),
        ("bad-sizes-alone", Some("delta header ends early")),
        ("bad-sizes-endless", Some("a number that is too long")),
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/delta");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), seeds.len());
    for (name, reason) in seeds {
        let data = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        fuzz_delta(&data);
        let (base, delta) = data[1..].split_at(usize::from(data[0]));
        let refused = apply_delta(base, delta).err().map(|error| error.to_string());
        assert_eq!(refused.is_some(), reason.is_some(), "{name}: {refused:?}");
        assert!(refused.as_deref().unwrap_or_default().contains(reason.unwrap_or_default()), "{name}: {refused:?}");
    }
}

/// Versions of a text, each a delta against the one before, of all sizes of change.
#[test]
fn a_chain_that_is_followed_makes_what_its_deltas_make_one_by_one() {
    let mut numbers = 1_u64;
    let mut below = |end: usize| {
        numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((numbers >> 33) as usize) % end
    };
    for length in [0, 1, 300, 20_000] {
        let root: Vec<u8> = (0..length).map(|_| below(256) as u8).collect();
        let (mut data, mut deltas) = (root.clone(), Vec::new());
        for _ in 0..60 {
            let mut next = data.clone();
            for _ in 0..1 + below(4) {
                let (at, len) = (below(next.len() + 1), below(200));
                let end = (at + len).min(next.len());
                match below(3) {
                    0 => drop(next.drain(at..end)),
                    1 => drop(next.splice(at..at, (0..len).map(|byte| byte as u8))),
                    _ => {
                        let moved = next[at..end].to_vec();
                        let to = below(next.len() + 1);
                        drop(next.splice(to..to, moved));
                    }
                }
            }
            deltas.push(make_delta(&data, &next, usize::MAX).unwrap());
            data = next;
            assert_eq!(apply_deltas(&root, &deltas).unwrap(), data);
        }
        let wrong = [deltas[0].clone(), deltas[2].clone()];
        if apply_delta(&root, &wrong[0]).and_then(|middle| apply_delta(&middle, &wrong[1])).is_err() {
            assert_eq!(*apply_deltas(&root, &wrong).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert_eq!(apply_deltas(&root, &[] as &[Vec<u8>]).unwrap(), root);
    }
}

/// A delta that takes a base apart byte by byte: following it would take more memory than what it makes.
#[test]
fn a_chain_of_crumbs_is_applied_one_by_one() {
    let base: Vec<u8> = (0..=255).collect();
    let reversed = |len: usize| {
        let mut delta = Vec::new();
        put_varint(&mut delta, len as u64);
        put_varint(&mut delta, 100_000);
        (0..100_000).for_each(|at| delta.extend([0x80 | 0x01 | 0x10, (255 - at % 256) as u8, 1]));
        delta
    };
    let deltas = [reversed(256), reversed(100_000)];
    let middle = apply_delta(&base, &deltas[0]).unwrap();
    assert_eq!(apply_deltas(&base, &deltas).unwrap(), apply_delta(&middle, &deltas[1]).unwrap());
}
