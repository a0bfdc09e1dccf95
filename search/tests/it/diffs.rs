//! Searches in what commits add and remove, against a comparison of each commit with its first parent by the same
//! library.

mod naive;
mod random;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use govc_engine::{EntryMode, ErrorKind, Kind, Oid, RefName, RepoName, hash_object};
use govc_search::{
    Aggregate, DiffCursor, DiffHit, DiffOptions, FindOptions, GroupBy, Partial, aggregate, find, find_diffs, places,
};

use self::naive::{all, check};
use super::{
    past::{File, Files, Past, commit, entries, files},
    world::{place, put, query_of, request},
};

/// main: 0 – 1 – 2 – 4 (merge of 3) – 5; topic: 1 – 3.
fn merged() -> Past {
    let mut past = Past::new();
    past.commit(&[], 100, files(&[("a.rs", "fn one() {}\n")]));
    past.commit(&[0], 200, files(&[("a.rs", "fn one() {}\n"), ("b.rs", "two\n")]));
    past.commit(&[1], 300, files(&[("a.rs", "fn three() {}\n"), ("b.rs", "two\n")]));
    past.commit(&[1], 400, files(&[("a.rs", "fn one() {}\n"), ("b.rs", "two\n"), ("src/n.rs", "the needle\n")]));
    past.commit(&[2, 3], 500, files(&[("a.rs", "fn three() {}\n"), ("b.rs", "two\n"), ("src/n.rs", "the needle\n")]));
    past.commit(&[4], 600, files(&[("a.rs", "fn three() {}\n"), ("b.rs", "two\nthe Needle\n")]));
    past.branch("main", 5);
    past.branch("topic", 3);
    past
}

/// Each line that is found, as `commit path:sign number text`.
fn told(past: &Past, query: &str) -> Vec<String> {
    let parsed = query_of(query);
    let snapshot = past.repo.snapshot();
    let searched = places(&past.repo, &snapshot, &parsed.options, false, None).expect("places");
    let (found, _) = all(past, &parsed, &searched, &DiffOptions::default());
    let mut lines = Vec::new();
    for told in found {
        let commit = past.commits.iter().position(|made| made.oid == told.oid).expect("it was made");
        for (path, _, _, _, all) in &told.files {
            let path = String::from_utf8_lossy(path);
            lines.extend(
                all.iter().map(|(sign, number, text, _)| format!("{commit} {path}:{} {number} {text}", sign.as_char())),
            );
        }
    }
    lines
}

#[test]
fn lines_come_and_go() {
    let past = merged();
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        let (gone, came) = ("5 src/n.rs:- 1 the needle", "4 src/n.rs:+ 1 the needle");
        let (new, origin) = ("5 b.rs:+ 2 the Needle", "3 src/n.rs:+ 1 the needle");
        assert_eq!(
            told(&past, "type:diff case:yes needle"),
            [gone, came, origin],
            "a merge is compared with its first parent"
        );
        assert_eq!(told(&past, "type:diff needle"), [new, gone, came, origin]);
        assert_eq!(told(&past, "type:diff needle branch:topic"), [origin]);
        assert_eq!(told(&past, "type:diff needle branch:*"), [new, gone, came, origin]);
        assert_eq!(told(&past, "type:diff /^fn t/ path:a.rs"), ["2 a.rs:+ 1 fn three() {}"]);
        // Both in the changed lines of the file, though not in the same.
        assert_eq!(told(&past, "type:diff one three"), ["2 a.rs:- 1 fn one() {}", "2 a.rs:+ 1 fn three() {}"]);
        assert_eq!(told(&past, "type:diff one -three"), ["0 a.rs:+ 1 fn one() {}"]);
        assert_eq!(told(&past, "type:diff needle -path:src/**"), [new]);
        // Without a text, all lines.
        assert_eq!(told(&past, "type:diff before:@250"), ["1 b.rs:+ 1 two", "0 a.rs:+ 1 fn one() {}"]);
        assert_eq!(told(&past, "type:diff message:\"commit 3\""), [origin]);
        assert_eq!(told(&past, "type:diff needle after:@600"), [new, gone], "that moment is included");
        assert_eq!(told(&past, "type:diff needle before:@600"), [came, origin], "and not included");
        assert_eq!(told(&past, "type:diff src"), [""; 0], "paths are not lines");
        assert_eq!(told(&past, "type:diff author:Test after:@600 lang:rust two"), [""; 0]);
        assert_eq!(told(&past, r"type:diff /\Athe needle\z/ -fork:yes"), [new, gone, came, origin]);
    }
}

