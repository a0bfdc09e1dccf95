//! Blocks: 64 KiB or so of records compressed together, the unit of storage; and git's delta instructions.
//!
//! Encoding and decoding only; where blocks go is the store's business. `engine/FORMAT.md` has the byte layout.

mod codec;
mod delta;
mod frame;
mod index;

pub use codec::{Base, BlockBuilder, DecodedBlock, Location, RecordHeader};
pub(crate) use codec::{allocated, join_parts, split_parts};
pub use delta::{DeltaIndex, apply_delta, apply_delta_limited, apply_deltas, delta_sizes, make_delta};
pub(crate) use index::{IndexEntry, IndexHead, PAGE_OBJECTS, decode_page, encode_page};

#[cfg(test)]
mod tests;

/// Feeds arbitrary bytes to delta decoding; a fuzz target.
pub fn fuzz_delta(data: &[u8]) {
    let Some((split, rest)) = data.split_first() else { return };
    let (base, delta) = rest.split_at(usize::from(*split).min(rest.len()));
    if let Ok(out) = apply_delta_limited(base, delta, 1 << 20) {
        let (base_len, out_len) = delta_sizes(delta).expect("applied, so its header was read");
        assert_eq!((base_len, out_len), (base.len() as u64, out.len() as u64));
    }
    let made = make_delta(base, delta, usize::MAX).expect("nothing is too long");
    assert_eq!(apply_delta(base, &made).expect("what is made can be applied"), delta);
    // Followed or one by one, a chain makes the same, or neither makes anything.
    let back = make_delta(delta, base, usize::MAX).expect("nothing is too long");
    assert_eq!(apply_deltas(base, &[&made, &back]).expect("what is made can be applied"), base);
    let step = apply_delta_limited(base, delta, 1 << 20);
    let then = step.as_ref().ok().map(|middle| make_delta(middle, base, usize::MAX).expect("nothing is too long"));
    if let Some(then) = then {
        assert_eq!(apply_deltas(base, &[delta, &then]).expect("both can be applied"), base);
    }
}

/// Feeds arbitrary bytes to the decoding of blocks and indexes, with and without a right checksum; a fuzz target.
pub fn fuzz_block(data: &[u8]) {
    let mut sealed = data.to_vec();
    crate::backend::key::seal(&mut sealed);
    for bytes in [data, &sealed] {
        if let Ok(entries) = decode_page(bytes) {
            let again = encode_page(&entries).expect("as many, and as large, as there were");
            assert_eq!(decode_page(&again).expect("what was just encoded"), entries);
        }
        if let Ok(head) = IndexHead::decode(bytes) {
            assert_eq!(IndexHead::decode(&head.encode()).expect("what was just encoded"), head);
        }
        if let Ok(block) = DecodedBlock::decode(bytes) {
            for slot in 0..block.len() {
                let header = block.header(slot).expect("slots below the length have headers");
                assert_eq!(block.body(slot).map(|body| body.len()), Some(header.stored_len()));
            }
        }
    }
}
