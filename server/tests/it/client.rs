//! The programs of the clients that `clients` drives: how each is started, and what it can do.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A client that people bring; `tests/clients/README.md` has the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Client {
    Git,
    NewerGit,
    Pygit2,
    Dulwich,
    Jgit,
    IsomorphicGit,
    Gix,
}

/// Where the programs are in the checkout.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

impl Client {
    /// Its program, without arguments and with an empty environment.
    pub(crate) fn program(self) -> Command {
        let command = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.env_clear().args(arguments);
            command
        };
        let source = |name: &str| format!("{PROGRAMS}/{name}");
        match self {
            Self::Git => command(Path::new("sh"), &[&source("git_client.sh")]),
            Self::NewerGit => {
                let mut command = command(Path::new("sh"), &[&source("git_client.sh")]);
                command.env("GOVC_TEST_GIT", newer_git());
                command
            }
            Self::Pygit2 | Self::Dulwich => {
                let python = installed("python", &["requirements.txt"]).join("bin/python");
                let name = if self == Self::Pygit2 { "pygit2_client.py" } else { "dulwich_client.py" };
                command(&python, &[&source(name)])
            }
            Self::Jgit => {
                let folder = installed("jgit", &["pom.xml", "JGitClient.java"]);
                let classes = format!("{0}/classes:{0}/libraries/*", folder.display());
                // Each process lives for a second: no time to optimise anything.
                let quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
                command(Path::new("java"), &[quick[0], quick[1], "-cp", &classes, "JGitClient"])
            }
            Self::IsomorphicGit => {
                let folder = installed("node", &["package.json", "package-lock.json"]);
                let mut command = command(Path::new("node"), &[&source("isomorphic_git.cjs")]);
                command.env("NODE_PATH", folder.join("node_modules"));
                command
            }
            Self::Gix => {
                let folder = installed("gix", &["gix/Cargo.toml", "gix/Cargo.lock", "gix/src/main.rs"]);
                command(&folder.join("gix-client"), &[])
            }
        }
    }

    pub(crate) fn pushes(self) -> bool {
        self != Self::Gix
    }

    pub(crate) fn checks_out(self) -> bool {
        self != Self::Gix
    }

    /// Whether it can be told of an authority for certificates.
    pub(crate) fn speaks_https(self) -> bool {
        self != Self::Gix
    }

    pub(crate) fn speaks_ssh(self) -> bool {
        self != Self::IsomorphicGit
    }

    pub(crate) fn filters(self) -> bool {
        matches!(self, Self::Git | Self::NewerGit | Self::Dulwich | Self::Jgit)
    }
}

/// The newer git.
pub(crate) fn newer_git() -> PathBuf {
    installed("newer-git", &["newer_git.sources", "newer_git.sh"]).join("bin/git")
}

/// The folder of an installed client, which must have been made from these files of the checkout.
fn installed(name: &str, made_from: &[&str]) -> PathBuf {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // As scripts/clients has it.
    let clients = given("GOVC_TEST_CLIENTS").unwrap_or_else(|| {
        let home = || given("HOME").or_else(|| given("TMPDIR")).unwrap_or_else(|| "/tmp".into()).join(".cache");
        given("XDG_CACHE_HOME").unwrap_or_else(home).join("govc-clients")
    });
    let folder = clients.join(name);
    for file in made_from {
        let wanted = Path::new(PROGRAMS).join(file);
        let made = folder.join("made-from").join(wanted.file_name().expect("a file"));
        let same = std::fs::read(&made).ok() == Some(std::fs::read(&wanted).expect("a file of the checkout"));
        assert!(
            same,
            "the Git client '{name}' is not installed as this checkout wants it: run scripts/clients (`make test` does, after \
             scripts/prerequisites --tests). {} is not {}",
            made.display(),
            wanted.display()
        );
    }
    folder
}
