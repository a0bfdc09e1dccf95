//! Requests on threads of their own: who waits for an answer, or for its next bytes, can be ended at once, however long the
//! server says nothing.
//!
//! A thread that nobody listens to any more ends with what it reads next, at the latest when the server's silence is over.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use govc_engine::{Error, ErrorKind, Result};

use crate::import::watch::Patience;

/// Between two looks at who may have had enough.
const TICK: Duration = Duration::from_millis(100);
/// The largest piece that is read at once, and how many wait to be taken.
const PIECE_BYTES: usize = 64 << 10;
const PIECES_MAX: usize = 4;

/// The bytes of an answer.
type Input = Box<dyn Read + Send>;

/// Asks on a thread: `ask` gives an answer's head and its bytes.
///
/// # Errors
/// What `patience` ends with; [`ErrorKind::Unavailable`] without a thread. The inner one is that of `ask`.
pub(super) fn ask<H: Send + 'static, E: Send + 'static>(
    patience: Patience<'_>,
    ask: impl FnOnce() -> Result<(H, Input), E> + Send + 'static,
) -> Result<Result<(H, Pump<'_>), E>> {
    let (head_sender, heads) = sync_channel(1);
    let (sender, pieces) = sync_channel(PIECES_MAX);
    let run = move || match ask() {
        Ok((head, input)) => {
            if head_sender.send(Ok(head)).is_ok() {
                drop(head_sender);
                pump(input, &sender);
            }
        }
        Err(error) => drop(head_sender.send(Err(error))),
    };
    let unable = |error| Error::new(ErrorKind::Unavailable, format!("no thread can be made: {error}"));
    thread::Builder::new().name("govc-import-http".to_owned()).spawn(run).map_err(unable)?;
    let head = wait(&heads, patience)?;
    let head = head.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the thread that asks has ended"))?;
    Ok(head.map(|head| (head, Pump { pieces, patience, piece: Vec::new(), at: 0, has_ended: false })))
}

/// What comes next; `None` when nothing will.
fn wait<T>(receiver: &Receiver<T>, patience: Patience<'_>) -> Result<Option<T>> {
    loop {
        patience.check()?;
        match receiver.recv_timeout(TICK) {
            Ok(next) => return Ok(Some(next)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// Passes on what is read, to its end, as long as somebody takes it.
fn pump(mut input: Input, sender: &SyncSender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let piece = match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map(|read| buffer.get(..read).unwrap_or_default().to_vec()),
        };
        let is_last = !matches!(&piece, Ok(piece) if !piece.is_empty());
        // An empty one is the end; without it the thread has died.
        if sender.send(piece).is_err() || is_last {
            return;
        }
    }
}

/// An answer's bytes as they come. What `patience` ends with is wrapped.
pub(super) struct Pump<'a> {
    pieces: Receiver<io::Result<Vec<u8>>>,
    patience: Patience<'a>,
    /// The newest piece, of which `piece[at..]` is still to be read.
    piece: Vec<u8>,
    at: usize,
    has_ended: bool,
}

impl Read for Pump<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() && !self.has_ended {
            let next = wait(&self.pieces, self.patience).map_err(io::Error::other)?;
            self.piece = next.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
            (self.at, self.has_ended) = (0, self.piece.is_empty());
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let len = rest.len().min(into.len());
        if let (Some(into), Some(rest)) = (into.get_mut(..len), rest.get(..len)) {
            into.copy_from_slice(rest);
        }
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Instant;

    use super::*;

    /// Bytes, and then nothing any more until its sender is gone.
    struct Stalling(Cursor<Vec<u8>>, Receiver<()>);

    impl Read for Stalling {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => {
                    let _ = self.1.recv();
                    Ok(0)
                }
                read => Ok(read),
            }
        }
    }

    fn stalling(bytes: &[u8]) -> (Sender<()>, Stalling) {
        let (sender, receiver) = channel();
        (sender, Stalling(Cursor::new(bytes.to_vec()), receiver))
    }

    #[test]
    fn all_bytes_come_and_then_the_end() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|at| at as u8).collect();
        let given = bytes.clone();
        let answer = ask(Patience::ENDLESS, move || Ok::<_, ()>(("head", Box::new(Cursor::new(given)) as Input)));
        let (head, mut pump) = answer.expect("patience").expect("an answer");
        let mut read = Vec::new();
        pump.read_to_end(&mut read).expect("readable");
        assert_eq!((head, read == bytes), ("head", true));
        assert_eq!(pump.read(&mut [0]).expect("still the end"), 0);
        let refused = ask(Patience::ENDLESS, || Err::<((), Input), _>("no"));
        assert_eq!(refused.expect("patience").map(drop), Err("no"));
    }

    #[test]
    fn a_server_that_says_nothing_holds_nobody_up() {
        let soon = Patience::new(&govc_engine::Silent, Instant::now().checked_add(Duration::from_millis(50)));
        let (_kept, silent) = stalling(b"");
        let waiting = ask(soon, move || {
            // Not even a head.
            let _ = { silent }.read(&mut [0]);
            Err::<((), Input), _>(())
        });
        let error = waiting.map(|answer| answer.map(drop)).expect_err("the time is over");
        assert!(error.message().contains("--timeout"), "{error}");

        let later = Patience::new(&govc_engine::Silent, Instant::now().checked_add(Duration::from_secs(1)));
        let (_kept, silent) = stalling(b"four");
        let answer = ask(later, move || Ok::<_, ()>(((), Box::new(silent) as Input)));
        let ((), mut pump) = answer.expect("patience").expect("an answer");
        let mut read = Vec::new();
        let error = pump.read_to_end(&mut read).expect_err("the time is over");
        assert!(read == b"four" && error.to_string().contains("--timeout"), "{error}");
    }

    #[test]
    fn a_thread_that_dies_is_no_end_of_an_answer() {
        struct Dying;
        impl Read for Dying {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                // Quietly: a panic's message would stand in the tests' output.
                std::panic::resume_unwind(Box::new(()))
            }
        }
        let answer = ask(Patience::ENDLESS, || Ok::<_, ()>(((), Box::new(Dying) as Input)));
        let ((), mut pump) = answer.expect("patience").expect("an answer");
        assert_eq!(pump.read(&mut [0]).expect_err("no end").kind(), io::ErrorKind::UnexpectedEof);
    }
}
