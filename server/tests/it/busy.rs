//! Pushes to a branch that others push to: with the option `govc.on-conflict` they all arrive.

use crate::{
    git::Git,
    pack::{RECEIVE_HEADERS, RefChange, line, lines, push_body},
    server::{Place, Server},
    tested,
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

/// As `gitprotocol-pack` has it, the lines of a push that the server did otherwise than it was told. What is not otherwise
/// gets none: neither other names nor other ids are told by git either, of a push that it has done as it was told.
#[test]
fn the_second_version_of_the_report_has_the_ids_that_the_first_has_not() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = begin(&place, &git);
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    for work in [&ours, &theirs] {
        git.clone_repo(&server.url("repo"), work, &[]);
    }
    let tip = |name: &str| git.ok(&ours, &["ls-remote", "origin", name]).split('\t').next().unwrap_or("").to_owned();
    let id = |hex: &str| hex.parse().expect("an id");
    // A push of `work` to main, and as another branch, by a client that has not seen main since `base`.
    let body = |features: &str, options: &[&str], base: &str, work: &str, other: &str| {
        let output =
            git.feed(&ours, &["pack-objects", "-q", "--revs", "--stdout"], format!("{work}\n^{base}\n").as_bytes());
        assert!(output.status.success(), "{output:?}");
        let change = |old, name: &str| RefChange { old, new: id(work), name: name.as_bytes().to_vec() };
        let changes = [change(id(base), "refs/heads/main"), change(tested::null(), &format!("refs/heads/{other}"))];
        let mut behind: Vec<u8> = options.iter().flat_map(|option| line(option.as_bytes())).collect();
        behind.extend_from_slice(if options.is_empty() { b"" } else { b"0000" });
        push_body(&changes, features, &[behind, output.stdout].concat())
    };
    let report = |body: &[u8]| {
        let reply = server.http().send("POST", "/repo.git/git-receive-pack", RECEIVE_HEADERS, body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.body.ends_with(b"0000"), "{}", reply.text());
        let text = |line: Vec<u8>| String::from_utf8(line).expect("text").trim_end().to_owned();
        lines(&reply.body).into_iter().map(text).collect::<Vec<_>>()
    };
    let base = git.ok(&ours, &["rev-parse", "HEAD"]);
    let options = ["govc.on-conflict=rebase"];
    for (round, version) in ["report-status", "report-status-v2", "report-status report-status-v2"].iter().enumerate() {
        git.ok(&theirs, &["pull", "-q"]);
        let moved = git.commit(&theirs, &format!("theirs{round}"), b"1\n", "theirs");
        git.ok(&theirs, &["push", "-q", "origin", "main"]);
        git.ok(&ours, &["reset", "-q", "--hard", &base]);
        let work = git.commit(&ours, &format!("ours{round}"), b"1\n", "ours");
        let other = format!("other{round}");
        let told = report(&body(&format!("{version} push-options"), &options, &base, &work, &other));
        let brought = tip("refs/heads/main");
        assert!(brought != work && brought != moved);
        git.ok(&ours, &["fetch", "-q"]);
        // So that the update was not forced, whatever it was of what the client knew.
        git.ok(&ours, &["merge-base", "--is-ancestor", &moved, &brought]);
        let ok = ["main", &other].map(|name| format!("ok refs/heads/{name}"));
        let (unpack, [main, other]) = ("unpack ok".to_owned(), ok);
        let (old, new) = (format!("option old-oid {moved}"), format!("option new-oid {brought}"));
        match round {
            0 => assert_eq!(told, [unpack, main, other], "{version}"),
            _ => assert_eq!(told, [unpack, main, old, new, other], "{version}"),
        }
        // The same again: all of it is there.
        let told = report(&body("report-status-v2 push-options", &options, &base, &work, &format!("again{round}")));
        assert_eq!(told[2..4], [format!("option old-oid {brought}"), format!("option new-oid {brought}")], "{told:?}");
        assert_eq!(tip("refs/heads/main"), brought);
    }

    // What is done as it was told, by git and here.
    let bare = place.path("bare.git");
    git.clone_repo(&server.url("repo"), &bare, &["--mirror"]);
    let main = tip("refs/heads/main");
    git.ok(&ours, &["reset", "-q", "--hard", &base]);
    let work = git.commit(&ours, "forced", b"1\n", "forced");
    for version in ["report-status", "report-status-v2"] {
        let forced = |other: &str| {
            let body = body(version, &[], &main, &work, other);
            let output = git.feed(&bare, &["receive-pack", "--stateless-rpc", "."], &body);
            assert!(output.status.success(), "{output:?}");
            let text = |line: Vec<u8>| String::from_utf8(line).expect("text").trim_end().to_owned();
            (report(&body), lines(&output.stdout).into_iter().map(text).collect::<Vec<_>>())
        };
        let (told, gits) = forced(version);
        assert_eq!(told, gits, "{version}");
        assert_eq!(told.len(), 3);
        // As it was.
        git.ok(&bare, &["update-ref", "refs/heads/main", &main]);
        git.ok(&ours, &["push", "-q", "--force", "origin", &format!("{main}:refs/heads/main")]);
    }
}
