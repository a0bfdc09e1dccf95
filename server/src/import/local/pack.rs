//! What is wanted of a local repository, as a pack that is made while it is read.
//!
//! A walk finds what the wants reach and the receiver lacks; where the receiver has something, it has all that this reaches.
//! Entries come in the order of the source's packs and are copied as they are, compressed; a delta stays one if its base
//! came before, else the object goes whole. What is damaged shows where the pack is checked.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write as _};
use std::path::Path;

use flate2::{Compression, write::ZlibEncoder};
use gix_odb::Handle;
use gix_odb::pack::Find as _;
use gix_odb::pack::data::{Entry, entry::Header, entry::Location};
use govc_engine::{
    Error, Kind, ObjectFormat, Oid, Result, Snapshot,
    object::{PackHasher, links},
};

use super::hash_kind;
use crate::git::pack::entry::{EntryKind, write_header};
use crate::import::watch::Patience;

/// Objects between two looks at who may have had enough.
const STEP: usize = 4096;

/// The objects of the source.
#[derive(Clone, Copy)]
pub(super) struct Objects<'a> {
    pub(super) path: &'a Path,
    /// What its ids are.
    pub(super) format: ObjectFormat,
    pub(super) handle: &'a Handle,
    /// The largest that is taken, in bytes.
    pub(super) bytes_max: u64,
}

/// An object to send.
struct Item {
    oid: Oid,
    /// Where it lies, if in a pack.
    place: Option<Location>,
}

/// The place of an entry: which pack, and where in it.
type Place = (u32, u64);

/// A pack in the making.
pub(super) struct Packed<'a> {
    objects: Objects<'a>,
    items: std::vec::IntoIter<Item>,
    /// Where entries of the source's packs are in this one.
    written: HashMap<Place, u64>,
    offset: u64,
    /// Made and not read yet: `pending[at..]`.
    pending: Vec<u8>,
    at: usize,
    /// Until the end is made.
    hasher: Option<PackHasher>,
    buffer: Vec<u8>,
}

impl<'a> Packed<'a> {
    /// Finds the objects.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::NotFound`] naming one that is missing, [`govc_engine::ErrorKind::Corrupt`] for one that
    /// cannot be read, [`govc_engine::ErrorKind::TooLarge`] for one over the limit; what `patience` ends with.
    pub(super) fn new(
        objects: Objects<'a>,
        wants: &[Oid],
        snapshot: &Snapshot,
        patience: Patience<'_>,
    ) -> Result<Self> {
        let mut walk = Walk { objects, snapshot, seen: HashSet::new(), items: Vec::new(), buffer: Vec::new() };
        walk.run(wants, patience)?;
        let mut items = walk.items;
        items.sort_by_key(|item| item.place.as_ref().map_or((u32::MAX, u64::MAX), |at| (at.pack_id, at.pack_offset)));
        let count = u32::try_from(items.len()).map_err(|_| Error::too_large("more objects than a pack can hold"))?;
        let mut packed = Self {
            objects,
            items: items.into_iter(),
            written: HashMap::new(),
            offset: 0,
            pending: Vec::new(),
            at: 0,
            hasher: Some(PackHasher::new(objects.format)),
            buffer: Vec::new(),
        };
        packed.pending.extend_from_slice(b"PACK\0\0\0\x02");
        packed.pending.extend_from_slice(&count.to_be_bytes());
        packed.count(0);
        Ok(packed)
    }

    /// Hashes what was made from `from` on.
    fn count(&mut self, from: usize) {
        let made = self.pending.get(from..).unwrap_or_default();
        self.offset += made.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(made);
        }
    }

    /// Makes the next entry, or the end; whether there was anything to make.
    fn make(&mut self) -> Result<bool> {
        self.pending.clear();
        self.at = 0;
        let Some(item) = self.items.next() else {
            let Some(hasher) = self.hasher.take() else { return Ok(false) };
            self.pending.extend_from_slice(hasher.finish()?.as_bytes());
            return Ok(true);
        };
        let begin = self.offset;
        let is_copied = match &item.place {
            Some(place) => self.copy(place)?,
            None => false,
        };
        if !is_copied {
            self.whole(&item.oid)?;
        }
        if let Some(place) = &item.place {
            self.written.insert((place.pack_id, place.pack_offset), begin);
        }
        self.count(0);
        Ok(true)
    }

    /// Copies an entry, if what it stands on came before; whether it did.
    fn copy(&mut self, place: &Location) -> Result<bool> {
        let unreadable =
            || damaged(self.objects.path, &format!("an entry of a pack at {} cannot be read", place.pack_offset));
        let raw = self.objects.handle.entry_by_location(place).ok_or_else(unreadable)?.data;
        let entry =
            Entry::from_bytes(&raw, place.pack_offset, hash_kind(self.objects.format)).map_err(|_| unreadable())?;
        let base = |base: Place| self.written.get(&base).map(|at| EntryKind::OfsDelta(self.offset - at));
        let kind = match entry.header {
            Header::Commit => Some(EntryKind::Whole(Kind::Commit)),
            Header::Tree => Some(EntryKind::Whole(Kind::Tree)),
            Header::Blob => Some(EntryKind::Whole(Kind::Blob)),
            Header::Tag => Some(EntryKind::Whole(Kind::Tag)),
            Header::OfsDelta { base_distance } => {
                let at = place.pack_offset.checked_sub(base_distance).ok_or_else(unreadable)?;
                base((place.pack_id, at))
            }
            Header::RefDelta { base_id } => {
                let found = self.objects.handle.location_by_oid(&base_id, &mut self.buffer);
                let found = found.map_err(|_| unreadable())?;
                found.and_then(|at| base((at.pack_id, at.pack_offset)))
            }
        };
        let Some(kind) = kind else { return Ok(false) };
        let compressed = raw.get(entry.header_size()..).ok_or_else(unreadable)?;
        write_header(&mut self.pending, kind, entry.decompressed_size);
        self.pending.extend_from_slice(compressed);
        Ok(true)
    }

    /// Writes an object whole.
    fn whole(&mut self, oid: &Oid) -> Result<()> {
        let (kind, data) = self.objects.read(oid, None, &mut self.buffer)?;
        write_header(&mut self.pending, EntryKind::Whole(kind), data.len() as u64);
        // It is inflated again at once.
        let mut encoder = ZlibEncoder::new(&mut self.pending, Compression::fast());
        encoder
            .write_all(data)
            .and_then(|()| encoder.finish().map(drop))
            .map_err(|error| Error::corrupt(format!("deflating {oid} failed: {error}")))
    }
}

