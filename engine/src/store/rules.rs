//! What a repository refuses of pushes over Git's own protocol, and what it does not show there.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    backend::key::{Reader, put_bytes, put_varint},
};

/// Git's `receive.*` and `transfer.*` settings of a repository. They hold for Git's protocol, not for other writers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitRules {
    /// Whether a branch may only move to what its commit leads to.
    pub deny_non_fast_forwards: bool,
    /// Whether branches stay.
    pub deny_deletes: bool,
    /// The largest object of a push, in bytes; `None` for the store's own limit, which holds beside it.
    pub object_bytes_max: Option<u64>,
    /// Which references are neither shown nor taken. A pattern is a reference's name, or the beginning of names that goes up
    /// to a slash (`refs/internal` for all below it); with `!` in front it shows them again. The last that fits decides.
    pub hidden_refs: Vec<String>,
    /// What a push must be signed with.
    pub require_signed_push: SignedPush,
}

/// What a repository wants of the certificates of pushes. Whatever comes is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignedPush {
    /// Nothing.
    #[default]
    None,
    /// That there is one, made for this repository not long ago, whose signature is not known to be wrong.
    Recorded,
    /// That, and that somebody who may sign has signed it.
    Verified,
}

impl SignedPush {
    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            SignedPush::None => "none",
            SignedPush::Recorded => "recorded",
            SignedPush::Verified => "verified",
        }
    }
}

const DENIES_NON_FAST_FORWARDS: u8 = 1;
const DENIES_DELETES: u8 = 2;
const LIMITS_OBJECTS: u8 = 4;
const WANTS_CERTIFICATES: u8 = 8;
const WANTS_VERIFIED: u8 = 16;

impl GitRules {
    /// Patterns of hidden references.
    pub const HIDDEN_MAX: usize = 100;
    /// Longest pattern in bytes.
    pub const PATTERN_MAX: usize = 1024;

