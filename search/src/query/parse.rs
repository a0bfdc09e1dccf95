//! Builds a query from tokens.
//!
//! ```text
//! any   = all { OR all }
//! all   = one { [AND] one }
//! one   = (NOT | -) one | "(" any ")" | term
//! ```
//!
//! `case:` holds for the group (or whole query) that it stands in, before it and behind it, until a group inside says
//! otherwise; so each group is looked over for it before it is parsed.

use std::ops::Range;

use super::ast::{Atom, Expr, Query};
use super::error::QueryError;
use super::fields::Field;
use super::lex::{Token, TokenKind, Value};
use super::limits::{DEPTH_MAX, TERMS_MAX};
use super::pattern::Case;
use super::settings::{self, Settings};
use super::simplify::simplify;
use super::term;

/// The query that the tokens of a text of `length` bytes say.
pub(super) fn parse(tokens: &[Token], length: usize, now_seconds: i64) -> Result<Query, QueryError> {
    let mut parser = Parser {
        tokens,
        at: 0,
        end: length,
        depth: 0,
        terms: 0,
        case: Case::Auto,
        or_at_top: None,
        settings: Settings::default(),
        now_seconds,
    };
    let scope = parser.scope()?;
    parser.case = scope.case.unwrap_or(Case::Auto);
    parser.or_at_top = scope.or;
    let expr = parser.any()?;
    Ok(Query { expr: simplify(expr), options: parser.settings.finish()? })
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    /// The length of the text, in bytes.
    end: usize,
    depth: usize,
    terms: usize,
    /// What `case:` says where the parser is.
    case: Case,
    /// An `OR` outside of all groups, beside which options would seem to hold for one side.
    or_at_top: Option<Range<usize>>,
    settings: Settings,
    now_seconds: i64,
}

