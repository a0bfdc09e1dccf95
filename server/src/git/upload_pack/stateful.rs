//! Versions 0 and 1 over a connection that stays: the wants once, then haves and acknowledgments by turns.
//!
//! What a stateless request repeats each time is said once here, and what was found in common is remembered from round to
//! round. Source: git's `upload-pack.c` (`upload_pack`, `get_common_commits`).

use std::io::{Read, Write};

use govc_engine::{Error, ErrorKind, Repo, Result, Snapshot};

use super::super::fetch_request::{Deepen, FetchRequest, HAVES_MAX};
use super::super::negotiate::Negotiation;
use super::v0::{Acknowledged, acknowledge};
use super::{
    Flow, Reader, Ready, Rest, Source, borders, client_borders, pkt, plan, prepare_pack, resolve, tell_borders,
};
use crate::App;

/// Holds a whole conversation that follows the advertisement of references, up to the pack, which is left.
///
/// # Errors
/// As [`super::serve`].
pub(crate) fn serve<'a>(
    app: &'a App,
    repo: &Repo,
    input: &mut dyn Read,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<Option<Rest<'a>>> {
    let snapshot = repo.snapshot();
    let mut reader = Reader::new(input);
    match talk(app, &snapshot, &mut reader, out) {
        Ok(None) => Ok(None),
        Ok(Some(ready)) => prepare_pack(app, repo, snapshot, ready, out, flow).map(Some),
        Err(error) if *error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            tracing::debug!(repo = %repo.name(), %error, "fetch refused");
            pkt::error(out, error.message()).map_err(pkt::input_error)?;
            Ok(None)
        }
    }
}

/// `None` when no pack follows: the client wants nothing, or has gone.
fn talk(
    app: &App,
    snapshot: &Snapshot,
    reader: &mut Reader<&mut dyn Read>,
    out: &mut dyn Write,
) -> Result<Option<Ready>> {
    let mut request = FetchRequest::read_v0_wants(snapshot.object_format(), reader)?;
    if request.wants.is_empty() {
        return Ok(None);
    }
    let source = Source::new(app, snapshot);
    source.check_wants(&request.wants)?;
    let filter = source.filter(&request)?;
    let history = source.history();
    let client = client_borders(&history, &request)?;
    let borders = borders(&history, &request, &client, |refs| resolve(snapshot, refs))?;
    if request.deepen != Deepen::No {
        tell_borders(&borders, out).and_then(|()| pkt::flush(out)).map_err(pkt::input_error)?;
        out.flush().map_err(pkt::input_error)?;
    }
    let mut negotiation = Negotiation::new(&history, &request.wants);
    let mut acknowledged = Acknowledged::default();
    let mut haves = 0;
    loop {
        request.read_v0_round(reader)?;
        haves += request.haves.len();
        if haves > HAVES_MAX {
            return Err(Error::too_large(format!("the request has more than {HAVES_MAX} 'have' lines")));
        }
        if request.is_over() {
            return Ok(None);
        }
        // The time in between was the client's; the walk goes on where it stopped, so all rounds cost as much as one.
        history.extend(app.work.deadline());
        let is_ready = acknowledge(&mut negotiation, &request, &mut acknowledged, out)?;
        if is_ready {
            let plan = plan(&request, negotiation.common(), client, borders);
            return Ok(Some(Ready { request, plan, filter, elsewhere: None }));
        }
        out.flush().map_err(pkt::input_error)?;
    }
}
