//! The objects of a repository, by kind and path, the newest of each path first. Read through `git`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use govc_engine::Kind;

use crate::codec::{Result, Version};

/// Gives each object to `take`, with the one before of the same kind and path.
pub(crate) fn versions(path: &str, mut take: impl FnMut(Version) -> Result<()>) -> Result<()> {
    let mut named = named_objects(path)?;
    // Stable: within a path as git lists them, the newest first.
    named.sort_by(|(kind, a, _), (other, b, _)| (kind, a).cmp(&(other, b)));
    let mut cat = Command::new("git")
        .args(["-C", path, "cat-file", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut asking = cat.stdin.take().ok_or("git has no input")?;
    let ids: Vec<String> = named.iter().map(|(_, _, id)| id.clone()).collect();
    let asker = thread::spawn(move || ids.iter().try_for_each(|id| writeln!(asking, "{id}")));
    let mut answers = BufReader::with_capacity(1 << 20, cat.stdout.take().ok_or("git has no output")?);
    let mut last: Option<(u8, &str, Arc<[u8]>)> = None;
    for (kind, name, id) in &named {
        let mut head = String::new();
        answers.read_line(&mut head)?;
        let size: usize = head.trim_end().rsplit(' ').next().unwrap_or_default().parse().map_err(|_| head.clone())?;
        let mut data = vec![0; size + 1];
        answers.read_exact(&mut data)?;
        data.pop();
        let data: Arc<[u8]> = data.into();
        let base = last.filter(|(of, at, _)| of == kind && at == name).map(|(_, _, base)| base);
        let kind_of = Kind::from_number(*kind).ok_or_else(|| format!("{id} has no kind"))?;
        take(Version { kind: kind_of, base, data: data.clone() })?;
        last = Some((*kind, name, data));
    }
    asker.join().map_err(|_| "a thread panicked")??;
    if !cat.wait()?.success() {
        return Err("git cat-file failed".into());
    }
    Ok(())
}

/// Kind, path and id of each object, in the order of `git rev-list`.
fn named_objects(path: &str) -> Result<Vec<(u8, String, String)>> {
    let listed = Command::new("git").args(["-C", path, "rev-list", "--all", "--objects"]).output()?;
    let lines = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut check = Command::new("git")
        .args(["-C", path, "cat-file", "--batch-check=%(objecttype)"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut asking = check.stdin.take().ok_or("git has no input")?;
    let id = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let ids: Vec<String> = lines.lines().map(id).collect();
    let asker = thread::spawn(move || ids.iter().try_for_each(|id| writeln!(asking, "{id}")));
    let mut kinds = String::new();
    check.stdout.take().ok_or("git has no output")?.read_to_string(&mut kinds)?;
    asker.join().map_err(|_| "a thread panicked")??;
    if !listed.status.success() || !check.wait()?.success() {
        return Err("git cannot list the objects".into());
    }
    let mut named = Vec::new();
    for (line, kind) in lines.lines().zip(kinds.lines()) {
        let number = match kind {
            "commit" => Kind::Commit,
            "tree" => Kind::Tree,
            "blob" => Kind::Blob,
            "tag" => Kind::Tag,
            other => return Err(format!("git knows a kind {other}").into()),
        };
        let name = line.split_once(' ').map_or("", |(_, name)| name);
        named.push((number as u8, name.to_owned(), id(line)));
    }
    Ok(named)
}
