//! Receiving a pack: both passes, the checks of every object, and its way into a transaction.
//!
//! Nothing is visible before the transaction is published, and nothing stays if it is not. The objects of a small
//! push ride in the journal; those of a large one go into blocks as they arrive, with the pack's own deltas.

use std::{collections::HashSet, hash::BuildHasherDefault, io::Read};

use govc_engine::{
    Connectivity, Error, ErrorKind, IdHasher, Kind, Known, Limits, ObjectFormat, Oid, RefEdit, Repo, Result, Snapshot,
    Staged, Transaction,
    object::{Links, links},
};

use super::{
    entry::EntryKind,
    resolve::{Found, Resolution},
    sink::{Made, Riding, Sink, Sinks, Stored},
    spool::{Folder, Spool},
    stream::{PackEntry, PackStream, Part},
    targets::{NotedTargets, Targets},
    workers::{Feed, IngestThreads, Job, Turn, run},
};
use crate::{
    App,
    git::{
        bridge::Flow,
        cache::{Form, KeptBase, KeptEntry, NewPack, Tips},
    },
};

/// Bytes of whole objects that are given to another thread together.
const PIECE_BYTES: usize = 256 << 10;
/// Deltas between two words to the pusher.
const SAID_EVERY: usize = if cfg!(test) { 64 } else { 4096 };

/// A pack that has been received and checked.
pub(crate) struct Received {
    snapshot: Snapshot,
    objects: u64,
    riding: Riding,
    staged: Option<Staged>,
    /// Whether everything that the pack's objects point at is in the pack or the repository.
    closed: bool,
    /// The pack's objects that none of it points at, if all that its objects point at is in the pack.
    roots: Option<Vec<Oid>>,
    /// The pack as it came; `None` if it stands on objects that it does not hold, or one comes twice.
    pack: Option<(NewPack, Spool)>,
}

/// What has come of a pack.
pub(crate) enum Came {
    /// All of it.
    Whole(Box<Received>),
    /// As much as there was when the body gave up on a slow client. Nothing was made of it.
    Part(Box<Part>),
}

/// Reads one pack to its end, the beginning from `begun` and the rest from `body`, checks it and stages its objects. Of a body
/// that goes on after the pack, `live` is told when the pack is there; of any other, the pack is all.
///
/// # Errors
/// [`govc_engine::ErrorKind::Invalid`] and [`govc_engine::ErrorKind::Corrupt`] for a pack or an object that is not
/// as it must be, [`govc_engine::ErrorKind::TooLarge`] over a limit, [`govc_engine::ErrorKind::StorageFull`], and
/// whatever the body fails with, or has failed with. Nothing is left behind then.
pub(crate) fn receive(
    app: &App,
    repo: &Repo,
    begun: Result<Spool>,
    body: &mut dyn Read,
    live: Option<&Flow>,
    progress: &mut dyn FnMut(&str),
) -> Result<Came> {
    let mut limits = app.store.limits();
    if let Some(bytes) = repo.git_rules().object_bytes_max {
        limits.object_bytes_max = limits.object_bytes_max.min(bytes);
    }
    let intake = Intake { folder: app.packs.folder(), limits, threads: &app.ingest_threads };
    let came = begun.and_then(|begun| intake.go_on(repo, begun, body, live, progress));
    if let Err(error) = &came
        && *error.kind() == ErrorKind::StorageFull
    {
        // The next push finds the room.
        app.packs.make_room();
    }
    came
}

/// How packs are received.
pub(crate) struct Intake<'a> {
    /// Where large packs are kept on their way; without it, in memory.
    pub(crate) folder: Option<Folder>,
    pub(crate) limits: Limits,
    pub(crate) threads: &'a IngestThreads,
}

