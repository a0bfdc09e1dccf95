//! Makes patterns of values: what is literal, what a regex and what a glob, and whether case matters.
//!
//! Quotes are always literal and slashes always a regex. A bare value is literal, save for a path or a repository:
//! there `^ $ \ | ( ) +` and `.*` make it a regex (as for zoekt), or else `* ? [` a glob (as for GitHub).

use super::ast::{PathPattern, Pattern};
use super::error::QueryError;
use super::glob::{self, glob_regex};
use super::lex::{Form, Value};
use super::regex;

/// What `case:` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Case matters if and only if the pattern has an upper case letter.
    Auto,
    /// Case matters.
    Yes,
    /// Case does not matter.
    No,
}

impl Case {
    fn resolve(self, auto: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Auto => auto(),
            Self::Yes => true,
            Self::No => false,
        }
    }
}

/// What `case:auto` makes of a pattern.
pub(super) fn auto_case(text: &str, is_regex: bool) -> bool {
    if is_regex { regex::has_upper(text) } else { text.chars().any(char::is_uppercase) }
}

/// A text or a regex in slashes.
pub(super) fn text(value: &Value, case: Case) -> Result<Pattern, QueryError> {
    match value.form {
        Form::Regex => regex_at(&value.text, value.span.start + 1, value, case),
        Form::Bare | Form::Quoted => Ok(literal(value, case)),
    }
}

/// A bare value that is a regex whatever it looks like (`regex:`); quotes around it are taken off.
pub(super) fn regex(value: &Value, case: Case) -> Result<Pattern, QueryError> {
    let at = value.span.start + usize::from(value.form != Form::Bare);
    regex_at(&value.text, at, value, case).map_err(|e| keep_within(e, value))
}

/// The pattern of a path.
pub(super) fn path(value: &Value, case: Case) -> Result<PathPattern, QueryError> {
    match reading(value) {
        Reading::Literal => Ok(PathPattern::Pattern(literal(value, case))),
        Reading::Regex(at) => regex_at(&value.text, at, value, case).map(PathPattern::Pattern),
        Reading::Glob => {
            glob::check(&value.text, &value.span)?;
            let case_sensitive = case.resolve(|| auto_case(&value.text, false));
            Ok(PathPattern::Glob { glob: value.text.clone(), case_sensitive, span: value.span.clone() })
        }
    }
}

/// The pattern of a repository's name; a glob becomes the regex that it means.
pub(super) fn repo(value: &Value, case: Case) -> Result<Pattern, QueryError> {
    match reading(value) {
        Reading::Literal => Ok(literal(value, case)),
        Reading::Regex(at) => regex_at(&value.text, at, value, case),
        Reading::Glob => {
            glob::check(&value.text, &value.span)?;
            let text = glob_regex(&value.text);
            regex::check(&text, value.span.start).map_err(|e| QueryError { span: value.span.clone(), ..e })?;
            let case_sensitive = case.resolve(|| auto_case(&text, true));
            Ok(Pattern { text, regex: true, case_sensitive, span: value.span.clone() })
        }
    }
}

/// How the value of a path or a repository is read.
enum Reading {
    Literal,
    /// With the place of its source in the query.
    Regex(usize),
    Glob,
}

fn reading(value: &Value) -> Reading {
    let bare = value.form == Form::Bare;
    if value.form == Form::Regex {
        Reading::Regex(value.span.start + 1)
    } else if bare && (value.text.contains(['^', '$', '\\', '|', '(', ')', '+']) || value.text.contains(".*")) {
        Reading::Regex(value.span.start)
    } else if bare && glob::looks_like_glob(&value.text) {
        Reading::Glob
    } else {
        Reading::Literal
    }
}

fn literal(value: &Value, case: Case) -> Pattern {
    let case_sensitive = case.resolve(|| auto_case(&value.text, false));
    Pattern { text: value.text.clone(), regex: false, case_sensitive, span: value.span.clone() }
}

fn regex_at(source: &str, at: usize, value: &Value, case: Case) -> Result<Pattern, QueryError> {
    regex::check(source, at)?;
    let text = regex::unescape_slashes(source);
    let case_sensitive = case.resolve(|| auto_case(&text, true));
    Ok(Pattern { text, regex: true, case_sensitive, span: value.span.clone() })
}

/// Escapes make a phrase's text shorter than what stands in the query: an error that is not certain to be at its place
/// is moved to the whole value.
fn keep_within(error: QueryError, value: &Value) -> QueryError {
    let exact = value.form != Form::Quoted || value.text.len() + 2 == value.span.len();
    if exact { error } else { QueryError { span: value.span.clone(), ..error } }
}
