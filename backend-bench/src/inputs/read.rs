//! A real history: the objects of a bare repository's packs and loose files, read in this process, without git.

use std::collections::HashSet;
use std::path::Path;

use gix_object::Find;
use gix_odb::store::iter::Ordering;
use govc_engine::{Kind, Oid};

use super::{History, Object};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;

/// Reads objects in the order of the packs, up to the plan's limit of bytes. They need not be connected: to a store
/// each is bytes under an id.
pub(super) fn history(path: &Path, plan: &Plan) -> Result<History> {
    let refused = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Invalid, format!("cannot read the history in {}: {why}", path.display()))
    };
    // Of a repository with a work tree, too.
    let inner = path.join(".git/objects");
    let folder = if inner.is_dir() { inner } else { path.join("objects") };
    if !folder.is_dir() {
        return Err(refused(&"there is no folder of objects in it"));
    }
    let store = gix_odb::at(folder, gix_hash::Kind::Sha1).map_err(|error| refused(&error))?;
    let ids = store.iter().map_err(|error| refused(&error))?;
    let mut seen = HashSet::new();
    let (mut objects, mut bytes, mut head, mut is_whole) = (Vec::new(), 0_u64, None, true);
    let mut buffer = Vec::new();
    for id in ids.with_ordering(Ordering::PackAscendingOffsetThenLooseLexicographical) {
        plan.stop.check()?;
        if bytes >= plan.amounts.history_bytes_max {
            is_whole = false;
            break;
        }
        let id = id.map_err(|error| refused(&error))?;
        if !seen.insert(id) {
            continue;
        }
        let found = store.try_find(&id, &mut buffer).map_err(|error| refused(&error))?;
        let Some(found) = found else { return Err(refused(&format!("object {id} is listed and not there"))) };
        let kind = match found.kind {
            gix_object::Kind::Commit => Kind::Commit,
            gix_object::Kind::Tree => Kind::Tree,
            gix_object::Kind::Blob => Kind::Blob,
            gix_object::Kind::Tag => Kind::Tag,
        };
        let oid = Oid::from_bytes(id.as_slice()).map_err(|error| refused(&error))?;
        if kind == Kind::Commit && head.is_none() {
            head = Some(oid);
        }
        bytes += found.data.len() as u64;
        objects.push(Object { oid, kind, data: bytes::Bytes::copy_from_slice(found.data) });
    }
    let head = head.ok_or_else(|| refused(&"there is no commit in it"))?;
    let name = path.file_name().map_or_else(|| "history".into(), |name| name.to_string_lossy().into_owned());
    let part = if is_whole { "all" } else { "the first" };
    let name = format!("{name}, {part} {} objects", objects.len());
    Ok(History { name, objects, head, bytes, commits: Vec::new() })
}
