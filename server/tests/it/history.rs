//! A generated history, large and odd enough to stand in for real ones: [`generate`] builds the ordinary bulk with
//! `git fast-import`, [`crate::oddities`] adds what only old or foreign tools write.
//!
//! The same bytes every time: no clock, no randomness but a fixed generator, so ids are stable between runs.

use std::path::{Path, PathBuf};

use crate::{git::Git, oddities, server::Place, tested};

const COMMITS: usize = 420;
const BRANCHES: usize = 300;

/// The histories that the identity tests run on, as bare repositories that hold nothing unreachable.
///
/// Always the generated one; with `GOVC_TEST_HISTORY=/path/to/bare.git` that one instead (several: joined by `:`).
/// Real histories such as those of redis, git and gitoxide are run so; their faults need no list of exceptions,
/// because the findings of `git fsck --strict` in the source and in the clone are compared with each other.
pub(crate) fn sources(place: &Place, git: &Git) -> Vec<PathBuf> {
    let given = std::env::var("GOVC_TEST_HISTORY").unwrap_or_default();
    let mut sources = Vec::new();
    for (at, path) in given.split(':').filter(|path| !path.is_empty()).enumerate() {
        let path = std::fs::canonicalize(path).unwrap_or_else(|error| panic!("GOVC_TEST_HISTORY: {path}: {error}"));
        let copy = place.path(&format!("given-{at}.git"));
        // Through upload-pack, so that only what is reachable arrives; the given repository is never written.
        git.clone_repo(&format!("file://{}", path.display()), &copy, &["--mirror"]);
        sources.push(copy);
    }
    if sources.is_empty() {
        sources.push(generated(place, git));
    }
    sources
}

/// The generated history as a bare repository.
pub(crate) fn generated(place: &Place, git: &Git) -> PathBuf {
    let built = place.path("generated.git");
    if !built.exists() {
        std::fs::create_dir_all(&built).expect("a folder");
        git.ok(&built, &["init", "-q", "--bare"]);
        generate(git, &built);
    }
    built
}

/// Fills the bare repository `dir`.
fn generate(git: &Git, dir: &Path) {
    git.ok_fed(dir, &["fast-import", "--quiet", "--force", "--date-format=raw"], &stream());
    oddities::add(git, dir);
    git.ok(dir, &["repack", "-adq"]);
    git.ok(dir, &["prune", "--expire=now"]);
}

/// The fast-import stream: main with merges, an octopus, side lines, further roots, notes, tags, many branches.
fn stream() -> Vec<u8> {
    let mut out = Stream { bytes: Vec::new(), marks: 0, seconds: 1_100_000_000 };
    let mut main: Vec<usize> = Vec::new();
    let mut sides: Vec<usize> = Vec::new();
    for at in 0..COMMITS {
        let merged = match at {
            // Every 12th commit merges the newest side line, one merges five at once.
            200 => sides.split_off(sides.len().saturating_sub(5)),
            _ if at % 12 == 11 => sides.pop().into_iter().collect(),
            _ => Vec::new(),
        };
        let message = message_of(at);
        let mark = out.commit("refs/heads/main", &message, main.last().copied(), &merged, at % 17 == 5);
        change(&mut out, at);
        main.push(mark);
        if at % 8 == 3 {
            let branch = format!("refs/heads/side/{at}");
            let first = out.commit(&branch, b"begin a side line\n", Some(mark), &[], false);
            out.file("100644", format!("side/{at}.txt").as_bytes(), &prose(at, 40));
            let second = out.commit(&branch, b"go on\n\nwith a body\n", Some(first), &[], false);
            out.file("100755", format!("side/{at}.sh").as_bytes(), b"#!/bin/sh\nexit 0\n");
            sides.push(second);
        }
    }
    roots(&mut out, &main);
    tags(&mut out, &main);
    for at in 0..BRANCHES {
        let from = main[at * 7 % main.len()];
        out.text(&format!("reset refs/heads/many/{:02}/branch-{at}\nfrom :{from}\n\n", at % 20));
    }
    let last = main[main.len() - 1];
    for name in ["refs/heads/feature/\u{fc}n\u{ef}", "refs/heads/a.b-c_d@x", "refs/custom/deep/er/name"] {
        out.text(&format!("reset {name}\nfrom :{last}\n\n"));
    }
    out.text("done\n");
    out.bytes
}

/// What the commit `at` of main changes. Every 30th changes nothing.
fn change(out: &mut Stream, at: usize) {
    if at % 30 == 29 {
        return;
    }
    if at < 200 {
        out.file("100644", b"hot.txt", &versioned(at));
    }
    out.file("100644", format!("src/mod{}/file{}.rs", at % 9, at % 41).as_bytes(), &prose(at, 25 + at % 90));
    let digits = tested::format().hex_len();
    match at % 14 {
        0 => out.file("100755", format!("bin/tool{at}").as_bytes(), b"#!/bin/sh\necho tool\n"),
        1 => out.file("120000", format!("links/to{at}").as_bytes(), format!("../src/mod{}", at % 9).as_bytes()),
        2 => out.text(&format!("M 160000 {:0digits$x} modules/m{at}\n", 0xabc_0000 + at)),
        // Not UTF-8: Latin-1 in quotes, as fast-import escapes it.
        3 => out.file("100644", format!("\"caf\\351-{at}.txt\"").as_bytes(), b"caf\xe9\n"),
        4 => {
            let path = format!("deep/{}/leaf{at}.txt", "d/".repeat(20 + at % 20)).replace("//", "/");
            out.file("100644", path.as_bytes(), &prose(at, 3));
        }
        5 if at > 14 => out.text(&format!("R bin/tool{} bin/renamed{at}\n", at - 5)),
        6 if at > 42 => out.text(&format!("D links/to{}\n", at - 5)),
        7 => out.file("100644", b"blob.bin", &noise(at as u64, 30_000)),
        8 => out.file("100644", b"\"tab\\tand \\\"quote\\\" and\\nnewline\"", &prose(at, 2)),
        9 => out.file("100644", b"empty", b""),
        10 => out.file("100644", b"no-newline", format!("ends without, {at}").as_bytes()),
        11 => out.file("100644", b"crlf.txt", format!("one\r\ntwo {at}\r\n").as_bytes()),
        _ => {}
    }
    if at == 50 || at == 51 {
        // 8 MB that do not compress; its second version differs in a few bytes and so travels as a delta.
        let mut big = noise(50, 8 << 20);
        if at == 51 {
            big[4 << 20..(4 << 20) + 9].copy_from_slice(b"different");
        }
        out.file("100644", b"big.bin", &big);
    }
}

