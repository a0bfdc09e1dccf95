//! Any bytes as a partial clone's filter, and as sparse patterns with a path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::git::fuzz_filter(data);
});
