//! What the server is told: the one place that reads files and the environment.
//!
//! A setting has one key (`section.name`), and may come from a flag, an environment variable or the TOML
//! file; flags win over the environment, the environment over the file, the file over the defaults.
//! [`Config::resolve`] is a pure function of those texts, so everything about precedence and bad values is
//! tested without touching the process. An unknown key or a bad value is always an error that names the
//! key and where it was given: a misspelt setting must not silently become a default.

mod machine;
mod signing;
mod sources;
#[cfg(test)]
mod tests;
mod transport;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use govc_backends::Location;
use govc_engine::{ObjectFormat, RepoSettings};
use tracing::level_filters::LevelFilter;

pub use signing::SigningConfig;
use sources::Layers;
pub use transport::{SshConfig, TlsConfig};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The least memory budget that the server starts with, in bytes.
const MEMORY_BYTES_MIN: u64 = 32 * MIB;

/// Half of this is the memory budget when the machine does not say how much it has.
const MEMORY_BYTES_ASSUMED: u64 = 2 * GIB;

/// All settings, valid together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where and how connections are served.
    pub server: ServerConfig,
    /// Where the data are and how much memory serves them.
    pub storage: StorageConfig,
    /// How long superseded versions can be read.
    pub versions: VersionsConfig,
    /// How what is stored becomes small.
    pub compaction: CompactionConfig,
    /// Section `[search]`.
    pub search: SearchConfig,
    /// How much one request may name.
    pub limits: LimitsConfig,
    /// What callers may stage over HTTP.
    pub transactions: TransactionsConfig,
    /// What is logged.
    pub logging: LoggingConfig,
    /// What is measured.
    pub metrics: MetricsConfig,
    /// The Git protocol.
    pub git: GitConfig,
    /// Push certificates; also section `[git]`.
    pub signing: SigningConfig,
    /// Git LFS.
    pub lfs: LfsConfig,
}

/// Section `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to listen beyond loopback although there are no users yet.
    pub insecure_no_auth: bool,
    /// The largest body of an API request, in bytes. Pushes have [`GitConfig::pack_bytes_max`].
    pub body_bytes_max: u64,
    /// How long the server waits for a client until it has sent 16 KiB of a body or of a call over SSH, or has taken as
    /// much of a large answer.
    pub body_timeout: Duration,
    /// Memory for bodies of API requests, and answers with files, that are in flight, in bytes: beside
    /// [`StorageConfig::memory_bytes`], and not counting what is at most 64 KiB.
    pub buffered_bytes_max: u64,
    /// How long a client may take for a request's head, and may keep an idle connection.
    pub header_timeout: Duration,
    /// How many connections are served at once; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// How many blocking threads long work (walks, grep, packs) may use at once.
    pub work_threads: usize,
    /// How many pieces of long work may wait for a thread; more are refused.
    pub work_queue_max: usize,
    /// How long long work may wait for a thread, and the deadline that it is given once it runs.
    pub work_timeout: Duration,
    /// How long requests in flight may take to finish after the first signal to stop; at most 30 s.
    pub shutdown_timeout: Duration,
    /// The certificate that connections are secured with; without, they are plain.
    pub tls: Option<TlsConfig>,
    /// Git over SSH, if it is served.
    pub ssh: Option<SshConfig>,
    /// The address that clients reach this server by, without a slash at its end, where requests do not say it.
    pub public_url: Option<String>,
}

/// Section `[storage]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// What keeps the data, and where.
    pub backend: Location,
    /// The folder of embedded backends that are named by a word, and of kept packs. Not used by the memory backend.
    pub data: PathBuf,
    /// The memory budget of the whole process for repository data, in bytes. The pack cache's share is
    /// part of it.
    pub memory_bytes: u64,
    /// Free disk space that the server leaves alone: writes are refused before it is used, in bytes.
    pub reserve_bytes: u64,
    /// The largest single Git object, in bytes.
    pub object_bytes_max: u64,
    /// How long a write to a `relaxed` repository may stay volatile.
    pub relaxed_delay_max: Duration,
}

/// Section `[versions]`: how long superseded versions can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionsConfig {
    /// How many a repository keeps beside the newest.
    pub count_max: u64,
    /// How long after they have been superseded.
    pub age_max: Duration,
}

