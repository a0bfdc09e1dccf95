//! The trigrams of all chunks, and of all messages: a tantivy index whose documents are chunks or messages, with the
//! number.
//!
//! No positions, no frequencies, no stored text: which grams a chunk has is enough to rule most chunks out, and what is
//! left is verified on its text.

use std::{collections::HashMap, path::Path, sync::Arc, time::Instant};

use govc_engine::{Error, ErrorKind, Result};
use tantivy::{
    Index as TantivyIndex, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, SegmentReader,
    TantivyDocument,
    directory::MmapDirectory,
    index::SegmentId,
    indexer::{LogMergePolicy, NoMergePolicy},
    schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::TextAnalyzer,
};

use super::{
    bits::Bits,
    documents::Documents,
    gram::{GramTokenizer, folded},
    literals::GramQuery,
    messages::MessageNo,
    tables::ChunkNo,
};
use crate::deadline;

/// Names of the fields, and of the tokenizers. The number is a chunk's or a message's: a document has grams of one of them.
const GRAMS: &str = "grams";
const MESSAGE_GRAMS: &str = "messages";
const CHUNK: &str = "chunk";
/// What the writer takes in memory before it writes a segment of its own accord, in bytes.
const ARENA_BYTES: usize = 96 << 20;
/// Documents of a segment that is not merged any further.
const MERGE_DOCS_MAX: usize = 4_000_000;

/// The trigrams of all chunks.
pub(super) struct Postings {
    writer: IndexWriter,
    reader: IndexReader,
    grams: Field,
    message_grams: Field,
    chunk: Field,
    /// The chunks of the newest commit's segments.
    chunks: HashMap<SegmentId, Arc<Numbers>>,
}

