//! What files define, looked up in what is recorded ([`crate::defined`]) and kept for those that were asked about: parsing
//! is a thousand times slower than searching.
//!
//! Grammars are C, and hostile files have brought them to abort the process or to take all of its memory. So parsing is
//! left to a [`Definer`], which a server runs in a process of its own; [`InProcess`] is for files that are trusted.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};

use crate::{
    defined::Records,
    index::BlobNo,
    language::Language,
    symbols::{self, Limits, Skipped, Symbol, is_supported, symbols},
};

/// Tells what a file defines.
pub trait Definer: Send + Sync {
    /// The definitions of a file, in the order of their places.
    ///
    /// # Errors
    /// Why they cannot be told.
    fn definitions(&self, language: Language, content: &[u8]) -> Result<Vec<Symbol>, Skipped>;

    /// What its answers depend on beside the file: of two with different versions, one may tell what the other does not.
    fn version(&self) -> u64 {
        symbols::version()
    }
}

/// Parses where it is called: only for files that nobody made to do harm.
#[derive(Debug, Default)]
pub struct InProcess(pub Limits);

impl Definer for InProcess {
    fn definitions(&self, language: Language, content: &[u8]) -> Result<Vec<Symbol>, Skipped> {
        symbols(language, content, &self.0)
    }
}

/// Definitions of one file in the order of their places; `None` if they cannot be told.
pub(crate) type Defined = Option<Arc<[Symbol]>>;

/// What a kept file takes.
#[derive(Clone)]
struct Weigh;

impl Weighter<(BlobNo, Language), Defined> for Weigh {
    fn weight(&self, _: &(BlobNo, Language), defined: &Defined) -> u64 {
        64 + (defined.as_ref().map_or(0, |symbols| symbols.len()) * size_of::<Symbol>()) as u64
    }
}

/// The definitions of files that were asked about of late, within a budget.
pub(crate) struct Definitions {
    files: Cache<(BlobNo, Language), Defined, Weigh>,
    /// What the indexer had told.
    pub(crate) records: Records,
    definer: Option<Arc<dyn Definer>>,
}

impl Definitions {
    /// Keeps at most `budget_bytes` of what is not recorded, about.
    pub(crate) fn new(budget_bytes: u64, definer: Option<Arc<dyn Definer>>, records: Records) -> Self {
        let items = usize::try_from(budget_bytes / 4096).unwrap_or(usize::MAX).clamp(1, 1 << 20);
        Self { files: Cache::with_weighter(items, budget_bytes, Weigh), records, definer }
    }

    /// Whether there is somebody to ask.
    pub(crate) fn can_tell(&self) -> bool {
        self.definer.is_some()
    }

    /// The one who tells.
    pub(crate) fn definer(&self) -> Option<&Arc<dyn Definer>> {
        self.definer.as_ref()
    }

    /// What the kept definitions take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.files.weight()
    }

    /// What the file with this content defines; nothing, in a language without a grammar.
    pub(crate) fn of(&self, blob: BlobNo, language: Language, content: &[u8]) -> Defined {
        let Some(definer) = self.definer.as_ref().filter(|_| is_supported(language)) else {
            return Some(Arc::default());
        };
        if let Some(recorded) = self.records.defined(blob, language) {
            return recorded;
        }
        if let Some(known) = self.files.get(&(blob, language)) {
            return known;
        }
        let told = definer.definitions(language, content);
        // Another time there may be an answer.
        let is_final = !matches!(told, Err(Skipped::NoAnswer | Skipped::NoThread));
        let defined: Defined = told.ok().map(Arc::from);
        if is_final {
            self.files.insert((blob, language), defined.clone());
        }
        defined
    }
}
