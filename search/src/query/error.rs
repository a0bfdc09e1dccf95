//! What is wrong with a query, where, and what may have been meant.
//!
//! A span is in bytes of the query and lies on character boundaries; it may be empty at the query's end.

use std::fmt;
use std::ops::Range;

/// Characters of the query that [`QueryError::render`] shows before the mark, and after its beginning.
const SHOWN_BEFORE: usize = 50;
const SHOWN_AFTER: usize = 70;

/// Why a text is not a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryError {
    /// What is wrong: one line, lower case, without a full stop.
    pub message: String,
    /// What of the query is wrong, in bytes.
    pub span: Range<usize>,
    /// What could stand in the place of the span.
    pub suggestion: Option<String>,
}

impl QueryError {
    /// An error about a part of the query.
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { message: message.into(), span, suggestion: None }
    }

    /// The same error with what could stand in the place of its span.
    pub(super) fn suggest(mut self, text: impl Into<String>) -> Self {
        self.suggestion = Some(text.into());
        self
    }

    /// Two lines without a line break at the end: the query (or what of it is around the error), and below it carets
    /// under the span with the message.
    ///
    /// One column is counted for each character, and control characters are shown as others, so that the answer can
    /// be printed to a terminal.
    pub fn render(&self, query: &str) -> String {
        let shown: Vec<(usize, char)> = query.char_indices().map(|(at, c)| (at, printable(c))).collect();
        let column = shown.iter().take_while(|(at, _)| *at < self.span.start).count();
        let width = shown[column..].iter().take_while(|(at, _)| *at < self.span.end).count().max(1);
        let from = column.saturating_sub(SHOWN_BEFORE);
        let to = shown.len().min(column + SHOWN_AFTER);
        let carets = width.min((to - column).max(1));
        let mut out = String::new();
        if from > 0 {
            out.push('…');
        }
        out.extend(shown[from..to].iter().map(|(_, c)| c));
        if to < shown.len() {
            out.push('…');
        }
        let indent = column - from + usize::from(from > 0);
        out.push_str(&format!("\n{}{} {}", " ".repeat(indent), "^".repeat(carets), self.message));
        if let Some(suggestion) = &self.suggestion {
            out.push_str(&format!("; did you mean `{suggestion}`?"));
        }
        out
    }
}

/// A character that takes one column and gives no order to a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.span.start, self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for QueryError {}
