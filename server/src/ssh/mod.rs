//! Git over SSH, in the server itself: `ssh://host/ada/hello.git` for the repositories that HTTP serves.
//!
//! | file | owns |
//! |---|---|
//! | `authorized_keys` | who may come in |
//! | `host_key` | by which key clients know the server |
//! | `login` | connections on their way in |
//! | `caller` | one client and its channels |
//! | `command` | what it asks to be executed |
//! | `lfs` | where Git LFS is |
//!
//! What is said on a channel is `git::duplex`'s. People log in by public key only, under any user name. Of OpenSSH's abilities
//! there are the two services of Git, and the answer where its LFS is; no program is ever started.
//!
//! What bounds a client: its first line within [`GREETING_TIMEOUT`] and a key that may come in within [`LOGIN_TIMEOUT`], or
//! `server.header_timeout` if that is less; a login within `server.header_timeout`, no more than [`LOGINS_MAX`] under way, of which
//! the oldest makes way for a new one; as many connections as `server.max_connections`, of which one that has not logged in makes
//! way too. A connection on which nothing is executed for `server.header_timeout` is closed, one whose client does not answer for
//! two minutes too.

mod authorized_keys;
mod caller;
mod command;
mod host_key;
mod lfs;
mod login;

use std::borrow::Cow;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::{Disconnect, MethodKind, MethodSet, Preferred, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::config::SshConfig;
use crate::telemetry::{LoginResult, SshFigures};
use authorized_keys::AuthorizedKeys;
pub(crate) use authorized_keys::{BLANKS, parse_key, split_outside_quotes, unquoted};
use caller::{Activity, Caller, OFFERS_MAX};
use login::{Login, Logins};

/// Reads `data` as the files that name who may come in and who may sign, and as what a client asks to be executed; how many
/// people, signers and commands that gives. For fuzzing.
pub fn fuzz_keys(data: &[u8]) -> [usize; 3] {
    let command = command::parse(data);
    assert!(!command.as_ref().is_ok_and(|command| command.path.is_empty()), "a service is asked for something");
    [authorized_keys::fuzz(data), crate::git::push_cert::fuzz_allowed_signers(data), usize::from(command.is_ok())]
}

/// How many clients may be logging in.
const LOGINS_MAX: usize = 256;

/// How long a client may take to say that it speaks SSH.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to offer a key that may come in. Whoever has may be asked for a passphrase then.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait when the system has no descriptors or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a client that says nothing is asked whether it is there, ...
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);

/// ... and how often without an answer.
const KEEP_ALIVES_MAX: usize = 3;

/// What a client may send on a channel ahead of what is read.
const WINDOW_BYTES: u32 = 1 << 20;

const PACKET_BYTES_MAX: u32 = 32 << 10;

/// What a refused key costs a client.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);

/// How long a client is given to take its leave.
const GOODBYE: Duration = Duration::from_secs(5);

/// Algorithms of host keys and signatures: no SHA-1; and none of security devices, because whether one was touched, which its
/// signature tells, is not looked at by those who check it.
const KEY_ALGORITHMS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// What all connections share.
struct Shared {
    app: Arc<App>,
    keys: AuthorizedKeys,
    figures: SshFigures,
    /// Where HTTP listens.
    http: SocketAddr,
}

/// A door that is there and not open yet.
pub(crate) struct Closed {
    listener: TcpListener,
    keys: AuthorizedKeys,
}

/// A door that lets clients in.
pub(crate) struct Door {
    listener: TcpListener,
    shared: Arc<Shared>,
    protocol: Arc<russh::server::Config>,
}

impl Closed {
    /// Binds the address and reads who may come in.
    ///
    /// # Errors
    /// When either fails; the text names the setting.
    pub(crate) async fn bind(config: &SshConfig) -> Result<Self, String> {
        let wanted = config.listen;
        let listener = TcpListener::bind(wanted)
            .await
            .map_err(|error| format!("cannot listen on {wanted} (server.ssh_listen): {error}"))?;
        let path = config.authorized_keys.clone();
        let keys = AuthorizedKeys::open(path.clone()).map_err(|error| {
            format!("server.ssh_authorized_keys: the file {} cannot be read: {error}", path.display())
        })?;
        Ok(Self { listener, keys })
    }

    /// Opens the door, with the key that the settings name or the data folder holds, beside HTTP at an address. Blocks.
    ///
    /// # Errors
    /// When the host key cannot be made, read or used.
    pub(crate) fn open(self, app: Arc<App>, config: &SshConfig, http: SocketAddr) -> Result<Door, String> {
        let key = match (&config.host_key, app.config.data_folder()) {
            (Some(path), _) => host_key::own(path)?,
            (None, Some(folder)) => host_key::kept(folder)?,
            (None, None) => {
                tracing::warn!(
                    "the SSH host key is a new one at each start, because nothing is kept: set server.ssh_host_key"
                );
                host_key::fleeting()?
            }
        };
        tracing::info!(fingerprint = host_key::fingerprint(&key), "SSH host key");
        let figures = app.metrics.ssh().clone();
        let shared = Arc::new(Shared { app, keys: self.keys, figures, http });
        Ok(Door { listener: self.listener, shared, protocol: Arc::new(protocol(key)) })
    }
}

