//! `govc bench`: the benchmark of storage backends on the places that the caller names, and two reports beside each other.
//!
//! Everything that is measured is made for it and removed: embedded backends get folders of their own, a database server a
//! schema of its own. A folder or URL that holds something is refused, never emptied.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use govc_backend_bench::{Bar, Comparison, ErrorKind, Plan, Profile, Report, Subject, Survival, Wrapper, run};
use govc_backends::{Location, ObservedBackend, OpenOptions};
use govc_engine::backend::{Backend, BackendError, BackendErrorKind, BackendResult};

use super::command::{EXIT_FAILURE, Failure, Outcome, told};
use super::stop::{EXIT_INTERRUPTED, Stop};

/// `govc bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Measure storage backends with the same work
    Backends(BackendsArgs),
    /// Compare two reports
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
struct BackendsArgs {
    /// A backend: memory, rocksdb or sqlite (in the folder of --out), or a URL; may be given several times
    /// [default: memory, rocksdb and sqlite]
    #[arg(long, value_name = "URL")]
    backend: Vec<String>,

    /// What users do most: agents, ci, monorepo or import
    #[arg(long, value_name = "NAME", default_value = "agents")]
    profile: String,

    /// Seconds that each workload may measure on each backend; making, loading and verifying come on top
    #[arg(long, value_name = "N", default_value_t = 6)]
    seconds: u64,

    /// Where contents and orders come from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// A bare git repository whose objects are imported and read instead of generated ones; it is only read
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,

    /// A workload to run: writes, commits, groups, import, reads, objects, mixed, opening or wrapper; may be given several
    /// times [default: all]
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<String>,

    /// Where the report goes
    #[arg(long, value_name = "DIR", default_value = "govc-bench")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct CompareArgs {
    /// The first report: a report.json, or the folder that holds it
    before: PathBuf,

    /// The second report
    after: PathBuf,
}

impl BenchArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(match self.command {
            BenchCommand::Backends(args) => args.outcome(),
            BenchCommand::Compare(args) => args.outcome(),
        })
    }
}

impl From<govc_backend_bench::Error> for Failure {
    fn from(error: govc_backend_bench::Error) -> Self {
        match error.kind() {
            ErrorKind::Cancelled => Failure::with(EXIT_INTERRUPTED, error),
            ErrorKind::Invalid => Failure::usage(error),
            _ => Failure::new(error),
        }
    }
}

impl BackendsArgs {
    fn outcome(self) -> Outcome {
        let profile: Profile = self.profile.parse()?;
        let names = match &self.backend[..] {
            [] => ["memory", "rocksdb", "sqlite"].map(str::to_owned).to_vec(),
            names => names.to_vec(),
        };
        std::fs::create_dir_all(&self.out)
            .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", self.out.display())))?;
        let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
        for name in &names {
            subjects.push(Box::new(Place::of(name, &self.out)?));
        }
        let mut plan = Plan::new(profile);
        plan.seconds = self.seconds;
        plan.seed = self.seed;
        plan.history = self.history;
        plan.only = self.only;
        plan.wrapper = Some(Wrapper::new(|backend| Arc::new(ObservedBackend::new(backend))));
        let ended = plan.stop.clone();
        Stop::listen_and(move || ended.ask())
            .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))?;
        let report = run(&plan, &mut subjects, &mut Bar::default())?;
        report.write(&self.out)?;
        say!("{}", report.table());
        say!("\nThe report is in {}: report.html, report.json", self.out.display());
        Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
    }
}

impl CompareArgs {
    fn outcome(self) -> Outcome {
        let read = |path: &Path| {
            let file = if path.is_dir() { path.join("report.json") } else { path.to_path_buf() };
            Report::read(&file)
        };
        let comparison = Comparison::of(&read(&self.before)?, &read(&self.after)?)?;
        say!("{}", comparison.table());
        Ok(ExitCode::SUCCESS)
    }
}

/// A place where the benchmark makes a backend again and again.
struct Place {
    name: String,
    location: Location,
    /// Whether something there is the benchmark's.
    begun: bool,
}

impl Place {
    fn of(text: &str, out: &Path) -> Result<Self, Failure> {
        let data = out.join("data");
        let location =
            Location::parse(text, &data).map_err(|expected| Failure::usage(format!("--backend {text}: {expected}")))?;
        let location = match location {
            Location::Postgres(url) => Location::Postgres(with_schema(&url)),
            other => other,
        };
        check_empty(&location).map_err(Failure::new)?;
        // Words stay words: reports of different folders are about the same.
        let shown =
            |text: &str| Location::parse(text, &data).map_or_else(|_| location.to_string(), |place| place.to_string());
        let name = if text.contains("://") { shown(text) } else { location.kind().to_owned() };
        Ok(Self { name, location, begun: false })
    }

    fn remove(&self) -> BackendResult<()> {
        match &self.location {
            Location::Memory => Ok(()),
            Location::Rocksdb(folder) | Location::Sqlite(folder) => match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let message = format!("cannot remove {}: {error}", folder.display());
                    Err(BackendError::new(BackendErrorKind::Failed, message))
                }
                _ => Ok(()),
            },
            Location::Postgres(url) => remove_schema(url),
        }
    }
}

/// Refuses a folder that holds something: it would be removed.
fn check_empty(location: &Location) -> Result<(), String> {
    match location.folder() {
        Some(folder) if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) => {
            Err(format!("{} holds something; the benchmark needs a folder of its own", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The name of a schema that the benchmark makes and removes: of this run alone, so that nobody has one of that name.
fn schema() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("govc_bench_{}_{}", std::process::id(), now.as_nanos())
}

/// The same URL, with the benchmark's schema whatever it names.
fn with_schema(url: &str) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let others = query.split('&').filter(|parameter| !parameter.is_empty() && !parameter.starts_with("schema="));
    let parameters: Vec<String> = others.map(str::to_owned).chain([format!("schema={}", schema())]).collect();
    format!("{address}?{}", parameters.join("&"))
}

#[cfg(feature = "postgres")]
fn remove_schema(url: &str) -> BackendResult<()> {
    govc_backends::PostgresBackend::remove(url, govc_backends::PostgresOptions::default())
}

#[cfg(not(feature = "postgres"))]
fn remove_schema(_url: &str) -> BackendResult<()> {
    Err(BackendError::new(BackendErrorKind::Failed, "this program was built without PostgreSQL"))
}

impl Subject for Place {
    fn name(&self) -> &str {
        &self.name
    }

    fn survival(&self) -> Survival {
        if self.location == Location::Memory { Survival::Nothing } else { Survival::Machine }
    }

    fn folder(&self) -> Option<&Path> {
        self.location.folder()
    }

    fn fresh(&mut self) -> BackendResult<Arc<dyn Backend>> {
        if self.begun {
            self.remove()?;
        } else {
            check_empty(&self.location).map_err(|message| BackendError::new(BackendErrorKind::Failed, message))?;
            self.begun = true;
        }
        self.location.open(&OpenOptions::default())
    }

    fn reopen(&mut self) -> Option<BackendResult<Arc<dyn Backend>>> {
        (self.location != Location::Memory).then(|| self.location.open(&OpenOptions::default()))
    }

    fn clear(&mut self) {
        if self.begun
            && let Err(error) = self.remove()
        {
            eprintln!("govc: {} could not be removed: {error}", self.location);
        }
    }
}
