//! What a query asks for: words that files are ranked by, and conditions that they must satisfy.

use std::ops::Range;

use govc_engine::{Error, Result};

use crate::{
    query::{Atom, Count, Expr, Query, SearchKind, simplify},
    tokens::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, Words},
};

/// The words of a query, in bytes, and the tokens that they are made of.
const TEXT_BYTES_MAX: usize = 1024;
pub(super) const TOKENS_MAX: usize = 32;

/// The number of a token in its query.
pub(super) type TokenNo = usize;

/// A query, taken apart.
pub(super) struct Wanted {
    pub(super) tokens: Tokens,
    /// What files must satisfy besides having a word.
    pub(super) filter: Query,
}

/// The distinct tokens that a query ranks by.
pub(super) struct Tokens {
    /// In the order of the query.
    all: Vec<String>,
    /// The numbers of those that are so many bytes long.
    by_bytes: Vec<Vec<TokenNo>>,
}

impl Wanted {
    /// Takes a query apart.
    ///
    /// # Errors
    /// Invalid if it has no words, or too many, or asks for what has no meaning here.
    pub(super) fn new(query: &Query) -> Result<Self> {
        let options = &query.options;
        if options.kind != SearchKind::File || options.select.is_some() || matches!(options.count, Count::Files(_)) {
            return Err(Error::invalid("a search by relevance ranks files: it knows no type:, select: or count:"));
        }
        let (mut words, mut conditions) = (Vec::new(), Vec::new());
        let parts =
            if let Expr::And(parts) = &query.expr { parts.as_slice() } else { std::slice::from_ref(&query.expr) };
        for part in parts {
            if !collect(part, &mut words)? {
                conditions.push(part.clone());
            }
        }
        let filter = Query { expr: simplify(Expr::And(conditions)), options: options.clone() };
        Ok(Self { tokens: Tokens::new(&words)?, filter })
    }
}

/// Adds the words of a part that has nothing but words; whether it is one. How they are joined is nothing to ranking.
fn collect<'a>(part: &'a Expr, words: &mut Vec<&'a str>) -> Result<bool> {
    if !has_words(part) {
        return Ok(false);
    }
    match part {
        Expr::Atom(Atom::Text(pattern)) if pattern.regex => {
            Err(Error::invalid(format!("/{0}/ is no word to rank by: say content:/{0}/ to narrow", pattern.text)))
        }
        Expr::Atom(Atom::Text(pattern)) => {
            words.push(&pattern.text);
            Ok(true)
        }
        Expr::And(parts) | Expr::Or(parts) => {
            for part in parts {
                if !collect(part, words)? {
                    return Err(Error::invalid("words and conditions cannot stand together in a group or beside OR"));
                }
            }
            Ok(true)
        }
        Expr::Const(_) | Expr::Not(_) | Expr::Atom(_) => Ok(false),
    }
}

/// Whether there are words to rank by; those of a negation are none.
fn has_words(expr: &Expr) -> bool {
    match expr {
        Expr::Atom(atom) => matches!(atom, Atom::Text(_)),
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(has_words),
        Expr::Const(_) | Expr::Not(_) => false,
    }
}

impl Tokens {
    fn new(words: &[&str]) -> Result<Self> {
        if words.iter().map(|word| word.len()).sum::<usize>() > TEXT_BYTES_MAX {
            return Err(Error::invalid(format!("the words have more than {TEXT_BYTES_MAX} bytes")));
        }
        let (mut all, mut by_bytes): (Vec<String>, _) = (Vec::new(), vec![Vec::new(); TOKEN_BYTES_MAX + 1]);
        for word in words {
            Words::default().tokens(word.as_bytes(), |token, _| {
                if all.iter().all(|known| known != token) {
                    by_bytes.get_mut(token.len()).into_iter().for_each(|numbers| numbers.push(all.len()));
                    all.push(token.to_owned());
                }
            });
        }
        match all.len() {
            0 => Err(Error::invalid(format!(
                "there is no word to rank by: words are letters and digits, {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes"
            ))),
            1..=TOKENS_MAX => Ok(Self { all, by_bytes }),
            _ => Err(Error::invalid(format!("the words have more than {TOKENS_MAX} parts"))),
        }
    }

    /// The tokens, in the order of the query.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.all.iter().map(String::as_str)
    }

    /// Gives each of them that a text has, in order, with its place.
    pub(super) fn find(&self, words: &mut Words, text: &[u8], mut each: impl FnMut(TokenNo, Range<usize>)) {
        words.tokens(text, |token, place| {
            let numbers = self.by_bytes.get(token.len()).map_or(&[][..], Vec::as_slice);
            let is_same = |number: &&TokenNo| self.all.get(**number).is_some_and(|wanted| wanted == token);
            if let Some(number) = numbers.iter().find(is_same) {
                each(*number, place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;
    use crate::query::{parse, without_spans};

    fn wanted(text: &str) -> Result<(Vec<String>, String), String> {
        let wanted = Wanted::new(&parse(text, 0).expect("a query")).map_err(|error| error.message().to_owned())?;
        let filter = without_spans(&wanted.filter.expr).to_string();
        Ok((wanted.tokens.iter().map(str::to_owned).collect(), filter))
    }

    #[test]
    fn words_and_conditions_are_told_apart() {
        for (text, words, filter) in [
            ("read file", &["read", "file"][..], "case:auto"),
            ("read_file lang:rust", &["read", "file", "read_file"], "lang:rust"),
            ("\"why (does) it, fail?\" -path:vendor", &["why", "does", "it", "fail"], "-path:vendor"),
            ("a1 OR b1 OR (c1 d1)", &["a1", "b1", "c1", "d1"], "case:auto"),
            ("Read READ -write content:x", &["read"], "-write content:x"),
            ("foo (lang:rust OR lang:c) -(bar baz)", &["foo"], "(lang:rust OR lang:c) -(bar baz)"),
            ("foo count:all rev:x", &["foo"], "case:auto"),
        ] {
            assert_eq!(
                wanted(text),
                Ok((words.iter().map(|word| (*word).to_owned()).collect(), filter.to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for (text, reason) in [
            ("lang:rust", "no word"),
            ("a - !", "no word"),
            ("-foo", "no word"),
            ("/fo+/", "content:/fo+/"),
            ("foo OR lang:rust", "cannot stand together"),
            ("(foo -bar) baz OR x1", "cannot stand together"),
            ("foo type:path", "type:"),
            ("foo type:symbol", "type:"),
            ("foo author:ann", "type:"),
            ("foo select:repo", "select:"),
            ("foo count:7", "count:"),
            (&"abcd ".repeat(60).replace(' ', "_"), "no word"),
            (&(10..43).map(|number| format!("a{number}_")).collect::<String>(), "more than 32 parts"),
            (&format!("\"{}\"", "word ".repeat(300)), "1024 bytes"),
        ] {
            let error = wanted(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
