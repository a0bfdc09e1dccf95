//! Any bytes as the body of a git request: framing, commands, arguments.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    govc_server::git::fuzz_pkt_line(data);
    govc_server::git::fuzz_upload_request(data);
    govc_server::git::fuzz_receive_commands(data);
});
