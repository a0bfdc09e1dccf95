//! A repository in a folder, bare or with a work tree: found, and read without git.
//!
//! | file | owns |
//! |---|---|
//! | `format` | what the ids are |
//! | `references` | `HEAD`, loose and packed references |
//! | `pack` | what is wanted, as a pack: entries copied as they lie in the source's packs, where that goes |
//!
//! The source is only read. It may be written meanwhile, as long as nothing is pruned. Of its configuration nothing is looked
//! at but what its ids are: what else it would say about the format shows in the files.

mod format;
mod pack;
mod references;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gix_odb::Handle;
use gix_odb::store::init::Options;
use govc_engine::{Error, ObjectFormat, Oid, Result, Snapshot};

use super::source::{References, Scope, shallow_source};
use super::watch::Patience;

/// The largest of the small files that say where a repository is.
const POINTER_BYTES_MAX: u64 = 64 << 10;

/// A repository in a folder.
pub(crate) struct Local {
    /// What it was called.
    path: PathBuf,
    /// Where `HEAD` is: of a linked work tree, its own folder.
    git_dir: PathBuf,
    /// Where references are.
    common: PathBuf,
    /// What its ids are.
    format: ObjectFormat,
    objects: Handle,
    /// The largest object that is taken, in bytes.
    object_bytes_max: u64,
}

impl Local {
    /// Finds the repository of a folder: the folder itself, its `.git`, or where its `.git` file leads.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] for what is no repository, a shallow clone, or one whose references are in a
    /// reftable.
    pub(super) fn open(path: &Path, object_bytes_max: u64) -> Result<Self> {
        let git_dir = git_dir(path)?;
        let common = match read_small(&git_dir.join("commondir"))? {
            Some(text) => git_dir.join(pointed(&text)),
            None => git_dir.clone(),
        };
        let refused = |why: &str| Error::invalid(format!("cannot import {}: {why}", path.display()));
        if common.join("reftable").is_dir() {
            return Err(refused(
                "its references are in a reftable, which is not read here; clone it with --ref-format=files, or serve it",
            ));
        }
        if read_small(&common.join("shallow"))?.is_some_and(|text| !text.is_empty()) {
            return Err(shallow_source(&path.display().to_string()));
        }
        if !common.join("objects").is_dir() {
            return Err(refused("there is no folder of objects in it"));
        }
        let options = Options { alloc_limit_bytes: usize::try_from(object_bytes_max).ok(), ..Options::default() };
        let format = format::read(path, &common)?;
        let objects = gix_odb::at_opts(common.join("objects"), hash_kind(format), None, options);
        let mut objects = objects.map_err(|error| refused(&format!("its objects cannot be opened: {error}")))?;
        objects.prevent_pack_unload();
        objects.ignore_replacements = true;
        Ok(Self { path: path.to_owned(), git_dir, common, format, objects, object_bytes_max })
    }

    pub(super) fn references(&self, scope: Scope, limit: usize) -> Result<References> {
        let Self { path, git_dir, common, format, .. } = self;
        references::read(&references::Place { path, git_dir, common, format: *format }, scope, limit)
    }

    pub(super) fn pack<'a>(
        &'a mut self,
        wants: &[Oid],
        snapshot: &'a Snapshot,
        patience: Patience<'_>,
    ) -> Result<impl Read + 'a> {
        let Self { path, format, objects: handle, object_bytes_max, .. } = self;
        let source = pack::Objects { path, format: *format, handle, bytes_max: *object_bytes_max };
        pack::Packed::new(source, wants, snapshot, patience)
    }
}

fn hash_kind(format: ObjectFormat) -> gix_hash::Kind {
    match format {
        ObjectFormat::Sha1 => gix_hash::Kind::Sha1,
        ObjectFormat::Sha256 => gix_hash::Kind::Sha256,
    }
}

fn git_dir(path: &Path) -> Result<PathBuf> {
    let inner = path.join(".git");
    if inner.is_dir() {
        return Ok(inner);
    }
    if let Some(text) = read_small(&inner)? {
        let Some(target) = text.strip_prefix(b"gitdir:") else {
            return Err(Error::invalid(format!("{} does not say where the repository is", inner.display())));
        };
        return Ok(path.join(pointed(target)));
    }
    let is_git_dir = path.join("HEAD").symlink_metadata().is_ok()
        && (path.join("objects").is_dir() || path.join("commondir").is_file());
    match is_git_dir {
        true => Ok(path.to_owned()),
        false => Err(Error::invalid(format!("{} is no Git repository", path.display()))),
    }
}

/// The path that a file's text names.
fn pointed(text: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(text.trim_ascii())).to_owned()
}

/// What is in a small file; `None` if there is none.
///
/// # Errors
/// When it is large, or cannot be read.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_file(path)? else { return Ok(None) };
    let mut text = Vec::new();
    match file.take(POINTER_BYTES_MAX + 1).read_to_end(&mut text) {
        Ok(read) if read as u64 <= POINTER_BYTES_MAX => Ok(Some(text)),
        Ok(_) => Err(Error::invalid(format!("{} is too large for what it should be", path.display()))),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Opens a file; `None` if there is none, or a folder.
///
/// # Errors
/// When it cannot be opened, or is none whose bytes lie on a disk: reading others may never end.
fn open_file(path: &Path) -> Result<Option<File>> {
    use io::ErrorKind;
    let failed = |error| unreadable(path, &error);
    // A pipe would be waited for until somebody writes to it.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let found = file.metadata().map_err(failed)?;
    match found.is_file() {
        true => Ok(Some(file)),
        false if found.is_dir() => Ok(None),
        false => Err(unreadable(path, &io::Error::other("it is no ordinary file"))),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::invalid(format!("cannot read {}: {error}", path.display()))
}
