//! Packs that the server keeps to serve again: a clone gets what it would get without them.

use std::path::{Path, PathBuf};
use std::sync::{
    Barrier,
    atomic::{AtomicUsize, Ordering},
};
use std::thread;

use govc_engine::{Kind, Oid};
use serde_json::{Value, json};

use crate::{
    git::Git,
    history,
    pack::{Pack, RefChange, Report, command_head, line, push_new, push_raw},
    rest_commits,
    server::{Launch, Place, Server},
    tested,
};

#[test]
fn a_clone_of_one_branch_gets_the_tags_of_what_it_holds() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    server.create("repo");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("repo")]);
    let local = format!("file://{}", source.display());
    let same = |what: &str, git: &Git, options: &[&str]| {
        let options = [options, &["--bare"][..]].concat();
        let (wanted, got) = (place.path(&format!("wanted-{what}")), place.path(&format!("got-{what}")));
        git.clone_repo(&local, &wanted, &options);
        git.clone_repo(&server.url("repo"), &got, &options);
        assert_eq!(git.references(&got), git.references(&wanted), "{what}");
        assert_eq!(git.objects(&got), git.objects(&wanted), "{what}");
    };
    for version in ["0", "2"] {
        let git = git.with("protocol.version", version);
        // The second is served from what was kept of the first.
        for round in ["first", "second"] {
            same(&format!("{round}-{version}"), &git, &["--single-branch"]);
            same(&format!("{round}-none-{version}"), &git, &["--single-branch", "--no-tags"]);
        }
        let late = format!("late-{version}");
        git.ok(&source, &["tag", "-a", "-m", "later than the kept pack", &late, "main~3"]);
        git.ok(&source, &["push", "-q", &server.url("repo"), &late]);
        same(&late, &git, &["--single-branch"]);
    }
}

fn delete(old: Oid, name: &str) -> RefChange {
    RefChange { old, new: tested::null(), name: name.as_bytes().to_vec() }
}

/// A bare clone with everything, and its number of objects.
fn clone_all(git: &Git, url: &str, dir: &Path) -> usize {
    git.clone_repo(url, dir, &["--mirror"]);
    git.ok(dir, &["fsck", "--no-dangling", "--no-progress"]);
    git.objects(dir).len()
}

#[test]
fn a_pack_without_the_tips_is_no_clone() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let http = server.http();
    let mut first = Pack::new();
    let commit = first.commit("first");
    assert!(push_new(&http, "repo", "refs/tags/t", commit, &first.finish()).accepted());
    let deleted = push_raw(&http, "repo", &[delete(commit, "refs/tags/t")], b"");
    assert!(Report::parse(&deleted.body).accepted(), "{}", deleted.text());
    // The repository has no references now, as before a first push, and yet the commit.
    let mut junk = Pack::new();
    junk.object(Kind::Blob, b"junk\n");
    let report = push_new(&http, "repo", "refs/heads/main", commit, &junk.finish());
    assert!(report.accepted(), "{report:?}");
    let copy = place.path("copy.git");
    assert_eq!(clone_all(&git, &server.url("repo"), &copy), 3, "commit, tree and blob");
    assert_eq!(git.ok(&copy, &["rev-parse", "refs/heads/main"]), commit.to_string());
}

#[test]
fn what_no_tip_reaches_is_not_served() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let mut pack = Pack::new();
    let commit = pack.commit("first");
    pack.object(Kind::Blob, b"junk\n");
    pack.commit("reached by nothing");
    let report = push_new(&server.http(), "repo", "refs/heads/main", commit, &pack.finish());
    assert!(report.accepted(), "{report:?}");
    assert_eq!(clone_all(&git, &server.url("repo"), &place.path("copy.git")), 3, "commit, tree and blob");
}

/// Two commits and so many files that a clone of one is kept.
fn many_files(place: &Place, git: &Git) -> PathBuf {
    let work = place.path("work");
    git.init(&work);
    for at in 0..1200 {
        let dir = work.join(format!("dir{}", at % 30));
        std::fs::create_dir_all(&dir).expect("a folder");
        std::fs::write(dir.join(format!("file{at}")), format!("{:width$}\n", at, width = at / 10)).expect("a file");
    }
    git.ok(&work, &["add", "."]);
    git.ok(&work, &["commit", "-q", "-m", "first"]);
    git.commit(&work, "dir0/file0", b"changed\n", "second");
    work
}

