//! Clones and fetches by the real git: every protocol version, shallow, negotiated, thin, compressed, partial by name.
//!
//! Where the outcome is not obvious the oracle is the same command against the source through git's own upload-pack.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    git::Git,
    history,
    http::Reply,
    http_backend::HttpBackend,
    pack::{command_head, deflate, line, lines},
    partial::ask_v2,
    server::{Place, Server},
    tested,
};

/// A server with the generated history as `repo`, and that history.
fn served(place: &Place, git: &Git) -> (Server, PathBuf) {
    let server = place.serve();
    let source = history::generated(place, git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    (server, source)
}

/// The commits that `dir` has.
fn commits(git: &Git, dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = git.ok(dir, &["rev-list", "--all"]).lines().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn an_empty_repository_is_cloned_and_then_filled() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let repo = format!("empty-{version}");
        server.create(&repo);
        assert_eq!(git.ok(&place.path("home"), &["ls-remote", &server.url(&repo)]), "");
        let work = place.path(&repo);
        git.clone_repo(&server.url(&repo), &work, &[]);
        let head = git.commit(&work, "first", b"first\n", "first");
        git.ok(&work, &["push", "-q", "origin", "HEAD:refs/heads/main"]);
        let again = place.path(&format!("{repo}-again"));
        git.clone_repo(&server.url(&repo), &again, &[]);
        assert_eq!(git.ok(&again, &["rev-parse", "HEAD"]), head);
        assert_eq!(git.ok(&again, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    }
}

#[test]
fn the_branch_that_is_to_come_is_told_as_git_tells_it() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.http().post("/api/v1/repos", &json!({ "id": "repo", "default_branch": "trunk" })).expect(201);
    let oracle = place.path("oracle.git");
    git.ok(&place.path("home"), &["init", "-q", "--bare", "-b", "trunk", oracle.to_str().expect("text")]);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let [got, wanted] = [server.url("repo"), format!("file://{}", oracle.display())].map(|url| {
            let dir = place.path(&format!("{version}-{}", url.len()));
            git.clone_repo(&url, &dir, &[]);
            git.ok(&dir, &["symbolic-ref", "HEAD"])
        });
        assert_eq!(got, wanted, "version {version}");
        assert_eq!(got == "refs/heads/trunk", version == "2", "{got}");
    }
}

/// What was committed over HTTP is stored whole; each of these trees would be a hundred kilobytes on its way.
#[test]
fn commits_by_the_api_go_out_as_deltas() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    std::fs::create_dir_all(work.join("dir")).expect("a folder");
    for at in 0..5000 {
        std::fs::write(work.join(format!("dir/file{at}")), format!("{at}\n")).expect("a file");
    }
    let before = git.commit(&work, "README", b"many files\n", "many files");
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    let mut tip = String::new();
    for at in 0..100 {
        let put = json!({ "op": "put", "path": format!("dir/file{}", 37 * at), "content": format!("changed {at}\n") });
        let change = json!({ "branch": "main", "message": "m", "changes": [put] });
        let made = server.http().post("/api/v1/repos/repo/commits", &change).expect(201);
        tip = made["hash"].as_str().expect("an id").to_owned();
    }
    let asked = ["thin-pack", "ofs-delta", "no-progress", &format!("want {tip}"), &format!("have {before}"), "done"];
    let (said, pack) = ask_v2(&server, "repo", &asked.map(str::to_owned));
    assert!(pack.starts_with(b"PACK") && pack.len() < 64 << 10, "{} bytes: {said:?}", pack.len());
    git.ok_fed(&work, &["index-pack", "--stdin", "--fix-thin"], &pack);
    assert_eq!(git.ok(&work, &["rev-list", "--count", &format!("{before}..{tip}")]), "100");
    git.ok(&work, &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn a_repository_is_reached_without_the_suffix_too() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let url = server.url("repo");
    let short = url.strip_suffix(".git").expect("the suffix");
    let copy = place.path("short.git");
    git.clone_repo(short, &copy, &["--mirror"]);
    assert_eq!(git.references(&copy), git.references(&source));
}

