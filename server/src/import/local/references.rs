//! `HEAD` and references as git's files hold them: loose ones, which win, and packed ones. Symbolic references stand for
//! what they lead to, for here each reference is an object.
//!
//! Source: git's `Documentation/gitrepository-layout.adoc`, `refs/files-backend.c`, `refs/packed-backend.c`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use govc_engine::{Error, ObjectFormat, Oid, Result};

use super::{open_file, read_small, unreadable};
use crate::import::source::{Head, References, Scope};

/// How far a symbolic reference may lead, as in git.
const SYMREF_DEPTH_MAX: usize = 5;
/// The longest line of packed references.
const LINE_LEN_MAX: u64 = 64 << 10;
/// How deep folders of references may go: a name has 1024 bytes.
const FOLDER_DEPTH_MAX: usize = 512;

/// What a reference's file says.
enum Value {
    Object(Oid),
    /// The name of another reference.
    Reference(Vec<u8>),
    /// Nothing that can be read, which matters only if the reference is meant.
    Damaged(Error),
}

/// A repository in a folder.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// What it was called.
    pub(super) path: &'a Path,
    /// Where `HEAD` is.
    pub(super) git_dir: &'a Path,
    /// Where references are.
    pub(super) common: &'a Path,
    /// What its ids are.
    pub(super) format: ObjectFormat,
}

pub(super) fn read(place: &Place<'_>, scope: Scope, limit: usize) -> Result<References> {
    let Place { path, git_dir, common, format } = *place;
    let mut values = BTreeMap::new();
    // Loose ones first: what is packed meanwhile is found then.
    loose(place, &common.join("refs"), b"refs", 0, &mut values)?;
    packed(place, &common.join("packed-refs"), &mut values)?;
    let mut references = References::new(format);
    // Others may lead nowhere, as `refs/remotes/origin/HEAD` often does.
    for (name, value) in values.iter().filter(|(name, _)| scope.means(name)) {
        match resolve(path, name, value, &values)? {
            Some(oid) => references.take(name, oid, scope, limit)?,
            None => references.leave_out(name, "it leads to a reference that does not exist"),
        }
    }
    match value(place, &git_dir.join("HEAD"), b"HEAD") {
        Some(Value::Object(oid)) => references.head = Head::Detached(oid),
        Some(Value::Reference(name)) => references.set_head(&name),
        Some(Value::Damaged(error)) => return Err(error),
        None => {}
    }
    Ok(references)
}

fn damaged(path: &Path, name: &[u8], why: &str) -> Error {
    let name = String::from_utf8_lossy(name).escape_debug().to_string();
    Error::invalid(format!("cannot import {}: the reference {name} {why}", path.display()))
}

/// Reads the references below a folder.
fn loose(
    place: &Place<'_>,
    folder: &Path,
    prefix: &[u8],
    depth: usize,
    values: &mut BTreeMap<Vec<u8>, Value>,
) -> Result<()> {
    let failed = |error| unreadable(folder, &error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Gone since, as an empty folder may.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // What others leave there, such as `.DS_Store`: no part of a reference's name begins so.
        if entry.file_name().as_bytes().starts_with(b".") {
            continue;
        }
        let name = [prefix, b"/", entry.file_name().as_bytes()].concat();
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            if depth >= FOLDER_DEPTH_MAX {
                return Err(damaged(place.path, &name, "is in too deep a folder"));
            }
            loose(place, &entry.path(), &name, depth + 1, values)?;
        } else if !name.ends_with(b".lock")
            && let Some(value) = value(place, &entry.path(), &name)
        {
            values.insert(name, value);
        }
    }
    Ok(())
}

/// What a reference's file says; `None` if it is gone.
fn value(place: &Place<'_>, file: &Path, name: &[u8]) -> Option<Value> {
    // How symbolic references were written once.
    if let Ok(target) = fs::read_link(file)
        && target.as_os_str().as_bytes().starts_with(b"refs/")
    {
        return Some(Value::Reference(target.as_os_str().as_bytes().to_vec()));
    }
    let text = match read_small(file) {
        Ok(text) => text?,
        Err(error) => return Some(Value::Damaged(error)),
    };
    if let Some(target) = text.strip_prefix(b"ref:") {
        return Some(Value::Reference(target.trim_ascii().to_vec()));
    }
    let hex = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    Some(id(place, name, hex).map_or_else(Value::Damaged, Value::Object))
}

fn id(place: &Place<'_>, name: &[u8], hex: &[u8]) -> Result<Oid> {
    place.format.oid_from_hex(hex).map_err(|_| match Oid::from_hex(hex) {
        Ok(oid) => {
            let (has, format) = (oid.format(), place.format);
            damaged(place.path, name, &format!("has a {has} id, and the repository's ids are {format}"))
        }
        Err(_) => damaged(place.path, name, "has no id"),
    })
}

/// Reads the packed references that are not among the loose ones.
fn packed(place: &Place<'_>, file: &Path, values: &mut BTreeMap<Vec<u8>, Value>) -> Result<()> {
    let (path, failed) = (place.path, |error| unreadable(file, &error));
    let Some(input) = open_file(file)? else { return Ok(()) };
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut input).take(LINE_LEN_MAX).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        let Some(text) = line.strip_suffix(b"\n") else {
            return Err(damaged(path, b"packed-refs", "ends within a line"));
        };
        // A header, or what the tag before stands for.
        if text.starts_with(b"#") || text.starts_with(b"^") {
            continue;
        }
        let mut parts = text.splitn(2, |byte| *byte == b' ');
        let (Some(hex), Some(name)) = (parts.next(), parts.next()) else {
            return Err(damaged(path, text, "stands in packed-refs without an id"));
        };
        let oid = id(place, name, hex)?;
        values.entry(name.to_vec()).or_insert(Value::Object(oid));
    }
}

/// The object that a reference leads to; `None` if it leads to one that does not exist.
fn resolve(path: &Path, name: &[u8], value: &Value, values: &BTreeMap<Vec<u8>, Value>) -> Result<Option<Oid>> {
    let mut at = value;
    for _ in 0..=SYMREF_DEPTH_MAX {
        match at {
            Value::Object(oid) => return Ok(Some(*oid)),
            Value::Damaged(error) => return Err(error.clone()),
            Value::Reference(target) => match values.get(target) {
                Some(next) => at = next,
                None => return Ok(None),
            },
        }
    }
    Err(damaged(path, name, "leads to others in a circle, or through too many"))
}
