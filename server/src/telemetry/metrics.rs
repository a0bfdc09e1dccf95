//! The figures at `/metrics`, in the OpenMetrics text format.
//!
//! What requests do is counted as it happens; what the store, the work pool and the process know is read
//! at the scrape. Labels are bounded: methods and routes come from fixed sets, never from what a client
//! wrote.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use govc_engine::{Health, StoreStats};
use govc_search::{IndexerState, SearchStatus};

use super::packs::PackFigures;
use super::process::{self, ProcessUsage};
use super::ssh::SshFigures;
use super::storage::StorageFigures;
use super::tls::TlsFigures;
use crate::app::App;
use crate::cli::VERSION;
use crate::compaction::Overview;
use crate::git::PackCacheStats;
use crate::work::WorkStats;

/// The content type of [`Metrics::encode`]'s text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: a read from memory takes a tenth of a millisecond, a large push a minute.
const DURATION_BOUNDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    path: String,
}

/// What the server counts while it works.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
    panics: Counter,
    tls: TlsFigures,
    ssh: SshFigures,
    packs: PackFigures,
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("govc");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("http_requests", "HTTP requests answered", requests.clone());
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(request_durations as fn() -> Histogram);
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its response's body",
            durations.clone(),
        );
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "Requests being answered", in_flight.clone());
        let panics = Counter::default();
        registry.register("http_panics", "Requests whose handler panicked", panics.clone());
        registry.register("build", "The program", Info::new([("version", VERSION)]));
        let tls = TlsFigures::registered(&mut registry);
        let ssh = SshFigures::registered(&mut registry);
        let packs = PackFigures::registered(&mut registry);
        Self { registry, requests, durations, in_flight, panics, tls, ssh, packs }
    }

    /// What TLS counts.
    pub(crate) fn tls(&self) -> &TlsFigures {
        &self.tls
    }

    /// What SSH counts.
    pub(crate) fn ssh(&self) -> &SshFigures {
        &self.ssh
    }

    /// What is counted of packs.
    pub(crate) fn packs(&self) -> &PackFigures {
        &self.packs
    }

    pub(super) fn request_begins(&self) {
        self.in_flight.inc();
    }

    /// A request that began has ended. `route` is from a bounded set, `method` from [`method_label`].
    pub(super) fn request_ends(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        self.in_flight.dec();
        let labels = RequestLabels { method, path: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { method, path: labels.path };
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn handler_panicked(&self) {
        self.panics.inc();
    }

    /// Everything as text, with the figures of this moment.
    pub(crate) fn encode(&self, app: &App) -> Result<String, fmt::Error> {
        let mut scrape = Scrape(Registry::with_prefix("govc"));
        scrape.gauge("uptime_seconds", "Time since the start", app.started.elapsed().as_secs());
        scrape.store(&app.store.stats(), app.transactions.len());
        scrape.work(app.work.stats());
        scrape.compactions(&app.compactions.overview());
        scrape.packs(app.packs.stats());
        scrape.search(&app.search.status(), app.store.feed_last().0);
        scrape.0.register_collector(Box::new(StorageFigures(app.backend.figures())));
        let mut process = Scrape(Registry::with_prefix("process"));
        process.usage(process::usage());

        let mut written = String::with_capacity(16 * 1024);
        for registry in [&self.registry, &scrape.0, &process.0] {
            text::encode_registry(&mut written, registry)?;
        }
        text::encode_eof(&mut written)?;
        Ok(written)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn request_durations() -> Histogram {
    Histogram::new(DURATION_BOUNDS)
}

/// The method as a label; what is not a common method is one label, whatever the client called it.
pub(super) fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "OTHER",
    }
}

/// The constant metrics of one scrape.
struct Scrape(Registry);

impl Scrape {
    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<u64>) {
        self.0.register(name, help, ConstGauge::new(saturated(value)));
    }

    /// `name` without `_total`, which the encoder appends.
    fn counter(&mut self, name: &str, help: &str, value: impl TryInto<u64>) {
        self.0.register(name, help, ConstCounter::new(saturated(value)));
    }

    fn compactions(&mut self, overview: &Overview) {
        let Overview { queue, running, totals, is_paused, .. } = overview;
        self.gauge("compaction_queue", "Repositories that wait to be compacted", queue.len());
        self.gauge("compaction_running", "Compactions under way", u8::from(running.is_some()));
        self.gauge("compaction_paused", "1 while compactions are paused", u8::from(*is_paused));
        self.counter("compactions", "Compactions that were installed", totals.done);
        self.counter("compactions_automatic", "Of these, those that nobody asked for", totals.automatic);
        self.counter("compactions_failed", "Compactions that failed", totals.failed);
        self.counter("compaction_bytes_in", "Bytes of blocks that compactions replaced", totals.bytes_in);
        self.counter(
            "compaction_removed_objects",
            "Objects removed because nothing led to them",
            totals.removed_objects,
        );
        self.counter("compaction_bytes_out", "Bytes of the blocks in their place", totals.bytes_out);
        self.0.register("compaction_seconds", "Time that compactions took", ConstCounter::new(totals.seconds));
        let cpu = ConstCounter::new(totals.cpu_seconds);
        self.0.register("compaction_cpu_seconds", "Processor time that compactions took", cpu);
        let rested = ConstCounter::new(totals.rested_seconds);
        self.0.register("compaction_rested_seconds", "Time that compactions rested for their budgets' sake", rested);
    }

    fn packs(&mut self, stats: PackCacheStats) {
        let PackCacheStats { packs, memory_bytes, disk_bytes, spooled_bytes } = stats;
        self.gauge("kept_packs", "Packs that are kept to serve again", packs);
        self.gauge("kept_packs_memory_bytes", "Memory that they take", memory_bytes);
        self.gauge("kept_packs_disk_bytes", "Bytes of their files", disk_bytes);
        self.gauge("spooled_packs_bytes", "Bytes of packs that are being sent while they are made", spooled_bytes);
    }

    fn search(&mut self, status: &SearchStatus, newest: u64) {
        let SearchStatus { indexer, figures, presence, symbols, rebuilds, .. } = status;
        let is_building = matches!(indexer.state, IndexerState::Building);
        self.gauge("search_building", "1 while the index goes over everything that there is", u8::from(is_building));
        self.gauge("search_behind", "Publications that are not indexed yet", newest.saturating_sub(indexer.position.0));
        self.gauge("search_files", "Contents that are indexed, each once", figures.blobs);
        self.gauge("search_chunks", "Pieces of text that are indexed, each once", figures.chunks);
        self.gauge("search_text_bytes", "Bytes of these pieces", figures.text_bytes);
        self.gauge("search_index_bytes", "Bytes of their index", figures.gram_bytes + figures.log_bytes);
        self.gauge("search_commits", "Commits of which is known which files are in them", presence.commits);
        self.gauge("search_messages", "Commits whose messages are indexed", figures.messages);
        self.gauge("search_symbols", "Definitions that are recorded", symbols.symbols);
        let memory = status.resident_bytes();
        self.gauge("search_resident_bytes", "Memory held by the search, without mapped files", memory);
        self.counter("search_rebuilds", "Times that the index was made anew", *rebuilds);
    }

    fn store(&mut self, stats: &StoreStats, staged: usize) {
        self.gauge("repositories_total", "Repositories in the catalog", stats.repositories);
        let active = usize::try_from(stats.open_transactions).unwrap_or_default() + staged;
        self.gauge("transactions_active", "Transactions begun and not ended", active);
        let healthy = u8::from(matches!(stats.health, Health::Ok));
        self.gauge("store_healthy", "1 while the store takes writes, else 0", healthy);
        self.counter("published", "Transactions made visible", stats.published_total);
        self.counter("conflicts", "Transactions refused because a reference had moved", stats.conflicts_total);
        self.gauge("last_seq", "Position of the newest publication in the feed", stats.last_seq.0);
        self.gauge("objects_resident", "Objects in memory", stats.objects_resident);
        self.gauge("resident_bytes", "Memory held by repository data", stats.resident_bytes);
        self.gauge("feed_bytes", "Memory held by the newest publications", stats.feed_bytes);
        self.gauge("memory_budget_bytes", "Memory that repository data may hold", stats.budget_bytes);
        self.gauge("unsettled_bytes", "Published data that are not in blocks yet", stats.unsettled_bytes);
        let unsettled_age = stats.unsettled_age.unwrap_or_default().as_secs();
        self.gauge("unsettled_age_seconds", "How long the oldest of them have waited", unsettled_age);
        self.counter("journal_groups", "Group commits", stats.journal_groups_total);
        self.counter("journal_transactions", "Transactions in group commits", stats.journal_transactions_total);
        self.counter("journal_bytes", "Bytes written in group commits", stats.journal_bytes_total);
        self.counter("syncs", "Times the backend was synced", stats.syncs_total);
        let sync_seconds = Duration::from_nanos(saturated(stats.sync_nanos_total)).as_secs_f64();
        self.0.register("sync_seconds", "Time spent in syncs", ConstCounter::new(sync_seconds));
        self.counter("evictions", "Entries dropped from memory", stats.evictions_total);
        self.counter("cache_hits", "Reads served from memory", stats.cache_hits_total);
        self.counter("cache_misses", "Reads that went to the backend", stats.cache_misses_total);
    }

    fn work(&mut self, stats: WorkStats) {
        self.gauge("work_running", "Pieces of long work on a thread", stats.running);
        self.gauge("work_waiting", "Pieces of long work that wait for a thread", stats.waiting);
        self.counter("work_panics", "Pieces of long work that panicked", stats.panics_total);
    }

    /// Under the names that every Prometheus client library uses; what the system does not tell is absent.
    fn usage(&mut self, usage: ProcessUsage) {
        if let Some(bytes) = usage.resident_bytes {
            self.gauge("resident_memory_bytes", "Memory in use", bytes);
        }
        if let Some(bytes) = usage.resident_bytes_max {
            self.gauge("resident_memory_max_bytes", "The most memory ever in use", bytes);
        }
        if let Some(seconds) = usage.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            self.0.register("cpu_seconds", "Processor time in user and system mode", counter);
        }
    }
}

