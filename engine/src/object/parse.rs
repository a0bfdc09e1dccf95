//! Parsed commits and tags, and the links of an object to others.
//!
//! Real histories hold malformed identities, lost time zones and unknown headers, so parsing keeps what it
//! does not understand and never fails for style; what must be refused is decided in [`super::check`].

use gix_object::bstr::ByteSlice;
use smallvec::SmallVec;

use super::{Kind, ObjectFormat, Oid};
use crate::{Error, Result};

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name as stored, trimmed.
    pub name: Vec<u8>,
    /// E-mail address as stored, trimmed.
    pub email: Vec<u8>,
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// Offset from UTC in minutes.
    pub offset_minutes: i32,
}

impl Signature {
    /// A signature to be written.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] if the name is empty or a part has characters that git cannot store
    /// (`<`, `>`, newline, NUL), or the time is negative or the offset a day or more.
    pub fn new(name: &str, email: &str, seconds: i64, offset_minutes: i32) -> Result<Self> {
        let (name, email) = (name.trim(), email.trim());
        for (what, text) in [("name", name), ("email", email)] {
            if text.contains(['<', '>', '\n', '\0']) {
                return Err(Error::invalid(format!("author {what} {text:?} contains '<', '>', a newline or NUL")));
            }
        }
        if name.is_empty() {
            return Err(Error::invalid("author name is empty"));
        }
        if seconds < 0 || seconds > i64::from(u32::MAX) * 64 || offset_minutes.abs() >= 24 * 60 {
            return Err(Error::invalid("author date is out of range"));
        }
        Ok(Self { name: name.into(), email: email.into(), seconds, offset_minutes })
    }

    /// Reads `name <email> seconds offset`, keeping what can be kept of a malformed line.
    fn parse(line: &[u8]) -> Self {
        let (identity, time) = match (line.find_byte(b'<'), line.rfind_byte(b'>')) {
            (Some(open), Some(close)) if open < close => ((&line[..open], &line[open + 1..close]), &line[close + 1..]),
            _ => ((line, &b""[..]), &b""[..]),
        };
        let mut words = time.split(|b| *b == b' ').filter(|word| !word.is_empty());
        let seconds = words.next().and_then(|word| word.to_str().ok()?.parse().ok()).unwrap_or(0);
        let offset_minutes = words.next().map_or(0, parse_offset);
        Self { name: identity.0.trim().into(), email: identity.1.trim().into(), seconds, offset_minutes }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.extend_from_slice(b" <");
        out.extend_from_slice(&self.email);
        let minutes = self.offset_minutes.unsigned_abs();
        out.extend_from_slice(b"> ");
        if self.seconds < 0 {
            out.push(b'-');
        }
        push_decimal(out, self.seconds.unsigned_abs(), 1);
        out.extend_from_slice(if self.offset_minutes < 0 { b" -" } else { b" +" });
        push_decimal(out, u64::from(minutes / 60), 2);
        push_decimal(out, u64::from(minutes % 60), 2);
    }

    /// The name with what is not UTF-8 replaced.
    pub fn name_lossy(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// The e-mail address with what is not UTF-8 replaced.
    pub fn email_lossy(&self) -> String {
        String::from_utf8_lossy(&self.email).into_owned()
    }
}

/// Appends a number with at least so many digits; formatting costs a commit more than hashing it does.
fn push_decimal(out: &mut Vec<u8>, number: u64, digits_min: usize) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    let mut rest = number;
    while rest > 0 {
        first -= 1;
        digits[first] += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[first.min(digits.len() - digits_min)..]);
}

/// Minutes of `+hhmm` or `-hhmm`; zero if it is neither.
fn parse_offset(word: &[u8]) -> i32 {
    let Some((sign, digits)) = word.split_first() else { return 0 };
    let Some(number) = digits.to_str().ok().and_then(|digits| digits.parse::<i32>().ok()) else { return 0 };
    let minutes = (number / 100).saturating_mul(60).saturating_add(number % 100);
    match sign {
        b'-' => -minutes,
        b'+' => minutes,
        _ => 0,
    }
}

