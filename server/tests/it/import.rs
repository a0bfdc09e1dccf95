//! `govc import` from folders and bundles, with the real git on the other side, and out again with `govc export`.

use std::path::PathBuf;
use std::process::Output;

use govc_engine::ObjectFormat;

use crate::{
    admin::{ok, text},
    git::{Git, assert_same},
    history,
    server::{Place, govc},
    tested,
};

/// Arguments of a command on the ordinary store of a place.
pub(crate) fn on_store<'a>(place: &Place, arguments: &[&'a str]) -> Vec<String> {
    let mut all: Vec<String> = arguments.iter().map(|&argument: &&'a str| argument.to_owned()).collect();
    all.extend(["--data", text(&place.path("data"))].map(str::to_owned));
    all
}

pub(crate) fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        govc().args(on_store(place, arguments)).env("IMPORT_TOKEN", "s3cret-token").output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit code"), text(stdout), text(stderr))
}

#[track_caller]
pub(crate) fn import(place: &Place, arguments: &[&str]) -> String {
    let (code, out, err) = run(place, &[&["import"], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    format!("{out}{err}")
}

#[track_caller]
pub(crate) fn refused(place: &Place, arguments: &[&str], words: &[&str]) -> String {
    let (code, out, err) = run(place, &[&["import"], arguments].concat());
    assert_eq!(code, 1, "{arguments:?}: {out}{err}");
    for word in words {
        assert!(err.contains(word), "{arguments:?}: no {word:?} in {err}");
    }
    err
}

/// What a repository of the store holds, as a bare repository.
#[track_caller]
pub(crate) fn exported(place: &Place, repo: &str, name: &str) -> PathBuf {
    let target = place.path(name);
    if target.exists() {
        std::fs::remove_dir_all(&target).expect("removable");
    }
    let arguments = on_store(place, &["export", repo, text(&target)]);
    ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    target
}

/// Whether the store has a repository of this name.
pub(crate) fn exists(place: &Place, repo: &str) -> bool {
    let (_, out, err) = run(place, &["stats", "--json"]);
    assert!(out.contains("repositories"), "{out}{err}");
    out.contains(&format!("\"{repo}\""))
}

/// Makes the ordinary store, empty.
pub(crate) fn empty_store(place: &Place) {
    place.serve().stop();
}

pub(crate) fn git_dir(git: &Git, place: &Place, name: &str) -> PathBuf {
    let dir = place.path(name);
    std::fs::create_dir_all(&dir).expect("a folder");
    git.ok(&dir, &["init", "-q", "--bare"]);
    dir
}

/// A history with all that is odd about references and links, and so many tags.
pub(crate) fn odd(git: &Git, place: &Place, tags: usize) -> PathBuf {
    let source = history::generated(place, git);
    let main = git.ok(&source, &["rev-parse", "refs/heads/main"]);
    let blob = git.object(&source, "blob", b"beside a submodule\n");
    let entries = format!("160000 commit {main}\tsub\n100644 blob {blob}\tfile\n");
    let tree = git.ok_fed(&source, &["mktree", "--missing"], entries.as_bytes());
    let parents = ["refs/heads/main", "refs/heads/root2", "refs/heads/root3", "refs/heads/joined"];
    let mut commit = vec!["commit-tree", &tree, "-m", "an octopus with a submodule"];
    parents.iter().for_each(|parent| commit.extend(["-p", parent]));
    let octopus = git.ok(&source, &commit);
    git.ok(&source, &["update-ref", "refs/heads/octopus", &octopus]);
    let tags: String = (0..tags).map(|at| format!("create refs/tags/many/{at} {main}\n")).collect();
    git.ok_fed(&source, &["update-ref", "--stdin"], tags.as_bytes());
    git.ok(&source, &["symbolic-ref", "refs/remotes/origin/HEAD", "refs/heads/octopus"]);
    source
}

#[test]
fn a_folder_comes_in_and_goes_out_the_same() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = odd(&git, &place, 10_000);
    let said = import(&place, &[text(&source), "--mirror", "--into", "team/odd"]);
    assert!(said.contains("team/odd, which is new") && said.contains("added, 0 changed, 0 deleted"), "{said}");
    let out = exported(&place, "team/odd", "out.git");
    assert_same(&git, &source, &out);
    assert_eq!(git.ok(&out, &["symbolic-ref", "HEAD"]), "refs/heads/main");
    let said = import(&place, &[text(&source), "--mirror", "--into", "team/odd"]);
    assert!(said.contains("up to date"), "{said}");

    // The same through bundles of both programs.
    let bundle = place.path("odd.bundle");
    let arguments = on_store(&place, &["export", "team/odd", text(&bundle)]);
    ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let theirs = place.path("theirs.bundle");
    for version in tested::bundle_versions() {
        git.ok(&source, &["bundle", "create", "-q", &format!("--version={version}"), text(&theirs), "--all"]);
        for (at, bundle) in [&bundle, &theirs].into_iter().enumerate() {
            let name = format!("bundle-{version}-{at}");
            import(&place, &[text(bundle), "--mirror", "--into", &name]);
            assert_same(&git, &source, &exported(&place, &name, "unbundled.git"));
        }
    }
    // And what is served of it.
    let server = place.serve();
    let clone = place.path("clone.git");
    git.clone_repo(&server.url("team/odd"), &clone, &["--mirror"]);
    assert_same(&git, &source, &clone);
}

#[test]
fn folders_of_every_kind_are_read() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "a/file", b"one\n", "one");
    git.ok(&work, &["branch", "side"]);
    let main = git.commit(&work, "a/file", b"two\n", "two");
    git.ok(&work, &["tag", "-a", "-m", "first", "v1"]);
    // Loose objects in a work tree; everything reachable is in the copy that git makes.
    let same = |name: &str, head: &str| {
        let mirror = place.path("expected.git");
        let _ = std::fs::remove_dir_all(&mirror);
        git.clone_repo(text(&work), &mirror, &["--mirror"]);
        let out = exported(&place, name, "out.git");
        assert_same(&git, &mirror, &out);
        assert_eq!(git.ok(&out, &["symbolic-ref", "HEAD"]), format!("refs/heads/{head}"), "{name}");
    };
    import(&place, &[text(&work), "--mirror"]);
    same("work", "main");
    import(&place, &[text(&work.join(".git")), "--mirror", "--into", "by-git"]);
    same("by-git", "main");
    // A linked work tree has a HEAD of its own.
    let linked = place.path("linked");
    git.ok(&work, &["worktree", "add", "-q", text(&linked), "side"]);
    import(&place, &[text(&linked), "--mirror"]);
    same("linked", "side");
    // Packs, loose objects and packed references together, and a multi-pack-index.
    git.ok(&work, &["repack", "-dq"]);
    git.ok(&work, &["pack-refs", "--all"]);
    git.commit(&work, "b", b"three\n", "three");
    git.ok(&work, &["repack", "-dq"]);
    git.commit(&work, "b", b"four\n", "four");
    git.ok(&work, &["multi-pack-index", "write"]);
    import(&place, &[text(&work), "--mirror", "--into", "packed"]);
    same("packed", "main");
    // A clone that borrows its objects.
    let borrows = place.path("borrows");
    git.clone_repo(text(&work), &borrows, &["--shared"]);
    import(&place, &[&format!("file://{}", text(&borrows))]);
    let out = exported(&place, "borrows", "out.git");
    assert_eq!(git.ok(&out, &["rev-parse", "main"]), git.ok(&work, &["rev-parse", "main"]));
    assert_eq!(git.findings(&out), (Some(0), Vec::new()));
    // A detached HEAD names the branch that is there, or the usual one.
    git.ok(&work, &["checkout", "-q", "--detach", "side"]);
    import(&place, &[text(&work), "--into", "detached"]);
    assert_eq!(git.ok(&exported(&place, "detached", "out.git"), &["symbolic-ref", "HEAD"]), "refs/heads/side");
    git.ok(&work, &["checkout", "-q", "--detach", &main]);
    git.commit(&work, "c", b"five\n", "nobody's");
    let said = import(&place, &[text(&work), "--into", "lost"]);
    assert!(said.contains("detached"), "{said}");
    assert_eq!(git.ok(&exported(&place, "lost", "out.git"), &["symbolic-ref", "HEAD"]), "refs/heads/main");
    // Nothing at all.
    let empty = git_dir(&git, &place, "empty.git");
    git.ok(&empty, &["symbolic-ref", "HEAD", "refs/heads/trunk"]);
    import(&place, &[text(&empty)]);
    assert_eq!(git.ok(&exported(&place, "empty", "out.git"), &["symbolic-ref", "HEAD"]), "refs/heads/trunk");
}

