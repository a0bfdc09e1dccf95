//! Answers as a stream: every result that there is, each as a line of JSON (NDJSON) or a server-sent event.
//!
//! A step of the stream searches a page, on a thread of the work pool, and a client that does not read asks for no further
//! one: it holds no thread. The last line says `end`, with the totals, or `error`; a stream without either was cut off.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use govc_engine::Repo;
use govc_search::{Partial, query::Count};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::problem::{Problem, ProblemDocument},
    diffs::DiffCommitInfo,
    request::{Page, PageOptions, Request, Results, Scope},
    shapes::{AsOfInfo, CommitInfo, FacetsInfo, FileInfo, PartialInfo, took_ms},
};
use crate::app::App;

/// Results that are searched for at once.
const STEP_RESULTS: usize = 100;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Lines,
    Events,
}

/// A line of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Event {
    /// A file that matches.
    File(FileInfo),
    /// A commit that matches.
    Commit(CommitInfo),
    /// A commit whose changes match.
    Diff(DiffCommitInfo),
    /// The last line: there are no more, or `next_cursor` goes on.
    End(EndInfo),
    /// The last line: the search failed.
    Error(ProblemDocument),
}

/// What a search has to say at its end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndInfo {
    /// How many files, or commits, are in the stream.
    count: u64,
    /// How many match, as far as was counted: all of them if `exact`.
    total: u64,
    /// How many matches the files have in their contents; of diffs, how many lines match.
    total_matches: u64,
    exact: bool,
    /// With `count:all`: files by what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    facets: Option<FacetsInfo>,
    as_of: AsOfInfo,
    took_ms: f64,
    /// Why not everything was searched; absent if everything was, or if only `limit` ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Format {
    /// What a client asks for, if it asks for a stream.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        accepted.flat_map(|value| value.split(',')).find_map(|range| match range.split(';').next().map(str::trim) {
            Some("application/x-ndjson" | "application/ndjson") => Some(Self::Lines),
            Some("text/event-stream") => Some(Self::Events),
            _ => None,
        })
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        })
    }

    fn write(self, event: &Event, to: &mut Vec<u8>) {
        let name = match event {
            Event::File(_) => "file",
            Event::Commit(_) => "commit",
            Event::Diff(_) => "diff",
            Event::End(_) => "end",
            Event::Error(_) => "error",
        };
        if self == Self::Events {
            to.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
        }
        let start = to.len();
        if serde_json::to_writer(&mut *to, event).is_err() {
            // Only a broken shape can do that; a line that is no JSON would be worse than one without a word.
            to.truncate(start);
            to.extend_from_slice(b"{\"type\":\"error\"}");
        }
        to.extend_from_slice(if self == Self::Events { b"\n\n" } else { b"\n" });
    }
}

/// A stream of which a part was given.
struct Streaming {
    app: Arc<App>,
    /// The same for all steps, whatever is published, made or deleted meanwhile.
    scope: Arc<Scope>,
    format: Format,
    options: PageOptions,
    begun: Instant,
    /// How many results may still come.
    left: usize,
    count: u64,
    /// What `count:all` counted, on the first page: files or commits, matches, and by what files.
    counted: Option<(u64, u64, Option<FacetsInfo>)>,
    /// What a page left out for good.
    partial: Option<Partial>,
    /// What to search next, and what was found by it, if it was done.
    state: State,
}

enum State {
    Searched(Request, Box<Page>),
    Waiting(Request),
    Done,
}