/// A parsed commit. [`Commit::to_bytes`] gives back what [`Commit::parse`] read for every well-formed commit;
/// stored bytes are never re-made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The root tree.
    pub tree: Oid,
    /// The parents, first parent first.
    pub parents: SmallVec<[Oid; 2]>,
    /// Who wrote the change.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// The message's encoding, if it is not UTF-8.
    pub encoding: Option<Vec<u8>>,
    /// Further headers in their order: `gpgsig`, `mergetag`, ...
    pub extra_headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The message.
    pub message: Vec<u8>,
}

impl Commit {
    /// Parses a commit's bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the structure is not a commit's.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let malformed = || Error::corrupt("malformed commit");
        let (headers, message) = match data.find(b"\n\n") {
            Some(end) => (&data[..end + 1], &data[end + 2..]),
            None => (data, &b""[..]),
        };
        let mut lines = lines(headers).peekable();
        let mut next = |key: &[u8]| lines.next_if(|line| line.starts_with(key)).map(|line| &line[key.len()..]);
        let tree = Oid::from_hex(next(b"tree ").ok_or_else(malformed)?).map_err(|_| malformed())?;
        let mut parents = SmallVec::new();
        while let Some(parent) = next(b"parent ") {
            parents.push(tree.format().oid_from_hex(parent).map_err(|_| malformed())?);
        }
        let author = Signature::parse(next(b"author ").ok_or_else(malformed)?);
        let committer = Signature::parse(next(b"committer ").ok_or_else(malformed)?);
        let mut encoding = None;
        let mut extra_headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for line in lines {
            // A line that begins with a space continues the value before it.
            match (line.strip_prefix(b" "), extra_headers.last_mut(), line.split_once_str(" ")) {
                (Some(more), Some((_, value)), _) => {
                    value.push(b'\n');
                    value.extend_from_slice(more);
                }
                (None, None, Some((b"encoding", name))) if encoding.is_none() => encoding = Some(name.to_vec()),
                (_, _, Some((key, value))) => extra_headers.push((key.to_vec(), value.to_vec())),
                (_, _, None) => extra_headers.push((line.to_vec(), Vec::new())),
            }
        }
        Ok(Self { tree, parents, author, committer, encoding, extra_headers, message: message.to_vec() })
    }

    /// The root tree of a commit's bytes, which are not looked at any further.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if they do not begin with one.
    pub fn tree_of(data: &[u8]) -> Result<Oid> {
        let line = data.strip_prefix(b"tree ").and_then(|rest| {
            let end = rest.iter().take(2 * Oid::LEN_MAX + 1).position(|byte| *byte == b'\n')?;
            Some(&rest[..end])
        });
        line.and_then(|hex| Oid::from_hex(hex).ok()).ok_or_else(|| Error::corrupt("malformed commit"))
    }

    /// The commit's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.message.len());
        out.extend_from_slice(b"tree ");
        self.tree.write_hex(&mut out);
        for parent in &self.parents {
            out.extend_from_slice(b"\nparent ");
            parent.write_hex(&mut out);
        }
        out.extend_from_slice(b"\nauthor ");
        self.author.write(&mut out);
        out.extend_from_slice(b"\ncommitter ");
        self.committer.write(&mut out);
        out.push(b'\n');
        if let Some(encoding) = &self.encoding {
            out.extend_from_slice(b"encoding ");
            out.extend_from_slice(encoding);
            out.push(b'\n');
        }
        for (key, value) in &self.extra_headers {
            out.extend_from_slice(key);
            for line in value.split(|b| *b == b'\n') {
                out.push(b' ');
                out.extend_from_slice(line);
                out.push(b'\n');
            }
        }
        out.push(b'\n');
        out.extend_from_slice(&self.message);
        out
    }

    /// The first line of the message, with what is not UTF-8 replaced.
    pub fn subject(&self) -> String {
        let line = self.message.trim_start().lines().next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }
}

