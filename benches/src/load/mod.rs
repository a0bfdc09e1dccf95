//! Loads over HTTP, from many keep-alive connections.
//!
//! One thread drives all connections with written-out HTTP/1.1, so the client takes as little as it can of a machine
//! that it shares with the server.

pub(crate) mod commits;
mod connection;
pub(crate) mod pushes;
pub(crate) mod reads;
pub(crate) mod repeat;
pub(crate) mod stream;

use std::future::Future;

use crate::error::{Context, Result};

/// The latency that the given share of all did not exceed, in milliseconds; of sorted ones in microseconds.
pub(crate) fn quantile_millis(sorted_micros: &[u32], share: f64) -> f64 {
    let last = sorted_micros.len().saturating_sub(1);
    let index = (last as f64 * share).ceil() as usize;
    sorted_micros.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

/// Runs a load on this thread.
pub(crate) fn block_on<T>(load: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context(|| "cannot start the client".into())?.block_on(load)
}

#[cfg(test)]
mod tests {
    use super::quantile_millis;

    #[test]
    fn quantiles() {
        let micros: Vec<u32> = (1..=100).map(|number| number * 1000).collect();
        assert_eq!(quantile_millis(&micros, 0.0), 1.0);
        assert_eq!(quantile_millis(&micros, 0.5), 51.0);
        assert_eq!(quantile_millis(&micros, 1.0), 100.0);
        assert_eq!(quantile_millis(&[], 0.5), 0.0);
    }
}
