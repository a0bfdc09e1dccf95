//! Reference names.

use std::{borrow::Cow, fmt, sync::Arc};

use gix_object::bstr::BStr;

use crate::{Error, Result};

/// Where realities are among the references.
const REALITIES: &str = "refs/realities/";

/// The full name of a reference under `refs/`, valid by `git check-ref-format`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(Arc<[u8]>);

impl RefName {
    /// Longest name in bytes: what a file system under a git client can still create.
    pub const LEN_MAX: usize = 1024;

    /// A reference of this full name.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if git would refuse the name, or it is not under `refs/`.
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self> {
        let name = name.as_ref();
        let shown = || String::from_utf8_lossy(name).into_owned();
        if name.len() > Self::LEN_MAX {
            return Err(Error::invalid(format!("a reference name has at most {} bytes", Self::LEN_MAX)));
        }
        gix_validate::reference::name(BStr::new(name))
            .map_err(|error| Error::invalid(format!("reference name {:?} is not valid: {error}", shown())))?;
        if !name.starts_with(b"refs/") {
            return Err(Error::invalid(format!("reference name {:?} is not under refs/", shown())));
        }
        Ok(Self(name.into()))
    }

    /// The branch of this short name.
    ///
    /// # Errors
    /// As [`RefName::new`]; also `HEAD` and names that begin with `-`, which git refuses as branches.
    pub fn branch(short: &str) -> Result<Self> {
        if short == "HEAD" || short.starts_with('-') {
            return Err(Error::invalid(format!("branch name {short:?} is not valid")));
        }
        Self::new(format!("refs/heads/{short}"))
    }

    /// The tag of this short name.
    ///
    /// # Errors
    /// As [`RefName::new`]; also names that begin with `-`.
    pub fn tag(short: &str) -> Result<Self> {
        if short.starts_with('-') {
            return Err(Error::invalid(format!("tag name {short:?} is not valid")));
        }
        Self::new(format!("refs/tags/{short}"))
    }

    /// The reality of this short name.
    ///
    /// # Errors
    /// As [`RefName::new`]; also names that begin with `-`.
    pub fn reality(short: &str) -> Result<Self> {
        if short.starts_with('-') {
            return Err(Error::invalid(format!("reality name {short:?} is not valid")));
        }
        Self::new(format!("{REALITIES}{short}"))
    }

    /// The full name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The full name, with what is not UTF-8 replaced.
    pub fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The name as people say it: without `refs/heads/`, `refs/tags/`, `refs/remotes/`,
    /// `refs/realities/`, or else `refs/`.
    pub fn short(&self) -> Cow<'_, str> {
        let prefixes: [&[u8]; 5] = [b"refs/heads/", b"refs/tags/", b"refs/remotes/", REALITIES.as_bytes(), b"refs/"];
        let short = prefixes.iter().find_map(|prefix| self.0.strip_prefix(*prefix));
        String::from_utf8_lossy(short.unwrap_or(&self.0))
    }

    /// Whether the reference is a reality.
    pub fn is_reality(&self) -> bool {
        self.0.starts_with(REALITIES.as_bytes())
    }

    /// Whether the reference is a branch.
    pub fn is_branch(&self) -> bool {
        self.0.starts_with(b"refs/heads/")
    }

    /// Whether the reference is under `refs/tags/`.
    pub fn is_tag(&self) -> bool {
        self.0.starts_with(b"refs/tags/")
    }

    /// A name from a store, which held only valid ones; what is damaged is caught by checksums before.
    pub(crate) fn from_stored(name: &[u8]) -> Self {
        Self(name.into())
    }

    /// A key for range queries that need not be a valid name.
    pub(crate) fn probe(name: &[u8]) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_str())
    }
}

impl fmt::Debug for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_str(), f)
    }
}
