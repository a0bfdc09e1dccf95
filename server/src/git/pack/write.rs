//! Sending packs: what a fetch wants and does not have.
//!
//! Exactly what a kept pack holds is sent as it is. Otherwise compressed entries are copied from a kept pack where it
//! has them and their bases are sent too, stored deltas are deflated where their bases are sent, and the rest goes
//! out whole. A pack that was made for a whole clone is kept for the next one.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    sync::Arc,
};

use flate2::{Compress, Compression, FlushCompress, Status};
use govc_engine::{
    Error, ErrorKind, Kind, Oid, ReachOptions, Repo, Result, Snapshot, StoredBase, block::Location, object::PackHasher,
};

use super::{
    entry::{EntryKind, HEADER_BYTES_MAX, read_header, write_header},
    spool::Spool,
};
use crate::{
    App,
    git::cache::{KeptBase, KeptEntry, KeptPack, NewPack},
};

/// Deflate's level for what has no compressed form yet.
const LEVEL: u32 = 4;
/// Bytes copied at once.
const COPY_BYTES: usize = 256 << 10;
/// Packs of fewer objects are not worth keeping.
const KEEP_OBJECTS_MIN: usize = 1000;

/// What a client wants of a repository, and what it has.
pub(crate) struct PackRequest<'a> {
    /// The objects wanted, with everything that they reach.
    pub(crate) wants: Vec<Oid>,
    /// What the client has, with everything that it reaches.
    pub(crate) haves: Vec<Oid>,
    /// Commits whose parents the client will not have.
    pub(crate) shallow: Vec<Oid>,
    /// Commits that the client has without their parents.
    pub(crate) client_shallow: Vec<Oid>,
    /// Whether deltas may stand on what the client has.
    pub(crate) thin: bool,
    /// Whether deltas may name their bases by distance.
    pub(crate) ofs_delta: bool,
    /// Whether annotated tags of what is sent are wanted, too.
    pub(crate) include_tag: bool,
    /// Takes lines for people.
    pub(crate) progress: &'a mut dyn FnMut(&str),
}

