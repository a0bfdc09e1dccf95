//! Any bytes as a base and git's copy and insert instructions over it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_engine::block::fuzz_delta(data);
});
