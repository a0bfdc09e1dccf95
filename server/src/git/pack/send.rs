//! Sending a pack for a fetch: a kept one as it is, one that is being made for somebody else, or a new one.

use std::{collections::HashSet, io::Write, sync::Arc, thread, time::Instant};

use govc_engine::{
    Error, ErrorKind, Filter, Kind, Oid, Reach, ReachOptions, Repo, Result, Snapshot, TAG_DEPTH_MAX, object::PackHasher,
};

use super::{
    shared::{FetchKey, Outcome, PackMaker, PackReader, Piece, Seat},
    spool::{PIECE_BYTES, Spool},
    write::{COPY_BYTES, PackWriter, Plan, Rules, gone},
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
pub(crate) struct PackRequest<'a> {
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
    /// Takes lines for people.
    pub(crate) progress: &'a mut dyn FnMut(&str),
}

/// What was sent.
pub(crate) struct PackSent {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

/// A pack that no kept one is.
struct Job<'a> {
    app: &'a App,
    repo: &'a Repo,
    snapshot: &'a Snapshot,
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

/// Sends a pack.
///
/// # Errors
/// [`ErrorKind::NotFound`] for objects that are missing, [`ErrorKind::Cancelled`] when the client is gone or the
/// time is over, and whatever the storage fails with; the client notices by the missing end of the pack.
pub(crate) fn send(
    app: &App,
    repo: &Repo,
    snapshot: &Snapshot,
    request: PackRequest<'_>,
    out: &mut dyn Write,
) -> Result<PackSent> {
    let PackRequest { wants, mut haves, shallow, client_shallow, filter, elsewhere, .. } = request;
    let PackRequest { thin, ofs_delta, include_tag, progress, .. } = request;
    // What is elsewhere comes when this pack has been taken in; who has nothing has no bases.
    let thin = thin && elsewhere.is_none() && !haves.is_empty();
    haves.extend(elsewhere.iter().flat_map(|pack| &pack.tips));
    // What a client that has nothing gets of its tips, if packs are kept of that.
    let is_clone = haves.is_empty() && client_shallow.is_empty() && ofs_delta;
    let form = Form::of(&shallow, filter.as_ref());
    let mut job = Job {
        app,
        repo,
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
        && (!include_tag || has_tags(snapshot, |oid| pack.find(oid).is_some())?)
    {
        return send_kept(app, &pack, out, progress);
    }
    let Some(form) = form else {
        // A filter that is no key: this pack is nobody else's.
        return match job.plan()? {
            Planned::Kept(pack) => send_kept(app, &pack, out, progress),
            Planned::New(plan) => job.make_alone(plan, out, progress),
        };
    };
    let key = FetchKey {
        repo: repo.id(),
        wants: job.tips.clone(),
        haves: job.haves.clone(),
        form,
        client_shallow: job.client_shallow.clone(),
        elsewhere: job.elsewhere.as_ref().map(|pack| pack.checksum()),
        thin,
        ofs_delta,
        tags: include_tag.then(|| tags_of(snapshot)).transpose()?,
    };
    match app.packs.shared().join(key) {
        Seat::Reader(reader) => send_shared(app, reader, PackSource::Shared, out, progress),
        Seat::Maker(maker, reader) => {
            let plan = match job.plan() {
                Ok(Planned::New(plan)) => plan,
                Ok(Planned::Kept(pack)) => {
                    maker.end(Ok(Outcome::Kept(Arc::clone(&pack))));
                    return send_kept(app, &pack, out, progress);
                }
                Err(error) => {
                    maker.end(Err(error.clone()));
                    return Err(error);
                }
            };
            let source = if plan.ground().is_some() { PackSource::Extended } else { PackSource::Made };
            // Made beside the sending, a pack is not held up by a client that is slower than others who want it.
            thread::scope(|scope| {
                let make = move || job.make_shared(plan, maker);
                let failed =
                    |error| Error::new(ErrorKind::LimitExceeded, format!("no thread for making a pack: {error}"));
                thread::Builder::new().name("pack".into()).spawn_scoped(scope, make).map_err(failed)?;
                send_shared(app, reader, source, out, progress)
            })
        }
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
            let tags = add_tags(self.snapshot, &beside, &mut reach.objects, &mut sent)?;
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
        let is_ground = |pack: &Arc<KeptPack>| ground.as_ref().is_some_and(|ground| Arc::ptr_eq(ground, pack));
        let whole = self.whole_packs().find(|pack| !is_ground(pack));
        Plan::new(self.snapshot, reach, sent, (ground, whole), self.ofs_delta).map(Planned::New)
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

    /// Makes the pack for this client only.
    fn make_alone(&self, plan: Plan, out: &mut dyn Write, progress: &mut dyn FnMut(&str)) -> Result<PackSent> {
        let total = plan.len();
        progress(&enumerated(total));
        let mut writer = PackWriter::new(self.snapshot.object_format(), &mut *out, total, false, self.rules())?;
        let mut told = 0;
        let step = &mut |done: usize| {
            if done - told >= PROGRESS_EVERY {
                told = done;
                progress(&sending(done, total));
            }
        };
        self.write(&plan, &mut writer, step)?;
        let written = writer.finish()?;
        out.write_all(written.checksum.as_bytes()).map_err(gone)?;
        progress(&format!("Total {total} objects, done.\n"));
        self.app.metrics.packs().sent(PackSource::Made);
        Ok(PackSent { objects: total as u64, bytes: written.bytes + trailer_len(&written.checksum) })
    }

    /// Makes the pack for all who want it, and keeps it for those who come later.
    fn make_shared(self, plan: Plan, maker: PackMaker<'_>) {
        let end = self.make_into(&plan, &maker);
        maker.end(end.map(Outcome::Made));
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
        if let Some((form, entries)) = form.zip(written.entries) {
            let tips = Tips { tips: self.tips.clone(), form: form.clone() };
            maker.written(written.checksum);
            if let Some(Ok(Some(file))) = maker.with_spool(Spool::file) {
                // If it fails, so does the keeping.
                let _ = file.sync_data();
            }
            maker.with_spool(|spool| {
                let pack = NewPack { entries, checksum: written.checksum };
                self.app.packs.keep(self.repo, tips, pack, spool);
            });
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
            writer.item(self.snapshot, plan, item).inspect_err(|error| drop_damaged(plan.copied_from(item), error))?;
            step(done);
        }
        Ok(())
    }
}

/// Sends what is being made, as it grows.
fn send_shared(
    app: &App,
    mut reader: PackReader,
    source: PackSource,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(&str),
) -> Result<PackSent> {
    let mut buffer = vec![0; COPY_BYTES];
    let (mut bytes, mut objects, mut told) = (0, 0, 0);
    loop {
        match reader.read(&mut buffer)? {
            Piece::Bytes(len, (done, total)) => {
                if bytes == 0 {
                    objects = total;
                    progress(&enumerated(total));
                }
                out.write_all(&buffer[..len]).map_err(gone)?;
                bytes += len as u64;
                if done > told {
                    told = done;
                    progress(&sending(done, total));
                }
            }
            Piece::End(Outcome::Made(checksum)) => {
                out.write_all(checksum.as_bytes()).map_err(gone)?;
                progress(&format!("Total {objects} objects, done.\n"));
                app.metrics.packs().sent(source);
                return Ok(PackSent { objects: objects as u64, bytes: bytes + trailer_len(&checksum) });
            }
            Piece::End(Outcome::Kept(pack)) => return send_kept(app, &pack, out, progress),
        }
    }
}

/// Bytes that end a pack.
fn trailer_len(checksum: &Oid) -> u64 {
    checksum.as_bytes().len() as u64
}

fn enumerated(objects: usize) -> String {
    format!("Enumerating objects: {objects}, done.\n")
}

fn sending(done: usize, total: usize) -> String {
    format!("Sending objects: {}% ({done}/{total})\r", done * 100 / total.max(1))
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

/// Sends a kept pack as it is; a damaged one is dropped, and the client's own check fails this one fetch.
fn send_kept(app: &App, pack: &Arc<KeptPack>, out: &mut dyn Write, progress: &mut dyn FnMut(&str)) -> Result<PackSent> {
    let objects = pack.entries.len();
    progress(&enumerated(objects));
    let mut buffer = vec![0; PIECE_BYTES];
    let mut number = 0;
    while let Some(piece) =
        pack.read_piece(number, &mut buffer).map_err(|error| damaged(app, pack, &error.to_string()))?
    {
        out.write_all(piece).map_err(gone)?;
        number += 1;
    }
    let checksum = pack.checksum();
    out.write_all(checksum.as_bytes()).map_err(gone)?;
    progress(&format!("Total {objects} objects, reused {objects}, done.\n"));
    app.metrics.packs().sent(PackSource::Kept);
    Ok(PackSent { objects: objects as u64, bytes: pack.len() + trailer_len(&checksum) })
}

fn damaged(app: &App, pack: &Arc<KeptPack>, why: &str) -> Error {
    app.packs.drop_pack(pack);
    Error::corrupt(format!("a kept pack is damaged ({why}); fetch again"))
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
