//! What the process itself uses, from `/proc`. Every figure is absent where the system does not tell.

/// Memory and processor time of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessUsage {
    /// Memory in use now, in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// The most memory ever in use, in bytes.
    pub(crate) resident_bytes_max: Option<u64>,
    /// Processor time in user and system mode, in seconds.
    pub(crate) cpu_seconds: Option<f64>,
}

/// The unit of times in `/proc/self/stat`, which Linux fixes towards programs whatever its own clock does.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the usage at this moment.
pub(crate) fn usage() -> ProcessUsage {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ProcessUsage {
        resident_bytes: kibibytes(&status, "VmRSS:"),
        resident_bytes_max: kibibytes(&status, "VmHWM:"),
        cpu_seconds: cpu_seconds(&stat),
    }
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Fields 14 and 15, counted after the program's name, which may hold spaces and brackets itself.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tgovc\nVmHWM:\t  2048 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(kibibytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2048 * 1024));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("42 (x"), None);
    }
}