impl Intake<'_> {
    /// As [`receive`], of a body that does not give up.
    ///
    /// # Errors
    /// As [`receive`].
    pub(crate) fn receive(
        self,
        repo: &Repo,
        body: &mut dyn Read,
        live: Option<&Flow>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Received> {
        let begun = Spool::new(self.folder.clone());
        match self.go_on(repo, begun, body, live, progress)? {
            Came::Whole(received) => Ok(*received),
            Came::Part(_) => Err(Error::new(ErrorKind::Cancelled, "the pack could not be read: it came too slowly")),
        }
    }

    /// As [`receive`].
    fn go_on(
        self,
        repo: &Repo,
        begun: Spool,
        body: &mut dyn Read,
        live: Option<&Flow>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Came> {
        let Self { limits, threads, .. } = self;
        let snapshot = repo.snapshot();
        let format = snapshot.object_format();
        let (ingest, targets) = (repo.ingest(), NotedTargets::new(format));
        let sinks = Sinks::new(&ingest, &targets);
        let mut stream = PackStream::new(format, body, begun, limits);
        let (mut sink, entries, checksum) = match first_pass(&mut stream, &sinks, threads, live) {
            // What is wrong with what came before is another error.
            Err(error) if stream.has_given_up() && *error.kind() == ErrorKind::Cancelled => {
                return Ok(Came::Part(Box::new(stream.into_part())));
            }
            read => read?,
        };
        let (spool, expanded) = stream.into_spool();
        let found = Found { entries, wholes: sinks.wholes(&mut sink), expanded };

        let deltas = found.entries.len() - found.wholes.len();
        let mut said = 0;
        let mut resolving = |resolved: usize| {
            if resolved / SAID_EVERY > said {
                said = resolved / SAID_EVERY;
                progress(&format!("Resolving deltas: {}% ({resolved}/{deltas})\r", resolved * 100 / deltas.max(1)));
            }
        };
        let resolution =
            Resolution { found: &found, spool: &spool, limits: &limits, snapshot: &snapshot, sinks: &sinks, threads };
        let sink = resolution.run(sink, &mut resolving)?;
        if deltas > 0 {
            progress(&format!("Resolving deltas: 100% ({deltas}/{deltas}), done.\n"));
        }
        let Stored { riding, spilled, made } = sinks.finish(sink)?;
        let targets = targets.finish()?;
        let staged = if spilled { Some(ingest.finish()?) } else { None };
        // Clients refuse some packs in which an object comes twice.
        let kept = made.map(|made| kept_entries(format, &found, made)).filter(|kept| are_distinct(kept));
        let mut received = Received {
            snapshot,
            objects: found.entries.len() as u64,
            riding,
            staged,
            closed: false,
            roots: None,
            pack: kept.map(|entries| (NewPack { entries, checksum }, spool)),
        };
        received.closed = received.has_all(&targets)?;
        received.roots = received.roots_of(&targets);
        Ok(Came::Whole(Box::new(received)))
    }
}

/// Reads the pack to its end, and takes the whole objects: one after another while they are few, then beside the reading.
fn first_pass<'i>(
    stream: &mut PackStream<'_>,
    sinks: &Sinks<'i>,
    threads: &IngestThreads,
    live: Option<&Flow>,
) -> Result<(Sink<'i>, Vec<PackEntry>, Oid)> {
    let count = stream.open()?;
    let mut sink = sinks.first(count);
    let mut entries = Vec::with_capacity(count.min(1 << 16) as usize);
    run(sinks, threads, &mut sink, |feed| {
        let mut piece = Wholes::default();
        let read = read_entries(stream, &mut entries, &mut piece, feed);
        // What came before an error may be wrong itself, and was so first.
        if !piece.objects.is_empty() {
            feed.give(piece.objects, piece.bytes)?;
        }
        read
    })?;
    Ok((sink, entries, stream.end(live)?))
}

fn read_entries<'i>(
    stream: &mut PackStream<'_>,
    entries: &mut Vec<PackEntry>,
    piece: &mut Wholes,
    feed: &mut Feed<'_, '_, '_, Sinks<'i>>,
) -> Result<()> {
    let mut data = Vec::new();
    while let Some(entry) = stream.next(&mut data)? {
        let index = u32::try_from(entries.len()).map_err(|_| Error::too_large("pack: too many objects"))?;
        entries.push(entry);
        let EntryKind::Whole(kind) = entry.kind else { continue };
        if !feed.worker().has_spilled() {
            feed.worker().whole(index, kind, &data)?;
            continue;
        }
        piece.bytes += data.capacity() + size_of::<WholeObject>();
        piece.objects.push(WholeObject { entry: index, kind, data: std::mem::take(&mut data) });
        if piece.bytes >= PIECE_BYTES {
            let Wholes { objects, bytes } = std::mem::take(piece);
            feed.give(objects, bytes)?;
        }
    }
    Ok(())
}

/// An object of the pack that is no delta, as it came.
pub(super) struct WholeObject {
    entry: u32,
    kind: Kind,
    data: Vec<u8>,
}

#[derive(Default)]
struct Wholes {
    objects: Vec<WholeObject>,
    bytes: usize,
}

/// The first pass beside the reading.
impl<'i> Job for Sinks<'i> {
    type Piece = Vec<WholeObject>;
    type Worker = Sink<'i>;

    fn worker(&self) -> Sink<'i> {
        self.take()
    }

    fn work(&self, sink: &mut Sink<'i>, objects: Vec<WholeObject>, _: &Turn<'_, '_, Self>) -> Result<()> {
        objects.into_iter().try_for_each(|WholeObject { entry, kind, data }| sink.whole(entry, kind, &data))
    }

    fn end(&self, sink: Sink<'i>) {
        self.put(sink);
    }
}

/// Whether no object comes twice.
fn are_distinct(entries: &[KeptEntry]) -> bool {
    let distinct: HashSet<Oid, BuildHasherDefault<IdHasher>> = entries.iter().map(|entry| entry.oid).collect();
    distinct.len() == entries.len()
}