#[test]
fn counts_are_exact_whatever_is_shown() {
    let mut past = Past::new();
    let many: String = (0..40).map(|at| format!("needle {at}\nhay\n")).collect();
    let all_files = |text: &str| files(&[("a", text), ("b", text), ("c", text)]);
    past.commit(&[], 100, all_files(""));
    past.commit(&[0], 200, all_files(&many));
    past.commit(&[1], 300, all_files(&many.replace("needle 3", "Needle 3")));
    past.branch("main", 2);
    past.index();
    let query = query_of("type:diff case:yes needle");
    let searched = [place(&past.repo, "main")];
    let options = DiffOptions { files_max: 2, lines_max: 3, ..DiffOptions::default() };
    let found = find_diffs(&past.corpus, &query, &searched, &options).expect("found");
    assert_eq!((found.total, found.total_files, found.total_lines, found.is_exact), (2, 6, 153, true));
    let [last, first] = &found.commits[..] else { panic!("{found:?}") };
    assert_eq!((last.total_files, last.total_lines, last.files.len()), (3, 33, 2));
    assert_eq!((last.files[0].lines_added, last.files[0].lines_removed, last.files[0].lines.len()), (0, 11, 3));
    let numbers = |hit: &DiffHit| hit.files[1].lines.iter().map(|line| line.line_number).collect::<Vec<_>>();
    assert_eq!((numbers(last), numbers(first)), (vec![7, 61, 63], vec![1, 3, 5]));
    assert_eq!((first.total_lines, first.files[1].lines_added), (120, 40));
    assert_eq!(found.files_compared, 6, "empty files have no lines");
    // Only the count.
    let options = DiffOptions { commits_max: 1, files_max: 0, lines_max: 0, ..DiffOptions::default() };
    let query = query_of("type:diff case:yes needle count:all");
    let found = find_diffs(&past.corpus, &query, &searched, &options).expect("found");
    assert_eq!((found.commits.len(), found.commits[0].files.len()), (1, 0));
    assert_eq!((found.total, found.total_files, found.total_lines, found.is_exact), (2, 6, 153, true));
    assert!(found.next.is_some());
    let query = query_of("type:diff case:yes needle count:1");
    let found = find_diffs(&past.corpus, &query, &searched, &DiffOptions::default()).expect("found");
    assert_eq!((found.total, found.partial, found.is_exact), (1, Some(Partial::Count), false));
    assert!(found.next.is_none());
}

#[test]
fn what_the_index_rules_out_is_not_compared() {
    let mut past = Past::new();
    let body = |at: usize| -> String {
        (0..2000).map(|line| format!("line {line} {}\n", if line == at * 150 { "changed" } else { "" })).collect()
    };
    for at in 0..10_usize {
        let parents: Vec<usize> = at.checked_sub(1).into_iter().collect();
        // The needle is in all versions, and far from what changes but in the last one.
        let needle = if at == 9 { "no more\n" } else { "the needle\n" };
        past.commit(&parents, 100 + at as i64, files(&[("a.txt", &format!("{needle}{}", body(at)))]));
    }
    past.branch("main", 9);
    let query = query_of("type:diff needle");
    let searched = [place(&past.repo, "main")];
    let ask = || find_diffs(&past.corpus, &query, &searched, &DiffOptions::default()).expect("found");
    let before = ask();
    past.index();
    let after = ask();
    assert_eq!((before.total, after.total, before.total_lines, after.total_lines), (2, 2, 2, 2));
    assert!(after.files_compared <= 3, "{} files", after.files_compared);
    assert_eq!(after.commits[0].files[0].lines[0].line_number, 1);
}

