//! The patterns of `LIKE` and `GLOB`.
//!
//! SQLite's own matcher takes the product of both lengths for some patterns, and nothing can stop it meanwhile. This
//! one looks at the clock. It also sees all of a text, where SQLite's ends at the first NUL.

use govc_engine::Result;

use super::run::{Run, Ticker};

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    /// Whether ASCII letters match in either case.
    is_folded: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Any number of characters.
    Many,
    /// One character.
    One,
    Byte(u8),
    Set {
        is_negated: bool,
        ranges: Vec<(u32, u32)>,
    },
    /// A set that does not end: it matches nothing, as in SQLite.
    Never,
}

impl Pattern {
    /// A pattern of `LIKE`: `%`, `_`, and the escape, which comes first should it be one of them.
    pub(super) fn like(pattern: &[u8], escape: Option<char>) -> Self {
        let mut escape_bytes = [0; 4];
        let escape: &[u8] = escape.map_or(&[], |escape| escape.encode_utf8(&mut escape_bytes).as_bytes());
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some((first, after)) = rest.split_first() {
            if !escape.is_empty()
                && let Some(escaped) = rest.strip_prefix(escape)
            {
                let (literal, after) = escaped.split_at(character(escaped).1);
                if literal.is_empty() {
                    tokens.push(Token::Never);
                }
                tokens.extend(literal.iter().map(|byte| Token::Byte(*byte)));
                rest = after;
                continue;
            }
            tokens.push(match first {
                b'%' => Token::Many,
                b'_' => Token::One,
                byte => Token::Byte(byte.to_ascii_lowercase()),
            });
            rest = after;
        }
        for token in &mut tokens {
            if let Token::Byte(byte) = token {
                byte.make_ascii_lowercase();
            }
        }
        Self { tokens, is_folded: true }
    }

    /// A pattern of `GLOB`: `*`, `?`, `[...]`.
    pub(super) fn glob(pattern: &[u8]) -> Self {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            tokens.push(match first {
                b'*' => Token::Many,
                b'?' => Token::One,
                b'[' => match set(rest) {
                    Some((token, after)) => {
                        rest = after;
                        token
                    }
                    None => {
                        rest = &[];
                        Token::Never
                    }
                },
                byte => Token::Byte(*byte),
            });
        }
        Self { tokens, is_folded: false }
    }

    /// Whether the whole text matches.
    ///
    /// # Errors
    /// Cancelled after the deadline.
    pub(super) fn matches(&self, run: &Run, text: &[u8]) -> Result<bool> {
        let mut ticker = Ticker::new(run);
        let (mut at, mut token) = (0, 0);
        // Where to go on after a mismatch: the token behind the last `Many`, and where in the text it is to be tried.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            ticker.tick()?;
            match self.tokens.get(token) {
                Some(Token::Many) => {
                    token += 1;
                    if token == self.tokens.len() {
                        return Ok(true);
                    }
                    let Some(candidate) = self.candidate(token, text, at) else { return Ok(false) };
                    retry = Some((token, candidate));
                    at = candidate;
                    continue;
                }
                None if at == text.len() => return Ok(true),
                None => {}
                Some(wanted) => {
                    if let Some(length) = self.eat(wanted, text.get(at..).unwrap_or_default()) {
                        at += length;
                        token += 1;
                        continue;
                    }
                }
            }
            let Some((behind, tried)) = retry else { return Ok(false) };
            let next = tried + character(text.get(tried..).unwrap_or_default()).1.max(1);
            if next > text.len() {
                return Ok(false);
            }
            let Some(candidate) = self.candidate(behind, text, next) else { return Ok(false) };
            retry = Some((behind, candidate));
            (at, token) = (candidate, behind);
        }
    }

    /// The first place from `at` on where a token can match; `None` if there is none.
    fn candidate(&self, token: usize, text: &[u8], at: usize) -> Option<usize> {
        let rest = text.get(at..)?;
        let found = match self.tokens.get(token) {
            Some(Token::Byte(byte)) if self.is_folded => memchr::memchr2(*byte, byte.to_ascii_uppercase(), rest)?,
            Some(Token::Byte(byte)) => memchr::memchr(*byte, rest)?,
            _ => 0,
        };
        Some(at + found)
    }

    /// How many bytes a token takes from the beginning of a text, if it matches there.
    fn eat(&self, token: &Token, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        match token {
            Token::Byte(byte) => {
                let first = if self.is_folded { first.to_ascii_lowercase() } else { first };
                (first == *byte).then_some(1)
            }
            Token::One => Some(character(text).1),
            Token::Set { is_negated, ranges } => {
                let (code, length) = character(text);
                let is_in = ranges.iter().any(|(from, to)| (*from..=*to).contains(&code));
                (is_in != *is_negated).then_some(length)
            }
            Token::Many | Token::Never => None,
        }
    }
}

/// The set behind a `[`, and what follows it; `None` if it does not end.
fn set(pattern: &[u8]) -> Option<(Token, &[u8])> {
    let (is_negated, mut rest) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    // What a range may begin with: the character before, unless it ended a range itself.
    let mut before: Option<u32> = None;
    if let Some(after) = rest.strip_prefix(b"]") {
        ranges.push((u32::from(b']'), u32::from(b']')));
        rest = after;
    }
    loop {
        let (code, length) = character(rest);
        if length == 0 {
            return None;
        }
        rest = &rest[length..];
        if code == u32::from(b']') {
            return Some((Token::Set { is_negated, ranges }, rest));
        }
        let (end, end_length) = character(rest);
        match before {
            Some(from) if code == u32::from(b'-') && end_length > 0 && end != u32::from(b']') => {
                ranges.push((from, end));
                rest = &rest[end_length..];
                before = None;
            }
            _ => {
                ranges.push((code, code));
                before = Some(code);
            }
        }
    }
}

/// The first character's code and length in bytes; of what is not UTF-8, a byte's, beyond all codes.
fn character(text: &[u8]) -> (u32, usize) {
    let Some(first) = text.first() else { return (0, 0) };
    let length = match first {
        0..=0x7f => return (u32::from(*first), 1),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let valid = text.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match valid.and_then(|text| text.chars().next()) {
        Some(found) => (u32::from(found), length),
        None => (0x11_0000 + u32::from(*first), 1),
    }
}