#[test]
fn shallow_and_partial_clones_are_kept_by_what_they_leave_out() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = many_files(&place, &git);
    let (url, local) = (server.url("repo"), format!("file://{}", work.display()));
    git.ok(&work, &["push", "-q", &url, "main"]);
    git.ok(&work, &["config", "uploadpack.allowFilter", "true"]);
    let mut clones = 0;
    let mut clone = |source: &str, options: &[&str]| {
        clones += 1;
        let copy = place.path(&format!("copy{clones}"));
        let copied = [&["clone", "--bare", "--progress"], options, &[source, copy.to_str().expect("text")]].concat();
        let output = git.run(&work, &copied);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{options:?}: {said}");
        (copy, said.contains("objects, reused "))
    };
    let objects = |dir: &Path| git.ok(dir, &["cat-file", "--batch-all-objects", "--batch-check", "--unordered"]).len();
    let forms: [&[&str]; 5] = [
        &["--depth=1"],
        &["--filter=blob:limit=100"],
        &["--filter=blob:limit=101"],
        &["--depth=1", "--filter=blob:limit=100"],
        &["--depth=1", "--filter=blob:limit=100", "--no-tags"],
    ];
    for options in forms {
        let (wanted, _) = clone(&local, options);
        let is_known = options.len() == 3;
        for is_second in [false, true] {
            let (got, is_copy) = clone(&url, options);
            assert_eq!(is_copy, is_second || is_known, "{options:?}");
            assert_eq!(objects(&got), objects(&wanted), "{options:?}");
            assert_eq!(git.references(&got), git.references(&wanted), "{options:?}");
        }
    }
    // What is asked with something at hand, or by path, is made for each.
    git.commit(&work, "sparse", b"/dir1/\n", "third");
    git.ok(&work, &["push", "-q", &url, "main"]);
    for _ in 0..2 {
        let (got, is_copy) = clone(&url, &["--filter=sparse:oid=main:sparse"]);
        assert!(!is_copy);
        assert_eq!(git.ok(&got, &["rev-parse", "main"]), git.ok(&work, &["rev-parse", "main"]));
    }
    assert!(!clone(&url, &["--depth=1"]).1, "the branch has moved");
    assert!(clone(&url, &["--depth=1"]).1);
}

/// How many packs were sent that were made, extended, shared and kept.
fn sources(server: &Server) -> [usize; 4] {
    counted(server, "govc_packs_sent_total", ["made", "extended", "shared", "kept"])
}

