//! Hashing, with SHA-1's collision detection: the one module that knows the hash's implementation.

use super::{Kind, Oid};
use crate::{Error, Result};

/// Computes the id of an object that arrives in pieces.
pub struct ObjectHasher(gix_hash::Hasher);

impl ObjectHasher {
    /// Starts the id of an object of `kind` with `size` bytes.
    pub fn new(kind: Kind, size: u64) -> Self {
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        let mut header = [0u8; 32];
        let mut rest = &mut header[..];
        use std::io::Write as _;
        write!(rest, "{kind} {size}\0").expect("a kind and a number fit 32 bytes");
        let left = rest.len();
        hasher.update(&header[..32 - left]);
        Self(hasher)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The id.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the bytes carry the marks of a SHA-1 collision attack.
    pub fn finish(self) -> Result<Oid> {
        self.0.try_finalize().map(Oid::from).map_err(|error| Error::invalid(error.to_string()))
    }
}

/// Computes the trailing checksum of a pack.
pub struct PackHasher(gix_hash::Hasher);

impl Default for PackHasher {
    fn default() -> Self {
        Self(gix_hash::hasher(gix_hash::Kind::Sha1))
    }
}

impl PackHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the bytes carry the marks of a SHA-1 collision attack.
    pub fn finish(self) -> Result<Oid> {
        self.0.try_finalize().map(Oid::from).map_err(|error| Error::invalid(error.to_string()))
    }
}

/// The id of an object held whole.
///
/// # Errors
/// As [`ObjectHasher::finish`].
pub fn hash_object(kind: Kind, data: &[u8]) -> Result<Oid> {
    let mut hasher = ObjectHasher::new(kind, data.len() as u64);
    hasher.update(data);
    hasher.finish()
}
