//! Which settings exist, under which names, and what each source says about them.
//!
//! [`SETTINGS`] is the only list: a key that is not in it is refused in a file, and so is a `GOVC_`
//! variable that no entry names.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::{ConfigError, Given, values};

/// One setting's names.
struct Setting {
    /// `section.name` in the file.
    key: &'static str,
    environment: &'static str,
    /// The flag without its dashes, if there is one.
    flag: Option<&'static str>,
}

const fn setting(key: &'static str, environment: &'static str, flag: Option<&'static str>) -> Setting {
    Setting { key, environment, flag }
}

/// The setting that says where the file is; it cannot stand in the file.
const CONFIG: &str = "config";
const CONFIG_VARIABLE: &str = "GOVC_CONFIG";

/// Variables under this prefix belong to test programs and are ignored.
const TEST_PREFIX: &str = "GOVC_TEST_";

const SETTINGS: &[Setting] = &[
    setting("server.listen", "GOVC_LISTEN", Some("listen")),
    setting("server.host", "GOVC_HOST", None),
    setting("server.port", "GOVC_PORT", None),
    setting("server.insecure_no_auth", "GOVC_INSECURE_NO_AUTH", Some("insecure-no-auth")),
    setting("server.max_body", "GOVC_MAX_BODY", Some("max-body")),
    setting("server.body_timeout", "GOVC_BODY_TIMEOUT", None),
    setting("server.max_buffered", "GOVC_MAX_BUFFERED", None),
    setting("server.header_timeout", "GOVC_HEADER_TIMEOUT", None),
    setting("server.max_connections", "GOVC_MAX_CONNECTIONS", None),
    setting("server.work_threads", "GOVC_WORK_THREADS", None),
    setting("server.work_queue", "GOVC_WORK_QUEUE", None),
    setting("server.work_timeout", "GOVC_WORK_TIMEOUT", None),
    setting("server.shutdown_timeout", "GOVC_SHUTDOWN_TIMEOUT", None),
    setting("server.tls_cert", "GOVC_TLS_CERT", Some("tls-cert")),
    setting("server.tls_key", "GOVC_TLS_KEY", Some("tls-key")),
    setting("server.ssh_listen", "GOVC_SSH_LISTEN", Some("ssh-listen")),
    setting("server.ssh_authorized_keys", "GOVC_SSH_AUTHORIZED_KEYS", Some("ssh-authorized-keys")),
    setting("server.ssh_host_key", "GOVC_SSH_HOST_KEY", None),
    setting("server.public_url", "GOVC_PUBLIC_URL", None),
    setting("storage.backend", "GOVC_BACKEND", Some("backend")),
    setting("storage.data", "GOVC_DATA", Some("data")),
    setting("storage.memory", "GOVC_MEMORY", Some("memory")),
    setting("storage.reserve", "GOVC_RESERVE", Some("reserve")),
    setting("storage.max_object", "GOVC_MAX_OBJECT", Some("max-object")),
    setting("storage.relaxed_delay", "GOVC_RELAXED_DELAY", None),
    setting("versions.max_count", "GOVC_VERSIONS_MAX_COUNT", None),
    setting("versions.max_age", "GOVC_VERSIONS_MAX_AGE", None),
    setting("compaction.enabled", "GOVC_COMPACTION_ENABLED", None),
    setting("compaction.min_growth", "GOVC_COMPACTION_MIN_GROWTH", None),
    setting("compaction.growth_percent", "GOVC_COMPACTION_GROWTH_PERCENT", None),
    setting("compaction.archive_after", "GOVC_COMPACTION_ARCHIVE_AFTER", None),
    setting("compaction.cpu_percent", "GOVC_COMPACTION_CPU_PERCENT", None),
    setting("compaction.max_rate", "GOVC_COMPACTION_MAX_RATE", None),
    setting("compaction.memory", "GOVC_COMPACTION_MEMORY", None),
    setting("search.enabled", "GOVC_SEARCH_ENABLED", None),
    setting("search.memory", "GOVC_SEARCH_MEMORY", None),
    setting("limits.references", "GOVC_LIMITS_REFERENCES", None),
    setting("limits.changes", "GOVC_LIMITS_CHANGES", None),
    setting("limits.realities", "GOVC_LIMITS_REALITIES", None),
    setting("transactions.max_open", "GOVC_TRANSACTIONS_MAX_OPEN", None),
    setting("transactions.max_bytes", "GOVC_TRANSACTIONS_MAX_BYTES", None),
    setting("transactions.idle", "GOVC_TRANSACTIONS_IDLE", None),
    setting("logging.level", "GOVC_LOG_LEVEL", Some("log-level")),
    setting("logging.format", "GOVC_LOG_FORMAT", Some("log-format")),
    setting("metrics.enabled", "GOVC_METRICS_ENABLED", None),
    setting("metrics.path", "GOVC_METRICS_PATH", None),
    setting("git.create_on_push", "GOVC_CREATE_ON_PUSH", Some("create-on-push")),
    setting("git.default_object_format", "GOVC_DEFAULT_OBJECT_FORMAT", None),
    setting("git.max_pack", "GOVC_MAX_PACK", Some("max-pack")),
    setting("git.pack_cache_memory", "GOVC_PACK_CACHE_MEMORY", None),
    setting("git.pack_cache_disk", "GOVC_PACK_CACHE_DISK", None),
    setting("git.fetch_grace", "GOVC_FETCH_GRACE", None),
    setting("git.allowed_signers", "GOVC_ALLOWED_SIGNERS", None),
    setting("git.cert_nonce_slop", "GOVC_CERT_NONCE_SLOP", None),
    setting("git.bundle_uris", "GOVC_BUNDLE_URIS", None),
    setting("git.packfile_uris", "GOVC_PACKFILE_URIS", None),
    setting("git.uri_min_pack", "GOVC_URI_MIN_PACK", None),
    setting("git.uri_lifetime", "GOVC_URI_LIFETIME", None),
    setting("lfs.max_object", "GOVC_LFS_MAX_OBJECT", None),
];

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Environment(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "from the file {}", path.display()),
            Self::Environment(name) => write!(f, "from the environment variable {name}"),
            Self::Flag(name) => write!(f, "from the flag --{name}"),
        }
    }
}