/// What a group says of itself.
#[derive(Default)]
struct Scope {
    case: Option<Case>,
    or: Option<Range<usize>>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    /// Looks over the group whose first token is next, without the groups inside.
    fn scope(&self) -> Result<Scope, QueryError> {
        let mut scope = Scope::default();
        let mut depth = 0usize;
        for token in self.tokens.get(self.at..).unwrap_or_default() {
            match &token.kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close if depth == 0 => break,
                TokenKind::Close => depth -= 1,
                TokenKind::Or(_) if depth == 0 => scope.or = scope.or.or_else(|| Some(token.span.clone())),
                TokenKind::Term(Some(Field::Case), value) if depth == 0 => {
                    let case = settings::case(value)?;
                    if scope.case.replace(case).is_some_and(|earlier| earlier != case) {
                        return Err(QueryError::new(token.span.clone(), "case: was said differently in this group"));
                    }
                }
                _ => {}
            }
        }
        Ok(scope)
    }

    fn any(&mut self) -> Result<Expr, QueryError> {
        let (first, found) = self.all()?;
        let mut parts = vec![first];
        let mut left_is_empty = !found;
        while let Some(Token { kind: TokenKind::Or(word), span }) = self.peek() {
            self.at += 1;
            let (right, found) = self.all()?;
            if left_is_empty || !found {
                let side = if left_is_empty { "left" } else { "right" };
                return Err(lacks_operand(word, side, span));
            }
            left_is_empty = false;
            parts.push(right);
        }
        Ok(Expr::Or(parts))
    }

    /// The conditions up to an `OR`, a closing parenthesis or the end, and whether there was any.
    fn all(&mut self) -> Result<(Expr, bool), QueryError> {
        let mut parts = Vec::new();
        let mut pending: Option<&Range<usize>> = None;
        let mut left_is_empty = true;
        loop {
            match self.peek() {
                None | Some(Token { kind: TokenKind::Or(_) | TokenKind::Close, .. }) => break,
                Some(Token { kind: TokenKind::And, span }) => {
                    if left_is_empty || pending.is_some() {
                        return Err(lacks_operand("AND", "left", span));
                    }
                    pending = Some(span);
                    self.at += 1;
                }
                Some(token) => {
                    parts.extend(self.one(token)?);
                    pending = None;
                    left_is_empty = false;
                }
            }
        }
        match pending {
            Some(span) => Err(lacks_operand("AND", "right", span)),
            None => {
                let found = !parts.is_empty();
                Ok((Expr::And(parts), found))
            }
        }
    }

    /// A condition, or nothing for an option.
    fn one(&mut self, token: &'a Token) -> Result<Option<Expr>, QueryError> {
        self.at += 1;
        match &token.kind {
            TokenKind::Not => self.deeper(token, Self::negation).map(Some),
            TokenKind::Open => self.deeper(token, Self::group).map(Some),
            TokenKind::Term(field, value) => self.term(*field, value, token),
            TokenKind::And | TokenKind::Or(_) | TokenKind::Close => {
                Err(QueryError::new(token.span.clone(), "a condition is missing here"))
            }
        }
    }

    /// Parses what `token` begins, unless it is nested too deep.
    fn deeper(
        &mut self,
        token: &'a Token,
        inner: fn(&mut Self, &'a Token) -> Result<Expr, QueryError>,
    ) -> Result<Expr, QueryError> {
        // Written out, a term has a group for its `case:` at most.
        let is_case = matches!(self.peek(), Some(Token { kind: TokenKind::Term(Some(Field::Case), _), .. }));
        if self.depth >= DEPTH_MAX + usize::from(is_case) {
            let message = format!("groups and negations nest deeper than {DEPTH_MAX}");
            return Err(QueryError::new(token.span.clone(), message));
        }
        self.depth += 1;
        let expr = inner(self, token)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn negation(&mut self, not: &'a Token) -> Result<Expr, QueryError> {
        let name = if not.span.len() == 1 { "-" } else { "NOT" };
        match self.peek() {
            None | Some(Token { kind: TokenKind::And | TokenKind::Or(_) | TokenKind::Close, .. }) => {
                Err(lacks_operand(name, "right", &not.span))
            }
            Some(operand) => match self.one(operand)? {
                Some(expr) => Ok(Expr::Not(Box::new(expr))),
                None => Err(QueryError::new(operand.span.clone(), "an option cannot be negated")),
            },
        }
    }

    fn group(&mut self, open: &'a Token) -> Result<Expr, QueryError> {
        let outer = self.case;
        let empty_until = match self.peek() {
            Some(Token { kind: TokenKind::Close, span }) => Some(span.end),
            _ => None,
        };
        if let Some(end) = empty_until {
            let message = "the group is empty; put quotes around the parentheses to search for them";
            return Err(QueryError::new(open.span.start..end, message).suggest("\"()\""));
        }
        self.case = self.scope()?.case.unwrap_or(outer);
        let expr = self.any()?;
        self.case = outer;
        match self.peek() {
            Some(Token { kind: TokenKind::Close, .. }) => self.at += 1,
            _ => {
                let message = "the group that begins here is not closed; a term with ( in front needs quotes";
                return Err(QueryError::new(open.span.clone(), message));
            }
        }
        Ok(expr)
    }

    fn term(&mut self, field: Option<Field>, value: &Value, token: &Token) -> Result<Option<Expr>, QueryError> {
        // What only says how others are read is none, so that no query has more of them once it is written out.
        self.terms += usize::from(field != Some(Field::Case));
        if self.terms > TERMS_MAX {
            let message = format!("the query has more than {TERMS_MAX} terms");
            return Err(QueryError::new(token.span.start..self.end, message));
        }
        match field {
            Some(Field::Case) => Ok(None),
            Some(field) if settings::is_option(field) => {
                self.check_place(field, token)?;
                self.settings.set(field, value, &token.span)?;
                Ok(None)
            }
            field => {
                let atom = term::atom(field, value, self.case, self.now_seconds)?;
                if is_about_commits(&atom) {
                    self.settings.needs_commits(field, &token.span);
                }
                Ok(Some(Expr::Atom(atom)))
            }
        }
    }

    /// Options hold for the whole query: refuses one where it would seem to hold for a part.
    fn check_place(&self, field: Field, token: &Token) -> Result<(), QueryError> {
        let name = field.name();
        let message = match &self.or_at_top {
            _ if self.depth > 0 => {
                format!("{name}: holds for the whole query: write it outside of groups and negations")
            }
            Some(_) => format!("{name}: holds for the whole query: put the conditions around OR in parentheses"),
            None => return Ok(()),
        };
        Err(QueryError::new(token.span.clone(), message))
    }
}

fn lacks_operand(operator: &str, side: &str, span: &Range<usize>) -> QueryError {
    let message = format!("{operator} has no condition on its {side}; put quotes around it to search for the word");
    QueryError::new(span.clone(), message).suggest(format!("\"{operator}\""))
}

/// Whether only commits and diffs have what the condition asks for.
fn is_about_commits(atom: &Atom) -> bool {
    matches!(atom, Atom::Author(_) | Atom::Message(_) | Atom::Before(_) | Atom::After(_))
}
