//! Git over a connection that goes both ways, such as a channel of SSH: advertisement, conversation, end.
//!
//! The same services as over HTTP answer, on threads of the pool. What waits for the client waits here, without a thread:
//! for its next command of version 2, for the first wants of version 0, for the commands of a push, before which a client runs
//! its hooks, for the first bytes of a pack, which it may take minutes to make, and while it takes one; within a pack that is
//! pushed, [`arrival`](super::arrival) does. Within a version 0 negotiation the thread waits, and [`bridge`] bounds how long.
//!
//! Source: git's `Documentation/gitprotocol-pack`, `gitprotocol-v2`, `serve.c`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io::{self, Cursor};
use std::sync::Arc;

use bytes::Bytes;
use govc_engine::{ErrorKind, Repo, RepoName, Result as EngineResult};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::advertise::{self, Service, Version};
use super::arrival::{Commands, Lent, Push};
use super::bridge::{self, Failure, Flow, Limited, ResponseWriter, Rest};
use super::command;
use super::inlet::{End, Message};
use super::pointers::Pointers;
use super::receive_pack::Target;
use super::route::{FETCH_BYTES_MAX, INLINE_REFERENCES_MAX, SMALL_BYTES_MAX};
use super::{pkt, upload_pack};
use crate::App;

pub(crate) use super::bridge::{DRAIN_BYTES_MAX, STALL_MAX};
pub(crate) use super::inlet::Inlet;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) service: Service,
    /// The repository's name, with or without `.git` and a `/` in front.
    pub(crate) path: String,
    pub(crate) version: Version,
    /// Who asks, as recorded with what is pushed.
    pub(crate) actor: Arc<str>,
    /// Whether the caller may push.
    pub(crate) may_write: bool,
}

/// Why a conversation ended before its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Nothing was begun; the text is for the client.
    Refused(String),
    /// Something failed in between; the text is for the client.
    Failed(String),
    /// The client is gone, or too slow.
    Gone(&'static str),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Refused(text) | Trouble::Failed(text) => f.write_str(text),
            Trouble::Gone(text) => f.write_str(text),
        }
    }
}

/// The way to the client.
pub(crate) trait Outlet {
    /// Sends bytes, when the client takes them.
    ///
    /// # Errors
    /// When the client is gone.
    fn send(&self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Answers a call to its end.
///
/// # Errors
/// When there is nothing to answer, or the conversation breaks off. What the protocol can say is said there, and is no error.
pub(crate) async fn converse<O: Outlet>(app: &Arc<App>, call: &Call, input: Inlet, out: &O) -> Result<(), Trouble> {
    if call.service == Service::ReceivePack && !call.may_write {
        return Err(Trouble::Refused("this key may read, and not push".to_owned()));
    }
    let (repo, is_draft) = find(app, call)?;
    let nonce = (call.service == Service::ReceivePack).then(|| app.push_certs.nonce(&repo.name()));
    let mut conversation = Conversation { app, repo, input, out, nonce };
    conversation.advertise(call, is_draft).await?;
    match (call.service, call.version) {
        (Service::UploadPack, Version::V2) => conversation.answer_commands().await,
        (Service::UploadPack, _) => conversation.negotiate().await,
        (Service::ReceivePack, _) => conversation.receive(call, is_draft).await,
    }
}

/// The repository's name in a path, with or without `.git` and a `/` in front.
///
/// # Errors
/// The reason, for the client, when it is none.
pub(crate) fn repo_name(path: &str) -> Result<RepoName, String> {
    let path = path.trim_start_matches('/').trim_end_matches('/');
    RepoName::new(path.strip_suffix(".git").unwrap_or(path))
        .map_err(|error| format!("there is no such repository: {}", error.message()))
}

/// The repository, and whether it is one that a push would create.
fn find(app: &App, call: &Call) -> Result<(Repo, bool), Trouble> {
    let name = repo_name(&call.path).map_err(Trouble::Refused)?;
    let creates = call.service == Service::ReceivePack && app.config.git.create_on_push;
    match app.store.repo(&name) {
        Ok(repo) => Ok((repo, false)),
        Err(error) if *error.kind() == ErrorKind::NotFound && creates => {
            let draft = app.store.draft(&name, app.config.new_repo_settings(), &call.actor);
            draft.map(|repo| (repo, true)).map_err(|error| Trouble::Refused(error.message().to_owned()))
        }
        Err(error) if *error.kind() == ErrorKind::NotFound => {
            Err(Trouble::Refused(format!("repository '{name}' does not exist")))
        }
        Err(error) => Err(Trouble::Failed(error.message().to_owned())),
    }
}

/// A conversation about one repository.
struct Conversation<'a, O> {
    app: &'a Arc<App>,
    repo: Repo,
    input: Inlet,
    out: &'a O,
    /// What the client is to sign a push with.
    nonce: Option<String>,
}

impl<O: Outlet> Conversation<'_, O> {
    async fn advertise(&mut self, call: &Call, is_draft: bool) -> Result<(), Trouble> {
        let (service, version) = (call.service, call.version);
        let mut out = Vec::new();
        if service == Service::UploadPack && version == Version::V2 {
            let pointers = Pointers::over_ssh(self.app, &self.repo.name());
            let written =
                advertise::capabilities_v2(self.repo.object_format(), &pointers, &mut out).map_err(pkt::input_error);
            return self.answer_inline(written, out).await;
        }
        if is_draft {
            let written = advertise::list_nothing(self.repo.object_format(), version, self.nonce.as_deref(), &mut out);
            return self.answer_inline(written, out).await;
        }
        let snapshot = self.repo.snapshot();
        if snapshot.reference_count() <= INLINE_REFERENCES_MAX {
            let written = advertise::list(&snapshot, service, version, self.nonce.as_deref(), &mut out);
            return self.answer_inline(written, out).await;
        }
        let nonce = self.nonce.clone();
        self.run(Arc::default(), move |_, _, out| {
            advertise::list(&snapshot, service, version, nonce.as_deref(), out).map(|()| None)
        })
        .await
    }