#[test]
fn binary_files_are_counted_and_modes_are_no_lines() {
    let mut past = Past::new();
    let with = |path: &str, mode: EntryMode, data: &[u8]| (path.to_owned(), (mode, data.to_vec()));
    past.commit(
        &[],
        100,
        Files::from([with("a.sh", EntryMode::BLOB, b"needle\n"), with("x", EntryMode::BLOB, b"n\0")]),
    );
    past.commit(
        &[0],
        200,
        Files::from([with("a.sh", EntryMode::EXECUTABLE, b"needle\n"), with("x", EntryMode::BLOB, b"needle\n")]),
    );
    // A link, whose target is no line, in the place of a file; a rename.
    past.commit(
        &[1],
        300,
        Files::from([with("b.sh", EntryMode::EXECUTABLE, b"needle\n"), with("x", EntryMode::SYMLINK, b"needle")]),
    );
    past.branch("main", 2);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        assert_eq!(
            told(&past, "type:diff needle"),
            ["2 a.sh:- 1 needle", "2 b.sh:+ 1 needle", "2 x:- 1 needle", "0 a.sh:+ 1 needle"]
        );
        for (query, skipped) in [("type:diff needle", 2), ("type:diff needle path:*.sh", 0), ("type:diff -needle", 2)] {
            let found =
                find_diffs(&past.corpus, &query_of(query), &[place(&past.repo, "main")], &DiffOptions::default());
            assert_eq!(found.expect("found").files_skipped, skipped, "{query}");
        }
        for query in ["type:diff needle", "type:diff", "type:diff -needle"] {
            check(&past, &past.repo, query, &DiffOptions { commits_max: 1, ..DiffOptions::default() });
        }
    }
}

#[test]
fn the_language_is_that_of_the_file_afterwards() {
    let mut past = Past::new();
    past.commit(&[], 100, files(&[("run", "#!/bin/sh\necho needle\n")]));
    past.commit(&[0], 200, files(&[("run", "#!/usr/bin/env python3\nprint('needle')\n")]));
    past.commit(&[1], 300, Files::new());
    past.branch("main", 2);
    let lines = ["2 run:- 2 print('needle')", "1 run:- 2 echo needle", "1 run:+ 2 print('needle')"];
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        assert_eq!(told(&past, "type:diff needle lang:python"), lines);
        assert_eq!(told(&past, "type:diff needle lang:shell"), ["0 run:+ 2 echo needle"]);
    }
}

#[test]
fn only_what_references_reach_is_found() {
    let mut past = merged();
    let hidden = past.commit(&[5], 700, files(&[("secret.rs", "the needle is hidden\n")]));
    past.branch("doomed", hidden);
    past.index();
    let source = RepoName::new("demo").expect("name");
    assert_eq!(told(&past, "type:diff hidden branch:doomed"), ["6 secret.rs:+ 1 the needle is hidden"]);
    past.point(&RefName::branch("doomed").expect("name"), None);
    let fork = past.store.fork(&source, &RepoName::new("fork").expect("name"), "test").expect("fork");
    let later = past.commit(&[5], 800, files(&[("later.rs", "the needle came later\n")]));
    past.branch("main", later);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        assert_eq!(told(&past, "type:diff hidden branch:*"), [""; 0]);
        for query in ["type:diff needle branch:*", "type:diff later", "type:diff needle fork:yes"] {
            check(&past, &past.repo, query, &DiffOptions::default());
            check(&past, &fork, query, &DiffOptions::default());
        }
        // Both repositories at once, page by page; the same commits are found in each.
        let query = query_of("type:diff needle repo:fork branch:main");
        let mut searched = vec![place(&past.repo, "main"), place(&fork, "main")];
        assert_eq!(all(&past, &query, &searched, &DiffOptions::default()).1.total, 3);
        let query = query_of("type:diff needle");
        let one = |commits_max| DiffOptions { commits_max, ..DiffOptions::default() };
        let (whole, last) = all(&past, &query, &searched, &one(100));
        assert_eq!((whole.len(), last.total, last.is_exact), (7, 7, true));
        for commits_max in 1..7 {
            assert_eq!(all(&past, &query, &searched, &one(commits_max)).0, whole, "{commits_max} a page");
        }
        searched.truncate(1);
        assert_eq!(all(&past, &query, &searched, &one(2)).0.len(), 4);
    }
}

