//! From a query to what can be asked of files: patterns compiled once, conditions in the order of their cost.

use std::time::Instant;

use govc_engine::{Error, Result};

use super::pattern::Matcher;
use crate::{
    deadline,
    language::Language,
    query::{Atom, Expr, PathPattern, Pattern, Query, SearchKind, glob_regex},
};

/// The number of a pattern in its plan.
pub(crate) type PatternNo = usize;

/// A query, ready to be asked.
pub(crate) struct Plan {
    /// The distinct patterns of contents, paths and names.
    pub(crate) patterns: Vec<Matcher>,
    /// What each was in the query.
    pub(crate) sources: Vec<Pattern>,
    /// What a file must satisfy.
    pub(crate) condition: Condition,
    /// Until when it has to be made: a query may have many large patterns.
    until: Option<Instant>,
}

/// What a file must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    Const(bool),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Term(Term),
}

/// One question about a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    /// Whether the repository's name matches.
    Repo(PatternNo),
    /// Whether the repository is a fork.
    Fork(bool),
    /// Whether the pattern matches in the path.
    Path(PatternNo),
    /// Whether the file is in this language.
    Lang(Language),
    /// Whether the pattern matches in the content.
    Content(PatternNo),
    /// Whether the pattern matches the name of something that the file defines.
    Symbol(PatternNo),
    /// Of a file that a commit changes: a question about the commit.
    Commit(CommitTerm),
}

/// One question about a commit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CommitTerm {
    /// Whether the pattern matches in the author's name and address.
    Author(PatternNo),
    /// Whether the pattern matches in the message.
    Message(PatternNo),
    /// Whether it was committed before this moment, in seconds since 1970.
    Before(i64),
    /// Whether it was committed at this moment or after it.
    After(i64),
}

impl Plan {
    /// Compiles a query.
    ///
    /// # Errors
    /// Invalid if a pattern, glob or language cannot be used, or the query asks for what files do not have; cancelled if
    /// that took too long.
    pub(crate) fn new(query: &Query, until: Option<Instant>) -> Result<Self> {
        let mut plan = Self { patterns: Vec::new(), sources: Vec::new(), condition: Condition::Const(true), until };
        let condition = plan.condition(&query.expr, query.options.kind)?;
        plan.condition = condition.simplified();
        Ok(plan)
    }

    fn condition(&mut self, expr: &Expr, kind: SearchKind) -> Result<Condition> {
        let all = |plan: &mut Self, parts: &[Expr]| -> Result<Vec<Condition>> {
            parts.iter().map(|part| plan.condition(part, kind)).collect()
        };
        Ok(match expr {
            Expr::Const(holds) => Condition::Const(*holds),
            Expr::And(parts) => Condition::And(all(self, parts)?),
            Expr::Or(parts) => Condition::Or(all(self, parts)?),
            Expr::Not(inner) => Condition::Not(Box::new(self.condition(inner, kind)?)),
            Expr::Atom(atom) => self.atom(atom, kind)?,
        })
    }

    fn atom(&mut self, atom: &Atom, kind: SearchKind) -> Result<Condition> {
        Ok(Condition::Term(match atom {
            Atom::Text(pattern) => return self.text(pattern, kind),
            Atom::Content(pattern) => Term::Content(self.pattern(pattern)?),
            Atom::Path(PathPattern::Pattern(pattern)) => Term::Path(self.pattern(pattern)?),
            Atom::Path(PathPattern::Glob { glob, case_sensitive, span }) => {
                let text = glob_regex(glob);
                Term::Path(self.pattern(&Pattern {
                    text,
                    regex: true,
                    case_sensitive: *case_sensitive,
                    span: span.clone(),
                })?)
            }
            Atom::Repo(pattern) => Term::Repo(self.pattern(pattern)?),
            Atom::Fork(wanted) => Term::Fork(*wanted),
            Atom::Lang(name) => Term::Lang(language(name)?),
            Atom::Symbol(pattern) => Term::Symbol(self.pattern(pattern)?),
            // Nothing is ever archived here.
            Atom::Archived(wanted) => return Ok(Condition::Const(!wanted)),
            Atom::Author(pattern) if kind == SearchKind::Diff => {
                Term::Commit(CommitTerm::Author(self.pattern(pattern)?))
            }
            Atom::Message(pattern) if kind == SearchKind::Diff => {
                Term::Commit(CommitTerm::Message(self.pattern(pattern)?))
            }
            Atom::Before(seconds) if kind == SearchKind::Diff => Term::Commit(CommitTerm::Before(*seconds)),
            Atom::After(seconds) if kind == SearchKind::Diff => Term::Commit(CommitTerm::After(*seconds)),
            Atom::Author(_) | Atom::Message(_) | Atom::Before(_) | Atom::After(_) => {
                return Err(Error::invalid(
                    "author, message, before and after are conditions on commits: add type:commit",
                ));
            }
        }))
    }

