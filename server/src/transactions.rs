//! Open transactions: what callers have staged and not committed, in this process's memory and nowhere else.
//!
//! Each ends by its commit, its rollback, or a while after it was last used. All of them together may hold so many
//! bytes; nobody's abandoned work keeps memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use govc_engine::{RepoId, Staging};

/// How open transactions are bounded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionOptions {
    /// How many there may be.
    pub(crate) open_max: usize,
    /// Bytes that all of them may hold.
    pub(crate) bytes_max: usize,
    /// How long one lives that is not used.
    pub(crate) idle: Duration,
}

/// All open transactions.
pub(crate) struct Transactions {
    options: TransactionOptions,
    open: Mutex<Open>,
    keys: [RandomState; 2],
    made: AtomicU64,
}

#[derive(Default)]
struct Open {
    by_id: HashMap<TransactionId, Arc<OpenTransaction>>,
    /// Bytes of all of them. Kept by those who change one, under its lock, and by those who end one.
    bytes: usize,
}

/// A transaction's id: nobody guesses another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TransactionId(u128);

/// One open transaction.
pub(crate) struct OpenTransaction {
    pub(crate) id: TransactionId,
    repo: RepoId,
    state: Mutex<State>,
}

struct State {
    /// `None` once it has ended, and then for ever.
    staging: Option<Staging>,
    used: Instant,
    /// What it counts for in the sum.
    counted: usize,
}

/// Why there is no such transaction, or no more of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TransactionError {
    /// It never was.
    Unknown,
    /// It has ended.
    Gone,
    /// There are as many as there may be.
    TooMany(usize),
    /// They hold as many bytes as they may.
    TooLarge(usize),
}

impl TransactionId {
    /// Reads what [`TransactionId`] is written as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("tx_").filter(|hex| hex.len() == 32)?;
        let is_lower_hex = hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_lower_hex.then(|| u128::from_str_radix(hex, 16).ok().map(Self))?
    }
}

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tx_{:032x}", self.0)
    }
}

impl Transactions {
    pub(crate) fn new(options: TransactionOptions) -> Self {
        let keys = [RandomState::new(), RandomState::new()];
        Self { options, open: Mutex::default(), keys, made: AtomicU64::new(0) }
    }

    /// Keeps what a caller begins to stage.
    pub(crate) fn begin(&self, staging: Staging) -> Result<Arc<OpenTransaction>, TransactionError> {
        self.remove_idle();
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|key| u128::from(key.hash_one(number)));
        let id = TransactionId(high << 64 | low);
        let repo = staging.repo().id();
        let state = State { staging: Some(staging), used: Instant::now(), counted: 0 };
        let transaction = Arc::new(OpenTransaction { id, repo, state: Mutex::new(state) });
        let mut open = lock(&self.open);
        if open.by_id.len() >= self.options.open_max {
            return Err(TransactionError::TooMany(self.options.open_max));
        }
        open.by_id.insert(id, transaction.clone());
        Ok(transaction)
    }

    /// The transaction that a path names in a repository.
    pub(crate) fn find(&self, text: &str, repo: RepoId) -> Result<Arc<OpenTransaction>, TransactionError> {
        let id = TransactionId::parse(text).ok_or(TransactionError::Unknown)?;
        // One that has the form of an id was given once, perhaps before the server was started again.
        let found = lock(&self.open).by_id.get(&id).cloned().ok_or(TransactionError::Gone)?;
        if found.repo != repo {
            return Err(TransactionError::Gone);
        }
        let is_idle = lock(&found.state).used.elapsed() >= self.options.idle;
        if is_idle {
            self.end(&found);
            return Err(TransactionError::Gone);
        }
        Ok(found)
    }

    /// Uses what is staged; nobody else does meanwhile. What it grows by counts against the bytes of all, and if those do
    /// not suffice it is as before.
    pub(crate) fn with<T, E: From<TransactionError>>(
        &self,
        transaction: &OpenTransaction,
        work: impl FnOnce(&mut Staging) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = lock(&transaction.state);
        let State { staging, used, counted } = &mut *state;
        let staging = staging.as_mut().ok_or(TransactionError::Gone)?;
        let before = staging.changes().len();
        let outcome = work(staging).and_then(|outcome| {
            let bytes = staging.bytes();
            let mut open = lock(&self.open);
            let others = open.bytes - *counted;
            if bytes > *counted && others + bytes > self.options.bytes_max {
                return Err(TransactionError::TooLarge(self.options.bytes_max).into());
            }
            open.bytes = others + bytes;
            *counted = bytes;
            Ok(outcome)
        });
        match &outcome {
            Ok(_) => *used = Instant::now(),
            Err(_) => staging.truncate(before),
        }
        outcome
    }

    /// Does with what is staged what ends the transaction, unless it fails: then it stays open.
    pub(crate) fn finish<T, E: From<TransactionError>>(
        &self,
        transaction: &OpenTransaction,
        work: impl FnOnce(&Staging) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut state = lock(&transaction.state);
        let outcome = work(state.staging.as_ref().ok_or(TransactionError::Gone)?)?;
        self.forget(transaction, &mut state);
        Ok(outcome)
    }

    /// Ends a transaction; whether it was this call that did.
    pub(crate) fn end(&self, transaction: &OpenTransaction) -> bool {
        let mut state = lock(&transaction.state);
        let was_open = state.staging.is_some();
        self.forget(transaction, &mut state);
        was_open
    }

    fn forget(&self, transaction: &OpenTransaction, state: &mut State) {
        state.staging = None;
        let counted = std::mem::take(&mut state.counted);
        let mut open = lock(&self.open);
        open.by_id.remove(&transaction.id);
        open.bytes -= counted;
    }

    /// Ends those that nobody has used for long.
    pub(crate) fn remove_idle(&self) {
        let all: Vec<_> = lock(&self.open).by_id.values().cloned().collect();
        for transaction in all {
            // One that is in use is not idle.
            let is_idle = transaction.state.try_lock().is_ok_and(|state| state.used.elapsed() >= self.options.idle);
            if is_idle {
                self.end(&transaction);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.open).by_id.len()
    }

    /// How long one lives that is not used.
    pub(crate) fn idle(&self) -> Duration {
        self.options.idle
    }
}