#[test]
fn ls_remote_answers_patterns() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        for arguments in [
            &["--heads"][..],
            &["--tags"],
            &["--refs", "--tags"],
            &["--symref", "HEAD"],
            &["refs/heads/many/01/*"],
            &["main"],
            &["refs/tags/v0.*", "refs/heads/side/*"],
            &["nothing/like/this"],
        ] {
            let ask = |url: &str| {
                let (options, patterns): (Vec<&str>, Vec<&str>) =
                    arguments.iter().copied().partition(|argument| argument.starts_with("--"));
                let all = [&["ls-remote"][..], options.as_slice(), &[url], patterns.as_slice()].concat();
                git.ok(&place.path("home"), &all)
            };
            let wanted = ask(&format!("file://{}", source.display()));
            assert_eq!(ask(&server.url("repo")), wanted, "protocol {version}, {arguments:?}");
        }
    }
}

#[test]
fn shallow_clones_have_the_depth_that_git_gives_them() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let local = format!("file://{}", source.display());
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        for (at, options) in [
            &["--depth=1"][..],
            &["--depth=1", "--no-single-branch"],
            &["--depth=7"],
            &["--depth=30", "--branch=v0.40"],
            &["--shallow-since=1100300000"],
            &["--shallow-exclude=refs/tags/v0.240"],
            &["--shallow-exclude=refs/tags/v0.240", "--shallow-exclude=v0.40", "--shallow-exclude=side/203"],
            &["--shallow-exclude=v0.40", "--shallow-since=1100300000"],
        ]
        .into_iter()
        .enumerate()
        {
            let (wanted, got) = (place.path(&format!("w{version}-{at}")), place.path(&format!("g{version}-{at}")));
            let options = [options, &["--bare"][..]].concat();
            git.clone_repo(&local, &wanted, &options);
            git.clone_repo(&server.url("repo"), &got, &options);
            assert_eq!(commits(&git, &wanted), commits(&git, &got), "protocol {version}, {options:?}");
            assert!(!borders(&got).is_empty(), "protocol {version}, {options:?}");
            assert_eq!(borders(&wanted), borders(&got), "protocol {version}, {options:?}");
            git.ok(&got, &["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]);
        }
    }
}

/// Where a bare repository's history is cut off, if it is.
fn borders(dir: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("shallow")).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_shallow_clone_is_deepened_and_completed() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, source) = served(&place, &git);
    let (local, remote) = (format!("file://{}", source.display()), server.url("repo"));
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let (wanted, got) = (place.path(&format!("w{version}")), place.path(&format!("g{version}")));
        git.clone_repo(&local, &wanted, &["--bare", "--depth=2"]);
        git.clone_repo(&remote, &got, &["--bare", "--depth=2"]);
        for step in [&["--deepen=5"][..], &["--depth=20"], &["--unshallow"]] {
            for (dir, url) in [(&wanted, local.as_str()), (&got, remote.as_str())] {
                let all = [&["fetch", "-q"][..], step, &[url, "refs/heads/main:refs/heads/main"]].concat();
                git.ok(dir, &all);
            }
            assert_eq!(commits(&git, &wanted), commits(&git, &got), "protocol {version}, {step:?}");
            assert_eq!(borders(&wanted), borders(&got), "protocol {version}, {step:?}");
        }
        assert!(!got.join("shallow").exists(), "protocol {version}: complete at last");
        assert_eq!(git.ok(&got, &["rev-list", "--count", "main"]), git.ok(&source, &["rev-list", "--count", "main"]));

        let (wanted, got) = (place.path(&format!("ws{version}")), place.path(&format!("gs{version}")));
        for (dir, url) in [(&wanted, &local), (&got, &remote)] {
            git.clone_repo(url, dir, &["--bare", "--depth=2"]);
            git.ok(dir, &["fetch", "-q", "--shallow-since=1100300000", url, "refs/heads/main:refs/heads/main"]);
        }
        assert_eq!(commits(&git, &wanted), commits(&git, &got), "protocol {version}");
        assert_eq!(borders(&wanted), borders(&got), "protocol {version}");
    }
}

/// What a fetch does to clones of one history, ours and git's own: the same.
#[track_caller]
fn fetch_both(git: &Git, clones: [(&Path, &str); 2], arguments: &[&str], reference: &str) {
    for (dir, url) in clones {
        git.ok(dir, &[&["fetch", "-q"][..], arguments, &[url, reference]].concat());
    }
    let [(wanted, _), (got, _)] = clones;
    assert_eq!(commits(git, wanted), commits(git, got), "{arguments:?}");
    assert_eq!(borders(wanted), borders(got), "{arguments:?}");
}

