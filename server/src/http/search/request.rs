//! What a search asks, of which commits, at which moment: the same for pages, streams and counts.
//!
//! A cursor carries the moment that the first page saw, so that what is published between two pages moves nothing, and
//! what is said relative to now means the same on all of them.

use std::time::Instant;

use govc_engine::{At, Repo, Snapshot};
use govc_search::{
    CommitCursor, CommitOptions, CommitsFound, Corpus, Cursor, DiffCursor, DiffOptions, DiffsFound, FindOptions, Found,
    PLACES_MAX, Place, find, find_commits, find_diffs, places,
    query::{Expr, Options, Query, SearchKind, parse},
};

use super::{
    super::{
        page,
        problem::{Code, Problem, Thing, about},
        time::Moment,
        versions,
    },
    shapes::AsOfInfo,
};
use crate::app::App;

/// A search that was asked for.
pub(super) struct Request {
    pub(super) query: Query,
    /// The moment that was asked for, by itself or by a cursor.
    at: Option<At>,
    /// Where the page begins, as the crate `search` says it.
    cursor: Option<String>,
    /// What relative dates count from.
    now_seconds: i64,
}

/// What is searched, and when.
pub(super) struct Scope {
    pub(super) places: Vec<Place>,
    pub(super) as_of: AsOfInfo,
    pub(super) at: At,
}

/// How a page is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageOptions {
    pub(super) results_max: usize,
    pub(super) lines_max: usize,
    pub(super) context_lines: usize,
    /// Whether it is to say how many candidates there were.
    pub(super) counts_candidates: bool,
}

/// What was found for a page.
pub(super) enum Results {
    Files(Box<Found>),
    Commits(CommitsFound),
    Diffs(Box<DiffsFound>),
}

/// A page, and where the next one begins.
pub(super) struct Page {
    pub(super) results: Results,
    pub(super) next_cursor: Option<String>,
}

impl Request {
    /// Reads a query; a route may be about one kind of things alone.
    pub(super) fn new(
        q: &str,
        cursor: Option<&str>,
        at: Option<&str>,
        kind: Option<SearchKind>,
    ) -> Result<Self, Problem> {
        let seen = cursor.map(Seen::decode).transpose()?;
        let now_seconds = seen.as_ref().map_or_else(|| Moment::now().seconds, |seen| seen.now_seconds);
        let mut query =
            parse(q, now_seconds).map_err(|error| Problem::invalid(format!("the query is not valid: {error}")))?;
        let is_default = query.options.kind == SearchKind::File;
        match kind {
            Some(kind) if is_default || query.options.kind == kind => query.options.kind = kind,
            Some(SearchKind::Commit) if query.options.kind == SearchKind::Diff => {}
            Some(SearchKind::File) | None => {}
            Some(_) => {
                return Err(Problem::invalid(
                    "the query has a type that this route does not search; use /api/v1/search",
                ));
            }
        }
        let (at, cursor) = match seen {
            Some(seen) => (Some(seen.at), Some(seen.cursor)),
            None => (at.map(versions::parse).transpose()?, None),
        };
        Ok(Self { query, at, cursor, now_seconds })
    }

    /// What the default branches have by now.
    pub(super) fn of_everything() -> Self {
        let query = Query { expr: Expr::Const(true), options: Options::default() };
        Self { query, at: None, cursor: None, now_seconds: Moment::now().seconds }
    }

    /// Where the page begins, as the crate `search` says it.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// The cursor to the page of a moment that begins at one of the crate's.
    pub(super) fn cursor_at(&self, at: At, cursor: String) -> String {
        Seen { at, now_seconds: self.now_seconds, cursor }.encode()
    }

    /// What one repository was at the moment that is asked about, and that moment.
    pub(super) fn snapshot(&self, repo: &Repo, deadline: Option<Instant>) -> Result<(Snapshot, At), Problem> {
        let snapshot = match self.at {
            None => repo.snapshot(),
            Some(at) => repo.at(at, deadline).map_err(about(Thing::Version))?,
        };
        let at = At::Version(snapshot.version().number);
        Ok((snapshot, at))
    }

    /// Whether its page begins at `cursor`.
    pub(super) fn is_at(&self, cursor: Option<&str>) -> bool {
        let cursor = cursor.and_then(|cursor| Seen::decode(cursor).ok());
        cursor.map(|seen| seen.cursor) == self.cursor
    }

    /// Goes on behind a page.
    ///
    /// # Errors
    /// Invalid if the cursor is no cursor.
    pub(super) fn go_on(&mut self, cursor: &str) -> Result<(), Problem> {
        let seen = Seen::decode(cursor)?;
        (self.at, self.cursor) = (Some(seen.at), Some(seen.cursor));
        Ok(())
    }

