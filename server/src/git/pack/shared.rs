//! Packs while they are made: who asks for what somebody else is being sent already reads along, from its beginning.
//!
//! The one who makes a pack puts it into a spool, as fast as it can, and whoever wants it takes it from there, each as
//! fast as its client does; so nobody waits for the slowest. When the spool can take no more (a full disk, or its part of
//! the cache's budget, which all spools share), the rest goes through a small window that all pass together: who comes
//! later begins a pack of its own. Making ends when nobody is left who reads.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Write},
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use govc_engine::{Error, ErrorKind, Oid, RepoId, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::spool::{Folder, Spool};
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
    /// Bytes of all spools at most.
    spooled_max: u64,
    spooled: Arc<AtomicU64>,
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
    grown: Condvar,
    /// A reader has passed on, or left.
    passed: Condvar,
}

struct State {
    /// The pack from its beginning.
    spool: Spool,
    room: Room,
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

/// What a spool takes of what all may take.
struct Room {
    bytes: u64,
    /// Of all spools. A count; orders nothing.
    spooled: Arc<AtomicU64>,
    max: u64,
}

impl Room {
    /// Whether there is room for so many bytes more, which are taken then.
    fn take(&mut self, bytes: u64) -> bool {
        let fits = self.spooled.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.max;
        if fits {
            self.bytes += bytes;
        } else {
            self.spooled.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.spooled.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The hand that makes a pack. Dropped without an end, it fails it.
pub(crate) struct PackMaker<'a> {
    packs: &'a SharedPacks,
    key: Box<FetchKey>,
    shared: Arc<Shared>,
}

/// One that is sent the pack.
pub(crate) struct PackReader {
    shared: Arc<Shared>,
    number: u64,
}

/// What a reader gets next.
pub(crate) enum Piece {
    /// So many bytes, and how many of how many objects are in what has been written.
    Bytes(usize, (usize, usize)),
    /// The pack is read.
    End(Outcome),
}

impl SharedPacks {
    /// Spools in `folder`, or in memory without one, of `spooled_max` bytes at most in all.
    pub(crate) fn new(folder: Option<Folder>, spooled_max: u64) -> Self {
        Self { under_way: Mutex::default(), folder, spooled_max, spooled: Arc::default() }
    }

    /// Finds who makes the pack, or becomes it.
    pub(crate) fn join(&self, key: FetchKey) -> Seat<'_> {
        let mut under_way = self.under_way.lock();
        if let Some(reader) = under_way.get(&key).and_then(PackReader::join) {
            return Seat::Reader(reader);
        }
        let state = State {
            spool: Spool::new(self.folder.clone()),
            room: Room { bytes: 0, spooled: Arc::clone(&self.spooled), max: self.spooled_max },
            window: None,
            window_start: 0,
            readers: HashMap::from([(0, 0)]),
            next_reader: 1,
            progress: (0, 0),
            end: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), grown: Condvar::new(), passed: Condvar::new() });
        under_way.insert(key.clone(), Arc::clone(&shared));
        let reader = PackReader { shared: Arc::clone(&shared), number: 0 };
        Seat::Maker(PackMaker { packs: self, key: Box::new(key), shared }, reader)
    }
}

