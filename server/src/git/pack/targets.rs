//! What a pack's objects point at: noted by all threads that check objects, each target with the one kind that it must have.

use govc_engine::{
    Error, Kind, ObjectFormat, Oid, Result, hash_object,
    object::{CheckLevel, check_object, links},
};
use parking_lot::Mutex;

use super::nesting::Nesting;
use crate::git::oid_map::OidMap;

/// Parts of the map, each with a lock of its own, so that threads seldom meet.
const PARTS: usize = 64;

/// Targets that are being noted.
pub(super) struct NotedTargets {
    format: ObjectFormat,
    parts: [Mutex<OidMap<Kind>>; PARTS],
    nesting: Mutex<Nesting>,
}

impl NotedTargets {
    /// For objects of a repository of the `format`.
    pub(super) fn new(format: ObjectFormat) -> Self {
        Self { format, parts: std::array::from_fn(|_| Mutex::default()), nesting: Mutex::default() }
    }

    /// Hashes an object, checks its syntax and notes what it points at; gives its id.
    ///
    /// # Errors
    /// `Invalid` for what is refused, and if something is pointed at as two kinds; `Corrupt` for what cannot be read.
    pub(super) fn check(&self, kind: Kind, data: &[u8]) -> Result<Oid> {
        let oid = hash_object(self.format, kind, data)?;
        if let Some(finding) = check_object(self.format, kind, data)
            && finding.level == CheckLevel::Refuse
        {
            return Err(Error::invalid(format!("object {oid}: {finding}")));
        }
        let targets = links(self.format, kind, data).map_err(|error| error.context(format!("object {oid}")))?.targets;
        if kind == Kind::Tree {
            let mut trees = targets.iter().filter(|(_, wanted)| *wanted == Some(Kind::Tree)).peekable();
            if trees.peek().is_some() {
                let mut nesting = self.nesting.lock();
                trees.for_each(|(child, _)| nesting.note(&oid, child));
            }
        }
        for (target, wanted) in targets {
            let Some(wanted) = wanted else { continue };
            if *self.parts[part_of(&target)].lock().entry(target).or_insert(wanted) != wanted {
                return Err(Error::invalid(format!("object {target} is pointed at as two kinds")));
            }
        }
        Ok(oid)
    }

    /// The targets of all objects.
    ///
    /// # Errors
    /// `TooLarge` if directories are nested too deeply.
    pub(super) fn finish(self) -> Result<Targets> {
        self.nesting.into_inner().check()?;
        Ok(Targets(self.parts.map(Mutex::into_inner)))
    }
}

/// The targets of a pack's objects.
pub(super) struct Targets([OidMap<Kind>; PARTS]);

impl Targets {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Oid, Kind)> {
        self.0.iter().flatten().map(|(oid, kind)| (oid, *kind))
    }

    pub(super) fn contains(&self, oid: &Oid) -> bool {
        self.0[part_of(oid)].contains_key(oid)
    }
}

/// By bits that the map's own places are not taken from.
fn part_of(oid: &Oid) -> usize {
    usize::from(oid.as_bytes().last().copied().unwrap_or_default()) % PARTS
}
