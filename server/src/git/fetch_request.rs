//! What a client that fetches asks for, read whole before anything is answered.
//!
//! Stateless requests carry everything in one body, so reading first loses nothing; it bounds the request and keeps
//! parsing apart from answering. Both forms come out the same: version 2's arguments, and version 0's list of wants
//! with capabilities followed by a list of haves.
//! Source: git's `upload-pack.c` (`receive_needs`, `get_common_commits`, `process_args`).

use std::io::Read;

use govc_engine::{Error, ObjectFormat, Oid, Result};

use super::filter::FilterSpec;
use super::pkt::{Line, Reader};
use super::sideband::Bands;

/// The most borders of a shallow clone that a request may name.
const BORDERS_MAX: usize = 1 << 18;

/// The most wants, by id and by name: a copy of everything names each reference.
const WANTS_MAX: usize = 1 << 20;

/// The most haves; git's clients stop long before.
pub(crate) const HAVES_MAX: usize = 1 << 20;

/// The most references that `deepen-not` may name.
const DEEPEN_NOT_MAX: usize = 1 << 10;

/// How version 0 acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum MultiAck {
    /// The first common commit only.
    #[default]
    None,
    /// Each common commit, as `continue`.
    Plain,
    /// Each common commit, as `common`, and `ready`.
    Detailed,
}

/// How a list of haves ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum End {
    /// The body ended after the wants: the client only asks for the shallow borders.
    #[default]
    Wants,
    /// A flush: the client waits for acknowledgments.
    Flush,
    /// `done`: the client wants the pack now.
    Done,
}

/// How a history is to be cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Deepen {
    /// Not at all.
    #[default]
    No,
    /// At this many commits from the wants (from the client's present borders, if relative).
    Depth {
        /// At least 1.
        commits: u32,
        /// Counted from the client's borders.
        relative: bool,
    },
    /// By time and by what other references reach.
    Until {
        /// Only commits of this time, in seconds, or later.
        since: Option<i64>,
        /// Not what these references reach, as the client wrote them.
        not: Vec<Vec<u8>>,
    },
}

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FetchRequest {
    /// What the ids of the repository are.
    pub(crate) format: ObjectFormat,
    /// The wanted objects, each once, in order.
    pub(crate) wants: Vec<Oid>,
    /// Version 2: the wanted references, by their full names, each once.
    pub(crate) want_refs: Vec<Vec<u8>>,
    /// What the client says that it has, in order.
    pub(crate) haves: Vec<Oid>,
    /// How the haves ended; in version 2 never `Wants`.
    pub(crate) end: End,
    /// The borders of the client's shallow clone.
    pub(crate) shallow: Vec<Oid>,
    /// How the client wants its history cut.
    pub(crate) deepen: Deepen,
    /// Version 0's acknowledgments.
    pub(crate) multi_ack: MultiAck,
    /// Version 0: `ready` may be followed by the pack at once.
    pub(crate) no_done: bool,
    /// Version 2: the pack is never sent before `done`.
    pub(crate) wait_for_done: bool,
    /// Version 2: all of the response goes over side-bands.
    pub(crate) sideband_all: bool,
    /// What the client takes of all that is wanted.
    pub(crate) filter: Option<FilterSpec>,
    /// Deltas may have bases that the client has.
    pub(crate) thin: bool,
    /// Deltas may name their base by offset.
    pub(crate) ofs_delta: bool,
    /// No progress.
    pub(crate) no_progress: bool,
    /// Tags that point into the pack come with it.
    pub(crate) include_tag: bool,
    /// How the pack is framed.
    pub(crate) bands: Bands,
    /// Version 2: the protocols by which the client takes packs from elsewhere, joined by commas.
    pub(crate) uri_protocols: Vec<u8>,
}

