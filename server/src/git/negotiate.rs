//! What client and server have in common: the state that "have" lines build, and when it is enough.
//!
//! Pure: the history is asked through [`History`], nothing is written. Commits that the client has make their
//! parents known too, and it is enough when every wanted commit has a known ancestor, looking no further back than
//! the oldest commit in common, as `upload-pack.c` does (`do_got_oid`, `ok_to_give_up`).

use std::collections::{HashMap, HashSet};

use govc_engine::{Kind, Oid, Result, Snapshot};

/// What the walks of a fetch need to know of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    /// The committer's time in seconds.
    pub(crate) seconds: i64,
    /// The parents, in order.
    pub(crate) parents: Vec<Oid>,
}

/// The objects that a fetch is about.
pub(crate) trait History {
    /// Whether the repository reaches the object.
    ///
    /// # Errors
    /// What reading fails with.
    fn contains(&self, oid: &Oid) -> Result<bool>;

    /// The links of a commit; `None` for another object and for none.
    ///
    /// # Errors
    /// What reading fails with.
    fn links(&self, oid: &Oid) -> Result<Option<Links>>;

    /// What an object leads to through tags, and its kind.
    ///
    /// # Errors
    /// What reading fails with; `NotFound` for no object.
    fn peel(&self, oid: Oid) -> Result<(Oid, Kind)>;
}

impl History for Snapshot {
    fn contains(&self, oid: &Oid) -> Result<bool> {
        Snapshot::contains(self, oid)
    }

    fn links(&self, oid: &Oid) -> Result<Option<Links>> {
        match self.header(oid)? {
            Some((Kind::Commit, _)) => {
                let commit = self.commit(oid)?;
                Ok(Some(Links { seconds: commit.committer.seconds, parents: commit.parents.to_vec() }))
            }
            _ => Ok(None),
        }
    }

    fn peel(&self, oid: Oid) -> Result<(Oid, Kind)> {
        Snapshot::peel(self, oid)
    }
}

/// What one "have" line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Have {
    /// The server has it too.
    Common,
    /// The server does not know it.
    Unknown,
}

/// The state of one negotiation.
pub(crate) struct Negotiation<'h, H> {
    history: &'h H,
    wants: Vec<Oid>,
    /// In common, in the order of the client's lines, without what was known from a child before.
    common: Vec<Oid>,
    /// Everything in `common`, and the parents of its commits.
    known: HashSet<Oid>,
    oldest_seconds: Option<i64>,
    /// The answer of [`Negotiation::is_enough`] while `common` stays as it is; a positive one stays for good.
    enough: Option<bool>,
}

impl<'h, H: History> Negotiation<'h, H> {
    /// Begins with what the client wants.
    pub(crate) fn new(history: &'h H, wants: &[Oid]) -> Self {
        Self {
            history,
            wants: wants.to_vec(),
            common: Vec::new(),
            known: HashSet::new(),
            oldest_seconds: None,
            enough: None,
        }
    }

    /// Takes one "have" line.
    ///
    /// # Errors
    /// What reading the history fails with.
    pub(crate) fn have(&mut self, oid: Oid) -> Result<Have> {
        if !self.history.contains(&oid)? {
            return Ok(Have::Unknown);
        }
        let mut news = false;
        if let Some(links) = self.history.links(&oid)? {
            if self.oldest_seconds.is_none_or(|oldest| links.seconds < oldest) {
                self.oldest_seconds = Some(links.seconds);
                news = true;
            }
            for parent in links.parents {
                news |= self.known.insert(parent);
            }
        }
        if self.known.insert(oid) {
            self.common.push(oid);
            news = true;
        }
        if news && self.enough == Some(false) {
            self.enough = None;
        }
        Ok(Have::Common)
    }

    /// What is in common, as acknowledged.
    pub(crate) fn common(&self) -> &[Oid] {
        &self.common
    }

    /// Whether more "have" lines would hardly make the pack smaller.
    ///
    /// # Errors
    /// What reading the history fails with.
    pub(crate) fn is_enough(&mut self) -> Result<bool> {
        if self.common.is_empty() {
            return Ok(false);
        }
        if let Some(enough) = self.enough {
            return Ok(enough);
        }
        let enough = self.every_want_is_covered()?;
        self.enough = Some(enough);
        Ok(enough)
    }

