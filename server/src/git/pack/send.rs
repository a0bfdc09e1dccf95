//! What a fetch is sent: a kept pack as it is, one that is being made for somebody else, or a new one.
//!
//! Finding that out takes a thread, and so does making a pack. Sending takes none: see [`super::deliver`].

use std::{collections::HashSet, sync::Arc, time::Instant};

use govc_engine::{
    Error, ErrorKind, Filter, Kind, Oid, Reach, ReachOptions, Repo, Result, Snapshot, TAG_DEPTH_MAX, object::PackHasher,
};

use super::{
    deliver::Source,
    shared::{FetchKey, Outcome, PackMaker, Seat},
    spool::Spool,
    write::{PackWriter, Plan, Rules},
};
use crate::{
    App,
    git::cache::{Form, KeptPack, NewPack, Tips},
    git::visible::Visible,
    telemetry::PackSource,
};

/// Packs of fewer objects are not worth keeping.
const KEEP_OBJECTS_MIN: usize = 1000;
/// Objects between two reports of how far a pack is.
const PROGRESS_EVERY: usize = 8192;

/// What a client wants of a repository, and what it has.
pub(crate) struct PackRequest {
    /// The objects wanted, with everything that they reach.
    pub(crate) wants: Vec<Oid>,
    /// What the client has, with everything that it reaches.
    pub(crate) haves: Vec<Oid>,
    /// Commits whose parents the client will not have.
    pub(crate) shallow: Vec<Oid>,
    /// Commits that the client has without their parents.
    pub(crate) client_shallow: Vec<Oid>,
    /// What the client takes of all that; everything without one.
    pub(crate) filter: Option<Filter>,
    /// A pack of things wanted that the client gets later and by itself.
    pub(crate) elsewhere: Option<Arc<KeptPack>>,
    /// Whether deltas may stand on what the client has.
    pub(crate) thin: bool,
    /// Whether deltas may name their bases by distance.
    pub(crate) ofs_delta: bool,
    /// Whether annotated tags of what is sent are wanted, too.
    pub(crate) include_tag: bool,
}

/// A pack that is to be made, for all who want it.
pub(crate) struct Making<'a> {
    job: Job<'a>,
    plan: Plan,
    maker: PackMaker<'a>,
}

/// A pack that no kept one is.
struct Job<'a> {
    app: &'a App,
    repo: Repo,
    snapshot: Snapshot,
    /// The wants; sorted, each there once.
    tips: Vec<Oid>,
    haves: Vec<Oid>,
    shallow: Vec<Oid>,
    client_shallow: Vec<Oid>,
    filter: Option<Filter>,
    elsewhere: Option<Arc<KeptPack>>,
    thin: bool,
    ofs_delta: bool,
    include_tag: bool,
    /// What clones of the tips leave out, if this is one and packs are kept of such.
    form: Option<Form>,
    deadline: Instant,
}

/// Finds what a client is to be sent; also a pack to be made meanwhile, if it gets one that nobody makes yet.
///
/// # Errors
/// [`ErrorKind::NotFound`] for objects that are missing, [`ErrorKind::Cancelled`] when the time is over, and whatever the
/// storage fails with.
pub(crate) fn prepare<'a>(
    app: &'a App,
    repo: &Repo,
    snapshot: Snapshot,
    request: PackRequest,
) -> Result<(Source, Option<Making<'a>>)> {
    let PackRequest { wants, mut haves, shallow, client_shallow, filter, elsewhere, .. } = request;
    let PackRequest { thin, ofs_delta, include_tag, .. } = request;
    // What is elsewhere comes when this pack has been taken in; who has nothing has no bases.
    let thin = thin && elsewhere.is_none() && !haves.is_empty();
    haves.extend(elsewhere.iter().flat_map(|pack| &pack.tips));
    // What a client that has nothing gets of its tips, if packs are kept of that.
    let is_clone = haves.is_empty() && client_shallow.is_empty() && ofs_delta;
    let form = Form::of(&shallow, filter.as_ref());
    let mut job = Job {
        app,
        repo: repo.clone(),
        snapshot,
        tips: sorted(wants),
        haves: sorted(haves),
        shallow,
        client_shallow: sorted(client_shallow),
        filter,
        elsewhere,
        thin,
        ofs_delta,
        include_tag,
        form: form.clone().filter(|_| is_clone),
        deadline: app.work.deadline(),
    };
    if let Some(pack) = job.kept()
        && (!include_tag || has_tags(&job.snapshot, |oid| pack.find(oid).is_some())?)
    {
        return Ok((Source::Kept(pack), None));
    }
    let (shared, stall_max) = (app.packs.shared(), app.config.server.body_timeout);
    let (maker, reader) = match form {
        // A filter that is no key: this pack is nobody else's.
        None => shared.alone(stall_max),
        Some(form) => match shared.join(job.key(form)?, stall_max) {
            Seat::Reader(reader) => return Ok((Source::Shared(reader, PackSource::Shared), None)),
            Seat::Maker(maker, reader) => (maker, reader),
        },
    };
    match job.plan() {
        Ok(Planned::New(plan)) => {
            let source = if plan.ground().is_some() { PackSource::Extended } else { PackSource::Made };
            Ok((Source::Shared(reader, source), Some(Making { job, plan, maker })))
        }
        Ok(Planned::Kept(pack)) => {
            maker.end(Ok(Outcome::Kept(Arc::clone(&pack))));
            Ok((Source::Kept(pack), None))
        }
        Err(error) => {
            maker.end(Err(error.clone()));
            Err(error)
        }
    }
}

