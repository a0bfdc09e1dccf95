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
    let (instructions, out_len) = Instructions::begin(delta, base.len(), limit_bytes)?;
    // A lying header must not reserve what its instructions cannot fill: a copy makes at most 16 MiB from one byte.
    let fillable = instructions.rest.len().saturating_mul(0x00ff_ffff);
    let mut out = Vec::with_capacity(out_len.min(fillable));
    for instruction in instructions {
        let piece = match instruction? {
            Instruction::Copy { from, len } => base.get(from..from + len).ok_or_else(outside)?,
            Instruction::Insert(piece) => piece,
        };
        if piece.len() > out_len - out.len() {
            return Err(too_much());
        }
        out.extend_from_slice(piece);
    }
    if out.len() != out_len {
        return Err(too_little(out.len(), out_len));
    }
    Ok(out)
}

/// Pieces that what is made may consist of, here and on the way: more are not worth it, and take more memory than that.
fn pieces_max(len: usize) -> usize {
    len / 16 + 1024
}

/// Applies a chain of deltas, each to what the one before makes, the first to `base`.
///
/// Of what lies between nothing is made: where each byte of the result comes from is followed down to the base or to the
/// delta that brought it.
///
/// # Errors
/// As [`apply_delta`].
pub fn apply_deltas(base: &[u8], deltas: &[impl AsRef<[u8]>]) -> Result<Vec<u8>> {
    if let [delta] = deltas {
        return apply_delta(base, delta.as_ref());
    }
    let [below @ .., last] = deltas else { return Ok(base.to_vec()) };
    let Some((pieces, out_len)) = followed(below, last.as_ref(), base.len())? else {
        // One by one.
        let (first, later) = deltas.split_first().ok_or_else(outside)?;
        let mut data = apply_delta(base, first.as_ref())?;
        for delta in later {
            data = apply_delta(&data, delta.as_ref())?;
        }
        return Ok(data);
    };
    let mut out = Vec::with_capacity(out_len);
    for piece in pieces {
        out.extend_from_slice(match piece {
            Instruction::Copy { from, len } => base.get(from..from + len).ok_or_else(outside)?,
            Instruction::Insert(piece) => piece,
        });
    }
    Ok(out)
}

/// The pieces of what a chain makes, in terms of the base of its first delta, and their length; `None` if they are too many.
fn followed<'a>(
    below: &'a [impl AsRef<[u8]>],
    last: &'a [u8],
    base_len: usize,
) -> Result<Option<(Vec<Instruction<'a>>, usize)>> {
    let len_of = |delta: &[u8]| usize::try_from(delta_sizes(delta)?.1).map_err(|_| too_much());
    let last_base_len = below.last().map_or(Ok(base_len), |delta| len_of(delta.as_ref()))?;
    let Some((table, out_len)) = Table::read(last, last_base_len)? else { return Ok(None) };
    let mut pieces = table.instructions;
    for (at, delta) in below.iter().enumerate().rev() {
        let its_base_len = match at.checked_sub(1) {
            Some(before) => len_of(below[before].as_ref())?,
            None => base_len,
        };
        let Some((table, _)) = Table::read(delta.as_ref(), its_base_len)? else { return Ok(None) };
        let mut lower = Vec::with_capacity(pieces.len() + table.instructions.len());
        for piece in pieces {
            match piece {
                Instruction::Insert(_) => lower.push(piece),
                Instruction::Copy { from, len } => table.cut(from, len, &mut lower)?,
            }
            if lower.len() > pieces_max(out_len) {
                return Ok(None);
            }
        }
        pieces = lower;
    }
    Ok(Some((pieces, out_len)))
}

/// A delta's instructions, and where what each makes begins.
struct Table<'a> {
    instructions: Vec<Instruction<'a>>,
    starts: Vec<usize>,
}

impl<'a> Table<'a> {
    /// Reads and checks a delta for a base of `base_len` bytes; also gives the length of what it makes. `None` if it has too
    /// many instructions.
    fn read(delta: &'a [u8], base_len: usize) -> Result<Option<(Self, usize)>> {
        let (read, out_len) = Instructions::begin(delta, base_len, u64::MAX)?;
        let (mut instructions, mut starts, mut made) = (Vec::new(), Vec::new(), 0);
        for instruction in read {
            let instruction = instruction?;
            let len = match instruction {
                Instruction::Copy { from, len } if from + len > base_len => return Err(outside()),
                Instruction::Copy { len, .. } => len,
                Instruction::Insert(piece) => piece.len(),
            };
            if len > out_len - made {
                return Err(too_much());
            }
            if instructions.len() == pieces_max(out_len) {
                return Ok(None);
            }
            instructions.push(instruction);
            starts.push(made);
            made += len;
        }
        if made != out_len {
            return Err(too_little(made, out_len));
        }
        Ok(Some((Self { instructions, starts }, out_len)))
    }

    /// Adds what makes `len` bytes from `from` on, of what this delta makes.
    fn cut(&self, from: usize, len: usize, out: &mut Vec<Instruction<'a>>) -> Result<()> {
        let mut at = self.starts.partition_point(|start| *start <= from).checked_sub(1).ok_or_else(outside)?;
        let (mut from, mut left) = (from, len);
        while left > 0 {
            let (instruction, start) = self.instructions.get(at).zip(self.starts.get(at)).ok_or_else(outside)?;
            let skipped = from - start;
            let taken = match *instruction {
                Instruction::Copy { from, len } => {
                    let taken = left.min(len - skipped);
                    out.push(Instruction::Copy { from: from + skipped, len: taken });
                    taken
                }
                Instruction::Insert(piece) => {
                    let taken = left.min(piece.len() - skipped);
                    out.push(Instruction::Insert(&piece[skipped..skipped + taken]));
                    taken
                }
            };
            (from, left, at) = (from + taken, left - taken, at + 1);
        }
        Ok(())
    }
}

