//! The checks that git's fsck makes of an object's syntax, with the severity that a server gives each.
//!
//! Two severities: *refuse* is what git calls an error about structure, and everything that has been used to
//! attack a checkout (`..`, `.git` and its aliases on HFS+ and NTFS, slashes, empty names); *accept* is what real
//! histories are known to contain (zero-padded and odd modes, malformed identities and dates, missing taggers).
//! Names are git's message ids (Documentation/fsck-msgids.adoc).

use std::{cmp::Ordering, fmt};

use gix_object::bstr::{BStr, ByteSlice};
use gix_validate::path::component::{Error as NameError, Mode, Options};

use super::{
    Kind, ObjectFormat,
    tree::{name_order, split_entry},
};

/// How a finding is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckLevel {
    /// Known from real histories, harmless; stored as it is.
    Accept,
    /// Never stored.
    Refuse,
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is treated.
    pub level: CheckLevel,
    /// Git's message id, such as `hasDotgit`.
    pub id: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// Checks an object's syntax; the worst finding, or `None` if there is nothing to say. An id of another format than this
/// is none.
pub fn check_object(format: ObjectFormat, kind: Kind, data: &[u8]) -> Option<Finding> {
    match kind {
        Kind::Blob => None,
        Kind::Tree => check_tree(format, data),
        Kind::Commit => check_commit(format, data).err(),
        Kind::Tag => check_tag(format, data).err(),
    }
}

fn refuse(id: &'static str) -> Finding {
    Finding { level: CheckLevel::Refuse, id }
}

fn accept(id: &'static str) -> Finding {
    Finding { level: CheckLevel::Accept, id }
}

/// The last entries that a later directory could repeat: `foo`, then `foo.bar`, then `foo/`.
#[derive(Default)]
struct DirectoryCandidates<'a>(Vec<&'a [u8]>);

impl<'a> DirectoryCandidates<'a> {
    /// Takes the next entry in order; whether a file of the directory's name came before.
    fn repeats(&mut self, name: &'a [u8], is_tree: bool) -> bool {
        while let Some(candidate) = self.0.last() {
            match name.strip_prefix(*candidate) {
                Some([]) => return is_tree,
                Some([next, ..]) if *next < b'/' => break,
                _ => {
                    self.0.pop();
                }
            }
        }
        if !is_tree {
            self.0.push(name);
        }
        false
    }
}

fn check_tree(format: ObjectFormat, data: &[u8]) -> Option<Finding> {
    let mut worst = None;
    let mut candidates = DirectoryCandidates::default();
    let mut previous: Option<(&[u8], bool)> = None;
    let mut rest = data;
    while !rest.is_empty() {
        let Some((entry, zero_padded, after)) = split_entry(format, rest) else { return Some(refuse("badTree")) };
        // The borrowed name, tied to `data` instead of to the entry.
        let start = rest.len() - after.len() - format.len() - 1 - entry.name.len();
        let name = &rest[start..start + entry.name.len()];
        rest = after;
        if let Some(finding) = check_name(name, entry.mode.bits() & 0o170_000 == 0o120_000) {
            return Some(finding);
        }
        if entry.oid.is_null() {
            return Some(refuse("nullSha1"));
        }
        if zero_padded {
            worst = Some(accept("zeroPaddedFilemode"));
        }
        match entry.mode.bits() {
            0o100_644 | 0o100_755 | 0o120_000 | 0o040_000 | 0o160_000 => {}
            _ if entry.mode.is_tree() || entry.mode.is_blob() || entry.mode.is_submodule() => {
                worst = Some(accept("badFilemode"));
            }
            _ => return Some(refuse("badFilemode")),
        }
        let is_tree = entry.mode.is_tree();
        if let Some((before, before_is_tree)) = previous {
            match name_order(before, before_is_tree, name, is_tree) {
                _ if before == name => return Some(refuse("duplicateEntries")),
                Ordering::Less => {}
                _ => return Some(refuse("treeNotSorted")),
            }
        }
        if candidates.repeats(name, is_tree) {
            return Some(refuse("duplicateEntries"));
        }
        previous = Some((name, is_tree));
    }
    worst
}

/// Why no checkout may create a file of this name, if so; for paths that come over HTTP.
pub(crate) fn check_path_component(name: &[u8], is_symlink: bool) -> Option<Finding> {
    if name.contains(&0) {
        return Some(refuse("nulInName"));
    }
    // Where a backslash separates, these would climb out.
    if name.split(|b| *b == b'\\').any(|part| part == b"..") {
        return Some(refuse("hasDotdot"));
    }
    check_name(name, is_symlink)
}

