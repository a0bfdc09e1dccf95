//! What client and server have in common: the state that "have" lines build, and when it is enough.
//!
//! Pure: the history is asked through [`History`], nothing is written. Commits that the client has make their
//! parents known too, and it is enough when every wanted commit has a known ancestor, looking no further back than
//! the oldest commit in common, as `upload-pack.c` does (`do_got_oid`, `ok_to_give_up`). Unlike there, the walk goes
//! on where it stopped when more is known, so that all of a negotiation's walks cost as much as one.

use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::Instant;

use govc_engine::{Error, ErrorKind, Kind, Oid, Result, Snapshot};
use smallvec::SmallVec;

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

/// A snapshot that answers until a deadline: how far a fetch walks is up to the client.
pub(crate) struct Timed<'s> {
    snapshot: &'s Snapshot,
    deadline: Cell<Instant>,
}

impl<'s> Timed<'s> {
    /// `snapshot`, until `deadline`; then every question fails with `Cancelled`.
    pub(crate) fn new(snapshot: &'s Snapshot, deadline: Instant) -> Self {
        Self { snapshot, deadline: Cell::new(deadline) }
    }

    /// Answers until another deadline.
    pub(crate) fn extend(&self, deadline: Instant) {
        self.deadline.set(deadline);
    }

    fn in_time(&self) -> Result<&'s Snapshot> {
        if Instant::now() >= self.deadline.get() {
            return Err(Error::new(ErrorKind::Cancelled, "the time for this request is over"));
        }
        Ok(self.snapshot)
    }
}

impl History for Timed<'_> {
    fn contains(&self, oid: &Oid) -> Result<bool> {
        self.in_time()?.contains(oid)
    }

    fn links(&self, oid: &Oid) -> Result<Option<Links>> {
        let snapshot = self.in_time()?;
        match snapshot.header(oid)? {
            Some((Kind::Commit, _)) => {
                let commit = match snapshot.commit(oid) {
                    // Nothing led to it, and it has gone since.
                    Err(error) if *error.kind() == ErrorKind::NotFound => return Ok(None),
                    commit => commit?,
                };
                Ok(Some(Links { seconds: commit.committer.seconds, parents: commit.parents.to_vec() }))
            }
            _ => Ok(None),
        }
    }

    fn peel(&self, oid: Oid) -> Result<(Oid, Kind)> {
        self.in_time()?.peel(oid)
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
    /// The walk from the wants, once it has begun.
    coverage: Option<Coverage>,
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
            coverage: None,
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
        if let Some(links) = self.history.links(&oid)? {
            if self.oldest_seconds.is_none_or(|oldest| links.seconds < oldest) {
                self.oldest_seconds = Some(links.seconds);
            }
            for parent in links.parents {
                self.learn(parent);
            }
        }
        if self.learn(oid) {
            self.common.push(oid);
        }
        Ok(Have::Common)
    }

    /// Whether that is news.
    fn learn(&mut self, oid: Oid) -> bool {
        let news = self.known.insert(oid);
        if news && let Some(coverage) = &mut self.coverage {
            coverage.cover(oid);
        }
        news
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
        let coverage = match &mut self.coverage {
            Some(coverage) => coverage,
            None => self.coverage.insert(Coverage::begin(self.history, &self.wants, &self.known)?),
        };
        coverage.walk(self.history, &self.known, self.oldest_seconds.unwrap_or(i64::MIN))
    }
}

/// The walk from the wants towards what is known. A commit is covered when it is known or a parent of it is covered.
///
/// Each commit is read at most twice, however often the walk goes on: what has been seen remembers its children, to
/// which coverage is passed on.
#[derive(Default)]
struct Coverage {
    /// The children by which each commit was seen.
    seen: HashMap<Oid, SmallVec<[Oid; 1]>>,
    covered: HashSet<Oid>,
    /// Wanted commits that are not covered.
    open: HashSet<Oid>,
    /// Seen, and to be read.
    ahead: Vec<Oid>,
    /// Read, and older than everything in common: to be read again when something older is.
    too_old: BinaryHeap<(i64, Oid)>,
}

impl Coverage {
    fn begin<H: History>(history: &H, wants: &[Oid], known: &HashSet<Oid>) -> Result<Self> {
        let mut coverage = Self::default();
        for want in wants {
            let (oid, kind) = history.peel(*want)?;
            // Trees and blobs have no history that could tell.
            if kind == Kind::Commit && coverage.open.insert(oid) {
                coverage.see(oid, None, known);
            }
        }
        Ok(coverage)
    }

