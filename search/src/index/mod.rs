//! The index: every distinct chunk of text once, with its trigrams, and which blobs are made of which chunks.
//!
//! It knows blobs and nothing of repositories and paths, so forks and copies share all of it, and what a search
//! may find is decided by the trees that it searches. Beside them, and apart, it has what commits say ([`messages`]). Nothing
//! in it is the truth: all can be made anew from the store, and a blob that it does not have is read from there.
//!
//! One writer adds blobs and commits them; readers hold a [`Generation`], which never changes. In a folder, a commit
//! writes texts, then the log, then the trigrams, each synced; the last carries the ends of the others, so that a crash
//! anywhere leaves the commit before.

mod bits;
mod chunk;
mod contents;
mod documents;
mod gram;
mod literals;
mod log;
mod mapped;
pub(crate) mod messages;
mod postings;
mod tables;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use govc_engine::{Error, ErrorKind, Oid, Result, Seq};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

pub(crate) use bits::Bits;
pub(crate) use contents::Text;
pub(crate) use literals::GramQuery;
pub(crate) use messages::MessageNo;
pub(crate) use tables::{BlobNo, BlobState, ChunkNo, Tables};

use self::{
    contents::{CHUNKS_PREFIX, Contents, MESSAGES_PREFIX, TextWriter},
    log::{Batch, BlobContent, BlobRecord, Digest, Log, MessageRecord},
    messages::Messages,
    postings::{Postings, Segments},
};

/// The version of what is in the folder; another one is made anew.
const FORMAT: u32 = 2;
/// Larger texts are not cut into chunks but read when they are searched, in bytes.
const INDEXED_BYTES_MAX: usize = 64 << 20;
/// Where git looks for a NUL to call a file binary.
const BINARY_CHECK_BYTES: usize = 8000;

/// What went wrong with a file, as an error.
pub(crate) fn failure(verb: &str, path: &Path, error: io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::StorageFull { ErrorKind::StorageFull } else { ErrorKind::Backend };
    Error::new(kind, format!("cannot {verb} {}: {error}", path.display())).with_source(error)
}

/// Whether a file is binary, by git's rule.
pub(crate) fn is_binary(data: &[u8]) -> bool {
    memchr::memchr(0, data.get(..BINARY_CHECK_BYTES).unwrap_or(data)).is_some()
}

/// What a commit carries: where its other files end, and what it has seen of the store.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Payload {
    format: u32,
    text_bytes: u64,
    message_bytes: u64,
    log_bytes: u64,
    /// The position in the feed up to which everything is indexed; absent while the first pass is under way.
    position: Option<u64>,
}

/// What one commit of the index holds; stays as it is.
pub(crate) struct Generation {
    segments: Segments,
    /// What the log takes on the disk, and the writer's table of chunks in memory, in bytes.
    log_bytes: u64,
    known_bytes: u64,
    /// The blobs that it knows all of: their chunks are in it, or they are binary and have none.
    pub(crate) indexed: Bits,
    /// How many messages it knows the trigrams of: the first ones.
    pub(crate) messages: MessageNo,
}

/// The index.
pub(crate) struct Index {
    tables: RwLock<Tables>,
    generation: ArcSwap<Generation>,
    /// `None` once it is released.
    writer: Mutex<Option<Writer>>,
    /// Blobs that are indexed, or about to be.
    taken: Mutex<RoaringBitmap>,
    /// Why it could not be read, if it could not: it is to be made anew.
    damage: Mutex<Option<String>>,
}

/// What only the one that adds needs.
struct Writer {
    postings: Postings,
    text_writer: TextWriter,
    message_writer: TextWriter,
    log: Option<Log>,
    chunks: HashMap<Digest, ChunkNo>,
    batch: Batch,
    texts: Vec<u8>,
    messages: Vec<u8>,
    /// The commits of the batch's messages.
    message_commits: HashSet<Oid>,
    position: Option<Seq>,
    /// A commit failed half-way: what is in memory and what is in the folder may differ.
    is_broken: bool,
}

/// Figures of an index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexFigures {
    /// Blobs that are indexed.
    pub blobs: u64,
    /// Distinct chunks.
    pub chunks: u64,
    /// What the indexed blobs would take if nothing were shared, in bytes.
    pub raw_bytes: u64,
    /// The texts of the chunks, in bytes.
    pub text_bytes: u64,
    /// Commits whose messages are indexed.
    pub messages: u64,
    /// The texts of these messages, with their authors, in bytes.
    pub message_bytes: u64,
    /// The trigrams, in bytes.
    pub gram_bytes: u64,
    /// What says which blobs are made of which chunks, in bytes; on disk.
    pub log_bytes: u64,
    /// What the index takes of the process's own memory, in bytes, about; mapped files are not in it.
    pub resident_bytes: u64,
    /// Segments of trigrams.
    pub segments: u64,
}

