//! A query while it is typed: its last term, and what the language itself can complete.

use super::{display::text_value, fields::Field, settings};

/// The last term of a text that is being typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Where it begins, behind `(`, `-` and the like, in bytes; and where its value does.
    pub(crate) start: usize,
    pub(crate) value: usize,
    pub(crate) field: Option<Field>,
    /// The value as far as it is typed, without quotes.
    pub(crate) typed: String,
}

impl Unfinished {
    /// The last term of `text`; empty behind a space.
    pub(crate) fn of(text: &str) -> Self {
        let mut at = 0;
        loop {
            at = skip(text, at, |c| c.is_whitespace());
            let start = skip(text, at, |c| matches!(c, '(' | '-'));
            let letters = skip(text, start, |c| c.is_ascii_alphabetic());
            let name = text.get(start..letters).unwrap_or_default();
            let colon = text.get(letters..).is_some_and(|rest| rest.starts_with(':') && !rest.starts_with("::"));
            let field = Field::named(name).filter(|_| colon);
            let value = if field.is_some() { letters + 1 } else { start };
            let (end, typed) = match text.get(value..).and_then(|rest| rest.strip_prefix('"')) {
                Some(quoted) => phrase(quoted, value + 1),
                None => {
                    let end = skip(text, value, |c| !c.is_whitespace());
                    (end, text.get(value..end).unwrap_or_default().to_owned())
                }
            };
            if end >= text.len() {
                return Self { start, value, field, typed };
            }
            at = end;
        }
    }
}

/// The first place in `text`, from `at` on, where a character is not `wanted`.
fn skip(text: &str, at: usize, wanted: impl Fn(char) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.find(|c: char| !wanted(c)).unwrap_or(rest.len())
}

/// A phrase that begins at byte `at` of its text, behind its quote: where it ends, and what it says.
fn phrase(quoted: &str, at: usize) -> (usize, String) {
    let (mut typed, mut chars) = (String::new(), quoted.char_indices().peekable());
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return (at + place + 1, typed),
            '\\' => {
                typed.push(chars.next_if(|(_, next)| matches!(next, '"' | '\\')).map_or('\\', |(_, escaped)| escaped))
            }
            c => typed.push(c),
        }
    }
    (at + quoted.len(), typed)
}

/// The full names of fields that begin with `typed`.
pub(crate) fn field_names(typed: &str) -> impl Iterator<Item = &'static str> {
    Field::names().filter(move |name| name.starts_with(typed))
}

/// The words that a field takes and that begin with `typed`.
pub(crate) fn values(field: Field, typed: &str) -> Vec<&'static str> {
    settings::words(field).into_iter().filter(|word| word.starts_with(typed)).collect()
}

/// A text as the value of a field, or as a term: in quotes if need be.
pub(crate) fn value_text(text: &str) -> String {
    text_value(text)
}

#[cfg(test)]
mod tests {
    use super::{Field, Unfinished, field_names, values};

    #[test]
    fn the_last_term_is_what_is_typed() {
        for (text, start, value, field, typed) in [
            ("", 0, 0, None, ""),
            ("foo", 0, 0, None, "foo"),
            ("foo ", 4, 4, None, ""),
            ("foo lang:ru", 4, 9, Some(Field::Lang), "ru"),
            ("foo -(l:ru", 6, 8, Some(Field::Lang), "ru"),
            ("path:", 0, 5, Some(Field::Path), ""),
            ("a \"b c\" d", 8, 8, None, "d"),
            ("a \"b c", 2, 2, None, "b c"),
            ("file:\"a \\\"b", 0, 5, Some(Field::Path), "a \"b"),
            ("\"x y\"", 0, 0, None, "x y"),
            ("std::ve", 0, 0, None, "std::ve"),
            ("lang::x", 0, 0, None, "lang::x"),
            ("foo:bar", 0, 0, None, "foo:bar"),
            ("é \u{3000}ü", 6, 6, None, "ü"),
            ("\"\\", 0, 0, None, "\\"),
        ] {
            let typed = typed.to_owned();
            assert_eq!(Unfinished::of(text), Unfinished { start, value, field, typed }, "{text}");
        }
    }

    #[test]
    fn the_language_completes_its_own_words() {
        assert_eq!(field_names("re").collect::<Vec<_>>(), ["repo", "rev", "regex"]);
        assert_eq!(field_names("l").collect::<Vec<_>>(), ["lang"]);
        assert_eq!(values(Field::Type, ""), ["file", "commit", "diff", "symbol", "path"]);
        assert_eq!(values(Field::Fork, "y"), ["yes"]);
        assert!(values(Field::Lang, "").is_empty());
    }
}
