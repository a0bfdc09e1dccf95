//! A whole history in a repository of this process.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use govc_engine::block::Base;
use govc_engine::{Cause, Expected, Kind, Oid, RefEdit, RefName, Repo};

use crate::bench::Bench;
use crate::error::{Context, Error, Result};
use crate::history::History;

/// Stores all objects of a history and sets its branches and tags; how many objects there were.
pub(super) fn load(bench: &Bench, history: &History, repo: &Repo) -> Result<usize> {
    let mut command = bench.git.command(&history.path);
    command.args(["cat-file", "--batch", "--batch-all-objects", "--unordered", "--buffer"]).stdout(Stdio::piped());
    let mut child = command.spawn().context(|| "cannot start git cat-file".into())?;
    let output = child.stdout.take().ok_or_else(|| Error::new("git cat-file has no pipe"))?;
    let mut output = BufReader::with_capacity(1 << 20, output);
    let ingest = repo.ingest();
    let mut lane = ingest.lane();
    let (mut line, mut data, mut count) = (String::new(), Vec::new(), 0);
    loop {
        line.clear();
        if output.read_line(&mut line).context(|| "cannot read from git cat-file".into())? == 0 {
            break;
        }
        let mut words = line.split_ascii_whitespace();
        let oid = words.next().and_then(|hex| hex.parse::<Oid>().ok());
        let kind = words.next().and_then(|word| Kind::from_word(word.as_bytes()));
        let size = words.next().and_then(|size| size.parse::<usize>().ok());
        let (Some(oid), Some(kind), Some(size)) = (oid, kind, size) else {
            return Err(Error::new(format!("git cat-file says {line:?}")));
        };
        data.resize(size + 1, 0);
        output.read_exact(&mut data).context(|| "cannot read from git cat-file".into())?;
        lane.add(oid, kind, size as u64, Base::Whole, &data[..size]).context(|| "cannot store an object".into())?;
        count += 1;
    }
    lane.finish().context(|| "cannot store objects".into())?;
    let status = child.wait().context(|| "cannot wait for git".into())?;
    if !status.success() {
        return Err(Error::new(format!("git cat-file failed: {status}")));
    }
    let mut transaction = repo.begin("bench", Cause::Import);
    let publish = || "cannot publish".into();
    transaction.attach(ingest.finish().context(publish)?).context(publish)?;
    for reference in bench.git.references(&history.path)? {
        let Some((oid, name)) = reference.split_once(' ') else { continue };
        let (oid, name) = (oid.parse::<Oid>().context(publish)?, RefName::new(name).context(publish)?);
        transaction.edit(RefEdit { name, expected: Expected::Absent, target: Some(oid) }).context(publish)?;
    }
    let published = transaction.prepare().and_then(|prepared| prepared.publish()).context(publish)?;
    published.ticket.wait().context(publish)?;
    Ok(count)
}