    /// Version 2: commands until the client has no more, or has been told of an error.
    async fn answer_commands(&mut self) -> Result<(), Trouble> {
        loop {
            self.wait_for_beginning().await?;
            let Message { text, end } = match self.input.message(SMALL_BYTES_MAX).await.map_err(away)? {
                message if message.is_goodbye() => return Ok(()),
                message => message,
            };
            let pointers = Pointers::over_ssh(self.app, &self.repo.name());
            let flow = Arc::new(Flow::default().pointing(pointers));
            flow.set_received();
            let repo = self.repo.clone();
            if end == End::Flush
                && command::lists_references(&text)
                && repo.snapshot().reference_count() <= INLINE_REFERENCES_MAX
            {
                let mut out = Vec::new();
                let mut input = Cursor::new(text);
                let served = upload_pack::serve(self.app, &repo, Version::V2, &mut input, &mut out, &flow);
                self.answer_inline(served.map(drop), out).await?;
            } else {
                self.input.unread(text);
                let work_flow = Arc::clone(&flow);
                self.run(Arc::clone(&flow), move |app, input, out| {
                    let mut input = Limited::new(input, FETCH_BYTES_MAX);
                    upload_pack::serve(app, &repo, Version::V2, &mut input, out, &work_flow)
                })
                .await?;
            }
            if flow.refused() {
                return Ok(());
            }
        }
    }

    /// Versions 0 and 1: one fetch.
    async fn negotiate(&mut self) -> Result<(), Trouble> {
        self.wait_for_beginning().await?;
        let message = self.input.message(SMALL_BYTES_MAX).await.map_err(away)?;
        if message.is_goodbye() {
            return Ok(());
        }
        self.input.unread(message.text);
        let flow = Arc::new(Flow::default());
        flow.set_received();
        let (repo, work_flow) = (self.repo.clone(), Arc::clone(&flow));
        self.run(flow, move |app, input, out| {
            let mut input = Limited::new(input, FETCH_BYTES_MAX);
            upload_pack::serve_stateful(app, &repo, &mut input, out, &work_flow)
        })
        .await
    }