impl Making<'_> {
    /// Makes the pack for all who want it, and keeps it for those who come later.
    pub(crate) fn run(self) {
        let end = self.job.make_into(&self.plan, &self.maker);
        self.maker.end(end.map(Outcome::Made));
    }
}

fn sorted(mut oids: Vec<Oid>) -> Vec<Oid> {
    oids.sort_unstable();
    oids.dedup();
    oids
}

/// What a job comes to.
enum Planned {
    Kept(Arc<KeptPack>),
    New(Plan),
}

impl Job<'_> {
    /// What makes other fetches the same as this one.
    fn key(&self, form: Form) -> Result<FetchKey> {
        Ok(FetchKey {
            repo: self.repo.id(),
            wants: self.tips.clone(),
            haves: self.haves.clone(),
            form,
            client_shallow: self.client_shallow.clone(),
            elsewhere: self.elsewhere.as_ref().map(|pack| pack.checksum()),
            thin: self.thin,
            ofs_delta: self.ofs_delta,
            tags: self.include_tag.then(|| tags_of(&self.snapshot)).transpose()?,
        })
    }

    /// A kept pack of just the tips.
    fn kept(&self) -> Option<Arc<KeptPack>> {
        let form = self.form.as_ref()?;
        self.app.packs.of(self.repo.id()).into_iter().find(|pack| pack.tips == self.tips && pack.form == *form)
    }

    /// Finds what is to be sent. While nobody looked, the same pack may have been made and kept.
    fn plan(&mut self) -> Result<Planned> {
        if let Some(pack) = self.kept().filter(|_| !self.include_tag) {
            return Ok(Planned::Kept(pack));
        }
        let (mut reach, ground) = self.reach()?;
        let mut sent: HashSet<Oid> = reach.objects.iter().map(|(oid, _)| *oid).collect();
        let beside: Vec<_> = self.elsewhere.iter().chain(&ground).cloned().collect();
        if self.include_tag {
            let tags = add_tags(&self.snapshot, &beside, &mut reach.objects, &mut sent)?;
            // With its tags the pack is what a clone of both gets.
            self.tips.extend(tags);
            self.tips.sort_unstable();
            if let Some(pack) = self.kept() {
                return Ok(Planned::Kept(pack));
            }
        }
        for pack in &beside {
            reach.objects.retain(|(oid, _)| pack.find(oid).is_none());
            sent.retain(|oid| pack.find(oid).is_none());
        }
        if let Some(pack) = ground.as_ref().filter(|_| reach.objects.is_empty()) {
            return Ok(Planned::Kept(Arc::clone(pack)));
        }
        let mut packs = self.app.packs.of(self.repo.id());
        packs.retain(|pack| ground.as_ref().is_none_or(|ground| !Arc::ptr_eq(ground, pack)));
        // Those with something left out have fewer deltas.
        packs.sort_by_key(|pack| !pack.form.is_whole());
        Plan::new(&self.snapshot, reach, sent, (ground, packs), self.ofs_delta).map(Planned::New)
    }

    /// What a client gets; if that is all of a kept pack and more, the pack, and the more without all of its objects. A kept
    /// pack is the set of all that its tips reach: if the wants reach these, nothing of it needs to be looked at.
    fn reach(&self) -> Result<(Reach, Option<Arc<KeptPack>>)> {
        let options = ReachOptions {
            wants: &self.tips,
            haves: &self.haves,
            shallow: &self.shallow,
            client_shallow: &self.client_shallow,
            filter: self.filter.as_ref(),
            deadline: Some(self.deadline),
            check: None,
        };
        if self.form.as_ref().is_some_and(Form::is_whole) {
            let lost = |pack: &KeptPack| {
                let lost = pack.tips.iter().filter(|tip| self.tips.binary_search(tip).is_err());
                lost.copied().collect::<Vec<Oid>>()
            };
            let packs = self.whole_packs().map(|pack| (lost(&pack), pack));
            if let Some((lost, pack)) = packs.min_by_key(|(lost, _)| lost.len()) {
                let reach = self.snapshot.reach(&ReachOptions { haves: &pack.tips, ..options })?;
                if lost.iter().all(|tip| reach.edge.contains(tip)) {
                    return Ok((reach, Some(pack)));
                }
            }
        }
        Ok((self.snapshot.reach(&options)?, None))
    }

    /// The kept packs with nothing left out, the newest first.
    fn whole_packs(&self) -> impl Iterator<Item = Arc<KeptPack>> {
        self.app.packs.of(self.repo.id()).into_iter().filter(|pack| pack.form.is_whole())
    }

    fn rules(&self) -> Rules<'_> {
        let Job { filter, thin, ofs_delta, deadline, .. } = self;
        Rules { filter: filter.as_ref(), thin: *thin, ofs_delta: *ofs_delta, deadline: *deadline }
    }

    fn make_into(&self, plan: &Plan, maker: &PackMaker<'_>) -> Result<Oid> {
        let total = plan.len();
        maker.progress(0, total);
        // Blobs that somebody asked for are nobody's clone.
        let form = self.form.as_ref().filter(|_| plan.has_commits() && total >= KEEP_OBJECTS_MIN);
        let mut out = maker;
        let mut writer = PackWriter::new(self.snapshot.object_format(), &mut out, total, form.is_some(), self.rules())?;
        let mut told = 0;
        let step = &mut |done: usize| {
            if done - told >= PROGRESS_EVERY {
                told = done;
                maker.progress(done, total);
            }
        };
        self.write(plan, &mut writer, step)?;
        let written = writer.finish()?;
        self.app.metrics.packs().made(total, written.copied);
        if let Some((form, entries)) = form.zip(written.entries) {
            let tips = Tips { tips: self.tips.clone(), form: form.clone() };
            maker.written(written.checksum);
            let pack = NewPack { entries, checksum: written.checksum };
            let keep = |spool: &mut Spool| self.app.packs.keep(&self.repo, tips, pack, spool);
            // Who reads it meanwhile does not wait for the disk.
            match maker.with_spool(Spool::detach) {
                Some(Some(mut spool)) => keep(&mut spool),
                Some(None) => {
                    maker.with_spool(keep);
                }
                None => {}
            }
        }
        Ok(written.checksum)
    }

    /// Writes all objects of the plan. `step` hears how many are written.
    fn write(&self, plan: &Plan, writer: &mut PackWriter<'_>, step: &mut dyn FnMut(usize)) -> Result<()> {
        let drop_damaged = |pack: Option<&Arc<KeptPack>>, error: &Error| {
            if let (Some(pack), false) = (pack, *error.kind() == ErrorKind::Cancelled) {
                self.app.packs.drop_pack(pack);
            }
        };
        let mut written = 0;
        if let Some(ground) = plan.ground() {
            writer.ground(ground, step).inspect_err(|error| drop_damaged(Some(ground), error))?;
            written = ground.entries.len();
        }
        for (done, item) in (written + 1..).zip(plan.items()) {
            writer.item(&self.snapshot, plan, item).inspect_err(|error| drop_damaged(plan.copied_from(item), error))?;
            step(done);
        }
        Ok(())
    }
}

