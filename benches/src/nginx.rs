//! nginx as a process of the benches' own: a generated configuration in a temporary folder, a free loopback port. The
//! system's configuration is neither read nor changed.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::process;
use crate::subject::free_address;

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(10);

/// A running nginx. Dropping it ends it.
pub(crate) struct Nginx {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Nginx {
    /// Starts it over `folder`, which must outlive it, with one server of these `http` and `server` settings, and waits
    /// until it listens.
    pub(crate) fn start(folder: &Path, http: &str, server: &str) -> Result<Nginx> {
        let program = find_program("nginx")?;
        let address = free_address()?;
        let config = folder.join("nginx.conf");
        let write = || "cannot write nginx's configuration".into();
        fs::write(&config, configuration(folder, address, http, server)?).context(write)?;
        let log = folder.join("nginx.log");
        let output = fs::File::create(&log).context(write)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().context(|| "cannot start nginx".into())?;
        let mut nginx = Nginx { child, address, log };
        nginx.await_ready()?;
        Ok(nginx)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn await_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            self.check_runs()?;
            if start.elapsed() > START_MAX {
                return Err(Error::new("nginx did not listen in time"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// An error with its last words if it has ended.
    fn check_runs(&mut self) -> Result<()> {
        match self.child.try_wait().context(|| "cannot watch nginx".into())? {
            None => Ok(()),
            Some(status) => {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                Err(Error::new(format!("nginx ended at its start ({status}): {}", log.trim())))
            }
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child of ours and what it started, by id.
pub(crate) fn end(child: &mut Child) {
    let mut pids = process::descendants(child.id()).unwrap_or_default();
    pids.push(child.id());
    let _ = process::terminate(&pids);
    if process::wait(child, STOP_MAX).is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Where a program is; Debian keeps some where only root's PATH looks.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .context(|| format!("{name} is not installed: run `scripts/prerequisites --bench`"))
}

fn configuration(folder: &Path, address: SocketAddr, http: &str, server: &str) -> Result<String> {
    let folder = quotable(folder)?;
    // nginx started by root would drop to a user who may not enter the folders of a run.
    let is_root = fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0);
    let user = if is_root { "user root root;\n" } else { "" };
    Ok(format!(
        "daemon off;
{user}worker_processes auto;
pid \"{folder}/nginx.pid\";
error_log \"{folder}/error.log\" warn;
events {{ worker_connections 1024; }}
http {{
  client_body_temp_path \"{folder}/body\";
  fastcgi_temp_path \"{folder}/fastcgi\";
  proxy_temp_path \"{folder}/proxy\";
  uwsgi_temp_path \"{folder}/uwsgi\";
  scgi_temp_path \"{folder}/scgi\";
  tcp_nodelay on;
{http}  server {{
    listen {address};
{server}  }}
}}
"
    ))
}

/// A path that may stand between quotes in nginx's configuration and in a shell script.
pub(crate) fn quotable(path: &Path) -> Result<&str> {
    let text = path.to_str().context(|| format!("the path {} is not UTF-8", path.display()))?;
    if text.contains(['"', '\'', '\\', '$', '\n', ';', '{', '}']) {
        return Err(Error::new(format!("the path {text} cannot stand in a configuration file")));
    }
    Ok(text)
}
