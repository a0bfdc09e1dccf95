//! A forwarder between a backend and its server that breaks connections at chosen moments.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What happens when a marker passes on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The request is not delivered, and the connection breaks.
    Request,
    /// The request is delivered, its answer is not, and the connection breaks.
    Answer,
    /// The request is kept back, and the connection breaks for the client; [`Proxy::release`] delivers the request.
    Late,
}

#[derive(Default)]
struct State {
    armed: Option<(Vec<u8>, Cut)>,
    /// Whether a cut has happened.
    cut: bool,
    refusing: bool,
    /// A request kept back, the server's end of its connection, and where the answer will come.
    late: Option<(Vec<u8>, TcpStream, Receiver<Vec<u8>>)>,
}

/// A forwarder to one port of the loopback.
pub(super) struct Proxy {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    pub(super) fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if lock(&shared).refusing {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let state = Arc::clone(&shared);
                std::thread::spawn(move || forward(&client, &server, &state));
            }
        });
        Self { port, state }
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Cuts once, at the next request that contains `marker`.
    pub(super) fn arm(&self, marker: &[u8], cut: Cut) {
        let mut state = lock(&self.state);
        state.armed = Some((marker.to_vec(), cut));
        state.cut = false;
    }

    /// Whether the armed cut has happened.
    pub(super) fn has_cut(&self) -> bool {
        lock(&self.state).cut
    }

    /// Whether new connections are closed at once.
    pub(super) fn refuse(&self, refusing: bool) {
        lock(&self.state).refusing = refusing;
    }

    /// Delivers the request kept back and waits for the server's answer to it.
    pub(super) fn release(&self) -> Vec<u8> {
        let (request, mut server, answer) = lock(&self.state).late.take().expect("a request kept back");
        server.write_all(&request).expect("the server's connection is open");
        answer.recv_timeout(Duration::from_secs(10)).expect("an answer")
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

/// Where the next answer goes instead of to the client: to `release`, or nowhere.
type Instead = Option<Sender<Vec<u8>>>;

fn forward(client: &TcpStream, server: &TcpStream, state: &Arc<Mutex<State>>) {
    let (Ok(mut from_server), Ok(mut to_client)) = (server.try_clone(), client.try_clone()) else { return };
    let instead: Arc<Mutex<Option<Instead>>> = Arc::default();
    let diverted = Arc::clone(&instead);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            if let Some(receiver) = lock(&diverted).take() {
                if let Some(receiver) = receiver {
                    // A test that does not ask for it has dropped the other end.
                    let _ = receiver.send(buffer[..count].to_vec());
                }
                break;
            }
            if to_client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        close(&from_server, &to_client);
    });
    let (mut from_client, mut to_server) = (client, server);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from_client.read(&mut buffer) {
        let request = &buffer[..count];
        let cut = {
            let mut state = lock(state);
            let hit = state.armed.as_ref().is_some_and(|(marker, _)| contains(request, marker));
            let cut = if hit { state.armed.take().map(|(_, cut)| cut) } else { None };
            state.cut |= cut.is_some();
            match cut {
                Some(Cut::Answer) => *lock(&instead) = Some(None),
                Some(Cut::Late) => {
                    let (sender, answer) = channel();
                    *lock(&instead) = Some(Some(sender));
                    state.late = server.try_clone().ok().map(|server| (request.to_vec(), server, answer));
                }
                Some(Cut::Request) | None => {}
            }
            cut
        };
        match cut {
            Some(Cut::Request) => break,
            Some(Cut::Late) => {
                let _ = client.shutdown(Shutdown::Both);
                return;
            }
            Some(Cut::Answer) | None => {}
        }
        if to_server.write_all(request).is_err() {
            break;
        }
    }
    close(client, server);
}

fn contains(bytes: &[u8], marker: &[u8]) -> bool {
    bytes.windows(marker.len()).any(|window| window == marker)
}

/// Waits until something holds, or fails after ten seconds.
pub(super) fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
