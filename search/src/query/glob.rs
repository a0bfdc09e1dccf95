//! Globs over paths and names: `*` and `?` do not cross a `/`, `**` does, `[a-z]`, `[!a-z]` and `{a,b}` are as in a
//! shell. Their meaning is the regex that [`glob_regex`] writes; globset is asked whether they are well formed.
//!
//! globset's own expressions are not used: they count bytes, so that `?` is half of an `é`.

use std::ops::Range;

use globset::GlobBuilder;

use super::error::QueryError;
use super::limits;

/// Whether a bare value is meant as a glob, once it is known to be no regex.
pub(super) fn looks_like_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Checks a glob that stands at `span` of the query.
pub(super) fn check(glob: &str, span: &Range<usize>) -> Result<(), QueryError> {
    limits::check_pattern(glob, span.start)?;
    if glob.matches('{').count() > limits::GLOB_BRACES_MAX {
        let message = format!("the glob has more than {} braces", limits::GLOB_BRACES_MAX);
        return Err(QueryError::new(span.clone(), message));
    }
    match GlobBuilder::new(glob).literal_separator(true).empty_alternates(true).build() {
        Ok(_) => Ok(()),
        Err(e) => Err(QueryError::new(span.clone(), format!("invalid glob: {}", e.kind()))),
    }
}

/// The regex (with Unicode, `^` and `$` for the whole path) that matches what the glob does.
///
/// A glob with a `/` is about the whole path, and a leading `/` only says so; any other is about the last part of the
/// path. A glob that is not well formed gets some regex, perhaps an invalid one.
pub fn glob_regex(glob: &str) -> String {
    let (anchor, body) = match glob.strip_prefix('/') {
        Some(body) => ("^", body),
        None if glob.contains('/') => ("^", glob),
        None => ("(?:^|/)", glob),
    };
    let mut writer = Writer { rest: body, out: anchor.to_owned(), braces_open: 0, at_part: true };
    while writer.step() {}
    writer.out.push('$');
    writer.out
}

/// Writes the regex of a glob from left to right.
struct Writer<'a> {
    rest: &'a str,
    out: String,
    braces_open: usize,
    /// Whether a part of the path begins here, so that `**` may stand for any number of parts.
    at_part: bool,
}

impl Writer<'_> {
    /// Writes what the rest begins with; false at the end.
    fn step(&mut self) -> bool {
        let Some(c) = self.rest.chars().next() else { return false };
        let at_part = std::mem::replace(&mut self.at_part, c == '/');
        if at_part && self.rest == "**" {
            self.write(2, ".*");
        } else if at_part && self.rest.starts_with("**/") {
            self.write(3, "(?:.*/)?");
            self.at_part = true;
        } else {
            self.step_within_part(c);
        }
        true
    }

    fn step_within_part(&mut self, c: char) {
        match c {
            '*' => self.write(1, "[^/]*"),
            '?' => self.write(1, "[^/]"),
            '[' => self.class(),
            '{' => {
                self.braces_open += 1;
                self.write(1, "(?:");
            }
            '}' if self.braces_open > 0 => {
                self.braces_open -= 1;
                self.write(1, ")");
            }
            ',' if self.braces_open > 0 => self.write(1, "|"),
            _ => {
                let literal = regex_syntax::escape(c.encode_utf8(&mut [0; 4]));
                self.write(c.len_utf8(), &literal);
            }
        }
    }

    fn write(&mut self, length: usize, regex: &str) {
        self.rest = &self.rest[length..];
        self.out.push_str(regex);
    }

    /// A class in brackets; a `]` right after the beginning is one of its characters.
    fn class(&mut self) {
        let inner = &self.rest[1..];
        let (negated, members) = match inner.strip_prefix(['!', '^']) {
            Some(members) => (true, members),
            None => (false, inner),
        };
        let end = members.char_indices().skip(1).find(|(_, c)| *c == ']').map_or(members.len(), |(at, _)| at);
        self.out.push_str(if negated { "[^/" } else { "[" });
        for (at, c) in members[..end].char_indices() {
            let ranges = c == '-' && at > 0 && at + 1 < end;
            if c.is_ascii_punctuation() && !ranges {
                self.out.push('\\');
            }
            self.out.push(c);
        }
        self.out.push(']');
        self.rest = members.get(end + 1..).unwrap_or_default();
    }
}
