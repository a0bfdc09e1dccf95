//! Packs that are large enough for several threads: what comes of them must not depend on how many there are.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{Arc, Barrier},
};

use flate2::{Compression, write::ZlibEncoder};
use govc_backends::{FaultBackend, FaultPlan};
use govc_engine::{
    Backend, Cause, Expected, Family, Place as At, RefName, RepoName, RepoSettings, Scan, Store, StoreOptions,
    TREE_DEPTH_MAX, block::make_delta, hash_object, object::PackHasher,
};

use super::{
    super::{
        entry::write_header,
        resolve::{CHAIN_MAX, STORED_CHAIN_MAX},
    },
    *,
};

/// Puts entries together into a pack.
#[derive(Clone, Default)]
struct Pack {
    format: ObjectFormat,
    bytes: Vec<u8>,
    count: u32,
}

impl Pack {
    fn entry(&mut self, kind: EntryKind, body: &[u8]) -> u64 {
        use io::Write as _;
        let offset = 12 + self.bytes.len() as u64;
        write_header(&mut self.bytes, kind, body.len() as u64);
        let mut encoder = ZlibEncoder::new(&mut self.bytes, Compression::fast());
        encoder.write_all(body).expect("memory takes it");
        encoder.finish().expect("memory takes it");
        self.count += 1;
        offset
    }

    fn whole(&mut self, kind: Kind, data: &[u8]) -> u64 {
        self.entry(EntryKind::Whole(kind), data)
    }

    /// A delta against the entry at `base`.
    fn on_entry(&mut self, base: u64, delta: &[u8]) -> u64 {
        let distance = 12 + self.bytes.len() as u64 - base;
        self.entry(EntryKind::OfsDelta(distance), delta)
    }

    fn on_id(&mut self, base: Oid, delta: &[u8]) -> u64 {
        self.entry(EntryKind::RefDelta(base), delta)
    }

    fn finish(&self) -> Vec<u8> {
        let mut pack = [b"PACK\0\0\0\x02", &self.count.to_be_bytes()[..], &self.bytes].concat();
        let mut hasher = PackHasher::new(self.format);
        hasher.update(&pack);
        pack.extend_from_slice(hasher.finish().expect("an ordinary pack").as_bytes());
        pack
    }
}

fn id(kind: Kind, data: &[u8]) -> Oid {
    id_of(ObjectFormat::Sha1, kind, data)
}

fn id_of(format: ObjectFormat, kind: Kind, data: &[u8]) -> Oid {
    hash_object(format, kind, data).expect("an ordinary object")
}

fn delta(base: &[u8], target: &[u8]) -> Vec<u8> {
    make_delta(base, target, usize::MAX).expect("nothing is too long")
}

/// Bytes without any pattern, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Version `version` of file `file`: each differs from the one before in a few bytes.
fn content(file: u64, version: u64) -> Vec<u8> {
    let mut data = noise(file, 700 + file as usize % 13 * 100);
    for at in 0..=version {
        let place = (at * 37 % data.len() as u64) as usize;
        data[place] = at as u8;
        data.extend_from_slice(&at.to_be_bytes());
    }
    data
}

fn tree_of(entries: &[(&str, &[u8], Oid)]) -> Vec<u8> {
    entries.iter().flat_map(|(mode, name, oid)| [mode.as_bytes(), b" ", name, b"\0", oid.as_bytes()].concat()).collect()
}

fn commit_of(tree: Oid, parent: Option<Oid>, subject: &str) -> Vec<u8> {
    let parent = parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
    let person = "Ada <ada@example.com> 1700000000 +0100";
    format!("tree {tree}\n{parent}author {person}\ncommitter {person}\n\n{subject}\n").into_bytes()
}

const FILES: u64 = 60;
const VERSIONS: u64 = 90;

/// A history in which every form of entry comes many times, and what is in it.
struct History {
    pack: Pack,
    objects: BTreeMap<Oid, (Kind, Vec<u8>)>,
    tip: Oid,
}

