//! Numbers that identify things in a store, and what is recorded of a repository.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::rules::GitRules;
use crate::{
    Error, Result,
    object::{ObjectFormat, Oid},
    refs::RefName,
};

/// The key of a repository; never used again after the repository is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoId(pub(crate) u64);

impl RepoId {
    /// The number, for those who keep something beside the store.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The id of a number that [`RepoId::as_u64`] gave.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The key of a set of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub(crate) u64);

impl PoolId {
    /// The pool of a repository: each has one, with the same number.
    pub(crate) fn of(repo: RepoId) -> Self {
        Self(repo.0)
    }
}

/// What an object in memory goes by: forks hold the same objects, each in its own pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PooledId {
    pub(crate) pool: PoolId,
    pub(crate) oid: Oid,
}

/// A position in the feed of all publications; grows, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// The name that users give a repository: one to three segments joined by `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoName(std::sync::Arc<str>);

impl RepoName {
    /// Longest name in bytes.
    pub const LEN_MAX: usize = 200;

    /// Checks a name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] unless it is one to three segments of `[A-Za-z0-9][A-Za-z0-9._-]*` without
    /// `..`, none ending in `.git` or `.lock`, at most [`RepoName::LEN_MAX`] bytes in all.
    pub fn new(name: &str) -> Result<Self> {
        let segment_is_valid = |segment: &str| {
            let lower = segment.to_ascii_lowercase();
            segment.starts_with(|c: char| c.is_ascii_alphanumeric())
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                && !segment.contains("..")
                && !lower.ends_with(".git")
                && !lower.ends_with(".lock")
        };
        let segments = name.split('/').count();
        if name.len() > Self::LEN_MAX || segments > 3 || !name.split('/').all(segment_is_valid) {
            return Err(Error::invalid(format!(
                "repository id {name:?} is not valid: one to three segments of letters, digits, '.', '_' and '-', \
                 joined by '/', each beginning with a letter or digit"
            )));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an acknowledged write of a repository survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: the repository is gone when the process ends.
    Memory,
    /// The end of the process once the bounded delay has passed, and a crash of the machine likewise.
    Relaxed,
    /// `kill -9` and a crash of the machine, from the moment of the acknowledgement.
    #[default]
    Durable,
}

impl Durability {
    /// The word used in configuration and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Relaxed => "relaxed",
            Durability::Durable => "durable",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        [Self::Memory, Self::Relaxed, Self::Durable]
            .into_iter()
            .find(|durability| durability.as_str() == word)
            .ok_or_else(|| Error::invalid(format!("durability {word:?} is not one of memory, relaxed, durable")))
    }
}

/// What users set of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSettings {
    /// A line for people.
    pub description: String,
    /// The branch that `HEAD` names; it need not exist.
    pub default_branch: RefName,
    /// What acknowledged writes survive.
    pub durability: Durability,
    /// What is refused of pushes, and hidden.
    pub git: GitRules,
    /// The hash that names the objects: fixed when the repository is made.
    pub object_format: ObjectFormat,
}

impl RepoSettings {
    /// Longest description in bytes.
    pub const DESCRIPTION_MAX: usize = 4096;

    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the default branch is no branch, the description is too long, or a rule is not valid.
    pub(crate) fn check(&self) -> Result<()> {
        self.git.check()?;
        if !self.default_branch.is_branch() {
            return Err(Error::invalid(format!("default branch {} is not under refs/heads/", self.default_branch)));
        }
        if self.description.len() > Self::DESCRIPTION_MAX {
            return Err(Error::invalid(format!("a description has at most {} bytes", Self::DESCRIPTION_MAX)));
        }
        Ok(())
    }
}

impl Default for RepoSettings {
    fn default() -> Self {
        Self {
            description: String::new(),
            default_branch: RefName::from_stored(b"refs/heads/main"),
            durability: Durability::default(),
            git: GitRules::default(),
            object_format: ObjectFormat::default(),
        }
    }
}

/// Why a version came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Cause {
    /// The repository was created.
    Create = 0,
    /// A git client pushed.
    Push = 1,
    /// A commit through the interface.
    Commit = 2,
    /// A merge on the server.
    Merge = 3,
    /// References or settings changed through the interface.
    Api = 4,
    /// An import.
    Import = 5,
    /// An earlier version was restored.
    Restore = 6,
    /// Realities were made, promoted, dropped, or their time was over.
    Reality = 7,
    /// The repository was forked from another.
    Fork = 8,
}

impl Cause {
    const ALL: [Cause; 9] = [
        Cause::Create,
        Cause::Push,
        Cause::Commit,
        Cause::Merge,
        Cause::Api,
        Cause::Import,
        Cause::Restore,
        Cause::Reality,
        Cause::Fork,
    ];

    /// The word used in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Create => "create",
            Cause::Push => "push",
            Cause::Commit => "commit",
            Cause::Merge => "merge",
            Cause::Api => "api",
            Cause::Import => "import",
            Cause::Restore => "restore",
            Cause::Reality => "reality",
            Cause::Fork => "fork",
        }
    }

    pub(crate) fn from_number(number: u8) -> Result<Self> {
        let cause = Self::ALL.into_iter().find(|cause| *cause as u8 == number);
        cause.ok_or_else(|| Error::corrupt("a stored version has an unknown cause"))
    }
}
