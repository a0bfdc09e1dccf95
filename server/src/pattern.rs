//! Patterns of paths as `.gitattributes`, `.gitignore` and sparse checkouts have them: `*`, `?`, `[a-z]`, and `**` for any
//! number of directories.
//!
//! Whoever pushes writes them, so a match takes time in proportion to pattern and path together and never more: all
//! ways through the pattern are followed at once, a byte of the path at a time.
//! Source: git's `Documentation/gitignore`, "PATTERN FORMAT".

/// A pattern with wildcards, or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Whether it is matched with the last part of a path, and not with all of it.
    base_name: bool,
    /// Whether only directories match.
    directory: bool,
    /// The bytes before the first wildcard.
    prefix: Vec<u8>,
    rest: Rest,
}

/// What follows the bytes that stand for themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// `*` and then bytes that stand for themselves: by far the most frequent.
    EndsWith(Vec<u8>),
    Tokens(Vec<Token>),
    /// It is malformed, so nothing matches.
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any byte but a slash.
    One,
    /// Any of these bytes; the slash is none.
    Class(Box<[u64; 4]>),
    /// Any bytes but slashes.
    Star,
    /// Any bytes.
    Deep,
    /// Whole directories or nothing: leads to the next but one token, or to [`Token::WithinDirectories`].
    Directories,
    /// Any bytes, up to a slash.
    WithinDirectories,
}

impl Pattern {
    /// Reads a pattern as it stands in a line, without quotes and without the `!` that some lists have in front of it.
    pub(crate) fn new(text: &[u8]) -> Self {
        let (text, directory) = match text.strip_suffix(b"/") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let base_name = !text.contains(&b'/');
        let text = text.strip_prefix(b"/").unwrap_or(text);
        let special = text.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(text.len());
        let (prefix, wild) = text.split_at(special);
        let rest = match wild {
            [] => Rest::Nothing,
            [b'*', end @ ..] if base_name && !end.iter().any(|byte| b"*?[\\".contains(byte)) => {
                Rest::EndsWith(end.to_vec())
            }
            wild => tokens(wild, prefix.last().is_none_or(|byte| *byte == b'/')).map_or(Rest::Never, Rest::Tokens),
        };
        Self { base_name, directory, prefix: prefix.to_vec(), rest }
    }

    /// Whether it fits in any directory: it has no slash but at its end.
    pub(crate) fn is_base_name(&self) -> bool {
        self.base_name
    }

    /// How many steps a match may take for each byte of a path.
    pub(crate) fn weight(&self) -> usize {
        if let Rest::Tokens(tokens) = &self.rest { tokens.len() } else { 0 }
    }

    /// Whether the pattern fits `path`, which begins behind the directory that the pattern stands in, and has no slash
    /// at its end.
    pub(crate) fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        if self.directory && !is_directory {
            return false;
        }
        let text = if self.base_name { path.rsplit(|byte| *byte == b'/').next().unwrap_or(path) } else { path };
        let Some(text) = text.strip_prefix(self.prefix.as_slice()) else { return false };
        match &self.rest {
            Rest::Nothing => text.is_empty(),
            Rest::EndsWith(end) => text.ends_with(end),
            Rest::Tokens(tokens) => follow(tokens, text),
            Rest::Never => false,
        }
    }
}

