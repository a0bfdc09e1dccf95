//! What a file's own first bytes say about its language: a shebang, an editor's modeline, an XML declaration, or
//! linguist's heuristics for its extension.
//!
//! Every look is bounded by [`HEAD_BYTES`], so that a file of any size and shape costs the same at most.

use memchr::memmem;

use super::Language;
use super::catalog::Catalog;

/// How much of a file is looked at. Linguist takes 50 KiB; nearly all evidence stands at the beginning.
pub(crate) const HEAD_BYTES: usize = 8 << 10;

/// Modelines stand in the first or last lines; this much of each end holds nearly all of them.
const MODELINE_BYTES: usize = 512;

/// One of these is in every modeline.
const MODELINE_MARKS: [&[u8]; 4] = [b"-*-", b"vim:", b"vi:", b"ex:"];

/// Longest shebang read, which is more than any kernel reads.
const SHEBANG_BYTES_MAX: usize = 512;

/// The language that the file itself names, in a shebang or a modeline.
pub(super) fn declared(content: &[u8]) -> Option<Language> {
    let interpreted = interpreter(content).and_then(by_interpreter);
    interpreted.or_else(|| by_modeline(content))
}

/// XML, if the file begins with its declaration.
pub(super) fn xml(content: &[u8]) -> Option<Language> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let declared = content.trim_ascii_start().starts_with(b"<?xml ");
    declared.then(|| Catalog::get().by_name("XML")).flatten()
}

/// The language that linguist's heuristics for `extension` (lower case, with its dot) see in `content`.
///
/// None if there are no heuristics, if none of them is sure, or if one gives up on a hostile text.
pub(super) fn by_heuristics(extension: &[u8], content: &[u8]) -> Option<Language> {
    let extension = std::str::from_utf8(extension).ok()?;
    let head = String::from_utf8_lossy(content.get(..HEAD_BYTES).unwrap_or(content));
    // The crate wants a path; any will do as long as the extension is in the case of its rules.
    let found = linguist::disambiguate(format!("x{extension}"), &head).ok()?;
    Catalog::get().by_name(found.first()?.name)
}

/// The program that runs this script, by its shebang: the last part of its path, or `env`'s first argument.
fn interpreter(content: &[u8]) -> Option<&[u8]> {
    let head = content.strip_prefix(b"#!")?;
    let head = head.get(..SHEBANG_BYTES_MAX).unwrap_or(head);
    let line = head.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let program = file_name(words.next()?);
    if program != b"env" {
        return Some(program);
    }
    let argument = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    Some(file_name(argument))
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Looks `python3.11` up as such, then as `python3`, then as `python`.
fn by_interpreter(name: &[u8]) -> Option<Language> {
    let catalog = Catalog::get();
    let minor = name.iter().rposition(|&byte| byte == b'.').and_then(|dot| name.get(..dot));
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let plain = name.get(..name.len().saturating_sub(digits));
    [Some(name), minor, plain].into_iter().flatten().find_map(|name| catalog.by_interpreter(name))
}

/// The language of an Emacs or Vim modeline at either end of the file; of a file that is longer than its head, at its
/// beginning.
fn by_modeline(content: &[u8]) -> Option<Language> {
    let start = content.get(..MODELINE_BYTES).unwrap_or(content);
    let is_whole = content.len() < HEAD_BYTES;
    let end = content.get(content.len().saturating_sub(MODELINE_BYTES)..).filter(|_| is_whole).unwrap_or_default();
    [start, end].into_iter().find_map(|part| {
        // The patterns cost some 20 µs, so only what looks like a modeline is given to them.
        if MODELINE_MARKS.iter().all(|mark| memmem::find(part, mark).is_none()) {
            return None;
        }
        let found = linguist::detect_language_by_modeline(&String::from_utf8_lossy(part)).ok()?;
        Catalog::get().by_name(found.first()?.name)
    })
}
