//! Collects what holds for a whole query: the options, each said once, and whether they suit the conditions.

use std::ops::Range;

use super::ast::{Count, Options, SearchKind, Select};
use super::error::QueryError;
use super::fields::{Field, nearest};
use super::glob;
use super::lex::{Form, Value};
use super::pattern::Case;

/// The words that an option accepts, and what each means.
type Choices<T> = [(&'static str, T)];

const KINDS: &Choices<SearchKind> = &[
    ("file", SearchKind::File),
    ("commit", SearchKind::Commit),
    ("diff", SearchKind::Diff),
    ("symbol", SearchKind::Symbol),
    ("path", SearchKind::Path),
    ("filematch", SearchKind::File),
    ("filename", SearchKind::Path),
];

const SELECTS: &Choices<Select> = &[
    ("repo", Select::Repo),
    ("file", Select::File),
    ("directory", Select::Directory),
    ("content", Select::Content),
    ("symbol", Select::Symbol),
];

const CASES: &Choices<Case> = &[("yes", Case::Yes), ("no", Case::No), ("auto", Case::Auto)];

const ANSWERS: &Choices<bool> = &[("yes", true), ("no", false), ("true", true), ("false", false)];

/// Whether the field is an option and not a condition. `case:` is neither: it belongs to its group.
pub(super) fn is_option(field: Field) -> bool {
    matches!(field, Field::Type | Field::Rev | Field::Branch | Field::Select | Field::Count)
}

/// The words that a field takes, one for each meaning; empty if it takes others.
pub(super) fn words(field: Field) -> Vec<&'static str> {
    fn all<T>(choices: &Choices<T>, count: usize) -> Vec<&'static str> {
        choices.iter().take(count).map(|(word, _)| *word).collect()
    }
    match field {
        // What follows are zoekt's names for the same.
        Field::Type => all(KINDS, 5),
        Field::Select => all(SELECTS, usize::MAX),
        Field::Case => all(CASES, usize::MAX),
        Field::Archived | Field::Fork => all(ANSWERS, 2),
        Field::Count => vec!["all"],
        _ => Vec::new(),
    }
}

/// What a `case:` says.
pub(super) fn case(value: &Value) -> Result<Case, QueryError> {
    choose(Field::Case, value, CASES)
}

/// What an `archived:` or `fork:` says.
pub(super) fn yes_or_no(field: Field, value: &Value) -> Result<bool, QueryError> {
    choose(field, value, ANSWERS)
}

/// The value of a field that takes no regex.
pub(super) fn plain(field: Field, value: &Value) -> Result<&str, QueryError> {
    if value.form == Form::Regex {
        let message = format!("{}: takes no regex", field.name());
        return Err(QueryError::new(value.span.clone(), message));
    }
    Ok(&value.text)
}

/// The options so far.
#[derive(Default)]
pub(super) struct Settings {
    kind: Option<SearchKind>,
    select: Option<Select>,
    count: Option<Count>,
    revs: Vec<String>,
    branches: Vec<String>,
    /// The first condition that only commits and diffs have.
    commits_only: Option<(&'static str, Range<usize>)>,
}

impl Settings {
    /// Takes an option that stands at `span`.
    pub(super) fn set(&mut self, field: Field, value: &Value, span: &Range<usize>) -> Result<(), QueryError> {
        match field {
            // zoekt's type:repo asks for repositories instead of files.
            Field::Type if plain(field, value)? == "repo" => once(&mut self.select, Select::Repo, field, span),
            Field::Type => once(&mut self.kind, choose(field, value, KINDS)?, field, span),
            Field::Select => once(&mut self.select, choose(field, value, SELECTS)?, field, span),
            Field::Count => once(&mut self.count, count(value)?, field, span),
            Field::Rev => {
                add(&mut self.revs, plain(field, value)?);
                Ok(())
            }
            _ => {
                let glob = plain(field, value)?;
                glob::check(glob, &value.span)?;
                add(&mut self.branches, glob);
                Ok(())
            }
        }
    }

    /// Notes that a condition at `span` is about commits.
    pub(super) fn needs_commits(&mut self, field: Option<Field>, span: &Range<usize>) {
        let name = field.map_or("", Field::name);
        self.commits_only.get_or_insert_with(|| (name, span.clone()));
    }

    /// The options of the query, once all of it is read.
    pub(super) fn finish(self) -> Result<Options, QueryError> {
        let kind = match (self.kind, self.commits_only) {
            (None, Some(_)) => SearchKind::Commit,
            (Some(kind @ (SearchKind::File | SearchKind::Path | SearchKind::Symbol)), Some((name, span))) => {
                let said = word_of(&kind, KINDS);
                let message =
                    format!("{name}: is about commits, but the query says type:{said}; use type:commit or type:diff");
                return Err(QueryError::new(span, message));
            }
            (kind, _) => kind.unwrap_or_default(),
        };
        let (select, count) = (self.select, self.count.unwrap_or_default());
        Ok(Options { kind, revs: self.revs, branches: self.branches, select, count })
    }
}

/// The word for `type:`.
pub(super) fn kind_word(kind: SearchKind) -> &'static str {
    word_of(&kind, KINDS)
}

/// The word for `select:`.
pub(super) fn select_word(select: Select) -> &'static str {
    word_of(&select, SELECTS)
}

fn word_of<T: PartialEq>(meaning: &T, choices: &Choices<T>) -> &'static str {
    choices.iter().find(|(_, known)| known == meaning).map_or("", |(word, _)| word)
}

fn choose<T: Copy>(field: Field, value: &Value, choices: &Choices<T>) -> Result<T, QueryError> {
    let typed = plain(field, value)?;
    if let Some((_, meaning)) = choices.iter().find(|(word, _)| *word == typed) {
        return Ok(*meaning);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let message = format!("{}: is one of {}", field.name(), words.join(", "));
    let error = QueryError::new(value.span.clone(), message);
    Err(match nearest(&typed.to_lowercase(), words.into_iter(), 2) {
        Some(word) => error.suggest(word),
        None => error,
    })
}

fn count(value: &Value) -> Result<Count, QueryError> {
    match plain(Field::Count, value)? {
        "all" => Ok(Count::All),
        text => match text.parse() {
            Ok(files) if files > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Count::Files(files)),
            _ => Err(QueryError::new(value.span.clone(), "count: is all or a number above 0")),
        },
    }
}

fn once<T: PartialEq>(slot: &mut Option<T>, value: T, field: Field, span: &Range<usize>) -> Result<(), QueryError> {
    match slot.replace(value) {
        Some(earlier) if slot.as_ref() != Some(&earlier) => {
            let message = format!("{}: was said before with another value", field.name());
            Err(QueryError::new(span.clone(), message))
        }
        _ => Ok(()),
    }
}

fn add(list: &mut Vec<String>, text: &str) {
    if list.iter().all(|known| known != text) {
        list.push(text.to_owned());
    }
}
