//! Contents on their way in and out, a chunk at a time: whatever the size, a transfer holds about two chunks of memory,
//! within the budget for what clients hold, and a thread only while a chunk is written or read.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, EXPECT},
    },
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use govc_engine::{ErrorKind, LFS_CHUNK_BYTES, LfsObject, LfsOid, LfsUpload, Repo};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{answer, batch::Named, route::Call};
use crate::{
    app::App,
    git::Patience,
    http::{
        conditional::ETag,
        download::{Download, Readable},
        problem::{Code, Problem},
    },
    pauses::Pauses,
};

/// `GET objects/{oid}`, whole or in part.
pub(super) async fn download(call: Call, oid: &str, request: Request) -> Result<Response, Problem> {
    let oid = parse(oid)?;
    let missing = || Problem::new(Code::NotFound, format!("object {oid} does not exist"));
    let Some(repo) = call.target.repo().cloned() else { return Err(missing()) };
    let (looking, app) = (repo.clone(), call.app);
    let object = app.work.run(move || looking.lfs_object(&oid)).await??.ok_or_else(missing)?;
    let etag = ETag::of_text(&oid.to_string());
    // What borrows a request cannot be moved between threads.
    let (method, headers) = (request.method().clone(), request.headers().clone());
    drop(request);
    let (size, bytes) = (object.size(), Content { repo, object });
    let download = Download { bytes, size, etag, content_type: "application/octet-stream" };
    let mut response = download.answer(&app, &method, &headers).await?;
    // Contents are foreign: a browser must neither guess their type nor run them.
    let nothing = HeaderValue::from_static("default-src 'none'; sandbox");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, nothing);
    Ok(response)
}

fn parse(oid: &str) -> Result<LfsOid, Problem> {
    oid.parse().map_err(|error: govc_engine::Error| Problem::new(Code::Unprocessable, error.message()))
}

/// A content that is being sent.
struct Content {
    repo: Repo,
    object: LfsObject,
}

impl Readable for Content {
    fn read(&self, at: u64, len: usize) -> Result<Bytes, Problem> {
        let chunk_bytes = LFS_CHUNK_BYTES as u64;
        let chunk = self.repo.lfs_chunk(&self.object, at / chunk_bytes)?;
        let start = (at % chunk_bytes) as usize;
        let end = chunk.len().min(start.saturating_add(len));
        if start >= end {
            return Err(Problem::new(Code::Corrupt, format!("object {} ends early", self.object.oid())));
        }
        Ok(chunk.slice(start..end))
    }
}

/// `PUT objects/{oid}`.
pub(super) async fn upload(call: Call, oid: &str, request: Request) -> Result<Response, Problem> {
    let app = call.app;
    let bytes_max = app.config.lfs.object_bytes_max;
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_large =
        || Problem::new(Code::BodyTooLarge, format!("the object is larger than the limit of {bytes_max} bytes"));
    let target = call.target;
    let begin = async {
        let oid = parse(oid)?;
        if length.is_some_and(|length| length > bytes_max) {
            return Err(too_large());
        }
        let worker = Arc::clone(&app);
        let begin = move || -> Result<_, Problem> { Ok(target.make(&worker)?.lfs_upload(oid)?) };
        app.work.run(begin).await?
    };
    let upload = match begin.await {
        Ok(Some(upload)) => upload,
        // What is there already was verified when it came.
        Ok(None) => {
            answer::discard(request);
            return Ok(answer::ok(&json!({})));
        }
        Err(problem) => {
            answer::discard(request);
            return Err(problem);
        }
    };
    let waits = request.headers().contains_key(EXPECT);
    let mut receiving = Receiving { app: Arc::clone(&app), upload: Some(upload), chunk: BytesMut::new() };
    let held = app.bodies.hold(length.unwrap_or(u64::MAX).min(LFS_CHUNK_BYTES as u64)).await;
    let _held = match held {
        Ok(held) => held,
        Err(problem) => {
            answer::discard(request);
            return Err(problem);
        }
    };
    let mut body = request.into_body().into_data_stream();
    let mut received = 0u64;
    let mut patience = Patience::of(app.config.server.body_timeout);
    let refusal = loop {
        let began = Instant::now();
        let piece = match timeout(patience.left(), body.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => return Err(Problem::invalid(format!("the object ended early: {error}"))),
            Ok(None) => break receiving.finish().await.err(),
            Err(_elapsed) => return Err(Problem::new(Code::RequestTimeout, "the object did not arrive in time")),
        };
        patience.waited(began.elapsed(), piece.len() as u64);
        received = received.saturating_add(piece.len() as u64);
        if received > bytes_max {
            break Some(too_large());
        }
        if let Err(problem) = receiving.take(&piece).await {
            break Some(problem);
        }
    };
    match refusal {
        None => Ok(answer::ok(&json!({}))),
        Some(problem) => {
            receiving.abandon().await;
            if !waits || received > 0 {
                crate::git::discard(Body::from_stream(body));
            }
            Err(problem)
        }
    }
}

