//! Packs while they are made: who asks for what somebody else is being sent already reads along, from its beginning.
//!
//! The one who makes a pack puts it into a spool, as fast as it can, and whoever wants it takes it from there, each as
//! fast as its client does; so nobody waits for the slowest. Making takes a thread, reading none. When the spool can take
//! no more (a full disk, or its part of the cache's budget, which all spools share), the rest goes through a small window
//! that all pass together: who comes later begins a pack of its own, and who takes nothing for a time is left behind.
//! Making ends when nobody is left who reads.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use govc_engine::{Error, ErrorKind, Oid, RepoId, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::{
    spool::{Folder, Spool, read_file},
    write::gone,
};
use crate::git::cache::{Form, KeptPack};

/// What makes two fetches the same: equal ones get the same pack. Ids are sorted, each there once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FetchKey {
    pub(crate) repo: RepoId,
    pub(crate) wants: Vec<Oid>,
    pub(crate) haves: Vec<Oid>,
    /// The borders that the client will have, and the filter.
    pub(crate) form: Form,
    pub(crate) client_shallow: Vec<Oid>,
    /// The checksum of the pack that the client gets elsewhere.
    pub(crate) elsewhere: Option<Oid>,
    pub(crate) thin: bool,
    pub(crate) ofs_delta: bool,
    /// What the tags were, if they are wanted with what they point at.
    pub(crate) tags: Option<Oid>,
}

/// The packs that are being made.
pub(crate) struct SharedPacks {
    under_way: Mutex<HashMap<FetchKey, Arc<Shared>>>,
    folder: Option<Folder>,
    /// Bytes of all spools, and those of them in memory.
    spooled: Budget,
    in_memory: Budget,
}

/// What all spools have at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpoolLimits {
    /// Bytes, in memory and in the folder.
    pub(crate) bytes: u64,
    /// Of these, bytes in memory that could be in the folder; a little more while they are moved there.
    pub(crate) memory_bytes: u64,
}

/// What a pack became.
#[derive(Clone)]
pub(crate) enum Outcome {
    /// The bytes that were written, and this checksum behind them.
    Made(Oid),
    /// A kept pack is the same; nothing was written.
    Kept(Arc<KeptPack>),
}

/// Whether somebody makes the pack already.
pub(crate) enum Seat<'a> {
    /// Nobody does: it is to be made, and read.
    Maker(PackMaker<'a>, PackReader),
    /// Somebody does.
    Reader(PackReader),
}

struct Shared {
    state: Mutex<State>,
    /// There is more to read, or all of it.
    grown: Notify,
    /// A reader has passed on, or left.
    passed: Condvar,
}

struct State {
    /// The pack from its beginning.
    spool: Spool,
    spooled: Room,
    in_memory: Room,
    /// What follows, once the spool takes no more.
    window: Option<Vec<u8>>,
    window_start: u64,
    /// How far each reader has come, by the number that it was given.
    readers: HashMap<u64, u64>,
    next_reader: u64,
    /// Objects written, and how many there will be.
    progress: (usize, usize),
    end: Option<Result<Outcome>>,
}

/// What all spools may take of something.
#[derive(Clone)]
struct Budget {
    max: u64,
    /// What they have taken. A count; orders nothing.
    taken: Arc<AtomicU64>,
}

/// What one of them has taken of it.
struct Room {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    fn new(max: u64) -> Self {
        Self { max, taken: Arc::default() }
    }

    fn room(&self) -> Room {
        Room { budget: self.clone(), bytes: 0 }
    }
}