    /// A bare word: in the content or in the path, or only where the query's type looks.
    fn text(&mut self, pattern: &Pattern, kind: SearchKind) -> Result<Condition> {
        let number = self.pattern(pattern)?;
        Ok(match kind {
            SearchKind::Path => Condition::Term(Term::Path(number)),
            SearchKind::Symbol => Condition::Term(Term::Symbol(number)),
            SearchKind::Diff => Condition::Term(Term::Content(number)),
            _ => Condition::Or(vec![Condition::Term(Term::Path(number)), Condition::Term(Term::Content(number))]),
        })
    }

    /// The number of a pattern; the same pattern has one wherever it stands.
    fn pattern(&mut self, pattern: &Pattern) -> Result<PatternNo> {
        let same = |other: &Pattern| {
            (&other.text, other.regex, other.case_sensitive) == (&pattern.text, pattern.regex, pattern.case_sensitive)
        };
        if let Some(known) = self.sources.iter().position(same) {
            return Ok(known);
        }
        deadline::check(self.until)?;
        self.patterns.push(Matcher::new(pattern)?);
        self.sources.push(pattern.clone());
        Ok(self.patterns.len() - 1)
    }

    /// What is reported of a result: the matches that it has, not those that it must not have.
    pub(crate) fn reported(&self) -> Vec<Reported> {
        let mut found = Vec::new();
        self.condition.positive(&mut |term| {
            let reported = match term {
                Term::Content(number) => Reported::Content(*number),
                Term::Symbol(number) => Reported::Symbol(*number),
                _ => return,
            };
            if !found.contains(&reported) {
                found.push(reported);
            }
        });
        found
    }
}

/// Matches that a result shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reported {
    /// Of the pattern in the content.
    Content(PatternNo),
    /// Of the pattern in the names of definitions.
    Symbol(PatternNo),
}

fn language(name: &str) -> Result<Language> {
    Language::from_name(name).ok_or_else(|| Error::invalid(format!("no language is called {name:?}")))
}

impl Term {
    /// How dear it is to ask, in orders of magnitude.
    fn cost(&self) -> u8 {
        match self {
            Term::Repo(_) | Term::Fork(_) | Term::Commit(_) => 0,
            Term::Path(_) => 1,
            Term::Lang(_) => 2,
            Term::Content(_) => 3,
            Term::Symbol(_) => 4,
        }
    }
}

impl Condition {
    fn cost(&self) -> u8 {
        match self {
            Condition::Const(_) => 0,
            Condition::Not(inner) => inner.cost(),
            Condition::And(parts) | Condition::Or(parts) => parts.iter().map(Self::cost).max().unwrap_or(0),
            Condition::Term(term) => term.cost(),
        }
    }

    /// Without constants inside, flat, the cheapest part first.
    pub(crate) fn simplified(self) -> Self {
        match self {
            Condition::Not(inner) => match inner.simplified() {
                Condition::Const(holds) => Condition::Const(!holds),
                Condition::Not(inner) => *inner,
                other => Condition::Not(Box::new(other)),
            },
            Condition::And(parts) => Self::join(parts, true),
            Condition::Or(parts) => Self::join(parts, false),
            other => other,
        }
    }

