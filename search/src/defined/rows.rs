//! What is recorded, in memory: tables that only grow, so that how many records there were at a moment is all that a search
//! needs to see those alone.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::{
    code::Decoder,
    file::{FileRecord, Frame, Told},
    names::{NONE, NameNo, Names},
};
use crate::{
    index::{Bits, BlobNo},
    language::Language,
    symbols::Symbol,
};

/// A record's number: its place in the order in which they came.
pub(crate) type RecordNo = u32;

/// A blob that was told in one language.
#[derive(Clone, Copy)]
struct Record {
    blob: BlobNo,
    /// Where its definitions are in `Rows::encoded`; begins with `NONE` if they cannot be told.
    start: u32,
    bytes: u32,
}

/// That a file defines a name.
#[derive(Clone, Copy)]
struct Holder {
    record: RecordNo,
    /// The holder of the same name that came before; `NONE` for the first.
    before: u32,
}

/// The tables.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) names: Names,
    /// The last holder of each name.
    last_holders: Vec<u32>,
    holders: Vec<Holder>,
    records: Vec<Record>,
    numbers: HashMap<(BlobNo, Language), RecordNo>,
    encoded: Vec<u8>,
    pub(super) symbol_count: u64,
    pub(super) untold_count: u64,
}

/// A file of a frame, once it is known to be sound.
struct Sound<'a> {
    key: (BlobNo, Language),
    /// `None` if they cannot be told.
    encoded: Option<&'a [u8]>,
    symbols: usize,
}

impl Rows {
    /// How many records there are.
    pub(super) fn record_count(&self) -> RecordNo {
        RecordNo::try_from(self.records.len()).unwrap_or(NONE)
    }

    /// Adds a frame, whose files have these blobs; `None` if it is not what a writer wrote or has no room, and then none of it.
    pub(super) fn add(&mut self, frame: &Frame, blobs: &[BlobNo]) -> Option<()> {
        let name_count = self.names.count() as usize + frame.names.len();
        let files = frame.files.iter().zip(blobs);
        let files = files.map(|(file, blob)| sound(file, *blob, name_count)).collect::<Option<Vec<_>>>()?;
        if !self.has_room(frame, &files) || !self.are_new(&frame.names) {
            return None;
        }
        for name in &frame.names {
            self.names.add(name);
        }
        self.last_holders.resize(name_count, NONE);
        files.iter().for_each(|file| self.add_file(file));
        Some(())
    }

