//! Parses a file and runs its language's query over the tree, within a deadline and on a stack of its own.
//!
//! Tree-sitter recurses once for each token in places (`stack_node_add_link` in its `stack.c`, where ambiguous
//! parses meet), so a few hundred KiB of `%w[%w[…` overflow a usual stack, which ends the process. A thread with a
//! stack in proportion to the content makes that impossible; the memory is only reserved, and starting a thread
//! takes 1 % of the time to parse a small file.

use std::ops::ControlFlow;
use std::thread;
use std::time::Instant;

use tree_sitter::{Node, ParseOptions, Parser, QueryCursor, QueryCursorOptions, QueryMatch, StreamingIterator, Tree};

use super::declarator::{self, Declared};
use super::grammar::{Capture, Compiled};
use super::outline::Definition;
use super::{Limits, Skipped, SymbolKind};

/// Stack of a parse beside what its content asks for.
const STACK_BYTES_MIN: usize = 1 << 20;

/// The recursion takes 128 bytes for each level, and at most one level for each byte of content; the rest is for
/// other compilers and for tokens of no width.
const STACK_BYTES_PER_BYTE: usize = 512;

/// Definitions are looked for at this depth of the tree at most: a query takes time in proportion to a node's depth.
const DEPTH_MAX: u32 = 1_000;

/// All definitions in `content`, in no particular order and with duplicates.
pub(super) fn definitions(grammar: &Compiled, content: &[u8], limits: &Limits) -> Result<Vec<Definition>, Skipped> {
    let stack_bytes = content.len().saturating_mul(STACK_BYTES_PER_BYTE).saturating_add(STACK_BYTES_MIN);
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("symbols".to_owned()).stack_size(stack_bytes);
        let thread = builder.spawn_scoped(scope, || on_this_stack(grammar, content, limits));
        // A panic in there would be a mistake of ours; one file without symbols is the least harm.
        thread.map_err(|_| Skipped::NoThread)?.join().unwrap_or(Err(Skipped::Hazardous))
    })
}

fn on_this_stack(grammar: &Compiled, content: &[u8], limits: &Limits) -> Result<Vec<Definition>, Skipped> {
    let deadline = Instant::now().checked_add(limits.time_max);
    let tree = parse(grammar, content, deadline)?;
    let mut cursor = QueryCursor::new();
    cursor.set_max_start_depth(Some(DEPTH_MAX));
    let mut late = false;
    let mut progress = |_: &_| check(deadline, &mut late);
    let options = QueryCursorOptions::new().progress_callback(&mut progress);
    let mut matches = cursor.matches_with_options(&grammar.query, tree.root_node(), content, options);
    let mut found = Vec::new();
    while let Some(matched) = matches.next() {
        found.extend(definition(grammar, matched));
        // Some are found twice; this bounds memory, the caller counts what remains.
        if found.len() / 4 > limits.symbols_max {
            return Err(Skipped::TooMany);
        }
    }
    drop(matches);
    if late { Err(Skipped::TooSlow) } else { Ok(found) }
}

/// Whether to go on; sets `late` if not.
fn check(deadline: Option<Instant>, late: &mut bool) -> ControlFlow<()> {
    *late |= deadline.is_some_and(|deadline| Instant::now() >= deadline);
    if *late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn parse(grammar: &Compiled, content: &[u8], deadline: Option<Instant>) -> Result<Tree, Skipped> {
    let mut parser = Parser::new();
    parser.set_language(&grammar.language).map_err(|_| Skipped::Unsupported)?;
    let mut late = false;
    let mut progress = |_: &_| check(deadline, &mut late);
    let options = ParseOptions::new().progress_callback(&mut progress);
    let mut read = |offset: usize, _| content.get(offset..).unwrap_or(&[]);
    parser.parse_with_options(&mut read, None, Some(options)).ok_or(Skipped::TooSlow)
}

/// What one match defines.
fn definition(grammar: &Compiled, matched: &QueryMatch<'_, '_>) -> Option<Definition> {
    let (mut kind, mut name, mut scope, mut parent) = (None, None, None, None);
    for capture in matched.captures() {
        match *grammar.captures.get(capture.index as usize)? {
            Capture::Name(named) => (kind, name) = (Some(named), Some(capture.node)),
            Capture::Declarator(named) => {
                let declared = declarator::declared(capture.node)?;
                // `int f(int);` declares a function and defines nothing.
                kind = Some(declarator_kind(named, &declared)?);
                name = Some(declared.name);
                parent = declared.qualifier;
            }
            Capture::Container => name = Some(capture.node),
            Capture::Scope => scope = Some(capture.node),
            Capture::Parent => parent = Some(capture.node),
            Capture::Helper => {}
        }
    }
    let name = name.filter(|name| !name.byte_range().is_empty())?;
    Some(Definition {
        kind,
        name: name.byte_range(),
        line: u32::try_from(name.start_position().row).unwrap_or(u32::MAX),
        scope: scope.unwrap_or(name).byte_range(),
        parent: parent.map(|parent: Node<'_>| parent.byte_range()),
        pattern: matched.pattern_index,
    })
}

/// What a C declarator defines where a query expects a definition of kind `expected`.
fn declarator_kind(expected: SymbolKind, declared: &Declared<'_>) -> Option<SymbolKind> {
    match expected {
        // The queries put these on declarations: `int f(void);` defines nothing, but a class's member is part of it.
        SymbolKind::Variable if declared.is_function => None,
        SymbolKind::Field if declared.is_function => Some(SymbolKind::Method),
        SymbolKind::Function if declared.qualifier.is_some() => Some(SymbolKind::Method),
        SymbolKind::Function | SymbolKind::Method => declared.is_function.then_some(expected),
        expected => Some(expected),
    }
}
