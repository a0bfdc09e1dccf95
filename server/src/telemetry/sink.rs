//! The way of log lines to the outside: a buffer that request threads append to, and one thread that
//! writes it in large pieces.
//!
//! Lines keep their order. Nothing is dropped silently: when the reader of the log is slower than the
//! server for [`BUFFER_BYTES_MAX`], appending waits for it. When the output is closed, the log ends.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// How much may wait to be written, in bytes.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Hands out writers for `tracing-subscriber`, which writes each line with one call.
#[derive(Clone)]
pub(crate) struct LogSink(Arc<Shared>);

/// Owns the writing thread; dropping it writes what waits and ends the log.
pub(crate) struct SinkGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signals the writing thread that there are bytes, or that it is to end.
    filled: Condvar,
    /// Signals appenders that the buffer was taken.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    /// No thread writes any more: lines are discarded.
    ended: bool,
    ending: bool,
}

impl LogSink {
    /// Starts the thread that writes to `output`.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<(Self, SinkGuard)> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("govc-log".to_owned()).spawn(move || writing.write(output))?;
        Ok((Self(Arc::clone(&shared)), SinkGuard { shared, thread: Some(thread) }))
    }
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = Appender<'a>;

    fn make_writer(&'a self) -> Appender<'a> {
        Appender(&self.0)
    }
}

/// Appends to the buffer.
pub(crate) struct Appender<'a>(&'a Shared);

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        while state.buffer.len() >= BUFFER_BYTES_MAX && !state.ended {
            self.0.taken.wait(&mut state);
        }
        if !state.ended {
            let was_empty = state.buffer.is_empty();
            state.buffer.extend_from_slice(bytes);
            drop(state);
            if was_empty {
                self.0.filled.notify_one();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write(&self, mut output: impl Write) {
        let mut piece = Vec::new();
        let mut state = self.state.lock();
        loop {
            if state.buffer.is_empty() {
                if state.ending {
                    break;
                }
                self.filled.wait(&mut state);
                continue;
            }
            // Two buffers change places, so that neither is allocated again.
            std::mem::swap(&mut state.buffer, &mut piece);
            drop(state);
            self.taken.notify_all();
            let written = output.write_all(&piece).and_then(|()| output.flush());
            piece.clear();
            state = self.state.lock();
            if written.is_err() {
                break;
            }
        }
        state.ended = true;
        state.buffer = Vec::new();
        drop(state);
        self.taken.notify_all();
    }
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        self.shared.state.lock().ending = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has nowhere to be logged.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sent(std::sync::mpsc::Sender<Vec<u8>>);

    impl Write for Sent {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_arrive_in_order_by_the_end() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (sink, guard) = LogSink::start(Sent(sender)).unwrap();
        let mut expected = Vec::new();
        for number in 0..20_000 {
            let line = format!("line {number}, long enough that the buffer fills up more than once {number:0>64}\n");
            sink.make_writer().write_all(line.as_bytes()).unwrap();
            expected.extend_from_slice(line.as_bytes());
        }
        drop(guard);
        sink.make_writer().write_all(b"after the end").unwrap();
        drop(sink);
        assert_eq!(receiver.into_iter().flatten().collect::<Vec<u8>>(), expected);
    }

    #[test]
    fn a_closed_output_does_not_block_the_server() {
        let (sender, receiver) = std::sync::mpsc::channel();
        drop(receiver);
        let (sink, _guard) = LogSink::start(Sent(sender)).unwrap();
        let piece = vec![b'x'; BUFFER_BYTES_MAX];
        for _ in 0..4 {
            sink.make_writer().write_all(&piece).unwrap();
        }
    }
}
