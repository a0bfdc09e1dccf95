//! What a first import from a server has received so far: slices of the history, newest first, each a pack on disk.
//!
//! A slice holds the commits down to a depth, with all that they need; where its history ends are its borders. The next one
//! is asked for from there on, deeper. When nothing is left the slices are read as one pack, of all their entries, and go
//! through the same checks as any: that a slice is here means no more than that its bytes are those that were sent.
//!
//! A folder of its own holds `N.pack` and `state`, which is replaced when a slice is whole and synced. An import that is
//! killed leaves the folder, and the next of the same URL into the same repository goes on.

mod pack;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use govc_engine::{Error, ErrorKind, Kind, ObjectFormat, Oid, RepoName, Result, hash_object};

use self::pack::{Joined, copy_checked};
use super::remote::Ask;
use super::source::{References, Scope};
use crate::git::pack::spool::Folder;

/// As deep as git goes: to the end.
const DEPTH_MAX: u32 = 0x7fff_ffff;
/// A slice below this lets the next one be four times as deep; below the second, twice; above the third, half.
const SMALL_BYTES: u64 = 32 << 20;
const MIDDLE_BYTES: u64 = 128 << 20;
const LARGE_BYTES: u64 = 512 << 20;
/// More slices no honest history needs.
const SLICES_MAX: usize = 10_000;
/// The largest state that is read: a million references.
const STATE_BYTES_MAX: u64 = 2 << 30;

/// Slices on disk.
pub(super) struct Slices {
    folder: PathBuf,
    url: String,
    references: References,
    depth: u32,
    step: u32,
    shallow: BTreeSet<Oid>,
    slices: Vec<Slice>,
    wants: Vec<Oid>,
    /// What is left free on the disk.
    reserve_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    /// Of the whole pack.
    bytes: u64,
    objects: u32,
}

/// Where the slices of one import are, below `root`. The name tells nothing of the URL.
pub(super) fn folder(root: &Path, url: &str, into: &RepoName, scope: Scope) -> PathBuf {
    let key = format!("{url}\n{into}\n{}", if scope == Scope::Mirror { "mirror" } else { "branches and tags" });
    let format = ObjectFormat::Sha1;
    let name = hash_object(format, Kind::Blob, key.as_bytes()).unwrap_or(format.null());
    root.join(name.to_string())
}

/// Removes what an import has left; what cannot be removed is found again.
pub(super) fn remove(folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    // The root, too, if this was the last.
    if let Some(root) = folder.parent() {
        let _ = fs::remove_dir(root);
    }
}

impl Slices {
    /// What an import of `url` has left in a folder, if it can be gone on with.
    pub(super) fn open(folder: &Path, url: &str, reserve_bytes: u64) -> Option<Self> {
        let text = read_state(&folder.join("state"))?;
        let slices = Self::parse(folder, &text).filter(|slices| slices.url == url && slices.is_whole());
        if slices.is_none() {
            remove(folder);
        }
        slices.map(|slices| Self { reserve_bytes, ..slices })
    }

