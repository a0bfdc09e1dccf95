//! Realities: many isolated lines of work from one version, applied to, compared, promoted or dropped.
//!
//! A reality is a reference under `refs/realities/` that remembers where it began and when it ends. It costs a few
//! hundred bytes, is made by the thousand in one publication, and takes part in no listing of branches. Commits go to it
//! as to a branch.

use std::{
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    ChangeSet, check_deadline,
    integrate::{Integration, Promotion},
};
use crate::{
    Error, ErrorKind, Result,
    object::{Oid, Signature},
    refs::{Expected, Origin, Reality, RefEdit, RefName},
    store::{Cause, Published, Repo, Snapshot},
};

/// Commits of a reality that are counted.
const COMMITS_MAX: usize = 10_000;
/// How often a promotion is redone when the target moves meanwhile.
const ATTEMPTS_MAX: usize = 100;

/// Realities to be made.
#[derive(Debug, Clone)]
pub struct NewRealities {
    /// Their names, each once.
    pub names: Vec<RefName>,
    /// The commit that they begin at.
    pub base: Oid,
    /// The version that the commit was read from.
    pub version: u64,
    /// The branch that they come from, if any.
    pub from: Option<RefName>,
    /// How long they live.
    pub ttl: Option<Duration>,
    /// Who calls.
    pub actor: String,
}

/// A promotion to be made.
#[derive(Debug, Clone)]
pub struct PromoteRequest {
    /// The reality.
    pub reality: RefName,
    /// The branch.
    pub target: RefName,
    /// How.
    pub promotion: Promotion,
    /// Whether the reality stays.
    pub keep: bool,
    /// Who merges or commits again.
    pub committer: Signature,
    /// The message of a merge; one is made if absent.
    pub message: Option<String>,
    /// Who calls.
    pub actor: String,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// A promotion that was made.
#[derive(Debug)]
pub struct Promoted {
    /// The branch's new head.
    pub oid: Oid,
    /// Its publication.
    pub published: Published,
}

/// A reality beside what it began with.
#[derive(Debug)]
pub struct Comparison {
    /// The files that differ.
    pub changes: ChangeSet,
    /// Commits since the base; at most 10 000 are counted.
    pub commits: usize,
}

impl Snapshot {
    /// A reality.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Gone`] once its time is over.
    pub fn reality(&self, name: &RefName) -> Result<&Reality> {
        let found = self.version().refs.reality(name);
        let reality = found.ok_or_else(|| Error::not_found(format!("reality {} does not exist", name.short())))?;
        if reality.is_expired(self.repo().now_millis()) {
            return Err(Error::new(ErrorKind::Gone, format!("the time of reality {} is over", name.short())));
        }
        Ok(reality)
    }

    /// The realities after a name, in order; those whose time is over are left out.
    pub fn realities<'a>(
        &'a self,
        after: Option<&RefName>,
    ) -> impl Iterator<Item = (&'a RefName, &'a Reality)> + use<'a> {
        let now = self.repo().now_millis();
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        let all = self.version().refs.realities((from, Bound::Unbounded));
        all.filter(move |(_, reality)| !reality.is_expired(now))
    }

    /// The realities whose full names begin with `prefix`, in order, likewise.
    pub fn realities_with_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a RefName, &'a Reality)> {
        let now = self.repo().now_millis();
        let from = self.version().refs.realities(RefName::probe(prefix)..);
        let within = from.take_while(move |(name, _)| name.as_bytes().starts_with(prefix));
        within.filter(move |(_, reality)| !reality.is_expired(now))
    }

    /// What a reality has changed since it began; at most `limit` files.
    ///
    /// # Errors
    /// As [`Snapshot::reality`]; [`ErrorKind::Cancelled`] after the deadline.
    pub fn compare_reality(&self, name: &RefName, limit: usize, deadline: Option<Instant>) -> Result<Comparison> {
        let reality = self.reality(name)?;
        let (base, head) = (reality.origin.base, reality.head);
        let changes = self.changes_between(Some(base), head, limit, deadline)?;
        let commits = self.commits_since(base, head, deadline)?;
        Ok(Comparison { changes, commits })
    }

    /// How many commits there are by first parents from `head` back to `base`, without it; at most 10 000.
    fn commits_since(&self, base: Oid, head: Oid, deadline: Option<Instant>) -> Result<usize> {
        let (mut count, mut at) = (0, Some(head));
        while let Some(oid) = at.filter(|oid| *oid != base && count < COMMITS_MAX) {
            check_deadline(deadline)?;
            count += 1;
            at = self.commit(&oid)?.parents.first().copied();
        }
        Ok(count)
    }
}

