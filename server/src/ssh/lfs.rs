//! `git-lfs-authenticate`: where a client that came over SSH finds a repository's Git LFS, which is HTTP.
//!
//! Source: git-lfs' `docs/api/server-discovery.md`.

use std::net::SocketAddr;

use govc_engine::ErrorKind;
use serde_json::json;

use crate::{app::App, git::duplex};

/// What the client is about to do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Download,
    Upload,
}

impl Operation {
    /// By its name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "download" => Some(Operation::Download),
            "upload" => Some(Operation::Upload),
            _ => None,
        }
    }
}

/// The answer for the repository at `path`: one line of JSON. Links begin as `server.public_url` says, else with the address
/// of HTTP if the client, at `peer`, can mean the same by it.
///
/// # Errors
/// The reason, for the client, when there is no such repository, or none that it may do that with, or the server does not know
/// how it is reached.
pub(super) fn locate(
    app: &App,
    [http, peer]: [SocketAddr; 2],
    path: &str,
    operation: Operation,
    may_write: bool,
) -> Result<String, String> {
    let name = duplex::repo_name(path)?;
    if operation == Operation::Upload && !may_write {
        return Err("this key may read, and not push".to_owned());
    }
    match app.store.repo(&name) {
        Ok(_) => {}
        // The push that follows makes it.
        Err(error)
            if *error.kind() == ErrorKind::NotFound
                && operation == Operation::Upload
                && app.config.git.create_on_push => {}
        Err(error) if *error.kind() == ErrorKind::NotFound => {
            return Err(format!("repository '{name}' does not exist"));
        }
        Err(error) => return Err(error.message().to_owned()),
    }
    let server = &app.config.server;
    let is_loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    let base = match &server.public_url {
        Some(url) => url.clone(),
        None if http.ip().is_unspecified() || is_loopback(http) && !is_loopback(peer) => {
            return Err("this server does not know how it is reached by HTTP (server.public_url)".to_owned());
        }
        None => format!("{}://{http}", if server.tls.is_some() { "https" } else { "http" }),
    };
    Ok(format!("{}\n", json!({ "href": format!("{base}/{name}.git/info/lfs"), "header": {} })))
}

#[cfg(test)]
mod tests {
    use govc_backends::Location;
    use govc_engine::{RepoName, RepoSettings};

    use super::*;
    use crate::config::{Config, TlsConfig};

    const REFUSED: &str = "this server does not know how it is reached by HTTP (server.public_url)";

    /// What a client at the second address is told by a server at the first one.
    #[track_caller]
    fn check(set: impl FnOnce(&mut Config), told: &[([&str; 2], Result<&str, &str>)]) {
        let mut config = Config::default();
        config.storage.backend = Location::Memory;
        (config.search.enabled, config.compaction.enabled) = (false, false);
        set(&mut config);
        let app = App::open(config).expect("memory");
        let name = RepoName::new("ada/repo").expect("a name");
        app.store.create(&name, RepoSettings::default(), "test").expect("a repository");
        for (addresses, expected) in told {
            let addresses = addresses.map(|address| address.parse().expect("an address"));
            let answer = locate(&app, addresses, "/ada/repo.git", Operation::Download, false);
            let href = answer.map(|line| {
                let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                answer["href"].as_str().expect("a link").to_owned()
            });
            let expected = expected.map(|base| format!("{base}/ada/repo.git/info/lfs")).map_err(str::to_owned);
            assert_eq!(href, expected, "{addresses:?}");
        }
    }

    #[test]
    fn a_link_is_given_to_whom_it_leads_here() {
        let told = [
            (["127.0.0.1:8080", "127.0.0.1:40000"], Ok("http://127.0.0.1:8080")),
            (["[::1]:8080", "127.0.0.5:40000"], Ok("http://[::1]:8080")),
            (["127.0.0.1:8080", "[::ffff:127.0.0.1]:40000"], Ok("http://127.0.0.1:8080")),
            // Loopback is another machine there.
            (["127.0.0.1:8080", "192.0.2.7:40000"], Err(REFUSED)),
            (["[::1]:8080", "[2001:db8::7]:40000"], Err(REFUSED)),
            (["192.0.2.1:8080", "192.0.2.7:40000"], Ok("http://192.0.2.1:8080")),
            (["192.0.2.1:8080", "127.0.0.1:40000"], Ok("http://192.0.2.1:8080")),
            // All addresses are none.
            (["0.0.0.0:8080", "192.0.2.7:40000"], Err(REFUSED)),
            (["0.0.0.0:8080", "127.0.0.1:40000"], Err(REFUSED)),
            (["[::]:8080", "[::1]:40000"], Err(REFUSED)),
        ];
        check(|_| {}, &told);
        let tls = TlsConfig { cert: "cert.pem".into(), key: "key.pem".into() };
        check(
            |config| config.server.tls = Some(tls),
            &[(["192.0.2.1:8443", "192.0.2.7:40000"], Ok("https://192.0.2.1:8443"))],
        );
    }

    #[test]
    fn the_public_url_is_given_to_everybody() {
        let base = "https://git.example.org/code";
        let told = [["127.0.0.1:8080", "192.0.2.7:40000"], ["0.0.0.0:8080", "127.0.0.1:40000"]];
        check(|config| config.server.public_url = Some(base.to_owned()), &told.map(|addresses| (addresses, Ok(base))));
    }
}