#[test]
fn later_runs_bring_what_came_since_and_lose_nothing_unasked() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    let first = git.commit(&work, "file", b"one\n", "one");
    for name in ["going", "dir"] {
        git.ok(&work, &["branch", name]);
    }
    git.ok(&work, &["tag", "v1"]);
    git.ok(&work, &["update-ref", "refs/pull/1/head", "HEAD"]);
    import(&place, &[text(&work), "--into", "plain"]);
    import(&place, &[text(&work), "--into", "mirror", "--mirror"]);
    let references = |repo: &str| git.references(&exported(&place, repo, "out.git"));
    assert_eq!(references("plain").lines().count(), 4);
    assert_eq!(references("mirror").lines().count(), 5);

    git.commit(&work, "file", b"two\n", "two");
    git.ok(&work, &["branch", "-D", "-q", "going", "dir"]);
    git.ok(&work, &["branch", "dir/below"]);
    let said = import(&place, &[text(&work), "--into", "mirror", "--mirror"]);
    assert!(said.contains("1 added, 1 changed, 2 deleted") && said.contains("3 objects"), "{said}");
    assert_eq!(references("mirror"), git.references(&work));
    git.ok(&work, &["branch", "-m", "dir/below", "other"]);
    let said = import(&place, &[text(&work), "--into", "plain"]);
    assert!(said.contains("1 added, 1 changed, 0 deleted"), "{said}");

    // Neither branches nor tags are set back, and nothing else is done then.
    git.ok(&work, &["checkout", "-q", "-b", "rewritten", &first]);
    git.commit(&work, "file", b"another two\n", "another two");
    git.ok(&work, &["branch", "-f", "main", "rewritten"]);
    git.ok(&work, &["tag", "-f", "v1", "rewritten"]);
    let before = references("plain");
    refused(&place, &[text(&work), "--into", "plain"], &["refs/tags/v1 would change", "--force"]);
    git.ok(&work, &["tag", "-f", "v1", &first]);
    refused(&place, &[text(&work), "--into", "plain"], &["refs/heads/main", "does not follow", "--force"]);
    assert_eq!(references("plain"), before);
    import(&place, &[text(&work), "--into", "plain", "--force"]);
    assert!(references("plain").contains(&git.ok(&work, &["rev-parse", "rewritten"])));
    import(&place, &[text(&work), "--into", "mirror", "--mirror"]);
    assert_eq!(references("mirror"), git.references(&work));
    // A mirror of what has become nothing.
    let nothing = git_dir(&git, &place, "nothing.git");
    refused(&place, &[text(&nothing), "--into", "mirror", "--mirror"], &["no references", "--force"]);
    assert_eq!(references("mirror"), git.references(&work));
    import(&place, &[text(&nothing), "--into", "mirror", "--mirror", "--force"]);
    assert_eq!(references("mirror"), "");
}

