//! The `govc-bench` command: measures, writes the tables, and fails when a result was not verified.

use std::process::ExitCode;

use clap::Parser;
use govc_benches::Options;

fn main() -> ExitCode {
    match govc_benches::run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("govc-bench: some results were wrong: see the rows that are not verified");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("govc-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
