//! One reported line: its text, where in it the pattern matched, and its neighbours.
//!
//! Files hold any bytes and answers are text, so what is not UTF-8 is replaced, and every offset counts bytes
//! of the text as reported, not of the file. Neighbours are taken from the file itself, not from the stream of
//! matches: each reported line stands alone even where lines that match are close to one another.

use std::{borrow::Cow, ops::Range};

/// Longest reported part of a line, in bytes. Minified files put a megabyte on one line.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

/// A line that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrepLine {
    /// The file's path as stored, from the repository's root.
    pub path: Vec<u8>,
    /// The line's number, from 1.
    pub line_number: u64,
    /// Where the first match begins, as a byte of `content` from 1; 1 if there is no span.
    pub column: usize,
    /// The line without its newline; what is not UTF-8 is replaced.
    pub content: String,
    /// Whether `content` is only the beginning of a very long line.
    pub cut: bool,
    /// Where the pattern matched, in order; empty for an inverted search and for empty matches.
    pub matches: Vec<MatchSpan>,
    /// The lines in front, first line first.
    pub before: Vec<String>,
    /// The lines behind.
    pub after: Vec<String>,
}

/// One match within a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatchSpan {
    /// First byte of the match in the line's `content`.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

impl GrepLine {
    /// Reports the line of `data` that begins at byte `start`, with `raw_matches` in bytes of that line.
    pub(crate) fn new(
        path: &[u8],
        data: &[u8],
        start: usize,
        line_number: u64,
        raw_matches: &[Range<usize>],
        context_lines: usize,
    ) -> Self {
        let line = line_at(data, start);
        let shown = shown_part(line);
        let (content, matches) = render(shown, raw_matches);
        Self {
            path: path.to_vec(),
            line_number,
            column: matches.first().map_or(1, |span| span.start + 1),
            content,
            cut: shown.len() < line.len(),
            matches,
            before: before(data, start, context_lines),
            after: after(data, start, context_lines),
        }
    }

    /// Roughly what the line takes in memory and in an answer, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        let around: usize = self.before.iter().chain(&self.after).map(|line| line.len() + 32).sum();
        256 + self.path.len() + self.content.len() + self.matches.len() * 32 + around
    }
}

/// The line that begins at `start`, without its newline.
pub(crate) fn line_at(data: &[u8], start: usize) -> &[u8] {
    let rest = data.get(start..).unwrap_or_default();
    rest.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

fn shown_part(line: &[u8]) -> &[u8] {
    line.get(..LINE_BYTES_MAX).unwrap_or(line)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(shown_part(line)).into_owned()
}

/// The text of `shown`, and the matches that begin in it in bytes of that text.
fn render(shown: &[u8], raw_matches: &[Range<usize>]) -> (String, Vec<MatchSpan>) {
    let visible =
        raw_matches.iter().filter(|raw| raw.start < shown.len()).map(|raw| raw.start..raw.end.min(shown.len()));
    if let Cow::Borrowed(valid) = String::from_utf8_lossy(shown) {
        let spans = visible.map(|raw| MatchSpan { start: raw.start, end: raw.end });
        return (valid.to_owned(), spans.collect());
    }
    // Replacing changes lengths, so the text is put together piece by piece around the matches.
    let (mut content, mut spans, mut done) = (String::with_capacity(shown.len()), Vec::new(), 0);
    for raw in visible {
        content.push_str(&String::from_utf8_lossy(shown.get(done..raw.start).unwrap_or_default()));
        let start = content.len();
        content.push_str(&String::from_utf8_lossy(shown.get(raw.clone()).unwrap_or_default()));
        spans.push(MatchSpan { start, end: content.len() });
        done = raw.end;
    }
    content.push_str(&String::from_utf8_lossy(shown.get(done..).unwrap_or_default()));
    (content, spans)
}

fn before(data: &[u8], start: usize, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut end = start;
    while lines.len() < count && end > 0 {
        // `end` is where the line behind begins, so the byte before it is this line's newline.
        let head = data.get(..end - 1).unwrap_or_default();
        let begin = head.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        lines.push(text(head.get(begin..).unwrap_or_default()));
        end = begin;
    }
    lines.reverse();
    lines
}

fn after(data: &[u8], start: usize, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut next = start + line_at(data, start).len() + 1;
    while lines.len() < count && next < data.len() {
        let line = line_at(data, next);
        lines.push(text(line));
        next += line.len() + 1;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{GrepLine, LINE_BYTES_MAX, MatchSpan};

    #[test]
    fn neighbours_come_from_the_file() {
        let data = b"one\ntwo\nthree\nfour";
        let line = GrepLine::new(b"f", data, 4, 2, std::slice::from_ref(&(0..1)), 2);
        assert_eq!((line.content.as_str(), line.column), ("two", 1));
        assert_eq!(line.before, ["one"]);
        assert_eq!(line.after, ["three", "four"]);
        let last = GrepLine::new(b"f", data, 14, 4, &[], 1);
        assert_eq!((last.before, last.after), (vec!["three".to_owned()], vec![]));
        let blank = GrepLine::new(b"f", b"\n\nx\n", 2, 3, &[], 5);
        assert_eq!((blank.before, blank.after), (vec![String::new(), String::new()], vec![]));
    }

    #[test]
    fn offsets_count_the_reported_text() {
        let line = GrepLine::new(b"f", b"\xff\xffab\xffab\n", 0, 1, &[2..4, 5..7], 0);
        assert_eq!(line.content, "\u{fffd}\u{fffd}ab\u{fffd}ab");
        assert_eq!(line.matches, [MatchSpan { start: 6, end: 8 }, MatchSpan { start: 11, end: 13 }]);
        assert_eq!(line.column, 7);
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let data = vec![b'x'; LINE_BYTES_MAX + 10];
        let line = GrepLine::new(
            b"f",
            &data,
            0,
            1,
            &[0..1, LINE_BYTES_MAX - 1..LINE_BYTES_MAX + 5, LINE_BYTES_MAX + 6..LINE_BYTES_MAX + 7],
            0,
        );
        assert!(line.cut);
        assert_eq!(line.content.len(), LINE_BYTES_MAX);
        assert_eq!(line.matches.last(), Some(&MatchSpan { start: LINE_BYTES_MAX - 1, end: LINE_BYTES_MAX }));
        assert_eq!(line.matches.len(), 2);
    }
}
