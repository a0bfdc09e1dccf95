//! Large contents on their way out, whole or in part, to who may resume: validators, ranges, and bytes that are read a
//! chunk at a time. Whatever the size, a download holds about two chunks of memory, within the budget for what clients
//! hold, and a thread only while a chunk is read.

use std::{io, sync::Arc};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, Method,
        header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;

use super::{
    answer,
    body::{self, Held},
    conditional::{self, ETag},
    problem::{Code, Problem},
    range::Wanted,
};
use crate::{app::App, pauses::Pauses};

/// Bytes read at once, at most.
const CHUNK_BYTES: usize = 1 << 20;
/// In which pieces they are handed to a connection.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes that a working thread can read anywhere.
pub(crate) trait Readable: Send + Sync + 'static {
    /// Some of the bytes from `at` on, which is within them: one at least, `len` at most.
    ///
    /// # Errors
    /// What the client is told, or the log if its answer has begun.
    fn read(&self, at: u64, len: usize) -> Result<Bytes, Problem>;
}

/// A content that a client may have.
pub(crate) struct Download<R> {
    pub(crate) bytes: R,
    /// How many there are.
    pub(crate) size: u64,
    pub(crate) etag: ETag,
    pub(crate) content_type: &'static str,
}

impl<R: Readable> Download<R> {
    /// The answer to a GET or HEAD with these headers.
    ///
    /// # Errors
    /// For ranges that are not there, and when the first bytes cannot be read.
    pub(crate) async fn answer(
        self,
        app: &Arc<App>,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let Self { bytes, size, etag, content_type } = self;
        if let Some(response) = conditional::not_modified(headers, &etag) {
            return Ok(response);
        }
        let size = usize::try_from(size).map_err(|_| Problem::new(Code::Internal, "the content is too large"))?;
        let range = headers.get(RANGE).filter(|_| conditional::range_applies(headers, &etag));
        let range = range.and_then(|range| range.to_str().ok());
        let wanted = range.map_or(Wanted::Whole, |range| Wanted::read(range, size));
        let part = match &wanted {
            Wanted::Whole => 0..size,
            Wanted::Part(part) => part.clone(),
            Wanted::Unsatisfiable => return Err(Problem::unsatisfiable_range(size as u64)),
        };
        let length = part.len();
        let body = if *method == Method::HEAD || part.is_empty() {
            Body::empty()
        } else {
            let (at, end) = (part.start as u64, part.end as u64);
            let reading = Reading { bytes: Arc::new(bytes), at, end, chunk: Bytes::new() };
            body::sized(reading.pieces(app).await?, length as u64)
        };
        let mut response = if wanted == Wanted::Whole { body.into_response() } else { answer::partial(body) };
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Wanted::Part(part) = wanted
            && let Ok(value) =
                HeaderValue::from_str(&format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1)))
        {
            headers.insert(CONTENT_RANGE, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(answer::tagged(response, &etag))
    }
}

/// A content that is being sent.
struct Reading<R> {
    bytes: Arc<R>,
    /// Which bytes are still to be sent.
    at: u64,
    end: u64,
    /// What of them is at hand.
    chunk: Bytes,
}

impl<R: Readable> Reading<R> {
    async fn pieces(mut self, app: &Arc<App>) -> Result<Body, Problem> {
        let held = app.bodies.hold(self.end.saturating_sub(self.at).min(CHUNK_BYTES as u64)).await?;
        // Before the answer begins: what cannot be read has a status then.
        self.fill(app).await?;
        let state = (Arc::clone(app), self, held);
        let pieces = stream::unfold(Some(state), |state| async move {
            let (app, mut reading, held): (Arc<App>, Self, Held) = state?;
            match reading.piece(&app).await {
                Ok(Some(piece)) => Some((Ok(piece), Some((app, reading, held)))),
                Ok(None) => None,
                Err(problem) => {
                    let (code, detail) = (problem.code().as_str(), problem.detail());
                    tracing::warn!(code, detail, "a download was broken off");
                    Some((Err(io::Error::other("the content cannot be read on")), None))
                }
            }
        });
        Ok(app.bodies.made(pieces))
    }

    /// The next bytes; `None` at the end.
    async fn piece(&mut self, app: &App) -> Result<Option<Bytes>, Problem> {
        if self.at == self.end {
            return Ok(None);
        }
        self.fill(app).await?;
        // A copy: a slice would keep the whole chunk for as long as the connection keeps the slice.
        let piece = self.chunk.split_to(self.chunk.len().min(PIECE_BYTES));
        self.at = self.at.saturating_add(piece.len() as u64);
        Ok(Some(Bytes::copy_from_slice(&piece)))
    }

    async fn fill(&mut self, app: &App) -> Result<(), Problem> {
        if !self.chunk.is_empty() {
            return Ok(());
        }
        let len = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut pauses = Pauses::new(app);
        self.chunk = loop {
            let (bytes, at) = (Arc::clone(&self.bytes), self.at);
            match app.work.run(move || bytes.read(at, len)).await {
                Err(error) => pauses.after(error).await?,
                Ok(read) => break read?,
            }
        };
        // An end that never comes would be waited for.
        if self.chunk.is_empty() || self.chunk.len() > len {
            return Err(Problem::new(Code::Internal, "a content was read in part"));
        }
        Ok(())
    }
}
