//! Version 2's `packfile-uris`: a fetch of everything is pointed at a kept pack of most of it, and gets the rest.
//!
//! What the kept pack's tips lead to is what the client is told that it will have; the rest is made as for a client that has
//! that already. But its deltas stand on nothing of it: the client takes in the rest first, and a link's pack by itself.
//! Its own check that it has everything comes after both.
//! Source: git's `Documentation/technical/packfile-uri`, `fetch-pack.c`.

use std::collections::{BinaryHeap, HashSet};
use std::io::Write;
use std::sync::Arc;

use govc_engine::{ErrorKind, Kind, Oid, Result};

use super::super::cache::{KeptPack, PromisedFor};
use super::super::pointers::{self, FileForm, Pointers};
use super::{Deepen, FetchRequest, History, Plan, Source, pkt};

/// Commits that are walked to find what a kept pack's tips were when it was made.
const COMMITS_MAX: usize = 1 << 14;

/// A pack that a client gets by a link.
pub(super) struct Pointed {
    pub(super) pack: Arc<KeptPack>,
    uri: String,
}

impl Pointed {
    /// Writes the section.
    pub(super) fn tell(&self, out: &mut dyn Write) -> std::io::Result<()> {
        pkt::text(out, format_args!("packfile-uris\n"))?;
        pkt::text(out, format_args!("{} {}\n", self.pack.checksum(), self.uri))?;
        pkt::delimiter(out)
    }
}

/// The kept pack that a fetch is pointed at; promised from now on.
///
/// # Errors
/// What reading the history fails with.
pub(super) fn choose<H: History>(
    source: &Source<'_>,
    pointers: &Pointers,
    history: &H,
    request: &FetchRequest,
    plan: &Plan,
) -> Result<Option<Pointed>> {
    match find(source, pointers, history, request, plan) {
        // A link is a help; a fetch does not fail for want of one.
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled) => Ok(None),
        found => found,
    }
}

fn find<H: History>(
    source: &Source<'_>,
    pointers: &Pointers,
    history: &H,
    request: &FetchRequest,
    plan: &Plan,
) -> Result<Option<Pointed>> {
    if !pointers.has_packs() || !takes_whole_packs(pointers, request, plan) {
        return Ok(None);
    }
    for pack in pointers::worthy(source.app, source.snapshot.repo()) {
        // Whoever may have the wants may have what they lead to.
        if lead_to(history, &plan.wants, &pack.tips)?
            && let Some(uri) = pointers.link(&pack, FileForm::Pack)
            && source.app.packs.promise(&pack, source.app.config.git.uri_lifetime, PromisedFor::Fetch)
        {
            tracing::debug!(repo = %source.snapshot.repo().name(), uri, "a fetch is pointed at a kept pack");
            return Ok(Some(Pointed { pack, uri }));
        }
    }
    Ok(None)
}

/// Whether a client has nothing and takes everything, from where the links lead.
fn takes_whole_packs(pointers: &Pointers, request: &FetchRequest, plan: &Plan) -> bool {
    let mut protocols = request.uri_protocols.split(|byte| *byte == b',');
    pointers.protocol().is_some_and(|ours| protocols.any(|theirs| theirs == ours.as_bytes()))
        && request.ofs_delta
        && request.filter.is_none()
        && request.deepen == Deepen::No
        && plan.haves.is_empty()
        && plan.shallow.is_empty()
        && plan.client_shallow.is_empty()
}

