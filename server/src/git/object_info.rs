//! Version 2's `object-info`: sizes of objects, without the objects.
//!
//! Source: git's `protocol-caps.c`, `Documentation/gitprotocol-v2`.

use std::collections::HashSet;
use std::io::{Read, Write};

use govc_engine::{Error, ObjectFormat, Oid, Result, Snapshot};

use super::pkt::{self, Line, Reader};

/// The most objects that one request may ask about.
const OIDS_MAX: usize = 1 << 18;
/// Objects that are asked for at once.
const HEADERS_AT_ONCE: usize = 4096;

/// The arguments of the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ObjectInfo {
    size: bool,
    /// In the order of the request.
    pub(crate) oids: Vec<Oid>,
}

impl ObjectInfo {
    /// Reads the arguments up to the flush; ids are of the `format`.
    ///
    /// # Errors
    /// `Invalid` for an unknown argument or an end that is not a flush, `TooLarge` for more than 262 144 objects.
    pub(crate) fn read<R: Read>(format: ObjectFormat, reader: &mut Reader<R>) -> Result<Self> {
        let mut arguments = Self::default();
        loop {
            let line = reader.read()?;
            let text = match line {
                Line::Flush => return Ok(arguments),
                Line::Data(_) => line.text().unwrap_or_default(),
                _ => return Err(Error::invalid("object-info: expected flush after arguments")),
            };
            let shown = || pkt::one_line(&String::from_utf8_lossy(text));
            match text.strip_prefix(b"oid ") {
                _ if text == b"size" => arguments.size = true,
                Some(_) if arguments.oids.len() >= OIDS_MAX => {
                    return Err(Error::too_large(format!("object-info: more than {OIDS_MAX} objects are asked for")));
                }
                Some(hex) => arguments.oids.push(format.oid_from_hex(hex).map_err(|_| {
                    Error::invalid(format!("object-info: protocol error, expected to get oid, not '{}'", shown()))
                })?),
                None => return Err(Error::invalid(format!("object-info: unexpected line: '{}'", shown()))),
            }
        }
    }

    /// Writes the response. Of what is `missing` for the client nothing is said, as of what does not exist.
    ///
    /// # Errors
    /// What reading the objects or `out` fails with.
    pub(crate) fn answer(&self, snapshot: &Snapshot, missing: &HashSet<Oid>, out: &mut dyn Write) -> Result<()> {
        if !self.oids.is_empty() && self.size {
            pkt::text(out, format_args!("size")).map_err(pkt::input_error)?;
        }
        for oids in self.oids.chunks(HEADERS_AT_ONCE) {
            for (oid, header) in oids.iter().zip(snapshot.headers(oids)?) {
                let written = match header.filter(|_| !missing.contains(oid)) {
                    Some((_, size)) if self.size => pkt::text(out, format_args!("{oid} {size}")),
                    Some(_) => pkt::text(out, format_args!("{oid}")),
                    // Unlike one that is there and of which nothing more was asked.
                    None => pkt::text(out, format_args!("{oid} ")),
                };
                written.map_err(pkt::input_error)?;
            }
        }
        pkt::flush(out).map_err(pkt::input_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Result<ObjectInfo> {
        let mut request = Vec::new();
        for line in lines {
            pkt::data(&mut request, line.as_bytes()).unwrap();
        }
        pkt::flush(&mut request).unwrap();
        ObjectInfo::read(ObjectFormat::Sha1, &mut Reader::new(&request[..]))
    }

    #[test]
    fn arguments_are_read() {
        let oid = Oid::empty_tree(ObjectFormat::Sha1);
        let expected = ObjectInfo { size: true, oids: vec![oid, oid] };
        assert_eq!(parse(&["size\n", &format!("oid {oid}\n"), &format!("oid {oid}")]).unwrap(), expected);
        assert_eq!(parse(&[]).unwrap(), ObjectInfo::default());
        let other = format!("oid {}", Oid::empty_tree(ObjectFormat::Sha256));
        for line in ["type", "oid", "oid 12", "oid ", "sizes", &other] {
            assert!(parse(&[line]).is_err(), "{line}");
        }
        assert!(ObjectInfo::read(ObjectFormat::Sha1, &mut Reader::new(&b"0008size"[..])).is_err(), "no flush");
    }
}