/// Refuses names that no checkout may create; almost all names are cleared by their first byte.
fn check_name(name: &[u8], is_symlink: bool) -> Option<Finding> {
    if name.is_empty() {
        return Some(refuse("emptyName"));
    }
    if name.len() > 4096 {
        return Some(refuse("largePathname"));
    }
    let suspicious = matches!(name[0], b'.' | b'g' | b'G' | 0xe2 | 0xef) || name.find_byteset(b"/\\").is_some();
    if !suspicious {
        return None;
    }
    let options = Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };
    let mode = is_symlink.then_some(Mode::Symlink);
    // Git looks behind each backslash, which NTFS takes for a slash.
    for part in std::iter::once(name).chain(name.split(|b| *b == b'\\').skip(1)) {
        match gix_validate::path::component(BStr::new(part), mode, options) {
            Err(NameError::Relative) if part.len() == name.len() => {
                return Some(refuse(if name == b"." { "hasDot" } else { "hasDotdot" }));
            }
            Err(NameError::DotGitDir) => return Some(refuse("hasDotgit")),
            Err(NameError::PathSeparator) => return Some(refuse("fullPathname")),
            Err(NameError::SymlinkedGitModules) => return Some(refuse("gitmodulesSymlink")),
            _ => {}
        }
    }
    None
}

/// Splits the next line off, without its newline.
fn take_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.find_byte(b'\n').unwrap_or(rest.len());
    let line = &rest[..end];
    *rest = &rest[(end + 1).min(rest.len())..];
    line
}

/// Takes the next line if it begins with `key`.
fn take_header<'a>(rest: &mut &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    rest.starts_with(key).then(|| &take_line(rest)[key.len()..])
}

fn check_header_end(data: &[u8]) -> Result<(), Finding> {
    let headers = data.find(b"\n\n").map_or(data, |end| &data[..end + 1]);
    if headers.contains(&0) {
        return Err(refuse("nulInHeader"));
    }
    if headers.last() != Some(&b'\n') {
        return Err(refuse("unterminatedHeader"));
    }
    Ok(())
}

fn check_commit(format: ObjectFormat, data: &[u8]) -> Result<(), Finding> {
    check_header_end(data)?;
    let mut rest = data;
    let tree = take_header(&mut rest, b"tree ").ok_or(refuse("missingTree"))?;
    format.oid_from_hex(tree).map_err(|_| refuse("badTreeSha1"))?;
    while let Some(parent) = take_header(&mut rest, b"parent ") {
        format.oid_from_hex(parent).map_err(|_| refuse("badParentSha1"))?;
    }
    let author = take_header(&mut rest, b"author ").ok_or(refuse("missingAuthor"))?;
    if rest.starts_with(b"author ") {
        return Err(refuse("multipleAuthors"));
    }
    let committer = take_header(&mut rest, b"committer ").ok_or(refuse("missingCommitter"))?;
    check_identity(author)?;
    check_identity(committer)?;
    if data.contains(&0) {
        return Err(accept("nulInCommit"));
    }
    Ok(())
}

fn check_tag(format: ObjectFormat, data: &[u8]) -> Result<(), Finding> {
    check_header_end(data)?;
    let mut rest = data;
    let target = take_header(&mut rest, b"object ").ok_or(refuse("missingObject"))?;
    format.oid_from_hex(target).map_err(|_| refuse("badObjectSha1"))?;
    let kind = take_header(&mut rest, b"type ").ok_or(refuse("missingTypeEntry"))?;
    Kind::from_word(kind).ok_or(refuse("badType"))?;
    let name = take_header(&mut rest, b"tag ").ok_or(refuse("missingTagEntry"))?;
    let full_name = [b"refs/tags/", name].concat();
    let named = gix_validate::reference::name(BStr::new(&full_name)).is_ok();
    match take_header(&mut rest, b"tagger ") {
        Some(tagger) => check_identity(tagger)?,
        None => return Err(accept("missingTaggerEntry")),
    }
    if named { Ok(()) } else { Err(accept("badTagName")) }
}

/// Identities are never refused: histories of the last century hold every kind of malformed one.
fn check_identity(line: &[u8]) -> Result<(), Finding> {
    let open = line.find_byte(b'<').ok_or(accept("missingEmail"))?;
    if open == 0 {
        return Err(accept("missingNameBeforeEmail"));
    }
    if line[..open].contains(&b'>') {
        return Err(accept("badName"));
    }
    if line[open - 1] != b' ' {
        return Err(accept("missingSpaceBeforeEmail"));
    }
    let close = line[open + 1..].find_byteset(b"<>").map(|at| open + 1 + at).ok_or(accept("badEmail"))?;
    if line[close] != b'>' {
        return Err(accept("badEmail"));
    }
    let time = line[close + 1..].strip_prefix(b" ").ok_or(accept("missingSpaceBeforeDate"))?;
    let (seconds, zone) = time.trim_start().split_once_str(" ").ok_or(accept("badDate"))?;
    if seconds.is_empty() || !seconds.iter().all(u8::is_ascii_digit) {
        return Err(accept("badDate"));
    }
    if seconds.len() > 1 && seconds[0] == b'0' {
        return Err(accept("zeroPaddedDate"));
    }
    if seconds.to_str().ok().and_then(|digits| digits.parse::<i64>().ok()).is_none() {
        return Err(accept("badDateOverflow"));
    }
    match zone {
        [b'+' | b'-', digits @ ..] if digits.len() == 4 && digits.iter().all(u8::is_ascii_digit) => Ok(()),
        _ => Err(accept("badTimezone")),
    }
}
