//! The text form of cursors: what is in them may change, so clients see digits.

use govc_engine::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Longest accepted cursor, in bytes: paths are in it.
const BYTES_MAX: usize = 64 * 1024;

/// A cursor as hexadecimal digits.
pub(crate) fn encode(cursor: &impl Serialize) -> String {
    let bytes = postcard::to_stdvec(cursor).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`encode`] made.
///
/// # Errors
/// Invalid for anything else.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T> {
    let invalid = || Error::invalid("the cursor is not one that a search has given");
    if text.len() > BYTES_MAX * 2 || !text.len().is_multiple_of(2) {
        return Err(invalid());
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    postcard::from_bytes(&bytes.ok_or_else(invalid)?).map_err(|_| invalid())
}
