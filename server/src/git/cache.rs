//! The pack cache: packs as they came or were sent, to serve again. Never the source of truth.
//!
//! A clone of exactly what a kept pack holds, shallow and partial ones too, is a copy of it; any other fetch copies the
//! compressed entries that it needs from a pack with nothing left out, so that nothing is deflated twice. Small packs are
//! kept in memory, large ones as files in the data folder with an index beside them; what is used least goes when a budget
//! is exceeded, but for what clients were promised ([`promise`]). Every loss and every damage costs speed only: what is
//! read of a pack is checked, a piece before any of it goes out ([`Checked`]), and a pack that fails is dropped.

mod form;
mod index;
mod promise;

use std::{
    collections::HashMap,
    fs::File,
    hash::BuildHasherDefault,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use govc_engine::{IdHasher, Oid, Repo, RepoId};
use parking_lot::Mutex;

pub(crate) use form::Form;
pub use index::fuzz_kept_index;
use index::{read_index, write_index};
use promise::Promise;
pub(crate) use promise::PromisedFor;

use super::pack::shared::{SharedPacks, SpoolLimits};
use super::pack::spool::{Folder, PIECE_BYTES, Spool, read_file};

/// Packs kept of one repository with nothing left out, and as many with something.
const PER_REPO_MAX: usize = 3;
/// Bytes kept free above the reserve: room for the store's writes before the cache has to give way again.
const MARGIN_BYTES: u64 = 64 << 20;
/// Memory of an entry, in the list and in the map by what its id begins with.
const ENTRY_BYTES: usize = 88;

/// Where packs are kept, and how many bytes of them.
#[derive(Debug, Clone)]
pub struct PackCacheOptions {
    /// The folder for large packs and for packs on their way in; without one, everything is in memory.
    pub dir: Option<PathBuf>,
    /// Bytes of packs in memory, and of what is remembered of each pack in the folder; as much again of packs that are being
    /// sent while they are made.
    pub memory_bytes: u64,
    /// Bytes of packs in the folder; as much again of those.
    pub disk_bytes: u64,
    /// Bytes of the folder's file system that packs leave free; as little more is left, kept packs go.
    pub reserve_bytes: u64,
}

/// One entry of a kept pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptEntry {
    pub(crate) oid: Oid,
    /// Where its header begins.
    pub(crate) offset: u64,
    pub(crate) base: KeptBase,
}

/// What a kept entry stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptBase {
    /// It is an object.
    Whole,
    /// It is a delta on an earlier entry.
    Entry(u32),
    /// It is a delta on something else, of no use for another pack.
    Elsewhere,
}

impl KeptBase {
    fn number(self) -> u32 {
        match self {
            KeptBase::Whole => u32::MAX,
            KeptBase::Elsewhere => u32::MAX - 1,
            KeptBase::Entry(index) => index,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            u32::MAX => KeptBase::Whole,
            number if number == u32::MAX - 1 => KeptBase::Elsewhere,
            index => KeptBase::Entry(index),
        }
    }
}

/// A kept pack: header and entries, without the trailing checksum.
pub(crate) struct KeptPack {
    repo: RepoId,
    /// What the pack was complete for: everything that these reach in its form, and nothing else. Sorted.
    pub(crate) tips: Vec<Oid>,
    /// What of it was left out.
    pub(crate) form: Form,
    /// In the order of the pack.
    pub(crate) entries: Vec<KeptEntry>,
    /// By the first bytes of the ids. Of two that begin alike one is not found, and sent anew where it is needed.
    by_bits: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
    len: u64,
    /// What follows the entries.
    checksum: Oid,
    /// As [`Spool::piece_sums`].
    piece_sums: Vec<u32>,
    content: Content,
    used: AtomicU64,
    promise: Promise,
    /// What stands before it in a bundle, once somebody has asked for that.
    bundle_header: OnceLock<Bytes>,
}

/// What a pack holds: everything that the tips reach, but for what its form leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tips {
    pub(crate) tips: Vec<Oid>,
    pub(crate) form: Form,
}

