//! Version 2's `ls-refs`: the references of a snapshot under the wanted prefixes, HEAD first.
//!
//! Source: git's `ls-refs.c`, `Documentation/gitprotocol-v2`.

use std::io::{Read, Write};

use bytes::Bytes;
use govc_engine::{Error, Oid, Result, Snapshot};

use super::advertise::peeled;
use super::listings::Listings;
use super::pkt::{self, Line, Reader};
use super::visible::Visible;

/// With this many prefixes, all references are listed instead: a prefix is a hint, never a filter to rely on.
const PREFIXES_MAX: usize = 65536;
/// Lists of repositories with more references are made as they are sent.
const KEPT_REFERENCES_MAX: usize = 10_000;
/// What the allocator adds to a prefix.
const ALLOCATION_BYTES: usize = 16;
/// Where realities are, which are advertised to nobody who does not ask for them.
const REALITIES: &[u8] = b"refs/realities/";

/// The arguments of the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LsRefs {
    peel: bool,
    symrefs: bool,
    unborn: bool,
    /// Sorted, none a prefix of another; empty for all references.
    prefixes: Vec<Vec<u8>>,
}

impl LsRefs {
    /// Reads the arguments up to the flush.
    ///
    /// # Errors
    /// `Invalid` for an unknown argument or an end that is not a flush.
    pub(crate) fn read<R: Read>(reader: &mut Reader<R>) -> Result<Self> {
        let mut arguments = Self::default();
        let mut too_many = false;
        loop {
            let line = reader.read()?;
            let text = match line {
                Line::Flush => break,
                Line::Data(_) => line.text().unwrap_or_default(),
                _ => return Err(Error::invalid("expected flush after ls-refs arguments")),
            };
            match text {
                b"peel" => arguments.peel = true,
                b"symrefs" => arguments.symrefs = true,
                b"unborn" => arguments.unborn = true,
                _ => match text.strip_prefix(b"ref-prefix ") {
                    Some(_) if arguments.prefixes.len() >= PREFIXES_MAX => too_many = true,
                    Some(prefix) => arguments.prefixes.push(prefix.to_vec()),
                    None => {
                        let shown = String::from_utf8_lossy(text);
                        return Err(Error::invalid(format!("unexpected line: '{shown}'")));
                    }
                },
            }
        }
        if too_many {
            arguments.prefixes.clear();
        }
        arguments.prefixes.sort_unstable();
        // In this order a prefix stands right before all that it covers.
        arguments.prefixes.dedup_by(|later, earlier| later.starts_with(earlier));
        Ok(arguments)
    }

    /// Writes the response, or what was the response to somebody else before.
    ///
    /// # Errors
    /// What reading the tags or `out` fails with.
    pub(crate) fn answer(&self, listings: &Listings, snapshot: &Snapshot, out: &mut dyn Write) -> Result<()> {
        let visible = Visible::of(snapshot);
        if snapshot.reference_count() > KEPT_REFERENCES_MAX || self.shows_realities() {
            return self.list(&visible, snapshot, out);
        }
        if let Some(answer) = listings.find(snapshot, visible.rules(), self) {
            return out.write_all(&answer).map_err(pkt::input_error);
        }
        let mut answer = Vec::new();
        self.list(&visible, snapshot, &mut answer)?;
        let answer = Bytes::from(answer.into_boxed_slice());
        listings.keep(snapshot, visible.rules(), self, &answer);
        out.write_all(&answer).map_err(pkt::input_error)
    }

    /// What keeping the arguments takes.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.prefixes.iter().map(|prefix| prefix.len() + size_of::<Vec<u8>>() + ALLOCATION_BYTES).sum()
    }

    fn shows_realities(&self) -> bool {
        self.prefixes.iter().any(|prefix| prefix.starts_with(REALITIES))
    }

    fn list(&self, visible: &Visible<'_>, snapshot: &Snapshot, out: &mut dyn Write) -> Result<()> {
        let mut line = Vec::new();
        if visible.shows_head() {
            self.head_line(visible.head(), snapshot.head().as_bytes(), &mut line);
        }
        if !line.is_empty() {
            pkt::data(out, &line).map_err(pkt::input_error)?;
        }
        let all = [Vec::new()];
        let prefixes = if self.prefixes.is_empty() { &all[..] } else { &self.prefixes[..] };
        for prefix in prefixes {
            for (name, oid) in visible.with_prefix(prefix) {
                let peeled = if self.peel { peeled(snapshot, name.is_branch(), oid)? } else { None };
                reference_line(oid, name.as_bytes(), peeled, &mut line);
                pkt::data(out, &line).map_err(pkt::input_error)?;
            }
            // Realities are for who asks for them.
            if prefix.starts_with(REALITIES) {
                for (name, reality) in visible.realities(prefix) {
                    reference_line(&reality.head, name.as_bytes(), None, &mut line);
                    pkt::data(out, &line).map_err(pkt::input_error)?;
                }
            }
        }
        pkt::flush(out).map_err(pkt::input_error)
    }

    /// The line of HEAD; empty when it is not to be shown.
    fn head_line(&self, head: Option<Oid>, target: &[u8], line: &mut Vec<u8>) {
        line.clear();
        if !self.prefixes.is_empty() && !self.prefixes.iter().any(|prefix| b"HEAD".starts_with(prefix)) {
            return;
        }
        match head {
            Some(oid) => line.extend_from_slice(format!("{oid} HEAD").as_bytes()),
            // An unborn HEAD says nothing but the branch that it names.
            None if self.unborn && self.symrefs => line.extend_from_slice(b"unborn HEAD"),
            None => return,
        }
        if self.symrefs {
            line.extend_from_slice(b" symref-target:");
            line.extend_from_slice(target);
        }
        line.push(b'\n');
    }
}

