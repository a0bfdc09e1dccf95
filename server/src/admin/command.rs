//! The commands, each from its arguments to its exit code: 0 when all is well, 1 when it is not, 2 for bad arguments, 130
//! when it was interrupted. Results go to standard output, everything else to standard error.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use govc_backends::{Location, OpenOptions, OverlayBackend};
use govc_engine::{Backend, Family, Fsck, ObjectFormat, Sizes, StoreOptions};
use govc_transfer::backup::{BackupOptions, create, restore};
use govc_transfer::{CopyOptions, ErrorKind, copy};
use serde_json::json;

use super::bar::Bar;
use super::size::Bytes;
use super::stop::{EXIT_INTERRUPTED, Stop};
use crate::config::Config;

pub(super) const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

const IN_MEMORY: &str = "a store in memory would be gone at once";

/// Which store is meant: as `govc serve` is told.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Where the store is: rocksdb or sqlite (under the data folder), or a URL such as rocksdb://PATH, sqlite://PATH,
    /// postgres://USER@HOST/DATABASE [default: rocksdb] [env: GOVC_BACKEND]
    #[arg(long, value_name = "URL")]
    backend: Option<String>,

    /// Folder of the data [default: ./govc-data] [env: GOVC_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// TOML file with settings [env: GOVC_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
}

/// `govc copy`
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The store that is copied; a server may have it open
    #[arg(long, value_name = "URL")]
    from: String,

    /// Where the copy goes: something empty, or what an interrupted copy of this store left
    #[arg(long, value_name = "URL")]
    to: String,

    /// Bring a finished copy of this store up to date; refused if a server has had the copy open since
    #[arg(long)]
    update: bool,

    /// In the end, hash every object of the copy and look for everything that its references reach
    #[arg(long)]
    verify: bool,

    /// Folder of the data, for backends that are named by a word [default: ./govc-data] [env: GOVC_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// TOML file with settings [env: GOVC_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
}

/// `govc backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file, which must not exist
    file: PathBuf,

    /// A backup of this store, whole or incremental: only what has changed since then is stored
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,
}

/// `govc restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// A whole backup, and the incremental ones that follow it, in their order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    store: StoreArgs,
}

/// `govc fsck`
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// `govc stats`
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// How many repositories are listed, the largest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,

    /// Print the result, with all repositories, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// Why a command ends without success.
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub(super) fn with(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }

    pub(super) fn usage(message: impl ToString) -> Self {
        Self { code: EXIT_USAGE, message: message.to_string() }
    }

    pub(super) fn new(message: impl ToString) -> Self {
        Self { code: EXIT_FAILURE, message: message.to_string() }
    }
}

impl From<govc_transfer::Error> for Failure {
    fn from(error: govc_transfer::Error) -> Self {
        let code = if error.kind() == ErrorKind::Cancelled { EXIT_INTERRUPTED } else { EXIT_FAILURE };
        Self { code, message: error.to_string() }
    }
}

impl From<govc_engine::Error> for Failure {
    fn from(error: govc_engine::Error) -> Self {
        let is_cancelled = *error.kind() == govc_engine::ErrorKind::Cancelled;
        Self { code: if is_cancelled { EXIT_INTERRUPTED } else { EXIT_FAILURE }, message: error.to_string() }
    }
}

pub(super) type Outcome = Result<ExitCode, Failure>;

/// The exit code of a command, its failure told on standard error.
pub(super) fn told(outcome: Outcome) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        eprintln!("govc: {}", failure.message);
        ExitCode::from(failure.code)
    })
}

impl StoreArgs {
    pub(super) fn load(self) -> Result<Config, Failure> {
        let flags = [("backend", self.backend), ("data", self.data), ("config", self.config)];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Config::load(flags).map_err(Failure::usage)
    }
}

pub(super) fn bar() -> Result<Bar, Failure> {
    Stop::listen().map(Bar::new).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))
}

pub(super) fn open_to_read(location: &Location) -> Result<Arc<dyn Backend>, Failure> {
    location.open_to_read().map_err(|error| Failure::new(format!("cannot read {location}: {error}")))
}

