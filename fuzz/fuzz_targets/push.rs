//! Any bytes as a push: how it comes, commands, pack, answered on a repository that begins anew each time.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::git::fuzz_push(data);
});