fn protocol(key: PrivateKey) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-govc_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REFUSAL_DELAY,
        auth_rejection_time_initial: Some(Duration::ZERO),
        // What is counted are refusals: of keys, of signatures, and of the question that all clients begin with.
        max_auth_attempts: OFFERS_MAX + 1,
        keys: vec![key],
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES_MAX,
        // Nothing is read from these: `Caller::data` has queues of its own.
        channel_buffer_size: 1,
        event_buffer_size: 4,
        preferred: Preferred { key: Cow::Borrowed(KEY_ALGORITHMS), ..Preferred::DEFAULT },
        // Keep-alives notice a client that is gone; this ends a connection whose client takes nothing.
        inactivity_timeout: Some(KEEP_ALIVE_EVERY * (KEEP_ALIVES_MAX as u32 + 1)),
        keepalive_interval: Some(KEEP_ALIVE_EVERY),
        keepalive_max: KEEP_ALIVES_MAX,
        ..russh::server::Config::default()
    }
}

impl Door {
    /// Where clients come to.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Lets clients in until `stop` changes. Each holds a receiver of `stop` until it is gone.
    pub(crate) async fn serve(self, mut stop: watch::Receiver<()>) {
        let places = Arc::new(Semaphore::new(self.shared.app.config.server.connections_max));
        let logins = Logins::new(LOGINS_MAX);
        loop {
            let (stream, peer, place) = tokio::select! {
                biased;
                _ = stop.changed() => return,
                accepted = self.accept(&places, &logins) => accepted,
            };
            let (login, displaced) = logins.begin(peer, &self.shared.figures);
            let arrival = Arrival { stream, peer, login, displaced };
            let (shared, protocol, stop) = (Arc::clone(&self.shared), Arc::clone(&self.protocol), stop.clone());
            tokio::spawn(async move {
                let _counted = shared.figures.connection();
                serve(shared, protocol, arrival, stop).await;
                drop(place);
            });
        }
    }

    /// The next client, once there is a place for it. May be dropped at any point.
    async fn accept(
        &self,
        places: &Arc<Semaphore>,
        logins: &Logins,
    ) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let place = Arc::clone(places).try_acquire_owned().ok();
                    if place.is_some() {
                        return (stream, peer, place);
                    }
                    // Who has logged in stays; then this one waits.
                    logins.displace_oldest();
                    // The semaphore is never closed; without a permit the connection is merely not counted.
                    return (stream, peer, Arc::clone(places).acquire_owned().await.ok());
                }
                Err(error) => {
                    tracing::warn!(error = %error, "an SSH connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that has just come.
struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    login: Login,
    /// Resolved when it has to make way before it has logged in.
    displaced: oneshot::Receiver<()>,
}

/// Serves one connection to its end, or, once `stop` changes, to the end of its calls.
async fn serve(
    shared: Arc<Shared>,
    protocol: Arc<russh::server::Config>,
    arrival: Arrival,
    mut stop: watch::Receiver<()>,
) {
    let Arrival { stream, peer, login, mut displaced } = arrival;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "TCP_NODELAY could not be set");
    }
    // The protocol's task owns the stream; this end can close it under the task's feet. Programs that are started do not get it.
    let Ok(line) = rustix::io::fcntl_dupfd_cloexec(&stream, 0).map(std::net::TcpStream::from) else { return };
    let patience = shared.app.config.server.header_timeout;
    let came = Instant::now();
    let (activity, mut changes) = watch::channel(Activity::default());
    let tried = Arc::clone(login.tried());
    let caller = Caller::new(Arc::clone(&shared), peer, activity, Arc::clone(&tried));
    let begun = tokio::select! {
        begun = timeout(patience.min(GREETING_TIMEOUT), russh::server::run_stream(protocol, stream, caller)) => begun,
        Ok(()) = &mut displaced => return login.end(LoginResult::Displaced),
        _ = stop.changed() => return,
    };
    let session = match begun {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            tracing::debug!(remote_addr = %peer, %error, "no SSH connection");
            return;
        }
        Err(_elapsed) => return login.end(LoginResult::TimedOut),
    };
    let handle = session.handle();
    let mut session = pin!(session);
    let mut login = Some(login);
    let (mut is_stopping, mut was_busy) = (false, false);
    let reason = loop {
        let now = *changes.borrow_and_update();
        if now.is_known
            && let Some(login) = login.take()
        {
            login.end(LoginResult::Accepted);
        }
        was_busy |= now.calls > 0;
        if is_stopping && now.calls == 0 {
            // A client whose call has just ended leaves by itself, and takes a disconnect for a failure.
            if was_busy && timeout(GOODBYE, session.as_mut()).await.is_ok() {
                return;
            }
            break "the server is stopping";
        }
        let until = match login {
            None => Instant::now() + patience,
            Some(_) if tried.lock().is_invited() => came + patience,
            Some(_) => came + patience.min(LOGIN_TIMEOUT),
        };
        tokio::select! {
            ended = session.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(remote_addr = %peer, %error, "SSH connection ended");
                }
                return;
            }
            Ok(()) = changes.changed() => {}
            Ok(()) = &mut displaced, if login.is_some() => {
                let _ = line.shutdown(Shutdown::Both);
                return login.into_iter().for_each(|login| login.end(LoginResult::Displaced));
            }
            () = tokio::time::sleep_until(until), if now.calls == 0 => {
                let is_invited = login.is_some() && tried.lock().is_invited() && came.elapsed() < patience;
                if is_invited || changes.has_changed().unwrap_or(false) {
                    continue;
                }
                if let Some(login) = login.take() {
                    login.end(LoginResult::TimedOut);
                }
                break "nothing was asked for";
            }
            _ = stop.changed(), if !is_stopping => is_stopping = true,
        }
    };
    drop(login);
    tracing::debug!(remote_addr = %peer, reason, "closing an SSH connection");
    let goodbye = async {
        // Fails when the session has ended already.
        let _ = handle.disconnect(Disconnect::ByApplication, reason.to_owned(), String::new()).await;
        let _ = session.as_mut().await;
    };
    if timeout(GOODBYE, goodbye).await.is_err() {
        let _ = line.shutdown(Shutdown::Both);
    }
}
