//! The first Ctrl-C asks the work to end well, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// What a shell reports for a process that SIGINT ended.
pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// Whether the work is to end; set once, orders nothing.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// When the system refuses a thread or a handler.
    pub(super) fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        let asked = stop.clone();
        Self::listen_and(move || asked.0.store(true, Ordering::Relaxed))?;
        Ok(stop)
    }

    /// The same, with what is to be done at the first signal.
    ///
    /// # Errors
    /// As [`Stop::listen`].
    pub(super) fn listen_and(ask: impl Fn() + Send + 'static) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupted, mut terminated) = {
            let _entered = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        // It lives as long as the process.
        thread::Builder::new().name("govc-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                for is_first in [true, false] {
                    tokio::select! {
                        _ = interrupted.recv() => {}
                        _ = terminated.recv() => {}
                    }
                    ask();
                    if is_first {
                        eprintln!("govc: ending; once more ends at once");
                    }
                }
                std::process::exit(i32::from(EXIT_INTERRUPTED));
            });
        })?;
        Ok(())
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
