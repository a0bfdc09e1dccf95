//! The machine that a report was made on: ratios count, but a reader wants to know.

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a reader of figures needs to know about the machine. What cannot be read is called unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that the run could use.
    pub cores: usize,
    /// Their name.
    pub processor: String,
    /// Memory in bytes; 0 if unknown.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let known = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into());
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: known(value_of(&read("/proc/cpuinfo"), "model name")),
            memory_bytes: memory_bytes(&read("/proc/meminfo")).unwrap_or_default(),
            kernel: known(Some(read("/proc/sys/kernel/osrelease").trim().to_owned())),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{} cores ({}), {memory:.0} GiB memory, Linux {}", self.cores, self.processor, self.kernel)
    }
}

fn value_of(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kibibytes: u64 = value_of(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The type of the file system that a folder is on. It matters: on a tmpfs a sync costs nothing, and a durable figure
/// means nothing.
pub(crate) fn file_system(folder: &Path) -> Option<String> {
    let folder = fs::canonicalize(folder).ok()?;
    kind_of_longest_mount(&fs::read_to_string("/proc/self/mounts").ok()?, &folder)
}

fn kind_of_longest_mount(mounts: &str, folder: &Path) -> Option<String> {
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = points.filter(|(point, _)| folder.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{kind_of_longest_mount, memory_bytes};

    #[test]
    fn longest_mount_wins() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(kind_of_longest_mount(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(kind_of_longest_mount(mounts, Path::new("/tmpfoo")).as_deref(), Some("ext4"));
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:        2097152 kB\n"), Some(2 << 30));
    }
}