impl FetchRequest {
    /// Reads the arguments of version 2's `fetch`, up to the flush.
    ///
    /// # Errors
    /// `Invalid` for what git would refuse, `TooLarge` beyond the limits.
    pub(crate) fn read_v2<R: Read>(format: ObjectFormat, reader: &mut Reader<R>) -> Result<Self> {
        let mut request = Self { format, bands: Bands::Large, end: End::Flush, ..Self::default() };
        let mut cut = Cut::default();
        loop {
            let line = reader.read()?;
            let text = match line {
                Line::Flush => break,
                Line::Data(_) => line.text().unwrap_or_default(),
                _ => return Err(Error::invalid("expected flush after fetch arguments")),
            };
            if request.oid_line(text)? || cut.line(text)? || request.filter_line(text)? {
                continue;
            }
            // Taken also where it is not offered: that depends on the request's headers, and only saves something.
            if let Some(protocols) = text.strip_prefix(b"packfile-uris ") {
                request.uri_protocols = protocols.to_vec();
                continue;
            }
            match text {
                b"thin-pack" => request.thin = true,
                b"ofs-delta" => request.ofs_delta = true,
                b"no-progress" => request.no_progress = true,
                b"include-tag" => request.include_tag = true,
                b"wait-for-done" => request.wait_for_done = true,
                b"deepen-relative" => cut.relative = true,
                b"sideband-all" => request.sideband_all = true,
                b"done" => request.end = End::Done,
                _ => return Err(Error::invalid(format!("unexpected line: '{}'", shown(text)))),
            }
        }
        request.settle(cut)
    }

    /// Reads version 0's (and 1's) request: wants with capabilities, a flush, haves. No wants at all is no request,
    /// the probe that clients send before a large one.
    ///
    /// # Errors
    /// As [`FetchRequest::read_v2`].
    pub(crate) fn read_v0<R: Read>(format: ObjectFormat, reader: &mut Reader<R>) -> Result<Self> {
        let mut request = Self::read_v0_wants(format, reader)?;
        if !request.wants.is_empty() {
            request.read_haves(reader)?;
        }
        Ok(request)
    }

    /// Reads the first part of the same: wants with capabilities, up to the flush.
    ///
    /// # Errors
    /// As [`FetchRequest::read_v2`].
    pub(crate) fn read_v0_wants<R: Read>(format: ObjectFormat, reader: &mut Reader<R>) -> Result<Self> {
        let mut request = Self { format, ..Self::default() };
        let (mut cut, mut filters) = (Cut::default(), false);
        loop {
            let line = reader.read()?;
            let text = match line {
                Line::Flush | Line::Eof => break,
                Line::Data(_) => line.text().unwrap_or_default(),
                Line::Delimiter | Line::ResponseEnd => return Err(Error::invalid("expected flush after wants")),
            };
            if text.starts_with(b"want ") {
                // Capabilities may follow any want; git's clients put them on the first.
                let end = text.len().min("want ".len() + format.hex_len());
                let (want, features) = text.split_at(end);
                filters |= features.split(|b| *b == b' ').any(|feature| feature == b"filter");
                request.features(features, &mut cut);
                if request.oid_line(want)? {
                    continue;
                }
            }
            if (text.starts_with(b"shallow ") && request.oid_line(text)?) || cut.line(text)? {
                continue;
            }
            if text.starts_with(b"filter ") && !filters {
                return Err(Error::invalid("git upload-pack: filtering capability not negotiated"));
            }
            if request.filter_line(text)? {
                continue;
            }
            let text = shown(text);
            return Err(Error::invalid(format!("protocol error, expected to get object ID, not '{text}'")));
        }
        request.settle(cut)
    }

    /// Reads the haves of one round, in place of those of the round before.
    ///
    /// # Errors
    /// As [`FetchRequest::read_v2`].
    pub(crate) fn read_v0_round<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<()> {
        self.haves.clear();
        self.end = End::Wants;
        self.read_haves(reader)
    }

    /// Whether the client has left after its wants: it only asked for the borders, or does not go on.
    pub(crate) fn is_over(&self) -> bool {
        self.end == End::Wants
    }

    fn read_haves<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<()> {
        loop {
            let line = reader.read()?;
            match (line, line.text()) {
                (_, Some(b"done")) => self.end = End::Done,
                (_, Some(text)) if text.starts_with(b"have ") => {
                    self.oid_line(text)?;
                    continue;
                }
                (_, Some(text)) => {
                    return Err(Error::invalid(format!("expected object ID list, got '{}'", shown(text))));
                }
                (Line::Eof, None) if self.haves.is_empty() => self.end = End::Wants,
                (Line::Eof, None) => return Err(Error::invalid("the request ended within its list of haves")),
                (Line::Flush, None) => self.end = End::Flush,
                (_, None) => return Err(Error::invalid("expected flush after haves")),
            }
            return Ok(());
        }
    }

