//! What is done with a store from the command line: copy, back up, restore, check, measure, compact, import,
//! export.
//!
//! A store that is only read is read as of one moment, so a server may have it open and write it meanwhile. One that is
//! written must be nobody else's; its backend says so.

/// Prints a line on standard output. Nobody needs to read it to the end: a closed output is no reason to stop.
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($argument)*);
    }};
}

mod bar;
mod bench;
mod command;
mod compact;
mod export;
mod import;
mod meter;
mod size;
mod stop;

pub(crate) use bench::BenchArgs;
pub(crate) use command::{BackupArgs, CopyArgs, FsckArgs, RestoreArgs, StatsArgs};
pub(crate) use compact::CompactArgs;
pub(crate) use export::ExportArgs;
pub(crate) use import::ImportArgs;
