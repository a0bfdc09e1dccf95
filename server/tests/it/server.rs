//! The real server as a child process: started on a free port, killed, asked to stop, started again on the same data.
//!
//! The server's own line about its address is the handshake: a test speaks to it only after that line. What the
//! process prints is kept and shown when it does not start. Dropping a [`Server`] kills the process.

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use govc_engine::ObjectFormat;
use serde_json::Value;
use tempfile::TempDir;

use crate::{http::Http, tested, tls::Trust};

/// Only a guard against waiting for ever; no test depends on its length.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A folder for one test: the server's data, homes and checkouts.
pub(crate) struct Place {
    dir: TempDir,
}

/// How a server is started.
#[derive(Clone)]
pub(crate) struct Launch {
    /// Another file than the one that was built.
    program: Option<PathBuf>,
    /// A folder, and the megabytes of the file system that only the server sees there.
    disk: Option<(PathBuf, u32)>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// Whom clients trust, if it is served over HTTPS.
    trust: Option<&'static Trust>,
}

/// A running server.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
    launch: Launch,
}

/// What is in the data folder of a server that is stopped, whether or not anything leads to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Rows of the store and their bytes, by family.
    families: Value,
    /// The files of packs on their way in.
    incoming: Vec<String>,
}

/// The child, with what it prints.
struct Process {
    child: Child,
    text: Arc<Mutex<String>>,
    /// The lines of standard output.
    lines: Mutex<Receiver<String>>,
    followers: Vec<JoinHandle<()>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in the folder; nothing is created.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server on a free port with RocksDB under `data` in this folder.
    pub(crate) fn launch(&self) -> Launch {
        let data = self.path("data");
        let data = data.to_str().expect("a path in UTF-8");
        Launch::bare().with(&["--listen", "127.0.0.1:0", "--data", data])
    }

    /// Starts the ordinary server of most tests.
    pub(crate) fn serve(&self) -> Server {
        self.launch().start()
    }

    /// What a server that is stopped has left, which must be sound.
    #[track_caller]
    pub(crate) fn left(&self) -> Left {
        Left::of(&self.path("data"), "rocksdb")
    }
}

impl Left {
    /// What is in a data folder with such a backend, which must be sound.
    #[track_caller]
    pub(crate) fn of(data: &Path, backend: &str) -> Self {
        let ask = |verb: &str| -> Value {
            let output = govc().args([verb, "--json", "--backend", backend, "--data"]).arg(data).output();
            let output = output.expect("govc runs");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "govc {verb}: {text}{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_str(&text).expect("JSON")
        };
        assert_eq!(ask("fsck")["clean"], true);
        Self { families: ask("stats")["families"].take(), incoming: incoming(data) }
    }

    /// The rows of what repositories consist of, and the bytes of all blocks: of other rows, those are what their numbers are.
    pub(crate) fn measures(&self) -> (Vec<(&str, u64)>, u64) {
        let families = self.families.as_object().expect("families").keys().filter(|family| *family != "meta");
        let rows = families.map(|family| (family.as_str(), self.rows(family))).collect();
        (rows, self.families["blocks"]["bytes"].as_u64().expect("a number of bytes"))
    }

    /// How many rows a family of the store has.
    pub(crate) fn rows(&self, family: &str) -> u64 {
        self.families[family]["rows"].as_u64().expect("a number of rows")
    }
}

impl Launch {
    /// `govc serve` without any argument.
    pub(crate) fn bare() -> Self {
        Self { program: None, disk: None, arguments: Vec::new(), environment: Vec::new(), trust: None }
    }

    /// The same with further arguments.
    pub(crate) fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// The same with a copy of the program.
    pub(crate) fn program(mut self, program: PathBuf) -> Self {
        self.program = Some(program);
        self
    }

    /// The same with a small file system of its own at a folder, which is gone with the server.
    pub(crate) fn disk(mut self, folder: PathBuf, megabytes: u32) -> Self {
        self.disk = Some((folder, megabytes));
        self
    }

