//! Pushes on their way in: a client that is slow to send holds no thread, and little memory.
//!
//! - The commands are here before a thread is asked for, in memory; those of more than some KiB are part of `server.max_buffered`.
//!   (Of more than [`COMMANDS_BYTES_MAX`], a thread reads the rest, and never gives up.)
//! - A thread takes the pack in as it comes. When it has waited too long for the client ([`Inlet::hurry`]) it gives up, sooner while
//!   others want the thread: what it has made is dropped, what has come is in the pack's spool, and the thread is free.
//! - From then on a task takes in what comes, a piece at a time, and writes it to the same file. Meanwhile the push holds
//!   [`HELD_BYTES`] of memory as packs on their way to clients do, large commands are in a file too, and a scan of the entries tells
//!   where the pack ends: over SSH, nothing else does.
//! - When all is there, or cannot come any more, a thread begins anew with what is in the files, and finds what is wrong as if it had
//!   come at once. So a slow pack is read twice, a fast one once.
//! - The client may let the server wait as long as ever while no thread waits, see [`bridge`](super::bridge).

use std::io::{Cursor, Read, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use govc_engine::{Error, ErrorKind, ObjectFormat, Result};
use tokio::sync::oneshot;

use super::bridge::{self, Failure, Flow, Limited, Outcome, Response, ResponseWriter};
use super::inlet::{End, Inlet, Message};
use super::pack::deliver::{HELD_BYTES, Share};
use super::pack::spool::{PIECE_BYTES, Spool, SpoolReader};
use super::pack::stream::{Part, body_error, spool_error};
use super::pkt;
use super::push_request::PushRequest;
use super::receive_pack::{self, Incoming, Target};
use super::route::{COMMANDS_BYTES_MAX, SMALL_BYTES_MAX};
use crate::App;
use crate::http::body::{FREE_BYTES, Held};
use crate::work::WorkError;

/// The commands of a push.
pub(super) struct Commands {
    /// As they came, with their flush, and the push options with theirs.
    text: Bytes,
    /// Whether that is all of them.
    is_whole: bool,
    pub(super) pack_follows: bool,
    came: SystemTime,
    /// What `text` takes beyond a small one, twice: as it came, and parsed.
    held: Held,
}

impl Commands {
    /// Waits for the commands. `None` if the client has none, and ends its input or says so.
    ///
    /// # Errors
    /// When the client sends nothing, or there is no memory or no thread for so many.
    pub(super) async fn read(
        app: &App,
        format: ObjectFormat,
        input: &mut Inlet,
    ) -> std::result::Result<Option<Self>, Failure> {
        let mut held = Held::default();
        let message = long_message(app, input, &mut held, 0).await?;
        if message.is_goodbye() {
            return Ok(None);
        }
        let Message { mut text, end } = message;
        let head = match text.len() {
            _ if end != End::Flush => Head { is_right: false, has_options: false, pack_follows: true },
            0..=SMALL_BYTES_MAX => Head::of(format, &text),
            _ => {
                let text = text.clone();
                app.work.run(move || Head::of(format, &text)).await.map_err(Failure::Work)?
            }
        };
        // What is too long or wrong is for the thread: it comes to an end by itself.
        let mut is_whole = head.is_right || head.has_options;
        if is_whole && head.has_options {
            let options = long_message(app, input, &mut held, text.len()).await?;
            is_whole = options.end == End::Flush;
            let mut joined = BytesMut::from(text);
            joined.extend_from_slice(&options.text);
            text = joined.freeze();
        }
        let came = SystemTime::now();
        Ok(Some(Self { text, is_whole, pack_follows: head.pack_follows, came, held }))
    }

    /// Whether they are all here, and a pack follows them.
    pub(super) fn awaits_pack(&self) -> bool {
        self.is_whole && self.pack_follows
    }
}

/// A message of any length that a push may have, after so many bytes. What they take beyond a small one is added to `held`.
async fn long_message(
    app: &App,
    input: &mut Inlet,
    held: &mut Held,
    before: usize,
) -> std::result::Result<Message, Failure> {
    let most = usize::try_from(COMMANDS_BYTES_MAX).unwrap_or(usize::MAX);
    let mut bytes_max = SMALL_BYTES_MAX;
    loop {
        let message = input.message(bytes_max).await.map_err(Failure::of_input)?;
        if message.end != End::Long || bytes_max >= most {
            held.shrink(2 * (before + message.text.len()) as u64);
            return Ok(message);
        }
        input.unread(message.text);
        bytes_max = most.min(2 * bytes_max);
        let grown = app.bodies.grow(held, 2 * (before + bytes_max) as u64).await;
        grown.map_err(|problem| Failure::Engine(Error::new(ErrorKind::Unavailable, problem.detail())))?;
    }
}

/// What is known of a push from its commands.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// Whether the commands are right, up to options that come in the next message.
    is_right: bool,
    has_options: bool,
    pack_follows: bool,
}

