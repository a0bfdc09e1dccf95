//! The index of a segment, as pages: its objects by id, with where each is. A page is for many objects what id rows are for
//! one each, in two thirds of the bytes. `engine/FORMAT.md` has the byte layout.

use super::frame;
use crate::{
    Error, Result,
    backend::key::{Reader, check_version, put_varint, seal, unseal},
    object::{Kind, ObjectFormat, Oid},
};

/// The version of pages and heads, 1 with ids of SHA-1, 2 with those of SHA-256.
const VERSION: u8 = 2;
/// Objects of a page at most.
pub(crate) const PAGE_OBJECTS: usize = 512;
/// zstd's level of what stands beside the ids.
const LEVEL: i32 = 9;
/// Bytes of the columns of a page at most, when decompressed: four numbers an object.
const COLUMNS_BYTES_MAX: usize = PAGE_OBJECTS * 4 * 10;
/// In a size's number, below the size: the kind less one in two bits, and whether a version follows in the last column.
const KIND_BITS: u32 = 2;
const HAS_SINCE: u64 = 1 << KIND_BITS;
const FLAG_BITS: u32 = KIND_BITS + 1;

/// What an index tells of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) oid: Oid,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) block: u32,
    pub(crate) slot: u16,
    /// The version that brought it; 0 where that matters to nobody.
    pub(crate) since: u64,
}

/// The beginning of an index: which page an id is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexHead {
    /// Objects of all pages.
    pub(crate) len: u64,
    /// The first id of each page.
    pub(crate) firsts: Box<[Oid]>,
}

/// A page of at most [`PAGE_OBJECTS`] objects, sorted by id.
///
/// # Errors
/// [`crate::ErrorKind::TooLarge`] if there are more, or a size is 2^61 or more, or zstd fails.
pub(crate) fn encode_page(entries: &[IndexEntry]) -> Result<Vec<u8>> {
    if entries.len() > PAGE_OBJECTS || entries.iter().any(|entry| entry.size >> (64 - FLAG_BITS) != 0) {
        return Err(Error::too_large("a page of an index"));
    }
    let mut out = vec![version_for(entries.first().map(|entry| &entry.oid))];
    put_varint(&mut out, entries.len() as u64);
    let prefix = shared_prefix(entries);
    out.push(prefix.len() as u8);
    out.extend_from_slice(prefix);
    for entry in entries {
        out.extend_from_slice(&entry.oid.as_bytes()[prefix.len()..]);
    }
    let fill = |columns: &mut Vec<u8>| {
        for entry in entries {
            let since = if entry.since == 0 { 0 } else { HAS_SINCE };
            put_varint(columns, entry.size << FLAG_BITS | since | (entry.kind as u64 - 1));
        }
        entries.iter().for_each(|entry| put_varint(columns, u64::from(entry.block)));
        entries.iter().for_each(|entry| put_varint(columns, u64::from(entry.slot)));
        let sinces = entries.iter().map(|entry| entry.since).filter(|since| *since != 0);
        sinces.for_each(|since| put_varint(columns, since));
    };
    frame::compress(LEVEL, fill, |len, frame| {
        put_varint(&mut out, len as u64);
        out.extend_from_slice(frame);
        Ok(())
    })?;
    seal(&mut out);
    Ok(out)
}

/// The version of what has ids such as this.
fn version_for(oid: Option<&Oid>) -> u8 {
    match oid.map(Oid::format).unwrap_or_default() {
        ObjectFormat::Sha1 => 1,
        ObjectFormat::Sha256 => 2,
    }
}

/// The ids in a page or a head of this version.
fn format_of(version: u8) -> ObjectFormat {
    if version == 1 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 }
}

/// The first bytes that all ids have; of sorted ones, those that the first and the last have.
fn shared_prefix(entries: &[IndexEntry]) -> &[u8] {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return &[] };
    let (first, last) = (first.oid.as_bytes(), last.oid.as_bytes());
    let len = first.iter().zip(last).take_while(|(first, last)| first == last).count();
    &first[..len]
}

