//! What a commit must satisfy: the query's condition, compiled once.

use std::ops::Range;

use govc_engine::{Error, Result};

use crate::{
    find::Matcher,
    place::Place,
    query::{Atom, Expr, Pattern},
};

/// Matches of a message that are reported.
const SPANS_MAX: usize = 100;

/// The number of a pattern in its test.
pub(super) type PatternNo = usize;

/// A query, ready to be asked of commits.
pub(super) struct Test {
    condition: Condition,
    pub(super) patterns: Vec<Asked>,
    /// The patterns whose matches a result shows.
    shown: Vec<PatternNo>,
}

/// A pattern, and of what it is asked.
pub(super) struct Asked {
    pub(super) source: Pattern,
    pub(super) of: Of,
    pub(super) matcher: Matcher,
}

/// What a pattern is matched against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of {
    Message,
    Author,
    Repo,
}

/// A condition on commits.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    Const(bool),
    /// All of them, or with `false` any.
    Parts(bool, Vec<Condition>),
    Not(Box<Condition>),
    Term(Term),
}

/// One question about a commit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Term {
    /// Whether the pattern matches.
    Pattern(PatternNo),
    /// Whether it was committed before a moment.
    Before(i64),
    /// Whether it was committed at a moment or later.
    After(i64),
    /// Whether the repository is a fork.
    Fork(bool),
}

impl Test {
    /// Compiles a condition.
    ///
    /// # Errors
    /// Invalid if a pattern cannot be used, or it asks for what commits do not have.
    pub(super) fn new(expr: &Expr) -> Result<Self> {
        let mut test = Self { condition: Condition::Const(true), patterns: Vec::new(), shown: Vec::new() };
        test.condition = test.compile(expr, true)?;
        Ok(test)
    }

    fn compile(&mut self, expr: &Expr, is_positive: bool) -> Result<Condition> {
        let all = |test: &mut Self, parts: &[Expr]| -> Result<Vec<Condition>> {
            parts.iter().map(|part| test.compile(part, is_positive)).collect()
        };
        Ok(match expr {
            Expr::Const(holds) => Condition::Const(*holds),
            Expr::And(parts) => Condition::Parts(true, all(self, parts)?),
            Expr::Or(parts) => Condition::Parts(false, all(self, parts)?),
            Expr::Not(inner) => Condition::Not(Box::new(self.compile(inner, !is_positive)?)),
            Expr::Atom(atom) => self.atom(atom, is_positive)?,
        })
    }

    fn atom(&mut self, atom: &Atom, is_positive: bool) -> Result<Condition> {
        Ok(Condition::Term(match atom {
            Atom::Text(pattern) | Atom::Message(pattern) => {
                let number = self.pattern(pattern, Of::Message)?;
                if is_positive {
                    self.shown.push(number);
                }
                Term::Pattern(number)
            }
            Atom::Author(pattern) => Term::Pattern(self.pattern(pattern, Of::Author)?),
            Atom::Repo(pattern) => Term::Pattern(self.pattern(pattern, Of::Repo)?),
            Atom::Before(seconds) => Term::Before(*seconds),
            Atom::After(seconds) => Term::After(*seconds),
            Atom::Fork(wanted) => Term::Fork(*wanted),
            // Nothing is ever archived here.
            Atom::Archived(wanted) => return Ok(Condition::Const(!wanted)),
            Atom::Content(_) | Atom::Path(_) | Atom::Lang(_) | Atom::Symbol(_) => {
                return Err(Error::invalid(
                    "content, path, lang and sym are conditions on files: they cannot be asked of commits",
                ));
            }
        }))
    }

    /// The number of a pattern; the same question has one wherever it stands.
    fn pattern(&mut self, pattern: &Pattern, of: Of) -> Result<PatternNo> {
        let key = |pattern: &Pattern| (pattern.text.clone(), pattern.regex, pattern.case_sensitive);
        let same = |asked: &Asked| asked.of == of && key(&asked.source) == key(pattern);
        if let Some(known) = self.patterns.iter().position(same) {
            return Ok(known);
        }
        self.patterns.push(Asked { source: pattern.clone(), of, matcher: Matcher::new(pattern)? });
        Ok(self.patterns.len() - 1)
    }

    /// What is demanded of the commits of a place's repository.
    pub(super) fn given(&self, place: &Place) -> Condition {
        self.condition.given(&|term| match term {
            Term::Fork(wanted) => Some(wanted == place.is_fork),
            Term::Pattern(number) => {
                let asked = self.patterns.get(number).filter(|asked| asked.of == Of::Repo)?;
                Some(asked.matcher.is_match(place.repo.as_bytes()))
            }
            Term::Before(_) | Term::After(_) => None,
        })
    }

    /// Where patterns match in the message of a result.
    pub(super) fn message_matches(&self, message: &[u8]) -> Vec<Range<usize>> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        for asked in self.shown.iter().filter_map(|number| self.patterns.get(*number)) {
            asked.matcher.matches(message, |found| {
                if !found.is_empty() {
                    spans.push(found);
                }
                spans.len() < SPANS_MAX
            });
        }
        spans.sort_by_key(|span| (span.start, span.end));
        spans
    }
}

impl Condition {
    /// Whether the condition holds, as far as `known` tells of its terms; asks no more than it needs.
    pub(super) fn ask(&self, known: &mut dyn FnMut(Term) -> Option<bool>) -> Option<bool> {
        match self {
            Condition::Const(holds) => Some(*holds),
            Condition::Not(inner) => inner.ask(known).map(|holds| !holds),
            Condition::Term(term) => known(*term),
            Condition::Parts(is_all, parts) => {
                let mut answer = Some(*is_all);
                for part in parts {
                    match part.ask(known) {
                        Some(holds) if holds != *is_all => return Some(holds),
                        Some(_) => {}
                        None => answer = None,
                    }
                }
                answer
            }
        }
    }

    /// The condition once some terms are known.
    fn given(&self, known: &dyn Fn(Term) -> Option<bool>) -> Self {
        let holds = self.ask(&mut |term| known(term));
        match (holds, self) {
            (Some(holds), _) => Condition::Const(holds),
            (None, Condition::Not(inner)) => Condition::Not(Box::new(inner.given(known))),
            (None, Condition::Parts(is_all, parts)) => {
                let parts = parts.iter().map(|part| part.given(known));
                Condition::Parts(*is_all, parts.filter(|part| !matches!(part, Condition::Const(_))).collect())
            }
            (None, other) => other.clone(),
        }
    }
}
