//! Filter specifications: how a client says what its partial clone leaves out.
//!
//! `blob:none`, `blob:limit=N[kmg]`, `tree:N`, `object:type=T`, `sparse:oid=REV`, and `combine:A+B`, whose parts are
//! percent-encoded and may be combinations themselves. Of a combination an object must pass every part, so a
//! specification is one set of conditions, however it was nested.
//! Source: git's `Documentation/rev-list-options`, `list-objects-filter-options.c`.

use std::sync::Arc;
use std::time::Instant;

use govc_engine::{Error, ErrorKind, Filter, Kind, Oid, Result, Snapshot};
use percent_encoding::percent_decode;

use super::sparse::{self, Allowance, Patterns};

/// Parts of a specification, combinations included.
const PARTS_MAX: usize = 64;
/// Combinations in each other.
const NESTED_MAX: usize = 16;
/// What a part of a combination must write as `%XX`, beside white space and control characters.
const RESERVED: &[u8] = b"~`!@#$^&*()[]{}\\;'\",<>?";

/// What a client asked to be sent alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FilterSpec {
    /// Blobs of fewer bytes than this: with 0, none.
    blob_bytes: Option<u64>,
    /// Trees and blobs less deep than this.
    depth: Option<u64>,
    /// Objects of each of these kinds: of two different ones, nothing.
    kinds: Vec<Kind>,
    /// Blobs at paths that each of these revisions' patterns take.
    sparse: Vec<Vec<u8>>,
}

impl FilterSpec {
    /// Reads a specification.
    ///
    /// # Errors
    /// `Invalid` for what git would refuse, and for more than 64 parts or combinations nested more than 16 deep.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        let mut spec = Self::default();
        let mut parts = vec![(text.to_vec(), 0)];
        let mut seen = 0;
        while let Some((part, nested)) = parts.pop() {
            seen += 1;
            let Some(combined) = part.strip_prefix(b"combine:") else {
                spec.part(&part)?;
                continue;
            };
            if nested == NESTED_MAX {
                return Err(Error::invalid(format!("a filter-spec combines more than {NESTED_MAX} deep")));
            }
            if combined.is_empty() {
                return Err(Error::invalid("expected something after combine:"));
            }
            for encoded in combined.split(|b| *b == b'+') {
                if seen + parts.len() >= PARTS_MAX {
                    return Err(Error::invalid(format!("a filter-spec has more than {PARTS_MAX} parts")));
                }
                if let Some(reserved) = encoded.iter().find(|b| **b <= b' ' || RESERVED.contains(b)) {
                    let shown = char::from(*reserved).escape_default();
                    return Err(Error::invalid(format!("must escape char in sub-filter-spec: '{shown}'")));
                }
                parts.push((percent_decode(encoded).collect(), nested + 1));
            }
        }
        Ok(spec)
    }

    /// Takes one part that is no combination.
    fn part(&mut self, part: &[u8]) -> Result<()> {
        let limit = part.strip_prefix(b"blob:limit=").and_then(number);
        if part == b"blob:none" {
            self.blob_bytes = Some(0);
        } else if let Some(limit) = limit {
            self.blob_bytes = Some(self.blob_bytes.map_or(limit, |other| other.min(limit)));
        } else if let Some(depth) = part.strip_prefix(b"tree:") {
            let depth = number(depth).ok_or_else(|| Error::invalid("expected 'tree:<depth>'"))?;
            self.depth = Some(self.depth.map_or(depth, |other| other.min(depth)));
        } else if let Some(name) = part.strip_prefix(b"object:type=") {
            let kind = kind_of(name).ok_or_else(|| {
                let name = shown(name);
                Error::invalid(format!("'{name}' for 'object:type=<type>' is not a valid object type"))
            })?;
            if !self.kinds.contains(&kind) {
                self.kinds.push(kind);
            }
        } else if let Some(name) = part.strip_prefix(b"sparse:oid=") {
            self.sparse.push(name.to_vec());
        } else if part.starts_with(b"sparse:path=") {
            return Err(Error::invalid("sparse:path filters support has been dropped"));
        } else {
            return Err(Error::invalid(format!("invalid filter-spec '{}'", shown(part))));
        }
        Ok(())
    }

    /// The conditions, with the patterns read that are in the repository. `may_read` says whether the client reaches an
    /// object: of another one it is told what it is told of none.
    ///
    /// # Errors
    /// `Invalid` for patterns that cannot be had or are too many, and what reading fails with.
    pub(crate) fn resolve(
        &self,
        snapshot: &Snapshot,
        deadline: Instant,
        may_read: impl Fn(Oid) -> Result<bool>,
    ) -> Result<Filter> {
        let mut filter =
            Filter { blob_bytes: self.blob_bytes, depth: self.depth, kinds: self.kinds.clone(), paths: Vec::new() };
        let mut allowance = Allowance::default();
        for name in &self.sparse {
            let missing = || Error::invalid(format!("unable to access sparse blob in '{}'", shown(name)));
            let name = std::str::from_utf8(name).map_err(|_| missing())?;
            let oid = blob_named(snapshot, name, deadline)?.ok_or_else(missing)?;
            if !may_read(oid)? {
                return Err(missing());
            }
            let Some((Kind::Blob, size)) = snapshot.header(&oid)? else { return Err(missing()) };
            if size > sparse::BYTES_MAX {
                let max = sparse::BYTES_MAX;
                return Err(Error::invalid(format!("the sparse blob {oid} has more than {max} bytes")));
            }
            let patterns = Patterns::parse(&snapshot.object_of(&oid, Kind::Blob)?, &mut allowance)?;
            filter.paths.push(Arc::new(patterns));
        }
        Ok(filter)
    }
}

