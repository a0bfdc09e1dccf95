//! The name of a request: the client's own `X-Request-Id` where it is sane, else a new one. It stands in
//! the response, in the log, and among the request's extensions.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header of requests and responses.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const BYTES_MAX: usize = 128;

/// A request's name: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(Arc<str>);

/// Tells this process's ids from those of its last life and of its neighbours.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()) >> 32);

/// Counts generated ids; orders nothing.
static GENERATED: AtomicU64 = AtomicU64::new(0);

impl RequestId {
    /// The id that the request came with, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
        match given {
            Some(given) if is_sane(given) => Self(given.into()),
            _ => Self(format!("{:08x}-{:x}", *PROCESS, GENERATED.fetch_add(1, Ordering::Relaxed)).into()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

/// What can be quoted in a log, a shell and a URL without thought.
fn is_sane(id: &str) -> bool {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+=/@".contains(&byte);
    (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(sane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: &str) -> RequestId {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(given).unwrap());
        RequestId::of(&headers)
    }

    #[test]
    fn a_sane_id_is_kept() {
        assert_eq!(id_for("req-123-456").as_str(), "req-123-456");
        let long = "a".repeat(BYTES_MAX);
        assert_eq!(id_for(&long).as_str(), long);
    }

    #[test]
    fn what_is_not_sane_is_replaced_by_ids_that_differ() {
        let mut seen = std::collections::BTreeSet::new();
        for bad in ["", "a b", "x\"y", "<script>", &"a".repeat(BYTES_MAX + 1)] {
            let id = id_for(bad);
            assert_ne!(id.as_str(), bad);
            assert!(is_sane(id.as_str()), "{id:?}");
            assert_eq!(id.header_value().unwrap(), id.as_str());
            assert!(seen.insert(id.as_str().to_owned()), "{id:?} was given twice");
        }
    }
}
