//! What all handlers share: the store, the configuration, and the server's own services around them.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use govc_backends::{ObservedBackend, OpenOptions};
use govc_compaction::Schedule;
use govc_engine::{BackendErrorKind, Limits, Repo, Retention, Store, StoreOptions};
use govc_search::{Definer, Search, SearchOptions, account_sql_memory};
use tokio::sync::Semaphore;

use crate::compaction::{Budgets, CompactionOptions, Compactions};
use crate::config::Config;
use crate::definitions::Parsers;
use crate::git::listings::Listings;
use crate::git::pack::deliver::on_their_way_max;
use crate::git::pack::workers::IngestThreads;
use crate::git::push_cert::PushCerts;
use crate::git::{PackCache, PackCacheOptions, Reachable};
use crate::http::body::Bodies;
use crate::priority;
use crate::telemetry::Metrics;
use crate::transactions::{TransactionOptions, Transactions};
use crate::work::{WorkOptions, WorkPool};

/// Indexing gives way to requests, and compaction to it.
const INDEXER_NICENESS: i32 = 10;
/// A search that takes longer does not keep others waiting for their turn.
const SEARCH_TURN: Duration = Duration::from_millis(250);

/// The server's state. One exists for the life of the process.
pub struct App {
    /// All repositories.
    pub store: Store,
    /// What the store is kept in, to be asked for figures.
    pub(crate) backend: Arc<ObservedBackend>,
    /// What the server was told.
    pub config: Config,
    /// What it counts.
    pub metrics: Metrics,
    /// Where long work runs.
    pub work: WorkPool,
    /// Threads beside those of `work` that large pushes may have.
    pub(crate) ingest_threads: IngestThreads,
    /// Packs kept for verbatim serving.
    pub packs: PackCache,
    /// What has been found of objects that clients asked for by id.
    pub(crate) reachable: Reachable,
    /// Places for large packs on their way.
    pub(crate) deliveries: Arc<Semaphore>,
    /// Turns of packs on their way from slow clients.
    pub(crate) arrivals: Arc<Semaphore>,
    /// Lists of references that were answered.
    pub(crate) listings: Listings,
    /// What signed pushes are signed with.
    pub(crate) push_certs: PushCerts,
    /// How bodies of API requests and answers come and go.
    pub(crate) bodies: Bodies,
    /// What callers have staged and not committed.
    pub(crate) transactions: Transactions,
    /// The search index, and what keeps it up.
    pub(crate) search: Search,
    /// Compactions, asked for or due.
    pub(crate) compactions: Compactions,
    /// When the server started.
    pub started: Instant,
    /// Set once, when the server begins to stop; read by the readiness probe. Orders nothing.
    draining: AtomicBool,
}

