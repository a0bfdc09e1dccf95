//! From definitions found in any order to symbols in order: duplicates go, parents and methods are told by nesting.

use std::cmp::Reverse;
use std::ops::Range;

use super::{Symbol, SymbolKind};

/// A definition as a query finds it.
#[derive(Debug)]
pub(super) struct Definition {
    /// None for what only groups others (a Rust `impl`).
    pub(super) kind: Option<SymbolKind>,
    /// Bytes of the name.
    pub(super) name: Range<usize>,
    /// Line of the name, from 0.
    pub(super) line: u32,
    /// Bytes of the whole definition; those of the name where nothing can be inside.
    pub(super) scope: Range<usize>,
    /// Name of the parent, where the query tells it.
    pub(super) parent: Option<Range<usize>>,
    /// The query's pattern; the smaller number wins.
    pub(super) pattern: usize,
}

/// Orders `found` by position, keeps the best of each name, and gives each its parent.
pub(super) fn symbols(mut found: Vec<Definition>) -> Vec<Symbol> {
    found.sort_unstable_by_key(|def| (def.name.start, def.pattern));
    found.dedup_by_key(|def| def.name.start);
    found.sort_by_key(|def| (def.scope.start, Reverse(def.scope.end), def.name.start));
    let mut symbols = Vec::with_capacity(found.len());
    let mut open: Vec<(Range<usize>, Range<usize>, Option<SymbolKind>)> = Vec::new();
    for def in found {
        while open.pop_if(|(scope, ..)| scope.end <= def.scope.start).is_some() {}
        let enclosing = open.last();
        if let Some(kind) = def.kind.and_then(|kind| inside(kind, enclosing.map(|(.., kind)| *kind))) {
            let parent = def.parent.or_else(|| enclosing.map(|(_, name, _)| name.clone()));
            symbols.push(Symbol { name: def.name.clone(), kind, line: def.line, parent });
        }
        if holds_others(def.kind) {
            open.push((def.scope, def.name, def.kind));
        }
    }
    symbols.sort_by_key(|symbol| symbol.name.start);
    symbols
}

/// Whether definitions inside of one of this kind have it as their parent.
fn holds_others(kind: Option<SymbolKind>) -> bool {
    use SymbolKind as K;
    matches!(
        kind,
        None | Some(K::Function | K::Method | K::Class | K::Struct | K::Enum | K::Interface | K::Module | K::Field)
    )
}

/// What a definition of `kind` is inside of an `enclosing` one; none for a function's local variable.
fn inside(kind: SymbolKind, enclosing: Option<Option<SymbolKind>>) -> Option<SymbolKind> {
    use SymbolKind as K;
    match (kind, enclosing) {
        (K::Function, Some(None | Some(K::Class | K::Struct | K::Enum | K::Interface))) => Some(K::Method),
        (K::Variable, Some(Some(K::Function | K::Method))) => None,
        _ => Some(kind),
    }
}
