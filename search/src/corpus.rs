//! What searches share: the index and the directories of searched commits, which count blobs by the index's numbers.

use std::{path::Path, sync::Arc};

use govc_engine::{Oid, Result};
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    commits::{MessageNumbers, Numbered, Orders, Said},
    defined::{Records, SymbolFigures},
    definitions::{Definer, Definitions},
    fulltext::WordCounts,
    history::Verdicts,
    index::{BlobNo, Index, IndexFigures},
    language::{Language, by_path, detect},
    presence::{Presence, PresenceFigures},
    view::Views,
};

/// Files whose language is remembered: some 32 bytes each.
const LANGUAGES_MAX: usize = 200_000;

/// What a search looks things up in.
pub struct Corpus {
    pub(crate) index: Index,
    pub(crate) views: Views,
    pub(crate) definitions: Definitions,
    /// Which files are in which commits.
    pub(crate) presence: Presence,
    pub(crate) verdicts: Verdicts,
    /// The orders of commits that were asked about, and in which messages patterns match.
    pub(crate) orders: Orders,
    pub(crate) said: Said,
    pub(crate) word_counts: WordCounts,
    message_numbers: MessageNumbers,
    /// Languages that took a look into the file to tell, by blob and the hash of the path's last part.
    languages: Cache<(BlobNo, u64), Option<Language>>,
}

impl Corpus {
    /// A corpus that is lost with the process. Without a definer, what files define cannot be searched. At most `budget_bytes`
    /// of directories, definitions and what questions found out are kept.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn in_memory(budget_bytes: u64, definer: Option<Arc<dyn Definer>>) -> Result<Self> {
        let presence = Presence::in_memory(budget_bytes / 8);
        let definitions = Definitions::new(budget_bytes / 4, definer, Records::in_memory());
        Ok(Self::of(Index::in_memory()?, presence, budget_bytes, definitions))
    }

    /// Opens the corpus in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Corrupt if what is there cannot be used and is to be made anew; else when it cannot be read or written, or is in use.
    pub fn open(folder: &Path, budget_bytes: u64, definer: Option<Arc<dyn Definer>>) -> Result<Self> {
        let index = Index::open(folder)?;
        let presence = Presence::open(folder, &index, budget_bytes / 8)?;
        let records = match &definer {
            Some(definer) => Records::open(folder, &index, definer.version())?,
            None => Records::in_memory(),
        };
        Ok(Self::of(index, presence, budget_bytes, Definitions::new(budget_bytes / 4, definer, records)))
    }

    fn of(index: Index, presence: Presence, budget_bytes: u64, definitions: Definitions) -> Self {
        Self {
            index,
            views: Views::new(budget_bytes / 32 * 13),
            definitions,
            presence,
            verdicts: Verdicts::new(budget_bytes / 16),
            orders: Orders::new(budget_bytes / 32 * 3),
            said: Said::new(budget_bytes / 32),
            word_counts: WordCounts::new(budget_bytes / 32),
            message_numbers: MessageNumbers::default(),
            languages: Cache::new(LANGUAGES_MAX),
        }
    }

    /// The number of a blob.
    pub(crate) fn number(&self, oid: Oid) -> BlobNo {
        self.index.number(oid)
    }

    /// The language of a file; `head` gives its beginning, if that is needed.
    ///
    /// # Errors
    /// Those of `head`.
    pub(crate) fn language(
        &self,
        blob: BlobNo,
        path: &[u8],
        head: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Option<Language>> {
        if let Some(language) = by_path(path) {
            return Ok(Some(language));
        }
        let key = (blob, name_hash(path));
        if let Some(known) = self.languages.get(&key) {
            return Ok(known);
        }
        let language = detect(path, &head()?);
        self.languages.insert(key, language);
        Ok(language)
    }

    /// The language of a file, if the path tells it or it was looked for of late.
    pub(crate) fn known_language(&self, blob: BlobNo, path: &[u8]) -> Option<Option<Language>> {
        match by_path(path) {
            Some(language) => Some(Some(language)),
            None => self.languages.get(&(blob, name_hash(path))),
        }
    }

    /// The message of each commit that is indexed.
    pub(crate) fn message_numbers(&self) -> Arc<Numbered> {
        self.message_numbers.of(&self.presence, &self.index)
    }

    /// Figures of the index.
    pub fn figures(&self) -> IndexFigures {
        self.index.figures()
    }

    /// Figures of which files are in which commits.
    pub fn presence_figures(&self) -> PresenceFigures {
        self.presence.figures()
    }

    /// Figures of what is recorded of definitions.
    pub fn symbol_figures(&self) -> SymbolFigures {
        self.definitions.records.figures()
    }

    /// What is kept of directories, definitions and what questions found out, in bytes, about.
    pub fn kept_bytes(&self) -> u64 {
        let commits = self.orders.resident_bytes() + self.said.resident_bytes() + self.message_numbers.resident_bytes();
        let questions = self.presence.recent.resident_bytes()
            + self.verdicts.resident_bytes()
            + commits
            + self.word_counts.resident_bytes();
        self.views.resident_bytes() + self.definitions.resident_bytes() + questions
    }

    /// Lets another open the folder: nothing can be added any more, and what was not committed is dropped.
    pub(crate) fn release(&self) {
        self.definitions.records.release();
        self.presence.release();
        self.index.release();
    }
}

/// The hash of a path's last part, which is what a language is told from beside the content.
fn name_hash(path: &[u8]) -> u64 {
    xxh3_64(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path))
}