    /// Goes on until every want is covered or nothing is left that is not older than `oldest_seconds`; returns which.
    fn walk<H: History>(&mut self, history: &H, known: &HashSet<Oid>, oldest_seconds: i64) -> Result<bool> {
        while let Some((seconds, _)) = self.too_old.peek()
            && *seconds >= oldest_seconds
        {
            self.ahead.extend(self.too_old.pop().map(|(_, oid)| oid));
        }
        while !self.open.is_empty()
            && let Some(oid) = self.ahead.pop()
        {
            if self.covered.contains(&oid) {
                continue;
            }
            let Some(links) = history.links(&oid)? else { continue };
            if links.seconds < oldest_seconds {
                self.too_old.push((links.seconds, oid));
                continue;
            }
            // The first parent comes to lie on top: it is the likeliest to be known.
            for parent in links.parents.iter().rev() {
                self.see(*parent, Some(oid), known);
            }
        }
        Ok(self.open.is_empty())
    }

    fn see(&mut self, oid: Oid, child: Option<Oid>, known: &HashSet<Oid>) {
        if self.covered.contains(&oid) {
            if let Some(child) = child {
                self.cover(child);
            }
            return;
        }
        let first = !self.seen.contains_key(&oid);
        self.seen.entry(oid).or_default().extend(child);
        if known.contains(&oid) {
            self.cover(oid);
        } else if first {
            self.ahead.push(oid);
        }
    }

    /// Passes it on to everything seen above `oid`, if that was seen itself.
    fn cover(&mut self, oid: Oid) {
        let mut fresh = vec![oid];
        while let Some(oid) = fresh.pop() {
            if let Some(children) = self.seen.remove(&oid) {
                self.open.remove(&oid);
                self.covered.insert(oid);
                fresh.extend(children);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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

    /// Counts the commits that are read.
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
    fn all_walks_of_a_negotiation_cost_as_much_as_one() {
        // From 50 to 199 one after the other; older ones with no way to them, which the client has.
        let parents: Vec<[u8; 1]> = (0..=199).map(|n: u8| [n.saturating_sub(1)]).collect();
        let commits: Vec<(u8, &[u8])> =
            (1..=199).map(|n: u8| (n, if n <= 50 { &[][..] } else { &parents[usize::from(n)][..] })).collect();
        let history = Counting(Drawn::new(&commits), Default::default());
        let mut negotiation = Negotiation::new(&history, &oids(&[199]));
        for n in (1..50).rev() {
            negotiation.have(oid(n)).unwrap();
            assert!(!negotiation.is_enough().unwrap());
        }
        assert!(history.1.get() <= 2 * 199, "{} commits were read", history.1.get());
        negotiation.have(oid(120)).unwrap();
        assert!(negotiation.is_enough().unwrap(), "what was walked before is remembered");
    }

    #[test]
    fn walking_on_finds_what_walking_anew_does() {
        // A way through a merge, met before anything on it was known, and again from another want.
        let history = history();
        for haves in [&[1][..], &[3, 5], &[5], &[2, 1]] {
            let mut negotiation = Negotiation::new(&history, &oids(&[7, 5]));
            let mut fresh = Vec::new();
            for n in haves {
                negotiation.have(oid(*n)).unwrap();
                fresh.push(*n);
                let mut anew = Negotiation::new(&history, &oids(&[7, 5]));
                for n in &fresh {
                    anew.have(oid(*n)).unwrap();
                }
                assert_eq!(negotiation.is_enough().unwrap(), anew.is_enough().unwrap(), "{fresh:?}");
            }
        }
        let mut negotiation = Negotiation::new(&history, &oids(&[7, 5]));
        negotiation.have(oid(4)).unwrap();
        assert!(!negotiation.is_enough().unwrap(), "nothing known is below 5");
        negotiation.have(oid(2)).unwrap();
        assert!(negotiation.is_enough().unwrap());
    }

    #[test]
    fn walks_end_at_the_deadline() {
        use govc_engine::{RepoName, RepoSettings, Store, StoreOptions};
        let backend = std::sync::Arc::new(govc_backends::MemoryBackend::new());
        let store = Store::open(backend, StoreOptions::default()).unwrap();
        let repo = store.create(&RepoName::new("late").unwrap(), RepoSettings::default(), "test").unwrap();
        let snapshot = repo.snapshot();
        let late = Timed::new(&snapshot, Instant::now());
        assert_eq!(*late.contains(&oid(1)).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(*late.links(&oid(1)).unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(*late.peel(oid(1)).unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn what_has_no_history_does_not_hold_up() {
        let history = history();
        let mut negotiation = Negotiation::new(&history, &oids(&[200, 7]));
        negotiation.have(oid(1)).unwrap();
        assert!(negotiation.is_enough().unwrap());
    }
}