/// Answers with a stream of at most `options.results_max` results.
///
/// # Errors
/// What is wrong with the first page; what comes later is said in the stream.
pub(super) async fn respond(
    app: Arc<App>,
    repo: Option<Repo>,
    request: Request,
    format: Format,
    options: PageOptions,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let worker = Arc::clone(&app);
    let find_scope = move || {
        let deadline = Some(worker.work.deadline());
        request.scope(&worker, repo, deadline).map(|scope| (request, Arc::new(scope)))
    };
    let (request, scope) = app.work.run_in_turn(find_scope).await??;
    let mut streaming = Streaming {
        app,
        scope,
        format,
        options,
        begun,
        left: options.results_max,
        count: 0,
        counted: None,
        partial: None,
        state: State::Done,
    };
    let (request, page) = streaming.search(request).await?;
    streaming.state = State::Searched(request, Box::new(page));
    let pieces = stream::unfold(streaming, |mut streaming| async move {
        let piece = streaming.step().await?;
        Some((Ok::<_, Infallible>(piece), streaming))
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(CONTENT_TYPE, format.content_type());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Streaming {
    async fn search(&self, request: Request) -> Result<(Request, Page), Problem> {
        let (app, scope) = (Arc::clone(&self.app), Arc::clone(&self.scope));
        let options = PageOptions { results_max: self.left.min(STEP_RESULTS), ..self.options };
        self.app.work.run_in_turn(move || request.page(&app, &scope, options).map(|page| (request, page))).await?
    }

    /// The next piece of the body; `None` at its end.
    async fn step(&mut self) -> Option<Bytes> {
        let (request, page) = match std::mem::replace(&mut self.state, State::Done) {
            State::Done => return None,
            State::Searched(request, page) => (request, *page),
            State::Waiting(request) => match self.search(request).await {
                Ok(searched) => searched,
                Err(problem) => {
                    let mut piece = Vec::new();
                    self.format.write(&Event::Error(problem.document()), &mut piece);
                    return Some(piece.into());
                }
            },
        };
        Some(self.piece(request, page).into())
    }

    /// Writes the results of a page, and what ends the stream if nothing follows.
    fn piece(&mut self, mut request: Request, page: Page) -> Vec<u8> {
        let mut piece = Vec::new();
        let (count, total, total_matches, is_exact, partial) = match page.results {
            Results::Files(found) => {
                if request.query.options.count == Count::All && found.is_exact {
                    let facets = Some(FacetsInfo::from(&found.facets));
                    self.counted = Some((found.total_files, found.total_matches, facets));
                }
                let count = found.files.len();
                for file in found.files {
                    self.format.write(&Event::File(file.into()), &mut piece);
                }
                (count, found.total_files, found.total_matches, found.is_exact, found.partial)
            }
            Results::Commits(found) => {
                if request.query.options.count == Count::All && found.is_exact {
                    self.counted = Some((found.total, 0, None));
                }
                let count = found.commits.len();
                for commit in found.commits {
                    self.format.write(&Event::Commit(commit.into()), &mut piece);
                }
                (count, found.total, 0, found.is_exact, found.partial)
            }
            Results::Diffs(found) => {
                if request.query.options.count == Count::All && found.is_exact {
                    self.counted = Some((found.total, found.total_lines, None));
                }
                let count = found.commits.len();
                for commit in found.commits {
                    self.format.write(&Event::Diff(commit.into()), &mut piece);
                }
                (count, found.total, found.total_lines, found.is_exact, found.partial)
            }
        };
        if request.query.options.count == Count::All {
            // What follows need not count it again.
            request.query.options.count = Count::Page;
        }
        self.left = self.left.saturating_sub(count);
        self.count += count as u64;
        // A page that ends early is gone on from, unless it is one file without some of its lines.
        let is_whole = |partial: &Partial| match partial {
            Partial::Deadline => true,
            Partial::Size => count > 1 && page.next_cursor.is_some(),
            _ => false,
        };
        self.partial = partial.filter(|partial| !is_whole(partial)).or(self.partial);
        let is_stuck = count == 0 && page.next_cursor.is_some() && request.is_at(page.next_cursor.as_deref());
        if let Some(next) = page.next_cursor.as_deref().filter(|_| self.left > 0 && !is_stuck)
            && request.go_on(next).is_ok()
        {
            self.state = State::Waiting(request);
            return piece;
        }
        let (total, total_matches, is_exact, facets) = match self.counted.take() {
            Some((total, matches, facets)) => (total, matches, true, facets),
            None => (total, total_matches, is_exact, None),
        };
        let end = EndInfo {
            count: self.count,
            total,
            total_matches,
            exact: is_exact && self.partial.is_none_or(|partial| partial == Partial::Size),
            facets,
            as_of: self.scope.as_of.clone(),
            took_ms: took_ms(self.begun),
            partial: partial.filter(|_| is_stuck).or(self.partial).map(PartialInfo::from),
            next_cursor: page.next_cursor,
        };
        self.format.write(&Event::End(end), &mut piece);
        piece
    }
}
