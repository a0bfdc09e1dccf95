//! A PostgreSQL server of the tests' own, for whoever tests with one: a new cluster in a temporary folder, on a free port of the loopback and a
//! socket in that folder, never the system's.
//!
//! A shell watches a pipe from this process. When the pipe ends, because the value was dropped or because the process
//! was killed, it stops the server and removes the folder. PostgreSQL refuses to run as root, so then it runs as the
//! user that its package makes. Whatever goes wrong panics: this is for tests.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{NoTls, SimpleQueryMessage};

const START_MAX: Duration = Duration::from_secs(60);

/// Stops the server of `$1`'s cluster and removes `$1`, when nobody holds the other end of its input.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
rm -rf "$1"
"#;

/// The server that most tests share, each with a database of its own. The guard ends it with the process.
pub fn shared() -> &'static Server {
    static SHARED: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));
    &SHARED
}

/// A running server.
pub struct Server {
    programs: PathBuf,
    /// Where all of it is.
    pub folder: PathBuf,
    /// The port on the loopback.
    pub port: u16,
    owner: Option<(u32, u32)>,
    settings: Vec<String>,
    /// Stands before `postgres` in the command, to run it in another world.
    wrapper: Vec<String>,
    guard: Child,
    databases: AtomicU32,
}

impl Server {
    /// Starts a server with settings of its own (`name=value`).
    pub fn start(settings: &[&str]) -> Self {
        let server = Self::prepare(settings);
        server.up();
        server
    }

    /// Makes a cluster that is not started yet.
    pub fn prepare(settings: &[&str]) -> Self {
        let programs = programs();
        let owner = owner();
        let folder = tempfile::Builder::new().prefix("govc-postgres-").tempdir().expect("a temporary folder").keep();
        let guard = Command::new("sh")
            .args([OsStr::new("-c"), OsStr::new(GUARD), OsStr::new("guard"), folder.as_os_str()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).expect("chown of the temporary folder");
        }
        let mut server = Self {
            programs,
            folder,
            port: 0,
            owner,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            wrapper: Vec::new(),
            guard,
            databases: AtomicU32::new(0),
        };
        server.port = free_port();
        let data = server.data();
        let mut initdb = server.command("initdb");
        initdb.args(["-N", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-D"]).arg(&data);
        let output = initdb.output().expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        server
    }

    /// The same, wrapped in another command.
    #[must_use]
    pub fn wrapped(mut self, wrapper: &[String]) -> Self {
        self.wrapper = wrapper.to_vec();
        self
    }

    /// The cluster's folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The user and group that it runs as, if not this process's own.
    pub fn owner(&self) -> Option<(u32, u32)> {
        self.owner
    }

    /// Starts the server, and returns when it answers.
    pub fn up(&self) {
        self.launch();
        let end = Instant::now() + START_MAX;
        while let Err(error) = self.try_sql("postgres", "SELECT 1") {
            assert!(Instant::now() < end, "the server does not start: {error}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the server without waiting for it.
    pub fn launch(&self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).expect("a log file");
        let postgres = self.programs.join("postgres");
        let mut command = match self.wrapper.split_first() {
            None => self.command_of(postgres.as_os_str()),
            Some((program, arguments)) => {
                // It changes the user by itself.
                let mut command = Command::new(program);
                command.args(arguments).arg(&postgres);
                command
            }
        };
        command.arg("-D").arg(self.data()).arg("-k").arg(&self.folder).args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "shared_buffers=64MB", "max_wal_size=256MB"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("postgres starts");
        // Reaped by a thread of its own: a dead child that nobody waits for would still count as running.
        std::thread::spawn(move || {
            let mut child = child;
            let _ = child.wait();
        });
    }

    /// Stops the server: `smart`, `fast` or `immediate`.
    pub fn down(&self, mode: &str) {
        let mut stop = self.command("pg_ctl");
        let output =
            stop.arg("stop").arg("-D").arg(self.data()).args(["-m", mode, "-w"]).output().expect("pg_ctl runs");
        assert!(output.status.success(), "pg_ctl: {}\n{}", String::from_utf8_lossy(&output.stderr), self.log());
    }

    /// Puts lines before those of `pg_hba.conf`, before the server starts.
    pub fn allow(&self, lines: &str) {
        let file = self.data().join("pg_hba.conf");
        let old = fs::read_to_string(&file).expect("pg_hba.conf");
        fs::write(&file, format!("{lines}\n{old}")).expect("pg_hba.conf");
    }

    /// A new database's name.
    pub fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a database, as the administrator.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL as the administrator; the rows of all statements.
    pub fn sql(&self, database: &str, sql: &str) -> Vec<Vec<String>> {
        self.try_sql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_sql(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let words = |error: tokio_postgres::Error| format!("{error}: {:?}", std::error::Error::source(&error));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.map_err(words)?;
            let connection = tokio::spawn(connection);
            let messages = client.simple_query(sql).await.map_err(words)?;
            drop(client);
            let _ = connection.await;
            let rows = messages.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|at| row.get(at).unwrap_or("NULL").to_owned()).collect())
                }
                _ => None,
            });
            Ok(rows.collect())
        })
    }

    /// The end of the server's log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn command(&self, program: &str) -> Command {
        self.command_of(self.programs.join(program).as_os_str())
    }

    fn command_of(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// The folder of PostgreSQL's programs: Debian keeps them out of the `PATH`.
fn programs() -> PathBuf {
    let complete = |folder: &Path| ["initdb", "postgres", "pg_ctl"].iter().all(|name| folder.join(name).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort();
    folders.extend(debian.into_iter().rev().map(|(_, folder)| folder));
    folders.into_iter().find(|folder| complete(folder)).expect(
        "these tests need PostgreSQL's programs (initdb, postgres, pg_ctl), in the PATH or in /usr/lib/postgresql: run \
         scripts/prerequisites --tests",
    )
}

/// The user and group that the server runs as, if not this process's own.
fn owner() -> Option<(u32, u32)> {
    let mut status = String::new();
    fs::File::open("/proc/self/status").expect("/proc").read_to_string(&mut status).expect("/proc");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|line| line.split_whitespace().nth(1));
    if uid != Some("0") {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    for name in ["postgres", "nobody"] {
        for line in users.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            if let [user, _, uid, gid, ..] = fields[..]
                && user == name
            {
                return Some((uid.parse().expect("a user's number"), gid.parse().expect("a group's number")));
            }
        }
    }
    panic!("PostgreSQL does not run as root, and there is no user postgres or nobody");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
