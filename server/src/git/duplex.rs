//! Git over a connection that goes both ways, such as a channel of SSH: advertisement, conversation, end.
//!
//! The same services as over HTTP answer, on threads of the pool. What waits for the client waits here, without a thread:
//! for its next command of version 2, for the first wants of version 0, and for the first bytes of a pack, which a client may
//! take minutes to make. Within a version 0 negotiation and within a pack the thread waits, and [`bridge`] bounds how long.
//! Source: git's `Documentation/gitprotocol-pack`, `gitprotocol-v2`, `serve.c`.

use std::fmt;
use std::future::Future;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use govc_engine::{ErrorKind, Repo, RepoName, RepoSettings, Result as EngineResult};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::advertise::{self, Service, Version};
use super::bridge::{self, Failure, Flow, Limited, Patience, ResponseWriter};
use super::command;
use super::push_request::PushRequest;
use super::receive_pack::{self, Target};
use super::route::{COMMANDS_BYTES_MAX, FETCH_BYTES_MAX, INLINE_REFERENCES_MAX, SMALL_BYTES_MAX};
use super::{pkt, upload_pack};
use crate::App;

pub(crate) use super::bridge::{DRAIN_BYTES_MAX, STALL_MAX};

/// How long a client may take until its pack begins: it counts and compresses the objects first.
const PACK_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// How many pieces of input wait to be read.
const QUEUE_LEN: usize = 8;

const FLUSH: &[u8] = b"0000";

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

/// What a client sends, as a queue of [`QUEUE_LEN`] pieces: whoever fills it waits while nobody reads.
pub(crate) struct Inlet {
    pieces: mpsc::Receiver<Bytes>,
    /// Taken from the queue and not read.
    piece: Bytes,
    runtime: Handle,
    patience: Patience,
}

impl Inlet {
    /// The two ends of a queue. Dropping the sender is the end of the input. Must be called within a runtime.
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(QUEUE_LEN);
        (sender, Self { pieces, piece: Bytes::new(), runtime: Handle::current(), patience: Patience::new() })
    }

    /// Waits until something is there to be read; false at the end of the input.
    async fn fill(&mut self, patience: Duration) -> Result<bool, Trouble> {
        while self.piece.is_empty() {
            match timeout(patience, self.pieces.recv()).await {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(false),
                Err(_elapsed) => return Err(Trouble::Gone("the client sends nothing")),
            }
        }
        Ok(true)
    }

    /// Reads lines up to a flush, but no more than fits a small request.
    async fn message(&mut self) -> Result<Message, Trouble> {
        let mut text = BytesMut::new();
        let mut at = 0;
        let mut patience = Patience::new();
        loop {
            // Whole lines that have come; none is looked into.
            while let Some(prefix) = text.get(at..at + FLUSH.len()) {
                if prefix == FLUSH {
                    let rest = text.split_off(at + FLUSH.len()).freeze();
                    self.unread(rest);
                    return Ok(Message { text: text.freeze(), is_whole: true });
                }
                let len = std::str::from_utf8(prefix).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
                match len {
                    // A delimiter, or an end of a response, which whoever parses the lines refuses.
                    Some(1..=3) => at += FLUSH.len(),
                    Some(len) if len >= FLUSH.len() => at += len,
                    // Not a line: whoever parses says so.
                    _ => return Ok(Message { text: text.freeze(), is_whole: false }),
                }
            }
            if text.len() > SMALL_BYTES_MAX {
                return Ok(Message { text: text.freeze(), is_whole: false });
            }
            let began = Instant::now();
            if !self.fill(patience.left()).await? {
                return Ok(Message { text: text.freeze(), is_whole: false });
            }
            patience.waited(began.elapsed(), self.piece.len() as u64);
            text.extend_from_slice(&std::mem::take(&mut self.piece));
        }
    }

    /// Puts bytes back in front of what is to be read.
    fn unread(&mut self, bytes: Bytes) {
        self.piece = match self.piece.is_empty() {
            true => bytes,
            false => [bytes, std::mem::take(&mut self.piece)].concat().into(),
        };
    }

    /// Throws away what comes, to the end of the input: a client that was refused reads why only once it has sent everything.
    async fn drain(&mut self) {
        let mut drained_bytes = 0;
        while drained_bytes <= DRAIN_BYTES_MAX && matches!(self.fill(STALL_MAX).await, Ok(true)) {
            drained_bytes += self.piece.len() as u64;
            self.piece.clear();
        }
    }
}

