//! One client: who it is, its channels, and what it asks for on them.
//!
//! A session channel executes one of Git's services; everything else that SSH can do (shell, terminal, forwarding,
//! subsystems, agents, environment) is refused. Each call has a task of its own, which ends with its channel or connection.
//!
//! Back-pressure: what a channel has sent and its call has not read fills a short queue; then the connection is not read
//! further, all its channels with it, until the call reads on or its patience ends: windows are renewed as soon as
//! something comes, not when it is read. A call that only answers is never in that position: clients send large things only
//! where the server sends nothing meanwhile.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use russh::keys::{Algorithm, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use super::authorized_keys::Person;
use super::command::{self, Command, LFS, Program};
use super::lfs::{self, Operation};
use super::login::Tried;
use super::{Shared, authorized_keys};
use crate::git::duplex::{self, Call, DRAIN_BYTES_MAX, Inlet, Outlet, STALL_MAX, Trouble};
use crate::git::{Service, Version};
use crate::telemetry::{CallResult, OTHER_SERVICE, SshExchange};

/// Channels that a connection may have open.
const CHANNELS_MAX: usize = 16;

/// Channels that a connection may open in its life: each leaves some bytes behind. Clients connect anew then.
const CHANNELS_EVER_MAX: usize = 10_000;

/// Keys that a client may offer: somebody's whole agent, and not a search.
pub(super) const OFFERS_MAX: usize = 30;

/// Of these, keys that may come in: each is followed by a signature, if the client can make it.
const INVITATIONS_MAX: usize = 6;

/// The longest command that is logged where it is not served, in characters.
const SHOWN_LEN_MAX: usize = 200;

/// The value of `GIT_PROTOCOL` that is looked at.
const PROTOCOL_LEN_MAX: usize = 1024;

/// How a channel is told apart from output on standard error.
const STDERR: u32 = 1;

/// What a connection is doing, for whoever decides when it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Activity {
    /// Whether the login has succeeded.
    pub(super) is_known: bool,
    /// Calls being answered.
    pub(super) calls: usize,
}

/// The handler of a connection.
pub(super) struct Caller {
    shared: Arc<Shared>,
    peer: SocketAddr,
    activity: watch::Sender<Activity>,
    person: Option<Person>,
    /// For those who log how the login went.
    tried: Arc<Mutex<Tried>>,
    offers: usize,
    invitations: usize,
    opened: usize,
    channels: HashMap<ChannelId, Line>,
}

/// A session channel.
struct Line {
    /// Taken by the one call that the channel makes.
    out: Option<ChannelWriteHalf<Msg>>,
    version: Version,
    /// To the call; `None` before it, and after the end of the input.
    input: Option<mpsc::Sender<io::Result<Bytes>>>,
    /// What came when nobody read any more.
    unread_bytes: u64,
    call: Option<Running>,
}

/// A call's task, which ends when its channel does.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Line {
    fn is_over(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.0.is_finished())
    }
}

/// One more call in the activity, for as long as it lives.
struct Counted(watch::Sender<Activity>);

impl Counted {
    fn new(activity: &watch::Sender<Activity>) -> Self {
        activity.send_modify(|activity| activity.calls += 1);
        Self(activity.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|activity| activity.calls = activity.calls.saturating_sub(1));
    }
}

impl Caller {
    pub(super) fn new(
        shared: Arc<Shared>,
        peer: SocketAddr,
        activity: watch::Sender<Activity>,
        tried: Arc<Mutex<Tried>>,
    ) -> Self {
        let channels = HashMap::new();
        Self { shared, peer, activity, person: None, tried, offers: 0, invitations: 0, opened: 0, channels }
    }