struct Value {
    text: String,
    origin: Origin,
}

type Layer = BTreeMap<&'static str, Value>;

/// What file, environment and flags say, in rising precedence.
pub(super) struct Layers([Layer; 3]);

impl Given {
    /// The file that flags or environment name, and which of them did.
    pub(super) fn file_path(&self) -> Option<(PathBuf, Origin)> {
        let flag = self.flags.iter().find(|(name, _)| *name == CONFIG);
        let flag = flag.map(|(_, path)| (PathBuf::from(path), Origin::Flag(CONFIG)));
        flag.or_else(|| {
            let path = self.environment.get(CONFIG_VARIABLE)?;
            Some((PathBuf::from(path), Origin::Environment(CONFIG_VARIABLE)))
        })
    }
}

impl Layers {
    pub(super) fn new(given: &Given) -> Result<Self, ConfigError> {
        let file = match &given.file {
            Some((path, text)) => file_layer(path, text)?,
            None => Layer::new(),
        };
        Ok(Self([file, environment_layer(&given.environment)?, flag_layer(&given.flags)?]))
    }

    /// Parses the winning value of `key` into `target`; leaves it alone when nothing was given.
    pub(super) fn set<T>(
        &self,
        key: &'static str,
        target: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        if let Some(value) = self.winner(key) {
            *target = parsed(key, value, parse)?;
        }
        Ok(())
    }

    /// Where the winning value of `key` was given.
    pub(super) fn origin(&self, key: &'static str) -> Origin {
        self.winner(key).map_or(Origin::Default, |value| value.origin.clone())
    }

