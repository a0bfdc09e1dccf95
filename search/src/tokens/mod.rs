//! The words of a text, as search by relevance counts them: identifiers, what they are made of, and plain words.
//!
//! A word is a run of letters, digits and underscores. It has parts: they end at underscores, where a lower-case letter or
//! a digit is followed by an upper-case letter, and in front of the last of several upper-case letters that a lower-case
//! one follows (`HTTPRequest`). Digits belong to what stands in front of them: `sha256` and `x86` are words, `2` is none.
//! Each part is a token, and so is the whole word without the underscores at its ends if it has several parts. Tokens are in
//! lower case. No token goes beyond a line, so those of a file are those of its chunks.
//!
//! What nobody asks for is left out: checksums, keys and other data ([`Words::is_monster`]).

use std::ops::Range;

use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

/// Tokens are as long as this, in bytes of their lower case.
pub(crate) const TOKEN_BYTES_MIN: usize = 2;
pub(crate) const TOKEN_BYTES_MAX: usize = 40;
/// Longer words are data, in bytes.
const WORD_BYTES_MAX: usize = 256;
/// A token that begins with a digit is not longer, in bytes: `0x89abcdef` and `2147483648` are in.
const NUMBER_BYTES_MAX: usize = 10;
/// A word of hexadecimal digits is not longer, in bytes: short ids of commits are in, keys and checksums are not.
const HEX_BYTES_MAX: usize = 15;
/// A word this long whose parts are shorter than this on average, in bytes, is base64 or the like.
const CHOPPED_BYTES_MIN: usize = 20;
const CHOPPED_PART_BYTES: usize = 4;

/// What a byte is in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Not in a word.
    Outside,
    Lower,
    Upper,
    Digit,
    Underscore,
    /// A part of a character beyond ASCII.
    High,
}

const CLASSES: [Class; 256] = {
    let mut table = [Class::Outside; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Digit,
            b'_' => Class::Underscore,
            0x80..=0xff => Class::High,
            _ => Class::Outside,
        };
        byte += 1;
    }
    table
};

/// One part of a word: where it is in the text, and in the word in lower case.
#[derive(Debug, Clone)]
struct Part {
    text: Range<usize>,
    lower: Range<usize>,
}

/// Finds tokens; what it allocates is used again for the next word.
#[derive(Debug, Default)]
pub(crate) struct Words {
    /// The word in lower case.
    lower: String,
    parts: Vec<Part>,
    is_hex: bool,
    has_digit: bool,
}

impl Words {
    /// Gives each token of `text`, which may hold any bytes, with its place in bytes: those of a word in order, then the word.
    /// Bytes that are no UTF-8 are in no word.
    pub(crate) fn tokens(&mut self, text: &[u8], mut each: impl FnMut(&str, Range<usize>)) {
        let mut at = 0;
        while let Some(start) = begin(text, at) {
            at = self.word(text, start);
            if self.is_monster(at - start) {
                continue;
            }
            for part in &self.parts {
                self.give(part.clone(), &mut each);
            }
            if let [first, .., last] = self.parts.as_slice() {
                let (text, lower) = (first.text.start..last.text.end, first.lower.start..last.lower.end);
                self.give(Part { text, lower }, &mut each);
            }
        }
    }

    fn give(&self, part: Part, each: &mut impl FnMut(&str, Range<usize>)) {
        let Some(token) = self.lower.get(part.lower) else { return };
        let is_number = token.as_bytes().first().is_some_and(u8::is_ascii_digit);
        let bytes_max = if is_number { NUMBER_BYTES_MAX } else { TOKEN_BYTES_MAX };
        if (TOKEN_BYTES_MIN..=bytes_max).contains(&token.len()) {
            each(token, part.text);
        }
    }

    /// Whether the word, of so many bytes, is a checksum, a key or other data.
    fn is_monster(&self, bytes: usize) -> bool {
        bytes > WORD_BYTES_MAX
            || bytes > HEX_BYTES_MAX && self.is_hex && self.has_digit
            || bytes >= CHOPPED_BYTES_MIN && self.parts.len() * CHOPPED_PART_BYTES > bytes
    }

