//! `Idempotency-Key`: a write that is sent twice is done once.
//!
//! The first request of a key runs to its end even if its client goes away; a repetition with the same body gets
//! the same answer with `Idempotency-Replayed: true`, one that comes while the first still runs gets 409, one with
//! another body 422. Only successes are remembered: what was refused changed nothing and may be tried again.
//!
//! Answers are kept for 24 hours in the memory of this process, within bounds, oldest out first: they do not
//! survive a restart, and are not shared between servers. A client that must be sure across a restart states an
//! expected head (or an absent one) instead, which is checked against the durable state.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CONTENT_TYPE, ETAG, LOCATION},
    },
    response::{IntoResponse, Response},
};
use futures_util::future::{BoxFuture, Either};
use govc_engine::{Kind, ObjectFormat, Oid, hash_object};
use parking_lot::Mutex;
use tower::{Layer, Service};

use super::{
    body::Bodies,
    problem::{Code, Problem},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Longest accepted key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How much memory all answers may take, in bytes.
const ANSWERS_BYTES_MAX: usize = 32 << 20;
/// The largest answer that is kept, in bytes. That a larger one was given is remembered, but not what it said.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What an answer takes beside its body, in bytes, roughly.
const ANSWER_OVERHEAD_BYTES: usize = 512;

/// A finished answer.
#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if it was too large to keep.
    body: Option<Bytes>,
}

#[derive(Debug)]
enum Entry {
    Running { body: Oid },
    Finished { body: Oid, answer: Answer },
}

/// All requests with a key, by the hash of method, path and key.
///
/// `finished` holds each finished entry once, oldest first; running ones are as many as there are requests.
#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Oid, Entry>,
    finished: VecDeque<(Instant, Oid)>,
    bytes: usize,
}

/// The memory of answers.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Entries>);

/// What to do with a request.
enum Decision {
    Run(Turn),
    Replay(Answer),
    Refuse(Problem),
}

/// The right to run the request of a key; dropped unfinished, the key is free again.
struct Turn {
    remembered: Arc<Remembered>,
    key: Oid,
}

impl Remembered {
    fn decide(self: &Arc<Self>, key: Oid, body: Oid, now: Instant) -> Decision {
        let mut entries = self.0.lock();
        entries.forget_old(now);
        match entries.by_key.get(&key) {
            Some(Entry::Running { body: first } | Entry::Finished { body: first, .. }) if *first != body => {
                let detail = "this idempotency key was used for a request with another body";
                Decision::Refuse(Problem::new(Code::IdempotencyKeyReused, detail))
            }
            Some(Entry::Running { .. }) => {
                let detail = "a request with this idempotency key is still running";
                Decision::Refuse(Problem::new(Code::IdempotencyKeyInUse, detail))
            }
            Some(Entry::Finished { answer, .. }) => Decision::Replay(answer.clone()),
            None => {
                entries.by_key.insert(key, Entry::Running { body });
                Decision::Run(Turn { remembered: self.clone(), key })
            }
        }
    }
}

impl Turn {
    fn finish(self, answer: Answer, now: Instant) {
        let mut entries = self.remembered.0.lock();
        if let Some(Entry::Running { body }) = entries.by_key.remove(&self.key) {
            entries.bytes = entries.bytes.saturating_add(answer.weight_bytes());
            entries.by_key.insert(self.key, Entry::Finished { body, answer });
            entries.finished.push_back((now, self.key));
            entries.forget_old(now);
        }
        // `self` is dropped after the lock, and finds that there is nothing to free.
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut entries = self.remembered.0.lock();
        if matches!(entries.by_key.get(&self.key), Some(Entry::Running { .. })) {
            entries.by_key.remove(&self.key);
        }
    }
}

impl Entries {
    fn forget_old(&mut self, now: Instant) {
        while let Some((since, key)) = self.finished.front().copied() {
            if now.saturating_duration_since(since) < KEPT_FOR && self.bytes <= ANSWERS_BYTES_MAX {
                break;
            }
            self.finished.pop_front();
            if let Some(Entry::Finished { answer, .. }) = self.by_key.remove(&key) {
                self.bytes = self.bytes.saturating_sub(answer.weight_bytes());
            }
        }
    }
}

