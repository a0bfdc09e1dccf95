//! The symbols module from outside: what it finds in each language, and that no content hurts it.

mod hostile;
mod languages;

use std::ops::Range;

use super::{Limits, Skipped, Symbol, symbols};
use crate::language::Language;

/// Every language with a grammar.
const LANGUAGES: [&str; 12] =
    ["C", "C#", "C++", "Go", "Java", "JavaScript", "PHP", "Python", "Ruby", "Rust", "TSX", "TypeScript"];

fn find(language: &str, content: &[u8]) -> Result<Vec<Symbol>, Skipped> {
    symbols(Language::from_name(language).expect("a known language"), content, &Limits::default())
}

/// One line for each symbol: line from 1, kind, name, and `< parent` if there is one.
fn shown(content: &[u8], symbols: &[Symbol]) -> String {
    let text = |range: &Range<usize>| String::from_utf8_lossy(&content[range.clone()]).into_owned();
    let line = |symbol: &Symbol| {
        let parent = symbol.parent.as_ref().map(|parent| format!(" < {}", text(parent))).unwrap_or_default();
        format!("{} {} {}{parent}\n", symbol.line + 1, symbol.kind.name(), text(&symbol.name))
    };
    symbols.iter().map(line).collect()
}