/// A pack to be kept, but for its bytes.
pub(crate) struct NewPack {
    pub(crate) entries: Vec<KeptEntry>,
    pub(crate) checksum: Oid,
}

enum Content {
    Memory(Bytes),
    File(Arc<File>, PathBuf),
}

impl KeptPack {
    fn new(repo: RepoId, of: Tips, pack: NewPack, len: u64, piece_sums: Vec<u32>, content: Content) -> Self {
        let (Tips { mut tips, form }, NewPack { entries, checksum }) = (of, pack);
        tips.sort_unstable();
        tips.dedup();
        let by_bits = entries.iter().enumerate().map(|(index, entry)| (entry.oid.bits(), index as u32)).collect();
        let (used, promise, bundle_header) = (AtomicU64::new(0), Promise::default(), OnceLock::new());
        Self { repo, tips, form, entries, by_bits, len, checksum, piece_sums, content, used, promise, bundle_header }
    }

    /// What it takes of each budget, in memory and in the folder.
    fn bytes(&self) -> [u64; 2] {
        bytes_of(self.entries.len(), self.len, matches!(self.content, Content::Memory(_)))
    }

    fn is_file(&self) -> bool {
        matches!(self.content, Content::File(..))
    }

    /// Bytes of header and entries.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The checksum that ends the pack.
    pub(crate) fn checksum(&self) -> Oid {
        self.checksum
    }

    /// Where what stands before it in a bundle is kept.
    pub(crate) fn bundle_header(&self) -> &OnceLock<Bytes> {
        &self.bundle_header
    }

    /// The entry of an object.
    pub(crate) fn find(&self, oid: &Oid) -> Option<u32> {
        let index = self.by_bits.get(&oid.bits()).copied();
        index.filter(|index| self.entries.get(*index as usize).is_some_and(|entry| entry.oid == *oid))
    }

    /// Where an entry begins and ends.
    pub(crate) fn range(&self, index: u32) -> (u64, u64) {
        let start = self.entries.get(index as usize).map_or(self.len, |entry| entry.offset);
        (start, self.entries.get(index as usize + 1).map_or(self.len, |next| next.offset))
    }

    /// Reads the piece of that number, of [`PIECE_BYTES`] but for the last, into `out`, and checks it; `None` past the end.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was written.
    pub(crate) fn read_piece<'b>(&self, number: usize, out: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        let Some((start, len, sum)) = self.piece(number) else { return Ok(None) };
        let piece = out.get_mut(..len).ok_or(io::ErrorKind::InvalidInput)?;
        self.read_exact_at(start, piece)?;
        check_piece(piece, sum).map(Some)
    }

    /// The same for a task, which does not wait for the disk. What is in a file is read into `buffer`, what is in memory is
    /// not copied.
    ///
    /// # Errors
    /// As [`KeptPack::read_piece`].
    pub(crate) async fn next_piece<'b>(
        &'b self,
        number: usize,
        buffer: &'b mut Vec<u8>,
    ) -> io::Result<Option<&'b [u8]>> {
        let Some((start, len, sum)) = self.piece(number) else { return Ok(None) };
        let piece = match &self.content {
            Content::Memory(bytes) => part_of(bytes, start, len)?,
            Content::File(file, _) => {
                read_file(file, start, len, buffer).await?;
                &buffer[..]
            }
        };
        check_piece(piece, sum).map(Some)
    }

    /// Where a piece begins, its bytes and its checksum.
    fn piece(&self, number: usize) -> Option<(u64, usize, u32)> {
        let sum = *self.piece_sums.get(number)?;
        let start = number as u64 * PIECE_BYTES as u64;
        Some((start, self.len.saturating_sub(start).min(PIECE_BYTES as u64) as usize, sum))
    }

    /// Reads it here and there, checked.
    pub(crate) fn checked(self: &Arc<Self>) -> Checked {
        Checked { pack: Arc::clone(self), piece: Vec::new(), start: 0, len: 0 }
    }

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// When the pack is shorter or cannot be read.
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::File(file, _) => file.read_exact_at(out, offset),
            Content::Memory(bytes) => {
                out.copy_from_slice(part_of(bytes, offset, out.len())?);
                Ok(())
            }
        }
    }
}