impl PackMaker<'_> {
    /// Says how many of how many objects have been written.
    pub(crate) fn progress(&self, done: usize, total: usize) {
        self.shared.state.lock().progress = (done, total);
        self.shared.grown.notify_all();
    }

    /// Says that everything is written, so that readers come to their end; further ones may still join them.
    pub(crate) fn written(&self, checksum: Oid) {
        self.shared.state.lock().end.get_or_insert(Ok(Outcome::Made(checksum)));
        self.shared.grown.notify_all();
    }

    /// Says that everything is written, or found elsewhere, or why it is not. Nobody joins from now on.
    pub(crate) fn end(&self, end: Result<Outcome>) {
        self.shared.state.lock().end.get_or_insert(end);
        self.shared.grown.notify_all();
        let mut under_way = self.packs.under_way.lock();
        if under_way.get(&self.key).is_some_and(|shared| Arc::ptr_eq(shared, &self.shared)) {
            under_way.remove(&self.key);
        }
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
            let fits = state.room.take(bytes.len() as u64);
            if fits && state.spool.write_all(bytes).is_ok() {
                self.shared.grown.notify_all();
                return Ok(bytes.len());
            }
            // What the spool was given it has, in memory if it could not write it.
            state.window_start = state.spool.len();
            state.window = Some(Vec::new());
            if fits {
                self.shared.grown.notify_all();
                return Ok(bytes.len());
            }
        }
        while !state.is_window_read() {
            self.shared.passed.wait(&mut state);
            state.check_readers()?;
        }
        let State { window, window_start, .. } = &mut *state;
        let window = window.get_or_insert_default();
        *window_start += window.len() as u64;
        window.clear();
        window.extend_from_slice(bytes);
        self.shared.grown.notify_all();
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
        let end = self.window_start + self.window.as_ref().map_or(0, Vec::len) as u64;
        self.readers.values().all(|position| *position >= end)
    }

    /// What is in memory at a position, as much as fits; 0 if nothing is yet.
    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        if position < self.spool.len() {
            return self.spool.read_at(position, out);
        }
        let Some(window) = &self.window else { return Ok(0) };
        let start = position.checked_sub(self.window_start).ok_or_else(|| io::Error::other("its window has passed"))?;
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let rest = window.get(start..).unwrap_or_default();
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        Ok(len)
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

    /// Waits for what comes next and fills `out` with it, as far as it goes.
    ///
    /// # Errors
    /// What making the pack failed with, once all that was written before is read; what reading the spool fails with.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> Result<Piece> {
        let mut state = self.shared.state.lock();
        loop {
            let position = state.readers.get(&self.number).copied().unwrap_or(0);
            let failed = |error: io::Error| Error::corrupt(format!("a pack on its way cannot be read: {error}"));
            let len = match state.spool.in_file(position) {
                // Many read the same; neither they nor the maker need to wait for each other.
                Some((file, bytes)) => MutexGuard::unlocked(&mut state, || {
                    let len = usize::try_from(bytes).unwrap_or(usize::MAX).min(out.len());
                    file.read_exact_at(&mut out[..len], position).map(|()| len)
                }),
                None => state.read_at(position, out),
            };
            let len = len.map_err(failed)?;
            if len > 0 {
                state.readers.insert(self.number, position + len as u64);
                if state.window.is_some() {
                    self.shared.passed.notify_all();
                }
                return Ok(Piece::Bytes(len, state.progress));
            }
            match &state.end {
                Some(Ok(outcome)) => return Ok(Piece::End(outcome.clone())),
                Some(Err(error)) => return Err(error.clone()),
                None => self.shared.grown.wait(&mut state),
            }
        }
    }
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
    use crate::git::pack::spool::FreeBytes;

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

    fn maker(packs: &SharedPacks) -> (PackMaker<'_>, PackReader) {
        match packs.join(key(1)) {
            Seat::Maker(maker, reader) => (maker, reader),
            Seat::Reader(_) => panic!("nobody makes it yet"),
        }
    }

    fn follower(packs: &SharedPacks) -> PackReader {
        match packs.join(key(1)) {
            Seat::Reader(reader) => reader,
            Seat::Maker(..) => panic!("somebody makes it"),
        }
    }

    fn read_all(mut reader: PackReader, piece: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; piece];
        loop {
            match reader.read(&mut buffer)? {
                Piece::Bytes(len, _) => all.extend_from_slice(&buffer[..len]),
                Piece::End(Outcome::Made(_)) => return Ok(all),
                Piece::End(Outcome::Kept(_)) => panic!("it was made"),
            }
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| ((at * 31) >> 3) as u8).collect()
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
            let packs = SharedPacks::new(folder, spooled_max);
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
            assert!(matches!(packs.join(key(1)), Seat::Maker(..)), "the next one is made anew");
            drop(maker);
            assert_eq!(packs.spooled.load(Ordering::Relaxed), 0, "all room is given back");
        }
    }

    #[test]
    fn who_comes_when_a_part_has_passed_gets_a_pack_of_its_own() {
        let packs = SharedPacks::new(None, 10);
        let (maker, mut reader) = maker(&packs);
        (&maker).write_all(&[1; 10]).expect("a reader is there");
        drop(follower(&packs));
        let mut buffer = [0; 100];
        let mut read = |len: usize| {
            assert!(matches!(reader.read(&mut buffer), Ok(Piece::Bytes(got, _)) if got == len), "{len} bytes");
        };
        read(10);
        for _ in 0..2 {
            (&maker).write_all(&[2; 5]).expect("a reader is there");
            read(5);
            let Seat::Maker(other, late) = packs.join(key(1)) else { panic!("what it would read has passed") };
            drop((other, late));
        }
        maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
        assert!(matches!(reader.read(&mut buffer), Ok(Piece::End(_))));
    }

    #[test]
    fn all_spools_share_their_room() {
        let packs = SharedPacks::new(None, 100);
        let other = |repo| match packs.join(key(repo)) {
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
        let packs = SharedPacks::new(None, u64::MAX);
        let (maker, reader) = maker(&packs);
        (&maker).write_all(b"all").expect("a reader is there");
        maker.written(ObjectFormat::Sha1.null());
        assert_eq!(read_all(reader, 10).expect("a whole pack"), b"all");
        assert_eq!(read_all(follower(&packs), 10).expect("a whole pack"), b"all");
        maker.end(Err(Error::corrupt("too late")));
        assert!(matches!(packs.join(key(1)), Seat::Maker(..)));
    }

    #[test]
    fn one_that_does_not_read_holds_nobody_up() {
        let packs = SharedPacks::new(None, u64::MAX);
        let (maker, reader) = maker(&packs);
        let idle = follower(&packs);
        (&maker).write_all(&bytes(5 << 20)).expect("readers are there");
        maker.end(Ok(Outcome::Made(ObjectFormat::Sha1.null())));
        assert_eq!(read_all(reader, 1 << 20).expect("a whole pack").len(), 5 << 20);
        drop(idle);
    }

    #[test]
    fn making_ends_when_the_last_reader_leaves_and_not_before() {
        let packs = SharedPacks::new(None, u64::MAX);
        let (maker, first) = maker(&packs);
        let second = follower(&packs);
        drop(first);
        (&maker).write_all(b"more").expect("one reader is left");
        drop(second);
        assert_eq!((&maker).write_all(b"more").map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        // Nobody joins what has ended so, though its maker has not gone yet.
        assert!(matches!(packs.join(key(1)), Seat::Maker(..)));
        drop(maker);
    }

    #[test]
    fn a_reader_that_leaves_lets_the_window_go_on() {
        let packs = SharedPacks::new(None, 0);
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
        let packs = SharedPacks::new(None, u64::MAX);
        let (maker, mut first) = maker(&packs);
        let second = follower(&packs);
        (&maker).write_all(b"half").expect("readers are there");
        maker.end(Err(Error::corrupt("a damaged block")));
        drop(maker);
        let mut buffer = [0; 10];
        assert!(matches!(first.read(&mut buffer), Ok(Piece::Bytes(4, _))));
        for reader in [first, second] {
            assert_eq!(read_all(reader, 10).map_err(|error| error.message().to_owned()), Err("a damaged block".into()));
        }
        let (maker, reader) = self::maker(&packs);
        drop(maker);
        assert!(read_all(reader, 10).is_err(), "a maker that is dropped has failed");
    }
}
