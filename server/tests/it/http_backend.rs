//! The real `git http-backend` behind a few lines of HTTP, with a script that may change what it answers: servers that
//! are old, that break off, or that lie.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::{git::Git, http::Wire, tls::Pair};

/// A server of the bare repositories in a folder.
pub(crate) struct HttpBackend {
    scheme: &'static str,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    query: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// How many of the same method came before.
    pub(crate) before: usize,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// After so many bytes of the body the connection ends.
    pub(crate) cut: Option<usize>,
    /// After so many bytes of the body nothing comes any more.
    pub(crate) stall: Option<usize>,
    /// After so many bytes of the body nothing comes for so long.
    pub(crate) pause: Option<(usize, Duration)>,
}

type Script = dyn Fn(&Asked, Given) -> Given + Send + Sync;

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..])
    }

    /// The request's text, with what is binary replaced.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl HttpBackend {
    /// Serves the repositories in `root`; `script` gets every request with git's answer and gives the one that is sent.
    pub(crate) fn start(
        git: &Git,
        root: &Path,
        script: impl Fn(&Asked, Given) -> Given + Send + Sync + 'static,
    ) -> Self {
        Self::begin(git, root, None, true, script)
    }

    /// The same of a git that knows no version but 0.
    pub(crate) fn start_old(git: &Git, root: &Path) -> Self {
        Self::begin(git, root, None, false, |_, given| given)
    }

    /// The same over HTTPS, with such a certificate.
    pub(crate) fn start_secure(git: &Git, root: &Path, pair: &Pair) -> Self {
        Self::begin(git, root, Some(Arc::new(pair.server())), true, |_, given| given)
    }

    fn begin(
        git: &Git,
        root: &Path,
        tls: Option<Arc<ServerConfig>>,
        has_versions: bool,
        script: impl Fn(&Asked, Given) -> Given + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (asked, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (git, root, script): (Git, PathBuf, Arc<Script>) = (git.clone(), root.to_owned(), Arc::new(script));
        let (log, ends) = (asked.clone(), stopped.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (git, root, script, log, tls) =
                    (git.clone(), root.clone(), script.clone(), log.clone(), tls.clone());
                // A client that goes away ends one connection.
                thread::spawn(move || {
                    let wire: Wire = match tls {
                        None => Box::new(stream),
                        Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls).ok()?, stream)),
                    };
                    serve(wire, &git, &root, has_versions, &*script, &log)
                });
            }
        });
        Self { scheme, address, asked, stopped }
    }

    pub(crate) fn url(&self, repo: &str) -> String {
        format!("{}://{}/{repo}", self.scheme, self.address)
    }

    /// What was asked so far, and forgets it.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("not poisoned"))
    }

    /// How many packs were asked for so far.
    pub(crate) fn fetches(&self) -> usize {
        let asked = self.asked.lock().expect("not poisoned");
        asked.iter().filter(|asked| asked.method == "POST" && asked.text().contains("want ")).count()
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    wire: Wire,
    git: &Git,
    root: &Path,
    has_versions: bool,
    script: &Script,
    log: &Mutex<Vec<Asked>>,
) -> Option<()> {
    let mut stream = BufReader::new(wire);
    let mut asked = read(&mut stream)?;
    {
        let mut log = log.lock().expect("not poisoned");
        asked.before = log.iter().filter(|before| before.method == asked.method).count();
        log.push(asked.clone());
    }
    let given = script(&asked, run(git, root, has_versions, &asked));
    let mut head =
        format!("HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n", given.status, given.body.len());
    for (name, value) in &given.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes()).ok()?;
    let sent = given.cut.or(given.stall).unwrap_or(given.body.len()).min(given.body.len());
    let (first, rest) = given.body[..sent].split_at(given.pause.map_or(sent, |(bytes, _)| bytes.min(sent)));
    stream.write_all(first).and_then(|()| stream.flush()).ok()?;
    if let Some((_, pause)) = given.pause {
        thread::sleep(pause);
    }
    stream.write_all(rest).and_then(|()| stream.flush()).ok()?;
    if given.stall.is_some() {
        // Until the client goes away.
        let _ = stream.read(&mut [0]);
    }
    Some(())
}

fn read(stream: &mut BufReader<Wire>) -> Option<Asked> {
    let mut asked = Asked::default();
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    asked.method = words.next()?.to_owned();
    let target = words.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (asked.path, asked.query) = (path.to_owned(), query.to_owned());
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        asked.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    asked.body = vec![0; length];
    stream.read_exact(&mut asked.body).ok()?;
    Some(asked)
}

/// What git answers.
fn run(git: &Git, root: &Path, has_versions: bool, asked: &Asked) -> Given {
    let mut command = git.command(root);
    command.arg("http-backend").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1").env("REMOTE_ADDR", "127.0.0.1");
    command.env("REQUEST_METHOD", &asked.method).env("PATH_INFO", &asked.path).env("QUERY_STRING", &asked.query);
    command.env("CONTENT_LENGTH", asked.body.len().to_string());
    let variables = [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("GIT_PROTOCOL", "git-protocol"),
    ];
    for (name, header) in variables {
        if let Some(value) = asked.header(header).filter(|_| has_versions || name != "GIT_PROTOCOL") {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().expect("git is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    let body = asked.body.clone();
    let feeder = thread::spawn(move || {
        let _ = stdin.write_all(&body);
    });
    let output = child.wait_with_output().expect("git can be waited for");
    let _ = feeder.join();
    let end = output.stdout.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("CGI headers");
    let head = String::from_utf8_lossy(&output.stdout[..end]).into_owned();
    let mut given = Given { status: 200, body: output.stdout[end + 4..].to_vec(), ..Given::default() };
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(": ").expect("a header");
        match name {
            "Status" => given.status = value[..3].parse().expect("a status"),
            _ => given.headers.push((name.to_owned(), value.to_owned())),
        }
    }
    given
}