    /// Begins an import of these references.
    pub(super) fn begin(
        folder: &Path,
        url: &str,
        references: References,
        depth: u32,
        reserve_bytes: u64,
    ) -> Result<Self> {
        remove(folder);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| write_error(folder, error))?;
        let mut slices = Self {
            folder: folder.to_owned(),
            url: url.to_owned(),
            references,
            depth: 0,
            step: depth,
            shallow: BTreeSet::new(),
            slices: Vec::new(),
            wants: Vec::new(),
            reserve_bytes,
        };
        slices.find_wants();
        slices.save()?;
        Ok(slices)
    }

    fn find_wants(&mut self) {
        self.wants = self.references.all.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
    }

    /// Whether the folder holds all that the state says.
    fn is_whole(&self) -> bool {
        let has = |(at, slice): (usize, &Slice)| {
            fs::metadata(self.path(at)).is_ok_and(|found| found.is_file() && found.len() == slice.bytes)
        };
        self.slices.iter().enumerate().all(has)
    }

    /// What the ids are.
    pub(super) fn format(&self) -> ObjectFormat {
        self.references.format
    }

    pub(super) fn references(&self) -> &References {
        &self.references
    }

    /// How many slices are here, and their bytes.
    pub(super) fn held(&self) -> (usize, u64) {
        (self.slices.len(), self.slices.iter().map(|slice| slice.bytes).sum())
    }

    /// Whether nothing was to be fetched.
    pub(super) fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// Whether the whole history is here.
    pub(super) fn is_complete(&self) -> bool {
        self.wants.is_empty() || (!self.slices.is_empty() && self.shallow.is_empty())
    }

    /// The request for the next slice.
    pub(super) fn ask(&self, can_deepen: bool) -> Ask<'_> {
        let deeper = self.depth.saturating_add(self.step).min(DEPTH_MAX);
        let is_first = self.slices.is_empty();
        Ask {
            wants: &self.wants,
            haves: if is_first { &[] } else { &self.wants },
            shallow: self.shallow.iter().copied().collect(),
            // What was begun in slices can be ended in slices only.
            depth: (can_deepen || !is_first).then_some(deeper),
            is_thin: false,
        }
    }

    /// Keeps a slice once it has come to its end, sound as a whole.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what is no pack or another than its checksum says, and for a server that sends no more of
    /// a history and does not end it; [`ErrorKind::StorageFull`]; what `pack` fails with. The slices are as they were.
    pub(super) fn take(&mut self, pack: &mut dyn Read, shallow: &[Oid], unshallow: &[Oid]) -> Result<()> {
        let path = self.path(self.slices.len());
        let failed = |error| write_error(&path, error);
        let mut file = tempfile::Builder::new().prefix("coming-").tempfile_in(&self.folder).map_err(failed)?;
        let room = Folder::new(self.folder.clone(), self.reserve_bytes);
        let slice = copy_checked(self.format(), pack, file.as_file_mut(), &path, &room, &self.url)?;
        file.as_file().sync_all().map_err(failed)?;
        let borders_before = self.shallow.clone();
        let mut borders = self.shallow.clone();
        borders.extend(shallow);
        for oid in unshallow {
            borders.remove(oid);
        }
        let depth = self.depth.saturating_add(self.step).min(DEPTH_MAX);
        let is_stuck = !borders.is_empty()
            && (depth >= DEPTH_MAX
                || self.slices.len() >= SLICES_MAX
                || (slice.objects == 0 && borders == borders_before));
        if is_stuck {
            return Err(Error::invalid(format!(
                "{} sends no more of a history whose beginning is missing; is it a shallow clone?",
                self.url
            )));
        }
        file.persist(&path).map_err(|error| failed(error.error))?;
        self.slices.push(slice);
        self.shallow = borders;
        self.depth = depth;
        self.step = match slice.bytes {
            ..SMALL_BYTES => self.step.saturating_mul(4),
            SMALL_BYTES..MIDDLE_BYTES => self.step.saturating_mul(2),
            MIDDLE_BYTES..LARGE_BYTES => self.step,
            LARGE_BYTES.. => (self.step / 2).max(1),
        };
        self.save()
    }

    /// All slices as one pack.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for more objects than a pack can have.
    pub(super) fn pack(&self) -> Result<impl Read + use<>> {
        let objects: u64 = self.slices.iter().map(|slice| u64::from(slice.objects)).sum();
        let objects = u32::try_from(objects).map_err(|_| Error::too_large("more objects than a pack can hold"))?;
        let parts: Vec<_> = self.slices.iter().enumerate().map(|(at, slice)| (self.path(at), slice.bytes)).collect();
        Ok(Joined::new(self.format(), objects, parts))
    }

    /// Forgets them, on disk too.
    pub(super) fn discard(self) {
        remove(&self.folder);
    }

    fn path(&self, at: usize) -> PathBuf {
        self.folder.join(format!("{}.pack", at + 1))
    }

    fn save(&self) -> Result<()> {
        let path = self.folder.join("state");
        let failed = |error| write_error(&path, error);
        let file = tempfile::Builder::new().prefix("state-").tempfile_in(&self.folder).map_err(failed)?;
        let mut out = BufWriter::new(file);
        out.write_all(&self.encode()).map_err(failed)?;
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

fn read_state(path: &Path) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(STATE_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(text)
}

fn write_error(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::StorageFull,
        _ => ErrorKind::Backend,
    };
    let message = format!("cannot keep what was received in {}: {error}", path.display());
    Error::new(kind, message).with_source(error)
}

/// Takes any bytes as a state.
pub(super) fn fuzz(data: &[u8]) {
    if let Some(slices) = Slices::parse(Path::new("x"), data) {
        let again = Slices::parse(Path::new("x"), &slices.encode());
        assert!(again.is_some_and(|again| again.encode() == slices.encode()), "what was read can be written and read");
    }
}