impl History {
    /// Of files whose first versions are in the repository already, if it is thin.
    fn new(format: ObjectFormat, is_thin: bool) -> Self {
        let mut history = Self::empty(format);
        // The commits and trees first, as git has them; each tree is a delta on the one before.
        let (mut last, mut parent) = (None::<(u64, Vec<u8>)>, None);
        for version in 0..VERSIONS {
            let names: Vec<String> = (0..FILES).map(|file| format!("file{file:04}")).collect();
            let blob = |file: u64| id_of(format, Kind::Blob, &content(file, version));
            let entries: Vec<_> =
                names.iter().zip(0..).map(|(name, file)| ("100644", name.as_bytes(), blob(file))).collect();
            let tree = tree_of(&entries);
            let commit = commit_of(id_of(format, Kind::Tree, &tree), parent, &format!("version {version}"));
            history.pack.whole(Kind::Commit, &commit);
            parent = Some(history.note(Kind::Commit, commit));
            let offset = match &last {
                Some((at, base)) if version % 30 != 0 => history.pack.on_entry(*at, &delta(base, &tree)),
                _ => history.pack.whole(Kind::Tree, &tree),
            };
            history.note(Kind::Tree, tree.clone());
            last = Some((offset, tree));
        }
        history.tip = parent.expect("there are commits");
        for file in 0..FILES {
            history.file(file, is_thin);
        }
        history
    }

    fn empty(format: ObjectFormat) -> Self {
        let pack = Pack { format, ..Pack::default() };
        Self { pack, objects: BTreeMap::new(), tip: format.null() }
    }

    fn note(&mut self, kind: Kind, data: Vec<u8>) -> Oid {
        let oid = id_of(self.pack.format, kind, &data);
        self.objects.insert(oid, (kind, data));
        oid
    }

    fn file(&mut self, file: u64, is_thin: bool) {
        let format = self.pack.format;
        let blob_id = |data: &[u8]| id_of(format, Kind::Blob, data);
        let mut offsets = Vec::new();
        for version in 0..VERSIONS {
            let data = content(file, version);
            let before = content(file, version.saturating_sub(1));
            let offset = match (version, file % 5) {
                (0, _) if is_thin => {
                    // On another file's, so that all bases are outside.
                    let base = content(file + 1000, 0);
                    self.pack.on_id(blob_id(&base), &delta(&base, &data))
                }
                (0, _) => self.pack.whole(Kind::Blob, &data),
                // A chain by offsets, one by ids, many on the first, a tree of twos, and each of them in turns.
                (_, 0) => self.pack.on_entry(offsets[version as usize - 1], &delta(&before, &data)),
                (_, 1) => self.pack.on_id(blob_id(&before), &delta(&before, &data)),
                (_, 2) => self.pack.on_entry(offsets[0], &delta(&content(file, 0), &data)),
                (_, 3) => {
                    let base = (version - 1) / 2;
                    self.pack.on_entry(offsets[base as usize], &delta(&content(file, base), &data))
                }
                (_, _) if version % 2 == 0 => self.pack.whole(Kind::Blob, &data),
                (_, _) if version % 4 == 1 => self.pack.on_id(blob_id(&before), &delta(&before, &data)),
                (_, _) => self.pack.on_entry(offsets[version as usize - 1], &delta(&before, &data)),
            };
            offsets.push(offset);
            self.note(Kind::Blob, data);
        }
    }
}

