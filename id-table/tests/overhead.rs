//! Memory beside the payload, in a process of its own: guards of other tests would hold old arrays back.

#![allow(missing_docs, reason = "a test")]

use govc_id_table::{Id, IdTable, pin};

#[derive(Clone, Copy, PartialEq, Eq)]
struct Number(u64);

impl Id for Number {
    fn bits(&self) -> u64 {
        // A step of splitmix64: as uniform as a hash.
        let mut bits = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }
}

#[test]
fn it_is_less_than_24_bytes_an_entry_on_average() {
    let table = IdTable::<Number, [u64; 5]>::new();
    let payload = size_of::<(Number, [u64; 5])>() as f64;
    let mut overheads = Vec::new();
    for number in 0..100_000 {
        table.get_or_insert_with(Number(number), || [number; 5], &pin());
        if number > 5000 {
            overheads.push(table.memory_bytes() as f64 / table.len() as f64 - payload);
        }
    }
    let mean = overheads.iter().sum::<f64>() / overheads.len() as f64;
    assert!(mean < 24.0, "{mean} bytes");
}