#[test]
fn time_that_is_over_is_said_and_gone_on_from() {
    let mut past = Past::new();
    for at in 0..200_usize {
        let parents: Vec<usize> = at.checked_sub(1).into_iter().collect();
        past.commit(&parents, 100, files(&[("a", &format!("needle {at}\n")), ("b", &format!("{}\n", at / 2))]));
    }
    past.branch("main", 199);
    let (query, searched) = (query_of("type:diff needle"), [place(&past.repo, "main")]);
    let mut options = DiffOptions { commits_max: 1000, deadline: Some(Instant::now()), ..DiffOptions::default() };
    let refused = find_diffs(&past.corpus, &query, &searched, &options).expect_err("no time at all");
    assert_eq!(refused.kind(), &ErrorKind::Cancelled);
    // Ever more time: some of it ends in the midst. What was found before is not found again.
    let (mut micros, mut oids) = (1, Vec::new());
    let last = loop {
        options.deadline = Some(Instant::now() + Duration::from_micros(micros));
        micros *= 2;
        let found = match find_diffs(&past.corpus, &query, &searched, &options) {
            Err(error) if *error.kind() == ErrorKind::Cancelled => continue,
            found => found.expect("found"),
        };
        assert_eq!(found.is_exact, found.partial.is_none() && found.commits_skipped == 0);
        oids.extend(found.commits.iter().map(|hit| hit.oid));
        match &found.next {
            None => break found,
            Some(next) => {
                assert_eq!(found.partial, Some(Partial::Deadline));
                options.cursor = Some(DiffCursor::decode(&next.encode()).expect("the same cursor"));
            }
        }
    };
    let distinct: BTreeSet<Oid> = oids.iter().copied().collect();
    assert_eq!((distinct.len(), last.total), (oids.len(), oids.len() as u64));
    assert!(200 - last.total <= last.commits_skipped, "what is missing is said");
}

#[test]
fn a_commit_that_takes_all_the_time_is_gone_past() {
    let mut past = Past::new();
    past.commit(&[], 100, files(&[("first", "needle\n")]));
    let many: Vec<(String, File)> =
        (0..3000).map(|at| (format!("f{at}"), (EntryMode::BLOB, format!("needle {at}\n").into_bytes()))).collect();
    past.commit(&[0], 200, many.into_iter().collect());
    past.branch("main", 1);
    let (query, searched) = (query_of("type:diff needle"), [place(&past.repo, "main")]);
    let mut options = DiffOptions::default();
    // Time enough to begin with the commit, and too little to come to its end.
    let mut micros = 64_000;
    let cut = loop {
        options.deadline = Some(Instant::now() + Duration::from_micros(micros));
        match find_diffs(&past.corpus, &query, &searched, &options) {
            Ok(found) if found.partial.is_none() || found.commits_read > 1 => micros /= 2,
            Ok(found) if found.commits_skipped == 1 => break found,
            // It came to the end of the commit just so, and not to the other one.
            Ok(found) if found.commits_read == 1 => micros /= 2,
            Ok(found) => {
                assert_eq!((found.commits_read, found.total, found.is_exact), (0, 0, false));
                micros += micros / 2;
            }
            Err(error) => {
                assert_eq!(error.kind(), &ErrorKind::Cancelled);
                micros += micros / 2;
            }
        }
    };
    assert_eq!((cut.partial, cut.is_exact), (Some(Partial::Deadline), false));
    assert!(
        cut.total_files < 3000 && cut.commits.iter().all(|hit| !hit.is_whole && hit.total_files == cut.total_files)
    );
    let rest = DiffOptions { cursor: cut.next, ..DiffOptions::default() };
    let rest = find_diffs(&past.corpus, &query, &searched, &rest).expect("found");
    assert_eq!((rest.commits.len(), rest.commits[0].oid), (1, past.commits[0].oid));
    assert_eq!((rest.total_files, rest.commits_skipped), (cut.total_files + 1, 1));
    assert_eq!(
        (rest.partial, rest.is_exact, rest.next),
        (None, false, None),
        "that something is missing is not forgotten"
    );
}

#[test]
fn a_commit_whose_turn_comes_late_has_the_time_of_the_next_page() {
    let mut past = Past::new();
    let many: Vec<(String, File)> =
        (0..3000).map(|at| (format!("f{at}"), (EntryMode::BLOB, format!("needle {at}\n").into_bytes()))).collect();
    let mut all_files: Files = many.into_iter().collect();
    past.commit(&[], 100, all_files.clone());
    all_files.insert("last".to_owned(), (EntryMode::BLOB, b"needle\n".to_vec()));
    past.commit(&[0], 200, all_files);
    past.branch("main", 1);
    let (query, searched) = (query_of("type:diff needle"), [place(&past.repo, "main")]);
    let mut options = DiffOptions::default();
    let mut micros = 64_000;
    let first = loop {
        options.deadline = Some(Instant::now() + Duration::from_micros(micros));
        match find_diffs(&past.corpus, &query, &searched, &options) {
            Ok(found) if found.partial.is_none() => micros /= 2,
            // The time was over while the second commit was gone through.
            Ok(found) if found.commits_read == 2 => break found,
            _ => micros += micros / 2,
        }
    };
    assert_eq!((first.partial, first.total, first.commits_skipped), (Some(Partial::Deadline), 1, 0));
    let rest = DiffOptions { cursor: first.next, ..DiffOptions::default() };
    let rest = find_diffs(&past.corpus, &query, &searched, &rest).expect("found");
    assert_eq!((rest.commits.len(), rest.total_files, rest.is_exact), (1, 3001, true));
}