impl Index {
    /// An index in memory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn in_memory() -> Result<Self> {
        let texts = || (TextWriter::in_memory(), Contents::default());
        Self::with(None, Postings::open(None)?, texts(), texts(), Payload::default())
    }

    /// Opens the index in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Corrupt if what is there cannot be used and is to be made anew; else when it cannot be read or written, or
    /// somebody else has it open.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let grams = folder.join("grams");
        std::fs::create_dir_all(&grams).map_err(|error| failure("create", &grams, error))?;
        let postings = Postings::open(Some(&grams))?;
        let payload = match postings.payload()? {
            None => Payload::default(),
            Some(text) => serde_json::from_str(&text)
                .ok()
                .filter(|payload: &Payload| payload.format == FORMAT)
                .ok_or_else(|| Error::corrupt("the search index has another format"))?,
        };
        let contents = TextWriter::open(folder, CHUNKS_PREFIX, payload.text_bytes)?;
        let messages = TextWriter::open(folder, MESSAGES_PREFIX, payload.message_bytes)?;
        Self::with(Some(folder), postings, contents, messages, payload)
    }

    fn with(
        folder: Option<&Path>,
        postings: Postings,
        (text_writer, contents): (TextWriter, Contents),
        (message_writer, messages): (TextWriter, Contents),
        payload: Payload,
    ) -> Result<Self> {
        let mut tables = Tables::new(contents, Messages::new(messages));
        let mut chunks = HashMap::new();
        let log = folder.map(|folder| {
            Log::open(folder, payload.log_bytes, |batch| {
                let first = tables.chunk_count();
                tables.add(&batch)?;
                // Numbers of chunks are 32 bits wide; the writer refuses more.
                let numbers = (first..).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
                chunks.extend(batch.digests.iter().copied().zip(numbers));
                Ok(())
            })
        });
        let log = log.transpose()?;
        let mut indexed = Bits::none(tables.blob_count());
        (0..)
            .take(tables.blob_count())
            .filter(|blob| is_known(tables.state(*blob)))
            .for_each(|blob| indexed.insert(blob));
        let taken = (0..).take(tables.blob_count()).filter(|blob| tables.state(*blob) != BlobState::Unknown).collect();
        let position = payload.position.map(Seq);
        let mut writer = Writer {
            postings,
            text_writer,
            message_writer,
            log,
            chunks,
            batch: Batch::default(),
            texts: Vec::new(),
            messages: Vec::new(),
            message_commits: HashSet::new(),
            position,
            is_broken: false,
        };
        let segments = writer.postings.segments()?;
        let generation = ArcSwap::from_pointee(writer.generation(segments, indexed, tables.messages.count()));
        let (tables, writer) = (RwLock::new(tables), Mutex::new(Some(writer)));
        Ok(Self { tables, generation, writer, taken: Mutex::new(taken), damage: Mutex::default() })
    }

    /// The number of one blob, new if need be.
    pub(crate) fn number(&self, oid: Oid) -> BlobNo {
        let known = self.tables.read().number(&oid);
        known.unwrap_or_else(|| self.tables.write().number_or_new(oid))
    }

    /// The newest commit.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        self.generation.load_full()
    }

    /// Says that it could not be read; searches do without.
    pub(crate) fn is_unreadable(&self, error: &Error) {
        self.damage.lock().get_or_insert_with(|| error.to_string());
    }

    /// Why it could not be read, if it could not.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// The tables, for a moment: the writer waits.
    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }

    /// The numbers of blobs, in the order of `oids`; those that are new get one.
    pub(crate) fn numbers(&self, oids: &[Oid]) -> Vec<BlobNo> {
        let tables = self.tables.read();
        let known: Option<Vec<BlobNo>> = oids.iter().map(|oid| tables.number(oid)).collect();
        drop(tables);
        known.unwrap_or_else(|| {
            let mut tables = self.tables.write();
            oids.iter().map(|oid| tables.number_or_new(*oid)).collect()
        })
    }

    /// Those of some blobs that are neither indexed nor taken up.
    pub(crate) fn unknown(&self, blobs: &RoaringBitmap) -> Vec<BlobNo> {
        (blobs - &*self.taken.lock()).iter().collect()
    }

    /// Takes a blob up to be added: its id, or `None` if it is taken up or indexed.
    pub(crate) fn take_up(&self, blob: BlobNo) -> Option<Oid> {
        let is_new = self.taken.lock().insert(blob);
        is_new.then(|| self.tables.read().oid(blob)).flatten()
    }

    /// Gives up a blob that was taken up and could not be added.
    pub(crate) fn put_back(&self, blob: BlobNo) {
        self.taken.lock().remove(blob);
    }

    /// The text of a blob, put together of its chunks; empty unless it is indexed text.
    pub(crate) fn text(&self, blob: BlobNo) -> Vec<u8> {
        let texts: Vec<Text> = {
            let tables = self.tables();
            tables.chunks(blob).iter().filter_map(|chunk| tables.text(*chunk)).collect()
        };
        let mut whole = Vec::with_capacity(texts.iter().map(|text| text.len()).sum());
        texts.iter().for_each(|text| whole.extend_from_slice(text));
        whole
    }

    /// The position in the feed up to which everything was indexed at the last commit that said so.
    pub(crate) fn position(&self) -> Option<Seq> {
        self.writer.lock().as_ref().and_then(|writer| writer.position)
    }

    /// Adds a blob unless it is there; it is found by its trigrams after the next commit.
    ///
    /// # Errors
    /// When the trigrams cannot be written.
    pub(crate) fn add(&self, oid: Oid, data: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        let content = match () {
            () if is_binary(data) => BlobContent::Binary,
            () if data.len() > INDEXED_BYTES_MAX => BlobContent::Large,
            () => BlobContent::Text(writer.cut(data)?),
        };
        writer.batch.blobs.push(BlobRecord { oid: oid.as_bytes().to_vec(), size: data.len() as u64, content });
        Ok(())
    }

    /// Whether the message of a commit is indexed, or will be with the next commit.
    pub(crate) fn has_message(&self, commit: &Oid) -> bool {
        let is_indexed = self.tables.read().messages.number(commit).is_some();
        is_indexed || self.writer.lock().as_ref().is_some_and(|writer| writer.message_commits.contains(commit))
    }

    /// Adds the message of a commit, which [`Index::has_message`] said not to be there; `text` is of [`messages::text_of`].
    ///
    /// # Errors
    /// When the trigrams cannot be written.
    pub(crate) fn add_message(&self, commit: Oid, text: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        let too_many = || Error::new(ErrorKind::LimitExceeded, "the search index has too many messages");
        let count = self.tables.read().messages.count() as usize + writer.batch.messages.len();
        let number = MessageNo::try_from(count).ok().filter(|number| *number < MessageNo::MAX).ok_or_else(too_many)?;
        let bytes =
            u32::try_from(text.len()).map_err(|_| Error::too_large("the message is too large to be indexed"))?;
        writer.postings.add_message(number, text)?;
        writer.batch.messages.push(MessageRecord { commit: commit.as_bytes().to_vec(), bytes });
        writer.message_commits.insert(commit);
        writer.messages.extend_from_slice(text);
        Ok(())
    }

    /// Bytes of new text that the next commit brings.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.writer.lock().as_ref().map_or(0, |writer| writer.texts.len() + writer.messages.len())
    }

    /// Whether there is anything to commit.
    pub(crate) fn is_pending(&self) -> bool {
        self.writer.lock().as_ref().is_some_and(|writer| !writer.batch.is_empty())
    }

    /// Commits what was added. With a position, all that the feed has up to there is indexed.
    ///
    /// # Errors
    /// When something cannot be written; the index is then to be opened anew, which finds the commit before.
    pub(crate) fn commit(&self, position: Option<Seq>) -> Result<()> {
        let mut writer = self.writer.lock();
        let writer = writer.as_mut().ok_or_else(released)?;
        if writer.is_broken {
            return Err(Error::new(ErrorKind::Closed, "a commit of the search index failed earlier"));
        }
        writer.is_broken = true;
        writer.position = position.or(writer.position);
        let batch = std::mem::take(&mut writer.batch);
        let texts = std::mem::take(&mut writer.texts);
        if let Some(added) = writer.text_writer.append(texts)? {
            self.tables.write().contents.add(added);
        }
        let messages = std::mem::take(&mut writer.messages);
        if let Some(added) = writer.message_writer.append(messages)? {
            self.tables.write().messages.contents.add(added);
        }
        writer.message_commits.clear();
        if let Some(log) = writer.log.as_mut().filter(|_| !batch.is_empty()) {
            log.append(&batch)?;
        }
        let payload = Payload {
            format: FORMAT,
            text_bytes: writer.text_writer.end(),
            message_bytes: writer.message_writer.end(),
            log_bytes: writer.log.as_ref().map_or(0, Log::end),
            position: writer.position.map(|position| position.0),
        };
        let payload = serde_json::to_string(&payload)
            .map_err(|error| Error::invalid("the state of the search index cannot be written").with_source(error))?;
        let segments = writer.postings.commit(&payload)?;
        self.install(writer, &batch, segments)?;
        writer.is_broken = false;
        Ok(())
    }

    fn install(&self, writer: &Writer, batch: &Batch, segments: Segments) -> Result<()> {
        let mut indexed = self.generation.load().indexed.clone();
        let mut tables = self.tables.write();
        tables.add(batch)?;
        for blob in &batch.blobs {
            let number = tables.number_or_new(Oid::from_bytes(&blob.oid)?);
            if is_known(tables.state(number)) {
                indexed.insert(number);
            }
        }
        let messages = tables.messages.count();
        drop(tables);
        self.generation.store(Arc::new(writer.generation(segments, indexed, messages)));
        Ok(())
    }

    /// Lets another open the folder: nothing can be added any more, and what was not committed is dropped. Waits for
    /// what is being merged.
    pub(crate) fn release(&self) {
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            writer.postings.close();
        }
    }

    /// Figures for people.
    pub(crate) fn figures(&self) -> IndexFigures {
        let generation = self.generation();
        let tables = self.tables.read();
        IndexFigures {
            blobs: tables.text_count(),
            chunks: tables.chunk_count() as u64,
            raw_bytes: tables.raw_bytes(),
            text_bytes: tables.contents.end(),
            messages: u64::from(tables.messages.count()),
            message_bytes: tables.messages.contents.end(),
            gram_bytes: generation.segments.stored_bytes(),
            log_bytes: generation.log_bytes,
            resident_bytes: tables.resident_bytes()
                + tables.contents.heap_bytes()
                + tables.messages.contents.heap_bytes()
                + generation.known_bytes
                + generation.segments.resident_bytes(),
            segments: generation.segments.count() as u64,
        }
    }
}

