//! The thread that copies the log's pages to where they belong, so that the log can begin anew.
//!
//! Most of the copying is done while writers go on. Writers that never pause would then always be ahead, so the rest,
//! what was written during the copying, is done with the writer held. Readers of an old moment keep pages in the log:
//! they are waited for briefly, then the thread tries again later, and later still.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult};
use parking_lot::{Condvar, Mutex};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB};

use super::{Shared, failure};

const THREAD: &str = "govc-sqlite-checkpoint";
/// How long the writer is held while a reader of an old moment is waited for.
const READER_WAIT: Duration = Duration::from_millis(5);
/// How long until the next try after readers stood in the way, at first and at most.
const RETRY: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The thread, from the side of its owner.
pub(super) struct Checkpointer {
    bell: Arc<Bell>,
    thread: JoinHandle<()>,
}

/// How the thread is told of work.
#[derive(Default)]
pub(super) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Default)]
struct State {
    wanted: bool,
    stopped: bool,
}

impl Bell {
    /// Asks for a checkpoint.
    pub(super) fn ring(&self) {
        let mut state = self.state.lock();
        if !state.wanted {
            state.wanted = true;
            self.rung.notify_one();
        }
    }

    fn stop(&self) {
        self.state.lock().stopped = true;
        self.rung.notify_one();
    }

    /// Waits until there is work, or `again` has passed; false when it is time to end.
    fn wait(&self, again: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        match again {
            // Rung or not, it was just tried.
            Some(pause) => {
                if !state.stopped {
                    let _ = self.rung.wait_while_for(&mut state, |state| !state.stopped, pause);
                }
            }
            None => self.rung.wait_while(&mut state, |state| !state.wanted && !state.stopped),
        }
        state.wanted = false;
        !state.stopped
    }
}

impl Checkpointer {
    /// Starts the thread.
    pub(super) fn start(shared: &Arc<Shared>) -> BackendResult<Self> {
        let folder = shared.folder();
        let connection = shared
            .options
            .checkpointer(&shared.folder.file(), READER_WAIT)
            .map_err(|error| failure::of_open(folder, &error))?;
        let bell = Arc::clone(&shared.bell);
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn({
                let bell = Arc::clone(&bell);
                move || run(&shared, &connection, &bell)
            })
            .map_err(|error| {
                BackendError::new(BackendErrorKind::Failed, format!("cannot start the thread {THREAD}: {error}"))
            })?;
        Ok(Self { bell, thread })
    }

    /// Ends the thread, after the checkpoint that it may be at.
    pub(super) fn stop(self) {
        self.bell.stop();
        // A panic in it was noted by its guard.
        let _ = self.thread.join();
    }
}

/// Notes that the thread has panicked: a log that grows for ever must not go unseen.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&format!("the thread {THREAD} panicked"));
        }
    }
}

fn run(shared: &Shared, connection: &Connection, bell: &Bell) {
    let _guard = Guard(shared);
    let mut again = None;
    while bell.wait(again) {
        again = match checkpoint(shared, connection) {
            Ok(()) => None,
            Err(error) if failure::is_busy(&error) || failure::is_full(&error) => {
                // A full disk leaves all in the log.
                Some(again.map_or(RETRY, |pause: Duration| (pause * 2).min(RETRY_MAX)))
            }
            Err(error) => {
                shared.fail(&failure::of_write(shared.folder(), &error, false).message);
                return;
            }
        };
    }
}

fn checkpoint(shared: &Shared, connection: &Connection) -> rusqlite::Result<()> {
    // After a failure the log is all there is to learn from at the next open.
    if shared.has_failed() {
        return Ok(());
    }
    connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE)?;
    let writer = shared.writer.lock();
    if shared.has_failed() {
        return Ok(());
    }
    connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::RESTART)?;
    if let Some(writer) = &*writer {
        writer.log_began_anew();
    }
    Ok(())
}
