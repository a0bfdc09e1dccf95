//! Any bytes as what an import gets: a server's answers, a bundle's header, the state of an interrupted import.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::fuzz_import(data);
});
