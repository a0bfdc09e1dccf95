//! TLS on the HTTP port: handshakes within bounds, and a certificate that changes while the server runs.
//!
//! - A connection keeps the certificate that it began with; a new pair of files is for new connections.
//! - A pair that cannot be used is refused whole, logged once, and the pair in use stays.
//! - Files are looked at when they were seen changed twice alike, so that a pair in the middle of being replaced is not
//!   tried, and at once on SIGHUP.
//! - A handshake has a bounded time. How many are under way is bounded by the number of connections only: they hold little
//!   memory, and with fewer places clients that begin one and stay silent would hold up all others. A client that speaks
//!   plain HTTP is told so.

mod identity;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Weak;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::telemetry::{HandshakeResult, TlsFigures};
use identity::{Fault, Files, Identity, Texts};

/// How long a handshake may take, unless a request's head may take less.
const HANDSHAKE_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How much of a plain request is taken before the connection is closed: a client reads an answer only then.
const PLAIN_BYTES_MAX: u64 = 64 << 10;

const PLAIN_TEXT: &str = "this port speaks HTTPS only: use https:// instead of http://\n";

/// Secures connections with the certificate of two files.
pub(crate) struct Tls {
    files: Files,
    current: ArcSwap<ServerConfig>,
    timeout: Duration,
    figures: TlsFigures,
    seen: Mutex<Seen>,
}

/// What the files were found to be.
struct Seen {
    /// By their fingerprint: what was last tried, whatever came of it.
    tried: u64,
    /// Something else, seen once.
    fresh: Option<u64>,
    /// Why they could not be read, as it was logged.
    unreadable: Option<Fault>,
}

/// Why a connection was not secured.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It did not come to an end in time.
    TimedOut,
    /// The client spoke plain HTTP, and was told.
    Plain,
    /// The client left, or spoke no TLS that the server speaks.
    Failed(io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::TimedOut => f.write_str("the handshake took too long"),
            Refused::Plain => f.write_str("a plain HTTP request"),
            Refused::Failed(error) => error.fmt(f),
        }
    }
}

impl Tls {
    /// Reads the files. `header_timeout` bounds a handshake too. Blocks.
    ///
    /// # Errors
    /// When a file cannot be read or used; the text names it and its setting.
    pub(crate) fn open(
        cert: PathBuf,
        key: PathBuf,
        header_timeout: Duration,
        figures: TlsFigures,
    ) -> Result<Self, String> {
        let files = Files { cert, key };
        let (texts, identity) = files
            .read()
            .and_then(|texts| Identity::new(&texts).map(|identity| (texts, identity)))
            .map_err(|fault| files.describe(&fault))?;
        tell(&files, &texts, &identity, &figures);
        Ok(Self {
            files,
            current: ArcSwap::new(identity.config),
            timeout: header_timeout.min(HANDSHAKE_TIMEOUT_MAX),
            figures,
            seen: Mutex::new(Seen { tried: texts.fingerprint(), fresh: None, unreadable: None }),
        })
    }

    /// Secures an accepted connection.
    ///
    /// # Errors
    /// When the client speaks no TLS, or too slowly; the connection is closed then.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Refused> {
        let accepted = match tokio::time::timeout(self.timeout, self.shake_hands(stream)).await {
            Ok(accepted) => accepted,
            Err(_elapsed) => Err(Refused::TimedOut),
        };
        self.figures.handshake(match &accepted {
            Ok(_) => HandshakeResult::Ok,
            Err(Refused::TimedOut) => HandshakeResult::TimedOut,
            Err(Refused::Plain) => HandshakeResult::Plain,
            Err(Refused::Failed(_)) => HandshakeResult::Failed,
        });
        accepted
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Refused> {
        let mut first = [0];
        let count = stream.peek(&mut first).await.map_err(Refused::Failed)?;
        // Every method of HTTP begins with a capital, and so does HTTP/2's preface; a handshake begins with 0x16.
        if count == 1 && first[0].is_ascii_uppercase() {
            // Whether or not it arrives.
            let _ = answer_plain(stream).await;
            return Err(Refused::Plain);
        }
        let acceptor = TlsAcceptor::from(self.current.load_full());
        acceptor.accept(stream).await.map_err(Refused::Failed)
    }

    /// Looks at the files, and uses them from now on if they have changed and can be used. Blocks.
    fn reload(&self, is_asked: bool) {
        let mut seen = self.seen.lock();
        let texts = match self.files.read() {
            Ok(texts) => texts,
            Err(fault) => {
                // A file that is being replaced may be missing for a moment; one that stays away is told once.
                if is_asked || seen.unreadable.as_ref() != Some(&fault) {
                    self.keep_old(&fault);
                }
                seen.unreadable = Some(fault);
                return;
            }
        };
        seen.unreadable = None;
        let fingerprint = texts.fingerprint();
        if !is_asked && fingerprint == seen.tried {
            seen.fresh = None;
            return;
        }
        if !is_asked && seen.fresh.replace(fingerprint) != Some(fingerprint) {
            return;
        }
        (seen.tried, seen.fresh) = (fingerprint, None);
        match Identity::new(&texts) {
            Ok(identity) => {
                tell(&self.files, &texts, &identity, &self.figures);
                self.current.store(identity.config);
                self.figures.reloaded(true);
            }
            Err(fault) => self.keep_old(&fault),
        }
    }

    fn keep_old(&self, fault: &Fault) {
        self.figures.reloaded(false);
        let reason = self.files.describe(fault);
        tracing::error!(reason, "the new certificate is not used; the one in use stays");
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Uses changed files, for as long as the server runs.
pub(crate) async fn follow(tls: Weak<Tls>, mut hangups: Signal) {
    loop {
        let is_asked = tokio::select! {
            _ = hangups.recv() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let Some(tls) = tls.upgrade() else { return };
        // Fails only when the runtime stops.
        let _ = tokio::task::spawn_blocking(move || tls.reload(is_asked)).await;
    }
}

/// Says which certificate is used from now on, and what is wrong with it.
fn tell(files: &Files, texts: &Texts, identity: &Identity, figures: &TlsFigures) {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    let not_after = seconds(identity.not_after);
    let cert = files.cert.display();
    figures.certificate(&cert.to_string(), not_after);
    match identity.complaint(SystemTime::now()) {
        Some(complaint) => tracing::warn!(%cert, not_after, "{complaint}: clients will refuse it"),
        None => tracing::info!(%cert, not_after, "certificate in use"),
    }
    if texts.key_is_open() {
        tracing::warn!(key = %files.key.display(), "everybody on this machine may read the private key (server.tls_key)");
    }
}

/// Tells a client of plain HTTP which port it has reached, and lets it read that.
async fn answer_plain(mut stream: TcpStream) -> io::Result<()> {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{PLAIN_TEXT}",
        PLAIN_TEXT.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would reset the connection before the answer is read.
    tokio::io::copy(&mut stream.take(PLAIN_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}
