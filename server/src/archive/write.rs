//! An archive that is being written: step by step, each making one piece of its bytes in a short time, so that between
//! steps nothing but the archive's own state is held, by nobody's thread.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use govc_engine::{Error, Kind, Oid, Result, Snapshot};

use super::{
    Format,
    attributes::{Name, Value},
    convert::Conversion,
    entries::{Entries, Entry, EntryKind, Next, PATH_BYTES_MAX, size_of},
    tar::{Content, Tar},
    zip::{self, Zip},
};

/// What an archive holds however little is in it, in bytes: a compressor, and pieces on their way.
const BASE_BYTES: u64 = 512 << 10;
/// About how many bytes a step makes.
const PIECE_BYTES: usize = 64 << 10;
/// About how long a step takes at most.
const STEP_MAX: Duration = Duration::from_millis(50);
/// How much of a large file is written in one go.
const PART_BYTES: usize = 64 << 10;
const GZIP_LEVEL: u32 = 6;
/// Unix, as gzip headers say it; the machine's own would make archives differ.
const GZIP_SYSTEM: u8 = 3;

/// What goes into an archive.
#[derive(Debug, Clone)]
pub(crate) struct Contents {
    pub(crate) commit: Oid,
    /// What stands before each path: a directory if it ends in a slash.
    pub(crate) prefix: Vec<u8>,
    /// The only file or directory that is wanted; empty for all.
    pub(crate) path: Vec<u8>,
}

/// What a step came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next bytes.
    Piece(Bytes),
    /// It took long enough, and there are no bytes yet.
    Pause,
    /// The archive cannot go on before it may hold so many bytes.
    Needs(u64),
    /// There is no more.
    End,
}

/// An archive on its way.
pub(crate) struct Archive {
    entries: Entries,
    prefix: Vec<u8>,
    /// The root tree, for the prefix's own entry.
    tree: Oid,
    out: Output,
    container: Container,
    content: Option<Current>,
    /// An entry whose content could not be read yet.
    entry: Option<Entry>,
    stage: Stage,
    granted_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Prefix,
    Entries,
    /// The directory of a zip file.
    Listing,
    Ended,
}

enum Container {
    Tar(Tar),
    Zip(Box<Zip>),
}

/// A large file that is being written.
struct Current {
    data: Bytes,
    at: usize,
}

/// Bytes that wait to be taken.
enum Output {
    Plain(Vec<u8>),
    /// What is not compressed yet, and the compressor with what is.
    Gzip(Vec<u8>, Box<GzEncoder<Vec<u8>>>),
}

impl Archive {
    /// Begins an archive.
    ///
    /// # Errors
    /// When the commit cannot be read, or the prefix is one that must not be in an archive.
    pub(crate) fn new(snapshot: Snapshot, contents: &Contents, format: Format) -> Result<Self> {
        check_prefix(&contents.prefix)?;
        let commit = snapshot.commit(&contents.commit)?;
        let seconds = commit.committer.seconds;
        let mut out = match format {
            Format::TarGzip => {
                let header = GzBuilder::new().mtime(0).operating_system(GZIP_SYSTEM);
                Output::Gzip(Vec::new(), Box::new(header.write(Vec::new(), Compression::new(GZIP_LEVEL))))
            }
            Format::Tar | Format::Zip => Output::Plain(Vec::new()),
        };
        let container = match format {
            Format::Zip => Container::Zip(Box::new(Zip::new(contents.commit, seconds))),
            Format::Tar | Format::TarGzip => Container::Tar(Tar::begin(contents.commit, seconds, out.buffer())),
        };
        Ok(Self {
            entries: Entries::new(snapshot, commit.tree, &contents.path)?,
            prefix: contents.prefix.clone(),
            tree: commit.tree,
            out,
            container,
            content: None,
            entry: None,
            stage: Stage::Prefix,
            granted_bytes: 0,
        })
    }

    /// Gives the archive leave to hold so many bytes.
    pub(crate) fn grant(&mut self, bytes: u64) {
        self.granted_bytes = bytes;
    }

