//! Pushing: the pack is checked and staged, the changes are decided, published and, once durable, reported.
//!
//! - Nothing is visible before a transaction is published; what is reported as `ok` is as durable as the repository
//!   promises. A repository that the push creates appears right before its first transaction, so that a refused push
//!   leaves none (unless it is the storage that fails in between).
//! - Changes stand for themselves unless the push is atomic: those that fail are left out, and the rest is published
//!   together as far as that goes.
//! - With the push option `govc.on-conflict=rebase` or `merge`, a branch that has moved gets what was pushed on top of
//!   what it has now, instead of being refused or overwritten; the report names the commit that it got.
//! - A push certificate is recorded with each version that the push makes, and what it is worth decides where the repository's
//!   rules ask for it. With `govc.on-conflict` it holds what was pushed, not what became of that.
//! - Whatever fails after the commands were read is told in the report, as git's clients expect, with HTTP's 200.
//! - Nothing is sent before the client has sent its pack: many clients do not read until then.
//!
//! Source: git's `receive-pack.c`, `Documentation/gitprotocol-pack`.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use govc_engine::{
    Cause, Certified, Error, ErrorKind, Expected, GitRules, Integration, Kind, Oid, Promotion, RefEdit, RefName, Repo,
    Result, Snapshot, Store, Transaction,
};

use super::bridge::Flow;
use super::pack::receive::{self, Came, Received};
use super::pack::spool::Spool;
use super::pack::stream::Part;
use super::pkt::{self, Reader};
use super::push_request::{Command, PushRequest};
use super::sideband::{Bands, Sideband};
use crate::App;

/// Who changes things over HTTP as long as there are no users.
pub(crate) const ACTOR: &str = "anonymous";

/// How often what is pushed is brought to a branch that moves meanwhile.
const ATTEMPTS_MAX: usize = 100;

const ATOMIC_FAILURE: &str = "atomic push failure";

/// Where a push goes.
pub(crate) struct Target {
    /// The repository.
    pub(crate) repo: Repo,
    /// Whether it is a draft, to be enlisted when something is published.
    pub(crate) is_draft: bool,
    /// Who pushes.
    pub(crate) actor: Arc<str>,
    /// Whether the input goes on after the pack, so that the pack's own end is all that tells it.
    pub(crate) is_live: bool,
    /// The nonce that the client got on the same connection, if it was the same.
    pub(crate) nonce: Option<String>,
}

/// One request of `git-receive-pack`.
pub(crate) struct Incoming<'a> {
    /// The commands, and what has not begun to come of the pack.
    pub(crate) input: &'a mut dyn Read,
    /// When the commands came.
    pub(crate) came: SystemTime,
    /// What has come of the pack before, or why it will not come.
    pub(crate) begun: Result<Spool>,
}

/// Answers one request of `git-receive-pack`. If the input gives up on a slow client, nothing has been answered or done: gives what
/// has come of the pack.
///
/// # Errors
/// When the client is gone; all else is told to the client.
pub(crate) fn serve(
    app: &App,
    target: &Target,
    incoming: Incoming<'_>,
    out: &mut dyn Write,
    flow: &Flow,
) -> Result<Option<Box<Part>>> {
    let Incoming { input, came, begun } = incoming;
    let mut reader = Reader::new(input);
    let mut request = PushRequest::new(target.repo.object_format());
    if let Err(error) = request.read(&mut reader, app.store.limits().references_max) {
        if *error.kind() == ErrorKind::Cancelled {
            return Err(error);
        }
        if request.bands == Bands::None {
            return pkt::error(out, error.message()).map(|()| None).map_err(pkt::input_error);
        }
        let mut sideband = Sideband::new(out, request.bands, false);
        sideband.error(error.message());
        return sideband.finish().map(|()| None).map_err(pkt::input_error);
    }
    if request.bands != Bands::None && !request.commands.is_empty() {
        flow.begin_packets(out).map_err(pkt::input_error)?;
    }
    let mut sideband = Sideband::new(out, request.bands, !request.quiet);
    if !request.commands.is_empty() {
        let incoming = Incoming { input: reader.into_inner(), came, begun };
        let report = match push(app, target, &request, incoming, &sideband, flow) {
            Ok(report) => report,
            Err(part) => return Ok(Some(part)),
        };
        flow.end_packets();
        let refused = report.refused.iter().filter(|refused| refused.is_some()).count();
        app.metrics.packs().pushed(report.refused.len() - refused, refused);
        if request.report {
            let written = report.write(&request.commands, request.report_ids, &mut sideband.data());
            written.map_err(pkt::input_error)?;
        }
    }
    sideband.finish().map(|()| None).map_err(pkt::input_error)
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    /// Why the pack was refused.
    unpack: Option<String>,
    /// Why each command was refused.
    refused: Vec<Option<String>>,
    /// What a branch had and got, where that was not what the command said.
    brought: BTreeMap<usize, (Oid, Oid)>,
}

