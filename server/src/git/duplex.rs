//! Git over a connection that goes both ways, such as a channel of SSH: advertisement, conversation, end.
//!
//! The same services as over HTTP answer, on threads of the pool. What waits for the client waits here, without a thread:
//! for its next command of version 2, for the first wants of version 0, and for the first bytes of a pack, which a client may
//! take minutes to make. Within a version 0 negotiation and within a pack the thread waits, and [`bridge`] bounds how long.
//! Source: git's `Documentation/gitprotocol-pack`, `gitprotocol-v2`, `serve.c`.

use std::fmt;
use std::future::Future;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use govc_engine::{ErrorKind, Repo, RepoName, RepoSettings, Result as EngineResult};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::advertise::{self, Service, Version};
use super::bridge::{self, Failure, Flow, Limited, ResponseWriter};
use super::command;
use super::inlet::Message;
use super::push_request::PushRequest;
use super::receive_pack::{self, Target};
use super::route::{COMMANDS_BYTES_MAX, FETCH_BYTES_MAX, INLINE_REFERENCES_MAX};
use super::{pkt, upload_pack};
use crate::App;

pub(crate) use super::bridge::{DRAIN_BYTES_MAX, STALL_MAX};
pub(crate) use super::inlet::Inlet;

/// How long a client may take until its pack begins: it counts and compresses the objects first.
const PACK_PATIENCE: Duration = Duration::from_secs(15 * 60);

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
    let mut conversation = Conversation { app, repo, input, out };
    conversation.advertise(call, is_draft).await?;
    match (call.service, call.version) {
        (Service::UploadPack, Version::V2) => conversation.answer_commands().await,
        (Service::UploadPack, _) => conversation.negotiate().await,
        (Service::ReceivePack, _) => conversation.receive(call, is_draft).await,
    }
}