/// Section `[compaction]`: how what is stored becomes small. What is asked for over HTTP has no budget but memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionConfig {
    /// Whether repositories are compacted by themselves when they have grown.
    pub enabled: bool,
    /// By how much, in bytes of blocks, at least.
    pub fresh_bytes_min: u64,
    /// And by which part of what is compacted already.
    pub growth_percent: u32,
    /// How long after the last write a repository is archived; zero for never.
    pub archive_age: Duration,
    /// The part of one processor that this takes while the server is in use.
    pub cpu_percent: u32,
    /// Bytes of objects a second that it stores anew; zero for any number.
    pub rate_max: u64,
    /// Memory for blocks and bases of any compaction, in bytes, beside [`StorageConfig::memory_bytes`].
    pub memory_bytes: u64,
}

/// Section `[search]`: the index that makes searches fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchConfig {
    /// Whether there is one; without, searches read what they search.
    pub enabled: bool,
    /// Memory for directories and definitions, in bytes, beside [`StorageConfig::memory_bytes`].
    pub memory_bytes: u64,
}

/// Section `[limits]`: how much one request may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// References that one push or call may change.
    pub references_max: usize,
    /// Changes of one commit over HTTP.
    pub changes_max: usize,
    /// Realities that one call may make.
    pub realities_max: usize,
}

/// Section `[transactions]`: what callers may stage over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionsConfig {
    /// How many may be open.
    pub open_max: usize,
    /// Bytes of memory that all of them may hold.
    pub bytes_max: u64,
    /// How long one lives that is not used.
    pub idle: Duration,
}

/// Section `[logging]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggingConfig {
    /// The least severe level that is written.
    pub level: LevelFilter,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people at a terminal.
    Text,
}

/// Section `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether metrics are served at all.
    pub enabled: bool,
    /// The path at which they are served.
    pub path: String,
}

/// Section `[git]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GitConfig {
    /// Whether a push to a repository that does not exist creates it.
    pub create_on_push: bool,
    /// What the ids of a repository are that is made without saying it.
    pub default_object_format: ObjectFormat,
    /// The largest pack that a push may send, in bytes.
    pub pack_bytes_max: u64,
    /// Memory for packs kept for verbatim serving, in bytes; part of [`StorageConfig::memory_bytes`].
    pub pack_cache_memory_bytes: u64,
    /// Disk space for packs kept for verbatim serving, in bytes.
    pub pack_cache_disk_bytes: u64,
    /// How long what a reference named can still be fetched after it has moved or gone.
    pub fetch_grace: Duration,
    /// Whether clients may ask for bundles (the command `bundle-uri`).
    pub bundle_uris: bool,
    /// Whether fetches over HTTP may be pointed at packs (`packfile-uris`).
    pub packfile_uris: bool,
    /// The smallest pack that clients are pointed at, in bytes.
    pub uri_pack_bytes_min: u64,
    /// How long what a client was pointed at can be downloaded.
    pub uri_lifetime: Duration,
}

/// Section `[lfs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LfsConfig {
    /// The largest file that an upload may send, in bytes.
    pub object_bytes_max: u64,
}

/// Everything that a configuration is made of, as text.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Flags of the command line that were present: name without dashes, value.
    pub flags: Vec<(&'static str, String)>,
    /// The environment; only names that start with `GOVC_` are looked at.
    pub environment: BTreeMap<String, String>,
    /// The file's path and text, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// The memory that the process may use, in bytes, if known.
    pub machine_memory_bytes: Option<u64>,
}

