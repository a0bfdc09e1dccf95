//! A real history: the objects of a bare repository's packs and loose files, read in this process, without git. What is a
//! delta in a pack stays one, as in a push.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use flate2::read::ZlibDecoder;
use gix_hash::ObjectId;
use gix_odb::Handle;
use gix_odb::pack::Find as _;
use gix_odb::pack::data::{Entry, entry::Header, entry::Location};
use govc_engine::block::delta_sizes;
use govc_engine::{Kind, Oid};

use super::{History, Incoming};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;

/// Reads objects in the order of the packs, up to the plan's limit of bytes. They need not be connected: to a store
/// each is bytes under an id.
pub(super) fn history(path: &Path, plan: &Plan) -> Result<History> {
    // Of a repository with a work tree, too.
    let inner = path.join(".git/objects");
    let folder = if inner.is_dir() { inner } else { path.join("objects") };
    if !folder.is_dir() {
        return Err(refused(path, &"there is no folder of objects in it"));
    }
    let mut store = gix_odb::at(folder, gix_hash::Kind::Sha1).map_err(|error| refused(path, &error))?;
    store.prevent_pack_unload();
    store.ignore_replacements = true;
    let ids = store.iter().map_err(|error| refused(path, &error))?;
    let mut reader = Reader {
        path,
        store: &store,
        places: HashMap::new(),
        read: HashMap::new(),
        objects: Vec::new(),
        buffer: Vec::new(),
    };
    let (mut bytes, mut head, mut is_whole) = (0_u64, None, true);
    // As they lie in the packs, bases before their deltas; then the loose ones.
    let mut order = Vec::new();
    for id in ids {
        plan.stop.check()?;
        let id = id.map_err(|error| refused(path, &error))?;
        let place = reader.location(&id)?.map(|location| (location.pack_id, location.pack_offset));
        order.push((place.is_none(), place, id));
    }
    order.sort_unstable();
    for (_, _, id) in order {
        plan.stop.check()?;
        if bytes >= plan.amounts.history_bytes_max {
            is_whole = false;
            break;
        }
        if reader.read.contains_key(&id) {
            continue;
        }
        let object = reader.object(&id)?;
        reader.read.insert(id, reader.objects.len());
        if object.kind == Kind::Commit && head.is_none() {
            head = Some(object.oid);
        }
        bytes += object.body.len() as u64;
        reader.objects.push(object);
    }
    let objects = reader.objects;
    let head = head.ok_or_else(|| refused(path, &"there is no commit in it"))?;
    let name = path.file_name().map_or_else(|| "history".into(), |name| name.to_string_lossy().into_owned());
    let part = if is_whole { "all" } else { "the first" };
    let name = format!("{name}, {part} {} objects", objects.len());
    Ok(History { name, objects, head, bytes, commits: Vec::new() })
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, format!("cannot read the history in {}: {why}", path.display()))
}

struct Reader<'a> {
    path: &'a Path,
    store: &'a Handle,
    /// Which object is at which place of a pack.
    places: HashMap<(u32, u64), usize>,
    /// Those that have been read.
    read: HashMap<ObjectId, usize>,
    objects: Vec<Incoming>,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    /// Where an object is, if it is in a pack.
    fn location(&mut self, id: &gix_hash::oid) -> Result<Option<Location>> {
        self.store.location_by_oid(id, &mut self.buffer).map_err(|error| refused(self.path, &error))
    }

    fn object(&mut self, id: &gix_hash::oid) -> Result<Incoming> {
        let oid = Oid::from_bytes(id.as_bytes()).map_err(|error| refused(self.path, &error))?;
        if let Some(location) = self.location(id)? {
            self.places.insert((location.pack_id, location.pack_offset), self.objects.len());
            if let Some(delta) = self.delta(oid, &location)? {
                return Ok(delta);
            }
        }
        let found =
            gix_object::Find::try_find(self.store, id, &mut self.buffer).map_err(|error| refused(self.path, &error))?;
        let Some(found) = found else {
            return Err(refused(self.path, &format_args!("object {id} is listed and not there")));
        };
        let kind = match found.kind {
            gix_object::Kind::Commit => Kind::Commit,
            gix_object::Kind::Tree => Kind::Tree,
            gix_object::Kind::Blob => Kind::Blob,
            gix_object::Kind::Tag => Kind::Tag,
        };
        Ok(Incoming::whole(oid, kind, Bytes::copy_from_slice(found.data)))
    }

    /// The object as the delta that it is in its pack, if it is one against an object that was read before.
    fn delta(&self, oid: Oid, location: &Location) -> Result<Option<Incoming>> {
        let broken = || refused(self.path, &format_args!("the pack's entry of {oid} cannot be read"));
        let raw = self.store.entry_by_location(location).ok_or_else(broken)?.data;
        let entry = Entry::from_bytes(&raw, location.pack_offset, gix_hash::Kind::Sha1).map_err(|_| broken())?;
        let base = match entry.header {
            Header::OfsDelta { base_distance } => {
                let offset = location.pack_offset.checked_sub(base_distance).ok_or_else(broken)?;
                self.places.get(&(location.pack_id, offset))
            }
            Header::RefDelta { base_id } => self.read.get(&base_id),
            Header::Commit | Header::Tree | Header::Blob | Header::Tag => None,
        };
        let Some(&base) = base else { return Ok(None) };
        let mut body = Vec::new();
        let inflated = raw.get(entry.header_size()..).ok_or_else(broken)?;
        // One byte more than there should be, so that too much is noticed.
        let read = ZlibDecoder::new(inflated).take(entry.decompressed_size + 1).read_to_end(&mut body);
        if read.is_err() || body.len() as u64 != entry.decompressed_size {
            return Err(broken());
        }
        let (_, size) = delta_sizes(&body).map_err(|_| broken())?;
        Ok(Some(Incoming { oid, kind: self.objects[base].kind, size, base: Some(base), body: body.into() }))
    }
}
