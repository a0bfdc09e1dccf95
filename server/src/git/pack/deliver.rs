//! Delivering a pack: each client takes it as fast as it can, and no thread waits with it.
//!
//! A delivery is a task. It reads a piece of the pack, on a thread for just that if the disk is to be waited for, frames it and
//! hands it to the response's queue, which takes more as the client does. So a client that is slow holds a piece and a queue
//! of memory, as a part of `server.max_buffered` unless its pack is small. Of that, deliveries have half at most; where it is
//! exhausted, one waits for its part as work waits for a thread.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use govc_engine::{Error, ErrorKind, Repo, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use super::{
    shared::{Outcome, PackReader, Piece},
    spool::PIECE_BYTES,
    write::gone,
};
use crate::{
    App,
    git::{
        bridge::{self, CHUNK_BYTES, CHUNKS_MAX, Flow, ResponseWriter},
        cache::KeptPack,
        sideband::{Bands, Packets, Sideband},
    },
    http::body::{FREE_BYTES, Held},
    telemetry::PackSource,
};

/// What a pack on its way holds of memory at most.
pub(crate) const HELD_BYTES: u64 = (PIECE_BYTES + CHUNKS_MAX * CHUNK_BYTES) as u64;

/// Packets go to the queue when so many bytes of them have come together: one large one, or as many small ones.
const PACKETS_BYTES: usize = CHUNK_BYTES / 2;

/// How many large packs may be on their way at once when they are to have one of so many parts of the memory for answers: those
/// to clients have half of it, those from slow clients a quarter, and others the rest.
pub(crate) fn on_their_way_max(buffered_bytes_max: u64, one_of: u64) -> usize {
    usize::try_from(buffered_bytes_max / one_of / HELD_BYTES).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

/// A pack for a client.
pub(crate) struct Delivery {
    pub(crate) repo: Repo,
    pub(crate) bands: Bands,
    /// Whether the client is told how far it is.
    pub(crate) progress_wanted: bool,
    /// The pack, or why there is none.
    pub(crate) pack: Result<Source>,
}

/// Where a pack comes from.
pub(crate) enum Source {
    /// It is kept.
    Kept(Arc<KeptPack>),
    /// It is being made.
    Shared(PackReader, PackSource),
}

/// What was sent.
struct Sent {
    objects: usize,
    bytes: u64,
}

impl Delivery {
    /// Sends the pack to its end, or tells the client why there is none. Gives the part of the memory for answers that what
    /// still waits in the queue has.
    ///
    /// # Errors
    /// When the client is gone or reads too slowly, and when a pack fails of which the client cannot be told.
    pub(crate) async fn send(self, app: &App, flow: &Flow, out: ResponseWriter) -> Result<Held> {
        let Self { repo, bands, progress_wanted, pack } = self;
        let sideband = Sideband::new(Packets::default(), bands, progress_wanted);
        let mut sending = Sending { app, sideband, out, share: Share::new(&app.deliveries) };
        let sent = match pack {
            Ok(Source::Kept(pack)) => sending.kept(&pack).await,
            Ok(Source::Shared(reader, source)) => sending.shared(reader, source).await,
            Err(error) => Err(error),
        };
        flow.end_packets();
        match sent {
            Ok(Sent { objects, bytes }) => {
                tracing::debug!(repo = %repo.name(), objects, bytes, "pack sent");
                sending.sideband.finish().map_err(gone)?;
            }
            Err(error) if bands == Bands::None || bridge::client_failure(&error).is_some() => return Err(error),
            Err(error) => {
                tracing::warn!(repo = %repo.name(), %error, "sending a pack failed");
                flow.set_refused();
                sending.sideband.error(&format!("the pack cannot be sent: {}", error.message()));
            }
        }
        sending.pass(1).await?;
        Ok(sending.share.held)
    }
}

/// The part of the memory for answers that a pack on its way has, and its place among large ones.
pub(crate) struct Share {
    held: Held,
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// None yet, of a pack among those that take `turns`.
    pub(crate) fn new(turns: &Arc<Semaphore>) -> Self {
        Self { held: Held::default(), turns: Arc::clone(turns), turn: None }
    }

    /// Waits until it is one for `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when others have it for too long.
    pub(crate) async fn hold(&mut self, app: &App, bytes: u64) -> Result<()> {
        let deadline = app.work.deadline();
        if bytes > FREE_BYTES && self.turn.is_none() {
            let turn = Arc::clone(&self.turns).acquire_owned();
            let late = |_| Error::new(ErrorKind::Unavailable, "other packs are on their way; try again");
            self.turn = timeout_at(deadline.into(), turn).await.map_err(late)?.ok();
        }
        while let Err(problem) = app.bodies.grow(&mut self.held, bytes).await {
            if Instant::now() >= deadline || app.is_draining() {
                return Err(Error::new(ErrorKind::Unavailable, problem.detail()));
            }
        }
        Ok(())
    }
}

/// A pack on its way to a client.
struct Sending<'a> {
    app: &'a App,
    /// Puts packets together that have not gone to the queue.
    sideband: Sideband<Packets>,
    out: ResponseWriter,
    share: Share,
}