/// A store of its own with an empty repository.
struct Place {
    backend: Arc<FaultBackend>,
    _store: Store,
    repo: Repo,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self::of(ObjectFormat::Sha1)
    }

    fn of(object_format: ObjectFormat) -> Self {
        let backend = Arc::new(FaultBackend::new(FaultPlan::none()));
        let store = Store::open(backend.clone(), StoreOptions::default()).expect("an empty store opens");
        let name = RepoName::new("repo").expect("a valid name");
        let settings = RepoSettings { object_format, ..RepoSettings::default() };
        let repo = store.create(&name, settings, "tester").expect("a new repository");
        Self { backend, _store: store, repo, folder: tempfile::tempdir().expect("a folder") }
    }

    fn intake<'a>(&self, limits: Limits, threads: &'a IngestThreads) -> Intake<'a> {
        let folder = Folder { path: self.folder.path().to_owned(), reserve_bytes: 0, free_bytes: Arc::new(plenty) };
        Intake { folder: Some(folder), limits, threads }
    }

    /// Receives a pack with so many processors.
    fn receive(&self, processors: usize, limits: Limits, pack: &[u8]) -> (Result<Received>, Seen) {
        let threads = IngestThreads::new(processors);
        let seen = std::cell::Cell::new(Seen { in_first: 0, in_second: 0, last: 0 });
        let others = || processors - 1 - threads.spare();
        let mut body = Watched {
            bytes: pack,
            watch: &|| {
                let now = seen.get();
                seen.set(Seen { in_first: now.in_first.max(others()), ..now });
            },
        };
        let mut progress = |text: &str| {
            let now = seen.get();
            let percent = text.split_once(": ").and_then(|(_, rest)| rest.split_once('%'));
            let last = percent.and_then(|(percent, _)| percent.parse().ok()).expect("a line of progress");
            assert!(last >= now.last, "{text} after {}%", now.last);
            seen.set(Seen { in_second: now.in_second.max(others()), last, ..now });
        };
        let received = self.intake(limits, &threads).receive(&self.repo, &mut body, None, &mut progress);
        assert_eq!(threads.spare(), processors - 1, "all threads have ended");
        (received, seen.get())
    }

    fn publish(&self, received: &Received, tips: &[(&str, Oid)]) {
        let edit = |(name, target): &(&str, Oid)| RefEdit {
            name: RefName::new(name).expect("a valid name"),
            expected: Expected::Absent,
            target: Some(*target),
        };
        let edits: Vec<RefEdit> = tips.iter().map(edit).collect();
        let mut transaction = self.repo.begin("tester", Cause::Push);
        received.commit(&mut transaction, &edits).expect("nothing is missing");
        edits.into_iter().for_each(|edit| transaction.edit(edit).expect("a new reference"));
        let published = transaction.prepare().and_then(|prepared| prepared.publish()).expect("nothing is in the way");
        published.ticket.wait().expect("memory takes it");
    }

    /// The snapshot has what the history has.
    #[track_caller]
    fn assert_has(&self, history: &History, what: &str) {
        let snapshot = self.repo.snapshot();
        for (oid, (kind, data)) in &history.objects {
            let object = snapshot.object(oid).expect("it was received");
            assert!(object.kind == *kind && object.data == data[..], "{what}: object {oid}");
        }
    }

    /// How many deltas there are between each of the objects and a whole one, as they are stored.
    fn stored_depths(&self, oids: &[Oid]) -> Vec<u32> {
        let snapshot = self.repo.snapshot();
        let mut places: Vec<At> = snapshot.locate(oids).expect("readable").into_iter().flatten().collect();
        assert_eq!(places.len(), oids.len());
        places.sort_unstable();
        let mut depths = HashMap::new();
        for place in places {
            let base = snapshot.record(place).expect("readable").base;
            let depth =
                base.map_or(0, |base| depths.get(&base).expect("bases come first, as who sends them wants") + 1);
            depths.insert(place, depth);
        }
        depths.into_values().collect()
    }

    #[track_caller]
    fn assert_nothing_left(&self, what: &str) {
        let blocks = self.rows(Family::Blocks, b"");
        let intents = self.rows(Family::Meta, b"intent/");
        let files = std::fs::read_dir(self.folder.path()).expect("a folder").count();
        assert_eq!((blocks, intents, files), (0, 0, 0), "{what}: blocks, intents, files");
    }

    fn rows(&self, family: Family, prefix: &[u8]) -> usize {
        self.backend.scan(family, Scan::prefix(prefix)).expect("readable").count()
    }
}

fn plenty(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// Threads beside the calling one that were seen while reading and while resolving; the last percentage that was told.
#[derive(Clone, Copy)]
struct Seen {
    in_first: usize,
    in_second: usize,
    last: u8,
}

/// A body that looks around whenever it is read.
struct Watched<'a> {
    bytes: &'a [u8],
    watch: &'a dyn Fn(),
}

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (self.watch)();
        let len = out.len().min(4096);
        self.bytes.read(&mut out[..len])
    }
}

const PROCESSORS: [usize; 4] = [1, 2, 3, 8];