impl Answer {
    fn weight_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len) + ANSWER_OVERHEAD_BYTES
    }

    fn replay(self) -> Response {
        let Some(body) = self.body else {
            let detail = "the request was carried out; its answer was too large to be repeated";
            return Problem::new(Code::IdempotencyAnswerLost, detail).into_response();
        };
        let mut response = (self.status, body).into_response();
        // The body's own default type must not stand beside the kept one, or in for none.
        response.headers_mut().clear();
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        response
    }
}

/// Puts [`Remembered`] in front of routes.
#[derive(Clone)]
pub(crate) struct IdempotencyLayer {
    remembered: Arc<Remembered>,
    bodies: Bodies,
}

/// A route behind [`Remembered`]. Requests without a key pass at no cost.
#[derive(Clone)]
pub(crate) struct Idempotent<S> {
    inner: S,
    layer: IdempotencyLayer,
}

impl IdempotencyLayer {
    /// A memory of its own, for requests whose bodies come as `bodies` says.
    pub(crate) fn new(bodies: Bodies) -> Self {
        Self { remembered: Arc::default(), bodies }
    }
}

impl<S> Layer<S> for IdempotencyLayer {
    type Service = Idempotent<S>;

    fn layer(&self, inner: S) -> Idempotent<S> {
        Idempotent { inner, layer: self.clone() }
    }
}

impl<S> Service<Request> for Idempotent<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        if reads || !request.headers().contains_key(&IDEMPOTENCY_KEY) {
            return Either::Left(self.inner.call(request));
        }
        // The service that was found ready is the one to call; its copy takes the next request.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Either::Right(Box::pin(async move {
            Ok(once(inner, layer, request).await.unwrap_or_else(IntoResponse::into_response))
        }))
    }
}

async fn once<S>(mut inner: S, layer: IdempotencyLayer, request: Request) -> Result<Response, Problem>
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let key = key_of(&request)?;
    let (mut parts, body) = request.into_parts();
    let body = layer.bodies.read(body).await?;
    let body_hash = hash_object(ObjectFormat::Sha1, Kind::Blob, &body.bytes)?;
    // Handlers find it there instead of reading it again.
    parts.extensions.insert(body);
    let turn = match layer.remembered.decide(key, body_hash, Instant::now()) {
        Decision::Replay(answer) => return Ok(answer.replay()),
        Decision::Refuse(problem) => return Err(problem),
        Decision::Run(turn) => turn,
    };
    // A task of its own, so that a client that goes away finds the answer when it comes back.
    let run = tokio::spawn(async move {
        let Ok(response) = inner.call(Request::from_parts(parts, Body::empty())).await;
        remember(turn, response).await
    });
    run.await.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "the request failed inside the server")))
}

