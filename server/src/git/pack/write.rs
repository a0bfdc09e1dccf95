//! Making packs: in which order and in which form objects go out.
//!
//! A kept pack all of which is sent goes first, as it is. Compressed entries are copied from other kept packs where these have
//! them and their bases are sent too, stored deltas are deflated where their bases are sent, and the rest goes out whole; but
//! to a client that has something, as a delta on what is at the same path, if that is much shorter.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io::{self, Write},
    sync::Arc,
    time::Instant,
};

use flate2::{Compress, Compression, FlushCompress, Status};
use govc_engine::{
    Error, ErrorKind, Filter, Kind, ObjectFormat, Oid, Place, Reach, ReachOptions, Result, Similar, Snapshot,
    block::make_delta, object::PackHasher,
};
use libdeflater::{CompressionLvl, Compressor};

use super::entry::{EntryKind, HEADER_BYTES_MAX, read_header, write_header};
use crate::git::cache::{Checked, KeptBase, KeptEntry, KeptPack};

/// Deflate's level for what has no compressed form yet, as zlib and libdeflate count. The latter takes two thirds of the time
/// for as many bytes, but only does whole objects.
const LEVEL: u32 = 4;
const WHOLE_LEVEL: i32 = 4;
/// Larger objects are deflated piece by piece, in bytes.
const WHOLE_BYTES_MAX: usize = 1 << 20;
/// Bytes copied at once.
pub(super) const COPY_BYTES: usize = 256 << 10;
/// Bytes deflated at once: room is zeroed before it is filled, so more would cost more than it gives.
const DEFLATE_BYTES: usize = 32 << 10;
/// Objects of other sizes go without a delta that is made for them, in bytes.
const DELTA_OBJECT_BYTES: std::ops::RangeInclusive<u64> = 64..=64 << 20;
/// A base so many times as long as its delta's object has little in common with it.
const DELTA_BASE_FACTOR: u64 = 32;
/// Longest chain of deltas that is made longer.
const DELTA_CHAIN_MAX: u32 = 50;

/// What may be written to a receiver.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    /// What the receiver takes, and took before.
    pub(super) filter: Option<&'a Filter>,
    /// Whether deltas may stand on what the receiver has.
    pub(super) thin: bool,
    /// Whether deltas may name their bases by distance.
    pub(super) ofs_delta: bool,
    /// No delta is made after this.
    pub(super) deadline: Instant,
}

/// Writes a pack of all that `tips` reach, without a server's kept packs and deadlines: stored deltas are deflated where
/// their bases are written too, the rest goes whole. Gives every object's id and where its entry begins. `step` hears how
/// many of how many objects are written, of none while they are found, and may end it.
///
/// # Errors
/// [`ErrorKind::NotFound`] for objects that are missing, [`ErrorKind::Cancelled`] with the cause when `out` fails; whatever
/// `step` and the storage fail with.
pub(crate) fn write_offline(
    snapshot: &Snapshot,
    tips: &[Oid],
    step: &mut dyn FnMut(usize, usize) -> Result<()>,
    out: &mut dyn Write,
) -> Result<Vec<(Oid, u64)>> {
    let reach = {
        let step = RefCell::new(&mut *step);
        let check = || (*step.borrow_mut())(0, 0);
        snapshot.reach(&ReachOptions { wants: tips, check: Some(&check), ..ReachOptions::default() })?
    };
    let sent = reach.objects.iter().map(|(oid, _)| *oid).collect();
    let plan = Plan::new(snapshot, reach, sent, (None, Vec::new()), true)?;
    let total = plan.len();
    let rules = Rules { filter: None, thin: false, ofs_delta: true, deadline: Instant::now() };
    let mut writer = PackWriter::new(snapshot.object_format(), &mut *out, total, false, rules)?;
    for (done, item) in plan.order.iter().enumerate() {
        step(done, total)?;
        writer.item(snapshot, &plan, item)?;
    }
    step(total, total)?;
    let offsets = std::mem::take(&mut writer.offsets);
    let written = writer.finish()?;
    out.write_all(written.checksum.as_bytes()).map_err(gone)?;
    Ok(offsets.into_iter().map(|(oid, sent)| (oid, sent.offset)).collect())
}