impl Read for Packed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.pending.len() {
            if !self.make().map_err(io::Error::other)? {
                return Ok(0);
            }
        }
        let rest = self.pending.get(self.at..).unwrap_or_default();
        let len = rest.len().min(into.len());
        if let (Some(into), Some(rest)) = (into.get_mut(..len), rest.get(..len)) {
            into.copy_from_slice(rest);
        }
        self.at += len;
        Ok(len)
    }
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::corrupt(format!("{} is damaged: {why}", path.display()))
}

impl Objects<'_> {
    /// An object that `by` points at, or a reference.
    fn read<'b>(&self, oid: &Oid, by: Option<Oid>, buffer: &'b mut Vec<u8>) -> Result<(Kind, &'b [u8])> {
        let id = gix_hash::ObjectId::from_bytes_or_panic(oid.as_bytes());
        let found = gix_object::Find::try_find(self.handle, &id, buffer);
        let found = match found.map_err(|error| self.unreadable(oid, &error))? {
            Some(found) => found,
            // To git it is always there.
            None if *oid == self.format.empty_tree() => return Ok((Kind::Tree, b"")),
            None => return Err(self.missing(oid, by)),
        };
        let kind = match found.kind {
            gix_object::Kind::Commit => Kind::Commit,
            gix_object::Kind::Tree => Kind::Tree,
            gix_object::Kind::Blob => Kind::Blob,
            gix_object::Kind::Tag => Kind::Tag,
        };
        Ok((kind, found.data))
    }

    /// What it means that an object which is there cannot be read.
    fn unreadable(&self, oid: &Oid, error: &dyn std::fmt::Display) -> Error {
        let id = gix_hash::ObjectId::from_bytes_or_panic(oid.as_bytes());
        let header = gix_odb::Header::try_header(self.handle, &id).ok().flatten();
        match header.map(|header| header.size()).filter(|size| *size > self.bytes_max) {
            Some(size) => Error::too_large(format!(
                "object {oid} in {} has {size} bytes, more than {} (storage.max_object)",
                self.path.display(),
                self.bytes_max
            )),
            None => damaged(self.path, &format!("object {oid} cannot be read: {error}")),
        }
    }

    fn missing(&self, oid: &Oid, by: Option<Oid>) -> Error {
        let by = by.map_or_else(|| "which a reference names".to_owned(), |by| format!("which {by} needs"));
        Error::not_found(format!("object {oid}, {by}, is not in {}", self.path.display()))
    }
}

/// A walk from the wants to what the receiver has.
struct Walk<'a> {
    objects: Objects<'a>,
    snapshot: &'a Snapshot,
    seen: HashSet<Oid>,
    items: Vec<Item>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn run(&mut self, wants: &[Oid], patience: Patience<'_>) -> Result<()> {
        patience.watch().begin("counting objects", None);
        let mut queue: Vec<(Oid, Option<Kind>, Option<Oid>)> = wants.iter().map(|want| (*want, None, None)).collect();
        let mut steps = 0;
        while let Some((oid, kind, by)) = queue.pop() {
            steps += 1;
            if steps % STEP == 0 {
                patience.check()?;
            }
            if !self.seen.insert(oid) || self.snapshot.kind_to_build_on(&oid)?.is_some() {
                continue;
            }
            // What a blob is shows when it is sent.
            if kind != Some(Kind::Blob) {
                let (kind, data) = self.objects.read(&oid, by, &mut self.buffer)?;
                let links =
                    links(self.objects.format, kind, data).map_err(|error| error.context(format!("object {oid}")))?;
                queue.extend(links.targets.into_iter().map(|(target, kind)| (target, kind, Some(oid))));
            }
            let id = gix_hash::ObjectId::from_bytes_or_panic(oid.as_bytes());
            let place = self.objects.handle.location_by_oid(&id, &mut self.buffer);
            let place = place.map_err(|error| self.objects.unreadable(&oid, &error))?;
            if place.is_none() && kind == Some(Kind::Blob) && !gix_object::Exists::exists(self.objects.handle, &id) {
                return Err(self.objects.missing(&oid, by));
            }
            self.items.push(Item { oid, place });
        }
        patience.watch().end();
        Ok(())
    }
}
