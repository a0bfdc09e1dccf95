//! The text of all chunks, one behind another in the order of their numbers, in memory or in mapped files.
//!
//! A position counts bytes from the first chunk on. Texts arrive in batches and never change; a batch lies in one piece.
//! In a folder, a piece is a file of whole batches, named after the position that it begins at; what the last commit of
//! the index does not know of is cut off when it is opened. Files are mapped, so that what is searched often is in the
//! page cache, which the system takes back when memory is short.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    ops::{Deref, Range},
    path::{Path, PathBuf},
    sync::Arc,
};

use govc_engine::{Error, Result};

use super::{failure, mapped::Mapped};

/// A file that has reached this gets no further batch, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// How the names of the files begin, those of chunks and those of messages; what follows is the position in hexadecimal.
pub(super) const CHUNKS_PREFIX: &str = "text-";
pub(super) const MESSAGES_PREFIX: &str = "messages-";

/// All texts, for readers, who take [`Text`]s, which stay as they are.
#[derive(Default)]
pub(super) struct Contents {
    /// In the order of their beginnings, without gaps.
    pieces: Vec<(u64, Arc<Piece>)>,
    end: u64,
}

/// Where new texts go. Writing and syncing them holds up no reader.
pub(super) struct TextWriter {
    folder: Option<PathBuf>,
    prefix: &'static str,
    end: u64,
    open: Option<OpenFile>,
}

/// The file that the next batch goes to.
struct OpenFile {
    file: File,
    start: u64,
}

/// What a batch adds: a piece that takes the place of the one with the same beginning, if there is one.
pub(super) struct Added {
    start: u64,
    piece: Piece,
}

/// Neighbouring texts.
enum Piece {
    Heap(Vec<u8>),
    Mapped(Mapped),
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Heap(bytes) => bytes,
            Piece::Mapped(bytes) => bytes,
        }
    }
}

/// The text of a chunk.
#[derive(Clone)]
pub(crate) struct Text {
    piece: Arc<Piece>,
    range: Range<usize>,
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.piece.get(self.range.clone()).unwrap_or_default()
    }
}

impl TextWriter {
    /// A writer of texts in memory.
    pub(super) fn in_memory() -> Self {
        Self { folder: None, prefix: CHUNKS_PREFIX, end: 0, open: None }
    }

    /// Opens the texts in the files of `folder` whose names begin with `prefix`, up to position `end`; what follows is cut off.
    ///
    /// # Errors
    /// Corrupt if texts are missing; else when the folder cannot be read or written.
    pub(super) fn open(folder: &Path, prefix: &'static str, end: u64) -> Result<(Self, Contents)> {
        let mut writer = Self { folder: Some(folder.to_owned()), prefix, end: 0, open: None };
        let mut contents = Contents::default();
        for (start, path) in files(folder, prefix)? {
            if start >= end {
                std::fs::remove_file(&path).map_err(|error| failure("remove", &path, error))?;
                continue;
            }
            let file = OpenOptions::new().read(true).append(true).open(&path);
            let file = file.map_err(|error| failure("open", &path, error))?;
            let bytes = file.metadata().map_err(|error| failure("measure", &path, error))?.len().min(end - start);
            file.set_len(bytes).map_err(|error| failure("shorten", &path, error))?;
            if start != writer.end {
                return Err(Error::corrupt("the search index lacks texts"));
            }
            writer.end = start + bytes;
            contents.add(writer.map(file, start)?);
        }
        if writer.end != end {
            return Err(Error::corrupt("the search index lacks texts"));
        }
        Ok((writer, contents))
    }

    /// Where the texts end.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Appends the texts of a batch; in a folder they are synced when this returns.
    pub(super) fn append(&mut self, texts: Vec<u8>) -> Result<Option<Added>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let (start, bytes) = (self.end, texts.len() as u64);
        let Some(folder) = &self.folder else {
            self.end += bytes;
            return Ok(Some(Added { start, piece: Piece::Heap(texts) }));
        };
        let mut open = match self.open.take().filter(|open| start - open.start < FILE_BYTES_MAX) {
            Some(open) => open,
            None => {
                let path = folder.join(format!("{}{start:016x}", self.prefix));
                let file = OpenOptions::new().create_new(true).read(true).append(true).open(&path);
                OpenFile { file: file.map_err(|error| failure("create", &path, error))?, start }
            }
        };
        let written = open.file.write_all(&texts).and_then(|()| open.file.sync_data());
        written.map_err(|error| failure("write texts below", folder, error))?;
        self.end += bytes;
        self.map(open.file, open.start).map(Some)
    }

    /// Maps what `file`, which begins at `start`, has up to the end.
    fn map(&mut self, file: File, start: u64) -> Result<Added> {
        let bytes = usize::try_from(self.end - start).map_err(|_| Error::corrupt("a file of texts is too large"))?;
        let mapped =
            Mapped::new(&file, bytes).map_err(|error| Error::corrupt("texts cannot be mapped").with_source(error))?;
        self.open = Some(OpenFile { file, start });
        Ok(Added { start, piece: Piece::Mapped(mapped) })
    }
}

impl Contents {
    /// Takes what a writer has appended.
    pub(super) fn add(&mut self, added: Added) {
        self.pieces.retain(|(other, _)| *other != added.start);
        self.end = added.start + added.piece.len() as u64;
        self.pieces.push((added.start, Arc::new(added.piece)));
    }

    /// Bytes of all texts.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of them that are in the process's own memory.
    pub(super) fn heap_bytes(&self) -> u64 {
        let heap = |piece: &Piece| if let Piece::Heap(bytes) = piece { bytes.len() as u64 } else { 0 };
        self.pieces.iter().map(|(_, piece)| heap(piece)).sum()
    }

    /// The text between two positions of one batch.
    pub(super) fn text(&self, range: Range<u64>) -> Option<Text> {
        let at = self.pieces.partition_point(|(start, _)| *start <= range.start).checked_sub(1)?;
        let (start, piece) = self.pieces.get(at)?;
        let within = usize::try_from(range.start - start).ok()?..usize::try_from(range.end - start).ok()?;
        (within.end <= piece.len()).then(|| Text { piece: piece.clone(), range: within })
    }
}

/// The files of texts below `folder`, in the order of their positions.
fn files(folder: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| failure("list", folder, error))?;
    for entry in entries {
        let path = entry.map_err(|error| failure("list", folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(start) = name.and_then(|name| u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok()) {
            files.push((start, path));
        }
    }
    files.sort_unstable();
    Ok(files)
}
