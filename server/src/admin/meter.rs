//! How far an import is: a bar on a terminal, else lines on standard error, some seconds apart.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use govc_engine::Progress;
use parking_lot::Mutex;

use super::bar::Bar;
use super::size::Bytes;
use crate::import::Watch;

/// Between two lines about the same stretch of work.
const EVERY: Duration = Duration::from_secs(5);

/// A bar, or lines.
pub(super) struct Meter {
    bar: Bar,
    is_terminal: bool,
    stretch: Mutex<Stretch>,
}

struct Stretch {
    what: String,
    bytes: u64,
    told: Instant,
}

impl Meter {
    pub(super) fn new(bar: Bar) -> Self {
        let stretch = Stretch { what: String::new(), bytes: 0, told: Instant::now() };
        Self { bar, is_terminal: std::io::stderr().is_terminal(), stretch: Mutex::new(stretch) }
    }

    fn line(&self, text: &str) {
        eprintln!("govc: {}", text.trim_end());
    }
}

impl Progress for Meter {
    fn begin(&self, what: &str, bytes: Option<u64>) {
        if self.is_terminal {
            return self.bar.begin(what, bytes);
        }
        self.line(what);
        *self.stretch.lock() = Stretch { what: what.to_owned(), bytes: 0, told: Instant::now() };
    }

    fn advance(&self, bytes: u64) {
        if self.is_terminal {
            return self.bar.advance(bytes);
        }
        let mut stretch = self.stretch.lock();
        stretch.bytes += bytes;
        if stretch.told.elapsed() >= EVERY {
            stretch.told = Instant::now();
            self.line(&format!("{}: {}", stretch.what, Bytes(stretch.bytes)));
        }
    }

    fn end(&self) {
        if self.is_terminal {
            return self.bar.end();
        }
        let mut stretch = self.stretch.lock();
        let what = std::mem::take(&mut stretch.what);
        if stretch.bytes > 0 && !what.is_empty() {
            self.line(&format!("{what}: {}, done", Bytes(stretch.bytes)));
        }
    }

    fn is_cancelled(&self) -> bool {
        self.bar.is_cancelled()
    }
}

impl Watch for Meter {
    fn say(&self, text: &str) {
        if text.ends_with('\r') {
            // Passing: a terminal's bar shows it, and lines would be too many.
            self.bar.name(text.trim_end());
        } else if self.is_terminal {
            self.bar.suspend(|| self.line(text));
        } else {
            self.line(text);
        }
    }
}
