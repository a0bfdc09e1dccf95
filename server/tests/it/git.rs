//! The real `git` as client and oracle, with an environment of its own: no settings of the machine, fixed people.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread,
};

use crate::tested;

/// The oldest git that clients are held to have, and that the tests know.
const OLDEST: [u32; 2] = [2, 39];

/// Asserts that the git in PATH is as new as it must be, and says once which one it is.
fn assert_recent() {
    static SAID: OnceLock<String> = OnceLock::new();
    let said = SAID.get_or_init(|| {
        let output = Command::new("git").arg("--version").output().expect("git is installed");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // Past the capture of what tests print.
        let _ = writeln!(std::io::stderr(), "the tests' client and oracle is {said}");
        said
    });
    assert!(is_recent(said), "the tests need a git of {}.{} or newer in PATH; it is {said:?}", OLDEST[0], OLDEST[1]);
}

/// Whether `git version 2.39.5 (of somebody)` is recent enough.
fn is_recent(said: &str) -> bool {
    let version = said.strip_prefix("git version ").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let found = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    found >= OLDEST
}

#[test]
fn the_git_of_the_tests_is_as_new_as_it_must_be() {
    assert_recent();
    for recent in
        ["git version 2.39.0", "git version 2.39.3 (Apple Git-146)", "git version 2.51.0.rc1", "git version 3.0"]
    {
        assert!(is_recent(recent), "{recent}");
    }
    for old in ["git version 2.38.9", "git version 1.99", "git version", "", "2.39.0"] {
        assert!(!is_recent(old), "{old}");
    }
}

/// Runs git with a home of its own.
#[derive(Clone)]
pub(crate) struct Git {
    program: PathBuf,
    home: PathBuf,
    settings: Vec<(String, String)>,
}

impl Git {
    /// A git whose home is created below `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        assert_recent();
        std::fs::create_dir_all(dir).expect("a home for git");
        let settings = [
            ("init.defaultBranch", "main"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("core.fsync", "none"),
            ("safe.directory", "*"),
            ("protocol.file.allow", "always"),
            ("pull.ff", "only"),
            ("advice.detachedHead", "false"),
        ];
        let settings = settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { program: "git".into(), home: dir.to_owned(), settings }
    }

    /// The same by another program.
    pub(crate) fn by(&self, program: PathBuf) -> Self {
        Self { program, ..self.clone() }
    }

    /// The same with a setting, such as `protocol.version`.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut git = self.clone();
        git.settings.push((name.to_owned(), value.to_owned()));
        git
    }

    /// A command in `dir`, to be completed and run by the caller.
    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir(dir);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("HOME", &self.home).env("LC_ALL", "C").env("TZ", "UTC");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_DEFAULT_HASH", tested::format().as_str());
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "Ada Test").env(format!("GIT_{role}_EMAIL"), "ada@example.com");
            command.env(format!("GIT_{role}_DATE"), "1700000000 +0100");
        }
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
    }

    /// Runs git to its end, whatever comes of it.
    pub(crate) fn run(&self, dir: &Path, arguments: &[&str]) -> Output {
        self.feed(dir, arguments, b"")
    }

    /// The same with standard input.
    pub(crate) fn feed(&self, dir: &Path, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(dir);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git is installed");
        let mut stdin = child.stdin.take().expect("a piped stream");
        thread::scope(|scope| {
            // Git may answer before it has read everything; a broken pipe shows in its status.
            scope.spawn(move || {
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().expect("git can be waited for")
        })
    }

    /// Runs git, which must succeed, and returns its output without the last newline.
    #[track_caller]
    pub(crate) fn ok(&self, dir: &Path, arguments: &[&str]) -> String {
        self.ok_fed(dir, arguments, b"")
    }

    /// The same with standard input.
    #[track_caller]
    pub(crate) fn ok_fed(&self, dir: &Path, arguments: &[&str], input: &[u8]) -> String {
        let output = self.feed(dir, arguments, input);
        assert!(
            output.status.success(),
            "git {arguments:?} ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Runs git, which must fail, and returns what it wrote to standard error.
    #[track_caller]
    pub(crate) fn fails(&self, dir: &Path, arguments: &[&str]) -> String {
        let output = self.run(dir, arguments);
        assert!(!output.status.success(), "git {arguments:?} was to fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Stores an object as it is, however odd, and returns its id.
    #[track_caller]
    pub(crate) fn object(&self, dir: &Path, kind: &str, data: &[u8]) -> String {
        self.ok_fed(dir, &["hash-object", "-t", kind, "--literally", "-w", "--stdin"], data)
    }

    /// A new repository with a working tree in `dir`.
    pub(crate) fn init(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a folder for the repository");
        self.ok(dir, &["init", "-q"]);
    }

    /// Writes a file and commits it; returns the commit's id.
    pub(crate) fn commit(&self, dir: &Path, path: &str, content: &[u8], message: &str) -> String {
        let file = dir.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).expect("a folder in the working tree");
        }
        std::fs::write(&file, content).expect("a file in the working tree");
        self.ok(dir, &["add", "--all", "."]);
        self.ok(dir, &["commit", "-q", "--allow-empty", "-m", message]);
        self.ok(dir, &["rev-parse", "HEAD"])
    }

    /// Clones `url` into `dir` with further options.
    #[track_caller]
    pub(crate) fn clone_repo(&self, url: &str, dir: &Path, options: &[&str]) {
        let target = dir.to_str().expect("a path in UTF-8");
        let mut arguments = vec!["clone", "-q"];
        arguments.extend_from_slice(options);
        arguments.extend_from_slice(&[url, target]);
        self.ok(&self.home, &arguments);
    }

    /// All references and their ids.
    pub(crate) fn references(&self, dir: &Path) -> String {
        self.ok(dir, &["for-each-ref", "--format=%(objectname) %(refname)"])
    }

    /// Every stored object: id, kind, size.
    pub(crate) fn objects(&self, dir: &Path) -> Vec<String> {
        let check = "--batch-check=%(objectname) %(objecttype) %(objectsize)";
        let text = self.ok(dir, &["cat-file", "--batch-all-objects", check]);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// What `git fsck --strict` finds, with its status; equal histories must give equal findings.
    pub(crate) fn findings(&self, dir: &Path) -> (Option<i32>, Vec<String>) {
        let output = self.run(dir, &["fsck", "--strict", "--full", "--no-dangling", "--no-progress"]);
        let text = [output.stdout, output.stderr].concat();
        // Notices speak of HEAD, which a mirror does not copy.
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.starts_with("notice:")).map(str::to_owned).collect();
        lines.sort();
        (output.status.code(), lines)
    }
}

/// Asserts that two repositories hold the same references and, object by object, the same bytes.
#[track_caller]
pub(crate) fn assert_same(git: &Git, source: &Path, copy: &Path) {
    assert_eq!(git.references(source), git.references(copy), "references differ");
    let (wanted, got) = (git.objects(source), git.objects(copy));
    let missing: Vec<_> = wanted.iter().filter(|line| got.binary_search(line).is_err()).take(10).collect();
    let surplus: Vec<_> = got.iter().filter(|line| wanted.binary_search(line).is_err()).take(10).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");
    assert_eq!(git.findings(source), git.findings(copy), "git fsck --strict finds other things");
}
