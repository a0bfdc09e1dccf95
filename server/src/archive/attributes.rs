//! What `.gitattributes` files say of a path, as far as an archive depends on it.
//!
//! The rules of a directory's file win over those of the directories above it, later lines over earlier ones. Macros are
//! defined in the root's file alone. Whoever pushes writes these files, so what they may cost is bounded.
//! Source: git's `Documentation/gitattributes`.

use std::collections::HashMap;

use govc_engine::{Error, Result};

use crate::pattern::Pattern;

/// The attributes that are looked at. The variants' order is that of [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    ExportIgnore,
    Text,
    Crlf,
    Eol,
    Ident,
    Diff,
}

const NAMES: [&[u8]; 6] = [b"export-ignore", b"text", b"crlf", b"eol", b"ident", b"diff"];

/// A longer line is no rule.
const LINE_BYTES_MAX: usize = 2048;
/// The most that the files which hold for one path may have together.
pub(super) const BYTES_MAX: u64 = 8 << 20;
/// The most steps that all of their patterns may take for a byte of a path, ...
const WEIGHT_MAX: usize = 64 << 10;
/// ... and for a path: a few milliseconds.
const STEPS_MAX: usize = 4 << 20;

/// What an attribute of a path is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Value {
    /// Nothing is said of it, or `!name`.
    #[default]
    Unspecified,
    /// `name`.
    Set,
    /// `-name`.
    Unset,
    /// `name=text`.
    Text(Vec<u8>),
}

/// All that is said of a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Values([Value; NAMES.len()]);

impl Values {
    pub(super) fn get(&self, name: Name) -> &Value {
        self.0.get(name as usize).unwrap_or(&Value::Unspecified)
    }
}

/// An attribute by its number: first [`NAMES`], then macros.
type Number = usize;
/// States in the order in which they are written.
type States = Vec<(Number, Value)>;

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    states: States,
}

/// The rules that hold in a directory: those of the root, and of each directory on the way.
#[derive(Debug)]
pub(super) struct Rules {
    numbers: HashMap<Vec<u8>, Number>,
    /// What macros stand for, from the number `NAMES.len()` on.
    macros: Vec<States>,
    levels: Vec<Level>,
    weight: usize,
    bytes: u64,
}

/// The rules of one directory.
#[derive(Debug)]
struct Level {
    /// How many bytes of a path are before those that the patterns fit.
    base_len: usize,
    rules: Vec<Rule>,
    weight: usize,
    bytes: u64,
}

impl Rules {
    /// The rules of the root directory, whose file is `text`; empty if there is none.
    ///
    /// # Errors
    /// As [`Rules::enter`].
    pub(super) fn new(text: &[u8]) -> Result<Self> {
        let mut rules = Self {
            numbers: NAMES.iter().enumerate().map(|(number, name)| (name.to_vec(), number)).collect(),
            macros: Vec::new(),
            levels: Vec::new(),
            weight: 0,
            bytes: 0,
        };
        let lines = || lines(text).filter_map(Line::read);
        // A macro may be used in front of its definition.
        let mut macros =
            vec![(b"binary".as_slice(), vec![(b"diff".as_slice(), Value::Unset), (b"text", Value::Unset)])];
        macros.extend(lines().filter_map(|line| match line.what {
            What::Macro(name) => Some((name, line.states)),
            What::Pattern(_) => None,
        }));
        for (name, _) in &macros {
            let next = rules.numbers.len();
            rules.numbers.entry(name.to_vec()).or_insert(next);
        }
        rules.macros = vec![Vec::new(); rules.numbers.len().saturating_sub(NAMES.len())];
        for (name, states) in macros {
            let states = rules.known(states);
            let number = rules.numbers.get(name).and_then(|number| number.checked_sub(NAMES.len()));
            // The last definition counts; an attribute that is looked at for itself is not made a macro.
            if let Some(place) = number.and_then(|number| rules.macros.get_mut(number)) {
                *place = states;
            }
        }
        rules.enter(text, 0)?;
        Ok(rules)
    }