impl Report {
    fn new(commands: usize) -> Self {
        Self { unpack: None, refused: vec![None; commands], brought: BTreeMap::new() }
    }

    fn refuse(&mut self, index: usize, reason: impl Into<String>) {
        if let Some(refused) = self.refused.get_mut(index) {
            refused.get_or_insert_with(|| reason.into());
        }
    }

    fn refuse_rest(&mut self, reason: &str) {
        for refused in &mut self.refused {
            refused.get_or_insert_with(|| reason.to_owned());
        }
    }

    /// The lines of `report-status`, or of its second version if that may name other ids than the commands do.
    fn write(&self, commands: &[Command], with_ids: bool, out: &mut dyn Write) -> io::Result<()> {
        let unpack = self.unpack.as_deref().map_or_else(|| "ok".to_owned(), pkt::one_line);
        pkt::text(out, format_args!("unpack {unpack}\n"))?;
        for (index, (command, refused)) in commands.iter().zip(&self.refused).enumerate() {
            let line = match refused {
                None => [&b"ok "[..], &command.name, b"\n"].concat(),
                Some(reason) => [&b"ng "[..], &command.name, b" ", pkt::one_line(reason).as_bytes(), b"\n"].concat(),
            };
            pkt::data(out, &line)?;
            if let Some((old, new)) = self.brought.get(&index).filter(|_| with_ids && refused.is_none()) {
                pkt::text(out, format_args!("option old-oid {old}\n"))?;
                pkt::text(out, format_args!("option new-oid {new}\n"))?;
            }
        }
        pkt::flush(out)
    }
}

/// Does what a push asks for, or gives what has come of a pack that comes slowly.
fn push(
    app: &App,
    target: &Target,
    request: &PushRequest,
    incoming: Incoming<'_>,
    sideband: &Sideband<&mut dyn Write>,
    flow: &Flow,
) -> std::result::Result<Report, Box<Part>> {
    let repo = &target.repo;
    let Incoming { input, came, begun } = incoming;
    let mut report = Report::new(request.commands.len());
    let certificate = request.certificate.as_ref();
    let judge = |certificate| app.push_certs.judge(&repo.name(), certificate, target.nonce.as_deref(), came);
    let judged = certificate.map(judge);
    let refusal = match request.is_certified_whole {
        true => app.push_certs.refusal(repo.git_rules().require_signed_push, judged.as_ref()),
        false => Some("inconsistent push options".to_owned()),
    };
    if let Some(reason) = refusal {
        report.refuse_rest(&reason);
        return Ok(report);
    }
    let mut progress = |text: &str| {
        if flow.received() {
            sideband.progress(text);
        }
    };
    let received = if request.only_deletes() {
        None
    } else {
        match receive::receive(app, repo, begun, input, target.is_live.then_some(flow), &mut progress) {
            Ok(Came::Part(part)) => return Err(part),
            Ok(Came::Whole(received)) => {
                let (objects, plural) = (received.objects(), if received.objects() == 1 { "" } else { "s" });
                progress(&format!("Checked {objects} object{plural}, done.\n"));
                Some(received)
            }
            Err(error) => {
                tracing::debug!(repo = %repo.name(), %error, "pack refused");
                report.unpack = Some(error.message().to_owned());
                report.refuse_rest("unpacker error");
                return Ok(report);
            }
        }
    };
    let snapshot = repo.snapshot();
    let edits = decide(request, &snapshot, sideband, &mut report);
    // A pack that fills an empty repository is just what a clone will ask for.
    let first_tips = (snapshot.reference_count() == 0).then(|| tips_of(&edits));
    let is_draft = Cell::new(target.is_draft);
    let mut publisher = Publisher {
        store: &app.store,
        repo,
        is_draft,
        actor: &target.actor,
        received: received.as_deref(),
        edits,
        on_conflict: request.on_conflict,
        certified: judged.as_ref(),
        deadline: app.work.deadline(),
        report,
    };
    if request.atomic {
        publisher.publish_all_or_nothing();
    } else {
        publisher.publish_what_goes(snapshot);
    }
    let report = publisher.report;
    for (index, (old, new)) in &report.brought {
        let name = request.commands.get(*index).map(|command| String::from_utf8_lossy(&command.name).into_owned());
        let name = name.unwrap_or_default();
        sideband.warning(&match old == new {
            true => format!("{name} has all of that already and stays at {new}"),
            false => format!("{name} has moved; what was pushed is in {new}"),
        });
    }
    if let (Some(received), Some(tips)) = (received, first_tips)
        && report.refused.iter().all(Option::is_none)
        && report.brought.is_empty()
    {
        received.keep(app, repo, tips);
    }
    Ok(report)
}

