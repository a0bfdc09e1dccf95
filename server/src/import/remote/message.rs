//! What is asked, and the lines of what comes. Pure but for reading.

use std::fmt::Display;
use std::io::Read;

use govc_engine::{Error, ObjectFormat, Oid, Result};

use super::{Ask, not_git};
use crate::git::pkt::{self, Line, Reader};
use crate::import::source::{Head, References, Scope, shallow_source};
use crate::import::watch::read_error;

/// Lines of an advertisement that are no references.
const CAPABILITIES_MAX: usize = 1000;
/// Borders of a history that one answer may name.
const BORDERS_MAX: usize = 4 << 20;

/// What a server can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::import) struct Abilities {
    pub(super) is_v2: bool,
    /// What the ids are.
    pub(super) format: ObjectFormat,
    /// Whether it sends histories to a depth.
    pub(super) can_deepen: bool,
    /// Whether it tells which branch `HEAD` names that does not exist.
    tells_unborn: bool,
    is_thin: bool,
}

/// The lines of an answer.
pub(super) struct Lines<'a> {
    reader: Reader<Box<dyn Read + 'a>>,
    url: String,
}

impl<'a> Lines<'a> {
    pub(super) fn new(input: Box<dyn Read + 'a>, url: &str) -> Self {
        Self { reader: Reader::new(input), url: url.to_owned() }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The next line; an error that the server tells is one.
    pub(super) fn next(&mut self) -> Result<Line<'_>> {
        let Self { reader, url } = self;
        match reader.read() {
            Ok(Line::Eof) => Err(not_git(url, "its answer ends early")),
            Ok(Line::Data(data)) if data.starts_with(b"ERR ") => Err(told(url, data.get(4..).unwrap_or_default())),
            Ok(line) => Ok(line),
            Err(error) => Err(broken(url, error)),
        }
    }

    pub(super) fn unexpected(&self) -> Error {
        not_git(&self.url, "a line of its answer is not what was asked for")
    }
}

/// An error in the server's own words.
pub(super) fn told(url: &str, text: &[u8]) -> Error {
    let text = format!("{url} says: {}", pkt::one_line(String::from_utf8_lossy(text).trim()));
    Error::invalid(text).with_source(Refused)
}

/// The cause of an error that is the server's last word on what it was asked for.
#[derive(Debug)]
struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server refuses it")
    }
}

impl std::error::Error for Refused {}

/// Whether an error says that the server does not send what it was asked for: not that it could not be asked, nor that it
/// wants to know who asks.
pub(in crate::import) fn is_refusal(error: &Error) -> bool {
    use std::error::Error as _;
    error.source().is_some_and(|source| source.is::<Refused>())
}

/// What a line's failure means: the pkt-lines of requests say it otherwise.
fn broken(url: &str, error: Error) -> Error {
    use std::error::Error as _;
    let cause = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    match cause {
        Some(cause) => read_error(std::io::Error::other(inner(cause, &error)), url),
        None => not_git(url, "its answer is not made of lines, or breaks off"),
    }
}

fn inner(cause: &std::io::Error, error: &Error) -> Error {
    cause.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).unwrap_or(error).clone()
}

/// Reads what a server says when it is met: what it can, and in version 0 its references.
pub(super) fn read_advertisement(
    lines: &mut Lines<'_>,
    scope: Scope,
    limit: usize,
) -> Result<(Abilities, Option<References>)> {
    let mut first = lines.next()?;
    if first.text() == Some(b"# service=git-upload-pack") {
        if lines.next()? != Line::Flush {
            return Err(lines.unexpected());
        }
        first = lines.next()?;
    }
    match first.text() {
        Some(b"version 2") => Ok((read_capabilities(lines)?, None)),
        Some(b"version 1") => {
            let line = lines.next()?.text().map(<[u8]>::to_vec);
            read_offered(lines, line, scope, limit)
        }
        line => {
            let line = line.map(<[u8]>::to_vec);
            read_offered(lines, line, scope, limit)
        }
    }
}

/// Of version 2, to the flush.
fn read_capabilities(lines: &mut Lines<'_>) -> Result<Abilities> {
    let mut abilities = Abilities { is_v2: true, is_thin: true, ..Abilities::default() };
    let url = lines.url.clone();
    let mut can_fetch = false;
    for _ in 0..CAPABILITIES_MAX {
        let line = lines.next()?;
        let text = match line {
            Line::Flush if can_fetch => return Ok(abilities),
            Line::Flush => return Err(lines.unexpected()),
            _ => line.text().unwrap_or_default(),
        };
        let mut parts = text.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let has = |word: &[u8]| value.split(|byte| *byte == b' ').any(|found| found == word);
        match name {
            b"fetch" => (can_fetch, abilities.can_deepen) = (true, has(b"shallow")),
            b"ls-refs" => abilities.tells_unborn = has(b"unborn"),
            b"object-format" => abilities.format = format_of(&url, value)?,
            _ => {}
        }
    }
    Err(lines.unexpected())
}

