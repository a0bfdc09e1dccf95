//! pkt-lines: git's framing of everything but packs. The one module that knows `gix-packetline`.
//!
//! Reading is bounded: a line has at most 65516 bytes, a length of 3 or 4 or anything that is not hexadecimal is an
//! error, and no byte after a line is ever taken, so that what follows (a pack) can be read from the same input.
//! Source: git's `Documentation/gitprotocol-common`.

use std::fmt;
use std::io::{self, Read, Write};

use gix_packetline::{
    PacketLineRef,
    decode::{PacketLineOrWantedSize, hex_prefix},
};
use govc_engine::{Error, ErrorKind, Result};

/// The most bytes that a line carries.
pub(crate) const DATA_LEN_MAX: usize = 65516;

const PREFIX_LEN: usize = 4;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// One line as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Content, as it is.
    Data(&'a [u8]),
    /// The end of a message or of a list.
    Flush,
    /// The border of two sections of a version 2 message.
    Delimiter,
    /// The end of a version 2 response; never valid in a request.
    ResponseEnd,
    /// The input ended where a line would begin.
    Eof,
}

impl<'a> Line<'a> {
    /// The content without the one newline that text lines end with; `None` for what carries no content.
    pub(crate) fn text(self) -> Option<&'a [u8]> {
        match self {
            Line::Data(data) => Some(data.strip_suffix(b"\n").unwrap_or(data)),
            Line::Flush | Line::Delimiter | Line::ResponseEnd | Line::Eof => None,
        }
    }
}

/// Reads lines from an input, and nothing beyond them.
pub(crate) struct Reader<R> {
    input: R,
    line: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// A reader of the lines of `input`.
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::new() }
    }

    /// The input, standing right after the last line.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next line.
    ///
    /// # Errors
    /// `Invalid` for a malformed length or an input that ends within a line, else what the input fails with.
    pub(crate) fn read(&mut self) -> Result<Line<'_>> {
        let mut prefix = [0u8; PREFIX_LEN];
        match read_up_to(&mut self.input, &mut prefix)? {
            0 => return Ok(Line::Eof),
            PREFIX_LEN => {}
            _ => return Err(ended_early()),
        }
        let malformed = || {
            let shown = String::from_utf8_lossy(&prefix).escape_debug().to_string();
            Error::invalid(format!("protocol error: bad line length '{shown}'"))
        };
        let wanted = match hex_prefix(&prefix).map_err(|_| malformed())? {
            PacketLineOrWantedSize::Line(PacketLineRef::Flush) => return Ok(Line::Flush),
            PacketLineOrWantedSize::Line(PacketLineRef::Delimiter) => return Ok(Line::Delimiter),
            PacketLineOrWantedSize::Line(PacketLineRef::ResponseEnd) => return Ok(Line::ResponseEnd),
            PacketLineOrWantedSize::Line(PacketLineRef::Data(_)) => return Err(malformed()),
            PacketLineOrWantedSize::Wanted(wanted) => usize::from(wanted),
        };
        if wanted > DATA_LEN_MAX {
            return Err(malformed());
        }
        self.line.clear();
        self.line.resize(wanted, 0);
        if read_up_to(&mut self.input, &mut self.line)? < wanted {
            return Err(ended_early());
        }
        Ok(Line::Data(&self.line))
    }
}

fn ended_early() -> Error {
    Error::invalid("protocol error: the request ended within a line")
}

/// Fills `into` as far as the input lasts.
fn read_up_to(input: &mut impl Read, into: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(input_error(error)),
        }
    }
    Ok(filled)
}

/// What a failed read of the request, or a failed write of the response, means.
pub(crate) fn input_error(error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => ErrorKind::Invalid,
        io::ErrorKind::FileTooLarge => ErrorKind::TooLarge,
        _ => ErrorKind::Cancelled,
    };
    Error::new(kind, error.to_string()).with_source(error)
}

