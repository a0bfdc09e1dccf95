//! A pack on its way: small ones in memory, others in a temporary file.

use std::{
    fs::File,
    io::{self, IoSliceMut, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::io::{ReadWriteFlags, preadv2};
use tempfile::TempPath;

/// Packs up to this size stay in memory, in bytes.
const MEMORY_BYTES_MAX: usize = 8 << 20;
/// Bytes of a piece that has a checksum of its own.
pub(crate) const PIECE_BYTES: usize = 256 << 10;
/// Bytes collected for one write to the file.
const WRITE_BYTES: usize = 1 << 20;

/// Tells the bytes that an ordinary user may still write to the file system of a folder.
pub(crate) type FreeBytes = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Where packs are put, and what must stay free there.
#[derive(Clone)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Bytes that are left to the store, which needs them to make room.
    pub(crate) reserve_bytes: u64,
    pub(crate) free_bytes: Arc<FreeBytes>,
}

impl Folder {
    /// A folder whose file system is asked for its free space.
    pub(crate) fn new(path: PathBuf, reserve_bytes: u64) -> Self {
        Self { path, reserve_bytes, free_bytes: Arc::new(free_bytes_of) }
    }

    /// How many bytes are missing for `bytes` more above the reserve.
    ///
    /// # Errors
    /// When the file system cannot be asked.
    pub(crate) fn missing_bytes(&self, bytes: u64) -> io::Result<u64> {
        Ok(self.reserve_bytes.saturating_add(bytes).saturating_sub((self.free_bytes)(&self.path)?))
    }

    /// Checks that `bytes` more fit above the reserve.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if they do not.
    pub(crate) fn check_room(&self, bytes: u64) -> io::Result<()> {
        match self.missing_bytes(bytes)? {
            0 => Ok(()),
            missing => {
                let message = format!("the disk is full: {missing} bytes are missing");
                Err(io::Error::new(io::ErrorKind::StorageFull, message))
            }
        }
    }
}

fn free_bytes_of(path: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Bytes that were written once and are read anywhere.
pub(crate) struct Spool {
    /// What is not in the file: everything, or the end.
    buffer: Vec<u8>,
    file: Option<SpoolFile>,
    file_bytes: u64,
    /// Where to make the file; without it everything stays in memory.
    folder: Option<Folder>,
    sums: PieceSums,
}

/// The CRC-32C of each [`PIECE_BYTES`] of what is written; of what follows the last whole ones, too.
#[derive(Clone, Default)]
struct PieceSums {
    whole: Vec<u32>,
    last: u32,
    /// Bytes that `last` is of.
    last_bytes: usize,
}

impl PieceSums {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.last_bytes));
            self.last = crc32c::crc32c_append(self.last, piece);
            self.last_bytes += piece.len();
            if self.last_bytes == PIECE_BYTES {
                self.whole.push(std::mem::take(&mut self.last));
                self.last_bytes = 0;
            }
            bytes = rest;
        }
    }

    fn all(&self) -> Vec<u32> {
        let last = (self.last_bytes > 0).then_some(self.last);
        self.whole.iter().copied().chain(last).collect()
    }
}

struct SpoolFile {
    file: Arc<File>,
    /// Removes it, unless it has become somebody's.
    temporary: Option<TempPath>,
}

impl Spool {
    pub(crate) fn new(folder: Option<Folder>) -> Self {
        Self { buffer: Vec::new(), file: None, file_bytes: 0, folder, sums: PieceSums::default() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.file_bytes + self.buffer.len() as u64
    }

    /// The CRC-32C of each piece of [`PIECE_BYTES`], the last one's of what there is.
    pub(crate) fn piece_sums(&self) -> Vec<u32> {
        self.sums.all()
    }

    /// What a small pack is, all of it.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        self.file.is_none().then_some(&self.buffer)
    }

    /// A large pack for who keeps it: the file is that one's from now on, and can be read here all the same. Touches no disk.
    pub(crate) fn detach(&mut self) -> Option<Self> {
        let SpoolFile { file, temporary } = self.file.as_mut()?;
        let file = SpoolFile { file: Arc::clone(file), temporary: temporary.take() };
        let Self { buffer, file_bytes, folder, sums, .. } = &*self;
        let (buffer, folder, sums) = (buffer.clone(), folder.clone(), sums.clone());
        Some(Self { buffer, file: Some(file), file_bytes: *file_bytes, folder, sums })
    }

    /// Moves a large pack to `path`, where it stays. It can be read on.
    ///
    /// # Errors
    /// When the file cannot be written or moved.
    pub(crate) fn persist(&mut self, path: &Path) -> io::Result<Arc<File>> {
        self.flush_to_file()?;
        let moved = || io::Error::other("a pack has no file, or has become somebody's");
        let file = self.file.as_mut().ok_or_else(moved)?;
        file.temporary.take().ok_or_else(moved)?.persist(path)?;
        Ok(Arc::clone(&file.file))
    }

    /// The file, and how many of its bytes from `offset` on are written, if any are. They stay as they are.
    pub(crate) fn in_file(&self, offset: u64) -> Option<(Arc<File>, u64)> {
        let bytes = self.file_bytes.checked_sub(offset).filter(|bytes| *bytes > 0)?;
        self.file.as_ref().map(|file| (Arc::clone(&file.file), bytes))
    }

    /// What is in memory from `offset` on; nothing if that is in the file.
    pub(crate) fn buffered(&self, offset: u64) -> &[u8] {
        let start = offset.checked_sub(self.file_bytes).and_then(|start| usize::try_from(start).ok());
        start.and_then(|start| self.buffer.get(start..)).unwrap_or_default()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.buffer.capacity() as u64
    }