    /// Takes a line of one id; false if it is another line.
    fn oid_line(&mut self, line: &[u8]) -> Result<bool> {
        let (list, hex, max) = if let Some(hex) = line.strip_prefix(b"want ") {
            (&mut self.wants, hex, WANTS_MAX)
        } else if let Some(hex) = line.strip_prefix(b"have ") {
            (&mut self.haves, hex, HAVES_MAX)
        } else if let Some(hex) = line.strip_prefix(b"shallow ") {
            (&mut self.shallow, hex, BORDERS_MAX)
        } else if let Some(name) = line.strip_prefix(b"want-ref ") {
            if self.want_refs.len() >= WANTS_MAX {
                return Err(Error::too_large(format!("the request has more than {WANTS_MAX} 'want-ref' lines")));
            }
            self.want_refs.push(name.to_vec());
            return Ok(true);
        } else {
            return Ok(false);
        };
        let oid = (self.format.oid_from_hex(hex))
            .map_err(|_| Error::invalid(format!("protocol error, expected object ID, got '{}'", shown(line))))?;
        if list.len() >= max {
            let word = String::from_utf8_lossy(line.split(|b| *b == b' ').next().unwrap_or_default()).into_owned();
            return Err(Error::too_large(format!("the request has more than {max} '{word}' lines")));
        }
        list.push(oid);
        Ok(true)
    }

    /// Takes a line about what the client leaves out; false if it is another line.
    fn filter_line(&mut self, line: &[u8]) -> Result<bool> {
        let Some(spec) = line.strip_prefix(b"filter ") else { return Ok(false) };
        if self.filter.is_some() {
            return Err(Error::invalid("multiple filter-specs cannot be combined"));
        }
        self.filter = Some(FilterSpec::parse(spec)?);
        Ok(true)
    }

    fn features(&mut self, features: &[u8], cut: &mut Cut) {
        for feature in features.split(|b| *b == b' ') {
            match feature {
                b"multi_ack_detailed" => self.multi_ack = MultiAck::Detailed,
                b"multi_ack" if self.multi_ack == MultiAck::None => self.multi_ack = MultiAck::Plain,
                b"no-done" => self.no_done = true,
                b"thin-pack" => self.thin = true,
                b"ofs-delta" => self.ofs_delta = true,
                b"side-band-64k" => self.bands = Bands::Large,
                b"side-band" if self.bands == Bands::None => self.bands = Bands::Small,
                b"no-progress" => self.no_progress = true,
                b"include-tag" => self.include_tag = true,
                b"deepen-relative" => cut.relative = true,
                // `agent=`, `object-format=` and what was never advertised say nothing here, as with git.
                _ => {}
            }
        }
    }

    fn settle(mut self, cut: Cut) -> Result<Self> {
        for list in [&mut self.wants, &mut self.shallow] {
            let mut seen = std::collections::HashSet::with_capacity(list.len());
            list.retain(|oid| seen.insert(*oid));
        }
        let mut seen = std::collections::HashSet::with_capacity(self.want_refs.len());
        self.want_refs.retain(|name| seen.insert(name.clone()));
        self.deepen = cut.settle()?;
        Ok(self)
    }
}

/// The lines about cutting, which come in any order.
#[derive(Default)]
struct Cut {
    commits: Option<u32>,
    relative: bool,
    since: Option<i64>,
    not: Vec<Vec<u8>>,
}

