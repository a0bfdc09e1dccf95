//! What connections are secured with: TLS on the HTTP port, and SSH. Each is given whole or not at all.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::sources::Layers;
use super::{ConfigError, values};

/// Settings `server.tls_cert` and `server.tls_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The file of the certificate and what leads from it to an authority, in PEM.
    pub cert: PathBuf,
    /// The file of its private key, in PEM.
    pub key: PathBuf,
}

/// Settings `server.ssh_listen` and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshConfig {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The file of the keys that may come in.
    pub authorized_keys: PathBuf,
    /// The file of the server's own key; without, one is made and kept in the data folder.
    pub host_key: Option<PathBuf>,
}

/// Both files of TLS, or none.
pub(super) fn tls(layers: &Layers) -> Result<Option<TlsConfig>, ConfigError> {
    let (mut cert, mut key) = (None, None);
    layers.set("server.tls_cert", &mut cert, |text| values::path(text).map(Some))?;
    layers.set("server.tls_key", &mut key, |text| values::path(text).map(Some))?;
    let lonely = |given: &'static str, missing: &str| {
        let origin = layers.origin(given);
        Err(ConfigError::new(format!(
            "{given} ({origin}) needs {missing}: TLS takes a certificate and its private key"
        )))
    };
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsConfig { cert, key })),
        (Some(_), None) => lonely("server.tls_cert", "server.tls_key"),
        (None, Some(_)) => lonely("server.tls_key", "server.tls_cert"),
        (None, None) => Ok(None),
    }
}

/// All of SSH, or nothing: an address without keys would let nobody in, keys without an address would be forgotten.
pub(super) fn ssh(layers: &Layers) -> Result<Option<SshConfig>, ConfigError> {
    let (mut listen, mut authorized_keys, mut host_key) = (None, None, None);
    layers.set("server.ssh_listen", &mut listen, |text| values::address(text).map(Some))?;
    layers.set("server.ssh_authorized_keys", &mut authorized_keys, |text| values::path(text).map(Some))?;
    layers.set("server.ssh_host_key", &mut host_key, |text| values::path(text).map(Some))?;
    let lonely = |given: &'static str, missing: &str| {
        let origin = layers.origin(given);
        Err(ConfigError::new(format!("{given} ({origin}) needs {missing}")))
    };
    match (listen, authorized_keys) {
        (Some(listen), Some(authorized_keys)) => Ok(Some(SshConfig { listen, authorized_keys, host_key })),
        (Some(_), None) => lonely(
            "server.ssh_listen",
            "server.ssh_authorized_keys: over SSH people log in with keys that a file lists",
        ),
        (None, Some(_)) => lonely("server.ssh_authorized_keys", "server.ssh_listen: an address such as 127.0.0.1:2222"),
        (None, None) if host_key.is_some() => {
            lonely("server.ssh_host_key", "server.ssh_listen: an address such as 127.0.0.1:2222")
        }
        (None, None) => Ok(None),
    }
}