#[test]
fn a_history_that_is_cut_in_one_way_is_cut_in_others() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = history::generated(&place, &git);
    // Tips that are older than what they lead to: see the next test.
    let odd = git.ok(&source, &["for-each-ref", "--format=delete %(refname)", "refs/heads/odd", "refs/tags/odd-*"]);
    git.ok_fed(&source, &["update-ref", "--stdin"], format!("{odd}\n").as_bytes());
    let server = place.serve();
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    let (local, remote) = (format!("file://{}", source.display()), server.url("repo"));
    let (all, main) = ("+refs/heads/*:refs/heads/*", "refs/heads/main:refs/heads/main");
    // With tips on both sides of the borders.
    let both = &["--shallow-exclude=v0.40", "--shallow-since=1100300000"][..];
    let by_time = &["--shallow-since=1100300000"][..];
    let by_name = &["--shallow-exclude=v0.240", "--shallow-exclude=side/203"][..];
    for (at, (version, first)) in
        [("0", both), ("1", both), ("2", both), ("2", by_time), ("2", by_name)].into_iter().enumerate()
    {
        let git = git.with("protocol.version", version);
        let (wanted, got) = (place.path(&format!("w{at}")), place.path(&format!("g{at}")));
        let options = [&["--bare", "--no-single-branch"][..], first].concat();
        git.clone_repo(&local, &wanted, &options);
        git.clone_repo(&remote, &got, &options);
        let clones = [(wanted.as_path(), local.as_str()), (got.as_path(), remote.as_str())];
        fetch_both(&git, clones, &[], main);
        assert!(!borders(&got).is_empty(), "protocol {version}, {first:?}");
        fetch_both(&git, clones, &["--depth=3"], main);
        fetch_both(&git, clones, &["--shallow-since=1100200000"], all);
        fetch_both(&git, clones, &["--shallow-exclude=v0.280", "--shallow-since=1100250000"], main);
        fetch_both(&git, clones, &["--depth=100"], main);
        git.ok(&got, &["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]);
        fetch_both(&git, clones, &["--unshallow"], main);
        git.ok(&got, &["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]);
    }
}

/// A repository as `source` and on a server, by commits of `main` and other branches: name, branch, seconds, parents.
fn drawn(place: &Place, git: &Git, commits: &[(&str, &str, u64, &[&str])]) -> (Server, String) {
    let source = place.path("source.git");
    std::fs::create_dir_all(&source).expect("a folder");
    git.ok(&source, &["init", "-q", "--bare"]);
    let mark = |name: &str| 1 + commits.iter().position(|(known, ..)| *known == name).expect("a commit");
    let mut stream = String::new();
    for (name, branch, seconds, parents) in commits {
        let (length, number) = (name.len(), mark(name));
        stream +=
            &format!("commit refs/heads/{branch}\nmark :{number}\ncommitter Ada <ada@example.com> {seconds} +0000\n");
        stream += &format!("data {length}\n{name}\n");
        for (at, parent) in parents.iter().enumerate() {
            stream += &format!("{} :{}\n", if at == 0 { "from" } else { "merge" }, mark(parent));
        }
        stream += &format!("reset refs/tags/{name}\nfrom :{number}\n\n");
    }
    git.ok_fed(&source, &["fast-import", "--quiet", "--force", "--date-format=raw"], stream.as_bytes());
    let server = place.serve();
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    (server, format!("file://{}", source.display()))
}

/// The names of the commits that `dir` has, and of those at which it is cut off.
fn named(git: &Git, dir: &Path) -> [Vec<String>; 2] {
    let borders = borders(dir);
    let all = git.ok(dir, &["log", "--all", "--format=%s %H"]);
    let mut names: Vec<_> = all.lines().filter_map(|line| line.split_once(' ')).collect();
    names.sort_unstable();
    let cut = names.iter().filter(|(_, oid)| borders.iter().any(|border| border == oid));
    let cut: Vec<_> = cut.map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(cut.len(), borders.len(), "a border that is not there: {borders:?}");
    [names.iter().map(|(name, _)| (*name).to_owned()).collect(), cut]
}

/// Cut by time and by references at once, git leaves out all that a commit leads to which is too old, so with a tip whose clock
/// went wrong commits that are in time, and that nothing excludes. By its documentation these requests are `rev-list
/// --max-age` and `rev-list --not`, and those list such commits. Here they are part of the history.
#[test]
fn a_tip_with_a_wrong_clock_takes_nothing_from_others() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let history: [(&str, &str, u64, &[&str]); 5] = [
        ("a", "main", 1_000_000_000, &[]),
        ("b", "main", 1_100_000_000, &["a"]),
        ("c", "main", 1_200_000_000, &["b"]),
        ("d", "main", 1_300_000_000, &["c"]),
        ("wrong", "other", 900_000_000, &["c"]),
    ];
    let (server, local) = drawn(&place, &git, &history);
    let options = ["--bare", "--no-tags", "--shallow-exclude=a", "--shallow-since=1050000000"];
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let cloned = |name: &str, url: &str, extent: &str| {
            let dir = place.path(&format!("{name}-{version}"));
            git.clone_repo(url, &dir, &[&options[..], &[extent]].concat());
            git.ok(&dir, &["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]);
            named(&git, &dir)
        };
        let main: [Vec<String>; 2] =
            [&["b", "c", "d"][..], &["b"]].map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(cloned("wanted", &local, "--single-branch"), main, "protocol {version}");
        assert_eq!(cloned("got", &server.url("repo"), "--single-branch"), main, "protocol {version}");
        let [mut with_tip, cut] = main;
        with_tip.push("wrong".to_owned());
        assert_eq!(cloned("both", &server.url("repo"), "--no-single-branch"), [with_tip, cut], "protocol {version}");
    }
}

/// As git does it since its version 2.54: as far as a depth that is so much greater. Before, it counted from each border by
/// itself, and told its client of borders that nothing leads to.
#[test]
fn a_history_is_deepened_beyond_a_merge() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let history: [(&str, &str, u64, &[&str]); 6] = [
        ("a", "main", 1_100_000_001, &[]),
        ("b", "main", 1_100_000_002, &["a"]),
        ("c", "main", 1_100_000_003, &["b"]),
        ("side1", "side", 1_100_000_004, &["c"]),
        ("side2", "side", 1_100_000_005, &["side1"]),
        ("merge", "main", 1_100_000_006, &["c", "side2"]),
    ];
    let (server, local) = drawn(&place, &git, &history);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let [wanted, got] = ["wanted", "got"].map(|name| place.path(&format!("{name}-{version}")));
        git.clone_repo(&server.url("repo"), &got, &["--bare", "--no-tags", "--depth=3"]);
        let main = "refs/heads/main:refs/heads/main";
        let before = [&["b", "c", "merge", "side1", "side2"][..], &["b", "side1"]];
        assert_eq!(named(&git, &got), before, "protocol {version}");
        git.ok(&got, &["fetch", "-q", "--no-tags", "--deepen=1", &server.url("repo"), main]);
        git.clone_repo(&local, &wanted, &["--bare", "--no-tags", "--depth=4"]);
        assert_eq!(named(&git, &got), named(&git, &wanted), "protocol {version}");
        git.ok(&got, &["fsck", "--connectivity-only", "--no-dangling", "--no-progress"]);
    }
}

#[test]
fn pulls_bring_what_others_pushed() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, _) = served(&place, &git);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let (ours, theirs) = (place.path(&format!("ours-{version}")), place.path(&format!("theirs-{version}")));
        git.clone_repo(&server.url("repo"), &ours, &["--branch=many/00/branch-0"]);
        git.clone_repo(&server.url("repo"), &theirs, &["--branch=many/00/branch-0"]);
        for round in 0..3 {
            let name = format!("round-{version}-{round}.txt");
            let head = git.commit(&theirs, &name, name.as_bytes(), "another round");
            git.ok(&theirs, &["push", "-q"]);
            git.ok(&ours, &["pull", "-q"]);
            assert_eq!(git.ok(&ours, &["rev-parse", "HEAD"]), head);
            assert_eq!(std::fs::read(ours.join(&name)).expect("the pulled file"), name.as_bytes());
        }
        git.ok(&ours, &["fsck", "--no-dangling", "--no-progress"]);
    }
}

