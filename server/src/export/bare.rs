//! A bare repository, as `git clone --mirror` leaves one: a single pack with its index, and all references packed.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use govc_engine::{Kind, ObjectFormat, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Content, Step, WRITE_BYTES, exists, file_error, index, parent, sync_folder};

const REFS_HEADER: &str = "# pack-refs with: peeled fully-peeled sorted \n";
/// Of a repository without one; what git writes itself.
const NO_DESCRIPTION: &str = "Unnamed repository; edit this file 'description' to name the repository.";

/// References whose objects are looked up together.
const HEADERS: usize = 4096;

/// Writes the repository; gives the number of objects and the bytes of the pack.
pub(super) fn write(content: &Content<'_>, target: &Path, step: &mut Step<'_>) -> Result<(usize, u64)> {
    let folder = parent(target);
    // Removed, with all that is in it, when it is dropped.
    let room = tempfile::Builder::new().prefix(".govc-export-").tempdir_in(folder);
    let room = room.map_err(|error| file_error(folder, error))?;
    // In it, for its own permissions are for nobody else; these are as the user's mask says.
    let repo = room.path().join("repository");
    for name in ["", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"] {
        let folder = repo.join(name);
        fs::create_dir(&folder).map_err(|error| file_error(target, error))?;
    }
    let counted = write_objects(content, &repo, target, step)?;
    write_references(content, &repo, target)?;
    let description = match &content.description[..] {
        "" => NO_DESCRIPTION,
        description => description,
    };
    let head = [b"ref: ", content.snapshot.head().as_bytes(), b"\n"].concat();
    for (name, text) in [
        ("config", config(content.snapshot.object_format()).as_bytes()),
        ("description", format!("{description}\n").as_bytes()),
        ("HEAD", &head),
    ] {
        let mut file = File::create_new(repo.join(name)).map_err(|error| file_error(target, error))?;
        file.write_all(text).and_then(|()| file.sync_all()).map_err(|error| file_error(target, error))?;
    }
    for name in ["objects/pack", "objects/info", "objects", "refs/heads", "refs/tags", "refs", ""] {
        sync_folder(&repo.join(name))?;
    }
    rename(&repo, target)?;
    sync_folder(folder)?;
    Ok(counted)
}

/// The configuration that says what the ids are.
fn config(format: ObjectFormat) -> String {
    let (version, extensions) = match format {
        ObjectFormat::Sha1 => (0, String::new()),
        ObjectFormat::Sha256 => (1, format!("[extensions]\n\tobjectformat = {format}\n")),
    };
    format!("[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = true\n{extensions}")
}

fn write_objects(content: &Content<'_>, repo: &Path, target: &Path, step: &mut Step<'_>) -> Result<(usize, u64)> {
    if content.references.is_empty() {
        return Ok((0, 0));
    }
    let failed = |error| file_error(target, error);
    let folder = repo.join("objects/pack");
    let (pack_path, index_path) = (folder.join("new.pack"), folder.join("new.idx"));
    let mut pack = OpenOptions::new().read(true).write(true).create_new(true).open(&pack_path).map_err(failed)?;
    let entries = content.write_pack(&pack, target, step)?;
    let objects = entries.len();
    let mut out = BufWriter::with_capacity(WRITE_BYTES, File::create_new(&index_path).map_err(failed)?);
    let (bytes, checksum) =
        index::write(content.snapshot.object_format(), entries, &mut pack, &mut out).map_err(failed)?;
    let index = out.into_inner().map_err(|error| failed(error.into_error()))?;
    index.sync_all().map_err(failed)?;
    for (file, path, ending) in [(&pack, &pack_path, "pack"), (&index, &index_path, "idx")] {
        // As git's own: nobody writes to a pack.
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o444;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed)?;
        fs::rename(path, folder.join(format!("pack-{checksum}.{ending}"))).map_err(failed)?;
    }
    Ok((objects, bytes))
}

fn write_references(content: &Content<'_>, repo: &Path, target: &Path) -> Result<()> {
    let failed = |error| file_error(target, error);
    let file = File::create_new(repo.join("packed-refs")).map_err(failed)?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, file);
    out.write_all(REFS_HEADER.as_bytes()).map_err(failed)?;
    for references in content.references.chunks(HEADERS) {
        let oids: Vec<_> = references.iter().map(|(_, oid)| *oid).collect();
        for ((name, oid), header) in references.iter().zip(content.snapshot.headers(&oids)?) {
            let line = [oid.to_hex().to_string().as_bytes(), b" ", name.as_bytes(), b"\n"].concat();
            out.write_all(&line).map_err(failed)?;
            if header.is_some_and(|(kind, _)| kind == Kind::Tag) {
                let (peeled, _) = content.snapshot.peel(*oid)?;
                writeln!(out, "^{peeled}").map_err(failed)?;
            }
        }
    }
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Gives the repository its name, which nobody has.
fn rename(from: &Path, to: &Path) -> Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(exists(to)),
        // A file system that cannot promise it. Nothing but an empty folder is ever replaced by a folder.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.symlink_metadata().is_err() => {
            fs::rename(from, to).map_err(|error| file_error(to, error))
        }
        Err(error) => Err(file_error(to, error.into())),
    }
}
