//! What is shown while a run goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// What is told while a run goes on.
pub trait Progress {
    /// A run of so many steps begins.
    fn begin(&mut self, steps: usize);

    /// The next step begins, and the one before, if there was one, is done.
    fn step(&mut self, what: &str);

    /// The step goes on with a repetition, a preparation or a verification.
    fn detail(&mut self, what: &str);

    /// The run is over, well or not.
    fn end(&mut self);
}

/// Shows nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _steps: usize) {}
    fn step(&mut self, _what: &str) {}
    fn detail(&mut self, _what: &str) {}
    fn end(&mut self) {}
}

/// A bar on the terminal's error stream; nothing where that is no terminal.
#[derive(Debug, Default)]
pub struct Bar {
    bar: Option<ProgressBar>,
    step: String,
    begun: bool,
}

impl Progress for Bar {
    fn begin(&mut self, steps: usize) {
        let bar = ProgressBar::new(steps as u64);
        // A template that does not parse would only cost the looks.
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {bar:24} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        self.bar = Some(bar);
        self.begun = false;
    }

    fn step(&mut self, what: &str) {
        let Some(bar) = &self.bar else { return };
        if std::mem::replace(&mut self.begun, true) {
            bar.inc(1);
        }
        what.clone_into(&mut self.step);
        bar.set_message(self.step.clone());
    }

    fn detail(&mut self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}, {what}", self.step));
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
