//! Reads of keys and sizes, made again in another session until the server answers.

use std::collections::HashMap;

use bytes::Bytes;
use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult, Family, Usage};
use tokio::time::timeout_at;
use tokio_postgres::Row;

use super::failure::{Trouble, words};
use super::patience::Patience;
use super::session::{Query, Session};
use super::store::Store;

/// What is asked.
enum Question<'a> {
    Get(Family, &'a [u8]),
    GetMany(Family, &'a [&'a [u8]]),
    Sizes,
}

impl Question<'_> {
    async fn ask(&self, session: &Session) -> Result<Vec<Row>, tokio_postgres::Error> {
        session.link.drive(self.ask_driven(session)).await
    }

    async fn ask_driven(&self, session: &Session) -> Result<Vec<Row>, tokio_postgres::Error> {
        match self {
            Question::Get(family, key) => {
                let statement = session.statement(Query::Get(*family)).await?;
                session.client.query(&statement, &[key]).await
            }
            Question::GetMany(family, keys) => {
                let statement = session.statement(Query::GetMany(*family)).await?;
                session.client.query(&statement, &[keys]).await
            }
            Question::Sizes => {
                // With indexes and long values. Those of the store's own tables come last, without a family.
                let names: Vec<&str> =
                    Family::ALL.map(Family::name).into_iter().chain(["version", "lease", "writes"]).collect();
                let sql = "SELECT pg_total_relation_size(name::regclass) FROM unnest($1::text[]) WITH ORDINALITY \
                           AS t (name, position) ORDER BY position";
                session.client.query(sql, &[&names]).await
            }
        }
    }
}

pub(super) async fn get(store: &Store, family: Family, key: &[u8]) -> BackendResult<Option<Bytes>> {
    let rows = answer(store, Question::Get(family, key)).await?;
    rows.first().map(|row| column(store, row, 0)).transpose()
}

pub(super) async fn get_many(store: &Store, family: Family, keys: &[Vec<u8>]) -> BackendResult<Vec<Option<Bytes>>> {
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut found = HashMap::with_capacity(keys.len());
    for row in answer(store, Question::GetMany(family, &asked)).await? {
        found.insert(column(store, &row, 0)?, column(store, &row, 1)?);
    }
    Ok(asked.into_iter().map(|key| found.get(key).cloned()).collect())
}

pub(super) async fn usage(store: &Store) -> BackendResult<Usage> {
    let rows = answer(store, Question::Sizes).await?;
    let mut sizes = Vec::with_capacity(rows.len());
    for row in &rows {
        let size: i64 = row.try_get(0).map_err(|error| unreadable(store, &error))?;
        sizes.push(u64::try_from(size).unwrap_or(0));
    }
    let families = Family::ALL.into_iter().zip(sizes.iter().copied()).collect();
    Ok(Usage { disk_bytes: Some(sizes.iter().sum()), families })
}

/// A `bytea` column, copied out of its row.
pub(super) fn column(store: &Store, row: &Row, at: usize) -> BackendResult<Bytes> {
    row.try_get::<_, &[u8]>(at).map(Bytes::copy_from_slice).map_err(|error| unreadable(store, &error))
}

fn unreadable(store: &Store, error: &tokio_postgres::Error) -> BackendError {
    let message = format!("the store at {} has a column that is not as it was made: {}", store.place(), words(error));
    BackendError::new(BackendErrorKind::Corrupt, message)
}

/// The error of a read that would be refused again.
pub(super) fn refused(store: &Store, error: &BackendError) -> BackendError {
    let kind = match error.kind {
        BackendErrorKind::Corrupt => BackendErrorKind::Corrupt,
        _ => BackendErrorKind::Failed,
    };
    BackendError::new(kind, format!("cannot read the store at {}: {}", store.place(), error.message))
}

async fn answer(store: &Store, question: Question<'_>) -> BackendResult<Vec<Row>> {
    let mut patience = Patience::of(store.options.outage_max);
    loop {
        store.check_open()?;
        let Ok(Ok(_place)) = timeout_at(patience.until(), store.readers.acquire()).await else {
            return Err(store.unavailable("all reading connections were busy"));
        };
        let words = match store.take_reader().await {
            Ok(session) => match question.ask(&session).await {
                Ok(rows) => {
                    store.give_back(session);
                    return Ok(rows);
                }
                Err(error) => match Trouble::of(&error) {
                    Trouble::Lost(words) => {
                        session.abandon();
                        words
                    }
                    Trouble::Again(words) => {
                        store.give_back(session);
                        words
                    }
                    Trouble::Refused(error) => {
                        store.give_back(session);
                        return Err(refused(store, &error));
                    }
                },
            },
            Err(error) => error.error.message,
        };
        drop(_place);
        if !patience.pause().await {
            return Err(store.unavailable(&words));
        }
    }
}