#[test]
fn a_history_is_the_same_on_any_number_of_threads() {
    for format in ObjectFormat::ALL {
        let history = History::new(format, false);
        let pack = history.pack.finish();
        PROCESSORS.into_iter().for_each(|processors| receives_all(&history, &pack, processors));
    }
}

fn receives_all(history: &History, pack: &[u8], processors: usize) {
    let place = Place::of(history.pack.format);
    let (received, seen) = place.receive(processors, Limits::default(), pack);
    let received = received.expect("a sound pack");
    let is_shared = processors > 1;
    assert_eq!((seen.in_first > 0, seen.in_second > 0, seen.last), (is_shared, is_shared, 100), "{processors}");
    assert_eq!(received.objects(), u64::from(history.pack.count));
    assert_eq!(received.staged.as_ref().map(Staged::len), Some(history.objects.len()));
    assert!(received.riding.is_empty() && received.closed);
    assert_eq!(received.roots.as_deref(), Some(&[history.tip][..]));
    let (kept, _) = received.pack.as_ref().expect("it stands on its own");
    let mut kept: Vec<Oid> = kept.entries.iter().map(|entry| entry.oid).collect();
    kept.sort_unstable();
    assert!(kept.iter().eq(history.objects.keys()), "each entry has its id");
    place.publish(&received, &[("refs/heads/main", history.tip)]);
    place.assert_has(history, &format!("{processors} processors"));
}

#[test]
fn thin_packs_and_duplicates_are_the_same_on_any_number_of_threads() {
    let mut bases = Pack::default();
    let mut entries = Vec::new();
    for file in 0..FILES {
        let data = content(file + 1000, 0);
        bases.whole(Kind::Blob, &data);
        entries.push((format!("file{file:04}"), id(Kind::Blob, &data)));
    }
    let listed: Vec<_> = entries.iter().map(|(name, oid)| ("100644", name.as_bytes(), *oid)).collect();
    let tree = tree_of(&listed);
    bases.whole(Kind::Tree, &tree);
    let commit = commit_of(id(Kind::Tree, &tree), None, "bases");
    bases.whole(Kind::Commit, &commit);
    let mut history = History::new(ObjectFormat::Sha1, true);
    // Whole and as deltas of different trees, some of them twice.
    for file in (0..FILES).step_by(3) {
        for version in [0, 3, 50] {
            let data = content(file, version);
            history.pack.whole(Kind::Blob, &data);
            let (other, base) = (content(file + 1, 2), id(Kind::Blob, &content(file + 1, 2)));
            history.pack.on_id(base, &delta(&other, &data));
        }
    }
    let pack = history.pack.finish();
    for processors in PROCESSORS {
        let place = Place::new();
        let (received, _) = place.receive(processors, Limits::default(), &bases.finish());
        let received = received.expect("a sound pack");
        assert!(received.staged.is_none(), "a small one rides");
        place.publish(&received, &[("refs/heads/bases", id(Kind::Commit, &commit))]);
        let (received, seen) = place.receive(processors, Limits::default(), &pack);
        let received = received.expect("a sound pack");
        assert_eq!(seen.in_second > 0, processors > 1);
        assert_eq!(received.staged.as_ref().map(Staged::len), Some(history.objects.len()));
        assert!(received.closed && received.pack.is_none() && received.roots.is_none());
        place.publish(&received, &[("refs/heads/main", history.tip)]);
        place.assert_has(&history, &format!("{processors} processors"));
    }
}

