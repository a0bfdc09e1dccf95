//! What TLS counts: handshakes, certificates that were taken or refused, and until when the one in use is valid.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FileLabels {
    file: String,
}

/// What came of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeResult {
    /// The connection is secured.
    Ok,
    /// The client left, or spoke no TLS that the server speaks.
    Failed,
    /// It took too long.
    TimedOut,
    /// The client spoke plain HTTP.
    Plain,
}

/// Counters that are shared with those who count. Without TLS nothing of them is shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFigures {
    handshakes: Family<Labels, Counter>,
    reloads: Family<Labels, Counter>,
    not_after: Family<FileLabels, Gauge>,
}

impl TlsFigures {
    /// Figures that `registry` shows.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let figures = Self::default();
        registry.register("tls_handshakes", "TLS handshakes by what came of them", figures.handshakes.clone());
        let help = "Changed certificates by whether they could be used";
        registry.register("tls_reloads", help, figures.reloads.clone());
        let help = "When the certificate in use ceases to be valid, in seconds since 1970";
        registry.register("tls_certificate_not_after_seconds", help, figures.not_after.clone());
        figures
    }

    pub(crate) fn handshake(&self, result: HandshakeResult) {
        let result = match result {
            HandshakeResult::Ok => "ok",
            HandshakeResult::Failed => "failed",
            HandshakeResult::TimedOut => "timed_out",
            HandshakeResult::Plain => "plain",
        };
        self.handshakes.get_or_create(&Labels { result }).inc();
    }

    pub(crate) fn reloaded(&self, is_used: bool) {
        let result = if is_used { "used" } else { "refused" };
        self.reloads.get_or_create(&Labels { result }).inc();
    }

    /// `file` is the one that the settings name, `not_after` in seconds since 1970.
    pub(crate) fn certificate(&self, file: &str, not_after: i64) {
        self.not_after.get_or_create(&FileLabels { file: file.to_owned() }).set(not_after);
    }
}