/// The objects of a page, sorted by id, none twice.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if it is none.
pub(crate) fn decode_page(page: &[u8]) -> Result<Vec<IndexEntry>> {
    let mut reader = Reader::new(unseal(page, "a page of an index")?);
    let id_len = format_of(check_version(&mut reader, VERSION, "a page of an index")?).len();
    let count = reader.usize()?;
    let prefix_len = usize::from(reader.byte()?);
    if count > PAGE_OBJECTS || prefix_len > id_len {
        return Err(Error::corrupt("a page of an index has too many objects, or too long a prefix"));
    }
    let mut id = [0; Oid::LEN_MAX];
    let id = &mut id[..id_len];
    let (prefix, suffix) = id.split_at_mut(prefix_len);
    prefix.copy_from_slice(reader.take(prefix_len)?);
    let suffixes = reader.take(count * suffix.len())?;
    let len = reader.usize()?;
    if len > COLUMNS_BYTES_MAX {
        return Err(Error::corrupt("a page of an index tells too much"));
    }
    let columns = frame::decompress(reader.take(reader.len())?, len)?;
    if columns.len() != len {
        return Err(Error::corrupt("a page of an index tells less than it says"));
    }
    let mut columns = Reader::new(&columns);
    let mut entries = Vec::with_capacity(count);
    for at in 0..count {
        let suffix_len = id_len - prefix_len;
        id[prefix_len..].copy_from_slice(&suffixes[at * suffix_len..(at + 1) * suffix_len]);
        let size = columns.varint()?;
        let kind = Kind::from_number((size & ((1 << KIND_BITS) - 1)) as u8 + 1);
        entries.push(IndexEntry {
            oid: Oid::from_bytes(id)?,
            kind: kind.ok_or_else(|| Error::corrupt("a page of an index has no known kind"))?,
            size: size >> FLAG_BITS,
            block: 0,
            slot: 0,
            since: u64::from(size & HAS_SINCE != 0),
        });
    }
    for entry in &mut entries {
        entry.block = columns.varint_u32()?;
    }
    for entry in &mut entries {
        let slot = u16::try_from(columns.varint()?);
        entry.slot = slot.map_err(|_| Error::corrupt("a slot in a page of an index is out of range"))?;
    }
    for entry in entries.iter_mut().filter(|entry| entry.since != 0) {
        entry.since = columns.varint()?;
    }
    if !columns.is_empty() || !entries.is_sorted_by(|one, next| one.oid < next.oid) {
        return Err(Error::corrupt("a page of an index is not in order"));
    }
    Ok(entries)
}

