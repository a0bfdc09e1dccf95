//! What searches share: the index and the directories of searched commits, which count blobs by the index's numbers.

use std::{path::Path, sync::Arc};

use govc_engine::{Oid, Result};
use quick_cache::sync::Cache;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    definitions::{Definer, Definitions},
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
        Ok(Self::of(Index::in_memory()?, presence, budget_bytes, definer))
    }

    /// Opens the corpus in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Corrupt if what is there cannot be used and is to be made anew; else when it cannot be read or written, or is in use.
    pub fn open(folder: &Path, budget_bytes: u64, definer: Option<Arc<dyn Definer>>) -> Result<Self> {
        let index = Index::open(folder)?;
        let presence = Presence::open(folder, &index, budget_bytes / 8)?;
        Ok(Self::of(index, presence, budget_bytes, definer))
    }

    fn of(index: Index, presence: Presence, budget_bytes: u64, definer: Option<Arc<dyn Definer>>) -> Self {
        Self {
            index,
            views: Views::new(budget_bytes / 2),
            definitions: Definitions::new(budget_bytes / 4, definer),
            presence,
            verdicts: Verdicts::new(budget_bytes / 8),
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
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
        let key = (blob, xxh3_64(name));
        if let Some(known) = self.languages.get(&key) {
            return Ok(known);
        }
        let language = detect(path, &head()?);
        self.languages.insert(key, language);
        Ok(language)
    }

    /// Figures of the index.
    pub fn figures(&self) -> IndexFigures {
        self.index.figures()
    }

    /// Figures of which files are in which commits.
    pub fn presence_figures(&self) -> PresenceFigures {
        self.presence.figures()
    }

    /// What is kept of directories, definitions and what questions found out, in bytes, about.
    pub fn kept_bytes(&self) -> u64 {
        let questions = self.presence.recent.resident_bytes() + self.verdicts.resident_bytes();
        self.views.resident_bytes() + self.definitions.resident_bytes() + questions
    }

    /// Lets another open the folder: nothing can be added any more, and what was not committed is dropped.
    pub(crate) fn release(&self) {
        self.presence.release();
        self.index.release();
    }
}
