//! Versions 0 and 1, stateless: each round repeats the wants and adds haves.

use std::io::{Read, Write};

use govc_engine::{Oid, Result, Snapshot};

use super::super::fetch_request::{Deepen, End, FetchRequest, MultiAck};
use super::super::negotiate::{Have, History, Negotiation};
use super::{Plan, Reader, Ready, Source, borders, client_borders, pkt, plan, resolve, tell_borders};
use crate::App;

pub(super) fn talk(
    app: &App,
    snapshot: &Snapshot,
    reader: &mut Reader<&mut dyn Read>,
    out: &mut dyn Write,
) -> Result<Option<Ready>> {
    let request = FetchRequest::read_v0(snapshot.object_format(), reader)?;
    let source = Source::new(app, snapshot);
    source.check_wants(&request.wants)?;
    let filter = source.filter(&request)?;
    let plan = negotiate(&source.history(), &request, |refs| resolve(snapshot, refs), out)?;
    Ok(plan.map(|plan| Ready { request, plan, filter, elsewhere: None }))
}

/// Writes borders and acknowledgments; `None` when no pack follows.
fn negotiate<H: History>(
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
    let send = acknowledge(&mut negotiation, request, &mut Acknowledged::default(), out)?;
    Ok(send.then(|| plan(request, negotiation.common(), client, borders)))
}

/// What has been acknowledged in version 0 so far, over all rounds of a conversation.
#[derive(Default)]
pub(super) struct Acknowledged {
    last_common: Option<Oid>,
    ready: bool,
}

/// Answers the haves of one round one by one, as `get_common_commits` does; whether the pack follows.
pub(super) fn acknowledge<H: History>(
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

#[cfg(test)]
mod tests {
    use super::super::tests::{history, no_refs, read, request};
    use super::*;
    use crate::git::negotiate::tests::oids;

    #[track_caller]
    fn check(request: &FetchRequest, lines: &[&str], pack: bool) {
        let mut out = Vec::new();
        let plan = negotiate(&history(), request, no_refs, &mut out).unwrap();
        assert_eq!(read(&out), lines);
        assert_eq!(plan.is_some(), pack);
    }

    #[test]
    fn a_clone_in_version_0_is_one_nak() {
        check(&request(&[4], &[], End::Done), &["NAK"], true);
        check(&request(&[], &[], End::Wants), &[], false);
    }

    #[test]
    fn version_0_without_multi_ack_acknowledges_once() {
        check(&request(&[4], &[99, 3, 1], End::Flush), &["ACK 3"], false);
        check(&request(&[4], &[99, 3, 1], End::Done), &["ACK 3"], true);
        check(&request(&[4], &[99], End::Flush), &["NAK"], false);
        check(&request(&[4], &[99], End::Done), &["NAK"], true);
    }

    #[test]
    fn version_0_with_multi_ack_continues() {
        let mut request = request(&[4], &[3, 99], End::Flush);
        request.multi_ack = MultiAck::Plain;
        check(&request, &["ACK 3 continue", "ACK 99 continue", "NAK"], false);
        request.end = End::Done;
        check(&request, &["ACK 3 continue", "ACK 99 continue", "ACK 3"], true);
    }

    #[test]
    fn version_0_in_detail_says_when_it_is_ready() {
        let mut request = request(&[4], &[3], End::Flush);
        request.multi_ack = MultiAck::Detailed;
        check(&request, &["ACK 3 common", "ACK 3 ready", "NAK"], false);
        request.no_done = true;
        check(&request, &["ACK 3 common", "ACK 3 ready", "NAK", "ACK 3"], true);
        request.haves = oids(&[3, 99]);
        check(&request, &["ACK 3 common", "ACK 99 ready", "NAK", "ACK 3"], true);
        request.haves = oids(&[99]);
        check(&request, &["NAK"], false);
    }

    #[test]
    fn version_0_repeats_the_borders_in_each_round() {
        let mut request = request(&[4], &[], End::Wants);
        request.deepen = Deepen::Depth { commits: 1, relative: false };
        check(&request, &["shallow 4", "Flush"], false);
        request.end = End::Done;
        check(&request, &["shallow 4", "Flush", "NAK"], true);
    }
}
