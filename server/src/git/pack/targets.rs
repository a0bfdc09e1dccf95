//! What a pack's objects point at: noted by all threads that check objects, each target with the one kind that it must have.
//!
//! A pusher chooses these ids, which nothing need have: they are hashed with a secret, or a tree of ids that begin alike would
//! take as long as the square of their number.

use std::collections::HashMap;

use govc_engine::{
    Error, Kind, ObjectFormat, Oid, Result, hash_object,
    object::{CheckLevel, check_object, links},
};
use parking_lot::Mutex;

use super::nesting::Nesting;

/// Parts of the map, each with a lock of its own, so that threads seldom meet.
const PARTS: usize = 64;

/// Targets that are being noted.
pub(super) struct NotedTargets {
    format: ObjectFormat,
    parts: [Mutex<HashMap<Oid, Kind>>; PARTS],
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
pub(super) struct Targets([HashMap<Oid, Kind>; PARTS]);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_begin_alike_cost_no_more_than_others() {
        const COUNT: u32 = 400_000;
        let entry = |at: u32| {
            let mut id = [7; 20];
            id[8..12].copy_from_slice(&at.to_be_bytes());
            [format!("100644 {at:08}\0").as_bytes(), &id].concat()
        };
        let tree: Vec<u8> = (0..COUNT).flat_map(entry).collect();
        let targets = NotedTargets::new(ObjectFormat::Sha1);
        // With their own bits as their hash it does not end within minutes.
        targets.check(Kind::Tree, &tree).expect("a sound tree");
        assert_eq!(targets.finish().expect("flat").iter().count(), COUNT as usize);
    }
}