impl Room {
    /// Makes it a room of so many bytes, if there is as much or it shrinks; says whether it is.
    fn resize(&mut self, bytes: u64) -> bool {
        let Budget { max, taken } = &self.budget;
        let Some(more) = bytes.checked_sub(self.bytes) else {
            taken.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        };
        let fits = taken.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= *max;
        if fits {
            self.bytes = bytes;
        } else {
            taken.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// The hand that makes a pack. Dropped without an end, it fails it.
pub(crate) struct PackMaker<'a> {
    packs: &'a SharedPacks,
    /// Under which others may join; nobody does without one.
    key: Option<Box<FetchKey>>,
    shared: Arc<Shared>,
    /// How long a reader may take nothing while the window waits for it.
    stall_max: Duration,
}

/// One that is sent the pack.
pub(crate) struct PackReader {
    shared: Arc<Shared>,
    number: u64,
}

/// What a reader gets next.
pub(crate) enum Piece {
    /// Bytes; so many of so many objects are in what has been written.
    Bytes((usize, usize)),
    /// The pack is read.
    End(Outcome),
}

/// What there is to be read.
enum Next {
    /// It has been read.
    Piece(Piece),
    /// So many bytes of a file, at a position.
    InFile(Arc<File>, u64, usize),
    /// Nothing yet.
    Nothing,
}

impl SharedPacks {
    /// Spools in `folder`, or in memory without one.
    pub(crate) fn new(folder: Option<Folder>, limits: SpoolLimits) -> Self {
        let SpoolLimits { bytes, memory_bytes } = limits;
        Self { under_way: Mutex::default(), folder, spooled: Budget::new(bytes), in_memory: Budget::new(memory_bytes) }
    }

    /// Bytes of all spools.
    pub(crate) fn spooled_bytes(&self) -> u64 {
        self.spooled.taken.load(Ordering::Relaxed)
    }

    /// Finds who makes the pack, or becomes it. Readers that the window waits for may take nothing for `stall_max`.
    pub(crate) fn join(&self, key: FetchKey, stall_max: Duration) -> Seat<'_> {
        let mut tried: Option<Arc<Shared>> = None;
        let mut under_way = loop {
            let under_way = self.under_way.lock();
            let is_tried = |shared: &&Arc<Shared>| tried.as_ref().is_some_and(|tried| Arc::ptr_eq(tried, shared));
            match under_way.get(&key).filter(|shared| !is_tried(shared)).cloned() {
                None => break under_way,
                Some(shared) => {
                    // A pack that is being written to the disk has its lock, for which only those wait who want it.
                    drop(under_way);
                    if let Some(reader) = PackReader::join(&shared) {
                        return Seat::Reader(reader);
                    }
                    tried = Some(shared);
                }
            }
        };
        let (maker, reader) = self.begin(Some(Box::new(key.clone())), stall_max);
        under_way.insert(key, Arc::clone(&maker.shared));
        Seat::Maker(maker, reader)
    }

    /// The same for a pack that nobody else wants.
    pub(crate) fn alone(&self, stall_max: Duration) -> (PackMaker<'_>, PackReader) {
        self.begin(None, stall_max)
    }

    fn begin(&self, key: Option<Box<FetchKey>>, stall_max: Duration) -> (PackMaker<'_>, PackReader) {
        let state = State {
            spool: Spool::new(self.folder.clone()),
            spooled: self.spooled.room(),
            in_memory: self.in_memory.room(),
            window: None,
            window_start: 0,
            readers: HashMap::from([(0, 0)]),
            next_reader: 1,
            progress: (0, 0),
            end: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), grown: Notify::new(), passed: Condvar::new() });
        let reader = PackReader { shared: Arc::clone(&shared), number: 0 };
        (PackMaker { packs: self, key, shared, stall_max }, reader)
    }
}

