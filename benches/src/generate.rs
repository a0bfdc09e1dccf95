//! A generated history of about 20 000 objects, identical on every machine: files in nested folders that
//! change a few lines at a time, side branches and merges, annotated tags, an executable, a symbolic link.
//!
//! Made by `git fast-import` from a seeded stream, so neither the file system nor the clock has a say.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::error::{Context, Error, Result};
use crate::git::Git;
use crate::random::Random;

const SEED: u64 = 20_000;
const COMMITS: usize = 3_000;
const FILES: usize = 400;
/// Every so many commits a side branch leaves, and is merged by the commit after.
const MERGE_EVERY: usize = 40;
const TAG_EVERY: usize = 250;

/// Makes the history as a bare repository at `path`.
pub(crate) fn history(git: &Git, path: &Path) -> Result<()> {
    let parent = path.parent().context(|| "a generated history needs a folder".into())?;
    let mut command = git.command(parent);
    command.args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(path);
    crate::git::finish(command)?;
    import(git, path, write_stream)?;
    git.run(path, ["repack", "-a", "-d", "-q"])?;
    Ok(())
}

/// Feeds `git fast-import` in a repository.
pub(crate) fn import(
    git: &Git,
    repository: &Path,
    feed: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut command = git.command(repository);
    command.args(["fast-import", "--quiet", "--force"]);
    let mut child: Child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context(|| "cannot run git fast-import".into())?;
    let fed = match child.stdin.take() {
        Some(input) => {
            let mut writer = BufWriter::with_capacity(1 << 20, input);
            feed(&mut writer).and_then(|()| writer.flush())
        }
        None => Ok(()),
    };
    let status = child.wait().context(|| "cannot wait for git fast-import".into())?;
    fed.context(|| "cannot feed git fast-import".into())?;
    if !status.success() {
        return Err(Error::new(format!("git fast-import failed ({status})")));
    }
    Ok(())
}

fn write_stream(out: &mut dyn Write) -> std::io::Result<()> {
    let mut random = Random::new(SEED);
    let mut files: Vec<Vec<String>> = vec![Vec::new(); FILES];
    // A change on the side branch must not touch what main holds: it has files of its own.
    let mut side_tip = None;
    for number in 1..=COMMITS {
        let leaves = number.is_multiple_of(MERGE_EVERY);
        let merges = side_tip.take();
        commit_head(out, number, if leaves { "refs/heads/side" } else { "refs/heads/main" })?;
        match (leaves, merges) {
            (true, _) => {
                writeln!(out, "from :{}", number - 1)?;
                side_tip = Some(number);
                change(out, &format!("side/part{}.txt", number / MERGE_EVERY), "100644", &(random.line() + "\n"))?;
            }
            (false, Some(side)) => {
                writeln!(out, "merge :{side}")?;
                change(out, &format!("merged/{side}.txt"), "100644", "merged\n")?;
            }
            (false, None) => {}
        }
        if number == 1 {
            change(out, "tools/run.sh", "100755", "#!/bin/sh\nexec true\n")?;
            change(out, "latest", "120000", "tools/run.sh")?;
        }
        if !leaves {
            for _ in 0..1 + random.below(2) {
                let index = random.below(FILES);
                edit(&mut files[index], &mut random);
                change(out, &path_of(index), "100644", &(files[index].join("\n") + "\n"))?;
            }
        }
        writeln!(out)?;
        if number.is_multiple_of(TAG_EVERY) {
            tag(out, number)?;
        }
    }
    Ok(())
}

fn commit_head(out: &mut dyn Write, number: usize, branch: &str) -> std::io::Result<()> {
    let message = format!("Change {number}\n\nMade for measurements.\n");
    writeln!(out, "commit {branch}\nmark :{number}")?;
    writeln!(out, "author Ann Author <ann@example.com> {} +0100", 1_600_000_000 + number * 60)?;
    writeln!(out, "committer Carl Committer <carl@example.com> {} -0330", 1_600_000_030 + number * 60)?;
    writeln!(out, "data {}\n{message}", message.len())
}

fn tag(out: &mut dyn Write, number: usize) -> std::io::Result<()> {
    let message = format!("Version {number}\n");
    writeln!(out, "tag v{number}\nfrom :{number}")?;
    writeln!(out, "tagger Tina Tagger <tina@example.com> {} +0000", 1_600_000_040 + number * 60)?;
    writeln!(out, "data {}\n{message}", message.len())
}

fn change(out: &mut dyn Write, path: &str, mode: &str, content: &str) -> std::io::Result<()> {
    writeln!(out, "M {mode} inline {path}\ndata {}\n{content}", content.len())
}

fn path_of(index: usize) -> String {
    format!("src/module{:02}/part{}/file{index:03}.c", index % 10, index / 10 % 4)
}

fn edit(lines: &mut Vec<String>, random: &mut Random) {
    if lines.is_empty() {
        lines.extend((0..30 + random.below(40)).map(|_| random.line()));
        return;
    }
    for _ in 0..3 {
        let at = random.below(lines.len());
        lines[at] = random.line();
    }
    let at = random.below(lines.len());
    lines.insert(at, random.line());
}