fn tips_of(edits: &[Edit]) -> Vec<Oid> {
    edits.iter().filter_map(|edit| edit.edit.target).collect()
}

/// A change that may be published, and the command that it stands for.
struct Edit {
    index: usize,
    edit: RefEdit,
    /// Whether a branch may be elsewhere than the client takes it to be.
    may_move: bool,
}

impl Edit {
    /// Whether the reference is as expected, or what is pushed can be brought to where it is.
    fn may_go(&self, snapshot: &Snapshot) -> bool {
        let now = snapshot.reference(&self.edit.name);
        self.edit.expected.holds(now) || (self.is_brought() && now.is_some())
    }

    /// Whether it is a branch that gets what is pushed beside what it has.
    fn is_brought(&self) -> bool {
        self.may_move && self.edit.target.is_some() && self.edit.name.is_branch()
    }
}

/// Turns commands into edits, deletions first: a deleted `a` makes way for `a/b`. What can be refused by itself is.
fn decide(
    request: &PushRequest,
    snapshot: &Snapshot,
    sideband: &Sideband<&mut dyn Write>,
    report: &mut Report,
) -> Vec<Edit> {
    let rules = snapshot.repo().git_rules();
    let mut edits = Vec::new();
    let mut names = HashSet::new();
    for (index, command) in request.commands.iter().enumerate() {
        match decide_one(command, snapshot.head(), &rules) {
            Err(reason) => report.refuse(index, reason),
            Ok(edit) if !names.insert(edit.name.clone()) => {
                report.refuse(index, "multiple updates of one reference");
            }
            Ok(edit) if command.old.is_null() && command.new.is_null() && snapshot.reference(&edit.name).is_none() => {
                sideband.warning("warning: deleting a non-existent ref");
            }
            Ok(edit) => {
                let edit = Edit { index, edit, may_move: request.on_conflict.is_some() };
                match edit.may_go(snapshot) {
                    true => edits.push(edit),
                    false => report.refuse(index, MOVED),
                }
            }
        }
    }
    edits.sort_by_key(|edit| edit.edit.target.is_some());
    edits
}

const MOVED: &str = "failed to update ref (moved)";

const CREATED_MEANWHILE: &str = "another push has created the repository meanwhile; push again";

fn decide_one(command: &Command, head: &RefName, rules: &GitRules) -> Result<RefEdit, &'static str> {
    let name = RefName::new(&command.name).map_err(|_| "funny refname")?;
    let target = (!command.new.is_null()).then_some(command.new);
    if rules.hides(&command.name) {
        return Err(if target.is_some() { "deny updating a hidden ref" } else { "deny deleting a hidden ref" });
    }
    let one_level = name.as_bytes().strip_prefix(b"refs/").is_none_or(|rest| !rest.contains(&b'/'));
    if one_level && target.is_some() {
        return Err("funny refname");
    }
    if target.is_none() && rules.deny_deletes && name.is_branch() {
        return Err("deletion prohibited");
    }
    if target.is_none() && name == *head {
        return Err("deletion of the current branch prohibited");
    }
    let expected = if command.old.is_null() { Expected::Absent } else { Expected::Is(command.old) };
    Ok(RefEdit { name, expected, target })
}

/// Why a transaction was not published.
#[derive(Debug)]
struct Refusal {
    /// The command at fault, if it is known.
    index: Option<usize>,
    error: Error,
    /// Whether the repository could not be created, so that nothing in it can be.
    uncreated: bool,
    /// Whether a branch has moved since what was pushed was brought to it.
    raced: bool,
}

