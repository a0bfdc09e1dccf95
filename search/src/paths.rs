//! Which files a search reads: all, those at or below a path, or those that a glob names.

use globset::{Candidate, GlobBuilder, GlobMatcher};
use govc_engine::{Error, Result};

/// Longest accepted path or glob, in bytes; longer than any path git clients can check out.
const PATH_BYTES_MAX: usize = 4096;

/// A compiled choice of files.
#[derive(Debug)]
pub(crate) struct PathFilter {
    /// The file or directory that holds every wanted file, without slashes at its ends; empty for the root.
    below: Vec<u8>,
    /// What the whole path must match in addition.
    glob: Option<GlobMatcher>,
}

impl PathFilter {
    /// Reads a path such as `src/net`, or a glob such as `*.rs` or `src/**/*.{c,h}`.
    ///
    /// A text with any of `*?[{` is a glob; `\` takes the meaning from the character behind it. A glob without
    /// a slash is matched against file names at any depth, as in git's attributes; others against whole paths,
    /// where `*` stays within a directory and `**` does not.
    ///
    /// # Errors
    /// Invalid if the glob is malformed or the text too long.
    pub(crate) fn new(text: &str) -> Result<Self> {
        if text.len() > PATH_BYTES_MAX {
            return Err(Error::invalid(format!("path has more than {PATH_BYTES_MAX} bytes")));
        }
        let text = text.strip_prefix("./").unwrap_or(text).trim_matches('/');
        let Some(special) = text.find(['*', '?', '[', '{', '\\']) else {
            return Ok(Self { below: text.as_bytes().to_vec(), glob: None });
        };
        // The directories in front of the first special character need no matching and spare walking the rest.
        let below = text.get(..special).and_then(|plain| plain.rfind('/')).and_then(|slash| text.get(..slash));
        let pattern = if text.contains('/') { text.to_owned() } else { format!("**/{text}") };
        let glob = GlobBuilder::new(&pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| Error::invalid(format!("path {text:?} is not a valid glob: {error}")))?;
        Ok(Self { below: below.unwrap_or("").as_bytes().to_vec(), glob: Some(glob.compile_matcher()) })
    }

    /// The file or directory that holds every wanted file; empty for the root.
    pub(crate) fn below(&self) -> &[u8] {
        &self.below
    }

    /// Whether the file at `path` is wanted.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let inside = match path.strip_prefix(self.below.as_slice()) {
            Some(rest) => self.below.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        };
        inside && self.glob.as_ref().is_none_or(|glob| glob.is_match_candidate(&Candidate::from_bytes(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::PathFilter;

    fn check(filter: &str, wanted: &[&str], unwanted: &[&str]) {
        let compiled = PathFilter::new(filter).expect("a valid filter");
        for path in wanted {
            assert!(compiled.matches(path.as_bytes()), "{filter:?} should want {path:?}");
        }
        for path in unwanted {
            assert!(!compiled.matches(path.as_bytes()), "{filter:?} should not want {path:?}");
        }
    }

    #[test]
    fn prefixes_end_at_slashes() {
        check("", &["a", "a/b"], &[]);
        check("src", &["src", "src/a.rs", "src/b/c"], &["src2/a", "a/src", "sr"]);
        check("/src/b/", &["src/b/c"], &["src/bc"]);
    }

    #[test]
    fn globs_match_names_or_whole_paths() {
        check("*.rs", &["a.rs", "src/b/c.rs"], &["a.rsx", "rs"]);
        check("src/*.rs", &["src/a.rs"], &["src/b/c.rs", "a.rs"]);
        check("src/**/*.{c,h}", &["src/a.c", "src/x/y/b.h"], &["src/a.o", "lib/a.c"]);
        check(r"a\[1\].txt", &["a[1].txt", "d/a[1].txt"], &["a1.txt"]);
    }

    #[test]
    fn a_malformed_glob_is_refused() {
        assert!(PathFilter::new("src/[a").is_err());
        assert!(PathFilter::new(&"x".repeat(5000)).is_err());
    }
}
