//! Pushes to a branch that others push to: with the option `govc.on-conflict` they all arrive.

use crate::{
    git::Git,
    server::{Place, Server},
};

/// A server whose `repo` has one commit, and a path for checkouts.
fn begin(place: &Place, git: &Git) -> Server {
    let server = place.serve();
    server.create("repo");
    let work = place.path("first");
    git.init(&work);
    git.commit(&work, "shared", b"one\n", "one");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    server
}

#[test]
fn twenty_writers_on_one_branch_all_succeed() {
    for how in ["rebase", "merge"] {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let server = begin(&place, &git);
        let option = format!("govc.on-conflict={how}");
        std::thread::scope(|scope| {
            for writer in 0..20 {
                let (git, server, place, option) = (&git, &server, &place, &option);
                scope.spawn(move || {
                    let work = place.path(&format!("work{writer}"));
                    git.clone_repo(&server.url("repo"), &work, &[]);
                    for commit in 0..2 {
                        git.commit(&work, &format!("dir/file{writer}"), format!("{commit}\n").as_bytes(), "more");
                    }
                    // Forced, so that the client does not insist on what it knows of the branch.
                    git.ok(&work, &["push", "-q", "--force", "-o", option, "origin", "main"]);
                });
            }
        });
        let all = place.path("all");
        git.clone_repo(&server.url("repo"), &all, &[]);
        assert_eq!(git.ok(&all, &["ls-files"]).lines().count(), 21, "{how}");
        let commits = git.ok(&all, &["rev-list", "HEAD"]).lines().count();
        let merges = git.ok(&all, &["rev-list", "--merges", "HEAD"]).lines().count();
        match how {
            "rebase" => assert_eq!((commits, merges), (41, 0)),
            _ => assert_eq!(commits, 41 + merges),
        }
        for writer in 0..20 {
            assert_eq!(git.ok(&all, &["show", &format!("HEAD:dir/file{writer}")]), "1");
        }
        assert_eq!(git.findings(&all), (Some(0), Vec::new()));
    }
}

#[test]
fn what_was_pushed_is_named_and_its_people_stay() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = begin(&place, &git);
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    for work in [&ours, &theirs] {
        git.clone_repo(&server.url("repo"), work, &[]);
    }
    let first = git.commit(&theirs, "theirs", b"1\n", "theirs");
    git.ok(&theirs, &["push", "-q", "origin", "main"]);
    let before = git.commit(&ours, "ours", b"1\n", "ours\n\nwith a body");
    let said = git.run(&ours, &["push", "--force", "-o", "govc.on-conflict=rebase", "origin", "main"]);
    assert!(said.status.success());
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    let tip = git.ok(&ours, &["ls-remote", "origin", "refs/heads/main"]).split('\t').next().unwrap_or("").to_owned();
    assert_ne!(tip, before);
    assert!(said.contains(&format!("refs/heads/main has moved; what was pushed is in {tip}")), "{said}");
    // The client hears which commit the branch got, and leaves what it knows of the branch until it fetches that.
    assert!(said.contains(&format!("nonexistent object {tip}")), "{said}");
    git.ok(&ours, &["pull", "-q", "--rebase", "origin", "main"]);
    assert_eq!(git.ok(&ours, &["rev-parse", "HEAD"]), tip, "the client's own commit is there already");
    assert_eq!(git.ok(&ours, &["rev-parse", "HEAD~1"]), first);
    let people = |rev: &str| git.ok(&ours, &["log", "-1", "--format=%an%ae%at%cn%ce%ct%B", rev]);
    assert_eq!(people(&tip), people(&before));
    assert_eq!(git.ok(&ours, &["rev-parse", "origin/main"]), tip);
}