impl Refusal {
    /// Whether the store, not the push, is at fault, so that trying less of it would not help.
    fn is_final(&self) -> bool {
        self.uncreated
            || matches!(
                self.error.kind(),
                ErrorKind::StorageFull
                    | ErrorKind::Unavailable
                    | ErrorKind::OutOfBudget
                    | ErrorKind::Corrupt
                    | ErrorKind::Closed
                    | ErrorKind::Cancelled
                    | ErrorKind::Backend
            )
    }

    fn reason(&self) -> String {
        match self.error.kind() {
            ErrorKind::Conflict(conflict) => match &conflict.paths[..] {
                [] => MOVED.to_owned(),
                [path] => format!("conflict in {path}"),
                [path, others @ ..] => format!("conflict in {path} and {} more", others.len()),
            },
            ErrorKind::Exists if self.uncreated => CREATED_MEANWHILE.to_owned(),
            _ => self.error.message().to_owned(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { index: None, error, uncreated: false, raced: false }
    }
}

/// Publishes edits, and keeps the report of them.
struct Publisher<'a> {
    store: &'a Store,
    repo: &'a Repo,
    /// Whether the repository is still to be enlisted.
    is_draft: Cell<bool>,
    actor: &'a str,
    received: Option<&'a Received>,
    /// In the order in which they are applied.
    edits: Vec<Edit>,
    /// How what is pushed is brought to branches that have moved.
    on_conflict: Option<Promotion>,
    /// What the push is signed with.
    certified: Option<&'a Certified>,
    deadline: Instant,
    report: Report,
}

impl Publisher<'_> {
    fn publish_all_or_nothing(&mut self) {
        if self.report.refused.iter().any(Option::is_some) {
            self.report.refuse_rest(ATOMIC_FAILURE);
            return;
        }
        if self.edits.is_empty() {
            return;
        }
        let edits = std::mem::take(&mut self.edits);
        if let Err(refusal) = self.publish(&edits) {
            match refusal.index {
                Some(index) => self.report.refuse(index, refusal.reason()),
                None => self.report.refuse_rest(&refusal.reason()),
            }
            self.report.refuse_rest(ATOMIC_FAILURE);
        }
    }

    /// Publishes together what can be; a group that fails without a culprit is tried in halves.
    fn publish_what_goes(&mut self, mut snapshot: Snapshot) {
        let mut groups = vec![std::mem::take(&mut self.edits)];
        while let Some(mut group) = groups.pop() {
            // Others may have moved references since; without this, each would cost an attempt of its own.
            group.retain(|edit| {
                let may_go = edit.may_go(&snapshot);
                if !may_go {
                    self.report.refuse(edit.index, MOVED);
                }
                may_go
            });
            if group.is_empty() {
                continue;
            }
            let Err(refusal) = self.publish(&group) else { continue };
            tracing::debug!(repo = %self.repo.name(), error = %refusal.error, edits = group.len(), "push refused");
            if refusal.is_final() {
                for edit in groups.iter().flatten().chain(&group) {
                    self.report.refuse(edit.index, refusal.reason());
                }
                return;
            }
            snapshot = self.repo.snapshot();
            match refusal.index {
                Some(index) => {
                    self.report.refuse(index, refusal.reason());
                    group.retain(|edit| edit.index != index);
                    groups.push(group);
                }
                None if group.len() == 1 => {
                    group.iter().for_each(|edit| self.report.refuse(edit.index, refusal.reason()));
                }
                None => {
                    let later = group.split_off(group.len() / 2);
                    // The first half is taken first: deletions make way.
                    groups.push(later);
                    groups.push(group);
                }
            }
        }
    }

    /// Publishes `edits` as one transaction and waits until it is durable; what is brought to branches that move
    /// meanwhile is brought to them again.
    fn publish(&mut self, edits: &[Edit]) -> Result<(), Refusal> {
        let lineage = self.repo.lineage();
        let mut outcome = self.try_publish(edits);
        for _ in 1..ATTEMPTS_MAX {
            if !outcome.as_ref().is_err_and(|refusal| refusal.raced) {
                break;
            }
            outcome = self.try_publish(edits);
        }
        outcome.map_err(|refusal| Refusal { error: self.repo.confirm(refusal.error, lineage), ..refusal })
    }

