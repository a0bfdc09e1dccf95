//! zstd frames. Each thread makes its contexts and its scratch buffers once: making them anew costs more than a small
//! block's compression, and leaves holes in the memory between what is kept.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use crate::{Error, Result};

/// Scratch buffers that have grown beyond this are given back after use, in bytes.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static COMPRESSION: RefCell<Compression> = RefCell::default();
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Compression {
    compressor: Option<Compressor<'static>>,
    payload: Vec<u8>,
    frame: Vec<u8>,
}

/// Compresses what `fill` writes; gives its length and the frame to `take`.
///
/// # Errors
/// [`crate::ErrorKind::TooLarge`] if zstd fails.
pub(super) fn compress<T>(
    level: i32,
    fill: impl FnOnce(&mut Vec<u8>),
    take: impl FnOnce(usize, &[u8]) -> Result<T>,
) -> Result<T> {
    let failed = |error| Error::too_large("a block could not be compressed").with_source(error);
    COMPRESSION.with_borrow_mut(|Compression { compressor, payload, frame }| {
        let compressor = match compressor {
            Some(compressor) => {
                compressor.set_compression_level(level).map_err(failed)?;
                compressor
            }
            none => none.insert(Compressor::new(level).map_err(failed)?),
        };
        payload.clear();
        fill(payload);
        frame.clear();
        frame.reserve(compress_bound(payload.len()));
        compressor.compress_to_buffer(payload, frame).map_err(failed)?;
        let taken = take(payload.len(), frame);
        for buffer in [payload, frame] {
            if buffer.capacity() > SCRATCH_BYTES_MAX {
                *buffer = Vec::new();
            }
        }
        taken
    })
}

/// The `len` bytes, or fewer, that a frame holds.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if it holds more, or is no frame.
pub(super) fn decompress(frame: &[u8], len: usize) -> Result<Vec<u8>> {
    let failed = |error| Error::corrupt("a block does not decompress").with_source(error);
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        let decompressor = match decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(failed)?),
        };
        decompressor.decompress(frame, len).map_err(failed)
    })
}