    /// Adds the rules of a directory whose paths begin with `base_len` bytes.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::TooLarge`] if there are too many of them.
    pub(super) fn enter(&mut self, text: &[u8], base_len: usize) -> Result<()> {
        let rules: Vec<Rule> = lines(text)
            .filter_map(Line::read)
            .filter_map(|line| match line.what {
                What::Pattern(pattern) => Some(Rule { pattern, states: self.known(line.states) }),
                What::Macro(_) => None,
            })
            .filter(|rule| !rule.states.is_empty())
            .collect();
        let weight = rules.iter().map(|rule| rule.pattern.weight()).sum();
        let bytes = text.len() as u64;
        self.weight += weight;
        self.bytes += bytes;
        self.levels.push(Level { base_len, rules, weight, bytes });
        if self.weight > WEIGHT_MAX || self.bytes > BYTES_MAX {
            return Err(Error::too_large("the .gitattributes files have too many rules for an archive"));
        }
        Ok(())
    }

    /// Takes the rules back that the last [`Rules::enter`] added.
    pub(super) fn leave(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.weight -= level.weight;
            self.bytes -= level.bytes;
        }
    }

    /// What the rules take of memory, in bytes, roughly.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.bytes.saturating_mul(8)
    }

    /// What is said of `path`, from the root; a directory's, and a submodule's, ends in a slash.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::TooLarge`] if it would take long to find that out.
    pub(super) fn of(&self, path: &[u8]) -> Result<Values> {
        if self.weight.saturating_mul(path.len()) > STEPS_MAX {
            return Err(Error::too_large("the .gitattributes files have too many wildcards for so long a path"));
        }
        let mut found: Vec<Option<Value>> = Vec::new();
        let (path, is_directory) = match path.strip_suffix(b"/") {
            Some(path) => (path, true),
            None => (path, false),
        };
        for level in self.levels.iter().rev() {
            let text = path.get(level.base_len..).unwrap_or_default();
            for rule in level.rules.iter().rev().filter(|rule| rule.pattern.matches(text, is_directory)) {
                found.resize(self.numbers.len(), None);
                self.apply(&rule.states, &mut found);
            }
        }
        let mut values = Values::default();
        for (value, found) in values.0.iter_mut().zip(found) {
            *value = found.unwrap_or_default();
        }
        Ok(values)
    }

    /// Notes states of which nothing was said yet, the last ones first, and what macros among them stand for.
    fn apply(&self, states: &States, found: &mut [Option<Value>]) {
        let mut todo: Vec<&(Number, Value)> = states.iter().collect();
        while let Some((number, value)) = todo.pop() {
            if let Some(place @ None) = found.get_mut(*number) {
                *place = Some(value.clone());
                if *value == Value::Set
                    && let Some(stands_for) = number.checked_sub(NAMES.len()).and_then(|number| self.macros.get(number))
                {
                    todo.extend(stands_for);
                }
            }
        }
    }

    /// The states of attributes that matter.
    fn known(&self, states: Vec<(&[u8], Value)>) -> States {
        let known = states.into_iter().filter_map(|(name, value)| Some((*self.numbers.get(name)?, value)));
        known.collect()
    }
}

/// A line that says something.
struct Line<'a> {
    what: What<'a>,
    states: Vec<(&'a [u8], Value)>,
}

enum What<'a> {
    Pattern(Pattern),
    Macro(&'a [u8]),
}

/// A file's lines. Git reads it as a text that ends at a zero byte.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == 0).next().unwrap_or_default().split(|byte| *byte == b'\n')
}

const fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| is_blank(byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// The first word and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(is_blank).unwrap_or(text.len()))
}

