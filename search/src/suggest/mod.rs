//! Completing a query while it is typed: what its last term may become.
//!
//! Each kind of suggestion has a source; [`sources`] says which are asked for which field, and is where a new kind goes.
//! A source looks at the searched places alone, and how far it looks depends on them alone, so what others have shows
//! in nothing. Suggestions are no answers: contents that are not indexed are left out of words, of very much text some is
//! looked at, and at the deadline there are those that were found. Names of definitions are those that are recorded.
//!
//! Not there: authors, messages and dates.

mod languages;
mod names;
mod paths;
mod symbols;
mod words;

use std::{collections::HashSet, time::Instant};

use govc_engine::{Error, ErrorKind, Result};

use crate::{
    corpus::Corpus,
    find::{Condition, Plan, Term},
    place::Place,
    query::{Field, QUERY_BYTES_MAX, Unfinished, parse},
};

/// Suggestions of one answer, whatever is asked for.
pub const SUGGESTIONS_MAX: usize = 100;

/// How to answer.
#[derive(Debug, Clone)]
pub struct SuggestOptions {
    /// How many suggestions, [`SUGGESTIONS_MAX`] at most.
    pub suggestions_max: usize,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
}

impl Default for SuggestOptions {
    fn default() -> Self {
        Self { suggestions_max: 10, deadline: None }
    }
}

/// What the last term of a query may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// What it is.
    pub kind: SuggestionKind,
    /// What the term becomes, with its field, in quotes if need be.
    pub text: String,
    /// The whole query with it.
    pub query: String,
    /// How much has it, if that was counted: distinct files for a word, a definition and a language, files below for a path,
    /// repositories for a branch.
    pub count: Option<u64>,
}

/// What is suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuggestionKind {
    /// The name of a field, with its colon.
    Field,
    /// A word that the field takes.
    Value,
    /// A language.
    Language,
    /// A repository.
    Repo,
    /// A branch or, for `rev:`, a tag.
    Branch,
    /// A file, or a directory with its slash.
    Path,
    /// A word or identifier of the files.
    Word,
    /// The name of a definition.
    Symbol,
}

impl SuggestionKind {
    /// The kind as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Field => "field",
            Self::Value => "value",
            Self::Language => "language",
            Self::Repo => "repo",
            Self::Branch => "branch",
            Self::Path => "path",
            Self::Word => "word",
            Self::Symbol => "symbol",
        }
    }
}

/// What sources look at.
struct Asked<'a> {
    corpus: &'a Corpus,
    /// The places that the query's `repo:` and `fork:` leave.
    places: Vec<&'a Place>,
    field: Option<Field>,
    /// What is to be completed.
    typed: &'a str,
    /// Suggestions that are needed at most.
    count_max: usize,
    until: Option<Instant>,
}

/// What a source gives.
struct Given {
    kind: SuggestionKind,
    /// What the term's value becomes, in quotes if need be; behind a field of its own where none was typed.
    value: String,
    count: Option<u64>,
}

/// Gives what it knows, best first; cancelled at the deadline, with what it has.
type Source = fn(&Asked<'_>, &mut Vec<Given>) -> Result<()>;

/// Who is asked about a term.
fn sources(field: Option<Field>) -> &'static [Source] {
    match field {
        None => &[names::fields, words::words, paths::paths],
        Some(Field::Content) => &[words::words],
        Some(Field::Path) => &[paths::paths],
        Some(Field::Lang) => &[languages::languages],
        Some(Field::Repo) => &[names::repos],
        Some(Field::Branch | Field::Rev) => &[names::branches],
        Some(Field::Type | Field::Case | Field::Select | Field::Count | Field::Archived | Field::Fork) => {
            &[names::values]
        }
        Some(Field::Symbol) => &[symbols::symbols],
        Some(Field::Author | Field::Message | Field::Before | Field::After | Field::Regex) => &[],
    }
}

/// What of a query that is being typed is finished: all in front of its last term. It need not be a query by itself, where a
/// group is open; if it is, its options say which places to give to [`suggest`].
pub fn finished(text: &str) -> &str {
    text.get(..Unfinished::of(text).start).unwrap_or_default()
}

