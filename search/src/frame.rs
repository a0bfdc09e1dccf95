//! Frames: how files of the index that only grow are written, one piece at a time, each with its length and checksum.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use govc_engine::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::index::failure;

/// The length and the checksum in front of a payload, in bytes.
pub(crate) const HEAD_BYTES: usize = 12;

/// Appends a frame, which is synced when this returns; how many bytes it takes.
pub(crate) fn append(file: &mut File, payload: &[u8]) -> io::Result<u64> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
    frame.extend((payload.len() as u64).to_le_bytes());
    frame.extend(crc32c::crc32c(payload).to_le_bytes());
    frame.extend(payload);
    file.write_all(&frame)?;
    file.sync_data()?;
    Ok(frame.len() as u64)
}

/// The next frame's payload, or `None` if it is not whole; `rest_bytes` are left of the file.
pub(crate) fn read(file: &mut File, rest_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    if rest_bytes < HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head)?;
    let (Some(bytes), Some(sum)) = (head.first_chunk::<8>(), head.last_chunk::<4>()) else { return Ok(None) };
    let (bytes, sum) = (u64::from_le_bytes(*bytes), u32::from_le_bytes(*sum));
    if bytes > rest_bytes - HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut payload = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact(&mut payload)?;
    Ok((crc32c::crc32c(&payload) == sum).then_some(payload))
}

/// A file of a head and frames, of which any beginning means something: open for appending.
pub(crate) struct FramesFile {
    file: File,
    path: PathBuf,
    end: u64,
}

impl FramesFile {
    /// Opens the file at `path`, which is begun if it is not there or does not begin with `head`, and gives each frame to
    /// `each`; behind one that is damaged, or that `each` refuses, the file is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(crate) fn open<F: DeserializeOwned>(
        path: PathBuf,
        head: &[u8],
        mut each: impl FnMut(F) -> bool,
    ) -> Result<Self> {
        let opened = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let mut opened = Self { file: opened.map_err(|error| failure("open", &path, error))?, path, end: 0 };
        let bytes = opened.file.metadata().map_err(|error| opened.failed("measure", error))?.len();
        if opened.has_head(bytes, head)? {
            opened.end = head.len() as u64;
            while let Some(payload) =
                read(&mut opened.file, bytes - opened.end).map_err(|error| opened.failed("read", error))?
            {
                if !postcard::from_bytes(&payload).is_ok_and(&mut each) {
                    break;
                }
                opened.end += (HEAD_BYTES + payload.len()) as u64;
            }
        }
        opened.file.set_len(opened.end).map_err(|error| opened.failed("shorten", error))?;
        if opened.end == 0 {
            opened.file.write_all(head).map_err(|error| opened.failed("write", error))?;
            opened.end = head.len() as u64;
        }
        Ok(opened)
    }

    fn has_head(&mut self, bytes: u64, expected: &[u8]) -> Result<bool> {
        let mut head = vec![0; expected.len()];
        if bytes < head.len() as u64 {
            return Ok(false);
        }
        self.file.read_exact(&mut head).map_err(|error| self.failed("read", error))?;
        Ok(head == expected)
    }

    fn failed(&self, verb: &str, error: io::Error) -> Error {
        failure(verb, &self.path, error)
    }

    /// Where the file ends, in bytes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends a frame, which is synced when this returns.
    ///
    /// # Errors
    /// When it cannot be written: the file may then have a part of it.
    pub(crate) fn append<F: Serialize>(&mut self, frame: &F) -> Result<()> {
        let payload = postcard::to_stdvec(frame)
            .map_err(|error| Error::invalid("a frame cannot be written").with_source(error))?;
        self.end += append(&mut self.file, &payload).map_err(|error| self.failed("write", error))?;
        Ok(())
    }
}
