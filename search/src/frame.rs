//! Frames: how files of the index that only grow are written, one piece at a time, each with its length and checksum.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
};

/// The length and the checksum in front of a payload, in bytes.
pub(crate) const HEAD_BYTES: usize = 12;

/// Appends a frame, which is synced when this returns; how many bytes it takes.
pub(crate) fn append(file: &mut File, payload: &[u8]) -> io::Result<u64> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
    frame.extend((payload.len() as u64).to_le_bytes());
    frame.extend(crc32c::crc32c(payload).to_le_bytes());
    frame.extend(payload);
    file.write_all(&frame)?;
    file.sync_data()?;
    Ok(frame.len() as u64)
}

/// The next frame's payload, or `None` if it is not whole; `rest_bytes` are left of the file.
pub(crate) fn read(file: &mut File, rest_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    if rest_bytes < HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head)?;
    let (Some(bytes), Some(sum)) = (head.first_chunk::<8>(), head.last_chunk::<4>()) else { return Ok(None) };
    let (bytes, sum) = (u64::from_le_bytes(*bytes), u32::from_le_bytes(*sum));
    if bytes > rest_bytes - HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut payload = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact(&mut payload)?;
    Ok((crc32c::crc32c(&payload) == sum).then_some(payload))
}