/// Writes one line of content.
///
/// # Errors
/// `InvalidInput` for content longer than [`DATA_LEN_MAX`], else what `out` fails with.
pub(crate) fn data(out: &mut dyn Write, content: &[u8]) -> io::Result<()> {
    if content.len() > DATA_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a line of the response is too long"));
    }
    let len = content.len() + PREFIX_LEN;
    let digit = |shift: usize| HEX_DIGITS[len >> shift & 0xf];
    out.write_all(&[digit(12), digit(8), digit(4), digit(0)])?;
    out.write_all(content)
}

/// Writes one line of text; the caller says whether it ends with a newline.
///
/// # Errors
/// As [`data`].
pub(crate) fn text(out: &mut dyn Write, text: fmt::Arguments<'_>) -> io::Result<()> {
    match text.as_str() {
        Some(text) => data(out, text.as_bytes()),
        None => data(out, text.to_string().as_bytes()),
    }
}

/// Writes the line that makes a client stop and show `message`.
///
/// # Errors
/// What `out` fails with.
pub(crate) fn error(out: &mut dyn Write, message: &str) -> io::Result<()> {
    text(out, format_args!("ERR {}\n", one_line(message)))
}

/// Writes the end of a message or list.
///
/// # Errors
/// What `out` fails with.
pub(crate) fn flush(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"0000")
}

/// Writes the border between two sections of a version 2 message.
///
/// # Errors
/// What `out` fails with.
pub(crate) fn delimiter(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"0001")
}

/// A message that fits a protocol line and a terminal: no control characters, not endless.
pub(crate) fn one_line(message: &str) -> String {
    const CHARS_MAX: usize = 1000;
    message.chars().take(CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(mut input: &[u8]) -> Result<Vec<String>> {
        let mut reader = Reader::new(&mut input);
        let mut seen = Vec::new();
        loop {
            match reader.read()? {
                Line::Eof => return Ok(seen),
                Line::Data(data) => seen.push(String::from_utf8_lossy(data).into_owned()),
                other => seen.push(format!("{other:?}")),
            }
        }
    }

    #[test]
    fn every_kind_of_line_is_told_apart() {
        assert_eq!(lines(b"0006a\n00000005b00010002").unwrap(), ["a\n", "Flush", "b", "Delimiter", "ResponseEnd"]);
    }

    #[test]
    fn malformed_lengths_are_errors() {
        for bad in ["0003", "0004", "00", "zzzz", "+123", "-001", "fff1x", "ffff", "0009abc"] {
            let error = lines(bad.as_bytes()).expect_err(bad);
            assert_eq!(*error.kind(), ErrorKind::Invalid, "{bad}");
        }
    }

    #[test]
    fn the_longest_line_fits_and_one_more_byte_does_not() {
        let mut out = Vec::new();
        data(&mut out, &vec![b'x'; DATA_LEN_MAX]).unwrap();
        assert!(out.starts_with(b"fff0"));
        assert_eq!(lines(&out).unwrap()[0].len(), DATA_LEN_MAX);
        let mut longer = b"fff1".to_vec();
        longer.resize(4 + DATA_LEN_MAX + 1, b'x');
        assert!(lines(&longer).is_err());
        assert!(data(&mut Vec::new(), &vec![b'x'; DATA_LEN_MAX + 1]).is_err());
    }

    #[test]
    fn nothing_is_read_beyond_the_last_line() {
        let mut reader = Reader::new(&b"0006a\n0000PACK"[..]);
        assert_eq!(reader.read().unwrap().text(), Some(&b"a"[..]));
        assert_eq!(reader.read().unwrap(), Line::Flush);
        assert_eq!(reader.into_inner(), b"PACK");
    }

    #[test]
    fn errors_stay_on_one_line() {
        let mut out = Vec::new();
        error(&mut out, "a\nb\u{1b}[31m").unwrap();
        assert_eq!(lines(&out).unwrap(), ["ERR a b [31m\n"]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(contents in proptest::collection::vec(
            proptest::collection::vec(proptest::num::u8::ANY, 1..300), 0..20)
        ) {
            let mut out = Vec::new();
            for content in &contents {
                data(&mut out, content).unwrap();
            }
            let mut reader = Reader::new(&out[..]);
            for content in &contents {
                assert_eq!(reader.read().unwrap(), Line::Data(content));
            }
            assert_eq!(reader.read().unwrap(), Line::Eof);
        }
    }
}
