//! Any bytes as a fetch: its form, then requests, answered from a repository with hidden references and neighbours.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::git::fuzz_fetch(data);
});