fn reference_line(oid: &Oid, name: &[u8], peeled: Option<Oid>, line: &mut Vec<u8>) {
    line.clear();
    oid.write_hex(line);
    line.push(b' ');
    line.extend_from_slice(name);
    if let Some(peeled) = peeled {
        line.extend_from_slice(b" peeled:");
        peeled.write_hex(line);
    }
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use govc_engine::ObjectFormat;

    use super::*;

    fn parse(lines: &[&str]) -> Result<LsRefs> {
        let mut request = Vec::new();
        for line in lines {
            pkt::data(&mut request, line.as_bytes()).unwrap();
        }
        pkt::flush(&mut request).unwrap();
        LsRefs::read(&mut Reader::new(&request[..]))
    }

    fn head_line(arguments: &[&str], head: Option<Oid>) -> String {
        let mut line = Vec::new();
        parse(arguments).unwrap().head_line(head, b"refs/heads/main", &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn prefixes_lose_what_another_covers() {
        let arguments = parse(&[
            "peel\n",
            "ref-prefix refs/tags/v1",
            "ref-prefix refs/heads/",
            "ref-prefix refs/tags/",
            "ref-prefix refs/heads/",
            "ref-prefix HEAD",
        ])
        .unwrap();
        assert!(arguments.peel && !arguments.symrefs && !arguments.unborn);
        let prefixes: Vec<_> = arguments.prefixes.iter().map(|p| String::from_utf8_lossy(p)).collect();
        assert_eq!(prefixes, ["HEAD", "refs/heads/", "refs/tags/"]);
    }

    #[test]
    fn an_empty_prefix_covers_everything() {
        let arguments = parse(&["ref-prefix refs/heads/", "ref-prefix "]).unwrap();
        assert_eq!(arguments.prefixes, [Vec::<u8>::new()]);
        assert!(head_line(&["ref-prefix "], Some(ObjectFormat::Sha1.empty_tree())).ends_with(" HEAD\n"));
    }

    #[test]
    fn unknown_arguments_and_a_missing_flush_are_errors() {
        assert!(parse(&["depth 3"]).unwrap_err().to_string().contains("unexpected line: 'depth 3'"));
        assert!(LsRefs::read(&mut Reader::new(&b"0008peel"[..])).is_err());
        assert!(LsRefs::read(&mut Reader::new(&b"0008peel0001"[..])).is_err());
    }

    #[test]
    fn head_is_shown_when_it_is_wanted() {
        let oid = ObjectFormat::Sha1.empty_tree();
        assert_eq!(head_line(&[], Some(oid)), format!("{oid} HEAD\n"));
        assert_eq!(head_line(&["symrefs"], Some(oid)), format!("{oid} HEAD symref-target:refs/heads/main\n"));
        assert_eq!(head_line(&["symrefs", "unborn"], None), "unborn HEAD symref-target:refs/heads/main\n");
        assert_eq!(head_line(&["unborn"], None), "");
        assert_eq!(head_line(&["symrefs"], None), "");
        assert_eq!(head_line(&["ref-prefix refs/heads/"], Some(oid)), "");
    }

    #[test]
    fn a_peeled_tag_is_named_on_its_line() {
        let mut line = Vec::new();
        let oid = ObjectFormat::Sha1.empty_tree();
        reference_line(&oid, b"refs/tags/v1", Some(oid), &mut line);
        assert_eq!(line, format!("{oid} refs/tags/v1 peeled:{oid}\n").into_bytes());
    }
}