fn unreadable(error: io::Error) -> Error {
    Error::corrupt(format!("a kept pack is damaged: {error}"))
}

/// The error when the receiver takes no more.
pub(super) fn gone(error: io::Error) -> Error {
    Error::new(ErrorKind::Cancelled, format!("the client is gone: {error}")).with_source(error)
}

/// How one object is sent.
pub(super) struct Item {
    oid: Oid,
    kind: Kind,
    source: Source,
}

enum Source {
    /// An entry of a kept pack, copied.
    Kept(KeptPlace),
    /// A record, deflated.
    Record(Place),
    /// An object that is in memory or the journal only.
    Object,
}

/// Which entry of which kept pack, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct KeptPlace {
    pack: usize,
    entry: u32,
}

/// What goes into a pack.
pub(super) struct Plan {
    /// All of it goes first, as it is.
    ground: Option<Arc<KeptPack>>,
    /// Entries are copied from them.
    packs: Vec<Arc<KeptPack>>,
    /// What follows the ground.
    order: Vec<Item>,
    /// All objects of `order`.
    sent: HashSet<Oid>,
    similar: HashMap<Oid, Similar>,
    /// The object of each record that is sent.
    by_place: HashMap<Place, Oid>,
}

impl Plan {
    /// What is sent behind `ground`. Entries kept in `packs` come first, in their order, so that bases come before their
    /// deltas; what several have is copied from the first of them. Then records, those of one block together; last what may
    /// become a delta on what is at its path, newer versions before older ones.
    pub(super) fn new(
        snapshot: &Snapshot,
        reach: Reach,
        sent: HashSet<Oid>,
        (ground, mut packs): (Option<Arc<KeptPack>>, Vec<Arc<KeptPack>>),
        ofs_delta: bool,
    ) -> Result<Self> {
        let Reach { objects, similar, .. } = reach;
        if !ofs_delta {
            packs.clear();
        }
        let mut places = HashMap::new();
        for (number, pack) in packs.iter().enumerate() {
            pack.place_copyable(number, &sent, &mut places);
        }
        let mut order = Vec::with_capacity(objects.len());
        let mut others = Vec::new();
        for (oid, kind) in &objects {
            match places.get(oid) {
                Some(place) => order.push(Item { oid: *oid, kind: *kind, source: Source::Kept(*place) }),
                None => others.push((*oid, *kind)),
            }
        }
        let mut by_place = HashMap::with_capacity(others.len());
        let oids: Vec<Oid> = others.iter().map(|(oid, _)| *oid).collect();
        for (chunk, kinds) in oids.chunks(4096).zip(others.chunks(4096)) {
            for ((oid, kind), place) in kinds.iter().zip(snapshot.locate(chunk)?) {
                let source = match place {
                    Some(place) => {
                        by_place.insert(place, *oid);
                        Source::Record(place)
                    }
                    None => Source::Object,
                };
                order.push(Item { oid: *oid, kind: *kind, source });
            }
        }
        // Stable: objects without a record keep their order, and so do those with something similar.
        order.sort_by_key(|item| match item.source {
            Source::Kept(place) => (0, Some(place), None),
            _ if similar.contains_key(&item.oid) => (3, None, None),
            Source::Record(place) => (1, None, Some(place)),
            Source::Object => (2, None, None),
        });
        Ok(Self { ground, packs, order, sent, similar, by_place })
    }

    /// How many objects it has.
    pub(super) fn len(&self) -> usize {
        self.ground.as_ref().map_or(0, |ground| ground.entries.len()) + self.order.len()
    }