impl PackMaker<'_> {
    /// Says how many of how many objects have been written.
    pub(crate) fn progress(&self, done: usize, total: usize) {
        self.shared.state.lock().progress = (done, total);
    }

    /// Says that everything is written, so that readers come to their end; further ones may still join them.
    pub(crate) fn written(&self, checksum: Oid) {
        self.set_end(Ok(Outcome::Made(checksum)));
    }

    /// Says that everything is written, or found elsewhere, or why it is not. Nobody joins from now on.
    pub(crate) fn end(&self, end: Result<Outcome>) {
        self.set_end(end);
        let Some(key) = &self.key else { return };
        let mut under_way = self.packs.under_way.lock();
        if under_way.get(key).is_some_and(|shared| Arc::ptr_eq(shared, &self.shared)) {
            under_way.remove(key);
        }
    }

    fn set_end(&self, end: Result<Outcome>) {
        let mut state = self.shared.state.lock();
        if state.end.is_none() {
            state.end = Some(end);
            state.settle();
        }
        drop(state);
        self.shared.grown.notify_waiters();
    }

    /// Does something with all that was written, which is `None` when the spool does not have all.
    pub(crate) fn with_spool<T>(&self, work: impl FnOnce(&mut Spool) -> T) -> Option<T> {
        let mut state = self.shared.state.lock();
        state.window.is_none().then(|| work(&mut state.spool))
    }
}

impl Write for &PackMaker<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.state.lock();
        state.check_readers()?;
        if state.window.is_none() {
            let len = state.spool.len() + bytes.len() as u64;
            let fits = state.spooled.resize(len);
            if fits && state.spool.write_all(bytes).and_then(|()| state.bound_memory()).is_ok() {
                drop(state);
                self.shared.grown.notify_waiters();
                return Ok(bytes.len());
            }
            // What the spool was given it has, in memory if it could not write it.
            state.window_start = state.spool.len();
            state.window = Some(Vec::new());
            if fits {
                drop(state);
                self.shared.grown.notify_waiters();
                return Ok(bytes.len());
            }
        }
        let (mut before, mut until) = (state.readers.clone(), Instant::now() + self.stall_max);
        while !state.is_window_read() {
            if self.shared.passed.wait_until(&mut state, until).timed_out() {
                state.leave_behind(&before);
                (before, until) = (state.readers.clone(), Instant::now() + self.stall_max);
            }
            state.check_readers()?;
        }
        let State { window, window_start, .. } = &mut *state;
        let window = window.get_or_insert_default();
        *window_start += window.len() as u64;
        window.clear();
        window.extend_from_slice(bytes);
        drop(state);
        self.shared.grown.notify_waiters();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PackMaker<'_> {
    fn drop(&mut self) {
        self.end(Err(Error::new(ErrorKind::Cancelled, "making the pack broke off")));
    }
}

impl fmt::Debug for PackMaker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackMaker").field("key", &self.key).finish_non_exhaustive()
    }
}