    fn has_room(&self, frame: &Frame, files: &[Sound<'_>]) -> bool {
        let sum = |sizes: &mut dyn Iterator<Item = usize>| sizes.fold(0, usize::saturating_add);
        let room = |have: usize, more: usize| have.saturating_add(more) < NONE as usize;
        self.names.has_room(frame.names.len(), sum(&mut frame.names.iter().map(Vec::len)))
            && room(self.encoded.len(), sum(&mut files.iter().map(|file| file.encoded.map_or(0, <[u8]>::len))))
            && room(self.holders.len(), sum(&mut files.iter().map(|file| file.symbols)))
            && room(self.records.len(), files.len())
    }

    /// Whether no name is there, and none comes twice.
    fn are_new(&self, names: &[Vec<u8>]) -> bool {
        let distinct: HashSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
        distinct.len() == names.len() && names.iter().all(|name| self.names.number(name).is_none())
    }

    fn add_file(&mut self, file: &Sound<'_>) {
        if self.numbers.contains_key(&file.key) {
            return;
        }
        let record = self.record_count();
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(NONE);
        let start = if file.encoded.is_some() { length(self.encoded.len()) } else { NONE };
        let encoded = file.encoded.unwrap_or_default();
        self.encoded.extend_from_slice(encoded);
        self.records.push(Record { blob: file.key.0, start, bytes: length(encoded.len()) });
        self.numbers.insert(file.key, record);
        self.symbol_count += file.symbols as u64;
        self.untold_count += u64::from(file.encoded.is_none());
        let mut decoder = Decoder::new(encoded);
        while let Some(symbol) = decoder.next() {
            self.hold(symbol.name, record);
        }
    }

    fn hold(&mut self, name: NameNo, record: RecordNo) {
        let Some(last) = self.last_holders.get_mut(name as usize) else { return };
        // A file may define a name several times; these come together.
        if self.holders.get(*last as usize).is_none_or(|holder| holder.record != record) {
            let before = std::mem::replace(last, u32::try_from(self.holders.len()).unwrap_or(NONE));
            self.holders.push(Holder { record, before });
        }
    }

    /// The record of a blob in a language.
    pub(super) fn number(&self, blob: BlobNo, language: Language) -> Option<RecordNo> {
        self.numbers.get(&(blob, language)).copied()
    }

    /// The blob of a record.
    pub(super) fn blob(&self, record: RecordNo) -> Option<BlobNo> {
        self.records.get(record as usize).map(|record| record.blob)
    }

    /// Whether the definitions of a record were told.
    pub(super) fn is_told(&self, record: RecordNo) -> bool {
        self.records.get(record as usize).is_some_and(|record| record.start != NONE)
    }

    /// Gives the definitions of a record with their names, in order; `None` if they cannot be told.
    pub(super) fn symbols(&self, record: RecordNo, each: &mut dyn FnMut(Symbol, &[u8])) -> Option<()> {
        let record = self.records.get(record as usize).filter(|record| record.start != NONE)?;
        let start = record.start as usize;
        let range: Range<usize> = start..start.saturating_add(record.bytes as usize);
        let mut decoder = Decoder::new(self.encoded.get(range).unwrap_or_default());
        while let Some(decoded) = decoder.next() {
            // Both were looked at when the record came.
            let name = self.names.get(decoded.name).unwrap_or_default();
            if let Some(symbol) = decoded.symbol(name.len()) {
                each(symbol, name);
            }
        }
        Some(())
    }

    /// The records below `count` that define a name, the newest first.
    pub(super) fn holders(&self, name: NameNo, count: RecordNo) -> impl Iterator<Item = RecordNo> + '_ {
        let mut at = self.last_holders.get(name as usize).copied().unwrap_or(NONE);
        let all = std::iter::from_fn(move || {
            let holder = self.holders.get(at as usize)?;
            at = holder.before;
            Some(holder.record)
        });
        all.filter(move |record| *record < count)
    }

    /// Adds to `found` the records below `count` that define one of some names.
    pub(super) fn add_holders(&self, names: &[NameNo], count: RecordNo, found: &mut Bits) {
        names.iter().flat_map(|name| self.holders(*name, count)).for_each(|record| found.insert(record));
    }

    /// What the tables take, in bytes, about.
    pub(super) fn resident_bytes(&self) -> u64 {
        let numbers = self.numbers.capacity() * (size_of::<((BlobNo, Language), RecordNo)>() + 1);
        let bytes = self.last_holders.capacity() * size_of::<u32>()
            + self.holders.capacity() * size_of::<Holder>()
            + self.records.capacity() * size_of::<Record>()
            + self.encoded.capacity()
            + numbers;
        self.names.resident_bytes() + bytes as u64
    }
}

/// Looks at a file of a frame; `None` if it is not what a writer wrote.
fn sound(file: &FileRecord, blob: BlobNo, name_count: usize) -> Option<Sound<'_>> {
    let key = (blob, Language::from_stable_id(file.language)?);
    let Told::Symbols(encoded) = &file.told else { return Some(Sound { key, encoded: None, symbols: 0 }) };
    let (mut decoder, mut symbols) = (Decoder::new(encoded), 0);
    while let Some(symbol) = decoder.next() {
        if symbol.name as usize >= name_count {
            return None;
        }
        symbols += 1;
    }
    decoder.is_at_end().then_some(Sound { key, encoded: Some(encoded), symbols })
}
