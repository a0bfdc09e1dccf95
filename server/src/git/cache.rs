//! The pack cache: packs as they came or were sent, to serve again. Never the source of truth.
//!
//! A clone of exactly what a kept pack holds is a copy of it; any other fetch copies the compressed entries that it
//! needs, so that nothing is deflated twice. Small packs are kept in memory, large ones as files in the data folder
//! with an index beside them; what is used least goes when a budget is exceeded. Every loss and every damage costs
//! speed only: the sender checks what it copies against the pack's checksum and drops a pack that fails.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use govc_engine::{Oid, RepoId};
use parking_lot::Mutex;

use super::pack::spool::Spool;

/// Packs kept of one repository.
const PER_REPO_MAX: usize = 3;
const INDEX_MAGIC: &[u8] = b"govc pack index 1\n";

/// Where packs are kept, and how many bytes of them.
#[derive(Debug, Clone)]
pub struct PackCacheOptions {
    /// The folder for large packs and for packs on their way in; without one, everything is in memory.
    pub dir: Option<PathBuf>,
    /// Bytes of packs in memory.
    pub memory_bytes: u64,
    /// Bytes of packs in the folder.
    pub disk_bytes: u64,
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
    /// What the pack was complete for: everything that these reach, and nothing else. Sorted.
    pub(crate) tips: Vec<Oid>,
    /// In the order of the pack.
    pub(crate) entries: Vec<KeptEntry>,
    by_oid: HashMap<Oid, u32>,
    len: u64,
    /// What follows the entries.
    checksum: Oid,
    content: Content,
    used: AtomicU64,
}

/// A pack to be kept.
pub(crate) struct NewPack {
    pub(crate) entries: Vec<KeptEntry>,
    pub(crate) checksum: Oid,
    pub(crate) spool: Spool,
}

enum Content {
    Memory(Bytes),
    File(File, PathBuf),
}

impl KeptPack {
    fn new(
        repo: RepoId,
        mut tips: Vec<Oid>,
        entries: Vec<KeptEntry>,
        checksum: Oid,
        len: u64,
        content: Content,
    ) -> Self {
        tips.sort_unstable();
        tips.dedup();
        let by_oid = entries.iter().enumerate().map(|(index, entry)| (entry.oid, index as u32)).collect();
        Self { repo, tips, entries, by_oid, len, checksum, content, used: AtomicU64::new(0) }
    }

    /// Bytes of header and entries.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The checksum that ends the pack.
    pub(crate) fn checksum(&self) -> Oid {
        self.checksum
    }

    /// The entry of an object.
    pub(crate) fn find(&self, oid: &Oid) -> Option<u32> {
        self.by_oid.get(oid).copied()
    }

    /// Where an entry begins and ends.
    pub(crate) fn range(&self, index: u32) -> (u64, u64) {
        let start = self.entries.get(index as usize).map_or(self.len, |entry| entry.offset);
        (start, self.entries.get(index as usize + 1).map_or(self.len, |next| next.offset))
    }

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// When the pack is shorter or cannot be read.
    pub(crate) fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::File(file, _) => file.read_exact_at(out, offset),
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = start.checked_add(out.len()).and_then(|end| bytes.get(start..end));
                out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// Packs by repository.
pub struct PackCache {
    options: PackCacheOptions,
    packs: Mutex<HashMap<RepoId, Vec<Arc<KeptPack>>>>,
    clock: AtomicU64,
    next_file: AtomicU64,
}

impl PackCache {
    /// Opens the cache; packs of an earlier process that are whole are used again, all else in the folder goes.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(options: PackCacheOptions) -> io::Result<Self> {
        let cache = Self { options, packs: Mutex::default(), clock: AtomicU64::new(1), next_file: AtomicU64::new(1) };
        if let Some(dir) = &cache.options.dir {
            std::fs::create_dir_all(dir)?;
            let mut wanted = std::collections::HashSet::new();
            for file in std::fs::read_dir(dir)? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "pack")
                    && let Some(pack) = read_index(&path)
                {
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

    /// Where packs on their way in are put.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        self.options.dir.clone()
    }

