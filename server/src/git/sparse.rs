//! Patterns of a sparse checkout, for filters by path. The one module that knows `gix-glob`.
//!
//! The last pattern that matches a path decides; a path that none matches goes with its directory. Read like
//! `.gitignore` files, and never as "cones". Source: git's `dir.c` (`last_matching_pattern_from_list`).

use gix_glob::{Pattern, pattern::Case, pattern::Mode, wildmatch};
use govc_engine::{Error, PathRule, Result};

/// Bytes of a list of patterns.
pub(crate) const BYTES_MAX: u64 = 1 << 20;
/// Patterns of a list: each path is compared with every one.
const PATTERNS_MAX: usize = 10_000;

/// A list of patterns.
pub(crate) struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads a list, a pattern a line.
    ///
    /// # Errors
    /// `Invalid` for more than 10 000 patterns.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let patterns = lines.filter(|line| !line.starts_with(b"#")).map(without_trailing_spaces);
        let patterns: Vec<Pattern> = patterns.filter_map(Pattern::from_bytes).take(PATTERNS_MAX + 1).collect();
        if patterns.len() > PATTERNS_MAX {
            return Err(Error::invalid(format!("a list has more than {PATTERNS_MAX} sparse patterns")));
        }
        Ok(Self(patterns))
    }
}

impl PathRule for Patterns {
    fn takes(&self, path: &[u8], is_tree: bool) -> Option<bool> {
        let base = path.iter().rposition(|b| *b == b'/').map(|slash| slash + 1);
        let matches = |pattern: &&Pattern| {
            // The root has no path, only an empty name.
            let by_path = pattern.mode.contains(Mode::ABSOLUTE) || !pattern.mode.contains(Mode::NO_SUB_DIR);
            if path.is_empty() && by_path && !pattern.text.is_empty() {
                return false;
            }
            let mode = wildmatch::Mode::NO_MATCH_SLASH_LITERAL;
            pattern.matches_repo_relative_path(path.into(), base, Some(is_tree), Case::Sensitive, mode)
        };
        self.0.iter().rev().find(matches).map(|pattern| !pattern.is_negative())
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

    #[track_caller]
    fn check(patterns: &str, path: &str, is_tree: bool, expected: Option<bool>) {
        let patterns = Patterns::parse(patterns.as_bytes()).unwrap();
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
        assert!(Patterns::parse("a\n".repeat(PATTERNS_MAX).as_bytes()).is_ok());
        assert!(Patterns::parse("a\n".repeat(PATTERNS_MAX + 1).as_bytes()).is_err());
    }
}
