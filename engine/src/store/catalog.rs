//! The catalog: the set of repositories by name, and the verbs that change it.
//!
//! A name is reserved while its creation or renaming is on its way to the disk, so that two creators never both
//! succeed and nobody sees a repository that a crash could take back.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use imbl::OrdMap;

use super::{
    Store,
    ids::{Cause, Durability, RepoId, RepoName, RepoSettings},
    journal::CatalogChangeKind,
    state::{Repo, RepoRecord, RepoState},
    version::{Previous, Version},
};
use crate::{
    Error, ErrorKind, Result,
    refs::RefMap,
    sync::{
        ArcSwap, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Repositories by name.
pub(crate) struct Catalog {
    /// Read by everyone; written under the lock of `reserved`.
    by_name: ArcSwap<OrdMap<RepoName, Arc<RepoState>>>,
    /// Names that are being created.
    reserved: Mutex<BTreeSet<RepoName>>,
    pub(crate) next_repo: AtomicU64,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { by_name: ArcSwap::default(), reserved: Mutex::default(), next_repo: AtomicU64::new(1) }
    }
}

/// A name that nobody else can take while this lives.
struct Reservation<'a> {
    catalog: &'a Catalog,
    name: RepoName,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.catalog.reserved.lock().remove(&self.name);
    }
}

impl Catalog {
    pub(crate) fn insert(&self, state: Arc<RepoState>) {
        let _writer = self.reserved.lock();
        let mut map = OrdMap::clone(&self.by_name.load());
        map.insert(state.record.load().name.clone(), state);
        self.by_name.store(Arc::new(map));
    }

    fn remove(&self, name: &RepoName) {
        let _writer = self.reserved.lock();
        let mut map = OrdMap::clone(&self.by_name.load());
        map.remove(name);
        self.by_name.store(Arc::new(map));
    }

    fn reserve(&self, name: &RepoName) -> Result<Reservation<'_>> {
        let mut reserved = self.reserved.lock();
        if self.by_name.load().contains_key(name) || !reserved.insert(name.clone()) {
            return Err(Error::new(ErrorKind::Exists, format!("repository {name} exists already")));
        }
        Ok(Reservation { catalog: self, name: name.clone() })
    }

    /// # Errors
    /// [`ErrorKind::Exists`] if the name is taken, also by a repository that is about to be created.
    pub(crate) fn check_free(&self, name: &RepoName) -> Result<()> {
        self.reserve(name).map(drop)
    }

    /// An id that no repository has had.
    pub(crate) fn take_id(&self) -> RepoId {
        RepoId(self.next_repo.fetch_add(1, Ordering::Relaxed))
    }

    /// Every repository that there is at this moment.
    pub(crate) fn all(&self) -> Arc<OrdMap<RepoName, Arc<RepoState>>> {
        self.by_name.load_full()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.load().len()
    }
}

impl Store {
    fn handle(&self, state: &Arc<RepoState>) -> Repo {
        Repo { core: self.core().clone(), state: state.clone() }
    }

