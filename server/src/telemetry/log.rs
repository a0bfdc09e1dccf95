//! Log lines on standard error: JSON objects in the fields that tools expect, or text for people.
//!
//! A JSON line has `timestamp` (RFC 3339, UTC), `level`, `message`, the event's own fields beside them, and
//! `target`. Standard output is left to the one line that says the server is ready. Lines go through
//! [`LogSink`], so that a request never waits for the terminal or pipe that reads the log: a reader that stays behind
//! misses lines, and is told how many.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use tracing_subscriber::fmt::MakeWriter;

use super::sink::{LogSink, SinkGuard};
use crate::config::{LogFormat, LoggingConfig};

/// Starts logging for the whole process, panics included. Lines are written until the guard is dropped.
///
/// Does nothing if logging has been started before.
pub(crate) fn start(logging: LoggingConfig) -> Option<SinkGuard> {
    // Of the highest level, so that no setting but `off` hides it.
    let tell_lost = |lost: u64| tracing::error!("{lost} log lines were lost");
    let (sink, guard) = LogSink::start(std::io::stderr(), tell_lost).ok()?;
    subscribe(logging, sink).then(|| {
        std::panic::set_hook(Box::new(log_panic));
        guard
    })
}

fn subscribe<W>(logging: LoggingConfig, writer: W) -> bool
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_max_level(logging.level).with_ansi(false).with_writer(writer);
    let started = match logging.format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        LogFormat::Text => lines.compact().try_init(),
    };
    started.is_ok()
}

/// Panics are log events like others: a line of plain text among JSON is lost to whoever reads it.
fn log_panic(info: &PanicHookInfo<'_>) {
    let panic = panic_message(info.payload());
    let location = info.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = std::thread::current();
    tracing::error!(panic, location, backtrace, thread = thread.name(), "panic");
}

/// The text of a panic.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a value that is not text"
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::level_filters::LevelFilter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_a_flat_json_object() {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::INFO)
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish();
        tracing::subscriber::with_default(lines, || {
            tracing::info!(http_status = 201_u16, user_id = None::<&str>, "HTTP request processed");
            tracing::debug!("not written");
        });
        let text = String::from_utf8(kept.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "HTTP request processed");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["http_status"], 201);
        assert!(line.get("user_id").is_none(), "{text}");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z') && timestamp.as_bytes()[10] == b'T', "{timestamp}");
    }

    #[test]
    fn panics_have_a_text() {
        assert_eq!(panic_message(&"word"), "word");
        assert_eq!(panic_message(&String::from("string")), "string");
        assert_eq!(panic_message(&7_u8), "a value that is not text");
    }
}