#[test]
fn tags_of_fetched_commits_follow() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("tagged");
    for version in ["0", "2"] {
        let git = git.with("protocol.version", version);
        let (ours, theirs) = (place.path(&format!("ours-{version}")), place.path(&format!("theirs-{version}")));
        git.init(&theirs);
        git.commit(&theirs, "a", version.as_bytes(), "a");
        git.ok(&theirs, &["remote", "add", "origin", &server.url("tagged")]);
        git.ok(&theirs, &["push", "-q", "--force", "origin", "main"]);
        git.clone_repo(&server.url("tagged"), &ours, &["--no-tags"]);
        git.ok(&ours, &["config", "--unset", "remote.origin.tagOpt"]);
        git.commit(&theirs, "b", b"b", "b");
        let tag = format!("reachable-{version}");
        git.ok(&theirs, &["tag", "-a", "-m", "follows", &tag]);
        git.ok(&theirs, &["checkout", "-q", "--orphan", "apart"]);
        git.commit(&theirs, "c", b"c", "c");
        let apart = format!("apart-{version}");
        git.ok(&theirs, &["tag", "-a", "-m", "does not follow", &apart]);
        git.ok(&theirs, &["push", "-q", "origin", "main", &tag, &apart]);
        git.ok(&ours, &["fetch", "-q", "origin", "refs/heads/main:refs/remotes/origin/main"]);
        assert_eq!(git.ok(&ours, &["rev-parse", &tag]), git.ok(&theirs, &["rev-parse", &tag]));
        git.fails(&ours, &["rev-parse", "--verify", "-q", &apart]);
    }
}

