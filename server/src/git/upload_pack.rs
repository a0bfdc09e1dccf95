//! Fetching: what the client lacks, found out and sent. Version 2's commands and the stateless form of versions 0
//! and 1, answer for answer as `git http-backend` gives them.
//!
//! A request is read whole, answered from one snapshot, and leaves nothing behind. Up to the pack an error is an
//! `ERR` line; within the pack it goes over band 3, and without side-bands it breaks the response off. What is walked
//! for a request before its pack is, together, bounded by the work pool's deadline.
//! Source: git's `upload-pack.c`, `Documentation/gitprotocol-pack`, `gitprotocol-v2`.

mod stateful;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::time::Instant;

use govc_engine::{Error, ErrorKind, Filter, Oid, RefName, Repo, Result, Snapshot};

use super::advertise::Version;
use super::bridge::{self, Flow};
use super::command::{self, Command};
use super::fetch_request::{Deepen, End, FetchRequest, MultiAck};
use super::ls_refs::LsRefs;
use super::negotiate::{Have, History, Negotiation, Timed};
use super::object_info::ObjectInfo;
use super::pack::write::{self, PackRequest};
use super::pkt::{self, Reader};
use super::shallow::{self, Borders, Rule};
use super::sideband::{Banded, Bands, Sideband};
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
}

/// What a request is answered from, and until when.
struct Source<'a> {
    app: &'a App,
    snapshot: &'a Snapshot,
    deadline: Instant,
}

/// Answers one request of `git-upload-pack`.
///
/// # Errors
/// When the client is gone, the time for the negotiation is over, or a pack without side-bands fails; all else is told
/// to the client.
pub(crate) fn serve(
    app: &App,
    repo: &Repo,
    version: Version,
    input: &mut dyn Read,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<()> {
    let snapshot = repo.snapshot();
    let mut reader = Reader::new(input);
    let negotiated = match version {
        Version::V2 => talk_v2(app, &snapshot, &mut reader, out, flow),
        Version::V0 | Version::V1 => talk_v0(app, &snapshot, &mut reader, out),
    };
    match negotiated {
        Ok(None) => Ok(()),
        Ok(Some(ready)) => send_pack(app, repo, &snapshot, ready, out, flow),
        Err(error) if *error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            tracing::debug!(repo = %repo.name(), %error, "fetch refused");
            pkt::error(out, error.message()).map_err(pkt::input_error)
        }
    }
}

