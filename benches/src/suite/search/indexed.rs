//! Peers with an index: zoekt, which a small program of ours (`benches/zoekt`) drives in its own process, and csearch with
//! cindex. Go builds them, at the versions of `benches/zoekt/go.mod`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::corpus::Corpus;
use super::grep::Grep;
use super::queries::Query;
use crate::bench::progress;
use crate::error::{Context, Error, Result};
use crate::process::run_measured;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/zoekt");
/// What zoekt asks for.
const GO_MINOR_MIN: u32 = 22;

/// The programs and their indexes, below a working folder.
pub(super) struct Indexed {
    zoekt: PathBuf,
    shards: PathBuf,
    csearch: PathBuf,
    csearch_index: PathBuf,
    /// What building one index took, and how large it became.
    pub(super) zoekt_build: Built,
    pub(super) cindex_build: Built,
}

pub(super) struct Built {
    pub(super) cpu_seconds: f64,
    pub(super) bytes: u64,
}

/// What zoekt says of one query.
#[derive(Deserialize)]
pub(super) struct Answered {
    pub(super) files: u64,
    pub(super) page_ms: f64,
    pub(super) exhaustive_ms: f64,
}

impl Indexed {
    /// Builds the programs and has them index the corpus.
    pub(super) fn make(corpus: &Corpus, folder: &Path) -> Result<Indexed> {
        let programs = folder.join("peers");
        progress("search: building zoekt, csearch and cindex");
        std::fs::create_dir_all(&programs).context(|| format!("cannot make {}", programs.display()))?;
        for package in [".", "github.com/google/codesearch/cmd/cindex", "github.com/google/codesearch/cmd/csearch"] {
            let mut command = Command::new(go()?);
            command.current_dir(SOURCE).args(["build", "-trimpath", "-o"]).arg(programs.join("")).arg(package);
            output(&mut command, b"")?;
        }
        let (zoekt, shards) = (programs.join("zoekt"), folder.join("shards"));
        progress("search: zoekt indexes");
        let mut command = Command::new(&zoekt);
        command.arg("index").arg(&corpus.tree).arg(&shards);
        let zoekt_build = Built { cpu_seconds: run_measured(command)?.cpu_seconds, bytes: bytes(&shards)? };
        progress("search: cindex indexes");
        let csearch_index = folder.join("csearchindex");
        let mut command = Command::new(programs.join("cindex"));
        command.env("CSEARCHINDEX", &csearch_index).arg(&corpus.tree);
        let cpu_seconds = run_measured(command)?.cpu_seconds;
        let cindex_build = Built { cpu_seconds, bytes: bytes(&csearch_index)? };
        let csearch = programs.join("csearch");
        Ok(Indexed { zoekt, shards, csearch, csearch_index, zoekt_build, cindex_build })
    }

    /// What zoekt answers, each the median of some runs.
    pub(super) fn zoekt(&self, queries: &[Query], runs: u32) -> Result<Vec<Answered>> {
        let texts: Vec<String> = queries.iter().map(Query::zoekt).collect();
        let input = serde_json::to_vec(&texts).context(|| "cannot write queries".into())?;
        let mut command = Command::new(&self.zoekt);
        command.args(["-runs", &runs.to_string(), "search"]).arg(&self.shards);
        let answers: Vec<Answered> =
            serde_json::from_slice(&output(&mut command, &input)?).context(|| "zoekt is not understood".into())?;
        if answers.len() != queries.len() {
            return Err(Error::new("zoekt left queries out"));
        }
        Ok(answers)
    }

    pub(super) fn csearch(&self) -> Grep<'static> {
        Grep::Csearch { program: self.csearch.clone(), index: self.csearch_index.clone() }
    }
}

/// The first Go that is new enough; some packages of it are outside of the PATH.
fn go() -> Result<PathBuf> {
    let single = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let single = single.filter(|entry| entry.file_name().to_string_lossy().starts_with("go-1."));
    let single = single.map(|entry| entry.path().join("bin/go"));
    let mut programs = ["go".into(), "/usr/local/go/bin/go".into()].into_iter().chain(single);
    let found = programs.find(|program: &PathBuf| {
        let output = Command::new(program).args(["env", "GOVERSION"]).output();
        output.is_ok_and(|output| minor_version(&String::from_utf8_lossy(&output.stdout)) >= Some(GO_MINOR_MIN))
    });
    found.context(|| format!("there is no Go 1.{GO_MINOR_MIN} or newer to build the peers with"))
}

/// 22 of `go1.22.3`.
fn minor_version(version: &str) -> Option<u32> {
    let rest = version.trim().strip_prefix("go1.")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// Runs a command with an input; what it prints, or an error with its complaint.
fn output(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let name = Path::new(command.get_program()).display().to_string();
    let cannot = || format!("cannot run {name}");
    let file = tempfile::tempfile().context(cannot)?;
    std::io::Write::write_all(&mut &file, input).context(cannot)?;
    std::io::Seek::rewind(&mut &file).context(cannot)?;
    let output = command.stdin(Stdio::from(file)).output().context(cannot)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{name} failed: {}", complaint.trim())));
    }
    Ok(output.stdout)
}

/// Bytes of a file, or of all files directly in a folder.
fn bytes(path: &Path) -> Result<u64> {
    let cannot = || format!("cannot read {}", path.display());
    if path.is_file() {
        return Ok(path.metadata().context(cannot)?.len());
    }
    let entries = std::fs::read_dir(path).context(cannot)?;
    entries.map(|entry| Ok(entry.context(cannot)?.metadata().context(cannot)?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::minor_version;

    #[test]
    fn versions_of_go() {
        assert_eq!(minor_version("go1.22.3\n"), Some(22));
        assert_eq!(minor_version("go1.27rc1"), Some(27));
        assert_eq!(minor_version(""), None);
    }
}