fn part_of(bytes: &[u8], offset: u64, len: usize) -> io::Result<&[u8]> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let part = start.checked_add(len).and_then(|end| bytes.get(start..end));
    part.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn check_piece(piece: &[u8], sum: u32) -> io::Result<&[u8]> {
    match crc32c::crc32c(piece) == sum {
        true => Ok(piece),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "its bytes have changed")),
    }
}

/// Reads a kept pack here and there; the piece of it that is read is checked when it is come to, and held until another
/// one is.
pub(crate) struct Checked {
    pack: Arc<KeptPack>,
    piece: Vec<u8>,
    /// Where the piece begins, and how much of `piece` it is.
    start: u64,
    len: usize,
}

impl Checked {
    /// The bytes at `offset`, as far as their piece goes.
    ///
    /// # Errors
    /// As [`KeptPack::read_piece`], and when the pack is no longer than `offset`.
    pub(crate) fn at(&mut self, offset: u64) -> io::Result<&[u8]> {
        if offset < self.start || offset >= self.start + self.len as u64 {
            self.len = 0;
            self.piece.resize(PIECE_BYTES, 0);
            let number = usize::try_from(offset / PIECE_BYTES as u64).unwrap_or(usize::MAX);
            self.len = self.pack.read_piece(number, &mut self.piece)?.map_or(0, <[u8]>::len);
            self.start = offset - offset % PIECE_BYTES as u64;
        }
        let within = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        self.piece[..self.len].get(within..).filter(|rest| !rest.is_empty()).ok_or(io::ErrorKind::UnexpectedEof.into())
    }

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// As [`Checked::at`].
    pub(crate) fn read_exact_at(&mut self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let found = self.at(offset)?;
            let len = found.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&found[..len]);
            offset += len as u64;
            out = later;
        }
        Ok(())
    }
}

/// What a pack takes in memory and in the folder.
fn bytes_of(entries: usize, len: u64, in_memory: bool) -> [u64; 2] {
    let index = (entries * ENTRY_BYTES) as u64;
    if in_memory { [index + len, 0] } else { [index, len] }
}

/// What a cache holds at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PackCacheStats {
    /// Packs that are kept.
    pub(crate) packs: usize,
    /// What they take in memory.
    pub(crate) memory_bytes: u64,
    /// What they take in the folder.
    pub(crate) disk_bytes: u64,
    /// What is in memory or in the folder of packs that are being sent while they are made.
    pub(crate) spooled_bytes: u64,
}

/// Packs by repository.
pub struct PackCache {
    options: PackCacheOptions,
    folder: Option<Folder>,
    packs: Mutex<HashMap<RepoId, Vec<Arc<KeptPack>>>>,
    shared: SharedPacks,
    clock: AtomicU64,
    next_file: AtomicU64,
}