    /// Moves what is in memory to the file, however little, and gives the memory back; without a folder, everything stays.
    ///
    /// # Errors
    /// As [`Spool::flush_to_file`].
    pub(crate) fn put_away(&mut self) -> io::Result<()> {
        self.flush_to_file()?;
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Gives memory back when nothing more is written.
    pub(crate) fn settle(&mut self) {
        if self.file.is_some() {
            // What cannot be written stays.
            let _ = self.flush_to_file();
        }
        self.buffer.shrink_to_fit();
    }

    /// Reads up to `out.len()` bytes at `offset`; fewer only at the end.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        if let Some(file) = &self.file {
            let in_file = self.file_bytes.saturating_sub(offset).min(out.len() as u64) as usize;
            if in_file > 0 {
                file.file.read_exact_at(&mut out[..in_file], offset)?;
                done = in_file;
            }
        }
        let start = (offset + done as u64).saturating_sub(self.file_bytes) as usize;
        if let Some(rest) = self.buffer.get(start..) {
            let len = rest.len().min(out.len() - done);
            out[done..done + len].copy_from_slice(&rest[..len]);
            done += len;
        }
        Ok(done)
    }

    /// Moves what is in memory to the file, and makes that if there is none; without a folder, everything stays.
    ///
    /// # Errors
    /// When the file cannot be made or written; what was in memory is there still.
    pub(crate) fn flush_to_file(&mut self) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let file = match &self.file {
            Some(file) => file,
            None => {
                std::fs::create_dir_all(&folder.path)?;
                let (file, path) = tempfile::Builder::new().prefix("incoming-").tempfile_in(&folder.path)?.into_parts();
                self.file.insert(SpoolFile { file: Arc::new(file), temporary: Some(path) })
            }
        };
        folder.check_room(self.buffer.len() as u64)?;
        file.file.write_all_at(&self.buffer, self.file_bytes)?;
        self.file_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        // It was filled far beyond what is collected for a file.
        self.buffer.shrink_to(2 * WRITE_BYTES);
        Ok(())
    }
}

/// Reads `len` bytes of a file at `offset` into `out`, in place of what is there. What the system has in memory is copied at
/// once; for the rest the task waits without a thread.
///
/// # Errors
/// When they cannot be read; [`io::ErrorKind::ConnectionAborted`] when the server stops.
pub(crate) async fn read_file(file: &Arc<File>, offset: u64, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = std::mem::take(out);
    bytes.resize(len, 0);
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // Where that cannot be asked for, or fails, the other way tells.
        match preadv2(file, &mut [IoSliceMut::new(rest)], offset + done as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) | Err(_) => break,
            Ok(read) => done += read,
        }
    }
    if done < len {
        let file = Arc::clone(file);
        let read = move || file.read_exact_at(&mut bytes[done..], offset + done as u64).map(|()| bytes);
        let stopping = |error| io::Error::new(io::ErrorKind::ConnectionAborted, error);
        bytes = tokio::task::spawn_blocking(read).await.map_err(stopping)??;
    }
    *out = bytes;
    Ok(())
}

/// Reads a spool from its beginning to its end.
pub(crate) struct SpoolReader<'a> {
    spool: &'a Spool,
    at: u64,
}

impl<'a> SpoolReader<'a> {
    pub(crate) fn new(spool: &'a Spool) -> Self {
        Self { spool, at: 0 }
    }
}

impl Read for SpoolReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.spool.read_at(self.at, into)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.sums.add(bytes);
        let limit = if self.file.is_some() { WRITE_BYTES } else { MEMORY_BYTES_MAX };
        if self.buffer.len() > limit {
            self.flush_to_file()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| ((at * 31) >> 3) as u8).collect()
    }

    #[test]
    fn reads_give_what_was_written_in_memory_and_across_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = || Some(Folder::new(dir.path().to_owned(), 0));
        for (folder, len) in [(None, 100_000), (folder(), 100_000), (folder(), 20 << 20)] {
            let bytes = bytes(len);
            let mut spool = Spool::new(folder);
            for piece in bytes.chunks(77_777) {
                spool.write_all(piece).expect("room");
            }
            assert_eq!(spool.len(), len as u64);
            let sums: Vec<u32> = bytes.chunks(PIECE_BYTES).map(crc32c::crc32c).collect();
            assert_eq!(spool.piece_sums(), sums);
            for offset in [0, 1, len / 2, len - 5, len, len + 3] {
                let mut out = [0; 4096];
                let got = spool.read_at(offset as u64, &mut out).expect("readable");
                let want = &bytes[offset.min(len)..(offset + 4096).min(len).max(offset.min(len))];
                assert_eq!(&out[..got], want, "at {offset}");
            }
        }
    }

    #[test]
    fn a_pack_on_its_way_in_leaves_the_reserve_free() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |reserve_bytes: u64, len: usize| {
            let free_bytes: Arc<FreeBytes> = Arc::new(|_: &Path| Ok(100 << 20));
            let folder = Folder { path: dir.path().to_owned(), reserve_bytes, free_bytes };
            let mut spool = Spool::new(Some(folder));
            bytes(len).chunks(77_777).try_for_each(|piece| spool.write_all(piece)).map_err(|error| error.kind())
        };
        assert_eq!(write(80 << 20, 12 << 20), Ok(()));
        assert_eq!(write(95 << 20, 12 << 20), Err(io::ErrorKind::StorageFull));
        assert_eq!(write(95 << 20, 1 << 20), Ok(()), "a small pack needs no disk");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0, "no file is left");
    }
}