    /// The same to clients over HTTPS, which trust these authorities.
    pub(crate) fn trusting(mut self, trust: &'static Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// The same with a variable in the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server and waits until it says where it listens.
    pub(crate) fn start(self) -> Server {
        let mut process = self.spawn();
        match process.ready() {
            Some(address) => Server { process, address, launch: self },
            None => panic!("the server did not become ready; {}", process.ended().1),
        }
    }

    /// Starts a server that must end by itself with an error, and returns what it said.
    #[track_caller]
    pub(crate) fn refused(&self) -> String {
        let mut process = self.spawn();
        let address = process.ready();
        let (status, text) = process.ended();
        assert_eq!(address, None, "the server started although it was to refuse; {text}");
        assert!(status.code().is_some_and(|code| code != 0), "it was to end with an error; {text}");
        text
    }

    fn spawn(&self) -> Process {
        let program = self.program.as_deref().unwrap_or(Path::new(BUILT));
        let mut command = match &self.disk {
            None => command_of(program),
            Some((folder, megabytes)) => {
                std::fs::create_dir_all(folder).expect("a folder");
                let mut command = command_of(Path::new("unshare"));
                let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}'", folder.display());
                // The mount is seen by this process alone and goes with it.
                command.args(["--map-root-user", "--mount", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")]);
                command.arg(program);
                command
            }
        };
        command.arg("serve").args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's binary starts");
        let text = Arc::new(Mutex::new(String::new()));
        let (say, lines) = channel();
        let out = follow(child.stdout.take().expect("a piped stream"), &text, Some(say));
        let err = follow(child.stderr.take().expect("a piped stream"), &text, None);
        Process { child, text, lines: Mutex::new(lines), followers: vec![out, err] }
    }
}

impl Process {
    /// The address from the line on standard output; `None` when that was closed without one.
    fn ready(&mut self) -> Option<SocketAddr> {
        while let Ok(line) = self.lines.lock().expect("not poisoned").recv_timeout(READY_WITHIN) {
            let Some((_, rest)) = line.split_once("listening on http") else { continue };
            let Some((_, rest)) = rest.split_once("://") else { continue };
            let mut address: SocketAddr = rest.split_whitespace().next()?.parse().ok()?;
            // A server on all addresses is spoken to on the loopback one.
            if address.ip().is_unspecified() {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            return Some(address);
        }
        None
    }

    /// Ends the process if it has not ended, and returns its status and all that it printed.
    fn ended(&mut self) -> (ExitStatus, String) {
        if self.lines.lock().expect("not poisoned").try_recv() != Err(TryRecvError::Disconnected) {
            let _ = self.child.kill();
        }
        self.waited()
    }

    /// Waits for the end, and returns the status and all that was printed.
    fn waited(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("the process can be waited for");
        for follower in self.followers.drain(..) {
            let _ = follower.join();
        }
        let text = self.text.lock().map(|text| text.clone()).unwrap_or_default();
        (status, format!("it ended with {status} and printed:\n{text}"))
    }
}

impl Server {
    /// A client of this server.
    pub(crate) fn http(&self) -> Http {
        let http = Http::new(self.address);
        self.launch.trust.map_or(http, |trust| http.trusting(trust))
    }

    /// The address for `git clone` and `git push`.
    pub(crate) fn url(&self, repo: &str) -> String {
        let scheme = if self.launch.trust.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{repo}.git", self.address)
    }

    /// Creates a repository with the defaults.
    pub(crate) fn create(&self, repo: &str) {
        let reply = self.http().post("/api/v1/repos", &serde_json::json!({ "id": repo }));
        assert_eq!(reply.status, 201, "creating {repo}: {}", reply.text());
    }

    /// Ends the process as `kill -9` does and returns how to start it again on the same data.
    pub(crate) fn kill(mut self) -> Launch {
        self.process.child.kill().expect("the process can be killed");
        self.process.waited();
        self.launch.clone()
    }

    /// Sends SIGTERM and returns at once.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGTERM, waits for the end and returns how to start again on the same data.
    pub(crate) fn stop(self) -> Launch {
        self.terminate();
        self.stopped()
    }

    /// Stops it in order and starts it again; also what it had left in between.
    #[track_caller]
    pub(crate) fn restarted(self, place: &Place) -> (Self, Left) {
        let launch = self.stop();
        let left = place.left();
        (launch.start(), left)
    }

    /// Waits for the end of a server that was told to stop, which must be an orderly one.
    pub(crate) fn stopped(mut self) -> Launch {
        let (status, text) = self.process.waited();
        assert!(status.success(), "the server was to end in order; {text}");
        self.launch.clone()
    }

    /// What it has printed so far, which lags behind what it does.
    pub(crate) fn said(&self) -> String {
        self.process.text.lock().expect("not poisoned").clone()
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        // std cannot send it, and calling libc for it would be the only unsafe code of the tests.
        let command = format!("kill -{name} {}", self.process.child.id());
        let status = Command::new("sh").args(["-c", &command]).status().expect("sh runs");
        assert!(status.success(), "SIG{name} could not be sent");
    }

    /// A path as the server sees it.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process.child.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Whether the process still runs.
    pub(crate) fn alive(&mut self) -> bool {
        self.process.child.try_wait().expect("the process can be asked").is_none()
    }

    /// The most memory the process ever had resident, in bytes.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let file = format!("/proc/{}/status", self.process.child.id());
        let status = std::fs::read_to_string(file).expect("Linux's /proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kilobytes * 1024
    }

    /// The processor time that the process has taken, in seconds.
    pub(crate) fn cpu_seconds(&self) -> u64 {
        /// What `/proc` counts it in.
        const TICKS_PER_SECOND: u64 = 100;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.child.id())).expect("Linux's /proc");
        // The name of the program, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().expect("a number of ticks")).sum::<u64>() / TICKS_PER_SECOND
    }

    /// What the files are that programs get which it starts, beside its standard streams.
    pub(crate) fn inherited_files(&self) -> Vec<String> {
        /// `O_CLOEXEC`, as `/proc` shows it.
        const CLOSED_ON_EXEC: u32 = 0o2000000;
        let process = PathBuf::from(format!("/proc/{}", self.process.child.id()));
        let mut files = Vec::new();
        for entry in std::fs::read_dir(process.join("fdinfo")).expect("Linux's /proc") {
            let number = entry.expect("a file").file_name();
            // Files come and go meanwhile.
            let Ok(info) = std::fs::read_to_string(process.join("fdinfo").join(&number)) else { continue };
            let Ok(target) = std::fs::read_link(process.join("fd").join(&number)) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
            let flags = u32::from_str_radix(flags.trim(), 8).expect("octal digits");
            if flags & CLOSED_ON_EXEC == 0 && !["0", "1", "2"].contains(&number.to_string_lossy().as_ref()) {
                files.push(target.display().to_string());
            }
        }
        files
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.child.kill();
        let (_, text) = self.process.waited();
        if thread::panicking() {
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("--- the server's last words:\n{}", tail.join("\n"));
        }
    }
}

/// The files in a data folder that hold packs on their way in.
pub(crate) fn incoming(data: &Path) -> Vec<String> {
    let mut open = vec![data.join("packs")];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => open.push(entry.path()),
                false => found.push(entry.file_name().to_string_lossy().into_owned()),
            }
        }
    }
    found.retain(|name| name.starts_with("incoming-"));
    found
}

/// The binary, with nothing of the developer's own settings in its environment.
pub(crate) fn govc() -> Command {
    command_of(Path::new(BUILT))
}

/// The program that was built.
pub(crate) const BUILT: &str = env!("CARGO_BIN_EXE_govc");

fn command_of(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GOVC_") {
            command.env_remove(name);
        }
    }
    if tested::format() != ObjectFormat::default() {
        command.env("GOVC_DEFAULT_OBJECT_FORMAT", tested::format().as_str());
    }
    command
}

/// Keeps every line of `stream` and passes it on.
fn follow(
    stream: impl Read + Send + 'static,
    text: &Arc<Mutex<String>>,
    say: Option<Sender<String>>,
) -> JoinHandle<()> {
    let text = Arc::clone(text);
    thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(lines.read_until(b'\n', &mut line), Ok(length) if length > 0) {
            let words = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            if let Ok(mut text) = text.lock() {
                text.push_str(&words);
            }
            if let Some(say) = &say {
                let _ = say.send(words);
            }
        }
    })
}
