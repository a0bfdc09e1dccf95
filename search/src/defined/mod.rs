//! What the files of branches and tags define, recorded by the indexer: so that a question for definitions parses nothing.
//!
//! A record is of a blob in a language, for the language depends on the path as well. It is a fact of the two, so whatever is
//! recorded, an answer is what it would be without; a file without a record is parsed when it is asked for
//! ([`crate::definitions`]). Only tips are gone through: in all of a history there are many times as many versions of files,
//! and few ever ask what those define.
//!
//! Names are kept once each, in one text that a pattern is matched against, with the records that have them.
//!
//! The tables only grow. A search notes how many records there are when it begins ([`NamesFound`]) and knows of none that
//! come later.
//!
//! Locks: the writer's, then that of the rows.

mod code;
mod file;
mod names;
mod rows;

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::HashMap,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use govc_engine::{Error, ErrorKind, Oid, Result};
use parking_lot::{Mutex, RwLock};

pub(crate) use self::rows::RecordNo;
use self::{
    file::{FileRecord, Frame, Told},
    names::NameNo,
    rows::Rows,
};
use crate::{
    deadline,
    definitions::Defined,
    find::Matcher,
    frame::FramesFile,
    index::{Bits, BlobNo, Index},
    language::Language,
    symbols::{Skipped, Symbol},
};

/// What the records may take in memory, in bytes: files beyond it are parsed when they are asked for. A definition takes
/// about 50, so some 20 million fit.
const RESIDENT_BYTES_MAX: u64 = 1 << 30;

/// Figures of what is recorded of definitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SymbolFigures {
    /// Files that are recorded, each distinct content once for each language that it is in.
    pub files: u64,
    /// Those of them whose definitions cannot be told.
    pub untold_files: u64,
    /// Definitions.
    pub symbols: u64,
    /// Distinct names.
    pub names: u64,
    /// What it takes on the disk, in bytes.
    pub stored_bytes: u64,
    /// What it takes of the process's own memory, in bytes, about.
    pub resident_bytes: u64,
    /// Files that are known to wait: to be looked at, or to be tried again.
    pub waiting_files: u64,
    /// Whether all tips have been gone through, so that no more are waiting than these.
    pub is_complete: bool,
    /// Whether it has reached its limit in memory and takes up no more files.
    pub is_full: bool,
}

/// What is recorded.
pub(crate) struct Records {
    rows: RwLock<Rows>,
    /// `None` once it is released.
    writer: Mutex<Option<Writer>>,
    resident_bytes_max: u64,
    /// Written by who commits; for figures.
    stored_bytes: AtomicU64,
    /// Set once by the writer when the limit is reached.
    is_full: AtomicBool,
    /// Written by the indexer; for figures.
    waiting_files: AtomicU64,
    is_complete: AtomicBool,
}

/// What only the one that adds needs.
#[derive(Default)]
struct Writer {
    file: Option<FramesFile>,
    pending: Frame,
    /// The blob and language of each pending file.
    keys: Vec<(BlobNo, Language)>,
    /// The numbers that the pending names will have.
    names: HashMap<Vec<u8>, NameNo>,
    pending_bytes: usize,
    /// Writing failed: what is in memory and in the file may differ.
    is_broken: bool,
}

/// In which of the records that there were at one moment a pattern matches a name.
pub(crate) struct NamesFound {
    records: Bits,
    count: RecordNo,
}

/// The definitions of a file with their names.
#[derive(Default)]
pub(crate) struct Named {
    symbols: Vec<Symbol>,
    names: Vec<u8>,
}

impl Named {
    /// The definitions of a file with this content.
    pub(crate) fn of(symbols: &[Symbol], content: &[u8]) -> Self {
        let mut named = Self::default();
        // What lies outside of the content is left out, with its name.
        for (symbol, name) in symbols.iter().filter_map(|symbol| Some((symbol, content.get(symbol.name.clone())?))) {
            named.symbols.push(symbol.clone());
            named.names.extend_from_slice(name);
        }
        named
    }

    /// Each definition with its name, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Symbol, &[u8])> {
        let mut start = 0;
        self.symbols.iter().map(move |symbol| {
            let end = start + symbol.name.len();
            let name = self.names.get(start..end).unwrap_or_default();
            start = end;
            (symbol, name)
        })
    }
}

impl Records {
    /// Records that are lost with the process.
    pub(crate) fn in_memory() -> Self {
        Self::of(Rows::default(), Writer::default())
    }

