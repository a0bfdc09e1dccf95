//! Repositories brought in from elsewhere: a folder, a bundle, or a Git server.
//!
//! | file | owns |
//! |---|---|
//! | `source` | where from: what it offers, its packs |
//! | `local` | a repository in a folder, read without git |
//! | `bundle` | a bundle file, versions 2 and 3 |
//! | `remote` | a Git server over HTTP |
//! | `slices` | what a first import from a server has received so far |
//! | `plan` | which references change, and which must not |
//! | `watch` | progress, limits and the end of it |
//! | `fuzz` | an entry for fuzzing |
//!
//! - What comes is ingested as a push is: everything parsed, hashed and checked, connectivity shown, one transaction. What
//!   fails changes nothing in the repository.
//! - A repository that was there is asked for by what it has. One that is new comes in slices of its history, newest
//!   first, each kept on disk when it is whole; an import that was interrupted asks only for the others. They are published
//!   together: what a reader sees is never part of a history.
//! - No `git` is run, and no configuration of one is read.

mod bundle;
mod fuzz;
mod local;
mod plan;
mod remote;
mod slices;
mod source;
mod watch;

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use govc_engine::{
    Cause, Durability, Error, ErrorKind, Oid, RefName, Repo, RepoName, RepoSettings, Result, Snapshot, Store,
};

pub use fuzz::fuzz_import;
pub(crate) use remote::RemoteOptions;
pub(crate) use source::{Scope, Source};
pub(crate) use watch::Watch;

use self::plan::Plan;
use self::remote::Remote;
use self::slices::Slices;
use self::source::{Head, References};
use self::watch::{Bounds, Patience, Watched};
use crate::git::pack::receive::{Intake, Received};
use crate::git::pack::spool::Folder;
use crate::git::pack::workers::IngestThreads;

/// Who changes things.
const ACTOR: &str = "import";
/// What a client that has more says it has, at most.
const HAVES_MAX: usize = 4096;
/// Branches whose history is told, not only their tips.
const HAVE_LINES_MAX: usize = 64;
/// Commits of such a history that are looked at.
const HAVE_STEPS_MAX: usize = 1 << 16;

/// What is to be imported into what.
pub(crate) struct Import<'a> {
    pub(crate) store: &'a Store,
    pub(crate) into: RepoName,
    pub(crate) scope: Scope,
    /// Whether branches may lose commits, and tags and mirrors what they have.
    pub(crate) force: bool,
    /// The depth of the first slice of a history, in commits; 0 for all of it at once.
    pub(crate) slice: u32,
    /// Where packs on their way in are kept.
    pub(crate) folder: Folder,
    /// Where slices are kept.
    pub(crate) slices: PathBuf,
    /// Bytes of packs, together.
    pub(crate) bytes_max: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) watch: &'a dyn Watch,
}

/// What was imported.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Whether the repository was made for it.
    pub(crate) created: bool,
    /// References of the source.
    pub(crate) references: usize,
    pub(crate) added: usize,
    pub(crate) updated: usize,
    pub(crate) deleted: usize,
    /// Objects and bytes of what was ingested.
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    /// What people should know.
    pub(crate) notes: Vec<String>,
}

/// The repository, and whether it is still to be enlisted.
struct Target {
    repo: Repo,
    is_draft: bool,
}