    pub(super) fn has_commits(&self) -> bool {
        self.ground.is_some() || self.order.iter().any(|item| item.kind == Kind::Commit)
    }

    /// The kept pack that goes first.
    pub(super) fn ground(&self) -> Option<&Arc<KeptPack>> {
        self.ground.as_ref()
    }

    /// All objects behind the ground, in the order in which they are written.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.order.iter()
    }

    /// The kept pack that an object is copied from.
    pub(super) fn copied_from(&self, item: &Item) -> Option<&Arc<KeptPack>> {
        match item.source {
            Source::Kept(place) => self.packs.get(place.pack),
            _ => None,
        }
    }
}

/// An entry that has been written.
#[derive(Clone, Copy)]
struct Sent {
    /// Where it begins.
    offset: u64,
    /// Which entry of the pack it is.
    index: u32,
    /// How many deltas stand between it and a whole object, or one of the receiver's.
    depth: u32,
}

/// What a delta stands on.
#[derive(Clone, Copy)]
enum DeltaBase {
    Sent(Oid, Sent),
    /// An object that the receiver has.
    Theirs(Oid),
}

/// A pack that is being written.
pub(super) struct PackWriter<'a> {
    out: &'a mut dyn Write,
    format: ObjectFormat,
    hasher: PackHasher,
    offset: u64,
    offsets: HashMap<Oid, Sent>,
    compress: Compress,
    compress_whole: Compressor,
    /// Begins with the pack's header.
    buffer: Vec<u8>,
    /// The kept pack that entries are copied from, and its number.
    copied_from: Option<(usize, Checked)>,
    /// How many entries are copies.
    copied: usize,
    /// What has been written, if that is asked for.
    entries: Option<Vec<KeptEntry>>,
    rules: Rules<'a>,
}

/// A pack that has been written, but for its checksum.
pub(super) struct Written {
    pub(super) checksum: Oid,
    pub(super) entries: Option<Vec<KeptEntry>>,
    /// How many of them were copied from kept packs.
    pub(super) copied: usize,
}

impl<'a> PackWriter<'a> {
    /// For so many objects of the `format`, which are noted if `notes_entries`.
    pub(super) fn new(
        format: ObjectFormat,
        out: &'a mut dyn Write,
        objects: usize,
        notes_entries: bool,
        rules: Rules<'a>,
    ) -> Result<Self> {
        let count = u32::try_from(objects).map_err(|_| Error::too_large("more objects than a pack can hold"))?;
        let mut buffer = Vec::with_capacity(COPY_BYTES);
        buffer.extend_from_slice(b"PACK\0\0\0\x02");
        buffer.extend_from_slice(&count.to_be_bytes());
        Ok(Self {
            out,
            format,
            hasher: PackHasher::new(format),
            offset: 0,
            offsets: HashMap::with_capacity(objects),
            compress: Compress::new(Compression::new(LEVEL), true),
            compress_whole: Compressor::new(CompressionLvl::new(WHOLE_LEVEL).unwrap_or_default()),
            buffer,
            copied_from: None,
            copied: 0,
            entries: notes_entries.then(|| Vec::with_capacity(objects)),
            rules,
        })
    }

