//! Where the database is: the URL, taken apart once.
//!
//! The names `sslmode` and `sslrootcert` have libpq's meaning and are read here, because tokio-postgres knows only
//! half of the modes; `schema` is ours. Everything else goes on to it. A password is in `config` alone: what is shown is built from
//! the other parts, and no message repeats the URL.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult};
use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};

use super::tls::{Tls, Trust};

/// A peer that is gone is noticed after idle + retries * interval, on both sides.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
pub(super) const KEEPALIVE_RETRIES: u32 = 3;
/// Sent bytes that nobody acknowledges for so long end a connection.
pub(super) const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// A database, and how to reach it.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// Host, port and database, for people.
    pub(super) shown: String,
    /// What sessions are called in `pg_stat_activity`.
    pub(super) application: String,
    /// The schema that the URL names.
    pub(super) schema: Option<String>,
}

impl Address {
    pub(super) fn parse(url: &str, connect_timeout: Duration) -> BackendResult<Self> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(refused("a PostgreSQL URL begins with postgres:// or postgresql://"));
        }
        let Taken { plain, mode, root, schema } = take(url)?;
        // Its error may quote a part of the URL, so it is told in other words.
        let mut config: Config = plain.parse().map_err(|error| refused(&parse_words(&plain, &error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(refused("the PostgreSQL URL names no host; a socket's folder is given as ?host=/folder"));
        }
        if config.get_user().is_none() {
            return Err(refused("the PostgreSQL URL names no user: postgres://user@host/database"));
        }
        let (hosts, addresses, ports) =
            (config.get_hosts().len(), config.get_hostaddrs().len(), config.get_ports().len());
        if (hosts > 0 && addresses > 0 && hosts != addresses) || (ports > 1 && ports != hosts.max(addresses)) {
            return Err(refused("the PostgreSQL URL names another number of hosts than of addresses or ports"));
        }
        if config.get_load_balance_hosts() != LoadBalanceHosts::Disable {
            return Err(refused("load_balance_hosts is not supported: the first server that takes writes is used"));
        }
        let local =
            config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) && config.get_hostaddrs().is_empty();
        // A socket of this machine has no TLS, whatever is asked for; as in libpq.
        let trust = if local { Trust::None } else { Trust::of(mode.as_deref(), root)? };
        config.ssl_mode(match trust {
            Trust::None => SslMode::Disable,
            Trust::Prefer => SslMode::Prefer,
            Trust::Any | Trust::Chain(_) | Trust::ChainAndName(_) => SslMode::Require,
        });
        let application = config.get_application_name().unwrap_or("govc").to_owned();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(connect_timeout);
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        config.keepalives_interval(KEEPALIVE_INTERVAL);
        config.keepalives_retries(KEEPALIVE_RETRIES);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
        }
        let shown = shown(&config);
        Ok(Self { tls: trust.connector()?, config, shown, application, schema })
    }

    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }
}

fn refused(message: &str) -> BackendError {
    BackendError::new(BackendErrorKind::Failed, message)
}

/// A URL without the parameters that are this crate's, and these.
#[derive(Default)]
struct Taken {
    plain: String,
    mode: Option<String>,
    root: Option<PathBuf>,
    schema: Option<String>,
}

fn take(url: &str) -> BackendResult<Taken> {
    let Some((start, query)) = url.split_once('?') else {
        return Ok(Taken { plain: url.to_owned(), ..Taken::default() });
    };
    let (mut taken, mut rest) = (Taken::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| refused("a parameter of the PostgreSQL URL is not in UTF-8"))?;
        match name {
            "sslmode" => taken.mode = Some(value.into_owned()),
            "sslrootcert" => taken.root = Some(PathBuf::from(value.into_owned())),
            "schema" => taken.schema = Some(value.into_owned()),
            _ => rest.push(pair),
        }
    }
    taken.plain = if rest.is_empty() { start.to_owned() } else { format!("{start}?{}", rest.join("&")) };
    Ok(taken)
}

/// What is wrong with a URL. tokio-postgres names the parameter, never its value, except for an unexpected
/// character; of such a message only the beginning is repeated.
fn parse_words(plain: &str, error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    // Behind a `?` in the password, what is taken for a parameter's name is a piece of it.
    let is_plain = plain.rsplit_once('@').is_none_or(|(credentials, _)| !credentials.contains('?'));
    if is_plain && (cause.starts_with("unknown option") || cause.starts_with("invalid value for option")) {
        format!("the PostgreSQL URL cannot be read: {cause}")
    } else {
        "the PostgreSQL URL cannot be read: expected postgres://user:password@host:port/database?name=value, with %-codes \
         for special characters"
            .to_owned()
    }
}

fn shown(config: &Config) -> String {
    let mut text = String::new();
    let ports = config.get_ports();
    let count = config.get_hosts().len().max(config.get_hostaddrs().len());
    for at in 0..count {
        if at > 0 {
            text.push(',');
        }
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        // Writing to a String cannot fail.
        let _ = match (config.get_hosts().get(at), config.get_hostaddrs().get(at)) {
            (Some(Host::Tcp(host)), _) => write!(text, "{host}:{port}"),
            (Some(Host::Unix(folder)), _) => write!(text, "{}:{port}", folder.display()),
            (None, Some(address)) => write!(text, "{address}:{port}"),
            (None, None) => Ok(()),
        };
    }
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    let _ = write!(text, "/{database}");
    text
}
