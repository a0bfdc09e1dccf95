//! Which documents of a segment satisfy a condition on grams.

use std::time::Instant;

use govc_engine::{Error, ErrorKind, Result};
use tantivy::{
    DocSet as _, InvertedIndexReader, SegmentReader, TERMINATED, Term,
    postings::{SegmentPostings, TermInfo},
    schema::{Field, IndexRecordOption},
};

use super::{
    bits::Bits,
    gram::{FOLDED_END, Gram, Pair},
    literals::GramQuery,
    postings::failed,
};
use crate::deadline;

/// Grams of one list that are looked at: the rarest ones.
const GRAMS_MAX: usize = 24;
/// The same if even the rarest is common: more lists would take longer than what they rule out.
const COMMON_GRAMS_MAX: usize = 8;
/// A gram is common in a segment if this share of the documents has it, and more than so many.
const COMMON_SHARE: u32 = 16;
const COMMON_MIN: u32 = 256;

/// Documents of one segment.
pub(super) enum Documents {
    /// In order.
    Few(Vec<u32>),
    Many(Bits),
}

impl Documents {
    /// The documents that satisfy `query` in a field; `None` if all do.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the index cannot be read.
    pub(super) fn of(
        segment: &SegmentReader,
        field: &str,
        query: &GramQuery,
        until: Option<Instant>,
    ) -> Result<Option<Self>> {
        match query {
            GramQuery::All => Ok(None),
            GramQuery::None => Ok(Some(Self::Few(Vec::new()))),
            GramQuery::Grams(grams) => Lists::open(segment, field)?.with_grams(grams).map(Some),
            GramQuery::Pair(pair) => Lists::open(segment, field)?.with_pair(*pair),
            GramQuery::And(parts) => {
                let mut all: Option<Self> = None;
                for part in parts {
                    deadline::check(until)?;
                    all = match (all, Self::of(segment, field, part, until)?) {
                        (Some(left), Some(right)) => Some(left.and(right)),
                        (left, right) => left.or(right),
                    };
                }
                Ok(all)
            }
            GramQuery::Or(parts) => {
                let mut any = Bits::default();
                for part in parts {
                    deadline::check(until)?;
                    match Self::of(segment, field, part, until)? {
                        None => return Ok(None),
                        Some(Self::Many(more)) => any.unite(&more),
                        Some(Self::Few(more)) => more.into_iter().for_each(|document| any.insert(document)),
                    }
                }
                Ok(Some(Self::Many(any)))
            }
        }
    }

    /// Gives each, in order.
    pub(super) fn each(&self, take: impl FnMut(u32)) {
        match self {
            Self::Few(documents) => documents.iter().copied().for_each(take),
            Self::Many(documents) => documents.iter().for_each(take),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Many(mut left), Self::Many(right)) => {
                left.intersect(&right);
                Self::Many(left)
            }
            (Self::Few(mut few), Self::Many(many)) | (Self::Many(many), Self::Few(mut few)) => {
                few.retain(|document| many.contains(*document));
                Self::Few(few)
            }
            (Self::Few(left), Self::Few(right)) => Self::Few(intersection(&left, &right)),
        }
    }
}

fn intersection(left: &[u32], right: &[u32]) -> Vec<u32> {
    let (short, long) = if left.len() < right.len() { (left, right) } else { (right, left) };
    let mut rest = long;
    let mut both = Vec::new();
    for document in short {
        rest = rest.get(rest.partition_point(|other| other < document)..).unwrap_or_default();
        if rest.first() == Some(document) {
            both.push(*document);
        }
    }
    both
}

fn unreadable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Backend, "cannot read the search index").with_source(error)
}

/// The lists of documents of one segment, by gram.
struct Lists {
    lists: std::sync::Arc<InvertedIndexReader>,
    field: Field,
    documents: u32,
}

