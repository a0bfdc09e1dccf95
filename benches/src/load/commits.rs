//! Commits of one file each: the load that agents make. Each connection commits to a branch of its own that starts at a
//! common commit of 100 files, and waits for each answer before it sends the next request.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::Barrier;

use super::connection::Connection;
use super::{block_on, quantile_millis};
use crate::error::{Context, Error, Result};
use crate::http::Client;
use crate::random::Random;

/// Files in the common commit; a connection changes one of them at a time.
pub(crate) const FILES: usize = 100;

/// What to commit, where, and for how long.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    /// An empty repository.
    pub(crate) repository: &'a str,
    pub(crate) connections: usize,
    pub(crate) time: Duration,
    /// Between an answer and the next request of a connection.
    pub(crate) pause: Duration,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Ids of all commits that the server acknowledged, those before the clock started among them.
    pub(crate) acknowledged: Vec<String>,
    /// Of each commit while the clock ran, sorted.
    pub(crate) latencies_micros: Vec<u32>,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// Commits a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_micros.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that the given share of all commits did not exceed, in milliseconds.
    pub(crate) fn quantile_millis(&self, share: f64) -> f64 {
        quantile_millis(&self.latencies_micros, share)
    }
}

/// The path of one of the files.
pub(crate) fn path_of(index: usize) -> String {
    format!("part{}/file{}.txt", index / 10 % 10, index % 10)
}

/// The content that a change gives a file: about 150 bytes, never the same twice, as the inside of a JSON
/// string: its line ends are escaped.
pub(crate) fn content(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..3 {
        text.push_str(&random.line());
        text.push_str("\\n");
    }
    text
}

/// Makes the common commit, then commits until the time is over. Any answer but a success ends the run.
pub(crate) fn run(load: &Load<'_>) -> Result<Outcome> {
    let base = base_commit(load)?;
    let mut outcome = block_on(drive(load, &base))?;
    outcome.acknowledged.push(base);
    outcome.latencies_micros.sort_unstable();
    Ok(outcome)
}

/// What one connection did.
struct Done {
    acknowledged: Vec<String>,
    latencies_micros: Vec<u32>,
    started: Instant,
    ended: Instant,
}

/// The part of an answer that matters here.
#[derive(Deserialize)]
struct Acknowledged {
    hash: String,
}

fn base_commit(load: &Load<'_>) -> Result<String> {
    let mut random = Random::new(1);
    let changes: Vec<serde_json::Value> = (0..FILES)
        .map(|index| serde_json::json!({"op": "put", "path": path_of(index), "content": random.line() + "\n"}))
        .collect();
    let body = serde_json::json!({
        "branch": "main",
        "message": "Start",
        "author": {"name": "Bench", "email": "bench@example.com"},
        "changes": changes,
    });
    let path = format!("/api/v1/repos/{}/commits", load.repository);
    let answer = Client::connect(load.address)?.post_json(&path, &body)?;
    let hash = answer.get("hash").and_then(serde_json::Value::as_str);
    hash.map(str::to_owned).context(|| format!("the answer to the first commit has no hash: {answer}"))
}

async fn drive(load: &Load<'_>, base: &str) -> Result<Outcome> {
    let start = Arc::new(Barrier::new(load.connections));
    let mut tasks = Vec::new();
    for number in 0..load.connections {
        let committer = Committer {
            connection: Connection::open(load.address).await?,
            head: format!(
                "POST /api/v1/repos/{}/commits HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n",
                load.repository, load.address
            ),
            number,
            pause: load.pause,
            random: Random::new(1000 + number as u64),
            request: String::new(),
        };
        tasks.push(tokio::spawn(committer.commit_until(load.time, base.to_owned(), Arc::clone(&start))));
    }
    let mut acknowledged = Vec::new();
    let mut latencies_micros = Vec::new();
    let mut span: Option<(Instant, Instant)> = None;
    for task in tasks {
        let done = task.await.context(|| "a connection broke down".into())??;
        acknowledged.extend(done.acknowledged);
        latencies_micros.extend(done.latencies_micros);
        let (first, last) = span.unwrap_or((done.started, done.ended));
        span = Some((first.min(done.started), last.max(done.ended)));
    }
    let elapsed = span.map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
    Ok(Outcome { acknowledged, latencies_micros, elapsed })
}

/// One client.
struct Committer {
    connection: Connection,
    head: String,
    number: usize,
    pause: Duration,
    random: Random,
    request: String,
}

impl Committer {
    async fn commit_until(mut self, time: Duration, base: String, start: Arc<Barrier>) -> Result<Done> {
        // The commit that makes the branch is not timed. A connection that fails here still goes to the
        // barrier, where the others wait for it.
        let first = self.commit(&format!(",\"create_branch_from\":\"{base}\"")).await;
        start.wait().await;
        let mut acknowledged = vec![first?];
        let mut latencies_micros = Vec::new();
        let started = Instant::now();
        let mut now = started;
        while now.duration_since(started) < time {
            let hash = self.commit("").await?;
            let answered = Instant::now();
            let micros = answered.duration_since(now).as_micros();
            latencies_micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
            acknowledged.push(hash);
            now = answered;
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
                now = Instant::now();
            }
        }
        Ok(Done { acknowledged, latencies_micros, started, ended: now })
    }

    /// Sends one commit and waits for its id. `more` is further JSON of the request.
    async fn commit(&mut self, more: &str) -> Result<String> {
        let path = path_of(self.random.below(FILES));
        let body = format!(
            "{{\"branch\":\"agent-{}\",\"message\":\"Change {path}\",\
             \"author\":{{\"name\":\"Bench\",\"email\":\"bench@example.com\"}},\
             \"changes\":[{{\"op\":\"put\",\"path\":\"{path}\",\"content\":\"{}\"}}]{more}}}",
            self.number,
            content(&mut self.random)
        );
        self.request.clear();
        write!(self.request, "{}Content-Length: {}\r\n\r\n{body}", self.head, body.len())
            .context(|| "cannot write a request".into())?;
        let (status, body) = self.connection.exchange(self.request.as_bytes()).await?;
        if status != 201 {
            return Err(Error::new(format!("a commit was answered with {status}: {}", String::from_utf8_lossy(body))));
        }
        let answer: Acknowledged =
            serde_json::from_slice(body).context(|| "the answer to a commit is not understood".into())?;
        Ok(answer.hash)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Outcome;

    #[test]
    fn figures_of_an_outcome() {
        let outcome = Outcome {
            acknowledged: Vec::new(),
            latencies_micros: (1..=100).map(|number| number * 1000).collect(),
            elapsed: Duration::from_secs(2),
        };
        assert_eq!(outcome.rate(), 50.0);
        assert_eq!(outcome.quantile_millis(0.5), 51.0);
    }
}
