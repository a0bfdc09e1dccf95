//! The fields' names: those that are known, those of other engines that are refused with advice, and near misses.
//!
//! A name is known in lower case only, so that `C:\dir` and `Path:` of other texts stay what they are.

use super::error::QueryError;
use std::ops::Range;

/// What a term with a name before a colon is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Repo,
    Path,
    Content,
    Lang,
    Symbol,
    Branch,
    Rev,
    Case,
    Type,
    Archived,
    Fork,
    Author,
    Message,
    Before,
    After,
    Select,
    Count,
    Regex,
}

/// Every name, the full one of each field first.
const NAMES: &[(&str, Field)] = &[
    ("repo", Field::Repo),
    ("path", Field::Path),
    ("content", Field::Content),
    ("lang", Field::Lang),
    ("symbol", Field::Symbol),
    ("branch", Field::Branch),
    ("rev", Field::Rev),
    ("case", Field::Case),
    ("type", Field::Type),
    ("archived", Field::Archived),
    ("fork", Field::Fork),
    ("author", Field::Author),
    ("message", Field::Message),
    ("before", Field::Before),
    ("after", Field::After),
    ("select", Field::Select),
    ("count", Field::Count),
    ("regex", Field::Regex),
    ("file", Field::Path),
    ("language", Field::Lang),
    ("sym", Field::Symbol),
    ("r", Field::Repo),
    ("f", Field::Path),
    ("c", Field::Content),
    ("l", Field::Lang),
    ("b", Field::Branch),
    ("t", Field::Type),
];

impl Field {
    /// The field of exactly this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// The full names of all fields.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(|(name, field)| field.name() == *name).map(|(name, _)| *name)
    }

    /// The full name, without the colon.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }
}

/// The error for a name that is no field but was probably meant as one, with `value` behind its colon; `None` if it
/// is just text.
pub(super) fn mistaken(name: &str, value: &str, span: &Range<usize>) -> Option<QueryError> {
    let wrong = |message: String| QueryError::new(span.clone(), message);
    match name {
        "public" => Some(wrong("public: is not known here: every search covers what its caller may see".into())),
        "org" | "user" => Some(wrong(format!("{name}: is not known here")).suggest(format!("repo:{value}/*"))),
        "is" => Some(wrong("is: is not known here".into())).map(|e| match value {
            "archived" | "fork" => e.suggest(format!("{value}:yes")),
            _ => e,
        }),
        "extension" => Some(wrong("extension: is not known here".into()).suggest(format!("path:*.{value}"))),
        "filename" => Some(wrong("filename: is not known here".into()).suggest(format!("path:**/{value}"))),
        _ => nearest_field(name).map(|known| {
            wrong(format!("{name}: is not a field; put quotes around it to search for the text"))
                .suggest(format!("{known}:{value}"))
        }),
    }
}

/// The field's name that `name` is a slip of: at most one edit for four or five letters, two for more. Shorter names
/// are words of their own (`foo:` is two edits from `fork:`).
fn nearest_field(name: &str) -> Option<&'static str> {
    let edits_max = match name.len() {
        4..=5 => 1,
        6..=12 => 2,
        _ => return None,
    };
    let names = NAMES.iter().map(|(known, _)| *known).filter(|known| known.len() >= 4);
    nearest(&name.to_ascii_lowercase(), names, edits_max)
}

/// The choice with the fewest edits from `typed`, if there are at most `edits_max`.
pub(super) fn nearest<'a>(typed: &str, choices: impl Iterator<Item = &'a str>, edits_max: usize) -> Option<&'a str> {
    let (edits, choice) = choices.map(|choice| (edit_distance(typed, choice), choice)).min_by_key(|(d, _)| *d)?;
    (edits <= edits_max).then_some(choice)
}

/// How many insertions, deletions, replacements and swaps of neighbours lie between two short words (optimal string
/// alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().take(32).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
