//! What commits say: of each who wrote it, on a line, and behind that its message, as it is.
//!
//! They are texts apart from those of files, with numbers and trigrams of their own: a search for files sees none of them,
//! and none of theirs is a file's, whatever a tree names. Each is one text and is not cut into chunks, since messages
//! have little in common and are short.

use govc_engine::{Commit, Oid, Result};

use super::{
    INDEXED_BYTES_MAX,
    contents::{Contents, Text},
    log::MessageRecord,
};
use crate::numbers::Numbers;

/// A message's number: its place in the order in which messages came.
pub(crate) type MessageNo = u32;
/// What separates the author from the message.
const SEPARATOR: u8 = b'\n';

/// The messages of all commits that are indexed.
pub(crate) struct Messages {
    numbers: Numbers,
    commits: Vec<Oid>,
    /// Where each text begins, and at the end where the last one ends.
    starts: Vec<u64>,
    pub(super) contents: Contents,
}

/// Who wrote a commit, as it is searched.
pub(crate) fn author_of(commit: &Commit) -> Vec<u8> {
    [&commit.author.name[..], b" <", &commit.author.email, b">"].concat()
}

/// The text of a commit; `None` if it cannot be told apart again, or is too large.
pub(crate) fn text_of(commit: &Commit) -> Option<Vec<u8>> {
    let author = author_of(commit);
    let fits = author.len().saturating_add(commit.message.len()) < INDEXED_BYTES_MAX;
    (fits && !author.contains(&SEPARATOR)).then(|| [&author[..], &[SEPARATOR], &commit.message].concat())
}

/// The author and the message of a text.
pub(crate) fn parts(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(SEPARATOR, text).unwrap_or(text.len());
    (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default())
}

impl Messages {
    pub(super) fn new(contents: Contents) -> Self {
        Self { numbers: Numbers::default(), commits: Vec::new(), starts: vec![0], contents }
    }

    /// The number of a commit's message.
    pub(crate) fn number(&self, commit: &Oid) -> Option<MessageNo> {
        self.numbers.get(commit)
    }

    /// The commit of a message.
    pub(crate) fn commit(&self, number: MessageNo) -> Option<&Oid> {
        self.commits.get(number as usize)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> MessageNo {
        // Numbers are 32 bits wide; the writer refuses more.
        MessageNo::try_from(self.commits.len()).unwrap_or(MessageNo::MAX)
    }

    /// The text of a message, with its author in front.
    pub(crate) fn text(&self, number: MessageNo) -> Option<Text> {
        let at = number as usize;
        self.contents.text(*self.starts.get(at)?..*self.starts.get(at + 1)?)
    }

    /// Adds what a batch brings; its texts are in `contents`.
    pub(super) fn add(&mut self, batch: &[MessageRecord]) -> Result<()> {
        let mut end = self.starts.last().copied().unwrap_or(0);
        for record in batch {
            let commit = Oid::from_bytes(&record.commit)?;
            self.numbers.insert(&commit, self.count());
            self.commits.push(commit);
            end += u64::from(record.bytes);
            self.starts.push(end);
        }
        Ok(())
    }

    /// Memory without the texts, in bytes, about.
    pub(super) fn resident_bytes(&self) -> u64 {
        let bytes = |count: usize, each: usize| (count * each) as u64;
        self.numbers.resident_bytes()
            + bytes(self.commits.capacity(), size_of::<Oid>())
            + bytes(self.starts.capacity(), size_of::<u64>())
    }
}
