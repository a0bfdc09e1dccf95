//! What is counted of the packs that fetches are sent.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Where a pack that was sent came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackSource {
    /// It was made for this fetch.
    Made,
    /// It was made for this fetch, of the whole of a kept one and what has come since.
    Extended,
    /// It was being made for another fetch already.
    Shared,
    /// It was kept of an earlier clone or push.
    Kept,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    source: &'static str,
}

/// Counters that are shared with those who count.
#[derive(Debug, Clone)]
pub(crate) struct PackFigures(Family<Labels, Counter>);

impl PackFigures {
    /// Figures that `registry` shows, from zero on.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let figures = Self(Family::default());
        registry.register(
            "packs_sent",
            "Packs that fetches were sent whole, by where they came from",
            figures.0.clone(),
        );
        for source in [PackSource::Made, PackSource::Extended, PackSource::Shared, PackSource::Kept] {
            figures.of(source);
        }
        figures
    }

    /// Counts one that was sent whole.
    pub(crate) fn sent(&self, source: PackSource) {
        self.of(source).inc();
    }

    fn of(&self, source: PackSource) -> Counter {
        let source = match source {
            PackSource::Made => "made",
            PackSource::Extended => "extended",
            PackSource::Shared => "shared",
            PackSource::Kept => "kept",
        };
        self.0.get_or_create(&Labels { source }).clone()
    }
}
