//! Any bytes as the index of a pack that is kept for serving again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::git::fuzz_kept_index(data);
});