fn format_of(url: &str, word: &[u8]) -> Result<ObjectFormat> {
    str::from_utf8(word).ok().and_then(|word| word.parse().ok()).ok_or_else(|| {
        let word = pkt::one_line(&String::from_utf8_lossy(word));
        Error::invalid(format!("{url} has {word} ids, which are not known here"))
    })
}

/// The references of version 0, whose first line also says what the server can.
fn read_offered(
    lines: &mut Lines<'_>,
    first: Option<Vec<u8>>,
    scope: Scope,
    limit: usize,
) -> Result<(Abilities, Option<References>)> {
    let mut abilities = Abilities::default();
    let mut references = References::default();
    let url = lines.url.clone();
    // A flush at once: nothing is there, said by an old server.
    let Some(first) = first else { return Ok((abilities, Some(references))) };
    let mut halves = first.splitn(2, |byte| *byte == 0);
    let line = halves.next().unwrap_or_default();
    let mut has_sideband = false;
    for capability in halves.next().unwrap_or_default().split(|byte| *byte == b' ') {
        match capability {
            b"side-band-64k" => has_sideband = true,
            b"shallow" => abilities.can_deepen = true,
            b"thin-pack" => abilities.is_thin = true,
            _ => {
                if let Some(branch) = capability.strip_prefix(b"symref=HEAD:") {
                    references.set_head(branch);
                }
                if let Some(format) = capability.strip_prefix(b"object-format=") {
                    abilities.format = format_of(&url, format)?;
                }
            }
        }
    }
    if !has_sideband {
        return Err(not_git(&url, "it knows no side-band-64k"));
    }
    let format = abilities.format;
    references.format = format;
    let mut line = line.to_vec();
    for _ in 0..lines_max(limit) {
        match id_and_name(format, &line) {
            Some((oid, name)) if !name.ends_with(b"^{}") => take(&mut references, name, oid, None, scope, limit)?,
            Some(_) => {}
            None if line.starts_with(b"shallow ") => return Err(shallow_source(&url)),
            None => return Err(lines.unexpected()),
        }
        let next = lines.next()?;
        match next {
            Line::Flush => return Ok((abilities, Some(references))),
            _ => line = next.text().unwrap_or_default().to_vec(),
        }
    }
    Err(too_many(&url))
}

/// How many lines may tell of so many references: what is not meant counts, too, and what a tag stands for.
fn lines_max(limit: usize) -> usize {
    limit.saturating_mul(2).saturating_add(CAPABILITIES_MAX)
}

fn too_many(url: &str) -> Error {
    Error::too_large(format!("{url} offers too many references"))
}

fn id_and_name(format: ObjectFormat, line: &[u8]) -> Option<(Oid, &[u8])> {
    let (hex, rest) = line.split_at_checked(format.hex_len())?;
    Some((format.oid_from_hex(hex).ok()?, rest.strip_prefix(b" ")?))
}

/// Takes one reference that a server offers, or `HEAD`.
fn take(
    references: &mut References,
    name: &[u8],
    oid: Oid,
    symref: Option<&[u8]>,
    scope: Scope,
    limit: usize,
) -> Result<()> {
    if name == b"HEAD" {
        match symref {
            Some(branch) => references.set_head(branch),
            None if references.head == Head::Unknown => references.head = Head::Detached(oid),
            None => {}
        }
    }
    references.take(name, oid, scope, limit)
}

/// The request for the references of a scope.
pub(super) fn ls_refs(abilities: &Abilities, scope: Scope) -> Vec<u8> {
    let mut request = Request::command("ls-refs", abilities.format);
    request.line("symrefs");
    if abilities.tells_unborn {
        request.line("unborn");
    }
    // Others may come all the same.
    let prefixes: &[&str] = match scope {
        Scope::Mirror => &["HEAD", "refs/"],
        Scope::BranchesAndTags => &["HEAD", "refs/heads/", "refs/tags/"],
    };
    for prefix in prefixes {
        request.line(format_args!("ref-prefix {prefix}"));
    }
    request.flush();
    request.0
}

