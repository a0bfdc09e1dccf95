//! Fetching: what the client lacks, found out and sent. Version 2's commands and the stateless form of versions 0
//! and 1, answer for answer as `git http-backend` gives them.
//!
//! A request is read whole, answered from one snapshot, and leaves nothing behind. Up to the pack an error is an
//! `ERR` line; within the pack it goes over band 3, and without side-bands it breaks the response off. What is walked
//! for a request before its pack is, together, bounded by the work pool's deadline. The pack is left to be delivered without
//! the thread that found out what is in it.
//! Source: git's `upload-pack.c`, `Documentation/gitprotocol-pack`, `gitprotocol-v2`.

mod packfile_uris;
mod stateful;
mod v0;
mod v2;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use govc_engine::{Error, ErrorKind, Filter, Oid, RefName, Repo, Result, Snapshot};

use super::advertise::Version;
use super::bridge::{Flow, Rest};
use super::cache::KeptPack;
use super::fetch_request::{Deepen, FetchRequest};
use super::negotiate::{History, Timed};
use super::pack::deliver::Delivery;
use super::pack::send::{self, PackRequest};
use super::pkt::{self, Reader};
use super::shallow::{self, Borders, Rule};
use super::sideband::Bands;
use super::visible::Visible;
use crate::App;

pub(crate) use stateful::serve as serve_stateful;

/// A pack that has been negotiated.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    wants: Vec<Oid>,
    haves: Vec<Oid>,
    shallow: Vec<Oid>,
    client_shallow: Vec<Oid>,
}

/// A pack to be sent.
struct Ready {
    request: FetchRequest,
    plan: Plan,
    filter: Option<Filter>,
    /// What the client gets by a link.
    elsewhere: Option<Arc<KeptPack>>,
}

/// What a request is answered from, and until when.
struct Source<'a> {
    app: &'a App,
    snapshot: &'a Snapshot,
    deadline: Instant,
}

/// Answers one request of `git-upload-pack`, up to the pack, which is left.
///
/// # Errors
/// When the client is gone, the time for the negotiation is over, or there is no pack for a client without side-bands; all
/// else is told to the client.
pub(crate) fn serve<'a>(
    app: &'a App,
    repo: &Repo,
    version: Version,
    input: &mut dyn Read,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<Option<Rest<'a>>> {
    let snapshot = repo.snapshot();
    let mut reader = Reader::new(input);
    let negotiated = match version {
        Version::V2 => v2::talk(app, &snapshot, &mut reader, out, flow),
        Version::V0 | Version::V1 => v0::talk(app, &snapshot, &mut reader, out),
    };
    match negotiated {
        Ok(None) => Ok(None),
        Ok(Some(ready)) => prepare_pack(app, repo, snapshot, ready, out, flow).map(Some),
        Err(error) if *error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            tracing::debug!(repo = %repo.name(), %error, "fetch refused");
            flow.set_refused();
            pkt::error(out, error.message()).map_err(pkt::input_error)?;
            Ok(None)
        }
    }
}

impl<'a> Source<'a> {
    /// From now on: until a request is whole, it is the client that takes its time.
    fn new(app: &'a App, snapshot: &'a Snapshot) -> Self {
        Self { app, snapshot, deadline: app.work.deadline() }
    }

    fn history(&self) -> Timed<'a> {
        Timed::new(self.snapshot, self.deadline)
    }

    /// Those that the client may not have.
    fn missing(&self, oids: &[Oid]) -> Result<HashSet<Oid>> {
        if oids.is_empty() {
            return Ok(HashSet::new());
        }
        self.app.reachable.missing(self.snapshot, &self.app.packs, oids, self.deadline)
    }

    /// Refuses what nothing leads to that the client may see. A tip may have moved since it did, which is why a search is
    /// worth its time.
    fn check_wants(&self, wants: &[Oid]) -> Result<()> {
        let missing = self.missing(wants)?;
        wants.iter().find(|want| missing.contains(*want)).map_or(Ok(()), |want| Err(not_our_ref(*want)))
    }

    /// What the references are that a client wants by their names; one that has just gone is what it was.
    fn wanted_refs<'n>(&self, names: &'n [Vec<u8>]) -> Result<Vec<(&'n [u8], Oid)>> {
        let find = |name: &'n Vec<u8>| {
            let found = match reference(self.snapshot, name) {
                None => self.app.reachable.recently(self.snapshot.repo(), name)?,
                found => found,
            };
            let unknown = || Error::not_found(format!("unknown ref {}", String::from_utf8_lossy(name)));
            found.map(|oid| (&name[..], oid)).ok_or_else(unknown)
        };
        names.iter().map(find).collect()
    }

    fn filter(&self, request: &FetchRequest) -> Result<Option<Filter>> {
        let may_read = |oid| Ok(self.missing(&[oid])?.is_empty());
        request.filter.as_ref().map(|spec| spec.resolve(self.snapshot, self.deadline, may_read)).transpose()
    }
}

/// A reference by its full name, a reality's too, as [`LsRefs`] shows them.
fn reference(snapshot: &Snapshot, name: &[u8]) -> Option<Oid> {
    let visible = Visible::of(snapshot);
    if name == b"HEAD" {
        return visible.head();
    }
    let name = RefName::new(name).ok()?;
    if name.is_reality() {
        return snapshot
            .reality(&name)
            .ok()
            .filter(|_| !visible.rules().hides(name.as_bytes()))
            .map(|reality| reality.head);
    }
    visible.reference(&name)
}

