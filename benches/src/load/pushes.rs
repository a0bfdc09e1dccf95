//! Pushes of one commit each, from many keep-alive connections, each to a branch of its own: what `git push` sends as
//! its second request, with the same objects (commit, root, folder, file) in a pack of their own.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::{Compression, write::ZlibEncoder};
use gix_hash::{Kind, ObjectId};
use tokio::sync::Barrier;

use super::stream::{Stream, post};
use super::{block_on, quantile_millis};
use crate::error::{Context, Error, Result};
use crate::random::Random;
use crate::wire;

const HEADERS: [(&str, &str); 2] =
    [("Content-Type", "application/x-git-receive-pack-request"), ("Accept", "application/x-git-receive-pack-result")];
const CAPABILITIES: &str = "\0report-status object-format=sha1";
const FOLDERS: usize = 10;
const FILES_OF_A_FOLDER: usize = 10;
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;

/// Where to, from how many clients at once, and for how long.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) repository: &'a str,
    pub(crate) connections: usize,
    pub(crate) time: Duration,
}

/// What came of it.
pub(crate) struct Outcome {
    /// `<id> <name>` of each branch as it was acknowledged last, sorted by name.
    pub(crate) references: Vec<String>,
    /// Commits that were acknowledged, all in all.
    pub(crate) commits: usize,
    latencies_micros: Vec<u32>,
    elapsed: Duration,
}

impl Outcome {
    /// Pushes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies_micros.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that the given share of all did not exceed, in milliseconds.
    pub(crate) fn quantile_millis(&self, share: f64) -> f64 {
        quantile_millis(&self.latencies_micros, share)
    }
}

/// Pushes until the time is over. Any answer but a success ends the run.
pub(crate) fn run(load: &Load<'_>) -> Result<Outcome> {
    block_on(async {
        let start = Arc::new(Barrier::new(load.connections));
        let mut tasks = Vec::new();
        for number in 0..load.connections {
            let pusher = Pusher {
                stream: Stream::open(load.address).await?,
                address: load.address,
                path: path_of(load.repository),
                line: Line::new(number)?,
            };
            tasks.push(tokio::spawn(pusher.push_until(load.time, Arc::clone(&start))));
        }
        let begin = Instant::now();
        let mut outcome =
            Outcome { references: Vec::new(), commits: 0, latencies_micros: Vec::new(), elapsed: Duration::ZERO };
        for task in tasks {
            let (line, latencies) = task.await.context(|| "a connection broke down".into())??;
            outcome.references.push(format!("{} {}", line.tip, line.branch));
            outcome.commits += latencies.len() + 1;
            outcome.latencies_micros.extend(latencies);
        }
        outcome.elapsed = begin.elapsed();
        outcome.latencies_micros.sort_unstable();
        crate::git::sort_references(&mut outcome.references);
        Ok(outcome)
    })
}

struct Pusher {
    stream: Stream,
    address: SocketAddr,
    path: String,
    line: Line,
}

impl Pusher {
    async fn push_until(mut self, time: Duration, start: Arc<Barrier>) -> Result<(Line, Vec<u32>)> {
        // The push that makes the branch and its files is not timed. A connection that fails here still goes to the
        // barrier, where the others wait for it.
        let first = self.push().await;
        start.wait().await;
        first?;
        let mut latencies = Vec::new();
        let started = Instant::now();
        let mut now = started;
        while now.duration_since(started) < time {
            self.push().await?;
            let answered = Instant::now();
            latencies.push(u32::try_from(answered.duration_since(now).as_micros()).unwrap_or(u32::MAX));
            now = answered;
        }
        Ok((self.line, latencies))
    }

    async fn push(&mut self) -> Result<()> {
        let body = self.line.next_push()?;
        self.stream.send(&post(self.address, &self.path, &HEADERS, &body)).await?;
        let answer = self.stream.receive(ANSWER_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&answer.end);
        if answer.status == 200 && text.contains("unpack ok\n") && text.contains(&format!("ok {}\n", self.line.branch))
        {
            return Ok(());
        }
        Err(Error::new(format!("a push was answered with {}: {text}", answer.status)))
    }
}

/// A branch that gets longer.
struct Line {
    branch: String,
    tip: ObjectId,
    files: Vec<[ObjectId; FILES_OF_A_FOLDER]>,
    folders: [ObjectId; FOLDERS],
    random: Random,
    pushes: usize,
}

impl Line {
    fn new(number: usize) -> Result<Line> {
        let null = ObjectId::null(Kind::Sha1);
        Ok(Line {
            branch: format!("refs/heads/agent-{number}"),
            tip: null,
            files: vec![[null; FILES_OF_A_FOLDER]; FOLDERS],
            folders: [null; FOLDERS],
            random: Random::new(5000 + number as u64),
            pushes: 0,
        })
    }

