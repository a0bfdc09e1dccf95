//! Seeded numbers, the same on every machine and in every version of this repository.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014), written out
//! here because a library may change its stream between releases, and with it every object id.

/// A stream of numbers that depends on its seed alone.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
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

    /// A line of source-like words, without its newline.
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
        line.push_str(&format!("{:06x}", self.next() & 0xff_ffff));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    /// The first outputs for seed 0, as the algorithm's reference implementation prints them.
    #[test]
    fn stream_is_the_published_one() {
        let mut random = Random::new(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}
