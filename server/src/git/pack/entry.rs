//! The header of a pack's entry.

use govc_engine::{Error, Kind, ObjectFormat, Oid, Result};

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// An object.
    Whole(Kind),
    /// A delta against the entry that begins this many bytes before.
    OfsDelta(u64),
    /// A delta against an object, in the pack or not.
    RefDelta(Oid),
}

/// The longest header: a size of 64 bits and an id.
pub(super) const HEADER_BYTES_MAX: usize = 10 + Oid::LEN_MAX;

/// Reads a header in a pack of the `format`; gives what the entry holds, the inflated size, and the header's length.
///
/// `None` if `bytes` end before the header does.
///
/// # Errors
/// [`govc_engine::ErrorKind::Invalid`] for an unknown type or a number that is too long.
pub(super) fn read_header(format: ObjectFormat, bytes: &[u8]) -> Result<Option<(EntryKind, u64, usize)>> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let mut size = u64::from(first & 0xf);
    let mut at = 1;
    let mut shift = 4;
    let mut more = first & 0x80 != 0;
    while more {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        if shift > 57 {
            return Err(Error::invalid("pack: the size of an object is too long"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        at += 1;
        more = byte & 0x80 != 0;
    }
    let kind = match first >> 4 & 7 {
        6 => {
            let mut distance = 0u64;
            let mut first_byte = true;
            loop {
                let Some(&byte) = bytes.get(at) else { return Ok(None) };
                if distance >> 56 != 0 {
                    return Err(Error::invalid("pack: the distance to a delta's base is too long"));
                }
                if !first_byte {
                    distance += 1;
                }
                distance = distance << 7 | u64::from(byte & 0x7f);
                first_byte = false;
                at += 1;
                if byte & 0x80 == 0 {
                    break EntryKind::OfsDelta(distance);
                }
            }
        }
        7 => {
            let Some(base) = bytes.get(at..at + format.len()) else { return Ok(None) };
            at += format.len();
            EntryKind::RefDelta(Oid::from_bytes(base)?)
        }
        number => match Kind::from_number(number) {
            Some(kind) => EntryKind::Whole(kind),
            None => return Err(Error::invalid(format!("pack: unknown object type {number}"))),
        },
    };
    Ok(Some((kind, size, at)))
}

/// Appends a header.
pub(crate) fn write_header(out: &mut Vec<u8>, kind: EntryKind, size: u64) {
    let number = match kind {
        EntryKind::Whole(kind) => kind as u8,
        EntryKind::OfsDelta(_) => 6,
        EntryKind::RefDelta(_) => 7,
    };
    let mut rest = size >> 4;
    out.push(number << 4 | (size & 0xf) as u8 | if rest > 0 { 0x80 } else { 0 });
    while rest > 0 {
        out.push((rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 });
        rest >>= 7;
    }
    match kind {
        EntryKind::Whole(_) => {}
        EntryKind::RefDelta(base) => out.extend_from_slice(base.as_bytes()),
        EntryKind::OfsDelta(mut distance) => {
            let mut bytes = [0u8; 10];
            let mut at = bytes.len() - 1;
            bytes[at] = (distance & 0x7f) as u8;
            distance >>= 7;
            while distance > 0 {
                distance -= 1;
                at -= 1;
                bytes[at] = (distance & 0x7f) as u8 | 0x80;
                distance >>= 7;
            }
            out.extend_from_slice(&bytes[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_round_trip_and_every_cut_asks_for_more() {
        let kinds = [
            EntryKind::Whole(Kind::Blob),
            EntryKind::OfsDelta(1),
            EntryKind::OfsDelta(127),
            EntryKind::OfsDelta(128),
            EntryKind::OfsDelta(16_511),
            EntryKind::OfsDelta(16_512),
            EntryKind::OfsDelta(1 << 40),
        ];
        let based = ObjectFormat::ALL.map(|format| (format, EntryKind::RefDelta(format.empty_tree())));
        for (format, kind) in based.into_iter().chain(kinds.map(|kind| (ObjectFormat::Sha1, kind))) {
            for size in [0, 15, 16, 2047, 2048, 1 << 40] {
                let mut bytes = Vec::new();
                write_header(&mut bytes, kind, size);
                let read = read_header(format, &bytes).expect("a valid header");
                assert_eq!(read, Some((kind, size, bytes.len())), "{kind:?} {size}");
                for cut in 0..bytes.len() {
                    let read = read_header(format, &bytes[..cut]).expect("only short");
                    assert_eq!(read, None, "{kind:?} {size} cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn unknown_types_and_endless_numbers_are_refused() {
        assert!(read_header(ObjectFormat::Sha1, &[0x00]).is_err());
        assert!(read_header(ObjectFormat::Sha1, &[0x50]).is_err());
        assert!(read_header(ObjectFormat::Sha1, &[0xff; 40]).is_err());
        assert!(read_header(ObjectFormat::Sha1, &[&[0x60][..], &[0xff; 40]].concat()).is_err());
    }
}