#[test]
fn empty_commits_signatures_and_resets_come_out_as_documented() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = begin(&place, &git);
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    for work in [&ours, &theirs] {
        git.clone_repo(&server.url("repo"), work, &[]);
    }
    git.commit(&theirs, "theirs", b"1\n", "theirs");
    git.ok(&theirs, &["push", "-q", "origin", "main"]);
    // A commit that was empty stays one; what is there already is left out; a signature goes, other headers stay.
    git.ok(&ours, &["commit", "-q", "--allow-empty", "-m", "marker"]);
    git.commit(&ours, "theirs", b"1\n", "the same");
    let tree = git.ok(&ours, &["rev-parse", "HEAD^{tree}"]);
    let parent = git.ok(&ours, &["rev-parse", "HEAD"]);
    let person = "A <a@example.org> 1700000000 +0100";
    let signed = format!(
        "tree {tree}\nparent {parent}\nauthor {person}\ncommitter {person}\nchange-id x\ngpgsig a\n b\n\nsigned\n"
    );
    let signed = git.object(&ours, "commit", signed.as_bytes());
    let option = "govc.on-conflict=rebase";
    git.ok(&ours, &["push", "-q", "--force", "-o", option, "origin", &format!("{signed}:refs/heads/main")]);
    git.ok(&ours, &["fetch", "-q"]);
    let subjects = git.ok(&ours, &["log", "--format=%s", "origin/main"]);
    assert_eq!(subjects.lines().collect::<Vec<_>>(), ["signed", "marker", "theirs", "one"]);
    let raw = git.ok(&ours, &["cat-file", "-p", "origin/main"]);
    assert!(raw.contains("change-id x") && !raw.contains("gpgsig") && raw.contains(person), "{raw}");

    // A merge is not made again, and named; it can be merged. A branch that has everything already stays.
    let tip = git.ok(&ours, &["rev-parse", "origin/main"]);
    git.ok(&ours, &["reset", "-q", "--hard", "origin/main~1"]);
    git.ok(&ours, &["checkout", "-q", "-b", "side", "HEAD~1"]);
    git.commit(&ours, "side", b"1\n", "side");
    git.ok(&ours, &["merge", "-q", "--no-ff", "-m", "a merge", "main"]);
    let merge = git.ok(&ours, &["rev-parse", "HEAD"]);
    let push = |how: &str, work: &str| {
        let option = format!("govc.on-conflict={how}");
        git.run(&ours, &["push", "--force", "-o", &option, "origin", &format!("{work}:refs/heads/main")])
    };
    let said = push("rebase", "side");
    assert!(String::from_utf8_lossy(&said.stderr).contains(&format!("{merge} is a merge")), "{said:?}");
    let said = push("rebase", "origin/main~2");
    assert!(said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains(&format!("stays at {tip}")), "{said:?}");
    assert!(push("merge", "side").status.success());
    git.ok(&ours, &["fetch", "-q"]);
    let parents = git.ok(&ours, &["log", "-1", "--format=%P", "origin/main"]);
    assert_eq!(parents, format!("{tip} {merge}"));
    assert_eq!(git.findings(&ours).0, Some(0));
}

#[test]
fn what_cannot_be_brought_is_refused_and_changes_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = begin(&place, &git);
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    for work in [&ours, &theirs] {
        git.clone_repo(&server.url("repo"), work, &[]);
    }
    git.commit(&theirs, "shared", b"theirs\n", "theirs");
    git.ok(&theirs, &["push", "-q", "origin", "main"]);
    let tip = git.ok(&theirs, &["rev-parse", "HEAD"]);
    git.commit(&ours, "shared", b"ours\n", "ours");
    let push =
        |option: &str, refs: &[&str]| git.fails(&ours, &[&["push", "--force", "-o", option, "origin"], refs].concat());
    for how in ["rebase", "merge"] {
        let said = push(&format!("govc.on-conflict={how}"), &["main"]);
        assert!(said.contains("conflict in shared"), "{said}");
    }
    assert!(push("govc.on-conflict=theirs", &["main"]).contains("is not known"));
    // All or nothing, and nothing that has no common history.
    let said = push("govc.on-conflict=merge", &["--atomic", "main", "HEAD:refs/heads/new"]);
    assert!(said.contains("conflict in shared"), "{said}");
    git.ok(&ours, &["checkout", "-q", "--orphan", "apart"]);
    git.commit(&ours, "apart", b"apart\n", "apart");
    assert!(push("govc.on-conflict=merge", &["apart:main"]).contains("failed to update ref"));
    let refs = git.ok(&ours, &["ls-remote", "origin"]);
    assert_eq!(refs, format!("{tip}\tHEAD\n{tip}\trefs/heads/main"));
    // Without the option, or where others may not be touched, a forced push is one.
    let forced = git.ok(&ours, &["rev-parse", "HEAD"]);
    git.ok(&ours, &["push", "-q", "--force", "-o", "govc.on-conflict=fail", "-o", "ci.skip", "origin", "apart:main"]);
    assert!(git.ok(&ours, &["ls-remote", "origin", "refs/heads/main"]).starts_with(&forced));
}