    /// Opens the records in a folder: those of definitions as of `version`. Those of another one, and what is damaged with
    /// what came after it, are to be told again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub(crate) fn open(folder: &Path, index: &Index, version: u64) -> Result<Self> {
        let mut rows = Rows::default();
        let load = |frame: Frame| {
            let oids = frame.files.iter().map(|file| Oid::from_bytes(&file.oid).ok()).collect::<Option<Vec<Oid>>>();
            oids.is_some_and(|oids| rows.add(&frame, &index.numbers(&oids)).is_some())
        };
        let file = file::open(folder, version, load)?;
        Ok(Self::of(rows, Writer { file: Some(file), ..Writer::default() }))
    }

    fn of(rows: Rows, writer: Writer) -> Self {
        let stored_bytes = AtomicU64::new(writer.file.as_ref().map_or(0, FramesFile::end));
        Self {
            is_full: AtomicBool::new(rows.resident_bytes() > RESIDENT_BYTES_MAX),
            rows: RwLock::new(rows),
            writer: Mutex::new(Some(writer)),
            resident_bytes_max: RESIDENT_BYTES_MAX,
            stored_bytes,
            waiting_files: AtomicU64::new(0),
            is_complete: AtomicBool::new(false),
        }
    }

    /// Whether a file is recorded, committed or not.
    pub(crate) fn has(&self, blob: BlobNo, language: Language) -> bool {
        let writer = self.writer.lock();
        writer.as_ref().is_some_and(|writer| writer.keys.contains(&(blob, language)))
            || self.rows.read().number(blob, language).is_some()
    }

    /// Whether no more files are taken up.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Adds what was told of a file; whether that is something to record: not if it may be told another time, or is none of
    /// the file's content.
    ///
    /// # Errors
    /// Closed when it is released.
    pub(crate) fn add(
        &self,
        (blob, oid): (BlobNo, Oid),
        language: Language,
        content: &[u8],
        told: &Result<Vec<Symbol>, Skipped>,
    ) -> Result<bool> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        let told = match told {
            Ok(symbols) => writer.encode(symbols, content, &self.rows.read()),
            Err(Skipped::TooLarge) => Some(Told::TooLarge),
            Err(Skipped::Hazardous) => Some(Told::Hazardous),
            Err(Skipped::TooMany) => Some(Told::TooMany),
            // How long a file takes depends on what else the machine does.
            Err(Skipped::TooSlow | Skipped::NoThread | Skipped::NoAnswer | Skipped::Unsupported) => None,
        };
        let Some(told) = told else { return Ok(false) };
        let record = FileRecord { oid: oid.as_bytes().to_vec(), language: language.stable_id(), told };
        writer.pending.files.push(record);
        writer.keys.push((blob, language));
        Ok(true)
    }

    /// How many files wait to be committed, and what they take, in bytes.
    pub(crate) fn pending(&self) -> (usize, usize) {
        self.writer.lock().as_ref().map_or((0, 0), |writer| (writer.keys.len(), writer.pending_bytes))
    }

    /// Commits what was added: questions find it, and it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; the records are then to be opened anew.
    pub(crate) fn commit(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        if writer.is_broken {
            return Err(Error::new(ErrorKind::Closed, "a commit of the recorded definitions failed earlier"));
        }
        let frame = std::mem::take(&mut writer.pending);
        let blobs: Vec<BlobNo> = std::mem::take(&mut writer.keys).into_iter().map(|(blob, _)| blob).collect();
        (writer.names, writer.pending_bytes) = (HashMap::new(), 0);
        if frame.files.is_empty() || self.is_full() {
            return Ok(());
        }
        let mut rows = self.rows.write();
        let added = rows.add(&frame, &blobs);
        let is_full = added.is_none() || rows.resident_bytes() > self.resident_bytes_max;
        drop(rows);
        self.is_full.store(is_full, Ordering::Relaxed);
        if let Some(file) = writer.file.as_mut().filter(|_| added.is_some()) {
            writer.is_broken = true;
            file.append(&frame)?;
            self.stored_bytes.store(file.end(), Ordering::Relaxed);
            writer.is_broken = false;
        }
        Ok(())
    }

    /// Lets another open the folder: nothing can be added any more.
    pub(crate) fn release(&self) {
        *self.writer.lock() = None;
    }

    /// What is recorded of a file, if anything is.
    pub(crate) fn defined(&self, blob: BlobNo, language: Language) -> Option<Defined> {
        let rows = self.rows.read();
        let record = rows.number(blob, language)?;
        let mut symbols = Vec::new();
        Some(rows.symbols(record, &mut |symbol, _| symbols.push(symbol)).map(|()| Arc::from(symbols)))
    }

    /// The recorded definitions of a file with their names; `None` if none are recorded, or they cannot be told.
    pub(crate) fn named(&self, blob: BlobNo, language: Language) -> Option<Named> {
        let rows = self.rows.read();
        let record = rows.number(blob, language)?;
        let mut named = Named::default();
        rows.symbols(record, &mut |symbol, name| {
            named.symbols.push(symbol);
            named.names.extend_from_slice(name);
        })?;
        Some(named)
    }

    /// Matches a pattern against all names.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    pub(crate) fn find(&self, matcher: &Matcher, until: Option<Instant>) -> Result<NamesFound> {
        let count = self.rows.read().record_count();
        let mut found = NamesFound { records: Bits::none(count as usize), count };
        self.for_blocks(until, |rows, block| {
            let mut matching = Vec::new();
            rows.names.matching(matcher, block, &mut |name| matching.push(name));
            rows.add_holders(&matching, count, &mut found.records);
        })?;
        Ok(found)
    }

    /// Goes through the names that there are, by blocks, between which the writer may add.
    fn for_blocks(&self, until: Option<Instant>, mut each: impl FnMut(&Rows, Range<NameNo>)) -> Result<()> {
        let (mut first, count) = (0, self.rows.read().names.count());
        while first < count {
            deadline::check(until)?;
            let rows = self.rows.read();
            let end = rows.names.block_end(first).min(count);
            each(&rows, first..end);
            first = end;
        }
        Ok(())
    }

    /// Whether a file defines a name of those that were found; `None` if that was not recorded then, or cannot be told.
    pub(crate) fn defines(&self, found: &NamesFound, blob: BlobNo, language: Language) -> Option<bool> {
        let rows = self.rows.read();
        let record = rows.number(blob, language).filter(|record| *record < found.count && rows.is_told(*record))?;
        Some(found.records.contains(record))
    }

    /// The number of what is recorded of a file in a language.
    pub(crate) fn number(&self, blob: BlobNo, language: Language) -> Option<RecordNo> {
        self.rows.read().number(blob, language)
    }

    /// Recorded names that begin with `prefix`, in upper or lower case unless it has an upper-case letter: those that most of
    /// the files `in_scope` define first, with how many distinct contents these have. What others define is not among them.
    ///
    /// # Errors
    /// Cancelled at the deadline, with what was `found` until then.
    pub(crate) fn names_with_prefix(
        &self,
        prefix: &str,
        in_scope: impl Fn(RecordNo) -> bool,
        limit: usize,
        until: Option<Instant>,
        found: &mut Vec<(String, usize)>,
    ) -> Result<()> {
        let has_case = prefix.chars().any(char::is_uppercase);
        let begins = |name: &[u8]| {
            name.get(..prefix.len()).is_some_and(|begin| match has_case {
                true => begin == prefix.as_bytes(),
                false => begin.eq_ignore_ascii_case(prefix.as_bytes()),
            })
        };
        let mut best: Vec<(Reverse<usize>, String)> = Vec::new();
        let done = self.for_blocks(until, |rows, block| {
            for number in block {
                if deadline::is_past(until) {
                    return;
                }
                let Some(name) = rows.names.get(number).filter(|name| begins(name)) else { continue };
                let Ok(text) = std::str::from_utf8(name) else { continue };
                let holders = rows.holders(number, RecordNo::MAX).filter(|record| in_scope(*record));
                // One with two languages counts once.
                let mut blobs: Vec<BlobNo> = holders.filter_map(|record| rows.blob(record)).collect();
                blobs.sort_unstable();
                blobs.dedup();
                if !blobs.is_empty() {
                    best.push((Reverse(blobs.len()), text.to_owned()));
                }
            }
            best.sort();
            best.truncate(limit);
        });
        found.extend(best.into_iter().map(|(Reverse(files), name)| (name, files)));
        done
    }

    /// Says how many files are still to be told, and whether all tips have been gone through.
    pub(crate) fn set_progress(&self, waiting_files: usize, is_complete: bool) {
        self.waiting_files.store(waiting_files as u64, Ordering::Relaxed);
        self.is_complete.store(is_complete, Ordering::Relaxed);
    }

    /// Figures for people.
    pub(crate) fn figures(&self) -> SymbolFigures {
        let rows = self.rows.read();
        SymbolFigures {
            files: u64::from(rows.record_count()),
            untold_files: rows.untold_count,
            symbols: rows.symbol_count,
            names: u64::from(rows.names.count()),
            stored_bytes: self.stored_bytes.load(Ordering::Relaxed),
            resident_bytes: rows.resident_bytes(),
            waiting_files: self.waiting_files.load(Ordering::Relaxed),
            is_complete: self.is_complete.load(Ordering::Relaxed),
            is_full: self.is_full(),
        }
    }
}

