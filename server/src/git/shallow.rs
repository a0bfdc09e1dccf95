//! Shallow clones: where a history is cut, and what changes for a client that was cut elsewhere before.
//!
//! A commit on the border is sent without its parents. Of all ways to a commit the shortest counts.
//! Source: git's `shallow.c` (`get_shallow_commits`, `get_shallow_commits_by_rev_list`), `upload-pack.c` (`deepen`).

use std::collections::{HashMap, HashSet, VecDeque};

use govc_engine::{Error, Kind, Oid, Result};

use super::negotiate::History;

/// The depth by which clients ask for the whole history.
const WHOLE_HISTORY: u32 = 0x7fff_ffff;

/// How a history is to be cut, with references resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// At this many commits from the wants (from the client's present borders, if relative).
    Depth {
        /// At least 1.
        commits: u32,
        /// Counted from the client's borders.
        relative: bool,
    },
    /// By time and by what other commits reach.
    Until {
        /// Only commits of this time, in seconds, or later.
        since: Option<i64>,
        /// Not these and what they reach.
        not: Vec<Oid>,
    },
}

/// What a client is told, and what follows for its pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Borders {
    /// Commits that become borders.
    pub(crate) shallow: Vec<Oid>,
    /// Borders of the client that get their parents now.
    pub(crate) unshallow: Vec<Oid>,
    /// The parents of those, wanted as well.
    pub(crate) wants: Vec<Oid>,
}

/// Computes the borders for `wants` of a client whose borders are `client`.
///
/// # Errors
/// `Invalid` when a rule selects nothing at all, and what reading the history fails with.
pub(crate) fn borders<H: History>(history: &H, wants: &[Oid], client: &[Oid], rule: &Rule) -> Result<Borders> {
    let heads = heads(history, wants)?;
    let (border, inside) = match rule {
        Rule::Depth { commits, relative: false } if *commits >= WHOLE_HISTORY => (Vec::new(), Inside::Everything),
        Rule::Depth { commits, relative: false } => by_depth(history, &heads, *commits)?,
        Rule::Depth { commits, relative: true } => match depth_of(history, &heads, client)? {
            Some(present) => by_depth(history, &heads, commits.saturating_add(present))?,
            None => (Vec::new(), Inside::Only(HashSet::new())),
        },
        Rule::Until { since, not } => {
            let not = self::heads(history, not)?;
            by_walk(history, &heads, since.unwrap_or(i64::MIN), &not)?
        }
    };
    let known: HashSet<Oid> = client.iter().copied().collect();
    let mut borders =
        Borders { shallow: border.into_iter().filter(|oid| !known.contains(oid)).collect(), ..Borders::default() };
    for oid in client {
        if inside.contains(oid)
            && let Some(links) = history.links(oid)?
        {
            borders.unshallow.push(*oid);
            borders.wants.extend(links.parents);
        }
    }
    Ok(borders)
}

/// The commits whose parents are sent.
enum Inside {
    Everything,
    Only(HashSet<Oid>),
}

impl Inside {
    fn contains(&self, oid: &Oid) -> bool {
        match self {
            Inside::Everything => true,
            Inside::Only(commits) => commits.contains(oid),
        }
    }
}

/// The commits that the objects lead to; trees and blobs have no history.
fn heads<H: History>(history: &H, oids: &[Oid]) -> Result<Vec<Oid>> {
    let mut heads = Vec::new();
    for oid in oids {
        let (oid, kind) = history.peel(*oid)?;
        if kind == Kind::Commit {
            heads.push(oid);
        }
    }
    Ok(heads)
}

/// Walks breadth first, so that each commit is met at its least depth. The visitor is given the commit and its depth,
/// from 1, and says whether to go on to its parents.
fn walk<H: History>(history: &H, heads: &[Oid], mut visit: impl FnMut(Oid, u32) -> bool) -> Result<()> {
    let mut seen: HashSet<Oid> = HashSet::new();
    let mut queue: VecDeque<(Oid, u32)> = VecDeque::new();
    queue.extend(heads.iter().filter(|oid| seen.insert(**oid)).map(|oid| (*oid, 1)));
    while let Some((oid, depth)) = queue.pop_front() {
        let links = history.links(&oid)?.ok_or_else(|| Error::corrupt(format!("no commit {oid}")))?;
        if visit(oid, depth) {
            let fresh = links.parents.into_iter().filter(|parent| seen.insert(*parent));
            queue.extend(fresh.map(|parent| (parent, depth.saturating_add(1))));
        }
    }
    Ok(())
}

fn by_depth<H: History>(history: &H, heads: &[Oid], commits: u32) -> Result<(Vec<Oid>, Inside)> {
    let mut border = Vec::new();
    let mut inside = HashSet::new();
    walk(history, heads, |oid, depth| {
        if depth < commits {
            inside.insert(oid)
        } else {
            // Also a commit without parents: git's clients expect to be told of every commit at this depth.
            border.push(oid);
            false
        }
    })?;
    Ok((border, Inside::Only(inside)))
}