pub(super) fn open(location: &Location, config: &Config) -> Result<Arc<dyn Backend>, Failure> {
    if *location == Location::Memory {
        return Err(Failure::usage(IN_MEMORY));
    }
    let options = OpenOptions { reserve_bytes: config.storage.reserve_bytes };
    location.open(&options).map_err(|error| Failure::new(format!("cannot open {location}: {error}")))
}

fn check(backend: Arc<dyn Backend>, config: &Config, bar: &Bar) -> Result<Fsck, Failure> {
    let options = StoreOptions { memory_budget_bytes: config.engine_memory_bytes(), ..StoreOptions::default() };
    Ok(Fsck::run(Arc::new(OverlayBackend::new(backend)), options, bar)?)
}

/// Whether two locations are one place, as far as their names tell.
fn is_same(one: &Location, other: &Location) -> bool {
    let real = |location: &Location| location.folder().and_then(|folder| std::fs::canonicalize(folder).ok());
    one == other || (real(one).is_some() && real(one) == real(other))
}

impl CopyArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let config = StoreArgs { backend: None, data: self.data, config: self.config }.load()?;
        let place = |flag: &str, text: &str| {
            Location::parse(text, &config.storage.data)
                .map_err(|expected| Failure::usage(format!("--{flag} {text}: {expected}")))
        };
        let (from, to) = (place("from", &self.from)?, place("to", &self.to)?);
        if is_same(&from, &to) {
            return Err(Failure::usage("--from and --to are the same"));
        }
        if to == Location::Memory {
            return Err(Failure::usage(IN_MEMORY));
        }
        let bar = bar()?;
        let source = open_to_read(&from)?;
        let target = open(&to, &config)?;
        let copied = copy(&*source, &*target, CopyOptions { update: self.update }, &bar)?;
        say!(
            "copied store {} from {from} to {to}: {} rows, {}; {} written, {} removed, all read back and equal",
            copied.store,
            copied.rows(),
            Bytes(copied.bytes()),
            copied.written,
            copied.removed
        );
        for (family, count, digest) in &copied.families {
            say!("  {:8} {:>12} rows {:>9}  {digest}", family.name(), count.rows, Bytes(count.bytes));
        }
        let verified = self.verify.then(|| check(target.clone(), &config, &bar)).transpose()?;
        target.close().map_err(|error| Failure::new(format!("cannot close {to}: {error}")))?;
        Ok(verified.map_or(ExitCode::SUCCESS, |found| tell(&found)))
    }
}

impl BackupArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let config = self.store.load()?;
        let bar = bar()?;
        let source = open_to_read(&config.storage.backend)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let options =
            BackupOptions { since: self.since, now_millis: i64::try_from(now.as_millis()).unwrap_or(i64::MAX) };
        let made = create(&*source, &self.file, &options, &bar)?;
        let kind = if made.header.since.is_some() { "incremental backup" } else { "backup" };
        say!(
            "{kind} {} of store {} is in {}, {}: the store holds {} rows of {}; {} stored, {} gone",
            made.header.backup,
            made.header.store,
            self.file.display(),
            Bytes(made.file_bytes),
            made.held.rows,
            Bytes(made.held.bytes),
            made.put,
            made.gone
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl RestoreArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let config = self.store.load()?;
        let bar = bar()?;
        let location = &config.storage.backend;
        let target = open(location, &config)?;
        let restored = restore(&self.files, &*target, &bar)?;
        target.close().map_err(|error| Failure::new(format!("cannot close {location}: {error}")))?;
        say!(
            "store {} is restored in {location} from backup {}: {} rows of {}, all read back and equal",
            restored.header.store,
            restored.header.backup,
            restored.held.rows,
            Bytes(restored.held.bytes)
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl FsckArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let config = self.store.load()?;
        let bar = bar()?;
        let found = check(open_to_read(&config.storage.backend)?, &config, &bar)?;
        if !self.json {
            return Ok(tell(&found));
        }
        let report = json!({
            "clean": found.is_clean(),
            "rows": found.rows,
            "blocks": found.blocks,
            "repositories": found.repositories,
            "references": found.references,
            "objects": found.objects,
            "object_bytes": found.object_bytes,
            "large_contents": found.large_contents,
            "large_content_bytes": found.large_content_bytes,
            "findings": found.findings,
            "findings_total": found.findings_total,
        });
        say!("{report:#}");
        Ok(code_of(&found))
    }
}

