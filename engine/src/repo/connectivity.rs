//! Connectivity: whether everything that new tips reach is there, so that a push never leaves a hole.
//!
//! What the repository had before is complete, by this very check at every push; so the walk starts at the new tips,
//! goes through what the push brought, and stops at everything else that the repository has.

use super::oid_set::GuardedOidSet;
use crate::{
    Error, Result,
    object::{Kind, Links, Oid},
    store::Snapshot,
};

/// What a push brought, to the walk.
pub trait Known {
    /// The kind and links of an object that the push brought; `None` if it did not.
    ///
    /// # Errors
    /// When the storage fails.
    fn brought(&self, oid: &Oid) -> Result<Option<(Kind, Links)>>;
}

/// A walk over what a push brought; shared by all references of the push, so nothing is walked twice.
pub struct Connectivity<'a> {
    snapshot: &'a Snapshot,
    known: &'a dyn Known,
    complete: GuardedOidSet,
}

impl<'a> Connectivity<'a> {
    /// A walk over what `known` brings to `snapshot`.
    pub fn new(snapshot: &'a Snapshot, known: &'a dyn Known) -> Self {
        Self { snapshot, known, complete: GuardedOidSet::default() }
    }

    /// Whether an object is reached by a tip that passed.
    pub fn has_passed(&self, oid: &Oid) -> bool {
        self.complete.contains(oid)
    }

    /// Checks that everything `tip` reaches is there.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`] naming the first object that is missing, [`crate::ErrorKind::Invalid`] naming
    /// one that is not of the kind that points at it.
    pub fn check(&mut self, tip: Oid) -> Result<()> {
        let mut queue: Vec<(Oid, Option<Kind>, Option<Oid>)> = vec![(tip, None, None)];
        // What this walk has passed counts as complete only when all of it is.
        let mut passed = GuardedOidSet::default();
        while let Some((oid, wanted, by)) = queue.pop() {
            if self.complete.contains(&oid) || !passed.insert(oid) {
                continue;
            }
            let kind = match self.known.brought(&oid)? {
                Some((kind, links)) => {
                    queue.extend(links.targets.into_iter().map(|(target, kind)| (target, kind, Some(oid))));
                    kind
                }
                None => match self.snapshot.kind_to_build_on(&oid)? {
                    Some(kind) => kind,
                    None => return Err(missing(oid, wanted, by)),
                },
            };
            if wanted.is_some_and(|wanted| wanted != kind) {
                let by = by.map_or_else(String::new, |by| format!(", as {by} says"));
                return Err(Error::invalid(format!("object {oid} is a {kind}, not a {}{by}", wanted.unwrap_or(kind))));
            }
        }
        self.complete.append(passed);
        Ok(())
    }
}

fn missing(oid: Oid, wanted: Option<Kind>, by: Option<Oid>) -> Error {
    let what = wanted.map_or("object", Kind::as_str);
    let by = by.map_or_else(String::new, |by| format!(", which {by} needs"));
    Error::not_found(format!("missing {what} {oid}{by}"))
}
