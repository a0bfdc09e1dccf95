//! Git's copy/insert instructions (Documentation/gitformat-pack.adoc, "Deltified representation").

use crate::{Error, Result};

/// Reads the header's two numbers: the base's length and the result's.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the header ends early or a number has more than 64 bits.
pub fn delta_sizes(delta: &[u8]) -> Result<(u64, u64)> {
    let mut rest = delta;
    let base = size(&mut rest)?;
    Ok((base, size(&mut rest)?))
}

fn size(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first().ok_or_else(|| Error::corrupt("delta header ends early"))?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::corrupt("delta header has a number that is too long"))
}

/// Applies a delta of our own making or checking to its base.
///
/// # Errors
/// As [`apply_delta_limited`], without a limit.
pub fn apply_delta(base: &[u8], delta: &[u8]) -> Result<Vec<u8>> {
    apply_delta_limited(base, delta, u64::MAX)
}

/// Applies a delta from outside: at most `limit_bytes` come out, checked before memory is taken.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the base has another length than the delta says, an instruction reaches outside
/// of base or delta, or the result has another length than announced. [`crate::ErrorKind::TooLarge`] over the limit.
pub fn apply_delta_limited(base: &[u8], delta: &[u8], limit_bytes: u64) -> Result<Vec<u8>> {
    let mut rest = delta;
    let base_len = size(&mut rest)?;
    if base_len != base.len() as u64 {
        return Err(Error::corrupt(format!("delta is for a base of {base_len} bytes, not {}", base.len())));
    }
    let out_len = size(&mut rest)?;
    if out_len > limit_bytes {
        return Err(Error::too_large(format!("delta makes an object of {out_len} bytes; the limit is {limit_bytes}")));
    }
    let out_len = usize::try_from(out_len).map_err(|_| Error::too_large("delta makes an object beyond memory"))?;
    // A lying header must not reserve what its instructions cannot fill: a copy makes at most 16 MiB from one byte.
    let fillable = rest.len().saturating_mul(0x00ff_ffff);
    let mut out = Vec::with_capacity(out_len.min(fillable));
    while let Some((&op, after)) = rest.split_first() {
        rest = after;
        let piece = if op & 0x80 != 0 {
            copy_range(op, &mut rest, base)?
        } else if op != 0 {
            let len = usize::from(op);
            if len > rest.len() {
                return Err(Error::corrupt("delta inserts more than it carries"));
            }
            let (inserted, after) = rest.split_at(len);
            rest = after;
            inserted
        } else {
            return Err(Error::corrupt("delta has the reserved instruction 0"));
        };
        if piece.len() > out_len - out.len() {
            return Err(Error::corrupt("delta makes more than it announces"));
        }
        out.extend_from_slice(piece);
    }
    if out.len() != out_len {
        return Err(Error::corrupt(format!("delta makes {} bytes but announces {out_len}", out.len())));
    }
    Ok(out)
}

/// The piece of the base that a copy instruction names.
fn copy_range<'a>(op: u8, rest: &mut &[u8], base: &'a [u8]) -> Result<&'a [u8]> {
    let mut operand = |bits: std::ops::Range<u8>| -> Result<usize> {
        let mut value = 0usize;
        for (at, bit) in bits.enumerate() {
            if op & (1 << bit) != 0 {
                let (byte, after) = rest.split_first().ok_or_else(|| Error::corrupt("delta copy ends early"))?;
                *rest = after;
                value |= usize::from(*byte) << (8 * at);
            }
        }
        Ok(value)
    };
    let offset = operand(0..4)?;
    let len = match operand(4..7)? {
        0 => 0x10000,
        len => len,
    };
    base.get(offset..offset + len).ok_or_else(|| Error::corrupt("delta copies from outside of its base"))
}