    fn every_want_is_covered(&self) -> Result<bool> {
        // What a finished commit has found: whether a known commit is among it and its ancestors.
        let mut covered: HashMap<Oid, bool> = HashMap::new();
        for want in &self.wants {
            let (oid, kind) = self.history.peel(*want)?;
            // Trees and blobs have no history that could tell.
            if kind == Kind::Commit && !self.is_covered(oid, &mut covered)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Walks depth first, on a stack of its own: histories are deeper than a thread's.
    fn is_covered(&self, start: Oid, covered: &mut HashMap<Oid, bool>) -> Result<bool> {
        struct Visit {
            oid: Oid,
            parents: std::vec::IntoIter<Oid>,
        }
        let oldest = self.oldest_seconds.unwrap_or(i64::MIN);
        let mut path: Vec<Visit> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(oid) = next.take() {
                if self.known.contains(&oid) || covered.get(&oid) == Some(&true) {
                    for visit in path {
                        covered.insert(visit.oid, true);
                    }
                    covered.insert(oid, true);
                    return Ok(true);
                }
                // Taken for not covered from here on, which also ends a second visit of the same commit.
                if covered.insert(oid, false).is_none()
                    && let Some(links) = self.history.links(&oid)?
                    && links.seconds >= oldest
                {
                    path.push(Visit { oid, parents: links.parents.into_iter() });
                }
            }
            match path.last_mut() {
                None => return Ok(false),
                Some(visit) => {
                    next = visit.parents.next();
                    if next.is_none() {
                        path.pop();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use govc_engine::Error;

    /// A history given as a list of `(commit, parents)`; a commit's time is its number. Objects from 200 on are blobs.
    #[derive(Debug, Default)]
    pub(crate) struct Drawn(HashMap<Oid, Links>);

    pub(crate) fn oid(n: u8) -> Oid {
        Oid::from_bytes(&[n; 20]).unwrap()
    }

    pub(crate) fn oids(numbers: &[u8]) -> Vec<Oid> {
        numbers.iter().copied().map(oid).collect()
    }

    impl Drawn {
        pub(crate) fn new(commits: &[(u8, &[u8])]) -> Self {
            let links =
                |(n, parents): &(u8, &[u8])| (oid(*n), Links { seconds: i64::from(*n), parents: oids(parents) });
            Self(commits.iter().map(links).collect())
        }
    }

    impl History for Drawn {
        fn contains(&self, oid: &Oid) -> Result<bool> {
            Ok(self.0.contains_key(oid) || oid.as_bytes()[0] >= 200)
        }

        fn links(&self, oid: &Oid) -> Result<Option<Links>> {
            Ok(self.0.get(oid).cloned())
        }

        fn peel(&self, oid: Oid) -> Result<(Oid, Kind)> {
            match self.contains(&oid)? {
                true if self.0.contains_key(&oid) => Ok((oid, Kind::Commit)),
                true => Ok((oid, Kind::Blob)),
                false => Err(Error::not_found(format!("no object {oid}"))),
            }
        }
    }

    /// `1 - 2 - 3 - 4 - 6 - 7`, and 5 from 2, merged in 6.
    fn history() -> Drawn {
        Drawn::new(&[(1, &[]), (2, &[1]), (3, &[2]), (4, &[3]), (5, &[2]), (6, &[4, 5]), (7, &[6])])
    }

    #[test]
    fn an_ancestor_in_common_is_enough() {
        let history = history();
        let mut negotiation = Negotiation::new(&history, &oids(&[7]));
        assert!(!negotiation.is_enough().unwrap());
        assert_eq!(negotiation.have(oid(99)).unwrap(), Have::Unknown);
        assert!(!negotiation.is_enough().unwrap());
        assert_eq!(negotiation.have(oid(4)).unwrap(), Have::Common);
        assert!(negotiation.is_enough().unwrap());
        assert_eq!(negotiation.common(), oids(&[4]));
    }

    #[test]
    fn every_want_needs_one() {
        let history = Drawn::new(&[(1, &[]), (2, &[1]), (10, &[]), (11, &[10])]);
        let mut negotiation = Negotiation::new(&history, &oids(&[2, 11]));
        negotiation.have(oid(1)).unwrap();
        assert!(!negotiation.is_enough().unwrap());
        negotiation.have(oid(10)).unwrap();
        assert!(negotiation.is_enough().unwrap());
    }

    #[test]
    fn a_parent_of_what_is_in_common_is_known_and_not_acknowledged_again() {
        let history = history();
        let mut negotiation = Negotiation::new(&history, &oids(&[3]));
        negotiation.have(oid(4)).unwrap();
        assert!(negotiation.is_enough().unwrap(), "3 is 4's parent");
        assert_eq!(negotiation.have(oid(3)).unwrap(), Have::Common);
        assert_eq!(negotiation.common(), oids(&[4]));
    }

    #[test]
    fn commits_older_than_everything_in_common_are_not_walked() {
        struct Counting(Drawn, std::cell::Cell<usize>);
        impl History for Counting {
            fn contains(&self, oid: &Oid) -> Result<bool> {
                self.0.contains(oid)
            }
            fn links(&self, oid: &Oid) -> Result<Option<Links>> {
                self.1.set(self.1.get() + 1);
                self.0.links(oid)
            }
            fn peel(&self, oid: Oid) -> Result<(Oid, Kind)> {
                self.0.peel(oid)
            }
        }
        let commits: Vec<(u8, Vec<u8>)> = (1..100).map(|n| (n, if n == 1 { vec![] } else { vec![n - 1] })).collect();
        let mut drawn: Vec<(u8, &[u8])> = commits.iter().map(|(n, parents)| (*n, &parents[..])).collect();
        drawn.push((150, &[]));
        let history = Counting(Drawn::new(&drawn), Default::default());
        let mut negotiation = Negotiation::new(&history, &oids(&[99]));
        negotiation.have(oid(150)).unwrap();
        assert!(!negotiation.is_enough().unwrap());
        assert!(history.1.get() <= 3, "{} commits were read", history.1.get());
        let before = history.1.get();
        assert!(!negotiation.is_enough().unwrap());
        assert_eq!(history.1.get(), before, "the answer is remembered while nothing changes");
    }

    #[test]
    fn what_has_no_history_does_not_hold_up() {
        let history = history();
        let mut negotiation = Negotiation::new(&history, &oids(&[200, 7]));
        negotiation.have(oid(1)).unwrap();
        assert!(negotiation.is_enough().unwrap());
    }
}