/// The least depth of a client's border below `heads`, from which git counts since its version 2.54.
fn depth_of<H: History>(history: &H, heads: &[Oid], client: &[Oid]) -> Result<Option<u32>> {
    let client: HashSet<Oid> = client.iter().copied().collect();
    let mut found = None;
    walk(history, heads, |oid, depth| {
        if found.is_none() && client.contains(&oid) {
            found = Some(depth);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// A commit that is too old ends the walk to it, and takes nothing from other ways: git's walk does so without `not`, and with it
/// leaves out all that such a commit leads to.
fn by_walk<H: History>(history: &H, heads: &[Oid], since: i64, not: &[Oid]) -> Result<(Vec<Oid>, Inside)> {
    let mut excluded = HashSet::new();
    walk(history, not, |oid, _| excluded.insert(oid))?;
    let mut chosen: HashMap<Oid, Vec<Oid>> = HashMap::new();
    let mut order = Vec::new();
    let mut too_old = HashSet::new();
    // The visitor sees no times, so the heads and each commit's parents are looked up as they come.
    let mut queue: VecDeque<Oid> = heads.iter().copied().collect();
    while let Some(oid) = queue.pop_front() {
        if excluded.contains(&oid) || chosen.contains_key(&oid) || too_old.contains(&oid) {
            continue;
        }
        let links = history.links(&oid)?.ok_or_else(|| Error::corrupt(format!("no commit {oid}")))?;
        if links.seconds < since {
            too_old.insert(oid);
            continue;
        }
        queue.extend(&links.parents);
        chosen.insert(oid, links.parents);
        order.push(oid);
    }
    if order.is_empty() {
        return Err(Error::invalid("no commits selected for shallow requests"));
    }
    let is_border = |oid: &Oid| chosen.get(oid).is_some_and(|parents| parents.iter().any(|p| !chosen.contains_key(p)));
    let (border, inside): (Vec<Oid>, Vec<Oid>) = order.into_iter().partition(is_border);
    Ok((border, Inside::Only(inside.into_iter().collect())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::negotiate::tests::{Drawn, oid, oids};

    /// `1 - 2 - 3 - 4 - 6 - 7`, and 5 from 1, merged in 6.
    fn history() -> Drawn {
        Drawn::new(&[(1, &[]), (2, &[1]), (3, &[2]), (4, &[3]), (5, &[1]), (6, &[4, 5]), (7, &[6])])
    }

    #[track_caller]
    fn check(wants: &[u8], client: &[u8], rule: &Rule, shallow: &[u8], unshallow: &[u8], more: &[u8]) {
        let mut borders = borders(&history(), &oids(wants), &oids(client), rule).unwrap();
        borders.shallow.sort_unstable();
        borders.wants.sort_unstable();
        let expected = Borders { shallow: oids(shallow), unshallow: oids(unshallow), wants: oids(more) };
        assert_eq!(borders, expected);
    }

    fn depth(commits: u32) -> Rule {
        Rule::Depth { commits, relative: false }
    }

    #[test]
    fn the_shortest_way_counts() {
        check(&[7], &[], &depth(1), &[7], &[], &[]);
        check(&[7], &[], &depth(3), &[4, 5], &[], &[]);
        // 1 is four commits away over 5, though six over 2.
        check(&[7], &[], &depth(4), &[1, 3], &[], &[]);
        check(&[7, 4], &[], &depth(3), &[2, 5], &[], &[]);
    }

    #[test]
    fn a_history_shorter_than_the_depth_is_not_cut() {
        check(&[7], &[], &depth(10), &[], &[], &[]);
        check(&[200], &[], &depth(1), &[], &[], &[]);
    }

    #[test]
    fn deepening_opens_the_clients_borders() {
        check(&[7], &[6], &depth(3), &[4, 5], &[6], &[4, 5]);
        check(&[7], &[4, 5], &depth(3), &[], &[], &[]);
    }

    #[test]
    fn the_whole_history_opens_all_borders() {
        check(&[7], &[4, 5], &depth(WHOLE_HISTORY), &[], &[4, 5], &[1, 3]);
        // A border that the repository does not have is left to the client.
        check(&[7], &[99], &depth(WHOLE_HISTORY), &[], &[], &[]);
    }

    #[test]
    fn a_relative_depth_counts_from_the_border() {
        let relative = |commits| Rule::Depth { commits, relative: true };
        check(&[7], &[6], &relative(1), &[4, 5], &[6], &[4, 5]);
        check(&[7], &[], &relative(1), &[], &[], &[]);
    }

    #[test]
    fn time_and_references_cut() {
        check(&[7], &[], &Rule::Until { since: Some(4), not: vec![] }, &[4, 5], &[], &[]);
        check(&[7], &[], &Rule::Until { since: None, not: vec![oid(3)] }, &[4, 5], &[], &[]);
        check(&[7], &[6], &Rule::Until { since: Some(3), not: vec![] }, &[3, 5], &[6], &[4, 5]);
        let nothing = Rule::Until { since: Some(100), not: vec![] };
        assert!(borders(&history(), &oids(&[7]), &[], &nothing).is_err());
    }
}
