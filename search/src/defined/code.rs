//! How the definitions of a file are written: one behind another, each as the steps from the one before.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::names::NameNo;
use crate::symbols::{Symbol, SymbolKind};

/// A definition, as it is stored.
#[derive(Serialize, Deserialize)]
struct SymbolRecord {
    name: NameNo,
    /// Of the name's first byte, and of its line.
    start_step: i64,
    line_step: i64,
    kind: SymbolKind,
    parent: Parent,
}

/// What a definition belongs to.
#[derive(Serialize, Deserialize)]
enum Parent {
    None,
    /// What the definition before belongs to.
    Same,
    /// Where its name begins, in bytes before the definition's, and how long it is.
    At {
        back: i64,
        bytes: u64,
    },
}

/// What a definition is told from.
#[derive(Clone, Default)]
struct Before {
    start: i64,
    line: i64,
    parent: Option<Range<usize>>,
}

/// Writes definitions, whose names have numbers; `None` if a place is beyond what can be written.
pub(super) fn encode<'a>(symbols: impl Iterator<Item = (&'a Symbol, NameNo)>) -> Option<Vec<u8>> {
    let (mut bytes, mut before) = (Vec::new(), Before::default());
    for (symbol, name) in symbols {
        let start = i64::try_from(symbol.name.start).ok()?;
        let parent = match &symbol.parent {
            None => Parent::None,
            same if *same == before.parent => Parent::Same,
            Some(parent) => Parent::At {
                back: start - i64::try_from(parent.start).ok()?,
                bytes: u64::try_from(parent.end.checked_sub(parent.start)?).ok()?,
            },
        };
        let (start_step, line_step) = (start - before.start, i64::from(symbol.line) - before.line);
        let record = SymbolRecord { name, start_step, line_step, kind: symbol.kind, parent };
        bytes = postcard::to_extend(&record, bytes).ok()?;
        before = Before { start, line: i64::from(symbol.line), parent: symbol.parent.clone() };
    }
    Some(bytes)
}

/// Reads what [`encode`] wrote, as far as it is whole.
pub(super) struct Decoder<'a> {
    rest: &'a [u8],
    before: Before,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, before: Before::default() }
    }

    /// The next definition.
    pub(super) fn next(&mut self) -> Option<Decoded> {
        let (record, rest) = postcard::take_from_bytes::<SymbolRecord>(self.rest).ok()?;
        let start = self.before.start.checked_add(record.start_step)?;
        let line = self.before.line.checked_add(record.line_step)?;
        let parent = match record.parent {
            Parent::None => None,
            Parent::Same => self.before.parent.clone(),
            Parent::At { back, bytes } => {
                let first = usize::try_from(start.checked_sub(back)?).ok()?;
                Some(first..first.checked_add(usize::try_from(bytes).ok()?)?)
            }
        };
        let before = Before { start, line, parent: parent.clone() };
        let (start, line) = (usize::try_from(start).ok()?, u32::try_from(line).ok()?);
        (self.rest, self.before) = (rest, before);
        Some(Decoded { name: record.name, start, line, kind: record.kind, parent })
    }

    /// Whether everything was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

/// A definition as it is read.
pub(super) struct Decoded {
    pub(super) name: NameNo,
    start: usize,
    line: u32,
    kind: SymbolKind,
    parent: Option<Range<usize>>,
}

impl Decoded {
    /// The definition, whose name has so many bytes.
    pub(super) fn symbol(self, name_bytes: usize) -> Option<Symbol> {
        let name = self.start..self.start.checked_add(name_bytes)?;
        Some(Symbol { name, kind: self.kind, line: self.line, parent: self.parent })
    }
}
