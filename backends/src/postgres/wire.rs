//! The way to a server: finding it, and a socket that whoever waits for an answer watches by itself.
//!
//! A call polls its connection on the caller's thread, so neither request nor answer goes from thread to thread; on one machine
//! that took longer than the server's work. The socket is read whenever it is polled, and the runtime's reactor is asked to
//! tell only when there is nothing to be read.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::tls::MakeTlsConnect;

use super::tls::Tls;

/// What is read at once, at most: the buffer for it is cleared each time.
const READ_BYTES_MAX: usize = 16 << 10;

/// A connection as the driver sees it.
pub(super) type Connection = tokio_postgres::Connection<Wire, <Tls as MakeTlsConnect<Wire>>::Stream>;

/// A place where the server may be.
pub(super) struct Candidate {
    place: Place,
    /// For TLS; a socket of this machine has none.
    pub(super) host: String,
}

enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// The places that a URL names, in its order.
pub(super) fn candidates(config: &Config) -> Vec<Candidate> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let candidate = |at: usize| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let host = match hosts.get(at) {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(_)) | None => String::new(),
        };
        let place = match (addresses.get(at).map(IpAddr::to_string), hosts.get(at)) {
            (None, Some(Host::Unix(folder))) => Place::Unix(folder.join(format!(".s.PGSQL.{port}"))),
            (address, _) => Place::Tcp(address.unwrap_or_else(|| host.clone()), port),
        };
        Candidate { place, host }
    };
    (0..hosts.len().max(addresses.len())).map(candidate).collect()
}

impl Candidate {
    /// Connects to the first of its addresses that answers.
    pub(super) async fn connect(&self, config: &Config) -> io::Result<Wire> {
        match &self.place {
            Place::Unix(path) => Ok(Wire::Unix(bounded(config, UnixStream::connect(path)).await?)),
            Place::Tcp(name, port) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the lookup of the host gave no address");
                for address in tokio::net::lookup_host((name.as_str(), *port)).await? {
                    match bounded(config, TcpStream::connect(address)).await {
                        Ok(stream) => return Wire::tcp(stream, config),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

/// Bounds the attempt to reach one address.
async fn bounded<T>(config: &Config, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let Some(patience) = config.get_connect_timeout() else { return connecting.await };
    timeout(*patience, connecting)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"))))
}

/// A socket to the server.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    fn tcp(stream: TcpStream, config: &Config) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        socket.set_tcp_user_timeout(config.get_tcp_user_timeout().copied())?;
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(Self::Tcp(stream))
    }

    /// Reads what is there, whatever the reactor knows.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = match self {
            Wire::Tcp(stream) => stream.as_fd(),
            Wire::Unix(stream) => stream.as_fd(),
        };
        Ok(rustix::io::read(fd, buffer)?)
    }

    /// Waits until the reactor knows of something to be read, and reads it.
    fn poll_read_told(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let read = match self {
                Wire::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || self.read(buffer))
                }
                Wire::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || self.read(buffer))
                }
            };
            match read {
                // The reactor has been told so, and asks anew.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wanted = buffer.remaining().min(READ_BYTES_MAX);
        let room = buffer.initialize_unfilled_to(wanted);
        let read = loop {
            match self.read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break ready!(self.poll_read_told(cx, room)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        buffer.advance(read?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The driver's end of a connection, which moves no byte unless it is polled. One call at a time does that.
pub(super) struct Link(Mutex<Option<Pin<Box<Connection>>>>);

impl Link {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Mutex::new(Some(Box::pin(connection))))
    }

    /// Runs what asks the server something, and moves the connection's bytes meanwhile.
    pub(super) async fn drive<T>(&self, ask: impl Future<Output = T>) -> T {
        let mut ask = std::pin::pin!(ask);
        std::future::poll_fn(|cx| {
            // It may have something to send, and something may have come for it.
            if let Poll::Ready(output) = ask.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            self.poll(cx);
            ask.as_mut().poll(cx)
        })
        .await
    }

    /// Ends the connection at once, with what may still be on its way.
    pub(super) fn cut(&self) {
        *self.0.lock() = None;
    }

    /// Returns when the connection has ended.
    pub(super) async fn ended(&self) {
        std::future::poll_fn(|cx| if self.poll(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    /// Whether the connection lives, as far as can be told without waiting.
    pub(super) fn is_open(&self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Moves what can be moved; whether the connection lives. Whoever waits for an answer of one that does not is told by
    /// the driver.
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        let mut link = self.0.lock();
        let Some(connection) = link.as_mut() else { return false };
        if connection.as_mut().poll(cx).is_ready() {
            *link = None;
        }
        link.is_some()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The client is gone, so this takes leave of the server, if the socket takes that at once.
        self.is_open();
    }
}