    fn try_publish(&mut self, edits: &[Edit]) -> Result<(), Refusal> {
        let mut brought = BTreeMap::new();
        let mut changes = false;
        let rules = self.repo.git_rules();
        let mut transaction = self.repo.begin(self.actor, Cause::Push);
        if edits.iter().any(Edit::is_brought) {
            transaction.expect_races();
        }
        if let Some(received) = self.received {
            let edits: Vec<RefEdit> = edits.iter().map(|edit| edit.edit.clone()).collect();
            received.commit(&mut transaction, &edits)?;
        }
        for whole @ Edit { index, edit, .. } in edits {
            let at_fault = |error| Refusal { index: Some(*index), ..Refusal::from(error) };
            if let Some(target) = edit.target.filter(|_| edit.name.is_branch()) {
                let kind = transaction.object(&target).map_err(at_fault)?.kind;
                if kind != Kind::Commit {
                    let message = format!("a branch points to a commit, and {target} is a {kind}");
                    return Err(at_fault(Error::invalid(message)));
                }
            }
            if let Some(target) = edit.target {
                transaction.check_tags(target, 0).map_err(at_fault)?;
            }
            let mut edit = edit.clone();
            if let Some((head, new)) = self.bring(&mut transaction, whole).map_err(at_fault)? {
                if edit.target != Some(new) || !edit.expected.holds(Some(head)) {
                    brought.insert(*index, (head, new));
                }
                (edit.expected, edit.target) = (Expected::Is(head), Some(new));
                if head == new {
                    // The branch has all of it already.
                    continue;
                }
            }
            if rules.deny_non_fast_forwards
                && edit.name.is_branch()
                && let (Expected::Is(old), Some(new)) = (&edit.expected, edit.target)
                && !transaction.is_ancestor(*old, new, Some(self.deadline)).map_err(at_fault)?
            {
                return Err(at_fault(Error::invalid("non-fast-forward")));
            }
            transaction.edit(edit).map_err(at_fault)?;
            changes = true;
        }
        if !changes {
            self.report.brought.append(&mut brought);
            return Ok(());
        }
        if let Some(branch) = self.first_branch(&transaction, edits) {
            transaction.set_head(branch);
        }
        let name_culprit = |error: Error| match error.kind() {
            ErrorKind::Conflict(conflict) => {
                let culprit = edits.iter().find(|edit| edit.edit.name.as_str() == conflict.name);
                let raced = culprit.is_some_and(Edit::is_brought) && conflict.actual.is_some();
                Refusal { index: culprit.map(|edit| edit.index), raced, ..Refusal::from(error) }
            }
            _ => Refusal::from(error),
        };
        if let Some(certified) = self.certified {
            transaction.certify(certified.clone())?;
        }
        let prepared = transaction.prepare().map_err(name_culprit)?;
        self.enlist()?;
        let published = prepared.publish().map_err(name_culprit)?;
        published.ticket.wait().map_err(Refusal::from)?;
        self.report.brought.append(&mut brought);
        Ok(())
    }

    /// The head of a branch, and the commit that has what is pushed beside it, if the push is to bring it there.
    fn bring(&self, transaction: &mut Transaction, edit: &Edit) -> Result<Option<(Oid, Oid)>> {
        let RefEdit { name, target, .. } = &edit.edit;
        let (Some(promotion), Some(work), true) = (self.on_conflict, *target, edit.is_brought()) else {
            return Ok(None);
        };
        let Some(head) = transaction.tip().reference(name) else { return Ok(None) };
        let new = transaction.integrate(&Integration {
            branch: name,
            head,
            work,
            promotion,
            committer: None,
            message: format!("Merge {work} into {}", name.short()),
            deadline: Some(self.deadline),
        })?;
        Ok(Some((head, new)))
    }

    /// Creates the repository if the push is the one to do it.
    fn enlist(&self) -> Result<(), Refusal> {
        if self.is_draft.get() {
            self.store.enlist(self.repo).map_err(|error| Refusal { uncreated: true, ..Refusal::from(error) })?;
            self.is_draft.set(false);
        }
        Ok(())
    }
}