/// Figures of one name, by their source.
fn counted<const N: usize>(server: &Server, name: &str, sources: [&str; N]) -> [usize; N] {
    let metrics = server.http().get("/metrics").text();
    sources.map(|source| {
        let name = format!("{name}{{source=\"{source}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.and_then(|value| value.parse::<usize>().ok()).unwrap_or_else(|| panic!("no {name}"))
    })
}

#[test]
fn what_was_deflated_for_other_clones_is_copied() {
    const FILES: usize = 1200;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    // Nothing of what comes over the API is compressed yet.
    let put = |at: usize, content: String| json!({ "op": "put", "path": format!("dir{}/file{at}", at % 30), "content": content });
    let commit = |changes: Vec<Value>| {
        let reply = rest_commits::commit(&server, Value::Array(changes), json!({}));
        assert_eq!(reply.status, 201, "{}", reply.text());
    };
    let clones = AtomicUsize::new(0);
    // How many objects of a clone were deflated, and how many copied.
    let clone = |options: &[&str]| {
        let before = counted(&server, "govc_pack_entries_written_total", ["deflated", "copied"]);
        let got = place.path(&format!("copy-{}", clones.fetch_add(1, Ordering::Relaxed)));
        git.clone_repo(&server.url("repo"), &got, &[options, &["--bare"][..]].concat());
        git.ok(&got, &["fsck", "--strict", "--no-dangling", "--no-progress"]);
        let after = counted(&server, "govc_pack_entries_written_total", ["deflated", "copied"]);
        let [deflated, copied] = [0, 1].map(|at| after[at] - before[at]);
        assert_eq!(git.objects(&got).len(), deflated + copied, "{options:?}");
        (deflated, copied)
    };
    commit((0..FILES).map(|at| put(at, format!("{at:0width$}\n", width = at / 10))).collect());
    let all = FILES + 30 + 2;
    assert_eq!(clone(&["--depth=1"]), (all, 0));
    commit(vec![put(0, "changed\n".into()), put(31, "as well\n".into())]);
    assert_eq!(clone(&["--depth=1"]), (6, all - 6), "two files, their directories, the root and a commit");
    assert_eq!(clone(&[]), (0, all + 6), "each from one of two shallow clones");
    commit(vec![put(0, "changed again\n".into())]);
    assert_eq!(clone(&["--filter=blob:limit=100"]).0, 4);
    // From the full clone, and the rest of what is new from one without large files.
    assert_eq!(clone(&["--depth=1"]), (0, all));
}

#[test]
fn a_clone_after_a_push_adds_to_what_is_kept() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let url = server.url("repo");
    let work = many_files(&place, &git);
    git.ok(&work, &["tag", "-a", "-m", "first", "v1"]);
    git.ok(&work, &["branch", "other", "main~1"]);
    git.ok(&work, &["push", "-q", "--mirror", &url]);
    // Which of made, extended, shared and kept a clone was sent, once it is what git's own of the same would be.
    let clone = |what: &str, options: &[&str]| {
        let before = sources(&server);
        let (wanted, got) = (place.path(&format!("{what}-wanted")), place.path(&format!("{what}-got")));
        let options = [options, &["--bare"][..]].concat();
        git.clone_repo(&format!("file://{}", work.display()), &wanted, &options);
        git.clone_repo(&url, &got, &options);
        git.ok(&got, &["fsck", "--strict", "--no-dangling", "--no-progress"]);
        assert_eq!(git.references(&got), git.references(&wanted), "{what}");
        assert_eq!(git.objects(&got), git.objects(&wanted), "{what}");
        let after = sources(&server);
        let sent: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(sent.iter().sum::<usize>(), 1, "{what}: {sent:?}");
        ["made", "extended", "shared", "kept"][sent.iter().position(|count| *count == 1).expect("one")]
    };
    let push = |refs: &[&str]| git.ok(&work, &[&["push", "-q", "--force", &url][..], refs].concat());
    assert_eq!(clone("pushed", &[]), "kept");
    for at in 0..3 {
        git.commit(&work, &format!("dir{at}/file{at}"), format!("changed {at}\n").as_bytes(), "a change");
        git.commit(&work, "new-file", format!("of {at}\n").as_bytes(), "one more");
        push(&["main"]);
        assert_eq!(clone(&format!("change-{at}"), &[]), "extended");
        assert_eq!(clone(&format!("change-{at}-again"), &[]), "kept");
    }
    // A merge of what one branch has, a tag, and a branch on nothing new.
    git.ok(&work, &["checkout", "-q", "other"]);
    git.commit(&work, "of-other", b"content\n", "beside");
    git.ok(&work, &["merge", "-q", "--no-edit", "main"]);
    git.ok(&work, &["tag", "-a", "-m", "second", "v2"]);
    git.ok(&work, &["branch", "same", "main~2"]);
    push(&["other", "v2", "same"]);
    assert_eq!(clone("merge", &[]), "extended");
    git.ok(&work, &["branch", "old", "v1"]);
    push(&["old"]);
    assert_eq!(clone("nothing-new", &[]), "kept", "all of it is there, under other names");
    // What nothing leads to any more must not be in it.
    git.ok(&work, &["tag", "-d", "v2"]);
    git.ok(&work, &["push", "-q", "--mirror", &url]);
    assert_eq!(clone("no-tag", &[]), "made");
    git.ok(&work, &["reset", "-q", "--hard", "HEAD~1"]);
    git.ok(&work, &["push", "-q", "--mirror", &url]);
    assert_eq!(clone("no-merge", &[]), "made");
    git.commit(&work, "of-other", b"other content\n", "instead");
    git.ok(&work, &["push", "-q", "--mirror", &url]);
    assert_eq!(clone("instead", &[]), "extended");
}