impl Import<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] and [`ErrorKind::Corrupt`] for a source that is not as it must be, and for changes that would
    /// lose something; [`ErrorKind::NotFound`] for what is missing in it, [`ErrorKind::TooLarge`] over a limit,
    /// [`ErrorKind::Unavailable`] for a server that cannot be asked, [`ErrorKind::Cancelled`]. The repository is as it was
    /// then; but one whose interrupted import went on may have all that the source had when that began.
    pub(crate) fn run(&self, source: &mut Source) -> Result<Imported> {
        let mut imported = Imported::default();
        let bounds = Bounds::new(self.bytes_max);
        let existing = match self.store.repo(&self.into) {
            Ok(repo) => Some(repo),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let is_empty = existing.as_ref().is_none_or(|repo| repo.snapshot().reference_count() == 0);
        if let Source::Remote(remote) = &mut *source {
            let folder = slices::folder(&self.slices, remote.url(), &self.into, self.scope);
            if !is_empty {
                // Somebody else has filled it since.
                slices::remove(&folder);
            } else if self.slice > 0 {
                let went_on = self.in_slices(remote, folder, existing.clone(), &bounds, &mut imported)?;
                // What was begun before may be old by now.
                if !went_on {
                    return Ok(imported);
                }
            }
        }
        let references = source.references(self.scope, self.limit(), self.patience())?;
        let target = self.target(&references)?;
        let snapshot = target.repo.snapshot();
        let plan = Plan::new(&snapshot, &references, self.scope, self.force)?;
        let wants = missing(&snapshot, plan.edits.iter().filter_map(|edit| edit.target))?;
        let received = if wants.is_empty() {
            None
        } else {
            let mut pack = source.pack(&wants, &snapshot, self.patience())?;
            Some(self.receive(&target.repo, &mut *pack, "receiving", &bounds)?)
        };
        self.publish(target, &snapshot, received, &references, plan, &mut imported)?;
        imported.bytes = bounds.taken();
        Ok(imported)
    }

    fn patience(&self) -> Patience<'_> {
        Patience::new(self.watch, self.deadline)
    }

    fn limit(&self) -> usize {
        self.store.limits().references_max
    }

    fn target(&self, references: &References) -> Result<Target> {
        match self.store.repo(&self.into) {
            Ok(repo) => {
                check_format(&repo, references)?;
                Ok(Target { repo, is_draft: false })
            }
            Err(error) if error.is_not_found() => {
                let default_branch = plan::first_head(references);
                let settings = RepoSettings {
                    default_branch: default_branch.unwrap_or(RepoSettings::default().default_branch),
                    durability: Durability::Durable,
                    object_format: references.format,
                    ..RepoSettings::default()
                };
                Ok(Target { repo: self.store.draft(&self.into, settings, ACTOR)?, is_draft: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Brings a whole history in slices, or what of it an earlier run did not bring; whether there was such a run.
    fn in_slices(
        &self,
        remote: &mut Remote,
        folder: PathBuf,
        existing: Option<Repo>,
        bounds: &Bounds,
        imported: &mut Imported,
    ) -> Result<bool> {
        let mut went_on = false;
        // As it was given: where that leads may change.
        let url = remote.url().to_owned();
        let begun = Slices::open(&folder, &url, self.folder.reserve_bytes);
        let begun = begun.filter(|slices| existing.as_ref().is_none_or(|repo| repo.object_format() == slices.format()));
        let mut slices = match begun {
            Some(slices) => {
                went_on = true;
                let (count, bytes) = slices.held();
                self.watch
                    .say(&format!("going on with an interrupted import: {count} slices, {bytes} bytes, are here\n"));
                if !slices.is_complete() {
                    // Whether it answers at all, and this user, says nothing of what it has: what is here stays.
                    remote.meet(self.scope, self.limit(), self.patience())?;
                }
                slices
            }
            None => {
                let references = remote.references(self.scope, self.limit(), self.patience())?;
                existing.as_ref().map_or(Ok(()), |repo| check_format(repo, &references))?;
                Slices::begin(&folder, &url, references, self.slice, self.folder.reserve_bytes)?
            }
        };
        while !slices.is_complete() {
            let answer = remote.fetch(&slices.ask(remote.can_deepen()), self.patience());
            let fetched = match answer {
                Ok(mut answer) => {
                    let mut pack = Watched::new(&mut *answer.pack, "receiving", bounds, self.patience());
                    slices.take(&mut pack, &answer.shallow, &answer.unshallow)
                }
                // The source has not what it had: from the beginning, once. Until that has begun, what is here stays.
                Err(error) if went_on && remote::is_refusal(&error) => {
                    let references = remote.references(self.scope, self.limit(), self.patience())?;
                    existing.as_ref().map_or(Ok(()), |repo| check_format(repo, &references))?;
                    self.watch.say(&format!("{error}; beginning again\n"));
                    slices = Slices::begin(&folder, &url, references, self.slice, self.folder.reserve_bytes)?;
                    went_on = false;
                    continue;
                }
                Err(error) => Err(error),
            };
            self.watch.end();
            if let Err(error) = fetched {
                if slices.is_empty() {
                    slices.discard();
                }
                return Err(error);
            }
        }
        let references = slices.references().clone();
        let target = match existing {
            Some(repo) => Target { repo, is_draft: false },
            None => self.target(&references)?,
        };
        let snapshot = target.repo.snapshot();
        let plan = Plan::new(&snapshot, &references, self.scope, self.force)?;
        let whole = Bounds::new(u64::MAX);
        let received = match slices.is_empty() {
            true => Ok(None),
            false => self.receive(&target.repo, &mut slices.pack()?, "checking", &whole).map(Some),
        };
        let published =
            received.and_then(|received| self.publish(target, &snapshot, received, &references, plan, imported));
        match published {
            // What is wrong with it does not become right. A limit that it is over may be raised.
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Corrupt | ErrorKind::NotFound) => {
                slices.discard();
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => {
                slices.discard();
                imported.bytes = bounds.taken();
                Ok(went_on)
            }
        }
    }

    /// Ingests a pack as a push's.
    fn receive(&self, repo: &Repo, pack: &mut dyn Read, what: &'static str, bounds: &Bounds) -> Result<Received> {
        let mut pack = Watched::new(pack, what, bounds, self.patience());
        let mut progress = |text: &str| self.watch.say(text);
        // Nobody else ingests in this process.
        let threads = IngestThreads::of_machine();
        let intake = Intake { folder: Some(self.folder.clone()), limits: self.store.limits(), threads: &threads };
        let received = intake.receive(repo, &mut pack, None, &mut progress);
        self.watch.end();
        received
    }

    fn publish(
        &self,
        target: Target,
        snapshot: &Snapshot,
        received: Option<Received>,
        references: &References,
        plan: Plan,
        imported: &mut Imported,
    ) -> Result<()> {
        plan.check_moves(snapshot, received.as_ref(), self.patience())?;
        let Plan { edits, head, added, updated, deleted, .. } = plan;
        let changes = !edits.is_empty() || head.is_some();
        let mut transaction = target.repo.begin(ACTOR, Cause::Import);
        transaction.relies_on(snapshot);
        if let Some(received) = &received {
            received.commit(&mut transaction, &edits)?;
            imported.objects += received.objects();
        }
        for edit in edits {
            transaction.edit(edit)?;
        }
        if let Some(head) = head {
            transaction.set_head(head);
        }
        let prepared = changes.then(|| transaction.prepare()).transpose()?;
        self.patience().check()?;
        if target.is_draft {
            self.store.enlist(&target.repo)?;
            imported.created = true;
        }
        if let Some(prepared) = prepared {
            prepared.publish()?.ticket.wait()?;
        }
        imported.references = references.all.len();
        imported.added += added;
        imported.updated += updated;
        imported.deleted += deleted;
        for note in references.notes() {
            if !imported.notes.contains(&note) {
                imported.notes.push(note);
            }
        }
        Ok(())
    }
}

/// Makes sure that a repository can take what a source has.
fn check_format(repo: &Repo, references: &References) -> Result<()> {
    let (ours, theirs) = (repo.object_format(), references.format);
    if ours == theirs {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the source has {theirs} ids and {} has {ours} ids: they cannot be mixed; import into a repository that does not \
         exist yet",
        repo.name()
    )))
}

/// Those objects that a repository does not have, each once.
fn missing(snapshot: &Snapshot, oids: impl Iterator<Item = Oid>) -> Result<Vec<Oid>> {
    let mut wants: Vec<Oid> = oids.collect();
    wants.sort_unstable();
    wants.dedup();
    let mut missing = Vec::new();
    for want in wants {
        if snapshot.kind_to_build_on(&want)?.is_none() {
            missing.push(want);
        }
    }
    Ok(missing)
}

/// Commits that a repository has, to be told to a server: the tips, and of some of them ancestors at doubling distances,
/// so that also a server whose branches were set back finds something in common.
fn haves(snapshot: &Snapshot) -> Result<Vec<Oid>> {
    let mut haves = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let head = snapshot.reference(snapshot.head());
    let tips = head.into_iter().chain(snapshot.references().map(|(_, oid)| *oid));
    for tip in tips {
        if haves.len() >= HAVES_MAX {
            break;
        }
        if let (commit, govc_engine::Kind::Commit) = snapshot.peel(tip)?
            && seen.insert(commit)
        {
            haves.push(commit);
        }
    }
    for line in haves.clone().into_iter().take(HAVE_LINES_MAX) {
        let (mut at, mut hop) = (line, 1usize);
        for step in 0..HAVE_STEPS_MAX {
            let Some(parent) = snapshot.commit_links(&at)?.parents.first().copied() else { break };
            at = parent;
            if step + 1 == hop {
                hop *= 2;
                if haves.len() < HAVES_MAX && seen.insert(at) {
                    haves.push(at);
                }
            }
        }
    }
    Ok(haves)
}

/// How a branch is called when people are told.
fn shown(name: &RefName) -> String {
    name.as_str().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl References {
    /// What people should know about them.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.left_out.clone();
        if let Head::Detached(oid) = self.head {
            match plan::first_head(self) {
                // As good as if the source had named it: a bundle cannot.
                Some(branch) if self.all.get(&branch) == Some(&oid) => {}
                Some(branch) => {
                    notes.push(format!("HEAD of the source is detached at {oid}; here it names {}", shown(&branch)));
                }
                None => notes.push(format!("HEAD of the source is detached at {oid}, which no branch names")),
            }
        }
        notes
    }
}
