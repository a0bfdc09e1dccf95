//! Checks a whole store: every row, every block, every object by its id, everything that references reach.
//!
//! First rows are read one by one, so that damage is named where it is. Then the store is opened and its journal settled,
//! which writes: give it an overlay. Then every object of every pool is made again and hashed, in the order of blocks, and
//! what it points at looked up. What is missing matters where a reference reaches it, which is walked only then.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    num::NonZero,
    sync::Arc,
    thread,
};

use super::{
    Store, StoreOptions,
    core::Core,
    feed::Publication,
    health::Health,
    ids::{PoolId, RepoId, Seq},
    ingest::IdRow,
    lfs,
    pool::Pool,
    record::{CatalogRow, FeedRow, RefRow, VersionRow, read_record},
    segment_index,
    snapshot::Snapshot,
    state::Repo,
    table::Scope,
};
use crate::{
    Error, ErrorKind, Progress, Result,
    backend::{Backend, Family, Scan, key},
    block::{DecodedBlock, Location, join_parts},
    object::{Kind, ObjectFormat, Oid, hash_object, links},
    sync::Mutex,
};

/// Findings that are told one by one; of more, only how many there were.
const FINDINGS_MAX: usize = 1000;
/// Objects that are looked at together, sorted by where they are.
const OBJECTS_AT_ONCE: usize = 1 << 20;

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fsck {
    /// Rows of all families.
    pub rows: u64,
    /// Blocks that were decoded.
    pub blocks: u64,
    /// Repositories.
    pub repositories: u64,
    /// References of their newest versions.
    pub references: u64,
    /// Objects that were hashed.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Large contents that were hashed.
    pub large_contents: u64,
    /// Their bytes.
    pub large_content_bytes: u64,
    /// What is wrong, in words; at most a thousand.
    pub findings: Vec<String>,
    /// How much is wrong.
    pub findings_total: u64,
}

impl Fsck {
    /// Checks what a backend holds. It is written to: give an overlay, and what nobody else changes meanwhile.
    ///
    /// # Errors
    /// When the backend fails, and [`ErrorKind::Cancelled`]. Damage is no error, but a finding.
    pub fn run(backend: Arc<dyn Backend>, options: StoreOptions, progress: &dyn Progress) -> Result<Self> {
        let mut check = Check { found: Self::default(), formats: HashMap::new(), progress };
        check.rows(&*backend)?;
        match Store::open(backend, options) {
            Ok(store) => check.store(&store)?,
            Err(error) if is_damage(&error) => check.find(format!("the store cannot be opened: {error}")),
            Err(error) => return Err(error),
        }
        Ok(check.found)
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }
}

struct Check<'a> {
    found: Fsck,
    /// Of the repositories in the catalog.
    formats: HashMap<RepoId, ObjectFormat>,
    progress: &'a dyn Progress,
}

/// An object in its pool.
#[derive(Clone, Copy)]
struct Placed {
    location: Location,
    oid: Oid,
    kind: Kind,
    size: u64,
}

/// What one thread found out about its share of objects.
#[derive(Default)]
struct Share {
    objects: u64,
    bytes: u64,
    findings: Vec<String>,
    /// Whether anything that is pointed at is not there.
    is_missing: bool,
}

