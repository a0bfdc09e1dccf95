//! `symbols`: what the files of a revision define.

use std::{ffi::CStr, hash::Hasher, sync::Arc, vec::IntoIter};

use govc_engine::{EntryMode, Oid, Result};

use super::{
    files::part_of_paths,
    run::{Rev, Run},
    table::{Estimate, Given, Rows, Slot, Table, Test, Tests},
    tree::{Bounds, TreeWalk},
    value::Cell,
};
use crate::{
    defined::Named,
    index::is_binary,
    language::{by_path, head},
    symbols::{Symbol, SymbolKind, is_supported},
    view::is_file,
};

const PATH: usize = 0;
const REV: usize = 4;

const BY_REV: usize = 0;

pub(super) struct Symbols;

impl Table for Symbols {
    const DECLARATION: &'static CStr =
        c"CREATE TABLE symbols(path TEXT, name TEXT, kind TEXT, line INTEGER, rev TEXT HIDDEN)";
    // In the order of those of `files`.
    const SLOTS: &'static [Slot] = &[
        Slot { column: REV, test: Test::Argument },
        Slot { column: PATH, test: Test::Equal },
        Slot { column: PATH, test: Test::AtLeast },
        Slot { column: PATH, test: Test::AtMost },
        Slot { column: PATH, test: Test::Like },
        Slot { column: PATH, test: Test::Glob },
    ];
    type Rows = SymbolRows;

    fn estimate(_: &Run, given: Given) -> Estimate {
        let part = part_of_paths(given);
        Estimate { cost: 300.0 + 1e7 * part, rows: 20 + (400_000.0 * part) as i64, is_unique: false }
    }

    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<SymbolRows>> {
        let Some(rev) = run.rev(tests.get(BY_REV))? else { return Ok(None) };
        let root = run.snapshot.root_tree(rev.oid)?;
        let walk = TreeWalk::new(run, root, Bounds::new(Self::SLOTS, PATH, tests))?;
        let definitions = Vec::new().into_iter();
        Ok(Some(SymbolRows { run: Arc::clone(run), rev, walk, definitions, current: None, place: 0 }))
    }
}

/// A name that a file defines.
struct Definition {
    name: Vec<u8>,
    kind: SymbolKind,
    /// From 1.
    line: u64,
}

pub(super) struct SymbolRows {
    run: Arc<Run>,
    rev: Rev,
    walk: TreeWalk,
    /// Those of the file that follow.
    definitions: IntoIter<Definition>,
    current: Option<Definition>,
    /// The current one's among the file's.
    place: u64,
}

impl Rows for SymbolRows {
    fn advance(&mut self) -> Result<bool> {
        loop {
            self.current = self.definitions.next();
            self.place += 1;
            if self.current.is_some() {
                return Ok(true);
            }
            let Some((mode, oid)) = self.walk.advance()? else { return Ok(false) };
            self.definitions = self.definitions_of(mode, &oid)?.into_iter();
            self.place = 0;
        }
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let Some(definition) = &self.current else { return Ok(Cell::Null) };
        Ok(match column {
            PATH => Cell::text(self.walk.path()),
            1 => Cell::text(&definition.name),
            2 => Cell::text(definition.kind.name().as_bytes()),
            3 => Cell::count(definition.line),
            REV => Cell::text(&self.rev.name),
            _ => Cell::Null,
        })
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.rev.name);
        hasher.write_u8(0);
        hasher.write(self.walk.path());
        hasher.write_u64(self.place);
    }
}

impl SymbolRows {
    fn definitions_of(&self, mode: EntryMode, oid: &Oid) -> Result<Vec<Definition>> {
        let (run, path) = (&self.run, self.walk.path());
        // Reading nothing is the usual case: a repository has many files of no programming language.
        if !is_file(mode) || by_path(path).is_some_and(|language| !is_supported(language)) {
            return Ok(Vec::new());
        }
        if run.leaves_out(oid)? {
            return Ok(Vec::new());
        }
        let (blob, definitions) = (run.corpus.number(*oid), &run.corpus.definitions);
        let known = run.corpus.known_language(blob, path).flatten();
        if let Some(named) = known.and_then(|language| definitions.records.named(blob, language)) {
            run.check_deadline()?;
            return Ok(named.iter().map(Definition::new).collect());
        }
        let data = run.blob(oid)?;
        if is_binary(&data) {
            return Ok(Vec::new());
        }
        let Some(language) = run.corpus.language(blob, path, || Ok(head(&data).to_vec()))? else {
            return Ok(Vec::new());
        };
        let Some(defined) = definitions.of(blob, language, &data) else {
            run.leave_out();
            return Ok(Vec::new());
        };
        Ok(Named::of(&defined, &data).iter().map(Definition::new).collect())
    }
}

impl Definition {
    fn new((symbol, name): (&Symbol, &[u8])) -> Self {
        Self { name: name.to_vec(), kind: symbol.kind, line: u64::from(symbol.line) + 1 }
    }
}
