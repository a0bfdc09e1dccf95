//! Connections that are kept and do nothing.

use std::net::SocketAddr;
use std::time::Duration;

use super::MEBIBYTE;
use crate::bench::{Bench, progress};
use crate::error::{Error, Result};
use crate::history::History;
use crate::load::block_on;
use crate::load::repeat::{self, Repeat};
use crate::load::stream::{Stream, post};
use crate::report::{Row, median};
use crate::server::Govc;
use crate::subject::Subject;
use crate::wire;

const SUITE: &str = "fetches";
const IDLE: usize = 10_000;
const LISTERS: usize = 16;

/// Room for that many, for as long as this takes.
pub(super) const SETTINGS: [(&str, &str); 2] = [("GOVC_MAX_CONNECTIONS", "16000"), ("GOVC_HEADER_TIMEOUT", "1h")];

pub(super) fn rows(bench: &Bench, history: &History, server: &Govc) -> Result<Vec<Row>> {
    let name = &history.name;
    let [mut alone, mut beside, mut memory] = [(); 3].map(|()| Vec::new());
    for number in 1..=bench.runs {
        progress(&format!("{IDLE} idle connections, run {number} of {}", bench.runs));
        alone.push(list_p99(bench, server, name)?);
        let before = server.metric("process_resident_memory_bytes")?;
        let connections = block_on(open(server.address(), name))?;
        let after = server.metric("process_resident_memory_bytes")?;
        memory.push((after - before) / MEBIBYTE);
        beside.push(list_p99(bench, server, name)?);
        // That they were there all the time: each still answers.
        block_on(ask_again(connections, server.address(), name))?;
    }
    let p99 = Row::new(
        SUITE,
        format!("ls-refs of {name}, {LISTERS} connections beside {IDLE} idle ones, p99"),
        "ms",
        median(beside),
    );
    let memory = Row::new(
        SUITE,
        format!("memory of {IDLE} idle connections that each have listed {name}"),
        "MiB",
        median(memory),
    );
    Ok(vec![p99.beside("the same without the idle ones", median(alone)).verified(true), memory.verified(true)])
}

fn list_p99(bench: &Bench, server: &Govc, repository: &str) -> Result<f64> {
    let outcome = repeat::run(&Repeat {
        address: server.address(),
        path: &wire::fetch_path(repository),
        headers: &wire::FETCH_HEADERS,
        bodies: &[wire::list_request(&[])],
        connections: LISTERS,
        time: Duration::from_secs(bench.seconds),
    })?;
    Ok(outcome.quantile_millis(0.99))
}

/// The sockets leave the runtime that made them, and rest.
async fn open(address: SocketAddr, repository: &str) -> Result<Vec<std::net::TcpStream>> {
    let request = list(address, repository);
    let mut connections = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = Stream::open(address).await?;
        ask(&mut stream, &request).await?;
        connections.push(stream.into_std()?);
    }
    Ok(connections)
}

async fn ask_again(connections: Vec<std::net::TcpStream>, address: SocketAddr, repository: &str) -> Result<()> {
    let request = list(address, repository);
    for connection in connections {
        ask(&mut Stream::from_std(connection)?, &request).await?;
    }
    Ok(())
}

fn list(address: SocketAddr, repository: &str) -> Vec<u8> {
    post(address, &wire::fetch_path(repository), &wire::FETCH_HEADERS, &wire::list_request(&[]))
}

async fn ask(stream: &mut Stream, request: &[u8]) -> Result<()> {
    stream.send(request).await?;
    let answer = stream.receive(wire::FLUSH.len()).await?;
    if answer.status != 200 || answer.end != wire::FLUSH {
        return Err(Error::new(format!("a list was answered with {} and {} bytes", answer.status, answer.bytes)));
    }
    Ok(())
}