/// Why the server's data could not be opened.
#[derive(Debug)]
pub struct OpenError(String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

impl App {
    /// Opens everything that `config` names, recovering what an earlier process left. Blocks.
    ///
    /// # Errors
    /// When the data folder cannot be made or used, another process has it, or its content is damaged.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        Self::open_with(config, Metrics::new())
    }

    /// The same with metrics that others count in already.
    ///
    /// # Errors
    /// As [`App::open`].
    pub(crate) fn open_with(config: Config, metrics: Metrics) -> Result<Arc<Self>, OpenError> {
        // Before a backend uses SQLite; afterwards its memory cannot be counted any more.
        if !account_sql_memory() {
            tracing::warn!("SQLite was in use before its memory could be counted: /search/sql is not available");
        }
        let backend = open_backend(&config)?;
        let store = Store::open(backend.clone(), store_options(&config))
            .map_err(|error| OpenError(format!("cannot open the store: {}", with_causes(&error))))?;
        if let Some(folder) = config.data_folder() {
            remove_unowned_packs(&folder.join("packs"));
        }
        let packs = PackCacheOptions {
            // Of this store alone: repositories of others may have the same numbers.
            dir: config.data_folder().map(|data| data.join("packs").join(store.id().to_string())),
            memory_bytes: config.git.pack_cache_memory_bytes,
            disk_bytes: config.git.pack_cache_disk_bytes,
            reserve_bytes: config.storage.reserve_bytes,
        };
        let packs =
            PackCache::open(packs).map_err(|error| OpenError(format!("cannot open the pack cache: {error}")))?;
        let repos: HashSet<_> = store.list(None, usize::MAX).iter().map(Repo::id).collect();
        packs.retain(|repo| repos.contains(&repo));
        let search = Search::open(store.clone(), search_options(&config, &store))
            .map_err(|error| OpenError(format!("cannot open the search index: {}", with_causes(&error))))?;
        let push_certs = PushCerts::open(&config.signing, &store).map_err(OpenError)?;
        let app = Self::new(store, backend, config, metrics, packs, search, push_certs);
        app.compactions.start().map_err(OpenError)?;
        Ok(Arc::new(app))
    }

    fn new(
        store: Store,
        backend: Arc<ObservedBackend>,
        config: Config,
        metrics: Metrics,
        packs: PackCache,
        search: Search,
        push_certs: PushCerts,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let work = WorkPool::new(WorkOptions {
            threads: config.server.work_threads,
            processors,
            turn: SEARCH_TURN,
            queue_max: config.server.work_queue_max,
            timeout: config.server.work_timeout,
        });
        let bodies = Bodies::new(&config.server);
        let on_their_way = |one_of| {
            let most = on_their_way_max(config.server.buffered_bytes_max, one_of);
            Arc::new(Semaphore::new(most))
        };
        let (deliveries, arrivals) = (on_their_way(2), on_their_way(4));
        let reachable = Reachable::new(config.storage.memory_bytes, config.git.fetch_grace);
        let transactions = Transactions::new(TransactionOptions {
            open_max: config.transactions.open_max,
            bytes_max: usize::try_from(config.transactions.bytes_max).unwrap_or(usize::MAX),
            idle: config.transactions.idle,
        });
        let compactions = Compactions::new(store.clone(), compaction_options(&config));
        Self {
            store,
            backend,
            config,
            metrics,
            work,
            ingest_threads: IngestThreads::new(processors),
            packs,
            reachable,
            deliveries,
            arrivals,
            listings: Listings::default(),
            push_certs,
            bodies,
            transactions,
            search,
            compactions,
            started: Instant::now(),
            draining: AtomicBool::new(false),
        }
    }

    /// Marks the server as stopping: it is not ready any more, and goes on answering what reaches it.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What the store is opened with, by whoever writes it: what it keeps must not depend on that.
pub(crate) fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        memory_budget_bytes: config.engine_memory_bytes(),
        limits: Limits {
            object_bytes_max: config.storage.object_bytes_max,
            references_max: config.limits.references_max,
            changes_max: config.limits.changes_max,
            realities_max: config.limits.realities_max,
            ..Limits::default()
        },
        relaxed_delay_max: config.storage.relaxed_delay_max,
        retention: Retention { count_max: config.versions.count_max, age_max: config.versions.age_max },
        ..StoreOptions::default()
    }
}

/// Of this store alone: another one's publications have the same numbers.
fn search_options(config: &Config, store: &Store) -> SearchOptions {
    SearchOptions {
        folder: config.data_folder().map(|data| data.join("search").join(store.id().to_string())),
        budget_bytes: config.search.memory_bytes,
        is_indexing: config.search.enabled,
        definer: Parsers::new().map(|parsers| Arc::new(parsers) as Arc<dyn Definer>),
        on_start: || priority::lower(INDEXER_NICENESS),
    }
}

fn compaction_options(config: &Config) -> CompactionOptions {
    let compaction = &config.compaction;
    CompactionOptions {
        schedule: compaction.enabled.then(|| Schedule {
            fresh_bytes_min: compaction.fresh_bytes_min,
            growth_min: f64::from(compaction.growth_percent) / 100.0,
            archive_age: (!compaction.archive_age.is_zero()).then_some(compaction.archive_age),
            ..Schedule::default()
        }),
        budgets: Budgets {
            cpu_share: f64::from(compaction.cpu_percent) / 100.0,
            bytes_per_second: (compaction.rate_max > 0).then_some(compaction.rate_max),
        },
        memory_bytes: compaction.memory_bytes,
    }
}

fn open_backend(config: &Config) -> Result<Arc<ObservedBackend>, OpenError> {
    if let Some(folder) = config.data_folder() {
        make_folder(folder)?;
    }
    let location = &config.storage.backend;
    match location.open(&OpenOptions { reserve_bytes: config.storage.reserve_bytes }) {
        Ok(backend) => Ok(Arc::new(ObservedBackend::new(backend))),
        Err(error) if error.kind == BackendErrorKind::Locked => {
            Err(OpenError(format!("the data in {location} are in use by another process: {error}")))
        }
        Err(error) => Err(OpenError(format!("cannot open the data in {location} (storage.backend): {error}"))),
    }
}

/// Removes kept packs that are in no store's folder, as earlier versions left them. They are only a cache.
fn remove_unowned_packs(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes the data folder, for nobody but the server's user: repositories may be private.
fn make_folder(folder: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        let folder = folder.display();
        OpenError(format!("cannot make the data folder {folder} (storage.data): {error}"))
    })
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