impl Check<'_> {
    fn find(&mut self, finding: String) {
        self.found.findings_total += 1;
        if self.found.findings.len() < FINDINGS_MAX {
            self.found.findings.push(finding);
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.progress.is_cancelled() {
            true => Err(Error::new(ErrorKind::Cancelled, "ended on request")),
            false => Ok(()),
        }
    }

    /// Reads every row by itself.
    fn rows(&mut self, backend: &dyn Backend) -> Result<()> {
        let expected = backend.usage()?.families.iter().map(|(_, bytes)| bytes).sum();
        self.progress.begin("rows", Some(expected));
        for family in Family::ALL {
            for row in backend.scan(family, Scan::all())? {
                let (row_key, value) = match row.map_err(Error::from) {
                    Ok(row) => row,
                    Err(error) if is_damage(&error) => {
                        self.find(format!("{}: rows cannot be read to their end: {error}", family.name()));
                        break;
                    }
                    Err(error) => return Err(error),
                };
                self.found.rows += 1;
                self.progress.advance((row_key.len() + value.len()) as u64);
                if self.found.rows.is_multiple_of(1000) {
                    self.check_cancelled()?;
                }
                let read = match family {
                    Family::Catalog => self.repository(&row_key, &value),
                    Family::Refs => self.reference(&row_key, &value),
                    Family::History => history(&row_key, &value),
                    Family::Journal => read_record(&value).map(drop),
                    Family::Ids => id_of(&row_key).and_then(|_| IdRow::decode(&value)).map(drop),
                    Family::Blocks => match lfs::chunk_row(&row_key, &value) {
                        Ok(false) => self.block(backend, &row_key, value),
                        read => read.map(drop),
                    },
                    Family::Meta => lfs::meta_row(&row_key, &value),
                };
                match read {
                    Err(error) if !is_damage(&error) => return Err(error),
                    Err(error) => self.find(format!("{} row {}: {error}", family.name(), row_key.escape_ascii())),
                    Ok(()) => {}
                }
            }
        }
        self.progress.end();
        Ok(())
    }

    /// Decodes a catalog row, and notes the object format that it names.
    fn repository(&mut self, row_key: &[u8], value: &[u8]) -> Result<()> {
        let row = CatalogRow::decode(value)?;
        self.formats.insert(RepoId(key::trailing_u64(row_key)?), row.record.format);
        Ok(())
    }

    fn reference(&self, row_key: &[u8], value: &[u8]) -> Result<()> {
        let repo = row_key.split_first_chunk::<8>().filter(|(_, name)| !name.is_empty());
        let (repo, _) = repo.ok_or_else(|| Error::corrupt("the key is no reference's"))?;
        // That the repository is unknown is told by whoever opens the store.
        let format = self.formats.get(&RepoId(u64::from_be_bytes(*repo))).copied().unwrap_or_default();
        RefRow::decode(format, value).map(drop)
    }

    /// Decodes a block at its first part.
    fn block(&mut self, backend: &dyn Backend, row_key: &[u8], first: bytes::Bytes) -> Result<()> {
        let Some((block, part)) = row_key.split_last_chunk::<2>().filter(|(block, _)| block.len() == 16) else {
            return Err(Error::corrupt("the key is no block's"));
        };
        if *part != [0, 0] {
            return Ok(());
        }
        let number = block.last_chunk::<4>().map_or(0, |number| u32::from_be_bytes(*number));
        let more = |part: u16| -> Result<bytes::Bytes> {
            let found = backend.get(Family::Blocks, &[block, &part.to_be_bytes()].concat())?;
            found.ok_or_else(|| Error::corrupt(format!("part {part} is missing")))
        };
        if !segment_index::check(number, first.clone(), more)? {
            DecodedBlock::decode(&join_parts(first, more)?)?;
            self.found.blocks += 1;
        }
        Ok(())
    }

    fn store(&mut self, store: &Store) -> Result<()> {
        store.settle();
        if store.health() != Health::Ok {
            self.find(format!("the journal cannot be settled: {:?}", store.health()));
        }
        let core = store.core();
        let missing = self.objects(core)?;
        self.large_contents(core)?;
        let repos = store.list(None, usize::MAX);
        self.progress.begin("references", None);
        for repo in &repos {
            self.check_cancelled()?;
            self.found.repositories += 1;
            self.references(repo)?;
            self.certificates(repo)?;
            let pools: Vec<_> = repo.state.pool.layers().map(|(pool, _)| pool.id).collect();
            if pools.iter().any(|pool| missing.contains(pool)) {
                self.reachable(repo)?;
            }
        }
        self.progress.end();
        Ok(())
    }

    /// Reads every large content to its end, and looks at the locks.
    fn large_contents(&mut self, core: &Arc<Core>) -> Result<()> {
        let catalog = core.catalog.all();
        let pools: HashSet<_> =
            catalog.values().flat_map(|state| state.pool.layers()).map(|(pool, _)| pool.id).collect();
        let progress = self.progress;
        let (count, bytes) =
            lfs::contents(&*core.backend, |pool| pools.contains(&pool), progress, |finding| self.find(finding))?;
        lfs::locks(&*core.backend, |finding| self.find(finding))?;
        self.found.large_contents = count;
        self.found.large_content_bytes = bytes;
        Ok(())
    }

    /// Makes every object again. Gives the pools with objects that point at what is not there.
    fn objects(&mut self, core: &Arc<Core>) -> Result<HashSet<PoolId>> {
        // Those of deleted repositories that have forks are no repositories any more, but under them.
        let mut pools: HashMap<PoolId, (&Pool, String)> = HashMap::new();
        let catalog = core.catalog.all();
        for state in catalog.values() {
            let deleted = |pool: &Pool| format!("(deleted, number {})", pool.id.0);
            for (pool, _) in state.pool.layers() {
                pools.entry(pool.id).or_insert_with(|| (pool, deleted(pool)));
            }
        }
        for (name, state) in catalog.iter() {
            pools.insert(state.pool.id, (&state.pool, name.to_string()));
        }
        self.progress.begin("objects", None);
        let mut missing = HashSet::new();
        let mut rows = core.backend.scan(Family::Ids, Scan::all())?.peekable();
        loop {
            let (mut pool, mut placed) = (None, Vec::new());
            while let Some(row) = rows.peek() {
                // Rows that cannot be read have been told already, and a scan that breaks off, too.
                let found = match row {
                    Ok((row_key, value)) => id_of(row_key).and_then(|id| Ok((id, IdRow::decode(value)?))),
                    Err(error) => Err(Error::from(error.clone())),
                };
                match found {
                    Ok(((id, _), _)) if *pool.get_or_insert(id) != id || placed.len() == OBJECTS_AT_ONCE => break,
                    Ok(((_, oid), row)) => {
                        placed.push(Placed { location: row.location, oid, kind: row.kind, size: row.size });
                    }
                    Err(error) if is_damage(&error) => {}
                    Err(error) => return Err(error),
                }
                rows.next();
            }
            let Some(id) = pool else { break };
            match pools.get(&id) {
                Some((pool, name)) => {
                    if self.pool(core, pool, name, &mut placed)? {
                        missing.insert(id);
                    }
                }
                None => self.find(format!("{} objects belong to repository {}, which is unknown", placed.len(), id.0)),
            }
        }
        for (id, (pool, name)) in &pools {
            if self.indexed_objects(core, pool, name)? {
                missing.insert(*id);
            }
        }
        self.progress.end();
        Ok(missing)
    }

    /// The same for those objects of a pool that have no rows; whether any points at what is not there.
    fn indexed_objects(&mut self, core: &Core, pool: &Pool, name: &str) -> Result<bool> {
        let (mut placed, mut is_missing) = (Vec::new(), false);
        let read = core.for_each_page(pool, |page| {
            let keys: Vec<_> = page.iter().map(|(oid, _)| key::id(pool.id, oid)).collect();
            let rows = core.backend.get_many(Family::Ids, &keys)?;
            let without = page.into_iter().zip(rows).filter(|(_, row)| row.is_none());
            placed.extend(without.map(|((oid, row), _)| Placed {
                location: row.location,
                oid,
                kind: row.kind,
                size: row.size,
            }));
            if placed.len() >= OBJECTS_AT_ONCE {
                is_missing |= self.pool(core, pool, name, &mut placed)?;
                placed.clear();
            }
            Ok(())
        });
        match read {
            Err(error) if !is_damage(&error) => return Err(error),
            Err(error) => self.find(format!("repository {name}: not all objects can be found: {error}")),
            Ok(()) => {}
        }
        Ok(self.pool(core, pool, name, &mut placed)? || is_missing)
    }

    /// The same for some of a pool's objects, by as many threads as the machine has processors; whether any points at what is
    /// not there.
    fn pool(&mut self, core: &Core, pool: &Pool, name: &str, placed: &mut [Placed]) -> Result<bool> {
        placed.sort_unstable_by_key(|placed| placed.location);
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let found = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for placed in placed.chunks(placed.len().div_ceil(threads).max(1)) {
                let (found, progress) = (&found, self.progress);
                scope.spawn(move || {
                    let share = look_at(core, pool, name, placed, progress);
                    found.lock().push(share);
                });
            }
        });
        let mut is_missing = false;
        for share in found.into_inner() {
            let share = share?;
            self.found.objects += share.objects;
            self.found.object_bytes += share.bytes;
            share.findings.into_iter().for_each(|finding| self.find(finding));
            is_missing |= share.is_missing;
        }
        self.check_cancelled()?;
        Ok(is_missing)
    }

    /// Whether the targets of a repository's references are there.
    fn references(&mut self, repo: &Repo) -> Result<()> {
        let snapshot = repo.snapshot();
        let references =
            snapshot.references().chain(snapshot.realities(None).map(|(name, reality)| (name, &reality.head)));
        for (name, oid) in references {
            self.found.references += 1;
            let kind = match snapshot.header(oid) {
                Ok(found) => found.map(|(kind, _)| kind),
                Err(error) if !is_damage(&error) => return Err(error),
                Err(_) => None,
            };
            match kind {
                None => self.find(format!("repository {}: {name} points at {oid}, which is missing", repo.name())),
                Some(kind) if kind != Kind::Commit && (name.is_branch() || name.is_reality()) => {
                    self.find(format!("repository {}: {name} points at {oid}, a {kind}", repo.name()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Looks up the push certificates of a repository's versions.
    fn certificates(&mut self, repo: &Repo) -> Result<()> {
        let (id, snapshot) = (repo.id(), repo.snapshot());
        // Rows that cannot be read have been told already.
        for row in repo.core.backend.scan(Family::History, Scan::prefix(&key::versions(id)))?.map_while(Result::ok) {
            let Ok(number) = key::trailing_u64(&row.0) else { continue };
            let Ok(Publication { certificate: Some(certificate), .. }) = VersionRow::decode(id, number, &row.1) else {
                continue;
            };
            match snapshot.header(&certificate.oid) {
                Err(error) if !is_damage(&error) => return Err(error),
                Ok(Some((Kind::Blob, _))) => {}
                _ => {
                    let (name, oid) = (repo.name(), certificate.oid);
                    self.find(format!("repository {name}: the push certificate {oid} of version {number} is missing"));
                }
            }
        }
        Ok(())
    }

    /// Walks all that a repository's references reach.
    fn reachable(&mut self, repo: &Repo) -> Result<()> {
        let snapshot = repo.snapshot();
        let references =
            snapshot.references().chain(snapshot.realities(None).map(|(name, reality)| (name, &reality.head)));
        let mut seen: HashSet<Oid> = HashSet::new();
        for (name, oid) in references {
            let mut queue = vec![*oid];
            while let Some(oid) = queue.pop() {
                if !seen.insert(oid) {
                    continue;
                }
                // What cannot be read has been told.
                let Some(object) = readable(&snapshot, &oid)? else { continue };
                let Ok(found) = links(snapshot.object_format(), object.kind, &object.data) else { continue };
                for (target, _) in found.targets {
                    if seen.contains(&target) {
                        continue;
                    }
                    let kind = match snapshot.header(&target) {
                        Ok(header) => header.map(|(kind, _)| kind),
                        Err(error) if is_damage(&error) => continue,
                        Err(error) => return Err(error),
                    };
                    match kind {
                        None => {
                            seen.insert(target);
                            let (name, repo) = (name.clone(), repo.name());
                            self.find(format!(
                                "repository {repo}: {name} reaches {target}, which is missing; {oid} needs it"
                            ));
                        }
                        // It points at nothing.
                        Some(Kind::Blob) => {
                            seen.insert(target);
                        }
                        Some(_) => queue.push(target),
                    }
                }
                self.progress.advance(object.data.len() as u64);
                if seen.len().is_multiple_of(1000) {
                    self.check_cancelled()?;
                }
            }
        }
        Ok(())
    }
}

fn readable(snapshot: &Snapshot, oid: &Oid) -> Result<Option<super::Object>> {
    match snapshot.object(oid) {
        Ok(object) => Ok(Some(object)),
        Err(error) if !is_damage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn look_at(core: &Core, pool: &Pool, name: &str, placed: &[Placed], progress: &dyn Progress) -> Result<Share> {
    let mut share = Share::default();
    let mut pointed_at: Vec<Oid> = Vec::new();
    for placed in placed {
        if progress.is_cancelled() {
            break;
        }
        let wrong = |what: &dyn Display| format!("repository {name}: object {}: {what}", placed.oid);
        let data = match core.records.materialise(pool, placed.location) {
            Ok(data) => data,
            Err(error) if !is_damage(&error) => return Err(error),
            Err(error) => {
                share.findings.push(wrong(&error));
                continue;
            }
        };
        share.objects += 1;
        share.bytes += data.len() as u64;
        progress.advance(data.len() as u64);
        match hash_object(pool.format, placed.kind, &data) {
            Ok(oid) if oid == placed.oid && data.len() as u64 == placed.size => {}
            Ok(oid) => {
                share.findings.push(wrong(&format!("it is {oid}, of {} bytes instead of {}", data.len(), placed.size)));
                continue;
            }
            Err(error) => {
                share.findings.push(wrong(&error));
                continue;
            }
        }
        match links(pool.format, placed.kind, &data) {
            Ok(found) => pointed_at.extend(found.targets.into_iter().map(|(target, _)| target)),
            Err(error) => share.findings.push(wrong(&error)),
        }
        if pointed_at.len() >= 1 << 16 {
            share.is_missing |= is_missing(core, pool, &mut pointed_at)?;
        }
    }
    share.is_missing |= is_missing(core, pool, &mut pointed_at)?;
    Ok(share)
}

/// Whether any of some that are pointed at is not there.
fn is_missing(core: &Core, pool: &Pool, pointed_at: &mut Vec<Oid>) -> Result<bool> {
    pointed_at.sort_unstable();
    pointed_at.dedup();
    let mut is_missing = false;
    for targets in pointed_at.chunks(1024) {
        let places = match core.locate(pool, targets) {
            Ok(places) => places.into_iter().map(|place| place.is_some()).collect(),
            Err(error) if !is_damage(&error) => return Err(error),
            // A row of one of them cannot be read, and has been told.
            Err(_) => vec![false; targets.len()],
        };
        for (target, is_there) in targets.iter().zip(places) {
            if is_there {
                continue;
            }
            // In memory are those that could not be settled.
            match core.header(pool, target, Scope::Live) {
                Ok(header) => is_missing |= header.is_none(),
                Err(error) if is_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    pointed_at.clear();
    Ok(is_missing)
}

/// Whether an error says what is stored, not that it could not be asked for.
fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Invalid)
}

fn history(row_key: &[u8], value: &[u8]) -> Result<()> {
    let number = key::trailing_u64(row_key)?;
    match (row_key.first(), row_key.len()) {
        (Some(&key::VERSION), 17) => VersionRow::decode(RepoId(0), number, value).map(drop),
        (Some(&key::FEED), 9) => FeedRow::decode(Seq(number), value).map(drop),
        _ => Err(Error::corrupt("the key is no version's and no publication's")),
    }
}

fn id_of(row_key: &[u8]) -> Result<(PoolId, Oid)> {
    let (pool, oid) = row_key.split_first_chunk::<8>().ok_or_else(|| Error::corrupt("the key is too short"))?;
    Ok((PoolId(u64::from_be_bytes(*pool)), Oid::from_bytes(oid)?))
}
