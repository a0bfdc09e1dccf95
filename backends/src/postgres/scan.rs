//! Scans of one moment: a portal, which sees the snapshot of its beginning, in a read-only transaction, which keeps it.
//!
//! A task on the store's runtime owns the session and reads page after page, one ahead of the caller; the iterator
//! takes them from a channel. Rows are asked for in numbers that fit a page by the size of those before, and a page
//! ends early when its bytes are reached, with the rest of its rows left in the socket: so memory holds a few pages and
//! one value, however large the rows turn out.

use std::pin::pin;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult, Family};
use tokio::sync::{OwnedSemaphorePermit, mpsc as wishes};
use tokio::time::timeout_at;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::failure::Trouble;
use super::patience::Patience;
use super::reader::{column, refused};
use super::session::{Query, Session, Statements};
use super::store::Store;
use crate::span::Span;

/// Bytes after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
/// Rows of the first page: most scans are of a few short rows.
const FIRST_ROWS: usize = 64;
const ROWS_MAX: usize = 8 << 10;
/// Pages on their way at once.
const PAGES_AHEAD: usize = 2;

type Entry = (Bytes, Bytes);

/// Some entries of a scan.
struct Page {
    entries: Vec<Entry>,
    last: bool,
}

/// The caller's end of a scan.
pub(super) struct Walk {
    pages: mpsc::Receiver<BackendResult<Page>>,
    wishes: wishes::UnboundedSender<()>,
    page: std::vec::IntoIter<Entry>,
    ended: bool,
}

/// The walker's end of it.
pub(super) struct Walker {
    store: Arc<Store>,
    family: Family,
    span: Span,
    reverse: bool,
    pages: mpsc::Sender<BackendResult<Page>>,
    wishes: wishes::UnboundedReceiver<()>,
    /// Whether a page was handed out, after which the scan cannot begin again in another moment.
    begun: bool,
    /// The place among the scans, held from the second page on.
    place: Option<OwnedSemaphorePermit>,
}

/// A scan; the walker is to be spawned.
pub(super) fn pair(store: Arc<Store>, family: Family, span: Span, reverse: bool) -> (Walker, Walk) {
    let (pages, received) = mpsc::channel();
    let (wish, wished) = wishes::unbounded_channel();
    for _ in 0..PAGES_AHEAD {
        // The other end is in this function.
        let _ = wish.send(());
    }
    let walker = Walker { store, family, span, reverse, pages, wishes: wished, begun: false, place: None };
    (walker, Walk { pages: received, wishes: wish, page: Vec::new().into_iter(), ended: false })
}

impl Walk {
    /// Waits for the first page, with which the moment of the scan is fixed.
    pub(super) fn begin(mut self) -> BackendResult<Self> {
        self.next_page()?;
        Ok(self)
    }

    fn next_page(&mut self) -> BackendResult<()> {
        let page = self.pages.recv().unwrap_or_else(|_| {
            Err(BackendError::new(BackendErrorKind::Failed, "a scan was broken off: the store is being dropped"))
        });
        match page {
            Ok(page) => {
                self.ended = page.last;
                self.page = page.entries.into_iter();
                // A walker that has ended needs no wish.
                let _ = self.wishes.send(());
                Ok(())
            }
            Err(error) => {
                self.ended = true;
                Err(error)
            }
        }
    }
}

impl Iterator for Walk {
    type Item = BackendResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.next_page() {
                return Some(Err(error));
            }
        }
    }
}