    /// How many bytes it holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        let kept = match &self.container {
            Container::Tar(_) => 0,
            Container::Zip(zip) => zip.kept_bytes(),
        };
        let content = self.content.as_ref().map_or(0, |current| current.data.len() as u64);
        [self.entries.held_bytes(), kept, content].into_iter().fold(BASE_BYTES, u64::saturating_add)
    }

    /// Makes the next bytes.
    ///
    /// # Errors
    /// When objects are missing or damaged, or the tree is one that cannot be archived. The archive is broken then.
    pub(crate) fn step(&mut self) -> Result<Step> {
        let until = Instant::now() + STEP_MAX;
        while self.stage != Stage::Ended {
            let held_bytes = self.held_bytes();
            if held_bytes > self.granted_bytes {
                return Ok(Step::Needs(held_bytes));
            }
            if let Some(missing) = self.advance(until)? {
                return Ok(Step::Needs(missing));
            }
            self.out.compress()?;
            if self.out.len() >= PIECE_BYTES || Instant::now() >= until {
                break;
            }
        }
        let piece = self.out.take();
        Ok(match () {
            () if !piece.is_empty() => Step::Piece(piece.into()),
            () if self.stage == Stage::Ended => Step::End,
            () => Step::Pause,
        })
    }

    /// Writes an entry, or a part of one; gives how many bytes of leave are needed if it cannot.
    fn advance(&mut self, until: Instant) -> Result<Option<u64>> {
        if self.content.is_some() {
            self.write_part()?;
            return Ok(None);
        }
        match self.stage {
            Stage::Prefix => {
                if self.prefix.ends_with(b"/") {
                    let path = self.prefix.clone();
                    self.write_directory(&path, self.tree);
                }
                self.stage = Stage::Entries;
            }
            Stage::Entries => {
                let entry = match self.entry.take() {
                    Some(entry) => entry,
                    None => match self.next_entry(until)? {
                        Next::Entry(entry) => entry,
                        Next::Pause => return Ok(None),
                        Next::Needs(bytes) => return Ok(Some(bytes)),
                        Next::End => {
                            self.end_entries()?;
                            return Ok(None);
                        }
                    },
                };
                return self.write_entry(entry);
            }
            Stage::Listing => match self.next_entry(until)? {
                Next::Entry(entry) => {
                    let path = [self.prefix.as_slice(), self.entries.path()].concat();
                    if let Container::Zip(zip) = &mut self.container {
                        zip.listed(&path, entry.kind, self.out.buffer())?;
                    }
                }
                Next::Needs(bytes) => return Ok(Some(bytes)),
                Next::Pause => {}
                Next::End => self.end()?,
            },
            Stage::Ended => {}
        }
        Ok(None)
    }

    fn next_entry(&mut self, until: Instant) -> Result<Next> {
        let others = self.held_bytes().saturating_sub(self.entries.held_bytes());
        Ok(match self.entries.next(self.granted_bytes.saturating_sub(others), until)? {
            Next::Needs(bytes) => Next::Needs(bytes.saturating_add(others)),
            next => next,
        })
    }

    fn write_entry(&mut self, entry: Entry) -> Result<Option<u64>> {
        let path = [self.prefix.as_slice(), self.entries.path()].concat();
        if path.len() > PATH_BYTES_MAX {
            return Err(Error::too_large(format!("a path has more than {PATH_BYTES_MAX} bytes")));
        }
        if entry.kind == EntryKind::Directory {
            self.write_directory(&path, entry.oid);
            return Ok(None);
        }
        let conversion = Conversion::of(&entry.values);
        let converts = entry.kind != EntryKind::Link && !conversion.is_nothing();
        let size = size_of(self.entries.snapshot(), entry.oid, Kind::Blob)?;
        if entry.kind == EntryKind::Link && size > PATH_BYTES_MAX as u64 {
            return Err(Error::too_large(format!("a link leads to more than {PATH_BYTES_MAX} bytes")));
        }
        // With CRLF, a file has at most twice its bytes; the old ones are held meanwhile.
        let needed_bytes = self.held_bytes().saturating_add(if converts { size.saturating_mul(3) } else { size });
        if needed_bytes > self.granted_bytes {
            self.entry = Some(entry);
            return Ok(Some(needed_bytes));
        }
        let data = self.entries.snapshot().object_of(&entry.oid, Kind::Blob)?;
        let data = if converts { conversion.apply(self.entries.snapshot().object_format(), data)? } else { data };
        let is_text = match entry.values.get(Name::Diff) {
            Value::Set => Some(true),
            Value::Unset => Some(false),
            Value::Text(_) | Value::Unspecified => None,
        };
        let out = self.out.buffer();
        match &mut self.container {
            Container::Tar(tar) if entry.kind == EntryKind::Link => {
                tar.entry(&path, entry.kind, entry.oid, Content::Target(&data), out);
            }
            Container::Tar(tar) => {
                tar.entry(&path, entry.kind, entry.oid, Content::Bytes(data.len() as u64), out);
                self.content = (!data.is_empty()).then_some(Current { data, at: 0 });
            }
            Container::Zip(zip) if entry.kind == EntryKind::Link || data.len() as u64 <= zip::WHOLE_BYTES_MAX => {
                zip.whole(&path, entry.kind, &data, is_text, out)?;
            }
            Container::Zip(zip) => {
                zip.begin(&path, &data, is_text, out);
                self.content = Some(Current { data, at: 0 });
            }
        }
        Ok(None)
    }

    fn write_directory(&mut self, path: &[u8], oid: Oid) {
        let out = self.out.buffer();
        match &mut self.container {
            Container::Tar(tar) => tar.entry(path, EntryKind::Directory, oid, Content::Nothing, out),
            Container::Zip(zip) => zip.directory(path, out),
        }
    }

    /// Writes a part of the current file.
    fn write_part(&mut self) -> Result<()> {
        let Some(Current { data, at }) = &mut self.content else { return Ok(()) };
        let end = at.saturating_add(PART_BYTES).min(data.len());
        let part = data.get(*at..end).unwrap_or_default();
        let out = self.out.buffer();
        match &mut self.container {
            Container::Tar(tar) => tar.content(part, out),
            Container::Zip(zip) => zip.content(part, out)?,
        }
        *at = end;
        if end == data.len() {
            self.content = None;
            match &mut self.container {
                Container::Tar(tar) => tar.pad(out),
                Container::Zip(zip) => zip.end_content(out)?,
            }
        }
        Ok(())
    }

    /// Goes on with what follows the entries.
    fn end_entries(&mut self) -> Result<()> {
        match &mut self.container {
            Container::Tar(_) => self.end(),
            Container::Zip(zip) => {
                self.entries = self.entries.again()?;
                if self.prefix.ends_with(b"/") {
                    zip.listed(&self.prefix, EntryKind::Directory, self.out.buffer())?;
                }
                self.stage = Stage::Listing;
                Ok(())
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        match &mut self.container {
            Container::Tar(tar) => tar.end(self.out.buffer()),
            Container::Zip(zip) => zip.end(self.out.buffer()),
        }
        self.stage = Stage::Ended;
        self.out.end()
    }
}

impl Output {
    /// Where bytes are put, as they are in the tar or zip file.
    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Plain(out) | Self::Gzip(out, _) => out,
        }
    }

    /// How many bytes are ready.
    fn len(&self) -> usize {
        match self {
            Self::Plain(out) => out.len(),
            Self::Gzip(_, encoder) => encoder.get_ref().len(),
        }
    }

    fn compress(&mut self) -> Result<()> {
        if let Self::Gzip(waiting, encoder) = self {
            encoder.write_all(waiting).map_err(failed)?;
            waiting.clear();
        }
        Ok(())
    }

    /// Makes ready what is not.
    fn end(&mut self) -> Result<()> {
        self.compress()?;
        if let Self::Gzip(_, encoder) = self {
            encoder.try_finish().map_err(failed)?;
        }
        Ok(())
    }

    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(out) => std::mem::take(out),
            Self::Gzip(_, encoder) => std::mem::take(encoder.get_mut()),
        }
    }
}

