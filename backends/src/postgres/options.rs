//! What can be set on a PostgreSQL store, beside its URL.

use std::time::Duration;

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult};

/// PostgreSQL cuts longer names off without an error.
const NAME_BYTES_MAX: usize = 63;

/// What can be set on a PostgreSQL store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// The schema that holds the store's tables; created if it is not there. One database holds several stores in
    /// schemas of their own.
    pub schema: String,
    /// Connections for reads and writes, half of them for each; at least 2. The lease takes one more, and open
    /// scans what `scans_max` allows.
    pub connections_max: u32,
    /// Scans with more than one page that are open at once, each on a connection of its own. One more is refused,
    /// because waiting could wait for the caller itself.
    pub scans_max: u32,
    /// How long a call goes on trying while the server cannot be reached.
    pub outage_max: Duration,
    /// How long one attempt to connect takes at most.
    pub connect_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: "govc".to_owned(),
            connections_max: 8,
            scans_max: 32,
            outage_max: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl PostgresOptions {
    pub(super) fn check(&self) -> BackendResult<()> {
        let refuse = |message: String| Err(BackendError::new(BackendErrorKind::Failed, message));
        let schema = &self.schema;
        if schema.is_empty() || schema.len() > NAME_BYTES_MAX || schema.contains('\0') || schema.starts_with("pg_") {
            return refuse(format!(
                "{schema:?} cannot be a schema: a name has 1 to {NAME_BYTES_MAX} bytes and does not begin with pg_"
            ));
        }
        if self.connections_max < 2 {
            return refuse("connections_max must be at least 2: one to read, one to write".to_owned());
        }
        Ok(())
    }

    /// Connections that write; the rest of `connections_max` reads.
    pub(super) fn writers(&self) -> usize {
        (self.connections_max / 2).clamp(1, i16::MAX as u32) as usize
    }

    pub(super) fn readers(&self) -> usize {
        (self.connections_max as usize).saturating_sub(self.writers()).clamp(1, i16::MAX as usize)
    }

    /// The schema's name as SQL writes it.
    pub(super) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }
}
