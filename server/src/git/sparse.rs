//! Patterns of a sparse checkout, for filters by path.
//!
//! The last pattern that matches a path decides; a path that none matches goes with its directory. Read like
//! `.gitignore` files, and never as "cones". Whoever asks writes them, so what they may cost is bounded.
//! Source: git's `dir.c` (`last_matching_pattern_from_list`).

use govc_engine::{Error, PathRule, Result};

use crate::pattern::Pattern;

/// Bytes of a list of patterns.
pub(crate) const BYTES_MAX: u64 = 1 << 20;
/// Patterns of all lists of a filter: each path is compared with every one.
const PATTERNS_MAX: usize = 10_000;
/// The most steps that all of them may take for a byte of a path.
const WEIGHT_MAX: usize = 64 << 10;
/// No client can have a longer path, so none matches.
const PATH_BYTES_MAX: usize = 4096;

/// A list of patterns.
pub(crate) struct Patterns(Vec<Line>);

struct Line {
    pattern: Pattern,
    /// Whether what matches is left out.
    is_negative: bool,
}

/// What the lists of one filter may still cost together.
pub(crate) struct Allowance {
    patterns: usize,
    weight: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { patterns: PATTERNS_MAX, weight: WEIGHT_MAX }
    }
}

impl Patterns {
    /// Reads a list, a pattern a line.
    ///
    /// # Errors
    /// `Invalid` for more patterns, or more wildcards in them, than `allowance` has left.
    pub(crate) fn parse(text: &[u8], allowance: &mut Allowance) -> Result<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut patterns = Vec::new();
        for line in lines.filter(|line| !line.starts_with(b"#")).map(without_trailing_spaces) {
            if line.is_empty() {
                continue;
            }
            let (text, is_negative) = line.strip_prefix(b"!").map_or((line, false), |text| (text, true));
            let pattern = Pattern::new(text);
            let left = (allowance.patterns.checked_sub(1), allowance.weight.checked_sub(pattern.weight()));
            let (Some(left), Some(weight)) = left else {
                let max = format!("{PATTERNS_MAX} patterns, or {WEIGHT_MAX} characters of patterns with wildcards");
                return Err(Error::invalid(format!("the sparse lists of a filter have more than {max}")));
            };
            *allowance = Allowance { patterns: left, weight };
            patterns.push(Line { pattern, is_negative });
        }
        Ok(Self(patterns))
    }
}

impl PathRule for Patterns {
    fn takes(&self, path: &[u8], is_tree: bool) -> Option<bool> {
        if path.len() > PATH_BYTES_MAX {
            return None;
        }
        // The root has no path, only an empty name.
        let fits =
            |line: &&Line| (!path.is_empty() || line.pattern.is_base_name()) && line.pattern.matches(path, is_tree);
        self.0.iter().rev().find(fits).map(|line| !line.is_negative)
    }
}

/// A space at the end counts only after a backslash.
fn without_trailing_spaces(line: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while let Some(byte) = line.get(at) {
        at += if *byte == b'\\' { 2 } else { 1 };
        if *byte != b' ' {
            end = at.min(line.len());
        }
    }
    line.get(..end).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Patterns> {
        Patterns::parse(text.as_bytes(), &mut Allowance::default())
    }

    #[track_caller]
    fn check(patterns: &str, path: &str, is_tree: bool, expected: Option<bool>) {
        let patterns = parse(patterns).unwrap();
        assert_eq!(patterns.takes(path.as_bytes(), is_tree), expected, "{path}");
    }

    #[test]
    fn the_last_match_decides() {
        check("*.txt\n!b.txt\n", "a.txt", false, Some(true));
        check("*.txt\n!b.txt\n", "dir/b.txt", false, Some(false));
        check("!b.txt\n*.txt\n", "b.txt", false, Some(true));
        check("*.txt\n", "a.rs", false, None);
    }

    #[test]
    fn slashes_bind_a_pattern_to_a_place_and_to_directories() {
        check("/dir/", "dir", true, Some(true));
        check("/dir/", "dir", false, None);
        check("/dir/", "other/dir", true, None);
        check("dir/", "other/dir", true, Some(true));
        check("src/*.rs", "src/a.rs", false, Some(true));
        check("src/*.rs", "src/deep/a.rs", false, None);
        check("src/**/*.rs", "src/very/deep/a.rs", false, Some(true));
        check("/*\n!/*/", "top", false, Some(true));
        check("/*\n!/*/", "dir", true, Some(false));
    }

    #[test]
    fn the_root_is_met_by_names_alone() {
        check("/*\n", "", true, None);
        check("*\n", "", true, Some(true));
        check("a/b\n", "", true, None);
    }

    #[test]
    fn lines_are_read_as_git_reads_them() {
        check("\u{feff}a\r\n", "a", false, Some(true));
        check("# a\n", "# a", false, None);
        check("\\#a\n", "#a", false, Some(true));
        check("a  \n", "a", false, Some(true));
        check("a\\ \n", "a ", false, Some(true));
        check("\n\n", "", true, None);
        check("\\!a\n", "!a", false, Some(true));
        check("!!a\n", "!a", false, Some(false));
    }

    #[test]
    fn what_patterns_cost_is_bounded() {
        assert!(parse(&"a\n".repeat(PATTERNS_MAX)).is_ok());
        assert!(parse(&"a\n".repeat(PATTERNS_MAX + 1)).is_err());
        let many = format!("{}\n", "?a".repeat(WEIGHT_MAX / 4));
        let mut allowance = Allowance::default();
        assert!(Patterns::parse(many.as_bytes(), &mut allowance).is_ok());
        assert!(Patterns::parse(many.as_bytes(), &mut allowance).is_ok());
        assert!(Patterns::parse(b"?", &mut allowance).is_err(), "all lists together");
        assert!(Patterns::parse(b"a", &mut allowance).is_ok());
        // Both of these took hours when every way through a pattern was tried by itself.
        let path = format!("{}a", "x/".repeat(80));
        check(&("**/x/".repeat(40) + "b"), &path, false, None);
        check(&("*x".repeat(40) + "b"), &"x".repeat(200), false, None);
        check("*\n", &"a".repeat(PATH_BYTES_MAX), false, Some(true));
        check("*\n", &"a".repeat(PATH_BYTES_MAX + 1), false, None);
    }
}