/// What was sent.
pub(crate) struct PackSent {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// Sends a pack.
///
/// # Errors
/// [`ErrorKind::NotFound`] for objects that are missing, [`ErrorKind::Cancelled`] when the client is gone or the
/// time is over, and whatever the storage fails with; the client notices by the missing end of the pack.
pub(crate) fn send(
    app: &App,
    repo: &Repo,
    snapshot: &Snapshot,
    request: PackRequest<'_>,
    out: &mut dyn Write,
) -> Result<PackSent> {
    let PackRequest { wants, haves, shallow, client_shallow, thin, ofs_delta, include_tag, progress } = request;
    let kept = app.packs.of(repo.id());
    let is_clone = haves.is_empty() && shallow.is_empty() && client_shallow.is_empty();
    let mut tips = wants.clone();
    if include_tag && is_clone {
        tips.extend(tags_of(snapshot, &wants)?);
    }
    tips.sort_unstable();
    tips.dedup();
    if is_clone
        && ofs_delta
        && let Some(pack) = kept.iter().find(|pack| pack.tips == tips)
    {
        return send_verbatim(app, pack, out, progress);
    }
    let options = ReachOptions {
        wants: &tips,
        haves: &haves,
        shallow: &shallow,
        client_shallow: &client_shallow,
        deadline: Some(app.work.deadline()),
    };
    let mut reach = snapshot.reach(&options)?;
    if include_tag && !is_clone {
        add_tags(snapshot, &mut reach.objects)?;
    }
    progress(&format!("Enumerating objects: {}, done.\n", reach.objects.len()));
    let plan = Plan::new(snapshot, &reach.objects, kept.into_iter().next(), ofs_delta)?;
    // Deltas on what a client has are made by compaction's format only; whole objects are always right.
    let _ = thin;
    let keep = (is_clone && ofs_delta && reach.objects.len() >= KEEP_OBJECTS_MIN)
        .then(|| (Spool::new(app.packs.folder()), Vec::with_capacity(reach.objects.len())));
    let mut writer = PackWriter {
        out,
        hasher: PackHasher::default(),
        offset: 0,
        offsets: HashMap::with_capacity(reach.objects.len()),
        compress: Compress::new(Compression::new(LEVEL), true),
        buffer: Vec::with_capacity(COPY_BYTES),
        copy: vec![0; COPY_BYTES],
        keep,
    };
    writer.header(reach.objects.len())?;
    let total = plan.order.len();
    for (done, item) in plan.order.iter().enumerate() {
        if let Err(error) = writer.item(snapshot, &plan, item, ofs_delta) {
            if let (Source::Kept(_), Some(pack), false) =
                (&item.source, &plan.pack, *error.kind() == ErrorKind::Cancelled)
            {
                app.packs.drop_pack(pack);
            }
            return Err(error);
        }
        if done % 8192 == 8191 {
            progress(&format!("Sending objects: {}% ({}/{total})\r", (done + 1) * 100 / total, done + 1));
        }
    }
    let (bytes, keep) = writer.finish()?;
    progress(&format!("Total {total} objects, done.\n"));
    if let Some(pack) = keep {
        app.packs.keep(repo.id(), tips, pack);
    }
    Ok(PackSent { objects: total as u64, bytes })
}

fn gone(error: io::Error) -> Error {
    Error::new(ErrorKind::Cancelled, format!("the client is gone: {error}"))
}

/// The annotated tags that lead to something wanted, for a clone.
fn tags_of(snapshot: &Snapshot, wants: &[Oid]) -> Result<Vec<Oid>> {
    let wanted: HashSet<&Oid> = wants.iter().collect();
    let mut tags = Vec::new();
    for (_, oid) in snapshot.references_with_prefix(b"refs/tags/") {
        if !wanted.contains(oid)
            && snapshot.header(oid)?.is_some_and(|(kind, _)| kind == Kind::Tag)
            && wanted.contains(&snapshot.peel(*oid)?.0)
        {
            tags.push(*oid);
        }
    }
    Ok(tags)
}

/// Adds the annotated tags, with all tags between, that lead to an object that is sent.
fn add_tags(snapshot: &Snapshot, objects: &mut Vec<(Oid, Kind)>) -> Result<()> {
    let mut sent: HashSet<Oid> = objects.iter().map(|(oid, _)| *oid).collect();
    for (_, oid) in snapshot.references_with_prefix(b"refs/tags/") {
        let mut at = *oid;
        let mut chain = Vec::new();
        while snapshot.header(&at)?.is_some_and(|(kind, _)| kind == Kind::Tag) && chain.len() < 64 {
            chain.push(at);
            at = snapshot.tag(&at)?.target;
        }
        if sent.contains(&at) {
            objects.extend(chain.into_iter().filter(|tag| sent.insert(*tag)).map(|tag| (tag, Kind::Tag)));
        }
    }
    Ok(())
}

/// Sends a kept pack as it is; a damaged one is dropped, and the client's own check fails this one fetch.
fn send_verbatim(
    app: &App,
    pack: &Arc<KeptPack>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(&str),
) -> Result<PackSent> {
    let objects = pack.entries.len();
    progress(&format!("Enumerating objects: {objects}, done.\n"));
    let mut hasher = PackHasher::default();
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < pack.len() {
        let len = usize::try_from(pack.len() - offset).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..len];
        pack.read_exact_at(offset, piece).map_err(|error| damaged(app, pack, &error.to_string()))?;
        hasher.update(piece);
        out.write_all(piece).map_err(gone)?;
        offset += len as u64;
    }
    let checksum = hasher.finish()?;
    if checksum != pack.checksum() {
        return Err(damaged(app, pack, "its checksum has changed"));
    }
    out.write_all(checksum.as_bytes()).map_err(gone)?;
    progress(&format!("Total {objects} objects, reused {objects}, done.\n"));
    Ok(PackSent { objects: objects as u64, bytes: pack.len() + Oid::LEN as u64 })
}

fn damaged(app: &App, pack: &Arc<KeptPack>, why: &str) -> Error {
    app.packs.drop_pack(pack);
    Error::corrupt(format!("a kept pack is damaged ({why}); fetch again"))
}

/// How one object is sent.
struct Item {
    oid: Oid,
    kind: Kind,
    source: Source,
}

enum Source {
    /// An entry of the kept pack, copied.
    Kept(u32),
    /// A record, deflated.
    Record(Location),
    /// An object that is in memory or the journal only.
    Object,
}

struct Plan {
    pack: Option<Arc<KeptPack>>,
    order: Vec<Item>,
    /// The object of each record that is sent.
    by_location: HashMap<Location, Oid>,
}

