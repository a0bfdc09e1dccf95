//! The `govc` program. All of it is in the library, where tests and benchmarks reach it.

use std::process::ExitCode;

/// Many small allocations of many threads are what a server of objects does; the system's allocator is
/// measurably slower at that and gives memory back late.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    govc_server::cli::run()
}