impl PackCache {
    /// Opens the cache; packs of an earlier process that are whole are used again, all else in the folder goes.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(options: PackCacheOptions) -> io::Result<Self> {
        let folder = options.dir.clone().map(|dir| Folder::new(dir, options.reserve_bytes));
        Self::open_in(folder, options)
    }

    fn open_in(folder: Option<Folder>, options: PackCacheOptions) -> io::Result<Self> {
        let (packs, clock, next_file) = (Mutex::default(), AtomicU64::new(1), AtomicU64::new(1));
        // What is only sent leaves more of the disk free than what is stored needs.
        let spooled = folder.clone().map(|folder| {
            let reserve_bytes = folder.reserve_bytes.saturating_add(MARGIN_BYTES);
            Folder { reserve_bytes, ..folder }
        });
        let bytes = if folder.is_some() { options.disk_bytes } else { options.memory_bytes };
        let shared = SharedPacks::new(spooled, SpoolLimits { bytes, memory_bytes: options.memory_bytes });
        let cache = Self { options, folder, packs, shared, clock, next_file };
        if let Some(Folder { path: dir, .. }) = &cache.folder {
            std::fs::create_dir_all(dir)?;
            let mut wanted = std::collections::HashSet::new();
            for file in std::fs::read_dir(dir)? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "pack")
                    && let Some(pack) = read_index(&path)
                {
                    cache.next_file.fetch_max(number_of(&path).saturating_add(1), Ordering::Relaxed);
                    wanted.extend([path.with_extension("index"), path]);
                    cache.insert(pack);
                }
            }
            for file in std::fs::read_dir(dir)? {
                let path = file?.path();
                if path.is_file() && !wanted.contains(&path) {
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(cache)
    }

    /// Bytes in memory and in the folder.
    fn budgets(&self) -> [u64; 2] {
        [self.options.memory_bytes, self.options.disk_bytes]
    }

    /// Packs that are being made.
    pub(crate) fn shared(&self) -> &SharedPacks {
        &self.shared
    }

    /// Where packs on their way in are put.
    pub(crate) fn folder(&self) -> Option<Folder> {
        self.folder.clone()
    }

    /// The packs of a repository.
    pub(crate) fn of(&self, repo: RepoId) -> Vec<Arc<KeptPack>> {
        let packs = self.packs.lock().get(&repo).cloned().unwrap_or_default();
        for pack in &packs {
            pack.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        packs
    }

    /// Keeps a pack that holds exactly that, unless its repository is gone; what fails is only logged. Its bytes are those
    /// of `spool`, which can still be read.
    pub(crate) fn keep(&self, repo: &Repo, tips: Tips, pack: NewPack, spool: &mut Spool) {
        let bytes = bytes_of(pack.entries.len(), spool.len(), spool.in_memory().is_some());
        let too_large = bytes.iter().zip(self.budgets()).any(|(bytes, budget)| *bytes > budget / 2);
        if too_large || pack.entries.is_empty() || repo.is_deleted() {
            return;
        }
        match self.make(repo.id(), tips, pack, spool) {
            Ok(pack) => self.insert(pack),
            Err(error) => tracing::warn!(repo = %repo.name(), %error, "a pack could not be kept for serving again"),
        }
        // Who deletes a repository drops its packs afterwards; one that came later than that goes here.
        if repo.is_deleted() {
            self.retain(|other| other != repo.id());
        }
    }

    fn make(&self, repo: RepoId, tips: Tips, pack: NewPack, spool: &mut Spool) -> io::Result<KeptPack> {
        let (len, sums) = (spool.len(), spool.piece_sums());
        if let Some(bytes) = spool.in_memory() {
            let content = Content::Memory(Bytes::copy_from_slice(bytes));
            return Ok(KeptPack::new(repo, tips, pack, len, sums, content));
        }
        let folder = self.folder.as_ref().ok_or_else(|| io::Error::other("there is no folder for packs"))?;
        let name = format!("{repo}-{}", self.next_file.fetch_add(1, Ordering::Relaxed));
        let path = folder.path.join(name).with_extension("pack");
        let file = spool.persist(&path)?;
        // The index is what makes the pack count, so the pack must be on the disk before it.
        file.sync_data()?;
        let pack = KeptPack::new(repo, tips, pack, len, sums, Content::File(file, path.clone()));
        write_index(&path.with_extension("index"), &pack)?;
        Ok(pack)
    }

    fn insert(&self, pack: KeptPack) {
        pack.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut packs = self.packs.lock();
        let of_repo = packs.entry(pack.repo).or_default();
        let is_whole = pack.form.is_whole();
        // The newest first: it holds most of what clients ask for.
        of_repo.insert(0, Arc::new(pack));
        let mut alike = 0;
        of_repo.retain(|pack| {
            alike += usize::from(pack.form.is_whole() == is_whole);
            let stays = pack.form.is_whole() != is_whole || alike <= PER_REPO_MAX || pack.promise.holds();
            if !stays {
                remove_files(pack);
            }
            stays
        });
        for (budget, limit) in self.budgets().into_iter().enumerate() {
            let taken = |pack: &Arc<KeptPack>| pack.bytes().get(budget).copied().unwrap_or(0);
            while packs.values().flatten().map(taken).sum::<u64>() > limit {
                let here = packs.values().flatten().filter(|pack| taken(pack) > 0 && !pack.promise.holds());
                let Some(oldest) = here.min_by_key(|pack| pack.used.load(Ordering::Relaxed)).cloned() else { break };
                remove(&mut packs, &oldest);
            }
        }
        drop(packs);
        self.make_room();
    }

    /// Drops packs in the folder, those used least first, until the reserve and a margin are free on its disk.
    ///
    /// A pack that is being read takes its room until that ends, and more is dropped for it the next time only.
    pub fn make_room(&self) {
        let Some(folder) = &self.folder else { return };
        if !self.packs.lock().values().flatten().any(|pack| pack.is_file()) {
            return;
        }
        let mut missing = match folder.missing_bytes(MARGIN_BYTES) {
            Ok(missing) => missing,
            Err(error) => {
                tracing::warn!(folder = %folder.path.display(), %error, "the free space cannot be told");
                return;
            }
        };
        let mut packs = self.packs.lock();
        while missing > 0 {
            let files = packs.values().flatten().filter(|pack| pack.is_file());
            // What was promised goes last, but it goes: without room, nothing can be written any more.
            let order = |pack: &&Arc<KeptPack>| (pack.promise.holds(), pack.used.load(Ordering::Relaxed));
            let Some(oldest) = files.min_by_key(order).cloned() else { break };
            tracing::info!(bytes = oldest.len, "a kept pack makes room on the disk");
            missing = missing.saturating_sub(oldest.len);
            remove(&mut packs, &oldest);
        }
    }

    /// What is kept, and what is spooled of packs that are being made.
    pub(crate) fn stats(&self) -> PackCacheStats {
        let packs = self.packs.lock();
        let mut stats = PackCacheStats { spooled_bytes: self.shared.spooled_bytes(), ..PackCacheStats::default() };
        for pack in packs.values().flatten() {
            let [memory, disk] = pack.bytes();
            stats.packs += 1;
            stats.memory_bytes += memory;
            stats.disk_bytes += disk;
        }
        stats
    }

    /// Drops a pack that turned out to be damaged or to hold what nobody may have any more.
    pub(crate) fn drop_pack(&self, pack: &Arc<KeptPack>) {
        remove(&mut self.packs.lock(), pack);
    }

    /// Drops the packs of repositories that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(RepoId) -> bool) {
        let mut packs = self.packs.lock();
        let gone: Vec<_> =
            packs.iter().filter(|(repo, _)| !exists(**repo)).flat_map(|(_, packs)| packs.clone()).collect();
        for pack in gone {
            remove(&mut packs, &pack);
        }
    }
}