/// For working threads.
impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.try_recv() {
                Ok(piece) => self.piece = piece,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(0),
                Err(mpsc::error::TryRecvError::Empty) => {
                    let began = Instant::now();
                    let wait = async { timeout(self.patience.left(), self.pieces.recv()).await };
                    match self.runtime.block_on(wait) {
                        Ok(Some(piece)) => self.piece = piece,
                        Ok(None) => return Ok(0),
                        Err(_elapsed) => {
                            return Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly"));
                        }
                    }
                    self.patience.waited(began.elapsed(), self.piece.len() as u64);
                }
            }
        }
        let n = into.len().min(self.piece.len());
        self.piece.split_to(n).copy_to_slice(into.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

/// What [`Inlet::message`] found.
struct Message {
    text: Bytes,
    /// Whether it ends with a flush.
    is_whole: bool,
}

impl Message {
    /// Whether the client has nothing more to ask.
    fn is_goodbye(&self) -> bool {
        self.text.is_empty() || self.text == FLUSH
    }
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
        input.patience = Patience::new();
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn messages(pieces: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (sender, mut inlet) = Inlet::new();
        let pieces: Vec<Bytes> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        tokio::spawn(async move {
            for piece in pieces {
                sender.send(piece).await.expect("the test reads");
            }
        });
        let mut seen = Vec::new();
        loop {
            let Message { text, is_whole } = inlet.message().await.expect("nobody waits long");
            if text.is_empty() {
                return seen;
            }
            seen.push((text.to_vec(), is_whole));
        }
    }

    #[tokio::test]
    async fn a_message_ends_with_its_flush_however_it_is_cut() {
        let text = b"0014command=ls-refs\n00010009peel\n00000000000aabcd\n\n0000";
        let wanted = [
            (b"0014command=ls-refs\n00010009peel\n0000".to_vec(), true),
            (b"0000".to_vec(), true),
            (b"000aabcd\n\n0000".to_vec(), true),
        ];
        assert_eq!(messages(&[text]).await, wanted);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(messages(&bytes).await, wanted);
        let pairs: Vec<&[u8]> = text.chunks(7).collect();
        assert_eq!(messages(&pairs).await, wanted);
    }

    #[tokio::test]
    async fn zeros_within_a_line_are_no_flush() {
        assert_eq!(messages(&[b"000c00000000", b"0000"]).await, [(b"000c000000000000".to_vec(), true)]);
    }

    #[tokio::test]
    async fn what_is_no_line_or_long_or_cut_off_is_left_to_the_parser() {
        assert_eq!(messages(&[b"zzzz"]).await, [(b"zzzz".to_vec(), false)]);
        assert_eq!(messages(&[b"0009abc"]).await, [(b"0009abc".to_vec(), false)]);
        let long = [b"fff0".to_vec(), vec![b'x'; 0xfff0 - 4]].concat().repeat(3);
        let seen = messages(&long.chunks(32 << 10).collect::<Vec<_>>()).await;
        assert!(seen.len() > 1 && seen.iter().all(|(_, is_whole)| !is_whole));
        assert!(seen[0].0.len() <= SMALL_BYTES_MAX + (32 << 10));
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first() {
        let (sender, mut inlet) = Inlet::new();
        sender.send(Bytes::from_static(b"0005abehind")).await.unwrap();
        drop(sender);
        inlet.fill(Duration::MAX).await.unwrap();
        inlet.unread(Bytes::from_static(b"0000"));
        let message = inlet.message().await.unwrap();
        assert!(message.is_goodbye());
        let rest = tokio::task::spawn_blocking(move || io::read_to_string(&mut inlet)).await.unwrap();
        assert_eq!(rest.unwrap(), "0005abehind");
    }
}