#[test]
fn a_fetch_with_many_haves_is_compressed_and_understood() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let (server, _) = served(&place, &git);
    for version in ["0", "2"] {
        let git = git.with("protocol.version", version);
        let (ours, theirs) = (place.path(&format!("ours-{version}")), place.path(&format!("theirs-{version}")));
        git.clone_repo(&server.url("repo"), &ours, &[]);
        git.clone_repo(&server.url("repo"), &theirs, &[]);
        // Commits that the server does not know, to be offered in vain before a common one is found.
        let mut stream = String::new();
        for at in 0..600 {
            stream.push_str(&format!(
                "commit refs/heads/local\ncommitter A <a@b> {} +0000\ndata 1\nx\n",
                1_900_000_000 + at
            ));
            stream.push_str(if at == 0 { "from refs/heads/main\n" } else { "" });
        }
        git.ok_fed(&ours, &["fast-import", "--quiet"], stream.as_bytes());
        let head = git.commit(&theirs, "news", version.as_bytes(), "news");
        git.ok(&theirs, &["push", "-q"]);
        let output = git.command(&ours).args(["fetch", "-q", "origin"]).env("GIT_TRACE_CURL", "1").output();
        let output = output.expect("git is installed");
        let trace = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
        assert!(output.status.success(), "{trace}");
        assert!(trace.contains("content-encoding: gzip"), "git was to compress its request");
        assert_eq!(git.ok(&ours, &["rev-parse", "origin/main"]), head);
    }
}

/// A history of criss-cross merges whose clocks are wrong by up to weeks, so that most commits have a parent that is
/// younger, in the bare repository `dir`. Each has a branch of its own.
fn criss_cross(git: &Git, dir: &Path, seed: u64) {
    const COMMITS: u64 = 400;
    std::fs::create_dir_all(dir).expect("a folder");
    git.ok(dir, &["init", "-q", "--bare"]);
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut stream = String::new();
    for at in 1..=COMMITS {
        let seconds = 1_700_000_000 + 3600 * at + random(60 * 86_400) - 30 * 86_400;
        stream.push_str(&format!("commit refs/heads/c{at}\nmark :{at}\ncommitter A <a@b> {seconds} +0000\ndata 0\n"));
        let mut parents: Vec<u64> = (0..=random(3)).map(|_| at.saturating_sub(1 + random(8)).max(1)).collect();
        parents.sort_unstable();
        parents.dedup();
        parents.retain(|parent| *parent < at);
        for (nth, parent) in parents.iter().enumerate() {
            stream.push_str(&format!("{} :{parent}\n", if nth == 0 { "from" } else { "merge" }));
        }
        stream.push_str(&format!("M 100644 inline {}/{}\ndata <<E\n{at}\nE\n\n", random(6), random(40)));
    }
    git.ok_fed(dir, &["fast-import", "--quiet", "--force"], stream.as_bytes());
}

