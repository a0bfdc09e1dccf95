//! Snapshots: a pinned version and the objects it reaches. What every reader holds.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{ids::PoolId, pool::Generation, state::Repo, table::Scope, version::Version};
use crate::{
    Error, Result,
    block::Location,
    object::{Commit, Kind, ObjectFormat, Oid, Tag},
    refs::RefName,
};

/// Memory that what is known of a tag takes: its key, twice, and its target, each in a room for the longest id.
const TAG_BYTES: u64 = 200;

/// An object's kind and bytes, sharing memory with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The kind.
    pub kind: Kind,
    /// The bytes.
    pub data: Bytes,
}

/// Where a stored object is, in the pool of the repository or one that it was forked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub(crate) pool: PoolId,
    pub(crate) location: Location,
}

/// A record as it is stored, for those who can pass a delta on.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The kind.
    pub kind: Kind,
    /// The object's size in bytes.
    pub size: u64,
    /// The record that the body is a delta against; `None` if the body is the object.
    pub base: Option<Place>,
    /// The object, or a delta in git's instructions.
    pub body: Bytes,
}

/// One version of a repository and access to its objects. Cheap to clone, never changes, blocks nobody.
#[derive(Clone)]
pub struct Snapshot {
    repo: Repo,
    version: Arc<Version>,
    scope: Scope,
    /// What [`super::pool::Pool::removals`] was before.
    removals: u64,
    /// Taken once it tells where records are, so that they stay there.
    generations: OnceLock<Arc<[Arc<Generation>]>>,
}

impl Snapshot {
    pub(super) fn of(repo: &Repo, version: Arc<Version>) -> Self {
        // Of a version that readers see before it is written, objects may be on their way.
        let is_ahead = version.number > repo.state.written.load().number;
        let scope = if is_ahead { Scope::Any } else { Scope::Live };
        Self { repo: repo.clone(), version, scope, removals: repo.removals(), generations: OnceLock::new() }
    }

    pub(super) fn of_tip(repo: &Repo, version: Arc<Version>) -> Self {
        let removals = repo.removals();
        Self { repo: repo.clone(), version, scope: Scope::Any, removals, generations: OnceLock::new() }
    }

    /// What [`super::pool::Pool::removals`] was before it was taken.
    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// The repository.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The hash that names the objects.
    pub fn object_format(&self) -> ObjectFormat {
        self.repo.object_format()
    }

    /// The version.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The branch that `HEAD` names; it need not exist.
    pub fn head(&self) -> &RefName {
        &self.version.head
    }

    /// What a reference points at.
    pub fn reference(&self, name: &RefName) -> Option<Oid> {
        self.version.refs.get(name)
    }

    /// All references in the order of their names.
    pub fn references(&self) -> impl Iterator<Item = (&RefName, &Oid)> {
        self.version.refs.range(..)
    }

