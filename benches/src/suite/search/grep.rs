//! Peers that look for one pattern and print counts by file: ripgrep and git grep, which read everything, and csearch.
//!
//! What two patterns have in common is computed here from what each gives alone, and its time is that of both runs.
//! ripgrep is the oracle: it leaves nothing out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::corpus::Corpus;
use super::queries::{Query, Term, Terms};
use crate::error::{Context, Error, Result};
use crate::git::Git;
use crate::report::median;

/// Who counts.
pub(super) enum Grep<'a> {
    /// Lines, or matches of which a line may have several.
    Ripgrep {
        matches: bool,
    },
    Git(&'a Git),
    Csearch {
        program: PathBuf,
        index: PathBuf,
    },
}

/// What a query has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) files: u64,
    /// Lines or matches; of several patterns, the sum over the files that are found.
    pub(super) matches: u64,
}

impl Grep<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Grep::Ripgrep { .. } => "rg -uuu",
            Grep::Git(_) => "git grep",
            Grep::Csearch { .. } => "csearch",
        }
    }

    /// Counts, and the median of the milliseconds that the processes take.
    pub(super) fn ask(&self, corpus: &Corpus, query: &Query, runs: u32) -> Result<(Counts, f64)> {
        let mut millis = 0.0;
        let mut found = Vec::new();
        for term in query.patterns() {
            let mut taken = Vec::new();
            let mut counts = HashMap::new();
            for _ in 0..runs {
                let mut command = self.command(corpus, query, term)?;
                let start = Instant::now();
                let output = run(&mut command)?;
                taken.push(start.elapsed().as_secs_f64() * 1e3);
                counts = self.parse(&output)?;
            }
            millis += median(taken);
            found.push(counts);
        }
        Ok((combined(&query.terms, &found), millis))
    }

    fn command(&self, corpus: &Corpus, query: &Query, term: Term) -> Result<Command> {
        let mut command = match self {
            Grep::Ripgrep { matches } => {
                let mut command = Command::new("rg");
                command.current_dir(&corpus.tree).args(["--no-config", "-uuu", "--encoding=none", "--null"]);
                command.arg(if *matches { "--count-matches" } else { "--count" });
                command.arg(if query.folds { "--ignore-case" } else { "--case-sensitive" });
                if let Some(glob) = query.path_glob() {
                    command.args(["--glob", &glob.replace("*/", "**/").replace("/*", "/**")]);
                }
                command.args(pattern("--fixed-strings", &[], term)).arg(".");
                command
            }
            Grep::Git(git) => {
                let mut command = corpus.git_command(git, &["grep", "--text", "--count", "--null", "--no-color"]);
                command.args(query.folds.then_some("--ignore-case"));
                command.args(pattern("--fixed-strings", &["--perl-regexp"], term)).arg("--");
                command.args(query.path_glob());
                command
            }
            Grep::Csearch { program, index } => {
                let mut command = Command::new(program);
                command.env("CSEARCHINDEX", index).arg("-c").args(query.folds.then_some("-i"));
                let (paths, root) = (query.path_regex(), corpus.tree.to_str());
                let root = root.context(|| "the working folder has an odd name".into())?;
                if !paths.is_empty() {
                    // It knows absolute paths only.
                    command.args(["-f", &format!("^{root}.*{paths}")]);
                }
                command.arg("--").arg(term.regex());
                command
            }
        };
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Ok(command)
    }

    fn parse(&self, output: &[u8]) -> Result<HashMap<Vec<u8>, u64>> {
        let separator: &[u8] = match self {
            Grep::Csearch { .. } => b": ",
            Grep::Ripgrep { .. } | Grep::Git(_) => b"\0",
        };
        let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let counts = lines.map(|line| {
            let at = line.windows(separator.len()).rposition(|bytes| bytes == separator)?;
            let (path, count) = (line.get(..at)?, line.get(at + separator.len()..)?);
            Some((path.to_vec(), std::str::from_utf8(count).ok()?.parse().ok()?))
        });
        counts.collect::<Option<_>>().context(|| format!("what {} prints is not understood", self.name()))
    }
}

fn pattern<'a>(of_text: &'a str, of_regex: &[&'a str], term: Term) -> Vec<&'a str> {
    match term {
        Term::Text(text) => vec![of_text, "-e", text],
        Term::Regex(regex) => [of_regex, &["-e", regex]].concat(),
    }
}

/// Runs a program that ends with 1 when it finds nothing.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = Path::new(command.get_program()).to_path_buf();
    let output = command.output().context(|| format!("cannot run {}", name.display()))?;
    match output.status.code() {
        Some(0 | 1) => Ok(output.stdout),
        _ => Err(Error::new(format!("{} failed: {}", name.display(), String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

fn combined(terms: &Terms, found: &[HashMap<Vec<u8>, u64>]) -> Counts {
    let none = HashMap::new();
    let (a, b) = (found.first().unwrap_or(&none), found.get(1).unwrap_or(&none));
    let mut counts = Counts::default();
    let mut add = |matches: u64| {
        counts.files += 1;
        counts.matches += matches;
    };
    for (path, here) in a {
        match (terms, b.get(path)) {
            (Terms::One(_), _) | (Terms::Either(..) | Terms::Without(..), None) => add(*here),
            (Terms::Both(..) | Terms::Either(..), Some(there)) => add(here + there),
            (Terms::Both(..), None) | (Terms::Without(..), Some(_)) => {}
        }
    }
    if let Terms::Either(..) = terms {
        b.iter().filter(|(path, _)| !a.contains_key(*path)).for_each(|(_, there)| add(*there));
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{Counts, Grep, Term, Terms, combined};

    #[test]
    fn sets_of_files_are_combined() {
        let map =
            |pairs: &[(&str, u64)]| pairs.iter().map(|(path, count)| (path.as_bytes().to_vec(), *count)).collect();
        let found: [HashMap<_, _>; 2] = [map(&[("x", 1), ("y", 2)]), map(&[("y", 4), ("z", 8)])];
        let (a, b) = (Term::Text("a"), Term::Text("b"));
        let of = |terms| combined(&terms, &found);
        assert_eq!(of(Terms::One(a)), Counts { files: 2, matches: 3 });
        assert_eq!(of(Terms::Both(a, b)), Counts { files: 1, matches: 6 });
        assert_eq!(of(Terms::Either(a, b)), Counts { files: 3, matches: 15 });
        assert_eq!(of(Terms::Without(a, b)), Counts { files: 1, matches: 1 });
    }

    #[test]
    fn output_is_understood() {
        let rg = Grep::Ripgrep { matches: false };
        assert_eq!(rg.parse(b"./a\x0012\n./b:c\x003\n").unwrap().values().sum::<u64>(), 15);
        let csearch = Grep::Csearch { program: "".into(), index: "".into() };
        assert_eq!(csearch.parse(b"/a: b: 12\n").unwrap().get(&b"/a: b"[..]), Some(&12));
        assert!(csearch.parse(b"nonsense\n").is_err());
    }
}