/// One instruction of a delta.
#[derive(Debug, Clone, Copy)]
enum Instruction<'a> {
    /// A range of the base.
    Copy { from: usize, len: usize },
    /// Bytes of the delta itself.
    Insert(&'a [u8]),
}

/// Reads instructions.
struct Instructions<'a> {
    rest: &'a [u8],
}

impl<'a> Instructions<'a> {
    /// Reads the header for a base of `base_len` bytes; also gives the length of what is made.
    fn begin(delta: &'a [u8], base_len: usize, limit_bytes: u64) -> Result<(Self, usize)> {
        let mut rest = delta;
        let wanted = size(&mut rest)?;
        if wanted != base_len as u64 {
            return Err(Error::corrupt(format!("delta is for a base of {wanted} bytes, not {base_len}")));
        }
        let out_len = size(&mut rest)?;
        if out_len > limit_bytes {
            let message = format!("delta makes an object of {out_len} bytes; the limit is {limit_bytes}");
            return Err(Error::too_large(message));
        }
        let out_len = usize::try_from(out_len).map_err(|_| Error::too_large("delta makes an object beyond memory"))?;
        Ok((Self { rest }, out_len))
    }

    fn copy(&mut self, op: u8) -> Result<Instruction<'a>> {
        let mut operand = |bits: std::ops::Range<u8>| -> Result<usize> {
            let mut value = 0usize;
            for (at, bit) in bits.enumerate() {
                if op & (1 << bit) != 0 {
                    let (byte, after) =
                        self.rest.split_first().ok_or_else(|| Error::corrupt("delta copy ends early"))?;
                    self.rest = after;
                    value |= usize::from(*byte) << (8 * at);
                }
            }
            Ok(value)
        };
        let from = operand(0..4)?;
        let len = match operand(4..7)? {
            0 => 0x10000,
            len => len,
        };
        Ok(Instruction::Copy { from, len })
    }

    fn insert(&mut self, len: usize) -> Result<Instruction<'a>> {
        let Some((inserted, after)) = self.rest.split_at_checked(len) else {
            return Err(Error::corrupt("delta inserts more than it carries"));
        };
        self.rest = after;
        Ok(Instruction::Insert(inserted))
    }
}

impl<'a> Iterator for Instructions<'a> {
    type Item = Result<Instruction<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&op, after) = self.rest.split_first()?;
        self.rest = after;
        Some(match op {
            0 => Err(Error::corrupt("delta has the reserved instruction 0")),
            op if op & 0x80 != 0 => self.copy(op),
            op => self.insert(usize::from(op)),
        })
    }
}

fn outside() -> Error {
    Error::corrupt("delta copies from outside of its base")
}

fn too_much() -> Error {
    Error::corrupt("delta makes more than it announces")
}

fn too_little(made: usize, announced: usize) -> Error {
    Error::corrupt(format!("delta makes {made} bytes but announces {announced}"))
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
pub struct DeltaIndex<B> {
    base: B,
    /// The first piece of each bucket, and for each piece the next of its bucket.
    heads: Vec<u32>,
    next: Vec<u32>,
    shift: u32,
}

impl<B: AsRef<[u8]>> DeltaIndex<B> {
    /// Indexes a base; takes about half of its size in memory. What lies beyond 4 GiB is not used.
    pub fn new(base: B) -> Self {
        let pieces = (base.as_ref().len() / PIECE).min(NONE as usize / PIECE);
        let bits = pieces.max(2).next_power_of_two().trailing_zeros();
        let mut index = Self { base, heads: vec![NONE; 1 << bits], next: vec![NONE; pieces], shift: 64 - bits };
        // From the end, so that a bucket begins with the earliest place.
        for number in (0..pieces as u32).rev() {
            let bucket = index.bucket(index.piece(number));
            let head = index.heads[bucket];
            let repeats = head == number + 1 && index.piece(head) == index.piece(number);
            // Of a run of equal pieces the first will do.
            index.next[number as usize] = if repeats { index.next[head as usize] } else { head };
            index.heads[bucket] = number;
        }
        index
    }

    /// The base.
    pub fn base(&self) -> &[u8] {
        self.base.as_ref()
    }

    /// Bytes that base and index take in memory.
    pub fn resident_bytes(&self) -> usize {
        self.base().len() + 4 * (self.heads.len() + self.next.len())
    }

    fn bucket(&self, piece: &[u8]) -> usize {
        let half = |at: usize| piece[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mixed = half(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ half(8).rotate_left(32);
        (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> self.shift) as usize
    }

    fn piece(&self, number: u32) -> &[u8] {
        let at = number as usize * PIECE;
        &self.base()[at..at + PIECE]
    }

    /// The delta that makes `target`; `None` if it would be longer than `len_max` bytes.
    pub fn delta(&self, target: &[u8], len_max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(len_max.min(1 << 16));
        put_size(&mut out, self.base().len());
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
            let before = common_suffix(&self.base()[..from], &target[inserted..at]);
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
        let len = self.base().get(likely..).map_or(0, |base| common_prefix(base, wanted));
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
            let len = common_prefix(&self.base()[from..], wanted);
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
