//! Any bytes as a stored block: frame, record headers, records.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_engine::block::fuzz_block(data);
});
