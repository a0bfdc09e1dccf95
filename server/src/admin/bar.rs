//! How far it is, on a terminal's standard error; nothing where that is no terminal.

use govc_engine::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::stop::Stop;

/// Redraws a second.
const RATE_HZ: u8 = 5;

/// A bar for each stretch of work.
pub(super) struct Bar {
    bar: Mutex<ProgressBar>,
    stop: Stop,
}

impl Bar {
    /// Work that `stop` may end.
    pub(super) fn new(stop: Stop) -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()), stop }
    }

    /// A stretch of work of so many things begins; [`Bar::reach`] tells how far it is.
    pub(super) fn begin_count(&self, what: &str, total: u64) {
        let bar = ProgressBar::new(total);
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(RATE_HZ));
        if let Ok(style) = ProgressStyle::with_template("{msg:14} {wide_bar} {human_pos} of {human_len}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        *self.bar.lock() = bar;
    }

    /// What is being done by now.
    pub(super) fn name(&self, what: &str) {
        self.bar.lock().set_message(what.to_owned());
    }

    /// Prints something above the bar.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.bar.lock().suspend(print);
    }

    /// So many things are done by now.
    pub(super) fn reach(&self, done: u64) {
        self.bar.lock().set_position(done);
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, bytes: Option<u64>) {
        let bar = match bytes {
            Some(bytes) => ProgressBar::new(bytes),
            None => ProgressBar::no_length(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(RATE_HZ));
        let template = match bytes {
            Some(_) => {
                "{msg:14} {wide_bar} {binary_bytes} of about {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left"
            }
            None => "{msg:14} {spinner} {binary_bytes}, {binary_bytes_per_sec}, {elapsed}",
        };
        // Without it the bar looks plainer.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        *self.bar.lock() = bar;
    }

    fn advance(&self, bytes: u64) {
        let bar = self.bar.lock();
        bar.inc(bytes);
        // Lengths are estimates of the storage.
        if bar.length().is_some_and(|length| bar.position() > length) {
            bar.set_length(bar.position());
        }
    }

    fn end(&self) {
        self.bar.lock().finish_and_clear();
    }

    fn is_cancelled(&self) -> bool {
        self.stop.is_asked()
    }
}
