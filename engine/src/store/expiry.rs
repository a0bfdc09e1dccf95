//! The end of blocks that were rewritten, and of realities whose time is over: readers are told at once, a little later they are removed, so that abandoned
//! ones keep no memory.

use std::{sync::Arc, time::Duration};

use super::{core::Core, ids::Cause, state::Repo};
use crate::{
    Error, ErrorKind, Result,
    refs::{Expected, RefEdit},
    sync::channel::{Receiver, RecvTimeoutError},
};

/// How often realities are looked through.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a reality is remembered whose time is over, in milliseconds.
const REMEMBERED_MILLIS: i64 = 10 * 60 * 1000;
/// Realities that one publication removes.
const REMOVED_MAX: usize = 10_000;

/// Removes them until the other end of `stop` is dropped.
pub(crate) fn run(core: &Arc<Core>, stop: &Receiver<()>) {
    while stop.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = sweep(core) {
            tracing::warn!(%error, "realities whose time is over stay for now");
        }
        if let Err(error) = core.remove_leaving() {
            tracing::warn!(%error, "blocks that were rewritten stay until the next attempt to remove them");
        }
    }
}

/// Removes the realities whose time was over a while ago; how many there were.
///
/// # Errors
/// When a removal cannot be published, after the other repositories have been seen to.
pub(crate) fn sweep(core: &Arc<Core>) -> Result<usize> {
    let over = core.now_millis().saturating_sub(REMEMBERED_MILLIS);
    let mut outcome = Ok(0);
    for state in core.catalog.all().values() {
        if state.published.load().refs.reality_count() == 0 {
            continue;
        }
        let repo = Repo { core: core.clone(), state: state.clone() };
        match (remove(&repo, over), &mut outcome) {
            (Ok(removed), Ok(sum)) => *sum += removed,
            (Err(error), Ok(_)) => outcome = Err(error),
            (_, Err(_)) => {}
        }
    }
    outcome
}

fn remove(repo: &Repo, over: i64) -> Result<usize> {
    let mut removed = 0;
    loop {
        let mut transaction = repo.begin("govc", Cause::Reality);
        transaction.expect_races();
        let tip = transaction.tip();
        let expired = tip.version().refs.realities(..).filter(|(_, reality)| reality.is_expired(over));
        let mut count = 0;
        for (name, reality) in expired.take(REMOVED_MAX) {
            transaction.edit(RefEdit { name: name.clone(), expected: Expected::Is(reality.head), target: None })?;
            count += 1;
        }
        if count == 0 {
            return Ok(removed);
        }
        let published = match transaction.prepare().and_then(|prepared| prepared.publish()) {
            Ok(published) => published,
            // Somebody was faster, perhaps with one of these: see what is left.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict(_)) => continue,
            Err(error) if repo.is_deleted() || is_closed(&error) => return Ok(removed),
            Err(error) => return Err(error),
        };
        published.ticket.wait()?;
        removed += count;
    }
}

fn is_closed(error: &Error) -> bool {
    *error.kind() == ErrorKind::Closed
}