    /// One push.
    async fn receive(&mut self, call: &Call, is_draft: bool) -> Result<(), Trouble> {
        self.wait_for_beginning().await?;
        let commands = Commands::read(self.app, self.repo.object_format(), &mut self.input).await;
        let Some(commands) = commands.map_err(trouble)? else { return Ok(()) };
        let pack_follows = commands.pack_follows;
        if commands.awaits_pack() {
            self.wait_for_beginning().await?;
        }
        let flow = Arc::new(Flow::default());
        // While the client ran its hooks, one of which uploads files of Git LFS, the repository may have come to be.
        let (repo, is_draft) = if is_draft { find(self.app, call)? } else { (self.repo.clone(), false) };
        let (actor, nonce) = (Arc::clone(&call.actor), self.nonce.take());
        let target = Target { repo, is_draft, actor, is_live: true, nonce };
        let (input, returns) = self.lend();
        let response = Push { target, commands, input }.start(self.app, Arc::clone(&flow));
        let served = self.answer(response, returns).await;
        if pack_follows && !flow.received() && !matches!(served, Err(Trouble::Gone(_))) {
            self.input.drain().await;
        }
        served
    }

    /// Waits until the client begins what comes next, or has ended its input. When the server is stopping, only as long as in
    /// the middle of something.
    async fn wait_for_beginning(&mut self) -> Result<(), Trouble> {
        let waits = self.input.waits;
        let began = Instant::now();
        loop {
            let left = waits.begin.saturating_sub(began.elapsed());
            match self.input.fill(left.min(waits.stall)).await {
                Err(_) if began.elapsed() < waits.begin && !self.app.is_draining() => {}
                filled => return filled.map(|_| ()).map_err(away),
            }
        }
    }

    async fn answer_inline(&self, written: EngineResult<()>, out: Vec<u8>) -> Result<(), Trouble> {
        written.map_err(|error| trouble(Failure::Engine(error)))?;
        self.send(out.into()).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Trouble> {
        match timeout(self.input.waits.stall, self.out.send(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Trouble::Gone("the client went away")),
            Err(_elapsed) => Err(Trouble::Gone("the client reads too slowly")),
        }
    }

    fn lend(&mut self) -> (Lent, oneshot::Receiver<Inlet>) {
        let (_, empty) = Inlet::new(self.input.waits.stall);
        let mut input = std::mem::replace(&mut self.input, empty);
        input.renew();
        Lent::new(input)
    }

    /// Runs `work` on a thread of the pool, and sends what it writes and what it leaves to be delivered.
    async fn run(
        &mut self,
        flow: Arc<Flow>,
        work: impl for<'a> FnOnce(&'a App, &mut Lent, &mut ResponseWriter) -> EngineResult<Option<Rest<'a>>>
        + Send
        + 'static,
    ) -> Result<(), Trouble> {
        let stall_max = self.input.waits.stall;
        let (mut lent, returns) = self.lend();
        // The input comes back before what is left is made.
        let response = bridge::start(self.app, stall_max, flow, move |app, out| work(app, &mut lent, out));
        self.answer(response, returns).await
    }

    /// Sends an answer, and takes the input back that whoever makes it has.
    async fn answer(
        &mut self,
        mut response: bridge::Response,
        returns: oneshot::Receiver<Inlet>,
    ) -> Result<(), Trouble> {
        let served = loop {
            let sent = match response.next().await {
                Some(Ok(chunk)) => self.send(chunk).await,
                Some(Err(failure)) => Err(trouble(failure)),
                None => break Ok(()),
            };
            match sent {
                Ok(()) => {}
                // The work may go on for a while, and nothing is read from this client any more.
                Err(Trouble::Gone(_)) => return sent,
                failed => break failed,
            }
        };
        if let Ok(input) = returns.await {
            self.input = input;
        }
        served
    }
}

/// What it means that nothing comes of a client's input.
fn away(error: io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::TimedOut => Trouble::Gone("the client is too slow"),
        _ => Trouble::Gone("the client went away"),
    }
}

fn trouble(failure: Failure) -> Trouble {
    match &failure {
        Failure::Engine(error) => match bridge::client_failure(error) {
            Some(kind) => away(kind.into()),
            None => Trouble::Failed(failure.to_string()),
        },
        Failure::Work(_) | Failure::Stopping => Trouble::Failed(failure.to_string()),
    }
}