    /// The references whose full names begin with `prefix`, in order; costs what it yields.
    pub fn references_with_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a RefName, &'a Oid)> {
        let from = RefName::probe(prefix);
        self.version.refs.range(from..).take_while(move |(name, _)| name.as_bytes().starts_with(prefix))
    }

    /// The references after `name` whose full names begin with `prefix`, in order.
    pub fn references_after<'a>(
        &'a self,
        name: &RefName,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a RefName, &'a Oid)> {
        use std::ops::Bound;
        let range = (Bound::Excluded(name.clone()), Bound::Unbounded);
        self.version.refs.range(range).take_while(move |(name, _)| name.as_bytes().starts_with(prefix))
    }

    /// How many references there are.
    pub fn reference_count(&self) -> usize {
        self.version.refs.len()
    }

    /// How many of them are branches.
    pub fn branch_count(&self) -> usize {
        self.version.refs.branch_count()
    }

    /// An object, or `None` if the repository does not have it.
    ///
    /// # Errors
    /// When the storage fails or is damaged.
    pub fn try_object(&self, oid: &Oid) -> Result<Option<Object>> {
        self.repo.core.find(&self.repo.state.pool, oid, self.scope, true)
    }

    /// An object.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] if the repository does not have it; else as [`Snapshot::try_object`].
    pub fn object(&self, oid: &Oid) -> Result<Object> {
        self.try_object(oid)?.ok_or_else(|| missing(oid))
    }

    /// An object that must be of `kind`.
    ///
    /// # Errors
    /// As [`Snapshot::object`]; [`crate::ErrorKind::Invalid`] if it is of another kind.
    pub fn object_of(&self, oid: &Oid, kind: Kind) -> Result<Bytes> {
        of_kind(oid, kind, self.try_object(oid)?)
    }

    /// The same for who goes through many objects once: what is read from storage does not stay in memory, where it would take
    /// the place of what others read again.
    ///
    /// # Errors
    /// As [`Snapshot::object_of`].
    pub fn object_in_passing(&self, oid: &Oid, kind: Kind) -> Result<Bytes> {
        of_kind(oid, kind, self.repo.core.find(&self.repo.state.pool, oid, self.scope, false)?)
    }

    /// An object's kind and size, without its bytes.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`].
    pub fn header(&self, oid: &Oid) -> Result<Option<(Kind, u64)>> {
        self.repo.core.header(&self.repo.state.pool, oid, self.scope)
    }

    /// The same of several objects, in the order of `oids`: faster than one by one.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`].
    pub fn headers(&self, oids: &[Oid]) -> Result<Vec<Option<(Kind, u64)>>> {
        self.repo.core.headers(&self.repo.state.pool, oids, self.scope)
    }

    /// The kind of an object that is in the repository to stay, so that new objects may point at it: not of one whose
    /// transaction may still fail to publish.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`].
    pub fn kind_to_build_on(&self, oid: &Oid) -> Result<Option<Kind>> {
        let scope = if self.scope == Scope::Any { Scope::Accepted } else { self.scope };
        Ok(self.repo.core.header(&self.repo.state.pool, oid, scope)?.map(|(kind, _)| kind))
    }

    /// Whether the repository has an object.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`].
    pub fn contains(&self, oid: &Oid) -> Result<bool> {
        Ok(self.header(oid)?.is_some())
    }

    /// Where objects are stored, in the order of `oids`; `None` for those that are in memory or the journal only. The
    /// records stay there as long as the snapshot, or a clone that was made afterwards, is held.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`].
    pub fn locate(&self, oids: &[Oid]) -> Result<Vec<Option<Place>>> {
        let pool = &self.repo.state.pool;
        // Before rows are read.
        self.generations.get_or_init(|| pool.layers().map(|(layer, _)| layer.hold()).collect());
        self.repo.core.locate(pool, oids)
    }

    /// The record at a place that [`Snapshot::locate`] gave.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`]; [`crate::ErrorKind::NotFound`] if it is not there, as when another snapshot was asked.
    pub fn record(&self, place: Place) -> Result<Stored> {
        self.repo.core.record_at(&self.repo.state.pool, place)
    }

    /// The ids of objects that begin so, at most `limit`.
    ///
    /// # Errors
    /// As [`Snapshot::try_object`].
    pub fn ids_with_prefix(&self, prefix: &crate::object::OidPrefix, limit: usize) -> Result<Vec<Oid>> {
        let Some((from, to)) = prefix.range(self.object_format()) else { return Ok(Vec::new()) };
        let pool = &self.repo.state.pool;
        // In this order: what leaves flight is stored.
        let mut found = match self.scope {
            Scope::Live => Vec::new(),
            Scope::Any | Scope::Accepted | Scope::AcceptedByNow => pool.ids_in_flight(&from, &to),
        };
        found.extend(self.repo.core.ids_between(pool, &from, &to, limit)?);
        let mut scope = self.scope;
        for (layer, until) in pool.layers() {
            found.extend(self.repo.core.table.ids_between(layer.id, &from, &to, scope, until));
            scope = Scope::Live;
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// A parsed commit.
    ///
    /// # Errors
    /// As [`Snapshot::object_of`].
    pub fn commit(&self, oid: &Oid) -> Result<Commit> {
        Commit::parse(&self.object_of(oid, Kind::Commit)?)
    }

    /// The root tree of a commit, of which nothing else is parsed.
    ///
    /// # Errors
    /// As [`Snapshot::object_of`].
    pub(crate) fn tree_of(&self, commit: &Oid) -> Result<Oid> {
        Commit::tree_of(&self.object_of(commit, Kind::Commit)?)
    }

    /// A parsed annotated tag.
    ///
    /// # Errors
    /// As [`Snapshot::object_of`].
    pub fn tag(&self, oid: &Oid) -> Result<Tag> {
        Tag::parse(&self.object_of(oid, Kind::Tag)?)
    }

    /// What an annotated tag points at; `None` for every other object. It is remembered, because lists of references ask the
    /// same of all of theirs again and again: of an object that is not in the repository, the answer may be out of date.
    ///
    /// # Errors
    /// As [`Snapshot::header`], and [`crate::ErrorKind::Corrupt`] for a tag that cannot be read.
    pub fn tag_target(&self, oid: &Oid) -> Result<Option<Oid>> {
        let (core, key) = (&self.repo.core, (self.repo.state.pool.id, *oid));
        if let Some(known) = core.tags.get(&key) {
            return Ok(known);
        }
        let Some((kind, _)) = self.header(oid)? else { return Ok(None) };
        let target = if kind == Kind::Tag { Some(self.tag(oid)?.target) } else { None };
        core.tags.insert(key, target, TAG_BYTES);
        Ok(target)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({:?} version {})", self.repo, self.version.number)
    }
}

fn missing(oid: &Oid) -> Error {
    Error::not_found(format!("object {oid} does not exist"))
}

fn of_kind(oid: &Oid, kind: Kind, object: Option<Object>) -> Result<Bytes> {
    let object = object.ok_or_else(|| missing(oid))?;
    if object.kind != kind {
        return Err(Error::invalid(format!("object {oid} is a {}, not a {kind}", object.kind)));
    }
    Ok(object.data)
}