fn not_our_ref(want: Oid) -> Error {
    Error::not_found(format!("upload-pack: not our ref {want}"))
}

/// The client's borders that the repository knows; of others nothing can be said.
fn client_borders<H: History>(history: &H, request: &FetchRequest) -> Result<Vec<Oid>> {
    let mut known = Vec::new();
    for oid in &request.shallow {
        if !history.contains(oid)? {
            continue;
        }
        if history.links(oid)?.is_none() {
            return Err(Error::invalid(format!("invalid shallow object {oid}")));
        }
        known.push(*oid);
    }
    Ok(known)
}

fn borders<H: History>(
    history: &H,
    request: &FetchRequest,
    client: &[Oid],
    resolve: impl Fn(&[u8]) -> Result<Oid>,
) -> Result<Borders> {
    let rule = match &request.deepen {
        Deepen::No => return Ok(Borders::default()),
        Deepen::Depth { commits, relative } => Rule::Depth { commits: *commits, relative: *relative },
        Deepen::Until { since, not } => {
            let not = not.iter().map(|name| resolve(name)).collect::<Result<Vec<_>>>()?;
            Rule::Until { since: *since, not }
        }
    };
    shallow::borders(history, &request.wants, client, &rule)
}

/// Finds the reference that a client names, whole or short, as `git rev-parse` would.
fn resolve(snapshot: &Snapshot, name: &[u8]) -> Result<Oid> {
    let visible = Visible::of(snapshot);
    if name == b"HEAD" {
        return visible.head().ok_or_else(|| Error::not_found("HEAD is unborn"));
    }
    let prefixes: [&[u8]; 5] = [b"", b"refs/", b"refs/tags/", b"refs/heads/", b"refs/remotes/"];
    let found = |prefix: &&[u8]| {
        let name = RefName::new([*prefix, name].concat()).ok()?;
        visible.reference(&name)
    };
    prefixes.iter().find_map(found).ok_or_else(|| {
        let shown = String::from_utf8_lossy(name);
        Error::not_found(format!("deepen-not is not a ref: {shown}"))
    })
}

fn tell_borders(borders: &Borders, out: &mut dyn Write) -> std::io::Result<()> {
    for oid in &borders.shallow {
        pkt::text(out, format_args!("shallow {oid}"))?;
    }
    for oid in &borders.unshallow {
        pkt::text(out, format_args!("unshallow {oid}"))?;
    }
    Ok(())
}

fn plan(request: &FetchRequest, common: &[Oid], client: Vec<Oid>, borders: Borders) -> Plan {
    let Borders { shallow, unshallow, wants } = borders;
    // A border that opens stays one for the walks: the client has it, and its parents are wanted by themselves.
    Plan {
        wants: [&request.wants[..], &wants].concat(),
        haves: [common, &unshallow].concat(),
        shallow: [&client[..], &shallow].concat(),
        client_shallow: client,
    }
}

/// Finds what pack is to be sent. Keep-alives may go from now on.
fn prepare_pack<'a>(
    app: &'a App,
    repo: &Repo,
    snapshot: Snapshot,
    ready: Ready,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<Rest<'a>> {
    let Ready { request, plan, filter, elsewhere } = ready;
    let bands = request.bands;
    if bands != Bands::None {
        flow.begin_packets(out).map_err(pkt::input_error)?;
    }
    let pack = PackRequest {
        wants: plan.wants,
        haves: plan.haves,
        shallow: plan.shallow,
        client_shallow: plan.client_shallow,
        filter,
        elsewhere,
        thin: request.thin,
        ofs_delta: request.ofs_delta,
        include_tag: request.include_tag,
    };
    let (pack, making) = match send::prepare(app, repo, snapshot, pack) {
        Ok((pack, making)) => (Ok(pack), making),
        Err(error) if bands == Bands::None => return Err(error),
        Err(error) => (Err(error), None),
    };
    let progress_wanted = !request.no_progress;
    Ok(Rest { delivery: Delivery { repo: repo.clone(), bands, progress_wanted, pack }, making })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::fetch_request::End;
    use crate::git::negotiate::tests::{Drawn, oids};
    use crate::git::pkt::Line;

    /// `1 - 2 - 3 - 4`.
    pub(super) fn history() -> Drawn {
        Drawn::new(&[(1, &[]), (2, &[1]), (3, &[2]), (4, &[3])])
    }

    /// Lines as text, with the byte of a drawn id in place of its digits.
    pub(super) fn read(stream: &[u8]) -> Vec<String> {
        let mut reader = Reader::new(stream);
        let mut lines = Vec::new();
        loop {
            let line = match reader.read().expect("valid lines") {
                Line::Eof => return lines,
                Line::Data(data) => String::from_utf8_lossy(data).trim_end().to_owned(),
                other => format!("{other:?}"),
            };
            let short = |word: &str| match word.parse::<Oid>() {
                Ok(oid) => oid.as_bytes()[0].to_string(),
                Err(_) => word.to_owned(),
            };
            lines.push(line.split(' ').map(short).collect::<Vec<_>>().join(" "));
        }
    }

    pub(super) fn request(wants: &[u8], haves: &[u8], end: End) -> FetchRequest {
        FetchRequest { wants: oids(wants), haves: oids(haves), end, ..FetchRequest::default() }
    }

    pub(super) fn no_refs(_: &[u8]) -> Result<Oid> {
        Err(Error::not_found("no references here"))
    }
}