    /// Whose key it is, unless it is to be used in a way that is not safe any more.
    async fn person(&self, key: &PublicKey, algorithm: &Algorithm) -> Option<Person> {
        let is_unsafe = matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa);
        if is_unsafe || authorized_keys::is_of_device(key) {
            return None;
        }
        let (shared, key) = (Arc::clone(&self.shared), key.clone());
        // Fails only when the runtime stops.
        tokio::task::spawn_blocking(move || shared.keys.find(&key)).await.ok().flatten()
    }

    /// Answers on a channel that nothing can be executed on, and closes it.
    fn refuse(
        &mut self,
        channel: ChannelId,
        asked: &[u8],
        text: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note_refused(asked, text);
        self.tell(channel, Err(text.to_owned()), session)
    }

    /// Answers on a channel at once, and closes it.
    fn tell(
        &mut self,
        channel: ChannelId,
        answer: Result<String, String>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_success(channel)?;
        let status = u32::from(answer.is_err());
        match answer {
            Ok(text) => session.data(channel, Bytes::from(text))?,
            Err(reason) => session.extended_data(channel, STDERR, Bytes::from(format!("govc: {reason}\n")))?,
        }
        session.exit_status_request(channel, status)?;
        session.eof(channel)?;
        session.close(channel)?;
        self.channels.remove(&channel);
        Ok(())
    }

    /// Answers where Git LFS is.
    fn tell_lfs(
        &mut self,
        channel: ChannelId,
        operation: Operation,
        path: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(person) = &self.person else { return session.channel_failure(channel) };
        let Shared { app, figures, http, .. } = &*self.shared;
        let exchange = SshExchange::begin(figures, LFS, path, Arc::clone(&person.name), self.peer);
        let located = lfs::locate(app, [*http, self.peer], path, operation, person.may_write);
        match &located {
            Ok(_) => exchange.end(CallResult::Ok, None),
            Err(reason) => exchange.end(CallResult::Refused, Some(reason.clone())),
        }
        self.tell(channel, located, session)
    }

    /// Counts and logs what is not served.
    fn note_refused(&self, asked: &[u8], reason: &str) {
        let name = self.person.as_ref().map(|person| Arc::clone(&person.name)).unwrap_or_default();
        // As many bytes as so many characters take at most.
        let asked = String::from_utf8_lossy(asked.get(..4 * SHOWN_LEN_MAX).unwrap_or(asked));
        let shown: String = asked.chars().take(SHOWN_LEN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let exchange = SshExchange::begin(&self.shared.figures, OTHER_SERVICE, &shown, name, self.peer);
        exchange.end(CallResult::Refused, Some(reason.to_owned()));
    }

    /// Starts the call of a channel.
    fn start(&mut self, id: ChannelId, service: Service, path: String) -> bool {
        let Some(person) = self.person.clone() else { return false };
        let Some(line) = self.channels.get_mut(&id) else { return false };
        let Some(out) = line.out.take() else { return false };
        let (sender, input) = Inlet::new(self.shared.app.config.server.body_timeout);
        let exchange =
            SshExchange::begin(&self.shared.figures, service.name(), &path, Arc::clone(&person.name), self.peer);
        let call = Call { service, path, version: line.version, actor: person.name, may_write: person.may_write };
        let (shared, counted) = (Arc::clone(&self.shared), Counted::new(&self.activity));
        let task: JoinHandle<()> = tokio::spawn(async move {
            let _counted = counted;
            answer(&shared, &call, input, out, exchange).await;
        });
        line.input = Some(sender);
        line.call = Some(Running(task.abort_handle()));
        true
    }
}

/// Answers a call, says how it ended, and closes its channel.
async fn answer(shared: &Shared, call: &Call, input: Inlet, out: ChannelWriteHalf<Msg>, exchange: SshExchange) {
    let out = Output(out);
    let (result, reason, status) = match duplex::converse(&shared.app, call, input, &out).await {
        Ok(()) => (CallResult::Ok, None, 0),
        Err(trouble) => {
            let reason = trouble.to_string();
            let text = format!("govc: {reason}\n");
            // A client that is gone does not read it.
            let _ = timeout(STALL_MAX, out.0.extended_data_bytes(STDERR, text)).await;
            let result = match trouble {
                Trouble::Refused(_) => CallResult::Refused,
                Trouble::Failed(_) => CallResult::Failed,
                Trouble::Gone(_) => CallResult::Gone,
            };
            (result, Some(reason), 1)
        }
    };
    exchange.end(result, reason);
    let goodbye = async {
        out.0.exit_status(status).await?;
        out.0.eof().await?;
        out.0.close().await
    };
    let _ = timeout(STALL_MAX, goodbye).await;
}