/// The entries for the cache, with their bases.
fn kept_entries(format: ObjectFormat, Found { entries, wholes, .. }: &Found, made: Made) -> Vec<KeptEntry> {
    let base = |entry: &PackEntry| match entry.kind {
        EntryKind::Whole(_) => KeptBase::Whole,
        EntryKind::RefDelta(_) => KeptBase::Elsewhere,
        EntryKind::OfsDelta(distance) => {
            let at = entry.offset.checked_sub(distance);
            let index = at.and_then(|at| entries.binary_search_by_key(&at, |entry| entry.offset).ok());
            index.map_or(KeptBase::Elsewhere, |index| KeptBase::Entry(index as u32))
        }
    };
    let kept = entries.iter().map(|entry| KeptEntry { oid: format.null(), offset: entry.offset, base: base(entry) });
    let mut kept: Vec<KeptEntry> = kept.collect();
    let wholes = wholes.iter().map(|whole| (whole.entry, whole.oid));
    wholes.chain(made.into_iter().flatten()).for_each(|(entry, oid)| kept[entry as usize].oid = oid);
    kept
}

impl Received {
    /// How many entries the pack had.
    pub(crate) fn objects(&self) -> u64 {
        self.objects
    }

    /// Checks that everything the new tips reach is there, and adds the pack's objects to a transaction.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::NotFound`] naming the tip and the first object that is missing.
    pub(crate) fn commit(&self, transaction: &mut Transaction, edits: &[RefEdit]) -> Result<()> {
        transaction.relies_on(&self.snapshot);
        if !self.closed {
            return self.commit_reached(transaction, edits);
        }
        for (oid, (kind, data)) in &self.riding {
            transaction.put_hashed(*oid, *kind, data.clone());
        }
        match &self.staged {
            Some(staged) => transaction.attach(staged.clone()),
            None => Ok(()),
        }
    }

    /// Adds what the new tips reach, and nothing else: an object with a hole must not be found later.
    fn commit_reached(&self, transaction: &mut Transaction, edits: &[RefEdit]) -> Result<()> {
        let mut connectivity = Connectivity::new(&self.snapshot, self);
        for edit in edits {
            if let Some(target) = edit.target {
                connectivity.check(target).map_err(|error| error.context(&edit.name))?;
            }
        }
        for (oid, (kind, data)) in self.riding.iter().filter(|(oid, _)| connectivity.has_passed(oid)) {
            transaction.put_hashed(*oid, *kind, data.clone());
        }
        match &self.staged {
            Some(staged) => transaction.attach(staged.only(|oid| connectivity.has_passed(oid))),
            None => Ok(()),
        }
    }

    /// Keeps the pack for serving after it has been published, if it holds exactly what `tips` reach.
    pub(crate) fn keep(self, app: &App, repo: &Repo, tips: Vec<Oid>) {
        let is_exact = self.is_exactly(&tips);
        if let Some((pack, mut spool)) = self.pack
            && is_exact
        {
            app.packs.keep(repo, Tips { tips, form: Form::default() }, pack, &mut spool);
        }
    }

    /// Whether the pack holds what `tips` reach, and nothing else: it holds the tips and all that its objects point at,
    /// and what none of it points at are tips. Objects cannot point at each other in a circle, so from every object
    /// the way back along the pointers ends at a tip.
    fn is_exactly(&self, tips: &[Oid]) -> bool {
        let known: HashSet<&Oid> = tips.iter().collect();
        self.roots.as_ref().is_some_and(|roots| roots.iter().all(|root| known.contains(root)))
            && tips.iter().all(|tip| self.header(tip).is_some())
    }

    /// The pack's objects that are not among `targets`; `None` if some of those are not in the pack.
    fn roots_of(&self, targets: &Targets) -> Option<Vec<Oid>> {
        let entries = &self.pack.as_ref()?.0.entries;
        let is_closed = targets.iter().all(|(oid, _)| self.header(oid).is_some());
        is_closed.then(|| entries.iter().map(|entry| entry.oid).filter(|oid| !targets.contains(oid)).collect())
    }

    fn header(&self, oid: &Oid) -> Option<Kind> {
        let staged = || self.staged.as_ref().and_then(|staged| staged.header(oid)).map(|(kind, _)| kind);
        self.riding.get(oid).map(|(kind, _)| *kind).or_else(staged)
    }

    /// Whether every target is in the pack or the repository, and of the kind that points at it.
    ///
    /// What points at another kind than there is, is wrong whatever reaches it.
    fn has_all(&self, targets: &Targets) -> Result<bool> {
        let mut closed = true;
        for (oid, wanted) in targets.iter() {
            let kind = match self.header(oid) {
                Some(kind) => Some(kind),
                None => self.snapshot.kind_to_build_on(oid)?,
            };
            match kind {
                Some(kind) if kind != wanted => {
                    return Err(Error::invalid(format!("object {oid} is a {kind} but pointed at as a {wanted}")));
                }
                Some(_) => {}
                None => closed = false,
            }
        }
        Ok(closed)
    }
}

impl Known for Received {
    fn brought(&self, oid: &Oid) -> Result<Option<(Kind, Links)>> {
        let object = match self.riding.get(oid) {
            Some((kind, data)) => Some((*kind, data.clone())),
            None => match &self.staged {
                Some(staged) => staged.object(oid)?.map(|object| (object.kind, object.data)),
                None => None,
            },
        };
        object.map(|(kind, data)| Ok((kind, links(self.snapshot.object_format(), kind, &data)?))).transpose()
    }
}

#[cfg(test)]
mod tests;
