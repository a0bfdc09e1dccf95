//! Receiving a pack: both passes, the checks of every object, and its way into a transaction.
//!
//! Nothing is visible before the transaction is published, and nothing stays if it is not. The objects of a small
//! push ride in the journal; those of a large one go into blocks as they arrive, with the pack's own deltas.

use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

use bytes::Bytes;
use govc_engine::{
    Connectivity, Error, ErrorKind, Kind, Known, Lane, ObjectFormat, Oid, RefEdit, Repo, Result, Snapshot, Staged,
    Transaction,
    block::{Base, Location},
    hash_object,
    object::{CheckLevel, Links, check_object, links},
};

use super::{
    entry::EntryKind,
    nesting::Nesting,
    resolve::{Found, Resolved, Whole, resolve},
    spool::{Folder, Spool},
    stream::{PackEntry, PackStream},
};
use crate::{
    App,
    git::{
        bridge::Flow,
        cache::{Form, KeptBase, KeptEntry, NewPack, Tips},
    },
};

/// What rides in the journal at most; beyond either, a push goes into blocks.
const RIDE_BYTES_MAX: usize = 1 << 20;
const RIDE_OBJECTS_MAX: usize = 2000;

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
    /// The pack as it came; `None` if it stands on objects that it does not hold.
    pack: Option<(NewPack, Spool)>,
}

/// Reads one pack to its end, checks it and stages its objects. Of a body that goes on after the pack, `live` is told when the
/// pack is there; of any other, the pack is all.
///
/// # Errors
/// [`govc_engine::ErrorKind::Invalid`] and [`govc_engine::ErrorKind::Corrupt`] for a pack or an object that is not
/// as it must be, [`govc_engine::ErrorKind::TooLarge`] over a limit, [`govc_engine::ErrorKind::StorageFull`], and
/// whatever the body fails with. Nothing is left behind then.
pub(crate) fn receive(
    app: &App,
    repo: &Repo,
    body: &mut dyn Read,
    live: Option<&Flow>,
    progress: &mut dyn FnMut(&str),
) -> Result<Received> {
    let mut limits = app.store.limits();
    if let Some(bytes) = repo.git_rules().object_bytes_max {
        limits.object_bytes_max = limits.object_bytes_max.min(bytes);
    }
    let received = receive_pack(app.packs.folder(), limits, repo, body, live, progress);
    if let Err(error) = &received
        && *error.kind() == ErrorKind::StorageFull
    {
        // The next push finds the room.
        app.packs.make_room();
    }
    received
}

pub(crate) fn receive_pack(
    folder: Option<Folder>,
    limits: govc_engine::Limits,
    repo: &Repo,
    body: &mut dyn Read,
    live: Option<&Flow>,
    progress: &mut dyn FnMut(&str),
) -> Result<Received> {
    let snapshot = repo.snapshot();
    let ingest = repo.ingest();
    let mut sink =
        Sink { lane: ingest.lane(), riding: Vec::new(), riding_bytes: 0, spilled: false, moved: HashMap::new() };
    let mut targets = Targets::new(snapshot.object_format());
    let (mut found, spool, checksum) = first_pass(body, live, Spool::new(folder), limits, &mut sink, &mut targets)?;
    let deltas = found.entries.len() - found.wholes.len();
    let mut kept = kept_entries(targets.format, &found.entries);
    for whole in &mut found.wholes {
        whole.location = whole.location.or_else(|| sink.moved.get(&whole.entry).copied());
        kept[whole.entry as usize].oid = whole.oid;
    }
    let mut thin = false;
    let mut resolved = 0usize;
    resolve(&found, &spool, &limits, &snapshot, &mut |object| {
        check(object.oid, object.kind, object.data, &mut targets)?;
        thin |= object.is_thin;
        kept[object.entry as usize].oid = object.oid;
        resolved += 1;
        if resolved.is_multiple_of(4096) {
            progress(&format!("Resolving deltas: {}% ({resolved}/{deltas})\r", resolved * 100 / deltas.max(1)));
        }
        sink.delta(object)
    })?;
    if deltas > 0 {
        progress(&format!("Resolving deltas: 100% ({deltas}/{deltas}), done.\n"));
    }
    std::mem::take(&mut targets.nesting).check()?;
    let (riding, spilled) = sink.finish()?;
    let staged = if spilled { Some(ingest.finish()?) } else { None };
    let mut received = Received {
        snapshot,
        objects: found.entries.len() as u64,
        riding,
        staged,
        closed: false,
        roots: None,
        // Clients refuse some packs in which an object comes twice.
        pack: (!thin && are_distinct(&kept)).then_some((NewPack { entries: kept, checksum }, spool)),
    };
    received.closed = received.has_all(&targets)?;
    received.roots = received.roots_of(&targets);
    Ok(received)
}

