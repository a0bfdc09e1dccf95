//! What a source file defines: functions, types, fields and so on, with the places of their names.
//!
//! Parsing is tree-sitter's; what counts as a definition is written in one query for each language, in `queries/`
//! (see `grammar` for their captures). The grammars' own tag queries are not used: they tell no struct from a
//! class, leave out constants, macros, fields and most of C# and TypeScript, and spend most of their time on
//! references, which a text search finds anyway.
//!
//! Contents are hostile. Every call is bounded by `Limits`, parses on a stack that no content can overflow
//! (`extract`), and keeps from the native scanners what they are known not to survive (`hazards`). What is not
//! known can still crash native code or take all memory, for tree-sitter bounds neither: only a process of its own with
//! a limit on its memory confines that, and contents of strangers should be parsed in one.
//!
//! Deliberately absent: C and C++ prototypes and `extern` variables, which declare and do not define; local
//! variables and parameters in all languages; partial answers, for a symbol index that leaves out the second half
//! of a file would lie, while a skipped file can be counted.

mod declarator;
mod extract;
mod grammar;
mod hazards;
mod outline;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::language::Language;

/// One definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// Bytes of the content that are the name.
    pub name: Range<usize>,
    /// What is defined.
    pub kind: SymbolKind,
    /// Line of the name, counted from 0.
    pub line: u32,
    /// Bytes that name what the definition belongs to: the enclosing definition, the type of a Rust `impl` or of a
    /// Go receiver, the qualifier of a C++ name.
    pub parent: Option<Range<usize>>,
}

/// What a definition defines; the nearest of these where a language has a word of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SymbolKind {
    /// Function outside of types.
    Function,
    /// Function that belongs to a type, constructors among them.
    Method,
    /// Class, Java and C# record.
    Class,
    /// Struct and union.
    Struct,
    /// Enumeration; its members are constants.
    Enum,
    /// Interface, trait, annotation, concept.
    Interface,
    /// Module, namespace, package.
    Module,
    /// Constant and member of an enumeration.
    Constant,
    /// Other type: alias, typedef, delegate.
    Type,
    /// Macro.
    Macro,
    /// Field, property and event.
    Field,
    /// Global variable.
    Variable,
}

impl SymbolKind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Function,
        Self::Method,
        Self::Class,
        Self::Struct,
        Self::Enum,
        Self::Interface,
        Self::Module,
        Self::Constant,
        Self::Type,
        Self::Macro,
        Self::Field,
        Self::Variable,
    ];

    /// The kind in one lower-case word, as queries and answers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Method => "method",
            Self::Class => "class",
            Self::Struct => "struct",
            Self::Enum => "enum",
            Self::Interface => "interface",
            Self::Module => "module",
            Self::Constant => "constant",
            Self::Type => "type",
            Self::Macro => "macro",
            Self::Field => "field",
            Self::Variable => "variable",
        }
    }

    /// The kind of that [`SymbolKind::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What one file may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longer files are skipped.
    pub content_bytes_max: usize,
    /// Time for parsing and reading the tree. Usually kept within a millisecond; on contents made to hurt, single
    /// steps of the parser can take longer.
    pub time_max: Duration,
    /// Files with more definitions are skipped.
    pub symbols_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { content_bytes_max: 1 << 20, time_max: Duration::from_millis(500), symbols_max: 10_000 }
    }
}

/// Why a file has no symbols to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Skipped {
    /// There is no grammar for the language.
    Unsupported,
    /// The file is longer than [`Limits::content_bytes_max`].
    TooLarge,
    /// Parsing took longer than [`Limits::time_max`].
    TooSlow,
    /// The file nests, indents or quotes so heavily that the native parser could take for ever or crash.
    Hazardous,
    /// The file defines more than [`Limits::symbols_max`].
    TooMany,
    /// The system gave no thread to parse on; trying again later may help.
    NoThread,
    /// The process that parses ended or did not answer: see [`crate::Definer`].
    NoAnswer,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unsupported => "no grammar for the language",
            Self::TooLarge => "file too large for symbols",
            Self::TooSlow => "symbols took too long",
            Self::Hazardous => "file is dangerous to parse",
            Self::TooMany => "file defines too many symbols",
            Self::NoThread => "no thread for parsing",
            Self::NoAnswer => "the parser gave no answer",
        })
    }
}

impl std::error::Error for Skipped {}

/// What [`symbols`] depends on beside the file: it may tell other definitions than one of another version.
pub fn version() -> u64 {
    grammar::version()
}

/// Whether [`symbols`] has a grammar for `language`.
pub fn is_supported(language: Language) -> bool {
    grammar::Grammar::of(language).is_some()
}

/// Lists what `content`, a file in `language`, defines, ordered by position and each name once.
///
/// Broken programs give what can be recognized. Content need not be UTF-8.
///
/// # Errors
/// The reason to skip the file; nothing is known about its symbols then.
pub fn symbols(language: Language, content: &[u8], limits: &Limits) -> Result<Vec<Symbol>, Skipped> {
    let grammar = grammar::Grammar::of(language).ok_or(Skipped::Unsupported)?;
    // Tree-sitter counts in 32 bits.
    if content.len() > limits.content_bytes_max.min(i32::MAX as usize) {
        return Err(Skipped::TooLarge);
    }
    hazards::check(language.name(), content)?;
    let found = extract::definitions(grammar.compiled()?, content, limits)?;
    let symbols = outline::symbols(found);
    if symbols.len() > limits.symbols_max { Err(Skipped::TooMany) } else { Ok(symbols) }
}
