//! How large a query and its parts may be. All are far above what people type, and low enough that a text of folded Unicode
//! classes, the worst known, takes 1.3 s to parse; a usual query takes microseconds.

use super::error::QueryError;

/// The longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;
/// The most terms: words, phrases, regexes and fields together.
pub const TERMS_MAX: usize = 64;
/// How deep groups and negations may nest.
pub const DEPTH_MAX: usize = 64;
/// The longest regex or glob, in bytes.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// How deep a regex may nest.
pub(super) const REGEX_NEST_MAX: u32 = 100;
/// The largest regex once its counted repetitions are written out, in ranges of characters.
pub(super) const REGEX_WEIGHT_MAX: u64 = 100_000;
/// The most Unicode classes (`\p{L}`) in a regex.
pub(super) const REGEX_PROPERTIES_MAX: usize = 16;
/// The most braces in a glob: they nest.
pub(super) const GLOB_BRACES_MAX: usize = 32;

/// Refuses a text that is empty, too long, or has control characters other than tab and line breaks.
pub(super) fn check_text(text: &str) -> Result<(), QueryError> {
    if text.len() > QUERY_BYTES_MAX {
        let start = text.floor_char_boundary(QUERY_BYTES_MAX);
        let message = format!("the query has {} bytes; the most is {QUERY_BYTES_MAX}", text.len());
        return Err(QueryError::new(start..text.len(), message));
    }
    if let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let message = format!("the control character U+{:04X} cannot be searched for", u32::from(c));
        return Err(QueryError::new(at..at + c.len_utf8(), message));
    }
    if text.trim().is_empty() {
        return Err(QueryError::new(0..text.len(), "the query is empty"));
    }
    Ok(())
}

/// Refuses a regex or glob that is too long.
pub(super) fn check_pattern(text: &str, at: usize) -> Result<(), QueryError> {
    if text.len() <= PATTERN_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the pattern has {} bytes; the most is {PATTERN_BYTES_MAX}", text.len());
    Err(QueryError::new(at..at + text.len(), message))
}
