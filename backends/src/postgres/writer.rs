//! Writing a batch once, whatever happens to the connection meanwhile.
//!
//! A batch of one call is one statement, which is a transaction by itself: one exchange, and nothing of it can be
//! committed without the rest. A larger one is BEGIN, its calls, COMMIT.
//!
//! When the connection breaks while a statement that commits is under way, its outcome is not known here, and the old
//! session may even be about to run it. So the same call is made again, with the same number, in a new session: the
//! function `write` finds the number (done before), waits for the old session (same row, same lock), or does it now,
//! after which the old call, should it still arrive, finds the number taken. A refusal of such a second attempt is
//! believed only after the number was taken by an empty call.

use futures_util::stream::{FuturesOrdered, StreamExt};
use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult, Batch, Op, Precondition, Sync};
use tokio::time::timeout_at;
use tokio_postgres::error::Severity;
use tokio_postgres::types::ToSql;

use super::changes::{Call, Changes};
use super::failure::{self, Trouble};
use super::patience::Patience;
use super::schema::answer;
use super::session::{Query, Session};
use super::store::{LOST, Slot, Store};
use crate::memory::precondition_failed;

/// A value is in one message of the protocol, which PostgreSQL bounds by 1 GiB, several times in the server's memory.
const VALUE_BYTES_MAX: usize = 512 << 20;
/// A key must fit three times into a page of its index: PostgreSQL's bound is 2704 bytes, of which some are its own.
const KEY_BYTES_MAX: usize = 2600;
/// Calls of one batch on their way at once, so that the server has work while the next is encoded.
const CALLS_AHEAD: usize = 2;

/// Writes a batch, in a slot of its own.
pub(super) async fn write(store: &Store, batch: &Batch, sync: Sync) -> BackendResult<()> {
    check_sizes(batch)?;
    let changes = Changes::of(batch);
    let mut patience = Patience::of(store.options.outage_max);
    let Ok(Ok(_place)) = timeout_at(patience.until(), store.writers.acquire()).await else {
        return Err(store.unavailable("all writing connections were busy"));
    };
    // There are as many slots as places.
    let Some(mut slot) = store.take_slot() else { return Err(store.unavailable("no writing connection is left")) };
    let unfinished = Unfinished(store);
    let result = Attempts::new(store, &mut slot, sync).run(&mut patience, &changes, &batch.preconditions).await;
    std::mem::forget(unfinished);
    store.give_slot_back(slot);
    result
}

/// A write under way. One that is broken off, by a panic, takes the store with it: nobody knows what became of it.
struct Unfinished<'a>(&'a Store);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.fail("a write was broken off");
    }
}

/// Waits for all writes, makes them durable, and lets none follow.
pub(super) async fn close(store: &Store) -> BackendResult<()> {
    let all = u32::try_from(store.options.writers()).unwrap_or(u32::MAX);
    let Ok(_places) = store.writers.acquire_many(all).await else { return Ok(()) };
    let mut slots: Vec<Slot> = std::iter::from_fn(|| store.take_slot()).collect();
    let synced = match slots.first_mut() {
        Some(slot) => {
            let mut patience = Patience::of(store.options.outage_max);
            Attempts::new(store, slot, Sync::Yes).run(&mut patience, &Changes::none(), &[]).await
        }
        None => Ok(()),
    };
    store.set_closed();
    for mut slot in slots {
        slot.session = None;
        store.give_slot_back(slot);
    }
    synced
}

fn check_sizes(batch: &Batch) -> BackendResult<()> {
    for op in &batch.ops {
        let (key, value) = match op {
            Op::Put { key, value, .. } => (key.len(), value.len()),
            // What is longer than any key can be compared all the same.
            Op::Delete { .. } | Op::DeleteRange { .. } => continue,
        };
        if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
            let message = format!(
                "a key of {key} bytes with a value of {value} is more than the PostgreSQL backend takes \
                 ({KEY_BYTES_MAX} and {VALUE_BYTES_MAX}); nothing was written"
            );
            return Err(BackendError::new(BackendErrorKind::Failed, message));
        }
    }
    Ok(())
}

/// The end of one attempt.
enum End {
    /// What `write` answered.
    Answer(i64),
    /// The session lives, and nothing was written.
    Trouble(Trouble),
    /// The session is gone. If `open`, the batch may have been committed, or may still be.
    Lost { words: String, open: bool },
}

impl End {
    /// The end by an error of a statement after which a session that breaks leaves the outcome open, or not.
    fn of(error: &tokio_postgres::Error, open: bool) -> Self {
        match Trouble::of(error) {
            // An answer of severity ERROR says that nothing was committed, though the session is of no more use.
            Trouble::Lost(words) => Self::Lost { words, open: open && !is_refusal(error) },
            trouble => Self::Trouble(trouble),
        }
    }
}

