//! The machine that a figure was measured on, in one line: ratios count, but a reader wants to know.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::git::Git;

/// What a reader of a table needs to know about the machine.
pub(crate) struct Machine {
    cores: usize,
    memory_gib: f64,
    processor: String,
    kernel: String,
    storage: String,
    git: String,
}

impl Machine {
    /// Describes this machine; `folder` is where the servers keep their data. What cannot be read is
    /// called unknown.
    pub(crate) fn describe(git: &Git, folder: &Path) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let known = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into());
        Machine {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_gib(&read("/proc/meminfo")).unwrap_or_default(),
            processor: known(value_of(&read("/proc/cpuinfo"), "model name")),
            kernel: known(Some(read("/proc/sys/kernel/osrelease").trim().to_owned())),
            storage: known(file_system(&read("/proc/self/mounts"), folder)),
            git: git.version().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores ({}), {:.0} GiB memory, Linux {}, data on {}, git {}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.storage, self.git
        )
    }
}

fn value_of(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

fn memory_gib(meminfo: &str) -> Option<f64> {
    let kibibytes: f64 = value_of(meminfo, "MemTotal")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / (1024.0 * 1024.0))
}

/// The type of the file system with the longest mount point above the folder. It matters: on a tmpfs
/// a sync costs nothing and a durable figure means nothing.
fn file_system(mounts: &str, folder: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{file_system, memory_gib};

    #[test]
    fn longest_mount_wins() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmpfoo")).as_deref(), Some("ext4"));
    }

    #[test]
    fn memory_is_in_gibibytes() {
        assert_eq!(memory_gib("MemTotal:        2097152 kB\n"), Some(2.0));
    }
}
