//! What is measured: a server on a loopback port whose CPU time can be read.
//!
//! Work is counted until the server rests, so what it does after its answer (flushes, background jobs)
//! is in the figure as well.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Result};

/// How long the CPU counters must stand still before a server counts as at rest.
const REST: Duration = Duration::from_millis(400);
/// A server that never rests is read after this time all the same.
const REST_MAX: Duration = Duration::from_secs(60);

/// CPU seconds of a server so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cpu {
    /// Of all its processes.
    pub(crate) whole: f64,
    /// Of those that do Git's work, without the web server and the gateway. For govc, all.
    pub(crate) core: f64,
}

/// One server under measurement.
pub(crate) trait Subject {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// Its CPU time since it started.
    fn cpu(&self) -> Result<Cpu>;

    /// The address of a repository for a Git client.
    fn url(&self, repository: &str) -> String {
        format!("http://{}/{repository}.git", self.address())
    }
}

/// What a piece of work gave and what it cost.
pub(crate) struct Cost<T> {
    pub(crate) output: T,
    pub(crate) cpu: Cpu,
    /// Until the answer, without the wait for rest.
    pub(crate) wall: Duration,
}

/// Does the work and reads what it cost the subject.
pub(crate) fn measure<T>(subject: &dyn Subject, work: impl FnOnce() -> Result<T>) -> Result<Cost<T>> {
    let before = at_rest(subject)?;
    let start = Instant::now();
    let output = work()?;
    let wall = start.elapsed();
    let after = at_rest(subject)?;
    let cpu = Cpu { whole: after.whole - before.whole, core: after.core - before.core };
    Ok(Cost { output, cpu, wall })
}

/// Repeats the work until it has cost enough CPU time to be read from clock ticks, and gives the mean
/// cost of one repetition and the last output.
pub(crate) fn measure_repeated<T>(subject: &dyn Subject, mut work: impl FnMut() -> Result<T>) -> Result<Cost<T>> {
    const ENOUGH_SECONDS: f64 = 1.0;
    const TIMES_MAX: u32 = 20;
    let before = at_rest(subject)?;
    let start = Instant::now();
    let mut output = work()?;
    let mut times = 1;
    while times < TIMES_MAX && subject.cpu()?.core - before.core < ENOUGH_SECONDS {
        output = work()?;
        times += 1;
    }
    let wall = start.elapsed() / times;
    let after = at_rest(subject)?;
    let share = f64::from(times);
    let cpu = Cpu { whole: (after.whole - before.whole) / share, core: (after.core - before.core) / share };
    Ok(Cost { output, cpu, wall })
}

/// A loopback address that nobody listens on at this moment.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(|| "cannot bind a loopback port".into())?;
    listener.local_addr().context(|| "cannot read a loopback port".into())
}

fn at_rest(subject: &dyn Subject) -> Result<Cpu> {
    let start = Instant::now();
    let mut last = subject.cpu()?;
    let mut since = Instant::now();
    while since.elapsed() < REST && start.elapsed() < REST_MAX {
        thread::sleep(Duration::from_millis(50));
        let now = subject.cpu()?;
        if now != last {
            last = now;
            since = Instant::now();
        }
    }
    Ok(last)
}