    /// Writes an object of the plan.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`] when the receiver takes no more, and whatever the storage fails with.
    pub(super) fn item(&mut self, snapshot: &Snapshot, plan: &Plan, item: &Item) -> Result<()> {
        match &item.source {
            Source::Kept(place) => {
                let pack =
                    plan.packs.get(place.pack).ok_or_else(|| Error::corrupt("a kept pack is not of this plan"))?;
                let is_whole = pack.entries.get(place.entry as usize).is_some_and(|kept| kept.base == KeptBase::Whole);
                if is_whole && plan.similar.contains_key(&item.oid) {
                    // A delta is shorter than the copy, and copied deltas stand on it as well.
                    let data = snapshot.object_of(&item.oid, item.kind)?;
                    if let Some((base, delta)) = self.delta_for(snapshot, plan, item, &data)? {
                        return self.delta(item.oid, base, &delta);
                    }
                }
                return self.copy_entry(pack, *place, item.oid);
            }
            Source::Record(place) => {
                let record = snapshot.record(*place)?;
                match record.base {
                    None if !plan.similar.contains_key(&item.oid) => return self.whole(item, &record.body),
                    None => {}
                    // A base that comes later, or not at all, is of no use.
                    Some(base) => {
                        let base = plan.by_place.get(&base);
                        if let Some((base, sent)) = base.and_then(|base| Some((*base, *self.offsets.get(base)?))) {
                            return self.delta(item.oid, DeltaBase::Sent(base, sent), &record.body);
                        }
                    }
                }
            }
            Source::Object => {}
        }
        let data = snapshot.object_of(&item.oid, item.kind)?;
        match self.delta_for(snapshot, plan, item, &data)? {
            Some((base, delta)) => self.delta(item.oid, base, &delta),
            None => self.whole(item, &data),
        }
    }

    /// A delta that makes `data` and takes half of its bytes at most, if there is something similar to stand on.
    fn delta_for(
        &self,
        snapshot: &Snapshot,
        plan: &Plan,
        item: &Item,
        data: &[u8],
    ) -> Result<Option<(DeltaBase, Vec<u8>)>> {
        let Some(similar) = plan.similar.get(&item.oid) else { return Ok(None) };
        let size = data.len() as u64;
        if !DELTA_OBJECT_BYTES.contains(&size) || Instant::now() >= self.rules.deadline {
            return Ok(None);
        }
        // What was changed next is mostly more alike than what the receiver has, perhaps from long ago.
        for base in [similar.newer, similar.at_edge].into_iter().flatten() {
            let at = match self.offsets.get(&base) {
                Some(sent) if sent.depth < DELTA_CHAIN_MAX => DeltaBase::Sent(base, *sent),
                // What is similar and not sent, the receiver has, unless it leaves such objects out.
                None if self.rules.thin && !plan.sent.contains(&base) && self.takes_all(item.kind) => {
                    DeltaBase::Theirs(base)
                }
                _ => continue,
            };
            let Some((kind, base_size)) = snapshot.header(&base)? else { continue };
            if kind != item.kind || !DELTA_OBJECT_BYTES.contains(&base_size) || base_size / DELTA_BASE_FACTOR > size {
                continue;
            }
            let base_data = match snapshot.object_of(&base, kind) {
                // Nothing here led to what the receiver has, and it has gone since.
                Err(error) if *error.kind() == ErrorKind::NotFound => continue,
                data => data?,
            };
            if let Some(delta) = make_delta(&base_data, data, data.len() / 2) {
                return Ok(Some((at, delta)));
            }
        }
        Ok(None)
    }

    fn takes_all(&self, kind: Kind) -> bool {
        self.rules.filter.is_none_or(|filter| filter.takes_all(kind))
    }

    fn whole(&mut self, item: &Item, data: &[u8]) -> Result<()> {
        self.begin(item.oid, KeptBase::Whole, 0);
        self.entry(item.oid, EntryKind::Whole(item.kind), data)
    }

    fn delta(&mut self, oid: Oid, base: DeltaBase, delta: &[u8]) -> Result<()> {
        let (kind, kept, depth) = match base {
            DeltaBase::Sent(base, Sent { offset, index, depth }) => {
                let distance = self.offset + self.buffer.len() as u64 - offset;
                let kind = if self.rules.ofs_delta { EntryKind::OfsDelta(distance) } else { EntryKind::RefDelta(base) };
                (kind, KeptBase::Entry(index), depth)
            }
            DeltaBase::Theirs(base) => (EntryKind::RefDelta(base), KeptBase::Elsewhere, 0),
        };
        self.begin(oid, kept, depth + 1);
        self.entry(oid, kind, delta)
    }

