//! The way of log lines to the outside: a buffer that request threads append to, and one thread that
//! writes it in large pieces.
//!
//! Lines keep their order and are written at most [`LINGER`] after they were said: waking the writing thread for each
//! would cost more than the request that a line is about. Nobody ever waits for the reader of the log: while it is
//! [`BUFFER_BYTES_MAX`] behind, lines are dropped and counted, and the count is logged as soon as there is room. When
//! the output is closed, the log ends.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// How much may wait to be written, in bytes.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// How long a line may wait for others to be written with.
const LINGER: Duration = Duration::from_millis(10);

/// What waits is written at once when it is this much, in bytes.
const PIECE_BYTES: usize = BUFFER_BYTES_MAX / 4;

/// How long the end waits for a reader that does not take the last lines.
const END_WAIT: Duration = Duration::from_secs(1);

/// Hands out writers for `tracing-subscriber`, which writes each line with one call.
#[derive(Clone)]
pub(crate) struct LogSink(Arc<Shared>);

/// Dropping it writes what waits, as far as the reader takes that within [`END_WAIT`], and ends the log. The writing
/// thread of a reader that does not is left to the end of the process.
pub(crate) struct SinkGuard {
    shared: Arc<Shared>,
    end_wait: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signals the writing thread that there are bytes, or a piece of them, or that it is to end.
    filled: Condvar,
    /// Signals the guard that the writing thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    /// Lines dropped since this was last told.
    lost: u64,
    /// No thread writes any more: lines are discarded.
    ended: bool,
    ending: bool,
}

impl LogSink {
    /// Starts the thread that writes to `output`. It calls `tell_lost` with a number of dropped lines, to be logged.
    pub(crate) fn start(
        output: impl Write + Send + 'static,
        tell_lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<(Self, SinkGuard)> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        // Detached: a thread that waits for the reader cannot be told to stop.
        std::thread::Builder::new().name("govc-log".to_owned()).spawn(move || writing.write(output, tell_lost))?;
        Ok((Self(Arc::clone(&shared)), SinkGuard { shared, end_wait: END_WAIT }))
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
        if state.buffer.len() >= BUFFER_BYTES_MAX {
            state.lost += 1;
        } else if !state.ended {
            let before = state.buffer.len();
            state.buffer.extend_from_slice(bytes);
            let after = state.buffer.len();
            drop(state);
            if before == 0 || (before < PIECE_BYTES && after >= PIECE_BYTES) {
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
    fn write(&self, mut output: impl Write, tell_lost: impl Fn(u64)) {
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
            let until = Instant::now() + LINGER;
            while state.buffer.len() < PIECE_BYTES && !state.ending {
                if self.filled.wait_until(&mut state, until).timed_out() {
                    break;
                }
            }
            // Two buffers change places, so that neither is allocated again.
            std::mem::swap(&mut state.buffer, &mut piece);
            let lost = std::mem::take(&mut state.lost);
            drop(state);
            if lost > 0 {
                // Goes to the front of the buffer, where the lost lines would be.
                tell_lost(lost);
            }
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
        self.ended.notify_all();
    }
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        let until = Instant::now() + self.end_wait;
        let mut state = self.shared.state.lock();
        state.ending = true;
        self.shared.filled.notify_one();
        while !state.ended && !self.shared.ended.wait_until(&mut state, until).timed_out() {}
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

    fn no_loss(lost: u64) {
        panic!("{lost} lines were lost");
    }

    #[test]
    fn all_lines_arrive_in_order_by_the_end() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (sink, mut guard) = LogSink::start(Sent(sender), no_loss).unwrap();
        guard.end_wait = Duration::from_secs(60);
        let mut expected = Vec::new();
        // Together less than the buffer takes: none may be lost, however late the thread runs.
        for number in 0..5000 {
            let line = format!("line {number}, long enough for several pieces {number:0>64}\n");
            sink.make_writer().write_all(line.as_bytes()).unwrap();
            expected.extend_from_slice(line.as_bytes());
        }
        assert!(expected.len() < BUFFER_BYTES_MAX);
        drop(guard);
        sink.make_writer().write_all(b"after the end").unwrap();
        drop(sink);
        assert_eq!(receiver.into_iter().flatten().collect::<Vec<u8>>(), expected);
    }

    #[test]
    fn lines_do_not_wait_for_more_than_a_moment() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (sink, _guard) = LogSink::start(Sent(sender), no_loss).unwrap();
        for line in ["one\n", "another\n"] {
            sink.make_writer().write_all(line.as_bytes()).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::from_secs(60)).unwrap(), line.as_bytes());
        }
    }

    #[test]
    fn a_closed_output_does_not_block_the_server() {
        let (sender, receiver) = std::sync::mpsc::channel();
        drop(receiver);
        let (sink, _guard) = LogSink::start(Sent(sender), |_| ()).unwrap();
        let piece = vec![b'x'; BUFFER_BYTES_MAX];
        for _ in 0..4 {
            sink.make_writer().write_all(&piece).unwrap();
        }
    }

    /// Takes nothing before the gate is opened, by dropping its sender.
    struct Gated(std::sync::mpsc::Receiver<()>, Sent);

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_is_told_how_many() {
        const LINE: [u8; 100] = [b'x'; 100];
        const LINES: u64 = 50_000;
        let (sender, receiver) = std::sync::mpsc::channel();
        let (gate, gated) = std::sync::mpsc::channel();
        let (told, tells) = std::sync::mpsc::channel();
        let tell_lost = move |lost| told.send(lost).expect("the test listens");
        let (sink, mut guard) = LogSink::start(Gated(gated, Sent(sender)), tell_lost).unwrap();
        guard.end_wait = Duration::from_secs(60);
        for _ in 0..LINES {
            sink.make_writer().write_all(&LINE).unwrap();
        }
        drop(gate);
        drop(guard);
        drop(sink);
        let lost: u64 = tells.into_iter().sum();
        let written = receiver.into_iter().flatten().count();
        assert!(lost > LINES / 2, "the buffer is bounded, and {lost} lines were lost");
        assert_eq!(written as u64, (LINES - lost) * LINE.len() as u64);
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_stalls() {
        let (sender, _receiver) = std::sync::mpsc::channel();
        let (_gate, gated) = std::sync::mpsc::channel();
        let (sink, mut guard) = LogSink::start(Gated(gated, Sent(sender)), no_loss).unwrap();
        guard.end_wait = Duration::from_millis(1);
        sink.make_writer().write_all(b"a line\n").unwrap();
        drop(guard);
    }
}