impl Publisher<'_> {
    /// The branch that `HEAD` is to name after the first push to an empty repository, if its default branch is not
    /// among those pushed: `main`, `master`, or the only one.
    fn first_branch(&self, transaction: &Transaction, edits: &[Edit]) -> Option<RefName> {
        let tip = transaction.tip();
        if tip.reference_count() > 0 {
            return None;
        }
        let branches = || edits.iter().map(|edit| &edit.edit.name).filter(|name| name.is_branch());
        if branches().any(|name| name == tip.head()) {
            return None;
        }
        let usual = ["refs/heads/main", "refs/heads/master"];
        let usual = usual.iter().find_map(|usual| branches().find(|name| name.as_bytes() == usual.as_bytes()));
        let only = branches().next().filter(|_| branches().count() == 1);
        usual.or(only).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::negotiate::tests::oid;
    use crate::git::pkt::Line;
    use govc_engine::ObjectFormat;

    fn command(old: Oid, new: Oid, name: &str) -> Command {
        Command { old, new, name: name.as_bytes().to_vec() }
    }

    #[test]
    fn commands_become_edits_with_what_they_expect() {
        let head = RefName::branch("main").unwrap();
        let name = "refs/heads/topic";
        let topic = RefName::new(name).unwrap();
        let cases = [
            (ObjectFormat::Sha1.null(), oid(1), Expected::Absent, Some(oid(1))),
            (oid(1), oid(2), Expected::Is(oid(1)), Some(oid(2))),
            (oid(1), ObjectFormat::Sha1.null(), Expected::Is(oid(1)), None),
        ];
        for (old, new, expected, target) in cases {
            let edit = RefEdit { name: topic.clone(), expected, target };
            assert_eq!(decide_one(&command(old, new, name), &head, &GitRules::default()), Ok(edit));
        }
    }

    #[test]
    fn what_git_refuses_by_its_name_is_refused() {
        let head = RefName::branch("main").unwrap();
        let decide = |old, new, name| {
            decide_one(&command(old, new, name), &head, &GitRules::default()).map(|edit| edit.name.to_string())
        };
        for funny in ["main", "HEAD", "refs/stash", "refs/heads/../x", "refs/heads/a.lock", "refs/heads/a b"] {
            assert_eq!(decide(ObjectFormat::Sha1.null(), oid(1), funny), Err("funny refname"), "{funny}");
        }
        assert_eq!(decide(oid(1), ObjectFormat::Sha1.null(), "refs/stash"), Ok("refs/stash".to_owned()));
        let current = Err("deletion of the current branch prohibited");
        assert_eq!(decide(oid(1), ObjectFormat::Sha1.null(), "refs/heads/main"), current);
    }

    fn lines(report: &Report, commands: &[Command]) -> Vec<String> {
        let mut stream = Vec::new();
        report.write(commands, true, &mut stream).expect("memory takes it");
        let mut reader = Reader::new(&stream[..]);
        let mut lines = Vec::new();
        loop {
            match reader.read().expect("valid lines") {
                Line::Data(data) => lines.push(String::from_utf8_lossy(data).into_owned()),
                Line::Flush => lines.push(String::new()),
                Line::Eof => return lines,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    #[test]
    fn the_report_names_every_reference() {
        let commands = [command(oid(1), oid(2), "refs/heads/a"), command(oid(1), oid(2), "refs/heads/b")];
        let mut report = Report::new(2);
        report.refuse(1, "because\nof");
        report.refuse(1, "a second reason does not hide the first");
        report.refuse(7, "not there");
        let expected = ["unpack ok\n", "ok refs/heads/a\n", "ng refs/heads/b because of\n", ""];
        assert_eq!(lines(&report, &commands), expected);

        report.unpack = Some("pack is\ntruncated".to_owned());
        report.refuse_rest("unpacker error");
        let expected =
            ["unpack pack is truncated\n", "ng refs/heads/a unpacker error\n", "ng refs/heads/b because of\n", ""];
        assert_eq!(lines(&report, &commands), expected);
    }

    #[test]
    fn a_failing_store_is_not_tried_in_halves() {
        let refusal = |kind| Refusal::from(Error::new(kind, "x"));
        assert!(refusal(ErrorKind::StorageFull).is_final());
        assert!(refusal(ErrorKind::Unavailable).is_final());
        assert!(!refusal(ErrorKind::Exists).is_final());
        let moved = Refusal::from(Error::conflict("refs/heads/a", None, Some(oid(1))));
        assert!(!moved.is_final());
        assert_eq!(moved.reason(), MOVED);
        let late = Refusal { uncreated: true, ..refusal(ErrorKind::Exists) };
        assert!(late.is_final());
        assert_eq!(late.reason(), CREATED_MEANWHILE);
    }
}
