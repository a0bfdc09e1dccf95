//! How much memory the process may use: the machine's, or less where a control group says so.

use std::path::Path;

/// The memory that the process may use in bytes; `None` where the system does not tell.
pub(super) fn memory_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_folders(&group)
        .filter_map(|folder| std::fs::read_to_string(folder.join("memory.max")).ok())
        .filter_map(|text| limit_bytes(&text));
    // Every ancestor's limit holds.
    limits.chain(machine).min()
}

/// `MemTotal` of `/proc/meminfo`, which counts in KiB.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The folders of the process's group (version 2) and its ancestors, from `/proc/self/cgroup`.
fn group_folders(group: &str) -> impl Iterator<Item = std::path::PathBuf> {
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let path = Path::new(path.trim_start_matches('/')).to_owned();
    // A path with `..` means a group outside of what this namespace shows.
    let plain = !path.components().any(|part| part == std::path::Component::ParentDir);
    let path = if plain { path } else { std::path::PathBuf::new() };
    path.ancestors().map(|part| Path::new("/sys/fs/cgroup").join(part)).collect::<Vec<_>>().into_iter()
}

/// The content of `memory.max`: a number of bytes, or `max` for none.
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_bytes() {
        assert_eq!(total_bytes("MemTotal:        8046212 kB\nMemFree: 1 kB\n"), Some(8_046_212 * 1024));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
        assert_eq!(total_bytes("MemTotal: many kB\n"), None);
    }

    #[test]
    fn the_groups_ancestors_count_too() {
        let folders: Vec<_> = group_folders("1:name=x:/other\n0::/a/b\n").collect();
        let expected = ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"];
        assert_eq!(folders, expected.map(std::path::PathBuf::from));
        let outside: Vec<_> = group_folders("0::/../../x\n").collect();
        assert_eq!(outside, [std::path::PathBuf::from("/sys/fs/cgroup/")]);
    }

    #[test]
    fn no_limit_is_no_number() {
        assert_eq!(limit_bytes("max\n"), None);
        assert_eq!(limit_bytes("536870912\n"), Some(536_870_912));
    }
}