/// How far a client must walk that has what others have not is told by the clocks of commits, which may be wrong: then more may
/// be asked and sent than there must be, but never less, and never more than git has to send.
#[test]
fn wrong_clocks_make_no_fetch_larger_than_gits() {
    let place = Place::new();
    let base = Git::new(&place.path("home"));
    let server = place.serve();
    let root = place.path("root");
    let oracle = HttpBackend::start(&base, &root, |_, given| given);
    for seed in 0..3 {
        let name = format!("skewed{seed}");
        let source = root.join(format!("{name}.git"));
        criss_cross(&base, &source, seed);
        server.create(&name);
        base.ok(&source, &["push", "-q", "--mirror", &server.url(&name)]);
        let skewed = base.ok(&source, &["rev-list", "--all", "--timestamp", "--parents"]);
        let seconds: HashMap<&str, &str> = skewed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(at, rest)| (rest.split(' ').next().unwrap_or(rest), at))
            .collect();
        let is_older = |line: &&str| {
            let mut words = line.split(' ');
            let at = words.next();
            words.skip(1).any(|parent| seconds.get(parent).copied() > at)
        };
        let older = skewed.lines().filter(is_older).count();
        assert!(older > 100, "{older} commits are older than a parent");
        for (round, (haves, wants)) in [
            (&["c20", "c35"][..], &["c60"][..]),
            (&["c100", "c93", "c140"], &["c150", "c180"]),
            (&["c200"], &["c390"]),
            (&["c301", "c305", "c309", "c313"], &["c320", "c60", "c330"]),
            (&["c395", "c40"], &["c400"]),
        ]
        .into_iter()
        .enumerate()
        {
            for (algorithm, version) in [("consecutive", "2"), ("skipping", "2"), ("consecutive", "0")] {
                let git = base.with("fetch.negotiationAlgorithm", algorithm).with("protocol.version", version);
                let git = git.with("fetch.unpackLimit", "1");
                let before = place.path(&format!("{name}-{round}-{algorithm}-{version}"));
                git.init(&before);
                let refs = |names: &[&str]| -> Vec<String> {
                    names.iter().map(|name| format!("refs/heads/{name}:refs/heads/{name}")).collect()
                };
                // How many objects come.
                let fetch = |into: &Path, url: &str, names: &[&str]| -> u64 {
                    let refs = refs(names);
                    let arguments = ["fetch", "--progress", "--no-tags", url];
                    let arguments: Vec<&str> = arguments.into_iter().chain(refs.iter().map(String::as_str)).collect();
                    let output = git.run(into, &arguments);
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(output.status.success(), "{said}");
                    let told = said.split(['\r', '\n']).rfind(|line| line.starts_with("Receiving objects: 100% ("));
                    let count = told.and_then(|line| line.split(['(', '/']).nth(1));
                    count.map_or(0, |count| count.parse().expect("a number"))
                };
                fetch(&before, source.to_str().expect("UTF-8"), haves);
                // What nobody else has, on the newest of it and on the oldest, is offered in vain.
                let mut own = String::new();
                for (at, have) in haves.iter().enumerate() {
                    for commit in 0..20 {
                        let seconds = 1_900_000_000 + commit;
                        own.push_str(&format!(
                            "commit refs/heads/own{at}\ncommitter A <a@b> {seconds} +0000\ndata 0\n"
                        ));
                        own.push_str(&if commit == 0 {
                            format!("from refs/heads/{have}^0\n\n")
                        } else {
                            "\n".to_owned()
                        });
                    }
                }
                git.ok_fed(&before, &["fast-import", "--quiet"], own.as_bytes());
                let from = [("ours", server.url(&name)), ("gits", oracle.url(&format!("{name}.git")))];
                let [ours, gits] = from.map(|(whose, url)| {
                    let copy = before.with_extension(whose);
                    git.clone_repo(before.to_str().expect("UTF-8"), &copy, &["--mirror", "--local"]);
                    let count = fetch(&copy, &url, wants);
                    for want in wants {
                        assert_eq!(git.ok(&copy, &["rev-parse", want]), git.ok(&source, &["rev-parse", want]));
                    }
                    git.ok(&copy, &["fsck", "--strict", "--connectivity-only"]);
                    count
                });
                assert!(
                    ours <= gits + gits / 10,
                    "{seed} {haves:?} {wants:?} {algorithm}: {ours} objects, of git {gits}"
                );
            }
        }
    }
}