    /// Whether a reference is hidden.
    pub fn hides(&self, name: &[u8]) -> bool {
        let fits = |pattern: &str| {
            let rest = name.strip_prefix(pattern.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let decisive = self.hidden_refs.iter().rev().map(|pattern| match pattern.strip_prefix('!') {
            Some(shown) => (shown, false),
            None => (pattern.as_str(), true),
        });
        decisive.filter(|(pattern, _)| fits(pattern)).map(|(_, hides)| hides).next().unwrap_or_default()
    }

    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for patterns that are too many, too long or no beginnings of names.
    pub(crate) fn check(&self) -> Result<()> {
        if self.hidden_refs.len() > Self::HIDDEN_MAX {
            return Err(Error::invalid(format!("at most {} patterns of hidden references", Self::HIDDEN_MAX)));
        }
        for pattern in &self.hidden_refs {
            let name = pattern.strip_prefix('!').unwrap_or(pattern);
            let is_name = name == "refs" || name.starts_with("refs/");
            if !is_name || name.ends_with('/') || name.contains('\0') || pattern.len() > Self::PATTERN_MAX {
                return Err(Error::invalid(format!(
                    "{pattern:?} is no pattern of hidden references: the beginning of a name such as refs/internal, without a \
                     slash at its end, of at most {} bytes, maybe with ! in front",
                    Self::PATTERN_MAX
                )));
            }
        }
        if self.object_bytes_max == Some(0) {
            return Err(Error::invalid("a push cannot have objects of at most 0 bytes"));
        }
        Ok(())
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let flags = [
            (self.deny_non_fast_forwards, DENIES_NON_FAST_FORWARDS),
            (self.deny_deletes, DENIES_DELETES),
            (self.object_bytes_max.is_some(), LIMITS_OBJECTS),
            (self.require_signed_push == SignedPush::Recorded, WANTS_CERTIFICATES),
            (self.require_signed_push == SignedPush::Verified, WANTS_VERIFIED),
        ];
        out.push(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        if let Some(bytes) = self.object_bytes_max {
            put_varint(out, bytes);
        }
        put_varint(out, self.hidden_refs.len() as u64);
        for pattern in &self.hidden_refs {
            put_bytes(out, pattern.as_bytes());
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let flags = reader.byte()?;
        let unknown = || Error::corrupt("a catalog row has unknown rules");
        if flags > DENIES_NON_FAST_FORWARDS + DENIES_DELETES + LIMITS_OBJECTS + WANTS_CERTIFICATES + WANTS_VERIFIED {
            return Err(unknown());
        }
        let require_signed_push = match flags & (WANTS_CERTIFICATES + WANTS_VERIFIED) {
            0 => SignedPush::None,
            WANTS_CERTIFICATES => SignedPush::Recorded,
            WANTS_VERIFIED => SignedPush::Verified,
            _ => return Err(unknown()),
        };
        let object_bytes_max = if flags & LIMITS_OBJECTS == 0 { None } else { Some(reader.varint()?) };
        let mut rules = Self {
            deny_non_fast_forwards: flags & DENIES_NON_FAST_FORWARDS != 0,
            deny_deletes: flags & DENIES_DELETES != 0,
            object_bytes_max,
            hidden_refs: Vec::new(),
            require_signed_push,
        };
        for _ in 0..reader.varint()? {
            rules.hidden_refs.push(reader.string()?.to_owned());
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hiding(patterns: &[&str]) -> GitRules {
        GitRules { hidden_refs: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(), ..GitRules::default() }
    }

    #[test]
    fn the_last_pattern_that_fits_decides() {
        let rules = hiding(&["refs/internal", "!refs/internal/shown", "refs/internal/shown/not", "refs/heads/one"]);
        for (name, expected) in [
            ("refs/internal", true),
            ("refs/internal/a", true),
            ("refs/internals", false),
            ("refs/internal/shown", false),
            ("refs/internal/shown/a", false),
            ("refs/internal/shown/not", true),
            ("refs/heads/one", true),
            ("refs/heads/one/more", true),
            ("refs/heads/ones", false),
            ("HEAD", false),
        ] {
            assert_eq!(rules.hides(name.as_bytes()), expected, "{name}");
        }
        assert!(hiding(&["refs"]).hides(b"refs/heads/main"));
        assert!(!hiding(&["refs", "!refs/heads"]).hides(b"refs/heads/main"));
        assert!(!GitRules::default().hides(b"refs/heads/main"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in
            ["", "!", "heads", "refs/", "refs/heads/", "!heads", "refs/a\0", &format!("refs/{}", "a".repeat(1020))]
        {
            assert!(hiding(&[pattern]).check().is_err(), "{pattern}");
        }
        for pattern in ["refs", "refs/heads", "!refs/heads/main", &format!("refs/{}", "a".repeat(1019))] {
            hiding(&[pattern]).check().expect(pattern);
        }
        assert!(hiding(&["refs/a"; GitRules::HIDDEN_MAX]).check().is_ok());
        assert!(hiding(&["refs/a"; GitRules::HIDDEN_MAX + 1]).check().is_err());
        assert!(GitRules { object_bytes_max: Some(0), ..GitRules::default() }.check().is_err());
    }

    #[test]
    fn rules_are_read_as_they_were_written() {
        let mut rules = hiding(&["refs/a", "!refs/a/b"]);
        for flags in 0..24 {
            rules.deny_non_fast_forwards = flags & 1 != 0;
            rules.deny_deletes = flags & 2 != 0;
            rules.object_bytes_max = (flags & 4 != 0).then_some(1 << 20);
            rules.require_signed_push = [SignedPush::None, SignedPush::Recorded, SignedPush::Verified][flags >> 3];
            let mut out = Vec::new();
            rules.write(&mut out);
            assert_eq!(GitRules::read(&mut Reader::new(&out)).expect("what was written"), rules);
            for cut in 0..out.len() {
                assert!(GitRules::read(&mut Reader::new(&out[..cut])).is_err(), "{flags} {cut}");
            }
        }
        assert!(GitRules::read(&mut Reader::new(&[24, 0])).is_err());
        assert!(GitRules::read(&mut Reader::new(&[32, 0])).is_err());
    }
}
