//! Which programming language a file is in, by the data of GitHub's linguist.
//!
//! The `linguist` crate supplies the data (names, aliases, extensions, file names, interpreters) and the content
//! heuristics; its own lookups parse and allocate on each call and know no shebangs, so this module keeps hash
//! tables of its own over that data (`catalog`) and asks the crate only about contents (`content`).
//!
//! A path alone decides most files. Content is looked at only when the name says nothing or several things, and
//! then only its first `content::HEAD_BYTES`.
//!
//! Deliberately absent: linguist's Bayesian classifier. Where even its heuristics cannot tell, the most usual
//! language of the extension wins, so that every known extension has an answer.

mod catalog;
mod content;
mod usual;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt};

use catalog::Catalog;
pub(crate) use content::HEAD_BYTES;

use crate::index::is_binary;

/// One of linguist's languages; as cheap as a number.
///
/// The value itself means something in this process only. What is stored on disk is [`Language::stable_id`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Language(u16);

impl Language {
    /// Linguist's name: `Rust`, `C++`, `JavaScript`.
    pub fn name(self) -> &'static str {
        Catalog::get().entry(self).map_or("", |entry| entry.name)
    }

    /// Linguist's number for the language, which stays the same in all its versions.
    pub fn stable_id(self) -> u32 {
        Catalog::get().entry(self).map_or(0, |entry| entry.stable_id)
    }

    /// The language with this [`Language::stable_id`].
    pub fn from_stable_id(id: u32) -> Option<Self> {
        Catalog::get().by_stable_id(id)
    }

    /// The language that a person means by `name`: linguist's name, one of its aliases (`cpp`, `golang`, `c#`), or
    /// else an extension (`py`, `.kt`), without regard to case.
    pub fn from_name(name: &str) -> Option<Self> {
        Catalog::get().by_name(name)
    }

    /// All languages, ordered by name.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..Catalog::get().count()).map(Self)
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Tells the language of the file at `path`, or none if nothing speaks for one.
///
/// A path that speaks for languages decides among these: what the content says is then listened to only if it is one of
/// them. `content` may be the whole file or its beginning, or empty if it is not at hand: ambiguous names then get their
/// most usual language. Neither needs to be UTF-8.
pub fn detect(path: &[u8], content: &[u8]) -> Option<Language> {
    let (extension, candidates) = candidates(path);
    match &*candidates {
        [only] => Some(*only),
        [] => content::declared(content).or_else(|| content::xml(content)),
        several => Some(choose(several, extension, content)),
    }
}

/// The language of the file at `path`, if its path alone decides, as [`detect`] then says of any content.
pub(crate) fn by_path(path: &[u8]) -> Option<Language> {
    match &*candidates(path).1 {
        [only] => Some(*only),
        _ => None,
    }
}

/// Whether the file at `path` is in a language; `None` if only its content can tell.
pub(crate) fn is_by_path(path: &[u8], language: Language) -> Option<bool> {
    match &*candidates(path).1 {
        [] => None,
        [only] => Some(*only == language),
        several => (!several.contains(&language)).then_some(false),
    }
}

/// What of a file's content [`detect`] looks at; nothing of a binary one.
pub(crate) fn head(content: &[u8]) -> &[u8] {
    if is_binary(content) { &[] } else { content.get(..HEAD_BYTES).unwrap_or(content) }
}

/// The languages that a path speaks for, and the extension that does.
fn candidates(path: &[u8]) -> (&[u8], Cow<'static, [Language]>) {
    let catalog = Catalog::get();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let named = catalog.by_file_name(name);
    if let [_] = named {
        return (&[], named.into());
    }
    let (extension, extended) = catalog.by_extension(name).unwrap_or((&[], &[]));
    (extension, narrow(named, extended))
}

/// The languages in both sets; a set that is empty, or shares nothing with the other, says nothing.
fn narrow(named: &[Language], extended: &'static [Language]) -> Cow<'static, [Language]> {
    let both: Vec<_> = named.iter().copied().filter(|language| extended.contains(language)).collect();
    match (named.is_empty(), both.is_empty()) {
        (true, _) => extended.into(),
        (false, true) => named.to_vec().into(),
        (false, false) => both.into(),
    }
}

/// Picks among several candidates, which the catalog keeps with the most usual one in front.
fn choose(candidates: &[Language], extension: &[u8], content: &[u8]) -> Language {
    let usual = candidates.first().copied().unwrap_or(Language(0));
    if content.is_empty() {
        return usual;
    }
    let declared = content::declared(content).filter(|language| candidates.contains(language));
    declared
        .or_else(|| content::by_heuristics(extension, content).filter(|language| candidates.contains(language)))
        .unwrap_or(usual)
}