/// The thin pack holds several deltas on each of some large objects of the repository.
#[test]
fn large_bases_of_thin_packs_are_the_same_on_any_number_of_threads() {
    const LEN: usize = 5 << 20;
    let (mut bases, mut pack, mut objects) = (Pack::default(), Pack::default(), Vec::new());
    // Enough for blocks at once, so that the bases are shared out.
    for number in 0..2001_u64 {
        pack.whole(Kind::Blob, &number.to_be_bytes());
    }
    for file in 0..6 {
        let base = noise(file, LEN);
        bases.whole(Kind::Blob, &base);
        for step in 0..3_u8 {
            pack.on_id(id(Kind::Blob, &base), &longer(LEN, &[step; 10]));
            objects.push(id(Kind::Blob, &[&base[..], &[step; 10]].concat()));
        }
    }
    let (bases, tip) = (bases.finish(), id(Kind::Blob, &noise(0, LEN)));
    for processors in [1, 4] {
        let place = Place::new();
        let received = place.receive(processors, Limits::default(), &bases).0.expect("a sound pack");
        place.publish(&received, &[("refs/tags/base", tip)]);
        let received = place.receive(processors, Limits::default(), &pack.finish()).0.expect("a sound pack");
        assert!(received.pack.is_none(), "it is thin");
        let staged = received.staged.expect("it is large");
        for oid in &objects {
            assert_eq!(id(Kind::Blob, &staged.object(oid).expect("readable").expect("there").data), *oid);
        }
    }
}

#[test]
fn one_tree_of_deltas_is_shared_out() {
    // Chains on one object, so that threads can only have parts of its tree.
    let mut pack = Pack::default();
    let root = content(1, 0);
    let first = pack.whole(Kind::Blob, &root);
    let mut objects = BTreeMap::from([(id(Kind::Blob, &root), root.clone())]);
    for chain in 0..150_u64 {
        let (mut at, mut base) = (first, root.clone());
        for step in 0..40_u64 {
            let data = [&base[..], &(chain * 1000 + step).to_be_bytes()].concat();
            at = pack.on_entry(at, &delta(&base, &data));
            objects.insert(id(Kind::Blob, &data), data.clone());
            base = data;
        }
    }
    for processors in PROCESSORS {
        let place = Place::new();
        let (received, seen) = place.receive(processors, Limits::default(), &pack.finish());
        let staged = received.expect("a sound pack").staged.expect("it is large");
        assert_eq!(seen.in_second > 0, processors > 1, "{processors}");
        assert_eq!(staged.len(), objects.len());
        for (oid, data) in &objects {
            assert!(staged.object(oid).expect("readable").expect("there").data == data[..], "{oid}");
        }
    }
}

/// Adds a chain of so many deltas; before each of them, two others on the same base, so that threads can have a part of
/// what is on it. Notes the ids of all.
fn add_chain(pack: &mut Pack, oids: &mut Vec<Oid>, number: u64, steps: u64) {
    let mut base = noise(number, 40);
    let mut at = pack.whole(Kind::Blob, &base);
    oids.push(id(Kind::Blob, &base));
    for step in 0..steps {
        for which in 0..3_u64 {
            let data = [&base[..16], &number.to_be_bytes(), &step.to_be_bytes(), &which.to_be_bytes()].concat();
            let entry = pack.on_entry(at, &delta(&base, &data));
            oids.push(id(Kind::Blob, &data));
            if which == 2 {
                (at, base) = (entry, data);
            }
        }
    }
}

#[test]
fn parts_of_trees_are_as_deep_as_they_were() {
    for (steps, is_taken) in [(CHAIN_MAX as u64, true), (CHAIN_MAX as u64 + 1, false)] {
        let mut pack = Pack::default();
        add_chain(&mut pack, &mut Vec::new(), 1, steps);
        let pack = pack.finish();
        for processors in [1, 2, 8] {
            let place = Place::new();
            let (received, seen) = place.receive(processors, Limits::default(), &pack);
            assert_eq!(seen.in_second > 0, processors > 1);
            match received {
                Ok(_) => assert!(is_taken, "{steps}"),
                Err(error) => assert!(!is_taken && error.message().contains("a chain of more than"), "{error}"),
            }
        }
    }
}

#[test]
fn stored_chains_are_short_across_parts_of_trees() {
    let (mut pack, mut oids) = (Pack::default(), Vec::new());
    (0..8).for_each(|number| add_chain(&mut pack, &mut oids, number, 150));
    for processors in PROCESSORS {
        let place = Place::new();
        let (received, seen) = place.receive(processors, Limits::default(), &pack.finish());
        let received = received.expect("a sound pack");
        assert_eq!(seen.in_second > 0, processors > 1);
        place.publish(&received, &[("refs/tags/root", oids[0])]);
        let depths = place.stored_depths(&oids);
        assert_eq!(depths.iter().max(), Some(&STORED_CHAIN_MAX), "{processors} processors");
    }
}