/// A parsed annotated tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// What the tag points at.
    pub target: Oid,
    /// The kind of the target.
    pub target_kind: Kind,
    /// The tag's own name.
    pub name: Vec<u8>,
    /// Who made it; old tags have none.
    pub tagger: Option<Signature>,
    /// The message, with a signature at its end if there is one.
    pub message: Vec<u8>,
}

impl Tag {
    /// Parses a tag's bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the structure is not a tag's.
    pub fn parse(data: &[u8]) -> Result<Self> {
        let malformed = || Error::corrupt("malformed tag");
        let (target, target_kind) = tag_target(data)?;
        let (headers, message) = match data.find(b"\n\n") {
            Some(end) => (&data[..end + 1], &data[end + 2..]),
            None => (data, &b""[..]),
        };
        let header = |key: &[u8]| lines(headers).find_map(|line| line.strip_prefix(key));
        Ok(Self {
            target,
            target_kind,
            name: header(b"tag ").ok_or_else(malformed)?.to_vec(),
            tagger: header(b"tagger ").map(Signature::parse),
            message: message.to_vec(),
        })
    }

    /// The tag's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("object {}\ntype {}\ntag ", self.target, self.target_kind).into_bytes();
        out.extend_from_slice(&self.name);
        if let Some(tagger) = &self.tagger {
            out.extend_from_slice(b"\ntagger ");
            tagger.write(&mut out);
        }
        out.extend_from_slice(b"\n\n");
        out.extend_from_slice(&self.message);
        out
    }
}

/// The lines of an object: a carriage return is part of one, as it is for git.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.lines_with_terminator().map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// The `object` and `type` lines that open every tag.
fn tag_target(data: &[u8]) -> Result<(Oid, Kind)> {
    let mut lines = lines(data);
    let object = lines.next().and_then(|line| line.strip_prefix(b"object "));
    let kind = lines.next().and_then(|line| line.strip_prefix(b"type ")).and_then(Kind::from_word);
    match (object, kind) {
        (Some(hex), Some(kind)) => Ok((Oid::from_hex(hex).map_err(|_| Error::corrupt("malformed tag target"))?, kind)),
        _ => Err(Error::corrupt("malformed tag")),
    }
}

/// What a commit, tree or tag points at: the one reader of links for connectivity, packs and garbage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The objects pointed at, with the kind that the link demands; submodule commits are no links.
    pub targets: SmallVec<[(Oid, Option<Kind>); 4]>,
    /// A commit's committer time in seconds; zero for others.
    pub commit_seconds: i64,
}

/// Reads the links of an object.
///
/// A commit gives its tree first, then its parents in order.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the structure is not the kind's, or an id is not of the format.
pub fn links(format: ObjectFormat, kind: Kind, data: &[u8]) -> Result<Links> {
    let mut links = Links { targets: SmallVec::new(), commit_seconds: 0 };
    match kind {
        Kind::Blob => {}
        Kind::Tree => {
            for entry in super::tree_entries(format, data) {
                let entry = entry?;
                if !entry.mode.is_submodule() {
                    let kind = if entry.mode.is_tree() { Kind::Tree } else { Kind::Blob };
                    links.targets.push((entry.oid, Some(kind)));
                }
            }
        }
        Kind::Tag => {
            let (target, kind) = tag_target(data)?;
            if target.format() != format {
                return Err(Error::corrupt("malformed tag target"));
            }
            links.targets.push((target, Some(kind)));
        }
        Kind::Commit => {
            let malformed = || Error::corrupt("malformed commit");
            let hex = |line: &[u8]| format.oid_from_hex(line).map_err(|_| malformed());
            let mut lines = lines(data);
            let tree = lines.next().and_then(|line| line.strip_prefix(b"tree ")).ok_or_else(malformed)?;
            links.targets.push((hex(tree)?, Some(Kind::Tree)));
            for line in lines {
                if let Some(parent) = line.strip_prefix(b"parent ") {
                    links.targets.push((hex(parent)?, Some(Kind::Commit)));
                } else if let Some(committer) = line.strip_prefix(b"committer ") {
                    links.commit_seconds = Signature::parse(committer).seconds;
                    break;
                } else if line.is_empty() {
                    break;
                }
            }
        }
    }
    Ok(links)
}
