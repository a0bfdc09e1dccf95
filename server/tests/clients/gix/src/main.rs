//! What the tests have gitoxide do: `gix-client COMMAND ARGUMENTS`, as `server/tests/it/clients.rs` says.
//!
//! There is no push, because gitoxide has none, and no checkout, which needs many crates more and nothing of a server.

use std::{error::Error, num::NonZeroU32, sync::atomic::AtomicBool};

use gix::{
    progress::Discard,
    remote::{Direction, fetch::Shallow},
};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["clone", url, dir] => clone(url, dir, Shallow::NoChange)?,
        ["shallow", url, dir, depth] => clone(url, dir, Shallow::DepthAtRemote(number(depth)?))?,
        ["fetch", dir] => fetch(dir, Shallow::NoChange)?,
        ["deepen", dir, depth] => fetch(dir, Shallow::DepthAtRemote(number(depth)?))?,
        ["unshallow", dir] => fetch(dir, Shallow::undo())?,
        _ => return Err(format!("unknown: {arguments:?}").into()),
    }
    Ok(())
}

fn number(text: &str) -> Result<NonZeroU32, std::num::ParseIntError> {
    text.parse()
}

fn clone(url: &str, dir: &str, shallow: Shallow) -> Outcome {
    gix::prepare_clone(url, dir)?
        .with_shallow(shallow)
        // Otherwise a shallow clone has one branch.
        .configure_remote(|remote| Ok(remote.with_refspecs(["+refs/heads/*:refs/remotes/origin/*"], Direction::Fetch)?))
        .fetch_only(Discard, &AtomicBool::new(false))?;
    Ok(())
}

fn fetch(dir: &str, shallow: Shallow) -> Outcome {
    gix::open(dir)?
        .find_remote("origin")?
        .connect(Direction::Fetch)?
        .prepare_fetch(Discard, Default::default())?
        .with_shallow(shallow)
        .receive(Discard, &AtomicBool::new(false))?;
    Ok(())
}
