//! What attributes make of a file's bytes on their way out: line ends and `$Id$`.
//!
//! A server has no settings of a working tree and ends lines with LF, so of `text` and `eol` only what ends in CRLF
//! changes anything. Source: git's `Documentation/gitattributes`, "Effects".

use bytes::Bytes;
use govc_engine::{Kind, ObjectFormat, Result, hash_object};

use super::attributes::{Name, Value, Values};

/// How line ends are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crlf {
    Never,
    Always,
    /// If the file looks like a text that has no CR yet.
    OfText,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conversion {
    crlf: Crlf,
    ident: bool,
}

impl Conversion {
    /// What attributes ask for.
    pub(super) fn of(values: &Values) -> Self {
        let says = |name: Name, text: &[u8]| matches!(values.get(name), Value::Text(value) if value == text);
        let said = |name: Name| match values.get(name) {
            Value::Set => Some("text"),
            Value::Unset => Some("binary"),
            Value::Text(text) if text == b"input" => Some("text"),
            Value::Text(text) if text == b"auto" => Some("auto"),
            _ => None,
        };
        let crlf = match said(Name::Text).or_else(|| said(Name::Crlf)) {
            _ if !says(Name::Eol, b"crlf") => Crlf::Never,
            Some("binary") => Crlf::Never,
            Some("auto") => Crlf::OfText,
            _ => Crlf::Always,
        };
        Self { crlf, ident: *values.get(Name::Ident) == Value::Set }
    }

    /// Whether a file stays as it is, whatever it is.
    pub(super) fn is_nothing(self) -> bool {
        self.crlf == Crlf::Never && !self.ident
    }

    /// The bytes that go into the archive of a repository of the `format`.
    ///
    /// # Errors
    /// When the bytes cannot be hashed.
    pub(super) fn apply(self, format: ObjectFormat, data: Bytes) -> Result<Bytes> {
        let data = if self.ident { with_ids(format, data)? } else { data };
        let stats = match self.crlf {
            Crlf::Never => return Ok(data),
            Crlf::Always | Crlf::OfText => Stats::of(&data),
        };
        let converts = stats.lf_alone > 0 && (self.crlf == Crlf::Always || stats.is_text_without_cr(&data));
        Ok(if converts { with_crlf(&data, stats.lf_alone) } else { data })
    }
}

/// What a file consists of.
#[derive(Debug, Default)]
struct Stats {
    lf_alone: usize,
    cr: usize,
    nul: usize,
    printable: usize,
    other: usize,
}

impl Stats {
    fn of(data: &[u8]) -> Self {
        let mut stats = Self::default();
        let mut before = 0;
        for byte in data {
            match byte {
                b'\r' => stats.cr += 1,
                b'\n' => stats.lf_alone += usize::from(before != b'\r'),
                0x08 | b'\t' | 0x1b | 0x0c => stats.printable += 1,
                0 => {
                    stats.nul += 1;
                    stats.other += 1;
                }
                1..=31 | 127 => stats.other += 1,
                _ => stats.printable += 1,
            }
            before = *byte;
        }
        stats
    }

    fn is_text_without_cr(&self, data: &[u8]) -> bool {
        // DOS ended texts so.
        let other = self.other - usize::from(data.last() == Some(&0x1a));
        self.cr == 0 && self.nul == 0 && self.printable >> 7 >= other
    }
}

fn with_crlf(data: &[u8], lf_alone: usize) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + lf_alone);
    let mut before = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) if text.last().copied().unwrap_or(before) != b'\r' => {
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(line),
        }
        before = b'\n';
    }
    out.into()
}

/// Puts the blob's id into each `$Id$`, and into each that has a git's id already.
fn with_ids(format: ObjectFormat, data: Bytes) -> Result<Bytes> {
    let mut out = Vec::new();
    let mut id = String::new();
    let mut rest: &[u8] = &data;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        let (text, after) = rest.split_at(at + 1);
        rest = after;
        out.extend_from_slice(text);
        let Some(after) = keyword(rest) else { continue };
        if id.is_empty() {
            id = hash_object(format, Kind::Blob, &data)?.to_string();
        }
        out.extend_from_slice(format!("Id: {id} $").as_bytes());
        rest = after;
    }
    if id.is_empty() {
        return Ok(data);
    }
    out.extend_from_slice(rest);
    Ok(out.into())
}

/// What follows `Id$` or `Id: … $`, if the text begins with that and no other system wrote it.
fn keyword(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"Id")?;
    if let Some(rest) = rest.strip_prefix(b"$") {
        return Some(rest);
    }
    let rest = rest.strip_prefix(b":")?;
    let end = rest.iter().position(|byte| matches!(byte, b'$' | b'\n')).filter(|end| rest.get(*end) == Some(&b'$'))?;
    let (inner, after) = rest.split_at(end);
    let space = inner.iter().skip(1).position(|byte| *byte == b' ').map(|at| at + 1);
    match space {
        Some(at) if at + 1 < inner.len() => None,
        _ => after.get(1..),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use govc_engine::{Kind, ObjectFormat, hash_object};

    use super::super::attributes::Rules;
    use super::Conversion;

    fn converted(rule: &str, data: &str) -> String {
        converted_of(ObjectFormat::Sha1, rule, data)
    }

    fn converted_of(format: ObjectFormat, rule: &str, data: &str) -> String {
        let values = Rules::new(format!("f {rule}\n").as_bytes()).expect("one rule").of(b"f").expect("one rule");
        let data = Conversion::of(&values).apply(format, Bytes::copy_from_slice(data.as_bytes())).expect("bytes");
        String::from_utf8(data.to_vec()).expect("a text")
    }

    #[test]
    fn line_ends_follow_the_attributes() {
        for rule in ["eol=crlf", "text eol=crlf", "text=auto eol=crlf", "crlf eol=crlf", "text=input eol=crlf"] {
            assert_eq!(converted(rule, "a\nb\n"), "a\r\nb\r\n", "{rule}");
        }
        for rule in ["text", "-text eol=crlf", "binary eol=crlf", "eol=lf", "crlf", "-crlf eol=crlf", "eol"] {
            assert_eq!(converted(rule, "a\nb\n"), "a\nb\n", "{rule}");
        }
        assert_eq!(converted("eol=crlf", "a\r\nb\n\nc"), "a\r\nb\r\n\r\nc");
        assert_eq!(converted("text=auto eol=crlf", "a\r\nb\n"), "a\r\nb\n", "it has some already");
        assert_eq!(converted("text=auto eol=crlf", "a\0b\n"), "a\0b\n");
        assert_eq!(converted("text=auto eol=crlf", "\u{1}\n"), "\u{1}\n");
        assert_eq!(converted("text=auto eol=crlf", "a\n\u{1a}"), "a\r\n\u{1a}");
    }

    #[test]
    fn ids_are_put_in() {
        for format in ObjectFormat::ALL {
            for text in ["x $Id$ y", "x $Id:$ y", "x $Id: old $ y"] {
                let id = hash_object(format, Kind::Blob, text.as_bytes()).expect("an id");
                assert_eq!(converted_of(format, "ident", text), format!("x $Id: {id} $ y"));
            }
        }
        for text in ["$Id", "$Id: a\nb $", "$Id: rcs 1.2 ada $", "$Idea$", "no", "$$Id"] {
            assert_eq!(converted("ident", text), text);
        }
        let text = "$$Id$$Id$";
        let id = hash_object(ObjectFormat::Sha1, Kind::Blob, text.as_bytes()).expect("an id");
        assert_eq!(converted("ident", text), format!("$$Id: {id} $$Id: {id} $"));
    }
}
