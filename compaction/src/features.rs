//! Features: a few numbers of an object, of which objects with the same pieces share some.
//!
//! A blob's pieces are its lines, a tree's what stands between two NULs. Each piece is hashed, and of all hashes the
//! smallest is taken under each of eight permutations: two objects share a feature with the probability that a piece of
//! either is in both (min-hash).

use govc_engine::Kind;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) const FEATURES: usize = 8;
/// Shorter pieces, such as a lone brace, say nothing.
const PIECE_BYTES_MIN: usize = 4;
/// Odd, so that multiplying by one permutes all numbers.
const MULTIPLIERS: [u64; FEATURES] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xff51_afd7_ed55_8ccd,
    0xc4ce_b9fe_1a85_ec53,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
];

/// The features of an object; `None` if it has no piece that says anything.
pub(crate) fn features(kind: Kind, data: &[u8]) -> Option<[u64; FEATURES]> {
    let end = if kind == Kind::Tree { 0 } else { b'\n' };
    let mut least = [u64::MAX; FEATURES];
    let mut found = false;
    for piece in data.split(|byte| *byte == end).filter(|piece| piece.len() >= PIECE_BYTES_MIN) {
        found = true;
        let hash = xxh3_64(piece);
        for (least, multiplier) in least.iter_mut().zip(MULTIPLIERS) {
            *least = (*least).min(hash.wrapping_mul(multiplier));
        }
    }
    // Which permutation it is of is a part of a feature.
    found.then(|| std::array::from_fn(|at| least[at].wrapping_add(at as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(a: &[u8], b: &[u8]) -> usize {
        let (a, b) = (features(Kind::Blob, a).expect("pieces"), features(Kind::Blob, b).expect("pieces"));
        a.iter().zip(b).filter(|(a, b)| **a == *b).count()
    }

    #[test]
    fn what_is_alike_shares_features_and_what_is_not_does_not() {
        let lines = |from: u32| (from..from + 200).map(|line| format!("line number {line}\n")).collect::<String>();
        assert_eq!(shared(lines(0).as_bytes(), lines(0).as_bytes()), FEATURES);
        assert!(shared(lines(0).as_bytes(), lines(10).as_bytes()) >= FEATURES / 2);
        assert_eq!(shared(lines(0).as_bytes(), lines(1000).as_bytes()), 0);
    }

    #[test]
    fn short_pieces_say_nothing() {
        assert_eq!(features(Kind::Blob, b"}\n}\n\n{\n"), None);
        assert_eq!(features(Kind::Blob, b""), None);
        assert!(features(Kind::Blob, b"}\nlong enough\n").is_some());
    }
}