/// A setting that cannot be used. The message names the key and where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Default for Config {
    /// The defaults, with the memory budget of a machine that does not say how much it has.
    fn default() -> Self {
        let memory_bytes = MEMORY_BYTES_ASSUMED / 2;
        let body_bytes_max = 128 * MIB;
        Self {
            server: ServerConfig {
                listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
                insecure_no_auth: false,
                body_bytes_max,
                body_timeout: Duration::from_secs(60),
                buffered_bytes_max: buffered_default(memory_bytes, body_bytes_max),
                header_timeout: Duration::from_secs(60),
                connections_max: 8192,
                work_threads: work_threads_default(),
                work_queue_max: 1024,
                work_timeout: Duration::from_secs(60),
                shutdown_timeout: SHUTDOWN_TIMEOUT_MAX,
                tls: None,
                ssh: None,
                public_url: None,
            },
            storage: StorageConfig {
                backend: Location::Rocksdb(PathBuf::from("./govc-data/rocksdb")),
                data: PathBuf::from("./govc-data"),
                memory_bytes,
                reserve_bytes: 256 * MIB,
                object_bytes_max: 128 * MIB,
                relaxed_delay_max: Duration::from_millis(100),
            },
            versions: VersionsConfig { count_max: 10_000_000, age_max: Duration::from_secs(90 * 24 * 3600) },
            compaction: CompactionConfig {
                enabled: true,
                fresh_bytes_min: 4 * MIB,
                growth_percent: 25,
                archive_age: Duration::from_secs(30 * 24 * 3600),
                cpu_percent: 25,
                rate_max: 0,
                memory_bytes: compaction_memory_default(memory_bytes),
            },
            search: SearchConfig { enabled: true, memory_bytes: search_memory_default(memory_bytes) },
            limits: LimitsConfig { references_max: 1_000_000, changes_max: 100_000, realities_max: 100_000 },
            transactions: TransactionsConfig { open_max: 10_000, bytes_max: 256 * MIB, idle: Duration::from_secs(600) },
            logging: LoggingConfig { level: LevelFilter::INFO, format: LogFormat::Json },
            metrics: MetricsConfig { enabled: true, path: "/metrics".to_owned() },
            git: GitConfig {
                create_on_push: false,
                default_object_format: ObjectFormat::default(),
                pack_bytes_max: 4 * GIB,
                pack_cache_memory_bytes: pack_cache_memory_default(memory_bytes),
                pack_cache_disk_bytes: 4 * GIB,
                fetch_grace: Duration::from_secs(60),
                bundle_uris: false,
                packfile_uris: false,
                uri_pack_bytes_min: 16 * MIB,
                uri_lifetime: Duration::from_secs(3600),
            },
            signing: SigningConfig::default(),
            lfs: LfsConfig { object_bytes_max: 16 * GIB },
        }
    }
}

/// In-flight requests finish within this time or are cut off; an orchestrator's patience ends about then.
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Many more threads than processors: some wait for disks, and for a moment for clients.
fn work_threads_default() -> usize {
    let processors = std::thread::available_parallelism().map_or(4, std::num::NonZero::get);
    processors.saturating_mul(8).clamp(16, 256)
}

fn pack_cache_memory_default(memory_bytes: u64) -> u64 {
    (memory_bytes / 8).min(256 * MIB)
}

fn compaction_memory_default(memory_bytes: u64) -> u64 {
    (memory_bytes / 4).min(512 * MIB)
}

fn search_memory_default(memory_bytes: u64) -> u64 {
    (memory_bytes / 16).min(256 * MIB)
}

/// Two of the largest bodies fit at once, however small the machine is.
fn buffered_default(memory_bytes: u64, body_bytes_max: u64) -> u64 {
    (memory_bytes / 8).max(body_bytes_max.saturating_mul(2))
}

/// Reads a size, as settings give them.
///
/// # Errors
/// What was expected instead, in words.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    values::size(text)
}

/// Reads a duration, as settings give them.
///
/// # Errors
/// What was expected instead, in words.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text)
}

/// What an environment variable holds that a person named on the command line. It is not to be printed.
///
/// # Errors
/// When it holds nothing, or what is no text.
pub(crate) fn secret(variable: &str) -> Result<String, String> {
    match std::env::var(variable) {
        Ok(secret) if !secret.trim().is_empty() => Ok(secret.trim().to_owned()),
        Ok(_) => Err(format!("the environment variable {variable} is empty")),
        Err(std::env::VarError::NotPresent) => Err(format!("there is no environment variable {variable}")),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {variable} is no text")),
    }
}