/// The repository, and whether it is one that a push would create.
fn find(app: &App, call: &Call) -> Result<(Repo, bool), Trouble> {
    let path = call.path.trim_start_matches('/').trim_end_matches('/');
    let name = RepoName::new(path.strip_suffix(".git").unwrap_or(path))
        .map_err(|error| Trouble::Refused(format!("there is no such repository: {}", error.message())))?;
    let creates = call.service == Service::ReceivePack && app.config.git.create_on_push;
    match app.store.repo(&name) {
        Ok(repo) => Ok((repo, false)),
        Err(error) if *error.kind() == ErrorKind::NotFound && creates => {
            let draft = app.store.draft(&name, RepoSettings::default(), &call.actor);
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
}

impl<O: Outlet> Conversation<'_, O> {
    async fn advertise(&mut self, call: &Call, is_draft: bool) -> Result<(), Trouble> {
        let (service, version) = (call.service, call.version);
        let mut out = Vec::new();
        if service == Service::UploadPack && version == Version::V2 {
            let written = advertise::capabilities_v2(&mut out).map_err(pkt::input_error);
            return self.answer_inline(written, out).await;
        }
        if is_draft {
            let written = advertise::list_nothing(version, &mut out);
            return self.answer_inline(written, out).await;
        }
        let snapshot = self.repo.snapshot();
        if snapshot.reference_count() <= INLINE_REFERENCES_MAX {
            let written = advertise::list(&snapshot, service, version, &mut out);
            return self.answer_inline(written, out).await;
        }
        self.run(Arc::default(), move |_, _, out| advertise::list(&snapshot, service, version, out)).await
    }

    /// Version 2: commands until the client has no more.
    async fn answer_commands(&mut self) -> Result<(), Trouble> {
        loop {
            let Message { text, is_whole } = match self.input.message().await? {
                message if message.is_goodbye() => return Ok(()),
                message => message,
            };
            let flow = Arc::new(Flow::default());
            flow.set_received();
            let repo = self.repo.clone();
            if is_whole
                && command::lists_references(&text)
                && repo.snapshot().reference_count() <= INLINE_REFERENCES_MAX
            {
                let mut out = Vec::new();
                let mut input = Cursor::new(text);
                let served = upload_pack::serve(self.app, &repo, Version::V2, &mut input, &mut out, &flow);
                self.answer_inline(served, out).await?;
                continue;
            }
            self.input.unread(text);
            let work_flow = Arc::clone(&flow);
            self.run(flow, move |app, input, out| {
                let mut input = Limited::new(input, FETCH_BYTES_MAX);
                upload_pack::serve(app, &repo, Version::V2, &mut input, out, &work_flow)
            })
            .await?;
        }
    }

    /// Versions 0 and 1: one fetch.
    async fn negotiate(&mut self) -> Result<(), Trouble> {
        let message = self.input.message().await?;
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
        let message = self.input.message().await?;
        if message.is_goodbye() {
            return Ok(());
        }
        let pack_follows = self.wait_for_pack(message).await?;
        let flow = Arc::new(Flow::default());
        let (repo, actor, work_flow) = (self.repo.clone(), Arc::clone(&call.actor), Arc::clone(&flow));
        let bytes_max = self.app.config.git.pack_bytes_max.saturating_add(COMMANDS_BYTES_MAX);
        let served = self.run(Arc::clone(&flow), move |app, input, out| {
            let mut input = Limited::new(input, bytes_max);
            let target = Target { repo: &repo, is_draft, actor: &actor, is_live: true };
            receive_pack::serve(app, target, &mut input, out, &work_flow)
        });
        let served = served.await;
        if pack_follows && !flow.received() && !matches!(served, Err(Trouble::Gone(_))) {
            self.input.drain().await;
        }
        served
    }

    /// Waits for the first bytes of a pack, if one follows the commands; whether one does. Leaves everything to be read.
    async fn wait_for_pack(&mut self, commands: Message) -> Result<bool, Trouble> {
        let mut request = PushRequest::default();
        let read = request.read(&mut pkt::Reader::new(Cursor::new(&commands.text)));
        let mut texts = vec![commands.text];
        // What is long or wrong is for the thread: it comes to an end by itself.
        let mut is_whole = commands.is_whole;
        if is_whole && request.has_options {
            let options = self.input.message().await?;
            is_whole = options.is_whole;
            texts.push(options.text);
        } else if read.is_err() {
            is_whole = false;
        }
        let pack_follows = !request.only_deletes() || request.commands.is_empty();
        if is_whole && pack_follows {
            self.input.fill(PACK_PATIENCE).await?;
        }
        self.input.unread(texts.concat().into());
        Ok(pack_follows)
    }

    async fn answer_inline(&self, written: EngineResult<()>, out: Vec<u8>) -> Result<(), Trouble> {
        written.map_err(|error| trouble(Failure::Engine(error)))?;
        self.send(out.into()).await
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Trouble> {
        match timeout(STALL_MAX, self.out.send(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Trouble::Gone("the client went away")),
            Err(_elapsed) => Err(Trouble::Gone("the client reads too slowly")),
        }
    }

    /// Runs `work` on a thread of the pool, and sends what it writes.
    async fn run(
        &mut self,
        flow: Arc<Flow>,
        work: impl FnOnce(&App, &mut Inlet, &mut ResponseWriter) -> EngineResult<()> + Send + 'static,
    ) -> Result<(), Trouble> {
        let (_, empty) = Inlet::new();
        let mut input = std::mem::replace(&mut self.input, empty);
        input.renew();
        let (returned, returns) = oneshot::channel();
        let (mut writer, chunks) = ResponseWriter::new();
        let app = Arc::clone(self.app);
        let work = move || {
            let done = work(&app, &mut input, &mut writer);
            // Nobody waits for it when the conversation has ended.
            let _ = returned.send(input);
            done?;
            io::Write::flush(&mut writer).map_err(pkt::input_error)
        };
        let app = Arc::clone(self.app);
        let task = tokio::spawn(async move { app.work.run_with_client(work).await });
        let mut response = bridge::Response::new(chunks, flow, task);
        while let Some(chunk) = response.next().await {
            self.send(chunk.map_err(trouble)?).await?;
        }
        if let Ok(input) = returns.await {
            self.input = input;
        }
        Ok(())
    }
}

fn trouble(failure: Failure) -> Trouble {
    match &failure {
        Failure::Engine(error) => match bridge::client_failure(error) {
            Some(io::ErrorKind::TimedOut) => Trouble::Gone("the client is too slow"),
            Some(_) => Trouble::Gone("the client went away"),
            None => Trouble::Failed(failure.to_string()),
        },
        Failure::Work(_) | Failure::Stopping => Trouble::Failed(failure.to_string()),
    }
}