fn released() -> Error {
    Error::new(ErrorKind::Closed, "the search index is released")
}

/// Whether the index knows all that a search may find in a blob: in a binary one, nothing.
fn is_known(state: BlobState) -> bool {
    matches!(state, BlobState::Text { .. } | BlobState::Binary)
}

impl Writer {
    /// What readers see of the commit that has `segments`.
    fn generation(&self, segments: Segments, indexed: Bits, messages: MessageNo) -> Generation {
        let known_bytes = self.chunks.capacity() * (size_of::<(Digest, ChunkNo)>() + 1);
        let log_bytes = self.log.as_ref().map_or(0, Log::end);
        Generation { segments, log_bytes, known_bytes: known_bytes as u64, indexed, messages }
    }

    /// The chunks of a text; new ones are kept for the next commit.
    fn cut(&mut self, data: &[u8]) -> Result<Vec<ChunkNo>> {
        let mut numbers = Vec::new();
        for text in chunk::chunks(data) {
            let hash = blake3::hash(text);
            let digest: Digest = *hash.as_bytes().first_chunk().unwrap_or(&[0; 16]);
            if let Some(known) = self.chunks.get(&digest) {
                numbers.push(*known);
                continue;
            }
            let number = u32::try_from(self.chunks.len())
                .map_err(|_| Error::new(ErrorKind::LimitExceeded, "the search index has too many chunks"))?;
            self.postings.add(number, text)?;
            self.chunks.insert(digest, number);
            self.batch.digests.push(digest);
            self.batch.chunk_bytes.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
            let newlines = memchr::memchr_iter(b'\n', text).count();
            self.batch.chunk_newlines.push(u32::try_from(newlines).unwrap_or(u32::MAX));
            self.texts.extend_from_slice(text);
            numbers.push(number);
        }
        Ok(numbers)
    }
}

impl Generation {
    /// The chunks that a pattern with such grams may match in; `None` if that may be any.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the index cannot be read.
    pub(crate) fn chunks(&self, query: &GramQuery, until: Option<Instant>) -> Result<Option<Bits>> {
        self.segments.chunks(query, until)
    }

    /// The messages that a pattern with such grams may match in, or in their authors; `None` if that may be any. It knows
    /// the first [`Generation::messages`] alone.
    ///
    /// # Errors
    /// As [`Generation::chunks`].
    pub(crate) fn messages(&self, query: &GramQuery, until: Option<Instant>) -> Result<Option<Bits>> {
        self.segments.messages(query, until)
    }
}

#[cfg(test)]
mod tests;