impl Sending<'_> {
    /// Sends a kept pack as it is; a damaged one is dropped, and the client's own check fails this one fetch.
    async fn kept(&mut self, pack: &Arc<KeptPack>) -> Result<Sent> {
        let objects = pack.entries.len();
        self.progress(&enumerated(objects)).await?;
        let (app, mut buffer) = (self.app, Vec::new());
        self.share.hold(app, HELD_BYTES.min(2 * pack.len())).await?;
        let unread = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionAborted => gone(error),
            _ => {
                app.packs.drop_pack(pack);
                Error::corrupt(format!("a kept pack is damaged ({error}); fetch again"))
            }
        };
        let mut number = 0;
        while let Some(piece) = pack.next_piece(number, &mut buffer).await.map_err(unread)? {
            self.data(piece).await?;
            number += 1;
        }
        self.data(pack.checksum().as_bytes()).await?;
        self.progress(&format!("Total {objects} objects, reused {objects}, done.\n")).await?;
        app.metrics.packs().sent(PackSource::Kept);
        Ok(Sent { objects, bytes: pack.len() + pack.checksum().as_bytes().len() as u64 })
    }

    /// Sends what is being made, as it grows.
    async fn shared(&mut self, mut reader: PackReader, source: PackSource) -> Result<Sent> {
        let mut buffer = Vec::new();
        let (mut bytes, mut objects, mut told) = (0, 0, 0);
        loop {
            let bytes_max = match FREE_BYTES.saturating_sub(bytes) {
                0 => PIECE_BYTES,
                // A small pack takes no part of the memory for answers.
                left => left as usize,
            };
            match reader.read(&mut buffer, bytes_max).await? {
                Piece::Bytes((done, total)) => {
                    if bytes == 0 {
                        objects = total;
                        self.progress(&enumerated(total)).await?;
                    }
                    self.data(&buffer).await?;
                    bytes += buffer.len() as u64;
                    if bytes >= FREE_BYTES {
                        self.share.hold(self.app, HELD_BYTES).await?;
                    }
                    if done > told {
                        told = done;
                        self.progress(&sending(done, total)).await?;
                    }
                }
                Piece::End(Outcome::Made(checksum)) => {
                    self.data(checksum.as_bytes()).await?;
                    self.progress(&format!("Total {objects} objects, done.\n")).await?;
                    self.app.metrics.packs().sent(source);
                    return Ok(Sent { objects, bytes: bytes + checksum.as_bytes().len() as u64 });
                }
                Piece::End(Outcome::Kept(pack)) => return self.kept(&pack).await,
            }
        }
    }

    async fn data(&mut self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(CHUNK_BYTES) {
            self.sideband.data().write_all(part).map_err(gone)?;
            self.pass(PACKETS_BYTES).await?;
        }
        Ok(())
    }

    async fn progress(&mut self, text: &str) -> Result<()> {
        self.sideband.progress(text);
        self.pass(1).await
    }

    /// Hands packets to the queue, if they have so many bytes together.
    async fn pass(&mut self, bytes_min: usize) -> Result<()> {
        let packets = self.sideband.out();
        if packets.len() < bytes_min {
            return Ok(());
        }
        let packets = packets.take();
        self.out.pass(Bytes::from(packets)).await.map_err(gone)
    }
}

fn enumerated(objects: usize) -> String {
    format!("Enumerating objects: {objects}, done.\n")
}

fn sending(done: usize, total: usize) -> String {
    format!("Sending objects: {}% ({done}/{total})\r", done * 100 / total.max(1))
}