#[test]
fn pushes_at_once_share_the_threads() {
    let history = History::new(ObjectFormat::Sha1, false);
    let pack = history.pack.finish();
    let threads = IngestThreads::new(3);
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let place = Place::new();
                let is_begun = std::cell::Cell::new(false);
                let wait = || {
                    if !is_begun.replace(true) {
                        barrier.wait();
                    }
                };
                let mut body = Watched { bytes: &pack, watch: &wait };
                let intake = place.intake(Limits::default(), &threads);
                let received = intake.receive(&place.repo, &mut body, None, &mut |_| assert!(threads.spare() <= 2));
                place.publish(&received.expect("a sound pack"), &[("refs/heads/main", history.tip)]);
                place.assert_has(&history, "one of two");
            });
        }
    });
    assert_eq!(threads.spare(), 2);
}

#[test]
fn a_full_disk_ends_all_threads() {
    // More than is written at once, several times.
    let mut pack = Pack::default();
    for at in 0..200 {
        let data = noise(at, 40 << 10);
        let entry = pack.whole(Kind::Blob, &data);
        pack.on_entry(entry, &delta(&data, &noise(at + 1000, 20 << 10)));
    }
    let pack = pack.finish();
    for processors in [1, 4] {
        // The first number that is asked for is written, too.
        for nth in 1..=3 {
            let place = Place::new();
            place.backend.be_full_once(nth);
            let (received, _) = place.receive(processors, Limits::default(), &pack);
            let error = received.err().unwrap_or_else(|| panic!("write {nth} of {processors} was taken"));
            assert_eq!(*error.kind(), ErrorKind::StorageFull, "write {nth}, {processors} processors: {error}");
            place.assert_nothing_left("a full disk");
        }
    }
}

#[test]
fn small_pushes_start_no_thread() {
    let mut pack = Pack::default();
    let root = noise(1, 200);
    let at = pack.whole(Kind::Blob, &root);
    for version in 1..1500_u64 {
        let data = [&root[..100], &version.to_be_bytes()].concat();
        match version % 2 {
            0 => pack.whole(Kind::Blob, &data),
            _ => pack.on_entry(at, &delta(&root, &data)),
        };
    }
    let place = Place::new();
    let (received, seen) = place.receive(8, Limits::default(), &pack.finish());
    let received = received.expect("a sound pack");
    assert!(received.staged.is_none(), "it rides");
    assert_eq!((seen.in_first, seen.in_second), (0, 0));
}

/// A pack of a history with entries in the middle that `spoil` adds.
fn spoiled(spoil: impl Fn(&mut Pack)) -> Vec<u8> {
    let mut history = History::empty(ObjectFormat::Sha1);
    for file in 0..FILES {
        history.file(file, false);
        if file == FILES / 2 {
            spoil(&mut history.pack);
        }
    }
    history.pack.finish()
}

/// Each is refused with this text by any number of threads, and leaves nothing.
#[track_caller]
fn refuses(what: &str, limits: Limits, pack: &[u8], text: &str) {
    for processors in [1, 2, 8, 8, 8] {
        let place = Place::new();
        let (received, _) = place.receive(processors, limits, pack);
        let error = received.err().unwrap_or_else(|| panic!("{what} was taken by {processors}"));
        assert!(error.message().contains(text), "{what}, {processors} processors: {error}");
        place.assert_nothing_left(what);
    }
}

fn bad_tree(number: u8) -> Vec<u8> {
    tree_of(&[("100644", b"..", id(Kind::Blob, &[number]))])
}

