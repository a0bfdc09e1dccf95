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

/// Bytes of the pieces that are looked for in a base.
const PIECE: usize = 16;
/// Longest copy of one instruction, as git writes them.
const COPY_MAX: usize = 0x10000;
/// Places of equal pieces that are compared before the longest found is taken.
const PLACES_MAX: usize = 16;
/// A match that is taken without looking for a better one.
const LONG: usize = 64;
/// No place.
const NONE: u32 = u32::MAX;

/// A base that deltas are made against: where each of its 16-byte pieces is.
pub struct DeltaIndex<'a> {
    base: &'a [u8],
    /// The first piece of each bucket, and for each piece the next of its bucket.
    heads: Vec<u32>,
    next: Vec<u32>,
    shift: u32,
}

impl<'a> DeltaIndex<'a> {
    /// Indexes a base; takes about half of its size in memory. What lies beyond 4 GiB is not used.
    pub fn new(base: &'a [u8]) -> Self {
        let pieces = (base.len() / PIECE).min(NONE as usize / PIECE);
        let bits = pieces.max(2).next_power_of_two().trailing_zeros();
        let mut index = Self { base, heads: vec![NONE; 1 << bits], next: vec![NONE; pieces], shift: 64 - bits };
        // From the end, so that a bucket begins with the earliest place.
        for (number, piece) in base.chunks_exact(PIECE).take(pieces).enumerate().rev() {
            let bucket = index.bucket(piece);
            let head = index.heads[bucket];
            let repeats = head == number as u32 + 1 && index.piece(head) == piece;
            // Of a run of equal pieces the first will do.
            index.next[number] = if repeats { index.next[head as usize] } else { head };
            index.heads[bucket] = number as u32;
        }
        index
    }

    fn bucket(&self, piece: &[u8]) -> usize {
        let half = |at: usize| piece[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mixed = half(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ half(8).rotate_left(32);
        (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> self.shift) as usize
    }

    fn piece(&self, number: u32) -> &[u8] {
        let at = number as usize * PIECE;
        &self.base[at..at + PIECE]
    }

    /// The delta that makes `target`; `None` if it would be longer than `len_max` bytes.
    pub fn delta(&self, target: &[u8], len_max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(len_max.min(1 << 16));
        put_size(&mut out, self.base.len());
        put_size(&mut out, target.len());
        // Bytes from here to `at` are in no match.
        let mut inserted = 0;
        let mut at = 0;
        // Where in the base the last copy ended.
        let mut copied = 0;
        while at + PIECE <= target.len() {
            if out.len() + at - inserted > len_max {
                return None;
            }
            let Some(mut found) = self.longest_match(target, at, copied + at - inserted) else {
                at += 1;
                continue;
            };
            // A short match may hide a longer one that begins a little later.
            for ahead in 1..PIECE {
                if found.1 >= LONG || at + ahead + PIECE > target.len() {
                    break;
                }
                if let Some(next) = self.longest_match(target, at + ahead, copied + at + ahead - inserted)
                    && next.1 > found.1 + ahead
                {
                    (at, found) = (at + ahead, next);
                    break;
                }
            }
            let (from, len) = found;
            let before = common_suffix(&self.base[..from], &target[inserted..at]);
            put_insert(&mut out, &target[inserted..at - before]);
            put_copy(&mut out, from - before, len + before);
            at += len;
            (inserted, copied) = (at, from + len);
        }
        put_insert(&mut out, &target[inserted..]);
        (out.len() <= len_max).then_some(out)
    }

    /// Where in the base the longest run begins that equals what `target` has from `at`, and its length; `likely` is
    /// looked at first.
    fn longest_match(&self, target: &[u8], at: usize, likely: usize) -> Option<(usize, usize)> {
        let wanted = &target[at..];
        let len = self.base.get(likely..).map_or(0, |base| common_prefix(base, wanted));
        let mut found = (len >= PIECE).then_some((likely, len));
        if len >= LONG {
            return found;
        }
        let mut number = self.heads[self.bucket(&wanted[..PIECE])];
        for _ in 0..PLACES_MAX {
            if number == NONE {
                break;
            }
            let from = number as usize * PIECE;
            let len = common_prefix(&self.base[from..], wanted);
            if len >= PIECE && found.is_none_or(|(_, longest)| len > longest) {
                found = Some((from, len));
            }
            number = self.next[number as usize];
        }
        found
    }
}

/// The delta that makes `target` from `base`; `None` if it would be longer than `len_max` bytes.
pub fn make_delta(base: &[u8], target: &[u8], len_max: usize) -> Option<Vec<u8>> {
    DeltaIndex::new(base).delta(target, len_max)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let whole = a.chunks_exact(32).zip(b.chunks_exact(32)).take_while(|(a, b)| a == b).count() * 32;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

fn put_size(out: &mut Vec<u8>, mut size: usize) {
    while size >= 0x80 {
        out.push(size as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
}

fn put_insert(out: &mut Vec<u8>, bytes: &[u8]) {
    for piece in bytes.chunks(0x7f) {
        out.push(piece.len() as u8);
        out.extend_from_slice(piece);
    }
}

fn put_copy(out: &mut Vec<u8>, from: usize, len: usize) {
    for start in (0..len).step_by(COPY_MAX) {
        let (offset, len) = (from + start, COPY_MAX.min(len - start));
        let op_at = out.len();
        out.push(0x80);
        // The greatest length is said by no byte at all.
        let operands = offset.to_le_bytes().into_iter().take(4).chain((len as u16).to_le_bytes());
        for (bit, byte) in operands.enumerate() {
            if byte != 0 {
                out[op_at] |= 1 << bit;
                out.push(byte);
            }
        }
    }
}
