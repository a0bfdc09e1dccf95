//! The query language: from what a person types to a [`Query`], and back. `QUERY.md` is its description for users.
//!
//! [`parse()`] cuts the text into tokens (`lex`), builds the expression by recursive descent (`parse`), makes patterns
//! (`pattern`, `regex`, `glob`) and conditions (`term`) of terms, collects what holds for the whole (`settings`) and
//! simplifies ([`simplify()`]). A [`Query`] displays as text that parses to the same query.
//!
//! No text makes any of this panic, and [limits](QUERY_BYTES_MAX) bound the work for each.
//!
//! Deliberately absent: resolving revisions and languages, deciding whether a query with no positive condition may run
//! ([`Expr::Not`] at the top), macros and saved queries.

mod ast;
mod complete;
mod date;
mod display;
mod error;
mod fields;
mod glob;
mod lex;
mod limits;
mod parse;
mod pattern;
mod regex;
mod settings;
mod simplify;
mod term;
#[cfg(test)]
mod tests;

pub use ast::{Atom, Count, Expr, Options, PathPattern, Pattern, Query, SearchKind, Select};
pub(crate) use complete::{Unfinished, field_names, value_text, values};
pub use error::QueryError;
pub(crate) use fields::Field;
pub use glob::glob_regex;
pub use limits::{DEPTH_MAX, PATTERN_BYTES_MAX, QUERY_BYTES_MAX, TERMS_MAX};
pub use simplify::{simplify, without_spans};

/// Parses a query; `now_seconds` (since the epoch) is what `after:2weeks` counts from.
///
/// The expression is simplified, its patterns are checked (regexes are accepted by regex-syntax, with Unicode and
/// multi-line mode on), and case is resolved in each of them. A query with nothing but options has the expression
/// `Const(true)`.
///
/// # Errors
/// The first thing that is wrong, with its place in `text`.
///
/// ```
/// # use govc_search::query::{parse, Expr};
/// let query = parse("repo:^linux/ (mutex OR /spin_?lock/) -path:*.md", 0)?;
/// assert!(matches!(&query.expr, Expr::And(parts) if parts.len() == 3));
/// let error = parse("lnag:rust", 0).unwrap_err();
/// assert_eq!(error.suggestion.as_deref(), Some("lang:rust"));
/// # Ok::<(), govc_search::query::QueryError>(())
/// ```
pub fn parse(text: &str, now_seconds: i64) -> Result<Query, QueryError> {
    parse::parse(&lex::tokens(text)?, text.len(), now_seconds)
}