    /// The repository of this name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub fn repo(&self, name: &RepoName) -> Result<Repo> {
        let by_name = self.core().catalog.by_name.load();
        let state = by_name.get(name).ok_or_else(|| Error::not_found(format!("repository {name} does not exist")))?;
        Ok(self.handle(state))
    }

    /// The repositories after a name, by name, at most `limit`.
    pub fn list(&self, after: Option<&RepoName>, limit: usize) -> Vec<Repo> {
        let by_name = self.core().catalog.by_name.load();
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        by_name.range((from, Bound::Unbounded)).take(limit).map(|(_, state)| self.handle(state)).collect()
    }

    /// How many repositories there are.
    pub fn repo_count(&self) -> usize {
        self.core().catalog.len()
    }

    /// Creates an empty repository and waits until that is durable.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if the name is taken, [`ErrorKind::Invalid`] for settings that are not valid; else when
    /// the write fails.
    pub fn create(&self, name: &RepoName, settings: RepoSettings, actor: &str) -> Result<Repo> {
        let repo = self.draft(name, settings, actor)?;
        self.enlist(&repo)?;
        Ok(repo)
    }

    /// Makes an empty repository that nobody finds and of which nothing stays, unless [`Store::enlist`] follows.
    /// Objects may be staged and transactions prepared for it; none must be published before it is enlisted.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for settings that are not valid, [`ErrorKind::Closed`] when the store is read-only.
    pub fn draft(&self, name: &RepoName, settings: RepoSettings, actor: &str) -> Result<Repo> {
        settings.check()?;
        let core = self.core();
        core.health.check_writable()?;
        let now = core.now_millis();
        let record = RepoRecord {
            name: name.clone(),
            description: settings.description,
            durability: settings.durability,
            created_millis: now,
            git: Arc::new(settings.git),
            format: settings.object_format,
        };
        let version = Version {
            number: 1,
            time_millis: now,
            actor: actor.into(),
            cause: Cause::Create,
            certificate: None,
            head: settings.default_branch,
            refs: RefMap::default(),
            lineage: 0,
            acknowledged: 0,
            previous: Previous::default(),
        };
        let state = RepoState::new(core.catalog.take_id(), record, version, None);
        state.pool.set_no_index();
        Ok(self.handle(&Arc::new(state)))
    }

    /// Creates the repository of a [`Store::draft`] and waits until that is durable.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if the name has been taken since; else when the write fails. It remains a draft then.
    pub fn enlist(&self, draft: &Repo) -> Result<()> {
        let (core, state) = (self.core(), &draft.state);
        core.health.check_writable()?;
        let _reservation = core.catalog.reserve(&draft.name())?;
        if state.is_journaled() {
            core.journal.send_catalog(state.clone(), CatalogChangeKind::Create).wait()?;
        }
        core.begin_history(state);
        if let Some(fork_of) = &state.fork_of {
            fork_of.count(true);
        }
        core.catalog.insert(state.clone());
        Ok(())
    }

    /// Gives a repository another name, other settings, or both, and waits until that is durable.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Exists`] if the new name is taken; [`ErrorKind::Invalid`] for settings
    /// that are not valid, for a change between `memory` and a durability that is stored, or for another object format.
    /// Nothing was changed then.
    /// Else when a write fails, which may leave the default branch changed alone.
    pub fn alter(&self, name: &RepoName, new_name: Option<&RepoName>, settings: Option<RepoSettings>) -> Result<Repo> {
        if let Some(settings) = &settings {
            settings.check()?;
        }
        let repo = self.repo(name)?;
        let core = self.core();
        let new_name = new_name.filter(|new_name| *new_name != name);
        if new_name.is_none() && settings.is_none() {
            return Ok(repo);
        }
        let reservation = new_name.map(|new_name| core.catalog.reserve(new_name)).transpose()?;
        let changing = repo.state.changing.lock();
        let old = repo.state.record.load_full();
        if old.name != *name {
            return Err(Error::not_found(format!("repository {name} does not exist")));
        }
        let mut record = RepoRecord::clone(&old);
        if let Some(settings) = settings {
            let memory = |durability| durability == Durability::Memory;
            if memory(old.durability) != memory(settings.durability) {
                return Err(Error::invalid("durability cannot change between memory and what is stored"));
            }
            if old.format != settings.object_format {
                return Err(Error::invalid("the object format of a repository cannot change"));
            }
            if repo.state.published.load().head != settings.default_branch {
                let mut transaction = repo.begin("govc", Cause::Api);
                transaction.set_head(settings.default_branch);
                transaction.prepare()?.publish()?.ticket.wait()?;
            }
            record.description = settings.description;
            record.durability = settings.durability;
            record.git = Arc::new(settings.git);
        }
        if let Some(new_name) = new_name {
            record.name = new_name.clone();
        }
        self.change_record(&repo, record)?;
        if new_name.is_some() {
            core.catalog.insert(repo.state.clone());
            core.catalog.remove(name);
        }
        drop((reservation, changing));
        Ok(repo)
    }

    fn change_record(&self, repo: &Repo, record: RepoRecord) -> Result<()> {
        let state = &repo.state;
        if state.deleted.load(Ordering::Acquire) {
            return Err(Error::not_found(format!("repository {} has been deleted", repo.name())));
        }
        if state.is_journaled() {
            return self.core().journal.send_catalog(state.clone(), CatalogChangeKind::Update(record)).wait();
        }
        state.record.store(Arc::new(record));
        Ok(())
    }

    /// Deletes a repository and waits until that is durable; its storage is freed in the background.
    ///
    /// Readers that hold a snapshot may find objects missing from then on.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; else when the write fails.
    pub fn delete(&self, name: &RepoName) -> Result<()> {
        let repo = self.repo(name)?;
        let core = self.core();
        core.health.check_writable()?;
        let _changing = repo.state.changing.lock();
        if repo.state.deleted.swap(true, Ordering::SeqCst) {
            return Err(Error::not_found(format!("repository {name} does not exist")));
        }
        if repo.state.is_journaled() {
            let deleted = core.journal.send_catalog(repo.state.clone(), CatalogChangeKind::Delete).wait();
            if let Err(error) = deleted {
                repo.state.deleted.store(false, Ordering::Release);
                return Err(error);
            }
        }
        if let Some(fork_of) = &repo.state.fork_of {
            fork_of.count(false);
        }
        // By the name that it has now: a renaming may have come between.
        core.catalog.remove(&repo.state.record.load().name.clone());
        core.forget_references(&repo.state);
        if !repo.state.is_journaled() {
            core.free_memory_history(&repo.state);
            if repo.state.pool.retire() {
                core.free_memory_pool(&repo.state.pool);
            }
        }
        Ok(())
    }
}