    /// Takes the word that begins at `start`; where it ends.
    fn word(&mut self, text: &[u8], start: usize) -> usize {
        self.lower.clear();
        self.parts.clear();
        (self.is_hex, self.has_digit) = (true, false);
        // Where the open part begins and where the last character does, each in the text and in lower case.
        let mut open: Option<(usize, usize)> = None;
        let (mut at, mut last) = (start, (start, 0));
        let mut before = [Class::Outside; 2];
        loop {
            // Most of most words is lower case behind lower case.
            if before[1] == Class::Lower {
                let run = text.get(at..).unwrap_or_default();
                let bytes = run.iter().take(WORD_BYTES_MAX).take_while(|byte| byte.is_ascii_lowercase()).count();
                if bytes > 0 {
                    let run = run.get(..bytes).and_then(|run| std::str::from_utf8(run).ok()).unwrap_or_default();
                    self.is_hex = self.is_hex && run.bytes().all(|byte| byte.is_ascii_hexdigit());
                    if at - start <= WORD_BYTES_MAX {
                        self.lower.push_str(run);
                    }
                    at += bytes;
                }
            }
            let Some((class, character, bytes)) = text.get(at..).and_then(character) else { break };
            let here = (at, self.lower.len());
            // Of data, no more than its end is looked for.
            if at - start <= WORD_BYTES_MAX {
                let end = match class {
                    Class::Underscore => Some(here),
                    Class::Upper if matches!(before[1], Class::Lower | Class::Digit) => Some(here),
                    // That the last upper-case letter begins a part is known behind it.
                    Class::Lower if before == [Class::Upper; 2] => Some(last),
                    _ => None,
                };
                if let Some(end) = end {
                    self.close(open.replace(end), end);
                }
                open = if class == Class::Underscore { None } else { open.or(Some(here)) };
                self.push(class, character);
            }
            before = [before[1], class];
            last = here;
            at += bytes;
        }
        self.close(open, (at, self.lower.len()));
        at
    }

    fn push(&mut self, class: Class, character: char) {
        self.is_hex = self.is_hex && character.is_ascii_hexdigit();
        self.has_digit = self.has_digit || class == Class::Digit;
        let mut lower = character.to_lowercase();
        self.lower.push(match (character.is_ascii(), lower.next(), lower.next()) {
            (true, ..) => character.to_ascii_lowercase(),
            (false, Some(lower), None) if lower == character || is_other_case(lower, character) => lower,
            // What patterns do not find in either case stays what it is, and so do İ and the sign of Kelvin, which trigrams do
            // not take for i and k.
            _ => character,
        });
    }

    fn close(&mut self, open: Option<(usize, usize)>, end: (usize, usize)) {
        if let Some(start) = open.filter(|start| start.0 < end.0) {
            self.parts.push(Part { text: start.0..end.0, lower: start.1..end.1 });
        }
    }
}

/// Whether patterns without regard to case take both for the same, and neither is ASCII.
fn is_other_case(lower: char, character: char) -> bool {
    let mut folded = ClassUnicode::new([ClassUnicodeRange::new(lower, lower)]);
    let is_known = folded.try_case_fold_simple().is_ok();
    let has = |range: &ClassUnicodeRange| (range.start()..=range.end()).contains(&character);
    is_known && !lower.is_ascii() && folded.iter().any(has)
}

/// Whether a byte may be of a word.
pub(crate) fn is_in_word(byte: u8) -> bool {
    CLASSES[usize::from(byte)] != Class::Outside
}

/// Where the next word begins, not before `from`.
fn begin(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        at += rest.iter().position(|byte| CLASSES[usize::from(*byte)] != Class::Outside)?;
        if character(text.get(at..)?).is_some() {
            return Some(at);
        }
        at += 1;
    }
}

/// The character of a word that `text` begins with, what it is there, and its bytes; `None` if it begins with none.
fn character(text: &[u8]) -> Option<(Class, char, usize)> {
    let first = *text.first()?;
    match CLASSES[usize::from(first)] {
        Class::Outside => None,
        Class::High => beyond_ascii(text, first),
        class => Some((class, char::from(first), 1)),
    }
}

#[cold]
fn beyond_ascii(text: &[u8], first: u8) -> Option<(Class, char, usize)> {
    let bytes = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let character = std::str::from_utf8(text.get(..bytes)?).ok()?.chars().next()?;
    let class = match () {
        () if character.is_uppercase() => Class::Upper,
        () if character.is_numeric() => Class::Digit,
        () if character.is_alphabetic() => Class::Lower,
        () => return None,
    };
    Some((class, character, bytes))
}

#[cfg(test)]
mod tests;
