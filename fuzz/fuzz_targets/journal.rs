//! Any bytes as a journal record.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_engine::store::fuzz_journal(data);
});