/// What a panic left behind is whole but for changes that were staged and are not counted.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use govc_backends::MemoryBackend;
    use govc_engine::{Content, RefName, Repo, RepoName, RepoSettings, Store, StoreOptions};

    use super::{TransactionError, TransactionId, TransactionOptions, Transactions};

    fn repo() -> Repo {
        let store = Store::open(Arc::new(MemoryBackend::new()), StoreOptions::default()).expect("a store");
        store.create(&RepoName::new("a").expect("a name"), RepoSettings::default(), "test").expect("a repository")
    }

    fn transactions(open_max: usize, bytes_max: usize, idle: Duration) -> Transactions {
        Transactions::new(TransactionOptions { open_max, bytes_max, idle })
    }

    fn staging(repo: &Repo) -> govc_engine::Staging {
        repo.stage(RefName::branch("main").expect("a name")).expect("staging")
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        for id in [TransactionId(0), TransactionId(u128::MAX), TransactionId(1 << 100)] {
            assert_eq!(TransactionId::parse(&id.to_string()), Some(id));
        }
        for text in
            ["", "tx_", "tx_0", &"0".repeat(35), &format!("tx_{}", "G".repeat(32)), &format!("tx_+{}", "0".repeat(31))]
        {
            assert_eq!(TransactionId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_and_numbers_are_bounded_and_given_back() {
        let repo = repo();
        let all = transactions(2, 10_000, Duration::from_secs(60));
        let (a, b) = (all.begin(staging(&repo)).expect("one"), all.begin(staging(&repo)).expect("two"));
        assert_eq!(all.begin(staging(&repo)).err(), Some(TransactionError::TooMany(2)));
        let add = |to: &super::OpenTransaction, bytes: usize| {
            all.with(to, |staging| {
                staging.add("f", Content::Bytes(vec![0; bytes].into()), None).map_err(|_| TransactionError::Unknown)
            })
        };
        assert_eq!(add(&a, 6000), Ok(()));
        assert_eq!(add(&b, 6000), Err(TransactionError::TooLarge(10_000)));
        assert_eq!(add(&b, 2000), Ok(()));
        assert!(all.end(&a) && !all.end(&a));
        assert_eq!(add(&a, 1), Err(TransactionError::Gone));
        assert_eq!(add(&b, 6000), Ok(()), "what has ended holds nothing");
        all.with(&b, |staging| {
            assert_eq!(staging.changes().len(), 2, "what did not fit is not there");
            Ok::<_, TransactionError>(())
        })
        .expect("it is open");
        assert!(all.end(&b));
        assert_eq!((all.len(), super::lock(&all.open).bytes), (0, 0));
    }

    #[test]
    fn idle_ones_end() {
        let repo = repo();
        let all = transactions(1, 1000, Duration::ZERO);
        let a = all.begin(staging(&repo)).expect("one");
        assert_eq!(all.find(&a.id.to_string(), repo.id()).err(), Some(TransactionError::Gone));
        let b = all.begin(staging(&repo)).expect("the place of the first");
        all.remove_idle();
        assert_eq!((all.len(), all.end(&b)), (0, false));
        assert_eq!(all.find("tx_1", repo.id()).err(), Some(TransactionError::Unknown));
    }
}