#[test]
fn clones_at_the_same_time_are_one_computation() {
    const CLONES: usize = 6;
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = many_files(&place, &git);
    git.ok(&work, &["branch", "first", "main~1"]);
    git.commit(&work, "of-main", b"content\n", "third");
    // What is kept of the push has both branches.
    git.ok(&work, &["push", "-q", "--all", &server.url("repo")]);
    let sent = || sources(&server);
    let main = git.ok(&work, &["rev-parse", "main"]);
    for (what, option, deepen) in [("full", "--single-branch", &b""[..]), ("shallow", "--depth=1", b"000ddeepen 1\n")] {
        let before = sent();
        let want = line(format!("want {main}\n").as_bytes());
        let head = [&command_head("fetch")[..], b"0001", &line(b"no-progress"), &line(b"ofs-delta")].concat();
        let body = [&head[..], deepen, &want, &line(b"done\n"), b"0000"].concat();
        let request = format!(
            "POST /repo.git/git-upload-pack HTTP/1.1\r\nhost: x\r\ngit-protocol: version=2\r\ncontent-length: {}\r\n\
             content-type: application/x-git-upload-pack-request\r\n\r\n",
            body.len()
        );
        let request = [request.as_bytes(), &body].concat();
        let ready = Barrier::new(CLONES);
        let answers = thread::scope(|scope| {
            let clients = (0..CLONES).map(|_| {
                let mut connection = server.http().connect();
                let (request, ready) = (&request, &ready);
                scope.spawn(move || {
                    ready.wait();
                    connection.write(request);
                    connection.reply()
                })
            });
            let clients: Vec<_> = clients.collect();
            clients.into_iter().map(|client| client.join().expect("no panic")).collect::<Vec<_>>()
        });
        for answer in &answers {
            assert!(answer.status == 200 && answer.body.ends_with(b"0000"), "{what}: {}", answer.text());
            assert!(answer.body == answers[0].body, "{what}: all get the same");
        }
        let after = sent();
        assert_eq!(after[0] - before[0], 1, "{what}: {before:?}, then {after:?}");
        assert_eq!(after.iter().sum::<usize>() - before.iter().sum::<usize>(), CLONES, "{what}");
        let (wanted, got) = (place.path(&format!("{what}-wanted")), place.path(&format!("{what}-got")));
        let options = [option, "--no-tags", "--bare"];
        git.clone_repo(&format!("file://{}", work.display()), &wanted, &options);
        git.clone_repo(&server.url("repo"), &got, &options);
        assert_eq!(git.references(&got), git.references(&wanted), "{what}");
        assert_eq!(git.objects(&got), git.objects(&wanted), "{what}");
        assert_eq!(sent()[0], after[0], "{what}: it is kept");
    }
}

