//! The languages with a grammar, and their queries, compiled once for each process at first use.
//!
//! A query's captures:
//!
//! | capture | on |
//! |---|---|
//! | `@function`, `@struct` … (a [`SymbolKind`]) | the name of a definition |
//! | `@function.declarator` … | a C declarator, whose name [`super::declarator`] finds |
//! | `@container` | the name of what groups definitions and is none itself: a Rust `impl` |
//! | `@scope` | the whole definition, whose contents get it as their parent |
//! | `@parent` | the parent's name where it is not the enclosing definition |
//!
//! Where two patterns match one name, the one that stands first in the file counts. A function directly inside of
//! a type or container becomes a method by itself ([`super::outline`]).

use std::{fmt::Write as _, sync::OnceLock};

use tree_sitter::Query;
use tree_sitter_language::LanguageFn;
use xxhash_rust::xxh3::xxh3_64;

use super::{Limits, Skipped, SymbolKind};
use crate::language::Language;

/// Goes up with each change of this module that makes it tell other definitions; what grammars, queries, kinds and limits are
/// is looked at beside.
const RULES: u32 = 1;

/// A language's grammar and query.
pub(super) struct Grammar {
    /// Linguist's name of the language.
    name: &'static str,
    parser: LanguageFn,
    query: &'static str,
    compiled: OnceLock<Option<Compiled>>,
}

/// A grammar ready for use.
pub(super) struct Compiled {
    pub(super) language: tree_sitter::Language,
    pub(super) query: Query,
    /// What each of the query's captures means, by capture index.
    pub(super) captures: Vec<Capture>,
}

/// What a capture stands on; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capture {
    Name(SymbolKind),
    Declarator(SymbolKind),
    Container,
    Scope,
    Parent,
    /// Only read by the query's own predicates.
    Helper,
}

macro_rules! grammar {
    ($name:literal, $parser:expr, $file:literal) => {
        Grammar {
            name: $name,
            parser: $parser,
            query: include_str!(concat!("queries/", $file)),
            compiled: OnceLock::new(),
        }
    };
}

static GRAMMARS: [Grammar; 12] = [
    grammar!("C", tree_sitter_c::LANGUAGE, "c.scm"),
    grammar!("C#", tree_sitter_c_sharp::LANGUAGE, "c-sharp.scm"),
    grammar!("C++", tree_sitter_cpp::LANGUAGE, "cpp.scm"),
    grammar!("Go", tree_sitter_go::LANGUAGE, "go.scm"),
    grammar!("Java", tree_sitter_java::LANGUAGE, "java.scm"),
    grammar!("JavaScript", tree_sitter_javascript::LANGUAGE, "javascript.scm"),
    grammar!("PHP", tree_sitter_php::LANGUAGE_PHP, "php.scm"),
    grammar!("Python", tree_sitter_python::LANGUAGE, "python.scm"),
    grammar!("Ruby", tree_sitter_ruby::LANGUAGE, "ruby.scm"),
    grammar!("Rust", tree_sitter_rust::LANGUAGE, "rust.scm"),
    grammar!("TSX", tree_sitter_typescript::LANGUAGE_TSX, "typescript.scm"),
    grammar!("TypeScript", tree_sitter_typescript::LANGUAGE_TYPESCRIPT, "typescript.scm"),
];

/// A number that changes with whatever decides what a file defines.
pub(super) fn version() -> u64 {
    static VERSION: OnceLock<u64> = OnceLock::new();
    *VERSION.get_or_init(|| xxh3_64(description().as_bytes()))
}

/// What decides what a file defines, as text: a grammar that is changed has another number of states or kinds of nodes, or
/// says another version.
fn description() -> String {
    let limits = Limits::default();
    let mut text = format!("{RULES} {} {}", limits.content_bytes_max, limits.symbols_max);
    SymbolKind::ALL.iter().for_each(|kind| text.extend([" ", kind.name()]));
    for grammar in &GRAMMARS {
        let language = tree_sitter::Language::new(grammar.parser);
        let version = language.metadata().map(|said| (said.major_version, said.minor_version, said.patch_version));
        let sizes = (language.parse_state_count(), language.node_kind_count(), language.field_count());
        // Writing into a text cannot fail.
        let _ = write!(text, "\0{}\0{version:?} {sizes:?} {}\0{}", grammar.name, language.abi_version(), grammar.query);
    }
    text
}

impl Grammar {
    /// The grammar of `language`.
    pub(super) fn of(language: Language) -> Option<&'static Self> {
        let name = language.name();
        GRAMMARS.iter().find(|grammar| grammar.name == name)
    }

    /// The compiled query. Fails only for a mistake in a query file, which tests find.
    pub(super) fn compiled(&'static self) -> Result<&'static Compiled, Skipped> {
        self.compiled.get_or_init(|| self.compile().ok()).as_ref().ok_or(Skipped::Unsupported)
    }

    fn compile(&self) -> Result<Compiled, tree_sitter::QueryError> {
        let language = tree_sitter::Language::new(self.parser);
        let query = Query::new(&language, self.query)?;
        let captures = query.capture_names().iter().map(|name| Capture::named(name)).collect();
        Ok(Compiled { language, query, captures })
    }
}

impl Capture {
    fn named(name: &str) -> Self {
        let (kind, declarator) = name.strip_suffix(".declarator").map_or((name, false), |kind| (kind, true));
        match (SymbolKind::from_name(kind), declarator) {
            (Some(kind), false) => Self::Name(kind),
            (Some(kind), true) => Self::Declarator(kind),
            (None, _) => match name {
                "container" => Self::Container,
                "scope" => Self::Scope,
                "parent" => Self::Parent,
                _ => Self::Helper,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Capture, GRAMMARS};

    #[test]
    fn queries_compile_and_capture_only_what_is_known() {
        for grammar in &GRAMMARS {
            let compiled = grammar.compile().unwrap_or_else(|error| panic!("{}: {error}", grammar.name));
            for (name, capture) in compiled.query.capture_names().iter().zip(&compiled.captures) {
                let helper = name.starts_with('_');
                assert_eq!(*capture == Capture::Helper, helper, "{}: unknown capture @{name}", grammar.name);
            }
        }
    }
}
