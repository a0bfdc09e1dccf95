//! Work of a transfer for which there may be no thread at once: what has been moved so far is not thrown away for a
//! moment's load.

use std::time::Duration;

use crate::{app::App, http::problem::Problem, work::WorkError};

/// How often a piece of work asks again for a thread that it did not get, and how long it waits in between.
const BUSY_TRIES: usize = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// The tries of a piece of work.
pub(crate) struct Pauses<'a> {
    app: &'a App,
    left: usize,
}

impl<'a> Pauses<'a> {
    /// All of them.
    pub(crate) fn new(app: &'a App) -> Self {
        Self { app, left: BUSY_TRIES }
    }

    /// Waits before the next try; gives the error back if there is to be none.
    ///
    /// # Errors
    /// The one given, as a problem: after too many tries, when the server is stopping, and for work that panicked.
    pub(crate) async fn after(&mut self, error: WorkError) -> Result<(), Problem> {
        if error != WorkError::Busy || self.left == 0 || self.app.is_draining() {
            return Err(error.into());
        }
        self.left -= 1;
        tokio::time::sleep(BUSY_PAUSE).await;
        Ok(())
    }
}