impl Cut {
    /// Takes a line about cutting; false if it is another line.
    fn line(&mut self, line: &[u8]) -> Result<bool> {
        if let Some(commits) = line.strip_prefix(b"deepen ") {
            // Git's clients say "all" as the largest number of 31 bits.
            let commits = number(commits).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            self.commits = Some(commits.ok_or_else(|| Error::invalid(format!("Invalid deepen: {}", shown(line))))?);
        } else if let Some(since) = line.strip_prefix(b"deepen-since ") {
            let since = number(since);
            self.since = Some(since.ok_or_else(|| Error::invalid(format!("Invalid deepen-since: {}", shown(line))))?);
        } else if let Some(name) = line.strip_prefix(b"deepen-not ") {
            if self.not.len() >= DEEPEN_NOT_MAX {
                return Err(Error::too_large(format!("the request has more than {DEEPEN_NOT_MAX} 'deepen-not' lines")));
            }
            self.not.push(name.to_vec());
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn settle(self) -> Result<Deepen> {
        let by_list = self.since.is_some() || !self.not.is_empty();
        match self.commits {
            Some(_) if by_list => {
                Err(Error::invalid("deepen and deepen-since (or deepen-not) cannot be used together"))
            }
            Some(commits) => Ok(Deepen::Depth { commits, relative: self.relative }),
            None if by_list => Ok(Deepen::Until { since: self.since, not: self.not }),
            None => Ok(Deepen::No),
        }
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

fn shown(text: &[u8]) -> String {
    const SHOWN_MAX: usize = 100;
    String::from_utf8_lossy(text.get(..SHOWN_MAX).unwrap_or(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pkt;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn oid(hex: &str) -> Oid {
        hex.parse().unwrap()
    }

    /// Lines; an empty one stands for a flush.
    fn request(lines: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            if line.is_empty() { pkt::flush(&mut out) } else { pkt::data(&mut out, line.as_bytes()) }.unwrap();
        }
        out
    }

    fn v0(lines: &[String]) -> Result<FetchRequest> {
        FetchRequest::read_v0(ObjectFormat::Sha1, &mut Reader::new(&request(lines)[..]))
    }

    fn v2(lines: &[String]) -> Result<FetchRequest> {
        FetchRequest::read_v2(ObjectFormat::Sha1, &mut Reader::new(&request(lines)[..]))
    }

    #[test]
    fn version_0_reads_capabilities_wants_and_haves() {
        let features = "multi_ack_detailed no-done side-band-64k side-band thin-pack include-tag ofs-delta agent=git/2";
        let parsed = v0(&[
            format!("want {A} {features}\n"),
            format!("want {B}\n"),
            format!("want {A}\n"),
            format!("shallow {B}"),
            "deepen 3".to_owned(),
            String::new(),
            format!("have {B}\n"),
            "done\n".to_owned(),
        ])
        .unwrap();
        let expected = FetchRequest {
            wants: vec![oid(A), oid(B)],
            haves: vec![oid(B)],
            end: End::Done,
            shallow: vec![oid(B)],
            deepen: Deepen::Depth { commits: 3, relative: false },
            multi_ack: MultiAck::Detailed,
            no_done: true,
            thin: true,
            ofs_delta: true,
            include_tag: true,
            bands: Bands::Large,
            ..FetchRequest::default()
        };
        assert_eq!(parsed, expected);
    }

    #[test]
    fn version_0_tells_its_three_ends_apart() {
        let want = format!("want {A} side-band");
        assert_eq!(v0(&[want.clone(), String::new()]).unwrap().end, End::Wants);
        let haves = [want.clone(), String::new(), format!("have {B}"), String::new()];
        let parsed = v0(&haves).unwrap();
        assert_eq!((parsed.end, parsed.bands), (End::Flush, Bands::Small));
        assert_eq!(v0(&[want.clone(), String::new(), "done".to_owned()]).unwrap().end, End::Done);
        assert!(v0(&haves[..3]).is_err(), "cut off within the haves");
    }

    #[test]
    fn a_probe_wants_nothing() {
        assert_eq!(v0(&[String::new()]).unwrap(), FetchRequest::default());
        assert_eq!(v0(&[]).unwrap(), FetchRequest::default());
    }

    #[test]
    fn version_2_reads_its_arguments() {
        let lines = [
            "thin-pack",
            "ofs-delta",
            "no-progress",
            "include-tag",
            "wait-for-done",
            "deepen-relative",
            "deepen 2147483647",
        ];
        let mut lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        lines.extend([format!("want {A}\n"), format!("have {B}\n"), format!("shallow {B}\n"), String::new()]);
        let expected = FetchRequest {
            wants: vec![oid(A)],
            haves: vec![oid(B)],
            end: End::Flush,
            shallow: vec![oid(B)],
            deepen: Deepen::Depth { commits: 0x7fff_ffff, relative: true },
            wait_for_done: true,
            thin: true,
            ofs_delta: true,
            no_progress: true,
            include_tag: true,
            bands: Bands::Large,
            ..FetchRequest::default()
        };
        assert_eq!(v2(&lines).unwrap(), expected);
        lines.insert(0, "done\n".to_owned());
        assert_eq!(v2(&lines).unwrap().end, End::Done);
    }

    #[test]
    fn cuts_by_time_and_reference_come_together() {
        let lines = ["deepen-since 1700000000", "deepen-not refs/tags/v1", ""].map(str::to_owned);
        let until = Deepen::Until { since: Some(1_700_000_000), not: vec![b"refs/tags/v1".to_vec()] };
        assert_eq!(v2(&lines).unwrap().deepen, until);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "want x",
            "have",
            "deepen 0",
            "deepen -1",
            "deepen 99999999999",
            "deepen 1x",
            "deepen-since x",
            "shallow 12",
            "filter",
            "filter blob:some",
            "sideband-none",
            "packfile-uris",
        ] {
            assert!(v2(&[line.to_owned(), String::new()]).is_err(), "{line}");
        }
        assert!(v2(&[format!("want {A}")]).is_err(), "no flush");
        assert!(v2(&["deepen 1".to_owned(), "deepen-since 1".to_owned(), String::new()]).is_err());
        assert!(v0(&[format!("have {A}"), String::new()]).is_err(), "a have among the wants");
        assert!(v0(&[format!("want {A}"), String::new(), format!("want {B}")]).is_err(), "a want among the haves");
    }

    #[test]
    fn ids_have_the_width_of_the_format() {
        let (long, format) = ("c".repeat(64), ObjectFormat::Sha256);
        let read = |lines: &[String]| FetchRequest::read_v0(format, &mut Reader::new(&request(lines)[..]));
        let end = [String::new(), format!("have {long}"), "done".to_owned()];
        let parsed = read(&[&[format!("want {long} no-done")][..], &end].concat()).unwrap();
        assert_eq!((parsed.wants, parsed.haves, parsed.no_done), (vec![oid(&long)], vec![oid(&long)], true));
        assert!(read(&[&[format!("want {A} no-done")][..], &end].concat()).is_err());
        for word in ["want", "have", "shallow"] {
            let line = |id: &str| [format!("{word} {id}"), String::new()];
            assert!(FetchRequest::read_v2(format, &mut Reader::new(&request(&line(&long))[..])).is_ok(), "{word}");
            assert!(FetchRequest::read_v2(format, &mut Reader::new(&request(&line(A))[..])).is_err(), "{word}");
            assert!(v2(&line(&long)).is_err(), "{word}");
        }
    }

    #[test]
    fn endless_requests_are_refused() {
        for (word, line, max) in [
            ("shallow", format!("shallow {A}"), BORDERS_MAX),
            ("want", format!("want {A}"), WANTS_MAX),
            ("want-ref", "want-ref refs/heads/a".to_owned(), WANTS_MAX),
        ] {
            let error = v2(&vec![line; max + 1]).unwrap_err();
            assert_eq!(*error.kind(), govc_engine::ErrorKind::TooLarge);
            assert!(error.to_string().contains(&format!("'{word}'")), "{error}");
        }
    }

    #[test]
    fn filters_and_wanted_references_are_read() {
        let lines = [
            "want-ref refs/heads/a\n",
            "want-ref HEAD",
            "want-ref refs/heads/a",
            "filter tree:1\n",
            "sideband-all",
            "",
        ];
        let parsed = v2(&lines.map(str::to_owned)).unwrap();
        assert_eq!(parsed.want_refs, [&b"refs/heads/a"[..], b"HEAD"]);
        assert_eq!(parsed.filter, Some(FilterSpec::parse(b"tree:1").unwrap()));
        assert!(parsed.sideband_all && parsed.wants.is_empty());
        let twice = ["filter tree:1", "filter tree:1", ""].map(str::to_owned);
        assert!(v2(&twice).unwrap_err().to_string().contains("multiple filter-specs"));

        let wants = |features: &str| [format!("want {A}{features}"), "filter blob:none".to_owned(), String::new()];
        let parsed = v0(&wants(" side-band-64k filter agent=x")).unwrap();
        assert_eq!(parsed.filter, Some(FilterSpec::parse(b"blob:none").unwrap()));
        assert!(v0(&wants(" side-band-64k")).unwrap_err().to_string().contains("not negotiated"));
    }
}