impl<'a> Line<'a> {
    /// What a line says; `None` for comments and what git ignores.
    fn read(line: &'a [u8]) -> Option<Self> {
        let text = trim_start(line);
        if text.is_empty() || text.starts_with(b"#") || line.len() >= LINE_BYTES_MAX {
            return None;
        }
        let (what, rest) = match unquoted(text) {
            Some((pattern, rest)) if !pattern.starts_with(b"[attr]") => (What::Pattern(pattern_of(&pattern)?), rest),
            Some(_) => return None,
            None => match word(text) {
                (definition, rest) if definition.len() > b"[attr]".len() && definition.starts_with(b"[attr]") => {
                    let name = definition.get(b"[attr]".len()..).unwrap_or_default();
                    (What::Macro(name).valid()?, rest)
                }
                (pattern, rest) => (What::Pattern(pattern_of(pattern)?), rest),
            },
        };
        let mut states = Vec::new();
        let mut rest = trim_start(rest);
        while !rest.is_empty() {
            let (state, after) = word(rest);
            states.push(read_state(state)?);
            rest = trim_start(after);
        }
        Some(Self { what, states })
    }
}

/// Reads `data` as the rules of the root directory and of one below it, and asks for a path: three parts between NULs.
pub fn fuzz_attributes(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let [root, below, path] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let Ok(mut rules) = Rules::new(root) else { return };
    if rules.enter(below, path.iter().position(|byte| *byte == b'/').map_or(0, |slash| slash + 1)).is_ok() {
        let _ = rules.of(path);
    }
}

/// `None` for a pattern that begins with `!`, which attributes do not have.
fn pattern_of(text: &[u8]) -> Option<Pattern> {
    (!text.starts_with(b"!")).then(|| Pattern::new(text))
}

impl What<'_> {
    fn valid(self) -> Option<Self> {
        match self {
            What::Macro(name) if !is_name(name) => None,
            valid => Some(valid),
        }
    }
}

/// Reads `name`, `-name`, `!name` or `name=text`; a line with anything else says nothing at all.
fn read_state(state: &[u8]) -> Option<(&[u8], Value)> {
    let mut parts = state.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let (name, value) = match (name, parts.next()) {
        ([b'-', name @ ..], _) => (name, Value::Unset),
        ([b'!', name @ ..], _) => (name, Value::Unspecified),
        (name, Some(text)) => (name, Value::Text(text.to_vec())),
        (name, None) => (name, Value::Set),
    };
    is_name(name).then_some((name, value))
}

fn is_name(name: &[u8]) -> bool {
    let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    !name.is_empty() && !name.starts_with(b"-") && name.iter().all(is_valid)
}

