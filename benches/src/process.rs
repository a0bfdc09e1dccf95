//! What the kernel says about a process: CPU time, peak memory, children; and ending it.
//!
//! Everything comes from `/proc/PID/stat` and `/proc/PID/status` (proc(5)). CPU time contains the exited
//! threads of the process and the children that it waited for, not children that were reaped unseen.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};

/// Linux reports clock ticks to user space at this rate on every architecture that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

/// User and system seconds of a process and of the children that it waited for.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .context(|| format!("cannot read the CPU time of process {pid}"))?;
    let stat = parse_stat(&text).context(|| format!("the stat line of process {pid} is not understood"))?;
    Ok(stat.ticks as f64 / TICKS_PER_SECOND)
}

/// Peak resident memory of a process since its start, in bytes.
pub(crate) fn peak_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .context(|| format!("cannot read the memory of process {pid}"))?;
    parse_peak(&text).context(|| format!("process {pid} reports no peak memory"))
}

/// All living processes below a process, at the moment of the call.
pub(crate) fn descendants(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context(|| "cannot list processes".into())? {
        let entry = entry.context(|| "cannot list processes".into())?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end between the listing and the read.
        if let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse_stat) {
            parents.push((pid, stat.parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(pid, of)| *of == parent && *pid != root).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

/// Asks processes to end. The shell's own `kill` is used: a signal needs `unsafe` otherwise.
pub(crate) fn terminate(pids: &[u32]) -> Result<()> {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    Command::new("sh")
        .args(["-c", &format!("kill -TERM {} 2>/dev/null", list.join(" "))])
        .status()
        .context(|| "cannot run sh to send a signal".into())?;
    Ok(())
}

/// What a command took.
#[derive(Debug)]
pub(crate) struct Spent {
    /// User and system seconds of the process and of the children that it waited for.
    pub(crate) cpu_seconds: f64,
    /// The most memory that one of its processes was seen to have, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Runs a command to its end, its output unread, and tells what it took.
pub(crate) fn run_measured(mut command: Command) -> Result<Spent> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context(|| format!("cannot run {:?}", command.get_program()))?;
    let pid = child.id();
    let mut peak = 0;
    // Until it is waited for, a process that has ended can be asked for its time, though not for its memory.
    while !has_ended(pid)? {
        for pid in descendants(pid)?.into_iter().chain([pid]) {
            peak = peak.max(peak_bytes(pid).unwrap_or(0));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let cpu_seconds = cpu_seconds(pid)?;
    let status = child.wait().context(|| "cannot wait for a process".into())?;
    if !status.success() {
        return Err(Error::new(format!("{:?} failed: {status}", command.get_program())));
    }
    Ok(Spent { cpu_seconds, peak_bytes: peak })
}

fn has_ended(pid: u32) -> Result<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .context(|| format!("cannot read the state of process {pid}"))?;
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    Ok(matches!(state, Some("Z" | "X")))
}

/// Waits for a child of ours to end, at most for the given time.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        match child.try_wait().context(|| "cannot wait for a process".into())? {
            Some(_) => return Ok(()),
            None if start.elapsed() > limit => {
                return Err(Error::new(format!("process {} did not end within {} s", child.id(), limit.as_secs())));
            }
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold blanks and parentheses itself: count from the last one. Field 3
    // of proc(5) is then the first.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    Some(Stat { parent: u32::try_from(number(4)?).ok()?, ticks })
}

fn parse_peak(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Stat, cpu_seconds, parse_peak, parse_stat, peak_bytes, run_measured};

    #[test]
    fn stat_survives_a_hostile_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 1 20 0 1 0 99 0 0";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, ticks: 124 }));
        assert_eq!(parse_stat("42 (short) S 7"), None);
    }

    #[test]
    fn peak_is_in_bytes() {
        assert_eq!(parse_peak("Name:\tx\nVmHWM:\t    12 kB\n"), Some(12_288));
        assert_eq!(parse_peak("Name:\tx\n"), None);
    }

    #[test]
    fn a_command_is_measured_with_its_children() {
        let mut command = Command::new("sh");
        // The child of a child does the work.
        command.args(["-c", "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; true"]);
        let spent = run_measured(command).expect("sh runs");
        assert!(spent.cpu_seconds > 0.0 && spent.peak_bytes > 0, "{spent:?}");
        assert!(run_measured(Command::new("false")).is_err());
    }

    #[test]
    fn own_process_can_be_read() {
        assert!(cpu_seconds(std::process::id()).is_ok_and(|seconds| seconds >= 0.0));
        assert!(peak_bytes(std::process::id()).is_ok_and(|bytes| bytes > 0));
    }
}