    /// Finds the commits to search: of one repository, or of all.
    pub(super) fn scope(&self, app: &App, repo: Option<Repo>, deadline: Option<Instant>) -> Result<Scope, Problem> {
        let is_one = repo.is_some();
        let repos = repo.map_or_else(|| app.store.list(None, usize::MAX), |repo| vec![repo]);
        // What is published from here on is not in the answer, nor on its further pages.
        let now = Moment::now_millis();
        let (mut searched, mut is_unreadable) = (Vec::new(), false);
        for repo in &repos {
            let snapshot = match self.at {
                None if is_one => Ok(repo.snapshot()),
                None => Ok(repo.snapshot()).and_then(|snapshot| match snapshot.version().time_millis > now {
                    true => repo.at(At::Time(now), deadline),
                    false => Ok(snapshot),
                }),
                Some(at) => repo.at(at, deadline),
            };
            let found = snapshot.map_err(about(Thing::Version)).and_then(|snapshot| {
                let found = places(repo, &snapshot, &self.query.options, is_one, deadline);
                found.map_err(about(Thing::Rev))
            });
            match found {
                Ok(found) => searched.extend(found),
                // Among many, one may be younger than the moment, or damaged.
                Err(problem) if !is_one && problem.code() == Code::VersionNotFound => {}
                Err(problem) if !is_one && problem.code() == Code::Corrupt => is_unreadable = true,
                Err(problem) => return Err(problem),
            }
            if searched.len() > PLACES_MAX {
                let detail = format!("the query names more than {PLACES_MAX} branches (rev:, branch:)");
                return Err(Problem::new(Code::LimitExceeded, detail));
            }
        }
        // Of one repository the version says it best; of many, the time.
        let at = self.at.unwrap_or_else(|| match searched.first() {
            Some(place) if is_one => At::Version(place.snapshot.version().number),
            _ => At::Time(now),
        });
        let time = match (self.at, searched.first()) {
            (Some(At::Time(millis)), _) => millis.min(now),
            (Some(At::Version(_)), Some(place)) => place.snapshot.version().time_millis.min(now),
            _ => now,
        };
        Ok(Scope { as_of: AsOfInfo::new(time, &searched, is_unreadable), places: searched, at })
    }

    /// Searches, on a thread that may block.
    pub(super) fn page(&self, app: &App, scope: &Scope, options: PageOptions) -> Result<Page, Problem> {
        let deadline = Some(app.work.deadline());
        let cursor = self.cursor.as_deref();
        let corpus: &Corpus = &app.search.corpus();
        let (results, next) = match self.query.options.kind {
            SearchKind::Commit => {
                let cursor = cursor.map(CommitCursor::decode).transpose()?;
                let options = CommitOptions { commits_max: options.results_max, cursor, group_by: None, deadline };
                let found = find_commits(&app.search.corpus(), &self.query, &scope.places, &options)?;
                let next = found.next.as_ref().map(CommitCursor::encode);
                (Results::Commits(found), next)
            }
            SearchKind::Diff => {
                let cursor = cursor.map(DiffCursor::decode).transpose()?;
                let (commits_max, lines_max) = (options.results_max, options.lines_max);
                let options = DiffOptions { commits_max, lines_max, cursor, deadline, ..DiffOptions::default() };
                let found = find_diffs(corpus, &self.query, &scope.places, &options)?;
                let next = found.next.as_ref().map(DiffCursor::encode);
                (Results::Diffs(Box::new(found)), next)
            }
            SearchKind::File | SearchKind::Symbol | SearchKind::Path => {
                let found = find(
                    corpus,
                    &self.query,
                    &scope.places,
                    &FindOptions {
                        files_max: options.results_max,
                        lines_max: options.lines_max,
                        context_lines: options.context_lines,
                        cursor: cursor.map(Cursor::decode).transpose()?,
                        deadline,
                        counts_candidates: options.counts_candidates,
                        ..FindOptions::default()
                    },
                )?;
                let next = found.next.as_ref().map(Cursor::encode);
                (Results::Files(Box::new(found)), next)
            }
        };
        let next_cursor = next.map(|cursor| self.cursor_at(scope.at, cursor));
        Ok(Page { results, next_cursor })
    }
}

/// What a cursor carries beside the search's own: the moment that is searched.
struct Seen {
    at: At,
    now_seconds: i64,
    cursor: String,
}

impl Seen {
    fn encode(&self) -> String {
        let (kind, number) = match self.at {
            At::Version(number) => ('v', i128::from(number)),
            At::Time(millis) => ('t', i128::from(millis)),
        };
        format!("{kind}{number}.{}.{}", self.now_seconds, self.cursor)
    }

    fn decode(text: &str) -> Result<Self, Problem> {
        let (at, rest) = text.split_once('.').ok_or_else(page::malformed)?;
        let (now_seconds, cursor) = rest.split_once('.').ok_or_else(page::malformed)?;
        let at = match (at.strip_prefix('v'), at.strip_prefix('t')) {
            (Some(number), _) => number.parse().ok().map(At::Version),
            (_, Some(millis)) => millis.parse().ok().map(At::Time),
            _ => None,
        };
        let now_seconds = now_seconds.parse().map_err(|_| page::malformed())?;
        Ok(Self { at: at.ok_or_else(page::malformed)?, now_seconds, cursor: cursor.to_owned() })
    }
}
