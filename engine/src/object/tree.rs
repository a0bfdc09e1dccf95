//! Directories: reading entries, and making a new tree from an old one and a few edits.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, fmt};

use super::{ObjectFormat, Oid};
use crate::{Error, Result};

/// The mode of a tree entry, as stored; unusual modes of old histories are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryMode(u32);

impl EntryMode {
    /// A file.
    pub const BLOB: Self = Self(0o100_644);
    /// An executable file.
    pub const EXECUTABLE: Self = Self(0o100_755);
    /// A symbolic link; the blob is its target.
    pub const SYMLINK: Self = Self(0o120_000);
    /// A directory.
    pub const TREE: Self = Self(0o040_000);
    /// A submodule; the id is a commit of another repository.
    pub const COMMIT: Self = Self(0o160_000);

    /// The mode of these bits, as read from a tree; any value can be kept.
    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Octal digits of it, without leading zeros.
    fn digits(self) -> u32 {
        (u32::BITS - self.0.leading_zeros()).div_ceil(3).max(1)
    }

    /// Reads an octal mode that may be written: a file, an executable file, a link, a directory or a submodule.
    pub fn parse(octal: &str) -> Option<Self> {
        if !octal.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mode = Self(u32::from_str_radix(octal, 8).ok()?);
        [Self::BLOB, Self::EXECUTABLE, Self::SYMLINK, Self::TREE, Self::COMMIT].contains(&mode).then_some(mode)
    }

    /// The bits that tell file, directory, link and submodule apart.
    pub(crate) fn type_bits(self) -> u32 {
        self.0 & 0o170_000
    }

    /// Six octal digits, as git prints them.
    pub fn to_octal(self) -> String {
        format!("{:06o}", self.0)
    }

    /// Whether the entry is a directory.
    pub fn is_tree(self) -> bool {
        self.0 & 0o170_000 == 0o040_000
    }

    /// Whether the entry is a file or a symbolic link.
    pub fn is_blob(self) -> bool {
        matches!(self.0 & 0o170_000, 0o100_000 | 0o120_000)
    }

    /// Whether the entry is a submodule.
    pub fn is_submodule(self) -> bool {
        self.0 & 0o170_000 == 0o160_000
    }
}

impl fmt::Debug for EntryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_octal())
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// File, directory, link or submodule.
    pub mode: EntryMode,
    /// The name without slashes; any bytes but NUL.
    pub name: Cow<'a, [u8]>,
    /// The object.
    pub oid: Oid,
}

impl TreeEntry<'_> {
    /// The same entry, holding its name itself.
    pub fn into_owned(self) -> TreeEntry<'static> {
        TreeEntry { mode: self.mode, name: Cow::Owned(self.name.into_owned()), oid: self.oid }
    }
}

/// Iterates over a tree's entries in their stored order, without copying; ends after the first error.
pub fn tree_entries(format: ObjectFormat, data: &[u8]) -> impl Iterator<Item = Result<TreeEntry<'_>>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match split_entry(format, rest) {
            Some((entry, _, after)) => {
                rest = after;
                Some(Ok(entry))
            }
            None => {
                rest = &[];
                Some(Err(Error::corrupt("malformed tree")))
            }
        }
    })
}

/// The first entry, whether its mode is written with leading zeros, and what follows.
pub(super) fn split_entry(format: ObjectFormat, data: &[u8]) -> Option<(TreeEntry<'_>, bool, &[u8])> {
    let space = data.iter().take(12).position(|b| *b == b' ')?;
    let digits = &data[..space];
    if digits.is_empty() || !digits.iter().all(|b| (b'0'..=b'7').contains(b)) {
        return None;
    }
    let bits = digits.iter().fold(0u32, |bits, digit| bits.wrapping_mul(8) + u32::from(digit - b'0'));
    let rest = &data[space + 1..];
    let nul = gix_object::bstr::ByteSlice::find_byte(rest, 0)?;
    let oid = rest.get(nul + 1..nul + 1 + format.len())?;
    let entry = TreeEntry {
        mode: EntryMode::from_bits(bits),
        name: Cow::Borrowed(&rest[..nul]),
        oid: Oid::from_bytes(oid).ok()?,
    };
    Some((entry, digits[0] == b'0', &rest[nul + 1 + format.len()..]))
}