/// The answer to a fetch of `want` by a client that has `have`, and the pack in it.
fn fetched(server: &Server, repo: &str, arguments: &[&str], want: &str, have: &str) -> (Reply, Vec<u8>) {
    let mut body = command_head("fetch");
    body.extend_from_slice(b"0001");
    for argument in arguments.iter().chain(&["no-progress"]) {
        body.extend(line(argument.as_bytes()));
    }
    body.extend(line(format!("want {want}\n").as_bytes()));
    body.extend(line(format!("have {have}\n").as_bytes()));
    body.extend(line(b"done\n"));
    body.extend_from_slice(b"0000");
    let headers = [("content-type", "application/x-git-upload-pack-request"), ("git-protocol", "version=2")];
    let reply = server.http().send("POST", &format!("/{repo}.git/git-upload-pack"), &headers, &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let data = lines(&reply.body).into_iter().filter(|payload| payload.first() == Some(&1));
    let pack = data.flat_map(|payload| payload[1..].to_vec()).collect();
    (reply, pack)
}

/// How many objects a pack announces.
fn objects_in(pack: &[u8]) -> u32 {
    assert!(pack.starts_with(b"PACK"), "a pack came");
    u32::from_be_bytes(pack[8..12].try_into().expect("four bytes"))
}

#[test]
fn a_thin_pack_holds_the_change_alone() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("thin");
    let work = place.path("work");
    git.init(&work);
    let mut content = history::noise(7, 400_000);
    let old = git.commit(&work, "large", &content, "large");
    git.ok(&work, &["remote", "add", "origin", &server.url("thin")]);
    git.ok(&work, &["push", "-q", "origin", "main"]);
    content[200_000] ^= 1;
    let new = git.commit(&work, "large", &content, "changed");
    git.ok(&work, &["push", "-q", "origin", "main"]);

    let (reply, pack) = fetched(&server, "thin", &["thin-pack", "ofs-delta"], &new, &old);
    assert_eq!(objects_in(&pack), 3, "commit, tree and blob");
    assert!(reply.body.len() < 4096, "{} bytes for one changed byte", reply.body.len());
    // A client that does not take thin packs gets the blob whole.
    let (_, pack) = fetched(&server, "thin", &["ofs-delta"], &new, &old);
    assert_eq!(objects_in(&pack), 3, "commit, tree and blob");
    assert!(pack.len() > content.len(), "{} bytes", pack.len());

    let copy = place.path("copy");
    git.clone_repo(&server.url("thin"), &copy, &[]);
    assert_eq!(std::fs::read(copy.join("large")).expect("the file"), content);
}

#[test]
fn small_changes_of_a_large_text_are_sent_as_deltas() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("text");
    let (ours, theirs) = (place.path("ours"), place.path("theirs"));
    git.init(&theirs);
    let mut text: Vec<String> = history::noise(3, 640_000).chunks(16).map(|bytes| format!("{bytes:02x?}\n")).collect();
    git.commit(&theirs, "small", b"small\n", "another file");
    let old = git.commit(&theirs, "dir/text", text.concat().as_bytes(), "a text");
    git.ok(&theirs, &["remote", "add", "origin", &server.url("text")]);
    git.ok(&theirs, &["push", "-q", "origin", "main"]);
    git.clone_repo(&server.url("text"), &ours, &[]);
    let mut new = String::new();
    for at in [100, 20_000, 39_000] {
        // Longer, for git makes the longest version the base of the others.
        text[at] = format!("line {at} {}\n", "x".repeat(200));
        new = git.commit(&theirs, "dir/text", text.concat().as_bytes(), "one line");
        git.ok(&theirs, &["push", "-q", "origin", "main"]);
    }

    let one_text = deflate(text.concat().as_bytes()).len();
    let empty = place.path("empty");
    git.init(&empty);
    for offsets in [&["ofs-delta"][..], &[]] {
        let arguments = [&["thin-pack"][..], offsets].concat();
        let (reply, pack) = fetched(&server, "text", &arguments, &new, &old);
        assert_eq!(objects_in(&pack), 12, "of each commit the commit, two trees and the text");
        assert!(reply.body.len() < 64 << 10, "{arguments:?}: {} bytes", reply.body.len());
        assert!(
            !git.feed(&empty, &["index-pack", "--stdin"], &pack).status.success(),
            "a thin pack has bases elsewhere"
        );

        let (_, pack) = fetched(&server, "text", offsets, &new, &old);
        assert_eq!(objects_in(&pack), 12, "{offsets:?}");
        assert!(pack.len() < one_text * 3 / 2, "{offsets:?}: {} bytes; one text has {one_text}", pack.len());
        assert!(git.feed(&empty, &["index-pack", "--stdin"], &pack).status.success(), "{offsets:?}: it is complete");
    }
    // The same from the pack of one push, which is kept and has the newest text whole.
    server.create("at-once");
    git.ok(&theirs, &["push", "-q", &server.url("at-once"), "main"]);
    let (_, pack) = fetched(&server, "at-once", &["thin-pack", "ofs-delta"], &new, &old);
    assert_eq!(objects_in(&pack), 12);
    assert!(pack.len() < 64 << 10, "{} bytes", pack.len());

    git.ok(&ours, &["pull", "-q"]);
    assert_eq!(git.ok(&ours, &["rev-parse", "HEAD"]), new);
    assert_eq!(std::fs::read(ours.join("dir/text")).expect("the text"), text.concat().as_bytes());
    git.ok(&ours, &["fsck", "--strict", "--no-dangling", "--no-progress"]);
}