impl Plan {
    /// Kept entries come first, in their pack's order, so that bases come before their deltas; then records, those of
    /// one block together.
    fn new(snapshot: &Snapshot, objects: &[(Oid, Kind)], pack: Option<Arc<KeptPack>>, ofs_delta: bool) -> Result<Self> {
        let sent: HashSet<Oid> = objects.iter().map(|(oid, _)| *oid).collect();
        let pack = pack.filter(|_| ofs_delta);
        let copyable = pack.as_ref().map(|pack| pack.copyable(&sent)).unwrap_or_default();
        let mut order = Vec::with_capacity(objects.len());
        let mut others = Vec::new();
        for (oid, kind) in objects {
            match pack.as_ref().and_then(|pack| pack.find(oid)) {
                Some(index) if copyable.get(index as usize) == Some(&true) => {
                    order.push(Item { oid: *oid, kind: *kind, source: Source::Kept(index) });
                }
                _ => others.push((*oid, *kind)),
            }
        }
        let mut by_location = HashMap::with_capacity(others.len());
        let oids: Vec<Oid> = others.iter().map(|(oid, _)| *oid).collect();
        for (chunk, kinds) in oids.chunks(4096).zip(others.chunks(4096)) {
            for ((oid, kind), location) in kinds.iter().zip(snapshot.locate(chunk)?) {
                let source = match location {
                    Some(location) => {
                        by_location.insert(location, *oid);
                        Source::Record(location)
                    }
                    None => Source::Object,
                };
                order.push(Item { oid: *oid, kind: *kind, source });
            }
        }
        // Stable: objects without a record keep their order at the end.
        order.sort_by_key(|item| match item.source {
            Source::Kept(index) => (0, index, None),
            Source::Record(location) => (1, 0, Some(location)),
            Source::Object => (2, 0, None),
        });
        Ok(Self { pack, order, by_location })
    }
}

struct PackWriter<'a> {
    out: &'a mut dyn Write,
    hasher: PackHasher,
    offset: u64,
    /// Where each object's entry begins.
    offsets: HashMap<Oid, (u64, u32)>,
    compress: Compress,
    buffer: Vec<u8>,
    copy: Vec<u8>,
    keep: Option<(Spool, Vec<KeptEntry>)>,
}

