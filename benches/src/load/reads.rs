//! Reads of one file at a steady rate, whatever else the server does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::{block_on, quantile_millis};
use crate::error::{Context, Error, Result};

/// What to read, how often, and for how long.
pub(crate) struct Reads<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'a str,
    /// What each answer holds.
    pub(crate) content: &'a [u8],
    pub(crate) connections: u32,
    /// Reads a second of all connections together.
    pub(crate) rate: u32,
    pub(crate) time: Duration,
}

/// How long each took, sorted, in microseconds.
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn quantile_millis(&self, share: f64) -> f64 {
        quantile_millis(&self.0, share)
    }
}

/// Reads until the time is over. Any answer but the content ends the run.
///
/// A read's time begins when it is sent. One that is due while its connection still waits for the one before began when
/// it was due: a server that stalls is charged for all that it keeps waiting.
pub(crate) fn run(reads: &Reads<'_>) -> Result<Latencies> {
    block_on(async {
        let every = Duration::from_secs(1) * reads.connections / reads.rate;
        let begin = Instant::now();
        let mut tasks = Vec::new();
        for number in 0..reads.connections {
            let connection = Connection::open(reads.address).await?;
            let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", reads.path, reads.address);
            // Connections take turns.
            let first = begin + every * number / reads.connections;
            let until = begin + reads.time;
            tasks.push(tokio::spawn(read_until(connection, request, reads.content.to_vec(), first, every, until)));
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.context(|| "a connection broke down".into())??);
        }
        all.sort_unstable();
        Ok(Latencies(all))
    })
}

async fn read_until(
    mut connection: Connection,
    request: String,
    content: Vec<u8>,
    first: Instant,
    every: Duration,
    until: Instant,
) -> Result<Vec<u32>> {
    let mut taken = Vec::new();
    let mut due = first;
    while due < until {
        let began = if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
            Instant::now()
        } else {
            due
        };
        let (status, body) = connection.exchange(request.as_bytes()).await?;
        if status != 200 || body != content {
            return Err(Error::new(format!("a read was answered with {status} and {} bytes", body.len())));
        }
        taken.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        due += every;
    }
    Ok(taken)
}