impl Repo {
    /// Makes realities, all or none, in one publication.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] naming one that is there, [`ErrorKind::Invalid`] for a name outside of `refs/realities/` or
    /// given twice or for none at all, [`ErrorKind::NotFound`] if the base is no commit of the repository.
    pub fn create_realities(&self, new: NewRealities) -> Result<Published> {
        let now = self.now_millis();
        let ttl = new.ttl.map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        let origin = Origin {
            version: new.version,
            base: new.base,
            from: new.from,
            created_millis: now,
            expires_millis: ttl.map(|ttl| now.saturating_add(ttl)),
        };
        if new.names.is_empty() {
            return Err(Error::invalid("no reality is named"));
        }
        let (count, limit) = (new.names.len(), self.limits().realities_max);
        if count > limit {
            return Err(Error::limit("realities in one call", count, limit));
        }
        let mut transaction = self.begin(&new.actor, Cause::Reality);
        transaction.set_origin(Arc::new(origin));
        for name in new.names {
            if !name.is_reality() {
                return Err(Error::invalid(format!("{name} is not under refs/realities/")));
            }
            transaction.edit(RefEdit { name, expected: Expected::Absent, target: Some(new.base) })?;
        }
        transaction.prepare().and_then(|prepared| prepared.publish()).map_err(|error| match error.kind() {
            ErrorKind::Conflict(conflict) => {
                Error::new(ErrorKind::Exists, format!("reference {} exists already", conflict.name))
            }
            _ => error,
        })
    }

    /// Drops realities, all or none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] naming one that is not there.
    pub fn drop_realities(&self, names: &[RefName], actor: &str) -> Result<Published> {
        self.retried(|| {
            let mut transaction = self.begin(actor, Cause::Reality);
            transaction.expect_races();
            let tip = transaction.tip();
            for name in names {
                let found = tip.version().refs.reality(name);
                let head =
                    found.ok_or_else(|| Error::not_found(format!("reality {} does not exist", name.short())))?.head;
                transaction.edit(RefEdit { name: name.clone(), expected: Expected::Is(head), target: None })?;
            }
            transaction.prepare()?.publish()
        })
    }

    /// Brings a reality's work to a branch, and ends the reality unless it is to stay.
    ///
    /// # Errors
    /// As [`Snapshot::reality`]; [`ErrorKind::NotFound`] if there is no such branch; [`ErrorKind::Conflict`] with what
    /// the reality began with, the branch's head, and the paths that both changed; [`ErrorKind::Invalid`] if there is
    /// nothing to promote, or merges to be made again.
    pub fn promote(&self, request: &PromoteRequest) -> Result<Promoted> {
        self.retried(|| self.try_promote(request))
    }

    fn try_promote(&self, request: &PromoteRequest) -> Result<Promoted> {
        let mut transaction = self.begin(&request.actor, Cause::Reality);
        transaction.expect_races();
        let tip = transaction.tip();
        let reality = tip.reality(&request.reality)?.clone();
        let target = tip
            .reference(&request.target)
            .ok_or_else(|| Error::not_found(format!("branch {} does not exist", request.target.short())))?;
        let message = match &request.message {
            Some(message) => message.clone(),
            None => format!("Merge reality {} into {}", request.reality.short(), request.target.short()),
        };
        let head = transaction.integrate(&Integration {
            branch: &request.target,
            head: target,
            work: reality.head,
            promotion: request.promotion,
            committer: Some(&request.committer),
            message,
            deadline: request.deadline,
        })?;
        if head == target && request.keep {
            return Err(Error::invalid(format!(
                "reality {} has nothing that {} has not",
                request.reality.short(),
                request.target.short()
            )));
        }
        if head != target {
            let name = request.target.clone();
            transaction.edit(RefEdit { name, expected: Expected::Is(target), target: Some(head) })?;
        }
        if !request.keep {
            let name = request.reality.clone();
            transaction.edit(RefEdit { name, expected: Expected::Is(reality.head), target: None })?;
        }
        Ok(Promoted { oid: head, published: transaction.prepare()?.publish()? })
    }

    /// Does it again when somebody else publishes meanwhile. What conflicts by itself, with paths or without, is found
    /// before anything is published, so only a reference that has moved since is worth another attempt.
    fn retried<T>(&self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let lineage = self.lineage();
        for _ in 1..ATTEMPTS_MAX {
            let before = self.tip_number();
            match attempt() {
                Err(error) if matches!(error.kind(), ErrorKind::Conflict(_)) && self.tip_number() != before => {}
                outcome => return outcome.map_err(|error| self.confirm(error, lineage)),
            }
        }
        attempt().map_err(|error| self.confirm(error, lineage))
    }
}