/// Reads and checks everything that is no delta.
fn first_pass(
    body: &mut dyn Read,
    live: Option<&Flow>,
    spool: Spool,
    limits: govc_engine::Limits,
    sink: &mut Sink<'_>,
    targets: &mut Targets,
) -> Result<(Found, Spool, Oid)> {
    let mut stream = PackStream::open(targets.format, body, spool, limits)?;
    let mut entries: Vec<PackEntry> = Vec::with_capacity(stream.remaining().min(1 << 16) as usize);
    let mut wholes = Vec::new();
    let mut data = Vec::new();
    while let Some(entry) = stream.next(&mut data)? {
        let index = u32::try_from(entries.len()).map_err(|_| Error::too_large("pack: too many objects"))?;
        if let EntryKind::Whole(kind) = entry.kind {
            let oid = hash_object(targets.format, kind, &data)?;
            check(oid, kind, &data, targets)?;
            let location = sink.whole(index, oid, kind, &data)?;
            wholes.push(Whole { entry: index, oid, kind, location });
        }
        entries.push(entry);
    }
    let (spool, checksum, expanded) = stream.finish(live)?;
    Ok((Found { entries, wholes, expanded }, spool, checksum))
}

/// Checks an object's syntax and notes what it points at.
fn check(oid: Oid, kind: Kind, data: &[u8], targets: &mut Targets) -> Result<()> {
    if let Some(finding) = check_object(targets.format, kind, data)
        && finding.level == CheckLevel::Refuse
    {
        return Err(Error::invalid(format!("object {oid}: {finding}")));
    }
    for (target, wanted) in
        links(targets.format, kind, data).map_err(|error| error.context(format!("object {oid}")))?.targets
    {
        let Some(wanted) = wanted else { continue };
        if kind == Kind::Tree && wanted == Kind::Tree {
            targets.nesting.note(&oid, &target);
        }
        if *targets.kinds.entry(target).or_insert(wanted) != wanted {
            return Err(Error::invalid(format!("object {target} is pointed at as two kinds")));
        }
    }
    Ok(())
}

/// Whether no object comes twice.
fn are_distinct(entries: &[KeptEntry]) -> bool {
    let distinct: HashSet<Oid, std::hash::BuildHasherDefault<OidHasher>> =
        entries.iter().map(|entry| entry.oid).collect();
    distinct.len() == entries.len()
}

/// Ids are uniform, so their own bits are their hash.
#[derive(Default)]
pub(crate) struct OidHasher(u64);

impl std::hash::Hasher for OidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_isize(&mut self, _: isize) {}

    fn write_usize(&mut self, _: usize) {}
}

struct Targets {
    format: ObjectFormat,
    kinds: HashMap<Oid, Kind, std::hash::BuildHasherDefault<OidHasher>>,
    nesting: Nesting,
}

impl Targets {
    fn new(format: ObjectFormat) -> Self {
        Self { format, kinds: HashMap::default(), nesting: Nesting::default() }
    }
}

