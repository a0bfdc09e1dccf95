//! Any bytes as a backup file, as frames of one, and as rows of a frame.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_transfer::backup::fuzz_backup(data);
});