fn saturated(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(metrics: &Metrics) -> String {
        let mut written = String::new();
        text::encode_registry(&mut written, &metrics.registry).unwrap();
        written
    }

    #[track_caller]
    fn check_line(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }

    #[test]
    fn requests_are_counted_under_their_labels() {
        let metrics = Metrics::new();
        metrics.request_begins();
        metrics.request_begins();
        metrics.request_ends("GET", "/api/v1/repos", 200, Duration::from_millis(3));
        let text = text_of(&metrics);
        check_line(&text, "# TYPE govc_http_requests counter");
        check_line(&text, r#"govc_http_requests_total{method="GET",path="/api/v1/repos",status="200"} 1"#);
        check_line(&text, "# TYPE govc_http_request_duration_seconds histogram");
        let bucket = r#"{le="0.005",method="GET",path="/api/v1/repos"} 1"#;
        check_line(&text, &format!("govc_http_request_duration_seconds_bucket{bucket}"));
        let below = r#"{le="0.0025",method="GET",path="/api/v1/repos"} 0"#;
        check_line(&text, &format!("govc_http_request_duration_seconds_bucket{below}"));
        check_line(&text, "# TYPE govc_http_requests_in_flight gauge");
        check_line(&text, "govc_http_requests_in_flight 1");
        check_line(&text, &format!("govc_build_info{{version=\"{VERSION}\"}} 1"));
    }

    #[test]
    fn strange_methods_share_a_label() {
        let strange = http::Method::from_bytes(b"BREW").unwrap();
        assert_eq!(method_label(&strange), "OTHER");
        assert_eq!(method_label(&http::Method::PATCH), "PATCH");
    }
}