    /// Notes the entry that is written next.
    fn begin(&mut self, oid: Oid, base: KeptBase, depth: u32) {
        let offset = self.offset + self.buffer.len() as u64;
        let index = self.offsets.len() as u32;
        self.offsets.insert(oid, Sent { offset, index, depth });
        if let Some(entries) = &mut self.entries {
            entries.push(KeptEntry { oid, offset, base });
        }
    }

    /// Writes an entry that is deflated now.
    fn entry(&mut self, oid: Oid, kind: EntryKind, body: &[u8]) -> Result<()> {
        write_header(&mut self.buffer, kind, body.len() as u64);
        if body.len() <= WHOLE_BYTES_MAX {
            let filled = self.buffer.len();
            self.buffer.resize(filled + self.compress_whole.zlib_compress_bound(body.len()), 0);
            let deflated = self.compress_whole.zlib_compress(body, &mut self.buffer[filled..]);
            let len = deflated.map_err(|error| Error::corrupt(format!("deflating {oid} failed: {error}")))?;
            self.buffer.truncate(filled + len);
        } else {
            self.deflate_piece_by_piece(oid, body)?;
        }
        if self.buffer.len() >= COPY_BYTES / 2 { self.flush_buffer() } else { Ok(()) }
    }

    fn deflate_piece_by_piece(&mut self, oid: Oid, body: &[u8]) -> Result<()> {
        self.compress.reset();
        let mut input = body;
        loop {
            // What does not shrink grows by little.
            let room = (input.len() + 64).min(DEFLATE_BYTES);
            let filled = self.buffer.len();
            self.buffer.resize(filled + room, 0);
            let (in_before, out_before) = (self.compress.total_in(), self.compress.total_out());
            let status = self
                .compress
                .compress(input, &mut self.buffer[filled..], FlushCompress::Finish)
                .map_err(|error| Error::corrupt(format!("deflating {oid} failed: {error}")))?;
            self.buffer.truncate(filled + (self.compress.total_out() - out_before) as usize);
            input = &input[(self.compress.total_in() - in_before) as usize..];
            if status == Status::StreamEnd {
                break;
            }
            if self.buffer.len() >= COPY_BYTES {
                self.flush_buffer()?;
            }
        }
        Ok(())
    }

    /// Begins with all of a kept pack, as it is. `step` hears how many objects are written.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the pack has changed, else as [`PackWriter::item`].
    pub(super) fn ground(&mut self, pack: &Arc<KeptPack>, step: &mut dyn FnMut(usize)) -> Result<()> {
        let mut depths: Vec<u32> = Vec::with_capacity(pack.entries.len());
        for (index, entry) in pack.entries.iter().enumerate() {
            let depth = match entry.base {
                KeptBase::Whole => 0,
                KeptBase::Entry(base) => depths.get(base as usize).map_or(DELTA_CHAIN_MAX, |depth| depth + 1),
                // How long its chain is, nobody knows.
                KeptBase::Elsewhere => DELTA_CHAIN_MAX,
            };
            depths.push(depth);
            self.offsets.insert(entry.oid, Sent { offset: entry.offset, index: index as u32, depth });
        }
        if let Some(entries) = &mut self.entries {
            entries.extend_from_slice(&pack.entries);
        }
        self.copied += pack.entries.len();
        let mut checked = pack.checked();
        let mut done = 0;
        // Its header has a count of its own.
        while self.offset + (self.buffer.len() as u64) < pack.len() {
            let piece = checked.at(self.offset + self.buffer.len() as u64).map_err(unreadable)?;
            self.buffer.extend_from_slice(piece);
            self.flush_buffer()?;
            done += pack.entries[done..].partition_point(|entry| entry.offset < self.offset);
            step(done);
        }
        Ok(())
    }