/// The tokens of a text; `None` if a class or an escape has no end.
fn tokens(mut text: &[u8], mut after_slash: bool) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some((first, mut rest)) = text.split_first() {
        match first {
            b'\\' => {
                let (byte, after) = rest.split_first()?;
                tokens.push(Token::Byte(*byte));
                rest = after;
            }
            b'?' => tokens.push(Token::One),
            b'[' => {
                let (class, after) = class(rest)?;
                tokens.push(Token::Class(Box::new(class)));
                rest = after;
            }
            b'*' => {
                let stars = rest.iter().take_while(|byte| **byte == b'*').count();
                rest = rest.get(stars..).unwrap_or_default();
                match rest {
                    _ if stars == 0 || !after_slash => tokens.push(Token::Star),
                    [b'/', after @ ..] => {
                        tokens.extend([Token::Directories, Token::WithinDirectories]);
                        rest = after;
                        text = rest;
                        // The slash is part of the directories.
                        after_slash = true;
                        continue;
                    }
                    [] | [b'\\', b'/', ..] => tokens.push(Token::Deep),
                    _ => tokens.push(Token::Star),
                }
            }
            byte => tokens.push(Token::Byte(*byte)),
        }
        after_slash = tokens.last() == Some(&Token::Byte(b'/'));
        text = rest;
    }
    Some(tokens)
}

/// A class without its opening bracket, and what follows it.
fn class(text: &[u8]) -> Option<([u64; 4], &[u8])> {
    let mut set = [0u64; 4];
    let mut add = |from: u8, to: u8| {
        for byte in from..=to {
            if let Some(word) = set.get_mut(usize::from(byte >> 6)) {
                *word |= 1 << (byte & 63);
            }
        }
    };
    let (negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut is_first = true;
    // The byte that a range may begin with.
    let mut before: Option<u8> = None;
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match (byte, rest) {
            (b']', _) if !is_first => break,
            (b'\\', [escaped, after @ ..]) => {
                add(*escaped, *escaped);
                before = Some(*escaped);
                rest = after;
            }
            (b'\\', []) => return None,
            (b'-', [to, after @ ..]) if before.is_some() && *to != b']' => {
                let (to, after) = if *to == b'\\' { after.split_first()? } else { (to, after) };
                add(before.unwrap_or_default(), *to);
                before = None;
                rest = after;
            }
            (b'[', [b':', named @ ..]) => {
                let end = named.iter().position(|byte| *byte == b']')?;
                match named.get(..end).and_then(|name| name.strip_suffix(b":")) {
                    Some(name) => {
                        (0..=127u8).filter(|byte| is_in_class(name, *byte)).for_each(|byte| add(byte, byte));
                        if !NAMES.contains(&name) {
                            return None;
                        }
                        before = None;
                        rest = named.get(end + 1..).unwrap_or_default();
                    }
                    None => {
                        add(b'[', b'[');
                        before = Some(b'[');
                    }
                }
            }
            (byte, _) => {
                add(*byte, *byte);
                before = Some(*byte);
            }
        }
        is_first = false;
    }
    if negated {
        set.iter_mut().for_each(|word| *word = !*word);
    }
    if let Some(word) = set.first_mut() {
        *word &= !(1 << b'/');
    }
    Some((set, rest))
}

const NAMES: [&[u8]; 12] = [
    b"alnum", b"alpha", b"blank", b"cntrl", b"digit", b"graph", b"lower", b"print", b"punct", b"space", b"upper",
    b"xdigit",
];

