//! The peer: nginx, fcgiwrap and `git http-backend`, the usual way to serve Git over HTTP.
//!
//! fcgiwrap ignores its children's end, so the kernel adds their CPU time to nobody. A small wrapper
//! therefore times each `git http-backend` with everything that it waited for (upload-pack, pack-objects,
//! index-pack) and notes it in a file; the wrapper's own time is not charged to the peer. fcgiwrap's
//! master also leaves its workers behind when it ends: they are ended by id.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Context, Error, Result};
use crate::git::Git;
use crate::nginx::{Nginx, end, find_program, quotable};
use crate::process;
use crate::subject::{Cpu, Subject};

const WORKERS: usize = 8;
const START_MAX: Duration = Duration::from_secs(20);

/// A running nginx and fcgiwrap over a folder of bare repositories.
pub(crate) struct GitHttp {
    nginx: Nginx,
    fcgiwrap: Child,
    repositories: PathBuf,
    cpu_notes: PathBuf,
    /// Holds configuration and socket until both processes have ended. In the system's temporary folder
    /// because a socket's path is limited to 107 bytes.
    folder: TempDir,
}

impl GitHttp {
    /// Starts both and waits until they listen. Repositories are those under `repositories`.
    pub(crate) fn start(git: &Git, repositories: &Path) -> Result<GitHttp> {
        let fcgiwrap = find_program("fcgiwrap")?;
        fs::create_dir_all(repositories).context(|| format!("cannot make {}", repositories.display()))?;
        let folder = tempfile::tempdir().context(|| "cannot make a temporary folder".into())?;
        let cpu_notes = folder.path().join("cpu");
        let wrapper = folder.path().join("http-backend");
        write_wrapper(&wrapper, &git.http_backend(), &cpu_notes)?;
        let socket = folder.path().join("socket");
        let (http, server) = settings(git, &socket, &wrapper, repositories)?;

        let log =
            fs::File::create(folder.path().join("fcgiwrap.log")).context(|| "cannot write the peer's log".into())?;
        let mut fcgiwrap = Command::new(fcgiwrap);
        fcgiwrap.args(["-c", &WORKERS.to_string(), "-s", &format!("unix:{}", socket.display())]);
        fcgiwrap.envs(git.environment()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut fcgiwrap = fcgiwrap.spawn().context(|| "cannot start fcgiwrap".into())?;
        let nginx = match Nginx::start(folder.path(), http, &server) {
            Ok(nginx) => nginx,
            Err(error) => {
                end(&mut fcgiwrap);
                return Err(error);
            }
        };
        let repositories = repositories.to_owned();
        let mut peer = GitHttp { nginx, fcgiwrap, repositories, cpu_notes, folder };
        peer.await_ready(&socket)?;
        Ok(peer)
    }

    /// Makes an empty bare repository and returns its path.
    pub(crate) fn create(&self, git: &Git, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let mut command = git.command(&self.repositories);
        command.args(["init", "--quiet", "--bare"]).arg(&path);
        crate::git::finish(command)?;
        Ok(path)
    }

    /// Where a repository lives on disk.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.repositories.join(format!("{name}.git"))
    }

    fn await_ready(&mut self, socket: &Path) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.fcgiwrap.try_wait().context(|| "cannot watch fcgiwrap".into())? {
                let log = fs::read_to_string(self.folder.path().join("fcgiwrap.log")).unwrap_or_default();
                return Err(Error::new(format!("fcgiwrap ended at its start ({status}): {}", log.trim())));
            }
            let workers = process::descendants(self.fcgiwrap.id())?.len();
            if socket.exists() && workers >= WORKERS {
                return Ok(());
            }
            if start.elapsed() > START_MAX {
                return Err(Error::new("fcgiwrap did not listen in time"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Subject for GitHttp {
    fn address(&self) -> SocketAddr {
        self.nginx.address()
    }

    fn cpu(&self) -> Result<Cpu> {
        let core = noted_seconds(&self.cpu_notes)?;
        let mut whole = core;
        for root in [self.nginx.id(), self.fcgiwrap.id()] {
            whole += process::cpu_seconds(root)?;
            for pid in process::descendants(root)? {
                // A git process that runs at this moment may end before it is read, and then is in the notes.
                let is_server = fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| matches!(name.trim(), "nginx" | "fcgiwrap"));
                if is_server {
                    whole += process::cpu_seconds(pid).unwrap_or_default();
                }
            }
        }
        Ok(Cpu { whole, core })
    }
}

impl Drop for GitHttp {
    fn drop(&mut self) {
        end(&mut self.fcgiwrap);
    }
}

/// bash's `time` reads getrusage(2), so a note is exact to the millisecond where shells otherwise give
/// hundredths.
fn write_wrapper(path: &Path, http_backend: &Path, notes: &Path) -> Result<()> {
    fs::write(notes, "").context(|| "cannot write the peer's CPU notes".into())?;
    let text = format!(
        "#!/bin/bash\nLC_ALL=C\nTIMEFORMAT='%3U %3S'\nexec 3>&2\n{{ time '{}' 2>&3; }} 2>>'{}'\n",
        quotable(http_backend)?,
        quotable(notes)?
    );
    fs::write(path, text).context(|| "cannot write the peer's wrapper".into())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context(|| "cannot make the wrapper executable".into())
}

fn noted_seconds(notes: &Path) -> Result<f64> {
    let text = fs::read_to_string(notes).context(|| "cannot read the peer's CPU notes".into())?;
    Ok(text.split_ascii_whitespace().filter_map(|number| number.parse::<f64>().ok()).sum())
}

/// nginx's settings beside those that it always has: of `http`, and of the server.
fn settings(git: &Git, socket: &Path, wrapper: &Path, repositories: &Path) -> Result<(&'static str, String)> {
    let mut parameters = String::new();
    for (name, value) in git.environment() {
        parameters += &format!("      fastcgi_param {name} \"{}\";\n", quotable(Path::new(value))?);
    }
    let http = "  access_log off;
  client_max_body_size 0;
  client_body_buffer_size 256k;
  client_body_timeout 3600s;
  send_timeout 3600s;
  keepalive_requests 1000000;
";
    let server = format!(
        "    location / {{
      fastcgi_pass \"unix:{socket}\";
      fastcgi_request_buffering off;
      fastcgi_buffer_size 64k;
      fastcgi_buffers 16 64k;
      fastcgi_max_temp_file_size 0;
      fastcgi_read_timeout 3600s;
      fastcgi_send_timeout 3600s;
      fastcgi_param SCRIPT_FILENAME \"{wrapper}\";
      fastcgi_param GIT_PROJECT_ROOT \"{repositories}\";
      fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param GIT_PROTOCOL $http_git_protocol;
      fastcgi_param PATH_INFO $uri;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param REMOTE_ADDR $remote_addr;
{parameters}    }}
",
        socket = quotable(socket)?,
        wrapper = quotable(wrapper)?,
        repositories = quotable(repositories)?,
    );
    Ok((http, server))
}
