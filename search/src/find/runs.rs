//! Runs of bytes of one class that every match of a pattern has: `[A-Z]{24,}` is in no index, and an automaton reads each
//! byte. A run of n bytes has one at every n-th place, so most text is passed over by looking at one byte in n.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Shorter runs are not looked for: there are too many.
const LENGTH_MIN: usize = 6;
/// Longer ones are looked for by their first so many bytes.
const LENGTH_MAX: usize = 4096;
/// Larger classes are in nearly all text.
const CLASS_MAX: usize = 200;

/// A run that is in each match.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    is_in: [bool; 256],
    length: usize,
}

impl Run {
    /// The longest run that each match of `hir` has within its line, if one is long enough to be worth looking for.
    pub(crate) fn of(hir: &Hir) -> Option<Self> {
        match hir.kind() {
            HirKind::Capture(capture) => Self::of(&capture.sub),
            HirKind::Concat(parts) => parts.iter().filter_map(Self::of).max_by_key(|run| run.length),
            HirKind::Repetition(repetition) if repetition.min > 0 => {
                let length = usize::try_from(repetition.min).unwrap_or(usize::MAX).min(LENGTH_MAX);
                let run = class(&repetition.sub).filter(|_| length >= LENGTH_MIN).map(|is_in| Self { is_in, length });
                run.or_else(|| Self::of(&repetition.sub))
            }
            _ => None,
        }
    }

    /// Where the first run in `text` begins, not before `from`.
    pub(crate) fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut start = from;
        // From the back, since what is not in the class rules out all places in front of it.
        while let Some(window) = text.get(start..start.checked_add(self.length)?) {
            match window.iter().rposition(|byte| !self.is_in[usize::from(*byte)]) {
                Some(outside) => start += outside + 1,
                None => return Some(start),
            }
        }
        None
    }
}

/// The bytes that characters of a class may have, without the newline: matches are within lines.
fn class(hir: &Hir) -> Option<[bool; 256]> {
    let mut is_in = [false; 256];
    let mut add = |from: u8, to: u8| (from..=to).for_each(|byte| is_in[usize::from(byte)] = true);
    match hir.kind() {
        HirKind::Capture(capture) => return class(&capture.sub),
        HirKind::Class(Class::Bytes(bytes)) => bytes.iter().for_each(|range| add(range.start(), range.end())),
        HirKind::Class(Class::Unicode(characters)) => {
            for range in characters.iter() {
                let ascii = |c: char| u8::try_from(c).ok().filter(u8::is_ascii);
                if let Some(from) = ascii(range.start()) {
                    add(from, ascii(range.end()).unwrap_or(0x7f));
                }
                // A character has a byte at least, and in others than ASCII's any of these.
                if !range.end().is_ascii() {
                    add(0x80, 0xff);
                }
            }
        }
        _ => return None,
    }
    is_in[usize::from(b'\n')] = false;
    Some(is_in).filter(|is_in| is_in.iter().filter(|is_in| **is_in).count() <= CLASS_MAX)
}

#[cfg(test)]
mod tests {
    use super::Run;

    fn run(pattern: &str) -> Option<Run> {
        Run::of(&regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern).expect("a pattern"))
    }

    #[test]
    fn what_is_in_every_match_is_known() {
        for (pattern, length) in [
            ("[A-Z]{24,}", Some(24)),
            ("[0-9a-f]{40}", Some(40)),
            ("x?([0-9]{7}-[0-9]{9})", Some(9)),
            (r"\w{30}", Some(30)),
            ("(?:a[0-9]{8}){3}", Some(8)),
            ("[A-Z]{5}", None),
            ("[A-Z]*", None),
            ("([A-Z]{24})?", None),
            ("[A-Z]{24}|b", None),
            (".{40}", None),
            (r"(?s-u:.){40}", None),
        ] {
            assert_eq!(run(pattern).map(|run| run.length), length, "{pattern}");
        }
    }

    #[test]
    fn runs_are_found_where_they_begin() {
        let run = run("[0-9]{6}").expect("a run");
        for text in
            ["", "12345", "123456", "x123456", "12345x123456", "1x2345678901x", "aaaaaa123456", "12345\n6789012"]
        {
            let bytes = text.as_bytes();
            for from in 0..=bytes.len() + 1 {
                let is_run =
                    |at: &usize| bytes.get(*at..at + 6).is_some_and(|window| window.iter().all(u8::is_ascii_digit));
                assert_eq!(run.find(bytes, from), (from..bytes.len()).find(is_run), "{text} from {from}");
            }
        }
    }
}
