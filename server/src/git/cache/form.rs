//! What shallow and partial clones leave out of what their tips reach, as a key.

use govc_engine::{Filter, Kind, ObjectFormat, Oid};

/// What is left out; by default nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Form {
    /// Commits whose parents are left out. Sorted.
    shallow: Vec<Oid>,
    /// As [`Filter::blob_bytes`].
    blob_bytes: Option<u64>,
    /// As [`Filter::depth`].
    depth: Option<u64>,
    /// As [`Filter::kinds`], sorted.
    kinds: Vec<Kind>,
}

impl Form {
    /// `None` for filters by path, which have no key.
    pub(crate) fn of(shallow: &[Oid], filter: Option<&Filter>) -> Option<Self> {
        let mut form = Self { shallow: shallow.to_vec(), ..Self::default() };
        if let Some(filter) = filter {
            if !filter.paths.is_empty() {
                return None;
            }
            form.blob_bytes = filter.blob_bytes;
            form.depth = filter.depth;
            form.kinds.clone_from(&filter.kinds);
        }
        form.shallow.sort_unstable();
        form.shallow.dedup();
        form.kinds.sort_unstable();
        form.kinds.dedup();
        Some(form)
    }

    /// Whether nothing is left out.
    pub(crate) fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// Three lists, each behind the number of its bytes: the commits; blob size and depth, a byte before each that is
    /// there; the kinds.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let commits: Vec<u8> = self.shallow.iter().flat_map(|oid| oid.as_bytes().to_vec()).collect();
        let numbers = [(b'b', self.blob_bytes), (b'd', self.depth)].into_iter();
        let numbers = numbers.filter_map(|(name, number)| Some((name, number?)));
        let numbers: Vec<u8> =
            numbers.flat_map(|(name, number)| [vec![name], number.to_be_bytes().to_vec()].concat()).collect();
        let kinds: Vec<u8> = self.kinds.iter().map(|kind| *kind as u8).collect();
        for list in [commits, numbers, kinds] {
            out.extend_from_slice(&(list.len() as u64).to_be_bytes());
            out.extend_from_slice(&list);
        }
    }

    /// Reads what [`Form::write`] wrote of commits of the `format`, and gives the rest.
    pub(super) fn read(format: ObjectFormat, bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (commits, bytes) = list(bytes)?;
        let (mut numbers, bytes) = list(bytes)?;
        let (kinds, bytes) = list(bytes)?;
        let commits = commits.chunks(format.len()).map(|commit| format.oid_from_bytes(commit).ok());
        let shallow = commits.collect::<Option<Vec<_>>>()?;
        let mut form = Self { shallow, ..Self::default() };
        while let Some((name, rest)) = numbers.split_first() {
            let (number, rest) = rest.split_first_chunk()?;
            let number = Some(u64::from_be_bytes(*number));
            match name {
                b'b' => form.blob_bytes = number,
                b'd' => form.depth = number,
                _ => return None,
            }
            numbers = rest;
        }
        let kind_of =
            |byte: &u8| [Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag].into_iter().find(|kind| *kind as u8 == *byte);
        form.kinds = kinds.iter().map(kind_of).collect::<Option<Vec<_>>>()?;
        Some((form, bytes))
    }
}

/// The bytes of a list, and what follows.
fn list(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_they_were_written() {
        for format in ObjectFormat::ALL {
            check_round_trip(format);
        }
        assert!(Form::read(ObjectFormat::Sha1, &[0, 0, 0, 0, 0, 0, 0, 1, 7]).is_none());
    }

    fn check_round_trip(format: ObjectFormat) {
        let oids = [b'1', b'2'].map(|digit| format.oid_from_hex(&[digit].repeat(format.hex_len())).unwrap());
        let filters = [
            None,
            Some(Filter::default()),
            Some(Filter { blob_bytes: Some(0), ..Filter::default() }),
            Some(Filter { depth: Some(7), ..Filter::default() }),
            Some(Filter { blob_bytes: Some(9), depth: Some(0), kinds: vec![Kind::Tag, Kind::Blob], paths: Vec::new() }),
        ];
        for shallow in [&oids[..0], &oids[..1], &oids[..]] {
            for filter in &filters {
                let form = Form::of(shallow, filter.as_ref()).unwrap();
                let mut bytes = Vec::new();
                form.write(&mut bytes);
                bytes.extend_from_slice(b"rest");
                assert_eq!(Form::read(format, &bytes), Some((form, &b"rest"[..])));
                for cut in 0..bytes.len() - 4 {
                    assert_eq!(Form::read(format, &bytes[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn order_makes_no_other_form() {
        let oids = [b'1', b'2'].map(|digit| Oid::from_hex(&[digit; 40]).unwrap());
        let [one, two] = oids;
        assert_eq!(Form::of(&[one, two], None), Form::of(&[two, one, two], None));
        assert_ne!(Form::of(&[one], None), Form::of(&[two], None));
        assert!(Form::of(&[], Some(&Filter::default())).unwrap().is_whole());
        assert!(!Form::of(&[one], None).unwrap().is_whole());
        let blobless = Filter { blob_bytes: Some(0), ..Filter::default() };
        assert!(!Form::of(&[], Some(&blobless)).unwrap().is_whole());
    }
}
