//! Object identities and kinds.

use std::{fmt, str::FromStr};

use super::ObjectFormat;
use crate::{Error, Result};

/// The identity of an object: the hash of its kind, size and bytes, as git computes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(gix_hash::ObjectId);

impl Oid {
    /// Bytes of an identity at most.
    pub const LEN_MAX: usize = ObjectFormat::Sha256.len();

    /// The all-zero id, which git uses for "no object".
    pub fn null(format: ObjectFormat) -> Self {
        Self(gix_hash::ObjectId::null(format.kind()))
    }

    /// The id of the empty tree, which every reader knows without its being stored.
    pub fn empty_tree(format: ObjectFormat) -> Self {
        Self(gix_hash::ObjectId::empty_tree(format.kind()))
    }

    /// Which hash it is.
    #[inline]
    pub fn format(&self) -> ObjectFormat {
        if self.0.as_slice().len() == ObjectFormat::Sha1.len() { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 }
    }

    /// The binary id, of as many bytes as its format has.
    #[inline]
    pub(crate) fn by_format(&self) -> OidBytes<'_> {
        let bytes = self.as_bytes();
        match (bytes.first_chunk(), bytes.first_chunk()) {
            (Some(sha256), _) => OidBytes::Sha256(sha256),
            (None, Some(sha1)) => OidBytes::Sha1(sha1),
            (None, None) => unreachable!("an id has 20 bytes at least"),
        }
    }

    /// Whether this is the id of its format's empty tree.
    pub fn is_empty_tree(&self) -> bool {
        self.0.is_empty_tree()
    }

    /// Reads a binary id, whose format is that of its length.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] unless `bytes` has 20 or 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        gix_hash::ObjectId::try_from(bytes)
            .map(Self)
            .map_err(|_| Error::invalid(format!("an object id has 20 or 32 bytes, got {}", bytes.len())))
    }

    /// Reads a full hexadecimal id of 40 or 64 digits, upper or lower case.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for anything else.
    pub fn from_hex(hex: &[u8]) -> Result<Self> {
        gix_hash::ObjectId::from_hex(hex)
            .map(Self)
            .map_err(|_| Error::invalid(format!("not an object id: {:?}", String::from_utf8_lossy(hex))))
    }

    /// The binary id.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Its first eight bytes: as good a hash as any, for ids are uniform.
    pub fn bits(&self) -> u64 {
        u64::from_le_bytes(*self.as_bytes().first_chunk::<8>().expect("ids have more"))
    }

    /// Whether this is the all-zero id.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Appends the id in hexadecimal.
    pub fn write_hex(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.format().hex_len(), 0);
        // The buffer is as long as that needs.
        let _ = self.0.hex_to_buf(&mut out[start..]);
    }

    /// The id in hexadecimal, in a buffer on the stack.
    pub fn to_hex(self) -> impl fmt::Display {
        self.0
    }
}

/// The bytes of an id.
pub(crate) enum OidBytes<'a> {
    Sha1(&'a [u8; 20]),
    Sha256(&'a [u8; 32]),
}

impl From<[u8; 20]> for Oid {
    fn from(bytes: [u8; 20]) -> Self {
        Self(gix_hash::ObjectId::Sha1(bytes))
    }
}

impl From<[u8; 32]> for Oid {
    fn from(bytes: [u8; 32]) -> Self {
        Self(gix_hash::ObjectId::Sha256(bytes))
    }
}

impl From<gix_hash::ObjectId> for Oid {
    fn from(id: gix_hash::ObjectId) -> Self {
        Self(id)
    }
}

impl AsRef<gix_hash::oid> for Oid {
    fn as_ref(&self) -> &gix_hash::oid {
        &self.0
    }
}

impl FromStr for Oid {
    type Err = Error;

    fn from_str(hex: &str) -> Result<Self> {
        Self::from_hex(hex.as_bytes())
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The beginning of an object id, of 4 to 63 hexadecimal digits, lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidPrefix(String);

impl OidPrefix {
    /// Reads an abbreviated id; `None` if it is too short, too long or not hexadecimal.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (4..Oid::LEN_MAX * 2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether `oid` begins so.
    pub fn matches(&self, oid: &Oid) -> bool {
        oid.to_string().starts_with(&self.0)
    }

    /// The smallest and the largest id of a format that begin so; `None` if it has as many digits as an id, or more.
    pub fn range(&self, format: ObjectFormat) -> Option<(Oid, Oid)> {
        let missing = format.hex_len().checked_sub(self.0.len()).filter(|missing| *missing > 0)?;
        let fill = |digit: &str| Oid::from_hex(format!("{}{}", self.0, digit.repeat(missing)).as_bytes()).ok();
        Some((fill("0")?, fill("f")?))
    }
}

/// The four kinds of objects, with git's pack type numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A commit.
    Commit = 1,
    /// A directory.
    Tree = 2,
    /// A file's content.
    Blob = 3,
    /// An annotated tag.
    Tag = 4,
}

impl Kind {
    /// Git's word for the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Tree => "tree",
            Kind::Blob => "blob",
            Kind::Tag => "tag",
        }
    }

    /// The kind of git's word.
    pub fn from_word(word: &[u8]) -> Option<Self> {
        match word {
            b"commit" => Some(Kind::Commit),
            b"tree" => Some(Kind::Tree),
            b"blob" => Some(Kind::Blob),
            b"tag" => Some(Kind::Tag),
            _ => None,
        }
    }

    /// The kind of git's pack type number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Kind::Commit),
            2 => Some(Kind::Tree),
            3 => Some(Kind::Blob),
            4 => Some(Kind::Tag),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