    /// The address: `listen` gives both parts, `host` and `port` one each, and a later source overrides
    /// only what it gives.
    pub(super) fn listen(&self, default: SocketAddr) -> Result<SocketAddr, ConfigError> {
        let mut address = default;
        for layer in &self.0 {
            let part = |key: &'static str| layer.get(key).map(|value| (key, value));
            let parts = [part("server.host"), part("server.port")];
            if let Some(value) = layer.get("server.listen") {
                if let Some((key, _)) = parts.into_iter().flatten().next() {
                    return Err(ConfigError::new(format!(
                        "server.listen and {key} are both given ({}); give one",
                        value.origin
                    )));
                }
                address = parsed("server.listen", value, values::address)?;
            }
            if let [Some((key, value)), _] = parts {
                let host: IpAddr = parsed(key, value, values::host)?;
                address.set_ip(host);
            }
            if let [_, Some((key, value))] = parts {
                address.set_port(parsed(key, value, values::port)?);
            }
        }
        Ok(address)
    }

    /// Where the host of the address was given.
    pub(super) fn listen_origin(&self) -> Origin {
        let mut layers = self.0.iter().rev();
        layers
            .find_map(|layer| layer.get("server.listen").or_else(|| layer.get("server.host")))
            .map_or(Origin::Default, |value| value.origin.clone())
    }

    fn winner(&self, key: &'static str) -> Option<&Value> {
        debug_assert!(SETTINGS.iter().any(|setting| setting.key == key), "{key} is not a setting");
        self.0.iter().rev().find_map(|layer| layer.get(key))
    }
}

fn parsed<T>(key: &str, value: &Value, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<T, ConfigError> {
    parse(&value.text)
        .map_err(|reason| ConfigError::new(format!("{key} = {:?} ({}): {reason}", value.text, value.origin)))
}

fn file_layer(path: &std::path::Path, text: &str) -> Result<Layer, ConfigError> {
    let place = path.display();
    let table: toml::Table =
        text.parse().map_err(|error| ConfigError::new(format!("the file {place} is not valid TOML: {error}")))?;
    let mut layer = Layer::new();
    for (section, content) in table {
        let toml::Value::Table(content) = content else {
            return Err(ConfigError::new(format!(
                "unknown key {section} in the file {place}: settings stand in sections, such as [server]"
            )));
        };
        if !SETTINGS.iter().any(|setting| setting.key.split('.').next() == Some(section.as_str())) {
            return Err(ConfigError::new(format!("unknown section [{section}] in the file {place}")));
        }
        for (name, value) in content {
            let key = format!("{section}.{name}");
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                return Err(ConfigError::new(format!("unknown key {key} in the file {place}")));
            };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                other => {
                    return Err(ConfigError::new(format!(
                        "{key} (from the file {place}): expected a string, an integer or a boolean, found \
                         a value of type {}",
                        other.type_str()
                    )));
                }
            };
            layer.insert(setting.key, Value { text, origin: Origin::File(path.to_owned()) });
        }
    }
    Ok(layer)
}

fn environment_layer(environment: &BTreeMap<String, String>) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for (name, text) in environment {
        if !name.starts_with("GOVC_") || name.starts_with(TEST_PREFIX) || name == CONFIG_VARIABLE {
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.environment == name) else {
            return Err(ConfigError::new(format!(
                "unknown environment variable {name}; `govc serve --help` lists those that govc reads"
            )));
        };
        let origin = Origin::Environment(setting.environment);
        layer.insert(setting.key, Value { text: text.clone(), origin });
    }
    Ok(layer)
}

fn flag_layer(flags: &[(&'static str, String)]) -> Result<Layer, ConfigError> {
    let mut layer = Layer::new();
    for &(name, ref text) in flags {
        if name == CONFIG {
            continue;
        }
        let Some(setting) = SETTINGS.iter().find(|setting| setting.flag == Some(name)) else {
            return Err(ConfigError::new(format!("unknown flag --{name}")));
        };
        layer.insert(setting.key, Value { text: text.clone(), origin: Origin::Flag(name) });
    }
    Ok(layer)
}

/// All variables that are read, for the help's test.
#[cfg(test)]
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.environment).chain([CONFIG_VARIABLE])
}

/// All keys of the file, for the help's test.
#[cfg(test)]
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}