impl State {
    /// Ends the work if nobody wants it: no reader can join from now on.
    fn check_readers(&mut self) -> io::Result<()> {
        if self.readers.is_empty() {
            let gone = || Error::new(ErrorKind::Cancelled, "nobody is left who wants the pack");
            self.end.get_or_insert_with(|| Err(gone()));
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    fn is_window_read(&self) -> bool {
        let end = self.window_end();
        self.readers.values().all(|position| *position >= end)
    }

    fn window_end(&self) -> u64 {
        self.window_start + self.window.as_ref().map_or(0, Vec::len) as u64
    }

    /// Removes the readers that the window waits for and that are where they were `before`.
    fn leave_behind(&mut self, before: &HashMap<u64, u64>) {
        let end = self.window_end();
        self.readers.retain(|number, position| *position >= end || before.get(number) != Some(position));
    }

    /// Moves what is in memory to the spool's file when all spools have too much there.
    fn bound_memory(&mut self) -> io::Result<()> {
        if !self.in_memory.resize(self.spool.memory_bytes()) {
            self.spool.flush_to_file()?;
            self.in_memory.resize(self.spool.memory_bytes());
        }
        Ok(())
    }

    /// Gives memory back when nothing more is written.
    fn settle(&mut self) {
        self.spool.settle();
        self.in_memory.resize(self.spool.memory_bytes());
    }

    /// What is in memory from a position on; nothing if nothing is yet.
    fn in_memory_at(&self, position: u64) -> io::Result<&[u8]> {
        let Some(window) = self.window.as_ref().filter(|_| position >= self.spool.len()) else {
            return Ok(self.spool.buffered(position));
        };
        let start = position.checked_sub(self.window_start).ok_or_else(|| io::Error::other("its window has passed"))?;
        Ok(usize::try_from(start).ok().and_then(|start| window.get(start..)).unwrap_or_default())
    }
}

impl PackReader {
    /// A further reader, from the beginning; `None` if the pack has failed, or not all of it may be there any more.
    fn join(shared: &Arc<Shared>) -> Option<Self> {
        let mut state = shared.state.lock();
        if matches!(state.end, Some(Err(_))) || state.window.is_some() {
            return None;
        }
        let number = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(number, 0);
        Some(Self { shared: Arc::clone(shared), number })
    }

    /// Waits for what comes next and reads it into `out`, in place of what is there: some bytes, `bytes_max` at most.
    ///
    /// # Errors
    /// What making the pack failed with, once all that was written before is read; what reading the spool fails with;
    /// [`ErrorKind::Cancelled`] if the reader was left behind.
    pub(crate) async fn read(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<Piece> {
        loop {
            // Before it is looked at what there is: of what comes then, this one is told.
            let grown = self.shared.grown.notified();
            match self.next(out, bytes_max)? {
                Next::Piece(piece) => return Ok(piece),
                Next::InFile(file, position, len) => {
                    // Many read the same; neither they nor the maker need to wait for each other.
                    read_file(&file, position, len, out).await.map_err(unreadable)?;
                    let mut state = self.shared.state.lock();
                    self.pass(&mut state, position + len as u64)?;
                    return Ok(Piece::Bytes(state.progress));
                }
                Next::Nothing => grown.await,
            }
        }
    }

    fn next(&self, out: &mut Vec<u8>, bytes_max: usize) -> Result<Next> {
        let mut state = self.shared.state.lock();
        let position = *state.readers.get(&self.number).ok_or_else(left_behind)?;
        if let Some((file, bytes)) = state.spool.in_file(position) {
            return Ok(Next::InFile(file, position, usize::try_from(bytes).unwrap_or(usize::MAX).min(bytes_max)));
        }
        let bytes = state.in_memory_at(position).map_err(unreadable)?;
        if !bytes.is_empty() {
            out.clear();
            out.extend_from_slice(&bytes[..bytes.len().min(bytes_max)]);
            self.pass(&mut state, position + out.len() as u64)?;
            return Ok(Next::Piece(Piece::Bytes(state.progress)));
        }
        match &state.end {
            Some(Ok(outcome)) => Ok(Next::Piece(Piece::End(outcome.clone()))),
            Some(Err(error)) => Err(error.clone()),
            None => Ok(Next::Nothing),
        }
    }

    /// Says how far it has come.
    fn pass(&self, state: &mut State, position: u64) -> Result<()> {
        *state.readers.get_mut(&self.number).ok_or_else(left_behind)? = position;
        if state.window.is_some() {
            self.shared.passed.notify_all();
        }
        Ok(())
    }
}

fn unreadable(error: io::Error) -> Error {
    Error::corrupt(format!("a pack on its way cannot be read: {error}"))
}

fn left_behind() -> Error {
    gone(io::Error::new(io::ErrorKind::TimedOut, "it reads too slowly"))
}

impl Drop for PackReader {
    fn drop(&mut self) {
        self.shared.state.lock().readers.remove(&self.number);
        self.shared.passed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::thread;

    use govc_engine::ObjectFormat;

    use super::*;
    use crate::git::bridge::client_failure;
    use crate::git::pack::spool::FreeBytes;

    /// Long enough for every reader that reads.
    const LONG: Duration = Duration::from_secs(3600);

    fn key(repo: u64) -> FetchKey {
        FetchKey {
            repo: RepoId::from_u64(repo),
            wants: Vec::new(),
            haves: Vec::new(),
            form: Form::default(),
            client_shallow: Vec::new(),
            elsewhere: None,
            thin: false,
            ofs_delta: true,
            tags: None,
        }
    }

    fn packs(folder: Option<Folder>, bytes: u64) -> SharedPacks {
        SharedPacks::new(folder, SpoolLimits { bytes, memory_bytes: u64::MAX })
    }

    fn maker(packs: &SharedPacks) -> (PackMaker<'_>, PackReader) {
        maker_with_patience(packs, LONG)
    }

    fn maker_with_patience(packs: &SharedPacks, stall_max: Duration) -> (PackMaker<'_>, PackReader) {
        match packs.join(key(1), stall_max) {
            Seat::Maker(maker, reader) => (maker, reader),
            Seat::Reader(_) => panic!("nobody makes it yet"),
        }
    }

    fn follower(packs: &SharedPacks) -> PackReader {
        match packs.join(key(1), LONG) {
            Seat::Reader(reader) => reader,
            Seat::Maker(..) => panic!("somebody makes it"),
        }
    }

    /// The next bytes, as a task would read them, or the end.
    fn read(reader: &mut PackReader, bytes_max: usize) -> Result<Option<Vec<u8>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut bytes = b"what was read before".to_vec();
        match runtime.block_on(reader.read(&mut bytes, bytes_max))? {
            Piece::Bytes(_) => Ok(Some(bytes)),
            Piece::End(Outcome::Made(_)) => Ok(None),
            Piece::End(Outcome::Kept(_)) => panic!("it was made"),
        }
    }

    fn read_all(mut reader: PackReader, bytes_max: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(bytes) = read(&mut reader, bytes_max)? {
            assert!((1..=bytes_max).contains(&bytes.len()));
            all.extend(bytes);
        }
        Ok(all)
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| ((at * 31) >> 3) as u8).collect()
    }

    fn assert_is_free(packs: &SharedPacks) {
        let taken = [&packs.spooled, &packs.in_memory].map(|budget| budget.taken.load(Ordering::Relaxed));
        assert_eq!(taken, [0, 0], "all room is given back");
    }

    #[test]
    fn all_read_the_same_from_the_beginning_in_memory_on_disk_and_through_the_window() {
        let dir = tempfile::tempdir().expect("a folder");
        let free: Arc<FreeBytes> = Arc::new(|_: &Path| Ok(12 << 20));
        let tight = Folder { path: dir.path().to_owned(), reserve_bytes: 0, free_bytes: free };
        let roomy = Folder::new(dir.path().to_owned(), 0);
        let bytes = bytes(24 << 20);
        let cases = [(None, u64::MAX), (None, 1 << 20), (Some(roomy.clone()), u64::MAX), (Some(roomy), 9 << 20)];
        for (folder, spooled_max) in cases.into_iter().chain([(Some(tight), u64::MAX)]) {
            let packs = packs(folder, spooled_max);
            let (maker, first) = maker(&packs);
            (&maker).write_all(&bytes[..100]).expect("a reader is there");
            let second = follower(&packs);
            thread::scope(|scope| {
                let first = scope.spawn(|| read_all(first, 70_001));
                let second = scope.spawn(|| read_all(second, 12_345));
                for piece in bytes[100..].chunks(128 << 10) {
                    (&maker).write_all(piece).expect("readers are there");
                }
                let has_all = maker.with_spool(|spool| spool.len());
                maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
                for reader in [first, second] {
                    assert!(reader.join().expect("no panic").expect("a whole pack") == bytes);
                }
                assert!(has_all.is_none_or(|len| len == bytes.len() as u64));
            });
            assert!(matches!(packs.join(key(1), LONG), Seat::Maker(..)), "the next one is made anew");
            drop(maker);
            assert_is_free(&packs);
        }
    }

    #[test]
    fn a_pack_is_read_while_it_is_kept_and_afterwards() {
        let dir = tempfile::tempdir().expect("a folder");
        let bytes = bytes(9 << 20);
        for is_kept in [true, false] {
            let packs = packs(Some(Folder::new(dir.path().to_owned(), 0)), u64::MAX);
            let (maker, first) = maker(&packs);
            (&maker).write_all(&bytes).expect("a reader is there");
            maker.written(ObjectFormat::Sha1.null());
            let mut detached = maker.with_spool(Spool::detach).flatten().expect("a file");
            assert!(maker.with_spool(Spool::detach).flatten().expect("a file").persist(Path::new("twice")).is_err());
            // With the keeping under way, nobody waits.
            let second = follower(&packs);
            assert!(read_all(first, 70_001).expect("a whole pack") == bytes);
            let path = dir.path().join("kept");
            if is_kept {
                detached.persist(&path).expect("a file");
            }
            drop(detached);
            let third = follower(&packs);
            maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
            drop(maker);
            for reader in [second, third] {
                assert!(read_all(reader, 70_001).expect("a whole pack") == bytes);
            }
            assert_is_free(&packs);
            assert_eq!(std::fs::read(&path).ok().map(|kept| kept == bytes), is_kept.then_some(true));
            let _ = std::fs::remove_file(&path);
            assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0, "nothing else is left");
        }
    }

    #[test]
    fn who_comes_when_a_part_has_passed_gets_a_pack_of_its_own() {
        let packs = packs(None, 10);
        let (maker, mut reader) = maker(&packs);
        (&maker).write_all(&[1; 10]).expect("a reader is there");
        drop(follower(&packs));
        assert_eq!(read(&mut reader, 100).expect("bytes"), Some(vec![1; 10]));
        for at in 0..2 {
            (&maker).write_all(&[at; 5]).expect("a reader is there");
            assert_eq!(read(&mut reader, 100).expect("bytes"), Some(vec![at; 5]));
            let Seat::Maker(other, late) = packs.join(key(1), LONG) else { panic!("what it would read has passed") };
            drop((other, late));
        }
        maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
        assert_eq!(read(&mut reader, 100).expect("the end"), None);
    }

    #[test]
    fn memory_of_spools_is_bounded_where_there_is_a_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let limits = SpoolLimits { bytes: u64::MAX, memory_bytes: 3 << 20 };
        let packs = SharedPacks::new(Some(Folder::new(dir.path().to_owned(), 0)), limits);
        let in_memory = || packs.in_memory.taken.load(Ordering::Relaxed);
        let bytes = bytes(1_500_000);
        let mut readers = Vec::new();
        for _ in 0..20 {
            let (maker, reader) = packs.alone(LONG);
            for piece in bytes.chunks(100_000) {
                (&maker).write_all(piece).expect("a reader is there");
                assert!(in_memory() <= limits.memory_bytes, "{} bytes", in_memory());
            }
            maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
            readers.push(reader);
        }
        let files = || std::fs::read_dir(dir.path()).expect("a folder").count();
        assert!((18..20).contains(&files()), "{} files", files());
        let held: u64 = readers.iter().map(|reader| reader.shared.state.lock().spool.memory_bytes()).sum();
        assert!(held <= limits.memory_bytes, "{held} bytes are held by what has been made");
        for reader in readers {
            assert!(read_all(reader, 70_001).expect("a whole pack") == bytes);
        }
        assert_eq!(files(), 0);
        assert_is_free(&packs);
    }

