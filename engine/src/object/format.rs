//! The object format of a repository: which hash its ids are.

use std::{fmt, str::FromStr};

use super::Oid;
use crate::{Error, Result};

/// The hash that names the objects of a repository, fixed when it is made; in git's words, its object format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectFormat {
    /// Ids of 20 bytes, by SHA-1 with collision detection.
    #[default]
    Sha1,
    /// Ids of 32 bytes, by SHA-256.
    Sha256,
}

impl ObjectFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    /// Bytes of an id.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Hexadecimal digits of an id.
    pub const fn hex_len(self) -> usize {
        2 * self.len()
    }

    /// Git's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// The all-zero id, which git uses for "no object".
    pub fn null(self) -> Oid {
        Oid::null(self)
    }

    /// The id of the empty tree, which every reader knows without its being stored.
    pub fn empty_tree(self) -> Oid {
        Oid::empty_tree(self)
    }

    /// Reads a binary id of this format.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] unless `bytes` has exactly [`ObjectFormat::len`] bytes.
    pub fn oid_from_bytes(self, bytes: &[u8]) -> Result<Oid> {
        if bytes.len() != self.len() {
            let message = format!("an id of this repository has {} bytes, got {}", self.len(), bytes.len());
            return Err(Error::invalid(message));
        }
        Oid::from_bytes(bytes)
    }

    /// Reads a full hexadecimal id of this format, upper or lower case.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for anything else.
    pub fn oid_from_hex(self, hex: &[u8]) -> Result<Oid> {
        let oid = Oid::from_hex(hex)?;
        self.check(&oid)?;
        Ok(oid)
    }

    /// Checks that an id is of this format.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if it is not.
    pub fn check(self, oid: &Oid) -> Result<()> {
        if oid.format() == self {
            return Ok(());
        }
        Err(Error::invalid(format!("an id of this repository has {} digits, got {oid}", self.hex_len())))
    }

    pub(crate) fn kind(self) -> gix_hash::Kind {
        match self {
            Self::Sha1 => gix_hash::Kind::Sha1,
            Self::Sha256 => gix_hash::Kind::Sha256,
        }
    }
}

impl fmt::Display for ObjectFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ObjectFormat {
    type Err = Error;

    /// Reads git's word.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for any other.
    fn from_str(word: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|format| format.as_str() == word);
        known.ok_or_else(|| Error::invalid(format!("unknown object format {word:?}; there are sha1 and sha256")))
    }
}
