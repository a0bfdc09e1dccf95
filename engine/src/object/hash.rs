//! Hashing, of SHA-1 with collision detection: the one module that knows the hash's implementation.

use super::{Kind, ObjectFormat, Oid};
use crate::{Error, Result};

/// Computes the id of an object that arrives in pieces.
pub struct ObjectHasher(gix_hash::Hasher);

impl ObjectHasher {
    /// Starts the id of an object of `kind` with `size` bytes.
    pub fn new(format: ObjectFormat, kind: Kind, size: u64) -> Self {
        let mut hasher = gix_hash::hasher(format.kind());
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

impl PackHasher {
    /// Starts the checksum of a pack of objects of this format.
    pub fn new(format: ObjectFormat) -> Self {
        Self(gix_hash::hasher(format.kind()))
    }

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
pub fn hash_object(format: ObjectFormat, kind: Kind, data: &[u8]) -> Result<Oid> {
    let mut hasher = ObjectHasher::new(format, kind, data.len() as u64);
    hasher.update(data);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// The beginning of both PDF files of <https://shattered.io>, of the first of them the blocks that collide.
    const SHATTERED: &str = "\
        255044462d312e330a25e2e3cfd30a0a0a312030206f626a0a3c3c2f57696474682032203020522f48656967687420332030\
        20522f547970652034203020522f537562747970652035203020522f46696c7465722036203020522f436f6c6f7253706163\
        652037203020522f4c656e6774682038203020522f42697473506572436f6d706f6e656e7420383e3e0a73747265616d0aff\
        d8fffe00245348412d3120697320646561642121212121852fec092339759c39b1a1c63c4c97e1fffe017f46dc93a6b67e01\
        3b029aaa1db2560b45ca67d688c7f84b8c4c791fe02b3df614f86db1690901c56b45c1530afedfb76038e972722fe7ad728f\
        0e4904e046c230570fe9d41398abe12ef5bc942be33542a4802d98b5d70f2a332ec37fac3514e74ddc0f2cc1a874cd0c7830\
        5a21566461309789606bd0bf3f98cda8044629a1";

    #[test]
    fn marks_of_a_collision_are_refused() {
        let digits = SHATTERED.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let mut bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let hash = |bytes: &[u8], at_once: usize| {
            let mut hasher = PackHasher::new(ObjectFormat::Sha1);
            bytes.chunks(at_once).for_each(|piece| hasher.update(piece));
            hasher.finish()
        };
        for at_once in [1, 64, 320] {
            assert_eq!(*hash(&bytes, at_once).unwrap_err().kind(), ErrorKind::Invalid);
            assert!(hash(&bytes[..256], at_once).is_ok(), "half of them is no collision");
        }
        assert_eq!(*hash(&[&bytes[..], b"whatever follows"].concat(), 320).unwrap_err().kind(), ErrorKind::Invalid);
        // What stands in front makes others of them.
        assert!(hash_object(ObjectFormat::Sha1, Kind::Blob, &bytes).is_ok());
        bytes[300] ^= 1;
        assert!(hash(&bytes, 320).is_ok());
    }
}
