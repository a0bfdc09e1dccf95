//! The lines of a file that say most of why it was found.

use std::{cmp::Reverse, collections::HashMap, ops::Range};

use super::words::{TOKENS_MAX, Tokens};
use crate::{
    line::{GrepLine, LINE_BYTES_MAX, line_at},
    tokens::{TOKEN_BYTES_MAX, Words},
};

/// Lines that are shown of a file, whatever is asked for.
pub(super) const LINES_MAX: usize = 100;
/// Sets of words of which lines are kept: each is another set of words that a line may have.
const SETS_MAX: usize = 1024;
/// Places of words that are shown in one line.
const SPANS_MAX: usize = 1000;

/// What a file has of the words.
pub(super) struct Shown {
    /// How often it has each.
    pub(super) counts: Vec<u64>,
    /// The lines, in order.
    pub(super) lines: Vec<GrepLine>,
}

/// A line with words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    start: usize,
    number: u64,
}

/// The lines of a file by the set of words that they have, a bit for each.
#[derive(Default)]
struct Lines {
    by_words: HashMap<u32, Vec<Line>>,
}

impl Lines {
    fn add(&mut self, words: u32, line: Line, lines_max: usize) {
        let is_full = self.by_words.len() >= SETS_MAX && !self.by_words.contains_key(&words);
        if words == 0 || is_full {
            return;
        }
        let lines = self.by_words.entry(words).or_default();
        if lines.len() < lines_max {
            lines.push(line);
        }
    }

    /// The next line to show: the one with most words that none has shown, then with most words, then the first.
    fn take(&mut self, seen: u32) -> Option<(u32, Line)> {
        let first = |(words, lines): (&u32, &Vec<Line>)| lines.first().map(|line| (*words, *line));
        let good =
            |(words, line): &(u32, Line)| ((words & !seen).count_ones(), words.count_ones(), Reverse(line.number));
        let best = self.by_words.iter().filter_map(first).max_by_key(good)?;
        if let Some(lines) = self.by_words.get_mut(&best.0) {
            lines.remove(0);
        }
        Some(best)
    }
}

/// Looks for the words in a file; lines are shown as far as `budget_bytes` goes.
pub(super) fn shown(
    path: &[u8],
    data: &[u8],
    tokens: &Tokens,
    (lines_max, context_lines): (usize, usize),
    budget_bytes: &mut usize,
) -> Shown {
    const { assert!(TOKENS_MAX <= 32, "a line's words are a bit each") };
    let lines_max = lines_max.min(LINES_MAX);
    let mut counts = vec![0_u64; tokens.iter().len()];
    let (mut lines, mut line, mut words) = (Lines::default(), Line { start: 0, number: 1 }, 0_u32);
    tokens.find(&mut Words::default(), data, |number, place| {
        counts.get_mut(number).into_iter().for_each(|count| *count += 1);
        // A word comes behind its parts, so a place may be in front of the one before, but in the same line.
        let between = data.get(line.start..place.start).unwrap_or_default();
        let newlines = memchr::memchr_iter(b'\n', between).count() as u64;
        if newlines > 0 {
            lines.add(std::mem::take(&mut words), line, lines_max);
            let start = memchr::memrchr(b'\n', between).map_or(0, |newline| newline + 1);
            line = Line { start: line.start + start, number: line.number + newlines };
        }
        words |= 1_u32.checked_shl(u32::try_from(number).unwrap_or(u32::MAX)).unwrap_or(0);
    });
    lines.add(words, line, lines_max);
    let (mut chosen, mut seen) = (Vec::new(), 0);
    while chosen.len() < lines_max
        && let Some((words, line)) = lines.take(seen)
    {
        seen |= words;
        chosen.push(line);
    }
    chosen.sort_unstable_by_key(|line| line.number);
    let mut shown = Vec::with_capacity(chosen.len());
    for line in chosen {
        let spans = spans(line_at(data, line.start), tokens);
        let line = GrepLine::new(path, data, line.start, line.number, &spans, context_lines);
        *budget_bytes = budget_bytes.saturating_sub(line.weight_bytes());
        if *budget_bytes == 0 {
            break;
        }
        shown.push(line);
    }
    Shown { counts, lines: shown }
}

/// Where words are in a line, in order, without those that are in others.
fn spans(line: &[u8], tokens: &Tokens) -> Vec<Range<usize>> {
    // What is shown of a very long line, and the word that goes beyond it.
    let line = line.get(..LINE_BYTES_MAX + TOKEN_BYTES_MAX).unwrap_or(line);
    let mut found = Vec::new();
    tokens.find(&mut Words::default(), line, |_, place| found.push(place));
    found.sort_unstable_by_key(|place| (place.start, Reverse(place.end)));
    let mut apart: Vec<Range<usize>> = Vec::new();
    for place in found {
        if apart.last().is_none_or(|last| last.end <= place.start) && apart.len() < SPANS_MAX {
            apart.push(place);
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::shown;
    use crate::{fulltext::words::Wanted, query::parse};

    fn lines(query: &str, data: &str, lines_max: usize) -> (Vec<u64>, Vec<(u64, Vec<String>)>) {
        let wanted = Wanted::new(&parse(query, 0).expect("a query")).expect("words");
        let shown = shown(b"f", data.as_bytes(), &wanted.tokens, (lines_max, 0), &mut (1 << 20));
        let lines = shown.lines.iter().map(|line| {
            let texts = line.matches.iter().map(|span| line.content[span.start..span.end].to_owned());
            (line.line_number, texts.collect())
        });
        (shown.counts, lines.collect())
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lines_with_most_words_are_shown() {
        let data = "open\nopen the file\n\nread, open\nFile::open and read\nread\nclose\n";
        let (counts, found) = lines("open file read close", data, 2);
        assert_eq!(counts, [4, 2, 3, 1]);
        assert_eq!(found, [(5, texts(&["File", "open", "read"])), (7, texts(&["close"]))]);
        let (_, all) = lines("open file read close", data, 50);
        assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 4, 5, 6, 7]);
        assert!(lines("open", data, 0).1.is_empty());
        // Of as many words, the first line.
        assert_eq!(lines("open read", "x\nread\nopen\n", 1).1, [(2, texts(&["read"]))]);
    }

    #[test]
    fn a_word_covers_its_parts() {
        let (counts, found) = lines("read_file", "x read_file(readFile)", 9);
        assert_eq!(counts, [2, 2, 1]);
        assert_eq!(found, [(1, texts(&["read_file", "read", "File"]))]);
    }

    #[test]
    fn a_very_long_line_has_few_places() {
        let data = format!("a\n{}\nfoo end", "foo ".repeat(100_000));
        let (counts, found) = lines("foo end", &data, 1);
        assert_eq!(counts, [100_001, 1]);
        assert_eq!(found, [(3, texts(&["foo", "end"]))]);
        let (_, found) = lines("foo", &data, 1);
        assert_eq!((found[0].0, found[0].1.len()), (2, 1000));
    }
}
