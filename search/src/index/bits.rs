//! A set of small numbers, one bit each.

/// Numbers below a bound; larger ones are not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// The empty set of numbers below `count`.
    pub(crate) fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Adds a number; it grows as needed.
    pub(crate) fn insert(&mut self, number: u32) {
        let word = number as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits |= 1 << (number % 64);
        }
    }

    /// Whether a number is in it.
    pub(crate) fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|bits| bits >> (number % 64) & 1 == 1)
    }

    /// How many numbers are in it.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// Keeps what is in `other`, too.
    pub(crate) fn intersect(&mut self, other: &Self) {
        for (at, bits) in self.0.iter_mut().enumerate() {
            *bits &= other.0.get(at).copied().unwrap_or(0);
        }
    }

    /// Adds what is in `other`.
    pub(crate) fn unite(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (bits, more) in self.0.iter_mut().zip(&other.0) {
            *bits |= more;
        }
    }

    /// Removes what is in `other`.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (bits, less) in self.0.iter_mut().zip(&other.0) {
            *bits &= !less;
        }
    }

    /// The largest number below `end`.
    pub(crate) fn last_below(&self, end: u32) -> Option<u32> {
        let at = end as usize / 64;
        let below = self.0.get(at).map_or(0, |bits| bits & !(u64::MAX << (end % 64)));
        let last = |word: usize, bits: u64| {
            let bit = bits.checked_ilog2()?;
            u32::try_from(word * 64).ok().map(|start| start + bit)
        };
        last(at, below).or_else(|| {
            let words = self.0.get(..at).unwrap_or(&self.0);
            words.iter().enumerate().rev().find_map(|(word, bits)| last(word, *bits))
        })
    }

    /// What it takes in memory, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.capacity() as u64 * 8
    }

    /// The numbers, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut rest = *bits;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                u32::try_from(word * 64).ok().map(|start| start + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    fn of(numbers: &[u32]) -> Bits {
        let mut bits = Bits::none(10);
        numbers.iter().for_each(|number| bits.insert(*number));
        bits
    }

    #[test]
    fn sets_of_different_lengths() {
        let (mut small, large) = (of(&[1, 5, 63]), of(&[5, 64, 700]));
        assert_eq!(large.iter().collect::<Vec<_>>(), [5, 64, 700]);
        assert!(large.contains(700) && !large.contains(701) && !small.contains(100_000));
        let mut both = large.clone();
        both.intersect(&small);
        assert_eq!(both.iter().collect::<Vec<_>>(), [5]);
        both.unite(&large);
        assert_eq!(both.len(), 3);
        assert_eq!(
            [0, 5, 6, 64, 65, 700, 701, 9999].map(|end| large.last_below(end)),
            [None, None, Some(5), Some(5), Some(64), Some(64), Some(700), Some(700)]
        );
        small.unite(&large);
        small.subtract(&of(&[5]));
        assert_eq!(small.iter().collect::<Vec<_>>(), [1, 63, 64, 700]);
    }
}