#[test]
fn what_is_refused_is_refused_by_any_number_of_threads() {
    let limits = Limits::default();
    let refused = |number: u8| format!("object {}: ", id(Kind::Tree, &bad_tree(number)));
    let pack = spoiled(|pack| {
        pack.whole(Kind::Tree, &bad_tree(0));
    });
    refuses("a harmful tree", limits, &pack, &refused(0));
    let pack = spoiled(|pack| {
        for number in 0..200 {
            pack.whole(Kind::Tree, &bad_tree(number));
            // So that not all of them are in one piece.
            pack.whole(Kind::Blob, &noise(number.into(), 8000));
        }
    });
    refuses("many of them, of which the first is named", limits, &pack, &refused(0));
    let pack = spoiled(|pack| {
        pack.whole(Kind::Tree, &bad_tree(0));
        pack.entry(EntryKind::Whole(Kind::Blob), b"");
        let end = pack.bytes.len() - 3;
        pack.bytes[end] ^= 1;
    });
    refuses("one before a broken stream", limits, &pack, &refused(0));
    let pack = spoiled(|pack| {
        let end = pack.bytes.len() - 3;
        pack.bytes[end] ^= 1;
        pack.whole(Kind::Tree, &bad_tree(0));
    });
    refuses("one after a broken stream", limits, &pack, "pack entry at ");
    let on_tree = |pack: &mut Pack, number: u8| {
        let base = tree_of(&[("100644", b"a", id(Kind::Blob, &[number]))]);
        let at = pack.whole(Kind::Tree, &base);
        pack.on_entry(at, &delta(&base, &bad_tree(number)));
    };
    let pack = spoiled(|pack| (0..200).for_each(|number| on_tree(pack, number)));
    refuses("harmful trees that are deltas", limits, &pack, &refused(0));
    let pack = spoiled(|pack| {
        let (a, b) = (id(Kind::Blob, b"a"), id(Kind::Blob, b"b"));
        pack.whole(Kind::Tree, &tree_of(&[("100644", b"a", a), ("100644", b"b", b)]));
        for at in 0..300 {
            pack.whole(Kind::Blob, &noise(at, 2000));
        }
        pack.whole(Kind::Tree, &tree_of(&[("40000", b"b", b)]));
    });
    refuses("an object that two trees want to be different", limits, &pack, "is pointed at as two kinds");
    let pack = spoiled(|pack| {
        let mut child = id(Kind::Tree, b"");
        for _ in 0..=TREE_DEPTH_MAX + 1 {
            let tree = tree_of(&[("40000", b"d", child)]);
            pack.whole(Kind::Tree, &tree);
            child = id(Kind::Tree, &tree);
        }
    });
    refuses("directories in each other", limits, &pack, "nested deeper");
    let mut pack = spoiled(|_| ());
    let end = pack.len() - 1;
    pack[end] ^= 1;
    refuses("a wrong trailer", limits, &pack, "its checksum does not match");
    pack.truncate(end / 2);
    refuses("half a pack", limits, &pack, "it ends early");
}

#[test]
fn deltas_that_cannot_be_are_refused_by_any_number_of_threads() {
    let limits = Limits::default();
    let missing = id(Kind::Blob, b"nobody has it");
    let pack = spoiled(|pack| {
        pack.on_id(missing, &delta(b"nobody has it", b"x"));
    });
    refuses("a missing base", limits, &pack, &format!("1 deltas have missing bases, among them on {missing}"));
    let pack = spoiled(|pack| {
        let (a, b) = (id(Kind::Blob, b"one of two"), id(Kind::Blob, b"two of two"));
        pack.on_id(a, &delta(b"one of two", b"two of two"));
        let at = pack.on_id(b, &delta(b"two of two", b"one of two"));
        pack.on_entry(at, &delta(b"one of two", b"above"));
    });
    refuses("a cycle", limits, &pack, "3 deltas have missing bases");
    let pack = spoiled(|pack| {
        let at = pack.whole(Kind::Blob, b"x");
        pack.on_entry(at - 1, b"x");
    });
    refuses("a base that is no entry", limits, &pack, "its base is no entry of the pack");
    // Of many that do not fit, the first: what comes before is done, whoever fails first.
    let first = std::cell::Cell::new(0);
    let pack = spoiled(|pack| {
        for at in 0..300 {
            let base = noise(at, 1000);
            let root = pack.whole(Kind::Blob, &base);
            let broken = pack.on_entry(root, &delta(b"some other base", b"x"));
            if at == 0 {
                first.set(broken);
            }
        }
    });
    refuses("deltas that do not fit", limits, &pack, &format!("pack entry at {}: ", first.get()));
    // One in a tree that is shared out.
    let pack = spoiled(|pack| {
        let base = noise(7, 1000);
        let root = pack.whole(Kind::Blob, &base);
        for at in 0..2000_u64 {
            let made = [&base[..], &at.to_be_bytes()].concat();
            let entry = pack.on_entry(root, &delta(&base, &made));
            if at == 1000 {
                first.set(pack.on_entry(entry, &delta(b"some other base", b"x")));
            }
        }
    });
    refuses("one in a large tree", limits, &pack, &format!("pack entry at {}: ", first.get()));
}