    fn join(parts: Vec<Self>, is_and: bool) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part.simplified() {
                Condition::Const(holds) if holds == is_and => {}
                Condition::Const(_) => return Condition::Const(!is_and),
                Condition::And(inner) if is_and => flat.extend(inner),
                Condition::Or(inner) if !is_and => flat.extend(inner),
                other => flat.push(other),
            }
        }
        flat.sort_by_key(Self::cost);
        match (flat.len(), is_and) {
            (0, _) => Condition::Const(is_and),
            (1, _) => flat.remove(0),
            (_, true) => Condition::And(flat),
            (_, false) => Condition::Or(flat),
        }
    }

    /// The condition once some terms are known.
    pub(crate) fn given(&self, known: &dyn Fn(&Term) -> Option<bool>) -> Self {
        let all = |parts: &[Self]| parts.iter().map(|part| part.given(known)).collect();
        match self {
            Condition::Const(holds) => Condition::Const(*holds),
            Condition::And(parts) => Condition::And(all(parts)),
            Condition::Or(parts) => Condition::Or(all(parts)),
            Condition::Not(inner) => Condition::Not(Box::new(inner.given(known))),
            Condition::Term(term) => known(term).map_or_else(|| self.clone(), Condition::Const),
        }
        .simplified()
    }

    /// Visits the patterns that are matched against contents.
    pub(crate) fn contents(&self, visit: &mut dyn FnMut(PatternNo)) {
        match self {
            Condition::Const(_) => {}
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| part.contents(visit)),
            Condition::Not(inner) => inner.contents(visit),
            Condition::Term(Term::Content(number) | Term::Symbol(number)) => visit(*number),
            Condition::Term(_) => {}
        }
    }

    /// Whether it asks for what files define.
    pub(crate) fn asks_definitions(&self) -> bool {
        let mut asks = false;
        self.names(&mut |_| asks = true);
        asks
    }

    /// Visits the patterns that are matched against the names of definitions.
    pub(crate) fn names(&self, visit: &mut dyn FnMut(PatternNo)) {
        match self {
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| part.names(visit)),
            Condition::Not(inner) => inner.names(visit),
            Condition::Term(Term::Symbol(number)) => visit(*number),
            Condition::Const(_) | Condition::Term(_) => {}
        }
    }

    /// Whether it has a term of some kind.
    pub(crate) fn asks(&self, is_such: fn(&Term) -> bool) -> bool {
        match self {
            Condition::And(parts) | Condition::Or(parts) => parts.iter().any(|part| part.asks(is_such)),
            Condition::Not(inner) => inner.asks(is_such),
            Condition::Term(term) => is_such(term),
            Condition::Const(_) => false,
        }
    }

    /// Visits the patterns that are matched against paths.
    pub(crate) fn paths(&self, visit: &mut dyn FnMut(PatternNo)) {
        match self {
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| part.paths(visit)),
            Condition::Not(inner) => inner.paths(visit),
            Condition::Term(Term::Path(number)) => visit(*number),
            Condition::Const(_) | Condition::Term(_) => {}
        }
    }

    /// Visits the terms that speak for a result.
    pub(crate) fn positive(&self, visit: &mut dyn FnMut(&Term)) {
        match self {
            Condition::Const(_) => {}
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| part.positive(visit)),
            Condition::Not(inner) => inner.negative(visit),
            Condition::Term(term) => visit(term),
        }
    }

    /// Visits the terms that speak for a result below a negation.
    fn negative(&self, visit: &mut dyn FnMut(&Term)) {
        match self {
            Condition::Const(_) | Condition::Term(_) => {}
            Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| part.negative(visit)),
            Condition::Not(inner) => inner.positive(visit),
        }
    }

    /// Whether the condition holds, from what `ask` says of its terms; asks no more than it needs.
    ///
    /// # Errors
    /// The first of `ask`.
    pub(crate) fn holds(&self, ask: &mut dyn FnMut(&Term) -> Result<bool>) -> Result<bool> {
        match self {
            Condition::Const(holds) => Ok(*holds),
            Condition::Not(inner) => Ok(!inner.holds(ask)?),
            Condition::Term(term) => ask(term),
            Condition::And(parts) => {
                for part in parts {
                    if !part.holds(ask)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Condition::Or(parts) => {
                for part in parts {
                    if part.holds(ask)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Whether the condition may hold: `ask` says no only where a term surely does not hold, and yes where it surely does.
    pub(crate) fn may_hold(&self, ask: &mut dyn FnMut(&Term) -> Answer) -> Answer {
        match self {
            Condition::Const(true) => Answer::Yes,
            Condition::Const(false) => Answer::No,
            Condition::Not(inner) => match inner.may_hold(ask) {
                Answer::Yes => Answer::No,
                Answer::Maybe => Answer::Maybe,
                Answer::No => Answer::Yes,
            },
            Condition::Term(term) => ask(term),
            Condition::And(parts) => {
                let mut all = Answer::Yes;
                for part in parts {
                    match part.may_hold(ask) {
                        Answer::No => return Answer::No,
                        Answer::Maybe => all = Answer::Maybe,
                        Answer::Yes => {}
                    }
                }
                all
            }
            Condition::Or(parts) => {
                let mut any = Answer::No;
                for part in parts {
                    match part.may_hold(ask) {
                        Answer::Yes => return Answer::Yes,
                        Answer::Maybe => any = Answer::Maybe,
                        Answer::No => {}
                    }
                }
                any
            }
        }
    }
}

/// What is known before a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    Maybe,
    No,
}