    /// The body of the next push: the first brings all files, each further one a change of one.
    fn next_push(&mut self) -> Result<Vec<u8>> {
        let mut pack = Pack::default();
        let first = self.pushes == 0;
        let chosen = (self.random.below(FOLDERS), self.random.below(FILES_OF_A_FOLDER));
        for folder in 0..FOLDERS {
            for file in 0..FILES_OF_A_FOLDER {
                if first || chosen == (folder, file) {
                    let text: String = (0..5).map(|_| self.random.line() + "\n").collect();
                    self.files[folder][file] = pack.add(BLOB, text.as_bytes())?;
                }
            }
            if first || chosen.0 == folder {
                let entries = self.files[folder].iter().enumerate();
                let entries = entries.map(|(file, id)| (format!("100644 file{file}.txt"), id));
                self.folders[folder] = pack.add(TREE, &tree(entries))?;
            }
        }
        let folders = self.folders.iter().enumerate().map(|(folder, id)| (format!("40000 part{folder}"), id));
        let root = pack.add(TREE, &tree(folders))?;
        let parent = if first { String::new() } else { format!("parent {}\n", self.tip) };
        let who = format!("Bench <bench@example.com> {} +0000", 1_700_000_000 + self.pushes);
        let commit = format!("tree {root}\n{parent}author {who}\ncommitter {who}\n\nChange {}\n", self.pushes);
        let old = self.tip;
        self.tip = pack.add(COMMIT, commit.as_bytes())?;
        self.pushes += 1;
        let mut body = Vec::new();
        wire::line(&mut body, &format!("{old} {} {}{CAPABILITIES}", self.tip, self.branch));
        body.extend_from_slice(wire::FLUSH);
        body.extend_from_slice(&pack.finish()?);
        Ok(body)
    }
}

fn tree<'a>(entries: impl Iterator<Item = (String, &'a ObjectId)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode_and_name, id) in entries {
        bytes.extend_from_slice(mode_and_name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(id.as_slice());
    }
    bytes
}

/// A pack of whole objects.
#[derive(Default)]
struct Pack {
    entries: Vec<u8>,
    objects: u32,
}

impl Pack {
    /// Adds an object; its id.
    fn add(&mut self, kind: u8, data: &[u8]) -> Result<ObjectId> {
        self.objects += 1;
        let mut left = data.len() >> 4;
        let mut byte = kind << 4 | (data.len() & 15) as u8;
        while left > 0 {
            self.entries.push(byte | 0x80);
            byte = (left & 0x7f) as u8;
            left >>= 7;
        }
        self.entries.push(byte);
        let mut encoder = ZlibEncoder::new(&mut self.entries, Compression::fast());
        encoder.write_all(data).and_then(|()| encoder.finish().map(drop)).context(|| "cannot deflate".into())?;
        let name = match kind {
            COMMIT => "commit",
            TREE => "tree",
            _ => "blob",
        };
        hash(&[format!("{name} {}\0", data.len()).as_bytes(), data])
    }

    fn finish(self) -> Result<Vec<u8>> {
        let mut pack = [b"PACK".as_slice(), &2u32.to_be_bytes(), &self.objects.to_be_bytes(), &self.entries].concat();
        let checksum = hash(&[&pack])?;
        pack.extend_from_slice(checksum.as_slice());
        Ok(pack)
    }
}

fn hash(parts: &[&[u8]]) -> Result<ObjectId> {
    let mut hasher = gix_hash::hasher(Kind::Sha1);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.try_finalize().context(|| "cannot hash".into())
}

/// Makes references that all name an object that the repository has, in pushes of a hundred thousand.
///
/// git's own client takes a time for that which grows with the square of their number.
pub(crate) fn create_references(address: SocketAddr, repository: &str, id: &str, names: &[String]) -> Result<()> {
    const AT_ONCE: usize = 100_000;
    let path = path_of(repository);
    let null = ObjectId::null(Kind::Sha1);
    block_on(async {
        let mut stream = Stream::open(address).await?;
        for names in names.chunks(AT_ONCE) {
            let mut body = Vec::new();
            for (number, name) in names.iter().enumerate() {
                let capabilities = if number == 0 { CAPABILITIES } else { "" };
                wire::line(&mut body, &format!("{null} {id} {name}{capabilities}"));
            }
            body.extend_from_slice(wire::FLUSH);
            body.extend_from_slice(&Pack::default().finish()?);
            stream.send(&post(address, &path, &HEADERS, &body)).await?;
            let answer = stream.receive(AT_ONCE * 128).await?;
            let text = String::from_utf8_lossy(&answer.end);
            if answer.status != 200 || text.matches("ok refs/").count() != names.len() || text.contains("ng refs/") {
                return Err(Error::new(format!("references were not made: {} and {text:.200}", answer.status)));
            }
        }
        Ok(())
    })
}

fn path_of(repository: &str) -> String {
    format!("/{repository}.git/git-receive-pack")
}

#[cfg(test)]
mod tests {
    use super::{BLOB, Line, Pack};

    #[test]
    fn ids_are_gits() {
        let id = Pack::default().add(BLOB, b"hello\n").unwrap();
        assert_eq!(id.to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn a_push_brings_what_has_changed() {
        let mut line = Line::new(3).unwrap();
        let (first, second) = (line.next_push().unwrap(), line.next_push().unwrap());
        let objects = |body: &[u8]| {
            let pack = body.windows(4).position(|bytes| bytes == b"PACK").unwrap();
            u32::from_be_bytes(body[pack + 8..pack + 12].try_into().unwrap())
        };
        assert_eq!((objects(&first), objects(&second)), (112, 4));
    }
}
