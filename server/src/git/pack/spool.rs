//! A pack on its way in: small ones in memory, others in a temporary file.

use std::{
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Packs up to this size stay in memory, in bytes.
const MEMORY_BYTES_MAX: usize = 8 << 20;
/// Bytes collected for one write to the file.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes that were written once and are read anywhere.
pub(crate) struct Spool {
    /// What is not in the file: everything, or the end.
    buffer: Vec<u8>,
    file: Option<NamedTempFile>,
    file_bytes: u64,
    /// Where to make the file; without it everything stays in memory.
    folder: Option<PathBuf>,
}

impl Spool {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { buffer: Vec::new(), file: None, file_bytes: 0, folder }
    }

    pub(crate) fn len(&self) -> u64 {
        self.file_bytes + self.buffer.len() as u64
    }

    /// What a small pack is, all of it.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        self.file.is_none().then_some(&self.buffer)
    }

    /// Moves a large pack to `path`.
    pub(crate) fn persist(mut self, path: &Path) -> io::Result<std::fs::File> {
        self.flush_to_file()?;
        let file = self.file.ok_or_else(|| io::Error::other("a small pack has no file"))?;
        Ok(file.persist(path)?)
    }

    /// Reads up to `out.len()` bytes at `offset`; fewer only at the end.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        if let Some(file) = &self.file {
            let in_file = self.file_bytes.saturating_sub(offset).min(out.len() as u64) as usize;
            if in_file > 0 {
                file.as_file().read_exact_at(&mut out[..in_file], offset)?;
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

    fn flush_to_file(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let Some(folder) = &self.folder else { return Ok(()) };
                std::fs::create_dir_all(folder)?;
                self.file.insert(tempfile::Builder::new().prefix("incoming-").tempfile_in(folder)?)
            }
        };
        file.as_file().write_all_at(&self.buffer, self.file_bytes)?;
        self.file_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
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

    #[test]
    fn reads_give_what_was_written_in_memory_and_across_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for (folder, len) in
            [(None, 100_000), (Some(folder.path().to_owned()), 100_000), (Some(folder.path().to_owned()), 20 << 20)]
        {
            let bytes: Vec<u8> = (0..len).map(|at: usize| ((at * 31) >> 3) as u8).collect();
            let mut spool = Spool::new(folder);
            for piece in bytes.chunks(77_777) {
                spool.write_all(piece).expect("room");
            }
            assert_eq!(spool.len(), len as u64);
            for offset in [0, 1, len / 2, len - 5, len, len + 3] {
                let mut out = [0; 4096];
                let got = spool.read_at(offset as u64, &mut out).expect("readable");
                let want = &bytes[offset.min(len)..(offset + 4096).min(len).max(offset.min(len))];
                assert_eq!(&out[..got], want, "at {offset}");
            }
        }
    }
}
