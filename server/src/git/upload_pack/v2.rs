//! Version 2: a command a request.

use std::collections::HashSet;
use std::io::{Read, Write};

use govc_engine::{Error, ErrorKind, Oid, Result, Snapshot};

use super::super::bundle_uri;
use super::super::command::{self, Command};
use super::super::fetch_request::{Deepen, End, FetchRequest};
use super::super::ls_refs::LsRefs;
use super::super::negotiate::{History, Negotiation};
use super::super::object_info::ObjectInfo;
use super::super::pointers::Pointers;
use super::super::sideband::Banded;
use super::packfile_uris::{self, Pointed};
use super::{Flow, Plan, Reader, Ready, Source, borders, client_borders, pkt, plan, resolve, tell_borders};
use crate::App;

pub(super) fn talk(
    app: &App,
    snapshot: &Snapshot,
    reader: &mut Reader<&mut dyn Read>,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<Option<Ready>> {
    let format = snapshot.object_format();
    let Some(head) = command::read_head(format, reader)? else { return Ok(None) };
    flow.set_server_options(&head.server_options);
    match head.command {
        Command::LsRefs => {
            let arguments = if head.arguments { LsRefs::read(reader)? } else { LsRefs::default() };
            arguments.answer(&app.listings, snapshot, out)?;
            Ok(None)
        }
        Command::ObjectInfo => {
            let arguments = if head.arguments { ObjectInfo::read(format, reader)? } else { ObjectInfo::default() };
            let missing = Source::new(app, snapshot).missing(&arguments.oids)?;
            arguments.answer(snapshot, &missing, out)?;
            Ok(None)
        }
        // As with git, where it is not advertised it is unknown.
        Command::BundleUri if !flow.pointers().has_bundles() => Err(Error::invalid("invalid command 'bundle-uri'")),
        Command::BundleUri => {
            if head.arguments {
                bundle_uri::read_arguments(reader)?;
            }
            bundle_uri::answer(app, snapshot, flow.pointers(), out)?;
            Ok(None)
        }
        Command::Fetch if !head.arguments => Ok(None),
        Command::Fetch => {
            let request = FetchRequest::read_v2(format, reader)?;
            let source = Source::new(app, snapshot);
            if !request.sideband_all {
                return fetch(&source, request, flow.pointers(), out);
            }
            match fetch(&source, request, flow.pointers(), &mut Banded::new(out)) {
                Err(error) if *error.kind() != ErrorKind::Cancelled => {
                    tracing::debug!(repo = %snapshot.repo().name(), %error, "fetch refused");
                    flow.set_refused();
                    Banded::new(out).error(error.message()).map_err(pkt::input_error)?;
                    Ok(None)
                }
                ready => ready,
            }
        }
    }
}

fn fetch(
    source: &Source<'_>,
    mut request: FetchRequest,
    pointers: &Pointers,
    out: &mut dyn Write,
) -> Result<Option<Ready>> {
    source.check_wants(&request.wants)?;
    let wanted_refs = source.wanted_refs(&request.want_refs)?;
    let mut wants: HashSet<Oid> = request.wants.iter().copied().collect();
    request.wants.extend(wanted_refs.iter().map(|(_, oid)| *oid).filter(|oid| wants.insert(*oid)));
    let filter = source.filter(&request)?;
    let (history, resolve) = (source.history(), |name: &[u8]| resolve(source.snapshot, name));
    let choose = |plan: &Plan| packfile_uris::choose(source, pointers, &history, &request, plan);
    let negotiated = negotiate(&history, &request, &wanted_refs, resolve, choose, out)?;
    Ok(negotiated.map(|(plan, pointed)| {
        let elsewhere = pointed.map(|pointed| pointed.pack);
        Ready { request, plan, filter, elsewhere }
    }))
}

/// Writes the sections before the pack; `None` when no pack follows. `choose` says what the client gets by a link.
fn negotiate<H: History>(
    history: &H,
    request: &FetchRequest,
    wanted_refs: &[(&[u8], Oid)],
    resolve: impl Fn(&[u8]) -> Result<Oid>,
    choose: impl FnOnce(&Plan) -> Result<Option<Pointed>>,
    out: &mut dyn Write,
) -> Result<Option<(Plan, Option<Pointed>)>> {
    let mut negotiation = Negotiation::new(history, &request.wants);
    for have in &request.haves {
        negotiation.have(*have)?;
    }
    if !request.haves.is_empty() && request.end != End::Done {
        let ready = !request.wants.is_empty() && !request.wait_for_done && negotiation.is_enough()?;
        acknowledge(negotiation.common(), ready, out).map_err(pkt::input_error)?;
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
    let plan = plan(request, negotiation.common(), client, borders);
    let pointed = choose(&plan)?;
    pointed.as_ref().map_or(Ok(()), |pointed| pointed.tell(out)).map_err(pkt::input_error)?;
    pkt::text(out, format_args!("packfile\n")).map_err(pkt::input_error)?;
    Ok(Some((plan, pointed)))
}

fn acknowledge(common: &[Oid], ready: bool, out: &mut dyn Write) -> std::io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{history, no_refs, read, request};
    use super::*;
    use crate::git::negotiate::tests::{oid, oids};

    #[track_caller]
    fn check(request: &FetchRequest, lines: &[&str], pack: bool) {
        let mut out = Vec::new();
        let plan = negotiate(&history(), request, &[], no_refs, |_| Ok(None), &mut out).unwrap();
        assert_eq!(read(&out), lines);
        assert_eq!(plan.is_some(), pack);
    }

    #[test]
    fn version_2_sends_the_pack_when_it_is_ready_or_told_to() {
        check(&request(&[4], &[], End::Done), &["packfile"], true);
        check(&request(&[4], &[], End::Flush), &["packfile"], true);
        check(&request(&[4], &[2], End::Done), &["packfile"], true);
        check(&request(&[4], &[99], End::Flush), &["acknowledgments", "NAK", "Flush"], false);
        let ready = ["acknowledgments", "ACK 2", "ready", "Delimiter", "packfile"];
        check(&request(&[4], &[99, 2], End::Flush), &ready, true);
        check(&request(&[], &[], End::Flush), &[], false);
    }

    #[test]
    fn version_2_waits_for_done_when_asked() {
        let mut request = request(&[4], &[2], End::Flush);
        request.wait_for_done = true;
        check(&request, &["acknowledgments", "ACK 2", "Flush"], false);
        request.wants.clear();
        check(&request, &["acknowledgments", "ACK 2", "Flush"], false);
    }

    #[test]
    fn version_2_tells_borders_before_the_pack() {
        let mut request = request(&[4], &[], End::Done);
        request.deepen = Deepen::Depth { commits: 2, relative: false };
        check(&request, &["shallow-info", "shallow 3", "Delimiter", "packfile"], true);
        request.deepen = Deepen::No;
        request.shallow = oids(&[3, 99]);
        check(&request, &["shallow-info", "Delimiter", "packfile"], true);
    }

    #[test]
    fn an_opened_border_wants_its_parents() {
        let mut request = request(&[4], &[4], End::Done);
        request.shallow = oids(&[4]);
        request.deepen = Deepen::Depth { commits: 2, relative: false };
        let mut out = Vec::new();
        let plan = negotiate(&history(), &request, &[], no_refs, |_| Ok(None), &mut out).unwrap().expect("a pack").0;
        assert_eq!(read(&out), ["shallow-info", "shallow 3", "unshallow 4", "Delimiter", "packfile"]);
        let expected =
            Plan { wants: oids(&[4, 3]), haves: oids(&[4, 4]), shallow: oids(&[4, 3]), client_shallow: oids(&[4]) };
        assert_eq!(plan, expected);
    }

    #[test]
    fn wanted_references_stand_between_the_borders_and_the_pack() {
        let mut request = request(&[4], &[2], End::Flush);
        request.deepen = Deepen::Depth { commits: 2, relative: false };
        let refs = [(&b"refs/heads/a"[..], oid(4)), (&b"HEAD"[..], oid(4))];
        let mut out = Vec::new();
        assert!(negotiate(&history(), &request, &refs, no_refs, |_| Ok(None), &mut out).unwrap().is_some());
        let before = ["acknowledgments", "ACK 2", "ready", "Delimiter", "shallow-info", "shallow 3", "Delimiter"];
        let after = ["wanted-refs", "4 refs/heads/a", "4 HEAD", "Delimiter", "packfile"];
        assert_eq!(read(&out), [&before[..], &after].concat());
        // Not with a round of acknowledgments alone.
        request.wait_for_done = true;
        let mut out = Vec::new();
        assert!(negotiate(&history(), &request, &refs, no_refs, |_| Ok(None), &mut out).unwrap().is_none());
        assert_eq!(read(&out), ["acknowledgments", "ACK 2", "Flush"]);
    }
}