fn talk_v2(
    app: &App,
    snapshot: &Snapshot,
    reader: &mut Reader<&mut dyn Read>,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<Option<Ready>> {
    let Some(head) = command::read_head(reader)? else { return Ok(None) };
    flow.set_server_options(&head.server_options);
    match head.command {
        Command::LsRefs => {
            let arguments = if head.arguments { LsRefs::read(reader)? } else { LsRefs::default() };
            arguments.answer(snapshot, out)?;
            Ok(None)
        }
        Command::ObjectInfo => {
            let arguments = if head.arguments { ObjectInfo::read(reader)? } else { ObjectInfo::default() };
            let missing = Source::new(app, snapshot).missing(&arguments.oids)?;
            arguments.answer(snapshot, &missing, out)?;
            Ok(None)
        }
        Command::Fetch if !head.arguments => Ok(None),
        Command::Fetch => {
            let request = FetchRequest::read_v2(reader)?;
            let source = Source::new(app, snapshot);
            if !request.sideband_all {
                return fetch_v2(&source, request, out);
            }
            match fetch_v2(&source, request, &mut Banded::new(out)) {
                Err(error) if *error.kind() != ErrorKind::Cancelled => {
                    tracing::debug!(repo = %snapshot.repo().name(), %error, "fetch refused");
                    Banded::new(out).error(error.message()).map_err(pkt::input_error)?;
                    Ok(None)
                }
                ready => ready,
            }
        }
    }
}

fn fetch_v2(source: &Source<'_>, mut request: FetchRequest, out: &mut dyn Write) -> Result<Option<Ready>> {
    source.check_wants(&request.wants)?;
    let wanted_refs = source.wanted_refs(&request.want_refs)?;
    let mut wants: HashSet<Oid> = request.wants.iter().copied().collect();
    request.wants.extend(wanted_refs.iter().map(|(_, oid)| *oid).filter(|oid| wants.insert(*oid)));
    let filter = source.filter(&request)?;
    let (history, resolve) = (source.history(), |name: &[u8]| resolve(source.snapshot, name));
    let plan = negotiate_v2(&history, &request, &wanted_refs, resolve, out)?;
    Ok(plan.map(|plan| Ready { request, plan, filter }))
}

fn talk_v0(
    app: &App,
    snapshot: &Snapshot,
    reader: &mut Reader<&mut dyn Read>,
    out: &mut dyn Write,
) -> Result<Option<Ready>> {
    let request = FetchRequest::read_v0(reader)?;
    let source = Source::new(app, snapshot);
    source.check_wants(&request.wants)?;
    let filter = source.filter(&request)?;
    let plan = negotiate_v0(&source.history(), &request, |refs| resolve(snapshot, refs), out)?;
    Ok(plan.map(|plan| Ready { request, plan, filter }))
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
    if name == b"HEAD" {
        return snapshot.reference(snapshot.head());
    }
    let name = RefName::new(name).ok()?;
    if name.is_reality() {
        return snapshot.reality(&name).ok().map(|reality| reality.head);
    }
    snapshot.reference(&name)
}

/// Writes the sections before the pack; `None` when no pack follows.
fn negotiate_v2<H: History>(
    history: &H,
    request: &FetchRequest,
    wanted_refs: &[(&[u8], Oid)],
    resolve: impl Fn(&[u8]) -> Result<Oid>,
    out: &mut dyn Write,
) -> Result<Option<Plan>> {
    let mut negotiation = Negotiation::new(history, &request.wants);
    for have in &request.haves {
        negotiation.have(*have)?;
    }
    if !request.haves.is_empty() && request.end != End::Done {
        let ready = !request.wants.is_empty() && !request.wait_for_done && negotiation.is_enough()?;
        acknowledge_v2(negotiation.common(), ready, out).map_err(pkt::input_error)?;
        if !ready {
            return Ok(None);
        }
    }
    if request.wants.is_empty() {
        return Ok(None);
    }
    let client = client_borders(history, request)?;
    let borders = borders(history, request, &client, resolve)?;
    if request.deepen != Deepen::No || !client.is_empty() {
        let told = pkt::text(out, format_args!("shallow-info\n"))
            .and_then(|()| tell_borders(&borders, out))
            .and_then(|()| pkt::delimiter(out));
        told.map_err(pkt::input_error)?;
    }
    if !wanted_refs.is_empty() {
        tell_refs(wanted_refs, out).map_err(pkt::input_error)?;
    }
    pkt::text(out, format_args!("packfile\n")).map_err(pkt::input_error)?;
    Ok(Some(plan(request, negotiation.common(), client, borders)))
}

fn acknowledge_v2(common: &[Oid], ready: bool, out: &mut dyn Write) -> std::io::Result<()> {
    pkt::text(out, format_args!("acknowledgments\n"))?;
    if common.is_empty() {
        pkt::text(out, format_args!("NAK\n"))?;
    }
    for oid in common {
        pkt::text(out, format_args!("ACK {oid}\n"))?;
    }
    if ready {
        pkt::text(out, format_args!("ready\n"))?;
        pkt::delimiter(out)
    } else {
        pkt::flush(out)
    }
}

fn tell_refs(wanted_refs: &[(&[u8], Oid)], out: &mut dyn Write) -> std::io::Result<()> {
    pkt::text(out, format_args!("wanted-refs\n"))?;
    for (name, oid) in wanted_refs {
        pkt::data(out, &[format!("{oid} ").as_bytes(), name, b"\n"].concat())?;
    }
    pkt::delimiter(out)
}

/// Writes borders and acknowledgments; `None` when no pack follows.
fn negotiate_v0<H: History>(
    history: &H,
    request: &FetchRequest,
    resolve: impl Fn(&[u8]) -> Result<Oid>,
    out: &mut dyn Write,
) -> Result<Option<Plan>> {
    if request.wants.is_empty() {
        return Ok(None);
    }
    let client = client_borders(history, request)?;
    let borders = borders(history, request, &client, resolve)?;
    if request.deepen != Deepen::No {
        // Each round repeats the request and gets this again; the client expects it.
        tell_borders(&borders, out).and_then(|()| pkt::flush(out)).map_err(pkt::input_error)?;
    }
    if request.end == End::Wants {
        return Ok(None);
    }
    let mut negotiation = Negotiation::new(history, &request.wants);
    let send = acknowledge_v0(&mut negotiation, request, &mut Acknowledged::default(), out)?;
    Ok(send.then(|| plan(request, negotiation.common(), client, borders)))
}

/// What has been acknowledged in version 0 so far, over all rounds of a conversation.
#[derive(Default)]
struct Acknowledged {
    last_common: Option<Oid>,
    ready: bool,
}

/// Answers the haves of one round one by one, as `get_common_commits` does; whether the pack follows.
fn acknowledge_v0<H: History>(
    negotiation: &mut Negotiation<'_, H>,
    request: &FetchRequest,
    acknowledged: &mut Acknowledged,
    out: &mut dyn Write,
) -> Result<bool> {
    let mut say = |text: std::fmt::Arguments<'_>| pkt::text(out, text).map_err(pkt::input_error);
    let Acknowledged { last_common, ready } = acknowledged;
    let (mut common_seen, mut unknown_seen) = (false, false);
    for have in &request.haves {
        match negotiation.have(*have)? {
            Have::Common => {
                *last_common = Some(*have);
                common_seen = true;
                match request.multi_ack {
                    MultiAck::Detailed => say(format_args!("ACK {have} common\n"))?,
                    MultiAck::Plain => say(format_args!("ACK {have} continue\n"))?,
                    MultiAck::None if negotiation.common().len() == 1 => say(format_args!("ACK {have}\n"))?,
                    MultiAck::None => {}
                }
            }
            Have::Unknown => {
                unknown_seen = true;
                if request.multi_ack != MultiAck::None && negotiation.is_enough()? {
                    if request.multi_ack == MultiAck::Detailed {
                        *ready = true;
                        say(format_args!("ACK {have} ready\n"))?;
                    } else {
                        say(format_args!("ACK {have} continue\n"))?;
                    }
                }
            }
        }
    }
    if request.end == End::Done {
        match last_common {
            Some(oid) if request.multi_ack != MultiAck::None => say(format_args!("ACK {oid}\n"))?,
            Some(_) => {}
            None => say(format_args!("NAK\n"))?,
        }
        return Ok(true);
    }
    if request.multi_ack == MultiAck::Detailed
        && common_seen
        && !unknown_seen
        && let Some(oid) = last_common
        && negotiation.is_enough()?
    {
        *ready = true;
        say(format_args!("ACK {oid} ready\n"))?;
    }
    if last_common.is_none() || request.multi_ack != MultiAck::None {
        say(format_args!("NAK\n"))?;
    }
    match last_common {
        Some(oid) if request.no_done && *ready => {
            say(format_args!("ACK {oid}\n"))?;
            Ok(true)
        }
        _ => Ok(false),
    }
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
    if name == b"HEAD" {
        return snapshot.reference(snapshot.head()).ok_or_else(|| Error::not_found("HEAD is unborn"));
    }
    let prefixes: [&[u8]; 5] = [b"", b"refs/", b"refs/tags/", b"refs/heads/", b"refs/remotes/"];
    let found = |prefix: &&[u8]| {
        let name = RefName::new([*prefix, name].concat()).ok()?;
        snapshot.reference(&name)
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

fn send_pack(
    app: &App,
    repo: &Repo,
    snapshot: &Snapshot,
    ready: Ready,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<()> {
    let Ready { request, plan, filter } = ready;
    if request.bands != Bands::None {
        flow.begin_packets(out).map_err(pkt::input_error)?;
    }
    let sideband = Sideband::new(out, request.bands, !request.no_progress);
    let sent = {
        let mut progress = |text: &str| sideband.progress(text);
        let pack = PackRequest {
            wants: plan.wants,
            haves: plan.haves,
            shallow: plan.shallow,
            client_shallow: plan.client_shallow,
            filter,
            thin: request.thin,
            ofs_delta: request.ofs_delta,
            include_tag: request.include_tag,
            progress: &mut progress,
        };
        write::send(app, repo, snapshot, pack, &mut sideband.data())
    };
    flow.end_packets();
    match sent {
        Ok(sent) => {
            tracing::debug!(repo = %repo.name(), objects = sent.objects, bytes = sent.bytes, "pack sent");
            sideband.finish().map_err(pkt::input_error)
        }
        Err(error) if request.bands == Bands::None || bridge::client_failure(&error).is_some() => Err(error),
        Err(error) => {
            tracing::warn!(repo = %repo.name(), %error, "sending a pack failed");
            sideband.error(&format!("the pack cannot be sent: {}", error.message()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::negotiate::tests::{Drawn, oid, oids};
    use crate::git::pkt::Line;

    /// `1 - 2 - 3 - 4`.
    fn history() -> Drawn {
        Drawn::new(&[(1, &[]), (2, &[1]), (3, &[2]), (4, &[3])])
    }

    /// Lines as text, with the byte of a drawn id in place of its 40 digits.
    fn read(stream: &[u8]) -> Vec<String> {
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

    fn request(wants: &[u8], haves: &[u8], end: End) -> FetchRequest {
        FetchRequest { wants: oids(wants), haves: oids(haves), end, ..FetchRequest::default() }
    }

    fn no_refs(_: &[u8]) -> Result<Oid> {
        Err(Error::not_found("no references here"))
    }

    #[track_caller]
    fn check_v2(request: &FetchRequest, lines: &[&str], pack: bool) {
        let mut out = Vec::new();
        let plan = negotiate_v2(&history(), request, &[], no_refs, &mut out).unwrap();
        assert_eq!(read(&out), lines);
        assert_eq!(plan.is_some(), pack);
    }

    #[track_caller]
    fn check_v0(request: &FetchRequest, lines: &[&str], pack: bool) {
        let mut out = Vec::new();
        let plan = negotiate_v0(&history(), request, no_refs, &mut out).unwrap();
        assert_eq!(read(&out), lines);
        assert_eq!(plan.is_some(), pack);
    }

    #[test]
    fn version_2_sends_the_pack_when_it_is_ready_or_told_to() {
        check_v2(&request(&[4], &[], End::Done), &["packfile"], true);
        check_v2(&request(&[4], &[], End::Flush), &["packfile"], true);
        check_v2(&request(&[4], &[2], End::Done), &["packfile"], true);
        check_v2(&request(&[4], &[99], End::Flush), &["acknowledgments", "NAK", "Flush"], false);
        let ready = ["acknowledgments", "ACK 2", "ready", "Delimiter", "packfile"];
        check_v2(&request(&[4], &[99, 2], End::Flush), &ready, true);
        check_v2(&request(&[], &[], End::Flush), &[], false);
    }

    #[test]
    fn version_2_waits_for_done_when_asked() {
        let mut request = request(&[4], &[2], End::Flush);
        request.wait_for_done = true;
        check_v2(&request, &["acknowledgments", "ACK 2", "Flush"], false);
        request.wants.clear();
        check_v2(&request, &["acknowledgments", "ACK 2", "Flush"], false);
    }

    #[test]
    fn version_2_tells_borders_before_the_pack() {
        let mut request = request(&[4], &[], End::Done);
        request.deepen = Deepen::Depth { commits: 2, relative: false };
        check_v2(&request, &["shallow-info", "shallow 3", "Delimiter", "packfile"], true);
        request.deepen = Deepen::No;
        request.shallow = oids(&[3, 99]);
        check_v2(&request, &["shallow-info", "Delimiter", "packfile"], true);
    }

    #[test]
    fn an_opened_border_wants_its_parents() {
        let mut request = request(&[4], &[4], End::Done);
        request.shallow = oids(&[4]);
        request.deepen = Deepen::Depth { commits: 2, relative: false };
        let mut out = Vec::new();
        let plan = negotiate_v2(&history(), &request, &[], no_refs, &mut out).unwrap().expect("a pack");
        assert_eq!(read(&out), ["shallow-info", "shallow 3", "unshallow 4", "Delimiter", "packfile"]);
        let expected =
            Plan { wants: oids(&[4, 3]), haves: oids(&[4, 4]), shallow: oids(&[4, 3]), client_shallow: oids(&[4]) };
        assert_eq!(plan, expected);
    }

    #[test]
    fn a_clone_in_version_0_is_one_nak() {
        check_v0(&request(&[4], &[], End::Done), &["NAK"], true);
        check_v0(&request(&[], &[], End::Wants), &[], false);
    }

    #[test]
    fn version_0_without_multi_ack_acknowledges_once() {
        check_v0(&request(&[4], &[99, 3, 1], End::Flush), &["ACK 3"], false);
        check_v0(&request(&[4], &[99, 3, 1], End::Done), &["ACK 3"], true);
        check_v0(&request(&[4], &[99], End::Flush), &["NAK"], false);
        check_v0(&request(&[4], &[99], End::Done), &["NAK"], true);
    }

    #[test]
    fn version_0_with_multi_ack_continues() {
        let mut request = request(&[4], &[3, 99], End::Flush);
        request.multi_ack = MultiAck::Plain;
        check_v0(&request, &["ACK 3 continue", "ACK 99 continue", "NAK"], false);
        request.end = End::Done;
        check_v0(&request, &["ACK 3 continue", "ACK 99 continue", "ACK 3"], true);
    }

    #[test]
    fn version_0_in_detail_says_when_it_is_ready() {
        let mut request = request(&[4], &[3], End::Flush);
        request.multi_ack = MultiAck::Detailed;
        check_v0(&request, &["ACK 3 common", "ACK 3 ready", "NAK"], false);
        request.no_done = true;
        check_v0(&request, &["ACK 3 common", "ACK 3 ready", "NAK", "ACK 3"], true);
        request.haves = oids(&[3, 99]);
        check_v0(&request, &["ACK 3 common", "ACK 99 ready", "NAK", "ACK 3"], true);
        request.haves = oids(&[99]);
        check_v0(&request, &["NAK"], false);
    }

    #[test]
    fn version_0_repeats_the_borders_in_each_round() {
        let mut request = request(&[4], &[], End::Wants);
        request.deepen = Deepen::Depth { commits: 1, relative: false };
        check_v0(&request, &["shallow 4", "Flush"], false);
        request.end = End::Done;
        check_v0(&request, &["shallow 4", "Flush", "NAK"], true);
    }

    #[test]
    fn wanted_references_stand_between_the_borders_and_the_pack() {
        let mut request = request(&[4], &[2], End::Flush);
        request.deepen = Deepen::Depth { commits: 2, relative: false };
        let refs = [(&b"refs/heads/a"[..], oid(4)), (&b"HEAD"[..], oid(4))];
        let mut out = Vec::new();
        assert!(negotiate_v2(&history(), &request, &refs, no_refs, &mut out).unwrap().is_some());
        let before = ["acknowledgments", "ACK 2", "ready", "Delimiter", "shallow-info", "shallow 3", "Delimiter"];
        let after = ["wanted-refs", "4 refs/heads/a", "4 HEAD", "Delimiter", "packfile"];
        assert_eq!(read(&out), [&before[..], &after].concat());
        // Not with a round of acknowledgments alone.
        request.wait_for_done = true;
        let mut out = Vec::new();
        assert!(negotiate_v2(&history(), &request, &refs, no_refs, &mut out).unwrap().is_none());
        assert_eq!(read(&out), ["acknowledgments", "ACK 2", "Flush"]);
    }
}
