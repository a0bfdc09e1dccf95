//! `govc import` from folders in which there is more than git put there, or less than it should.

use std::process::Command;

use crate::{
    admin::text,
    git::{Git, assert_same},
    history,
    import::{empty_store, exists, exported, import, on_store, refused},
    server::{Place, govc},
    tested,
};

#[test]
fn what_is_not_meant_does_no_harm() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"one\n", "one");
    let mirror = place.path("expected.git");
    git.clone_repo(text(&work), &mirror, &["--mirror"]);
    let refs = work.join(".git/refs");
    let write = |name: &str, content: &str| {
        let path = refs.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    };
    let pipe = |name: &str| {
        let status = Command::new("mkfifo").arg(refs.join(name)).status().expect("mkfifo runs");
        assert!(status.success());
        refs.join(name)
    };
    // What a file manager leaves; to git it is not there, so a mirror does not know it either.
    write(".DS_Store", "\0\0\0\u{1}Bud1");
    write("heads/.DS_Store", "\0\0\0\u{1}Bud1");
    write("heads/.folder/main", "not an id\n");
    let said = import(&place, &[text(&work), "--mirror", "--into", "all"]);
    assert!(!said.contains("left out"), "{said}");
    assert_same(&git, &mirror, &exported(&place, "all", "out.git"));
    // What is neither branch nor tag matters to who takes it only.
    write("remotes/origin/HEAD", "ref: refs/remotes/origin/gone\n");
    let said = import(&place, &[text(&work), "--into", "plain"]);
    assert!(!said.contains("left out"), "{said}");
    let said = import(&place, &[text(&work), "--mirror", "--into", "all"]);
    assert!(said.contains("refs/remotes/origin/HEAD is left out"), "{said}");
    for (name, content, word) in [
        ("remotes/origin/circle", "ref: refs/remotes/origin/circle\n", "circle"),
        ("remotes/origin/bad", "not an id\n", "no id"),
    ] {
        write(name, content);
        import(&place, &[text(&work), "--into", "plain"]);
        refused(&place, &[text(&work), "--mirror", "--into", "all"], &[word, name]);
        std::fs::remove_file(refs.join(name)).expect("removable");
    }
    // Nobody ever writes to these.
    let fifo = pipe("remotes/origin/pipe");
    import(&place, &[text(&work), "--into", "plain"]);
    refused(&place, &[text(&work), "--mirror", "--into", "all"], &["origin/pipe", "no ordinary file"]);
    std::fs::remove_file(fifo).expect("removable");
    let fifo = pipe("heads/pipe");
    refused(&place, &[text(&work), "--into", "plain"], &["heads/pipe", "no ordinary file"]);
    std::fs::remove_file(fifo).expect("removable");
    let packed = pipe("../packed-refs");
    refused(&place, &[text(&work), "--into", "plain"], &["packed-refs", "no ordinary file"]);
    std::fs::remove_file(packed).expect("removable");
    import(&place, &[text(&work), "--into", "plain"]);
    assert_same(&git, &mirror, &exported(&place, "plain", "out.git"));
}

#[test]
fn what_is_too_large_is_called_too_large() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", &history::noise(3, 5000), "large");
    let blob = git.ok(&work, &["rev-parse", "HEAD:file"]);
    // First loose, then in a pack.
    for _ in 0..2 {
        let output = govc()
            .args(on_store(&place, &["import", text(&work), "--into", "x"]))
            .env("GOVC_MAX_OBJECT", "2KiB")
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&blob) && said.contains("has 5000 bytes, more than 2048"), "{said}");
        assert!(!said.contains("damaged") && !exists(&place, "x"), "{said}");
        git.ok(&work, &["repack", "-adq"]);
    }
    import(&place, &[text(&work), "--into", "x"]);
    // What is damaged is still called so.
    let loose = place.path("loose");
    git.init(&loose);
    git.commit(&loose, "file", &history::noise(4, 5000), "damaged");
    let tree = git.ok(&loose, &["rev-parse", "HEAD^{tree}"]);
    let file = loose.join(".git/objects").join(&tree[..2]).join(&tree[2..]);
    std::fs::remove_file(&file).expect("removable");
    std::fs::write(&file, b"nothing that inflates").expect("writable");
    refused(&place, &[text(&loose), "--into", "y"], &["is damaged", &tree]);
}

#[test]
fn bundles_name_as_many_references_as_are_taken() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let work = place.path("work");
    git.init(&work);
    let commit = git.commit(&work, "file", b"one\n", "one");
    let bundle = place.path("many.bundle");
    let header = |count: usize| -> String { (0..count).map(|at| format!("{commit} refs/other/{at}\n")).collect() };
    for (count, word) in [(1000, "neither branches nor tags"), (1100, "limits.references")] {
        std::fs::write(&bundle, format!("{}{}\n", tested::bundle_signature(), header(count))).expect("a file");
        let output = govc()
            .args(on_store(&place, &["import", text(&bundle), "--into", "x"]))
            .env("GOVC_LIMITS_REFERENCES", "10")
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(word), "{count}: {said}");
    }
}

#[test]
fn branches_go_on_through_whatever_was_received() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    let first = git.commit(&work, "file", b"one\n", "one");
    let second = git.commit(&work, "file", b"two\n", "two");
    for (name, from) in [("other", &first), ("third", &second)] {
        git.ok(&work, &["branch", name, from]);
    }
    import(&place, &[text(&work), "--into", "x"]);
    // Made long before what they follow from, and in several lines that meet what is here in several places.
    let tree = git.ok(&work, &["rev-parse", "HEAD^{tree}"]);
    let child = |parents: &[&str], at: usize| {
        let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
        let person = "A <a@example.org> 1000000000 +0000";
        let text = format!("tree {tree}\n{parents}author {person}\ncommitter {person}\n\n{at}\n");
        git.object(&work, "commit", text.as_bytes())
    };
    let lines: Vec<String> = (0..20).map(|at| child(&[if at % 2 == 0 { &first } else { &second }], at)).collect();
    let joined = child(&lines.iter().map(String::as_str).collect::<Vec<_>>(), 20);
    let last = (21..70).fold(joined, |before, at| child(&[&before], at));
    for name in ["main", "other", "third"] {
        git.ok(&work, &["update-ref", &format!("refs/heads/{name}"), &last]);
    }
    let said = import(&place, &[text(&work), "--into", "x"]);
    assert!(said.contains("0 added, 3 changed"), "{said}");
    assert_eq!(git.references(&exported(&place, "x", "out.git")), git.references(&work));
    // Lines that meet below follow from nothing that `main` was at.
    git.ok(&work, &["update-ref", "refs/heads/main", &child(&[&lines[1], &lines[0]], 70)]);
    refused(&place, &[text(&work), "--into", "x"], &["refs/heads/main would go", "does not follow"]);
}
