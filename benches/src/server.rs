//! govc as a subject: the release binary on a free loopback port with a data folder of the caller's.
//!
//! The process never outlives its value: dropping kills it. It runs with the product's defaults: the
//! `GOVC_*` variables of the caller (which configure the benches) are not passed on.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::http::Client;
use crate::process;
use crate::subject::{Cpu, Subject, free_address};

const READY_MAX: Duration = Duration::from_secs(300);
const STOP_MAX: Duration = Duration::from_secs(120);

/// Settings without what a server does behind a push: indexing for search, and compaction.
pub(crate) const ALONE: [(&str, &str); 2] = [("GOVC_SEARCH_ENABLED", "false"), ("GOVC_COMPACTION_ENABLED", "false")];

/// A running govc.
pub(crate) struct Govc {
    child: Child,
    address: SocketAddr,
    ready_after: Duration,
}

/// What a fresh repository shall be.
pub(crate) struct NewRepository<'a> {
    pub(crate) name: &'a str,
    pub(crate) default_branch: &'a str,
    pub(crate) durability: &'a str,
}

impl Govc {
    /// The binary to measure: the one asked for, or `govc` beside the benches' own binary.
    pub(crate) fn binary(wanted: Option<&Path>) -> Result<PathBuf> {
        let path = match wanted {
            Some(path) => path.to_owned(),
            None => {
                let own = std::env::current_exe().context(|| "cannot find the bench binary".into())?;
                own.with_file_name("govc")
            }
        };
        std::fs::canonicalize(&path).context(|| {
            format!(
                "no govc binary at {} (build it with `cargo build --release -p govc-server` or set GOVC_BIN)",
                path.display()
            )
        })
    }

    /// A command on a store with RocksDB under `data`. The benches' own variables would be unknown settings to it.
    pub(crate) fn command(binary: &Path, name: &str, data: &Path) -> Command {
        let mut command = Command::new(binary);
        command.arg(name).arg("--data").arg(data).args(["--backend", "rocksdb"]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GOVC_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts the server with RocksDB under `data` and waits for its ready line. What it logs goes to
    /// a file beside the data.
    pub(crate) fn start(binary: &Path, data: &Path) -> Result<Govc> {
        Self::start_with(binary, data, &[])
    }

    /// The same with settings of its own.
    pub(crate) fn start_with(binary: &Path, data: &Path, settings: &[(&str, &str)]) -> Result<Govc> {
        let address = free_address()?;
        let log_path = data.with_extension("log");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .context(|| format!("cannot write {}", log_path.display()))?;
        let mut command = Govc::command(binary, "serve", data);
        command.arg("--listen").arg(address.to_string()).envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let start = Instant::now();
        let child = command.spawn().context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Govc { child, address, ready_after: Duration::ZERO };
        server.await_ready(start).map_err(|error| {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            let mut last: Vec<&str> = log.lines().rev().take(5).collect();
            last.reverse();
            Error::new(format!("{error}; its last words: {}", last.join(" / ")))
        })?;
        Ok(server)
    }

    /// Time from the start of the process to its ready line.
    pub(crate) fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Peak resident memory since the start, in bytes.
    pub(crate) fn peak_bytes(&self) -> Result<u64> {
        process::peak_bytes(self.child.id())
    }

    /// One of the server's figures.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let metrics = Client::connect(self.address)?.get_text("/metrics")?;
        let mut lines = metrics.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok());
        value.context(|| format!("/metrics has no {name}"))
    }

    /// What repository data take in memory by the server's own account, and what the whole process takes, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<(f64, f64)> {
        Ok((self.metric("govc_resident_bytes")?, self.metric("process_resident_memory_bytes")?))
    }

    /// Creates an empty repository.
    pub(crate) fn create(&self, repository: &NewRepository<'_>) -> Result<()> {
        let body = serde_json::json!({
            "id": repository.name,
            "default_branch": repository.default_branch,
            "durability": repository.durability,
        });
        Client::connect(self.address)?.post_json("/api/v1/repos", &body).map(drop)
    }

    /// Asks it to end, as an operator does, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        process::terminate(&[self.child.id()])?;
        process::wait(&mut self.child, STOP_MAX)
    }

    /// Ends it without a warning (`SIGKILL`).
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context(|| "cannot kill govc".into())?;
        process::wait(&mut self.child, STOP_MAX)
    }

    fn await_ready(&mut self, start: Instant) -> Result<()> {
        let output = self.child.stdout.take().context(|| "govc has no standard output".into())?;
        let address = self.address.to_string();
        let (ready, is_ready) = mpsc::sync_channel(1);
        // The reader lives as long as the server writes, so that its output never blocks it.
        thread::Builder::new()
            .name("govc-output".into())
            .spawn(move || {
                for line in BufReader::new(output).lines().map_while(std::io::Result::ok) {
                    if line.contains(&address) {
                        // Only the first such line is waited for.
                        let _ = ready.try_send(Instant::now());
                    }
                }
            })
            .context(|| "cannot start a thread".into())?;
        match is_ready.recv_timeout(READY_MAX) {
            Ok(at) => {
                self.ready_after = at.duration_since(start);
                Ok(())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(Error::new(format!("govc was not ready within {} s", READY_MAX.as_secs())))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(Error::new("govc ended before it printed its address on standard output"))
            }
        }
    }
}

impl Subject for Govc {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn cpu(&self) -> Result<Cpu> {
        let seconds = process::cpu_seconds(self.child.id())?;
        Ok(Cpu { whole: seconds, core: seconds })
    }
}

impl Drop for Govc {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
