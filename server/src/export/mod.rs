//! Repositories written as files that git reads: a bare repository or a bundle.
//!
//! | file | owns |
//! |---|---|
//! | `bare` | a bare repository: one pack, its index, `packed-refs`, `HEAD`, `config` |
//! | `bundle` | a bundle of version 2, or 3 with SHA-256 ids |
//! | `index` | the index of a pack, version 2 |
//! | `select` | which references are meant |
//!
//! Everything is made under another name beside the target, synced, and then gets its name, which nobody else may have
//! taken meanwhile. What fails on the way, or is asked to end, leaves nothing. A process that is ended at once, by a second
//! Ctrl-C or `kill -9`, leaves what it had under that other name, `.govc-export-*`, to be removed by hand.

mod bare;
mod bundle;
mod index;
mod select;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use govc_engine::{Error, ErrorKind, Oid, RefName, Repo, Result, Snapshot};

use crate::git::pack::write::write_offline;

/// Hears how many of how many objects are written, of none while they are found; an error ends it.
pub(crate) type Step<'a> = dyn FnMut(usize, usize) -> Result<()> + 'a;

/// Bytes collected for one write.
const WRITE_BYTES: usize = 1 << 20;

/// As what a repository is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A folder.
    Bare,
    /// A file.
    Bundle,
}

impl Form {
    /// What a target's name asks for.
    pub(crate) fn of(target: &Path) -> Self {
        if target.extension().is_some_and(|ending| ending == "bundle") { Self::Bundle } else { Self::Bare }
    }
}

/// What was written.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) form: Form,
    /// The version of the repository.
    pub(crate) version: u64,
    pub(crate) references: usize,
    pub(crate) objects: usize,
    /// Of the pack.
    pub(crate) bytes: u64,
}

/// What is to be written: references, in the order of their names, of one version.
struct Content<'a> {
    snapshot: &'a Snapshot,
    description: String,
    references: Vec<(RefName, Oid)>,
}

impl Content<'_> {
    fn name(&self) -> String {
        self.snapshot.repo().name().to_string()
    }

    /// What `HEAD` stands for, if its branch is among the references.
    fn head(&self) -> Option<Oid> {
        let head = self.snapshot.head();
        self.references.iter().find(|(name, _)| name == head).map(|(_, oid)| *oid)
    }

    fn tips(&self) -> Vec<Oid> {
        let mut tips: Vec<Oid> = self.references.iter().map(|(_, oid)| *oid).collect();
        tips.sort_unstable();
        tips.dedup();
        tips
    }

    /// Writes the pack to where `file` stands, and syncs it; errors name `path`. Gives every object's id and where its entry
    /// begins in the pack.
    fn write_pack(&self, file: &File, path: &Path, step: &mut Step<'_>) -> Result<Vec<(Oid, u64)>> {
        let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
        let entries = write_offline(self.snapshot, &self.tips(), step, &mut out);
        let entries = entries.map_err(|error| as_file_error(error, path))?;
        out.flush().and_then(|()| file.sync_all()).map_err(|error| file_error(path, error))?;
        Ok(entries)
    }
}

/// Writes what a repository holds now to `target`, a bare repository or, by its ending, a bundle.
///
/// `wanted` names references, all of them if it is empty.
///
/// # Errors
/// [`ErrorKind::Exists`] if there is something at `target`, [`ErrorKind::NotFound`] for a reference or an object that is not
/// there, [`ErrorKind::Invalid`] for a bundle of nothing, which git does not take, [`ErrorKind::StorageFull`]; what `step`
/// and the storage fail with. Nothing is left then.
pub(crate) fn export(repo: &Repo, target: &Path, wanted: &[String], step: &mut Step<'_>) -> Result<Exported> {
    // Early, for who waits; the name is taken without replacing anything in the end.
    if target.symlink_metadata().is_ok() {
        return Err(exists(target));
    }
    let snapshot = repo.snapshot();
    let references = select::references(&snapshot, wanted)?;
    let content = Content { snapshot: &snapshot, description: repo.settings().description, references };
    let form = Form::of(target);
    let (objects, bytes) = match form {
        Form::Bare => bare::write(&content, target, step)?,
        Form::Bundle => bundle::write(&content, target, step)?,
    };
    Ok(Exported { form, version: snapshot.version().number, references: content.references.len(), objects, bytes })
}

fn exists(target: &Path) -> Error {
    Error::new(ErrorKind::Exists, format!("{} exists already", target.display()))
}

/// The folder that a path is in.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| file_error(folder, error))
}

/// What a failure to write a file means.
fn file_error(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        io::ErrorKind::AlreadyExists => return exists(path),
        _ => ErrorKind::Backend,
    };
    Error::new(kind, format!("cannot write {}: {error}", path.display())).with_source(error)
}

/// The pack's writer takes its output for a client; here it is a file.
fn as_file_error(error: Error, path: &Path) -> Error {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match cause {
        Some(cause) if *error.kind() == ErrorKind::Cancelled => {
            file_error(path, io::Error::new(cause.kind(), cause.to_string()))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use govc_backends::MemoryBackend;
    use govc_engine::{Change, CommitRequest, RepoName, RepoSettings, Signature, Store, StoreOptions};

    use super::*;

    #[test]
    fn an_export_ends_when_it_is_told_and_leaves_nothing() {
        let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).expect("a store");
        let name = RepoName::new("a").expect("a name");
        let repo = store.create(&name, RepoSettings::default(), "test").expect("a repository");
        let person = Signature::new("Ada", "ada@example.org", 1_700_000_000, 0).expect("a person");
        let changes = vec![Change::put("dir/file", "text".to_owned())];
        let request = CommitRequest::new(RefName::branch("main").expect("a name"), "one", person, changes);
        repo.commit(request).expect("a commit").published.ticket.wait().expect("published");
        let folder = tempfile::tempdir().expect("a folder");
        let targets = ["a.git", "a.bundle"].map(|name| folder.path().join(name));
        for target in &targets {
            let mut heard = Vec::new();
            export(&repo, target, &[], &mut |done, total| {
                heard.push((done, total));
                Ok(())
            })
            .expect("an export");
            // Two trees are walked, then a commit, two trees and a blob are written.
            assert_eq!(heard, [(0, 0), (0, 0), (0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]);
            std::fs::remove_file(target).or_else(|_| std::fs::remove_dir_all(target)).expect("removable");
        }
        for at in 0..7 {
            for target in &targets {
                let mut left = at;
                let mut step = |_, _| match left {
                    0 => Err(Error::new(ErrorKind::Cancelled, "enough")),
                    _ => {
                        left -= 1;
                        Ok(())
                    }
                };
                let error = export(&repo, target, &[], &mut step).expect_err("it was ended");
                assert_eq!(error.message(), "enough");
                assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "{at}");
            }
        }
    }
}
