//! Files and directories by the beginnings of their names.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use govc_engine::{Error, ErrorKind, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::{Asked, Given, SuggestionKind, is_sayable};
use crate::{
    deadline,
    importance::Tier,
    query::value_text,
    view::{Child, Dir},
};

/// Entries that are looked at.
const ENTRIES_MAX: usize = 2_000_000;
/// Entries between two looks at the clock.
const CLOCK_ENTRIES: usize = 4096;

/// The directories of the places, each once, in order; those that cannot be read are left out.
///
/// # Errors
/// Cancelled at the deadline.
pub(super) fn roots(asked: &Asked<'_>) -> Result<Vec<Arc<Dir>>> {
    let (mut roots, mut trees) = (Vec::new(), HashSet::new());
    for place in &asked.places {
        deadline::check(asked.until)?;
        let Ok(commit) = place.snapshot.commit(&place.commit) else { continue };
        if !trees.insert(commit.tree) {
            continue;
        }
        match asked.corpus.views.dir(&place.snapshot, &asked.corpus.index, commit.tree, asked.until) {
            Err(error) if *error.kind() == ErrorKind::Cancelled => return Err(error),
            root => roots.extend(root.ok()),
        }
    }
    Ok(roots)
}

/// A path whose last parts begin with what is typed, in the order of suggestions: what it is, how deep, and the path.
type Found = (Tier, usize, String);

struct Walk<'a> {
    asked: &'a Asked<'a>,
    /// How many parts of a path are compared with what is typed.
    parts: usize,
    /// The first ones, with how many files each has.
    found: BTreeMap<Found, u64>,
    /// Directories that were gone through, by where they are in memory and the hash of their path: most are in many places.
    seen: HashSet<(*const Dir, u64)>,
    entries: usize,
}

/// Paths of which the last parts begin with what is typed.
pub(super) fn paths(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    if asked.typed.is_empty() && asked.field.is_none() {
        return Ok(());
    }
    let roots = roots(asked)?;
    let parts = asked.typed.matches('/').count() + 1;
    let mut walk = Walk { asked, parts, found: BTreeMap::new(), seen: HashSet::new(), entries: 0 };
    let done = roots.iter().try_for_each(|root| walk.dir(root, Tier::Source, 0, &mut Vec::new()));
    let field = if asked.field.is_none() { "path:" } else { "" };
    given.extend(walk.found.into_iter().map(|((.., path), files)| Given {
        kind: SuggestionKind::Path,
        value: format!("{field}{}", value_text(&path)),
        count: Some(files),
    }));
    // What was found until the deadline, or the limit, is what there is.
    match done {
        Err(error) if !matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::LimitExceeded) => Err(error),
        _ => Ok(()),
    }
}

impl Walk<'_> {
    fn dir(&mut self, dir: &Arc<Dir>, tier: Tier, depth: usize, path: &mut Vec<u8>) -> Result<()> {
        if !self.seen.insert((Arc::as_ptr(dir), xxh3_64(path))) {
            return Ok(());
        }
        for (name, child_tier, child) in dir.children() {
            self.entries += 1;
            if self.entries.is_multiple_of(CLOCK_ENTRIES) {
                deadline::check(self.asked.until)?;
            }
            if self.entries > ENTRIES_MAX {
                return Err(Error::new(ErrorKind::LimitExceeded, "there are too many paths"));
            }
            let length = path.len();
            path.extend_from_slice(name);
            let tier = tier.max(child_tier);
            let (files, child) = match child {
                Child::File(_) => (1, None),
                Child::Dir(child) => {
                    path.push(b'/');
                    (child.files(), Some(child))
                }
            };
            self.look(path, tier, depth, files);
            let done = child.map_or(Ok(()), |child| self.dir(child, tier, depth + 1, path));
            path.truncate(length);
            done?;
        }
        Ok(())
    }

    fn look(&mut self, path: &[u8], tier: Tier, depth: usize, files: u64) {
        let is_dir = path.last() == Some(&b'/');
        let whole = path.get(..path.len() - usize::from(is_dir)).unwrap_or_default();
        // From the beginning of the last so many parts.
        let start = memchr::memrchr_iter(b'/', whole).nth(self.parts - 1).map_or(0, |slash| slash + 1);
        let (Ok(path), Some(Ok(tail))) = (std::str::from_utf8(path), path.get(start..).map(std::str::from_utf8)) else {
            return;
        };
        let is_deep_enough = depth + 1 >= self.parts;
        if files > 0 && is_deep_enough && self.asked.begins(tail) && is_sayable(path) && path != self.asked.typed {
            let is_first = self.found.last_key_value().is_none_or(|((last_tier, last_depth, last), _)| {
                self.found.len() < self.asked.count_max
                    || (tier, depth, path) < (*last_tier, *last_depth, last.as_str())
            });
            if is_first {
                let known = self.found.entry((tier, depth, path.to_owned())).or_insert(files);
                *known = files.min(*known);
            }
            if self.found.len() > self.asked.count_max {
                self.found.pop_last();
            }
        }
    }
}
