//! Lines in which patterns match. A line is matched by itself, without its newline: its ends are all that a pattern
//! can speak of.

use std::{ops::Range, time::Instant};

use govc_engine::Result;

use crate::{deadline, find::Matcher, line::LINE_BYTES_MAX};

/// Text between two looks at the clock, in bytes.
const BLOCK_BYTES: usize = 64 << 10;
/// Matches between two looks at the clock.
const CLOCK_MATCHES: u32 = 64;
/// Matches of one line that are reported.
const SPANS_MAX: usize = 1000;

/// Looks for the lines in which any of some patterns matches; all lines, if there are none.
pub(super) struct LineSearch<'a> {
    pub(super) matchers: Vec<&'a Matcher>,
    pub(super) until: Option<Instant>,
}

impl LineSearch<'_> {
    /// How many lines of a text match.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    pub(super) fn count(&self, text: &[u8]) -> Result<u64> {
        let mut count = 0;
        self.each(text, &mut |_| {
            count += 1;
            true
        })?;
        Ok(count)
    }

    /// Gives the lines of a text that match, in order, without their newlines, until `each` says that it is enough.
    ///
    /// # Errors
    /// Cancelled at the deadline.
    pub(super) fn each(&self, text: &[u8], each: &mut dyn FnMut(Range<usize>) -> bool) -> Result<()> {
        for block in blocks(text) {
            deadline::check(self.until)?;
            let begin = block.start;
            let text = text.get(block).unwrap_or_default();
            let mut found = Vec::new();
            for matcher in &self.matchers {
                self.add(matcher, text, &mut found)?;
            }
            if self.matchers.is_empty() {
                found.extend(lines(text).map(|line| line.start));
            }
            found.sort_unstable();
            found.dedup();
            for start in found {
                let end = line_end(text, start);
                if !each(begin + start..begin + end) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds where the lines of a block begin in which a pattern matches.
    fn add(&self, matcher: &Matcher, text: &[u8], found: &mut Vec<usize>) -> Result<()> {
        if matcher.is_whole() {
            let matching = lines(text).filter(|line| matcher.is_match(text.get(line.clone()).unwrap_or_default()));
            found.extend(matching.map(|line| line.start));
            return Ok(());
        }
        let (mut end, mut steps, mut is_late) = (None, 0_u32, false);
        matcher.matches(text, |matched| {
            steps += 1;
            // Between two matches, a pattern may look at all of a long line.
            if steps.is_multiple_of(CLOCK_MATCHES) && deadline::is_past(self.until) {
                is_late = true;
                return false;
            }
            if !matched.is_empty() && end.is_none_or(|end| matched.start > end) {
                let front = text.get(..matched.start).unwrap_or_default();
                found.push(memchr::memrchr(b'\n', front).map_or(0, |newline| newline + 1));
                end = Some(line_end(text, matched.start));
            }
            true
        });
        if is_late { deadline::check(self.until) } else { Ok(()) }
    }

    /// Where patterns match in a line, in order and without overlaps.
    pub(super) fn spans(&self, line: &[u8]) -> Vec<Range<usize>> {
        let mut all: Vec<Range<usize>> = Vec::new();
        for matcher in &self.matchers {
            let mut count = 0;
            matcher.matches(line, |found| {
                let is_shown = found.start < LINE_BYTES_MAX;
                if !found.is_empty() && is_shown {
                    count += 1;
                    all.push(found);
                }
                is_shown && count < SPANS_MAX
            });
        }
        all.sort_by_key(|span| (span.start, span.end));
        let mut spans: Vec<Range<usize>> = Vec::new();
        for span in all {
            // Several patterns may match at one place.
            if spans.last().is_none_or(|last| last.end <= span.start) && spans.len() < SPANS_MAX {
                spans.push(span);
            }
        }
        spans
    }
}

/// Whether a pattern matches in any line of a text.
///
/// # Errors
/// Cancelled at the deadline.
pub(super) fn has_match(matcher: &Matcher, text: &[u8], until: Option<Instant>) -> Result<bool> {
    let mut has_match = false;
    LineSearch { matchers: vec![matcher], until }.each(text, &mut |_| {
        has_match = true;
        false
    })?;
    Ok(has_match)
}

/// Whole lines together, so many bytes or one line at a time.
fn blocks(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let least = rest.len().min(BLOCK_BYTES) - 1;
        at = start + (line_end(rest, least) + 1).min(rest.len());
        Some(start..at)
    })
}

/// The lines of a text, without their newlines.
fn lines(text: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let end = (start < text.len()).then(|| line_end(text, start))?;
        at = end + 1;
        Some(start..end)
    })
}

/// Where the line ends in which byte `at` is.
fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', text.get(at..).unwrap_or_default()).map_or(text.len(), |newline| at + newline)
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, LineSearch, blocks, has_match, lines};
    use crate::{find::Matcher, query::Pattern};

    fn matcher(text: &str) -> Matcher {
        Matcher::new(&Pattern { text: text.into(), regex: true, case_sensitive: true, span: 0..0 }).expect("a pattern")
    }

    fn found(patterns: &[&str], text: &[u8]) -> Vec<usize> {
        let matchers: Vec<Matcher> = patterns.iter().map(|text| matcher(text)).collect();
        let search = LineSearch { matchers: matchers.iter().collect(), until: None };
        let mut starts = Vec::new();
        search
            .each(text, &mut |line| {
                starts.push(line.start);
                true
            })
            .expect("in time");
        assert_eq!(search.count(text).expect("in time"), starts.len() as u64);
        starts
    }

    #[test]
    fn each_line_is_found_once() {
        let text = b"foo foo\nbar\n\nfoobar\r\nbaz foo";
        assert_eq!(found(&["foo"], text), [0, 13, 21]);
        assert_eq!(found(&["foo", "bar"], text), [0, 8, 13, 21]);
        assert_eq!(found(&[], text), [0, 8, 12, 13, 21]);
        assert_eq!(found(&["^foo"], text), [0, 13]);
        assert_eq!(found(&[r"\Afoo", r"foo\z"], text), [0, 13, 21], "the ends are those of the line");
        assert_eq!(found(&["bar$", "x*"], text), [8]);
        assert_eq!(found(&["foo"], b""), [0_usize; 0]);
    }

    #[test]
    fn long_texts_are_whole_lines_at_a_time() {
        let mut text = b"needle\n".repeat(BLOCK_BYTES / 3);
        text.extend(vec![b'x'; 3 * BLOCK_BYTES]);
        text.extend(b" needle");
        let all: Vec<_> = blocks(&text).collect();
        assert!(all.len() > 2 && all.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((all[0].start, all.last().map(|last| last.end)), (0, Some(text.len())));
        assert!(all.iter().all(|block| block.end == text.len() || text[block.end - 1] == b'\n'));
        assert_eq!(found(&["needle", "n.*e"], &text).len(), BLOCK_BYTES / 3 + 1);
        assert_eq!(lines(b"\n\nx").collect::<Vec<_>>(), [0..0, 1..1, 2..3]);
        assert!(has_match(&matcher(" needle"), &text, None).expect("in time"));
        assert!(!has_match(&matcher("needles"), &text, None).expect("in time"));
    }

    #[test]
    fn spans_do_not_overlap() {
        let matchers = [matcher("oo"), matcher("fo+"), matcher("bar")];
        let search = LineSearch { matchers: matchers.iter().collect(), until: None };
        assert_eq!(search.spans(b"foobar foo"), [0..3, 3..6, 7..10]);
    }
}