/// A channel's way to the client, which waits for its window.
struct Output(ChannelWriteHalf<Msg>);

impl Outlet for Output {
    async fn send(&self, bytes: Bytes) -> io::Result<()> {
        self.0.data_bytes(bytes).await.map_err(|error| io::Error::other(error.to_string()))
    }
}

impl Handler for Caller {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, russh::Error> {
        self.tried.lock().user(user);
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, _password: &str) -> Result<Auth, russh::Error> {
        self.tried.lock().user(user);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        let is_known = self.person(offer.public_key, offer.algorithm).await.is_some();
        self.tried.lock().key(user, authorized_keys::fingerprint(offer.public_key), is_known);
        self.offers += 1;
        self.invitations += usize::from(is_known);
        if self.offers > OFFERS_MAX || self.invitations > INVITATIONS_MAX {
            return Err(russh::Error::Disconnect);
        }
        Ok(if is_known { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        // Asked again: the file may have changed since the key was offered.
        let Some(person) = self.person(key.public_key, key.algorithm).await else { return Ok(Auth::reject()) };
        tracing::info!(
            remote_addr = %self.peer,
            user,
            person = &*person.name,
            key = authorized_keys::fingerprint(key.public_key),
            "SSH login"
        );
        self.person = Some(person);
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), russh::Error> {
        self.activity.send_modify(|activity| activity.is_known = true);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.retain(|_, line| !line.is_over());
        if self.channels.len() >= CHANNELS_MAX || self.opened >= CHANNELS_EVER_MAX || self.shared.app.is_draining() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.opened += 1;
        let id = channel.id();
        // What the client sends comes through `data`, so that its end is known to the call.
        let (_, out) = channel.split();
        let line = Line { out: Some(out), version: Version::V0, input: None, unread_bytes: 0, call: None };
        self.channels.insert(id, line);
        reply.accept().await;
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.channels.get_mut(&channel) {
            Some(line) if name == "GIT_PROTOCOL" && value.len() <= PROTOCOL_LEN_MAX => {
                line.version = Version::from_header(value);
                session.channel_success(channel)
            }
            _ => session.channel_failure(channel),
        }
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match command::parse(line) {
            Err(reason) => self.refuse(channel, line, &reason, session),
            Ok(Command { program: Program::Lfs(operation), path }) => self.tell_lfs(channel, operation, &path, session),
            Ok(Command { program: Program::Git(service), path }) => match self.start(channel, service, path) {
                true => session.channel_success(channel),
                false => session.channel_failure(channel),
            },
        }
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        let name = self.person.as_ref().map(|person| Arc::clone(&person.name)).unwrap_or_default();
        let text = format!("{name} is logged in, and there is no shell here: use git clone, fetch and push");
        self.refuse(channel, b"(a shell)", &text, session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.note_refused(name.as_bytes(), "there are no subsystems here");
        session.channel_failure(channel)
    }

    #[allow(clippy::too_many_arguments, reason = "the trait's signature")]
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        let Some(line) = self.channels.get_mut(&channel) else { return Ok(()) };
        let is_stuck = match &line.input {
            Some(input) => match timeout(STALL_MAX, input.send(Ok(Bytes::copy_from_slice(data)))).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_closed)) => {
                    line.input = None;
                    false
                }
                Err(_elapsed) => true,
            },
            None => false,
        };
        line.unread_bytes = line.unread_bytes.saturating_add(data.len() as u64);
        if is_stuck || line.unread_bytes > DRAIN_BYTES_MAX {
            self.channels.remove(&channel);
            session.close(channel)?;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        if let Some(line) = self.channels.get_mut(&channel) {
            line.input = None;
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), russh::Error> {
        self.channels.remove(&channel);
        Ok(())
    }
}