impl Head {
    /// Of the commands with their flush.
    fn of(format: ObjectFormat, text: &[u8]) -> Self {
        let mut request = PushRequest::new(format);
        let read = request.read(&mut pkt::Reader::new(text), usize::MAX);
        let pack_follows = !request.only_deletes() || request.commands.is_empty();
        Self { is_right: read.is_ok(), has_options: request.has_options, pack_follows }
    }
}

/// The input while others have it. It comes back however they end, also when they never begin.
pub(super) struct Lent {
    input: Option<Inlet>,
    back: Option<oneshot::Sender<Inlet>>,
}

impl Lent {
    pub(super) fn new(input: Inlet) -> (Self, oneshot::Receiver<Inlet>) {
        let (back, returns) = oneshot::channel();
        (Self { input: Some(input), back: Some(back) }, returns)
    }
}

impl Read for Lent {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.input.as_mut().map_or(Ok(0), |input| input.read(into))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(input), Some(back)) = (self.input.take(), self.back.take()) {
            // Nobody waits for it when the conversation has ended.
            let _ = back.send(input);
        }
    }
}

/// A push of which the commands are here.
pub(super) struct Push {
    pub(super) target: Target,
    pub(super) commands: Commands,
    /// What follows the commands.
    pub(super) input: Lent,
}

/// What a thread has, and gives back.
struct Work {
    push: Push,
    out: ResponseWriter,
    flow: Arc<Flow>,
}

impl Push {
    /// Takes the push in and answers it. Must be called within a runtime.
    pub(super) fn start(self, app: &Arc<App>, flow: Arc<Flow>) -> Response {
        let (out, chunks) = ResponseWriter::new(app.config.server.body_timeout);
        let work = Work { push: self, out, flow: Arc::clone(&flow) };
        Response::new(chunks, flow, tokio::spawn(work.run(Arc::clone(app))))
    }
}