/// Refuses what would let an archive write outside of where it is unpacked.
fn check_prefix(prefix: &[u8]) -> Result<()> {
    let is_bad = prefix.starts_with(b"/")
        || prefix.contains(&0)
        || prefix
            .split(|byte| *byte == b'/')
            .any(|part| part == b".." || part == b"." || part.eq_ignore_ascii_case(b".git"))
        || prefix.windows(2).any(|two| two == b"//")
        || prefix.len() > 4096;
    if is_bad {
        let rule = "a prefix is a relative path of at most 4096 bytes, without empty parts, `.`, `..` and `.git`";
        return Err(Error::invalid(rule));
    }
    Ok(())
}

fn failed(error: std::io::Error) -> Error {
    Error::corrupt(format!("compression failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::check_prefix;

    #[test]
    fn a_prefix_stays_where_it_is() {
        for prefix in ["", "a/", "a-1.0/src/", "dots..in/", "plain-"] {
            assert!(check_prefix(prefix.as_bytes()).is_ok(), "{prefix}");
        }
        for prefix in
            ["/a/", "../a/", "a/../b/", "./a", "a//b", ".git/", "a/.GIT/hooks/", "a\0", "..", &"x".repeat(4097)]
        {
            assert!(check_prefix(prefix.as_bytes()).is_err(), "{prefix}");
        }
    }
}