/// Further root commits, one of them merged into a line of its own, and notes.
fn roots(out: &mut Stream, main: &[usize]) {
    let second = out.commit("refs/heads/root2", b"a second root\n", None, &[], false);
    out.file("100644", b"other/README", b"an unrelated history\n");
    out.commit("refs/heads/root3", b"a third root\n", None, &[], false);
    out.file("100644", b"yet/another", b"one more\n");
    out.commit("refs/heads/joined", b"join two histories\n", Some(main[10]), &[second], false);
    for (at, mark) in main.iter().enumerate().step_by(15) {
        out.commit("refs/notes/commits", format!("note {at}\n").as_bytes(), None, &[], false);
        out.text("N inline ");
        out.text(&format!(":{mark}\n"));
        out.data(format!("reviewed in round {at}\n").as_bytes());
    }
}

/// Annotated tags, one of them signed, and light ones.
fn tags(out: &mut Stream, main: &[usize]) {
    for (at, mark) in main.iter().enumerate().step_by(40) {
        out.text(&format!("tag v0.{at}\nfrom :{mark}\ntagger Ada Test <ada@example.com> {} +0000\n", out.seconds));
        let signature = "-----BEGIN PGP SIGNATURE-----\n\niQEzBAABCAAdFiEE\n=abcd\n-----END PGP SIGNATURE-----\n";
        let signature = if at % 80 == 0 { signature } else { "" };
        out.data(format!("version 0.{at}\n\nnotes\n{signature}").as_bytes());
        out.text(&format!("reset refs/tags/light-{at}\nfrom :{mark}\n\n"));
    }
}

fn message_of(at: usize) -> Vec<u8> {
    match at % 17 {
        // The encoding header says Latin-1 for these.
        5 => format!("\u{fc}ber {at}\n").chars().map(|c| c as u8).collect(),
        6 => b"not \xff\xfe UTF-8, and no header says so\n".to_vec(),
        7 => Vec::new(),
        8 => b"no newline at the end".to_vec(),
        9 => "emoji \u{1f980} and \u{4e2d}\u{6587}\n\nSigned-off-by: Ada Test <ada@example.com>\n".into(),
        _ => format!("change {at}\n\nThe body of change {at}, on two\nlines.\n").into_bytes(),
    }
}

/// A file of 400 lines of which version `at` changes a few.
fn versioned(at: usize) -> Vec<u8> {
    let line = |number: usize| {
        let version = if number % 37 == at % 37 || number == 200 { at } else { number };
        format!("line {number} was last changed in version {version}\n")
    };
    (0..400 + at / 4).map(line).collect::<String>().into_bytes()
}

/// `lines` lines of words chosen by `seed`.
fn prose(seed: usize, lines: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "store", "tree", "commit", "branch", "fn", "let", "return", "publish", "snapshot", "delta", "block", "pack",
        "journal", "Result", "self", "version",
    ];
    let mut text = String::new();
    let mut state = seed as u64 + 1;
    for number in 0..lines {
        for _ in 0..6 {
            state = step(state);
            text.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
            text.push(' ');
        }
        text.push_str(&format!("{number}\n"));
    }
    text.into_bytes()
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed + 99;
    let mut next = || {
        state = step(state);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Knuth's linear congruential generator (MMIX).
fn step(state: u64) -> u64 {
    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}

/// A fast-import stream in the making.
struct Stream {
    bytes: Vec<u8>,
    marks: usize,
    seconds: i64,
}

impl Stream {
    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn data(&mut self, data: &[u8]) {
        self.text(&format!("data {}\n", data.len()));
        self.bytes.extend_from_slice(data);
        self.text("\n");
    }

    fn commit(&mut self, branch: &str, message: &[u8], from: Option<usize>, merged: &[usize], latin: bool) -> usize {
        self.marks += 1;
        self.seconds += 977;
        let (mark, seconds) = (self.marks, self.seconds);
        self.text(&format!("commit {branch}\nmark :{mark}\n"));
        self.text(&format!("author Ada T\u{eb}st <ada@example.com> {seconds} +0530\n"));
        self.text(&format!("committer Grace <grace@example.com> {} -0800\n", seconds + 60));
        if latin {
            self.text("encoding ISO-8859-1\n");
        }
        self.data(message);
        if let Some(from) = from {
            self.text(&format!("from :{from}\n"));
        }
        for mark in merged {
            self.text(&format!("merge :{mark}\n"));
        }
        mark
    }

    /// A file of the last commit; `path` as fast-import wants it.
    fn file(&mut self, mode: &str, path: &[u8], content: &[u8]) {
        self.text(&format!("M {mode} inline "));
        self.bytes.extend_from_slice(path);
        self.text("\n");
        self.data(content);
    }
}