/// The entries for the cache, with their bases; their ids are filled in as they become known.
fn kept_entries(format: ObjectFormat, entries: &[PackEntry]) -> Vec<KeptEntry> {
    let base = |entry: &PackEntry| match entry.kind {
        EntryKind::Whole(_) => KeptBase::Whole,
        EntryKind::RefDelta(_) => KeptBase::Elsewhere,
        EntryKind::OfsDelta(distance) => {
            let at = entry.offset.checked_sub(distance);
            let index = at.and_then(|at| entries.binary_search_by_key(&at, |entry| entry.offset).ok());
            index.map_or(KeptBase::Elsewhere, |index| KeptBase::Entry(index as u32))
        }
    };
    entries.iter().map(|entry| KeptEntry { oid: format.null(), offset: entry.offset, base: base(entry) }).collect()
}

/// Objects held in memory until their transaction.
type Riding = HashMap<Oid, (Kind, Bytes)>;

/// Where objects go: into memory while they are few and small, then into blocks.
struct Sink<'a> {
    lane: Lane<'a>,
    /// With the entry, for objects that are no deltas.
    riding: Vec<(Option<u32>, Oid, Kind, Bytes)>,
    riding_bytes: usize,
    spilled: bool,
    /// Where the objects went that rode at first.
    moved: HashMap<u32, Location>,
}

impl Sink<'_> {
    fn whole(&mut self, entry: u32, oid: Oid, kind: Kind, data: &[u8]) -> Result<Option<Location>> {
        if self.spilled {
            return self.lane.add(oid, kind, data.len() as u64, Base::Whole, data).map(Some);
        }
        self.ride(Some(entry), oid, kind, data)
    }

    fn ride(&mut self, entry: Option<u32>, oid: Oid, kind: Kind, data: &[u8]) -> Result<Option<Location>> {
        if self.riding_bytes + data.len() <= RIDE_BYTES_MAX && self.riding.len() < RIDE_OBJECTS_MAX {
            self.riding_bytes += data.len();
            self.riding.push((entry, oid, kind, Bytes::copy_from_slice(data)));
            return Ok(None);
        }
        self.spilled = true;
        let location = self.lane.add(oid, kind, data.len() as u64, Base::Whole, data)?;
        self.spill()?;
        Ok(Some(location))
    }

    /// Moves what rides into blocks.
    fn spill(&mut self) -> Result<()> {
        for (entry, oid, kind, data) in self.riding.drain(..) {
            let location = self.lane.add(oid, kind, data.len() as u64, Base::Whole, &data)?;
            self.moved.extend(entry.map(|entry| (entry, location)));
        }
        Ok(())
    }

    fn delta(&mut self, object: Resolved<'_>) -> Result<Option<Location>> {
        let Resolved { oid, kind, data, delta, base, .. } = object;
        if !self.spilled {
            return self.ride(None, oid, kind, data);
        }
        let size = data.len() as u64;
        // On an object outside of the pack a chain begins anew: else each push would make it longer.
        let Some(base) = base else { return self.lane.add(oid, kind, size, Base::Whole, data).map(Some) };
        self.lane.add(oid, kind, size, base, delta).map(Some)
    }

    /// What rides, and whether there is something in blocks.
    fn finish(self) -> Result<(Riding, bool)> {
        let riding = self.riding.into_iter().map(|(_, oid, kind, data)| (oid, (kind, data))).collect();
        self.lane.finish()?;
        Ok((riding, self.spilled))
    }
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
        let is_closed = targets.kinds.keys().all(|oid| self.header(oid).is_some());
        is_closed
            .then(|| entries.iter().map(|entry| entry.oid).filter(|oid| !targets.kinds.contains_key(oid)).collect())
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
        for (oid, wanted) in &targets.kinds {
            let kind = match self.header(oid) {
                Some(kind) => Some(kind),
                None => self.snapshot.kind_to_build_on(oid)?,
            };
            match kind {
                Some(kind) if kind != *wanted => {
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