#[test]
fn a_kept_pack_that_is_damaged_fails_one_clone_and_goes() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    // Packs of less than 8 MiB are kept in memory alone.
    for at in 0..12 {
        std::fs::write(work.join(format!("file{at}")), history::noise(at, 1 << 20)).expect("a file");
    }
    git.ok(&work, &["add", "."]);
    git.ok(&work, &["commit", "-q", "-m", "large"]);
    // It is sent as it is, goes before what has come since, or its entries are copied.
    for (number, how) in ["as-it-is", "extended", "copied"].into_iter().enumerate() {
        let data = place.path(&format!("data-{how}"));
        let server = Launch::bare().with(&["--listen", "127.0.0.1:0", "--data", data.to_str().expect("text")]).start();
        server.create("repo");
        let url = server.url("repo");
        git.ok(&work, &["push", "-q", &url, "main"]);
        if number > 0 {
            git.ok(&work, &["push", "-q", &url, "main:other"]);
            git.commit(&work, "more", how.as_bytes(), how);
            git.ok(&work, &["push", "-q", &url, "main"]);
        }
        let launch = server.stop();
        let pack = kept_file(&data);
        let mut bytes = std::fs::read(&pack).expect("a kept pack");
        bytes[6 << 20] ^= 1;
        std::fs::write(&pack, bytes).expect("a kept pack");
        let server = launch.start();
        let options: &[&str] = if how == "copied" { &["--filter=blob:limit=2m"] } else { &[] };
        let clone = |name: &str| {
            let copy = place.path(&format!("{name}-{how}"));
            let args = [&["clone", "-q", "--bare", "--branch=main"][..], options].concat();
            git.run(&work, &[&args[..], &[&server.url("repo"), copy.to_str().expect("text")]].concat())
        };
        let first = clone("first");
        let said = String::from_utf8_lossy(&first.stderr).into_owned();
        assert!(!first.status.success() && said.contains("a kept pack is damaged"), "{how}: {said}");
        assert!(!pack.exists(), "{how}: it is dropped");
        let second = clone("second");
        assert!(second.status.success(), "{how}: {}", String::from_utf8_lossy(&second.stderr));
        assert_eq!(git.objects(&place.path(&format!("second-{how}"))), git.objects(&work), "{how}");
        drop(server.stop());
    }
}

/// The cache is never the source of truth: whatever becomes of its files, one clone may fail, and the next is right.
#[test]
fn whatever_becomes_of_kept_files_the_next_clone_is_right() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let mut launch = place.launch();
    let server = launch.clone().start();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    for at in 0..9 {
        std::fs::write(work.join(format!("file{at}")), history::noise(at, 1 << 20)).expect("a file");
    }
    git.ok(&work, &["add", "."]);
    git.ok(&work, &["commit", "-q", "-m", "large"]);
    git.ok(&work, &["push", "-q", &server.url("repo"), "main"]);
    server.stop();
    let pack = || kept_file(&place.path("data"));
    let index = || pack().with_extension("index");
    let wanted = git.objects(&work);
    let kept = [pack(), index()].map(|path| (std::fs::read(&path).expect("a kept file"), path));
    let cut = |path: &Path, len: u64| {
        std::fs::File::options().write(true).open(path).and_then(|file| file.set_len(len)).expect("a file");
    };
    let flip = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).expect("a file");
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("a file");
    };
    let damages: [(&str, &dyn Fn()); 7] = [
        ("an index that is cut", &|| cut(&index(), 100)),
        ("an index that is empty", &|| cut(&index(), 0)),
        ("a flipped bit at the beginning of an index", &|| flip(&index(), 5)),
        ("a flipped bit in an index", &|| flip(&index(), 120)),
        ("an index without its pack", &|| std::fs::remove_file(pack()).expect("a file")),
        ("a pack that is cut", &|| cut(&pack(), 3 << 20)),
        ("no folder", &|| std::fs::remove_dir_all(place.path("data/packs")).expect("a folder")),
    ];
    for (at, (what, damage)) in damages.iter().enumerate() {
        let _ = std::fs::remove_dir_all(place.path("data/packs"));
        for (bytes, path) in &kept {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, bytes).expect("a file");
        }
        damage();
        let server = launch.start();
        let copies: Vec<bool> = (0..2)
            .map(|round| {
                let copy = place.path(&format!("copy-{at}-{round}"));
                let arguments = ["clone", "-q", "--bare", &server.url("repo"), copy.to_str().expect("text")];
                let is_done = git.run(&work, &arguments).status.success();
                assert!(!is_done || git.objects(&copy) == wanted, "{what}");
                is_done
            })
            .collect();
        assert!(copies[1], "{what}: {copies:?}");
        launch = server.stop();
    }
}

/// The only kept pack below a data folder.
fn kept_file(data: &Path) -> PathBuf {
    let folders = std::fs::read_dir(data.join("packs")).expect("the pack cache");
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.expect("a folder").path()).expect("a folder"));
    let mut packs =
        files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|end| end == "pack"));
    let found = packs.next().expect("a kept pack");
    assert!(packs.next().is_none(), "one pack is kept");
    found
}