/// Whether the server answered that the statement failed and its transaction is rolled back.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

/// What the server says about a write.
enum Said {
    Done,
    Fenced,
    Refused(Refusal),
}

enum Refusal {
    /// The precondition of this position does not hold.
    Precondition(usize),
    Error(BackendError),
}

/// The attempts to make one write in one slot.
struct Attempts<'a> {
    store: &'a Store,
    slot: &'a mut Slot,
    sync: Sync,
    /// Whether an earlier attempt may have been committed, or may still be.
    open: bool,
}

impl<'a> Attempts<'a> {
    fn new(store: &'a Store, slot: &'a mut Slot, sync: Sync) -> Self {
        Self { store, slot, sync, open: false }
    }

    async fn run(
        mut self,
        patience: &mut Patience,
        changes: &Changes<'_>,
        preconditions: &[Precondition],
    ) -> BackendResult<()> {
        let seq = self.slot.seq + 1;
        let refusal = match self.until_said(patience, changes, seq).await? {
            Said::Done => {
                self.slot.seq = seq;
                self.acknowledge(seq);
                return Ok(());
            }
            Said::Fenced => return Err(self.store.fence()),
            Said::Refused(Refusal::Error(error)) => error,
            Said::Refused(Refusal::Precondition(at)) => match preconditions.get(at) {
                Some(Precondition::Absent { family, key } | Precondition::Value { family, key, .. }) => {
                    precondition_failed(at, *family, key)
                }
                None => self.store.fail("the server answered with a precondition that was not asked"),
            },
        };
        if self.open { self.settle(patience, seq, refusal).await } else { Err(refusal) }
    }

    /// A later attempt was refused, and an earlier one is open. Takes the next number, so that the earlier one can
    /// not come any more, and looks whether it had come.
    async fn settle(mut self, patience: &mut Patience, seq: i64, refusal: BackendError) -> BackendResult<()> {
        let unknown = format!("it is not known whether a write was done ({})", refusal.message);
        let fenced = match self.until_said(patience, &Changes::none(), seq + 1).await? {
            Said::Done => false,
            Said::Fenced => true,
            Said::Refused(_) => return Err(self.store.fail(&unknown)),
        };
        self.slot.seq = seq + 1;
        loop {
            match self.last_numbers().await {
                Ok(numbers) if numbers.contains(&seq) => {
                    self.acknowledge(seq);
                    return Ok(());
                }
                Ok(_) if fenced => return Err(self.store.fence()),
                Ok(_) => return Err(refusal),
                Err(_) if patience.pause().await => {}
                Err(words) => return Err(self.store.fail(&format!("{unknown}: {words}"))),
            }
        }
    }

    fn acknowledge(&mut self, seq: i64) {
        self.slot.solid = seq;
        self.store.acknowledge(self.slot);
    }

    /// Makes the same attempt until there is an answer to it.
    async fn until_said(&mut self, patience: &mut Patience, changes: &Changes<'_>, seq: i64) -> BackendResult<Said> {
        loop {
            self.check()?;
            let words = match self.attempt(changes, seq).await {
                End::Answer(answer::WRITTEN | answer::BEFORE) => return Ok(Said::Done),
                End::Answer(answer::FENCED) => return Ok(Said::Fenced),
                End::Answer(answer::LOST) => return Err(self.store.fail(LOST)),
                End::Answer(position) => {
                    let at = usize::try_from(position - 1).unwrap_or(usize::MAX);
                    return Ok(Said::Refused(Refusal::Precondition(at)));
                }
                End::Trouble(Trouble::Refused(error)) => {
                    let message = format!("cannot write the store at {}: {}", self.store.place(), error.message);
                    return Ok(Said::Refused(Refusal::Error(BackendError::new(error.kind, message))));
                }
                End::Trouble(Trouble::Again(words) | Trouble::Lost(words)) => words,
                End::Lost { words, open } => {
                    self.open |= open;
                    if let Some(session) = self.slot.session.take() {
                        session.abandon();
                    }
                    words
                }
            };
            if !patience.pause().await {
                return Err(self.give_up(&words));
            }
        }
    }

    /// Whether another attempt makes sense. One that is open is found out, whatever became of the handle.
    fn check(&self) -> BackendResult<()> {
        match self.store.verdict() {
            Some(verdict) if !self.open || verdict.kind != BackendErrorKind::Fenced => Err(verdict.clone()),
            _ if self.open => Ok(()),
            _ => self.store.check_open(),
        }
    }

    fn give_up(&self, words: &str) -> BackendError {
        if !self.open {
            return self.store.unavailable(words);
        }
        self.store.fail(&format!(
            "the connection broke while a write was being committed, and for {:?} the server could not be asked whether \
             it was: {words}",
            self.store.options.outage_max
        ))
    }