/// The object that a revision names, or what is at a path in one.
fn blob_named(snapshot: &Snapshot, name: &str, deadline: Instant) -> Result<Option<Oid>> {
    let resolve = |rev| snapshot.resolve_until(rev, Some(deadline));
    let found = match name.split_once(':') {
        Some((rev, path)) => resolve(rev)
            .and_then(|root| snapshot.entry(root, path.as_bytes()))
            .map(|entry| entry.map(|entry| entry.oid)),
        None => resolve(name).map(Some),
    };
    match found {
        Err(error) if *error.kind() != ErrorKind::Cancelled => Ok(None),
        found => found,
    }
}

fn kind_of(name: &[u8]) -> Option<Kind> {
    [Kind::Blob, Kind::Tree, Kind::Commit, Kind::Tag].into_iter().find(|kind| kind.as_str().as_bytes() == name)
}

/// A number as git's settings have it: decimal, `0x` or octal, with `k`, `m` or `g`.
fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let unit = text.chars().last().filter(char::is_ascii_alphabetic);
    let is_hex = text.starts_with("0x") || text.starts_with("0X");
    let (digits, factor) = match unit.map(|unit| unit.to_ascii_lowercase()) {
        Some('k') => (text.get(..text.len() - 1)?, 1 << 10),
        Some('m') => (text.get(..text.len() - 1)?, 1 << 20),
        Some('g') => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1),
    };
    let (digits, radix) = match digits {
        hex if is_hex => (hex.get(2..)?, 16),
        octal if octal.len() > 1 && octal.starts_with('0') => (octal.get(1..)?, 8),
        decimal => (decimal, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()?.checked_mul(factor)
}

fn shown(text: &[u8]) -> String {
    const SHOWN_MAX: usize = 100;
    String::from_utf8_lossy(text.get(..SHOWN_MAX).unwrap_or(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FilterSpec> {
        FilterSpec::parse(text.as_bytes())
    }

    #[track_caller]
    fn check(text: &str, expected: FilterSpec) {
        assert_eq!(parse(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn every_form_is_read() {
        let none = FilterSpec::default;
        check("blob:none", FilterSpec { blob_bytes: Some(0), ..none() });
        check("blob:limit=0", FilterSpec { blob_bytes: Some(0), ..none() });
        check("blob:limit=10", FilterSpec { blob_bytes: Some(10), ..none() });
        check("blob:limit=2K", FilterSpec { blob_bytes: Some(2048), ..none() });
        check("blob:limit=3m", FilterSpec { blob_bytes: Some(3 << 20), ..none() });
        check("blob:limit=1g", FilterSpec { blob_bytes: Some(1 << 30), ..none() });
        check("blob:limit=0x10", FilterSpec { blob_bytes: Some(16), ..none() });
        check("tree:0", FilterSpec { depth: Some(0), ..none() });
        check("tree:010", FilterSpec { depth: Some(8), ..none() });
        for (name, kind) in [("blob", Kind::Blob), ("tree", Kind::Tree), ("commit", Kind::Commit), ("tag", Kind::Tag)] {
            check(&format!("object:type={name}"), FilterSpec { kinds: vec![kind], ..none() });
        }
        check("sparse:oid=main:dir/sparse", FilterSpec { sparse: vec![b"main:dir/sparse".to_vec()], ..none() });
    }

    #[test]
    fn of_a_combination_every_part_holds() {
        let expected = FilterSpec { blob_bytes: Some(100), depth: Some(3), ..FilterSpec::default() };
        check("combine:tree:3+blob:limit=100", expected.clone());
        check("combine:tree:3+tree:5+blob:limit=1k+blob:limit=100", expected.clone());
        check("combine:combine:tree%3A3%2Bblob:limit=100+tree:9", expected.clone());
        check("combine:combine:combine%3Atree%253A3+blob:limit=100", expected);
        let kinds = FilterSpec { kinds: vec![Kind::Blob, Kind::Tree], ..FilterSpec::default() };
        check("combine:object:type=blob+object:type=tree+object:type=blob", kinds);
        check("combine:sparse:oid=a%2bb", FilterSpec { sparse: vec![b"a+b".to_vec()], ..FilterSpec::default() });
    }

    #[test]
    fn what_git_refuses_is_refused() {
        for text in [
            "",
            "blob",
            "blob:",
            "blob:all",
            "blob:limit=",
            "blob:limit=x",
            "blob:limit=-1",
            "blob:limit=1kk",
            "blob:limit=1t",
            "blob:limit=99999999999999999999",
            "blob:limit=99999999999g",
            "blob:limit=0x",
            "tree",
            "tree:",
            "tree:-1",
            "tree:x",
            "object:type=",
            "object:type=blobs",
            "sparse:path=x",
            "combine:",
            "combine:+",
            "combine:blob:none+",
            "combine:blob:none++tree:0",
            "combine:blob:none tree:0",
            "combine:sparse:oid=a*b",
            "combine:tree%3A",
            "\u{0}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(FilterSpec::parse(b"\xff\xfe").is_err());
        assert!(FilterSpec::parse(b"blob:limit=\xff").is_err());
    }

    #[test]
    fn combinations_have_limits() {
        let error = parse(&format!("{}blob:none", "combine:".repeat(1000))).unwrap_err();
        assert!(error.to_string().contains("16 deep"), "{error}");
        assert!(parse(&format!("{}blob:none", "combine:".repeat(NESTED_MAX))).is_ok());
        assert!(parse(&format!("{}blob:none", "combine:".repeat(NESTED_MAX + 1))).is_err());
        let many = |parts: usize| format!("combine:{}", vec!["tree:1"; parts].join("+"));
        assert!(parse(&many(PARTS_MAX - 1)).is_ok());
        let error = parse(&many(10_000)).unwrap_err();
        assert!(error.to_string().contains("64 parts"), "{error}");
    }
}
