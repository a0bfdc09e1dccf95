//! One byte range of a content (RFC 9110, section 14). Several ranges, other units and malformed headers are
//! ignored, as the RFC allows: the whole content is always a correct answer.

use std::ops::Range;

/// What a `Range` header asks of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it.
    Whole,
    /// These bytes; never empty, and within the content.
    Part(Range<usize>),
    /// Bytes that are not there.
    Unsatisfiable,
}

impl Wanted {
    /// Reads a header's value for a content of `length` bytes.
    pub(crate) fn read(header: &str, length: usize) -> Self {
        let Some(list) = header.trim().strip_prefix("bytes=") else { return Self::Whole };
        let Some((first, last)) = list.trim().split_once('-') else { return Self::Whole };
        match (first.trim(), last.trim()) {
            ("", suffix) => match number(suffix) {
                Some(0) => Self::Unsatisfiable,
                Some(count) => Self::part(length.saturating_sub(count), length, length),
                None => Self::Whole,
            },
            (first, "") => match number(first) {
                Some(first) => Self::part(first, length, length),
                None => Self::Whole,
            },
            (first, last) => match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Self::part(first, last.saturating_add(1), length),
                _ => Self::Whole,
            },
        }
    }

    fn part(start: usize, end: usize, length: usize) -> Self {
        if start < length { Self::Part(start..end.min(length)) } else { Self::Unsatisfiable }
    }
}

/// A number of digits alone; one too large for any content is as good as the largest.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::Wanted;

    #[test]
    fn ranges_of_ten_bytes() {
        let check = |header: &str, expected: Wanted| assert_eq!(Wanted::read(header, 10), expected, "{header}");
        check("bytes=0-0", Wanted::Part(0..1));
        check("bytes=2-5", Wanted::Part(2..6));
        check("bytes=9-", Wanted::Part(9..10));
        check("bytes=0-99999999999999999999999", Wanted::Part(0..10));
        check("bytes=-3", Wanted::Part(7..10));
        check("bytes=-30", Wanted::Part(0..10));
        check(" bytes= 2 - 5 ", Wanted::Part(2..6));
        check("bytes=10-", Wanted::Unsatisfiable);
        check("bytes=99999999999999999999999-", Wanted::Unsatisfiable);
        check("bytes=-0", Wanted::Unsatisfiable);
        for ignored in ["bytes=5-2", "bytes=0-1,3-4", "bytes=-", "bytes=a-b", "bytes=+1-2", "lines=0-1", "bytes", ""] {
            check(ignored, Wanted::Whole);
        }
    }

    #[test]
    fn an_empty_content_has_no_ranges() {
        assert_eq!(Wanted::read("bytes=0-0", 0), Wanted::Unsatisfiable);
        assert_eq!(Wanted::read("bytes=-1", 0), Wanted::Unsatisfiable);
        assert_eq!(Wanted::read("bytes=x", 0), Wanted::Whole);
    }
}
