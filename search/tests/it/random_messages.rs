//! Commits by what they say, on random histories of which anything may be indexed.

use std::{cell::Cell, collections::BTreeSet, fs, sync::Arc};

use govc_engine::{Oid, RefName, Repo, RepoName};
use govc_search::Indexer;
use proptest::prelude::*;

use super::{
    history::damage,
    messages::{AUTHORS, HOSTILE, QUERIES, ask, check, places_of, say, without_index},
    past::Past,
};

/// What is done next to a random history.
#[derive(Debug, Clone)]
enum Step {
    Say {
        parents: Vec<prop::sample::Index>,
        seconds: i64,
        author: usize,
        message: Vec<u8>,
        branch: usize,
    },
    Point {
        commit: prop::sample::Index,
        branch: usize,
    },
    Delete {
        branch: usize,
    },
    Index,
    /// Until the indexer has asked so often whether to end.
    IndexSome(u32),
    Reopen(Lost),
    Fork,
    Ask {
        query: usize,
        page: usize,
    },
}

/// What a crash took.
#[derive(Debug, Clone, Copy)]
enum Lost {
    Nothing,
    Index,
    History,
    SomeHistory(u64, bool),
}

const BRANCHES: [&str; 4] = ["main", "topic/a", "topic/b", "other"];

fn message() -> impl Strategy<Value = Vec<u8>> {
    let words = ["fix", "Fix", "memory leak", "merge", "leak 7", "\n", "x", "fi", "a word", "Ann", "\u{17f}"];
    let text = prop::collection::vec(prop::sample::select(words.to_vec()), 0..6);
    prop_oneof![
        4 => text.prop_map(|words| words.join(" ").into_bytes()),
        1 => prop::sample::select(HOSTILE.to_vec()).prop_map(<[u8]>::to_vec),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let parents = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let seconds = prop_oneof![3 => 50..200_i64, 1 => Just(100_i64), 1 => -400_000_000..4_000_000_000_i64];
    let lost = prop_oneof![
        Just(Lost::Nothing),
        Just(Lost::Index),
        Just(Lost::History),
        (any::<u64>(), any::<bool>()).prop_map(|(at, cuts)| Lost::SomeHistory(at, cuts)),
    ];
    prop_oneof![
        20 => (parents, seconds, 0..AUTHORS.len(), message(), 0..BRANCHES.len()).prop_map(
            |(parents, seconds, author, message, branch)| Step::Say { parents, seconds, author, message, branch }
        ),
        2 => (any::<prop::sample::Index>(), 0..BRANCHES.len()).prop_map(|(commit, branch)| Step::Point { commit, branch }),
        1 => (0..BRANCHES.len()).prop_map(|branch| Step::Delete { branch }),
        2 => Just(Step::Index),
        2 => (0..60_u32).prop_map(Step::IndexSome),
        1 => lost.prop_map(Step::Reopen),
        1 => Just(Step::Fork),
        4 => (0..QUERIES.len(), 1..6_usize).prop_map(|(query, page)| Step::Ask { query, page }),
    ]
}

/// Random commits of one repository, and its forks.
struct Random {
    past: Past,
    repos: Vec<Repo>,
    commits: Vec<Oid>,
}

impl Random {
    fn take(&mut self, step: Step) {
        match step {
            Step::Say { parents, seconds, author, message, branch } => {
                let count = self.commits.len();
                let parents =
                    parents.iter().filter(|_| count > 0).map(|parent| self.commits[parent.index(count.max(1))]);
                let parents: BTreeSet<Oid> = parents.collect();
                let parents: Vec<Oid> = parents.into_iter().collect();
                let by = (AUTHORS[author], seconds);
                self.commits.push(say(&self.past, &self.past.repo, BRANCHES[branch], &parents, by, &message));
            }
            Step::Point { commit, branch } if !self.commits.is_empty() => {
                self.past.point(&name(branch), Some(self.commits[commit.index(self.commits.len())]));
            }
            Step::Point { .. } => {}
            Step::Delete { branch } => self.past.point(&name(branch), None),
            Step::Index => self.past.index(),
            Step::IndexSome(asked) => {
                let left = Cell::new(asked);
                let stop = || left.replace(left.get().saturating_sub(1)) == 0;
                let corpus = self.past.corpus.clone();
                Indexer::new(self.past.store.clone(), corpus, Arc::default()).index_all(&stop).expect("indexed");
            }
            Step::Reopen(lost) => self.past.reopen(|folder| match lost {
                Lost::Nothing => {}
                Lost::Index => without_index(folder),
                Lost::History => fs::remove_file(folder.join("history")).expect("removed"),
                Lost::SomeHistory(at, cuts) => damage(folder, at, cuts),
            }),
            Step::Fork => {
                let name = RepoName::new(&format!("fork{}", self.repos.len())).expect("name");
                self.repos.push(self.past.store.fork(&self.past.repo.name(), &name, "test").expect("fork"));
            }
            Step::Ask { query, page } => self.check(QUERIES[query], page),
        }
    }

    fn check(&self, query: &str, page: usize) {
        for options in ["", "branch:*  branch:topic/*", "branch:topic/* branch:main"] {
            check(&self.past.corpus, query, &places_of(&self.repos, options), page);
        }
        check(&self.past.corpus, query, &places_of(&self.repos[..1], "branch:*"), page);
    }
}

fn name(branch: usize) -> RefName {
    RefName::branch(BRANCHES[branch]).expect("name")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_scan_of_each_commit(steps in prop::collection::vec(step(), 5..50)) {
        let folder = tempfile::tempdir().expect("a folder");
        let past = Past::with(Some(folder.path()));
        let mut random = Random { repos: vec![past.repo.clone()], past, commits: Vec::new() };
        steps.into_iter().for_each(|step| random.take(step));
        random.past.index();
        // What no reference reaches any more may lack its message.
        let all = places_of(&random.repos, "branch:* branch:topic/*");
        assert_eq!(ask(&random.past.corpus, "nowhere_qzx", &all).commits_read, 0, "all that is reached is indexed");
        for query in QUERIES {
            random.check(query, 4);
        }
    }
}
