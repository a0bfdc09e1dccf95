//! Trigrams: three neighbouring bytes of one line, folded so that upper and lower case are the same.
//!
//! A byte folds to seven bits: ASCII letters to lower case, 0x80 and above into the control characters. So there are at
//! most 2²¹ grams, a bitmap of 256 KiB knows those of one chunk, and each is three ASCII characters, which the index can
//! keep as text. A line of two bytes has no such gram; it has one of these two and the line feed, so that two bytes can be
//! looked for as well. Folding only ever joins: two texts that match in either case have the same grams, and what shares
//! grams by chance is told apart when candidates are verified.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

/// Bytes of a gram.
pub(crate) const GRAM_BYTES: usize = 3;
/// Folded bytes are below this.
pub(crate) const FOLDED_END: u8 = 0x80;
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

/// Two folded bytes of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair([u8; 2]);

impl Pair {
    /// The pair that is all of `text`, which need not be folded; none if it has a line feed.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let [first, second] = text else { return None };
        let pair = [fold(*first), fold(*second)];
        (!pair.contains(&b'\n')).then_some(Self(pair))
    }

    /// The grams that begin with the pair, that of a line that is no longer among them: from the first to the second, as
    /// the index keeps them.
    pub(crate) fn beginnings(self) -> (Vec<u8>, Vec<u8>) {
        let [first, second] = self.0;
        (vec![first, second], vec![first, second + 1])
    }

    /// The gram that ends with the pair.
    pub(crate) fn behind(self, byte: u8) -> Gram {
        let [first, second] = self.0;
        Gram([byte, first, second])
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
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
        let mut before = b'\n';
        for window in text.windows(GRAM_BYTES) {
            self.take([window[0], window[1], window[2]], before);
            before = window[0];
        }
        // The last line may have no line feed.
        if let [.., first, second] = text {
            self.take([*first, *second, b'\n'], before);
        }
        // As many writes as there are grams, not 256 KiB.
        for gram in &self.grams {
            self.seen[place(*gram).0] = 0;
        }
    }

    /// Takes a gram with the byte in front of it.
    fn take(&mut self, gram: [u8; GRAM_BYTES], before: u8) {
        let gram = gram.map(|byte| byte & 0x7f);
        let (word, bit) = place(gram);
        // The bitmap has a bit for each three times seven bits.
        let bits = &mut self.seen[word];
        if *bits & bit == 0 && (!gram.contains(&b'\n') || is_short_line(gram, before)) {
            *bits |= bit;
            self.grams.push(gram);
        }
    }
}

/// Whether these are the two bytes of a line and its line feed.
fn is_short_line(gram: [u8; GRAM_BYTES], before: u8) -> bool {
    let [first, second, third] = gram;
    before == b'\n' && third == b'\n' && first != b'\n' && second != b'\n'
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
        assert_eq!(tokens(&mut tokenizer, b"a\n\nefg\n\nb"), ["efg"]);
        assert!(tokens(&mut tokenizer, b"a").is_empty() && tokens(&mut tokenizer, b"\n\n\n").is_empty());
    }

    #[test]
    fn a_line_of_two_bytes_has_one_with_its_line_feed() {
        let mut tokenizer = GramTokenizer::default();
        assert_eq!(tokens(&mut tokenizer, b"ab\ncd\nefg\nhij\nAB\nk\n"), ["ab\n", "cd\n", "efg", "hij"]);
        assert_eq!(tokens(&mut tokenizer, b"ab"), ["ab\n"]);
        assert_eq!(tokens(&mut tokenizer, b"x\nab"), ["ab\n"]);
        assert_eq!(tokens(&mut tokenizer, b"xab"), ["xab"]);
        assert_eq!(tokens(&mut tokenizer, b"ab\r\n"), ["ab\r"]);
    }

    #[test]
    fn the_query_has_the_grams_of_the_index() {
        let text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let mut wanted: Vec<String> = Gram::of(&text).map(|gram| gram.as_str().to_owned()).collect();
        let mut found = tokens(&mut GramTokenizer::default(), &text);
        found.retain(|gram| !gram.contains('\n'));
        wanted.sort();
        wanted.dedup();
        found.sort();
        assert_eq!(found, wanted);
        assert!((128..=255).all(|byte| fold(byte) < 32 && !b"\t\n\r".contains(&fold(byte))));
    }
}