/// Whether `wants` lead to all of `tips`, and soon.
fn lead_to<H: History>(history: &H, wants: &[Oid], tips: &[Oid]) -> Result<bool> {
    let wanted: HashSet<&Oid> = wants.iter().collect();
    let mut sought: HashSet<Oid> = tips.iter().filter(|tip| !wanted.contains(tip)).copied().collect();
    let mut oldest_seconds = i64::MAX;
    for tip in &sought {
        // Tags are wanted by themselves; of other objects nobody looks for the way.
        let Some(links) = history.links(tip)? else { return Ok(false) };
        oldest_seconds = oldest_seconds.min(links.seconds);
    }
    if sought.is_empty() {
        return Ok(true);
    }
    let (mut queue, mut met) = (BinaryHeap::new(), HashSet::new());
    for want in wants {
        let (oid, kind) = history.peel(*want)?;
        if kind == Kind::Commit
            && met.insert(oid)
            && let Some(links) = history.links(&oid)?
        {
            queue.push((links.seconds, oid));
        }
    }
    for _ in 0..COMMITS_MAX {
        // What is older than all that is sought does not lead to it, unless clocks were wrong; then the fetch is an ordinary one.
        let Some((_, oid)) = queue.pop().filter(|(seconds, _)| *seconds >= oldest_seconds) else { break };
        sought.remove(&oid);
        if sought.is_empty() {
            return Ok(true);
        }
        for parent in history.links(&oid)?.map(|links| links.parents).unwrap_or_default() {
            if met.insert(parent)
                && let Some(links) = history.links(&parent)?
            {
                queue.push((links.seconds, parent));
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{history, request};
    use super::*;
    use crate::git::fetch_request::End;
    use crate::git::negotiate::tests::{Drawn, oids};

    #[test]
    fn wants_lead_to_themselves_and_what_came_before() {
        let history = history();
        let leads = |wants: &[u8], tips: &[u8]| lead_to(&history, &oids(wants), &oids(tips)).expect("it is drawn");
        assert!(leads(&[4], &[4]));
        assert!(leads(&[4], &[2]));
        assert!(leads(&[4], &[1, 3]));
        assert!(leads(&[2, 4], &[2, 3]));
        assert!(!leads(&[2], &[3]));
        assert!(!leads(&[4], &[3, 99]), "it is not there");
        assert!(leads(&[4, 200], &[3, 200]), "a blob that is wanted");
        assert!(!leads(&[4], &[200]), "a blob that may be anywhere");
        let merged = Drawn::new(&[(1, &[]), (2, &[1]), (3, &[1]), (4, &[2, 3]), (5, &[1])]);
        assert!(lead_to(&merged, &oids(&[4]), &oids(&[2, 3])).expect("it is drawn"));
        assert!(!lead_to(&merged, &oids(&[4]), &oids(&[2, 5])).expect("it is drawn"));
    }

    #[test]
    fn only_a_client_that_takes_everything_is_pointed_elsewhere() {
        let pointers = Pointers::for_tests("https://git.example.org", true);
        let whole = || {
            let mut request = request(&[4], &[], End::Done);
            request.ofs_delta = true;
            request.uri_protocols = b"ftp,https".to_vec();
            request
        };
        let plan = || Plan { wants: oids(&[4]), haves: vec![], shallow: vec![], client_shallow: vec![] };
        let takes = |request: FetchRequest, plan: Plan| takes_whole_packs(&pointers, &request, &plan);
        assert!(takes(whole(), plan()));
        assert!(!takes(FetchRequest { ofs_delta: false, ..whole() }, plan()));
        assert!(!takes(FetchRequest { uri_protocols: b"http".to_vec(), ..whole() }, plan()));
        assert!(!takes(FetchRequest { uri_protocols: Vec::new(), ..whole() }, plan()));
        let deepen = Deepen::Depth { commits: 9, relative: false };
        assert!(!takes(FetchRequest { deepen, ..whole() }, plan()));
        assert!(!takes(whole(), Plan { haves: oids(&[1]), ..plan() }));
        assert!(!takes(whole(), Plan { shallow: oids(&[1]), ..plan() }));
        assert!(!takes(whole(), Plan { client_shallow: oids(&[1]), ..plan() }));
        let filter = crate::git::filter::FilterSpec::parse(b"blob:none").expect("a filter");
        assert!(!takes(FetchRequest { filter: Some(filter), ..whole() }, plan()));
    }
}
