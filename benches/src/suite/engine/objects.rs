//! Objects by id, in process and in memory, beside `git cat-file --batch` on the same objects in one pack.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Instant;

use govc_engine::{Cause, Expected, Kind, Oid, RefEdit};

use super::{SUITE, branch, create, feed, open};
use crate::bench::{Bench, progress};
use crate::error::{Context, Error, Result};
use crate::random::Random;
use crate::report::{Row, median};

/// Objects that are read by id, and how often.
const HOT_OBJECTS: usize = 100_000;
const HOT_READS: usize = 300_000;

pub(super) fn run(bench: &Bench) -> Result<Vec<Row>> {
    Ok(vec![hot_objects(bench)?])
}

/// Random reads of objects that are in memory.
fn hot_objects(bench: &Bench) -> Result<Row> {
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    let mut verified = true;
    let mut random = Random::new(5);
    let blobs: Vec<String> =
        (0..HOT_OBJECTS).map(|_| (0..12).map(|_| random.line() + "\n").collect::<String>()).collect();
    let folder = bench.fresh_folder()?;
    pack(bench, folder.path(), &blobs)?;
    let store = open()?;
    let repo = create(&store, "objects")?;
    let mut transaction = repo.begin("bench", Cause::Api);
    let ids = blobs
        .iter()
        .map(|blob| transaction.put(Kind::Blob, blob.clone().into()))
        .collect::<std::result::Result<Vec<_>, _>>();
    let ids = ids.context(|| "put".into())?;
    let tree = tree_of(&ids);
    let tree = transaction.put(Kind::Tree, tree.into()).context(|| "put".into())?;
    let commit = format!("tree {tree}\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nx\n");
    let commit = transaction.put(Kind::Commit, commit.into_bytes().into()).context(|| "put".into())?;
    let name = branch("main")?;
    transaction
        .edit(RefEdit { name, expected: Expected::Absent, target: Some(commit) })
        .and_then(|()| transaction.prepare()?.publish())
        .context(|| "publish".into())?;
    let order: Vec<usize> = (0..HOT_READS).map(|_| random.below(HOT_OBJECTS)).collect();
    for number in 1..=bench.runs {
        progress(&format!("engine, objects by id, run {number} of {}", bench.runs));
        let snapshot = repo.snapshot();
        let start = Instant::now();
        let mut bytes = 0;
        for &at in &order {
            bytes += snapshot.object(&ids[at]).context(|| "read".into())?.data.len();
        }
        ours.push(HOT_READS as f64 / start.elapsed().as_secs_f64());
        verified &= bytes == order.iter().map(|&at| blobs[at].len()).sum::<usize>();
        let wrong = |at: &usize| snapshot.object(&ids[*at]).is_ok_and(|object| object.data != blobs[*at].as_bytes());
        verified &= !order.iter().take(1000).any(wrong);
        // A peer that answers a tenth as fast need not be asked as often.
        let mut batch = CatFile::start(bench, folder.path())?;
        let fewer = &order[..HOT_READS / 3];
        let start = Instant::now();
        let mut bytes = 0;
        for &at in fewer {
            bytes += batch.read(&ids[at])?;
        }
        peers.push(fewer.len() as f64 / start.elapsed().as_secs_f64());
        verified &= bytes == fewer.iter().map(|&at| blobs[at].len()).sum::<usize>();
    }
    let row = Row::new(SUITE, format!("{HOT_OBJECTS} hot blobs in random order, by id"), "1/s", median(ours));
    Ok(row.beside("git cat-file --batch, one pack", median(peers)).verified(verified))
}

fn tree_of(ids: &[Oid]) -> Vec<u8> {
    let mut tree = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        tree.extend_from_slice(format!("100644 {at:08}\0").as_bytes());
        tree.extend_from_slice(id.as_bytes());
    }
    tree
}

/// A repository that has the blobs in one pack.
fn pack(bench: &Bench, folder: &Path, blobs: &[String]) -> Result<()> {
    bench.git.run(folder, ["init", "--quiet", "--bare", "."])?;
    let mut stream = String::new();
    for blob in blobs {
        stream += &format!("blob\ndata {}\n{blob}\n", blob.len());
    }
    let mut command = bench.git.command(folder);
    command.args(["fast-import", "--quiet"]).stdin(Stdio::piped());
    feed(command, stream.as_bytes())
}

/// A running `git cat-file --batch`.
struct CatFile {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    line: String,
    data: Vec<u8>,
}

impl CatFile {
    fn start(bench: &Bench, folder: &Path) -> Result<CatFile> {
        let mut command = bench.git.command(folder);
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context(|| "cannot start git cat-file".into())?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        match (input, output) {
            (Some(input), Some(output)) => {
                Ok(CatFile { child, input, output: BufReader::new(output), line: String::new(), data: Vec::new() })
            }
            _ => Err(Error::new("git cat-file has no pipes")),
        }
    }

    /// Asks for an object; its length.
    fn read(&mut self, oid: &Oid) -> Result<usize> {
        self.line.clear();
        writeln!(self.input, "{oid}").context(|| "cannot write to git cat-file".into())?;
        self.output.read_line(&mut self.line).context(|| "cannot read from git cat-file".into())?;
        let length = self.line.trim_end().rsplit(' ').next().and_then(|length| length.parse::<usize>().ok());
        let length = length.ok_or_else(|| Error::new(format!("git cat-file says {:?}", self.line)))?;
        self.data.resize(length + 1, 0);
        self.output.read_exact(&mut self.data).context(|| "cannot read from git cat-file".into())?;
        Ok(length)
    }
}

impl Drop for CatFile {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