/// A pattern in quotes, as C writes texts, and what follows it; `None` if there is none, or it has no end.
fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut pattern = Vec::new();
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'"' => return Some((pattern, rest)),
            b'\\' => {
                let (escape, after) = rest.split_first()?;
                rest = after;
                pattern.push(match escape {
                    b'a' => 7,
                    b'b' => 8,
                    b't' => 9,
                    b'n' => 10,
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => 13,
                    b'"' | b'\\' => *escape,
                    b'0'..=b'3' => {
                        let ([second @ b'0'..=b'7', third @ b'0'..=b'7'], after) = rest.split_at_checked(2)? else {
                            return None;
                        };
                        rest = after;
                        (escape - b'0') << 6 | (second - b'0') << 3 | (third - b'0')
                    }
                    _ => return None,
                });
            }
            byte => pattern.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, Rules, Value};

    fn rules(root: &str, below: &[(&str, &str)]) -> Rules {
        let mut rules = Rules::new(root.as_bytes()).expect("few rules");
        for (directory, text) in below {
            rules.enter(text.as_bytes(), directory.len()).expect("few rules");
        }
        rules
    }

    #[test]
    fn later_and_deeper_rules_win() {
        let rules = rules(
            "*.c export-ignore\nkeep.c -export-ignore\n*.h eol=crlf\n",
            &[("d/", "*.h !eol\n/x export-ignore\n")],
        );
        let is_ignored =
            |path: &str| *rules.of(path.as_bytes()).expect("few rules").get(Name::ExportIgnore) == Value::Set;
        assert!(is_ignored("d/a.c") && is_ignored("d/x"));
        assert!(!is_ignored("d/keep.c") && !is_ignored("d/e/x"));
        assert_eq!(*rules.of(b"d/a.h").expect("few rules").get(Name::Eol), Value::Unspecified);
        let mut rules = rules;
        rules.leave();
        assert_eq!(*rules.of(b"d/a.h").expect("few rules").get(Name::Eol), Value::Text(b"crlf".to_vec()));
    }

    #[test]
    fn macros_stand_for_others() {
        let text = "a hidden\n[attr]hidden export-ignore -text\nb hidden text\nc binary\nd -hidden\ne export-ignore=yes\n[attr]loop loop2\n[attr]loop2 loop export-ignore\nf loop\n";
        let rules = rules(text, &[]);
        let of = |path: &str, name| rules.of(path.as_bytes()).expect("few rules").get(name).clone();
        assert_eq!((of("a", Name::ExportIgnore), of("a", Name::Text)), (Value::Set, Value::Unset));
        assert_eq!((of("b", Name::ExportIgnore), of("b", Name::Text)), (Value::Set, Value::Set));
        assert_eq!((of("c", Name::Diff), of("c", Name::Text)), (Value::Unset, Value::Unset));
        assert_eq!(of("d", Name::ExportIgnore), Value::Unspecified);
        assert_eq!(of("e", Name::ExportIgnore), Value::Text(b"yes".to_vec()));
        assert_eq!(of("f", Name::ExportIgnore), Value::Set);
    }

    #[test]
    fn lines_that_git_ignores_say_nothing() {
        let long = format!("a {} export-ignore\n", "x ".repeat(1100));
        for line in [
            "# a export-ignore\n",
            "!a export-ignore\n",
            "a export-ignore b@d\n",
            "a -\n",
            &long,
            "x\0\na export-ignore\n",
        ] {
            assert_eq!(
                *rules(line, &[]).of(b"a").expect("few rules").get(Name::ExportIgnore),
                Value::Unspecified,
                "{line}"
            );
        }
        for line in ["  a  export-ignore\r\n", "\"a\" export-ignore", "\"\\141\"\texport-ignore"] {
            assert_eq!(*rules(line, &[]).of(b"a").expect("few rules").get(Name::ExportIgnore), Value::Set, "{line}");
        }
        // An unfinished quote is a pattern like any other.
        assert_eq!(*rules("\"a export-ignore", &[]).of(b"\"a").expect("few rules").get(Name::ExportIgnore), Value::Set);
    }

    #[test]
    fn too_many_rules_are_refused() {
        let text = "?a*b*c export-ignore\n".repeat(super::WEIGHT_MAX / 6 + 1);
        assert!(Rules::new(text.as_bytes()).is_err());
        assert!(Rules::new("literal export-ignore\n".repeat(100_000).as_bytes()).is_ok());
    }

    #[test]
    fn what_a_path_costs_is_bounded() {
        let line = format!("{}b text\n", "*a".repeat(500));
        let rules = Rules::new(line.repeat(60).as_bytes()).expect("fewer characters than there may be");
        assert!(rules.of(b"short").is_ok());
        let error = rules.of("a".repeat(4000).as_bytes()).expect_err("240 million steps");
        assert_eq!(*error.kind(), govc_engine::ErrorKind::TooLarge);
        // Plain patterns cost next to nothing.
        let rules = Rules::new("*.c text\n/a/b -text\n".repeat(10_000).as_bytes()).expect("few characters");
        assert!(rules.of("a".repeat(60_000).as_bytes()).is_ok());
    }
}