/// A content that is being received.
struct Receiving {
    app: Arc<App>,
    /// There until it is finished, but for when it is being written.
    upload: Option<LfsUpload>,
    /// What is not written yet, up to a chunk.
    chunk: BytesMut,
}

impl Receiving {
    async fn take(&mut self, mut piece: &[u8]) -> Result<(), Problem> {
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(LFS_CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            piece = later;
            if self.chunk.len() == LFS_CHUNK_BYTES {
                self.write().await?;
            }
        }
        Ok(())
    }

    /// Writes what is at hand.
    async fn write(&mut self) -> Result<(), Problem> {
        let chunk = std::mem::take(&mut self.chunk).freeze();
        let upload = self.with_upload(move |mut upload| {
            let written = upload.write(&chunk);
            (upload, written)
        });
        let (upload, written) = upload.await?;
        self.upload = Some(upload);
        written.map_err(Problem::from)
    }

    async fn finish(&mut self) -> Result<(), Problem> {
        self.write().await?;
        self.with_upload(LfsUpload::finish).await?.map_err(|error| match error.kind() {
            // The bytes are not those that they were said to be.
            ErrorKind::Invalid => Problem::new(Code::Unprocessable, error.message()),
            _ => Problem::from(error),
        })
    }

    /// Removes what has come, before the client is told.
    async fn abandon(&mut self) {
        if let Some(upload) = self.upload.take() {
            // Where no thread is free it is removed none the less: by whoever drops the work.
            let _ = self.app.work.run(move || drop(upload)).await;
        }
    }

    async fn with_upload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(LfsUpload) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let lost = || Problem::new(Code::Internal, "the upload was lost");
        let app = Arc::clone(&self.app);
        let mut pauses = Pauses::new(&app);
        // What work that is never started leaves behind goes to the next try.
        let waiting = Arc::new(parking_lot::Mutex::new(self.upload.take().map(|upload| (upload, work))));
        loop {
            let taken = Arc::clone(&waiting);
            let run = move || taken.lock().take().map(|(upload, work)| work(upload));
            match self.app.work.run(run).await {
                Ok(done) => return done.ok_or_else(lost),
                Err(error) => {
                    if let Err(error) = pauses.after(error).await {
                        self.upload = waiting.lock().take().map(|(upload, _)| upload);
                        return Err(error);
                    }
                }
            }
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        // Removing what has come is work for a thread that may wait for the disk.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(upload))),
            Err(_) => drop(upload),
        }
    }
}

/// `POST verify`: whether a content has arrived.
pub(super) async fn verify(call: Call, request: Request) -> Result<Response, Problem> {
    answer::check_accept(request.headers())?;
    let named: Named = answer::read(&call.app, request).await?;
    let (oid, size) = named.checked()?;
    let target = call.target;
    let look = move || target.repo().map(|repo| repo.lfs_object(&oid)).transpose();
    match call.app.work.run(look).await??.flatten() {
        None => Err(Problem::new(Code::NotFound, format!("object {oid} does not exist"))),
        Some(object) if object.size() != size => {
            let detail = format!("object {oid} has {} bytes, not {size}", object.size());
            Err(Problem::new(Code::Unprocessable, detail))
        }
        Some(_) => Ok(answer::ok(&json!({ "oid": named.oid, "size": named.size }))),
    }
}
