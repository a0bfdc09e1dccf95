//! The same request again and again, on many connections: requests of Git's protocol whose answers are long and chunked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stream::Stream;
use super::{block_on, quantile_millis};
use crate::error::{Context, Error, Result};
use crate::wire;

/// What to send, from how many clients at once, and for how long.
pub(crate) struct Repeat<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// Connections take these in turns.
    pub(crate) bodies: &'a [Vec<u8>],
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Of each answer, sorted.
    latencies_micros: Vec<u32>,
    elapsed: Duration,
    /// Bytes of the shortest and of the longest answer.
    pub(crate) answer_bytes: (u64, u64),
}

impl Outcome {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_micros.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that the given share of all did not exceed, in milliseconds.
    pub(crate) fn quantile_millis(&self, share: f64) -> f64 {
        quantile_millis(&self.latencies_micros, share)
    }
}

/// Asks until the time is over, and for the end of each answer then under way. Any answer but a whole one of status 200
/// ends the run.
pub(crate) fn run(repeat: &Repeat<'_>) -> Result<Outcome> {
    block_on(async {
        let mut tasks = Vec::new();
        let begin = Instant::now();
        for number in 0..repeat.connections {
            let stream = Stream::open(repeat.address).await?;
            let body = &repeat.bodies[number % repeat.bodies.len()];
            let request = super::stream::post(repeat.address, repeat.path, repeat.headers, body);
            tasks.push(tokio::spawn(ask_until(stream, request, begin + repeat.time)));
        }
        let mut outcome =
            Outcome { latencies_micros: Vec::new(), elapsed: Duration::ZERO, answer_bytes: (u64::MAX, 0) };
        for task in tasks {
            for (micros, bytes) in task.await.context(|| "a connection broke down".into())?? {
                outcome.latencies_micros.push(micros);
                let (shortest, longest) = outcome.answer_bytes;
                outcome.answer_bytes = (shortest.min(bytes), longest.max(bytes));
            }
        }
        outcome.elapsed = begin.elapsed();
        outcome.latencies_micros.sort_unstable();
        Ok(outcome)
    })
}

/// Microseconds and bytes of each answer.
async fn ask_until(mut stream: Stream, request: Vec<u8>, until: Instant) -> Result<Vec<(u32, u64)>> {
    let mut answers = Vec::new();
    let mut now = Instant::now();
    while now < until {
        stream.send(&request).await?;
        let answer = stream.receive(wire::FLUSH.len()).await?;
        if answer.status != 200 || answer.end != wire::FLUSH {
            return Err(Error::new(format!(
                "an answer has status {}, {} bytes, and ends with {:?}",
                answer.status,
                answer.bytes,
                String::from_utf8_lossy(&answer.end)
            )));
        }
        let answered = Instant::now();
        let micros = u32::try_from(answered.duration_since(now).as_micros()).unwrap_or(u32::MAX);
        answers.push((micros, answer.bytes));
        now = answered;
    }
    Ok(answers)
}