#[test]
fn limits_hold_for_all_threads_together() {
    let pack = spoiled(|pack| {
        let (mut at, mut data) = (pack.whole(Kind::Blob, b"the root of a chain"), b"the root of a chain".to_vec());
        for step in 0..9000_u64 {
            let next = [&data[..16], &step.to_be_bytes()].concat();
            at = pack.on_entry(at, &delta(&data, &next));
            data = next;
        }
    });
    refuses("a chain of 9000", Limits::default(), &pack, "a chain of more than");
    let pack = spoiled(|_| ());
    let sizes = |file| (0..VERSIONS).map(move |version| content(file, version).len() as u64).sum::<u64>();
    let bytes: u64 = (0..FILES).map(sizes).sum();
    // Deltas count as they come, and what they make.
    let limits = Limits { pack_expanded_bytes_max: bytes * 9 / 10, ..Limits::default() };
    refuses("too much in all", limits, &pack, "more than");
    let limits = Limits { pack_expanded_bytes_max: bytes * 2, ..Limits::default() };
    for processors in PROCESSORS {
        assert!(Place::new().receive(processors, limits, &pack).0.is_ok(), "{processors} processors");
    }
    let limits = Limits { object_bytes_max: 100_000, ..Limits::default() };
    let pack = spoiled(|pack| {
        let base = noise(1, 60_000);
        let root = pack.whole(Kind::Blob, &base);
        pack.on_entry(root, &delta(&base, &base.repeat(2)));
    });
    refuses("an object that is too large", limits, &pack, "limit");
}

/// A delta that makes its base of `len` bytes longer by `tail`.
fn longer(len: usize, tail: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for mut size in [len, len + tail.len()] {
        while size > 0x7f {
            out.push((size & 0x7f) as u8 | 0x80);
            size >>= 7;
        }
        out.push(size as u8);
    }
    for from in (0..len).step_by(0xff_ffff) {
        out.push(0xff);
        out.extend_from_slice(&(from as u32).to_le_bytes());
        out.extend_from_slice(&((len - from).min(0xff_ffff) as u32).to_le_bytes()[..3]);
    }
    out.push(tail.len() as u8);
    out.extend_from_slice(tail);
    out
}

#[test]
fn large_objects_are_the_same_on_any_number_of_threads() {
    // Larger than what threads have in flight together; and more on a path than is kept, so that some are made again.
    const STEPS: u8 = 12;
    let mut pack = Pack::default();
    let mut objects = Vec::new();
    for file in 0..2_u64 {
        let root = noise(file, 17 << 20);
        let mut data = root.clone();
        let mut at = pack.whole(Kind::Blob, &root);
        let mut chain = Vec::new();
        for step in 0..STEPS {
            chain.push((at, data.len()));
            at = pack.on_entry(at, &longer(data.len(), &[step; 10]));
            data.extend_from_slice(&[step; 10]);
        }
        // A second one on each, so that it is still wanted when all above it are done.
        for (at, len) in chain {
            pack.on_entry(at, &longer(len, b"a leaf"));
            objects.push(id(Kind::Blob, &[&data[..len], b"a leaf"].concat()));
        }
        objects.push(id(Kind::Blob, &data));
    }
    let pack = pack.finish();
    for processors in [1, 4] {
        let place = Place::new();
        let staged = place.receive(processors, Limits::default(), &pack).0.expect("a sound pack").staged;
        let staged = staged.expect("it is large");
        assert_eq!(staged.len(), 2 * (1 + 2 * usize::from(STEPS)));
        for oid in &objects {
            assert_eq!(id(Kind::Blob, &staged.object(oid).expect("readable").expect("there").data), *oid);
        }
    }
}