    /// The packs of a repository.
    pub(crate) fn of(&self, repo: RepoId) -> Vec<Arc<KeptPack>> {
        let packs = self.packs.lock().get(&repo).cloned().unwrap_or_default();
        for pack in &packs {
            pack.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
        packs
    }

    /// Keeps a pack that holds exactly what `tips` reach; what fails is only logged.
    pub(crate) fn keep(&self, repo: RepoId, tips: Vec<Oid>, pack: NewPack) {
        let len = pack.spool.len();
        let limit = match pack.spool.in_memory() {
            Some(_) => self.options.memory_bytes,
            None => self.options.disk_bytes,
        };
        if len > limit / 2 || pack.entries.is_empty() {
            return;
        }
        match self.make(repo, tips, pack) {
            Ok(pack) => self.insert(pack),
            Err(error) => tracing::warn!(%repo, %error, "a pack could not be kept for serving again"),
        }
    }

    fn make(&self, repo: RepoId, tips: Vec<Oid>, pack: NewPack) -> io::Result<KeptPack> {
        let NewPack { entries, checksum, spool } = pack;
        let len = spool.len();
        if let Some(bytes) = spool.in_memory() {
            let content = Content::Memory(Bytes::copy_from_slice(bytes));
            return Ok(KeptPack::new(repo, tips, entries, checksum, len, content));
        }
        let dir = self.options.dir.as_ref().ok_or_else(|| io::Error::other("there is no folder for packs"))?;
        let name = format!("{repo}-{}-{}", std::process::id(), self.next_file.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name).with_extension("pack");
        let file = spool.persist(&path)?;
        // The index is what makes the pack count, so the pack must be on the disk before it.
        file.sync_data()?;
        let pack = KeptPack::new(repo, tips, entries, checksum, len, Content::File(file, path.clone()));
        write_index(&path.with_extension("index"), &pack)?;
        Ok(pack)
    }

    fn insert(&self, pack: KeptPack) {
        pack.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let mut packs = self.packs.lock();
        let of_repo = packs.entry(pack.repo).or_default();
        // The newest first: it holds most of what clients ask for.
        of_repo.insert(0, Arc::new(pack));
        for old in of_repo.drain(PER_REPO_MAX.min(of_repo.len())..) {
            remove_files(&old);
        }
        for (in_memory, limit) in [(true, self.options.memory_bytes), (false, self.options.disk_bytes)] {
            let is_here = |pack: &Arc<KeptPack>| matches!(pack.content, Content::Memory(_)) == in_memory;
            loop {
                let of_kind = || packs.values().flatten().filter(|pack| is_here(pack));
                if of_kind().map(|pack| pack.len).sum::<u64>() <= limit {
                    break;
                }
                let Some(oldest) = of_kind().min_by_key(|pack| pack.used.load(Ordering::Relaxed)).cloned() else {
                    break;
                };
                remove(&mut packs, &oldest);
            }
        }
    }

    /// Drops a pack that turned out to be damaged or to hold what nobody may have any more.
    pub(crate) fn drop_pack(&self, pack: &Arc<KeptPack>) {
        remove(&mut self.packs.lock(), pack);
    }

    /// Drops the packs of repositories that are gone.
    pub fn retain(&self, exists: impl Fn(RepoId) -> bool) {
        let mut packs = self.packs.lock();
        let gone: Vec<_> =
            packs.iter().filter(|(repo, _)| !exists(**repo)).flat_map(|(_, packs)| packs.clone()).collect();
        for pack in gone {
            remove(&mut packs, &pack);
        }
    }
}

fn remove(packs: &mut HashMap<RepoId, Vec<Arc<KeptPack>>>, pack: &Arc<KeptPack>) {
    if let Some(of_repo) = packs.get_mut(&pack.repo) {
        of_repo.retain(|other| !Arc::ptr_eq(other, pack));
        if of_repo.is_empty() {
            packs.remove(&pack.repo);
        }
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

fn write_index(path: &Path, pack: &KeptPack) -> io::Result<()> {
    let mut out = INDEX_MAGIC.to_vec();
    out.extend_from_slice(&pack.repo.as_u64().to_be_bytes());
    out.extend_from_slice(&pack.len.to_be_bytes());
    out.extend_from_slice(pack.checksum.as_bytes());
    out.extend_from_slice(&(pack.tips.len() as u64).to_be_bytes());
    pack.tips.iter().for_each(|tip| out.extend_from_slice(tip.as_bytes()));
    for entry in &pack.entries {
        out.extend_from_slice(entry.oid.as_bytes());
        out.extend_from_slice(&entry.offset.to_be_bytes());
        out.extend_from_slice(&entry.base.number().to_be_bytes());
    }
    let checksum = govc_engine::hash_object(govc_engine::Kind::Blob, &out).map_err(io::Error::other)?;
    out.extend_from_slice(checksum.as_bytes());
    let mut file = File::create(path)?;
    file.write_all(&out)
}

/// A pack of an earlier process, if its index is whole and fits it.
fn read_index(path: &Path) -> Option<KeptPack> {
    let bytes = std::fs::read(path.with_extension("index")).ok()?;
    let (body, checksum) = bytes.split_last_chunk::<{ Oid::LEN }>()?;
    let computed = govc_engine::hash_object(govc_engine::Kind::Blob, body).ok()?;
    if computed.as_bytes() != checksum {
        return None;
    }
    let rest = body.strip_prefix(INDEX_MAGIC)?;
    let (repo, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<8>()?;
    let (checksum, rest) = rest.split_first_chunk::<{ Oid::LEN }>()?;
    let (tips, rest) = rest.split_first_chunk::<8>()?;
    let (repo, len, tips) = (u64::from_be_bytes(*repo), u64::from_be_bytes(*len), u64::from_be_bytes(*tips));
    let checksum = Oid::from_bytes(checksum).ok()?;
    let tips_len = usize::try_from(tips).ok()?.checked_mul(Oid::LEN)?;
    let (tips, entries) = rest.split_at_checked(tips_len)?;
    let tips = tips.chunks_exact(Oid::LEN).map(|tip| Oid::from_bytes(tip).ok()).collect::<Option<Vec<_>>>()?;
    let entries = entries.chunks_exact(Oid::LEN + 12).map(|entry| {
        let (oid, rest) = entry.split_at(Oid::LEN);
        let offset = u64::from_be_bytes(*rest.first_chunk()?);
        let base = u32::from_be_bytes(*rest.last_chunk()?);
        Some(KeptEntry { oid: Oid::from_bytes(oid).ok()?, offset, base: KeptBase::from_number(base) })
    });
    let entries = entries.collect::<Option<Vec<_>>>()?;
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() != len {
        return None;
    }
    Some(KeptPack::new(RepoId::from_u64(repo), tips, entries, checksum, len, Content::File(file, path.to_owned())))
}