/// Git's order of tree entries: by name, directories as if they ended in a slash.
pub(crate) fn name_order(a: &[u8], a_is_tree: bool, b: &[u8], b_is_tree: bool) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        let end = |name: &[u8], is_tree: bool| name.get(common).copied().or(is_tree.then_some(b'/'));
        end(a, a_is_tree).cmp(&end(b, b_is_tree))
    })
}

/// A directory held whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries in git's order.
    pub entries: Vec<TreeEntry<'static>>,
}

impl Tree {
    /// Parses a tree's bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] if the structure is not a tree's.
    pub fn parse(format: ObjectFormat, data: &[u8]) -> Result<Self> {
        let entries =
            tree_entries(format, data).map(|entry| entry.map(TreeEntry::into_owned)).collect::<Result<_>>()?;
        Ok(Self { entries })
    }
}

/// What becomes of one name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeEdit {
    /// The name is this entry now, whatever it was.
    Set(EntryMode, Oid),
    /// The name is gone.
    Remove,
}

/// Makes a tree's new bytes from its old ones and a few edits, copying what is between the edits; untouched
/// entries stay as they are to the byte, zero-padded modes included.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] if the old bytes are not a tree, [`crate::ErrorKind::Invalid`] if an edit has an id of
/// another format.
pub fn edit_tree(format: ObjectFormat, old: &[u8], edits: &BTreeMap<Vec<u8>, TreeEdit>) -> Result<Vec<u8>> {
    let mut sets: Vec<(&[u8], EntryMode, Oid)> = Vec::with_capacity(edits.len());
    for (name, edit) in edits {
        if let TreeEdit::Set(mode, oid) = edit {
            format.check(oid)?;
            sets.push((name, *mode, *oid));
        }
    }
    sets.sort_by(|a, b| name_order(a.0, a.1.is_tree(), b.0, b.1.is_tree()));
    // What the new tree is made of: runs of old entries that stay, and new entries between them. So it is written once,
    // in as many bytes as it has, for most trees that are made are kept.
    let mut pieces: Vec<Piece<'_>> = Vec::with_capacity(2 * edits.len() + 1);
    let mut sets = sets.into_iter().peekable();
    let (mut run, mut at) = (0, 0);
    while at < old.len() {
        let (entry, _, after) = split_entry(format, &old[at..]).ok_or_else(|| Error::corrupt("malformed tree"))?;
        let end = old.len() - after.len();
        let is_before = |(name, mode, _): &(&[u8], EntryMode, Oid)| {
            name_order(name, mode.is_tree(), &entry.name, entry.mode.is_tree()) == Ordering::Less
        };
        while let Some(set) = sets.next_if(is_before) {
            pieces.push(Piece::Kept(&old[run..at]));
            pieces.push(Piece::Set(set));
            run = at;
        }
        if edits.contains_key(&*entry.name) {
            pieces.push(Piece::Kept(&old[run..at]));
            run = end;
        }
        at = end;
    }
    pieces.push(Piece::Kept(&old[run..]));
    pieces.extend(sets.map(Piece::Set));
    let mut out = Vec::with_capacity(pieces.iter().map(Piece::len).sum());
    for piece in pieces {
        match piece {
            Piece::Kept(entries) => out.extend_from_slice(entries),
            Piece::Set((name, mode, oid)) => write_entry(&mut out, mode, name, oid),
        }
    }
    Ok(out)
}

/// A part of a new tree.
enum Piece<'a> {
    Kept(&'a [u8]),
    Set((&'a [u8], EntryMode, Oid)),
}

impl Piece<'_> {
    /// Bytes that it takes.
    fn len(&self) -> usize {
        match self {
            Piece::Kept(entries) => entries.len(),
            Piece::Set((name, mode, oid)) => mode.digits() as usize + name.len() + oid.format().len() + 2,
        }
    }
}

fn write_entry(out: &mut Vec<u8>, mode: EntryMode, name: &[u8], oid: Oid) {
    let bits = mode.bits();
    out.extend((0..mode.digits()).rev().map(|at| b'0' + (bits >> (3 * at) & 7) as u8));
    out.push(b' ');
    out.extend_from_slice(name);
    out.push(0);
    out.extend_from_slice(oid.as_bytes());
}
