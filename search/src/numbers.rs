//! Numbers by id, of which an index has one for each blob and commit: an id has the room of its own format.

use std::collections::HashMap;

use govc_engine::Oid;

/// Dense numbers that were given to ids.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    sha1: HashMap<[u8; 20], u32>,
    sha256: HashMap<[u8; 32], u32>,
}

impl Numbers {
    pub(crate) fn get(&self, oid: &Oid) -> Option<u32> {
        match oid.as_bytes().first_chunk() {
            Some(oid) => self.sha256.get(oid).copied(),
            None => self.sha1.get(oid.as_bytes()).copied(),
        }
    }

    /// Gives an id a number, in the place of one that it may have.
    pub(crate) fn insert(&mut self, oid: &Oid, number: u32) {
        let bytes = oid.as_bytes();
        match (bytes.first_chunk(), bytes.first_chunk()) {
            (Some(oid), _) => self.sha256.insert(*oid, number),
            (None, Some(oid)) => self.sha1.insert(*oid, number),
            (None, None) => None,
        };
    }

    /// Memory that they take, in bytes, about.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let sha1 = self.sha1.capacity() * (size_of::<([u8; 20], u32)>() + 1);
        (sha1 + self.sha256.capacity() * (size_of::<([u8; 32], u32)>() + 1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use govc_engine::ObjectFormat;

    use super::*;

    #[test]
    fn ids_of_either_format_have_numbers_of_their_own() {
        let mut numbers = Numbers::default();
        // The one is the beginning of the other.
        let ids = ObjectFormat::ALL.map(|format| Oid::from_bytes(&vec![7; format.len()]).expect("an id"));
        numbers.insert(&ids[0], 1);
        assert_eq!(ids.map(|oid| numbers.get(&oid)), [Some(1), None]);
        numbers.insert(&ids[1], 2);
        numbers.insert(&ids[0], 3);
        assert_eq!(ids.map(|oid| numbers.get(&oid)), [Some(3), Some(2)]);
        assert_eq!(ObjectFormat::ALL.map(|format| numbers.get(&format.null())), [None, None]);
        assert!(numbers.resident_bytes() >= 25 + 37);
    }
}