impl Lists {
    fn open(segment: &SegmentReader, field: &str) -> Result<Self> {
        let field = segment.schema().get_field(field).map_err(|error| failed("read", error))?;
        let lists = segment.inverted_index(field).map_err(|error| failed("read", error))?;
        Ok(Self { lists, field, documents: segment.max_doc() })
    }

    fn info(&self, gram: &str) -> Result<Option<TermInfo>> {
        self.lists.get_term_info(&Term::from_field_text(self.field, gram)).map_err(unreadable)
    }

    /// The documents that have all of `grams`.
    fn with_grams(&self, grams: &[Gram]) -> Result<Documents> {
        let mut terms = Vec::with_capacity(grams.len());
        for gram in grams {
            match self.info(gram.as_str())? {
                None => return Ok(Documents::Few(Vec::new())),
                Some(info) => terms.push(info),
            }
        }
        terms.sort_by_key(|info| info.doc_freq);
        let rarest = terms.first().map_or(0, |info| info.doc_freq);
        if rarest >= COMMON_MIN && rarest >= self.documents / COMMON_SHARE {
            terms.truncate(COMMON_GRAMS_MAX);
            let mut sets = terms.iter().map(|info| self.set(info));
            let mut all = sets.next().transpose()?.unwrap_or_default();
            sets.try_for_each(|set| set.map(|set| all.intersect(&set)))?;
            return Ok(Documents::Many(all));
        }
        terms.truncate(GRAMS_MAX);
        let mut lists = Vec::with_capacity(terms.len());
        for info in &terms {
            let list = self.lists.read_postings_from_terminfo(info, IndexRecordOption::Basic);
            lists.push(list.map_err(unreadable)?);
        }
        Ok(Documents::Few(leapfrog(lists)))
    }

    /// The documents that have two neighbouring bytes in one line; `None` if these are about half of all, or more.
    fn with_pair(&self, pair: Pair) -> Result<Option<Documents>> {
        let mut terms = Vec::new();
        let (from, to) = pair.beginnings();
        let mut stream = self.lists.terms().range().ge(&from).lt(&to).into_stream().map_err(unreadable)?;
        while stream.advance() {
            terms.push(stream.value().clone());
        }
        for byte in 0..FOLDED_END {
            terms.extend(self.info(pair.behind(byte).as_str())?);
        }
        let total: u64 = terms.iter().map(|info| u64::from(info.doc_freq)).sum();
        if total > u64::from(self.documents / 2) {
            return Ok(None);
        }
        let mut any = Bits::none(self.documents as usize);
        terms.iter().try_for_each(|info| self.add(info, &mut any))?;
        Ok(Some(Documents::Many(any)))
    }

    fn set(&self, info: &TermInfo) -> Result<Bits> {
        let mut set = Bits::none(self.documents as usize);
        self.add(info, &mut set)?;
        Ok(set)
    }

    /// Adds the documents of a list, a block at a time.
    fn add(&self, info: &TermInfo, set: &mut Bits) -> Result<()> {
        let list = self.lists.read_block_postings_from_terminfo(info, IndexRecordOption::Basic);
        let mut list = list.map_err(unreadable)?;
        while !list.docs().is_empty() {
            list.docs().iter().for_each(|document| set.insert(*document));
            list.advance();
        }
        Ok(())
    }
}

/// The documents that are in all lists, of which the first is the shortest.
fn leapfrog(mut lists: Vec<SegmentPostings>) -> Vec<u32> {
    let mut found = Vec::new();
    let Some((first, others)) = lists.split_first_mut() else { return found };
    let mut document = first.doc();
    'next: while document != TERMINATED {
        for other in others.iter_mut() {
            if other.doc() < document {
                other.seek(document);
            }
            if other.doc() != document {
                document = if other.doc() == TERMINATED { return found } else { first.seek(other.doc()) };
                continue 'next;
            }
        }
        found.push(document);
        document = first.advance();
    }
    found
}
