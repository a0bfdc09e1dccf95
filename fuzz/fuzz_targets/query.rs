//! Any bytes as a search query, and as a cursor.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_search::fuzz_query(data);
});
