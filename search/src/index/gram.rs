//! Trigrams: three neighbouring bytes of one line, folded so that upper and lower case are the same.
//!
//! A byte folds to seven bits: ASCII letters to lower case, 0x80 and above into the control characters. So there are at
//! most 2²¹ grams, a bitmap of 256 KiB knows those of one chunk, and each is three ASCII characters, which the index can
//! keep as text. Folding only ever joins: two texts that match in either case have the same grams, and what shares
//! grams by chance is told apart when candidates are verified.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Bytes of a gram.
pub(crate) const GRAM_BYTES: usize = 3;
/// One bit for each possible gram, in words.
const BITMAP_WORDS: usize = (1 << 21) / 64;
/// Where bytes of 0x80 and above go: the control characters without tab, line feed and carriage return.
const HIGH: [u8; 29] =
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];

const FOLDED: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = if byte < 128 { (byte as u8).to_ascii_lowercase() } else { HIGH[(byte - 128) % HIGH.len()] };
        byte += 1;
    }
    table
};

/// The byte as grams see it: below 0x80; a line feed only for a line feed.
pub(crate) fn fold(byte: u8) -> u8 {
    FOLDED[usize::from(byte)]
}

/// Three folded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Gram([u8; GRAM_BYTES]);

impl Gram {
    /// The grams of `text`, which need not be folded; those with a line feed are none.
    pub(crate) fn of(text: &[u8]) -> impl Iterator<Item = Self> {
        text.windows(GRAM_BYTES).filter_map(|window| {
            let gram = [fold(window[0]), fold(window[1]), fold(window[2])];
            (!gram.contains(&b'\n')).then_some(Self(gram))
        })
    }

    /// The gram as the index keeps it.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// `bytes`, folded: what the tokenizer takes.
pub(crate) fn folded(bytes: &[u8]) -> String {
    String::from_utf8(bytes.iter().map(|byte| fold(*byte)).collect()).unwrap_or_default()
}

/// Makes a token of each distinct gram of a folded text, in the order of their first places.
#[derive(Clone)]
pub(crate) struct GramTokenizer {
    seen: Vec<u64>,
    grams: Vec<[u8; GRAM_BYTES]>,
    token: Token,
}

impl Default for GramTokenizer {
    fn default() -> Self {
        // Positions are not kept, but must not overflow.
        let token = Token { text: String::with_capacity(GRAM_BYTES), position: 0, ..Token::default() };
        Self { seen: vec![0; BITMAP_WORDS], grams: Vec::new(), token }
    }
}

impl GramTokenizer {
    fn collect(&mut self, text: &[u8]) {
        self.grams.clear();
        for window in text.windows(GRAM_BYTES) {
            let gram = [window[0] & 0x7f, window[1] & 0x7f, window[2] & 0x7f];
            let (word, bit) = place(gram);
            // The bitmap has a bit for each three times seven bits.
            let bits = &mut self.seen[word];
            if *bits & bit == 0 && !gram.contains(&b'\n') {
                *bits |= bit;
                self.grams.push(gram);
            }
        }
        // As many writes as there are grams, not 256 KiB.
        for gram in &self.grams {
            self.seen[place(*gram).0] = 0;
        }
    }
}

fn place(gram: [u8; GRAM_BYTES]) -> (usize, u64) {
    let number = usize::from(gram[0]) << 14 | usize::from(gram[1]) << 7 | usize::from(gram[2]);
    (number / 64, 1 << (number % 64))
}

impl Tokenizer for GramTokenizer {
    type TokenStream<'a> = GramStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        self.collect(text.as_bytes());
        GramStream { grams: self.grams.iter(), token: &mut self.token }
    }
}

/// The tokens of one text.
pub(crate) struct GramStream<'a> {
    grams: std::slice::Iter<'a, [u8; GRAM_BYTES]>,
    token: &'a mut Token,
}

impl TokenStream for GramStream<'_> {
    fn advance(&mut self) -> bool {
        let Some(gram) = self.grams.next() else { return false };
        self.token.text.clear();
        self.token.text.extend(gram.iter().map(|byte| char::from(*byte)));
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use tantivy::tokenizer::{TokenStream as _, Tokenizer as _};

    use super::{Gram, GramTokenizer, fold, folded};

    fn tokens(tokenizer: &mut GramTokenizer, text: &[u8]) -> Vec<String> {
        let text = folded(text);
        let mut stream = tokenizer.token_stream(&text);
        let mut tokens = Vec::new();
        while let Some(token) = stream.next() {
            tokens.push(token.text.clone());
        }
        tokens
    }

    #[test]
    fn a_text_has_each_gram_once() {
        let mut tokenizer = GramTokenizer::default();
        assert_eq!(tokens(&mut tokenizer, b"ABCabcd"), ["abc", "bca", "cab", "bcd"]);
        // What one text had is not remembered in the next.
        assert_eq!(tokens(&mut tokenizer, b"abc"), ["abc"]);
        assert_eq!(tokens(&mut tokenizer, b"ab\ncd\nefg"), ["efg"]);
        assert!(tokens(&mut tokenizer, b"ab").is_empty());
    }

    #[test]
    fn the_query_has_the_grams_of_the_index() {
        let text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let mut wanted: Vec<String> = Gram::of(&text).map(|gram| gram.as_str().to_owned()).collect();
        let mut found = tokens(&mut GramTokenizer::default(), &text);
        wanted.sort();
        wanted.dedup();
        found.sort();
        assert_eq!(found, wanted);
        assert!((128..=255).all(|byte| fold(byte) < 32 && !b"\t\n\r".contains(&fold(byte))));
    }
}