#[test]
fn without_any_time_a_page_begins_again() {
    let past = merged();
    let (query, searched) = (query_of("type:diff"), [place(&past.repo, "main")]);
    let late = DiffOptions { deadline: Some(Instant::now()), ..DiffOptions::default() };
    let found = find_diffs(&past.corpus, &query, &searched, &late).expect("found");
    assert_eq!((found.partial, found.total, found.is_exact), (Some(Partial::Deadline), 0, false));
    let cursor = DiffCursor::decode(&found.next.expect("where to go on").encode()).expect("the same cursor");
    let (all_of_it, last) =
        all(&past, &query, &searched, &DiffOptions { cursor: Some(cursor), ..DiffOptions::default() });
    assert_eq!((all_of_it.len(), last.is_exact), (6, true));
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let past = merged();
    let searched = [place(&past.repo, "main")];
    let refused = |query: &str, options: &DiffOptions| {
        let refused = find_diffs(&past.corpus, &query_of(query), &searched, options);
        let error = refused.expect_err(query);
        assert_eq!(error.kind(), &ErrorKind::Invalid, "{query}");
        error.message().to_owned()
    };
    let options = DiffOptions::default();
    for (query, reason) in [
        ("type:diff sym:main", "sym:"),
        ("needle", "type:diff"),
        ("type:commit needle", "type:diff"),
        ("type:diff select:repo needle", "select:"),
        ("type:diff select:file needle", "select:"),
        ("type:diff lang:nonesuch needle", "nonesuch"),
    ] {
        assert!(refused(query, &options).contains(reason), "{query}");
    }
    let first = DiffOptions { commits_max: 1, ..options.clone() };
    let cursor = find_diffs(&past.corpus, &query_of("type:diff needle"), &searched, &first).expect("found").next;
    let with = |cursor: Option<DiffCursor>| DiffOptions { cursor, ..options.clone() };
    assert!(refused("type:diff two", &with(cursor.clone())).contains("another query"));
    // The commit that the page ended with, as its length and bytes.
    let given = cursor.expect("more").encode();
    let at = given.find(&past.commits[5].oid.to_string()).expect("its id");
    let made_up =
        format!("{}{}{}", &given[..at], "ab".repeat(super::FORMAT.len()), &given[at + super::FORMAT.hex_len()..]);
    let made_up = DiffCursor::decode(&made_up).expect("a cursor");
    assert!(refused("type:diff needle", &with(Some(made_up))).contains("commit"));
    // Changed lines are not files.
    let query = query_of("type:diff needle");
    assert!(find(&past.corpus, &query, &searched, &FindOptions::default()).is_err());
    let counted: Result<Aggregate, _> = aggregate(&past.corpus, &query, &searched, GroupBy::Repository, 10, None);
    assert!(counted.is_err());
    let empty = Past::new();
    let nothing = find_diffs(&empty.corpus, &query, &[], &options).expect("found");
    assert_eq!((nothing.total, nothing.is_exact, nothing.next), (0, true, None));
}