fn code_of(found: &Fsck) -> ExitCode {
    if found.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

fn tell(found: &Fsck) -> ExitCode {
    for finding in &found.findings {
        say!("{finding}");
    }
    let listed = found.findings.len() as u64;
    if listed < found.findings_total {
        say!("... and {} more", found.findings_total - listed);
    }
    let verdict = match found.findings_total {
        0 => "nothing is wrong".to_owned(),
        1 => "1 thing is wrong".to_owned(),
        many => format!("{many} things are wrong"),
    };
    say!(
        "{verdict}: {} objects of {} hashed, {} references of {} repositories followed, {} blocks and {} rows read",
        found.objects,
        Bytes(found.object_bytes),
        found.references,
        found.repositories,
        found.blocks,
        found.rows
    );
    if found.large_contents > 0 {
        say!("{} large contents of {} hashed", found.large_contents, Bytes(found.large_content_bytes));
    }
    code_of(found)
}

impl StatsArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        told(self.outcome())
    }

    fn outcome(self) -> Outcome {
        let config = self.store.load()?;
        let bar = bar()?;
        let location = &config.storage.backend;
        let source = open_to_read(location)?;
        let sizes = Sizes::of(&*source, &bar)?;
        let disk_bytes = source.usage().map_err(|error| Failure::new(error.to_string()))?.disk_bytes;
        if self.json {
            say!("{:#}", as_json(&sizes, location, disk_bytes));
            return Ok(ExitCode::SUCCESS);
        }
        let total = sizes.total();
        say!("{location}: {} rows, {} of keys and values", total.rows, Bytes(total.bytes));
        if let Some(bytes) = disk_bytes {
            let ratio = bytes as f64 / total.bytes.max(1) as f64;
            say!("on disk, log included: {}, {ratio:.2} times as much", Bytes(bytes));
        }
        say!("\n{:10} {:>12} {:>9}", "family", "rows", "size");
        for (family, size) in Family::ALL.iter().zip(sizes.families) {
            say!("{:10} {:>12} {:>9}", family.name(), size.rows, Bytes(size.bytes));
        }
        say!("\n{:>9} {:>9} {:>9} {:>6}  repository", "size", "blocks", "history", "ids");
        for repo in sizes.repositories.iter().take(self.top) {
            let of = |family: Family| Bytes(repo.families[family as usize].bytes);
            say!(
                "{:>9} {:>9} {:>9} {:>6}  {}",
                Bytes(repo.total().bytes),
                of(Family::Blocks),
                of(Family::History),
                repo.object_format.map_or("", ObjectFormat::as_str),
                name_of(repo)
            );
        }
        if let Some(more) = sizes.repositories.len().checked_sub(self.top).filter(|more| *more > 0) {
            say!("... and {more} more (--top N)");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn name_of(repo: &govc_engine::RepoSize) -> String {
    repo.name.as_ref().map_or_else(|| format!("(deleted, number {})", repo.id), ToString::to_string)
}

fn as_json(sizes: &Sizes, location: &Location, disk_bytes: Option<u64>) -> serde_json::Value {
    let families = |sizes: &[govc_engine::Size]| {
        let size = |(family, size): (&Family, &govc_engine::Size)| {
            (family.name().to_owned(), json!({"rows": size.rows, "bytes": size.bytes}))
        };
        Family::ALL.iter().zip(sizes).map(size).collect::<serde_json::Map<_, _>>()
    };
    let total = sizes.total();
    let repositories = sizes.repositories.iter().map(|repo| {
        let total = repo.total();
        json!({
            "id": repo.id.to_string(),
            "name": repo.name.as_ref().map(ToString::to_string),
            "object_format": repo.object_format.map(ObjectFormat::as_str),
            "rows": total.rows,
            "bytes": total.bytes,
            "families": families(&repo.families),
        })
    });
    json!({
        "backend": location.to_string(),
        "rows": total.rows,
        "bytes": total.bytes,
        "disk_bytes": disk_bytes,
        "families": families(&sizes.families),
        "repositories": repositories.collect::<Vec<_>>(),
    })
}
