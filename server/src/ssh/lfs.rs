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