/// Reads an answer to its end, remembers it if it is a success, and gives it back.
async fn remember(turn: Turn, response: Response) -> Result<Response, Problem> {
    if !response.status().is_success() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|error| Problem::new(Code::Internal, format!("the answer ended early: {error}")))?;
    let kept = [CONTENT_TYPE, LOCATION, ETAG];
    let answer = Answer {
        status: parts.status,
        headers: kept.into_iter().filter_map(|name| Some((name.clone(), parts.headers.get(&name)?.clone()))).collect(),
        body: (body.len() <= ANSWER_BYTES_MAX).then(|| body.clone()),
    };
    turn.finish(answer, Instant::now());
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// One hash for method, path, query and key: entries have one size whatever clients send.
fn key_of(request: &Request) -> Result<Oid, Problem> {
    let mut values = request.headers().get_all(&IDEMPOTENCY_KEY).iter();
    let key = match (values.next(), values.next()) {
        (Some(key), None) if (1..=KEY_BYTES_MAX).contains(&key.len()) => key.as_bytes(),
        _ => return Err(Problem::invalid(format!("there is one Idempotency-Key of 1 to {KEY_BYTES_MAX} bytes"))),
    };
    let route = format!("{} {}\n", request.method(), request.uri());
    Ok(hash_object(ObjectFormat::Sha1, Kind::Blob, &[route.as_bytes(), key].concat())?)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use axum::{
        body::Bytes,
        http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    };
    use govc_engine::Oid;

    use super::{ANSWERS_BYTES_MAX, Answer, Decision, KEPT_FOR, Remembered};
    use crate::http::problem::Code;

    fn oid(number: usize) -> Oid {
        format!("{number:040x}").parse().expect("an id")
    }

    fn answer(body: Option<Bytes>) -> Answer {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Answer { status: StatusCode::CREATED, headers, body }
    }

    /// Runs the request of a key to its end.
    fn run(remembered: &Arc<Remembered>, key: usize, body: Option<Bytes>, now: Instant) {
        match remembered.decide(oid(key), oid(0), now) {
            Decision::Run(turn) => turn.finish(answer(body), now),
            _ => panic!("key {key} is not free"),
        }
    }

    fn refused(remembered: &Arc<Remembered>, key: usize, body: usize, now: Instant) -> Option<Code> {
        match remembered.decide(oid(key), oid(body), now) {
            Decision::Refuse(problem) => Some(problem.code()),
            _ => None,
        }
    }

    fn is_remembered(remembered: &Arc<Remembered>, key: usize, now: Instant) -> bool {
        matches!(remembered.decide(oid(key), oid(0), now), Decision::Replay(_))
    }

    #[test]
    fn a_finished_answer_is_replayed() {
        let (remembered, now) = (Arc::<Remembered>::default(), Instant::now());
        run(&remembered, 1, Some(Bytes::from_static(b"{}")), now);
        let Decision::Replay(answer) = remembered.decide(oid(1), oid(0), now) else { panic!("no replay") };
        let response = answer.replay();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers().get(CONTENT_TYPE).expect("a type"), "application/json");
        assert_eq!(response.headers().get("idempotency-replayed").expect("marked"), "true");
        assert!(!is_remembered(&remembered, 2, now), "another key is another request");
    }

    #[test]
    fn repetitions_and_mistakes_are_refused() {
        let (remembered, now) = (Arc::<Remembered>::default(), Instant::now());
        let Decision::Run(turn) = remembered.decide(oid(1), oid(0), now) else { panic!("the key is new") };
        assert_eq!(refused(&remembered, 1, 0, now), Some(Code::IdempotencyKeyInUse));
        assert_eq!(refused(&remembered, 1, 9, now), Some(Code::IdempotencyKeyReused));
        turn.finish(answer(None), now);
        assert_eq!(refused(&remembered, 1, 9, now), Some(Code::IdempotencyKeyReused));
        let Decision::Replay(answer) = remembered.decide(oid(1), oid(0), now) else { panic!("no replay") };
        assert_eq!(answer.replay().status(), Code::IdempotencyAnswerLost.status());
    }

    #[test]
    fn an_unfinished_turn_frees_the_key() {
        let (remembered, now) = (Arc::<Remembered>::default(), Instant::now());
        drop(remembered.decide(oid(1), oid(0), now));
        run(&remembered, 1, None, now);
    }

    #[test]
    fn answers_go_with_time_and_with_space() {
        let (remembered, start) = (Arc::<Remembered>::default(), Instant::now());
        run(&remembered, 1, None, start);
        assert!(is_remembered(&remembered, 1, start + KEPT_FOR / 2));
        assert!(!is_remembered(&remembered, 1, start + KEPT_FOR));

        let remembered = Arc::<Remembered>::default();
        let body = Bytes::from(vec![0; ANSWERS_BYTES_MAX / 4]);
        for key in 1..=10 {
            run(&remembered, key, Some(body.clone()), start);
        }
        let entries = remembered.0.lock();
        assert!(entries.bytes <= ANSWERS_BYTES_MAX);
        assert_eq!(entries.by_key.len(), entries.finished.len());
        assert!(entries.by_key.contains_key(&oid(10)) && !entries.by_key.contains_key(&oid(1)));
    }
}
