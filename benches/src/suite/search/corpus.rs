//! The files that are searched: real source, as a folder for those who read files and as one commit for those who read git.
//!
//! `GOVC_BENCH_SOURCE` names a folder; the default is what every machine that built govc has: the sources of the crates
//! that its lock file names, in cargo's registry folder. What the peers do not agree about is left out: links, files
//! with a NUL (binary to some of them), and files under three bytes, which have no trigram.

use std::fs;
use std::path::{Path, PathBuf};

use crate::bench::progress;
use crate::error::{Context, Error, Result};
use crate::git::{Git, finish};

const LOCK: &str = include_str!("../../../../Cargo.lock");
/// Blobs are the files' bytes, and text, whatever the sources' own attributes say.
const ATTRIBUTES: &str = "* !diff -text !eol -ident !filter !working-tree-encoding\n";

/// The corpus below a working folder.
pub(super) struct Corpus {
    /// A plain folder; nothing of git's is in it.
    pub(super) tree: PathBuf,
    /// A repository with one commit of it, whose work tree it is.
    pub(super) git_dir: PathBuf,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Corpus {
    /// Copies the sources and commits them.
    pub(super) fn make(git: &Git, folder: &Path) -> Result<Corpus> {
        let mut corpus = Corpus { tree: folder.join("tree"), git_dir: folder.join("source.git"), files: 0, bytes: 0 };
        match std::env::var_os("GOVC_BENCH_SOURCE").filter(|source| !source.is_empty()) {
            Some(source) => corpus.copy(Path::new(&source), &corpus.tree.clone())?,
            None => corpus.copy_crates()?,
        }
        if corpus.files == 0 {
            return Err(Error::new("there is no source to search; GOVC_BENCH_SOURCE may name a folder"));
        }
        progress(&format!("corpus: {} files, {:.0} MB", corpus.files, corpus.bytes as f64 / 1e6));
        git.run(folder, ["init", "--quiet", "--bare", "source.git"])?;
        fs::create_dir_all(corpus.git_dir.join("info")).context(|| "cannot make a folder of git's".into())?;
        fs::write(corpus.git_dir.join("info/attributes"), ATTRIBUTES).context(|| "cannot write attributes".into())?;
        corpus.git(git, &["config", "core.bare", "false"])?;
        corpus.git(git, &["add", "--force", "--all", "."])?;
        corpus.git(git, &["commit", "--quiet", "--message", "Source"])?;
        Ok(corpus)
    }

    /// Runs git on the repository, in the work tree.
    pub(super) fn git(&self, git: &Git, arguments: &[&str]) -> Result<Vec<u8>> {
        finish(self.git_command(git, arguments))
    }

    /// The same, not yet run.
    pub(super) fn git_command(&self, git: &Git, arguments: &[&str]) -> std::process::Command {
        let mut command = git.command(&self.tree);
        command.env("GIT_DIR", &self.git_dir).env("GIT_WORK_TREE", &self.tree).args(arguments);
        command
    }

    fn copy_crates(&mut self) -> Result<()> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
        let sources = home.context(|| "neither CARGO_HOME nor HOME is set".into())?.join("registry/src");
        for name in locked_crates() {
            for registry in sorted(&sources)? {
                let from = registry.join(&name);
                // Not every crate is for this platform.
                if from.is_dir() {
                    self.copy(&from, &self.tree.join(&name))?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let cannot = || format!("cannot copy {}", from.display());
        fs::create_dir_all(to).context(cannot)?;
        for path in sorted(from)? {
            let kind = path.symlink_metadata().context(cannot)?.file_type();
            let Some(name) = path.file_name().filter(|name| *name != ".git") else { continue };
            if kind.is_dir() {
                self.copy(&path, &to.join(name))?;
            } else if kind.is_file() {
                let content = fs::read(&path).context(cannot)?;
                if content.len() >= 3 && !content.contains(&0) {
                    fs::write(to.join(name), &content).context(cannot)?;
                    self.files += 1;
                    self.bytes += content.len() as u64;
                }
            }
        }
        Ok(())
    }
}

/// `name-version` of all crates of the lock file that come from a registry.
fn locked_crates() -> Vec<String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
        line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    let packages = LOCK.split("[[package]]").filter(|block| block.contains("source = \"registry+"));
    packages.filter_map(|block| Some(format!("{}-{}", value(block, "name")?, value(block, "version")?))).collect()
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).context(cannot)?;
    let mut paths = entries.map(|entry| Ok(entry.context(cannot)?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::locked_crates;

    #[test]
    fn crates_of_the_lock_file() {
        let crates = locked_crates();
        assert!(crates.len() > 100, "{}", crates.len());
        assert!(crates.iter().any(|name| name.starts_with("serde-1.")), "{crates:?}");
        assert!(!crates.iter().any(|name| name.starts_with("govc-")), "our own come from no registry");
    }
}