/// What an unsuccessful operation of tantivy is to the caller.
pub(super) fn failed(what: &str, error: tantivy::TantivyError) -> Error {
    let kind = match &error {
        tantivy::TantivyError::DataCorruption(_) | tantivy::TantivyError::IncompatibleIndex(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Backend,
    };
    Error::new(kind, format!("cannot {what} the search index: {error}")).with_source(error)
}

/// What keeps an index from being opened: unless somebody else has it, it is to be made anew.
fn unusable(error: tantivy::TantivyError) -> Error {
    match error {
        tantivy::TantivyError::LockFailure(..) => failed("open", error),
        _ => Error::corrupt(format!("the search index cannot be opened: {error}")).with_source(error),
    }
}

impl Postings {
    /// Opens the trigrams in a folder, or in memory.
    ///
    /// # Errors
    /// Corrupt if what is there is not such an index; else when it cannot be read or written, or is in use.
    pub(super) fn open(folder: Option<&Path>) -> Result<Self> {
        let mut schema = Schema::builder();
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(GRAMS)
            .set_index_option(IndexRecordOption::Basic)
            .set_fieldnorms(false);
        let text = TextOptions::default().set_indexing_options(indexing);
        let grams = schema.add_text_field(GRAMS, text.clone());
        let message_grams = schema.add_text_field(MESSAGE_GRAMS, text);
        let chunk = schema.add_u64_field(CHUNK, FAST);
        let schema = schema.build();
        let index = match folder {
            Some(folder) => MmapDirectory::open(folder)
                .map_err(tantivy::TantivyError::from)
                .and_then(|directory| TantivyIndex::open_or_create(directory, schema)),
            None => TantivyIndex::builder().schema(schema).settings(IndexSettings::default()).create_in_ram(),
        };
        let index = index.map_err(unusable)?;
        index.tokenizers().register(GRAMS, TextAnalyzer::from(GramTokenizer::default()));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into();
        let reader = reader.map_err(unusable)?;
        let writer = index.writer_with_num_threads(1, ARENA_BYTES).map_err(|error| failed("write", error))?;
        let mut merging = LogMergePolicy::default();
        merging.set_max_docs_before_merge(MERGE_DOCS_MAX);
        writer.set_merge_policy(Box::new(merging));
        Ok(Self { writer, reader, grams, message_grams, chunk, chunks: HashMap::new() })
    }

    /// What the last commit was given to keep.
    pub(super) fn payload(&self) -> Result<Option<String>> {
        let metas = self.writer.index().load_metas().map_err(|error| failed("read", error))?;
        Ok(metas.payload)
    }

    /// Adds a chunk, seen after the next commit.
    pub(super) fn add(&self, chunk: ChunkNo, text: &[u8]) -> Result<()> {
        let mut document = TantivyDocument::default();
        document.add_text(self.grams, folded(text));
        document.add_u64(self.chunk, u64::from(chunk));
        self.writer.add_document(document).map(drop).map_err(|error| failed("write", error))
    }

    /// Adds a message, seen after the next commit.
    pub(super) fn add_message(&self, message: MessageNo, text: &[u8]) -> Result<()> {
        let mut document = TantivyDocument::default();
        document.add_text(self.message_grams, folded(text));
        document.add_u64(self.chunk, u64::from(message));
        self.writer.add_document(document).map(drop).map_err(|error| failed("write", error))
    }

    /// Commits what was added, with a text to keep; in a folder it is synced when this returns.
    pub(super) fn commit(&mut self, payload: &str) -> Result<Segments> {
        let mut prepared = self.writer.prepare_commit().map_err(|error| failed("commit", error))?;
        prepared.set_payload(payload);
        prepared.commit().map_err(|error| failed("commit", error))?;
        self.segments()
    }

    /// What the last commit made.
    pub(super) fn segments(&mut self) -> Result<Segments> {
        self.reader.reload().map_err(|error| failed("read", error))?;
        let searcher = self.reader.searcher();
        let mut before = std::mem::take(&mut self.chunks);
        let mut chunks = Vec::with_capacity(searcher.segment_readers().len());
        for segment in searcher.segment_readers() {
            let numbers = match before.remove(&segment.segment_id()) {
                Some(known) => known,
                None => Arc::new(Numbers::read(segment)?),
            };
            self.chunks.insert(segment.segment_id(), numbers.clone());
            chunks.push(numbers);
        }
        Ok(Segments { searcher, chunks })
    }

    /// Ends writing: what is being merged comes to its end, and the folder's lock is given back.
    pub(super) fn close(self) {
        self.writer.set_merge_policy(Box::new(NoMergePolicy));
        // What fails here was committed, or can be merged another time.
        let _ = self.writer.wait_merging_threads();
    }
}

/// What one commit holds: its segments, with the chunk or message of each of their documents.
pub(super) struct Segments {
    searcher: Searcher,
    /// In the order of the segments.
    chunks: Vec<Arc<Numbers>>,
}

/// The chunk, or message, of each of a segment's documents.
enum Numbers {
    /// The first document's; the others follow one another.
    From(u32),
    Each(Box<[u32]>),
}

impl Numbers {
    /// Reads those of a segment.
    ///
    /// # Errors
    /// Corrupt if a document has none; else when the index cannot be read.
    fn read(segment: &SegmentReader) -> Result<Self> {
        let column = segment.fast_fields().u64(CHUNK).map_err(|error| failed("read", error))?;
        let corrupt = || Error::corrupt("the search index has documents of no chunk");
        let mut numbers = Vec::with_capacity(segment.max_doc() as usize);
        for document in 0..segment.max_doc() {
            let chunk = column.first(document).ok_or_else(corrupt)?;
            numbers.push(u32::try_from(chunk).map_err(|_| corrupt())?);
        }
        let first = numbers.first().copied().unwrap_or(0);
        let is_run = numbers.iter().zip(u64::from(first)..).all(|(chunk, expected)| u64::from(*chunk) == expected);
        Ok(if is_run { Self::From(first) } else { Self::Each(numbers.into()) })
    }

    fn of(&self, document: u32) -> Option<u32> {
        match self {
            Self::From(first) => first.checked_add(document),
            Self::Each(numbers) => numbers.get(document as usize).copied(),
        }
    }

    fn resident_bytes(&self) -> u64 {
        match self {
            Self::From(_) => 0,
            Self::Each(numbers) => (numbers.len() * size_of::<u32>()) as u64,
        }
    }
}

impl Segments {
    /// The chunks whose grams satisfy `query`; `None` if all do.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the index cannot be read.
    pub(super) fn chunks(&self, query: &GramQuery, until: Option<Instant>) -> Result<Option<Bits>> {
        self.numbers(GRAMS, query, until)
    }

    /// The messages whose grams satisfy `query`; `None` if all do.
    ///
    /// # Errors
    /// As [`Segments::chunks`].
    pub(super) fn messages(&self, query: &GramQuery, until: Option<Instant>) -> Result<Option<Bits>> {
        self.numbers(MESSAGE_GRAMS, query, until)
    }

    fn numbers(&self, field: &str, query: &GramQuery, until: Option<Instant>) -> Result<Option<Bits>> {
        if *query == GramQuery::All {
            return Ok(None);
        }
        let (mut found, mut rules_out) = (Bits::default(), false);
        for (segment, numbers) in self.searcher.segment_readers().iter().zip(&self.chunks) {
            deadline::check(until)?;
            let mut take = |document| numbers.of(document).into_iter().for_each(|number| found.insert(number));
            match Documents::of(segment, field, query, until)? {
                // Another segment may rule out more.
                None => (0..segment.max_doc()).for_each(&mut take),
                Some(documents) => {
                    rules_out = true;
                    documents.each(take);
                }
            }
        }
        Ok((rules_out || self.chunks.is_empty()).then_some(found))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.chunks.len()
    }

    /// What they take on the disk, in bytes.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.searcher.space_usage().map_or(0, |usage| usage.total().get_bytes())
    }

    /// What they take in memory, in bytes, without what is mapped.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.chunks.iter().map(|numbers| numbers.resident_bytes()).sum()
    }
}
