//! Any bytes as a pushed pack: header, entries, deflate streams, deltas, trailer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::git::fuzz_pack(data);
});