fn is_in_class(name: &[u8], byte: u8) -> bool {
    match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        // With the vertical tab, which Rust's own class leaves out.
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

/// Whether the tokens fit all of `text`: the positions that can be reached with so many bytes of it, byte by byte.
fn follow(tokens: &[Token], text: &[u8]) -> bool {
    let mut reached = vec![false; tokens.len() + 1];
    let mut next = reached.clone();
    reach(tokens, &mut reached, 0);
    for byte in text {
        next.fill(false);
        let mut any = false;
        for (at, token) in tokens.iter().enumerate() {
            if !reached.get(at).copied().unwrap_or_default() {
                continue;
            }
            let to = match token {
                Token::Byte(wanted) if wanted == byte => at + 1,
                Token::One if *byte != b'/' => at + 1,
                Token::Class(set)
                    if set.get(usize::from(byte >> 6)).is_some_and(|word| word & (1 << (byte & 63)) != 0) =>
                {
                    at + 1
                }
                Token::Star if *byte != b'/' => at,
                Token::Deep => at,
                Token::WithinDirectories => {
                    if *byte == b'/' {
                        reach(tokens, &mut next, at + 1);
                    }
                    at
                }
                _ => continue,
            };
            reach(tokens, &mut next, to);
            any = true;
        }
        if !any {
            return false;
        }
        std::mem::swap(&mut reached, &mut next);
    }
    reached.last().copied().unwrap_or_default()
}

/// Marks a position, and those that are reached from it without a byte.
fn reach(tokens: &[Token], reached: &mut [bool], at: usize) {
    let mut at = at;
    loop {
        match reached.get_mut(at) {
            Some(mark) if !*mark => *mark = true,
            _ => return,
        }
        match tokens.get(at) {
            Some(Token::Star | Token::Deep) => at += 1,
            Some(Token::Directories) => {
                if let Some(mark) = reached.get_mut(at + 1) {
                    *mark = true;
                }
                at += 2;
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_fit_what_git_says() {
        let check = |pattern: &str, fits: &[&str], other: &[&str]| {
            let pattern_of = Pattern::new(pattern.as_bytes());
            let is_match = |path: &&str| {
                let bytes = path.as_bytes();
                pattern_of.matches(bytes.strip_suffix(b"/").unwrap_or(bytes), bytes.ends_with(b"/"))
            };
            for path in fits {
                assert!(is_match(path), "{pattern} fits {path}");
            }
            for path in other {
                assert!(!is_match(path), "{pattern} does not fit {path}");
            }
        };
        check("a", &["a", "b/a", "a/"], &["ab", "a/b"]);
        check("/a", &["a"], &["b/a"]);
        check("a/", &["a/", "b/a/"], &["a", "a/b"]);
        check("a/b", &["a/b"], &["c/a/b", "a/b/c"]);
        check("*.c", &["x.c", "d/x.c", ".c"], &["x.cc", "x.c/y"]);
        check("d/*.c", &["d/x.c"], &["d/e/x.c", "x.c"]);
        check("**/x", &["x", "a/x", "a/b/x"], &["ax", "a/bx"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "ab"]);
        check("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "a/b/c"]);
        check("a**b/c", &["ab/c", "axb/c"], &["a/b/c"]);
        check("a/**b", &["a/b", "a/xb"], &["a/x/b"]);
        check("?b", &["ab", "x/ab"], &["b", "aab"]);
        check("a?b/c", &["axb/c"], &["a/b/c"]);
        check("[a-c]x", &["ax", "cx"], &["dx", "-x"]);
        check("[!a-c]x", &["dx"], &["ax"]);
        check("[^a]x/y", &["bx/y"], &["ax/y", "/x/y"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[]-a]", &["]", "^", "a"], &["b", "-"]);
        check("[a-]", &["a", "-"], &["b"]);
        check("[[:digit:]x]", &["5", "x"], &["y", ":"]);
        check("[[:upper:]][[:space:]]", &["A "], &["a "]);
        check("[[:nonsense:]]", &[], &["n", "["]);
        check("[a", &[], &["a", "[a"]);
        check("a\\*b", &["a*b"], &["axb"]);
        check("a\\", &[], &["a", "a\\"]);
        check("\\!a", &["!a"], &["a"]);
        check("*", &["a", "a/b", ".x"], &[]);
        check("**", &["a", "a/b"], &[]);
        check("*a*b*", &["ab", "xaxbx", "aab"], &["ba", "b"]);
        check("**/a/**/b", &["a/b", "x/a/y/z/b"], &["a/bb", "xa/b"]);
    }

    #[test]
    fn no_pattern_takes_long() {
        let path = "a/".repeat(2000) + "c";
        for pattern in ["**/a/".repeat(200) + "b", "*a".repeat(500) + "b", "a*/**/".repeat(200) + "?b"] {
            assert!(!Pattern::new(pattern.as_bytes()).matches(path.as_bytes(), false));
        }
    }
}