/// Whether every annotated tag that leads to an object of a pack is in the pack, too.
fn has_tags(snapshot: &Snapshot, is_sent: impl Fn(&Oid) -> bool) -> Result<bool> {
    for (_, oid) in Visible::of(snapshot).with_prefix(b"refs/tags/") {
        if !is_sent(oid) && is_sent(&tag_chain(snapshot, *oid)?.1) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds the annotated tags, with all tags between, that lead to an object that is sent, here or `beside` it; gives those
/// added.
fn add_tags(
    snapshot: &Snapshot,
    beside: &[Arc<KeptPack>],
    objects: &mut Vec<(Oid, Kind)>,
    sent: &mut HashSet<Oid>,
) -> Result<Vec<Oid>> {
    let mut added = Vec::new();
    for (_, oid) in Visible::of(snapshot).with_prefix(b"refs/tags/") {
        if sent.contains(oid) {
            continue;
        }
        let (chain, target) = tag_chain(snapshot, *oid)?;
        if sent.contains(&target) || beside.iter().any(|pack| pack.find(&target).is_some()) {
            added.extend(chain.into_iter().filter(|tag| sent.insert(*tag)));
        }
    }
    objects.extend(added.iter().map(|tag| (*tag, Kind::Tag)));
    Ok(added)
}

/// The tags from `oid` on, each naming the next, and what the last one names.
fn tag_chain(snapshot: &Snapshot, oid: Oid) -> Result<(Vec<Oid>, Oid)> {
    let (mut chain, mut at) = (Vec::new(), oid);
    while chain.len() < TAG_DEPTH_MAX
        && let Some(target) = snapshot.tag_target(&at)?
    {
        chain.push(at);
        at = target;
    }
    Ok((chain, at))
}

/// A checksum of what the tags are called and point at.
fn tags_of(snapshot: &Snapshot) -> Result<Oid> {
    let mut hasher = PackHasher::new(snapshot.object_format());
    for (name, oid) in Visible::of(snapshot).with_prefix(b"refs/tags/") {
        hasher.update(oid.as_bytes());
        hasher.update(name.as_bytes());
        hasher.update(b"\0");
    }
    hasher.finish()
}
