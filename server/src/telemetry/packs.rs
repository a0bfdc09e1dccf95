//! What is counted of the packs that fetches are sent, and of what pushes change.

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Counters that are shared with those who count.
#[derive(Debug, Clone)]
pub(crate) struct PackFigures {
    sent: Family<Labels, Counter>,
    entries: Family<Labels, Counter>,
    pushed: Family<ResultLabels, Counter>,
}

impl PackFigures {
    /// Figures that `registry` shows, from zero on.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let figures = Self { sent: Family::default(), entries: Family::default(), pushed: Family::default() };
        registry.register(
            "packs_sent",
            "Packs that fetches were sent whole, by where they came from",
            figures.sent.clone(),
        );
        registry.register(
            "pack_entries_written",
            "Entries of packs that were made for fetches, by whether they were deflated or copied from a kept pack",
            figures.entries.clone(),
        );
        registry.register(
            "pushed_references",
            "Changes of references that pushes asked for, by what came of them",
            figures.pushed.clone(),
        );
        for source in [PackSource::Made, PackSource::Extended, PackSource::Shared, PackSource::Kept] {
            figures.sent_from(source);
        }
        figures.made(0, 0);
        figures.pushed(0, 0);
        figures
    }

    /// Counts one that was sent whole.
    pub(crate) fn sent(&self, source: PackSource) {
        self.sent_from(source).inc();
    }

    /// Counts one that was made of so many entries, so many of them copied from kept packs.
    pub(crate) fn made(&self, entries: usize, copied: usize) {
        for (source, count) in [("deflated", entries - copied), ("copied", copied)] {
            self.entries.get_or_create(&Labels { source }).inc_by(count as u64);
        }
    }

    /// Counts a push that changed so many references, and was refused so many changes.
    pub(crate) fn pushed(&self, done: usize, refused: usize) {
        for (result, count) in [("done", done), ("refused", refused)] {
            self.pushed.get_or_create(&ResultLabels { result }).inc_by(count as u64);
        }
    }

    fn sent_from(&self, source: PackSource) -> Counter {
        let source = match source {
            PackSource::Made => "made",
            PackSource::Extended => "extended",
            PackSource::Shared => "shared",
            PackSource::Kept => "kept",
        };
        self.sent.get_or_create(&Labels { source }).clone()
    }
}