#[test]
fn bundles_stand_on_what_is_there() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", history::noise(1, 5000).as_slice(), "one");
    let (whole, more) = (place.path("whole.bundle"), place.path("more.bundle"));
    git.ok(&work, &["bundle", "create", "-q", text(&whole), "--all"]);
    git.ok(&work, &["tag", "base"]);
    let mut changed = history::noise(1, 5000);
    changed.extend_from_slice(b"more");
    git.commit(&work, "file", &changed, "two");
    git.ok(&work, &["bundle", "create", "-q", text(&more), "base..main"]);
    refused(&place, &[text(&more), "--into", "x"], &["stands on commits", "more.bundle"]);
    assert!(!exists(&place, "x"));
    import(&place, &[text(&whole), "--into", "x"]);
    import(&place, &[text(&more), "--into", "x"]);
    let out = exported(&place, "x", "out.git");
    assert_eq!(git.ok(&out, &["rev-parse", "main"]), git.ok(&work, &["rev-parse", "main"]));
    assert_eq!(git.findings(&out), (Some(0), Vec::new()));

    let bytes = std::fs::read(&whole).expect("a bundle");
    let text_of = |bytes: &[u8]| {
        let path = place.path("odd.bundle");
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    // Git writes version 3 where it has to say what the ids are.
    let (own, ids) = match tested::format() {
        ObjectFormat::Sha1 => ("", &bytes[16..]),
        ObjectFormat::Sha256 => ("@object-format=sha256\n", &bytes[38..]),
    };
    let v3 = |line: &str| [b"# v3 git bundle\n", own.as_bytes(), line.as_bytes(), ids].concat();
    let other = if own.is_empty() { "@object-format=sha256\n" } else { "@object-format=sha1\n" };
    let mut flipped = bytes.clone();
    let middle = bytes.len() - 2000;
    flipped[middle] ^= 0x55;
    for (bundle, word) in [
        (v3(other), "has no id"),
        (v3("@object-format=sha3\n"), "not known here: object-format=sha3"),
        (v3("@filter=blob:none\n"), "partial bundle"),
        (v3("@new\x1bthing\n"), "not known here"),
        (b"# v9 git bundle\n\n".to_vec(), "version 2 or 3"),
        (bytes[..40].to_vec(), "damaged"),
        (bytes[..bytes.len() - 100].to_vec(), "pack"),
        (flipped, ""),
        ([&bytes[..], b"more"].concat(), "after its end"),
    ] {
        refused(&place, &[text(&text_of(&bundle)), "--into", "y"], &[word]);
        assert!(!exists(&place, "y"), "{word}");
    }
}