/// Why a walk does not go on.
enum Stop {
    /// Nobody listens any more.
    Dropped,
    Server(tokio_postgres::Error),
    Told(BackendError),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl Walker {
    pub(super) async fn run(mut self) {
        if let Err(error) = self.walk().await {
            // Whoever dropped the scan does not ask.
            let _ = self.pages.send(Err(error));
        }
    }

    async fn walk(&mut self) -> BackendResult<()> {
        let mut patience = Patience::of(self.store.options.outage_max);
        let store = Arc::clone(&self.store);
        loop {
            store.check_open()?;
            let Ok(Ok(reader)) = timeout_at(patience.until(), store.readers.acquire()).await else {
                return Err(store.unavailable("all reading connections were busy"));
            };
            let words = match store.take_reader().await {
                Ok(mut session) => {
                    let mut reader = Some(reader);
                    match self.read(&mut session, &mut || reader = None).await {
                        Ok(()) => {
                            store.give_back(session);
                            return Ok(());
                        }
                        Err(Stop::Dropped) => {
                            // There may be large rows on their way; a new session costs less.
                            session.abandon();
                            return Ok(());
                        }
                        Err(Stop::Told(error)) => {
                            session.abandon();
                            return Err(error);
                        }
                        Err(Stop::Server(error)) => {
                            session.abandon();
                            match Trouble::of(&error) {
                                Trouble::Refused(error) => return Err(refused(&store, &error)),
                                Trouble::Lost(words) | Trouble::Again(words) if self.begun => {
                                    let message =
                                        format!("a scan of the store at {} broke off: {words}", store.place());
                                    return Err(BackendError::new(BackendErrorKind::Unavailable, message));
                                }
                                Trouble::Lost(words) | Trouble::Again(words) => words,
                            }
                        }
                    }
                }
                Err(error) => error.error.message,
            };
            if !patience.pause().await {
                return Err(store.unavailable(&words));
            }
        }
    }

    /// Reads all pages. `leave` gives up the place among the readers.
    async fn read(&mut self, session: &mut Session, leave: &mut (dyn FnMut() + Send)) -> Result<(), Stop> {
        let Session { client, statements, link, .. } = session;
        link.drive(self.read_driven(client, statements, leave)).await
    }

    async fn read_driven(
        &mut self,
        client: &mut Client,
        statements: &Statements,
        leave: &mut (dyn FnMut() + Send),
    ) -> Result<(), Stop> {
        let query = Query::Scan { family: self.family, bounded: self.span.to.is_some(), reverse: self.reverse };
        let statement = statements.get(client, query).await?;
        let transaction = client.build_transaction().read_only(true).start().await?;
        let Span { from, to } = self.span.clone();
        let mut bounds: Vec<&(dyn ToSql + Sync)> = vec![&from];
        bounds.extend(to.iter().map(|to| to as &(dyn ToSql + Sync)));
        let portal = transaction.bind(&statement, &bounds).await?;

        let mut wanted = FIRST_ROWS;
        let mut page = Vec::new();
        let mut page_bytes = 0;
        loop {
            let mut rows =
                pin!(transaction.query_portal_raw(&portal, i32::try_from(wanted).unwrap_or(i32::MAX)).await?);
            let (mut count, mut bytes) = (0, 0);
            while let Some(row) = rows.try_next().await? {
                let told = Stop::Told;
                let entry = (column(&self.store, &row, 0).map_err(told)?, column(&self.store, &row, 1).map_err(told)?);
                if page_bytes >= PAGE_BYTES {
                    self.hand(std::mem::take(&mut page), false, leave).await?;
                    page_bytes = 0;
                }
                count += 1;
                bytes += entry.0.len() + entry.1.len();
                page_bytes += entry.0.len() + entry.1.len();
                page.push(entry);
            }
            if count < wanted {
                break;
            }
            self.hand(std::mem::take(&mut page), false, leave).await?;
            page_bytes = 0;
            wanted = (PAGE_BYTES * count / bytes.max(1)).clamp(1, ROWS_MAX);
        }
        let ended = self.hand(page, true, leave).await;
        transaction.commit().await?;
        ended
    }

    /// Hands a page out when the next one is wanted. Before the second, the place among the readers is given up for
    /// one among the scans.
    async fn hand(&mut self, entries: Vec<Entry>, last: bool, leave: &mut (dyn FnMut() + Send)) -> Result<(), Stop> {
        if self.wishes.recv().await.is_none() {
            return Err(Stop::Dropped);
        }
        if !last && self.place.is_none() {
            let Ok(place) = Arc::clone(&self.store.scans).try_acquire_owned() else {
                let message = format!(
                    "{} scans of the store at {} are open already, which is scans_max",
                    self.store.options.scans_max,
                    self.store.place()
                );
                return Err(Stop::Told(BackendError::new(BackendErrorKind::Failed, message)));
            };
            self.place = Some(place);
            leave();
        }
        self.begun = true;
        self.pages.send(Ok(Page { entries, last })).map_err(|_| Stop::Dropped)
    }
}
