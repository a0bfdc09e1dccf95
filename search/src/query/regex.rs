//! Regular expressions: which are accepted, and which letters of one are written out.
//!
//! The syntax is that of the crate regex-syntax. `^` and `$` are the ends of a line, and a match lies within one line:
//! contents are searched line by line, so an expression that needs a line break could never match and is refused.

use std::ops::Range;

use regex_syntax::ast::{self, Ast, ClassSetItem};
use regex_syntax::hir::{Class, Hir, HirKind, translate::TranslatorBuilder};

use super::error::QueryError;
use super::limits;

/// Checks the regular expression that stands at byte `at` of the query.
///
/// # Errors
/// At the place in the query where the expression is wrong, if that can be told, or else over all of it.
pub(super) fn check(source: &str, at: usize) -> Result<(), QueryError> {
    limits::check_pattern(source, at)?;
    let whole = at..at + source.len();
    let moved = |span: &ast::Span| visible(source, span.start.offset..span.end.offset, at);
    let ast = parse(source).map_err(|e| invalid(moved(e.span()), e.kind().to_string()))?;
    let letters = letters(&ast);
    if letters.properties > limits::REGEX_PROPERTIES_MAX {
        let message = format!("the regex has more than {} Unicode classes (\\p)", limits::REGEX_PROPERTIES_MAX);
        return Err(QueryError::new(whole, message));
    }
    if let Some(span) = letters.line_break {
        let message = "a match lies within one line, so a regex cannot have a line break; $ is the end of a line";
        return Err(QueryError::new(at + span.start..at + span.end, message));
    }
    let mut translator = TranslatorBuilder::new().utf8(false).multi_line(true).build();
    let hir = translator.translate(source, &ast).map_err(|e| invalid(moved(e.span()), e.kind().to_string()))?;
    if hir.properties().maximum_len() == Some(0) {
        return Err(QueryError::new(whole, "the regex matches only the empty text"));
    }
    if !can_take_text(&hir) {
        return Err(QueryError::new(whole, "the regex can match nothing within a line"));
    }
    if weight(&hir) > limits::REGEX_WEIGHT_MAX {
        return Err(QueryError::new(whole, "the regex is too large once its repetitions are written out"));
    }
    Ok(())
}

/// Whether an upper case letter is written out in the expression: `\S`, `\W` and `\p{Lu}` have none, `[A-Z]` has.
pub(super) fn has_upper(source: &str) -> bool {
    parse(source).is_ok_and(|ast| letters(&ast).upper)
}

/// `\/`, which slashes around a regex need, as the `/` that it means.
pub(super) fn unescape_slashes(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('/')) => {}
            ('\\', Some(next)) => {
                out.extend([c, next]);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

fn parse(source: &str) -> Result<Ast, Box<ast::Error>> {
    ast::parse::ParserBuilder::new().nest_limit(limits::REGEX_NEST_MAX).build().parse(source).map_err(Box::new)
}

/// A span of the source as one of the query; an empty one takes the character that follows.
fn visible(source: &str, span: Range<usize>, at: usize) -> Range<usize> {
    let next = source.get(span.start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    let end = if span.is_empty() { span.start + next } else { span.end };
    at + span.start..at + end
}

fn invalid(span: Range<usize>, reason: String) -> QueryError {
    let mut reason = reason.replace('\n', " ");
    if reason.starts_with("Unicode") {
        reason.insert_str(0, "the ");
    }
    QueryError::new(span, format!("invalid regex: {reason}"))
}

/// What the characters tell that an expression writes out.
#[derive(Default)]
struct Letters {
    upper: bool,
    /// The first line break outside brackets, in bytes of the expression.
    line_break: Option<Range<usize>>,
    /// How many Unicode classes there are: each can take a quarter of a millisecond to fold.
    properties: usize,
}

fn letters(ast: &Ast) -> Letters {
    let Ok(letters) = ast::visit(ast, Letters::default());
    letters
}

impl ast::Visitor for Letters {
    type Output = Self;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Self, Self::Err> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        self.properties += usize::from(matches!(ast, Ast::ClassUnicode(_)));
        if let Ast::Literal(literal) = ast {
            self.upper |= literal.c.is_uppercase();
            if literal.c == '\n' && self.line_break.is_none() {
                self.line_break = Some(literal.span.start.offset..literal.span.end.offset);
            }
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Literal(literal) => self.upper |= literal.c.is_uppercase(),
            ClassSetItem::Range(range) => self.upper |= range.start.c.is_uppercase() || range.end.c.is_uppercase(),
            ClassSetItem::Unicode(_) => self.properties += 1,
            _ => {}
        }
        Ok(())
    }
}

/// Whether some match lies within one line.
fn can_match(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(_) | HirKind::Class(_) => can_take_text(hir),
        HirKind::Repetition(repetition) => repetition.min == 0 || can_match(&repetition.sub),
        HirKind::Capture(capture) => can_match(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(can_match),
        HirKind::Alternation(parts) => parts.iter().any(can_match),
    }
}

/// Whether some match lies within one line and is not empty.
fn can_take_text(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => !literal.0.contains(&b'\n'),
        HirKind::Class(Class::Unicode(class)) => class.iter().any(|r| (r.start(), r.end()) != ('\n', '\n')),
        HirKind::Class(Class::Bytes(class)) => class.iter().any(|r| (r.start(), r.end()) != (b'\n', b'\n')),
        HirKind::Repetition(repetition) => repetition.max != Some(0) && can_take_text(&repetition.sub),
        HirKind::Capture(capture) => can_take_text(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(can_match) && parts.iter().any(can_take_text),
        HirKind::Alternation(parts) => parts.iter().any(can_take_text),
    }
}

/// How many ranges of characters an automaton needs at least, with counted repetitions written out.
fn weight(hir: &Hir) -> u64 {
    let sum = |parts: &[Hir]| parts.iter().map(weight).fold(0, u64::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() as u64,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            weight(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Capture(capture) => weight(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}
