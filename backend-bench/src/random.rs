//! Seeded numbers, the same on every machine and in every version of the benchmark.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014), written out here because a
//! library may change its stream between releases, and two reports could then not be compared.

/// A stream of numbers that depends on its seed alone.
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a seed for one purpose; streams of different purposes have nothing in common.
    pub(crate) fn of(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed);
        let first = mixed.next();
        Self(first ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..limit`, or 0 when the limit is 0. The bias is far below what a workload notices.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit.max(1) as u64)) as usize
    }

    /// The numbers `0..count` in random order.
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            order.swap(at, self.below(at + 1));
        }
        order
    }

    /// A line of source-like words, with its newline.
    pub(crate) fn line(&mut self) -> String {
        const WORDS: [&str; 16] = [
            "buffer",
            "length",
            "return",
            "static",
            "client",
            "server",
            "reply",
            "node",
            "index",
            "value",
            "if (error)",
            "while (next)",
            "count++;",
            "= NULL;",
            "/* note */",
            "assert(ok);",
        ];
        let mut line = String::from("    ");
        for _ in 0..3 + self.below(5) {
            line.push_str(WORDS[self.below(WORDS.len())]);
            line.push(' ');
        }
        line.push_str(&format!("{:06x}\n", self.next() & 0xff_ffff));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    /// The first outputs for seed 0, as the algorithm's reference implementation prints them.
    #[test]
    fn stream_is_the_published_one() {
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn order_has_each_number_once() {
        let mut order = Random::of(1, 2).order(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