    /// The session of the slot, opened if it must be.
    async fn session(&mut self) -> Result<&Session, String> {
        let session = match self.slot.session.take().filter(Session::is_open) {
            Some(session) => session,
            None => {
                let role = format!("writer {}", self.slot.number);
                self.store.connect(&role).await.map_err(|error| error.error.message)?
            }
        };
        Ok(self.slot.session.insert(session))
    }

    async fn attempt(&mut self, changes: &Changes<'_>, seq: i64) -> End {
        let head = Head {
            lock_key: self.store.lock_key,
            alone: changes.alone,
            relaxed: self.sync == Sync::No,
            epoch: self.store.epoch,
            slot: self.slot.number,
            solid: self.slot.solid,
            seq: Some(seq),
        };
        let (store, open) = (self.store, self.open);
        let session = match self.session().await {
            Ok(session) => session,
            Err(words) => return End::Lost { words, open: false },
        };
        // Opening a session looks whether acknowledged writes are gone. Whoever asks next tells it.
        if store.verdict().is_some() && !open {
            return End::Lost { words: "the store is given up".to_owned(), open: false };
        }
        let end = match &changes.calls[..] {
            [call] => session.link.drive(head.send(session, call, true)).await,
            calls => session.link.drive(head.send_all(session, calls)).await,
        };
        end.unwrap_or_else(|end| end)
    }

    /// The last two numbers of the slot.
    async fn last_numbers(&mut self) -> Result<[i64; 2], String> {
        let (epoch, number) = (self.store.epoch, self.slot.number);
        let session = self.session().await?;
        let sql = "SELECT seq, previous FROM writes WHERE epoch = $1 AND slot = $2";
        let asked = session.link.drive(session.client.query_one(sql, &[&epoch, &number])).await;
        let row = asked.map_err(|error| failure::words(&error))?;
        let number = |at: usize| row.try_get(at).map_err(|error| failure::words(&error));
        Ok([number(0)?, number(1)?])
    }
}

/// The parameters of `write` that say who writes, and how.
#[derive(Clone, Copy)]
struct Head {
    lock_key: i64,
    alone: bool,
    relaxed: bool,
    epoch: i64,
    slot: i32,
    solid: i64,
    /// Absent in the later calls of a batch.
    seq: Option<i64>,
}

impl Head {
    /// Makes one call. `commits` says whether it is a transaction by itself, so that a session that breaks meanwhile
    /// leaves the outcome open.
    async fn send(&self, session: &Session, call: &Call<'_>, commits: bool) -> Result<End, End> {
        let statement = session.statement(Query::Write).await.map_err(|error| End::of(&error, false))?;
        let mut parameters: Vec<&(dyn ToSql + std::marker::Sync)> =
            vec![&self.lock_key, &self.alone, &self.relaxed, &self.epoch, &self.slot, &self.solid, &self.seq];
        call.push_parameters(&mut parameters);
        // All rows are asked for: the answer counts only once the server is ready again, which is after the commit.
        let rows = session.client.query(&statement, &parameters).await.map_err(|error| End::of(&error, commits))?;
        let answer = rows.first().map(|row| row.try_get(0));
        match answer {
            Some(Ok(answer)) => Ok(End::Answer(answer)),
            _ => Err(End::Lost { words: "the server gave no answer to a write".to_owned(), open: commits }),
        }
    }

    /// Makes the calls of a large batch in one transaction. BEGIN has its answer before anything else is sent: were it
    /// refused, the calls would be committed one by one.
    async fn send_all(&self, session: &Session, calls: &[Call<'_>]) -> Result<End, End> {
        let [first, later @ ..] = calls else { return Ok(End::Answer(answer::WRITTEN)) };
        session.client.batch_execute("BEGIN").await.map_err(|error| End::of(&error, false))?;
        let rest = async {
            match self.send(session, first, false).await? {
                End::Answer(answer::WRITTEN) => {}
                end => return Ok(end),
            }
            let head = Head { seq: None, ..*self };
            let mut ahead = FuturesOrdered::new();
            for call in later {
                if ahead.len() == CALLS_AHEAD
                    && let Some(end) = ahead.next().await
                {
                    end?;
                }
                ahead.push_back(head.send(session, call, false));
            }
            while let Some(end) = ahead.next().await {
                end?;
            }
            session.client.batch_execute("COMMIT").await.map_err(|error| End::of(&error, true))?;
            Ok(End::Answer(answer::WRITTEN))
        };
        let end: Result<End, End> = rest.await;
        if !matches!(end, Ok(End::Answer(answer::WRITTEN)) | Err(End::Lost { .. }) | Ok(End::Lost { .. })) {
            session.client.batch_execute("ROLLBACK").await.map_err(|error| End::of(&error, false))?;
        }
        end
    }
}
