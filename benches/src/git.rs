//! The real `git`: client, oracle and peer.
//!
//! Every call runs with a configuration of its own, never the system's or the user's, so that figures do
//! not depend on whose machine it is, and so that histories owned by another user can be read.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// `receive.autogc` is off because a detached clean-up after a push would cost the peer CPU time that
/// nobody waits for, at a moment that nobody chose.
const CONFIG: &str = "\
[safe]
\tdirectory = *
[user]
\tname = Bench
\temail = bench@example.com
[init]
\tdefaultBranch = main
[gc]
\tauto = 0
[maintenance]
\tauto = false
[receive]
\tautogc = false
[http]
\treceivepack = true
[core]
\thooksPath = /dev/null
[advice]
\tdetachedHead = false
";

/// Runs `git` with the benches' configuration.
pub(crate) struct Git {
    config: PathBuf,
    version: String,
    exec_path: PathBuf,
}

impl Git {
    /// Finds `git` and writes its configuration into `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Git> {
        let config = folder.join("gitconfig");
        fs::write(&config, CONFIG).context(|| format!("cannot write {}", config.display()))?;
        let mut git = Git { config, version: String::new(), exec_path: PathBuf::new() };
        let version = git.lines(folder, ["--version"])?.concat();
        git.version = version.trim_start_matches("git version ").to_owned();
        git.exec_path = PathBuf::from(git.lines(folder, ["--exec-path"])?.concat());
        Ok(git)
    }

    /// The version as git prints it, for example `2.39.5`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The program that serves repositories behind a web server.
    pub(crate) fn http_backend(&self) -> PathBuf {
        self.exec_path.join("git-http-backend")
    }

    /// The settings that a `git` process needs, as environment variables.
    pub(crate) fn environment(&self) -> [(&'static str, &OsStr); 3] {
        [
            ("GIT_CONFIG_GLOBAL", self.config.as_os_str()),
            ("GIT_CONFIG_NOSYSTEM", OsStr::new("1")),
            ("GIT_TERMINAL_PROMPT", OsStr::new("0")),
        ]
    }

    /// A `git` command in a folder, to be completed by the caller.
    pub(crate) fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new("git");
        command.current_dir(folder).envs(self.environment()).stdin(Stdio::null());
        for variable in
            ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<I, S>(&self, folder: &Path, arguments: I) -> Result<Vec<u8>>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(folder);
        command.args(arguments);
        finish(command)
    }

    /// Runs a command and gives the lines that it prints.
    pub(crate) fn lines<I, S>(&self, folder: &Path, arguments: I) -> Result<Vec<String>>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = self.run(folder, arguments)?;
        Ok(String::from_utf8_lossy(&output).lines().map(str::to_owned).collect())
    }

    /// `<id> <name>` of all references, sorted by name.
    pub(crate) fn references(&self, repository: &Path) -> Result<Vec<String>> {
        let mut lines = self.lines(repository, ["for-each-ref", "--format=%(objectname) %(refname)"])?;
        sort_references(&mut lines);
        Ok(lines)
    }

    /// `<id> <name>` of all references that a server shows, sorted by name.
    pub(crate) fn remote_references(&self, folder: &Path, url: &str) -> Result<Vec<String>> {
        let lines = self.lines(folder, ["ls-remote", "--refs", url])?;
        let mut lines: Vec<String> = lines.iter().map(|line| line.replacen('\t', " ", 1)).collect();
        sort_references(&mut lines);
        Ok(lines)
    }

    /// Ids of all objects that the references reach, sorted.
    pub(crate) fn reachable_objects(&self, repository: &Path) -> Result<Vec<String>> {
        let mut ids = self.lines(repository, ["rev-list", "--objects", "--no-object-names", "--all"])?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// Ids of all objects in the repository, reachable or not, sorted.
    pub(crate) fn stored_objects(&self, repository: &Path) -> Result<Vec<String>> {
        let mut ids =
            self.lines(repository, ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)", "--unordered"])?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

/// Brings `<id> <name>` lines into one order, whoever printed them.
pub(crate) fn sort_references(lines: &mut [String]) {
    lines.sort_unstable_by(|a, b| name_of(a).cmp(name_of(b)));
}

fn name_of(line: &str) -> &str {
    line.split_once(' ').map_or(line, |(_, name)| name)
}

/// Runs a prepared command to its end; its output, or an error that quotes what it complained about.
pub(crate) fn finish(mut command: Command) -> Result<Vec<u8>> {
    let output = command.output().context(|| format!("cannot run {:?}", command.get_program()))?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        return Err(Error::new(format!(
            "git {} failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    Ok(output.stdout)
}