fn released() -> Error {
    Error::new(ErrorKind::Closed, "the recorded definitions are released")
}

impl Writer {
    /// Writes the definitions of a file, whose names get numbers; `None` if they are not the content's.
    fn encode(&mut self, symbols: &[Symbol], content: &[u8], rows: &Rows) -> Option<Told> {
        let names = symbols.iter().map(|symbol| content.get(symbol.name.clone())).collect::<Option<Vec<&[u8]>>>()?;
        // Names do not overlap, unless the one who tells them is broken.
        let name_bytes = names.iter().map(|name| name.len()).fold(0, usize::saturating_add);
        if name_bytes > content.len() {
            return None;
        }
        let first = rows.names.count();
        let mut numbers = Vec::with_capacity(names.len());
        for name in names {
            let known = rows.names.number(name).or_else(|| self.names.get(name).copied());
            numbers.push(known.unwrap_or_else(|| {
                // There is no room for so many, which the commit finds.
                let number = first.saturating_add(NameNo::try_from(self.names.len()).unwrap_or(NameNo::MAX));
                self.names.insert(name.to_vec(), number);
                self.pending.names.push(name.to_vec());
                number
            }));
        }
        let encoded = code::encode(symbols.iter().zip(numbers))?;
        self.pending_bytes += encoded.len() + name_bytes;
        Some(Told::Symbols(encoded))
    }
}
