//! Cuts a query into tokens with their places.
//!
//! What begins a term decides: `(` opens a group, `"` a phrase, `/` a regex if it is closed by a `/` that ends the
//! term, `-` negates, a known name and a colon are a field; all else is a bare word up to white space. A `(` inside a
//! word is text; a `)` ends the word only where a group is open and the word has no `(` of its own for it.

use std::ops::Range;

use super::display::quoted;
use super::error::QueryError;
use super::fields::{self, Field};
use super::limits;

/// A token and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Range<usize>,
}

/// What a token is.
#[derive(Debug, Clone)]
pub(super) enum TokenKind {
    Open,
    Close,
    And,
    /// With the word that was typed.
    Or(&'static str),
    Not,
    Term(Option<Field>, Value),
}

/// What a term asks for, or a field is given.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// The text: unescaped for a phrase; for a regex its source, `\/` still written so.
    pub(super) text: String,
    pub(super) form: Form,
    /// Where it stands with its quotes or slashes.
    pub(super) span: Range<usize>,
}

/// How a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bare,
    Quoted,
    Regex,
}

/// The tokens of `text`; terms are never empty.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, QueryError> {
    limits::check_text(text)?;
    let mut lexer = Lexer { text, at: 0, groups_open: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    groups_open: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Option<Token>, QueryError> {
        let trimmed = self.rest().trim_start();
        self.at = self.text.len() - trimmed.len();
        let Some(first) = trimmed.chars().next() else { return Ok(None) };
        let token = match first {
            '(' => {
                self.groups_open += 1;
                self.take(1, TokenKind::Open)
            }
            ')' => self.close()?,
            '-' if negates(trimmed) => self.take(1, TokenKind::Not),
            _ => match self.keyword() {
                Some((length, kind)) => self.take(length, kind),
                None => self.term()?,
            },
        };
        Ok(Some(token))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, length: usize, kind: TokenKind) -> Token {
        let span = self.at..self.at + length;
        self.at = span.end;
        Token { kind, span }
    }

    fn close(&mut self) -> Result<Token, QueryError> {
        if self.groups_open == 0 {
            let message = "a closing parenthesis without an opening one; put quotes around it to search for the text";
            return Err(QueryError::new(self.at..self.at + 1, message).suggest(quoted(")")));
        }
        self.groups_open -= 1;
        Ok(self.take(1, TokenKind::Close))
    }

    /// An operator that is written as a word, and its length.
    fn keyword(&self) -> Option<(usize, TokenKind)> {
        let words = [
            ("AND", TokenKind::And),
            ("OR", TokenKind::Or("OR")),
            ("NOT", TokenKind::Not),
            ("or", TokenKind::Or("or")),
        ];
        words.into_iter().find_map(|(word, kind)| {
            let next = self.rest().strip_prefix(word)?.chars().next();
            let group_follows = next == Some('(') && word != "or";
            (self.ends_term(next) || group_follows).then_some((word.len(), kind))
        })
    }

    /// Whether a term is over before `next`.
    fn ends_term(&self, next: Option<char>) -> bool {
        next.is_none_or(|c| c.is_whitespace() || (c == ')' && self.groups_open > 0))
    }

    fn term(&mut self) -> Result<Token, QueryError> {
        let start = self.at;
        let field = self.field()?;
        let value = self.value(field)?;
        Ok(Token { kind: TokenKind::Term(field, value), span: start..self.at })
    }

    /// Steps over a field's name and its colon. `std::vec` and `https://x` have none.
    fn field(&mut self) -> Result<Option<Field>, QueryError> {
        let rest = self.rest();
        let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, after) = rest.split_at(length);
        let Some(value) = after.strip_prefix(':') else { return Ok(None) };
        if value.starts_with(':') || value.starts_with("//") {
            return Ok(None);
        }
        let word = self.word_length(value);
        let span = self.at..self.at + length + 1 + word;
        match Field::named(name) {
            Some(field) if word > 0 => {
                self.at += length + 1;
                Ok(Some(field))
            }
            Some(_) => Err(QueryError::new(span.clone(), format!("{name}: needs a value right after the colon"))
                .suggest(quoted(&rest[..length + 1]))),
            None if word > 0 => fields::mistaken(name, &value[..word], &span).map_or(Ok(None), Err),
            None => Ok(None),
        }
    }

    fn value(&mut self, field: Option<Field>) -> Result<Value, QueryError> {
        let rest = self.rest();
        if rest.starts_with('"') {
            return self.phrase();
        }
        match self.regex_length(rest) {
            Some(length) => {
                let text = rest[1..length - 1].to_owned();
                self.finish(text, Form::Regex, length)
            }
            None => self.word(field),
        }
    }

    fn finish(&mut self, text: String, form: Form, length: usize) -> Result<Value, QueryError> {
        let span = self.at..self.at + length;
        self.at = span.end;
        Ok(Value { text, form, span })
    }

    /// A text in quotes, in which `\"` and `\\` stand for `"` and `\`, and any other backslash for itself.
    fn phrase(&mut self) -> Result<Value, QueryError> {
        let rest = self.rest();
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return self.end_phrase(text, at + 1),
                '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                    Some((_, escaped)) => text.push(escaped),
                    None => text.push('\\'),
                },
                '\n' | '\r' => break,
                c => text.push(c),
            }
        }
        let span = self.at..self.at + 1;
        Err(QueryError::new(span, "the phrase that begins here has no closing quote in its line"))
    }

    fn end_phrase(&mut self, text: String, length: usize) -> Result<Value, QueryError> {
        let value = self.finish(text, Form::Quoted, length)?;
        let next = self.rest().chars().next();
        if value.text.is_empty() {
            return Err(QueryError::new(value.span, "the phrase is empty"));
        }
        if next.is_none_or(|c| c.is_whitespace() || c == ')') {
            return Ok(value);
        }
        let message = "a phrase ends at its closing quote: put a space after it, or write \\\" for a quote inside";
        Err(QueryError::new(self.at - 1..self.at, message))
    }

    /// How long the regex in slashes is that `rest` begins with. Its first `/` without a backslash must end the term,
    /// so that `/usr/bin` is a word, as is `//`.
    fn regex_length(&self, rest: &str) -> Option<usize> {
        let body = rest.strip_prefix('/')?;
        let closing = closing_slash(body).filter(|at| *at > 0)?;
        let next = body[closing + 1..].chars().next();
        next.is_none_or(|c| c.is_whitespace() || c == ')').then_some(closing + 2)
    }

    fn word(&mut self, field: Option<Field>) -> Result<Value, QueryError> {
        let rest = self.rest();
        let length = self.word_length(rest);
        let word = &rest[..length];
        let span = self.at..self.at + length;
        if let Some(field) = field.filter(|_| word.starts_with('(') && !is_balanced(word)) {
            let name = field.name();
            let message = format!("{name}: takes one value: write ({name}:a OR {name}:b), or quotes around a text");
            return Err(QueryError::new(span, message));
        }
        let classified = matches!(field, Some(Field::Path | Field::Repo | Field::Branch | Field::Regex));
        if !classified && looks_like_regex(word) {
            let message = match closing_slash(&rest[1..]) {
                None => "the regex that begins here has no closing slash; put quotes around a text",
                Some(_) => "a regex ends at its first slash: write \\/ for one inside, or quotes around a text",
            };
            return Err(QueryError::new(span, message).suggest(quoted(word)));
        }
        self.finish(word.to_owned(), Form::Bare, length)
    }

    /// How many bytes the bare word has that `rest` begins with.
    fn word_length(&self, rest: &str) -> usize {
        let mut parentheses_open = 0usize;
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                c if c.is_whitespace() => return at,
                '(' if !escaped => parentheses_open += 1,
                ')' if !escaped && parentheses_open > 0 => parentheses_open -= 1,
                ')' if !escaped && self.groups_open > 0 => return at,
                _ => {}
            }
            escaped = c == '\\' && !escaped;
        }
        rest.len()
    }
}

/// Whether the `-` that `rest` begins with is an operator: not in `-`, `--flag`, `->`, `-=`.
fn negates(rest: &str) -> bool {
    let next = rest.chars().nth(1);
    next.is_some_and(|c| !c.is_whitespace() && !matches!(c, '-' | '>' | '=' | ')'))
}

/// Where the first `/` without a backslash is, if it is in the same line.
fn closing_slash(body: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            '\n' | '\r' => return None,
            '/' if !escaped => return Some(at),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    None
}

/// Whether a word begins as a regex does and has what paths and comments do not have.
fn looks_like_regex(word: &str) -> bool {
    word.starts_with('/') && !word.starts_with("//") && word.contains(['\\', '[', '*', '+', '^', '$', '|', '('])
}

fn is_balanced(word: &str) -> bool {
    word.matches('(').count() == word.matches(')').count()
}