#[test]
fn dumb_and_unknown_services_are_refused() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    for path in
        ["/repo.git/info/refs", "/repo.git/info/refs?service=git-upload-archive", "/repo.git/info/refs?service="]
    {
        let reply = http.get(path);
        assert!((400..500).contains(&reply.status), "{path}: {}", reply.status);
    }
    for path in ["/no/such.git/info/refs?service=git-upload-pack", "/none.git/info/refs?service=git-receive-pack"] {
        assert_eq!(http.get(path).status, 404, "{path}");
    }
    for path in ["/repo.git/HEAD", "/repo.git/objects/info/packs", "/repo.git/config", "/repo.git/../repo.git/HEAD"] {
        assert_eq!(http.get(path).status, 404, "{path}");
    }
    let reply = http.get("/repo.git/info/refs?service=git-upload-pack");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/x-git-upload-pack-advertisement"));
    assert!(reply.header("cache-control").is_some_and(|value| value.contains("no-cache")));
    let wrong = [("content-type", "application/json")];
    let reply = http.send("POST", "/repo.git/git-upload-pack", &wrong, b"0000");
    assert!((400..500).contains(&reply.status), "a wrong content type: {}", reply.status);
}

#[test]
fn a_malformed_request_is_refused_and_the_server_goes_on() {
    let place = Place::new();
    let mut server = place.serve();
    server.create("repo");
    let http = server.http();
    let nobody = tested::id_of("1");
    let bodies: [Vec<u8>; 8] = [
        b"zzzz".to_vec(),
        b"0003".to_vec(),
        b"fff1".to_vec(),
        b"00".to_vec(),
        command_head("nonsense"),
        [command_head("fetch"), b"0001".to_vec(), line(b"want nonsense"), b"0000".to_vec()].concat(),
        [
            command_head("fetch"),
            b"0001".to_vec(),
            line(format!("want {nobody}").as_bytes()),
            line(b"done"),
            b"0000".to_vec(),
        ]
        .concat(),
        [command_head("fetch"), b"0001".to_vec(), line(b"deepen -1"), b"0000".to_vec()].concat(),
    ];
    for body in bodies {
        let headers = [("content-type", "application/x-git-upload-pack-request"), ("git-protocol", "version=2")];
        let reply = http.send("POST", "/repo.git/git-upload-pack", &headers, &body);
        let told = (400..500).contains(&reply.status) || reply.body.windows(4).any(|bytes| bytes == b"ERR ");
        assert!(told, "{:?} was answered {}: {}", String::from_utf8_lossy(&body), reply.status, reply.text());
        assert!(!reply.body.windows(4).any(|bytes| bytes == b"PACK"));
    }
    let headers = [("content-type", "application/x-git-upload-pack-request"), ("content-encoding", "gzip")];
    let reply = http.send("POST", "/repo.git/git-upload-pack", &headers, b"this is not gzip");
    let told = (400..500).contains(&reply.status) || reply.body.windows(4).any(|bytes| bytes == b"ERR ");
    assert!(told, "{}: {}", reply.status, reply.text());
    assert!(server.alive());
    assert_eq!(http.get("/health").status, 200);
}
