//! Reading what is not indexed: its words are counted once a search, and not remembered beyond.

use std::{collections::HashMap, time::Instant};

use govc_engine::{Error, ErrorKind, Result, Snapshot};
use roaring::RoaringBitmap;

use super::{score::Counted, words::Tokens};
use crate::{
    deadline,
    find::{File, Reading},
    index::BlobNo,
    tokens::Words,
};

/// Text between two looks at the clock, in bytes; a longer word is looked at as a whole.
const CLOCK_BYTES: usize = 1 << 20;

/// Reads contents and counts words in them.
pub(super) struct Reader<'a> {
    reading: &'a Reading<'a>,
    tokens: &'a Tokens,
    /// When to leave the rest out: what was read is still to be ranked and shown.
    until: Option<Instant>,
    /// What was read, or could not be.
    pub(super) seen: RoaringBitmap,
    /// The texts among it.
    pub(super) counted: HashMap<BlobNo, Counted>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(reading: &'a Reading<'a>, tokens: &'a Tokens) -> Self {
        let now = Instant::now();
        // Three quarters of the time.
        let until = reading.until.map(|until| until - until.saturating_duration_since(now) / 4);
        Self { reading, tokens, until, seen: RoaringBitmap::new(), counted: HashMap::new() }
    }

    /// Reads some blobs; whether there was time for all of them. `pass` says whether one that cannot be read is passed over.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn read(
        &mut self,
        snapshot: &Snapshot,
        blobs: &RoaringBitmap,
        pass: &mut dyn FnMut(&Error) -> bool,
    ) -> Result<bool> {
        for blob in blobs {
            match self.count(snapshot, blob) {
                Ok(Some(counted)) => drop(self.counted.insert(blob, counted)),
                Ok(None) => {}
                Err(error) if *error.kind() == ErrorKind::Cancelled => return Ok(false),
                Err(error) if pass(&error) => {}
                Err(error) => return Err(error),
            }
            self.seen.insert(blob);
        }
        Ok(true)
    }

    /// Counts the words of one blob; `None` if it is binary.
    fn count(&self, snapshot: &Snapshot, blob: BlobNo) -> Result<Option<Counted>> {
        deadline::check(self.until)?;
        let mut file = File::new(self.reading, snapshot, blob);
        if file.is_binary()? {
            return Ok(None);
        }
        let text = file.whole()?;
        let (mut counts, mut words) = (vec![0_u32; self.tokens.iter().len()], Words::default());
        for piece in pieces(&text) {
            deadline::check(self.until)?;
            self.tokens.find(&mut words, piece, |number, _| {
                counts.get_mut(number).into_iter().for_each(|count| *count = count.saturating_add(1));
            });
        }
        let counts = counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        Ok(Some(Counted { bytes: text.len() as u64, counts }))
    }
}

/// The pieces of a text between two looks at the clock; no word is in two of them.
fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let near = rest.get(..CLOCK_BYTES).and_then(|near| memchr::memrchr2(b'\n', b' ', near));
        let far = || memchr::memchr2(b'\n', b' ', rest.get(CLOCK_BYTES..)?).map(|at| CLOCK_BYTES + at);
        let end = near.or_else(far).map_or(rest.len(), |at| at + 1);
        let (piece, behind) = rest.split_at(if rest.len() <= CLOCK_BYTES { rest.len() } else { end });
        rest = behind;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::{CLOCK_BYTES, pieces};

    #[test]
    fn pieces_end_between_words() {
        for (text, ends) in [
            (b"ab ".repeat(CLOCK_BYTES), b' '),
            ([vec![b'x'; 3 * CLOCK_BYTES], b"\nab".repeat(CLOCK_BYTES)].concat(), b'\n'),
        ] {
            let found: Vec<&[u8]> = pieces(&text).collect();
            assert!(found.len() > 1 && found.concat() == text);
            let (_, others) = found.split_last().expect("pieces");
            assert!(others.iter().all(|piece| piece.last() == Some(&ends)));
            assert!(others.iter().skip(1).all(|piece| piece.len() <= CLOCK_BYTES));
        }
        assert_eq!(pieces(b"").count(), 0);
        assert_eq!(pieces(&vec![b'x'; 2 * CLOCK_BYTES]).count(), 1);
    }
}
