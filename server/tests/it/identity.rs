//! What goes in comes out: after a push of a whole history every object id, every reference and every finding of
//! `git fsck --strict` in a fresh clone equals the source's, over every protocol version and across a restart.

use crate::{
    git::{Git, assert_same},
    history,
    server::Place,
};

#[test]
fn a_mirrored_history_comes_back_identical() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    for (at, source) in history::sources(&place, &git).iter().enumerate() {
        let repo = format!("mirror-{at}");
        server.create(&repo);
        git.ok(source, &["push", "-q", "--mirror", &server.url(&repo)]);
        for version in ["0", "1", "2"] {
            let copy = place.path(&format!("copy-{at}-v{version}.git"));
            git.with("protocol.version", version).clone_repo(&server.url(&repo), &copy, &["--mirror"]);
            assert_same(&git, source, &copy);
        }
    }
}

#[test]
fn a_history_is_identical_after_a_restart() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let sources = history::sources(&place, &git);
    for (at, source) in sources.iter().enumerate() {
        server.create(&format!("kept-{at}"));
        git.ok(source, &["push", "-q", "--mirror", &server.url(&format!("kept-{at}"))]);
    }
    // Once in order, once not: both must find the same.
    let server = server.stop().start();
    let server = server.kill().start();
    for (at, source) in sources.iter().enumerate() {
        let copy = place.path(&format!("kept-{at}.git"));
        git.clone_repo(&server.url(&format!("kept-{at}")), &copy, &["--mirror"]);
        assert_same(&git, source, &copy);
    }
}

#[test]
fn all_branches_and_tags_of_a_history_come_back() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let source = history::generated(&place, &git);
    for version in ["0", "1", "2"] {
        let git = git.with("protocol.version", version);
        let repo = format!("pushed-v{version}");
        server.create(&repo);
        git.ok(&source, &["push", "-q", "--all", &server.url(&repo)]);
        git.ok(&source, &["push", "-q", "--tags", &server.url(&repo)]);
        let copy = place.path(&format!("{repo}.git"));
        git.clone_repo(&server.url(&repo), &copy, &["--mirror"]);
        let wanted = git.ok(&source, &["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"]);
        assert_eq!(git.references(&copy), wanted);
        let wanted = git.ok(&source, &["rev-list", "--objects", "--no-object-names", "--branches", "--tags"]);
        let mut wanted: Vec<&str> = wanted.lines().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let got = git.objects(&copy);
        let got: Vec<&str> = got.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(got.len(), wanted.len());
        assert!(got == wanted, "the objects of a clone are not those of the source");
    }
}

#[test]
fn a_history_larger_than_the_memory_budget_is_served() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    // The generated history holds 17 MB in two blobs alone.
    let server = place.launch().env("GOVC_MEMORY", "32MiB").start();
    let source = history::generated(&place, &git);
    server.create("large");
    git.ok(&source, &["push", "-q", "--mirror", &server.url("large")]);
    let server = server.stop().start();
    let copy = place.path("large.git");
    git.clone_repo(&server.url("large"), &copy, &["--mirror"]);
    assert_same(&git, &source, &copy);
}
