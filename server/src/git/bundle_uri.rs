//! Version 2's command `bundle-uri`, and the bundles that its answer names.
//!
//! One bundle is named, of the kept pack that holds most of what the references lead to; none, if there is no pack worth
//! it. It has no creation token: with one, a client would fetch the whole again whenever there is a newer one.
//!
//! A bundle's references are named by their commits. Git's client copies them to `refs/bundles/`, tells the server in the
//! fetch that follows that it has them, and needs no more of them. What branches are called is not in the pack, may have
//! changed since, and the bytes behind a link must always be the same.
//! Source: git's `Documentation/gitprotocol-v2`, `technical/bundle-uri`, `gitformat-bundle`, `bundle-uri.c`.

use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use govc_engine::{Error, ErrorKind, Kind, ObjectFormat, Oid, Result, Snapshot};

use super::cache::{KeptPack, PromisedFor};
use super::pkt::{self, Line, Reader};
use super::pointers::{self, FileForm, Pointers};
use crate::App;

/// What a bundle begins with: of version 2, unless it has to say what its ids are.
pub(crate) fn signature(format: ObjectFormat) -> &'static [u8] {
    match format {
        ObjectFormat::Sha1 => b"# v2 git bundle\n",
        ObjectFormat::Sha256 => b"# v3 git bundle\n@object-format=sha256\n",
    }
}

/// References of a bundle: as many as are worth telling a server that one has.
const REFERENCES_MAX: usize = 256;
/// Commits that are walked to find which tips others lead to.
const COMMITS_MAX: usize = 1 << 16;

/// Reads the command's arguments, of which there are none.
///
/// # Errors
/// `Invalid` for any.
pub(crate) fn read_arguments<R: Read>(reader: &mut Reader<R>) -> Result<()> {
    let line = reader.read()?;
    match line {
        Line::Flush => Ok(()),
        Line::Data(_) => {
            let shown = pkt::one_line(&String::from_utf8_lossy(line.text().unwrap_or_default()));
            Err(Error::invalid(format!("bundle-uri: unexpected argument: '{shown}'")))
        }
        _ => Err(Error::invalid("bundle-uri: expected flush after arguments")),
    }
}

/// Answers the command.
///
/// # Errors
/// What reading or `out` fails with.
pub(crate) fn answer(app: &App, snapshot: &Snapshot, pointers: &Pointers, out: &mut dyn Write) -> Result<()> {
    for (key, value) in list(app, snapshot, pointers)? {
        pkt::text(out, format_args!("{key}={value}\n")).map_err(pkt::input_error)?;
    }
    pkt::flush(out).map_err(pkt::input_error)
}

/// The same as a file of git's configuration, for `git clone --bundle-uri`.
///
/// # Errors
/// What reading fails with.
pub(crate) fn list_file(app: &App, snapshot: &Snapshot, pointers: &Pointers) -> Result<String> {
    let mut text = String::from("[bundle]\n");
    for (key, value) in list(app, snapshot, pointers)? {
        match key.rsplit_once('.') {
            Some(("bundle", name)) => text.push_str(&format!("\t{name} = {value}\n")),
            Some((section, name)) => {
                let id = section.trim_start_matches("bundle.");
                text.push_str(&format!("[bundle \"{id}\"]\n\t{name} = {value}\n"));
            }
            None => {}
        }
    }
    Ok(text)
}

fn list(app: &App, snapshot: &Snapshot, pointers: &Pointers) -> Result<Vec<(String, String)>> {
    let mut list = vec![("bundle.version".to_owned(), "1".to_owned()), ("bundle.mode".to_owned(), "all".to_owned())];
    let best = match best(app, snapshot, app.work.deadline()) {
        // It would be a help; a client is not kept from cloning for want of it.
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled) => None,
        best => best?,
    };
    if let Some(pack) = best
        && let Some(uri) = pointers.link(&pack, FileForm::Bundle)
    {
        tracing::debug!(repo = %snapshot.repo().name(), uri, "a client is told of a bundle");
        list.push((format!("bundle.{}.uri", pack.checksum()), uri));
    }
    Ok(list)
}

/// The pack that holds most, promised from now on.
fn best(app: &App, snapshot: &Snapshot, deadline: Instant) -> Result<Option<Arc<KeptPack>>> {
    for pack in pointers::worthy(app, snapshot.repo()) {
        if pointers::is_visible(app, snapshot, &pack, deadline)?
            && app.packs.promise(&pack, app.config.git.uri_lifetime, PromisedFor::Bundle)
        {
            return Ok(Some(pack));
        }
    }
    Ok(None)
}

/// What stands before the pack in a bundle; always the same for the same pack.
///
/// # Errors
/// What reading fails with.
pub(crate) fn header(snapshot: &Snapshot, pack: &KeptPack) -> Result<Bytes> {
    if let Some(header) = pack.bundle_header().get() {
        return Ok(header.clone());
    }
    let mut header = signature(snapshot.object_format()).to_vec();
    for oid in heads(snapshot, &pack.tips)? {
        header.extend_from_slice(format!("{oid} refs/heads/{oid}\n").as_bytes());
    }
    header.push(b'\n');
    Ok(pack.bundle_header().get_or_init(|| header.into()).clone())
}

/// The commits of `tips`, also those behind tags, that lead to all the others: the newest of them, by id.
fn heads(snapshot: &Snapshot, tips: &[Oid]) -> Result<BTreeSet<Oid>> {
    let mut commits = HashMap::new();
    let mut queue = BinaryHeap::new();
    for tip in tips {
        let (oid, kind) = match snapshot.peel(*tip) {
            // Behind more tags than are followed.
            Err(error) if *error.kind() == ErrorKind::Corrupt => continue,
            peeled => peeled?,
        };
        if kind == Kind::Commit && !commits.contains_key(&oid) {
            let seconds = snapshot.commit_links(&oid)?.seconds;
            commits.insert(oid, Some(seconds));
            queue.push((seconds, oid));
        }
    }
    let mut open = commits.len();
    // A commit that is met as a parent is no head; what has no time here is no tip, or not any more.
    for _ in 0..COMMITS_MAX {
        let Some((_, oid)) = queue.pop().filter(|_| open > 1) else { break };
        for parent in snapshot.commit_links(&oid)?.parents {
            match commits.get_mut(&parent) {
                Some(head) => open -= usize::from(head.take().is_some()),
                None => {
                    commits.insert(parent, None);
                    queue.push((snapshot.commit_links(&parent)?.seconds, parent));
                }
            }
        }
    }
    let mut heads: Vec<(i64, Oid)> = commits.into_iter().filter_map(|(oid, seconds)| Some((seconds?, oid))).collect();
    heads.sort_unstable_by(|a, b| b.cmp(a));
    Ok(heads.into_iter().take(REFERENCES_MAX).map(|(_, oid)| oid).collect())
}
