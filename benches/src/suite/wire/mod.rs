//! What do fetches, pushes and lists of references cost, beside nginx, fcgiwrap and `git http-backend`?
//!
//! Raw clients replay what git's client sends and do none of its work, so the server is measured, with its clients on the
//! same machine. The peer's copies are in one pack with bitmaps. Real clients follow: their own work is the larger part of
//! what their users wait for.
//!
//! | rows | read |
//! |---|---|
//! | lists of references, shallow, full and incremental fetches | `fetches.rs` |
//! | pushes of one commit | `pushes.rs` |
//! | lists by prefix among many references | `references.rs` |
//! | the real client, alone and many at once | `clients.rs` |
//! | connections that do nothing | `idle.rs` |

mod clients;
mod fetches;
mod idle;
mod pushes;
mod references;

use std::path::Path;

use crate::bench::{Bench, progress};
use crate::error::Result;
use crate::git::{Git, finish};
use crate::history::History;
use crate::peer::GitHttp;
use crate::report::Row;
use crate::server::{ALONE, Govc, NewRepository};
use crate::subject::Subject;

const PEER: &str = "nginx + fcgiwrap + git http-backend";
const MEBIBYTE: f64 = 1024.0 * 1024.0;

pub(super) use pushes::run as pushes;
pub(super) use references::run as references;

/// Fetches and lists of each history.
pub(super) fn fetches(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for history in &bench.histories {
        rows.extend(one_history(bench, history)?);
    }
    Ok(rows)
}

/// All that is asked about a history that both servers have.
fn one_history(bench: &Bench, history: &History) -> Result<Vec<Row>> {
    let git = &bench.git;
    let name = &history.name;
    let folder = bench.fresh_folder()?;
    let data = folder.path().join("data");
    progress(&format!("filling govc and the peer with {name}"));
    // What it does behind the push is no part of what fetches cost.
    let settings = [ALONE, idle::SETTINGS].concat();
    let server = Govc::start_with(&bench.govc, &data, &settings)?;
    let default_branch = &history.default_branch(git);
    server.create(&NewRepository { name, default_branch, durability: "durable" })?;
    history.push(git, &server.url(name))?;
    let peer = GitHttp::start(git, &folder.path().join("repositories"))?;
    copy(git, history, &peer.path(name))?;

    // The first fetches after a start come first: everything else would keep packs for them.
    server.stop()?;
    let server = Govc::start_with(&bench.govc, &data, &settings)?;
    let mut rows = fetches::rows(bench, history, &server, &peer)?;
    rows.extend(clients::clones(bench, history, &server, &peer)?);
    rows.extend(idle::rows(bench, history, &server)?);
    server.stop()?;
    Ok(rows)
}

/// Makes the peer's copy: the same references, one pack, with bitmaps.
pub(super) fn copy(git: &Git, history: &History, path: &Path) -> Result<()> {
    let mut command = git.command(&history.path);
    command.args(["clone", "--quiet", "--mirror", "--no-hardlinks"]).arg(&history.path).arg(path);
    finish(command)?;
    git.run(path, ["repack", "-adq", "--window=50", "--depth=50", "--write-bitmap-index"])?;
    git.run(path, ["pack-refs", "--all"]).map(drop)
}
