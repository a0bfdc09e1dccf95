//! Answers to `ls-refs`, kept for who asks the same of the same version next: clients that look whether there is something
//! new all ask the same.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use govc_engine::{GitRules, RepoId, Snapshot};
use parking_lot::RwLock;

use super::ls_refs::LsRefs;

/// All answers together.
const BYTES_MAX: usize = 16 << 20;
/// One of them, with its request: longer ones are worth their time.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Of one repository: git asks in two or three ways.
const PER_REPO_MAX: usize = 4;
/// What an answer takes beside its bytes and its request's.
const ENTRY_BYTES: usize = 256;

/// Kept answers, of each repository those of one version: of published ones, whose numbers never come again.
#[derive(Debug, Default)]
pub(crate) struct Listings(RwLock<Kept>);

#[derive(Debug, Default)]
struct Kept {
    repos: HashMap<RepoId, Listed>,
    bytes: usize,
}

#[derive(Debug)]
struct Listed {
    version: u64,
    rules: Arc<GitRules>,
    answers: Vec<(LsRefs, Bytes)>,
}

impl Listed {
    fn is_of(&self, snapshot: &Snapshot, rules: &Arc<GitRules>) -> bool {
        self.version == snapshot.version().number && Arc::ptr_eq(&self.rules, rules)
    }

    fn bytes(&self) -> usize {
        self.answers.iter().map(|(request, answer)| cost(request, answer)).sum()
    }
}

fn cost(request: &LsRefs, answer: &Bytes) -> usize {
    ENTRY_BYTES + request.kept_bytes() + answer.len()
}

impl Listings {
    /// What was answered to the same request, if nothing has changed since.
    pub(crate) fn find(&self, snapshot: &Snapshot, rules: &Arc<GitRules>, request: &LsRefs) -> Option<Bytes> {
        let kept = self.0.read();
        let listed = kept.repos.get(&snapshot.repo().id()).filter(|listed| listed.is_of(snapshot, rules))?;
        listed.answers.iter().find(|(known, _)| known == request).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer that is not too long.
    pub(crate) fn keep(&self, snapshot: &Snapshot, rules: &Arc<GitRules>, request: &LsRefs, answer: &Bytes) {
        let cost = cost(request, answer);
        if cost > ANSWER_BYTES_MAX {
            return;
        }
        let mut kept = self.0.write();
        let Kept { repos, bytes } = &mut *kept;
        if *bytes + cost > BYTES_MAX {
            repos.clear();
            *bytes = 0;
        }
        let id = snapshot.repo().id();
        if let Some(old) = repos.get(&id)
            && (!old.is_of(snapshot, rules) || old.answers.len() >= PER_REPO_MAX)
        {
            *bytes -= old.bytes();
            repos.remove(&id);
        }
        let version = snapshot.version().number;
        let listed =
            repos.entry(id).or_insert_with(|| Listed { version, rules: Arc::clone(rules), answers: Vec::new() });
        if listed.answers.iter().all(|(known, _)| known != request) {
            *bytes += cost;
            listed.answers.push((request.clone(), answer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use govc_backends::MemoryBackend;
    use govc_engine::{RepoName, RepoSettings, Store, StoreOptions};

    use super::super::pkt::{self, Reader};
    use super::*;

    fn request(prefixes: impl Iterator<Item = String>) -> LsRefs {
        let mut lines = Vec::new();
        for prefix in prefixes {
            pkt::data(&mut lines, format!("ref-prefix {prefix}").as_bytes()).expect("short enough");
        }
        pkt::flush(&mut lines).expect("memory");
        LsRefs::read(&mut Reader::new(&lines[..])).expect("arguments")
    }

    fn prefix(number: usize) -> LsRefs {
        request(std::iter::once(format!("refs/heads/{number}")))
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).expect("a store");
        let listings = Listings::default();
        let long = Bytes::from(vec![b'a'; 900 << 10]);
        let mut repos_max = 0;
        for number in 0..3 * BYTES_MAX / (PER_REPO_MAX * long.len()) {
            let name = RepoName::new(&format!("repo{number}")).expect("a name");
            let snapshot = store.create(&name, RepoSettings::default(), "test").expect("a repository").snapshot();
            let rules = snapshot.repo().git_rules();
            for request in (0..3 * PER_REPO_MAX).map(prefix) {
                // The second time nothing comes to it.
                for _ in 0..2 {
                    listings.keep(&snapshot, &rules, &request, &long);
                    assert_eq!(listings.find(&snapshot, &rules, &request).as_ref(), Some(&long));
                    let kept = listings.0.read();
                    assert!(kept.repos.values().all(|listed| listed.answers.len() <= PER_REPO_MAX));
                    assert_eq!(kept.bytes, kept.repos.values().map(Listed::bytes).sum::<usize>());
                    assert!(kept.bytes <= BYTES_MAX, "{} bytes", kept.bytes);
                    repos_max = repos_max.max(kept.repos.len());
                }
            }
            let too_long = Bytes::from(vec![b'a'; ANSWER_BYTES_MAX]);
            let many = request((0..20_000).map(|number| format!("refs/heads/{number:020}")));
            for (request, answer) in [(prefix(99), &too_long), (many, &Bytes::new())] {
                listings.keep(&snapshot, &rules, &request, answer);
                assert_eq!(listings.find(&snapshot, &rules, &request), None);
            }
        }
        assert!(repos_max > 2, "several repositories have their answers kept");
    }
}
