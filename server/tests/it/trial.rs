//! A client on trial: its folders, the history it is given, and what git says of what it made of that.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Output,
};

use crate::{client::Client, git::Git, history::noise, server::Place};

/// One client in a folder of its own, and git beside it with the same home.
pub(crate) struct Trial<'a> {
    pub(crate) client: Client,
    pub(crate) place: &'a Place,
    pub(crate) git: Git,
    pub(crate) home: PathBuf,
    pub(crate) source: PathBuf,
    pub(crate) ca: Option<PathBuf>,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(client: Client, place: &'a Place) -> Self {
        // It fails at once if it is not there.
        client.program();
        let home = place.path("home");
        let git = Git::new(&home);
        let trial = Self { client, place, git, home, source: place.path("source"), ca: None };
        trial.set("user.name", "Ada Test");
        trial.set("user.email", "ada@example.com");
        trial.begin_history();
        trial
    }

    /// A setting in the home, where clients other than git find it, too.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.git.ok(&self.home, &["config", "--global", name, value]);
    }

    /// A history with all kinds of files and references; every tag is on the tip of a branch.
    fn begin_history(&self) {
        let (git, dir) = (&self.git, &self.source);
        git.init(dir);
        for at in 0..6 {
            let text: String =
                (0..200).map(|line| format!("line {line}, {}\n", if line == at { at } else { 0 })).collect();
            git.commit(dir, "text", text.as_bytes(), "text");
            git.commit(dir, &format!("dir/sub {at}/file"), format!("{at}\n").as_bytes(), "another file");
        }
        git.ok(dir, &["checkout", "-q", "-b", "side", "HEAD~3"]);
        git.commit(dir, "side", b"side\n", "side");
        git.ok(dir, &["tag", "light"]);
        git.ok(dir, &["checkout", "-q", "main"]);
        git.ok(dir, &["merge", "-q", "--no-ff", "-m", "merge", "side"]);
        symlink("dir/sub 0/file", dir.join("link")).expect("a link");
        std::fs::write(dir.join("run"), "#!/bin/sh\n").expect("a file");
        std::fs::set_permissions(dir.join("run"), std::fs::Permissions::from_mode(0o755)).expect("an executable file");
        std::fs::write(dir.join("big"), noise(1, 2 << 20)).expect("a file");
        std::fs::write(dir.join("empty"), "").expect("a file");
        git.commit(
            dir,
            "gr\u{fc}n \u{2603}/\u{4e2d}\u{6587}.txt",
            "\u{fc}\n".as_bytes(),
            "all kinds of files \u{2603}",
        );
        git.ok(dir, &["branch", "feature/\u{fc}n\u{ef}"]);
        git.ok(dir, &["checkout", "-q", "-b", "moved", "HEAD~1"]);
        git.commit(dir, "moved", b"before\n", "to be replaced");
        git.ok(dir, &["checkout", "-q", "main"]);
        git.ok(dir, &["tag", "-a", "-m", "version 1", "v1"]);
    }

    /// What a fetch has to bring: main goes on, `moved` is elsewhere, a branch and a tag are new.
    pub(crate) fn go_on(&self) {
        let (git, dir) = (&self.git, &self.source);
        git.commit(dir, "text", b"all anew\n", "replace a file");
        std::fs::remove_file(dir.join("link")).expect("a link");
        std::fs::rename(dir.join("big"), dir.join("dir/big")).expect("a file");
        git.commit(dir, "link", b"a file now\n", "move things");
        git.ok(dir, &["tag", "-a", "-m", "version 2", "v2"]);
        git.ok(dir, &["checkout", "-q", "moved"]);
        git.ok(dir, &["reset", "-q", "--hard", "HEAD~1"]);
        git.commit(dir, "moved", b"after\n", "replaced");
        git.ok(dir, &["checkout", "-q", "-b", "new"]);
        git.commit(dir, "new", b"new\n", "on a new branch");
        git.ok(dir, &["checkout", "-q", "main"]);
    }

    /// The source's references go to the server by git.
    pub(crate) fn publish(&self, url: &str) {
        let all = ["push", "-q", "--force", url, "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"];
        self.git.ok(&self.source, &all);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.client.program();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        // Java takes the names of files to be in this encoding.
        command.env("HOME", &self.home).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        if let Some(ca) = &self.ca {
            command.env("GOVC_TEST_CA", ca).env("NODE_EXTRA_CA_CERTS", ca);
        }
        command.current_dir(&self.home).args(arguments).output().unwrap_or_else(|error| {
            panic!("{:?} does not start: {error}; scripts/prerequisites --tests installs what it needs", self.client)
        })
    }

    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{:?} {arguments:?} ended with {}:\n{}",
            self.client,
            output.status,
            said(&output)
        );
    }

    /// Runs a push of which something must be refused, and returns what the client says about that.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = said(&output);
        assert!(!output.status.success(), "{:?} {arguments:?} was to be refused:\n{said}", self.client);
        assert!(said.contains("refused: "), "{:?} {arguments:?} failed for another reason:\n{said}", self.client);
        said
    }

    /// Clones from the server with the client and from the source with git, and returns both folders.
    #[track_caller]
    pub(crate) fn cloned(&self, url: &str, name: &str, depth: Option<&str>) -> [PathBuf; 2] {
        let [wanted, got] = ["wanted", "got"].map(|which| self.place.path(&format!("{name}-{which}")));
        let local = format!("file://{}", self.source.display());
        if let Some(depth) = depth {
            self.git.clone_repo(&local, &wanted, &["--no-single-branch", "--depth", depth]);
            self.ok(&["shallow", url, text(&got), depth]);
        } else {
            self.git.clone_repo(&local, &wanted, &[]);
            self.ok(&["clone", url, text(&got)]);
        }
        self.assert_checked_out(&wanted, &got);
        self.assert_same(&[wanted.clone(), got.clone()], name);
        [wanted, got]
    }

    /// Asserts that two clones have the same references, objects, border and nothing to complain about.
    #[track_caller]
    pub(crate) fn assert_same(&self, [wanted, got]: &[PathBuf; 2], step: &str) {
        let [wanted, got] = [wanted, got].map(|dir| State::of(&self.git, dir));
        assert_eq!(wanted, got, "{:?}, {step}", self.client);
        assert_eq!(got.findings, (Some(0), Vec::new()), "{:?}, {step}", self.client);
    }

    /// Asserts that the work tree is the commit's, and the index too.
    #[track_caller]
    fn assert_checked_out(&self, wanted: &Path, got: &Path) {
        let git = &self.git;
        if self.client.checks_out() {
            // By the client's own index.
            assert_eq!(git.ok(got, &["status", "--porcelain"]), "", "{:?}", self.client);
            // And with every file read.
            std::fs::remove_file(got.join(".git/index")).expect("the client wrote an index");
            git.ok(got, &["reset", "-q"]);
        } else {
            git.ok(got, &["reset", "-q", "--hard"]);
        }
        assert_eq!(git.ok(got, &["status", "--porcelain"]), "", "{:?}", self.client);
        for question in [&["rev-parse", "HEAD"][..], &["symbolic-ref", "HEAD"], &["ls-files", "-s"]] {
            assert_eq!(git.ok(wanted, question), git.ok(got, question), "{:?}", self.client);
        }
    }
}

/// What a clone has.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    references: Vec<String>,
    /// Every object that a reference leads to.
    objects: Vec<String>,
    /// The border of a shallow clone.
    pub(crate) shallow: Vec<String>,
    findings: (Option<i32>, Vec<String>),
}

impl State {
    pub(crate) fn of(git: &Git, dir: &Path) -> Self {
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let mut references = sorted(git.references(dir));
        // Not every client keeps it.
        references.retain(|line| !line.ends_with(" refs/remotes/origin/HEAD"));
        Self {
            references,
            objects: sorted(git.ok(dir, &["rev-list", "--objects", "--no-object-names", "--all"])),
            shallow: sorted(std::fs::read_to_string(dir.join(".git/shallow")).unwrap_or_default()),
            findings: git.findings(dir),
        }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}