    #[test]
    fn one_that_takes_nothing_is_left_behind_by_the_window_and_one_that_is_slow_is_not() {
        let packs = packs(None, 100);
        let (maker, slow) = maker_with_patience(&packs, Duration::from_secs(1));
        let mut idle = follower(&packs);
        let bytes = bytes(200);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                bytes.chunks(100).try_for_each(|piece| (&maker).write_all(piece))?;
                // Waits for the window to be read.
                (&maker).write_all(b"more")?;
                maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
                Ok::<(), io::Error>(())
            });
            let slow = scope.spawn(move || {
                let mut slow = slow;
                let mut all = Vec::new();
                while let Some(bytes) = read(&mut slow, 10)? {
                    all.extend(bytes);
                    thread::sleep(Duration::from_millis(100));
                }
                Ok::<_, Error>(all)
            });
            writer.join().expect("no panic").expect("a reader is there");
            assert!(slow.join().expect("no panic").expect("a whole pack") == [&bytes, &b"more"[..]].concat());
        });
        let error = read(&mut idle, 10).expect_err("it was left behind");
        assert_eq!(client_failure(&error), Some(io::ErrorKind::TimedOut));
    }

    #[test]
    fn all_spools_share_their_room() {
        let packs = packs(None, 100);
        let other = |repo| match packs.join(key(repo), LONG) {
            Seat::Maker(maker, reader) => (maker, reader),
            Seat::Reader(_) => panic!("nobody makes it yet"),
        };
        let has_all = |maker: &PackMaker<'_>| maker.with_spool(|_| ()).is_some();
        let (first, second, third) = (other(1), other(2), other(3));
        (&first.0).write_all(&[0; 60]).expect("a reader is there");
        (&second.0).write_all(&[0; 60]).expect("a reader is there");
        assert!(has_all(&first.0) && !has_all(&second.0));
        drop(first);
        (&third.0).write_all(&[0; 100]).expect("a reader is there");
        assert!(has_all(&third.0), "what the first had is free again");
    }

    #[test]
    fn readers_end_when_all_is_written_and_more_may_join_until_it_is_kept() {
        let packs = packs(None, u64::MAX);
        let (maker, reader) = maker(&packs);
        (&maker).write_all(b"all").expect("a reader is there");
        maker.written(ObjectFormat::Sha1.null());
        assert_eq!(read_all(reader, 10).expect("a whole pack"), b"all");
        assert_eq!(read_all(follower(&packs), 10).expect("a whole pack"), b"all");
        maker.end(Err(Error::corrupt("too late")));
        assert!(matches!(packs.join(key(1), LONG), Seat::Maker(..)));
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up() {
        let packs = packs(None, u64::MAX);
        let (maker, reader) = maker(&packs);
        let idle = follower(&packs);
        (&maker).write_all(&bytes(5 << 20)).expect("readers are there");
        maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
        assert_eq!(read_all(reader, 1 << 20).expect("a whole pack").len(), 5 << 20);
        drop(idle);
    }

    #[test]
    fn making_ends_when_the_last_reader_leaves_and_not_before() {
        let packs = packs(None, u64::MAX);
        let (maker, first) = maker(&packs);
        let second = follower(&packs);
        drop(first);
        (&maker).write_all(b"more").expect("one reader is left");
        drop(second);
        assert_eq!((&maker).write_all(b"more").map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        // Nobody joins what has ended so, though its maker has not gone yet.
        assert!(matches!(packs.join(key(1), LONG), Seat::Maker(..)));
        drop(maker);
    }

    #[test]
    fn a_reader_that_leaves_lets_the_window_go_on() {
        let packs = packs(None, 0);
        let (maker, first) = maker(&packs);
        let idle = follower(&packs);
        thread::scope(|scope| {
            let first = scope.spawn(|| read_all(first, 100));
            let writer = scope.spawn(move || {
                bytes(1000).chunks(100).try_for_each(|piece| (&maker).write_all(piece)).expect("a reader is there");
                maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
            });
            drop(idle);
            writer.join().expect("no panic");
            assert_eq!(first.join().expect("no panic").expect("a whole pack"), bytes(1000));
        });
    }

    #[test]
    fn a_failure_reaches_all_readers_after_what_was_written() {
        let packs = packs(None, u64::MAX);
        let (maker, mut first) = maker(&packs);
        let second = follower(&packs);
        (&maker).write_all(b"half").expect("readers are there");
        maker.end(Err(Error::corrupt("a damaged block")));
        drop(maker);
        assert_eq!(read(&mut first, 10).expect("bytes"), Some(b"half".to_vec()));
        for reader in [first, second] {
            assert_eq!(read_all(reader, 10).map_err(|error| error.message().to_owned()), Err("a damaged block".into()));
        }
        let (maker, reader) = self::maker(&packs);
        drop(maker);
        assert!(read_all(reader, 10).is_err(), "a maker that is dropped has failed");
    }
}
