//! Any bytes as `.gitattributes` files and a path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::fuzz_attributes(data);
});