/// Reads the answer to [`ls_refs`].
pub(super) fn read_ls_refs(
    lines: &mut Lines<'_>,
    references: &mut References,
    scope: Scope,
    limit: usize,
) -> Result<()> {
    for _ in 0..lines_max(limit) {
        let line = lines.next()?;
        let text = match line {
            Line::Flush => return Ok(()),
            _ => line.text().unwrap_or_default(),
        };
        let symref = text.split(|byte| *byte == b' ').find_map(|word| word.strip_prefix(b"symref-target:"));
        if text.starts_with(b"unborn ") {
            references.set_head(symref.unwrap_or_default());
            continue;
        }
        let Some((oid, rest)) = id_and_name(references.format, text) else { return Err(lines.unexpected()) };
        let name = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
        take(references, name, oid, symref, scope, limit)?;
    }
    Err(too_many(&lines.url))
}

/// The request for a pack.
///
/// # Errors
/// [`govc_engine::ErrorKind::Invalid`] for what the server cannot, a refusal.
pub(super) fn fetch(abilities: &Abilities, ask: &Ask<'_>, url: &str) -> Result<Vec<u8>> {
    if ask.depth.is_some() && !abilities.can_deepen {
        return Err(not_git(url, "it cannot send a part of a history any more").with_source(Refused));
    }
    if ask.wants.iter().any(|want| want.format() != abilities.format) {
        return Err(not_git(url, "its ids are not what they were").with_source(Refused));
    }
    let is_thin = ask.is_thin && abilities.is_thin;
    let mut request = if abilities.is_v2 { Request::command("fetch", abilities.format) } else { Request::default() };
    if abilities.is_v2 {
        for word in ["ofs-delta", "no-progress"] {
            request.line(word);
        }
        if is_thin {
            request.line("thin-pack");
        }
    }
    for (at, want) in ask.wants.iter().enumerate() {
        match at {
            0 if !abilities.is_v2 => {
                let thin = if is_thin { " thin-pack" } else { "" };
                let shallow = if ask.depth.is_some() { " shallow" } else { "" };
                request.line(format_args!(
                    "want {want} side-band-64k ofs-delta no-progress{thin}{shallow} agent={AGENT}\n"
                ));
            }
            _ => request.line(format_args!("want {want}\n")),
        }
    }
    for oid in &ask.shallow {
        request.line(format_args!("shallow {oid}"));
    }
    if let Some(depth) = ask.depth {
        request.line(format_args!("deepen {depth}"));
    }
    if !abilities.is_v2 {
        request.flush();
    }
    for have in ask.haves {
        request.line(format_args!("have {have}\n"));
    }
    request.line("done\n");
    if abilities.is_v2 {
        request.flush();
    }
    Ok(request.0)
}

/// Reads borders, of the `format`, to the end of their section.
pub(super) fn read_borders(
    format: ObjectFormat,
    lines: &mut Lines<'_>,
    shallow: &mut Vec<Oid>,
    unshallow: &mut Vec<Oid>,
) -> Result<()> {
    for _ in 0..BORDERS_MAX {
        let line = lines.next()?;
        let text = match line {
            Line::Flush | Line::Delimiter => return Ok(()),
            _ => line.text().unwrap_or_default(),
        };
        let oid = |word: &[u8]| text.strip_prefix(word).and_then(|hex| format.oid_from_hex(hex).ok());
        match (oid(b"shallow "), oid(b"unshallow ")) {
            (Some(oid), _) => shallow.push(oid),
            (None, Some(oid)) => unshallow.push(oid),
            (None, None) => return Err(lines.unexpected()),
        }
    }
    Err(Error::too_large(format!("{} names too many borders of its history", lines.url)))
}

const AGENT: &str = concat!("govc/", env!("CARGO_PKG_VERSION"));

/// A request in the making.
#[derive(Default)]
struct Request(Vec<u8>);

impl Request {
    /// One of version 2, up to its arguments.
    fn command(name: &str, format: ObjectFormat) -> Self {
        let mut request = Self::default();
        request.line(format_args!("command={name}"));
        request.line(format_args!("agent={AGENT}"));
        request.line(format_args!("object-format={format}"));
        // A vector takes everything.
        let _ = pkt::delimiter(&mut request.0);
        request
    }

    fn line(&mut self, text: impl Display) {
        let _ = pkt::data(&mut self.0, text.to_string().as_bytes());
    }

    fn flush(&mut self) {
        let _ = pkt::flush(&mut self.0);
    }
}

#[cfg(test)]
mod tests;