    /// Copies a kept entry; a delta's distance is written anew.
    fn copy_entry(&mut self, pack: &Arc<KeptPack>, place: KeptPlace, oid: Oid) -> Result<()> {
        let same = self.copied_from.take().filter(|(number, _)| *number == place.pack);
        let mut checked = same.map_or_else(|| pack.checked(), |(_, checked)| checked);
        let done = self.copy_from(pack, &mut checked, place.entry, oid);
        self.copied_from = Some((place.pack, checked));
        self.copied += 1;
        done
    }

    fn copy_from(&mut self, pack: &KeptPack, checked: &mut Checked, index: u32, oid: Oid) -> Result<()> {
        let (start, end) = pack.range(index);
        let len = end.saturating_sub(start);
        let mut head = [0; HEADER_BYTES_MAX + 10];
        let head_len = usize::try_from(len).unwrap_or(usize::MAX).min(head.len());
        checked.read_exact_at(start, &mut head[..head_len]).map_err(unreadable)?;
        let (kind, size, header_len) = read_header(self.format, &head[..head_len])?
            .ok_or_else(|| Error::corrupt("a kept pack's entry is cut off"))?;
        let base = match pack.entries.get(index as usize).map(|entry| entry.base) {
            Some(KeptBase::Entry(base)) => pack.entries.get(base as usize),
            _ => None,
        };
        let (kind, base, depth) = match (kind, base) {
            (EntryKind::Whole(kind), _) => (EntryKind::Whole(kind), KeptBase::Whole, 0),
            (_, Some(base)) => {
                let sent = self.offsets.get(&base.oid);
                let sent = *sent.ok_or_else(|| Error::corrupt("a kept pack's base comes too late"))?;
                let distance = self.offset + self.buffer.len() as u64 - sent.offset;
                (EntryKind::OfsDelta(distance), KeptBase::Entry(sent.index), sent.depth + 1)
            }
            (_, None) => return Err(Error::corrupt("a kept pack's delta has no base")),
        };
        self.begin(oid, base, depth);
        write_header(&mut self.buffer, kind, size);
        let mut at = start + header_len as u64;
        while at < end {
            let piece = checked.at(at).map_err(unreadable)?;
            let piece = &piece[..usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len())];
            self.buffer.extend_from_slice(piece);
            at += piece.len() as u64;
            if self.buffer.len() >= COPY_BYTES / 2 {
                self.flush_buffer()?;
            }
        }
        Ok(())
    }

    fn flush_buffer(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.out.write_all(&self.buffer).map_err(gone)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left. The checksum is the caller's to write.
    ///
    /// # Errors
    /// As [`PackWriter::item`].
    pub(super) fn finish(mut self) -> Result<Written> {
        self.flush_buffer()?;
        Ok(Written { checksum: self.hasher.finish()?, entries: self.entries, copied: self.copied })
    }
}

impl KeptPack {
    /// Adds the places of entries that can be copied into a pack that holds `sent`, of objects that have no place yet: whole
    /// objects, and deltas on entries of this pack that are copied.
    fn place_copyable(&self, number: usize, sent: &HashSet<Oid>, places: &mut HashMap<Oid, KeptPlace>) {
        let mut copied = Vec::with_capacity(self.entries.len());
        for (index, entry) in (0..).zip(&self.entries) {
            let stands = match entry.base {
                KeptBase::Whole => true,
                KeptBase::Entry(base) => copied.get(base as usize) == Some(&true),
                KeptBase::Elsewhere => false,
            };
            // An object may stand in a pack twice; one of its entries is copied.
            let is_copied = stands
                && sent.contains(&entry.oid)
                && self.find(&entry.oid) == Some(index)
                && !places.contains_key(&entry.oid);
            if is_copied {
                places.insert(entry.oid, KeptPlace { pack: number, entry: index });
            }
            copied.push(is_copied);
        }
    }
}
