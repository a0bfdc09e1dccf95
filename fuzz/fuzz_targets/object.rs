//! Any bytes as an object, the number of its kind in front.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_engine::object::fuzz_object(data);
});