/// Where the number stands in the name of a pack's file, that number; else 0.
fn number_of(path: &Path) -> u64 {
    let number = path.file_stem().and_then(|stem| stem.to_str()?.rsplit('-').next()?.parse().ok());
    number.unwrap_or(0)
}

/// Unless somebody else was first.
fn remove(packs: &mut HashMap<RepoId, Vec<Arc<KeptPack>>>, pack: &Arc<KeptPack>) {
    let Some(of_repo) = packs.get_mut(&pack.repo) else { return };
    let Some(place) = of_repo.iter().position(|other| Arc::ptr_eq(other, pack)) else { return };
    of_repo.remove(place);
    if of_repo.is_empty() {
        packs.remove(&pack.repo);
    }
    remove_files(pack);
}

/// Readers that have the file open go on reading it.
fn remove_files(pack: &KeptPack) {
    if let Content::File(_, path) = &pack.content {
        for path in [path, &path.with_extension("index")] {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a kept pack could not be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use govc_backends::MemoryBackend;
    use govc_engine::{Kind, ObjectFormat, RepoName, RepoSettings, Store, StoreOptions, hash_object};

    use super::*;

    pub(super) fn store() -> Store {
        Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).expect("an empty store opens")
    }

    pub(super) fn create(store: &Store, name: &str) -> Repo {
        store.create(&RepoName::new(name).expect("a name"), RepoSettings::default(), "test").expect("a new repository")
    }

    fn keep(cache: &PackCache, repo: &Repo, len: usize) {
        keep_as(cache, repo, ObjectFormat::Sha1.null(), len);
    }

    /// Keeps a pack of `len` bytes with one entry.
    pub(super) fn keep_as(cache: &PackCache, repo: &Repo, checksum: Oid, len: usize) {
        let mut spool = Spool::new(cache.folder());
        spool.write_all(&vec![7; len]).expect("room");
        let oid = hash_object(ObjectFormat::Sha1, Kind::Blob, b"content").expect("an ordinary object");
        let entries = vec![KeptEntry { oid, offset: 12, base: KeptBase::Whole }];
        cache.keep(repo, Tips::default(), NewPack { entries, checksum }, &mut spool);
    }

    #[test]
    fn packs_in_the_folder_give_way_to_the_reserve() {
        const RESERVE: u64 = 1 << 30;
        let dir = tempfile::tempdir().expect("a folder");
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let told = Arc::clone(&free);
        let folder = Folder {
            path: dir.path().to_owned(),
            reserve_bytes: RESERVE,
            free_bytes: Arc::new(move |_: &Path| Ok(told.load(Ordering::Relaxed))),
        };
        let options = PackCacheOptions {
            dir: Some(dir.path().to_owned()),
            memory_bytes: 64 << 20,
            disk_bytes: RESERVE,
            reserve_bytes: RESERVE,
        };
        let cache = PackCache::open_in(Some(folder), options).expect("an empty folder");
        let store = store();
        let [a, b, c] = ["a", "b", "c"].map(|name| create(&store, name));
        let in_memory = create(&store, "in-memory");
        keep(&cache, &in_memory, 1000);
        for repo in [&a, &b, &c] {
            keep(&cache, repo, 9 << 20);
        }
        let files = || std::fs::read_dir(dir.path()).expect("a folder").count();
        let kept = |repo: &Repo| cache.of(repo.id()).len();
        assert_eq!(kept(&a), 1, "and now it is the one used last");
        assert_eq!(files(), 6, "three packs with an index each");

        free.store(RESERVE + MARGIN_BYTES, Ordering::Relaxed);
        cache.make_room();
        assert_eq!(files(), 6, "there is room enough");
        free.store(RESERVE + MARGIN_BYTES - (10 << 20), Ordering::Relaxed);
        cache.make_room();
        assert_eq!([&a, &b, &c].map(kept), [1, 0, 0]);
        assert_eq!(files(), 2);

        free.store(RESERVE + MARGIN_BYTES - 1, Ordering::Relaxed);
        keep(&cache, &b, 9 << 20);
        assert_eq!([&a, &b].map(kept), [0, 1], "the new pack takes the place of the one used least");
        free.store(RESERVE, Ordering::Relaxed);
        keep(&cache, &c, 1000);
        keep(&cache, &a, 1000);
        assert_eq!(files(), 0, "whatever is kept, the folder gives way");
        assert_eq!([&a, &b, &c, &in_memory].map(kept), [1, 0, 1, 1], "packs in memory take no room on the disk");
    }

    #[test]
    fn nothing_is_kept_of_a_repository_that_is_gone() {
        let options = PackCacheOptions { dir: None, memory_bytes: 1 << 20, disk_bytes: 0, reserve_bytes: 0 };
        let cache = PackCache::open(options).expect("no folder is needed");
        let store = store();
        let repo = create(&store, "gone");
        keep(&cache, &repo, 1000);
        assert_eq!(cache.of(repo.id()).len(), 1);
        store.delete(&repo.name()).expect("a repository");
        cache.retain(|other| other != repo.id());
        keep(&cache, &repo, 1000);
        assert!(cache.of(repo.id()).is_empty());
    }
}