#[test]
fn sources_that_cannot_be_taken_are_refused() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"one\n", "one");
    git.commit(&work, "file", b"two\n", "two");
    let shallow = place.path("shallow");
    git.clone_repo(&format!("file://{}", text(&work)), &shallow, &["--depth", "1"]);
    let unknown = git_dir(&git, &place, "unknown.git");
    std::fs::write(unknown.join("config"), "[extensions]\n\tobjectFormat = sha3\n").expect("a file");
    let reftable = git_dir(&git, &place, "reftable.git");
    std::fs::create_dir(reftable.join("reftable")).expect("a folder");
    let circle = git_dir(&git, &place, "circle.git");
    for (from, to) in [("a", "b"), ("b", "a")] {
        std::fs::write(circle.join("refs/heads").join(from), format!("ref: refs/heads/{to}\n")).expect("a file");
    }
    let hole = place.path("hole.git");
    git.clone_repo(text(&work), &hole, &["--mirror", "--no-local"]);
    let blob = git.ok(&work, &["rev-parse", "HEAD~:file"]);
    let packs = hole.join("objects/pack");
    let kept = place.path("kept");
    std::fs::rename(&packs, &kept).expect("movable");
    std::fs::create_dir(&packs).expect("a folder");
    for pack in std::fs::read_dir(&kept).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if pack.extension().is_some_and(|ending| ending == "pack") {
            git.ok_fed(&hole, &["unpack-objects", "-q"], &std::fs::read(pack).expect("a pack"));
        }
    }
    std::fs::remove_file(hole.join("objects").join(&blob[..2]).join(&blob[2..])).expect("a loose object");
    let bad = git_dir(&git, &place, "bad.git");
    std::fs::write(bad.join("refs/heads/main"), "not an id\n").expect("a file");
    for (source, words) in [
        (&shallow, &["shallow clone"][..]),
        (&unknown, &["unknown.git", "sha3"]),
        (&reftable, &["reftable"]),
        (&circle, &["refs/heads/", "circle"]),
        (&hole, &[&blob[..], "which", "needs"]),
        (&bad, &["refs/heads/main", "no id"]),
        (&place.path("home"), &["no Git repository"]),
        (&place.path("nowhere"), &["cannot read"]),
    ] {
        refused(&place, &[text(source), "--into", "x"], words);
    }
    for (source, word) in [
        ("git@example.org:team/x.git", "ssh is not spoken"),
        ("ssh://git@example.org/x", "ssh:// is not spoken"),
        ("git://user:hidden@example.org/x", "git:// is not spoken"),
    ] {
        let said = refused(&place, &[source, "--into", "x"], &[word]);
        assert!(!said.contains("hidden"), "{said}");
    }
    assert!(!exists(&place, "x"));
    let (code, _, err) = run(&place, &["import", text(&work), "--into", "a//b"]);
    assert!(code == 2 && err.contains("a//b"), "{err}");
    let (code, _, err) = run(&place, &["import", "http://127.0.0.1:1/x", "--token-env", "NO_SUCH_VARIABLE"]);
    assert!(code == 2 && err.contains("NO_SUCH_VARIABLE"), "{err}");
    // A server has the store open.
    let _server = place.serve();
    refused(&place, &[text(&work), "--into", "x"], &["cannot open"]);
}
