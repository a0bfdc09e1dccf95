//! What SSH counts and logs: connections, logins, and each call from its beginning to its end.
//!
//! A [`SshExchange`] is recorded exactly once, when it is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::request_durations;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    service: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

/// Counters that are shared with those who count.
#[derive(Debug, Clone)]
pub(crate) struct SshFigures {
    connections: Gauge,
    logins: Family<LoginLabels, Counter>,
    calls: Family<CallLabels, Counter>,
    durations: Family<ServiceLabels, Histogram>,
    in_flight: Gauge,
}

impl SshFigures {
    /// Figures that `registry` shows.
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let durations = Family::new_with_constructor(request_durations as fn() -> Histogram);
        let figures = Self {
            connections: Gauge::default(),
            logins: Family::default(),
            calls: Family::default(),
            durations,
            in_flight: Gauge::default(),
        };
        registry.register("ssh_connections", "SSH connections that are open", figures.connections.clone());
        registry.register(
            "ssh_logins",
            "SSH connections that ended their login, by its result",
            figures.logins.clone(),
        );
        registry.register("ssh_requests", "Calls of Git's services over SSH", figures.calls.clone());
        let help = "Time from a call of a service over SSH to its end";
        registry.register("ssh_request_duration_seconds", help, figures.durations.clone());
        registry.register("ssh_requests_in_flight", "Calls over SSH being answered", figures.in_flight.clone());
        figures
    }

    /// Counts a connection for as long as the answer lives.
    pub(crate) fn connection(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Counts a connection whose login has ended.
    pub(crate) fn login(&self, result: LoginResult) {
        self.logins.get_or_create(&LoginLabels { result: result.name() }).inc();
    }
}

/// What came of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginResult {
    /// Somebody is in.
    Accepted,
    /// What the client tried did not let it in, and it left or was sent away.
    Refused,
    /// It took too long.
    TimedOut,
    /// It made way for others that came later.
    Displaced,
    /// The client left before it had tried anything, as those do that look for servers.
    Left,
}

impl LoginResult {
    /// As in figures and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LoginResult::Accepted => "accepted",
            LoginResult::Refused => "refused",
            LoginResult::TimedOut => "timed_out",
            LoginResult::Displaced => "displaced",
            LoginResult::Left => "left",
        }
    }
}

/// One more in a gauge.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallResult {
    /// It was answered; a refusal within Git's protocol is an answer.
    Ok,
    /// It was not begun.
    Refused,
    /// It failed in between.
    Failed,
    /// The client left, or was too slow.
    Gone,
}

/// The service of commands that are none.
pub(crate) const OTHER_SERVICE: &str = "other";

/// One call of a service, from its command to its exit status.
#[derive(Debug)]
pub(crate) struct SshExchange {
    figures: SshFigures,
    began: Instant,
    /// From a bounded set.
    service: &'static str,
    path: String,
    person: Arc<str>,
    peer: SocketAddr,
    result: CallResult,
    /// Why it did not come to its end, or was not begun.
    reason: Option<String>,
    _in_flight: Counted,
}

impl SshExchange {
    pub(crate) fn begin(
        figures: &SshFigures,
        service: &'static str,
        path: &str,
        person: Arc<str>,
        peer: SocketAddr,
    ) -> Self {
        Self {
            figures: figures.clone(),
            began: Instant::now(),
            service,
            path: path.to_owned(),
            person,
            peer,
            // Unless it comes to another end.
            result: CallResult::Gone,
            reason: None,
            _in_flight: Counted::new(&figures.in_flight),
        }
    }

    /// Says what came of it, and why if it was not answered.
    pub(crate) fn end(mut self, result: CallResult, reason: Option<String>) {
        self.result = result;
        self.reason = reason;
    }
}

impl Drop for SshExchange {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let service = self.service;
        let result = match self.result {
            CallResult::Ok => "ok",
            CallResult::Refused => "refused",
            CallResult::Failed => "failed",
            CallResult::Gone => "gone",
        };
        self.figures.calls.get_or_create(&CallLabels { service, result }).inc();
        self.figures.durations.get_or_create(&ServiceLabels { service }).observe(took.as_secs_f64());
        tracing::info!(
            ssh_service = service,
            ssh_path = self.path.as_str(),
            ssh_result = result,
            ssh_reason = self.reason.as_deref(),
            ssh_latency_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            person = &*self.person,
            remote_addr = %self.peer,
            "SSH request processed"
        );
    }
}