impl IndexHead {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![version_for(self.firsts.first())];
        put_varint(&mut out, self.len);
        put_varint(&mut out, self.firsts.len() as u64);
        self.firsts.iter().for_each(|first| out.extend_from_slice(first.as_bytes()));
        seal(&mut out);
        out
    }

    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if it is none.
    pub(crate) fn decode(head: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(unseal(head, "the head of an index")?);
        let format = format_of(check_version(&mut reader, VERSION, "the head of an index")?);
        let len = reader.varint()?;
        let pages = reader.usize()?;
        if reader.len() != pages.saturating_mul(format.len()) {
            return Err(Error::corrupt("the head of an index has another length than it says"));
        }
        let firsts = (0..pages).map(|_| reader.oid(format)).collect::<Result<Box<[Oid]>>>()?;
        if !firsts.is_sorted_by(|one, next| one < next) {
            return Err(Error::corrupt("the pages of an index are not in order"));
        }
        Ok(Self { len, firsts })
    }

    /// The page that an id is in, if it is in any.
    pub(crate) fn page_of(&self, oid: &Oid) -> Option<usize> {
        self.firsts.partition_point(|first| first <= oid).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<IndexEntry>> {
        let kind = prop_oneof![Just(Kind::Commit), Just(Kind::Tree), Just(Kind::Blob), Just(Kind::Tag)];
        let size = prop_oneof![0_u64..3000, 0_u64..1 << 61];
        let since = prop_oneof![3 => Just(0_u64), 1 => any::<u64>()];
        // Of few bytes, so that prefixes are shared.
        let oid = (0_u8..3, any::<[u8; 2]>());
        let entry = (oid, kind, size, any::<u32>(), any::<u16>(), since);
        let format = prop::sample::select(&ObjectFormat::ALL[..]);
        (format, prop::collection::vec(entry, 0..60)).prop_map(|(format, entries)| {
            let entry = |((first, rest), kind, size, block, slot, since): ((u8, [u8; 2]), _, _, _, _, _)| {
                let id = [&vec![first; format.len() - 2][..], &rest].concat();
                IndexEntry { oid: Oid::from_bytes(&id).unwrap(), kind, size, block, slot, since }
            };
            let mut entries: Vec<IndexEntry> = entries.into_iter().map(entry).collect();
            entries.sort_unstable_by_key(|entry| entry.oid);
            entries.dedup_by_key(|entry| entry.oid);
            entries
        })
    }

    proptest! {
        #[test]
        fn pages_come_back_as_they_were(entries in entries()) {
            let page = encode_page(&entries).unwrap();
            prop_assert_eq!(decode_page(&page).unwrap(), entries);
        }

        #[test]
        fn damaged_pages_are_errors(entries in entries(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let page = encode_page(&entries).unwrap();
            prop_assert!((0..page.len()).all(|end| decode_page(&page[..end]).is_err()));
            let mut damaged = page.clone();
            damaged[at.index(page.len())] ^= 1_u8 << bit;
            prop_assert!(decode_page(&damaged).is_err());
        }
    }

    #[test]
    fn pages_out_of_order_or_too_full_are_refused() {
        let entry = |number: u16| {
            let mut id = [7; 20];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let oid = Oid::from_bytes(&id).unwrap();
            IndexEntry { oid, kind: Kind::Blob, size: 1, block: 0, slot: number, since: 0 }
        };
        let mut page: Vec<IndexEntry> = (0..PAGE_OBJECTS as u16).map(entry).collect();
        assert_eq!(decode_page(&encode_page(&page).unwrap()).unwrap(), page);
        page.swap(3, 4);
        assert!(decode_page(&encode_page(&page).unwrap()).is_err());
        page.swap(3, 4);
        page[4] = page[3];
        assert!(decode_page(&encode_page(&page).unwrap()).is_err(), "one twice");
        page.push(entry(1 << 12));
        assert!(encode_page(&page).is_err());
        page.truncate(1);
        page[0].size = 1 << 61;
        assert!(encode_page(&page).is_err());
    }

    #[test]
    fn a_head_tells_the_page_of_an_id() {
        ObjectFormat::ALL.into_iter().for_each(check_head);
    }

    fn check_head(format: ObjectFormat) {
        let oid = |byte: u8| Oid::from_bytes(&vec![byte; format.len()]).unwrap();
        let head = IndexHead { len: 700, firsts: [oid(10), oid(20)].into() };
        let encoded = head.encode();
        assert_eq!(IndexHead::decode(&encoded).unwrap(), head);
        assert!((0..encoded.len()).all(|end| IndexHead::decode(&encoded[..end]).is_err()));
        let pages = [9, 10, 11, 19, 20, 255].map(|byte| head.page_of(&oid(byte)));
        assert_eq!(pages, [None, Some(0), Some(0), Some(0), Some(1), Some(1)]);
        let backwards = IndexHead { len: 700, firsts: [oid(20), oid(10)].into() };
        assert!(IndexHead::decode(&backwards.encode()).is_err());
    }
}
