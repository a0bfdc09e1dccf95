//! Linguist's languages as hash tables, built once for each process (about 3 ms).
//!
//! Names, aliases and extensions are kept in lower case. The languages of one extension are ordered with the most
//! usual first; what makes a language usual is in [`Claim`].

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Language;
use super::usual::USUAL;

/// Longest extension in linguist's data is about half of this; longer ones are not looked up.
const EXTENSION_BYTES_MAX: usize = 64;

/// What is known of one language.
pub(super) struct Entry {
    /// Linguist's name.
    pub(super) name: &'static str,
    /// Linguist's number, the same in all its versions.
    pub(super) stable_id: u32,
}

/// All languages and the ways to find them.
pub(super) struct Catalog {
    /// By [`Language`], ordered by name.
    entries: Vec<Entry>,
    stable_ids: HashMap<u32, Language>,
    names: HashMap<String, Language>,
    file_names: HashMap<&'static [u8], Vec<Language>>,
    /// Keys begin with a dot.
    extensions: HashMap<Vec<u8>, Vec<Language>>,
    interpreters: HashMap<&'static [u8], Vec<Language>>,
}

/// How good a claim of a language on an extension is; the smallest wins.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    not_by_our_table: bool,
    /// Linguist lists a language's main extension first.
    not_main_extension: bool,
    /// Editors know the languages that people use.
    unknown_to_editors: bool,
    language: Language,
}

impl Catalog {
    /// The one catalog of the process.
    pub(super) fn get() -> &'static Self {
        static CATALOG: OnceLock<Catalog> = OnceLock::new();
        CATALOG.get_or_init(Self::build)
    }

    fn build() -> Self {
        let mut sorted: Vec<_> = linguist::definitions::LANGUAGES.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| name.as_str());
        sorted.truncate(usize::from(u16::MAX));
        let mut catalog = Self {
            entries: Vec::with_capacity(sorted.len()),
            stable_ids: HashMap::new(),
            names: HashMap::new(),
            file_names: HashMap::new(),
            extensions: HashMap::new(),
            interpreters: HashMap::new(),
        };
        let mut claims: HashMap<Vec<u8>, Vec<Claim>> = HashMap::new();
        for (language, (name, data)) in (0..).map(Language).zip(&sorted) {
            let stable_id = u32::try_from(data.language_id).unwrap_or(0);
            catalog.entries.push(Entry { name, stable_id });
            catalog.stable_ids.insert(stable_id, language);
            catalog.names.insert(normalized(name), language);
            for file_name in data.filenames.iter().flatten() {
                catalog.file_names.entry(file_name.as_bytes()).or_default().push(language);
            }
            for interpreter in data.interpreters.iter().flatten() {
                catalog.interpreters.entry(interpreter.as_bytes()).or_default().push(language);
            }
            for (position, extension) in data.extensions.iter().flatten().enumerate() {
                let extension = extension.to_ascii_lowercase();
                claims.entry(extension.clone().into_bytes()).or_default().push(Claim {
                    not_by_our_table: !USUAL.contains(&(extension.as_str(), name.as_str())),
                    not_main_extension: position > 0,
                    unknown_to_editors: data.codemirror_mode.is_none(),
                    language,
                });
            }
        }
        // A language's own name goes before another's alias.
        for (language, (_, data)) in (0..).map(Language).zip(&sorted) {
            for alias in data.aliases.iter().flatten() {
                catalog.names.entry(normalized(alias)).or_insert(language);
            }
        }
        catalog.extensions = claims.into_iter().map(|(extension, claims)| (extension, ranked(claims))).collect();
        catalog
    }

    /// The number of languages.
    pub(super) fn count(&self) -> u16 {
        // `build` keeps at most this many.
        u16::try_from(self.entries.len()).unwrap_or(u16::MAX)
    }

    /// What is known of `language`.
    pub(super) fn entry(&self, language: Language) -> Option<&Entry> {
        self.entries.get(usize::from(language.0))
    }

    /// The language with linguist's number `id`.
    pub(super) fn by_stable_id(&self, id: u32) -> Option<Language> {
        self.stable_ids.get(&id).copied()
    }

    /// The language with this name, alias or extension (with or without its dot), without regard to case.
    pub(super) fn by_name(&self, name: &str) -> Option<Language> {
        let name = name.trim();
        if name.len() > EXTENSION_BYTES_MAX {
            return None;
        }
        let extension = || format!(".{}", name.trim_start_matches('.').to_lowercase());
        let named = self.names.get(&normalized(name)).copied();
        named.or_else(|| self.extensions.get(extension().as_bytes())?.first().copied())
    }

    /// The languages that claim this exact file name.
    pub(super) fn by_file_name(&self, name: &[u8]) -> &[Language] {
        self.file_names.get(name).map_or(&[], Vec::as_slice)
    }

    /// The longest known extension of `name`, in lower case, and the languages that claim it.
    pub(super) fn by_extension(&self, name: &[u8]) -> Option<(&[u8], &[Language])> {
        let lower;
        let tail = name.get(name.len().saturating_sub(EXTENSION_BYTES_MAX)..)?;
        let tail = if tail.iter().any(u8::is_ascii_uppercase) {
            lower = tail.to_ascii_lowercase();
            lower.as_slice()
        } else {
            tail
        };
        memchr::memchr_iter(b'.', tail).find_map(|dot| {
            let (extension, languages) = self.extensions.get_key_value(tail.get(dot..)?)?;
            Some((extension.as_slice(), languages.as_slice()))
        })
    }

    /// The language run by this interpreter (`python3`, `node`); the first by name if several claim it.
    pub(super) fn by_interpreter(&self, interpreter: &[u8]) -> Option<Language> {
        self.interpreters.get(interpreter)?.first().copied()
    }
}

/// The languages of `claims`, best claim first.
fn ranked(mut claims: Vec<Claim>) -> Vec<Language> {
    claims.sort_unstable();
    claims.into_iter().map(|claim| claim.language).collect()
}

/// Lower case, with dashes for spaces, as linguist's default aliases are.
fn normalized(name: &str) -> String {
    name.to_lowercase().replace(char::is_whitespace, "-")
}
