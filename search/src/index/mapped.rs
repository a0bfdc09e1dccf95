//! A file in memory, read only.
#![allow(unsafe_code, reason = "mapping a file is unsafe: the system does not keep others from changing it")]

use std::{fs::File, io, ops::Deref};

/// The first bytes of a file that nobody changes.
pub(super) struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps the first `bytes` of `file`, which may grow afterwards.
    pub(super) fn new(file: &File, bytes: usize) -> io::Result<Self> {
        if file.metadata()?.len() < bytes as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        // SAFETY: the file is in the index's own folder, whose lock this process holds; it is appended to only, so
        // that the mapped bytes stay. Who shortens it from outside ends the process, as with any mapped database.
        let map = unsafe { memmap2::MmapOptions::new().len(bytes).map(file)? };
        Ok(Self(map))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
