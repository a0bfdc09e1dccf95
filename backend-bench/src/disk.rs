//! What the operating system tells of files: sizes, the page cache, bytes that this process had written.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Advice;

/// Bytes that the files of a folder take on the disk, in all of its folders.
pub(crate) fn used_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    // Blocks are counted in 512 bytes whatever the file system's own are (stat(2)).
    each_file(folder, &mut |path| {
        bytes += fs::metadata(path)?.blocks() * 512;
        Ok(())
    })?;
    Ok(bytes)
}

/// Drops the files of a folder from the page cache, as far as the kernel follows the advice: clean pages that nobody
/// has mapped.
pub(crate) fn drop_from_cache(folder: &Path) -> io::Result<()> {
    each_file(folder, &mut |path| {
        let file = File::open(path)?;
        // Dirty pages would stay.
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(())
    })
}

fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            each_file(&entry.path(), visit)?;
        } else if kind.is_file() {
            visit(&entry.path())?;
        }
    }
    Ok(())
}

/// Bytes that this process has caused to be written to storage so far; `None` where the kernel does not tell. A page
/// counts when it becomes dirty, so what is written back later is counted at once, and a tmpfs counts nothing.
pub(crate) fn written_bytes() -> Option<u64> {
    let io = fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn files_of_nested_folders_count() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).expect("a folder");
        for path in [folder.path().join("one"), inner.join("two")] {
            let mut file = std::fs::File::create(path).expect("a file");
            file.write_all(&[7; 100_000]).expect("write");
            file.sync_all().expect("sync");
        }
        let used = super::used_bytes(folder.path()).expect("sizes");
        assert!((200_000..400_000).contains(&used), "{used}");
        super::drop_from_cache(folder.path()).expect("advice");
    }
}