impl PackWriter<'_> {
    fn header(&mut self, objects: usize) -> Result<()> {
        let count = u32::try_from(objects).map_err(|_| Error::too_large("more objects than a pack can hold"))?;
        self.buffer.extend_from_slice(b"PACK\0\0\0\x02");
        self.buffer.extend_from_slice(&count.to_be_bytes());
        self.flush_buffer()
    }

    fn item(&mut self, snapshot: &Snapshot, plan: &Plan, item: &Item, ofs_delta: bool) -> Result<()> {
        match (&item.source, &plan.pack) {
            (Source::Kept(index), Some(pack)) => self.copy_entry(pack, *index, item.oid),
            (Source::Record(location), _) => {
                let record = snapshot.record(*location)?;
                let base = match record.base {
                    StoredBase::Whole => {
                        return self.entry(item.oid, EntryKind::Whole(item.kind), KeptBase::Whole, &record.body);
                    }
                    StoredBase::At(base) => plan.by_location.get(&base).copied(),
                    StoredBase::Id(base) => Some(base),
                };
                let base = base.and_then(|base| Some((base, *self.offsets.get(&base)?)));
                match base {
                    // A base that comes later, or not at all, is of no use.
                    Some((base, (at, index))) => {
                        let distance = self.offset + self.buffer.len() as u64 - at;
                        let kind = if ofs_delta { EntryKind::OfsDelta(distance) } else { EntryKind::RefDelta(base) };
                        self.entry(item.oid, kind, KeptBase::Entry(index), &record.body)
                    }
                    None => {
                        let data = snapshot.object_of(&item.oid, item.kind)?;
                        self.entry(item.oid, EntryKind::Whole(item.kind), KeptBase::Whole, &data)
                    }
                }
            }
            _ => {
                let data = snapshot.object_of(&item.oid, item.kind)?;
                self.entry(item.oid, EntryKind::Whole(item.kind), KeptBase::Whole, &data)
            }
        }
    }

    fn begin(&mut self, oid: Oid, base: KeptBase) {
        let at = self.offset + self.buffer.len() as u64;
        let index = self.offsets.len() as u32;
        self.offsets.insert(oid, (at, index));
        if let Some((_, entries)) = &mut self.keep {
            entries.push(KeptEntry { oid, offset: at, base });
        }
    }

    /// Writes an entry that is deflated now.
    fn entry(&mut self, oid: Oid, kind: EntryKind, base: KeptBase, body: &[u8]) -> Result<()> {
        self.begin(oid, base);
        write_header(&mut self.buffer, kind, body.len() as u64);
        self.compress.reset();
        let mut input = body;
        loop {
            self.buffer.reserve((input.len() / 2).clamp(1024, COPY_BYTES));
            let before = self.compress.total_in();
            let status = self
                .compress
                .compress_vec(input, &mut self.buffer, FlushCompress::Finish)
                .map_err(|error| Error::corrupt(format!("deflating {oid} failed: {error}")))?;
            input = &input[(self.compress.total_in() - before) as usize..];
            if status == Status::StreamEnd {
                break;
            }
            if self.buffer.len() >= COPY_BYTES {
                self.flush_buffer()?;
            }
        }
        if self.buffer.len() >= COPY_BYTES / 2 { self.flush_buffer() } else { Ok(()) }
    }

    /// Copies a kept entry; a delta's distance is written anew.
    fn copy_entry(&mut self, pack: &KeptPack, index: u32, oid: Oid) -> Result<()> {
        let unreadable = |error: io::Error| Error::corrupt(format!("a kept pack is damaged: {error}"));
        let (start, end) = pack.range(index);
        let len = end.saturating_sub(start);
        let mut head = [0; HEADER_BYTES_MAX + 10];
        let head_len = usize::try_from(len).unwrap_or(usize::MAX).min(head.len());
        pack.read_exact_at(start, &mut head[..head_len]).map_err(unreadable)?;
        let (kind, size, header_len) =
            read_header(&head[..head_len])?.ok_or_else(|| Error::corrupt("a kept pack's entry is cut off"))?;
        let base = match pack.entries.get(index as usize).map(|entry| entry.base) {
            Some(KeptBase::Entry(base)) => pack.entries.get(base as usize),
            _ => None,
        };
        let (kind, base) = match (kind, base) {
            (EntryKind::Whole(kind), _) => (EntryKind::Whole(kind), KeptBase::Whole),
            (_, Some(base)) => {
                let sent = self.offsets.get(&base.oid);
                let (at, index) = *sent.ok_or_else(|| Error::corrupt("a kept pack's base comes too late"))?;
                (EntryKind::OfsDelta(self.offset + self.buffer.len() as u64 - at), KeptBase::Entry(index))
            }
            (_, None) => return Err(Error::corrupt("a kept pack's delta has no base")),
        };
        self.begin(oid, base);
        write_header(&mut self.buffer, kind, size);
        let mut at = start + header_len as u64;
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(usize::MAX).min(self.copy.len());
            pack.read_exact_at(at, &mut self.copy[..piece]).map_err(unreadable)?;
            self.buffer.extend_from_slice(&self.copy[..piece]);
            at += piece as u64;
            if self.buffer.len() >= COPY_BYTES / 2 {
                self.flush_buffer()?;
            }
        }
        Ok(())
    }

    fn flush_buffer(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.out.write_all(&self.buffer).map_err(gone)?;
        if let Some((spool, _)) = &mut self.keep
            && spool.write_all(&self.buffer).is_err()
        {
            // Without room for the copy, the fetch goes on.
            self.keep = None;
        }
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, Option<NewPack>)> {
        self.flush_buffer()?;
        let checksum = self.hasher.finish()?;
        self.out.write_all(checksum.as_bytes()).map_err(gone)?;
        let keep = self.keep.map(|(spool, entries)| NewPack { entries, checksum, spool });
        Ok((self.offset + Oid::LEN as u64, keep))
    }
}

impl KeptPack {
    /// Which entries can be copied into a pack that holds `sent`: objects, and deltas on entries that are copied.
    fn copyable(&self, sent: &HashSet<Oid>) -> Vec<bool> {
        let mut copyable = Vec::with_capacity(self.entries.len());
        for (index, entry) in self.entries.iter().enumerate() {
            let stands = match entry.base {
                KeptBase::Whole => true,
                KeptBase::Entry(base) => copyable.get(base as usize) == Some(&true),
                KeptBase::Elsewhere => false,
            };
            // An object may stand in a pack twice; one of its entries is copied.
            copyable.push(stands && sent.contains(&entry.oid) && self.find(&entry.oid) == Some(index as u32));
        }
        copyable
    }
}