impl Config {
    /// Reads the environment and the file that it or the flags name, and resolves them.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`Config::resolve`].
    pub fn load(flags: Vec<(&'static str, String)>) -> Result<Self, ConfigError> {
        // A variable whose name or value is not Unicode cannot be one of ours unless its name starts
        // like ours; then the lossy value fails where it is parsed, under its name.
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let mut given = Given { flags, environment, file: None, machine_memory_bytes: machine::memory_bytes() };
        if let Some((path, origin)) = given.file_path() {
            let text = std::fs::read_to_string(&path).map_err(|error| {
                ConfigError::new(format!("cannot read the file {} ({origin}): {error}", path.display()))
            })?;
            given.file = Some((path, text));
        }
        Self::resolve(&given)
    }

    /// Makes the configuration out of what was given. Pure.
    ///
    /// # Errors
    /// On an unknown key or `GOVC_` variable, a value that its setting does not take, or settings that do
    /// not go together.
    pub fn resolve(given: &Given) -> Result<Self, ConfigError> {
        let layers = Layers::new(given)?;
        let mut config = Self::default();

        let server = &mut config.server;
        server.listen = layers.listen(server.listen)?;
        layers.set("server.insecure_no_auth", &mut server.insecure_no_auth, values::boolean)?;
        layers.set("server.max_body", &mut server.body_bytes_max, values::size)?;
        layers.set("server.body_timeout", &mut server.body_timeout, values::duration)?;
        layers.set("server.header_timeout", &mut server.header_timeout, values::duration)?;
        layers.set("server.max_connections", &mut server.connections_max, values::count)?;
        layers.set("server.work_threads", &mut server.work_threads, values::count)?;
        layers.set("server.work_queue", &mut server.work_queue_max, values::count)?;
        layers.set("server.work_timeout", &mut server.work_timeout, values::duration)?;
        layers.set("server.shutdown_timeout", &mut server.shutdown_timeout, |text| {
            values::duration_up_to(text, SHUTDOWN_TIMEOUT_MAX)
        })?;
        server.tls = transport::tls(&layers)?;
        server.ssh = transport::ssh(&layers)?;
        layers.set("server.public_url", &mut server.public_url, |text| values::url(text).map(Some))?;

        let storage = &mut config.storage;
        if let Some(machine_bytes) = given.machine_memory_bytes {
            storage.memory_bytes = (machine_bytes / 2).max(MEMORY_BYTES_MIN);
        }
        layers.set("storage.data", &mut storage.data, values::path)?;
        storage.backend = Location::Rocksdb(storage.data.join("rocksdb"));
        layers.set("storage.backend", &mut storage.backend, |text| Location::parse(text, &storage.data))?;
        layers.set("storage.memory", &mut storage.memory_bytes, |text| values::size_from(text, MEMORY_BYTES_MIN))?;
        server.buffered_bytes_max = buffered_default(storage.memory_bytes, server.body_bytes_max);
        layers.set("server.max_buffered", &mut server.buffered_bytes_max, |text| values::size_from(text, MIB))?;
        layers.set("storage.reserve", &mut storage.reserve_bytes, values::size)?;
        layers.set("storage.max_object", &mut storage.object_bytes_max, |text| values::size_from(text, KIB))?;
        layers.set("storage.relaxed_delay", &mut storage.relaxed_delay_max, values::duration)?;

        layers.set("versions.max_count", &mut config.versions.count_max, values::number)?;
        layers.set("versions.max_age", &mut config.versions.age_max, values::age)?;

        let compaction = &mut config.compaction;
        compaction.memory_bytes = compaction_memory_default(config.storage.memory_bytes);
        layers.set("compaction.enabled", &mut compaction.enabled, values::boolean)?;
        layers.set("compaction.min_growth", &mut compaction.fresh_bytes_min, values::size)?;
        layers.set("compaction.growth_percent", &mut compaction.growth_percent, values::percent)?;
        layers.set("compaction.archive_after", &mut compaction.archive_age, values::age_or_never)?;
        layers.set("compaction.cpu_percent", &mut compaction.cpu_percent, values::percent)?;
        layers.set("compaction.max_rate", &mut compaction.rate_max, values::size)?;
        layers.set("compaction.memory", &mut compaction.memory_bytes, |text| values::size_from(text, MIB))?;

        let search = &mut config.search;
        search.memory_bytes = search_memory_default(config.storage.memory_bytes);
        layers.set("search.enabled", &mut search.enabled, values::boolean)?;
        layers.set("search.memory", &mut search.memory_bytes, |text| values::size_from(text, MIB))?;

        let limits = &mut config.limits;
        layers.set("limits.references", &mut limits.references_max, values::count)?;
        layers.set("limits.changes", &mut limits.changes_max, values::count)?;
        layers.set("limits.realities", &mut limits.realities_max, values::count)?;

        let transactions = &mut config.transactions;
        layers.set("transactions.max_open", &mut transactions.open_max, values::count)?;
        layers.set("transactions.max_bytes", &mut transactions.bytes_max, values::size)?;
        layers.set("transactions.idle", &mut transactions.idle, values::duration)?;

        layers.set("logging.level", &mut config.logging.level, values::level)?;
        layers.set("logging.format", &mut config.logging.format, values::log_format)?;

        layers.set("metrics.enabled", &mut config.metrics.enabled, values::boolean)?;
        layers.set("metrics.path", &mut config.metrics.path, values::metrics_path)?;

        let git = &mut config.git;
        git.pack_cache_memory_bytes = pack_cache_memory_default(config.storage.memory_bytes);
        layers.set("git.create_on_push", &mut git.create_on_push, values::boolean)?;
        layers.set("git.default_object_format", &mut git.default_object_format, values::object_format)?;
        layers.set("git.max_pack", &mut git.pack_bytes_max, |text| values::size_from(text, KIB))?;
        layers.set("git.pack_cache_memory", &mut git.pack_cache_memory_bytes, values::size)?;
        layers.set("git.pack_cache_disk", &mut git.pack_cache_disk_bytes, values::size)?;
        layers.set("git.fetch_grace", &mut git.fetch_grace, values::duration)?;
        layers.set("git.bundle_uris", &mut git.bundle_uris, values::boolean)?;
        // Who says where clients come in says that links lead there.
        git.packfile_uris = config.server.public_url.is_some();
        layers.set("git.packfile_uris", &mut git.packfile_uris, values::boolean)?;
        layers.set("git.uri_min_pack", &mut git.uri_pack_bytes_min, values::size)?;
        layers.set("git.uri_lifetime", &mut git.uri_lifetime, values::duration)?;

        config.signing = signing::signing(&layers)?;

        layers.set("lfs.max_object", &mut config.lfs.object_bytes_max, |text| values::size_from(text, KIB))?;

        config.check_together(&layers)?;
        Ok(config)
    }

    /// The folder of everything durable, unless nothing is.
    pub fn data_folder(&self) -> Option<&Path> {
        match self.storage.backend {
            Location::Memory => None,
            _ => Some(&self.storage.data),
        }
    }

    /// The backend as a person would name it: by its word if it is where the word says.
    pub fn backend_name(&self) -> String {
        let backend = &self.storage.backend;
        match Location::parse(backend.kind(), &self.storage.data) {
            Ok(usual) if usual == *backend => backend.kind().to_owned(),
            _ => backend.to_string(),
        }
    }

    /// The settings of a repository that is made without any.
    pub(crate) fn new_repo_settings(&self) -> RepoSettings {
        RepoSettings { object_format: self.git.default_object_format, ..RepoSettings::default() }
    }

    /// The engine's part of the memory budget: all but the pack cache's.
    pub fn engine_memory_bytes(&self) -> u64 {
        self.storage.memory_bytes.saturating_sub(self.git.pack_cache_memory_bytes)
    }

    fn check_together(&self, layers: &Layers) -> Result<(), ConfigError> {
        if self.git.pack_cache_memory_bytes > self.storage.memory_bytes / 2 {
            return Err(ConfigError::new(format!(
                "git.pack_cache_memory ({}) may be at most half of storage.memory, which is {} bytes",
                layers.origin("git.pack_cache_memory"),
                self.storage.memory_bytes
            )));
        }
        // `::ffff:127.0.0.1` is loopback too.
        let address = self.server.listen.ip().to_canonical();
        if !address.is_loopback() && !self.server.insecure_no_auth {
            return Err(ConfigError::new(format!(
                "server.listen ({}): refusing to listen on {}, because there are no users yet and everyone \
                 who reaches it could read and change everything; listen on 127.0.0.1, or add \
                 --insecure-no-auth if that is what you want",
                layers.listen_origin(),
                self.server.listen
            )));
        }
        Ok(())
    }
}
