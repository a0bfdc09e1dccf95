//! A real history, made by git and read without it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use govc_backend_bench::{Amounts, Plan, Profile};

use crate::subjects::Memory;
use crate::{ROWS, assert_has, brief, measured};

const COMMITS: usize = 40;

/// Runs git in a folder, away from its user's settings.
fn git(folder: &Path, words: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        .args(words)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git is there");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("feed git");
    let output = child.wait_with_output().expect("git ends");
    assert!(output.status.success(), "git {words:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A bare repository with a pack, deltas in it, and a loose object.
fn repository(folder: &Path) -> u64 {
    git(folder, &["init", "--quiet", "--bare", "."], "");
    let mut stream = String::new();
    for number in 0..COMMITS {
        let text: String =
            (0..200).map(|line| format!("line {line} of {}\n", if line == number { number } else { 0 })).collect();
        stream += &format!(
            "commit refs/heads/main\ncommitter A <a@example.org> {} +0000\ndata 2\nx\n",
            1_700_000_000 + number
        );
        stream += &format!("M 100644 inline file\ndata {}\n{text}\n", text.len());
    }
    git(folder, &["fast-import", "--quiet"], &stream);
    git(folder, &["repack", "-adfq"], "");
    git(folder, &["hash-object", "-w", "--stdin"], "a loose object\n");
    git(folder, &["cat-file", "--batch-all-objects", "--batch-check"], "").lines().count() as u64
}

#[test]
fn a_real_history_is_imported_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let objects = repository(folder.path());
    assert_eq!(objects, 3 * COMMITS as u64 + 1);
    let plan = Plan { history: Some(folder.path().to_path_buf()), ..brief(Profile::Ci, 1) };
    let report = measured(&plan, vec![Box::new(Memory)]);
    assert_has(&report, "memory", &ROWS[..28]);
    assert_has(&report, "memory", &["delta-past-memory"]);
    // The files are 3 KB each, and lie in the pack as one and deltas against it; trees and commits do not repeat.
    assert!(report.plan.history_bytes < 20_000, "{:?}: deltas come in as such", report.plan);
    assert_eq!(report.plan.history_objects, objects);
    assert!(report.plan.history.contains("all 121 objects"), "{}", report.plan.history);

    // Too large a history is read as far as there is room, which is told.
    let plan = Plan { amounts: Amounts { history_bytes_max: 5_000, ..Amounts::brief() }, ..plan };
    let report = measured(&plan, vec![Box::new(Memory)]);
    let found = report.plan.history_objects;
    assert!(
        found < objects && report.plan.history.contains(&format!("the first {found} objects")),
        "{:?}",
        report.plan
    );
}
