//! Counts and checksums of rows.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// How many rows, and the bytes of their keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }
}

/// A checksum over rows in key order: XXH3 of 128 bits. It finds damage, not malice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(u128);

impl fmt::Display for Digest {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Rows on their way into a count and a digest.
#[derive(Default)]
pub(crate) struct Tally {
    hash: Xxh3,
    pub(crate) count: Count,
}

impl Tally {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count.add(key, value);
        for part in [key, value] {
            self.hash.update(&(part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.hash.digest128())
    }
}

/// The checksum of one value.
pub(crate) fn value_hash(value: &[u8]) -> [u8; 16] {
    xxh3_128(value).to_le_bytes()
}