/// Completes the last term of a query that is being typed, with what `places` have.
///
/// Of a term without a field come names of fields, in their order; then words and paths in turn. Words come with most files
/// first, then the shorter, each in the spelling that is in most files; if what is typed has an upper-case letter, only
/// words that are spelled so. Paths come in the order of importance, those near the root first; languages with most
/// files first; branches that are a repository's default first, then those of most repositories. Nothing comes twice, nor
/// what was typed in full.
///
/// # Errors
/// Invalid if the text is longer than a query may be; else when stored data cannot be read. The deadline is no error: there
/// are fewer suggestions then.
pub fn suggest(corpus: &Corpus, text: &str, places: &[Place], options: &SuggestOptions) -> Result<Vec<Suggestion>> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid(format!("the query has more than {QUERY_BYTES_MAX} bytes")));
    }
    let term = Unfinished::of(text);
    let count_max = options.suggestions_max.min(SUGGESTIONS_MAX);
    let asked = Asked {
        corpus,
        places: narrowed(text.get(..term.start).unwrap_or_default(), places, options.deadline),
        field: term.field,
        typed: &term.typed,
        count_max,
        until: options.deadline,
    };
    let mut lists = Vec::new();
    for source in sources(term.field) {
        let mut given = Vec::new();
        match source(&asked, &mut given) {
            Err(error) if *error.kind() != ErrorKind::Cancelled => return Err(error),
            _ => lists.push(given),
        }
    }
    let (front, field) =
        (text.get(..term.start).unwrap_or_default(), text.get(term.start..term.value).unwrap_or_default());
    let (mut suggestions, mut seen) = (Vec::new(), HashSet::new());
    for given in in_turn(lists) {
        let text_of_term = format!("{field}{}", given.value);
        if suggestions.len() < count_max && seen.insert(text_of_term.clone()) {
            let query = format!("{front}{text_of_term}");
            suggestions.push(Suggestion { kind: given.kind, text: text_of_term, query, count: given.count });
        }
    }
    Ok(suggestions)
}

/// The names of fields, then one of each other list, as long as there are any.
fn in_turn(lists: Vec<Vec<Given>>) -> Vec<Given> {
    let (mut all, mut others) = (Vec::new(), Vec::new());
    for list in lists {
        match list.first().map(|given| given.kind) {
            Some(SuggestionKind::Field) => all.extend(list),
            _ => others.push(list.into_iter()),
        }
    }
    loop {
        let before = all.len();
        all.extend(others.iter_mut().filter_map(Iterator::next));
        if all.len() == before {
            return all;
        }
    }
}

/// The places that the conditions on repositories leave, if what is typed so far is a query.
fn narrowed<'a>(front: &str, places: &'a [Place], until: Option<Instant>) -> Vec<&'a Place> {
    let plan = parse(front, 0).ok().and_then(|query| Plan::new(&query, until).ok());
    let is_left = |place: &&Place| {
        plan.as_ref().is_none_or(|plan| {
            let condition = plan.condition.given(&|term| match term {
                Term::Repo(number) => plan.patterns.get(*number).map(|matcher| matcher.is_match(place.repo.as_bytes())),
                Term::Fork(wanted) => Some(*wanted == place.is_fork),
                _ => None,
            });
            condition != Condition::Const(false)
        })
    };
    places.iter().filter(is_left).collect()
}

impl Asked<'_> {
    /// Whether a name begins with what is typed: in its very case if that has an upper-case letter.
    fn begins(&self, name: &str) -> bool {
        match self.typed.chars().any(char::is_uppercase) {
            true => name.starts_with(self.typed),
            false => begins_in_any_case(name, self.typed),
        }
    }
}

/// Whether a name begins with a text in lower case.
fn begins_in_any_case(name: &str, lower: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    lower.chars().all(|wanted| letters.next() == Some(wanted))
}

/// Whether a name can stand in a query.
fn is_sayable(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}
