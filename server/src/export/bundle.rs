//! A bundle of version 2, or 3 with SHA-256 ids: references and a pack in one file.
//!
//! Source: git's `Documentation/gitformat-bundle.adoc`.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use govc_engine::{Error, Result};

use super::{Content, Step, exists, file_error, parent, sync_folder};
use crate::git::bundle_signature as signature;

/// Writes the bundle; gives the number of objects and the bytes of the pack.
pub(super) fn write(content: &Content<'_>, target: &Path, step: &mut Step<'_>) -> Result<(usize, u64)> {
    if content.references.is_empty() {
        return Err(Error::invalid(format!("{} has no references, and git takes no empty bundle", content.name())));
    }
    let folder = parent(target);
    let failed = |error| file_error(target, error);
    // As the user's mask says. Removed when it is dropped before it has its name.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".govc-export-").permissions(Permissions::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).map_err(|error| file_error(folder, error))?;
    let mut head = signature(content.snapshot.object_format()).to_vec();
    if let Some(oid) = content.head() {
        head.extend_from_slice(format!("{oid} HEAD\n").as_bytes());
    }
    for (name, oid) in &content.references {
        head.extend_from_slice(format!("{oid} ").as_bytes());
        head.extend_from_slice(name.as_bytes());
        head.push(b'\n');
    }
    head.push(b'\n');
    file.write_all(&head).map_err(failed)?;
    let entries = content.write_pack(file.as_file(), target, step)?;
    let bytes = file.as_file().metadata().map_err(failed)?.len().saturating_sub(head.len() as u64);
    file.persist_noclobber(target).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(target),
        _ => file_error(target, error.error),
    })?;
    sync_folder(folder)?;
    Ok((entries.len(), bytes))
}
