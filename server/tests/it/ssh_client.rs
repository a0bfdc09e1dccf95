//! OpenSSH's client and its keys, for tests of Git over SSH.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    git::Git,
    http::Http,
    server::{Launch, Place, Server},
};

/// Only a guard against waiting for ever.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Keys, and the file of those that may come in.
pub(crate) struct Keys {
    folder: PathBuf,
    pub(crate) authorized: PathBuf,
}

impl Keys {
    pub(crate) fn new(place: &Place) -> Self {
        let folder = place.path("keys");
        std::fs::create_dir_all(&folder).expect("a folder");
        let authorized = folder.join("authorized_keys");
        std::fs::write(&authorized, "# nobody yet\n").expect("a file");
        Self { folder, authorized }
    }

    /// A new key with a comment; its file, beside which the public one is.
    pub(crate) fn make(&self, name: &str, kind: &str) -> PathBuf {
        let path = self.folder.join(name);
        let output = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-C", name, "-f", text(&path)])
            .output()
            .expect("OpenSSH's client is installed (scripts/prerequisites --tests)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    }

    /// Adds a key's line, with options in front.
    pub(crate) fn allow(&self, key: &Path, options: &str) {
        let public = std::fs::read_to_string(key.with_extension("pub")).expect("a public key");
        let mut all = std::fs::read_to_string(&self.authorized).expect("a file");
        all.push_str(&format!("{options} {}\n", public.trim()));
        std::fs::write(&self.authorized, all).expect("a file");
    }

    /// A key that may come in.
    pub(crate) fn allowed(&self, name: &str) -> PathBuf {
        let key = self.make(name, "ed25519");
        self.allow(&key, "");
        key
    }

    pub(crate) fn launch(&self, place: &Place) -> Launch {
        let keys = text(&self.authorized);
        place.launch().with(&["--ssh-listen", "127.0.0.1:0", "--ssh-authorized-keys", keys])
    }

    /// What a client is told about its key and the server's, which is learnt at the first time and then insisted on.
    pub(crate) fn options(&self, key: &Path) -> Vec<String> {
        let known = self.folder.join("known_hosts");
        let options = ["-F", "/dev/null", "-i", text(key), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"];
        let mut options: Vec<String> = options.map(str::to_owned).to_vec();
        for option in ["BatchMode=yes", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR"] {
            options.extend(["-o".to_owned(), option.to_owned()]);
        }
        options.extend(["-o".to_owned(), format!("UserKnownHostsFile={}", known.display())]);
        options
    }

    /// A git that uses this key.
    pub(crate) fn git(&self, place: &Place, key: &Path) -> Git {
        let command = format!("ssh {}", self.options(key).join(" "));
        Git::new(&place.path("home")).with("core.sshCommand", &command).with("ssh.variant", "ssh")
    }

    /// OpenSSH's client on its own.
    pub(crate) fn ssh(&self, key: &Path, server: &Server, arguments: &[&str]) -> Command {
        let address = ssh_address(server);
        let mut command = Command::new("ssh");
        command.args(self.options(key)).args(["-p", &address.port().to_string(), "anybody@127.0.0.1"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

pub(crate) fn ssh_address(server: &Server) -> SocketAddr {
    let said = server.said();
    let (_, rest) = said.split_once(" and ssh://").expect("the server says where SSH is");
    rest.split_whitespace().next().expect("an address").parse().expect("an address")
}

pub(crate) fn url(server: &Server, repo: &str) -> String {
    format!("ssh://git@{}/{repo}.git", ssh_address(server))
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A figure at `/metrics`, zero when it is not there.
pub(crate) fn figure(http: &Http, name: &str) -> u64 {
    let metrics = http.get("/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "{what} never came");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A started client, ended however the test ends.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let input = self.0.stdin.as_mut().expect("a pipe");
        input.write_all(bytes).and_then(|()| input.flush()).expect("the client reads");
    }

    /// Reads as much of the output as the first line of an advertisement takes.
    pub(crate) fn read_line(&mut self) -> Vec<u8> {
        let output = self.0.stdout.as_mut().expect("a pipe");
        let mut prefix = [0; 4];
        output.read_exact(&mut prefix).expect("a line");
        let len = usize::from_str_radix(std::str::from_utf8(&prefix).expect("digits"), 16).expect("digits");
        let mut line = vec![0; len.saturating_sub(4)];
        output.read_exact(&mut line).expect("a line");
        line
    }
}