#[test]
fn what_is_lost_is_said_and_the_rest_is_found() {
    let past = merged();
    let (lost, kept) =
        (Oid::from_hex(&vec![b'3'; super::FORMAT.hex_len()]).expect("an id"), b"the needle is here\n".to_vec());
    let id = hash_object(super::FORMAT, Kind::Blob, &kept).expect("an id");
    let tree = entries(&[("a-lost", EntryMode::BLOB, lost), ("b-kept", EntryMode::BLOB, id)]);
    let root = hash_object(super::FORMAT, Kind::Tree, &tree).expect("an id");
    let lossy = commit(root, &[past.commits[5].oid], 900, "lost");
    past.publish("lossy", vec![(Kind::Blob, kept), (Kind::Tree, tree), (Kind::Commit, lossy)]);
    let missing = Oid::from_hex(&vec![b'2'; super::FORMAT.hex_len()]).expect("an id");
    past.publish("no-tree", vec![(Kind::Commit, commit(missing, &[past.commits[5].oid], 1000, "no tree"))]);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        for (branch, total, skipped) in [("lossy", 4, 0), ("no-tree", 3, 1), ("main", 3, 0)] {
            let searched = [place(&past.repo, branch)];
            for commits_max in [1, 50] {
                let mut options = DiffOptions { commits_max, ..DiffOptions::default() };
                let mut lines = 0;
                let last = loop {
                    let query = query_of("type:diff needle");
                    let found = find_diffs(&past.corpus, &query, &searched, &options).expect("found");
                    for hit in &found.commits {
                        assert_eq!(hit.is_whole, hit.commit.message != b"lost", "{branch}");
                    }
                    lines += found.commits.iter().map(|hit| hit.total_lines).sum::<u64>();
                    options.cursor.clone_from(&found.next);
                    if found.next.is_none() {
                        break found;
                    }
                };
                assert_eq!((last.total, last.commits_skipped, lines), (total, skipped, last.total_lines), "{branch}");
                assert_eq!(last.partial, (branch != "main").then_some(Partial::Unreadable), "{branch}");
                assert_eq!(last.is_exact, branch == "main", "{branch}");
            }
        }
    }
}

#[test]
fn a_page_ends_where_it_becomes_too_large() {
    let mut past = Past::new();
    // Some five megabytes of lines a commit, each as long as is shown.
    let text = |at: usize| format!("needle {at} {}\n", "x".repeat(16_000)).repeat(330);
    for at in 0..5_usize {
        let parents: Vec<usize> = at.checked_sub(1).into_iter().collect();
        past.commit(&parents, 100 + at as i64, files(&[("a", &text(at))]));
    }
    past.branch("main", 4);
    let searched = [place(&past.repo, "main")];
    for (query, is_all) in [("type:diff needle", false), ("type:diff needle count:all", true)] {
        let mut options = DiffOptions { lines_max: 1_000_000, ..DiffOptions::default() };
        let (mut shown, mut pages) = (Vec::new(), 0);
        let last = loop {
            let found = find_diffs(&past.corpus, &query_of(query), &searched, &options).expect("found");
            pages += 1;
            let bytes = |hit: &DiffHit| hit.files[0].lines.iter().map(|line| line.content.len()).sum::<usize>();
            assert!(found.commits.iter().map(bytes).sum::<usize>() <= 16 << 20);
            assert_eq!(
                (found.total == 5, found.total_lines),
                (is_all || found.next.is_none(), found.total * 660 - if found.total == 5 { 330 } else { 0 })
            );
            shown.extend(found.commits.iter().map(|hit| hit.oid));
            options.cursor.clone_from(&found.next);
            if found.next.is_none() {
                break found;
            }
            assert_eq!(found.partial, Some(Partial::Size));
        };
        assert!(last.is_exact && pages > 2, "{pages} pages");
        let newest_first: Vec<Oid> = past.commits.iter().rev().map(|made| made.oid).collect();
        assert_eq!(shown, newest_first);
    }
}

#[test]
fn authors_are_conditions_on_commits() {
    let past = Past::new();
    for (at, author) in ["Ann", "Bob", "Ann"].into_iter().enumerate() {
        let change = vec![put("a.txt", format!("needle {at}\n").as_bytes())];
        let mut asked = request("main", "work", 1_700_000_000 + at as i64, change);
        asked.author = govc_engine::Signature::new(author, "x@example.com", 1, 0).expect("a person");
        past.repo.commit(asked).expect("commit").published.ticket.wait().expect("durable");
    }
    let count = |query: &str| {
        let searched = [place(&past.repo, "main")];
        let found = find_diffs(&past.corpus, &query_of(query), &searched, &DiffOptions::default()).expect("found");
        (found.total, found.total_lines)
    };
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        assert_eq!(count("type:diff needle author:ann"), (2, 3));
        assert_eq!(count("type:diff needle -author:ann"), (1, 2));
        // What is matched in the lines depends on the commit.
        assert_eq!(count("type:diff ((author:ann \"needle 0\") OR (author:bob \"needle 1\"))"), (2, 2));
        assert_eq!(count("type:diff (author:bob OR \"needle 2\")"), (2, 3));
    }
}
