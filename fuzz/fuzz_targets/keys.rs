//! Any bytes as authorized_keys, as a list of who may sign, and as a command that a client of SSH asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::fuzz_keys(data);
});