impl Work {
    async fn run(mut self, app: Arc<App>) -> Outcome {
        let bytes_max = request_bytes_max(&app);
        if let Some(input) = self.push.input.input.as_mut() {
            input.renew();
            if self.push.commands.is_whole {
                let for_others = Arc::clone(&app);
                input.hurry(move || for_others.work.is_wanted());
            }
        }
        let on_thread = Arc::clone(&app);
        let first = move || {
            let Self { push: Push { target, commands, input }, out, flow } = &mut self;
            let mut input = Limited::new(Cursor::new(commands.text.clone()).chain(input), bytes_max);
            let begun = Ok(Spool::new(on_thread.packs.folder()));
            let incoming = Incoming { input: &mut input, came: commands.came, begun };
            let served = serve(&on_thread, target, incoming, out, flow);
            (self, served)
        };
        let (work, served) = app.work.run_with_client(first).await?;
        let part = match served {
            Ok(Some(part)) => *part,
            Ok(None) => return Ok(Ok(Held::default())),
            Err(error) => return Ok(Err(error)),
        };

        let Self { push: Push { target, commands, mut input }, mut out, flow } = work;
        let Commands { text, came, held, .. } = commands;
        let mut kept = Spool::new(app.packs.folder());
        let rest = match input.input.as_mut() {
            Some(input) => {
                let behind = target.repo.object_format().len() + usize::from(!target.is_live);
                let put = put_away(&app, &mut kept, text).await?;
                drop(held);
                match put {
                    Ok(()) => take_in(&app, input, part, behind, &kept).await?,
                    Err(error) => Err(error),
                }
            }
            // Nobody takes it away.
            None => Ok(part),
        };
        let (begun, behind) = match rest {
            Ok(part) => {
                let (begun, behind) = part.into_parts();
                (Ok(begun), behind)
            }
            Err(error) => (Err(error), Vec::new()),
        };
        let on_thread = Arc::clone(&app);
        let second = move || {
            let mut input = SpoolReader::new(&kept).chain(&behind[..]);
            let served = serve(&on_thread, &target, Incoming { input: &mut input, came, begun }, &mut out, &flow);
            served.map(|_| Held::default())
        };
        app.work.run_with_client(second).await
    }
}

fn serve(
    app: &App,
    target: &Target,
    incoming: Incoming<'_>,
    out: &mut ResponseWriter,
    flow: &Flow,
) -> Result<Option<Box<Part>>> {
    let part = receive_pack::serve(app, target, incoming, out, flow)?;
    out.flush().map_err(pkt::input_error)?;
    Ok(part)
}

/// The most bytes of a push.
pub(super) fn request_bytes_max(app: &App) -> u64 {
    app.config.git.pack_bytes_max.saturating_add(COMMANDS_BYTES_MAX)
}

/// Puts the commands into `kept`, and on the disk if they are not few. They can be read from there whatever the disk does.
async fn put_away(app: &App, kept: &mut Spool, text: Bytes) -> std::result::Result<Result<()>, WorkError> {
    if text.len() as u64 <= FREE_BYTES {
        return Ok(kept.write_all(&text).map_err(spool_error));
    }
    let mut spool = std::mem::replace(kept, Spool::new(None));
    let put = move || {
        let put = spool.write_all(&text).and_then(|()| spool.put_away());
        (spool, put)
    };
    let (spool, put) = app.work.run_beside(put).await?;
    *kept = spool;
    Ok(put.map_err(spool_error))
}

/// Takes in the rest of a pack, until there is so much `behind` its entries, it turns out to be damaged or the input ends.
async fn take_in(
    app: &App,
    input: &mut Inlet,
    mut part: Part,
    behind: usize,
    commands: &Spool,
) -> std::result::Result<Result<Part>, WorkError> {
    let bytes_max = request_bytes_max(app);
    let mut share = Share::new(&app.arrivals);
    let mut gathered = Vec::new();
    let mut is_ended = false;
    input.renew();
    loop {
        // First what the thread has left.
        let piece = std::mem::take(&mut gathered);
        let work = move || {
            let put = part.take_in(&piece);
            (part, put)
        };
        let put;
        (part, put) = app.work.run_beside(work).await?;
        if let Err(error) = put {
            return Ok(Err(error));
        }
        if is_ended || part.is_enough(behind) {
            return Ok(Ok(part));
        }
        let in_memory = commands.memory_bytes() + part.memory_bytes();
        if let Err(error) = share.hold(app, HELD_BYTES + in_memory).await {
            return Ok(Err(error));
        }
        match input.gather(&mut gathered, PIECE_BYTES).await {
            Ok(goes_on) => is_ended = !goes_on,
            Err(error) => return Ok(Err(body_error(error))),
        }
        if commands.len() + part.len() + gathered.len() as u64 > bytes_max {
            return Ok(Err(body_error(bridge::too_large(bytes_max))));
        }
    }
}
