//! The trigrams of all chunks: a tantivy index whose documents are chunks, with the chunk's number and nothing else.
//!
//! No positions, no frequencies, no stored text: which grams a chunk has is enough to rule most chunks out, and what is
//! left is verified on its text.

use std::{path::Path, time::Instant};

use govc_engine::{Error, ErrorKind, Result};
use tantivy::{
    DocSet as _, Index as TantivyIndex, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, SegmentReader,
    TERMINATED, TantivyDocument, Term,
    directory::MmapDirectory,
    indexer::{LogMergePolicy, NoMergePolicy},
    postings::SegmentPostings,
    schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions},
    tokenizer::TextAnalyzer,
};

use super::{
    bits::Bits,
    gram::{Gram, GramTokenizer, folded},
    literals::GramQuery,
    tables::ChunkNo,
};
use crate::deadline;

/// Names of the fields, and of the tokenizer.
const GRAMS: &str = "grams";
const CHUNK: &str = "chunk";
/// What the writer takes in memory before it writes a segment of its own accord, in bytes.
const ARENA_BYTES: usize = 96 << 20;
/// Grams of one list that are looked at: the rarest ones.
const GRAMS_MAX: usize = 24;
/// Documents of a segment that is not merged any further.
const MERGE_DOCS_MAX: usize = 4_000_000;

/// The trigrams of all chunks.
pub(super) struct Postings {
    writer: IndexWriter,
    reader: IndexReader,
    grams: Field,
    chunk: Field,
}

/// What an unsuccessful operation of tantivy is to the caller.
fn failed(what: &str, error: tantivy::TantivyError) -> Error {
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
        let grams = schema.add_text_field(GRAMS, TextOptions::default().set_indexing_options(indexing));
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
        Ok(Self { writer, reader, grams, chunk })
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

    /// Commits what was added, with a text to keep; in a folder it is synced when this returns.
    pub(super) fn commit(&mut self, payload: &str) -> Result<Searcher> {
        let mut prepared = self.writer.prepare_commit().map_err(|error| failed("commit", error))?;
        prepared.set_payload(payload);
        prepared.commit().map_err(|error| failed("commit", error))?;
        self.searcher()
    }

    /// What the last commit made.
    pub(super) fn searcher(&self) -> Result<Searcher> {
        self.reader.reload().map_err(|error| failed("read", error))?;
        Ok(self.reader.searcher())
    }

    /// Ends writing: what is being merged comes to its end, and the folder's lock is given back.
    pub(super) fn close(self) {
        self.writer.set_merge_policy(Box::new(NoMergePolicy));
        // What fails here was committed, or can be merged another time.
        let _ = self.writer.wait_merging_threads();
    }
}

/// Bytes of the trigrams.
pub(super) fn stored_bytes(searcher: &Searcher) -> u64 {
    searcher.space_usage().map_or(0, |usage| usage.total().get_bytes())
}

/// The chunks whose grams satisfy `query`; `None` if all do.
///
/// # Errors
/// Cancelled at the deadline; else when the index cannot be read.
pub(super) fn chunks(searcher: &Searcher, query: &GramQuery, until: Option<Instant>) -> Result<Option<Bits>> {
    let mut found = Bits::default();
    for segment in searcher.segment_readers() {
        deadline::check(until)?;
        let Some(documents) = documents(segment, query, until)? else { return Ok(None) };
        let numbers = segment.fast_fields().u64(CHUNK).map_err(|error| failed("read", error))?;
        for document in documents {
            if let Some(chunk) = numbers.first(document).and_then(|chunk| u32::try_from(chunk).ok()) {
                found.insert(chunk);
            }
        }
    }
    Ok(Some(found))
}

/// The documents of one segment that satisfy `query`, in order; `None` if all do.
fn documents(segment: &SegmentReader, query: &GramQuery, until: Option<Instant>) -> Result<Option<Vec<u32>>> {
    match query {
        GramQuery::All => Ok(None),
        GramQuery::None => Ok(Some(Vec::new())),
        GramQuery::Grams(grams) => with_grams(segment, grams).map(Some),
        GramQuery::And(parts) => {
            let mut all: Option<Vec<u32>> = None;
            for part in parts {
                deadline::check(until)?;
                all = match (all, documents(segment, part, until)?) {
                    (Some(left), Some(right)) => Some(intersection(&left, &right)),
                    (left, right) => left.or(right),
                };
            }
            Ok(all)
        }
        GramQuery::Or(parts) => {
            let mut any = Bits::default();
            for part in parts {
                deadline::check(until)?;
                match documents(segment, part, until)? {
                    None => return Ok(None),
                    Some(more) => more.into_iter().for_each(|document| any.insert(document)),
                }
            }
            Ok(Some(any.iter().collect()))
        }
    }
}

fn intersection(left: &[u32], right: &[u32]) -> Vec<u32> {
    let (short, long) = if left.len() < right.len() { (left, right) } else { (right, left) };
    let mut rest = long;
    let mut both = Vec::new();
    for document in short {
        rest = rest.get(rest.partition_point(|other| other < document)..).unwrap_or_default();
        if rest.first() == Some(document) {
            both.push(*document);
        }
    }
    both
}

/// The documents that have all of `grams`, rarest first.
fn with_grams(segment: &SegmentReader, grams: &[Gram]) -> Result<Vec<u32>> {
    let unreadable =
        |error: std::io::Error| Error::new(ErrorKind::Backend, "cannot read the search index").with_source(error);
    let field = segment.schema().get_field(GRAMS).map_err(|error| failed("read", error))?;
    let inverted = segment.inverted_index(field).map_err(|error| failed("read", error))?;
    let mut terms = Vec::with_capacity(grams.len());
    for gram in grams {
        let term = Term::from_field_text(field, gram.as_str());
        match inverted.get_term_info(&term).map_err(unreadable)? {
            None => return Ok(Vec::new()),
            Some(info) => terms.push(info),
        }
    }
    terms.sort_by_key(|info| info.doc_freq);
    terms.truncate(GRAMS_MAX);
    let mut lists = Vec::with_capacity(terms.len());
    for info in &terms {
        lists.push(inverted.read_postings_from_terminfo(info, IndexRecordOption::Basic).map_err(unreadable)?);
    }
    Ok(leapfrog(lists))
}

/// The documents that are in all lists, of which the first is the shortest.
fn leapfrog(mut lists: Vec<SegmentPostings>) -> Vec<u32> {
    let mut found = Vec::new();
    let Some((first, others)) = lists.split_first_mut() else { return found };
    let mut document = first.doc();
    'next: while document != TERMINATED {
        for other in others.iter_mut() {
            if other.doc() < document {
                other.seek(document);
            }
            if other.doc() != document {
                document = if other.doc() == TERMINATED { return found } else { first.seek(other.doc()) };
                continue 'next;
            }
        }
        found.push(document);
        document = first.advance();
    }
    found
}
