//! One run: its options, its working folder, its histories, and the suites one after the other.

use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::PossibleValuesParser;
use tempfile::TempDir;

use crate::error::{Context, Result};
use crate::git::Git;
use crate::history::History;
use crate::machine::Machine;
use crate::report;
use crate::server::Govc;
use crate::suite::{SUITES, Suite};

/// Measures govc beside its peers.
#[derive(Debug, Parser)]
#[command(name = "govc-bench")]
pub struct Options {
    /// Suites to run; none means all
    #[arg(value_name = "SUITE", value_parser = PossibleValuesParser::new(suite_names()))]
    suites: Vec<String>,

    /// Folder for tables and rows; the servers keep their data below it while they are measured
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,

    /// Runs of each measurement; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,

    /// Seconds of each load that runs for a time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// The govc binary; the one beside this program when not given
    #[arg(long, value_name = "FILE", env = "GOVC_BIN")]
    govc: Option<PathBuf>,

    /// Bare repositories to measure with, as name=path; a generated history when not given
    #[arg(long, value_name = "NAME=PATH", env = "GOVC_BENCH_HISTORIES", value_delimiter = ',')]
    histories: Vec<String>,
}

/// What a suite works with.
pub(crate) struct Bench {
    pub(crate) git: Git,
    pub(crate) govc: PathBuf,
    pub(crate) runs: u32,
    pub(crate) seconds: u64,
    pub(crate) histories: Vec<History>,
    folder: TempDir,
}

impl Bench {
    fn new(options: &Options, out: &Path) -> Result<Bench> {
        let govc = Govc::binary(options.govc.as_deref())?;
        let folder = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(out)
            .context(|| format!("cannot make a folder in {}", out.display()))?;
        let git = Git::new(folder.path())?;
        let given: Vec<String> = options.histories.iter().filter(|item| !item.is_empty()).cloned().collect();
        let histories = History::all(&given, &git, folder.path())?;
        Ok(Bench { git, govc, runs: options.runs, seconds: options.seconds, histories, folder })
    }

    /// A fresh folder that disappears with the returned value.
    pub(crate) fn fresh_folder(&self) -> Result<TempDir> {
        tempfile::tempdir_in(self.folder.path()).context(|| "cannot make a working folder".into())
    }
}

/// Runs the chosen suites, prints their tables and writes them with their rows. Whether everything was
/// verified is returned; unverified rows are written too, and say so.
///
/// # Errors
/// When something could not be measured at all: a missing binary or peer, a server that fails. Suites
/// that ended before keep their files.
pub fn run(options: &Options) -> Result<bool> {
    std::fs::create_dir_all(&options.out).context(|| format!("cannot make {}", options.out.display()))?;
    let out = std::fs::canonicalize(&options.out).context(|| format!("cannot open {}", options.out.display()))?;
    let bench = Bench::new(options, &out)?;
    let machine = Machine::describe(&bench.git, bench.folder.path());
    let names: Vec<&str> = bench.histories.iter().map(|history| history.name.as_str()).collect();
    let mut all_verified = true;
    for suite in chosen(&options.suites) {
        progress(&format!("suite {} with {}", suite.name, names.join(", ")));
        let command = format!(
            "`make bench SUITE={}`, {} runs, {} s, histories: {}",
            suite.name,
            options.runs,
            options.seconds,
            names.join(", ")
        );
        let rows = (suite.run)(&bench).context(|| format!("suite {}", suite.name))?;
        all_verified &= rows.iter().all(|row| row.verified);
        println!("{}", report::write(&out, suite.name, &rows, &machine, &command)?);
    }
    Ok(all_verified)
}

/// Tells the person who waits what is going on.
pub(crate) fn progress(what: &str) {
    eprintln!("govc-bench: {what}");
}

fn suite_names() -> Vec<&'static str> {
    std::iter::once("all").chain(SUITES.iter().map(|suite| suite.name)).collect()
}

fn chosen(names: &[String]) -> Vec<&'static Suite> {
    let all = names.is_empty() || names.iter().any(|name| name == "all");
    SUITES.iter().filter(|suite| all || names.iter().any(|name| name == suite.name)).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Options, chosen};

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
        assert!(Options::try_parse_from(["govc-bench", "nonsense"]).is_err());
        assert!(Options::try_parse_from(["govc-bench", "push", "--runs", "0"]).is_err());
        assert!(Options::try_parse_from(["govc-bench", "push", "--runs", "5"]).is_ok_and(|options| options.runs == 5));
    }

    #[test]
    fn none_and_all_mean_every_suite() {
        let count = chosen(&[]).len();
        assert_eq!(count, chosen(&["all".into()]).len());
        assert_eq!(chosen(&["push".into()]).len(), 1);
        assert!(count > 1);
    }
}
