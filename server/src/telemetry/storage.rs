//! What the storage backend is asked, at `/metrics`: by family what is read and written, by call how often and how long.

use std::fmt;

use govc_backends::observed::{BOUNDS_MICROS, CallFigures, FamilyFigures, Figures};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// A counter of each family: its name without `_total`, what it means, and how it is read.
type FamilyCounter = (&'static str, &'static str, fn(&FamilyFigures) -> u64);

const FAMILY_COUNTERS: [FamilyCounter; 9] = [
    ("backend_keys_read", "Keys that the storage was asked for", |figures| figures.keys_read),
    ("backend_keys_missed", "Keys asked for that were not there", |figures| figures.keys_missed),
    ("backend_bytes_read", "Bytes of values that were asked for", |figures| figures.bytes_read),
    ("backend_scans", "Scans of the storage", |figures| figures.scans),
    ("backend_entries_scanned", "Entries that scans gave", |figures| figures.entries_scanned),
    ("backend_bytes_scanned", "Bytes of keys and values that scans gave", |figures| figures.bytes_scanned),
    ("backend_keys_written", "Keys that were set", |figures| figures.keys_written),
    ("backend_bytes_written", "Bytes of keys and values that were set", |figures| figures.bytes_written),
    ("backend_removals", "Keys and ranges that were removed", |figures| figures.removals),
];

/// The figures of one scrape.
#[derive(Debug)]
pub(super) struct StorageFigures(pub(super) Figures);

impl Collector for StorageFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in FAMILY_COUNTERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (family, figures) in &self.0.families {
                let labels = [("family", family.name())];
                ConstCounter::new(value(figures)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Calls to the storage that failed, or were refused for a precondition";
        let mut metric = encoder.encode_descriptor("backend_call_errors", help, None, MetricType::Counter)?;
        for (call, figures) in &self.0.calls {
            ConstCounter::new(figures.errors).encode(metric.encode_family(&[("call", call.name())])?)?;
        }
        let help = "Time of calls to the storage; of a scan, to its first entry";
        let mut metric = encoder.encode_descriptor("backend_call_seconds", help, None, MetricType::Histogram)?;
        for (call, figures) in &self.0.calls {
            let labels = [("call", call.name())];
            let (total, buckets) = (figures.total.as_secs_f64(), buckets(figures));
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(total, figures.calls, &buckets, None)?;
        }
        Ok(())
    }
}

/// Upper bounds in seconds with how many calls are in each class, the last without a bound.
fn buckets(figures: &CallFigures) -> Vec<(f64, u64)> {
    let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
    bounds.zip(figures.classes).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use govc_backends::{MemoryBackend, ObservedBackend};
    use govc_engine::backend::{Backend, Batch, Family, Sync};
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn families_and_calls_are_told() {
        let observed = ObservedBackend::new(Arc::new(MemoryBackend::new()));
        let mut batch = Batch::new();
        batch.put(Family::Refs, b"key".to_vec(), &b"value"[..]);
        observed.write(batch, Sync::Yes).unwrap();
        observed.get(Family::Ids, b"missing").unwrap();
        let mut registry = Registry::with_prefix("govc");
        registry.register_collector(Box::new(StorageFigures(observed.figures())));
        let mut written = String::new();
        text::encode(&mut written, &registry).unwrap();
        for line in [
            "# TYPE govc_backend_bytes_written counter",
            r#"govc_backend_bytes_written_total{family="refs"} 8"#,
            r#"govc_backend_bytes_written_total{family="blocks"} 0"#,
            r#"govc_backend_keys_missed_total{family="ids"} 1"#,
            r#"govc_backend_call_errors_total{call="get"} 0"#,
            "# TYPE govc_backend_call_seconds histogram",
            r#"govc_backend_call_seconds_count{call="write_synced"} 1"#,
            r#"govc_backend_call_seconds_bucket{le="+Inf",call="get"} 1"#,
        ] {
            assert!(written.lines().any(|found| found == line), "no line {line:?} in\n{written}");
        }
    }
}
