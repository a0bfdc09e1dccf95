//! Repositories over HTTP: made, listed in pages, shown, changed, renamed, deleted; conditions on each.

use serde_json::json;

use crate::{
    git::Git,
    http::{Reply, encode, items},
    server::Place,
};

#[test]
fn a_repository_is_made_shown_changed_and_deleted() {
    let place = Place::new();
    let server = place.serve();
    let http = server.http();
    let reply =
        http.post("/api/v1/repos", &json!({ "id": "team/site", "description": "a site", "default_branch": "trunk" }));
    let made = reply.expect(201);
    assert_eq!(reply.header("location"), Some("/api/v1/repos/team%2Fsite"));
    assert_eq!(made["id"], "team/site");
    assert_eq!(made["description"], "a site");
    assert_eq!(made["default_branch"], "trunk");
    assert_eq!(made["durability"], "durable");
    assert_eq!(made["memory_only"], false);

    let shown = http.get("/api/v1/repos/team%2Fsite");
    assert_eq!(shown.expect(200), made);
    let etag = shown.header("etag").expect("an entity tag").to_owned();
    let again = http.get_with("/api/v1/repos/team%2Fsite", &[("if-none-match", &etag)]);
    assert_eq!((again.status, again.body.len()), (304, 0));

    let changed =
        http.patch("/api/v1/repos/team%2Fsite", &json!({ "description": "another", "durability": "relaxed" }));
    let changed = changed.expect(200);
    assert_eq!((&changed["description"], &changed["durability"]), (&json!("another"), &json!("relaxed")));
    assert_eq!(changed["default_branch"], "trunk", "what is not named stays");
    let stale = [("content-type", "application/json"), ("if-match", etag.as_str())];
    let reply = http.send("PATCH", "/api/v1/repos/team%2Fsite", &stale, b"{\"description\":\"late\"}");
    reply.problem(412);

    let renamed = http.patch("/api/v1/repos/team%2Fsite", &json!({ "id": "team/pages" })).expect(200);
    assert_eq!(renamed["id"], "team/pages");
    assert_eq!(http.get("/api/v1/repos/team%2Fsite").problem(404)["code"], "REPO_NOT_FOUND");
    assert_eq!(http.get("/api/v1/repos/team%2Fpages").expect(200)["description"], "another");

    assert_eq!(http.delete("/api/v1/repos/team%2Fpages").status, 204);
    assert_eq!(http.get("/api/v1/repos/team%2Fpages").status, 404);
    assert_eq!(http.delete("/api/v1/repos/team%2Fpages").status, 404);
}

#[test]
fn a_renamed_repository_keeps_its_content_and_a_deleted_one_does_not() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("old");
    let work = place.path("work");
    git.init(&work);
    let head = git.commit(&work, "file", b"content\n", "first");
    git.ok(&work, &["push", "-q", &server.url("old"), "main"]);
    server.http().patch("/api/v1/repos/old", &json!({ "id": "new" })).expect(200);
    let server = server.kill().start();
    git.fails(&work, &["ls-remote", &server.url("old")]);
    assert!(git.ok(&work, &["ls-remote", &server.url("new"), "refs/heads/main"]).starts_with(&head));

    server.http().delete("/api/v1/repos/new");
    server.create("new");
    let server = server.kill().start();
    assert_eq!(git.ok(&work, &["ls-remote", &server.url("new")]), "");
    assert_eq!(server.http().get(&format!("/api/v1/repos/new/commits/{head}")).status, 404);
}

#[test]
fn the_default_branch_is_what_a_clone_checks_out() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    server.create("repo");
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"content\n", "first");
    git.ok(&work, &["push", "-q", &server.url("repo"), "HEAD:refs/heads/main", "HEAD:refs/heads/trunk"]);
    server.http().patch("/api/v1/repos/repo", &json!({ "default_branch": "trunk" })).expect(200);
    for version in ["0", "1", "2"] {
        let copy = place.path(&format!("copy-{version}"));
        git.with("protocol.version", version).clone_repo(&server.url("repo"), &copy, &[]);
        assert_eq!(git.ok(&copy, &["symbolic-ref", "--short", "HEAD"]), "trunk");
    }
}

#[test]
fn bad_repositories_are_refused() {
    let place = Place::new();
    let server = place.serve();
    let http = server.http();
    server.create("taken");
    assert_eq!(http.post("/api/v1/repos", &json!({ "id": "taken" })).problem(409)["code"], "REPO_EXISTS");
    server.create("other");
    assert_eq!(http.patch("/api/v1/repos/other", &json!({ "id": "taken" })).problem(409)["code"], "REPO_EXISTS");
    let long = "x".repeat(300);
    let ids = [
        "",
        "/",
        "a//b",
        "/a",
        "a/",
        ".",
        "..",
        "a/../b",
        ".hidden",
        "a/.b",
        "-a",
        "_a",
        "a b",
        "a\tb",
        "a\nb",
        "a\u{0}b",
        "caf\u{e9}",
        "a.git",
        "a/b.git",
        "a.lock",
        "a/b/c/d",
        "a\\b",
        "a%2Fb",
        "a:b",
        &long,
    ];
    for id in ids {
        let problem = http.post("/api/v1/repos", &json!({ "id": id })).problem(400);
        assert_eq!(problem["code"], "INVALID_REQUEST", "{id:?}: {problem}");
        http.patch("/api/v1/repos/other", &json!({ "id": id })).problem(400);
        if !id.is_empty() {
            let reply = http.get(&format!("/api/v1/repos/{}", encode(id)));
            assert!(matches!(reply.status, 400 | 404), "{id:?}: {}", reply.status);
        }
    }
    let bodies = [
        json!({}),
        json!({ "id": 7 }),
        json!({ "id": "a", "durability": "eternal" }),
        json!({ "id": "a", "default_branch": "a..b" }),
        json!({ "id": "a", "default_branch": "" }),
        json!({ "id": "a", "durability": "durable", "memory_only": true }),
        json!({ "id": "a", "no_such_member": 1 }),
        json!([]),
        json!("a"),
        json!(null),
    ];
    for body in bodies {
        http.post("/api/v1/repos", &body).problem(400);
    }
    let names: Vec<_> = items(&http.get("/api/v1/repos").expect(200)).iter().map(|repo| repo["id"].clone()).collect();
    assert_eq!(names, ["other", "taken"], "nothing of it was made");
}

#[test]
fn a_change_is_made_whole_or_not_at_all() {
    let place = Place::new();
    let server = place.serve();
    let http = server.http();
    http.post("/api/v1/repos", &json!({ "id": "volatile", "durability": "memory" })).expect(201);
    server.create("stored");
    for (id, taken) in [("volatile", "stored"), ("stored", "volatile")] {
        let path = format!("/api/v1/repos/{id}");
        let before = http.get(&path).expect(200);
        let other = if id == "stored" { "memory" } else { "durable" };
        http.patch(&path, &json!({ "id": "renamed", "durability": other })).problem(400);
        http.patch(&path, &json!({ "id": "renamed", "description": "new", "default_branch": "a..b" })).problem(400);
        let all = json!({ "id": taken, "description": "new", "default_branch": "trunk" });
        assert_eq!(http.patch(&path, &all).problem(409)["code"], "REPO_EXISTS");
        assert_eq!(http.get(&path).expect(200), before, "something of it was done");
        http.get("/api/v1/repos/renamed").problem(404);
    }
    let all = json!({ "id": "renamed", "description": "new", "default_branch": "trunk", "durability": "relaxed" });
    let changed = http.patch("/api/v1/repos/stored", &all).expect(200);
    for (member, value) in all.as_object().expect("an object") {
        assert_eq!(&changed[member], value, "{member}");
    }
    http.get("/api/v1/repos/stored").problem(404);
    let server = server.kill().start();
    assert_eq!(server.http().get("/api/v1/repos/renamed").expect(200), changed, "both in one step");
}

#[test]
fn the_list_is_walked_page_by_page() {
    let place = Place::new();
    let server = place.launch().with(&["--backend", "memory"]).start();
    let mut wanted: Vec<String> = (0..57).map(|at| format!("group-{}/repo-{at}", at % 5)).collect();
    for id in &wanted {
        server.create(id);
    }
    wanted.sort();
    for limit in [1, 7, 57, 58] {
        assert_eq!(walk(&server, &format!("/api/v1/repos?limit={limit}"), limit, "id"), wanted, "limit {limit}");
    }
    let http = server.http();
    http.get("/api/v1/repos?limit=0").problem(400);
    http.get("/api/v1/repos?limit=many").problem(400);
    http.get("/api/v1/repos?cursor=never-given!").problem(400);
}

/// Follows `Link` from `path` to the end; what `member` says of every item.
#[track_caller]
pub(crate) fn walk(server: &crate::server::Server, path: &str, limit: usize, member: &str) -> Vec<String> {
    let text = |item: serde_json::Value| item[member].as_str().unwrap_or_else(|| panic!("{item}")).to_owned();
    walk_items(server, path, limit).into_iter().map(text).collect()
}

/// The items of all pages.
pub(crate) fn walk_items(server: &crate::server::Server, path: &str, limit: usize) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    let mut next = Some(path.to_owned());
    let mut pages = 0;
    while let Some(path) = next {
        let reply: Reply = server.http().get(&path);
        let page = items(&reply.expect(200));
        assert!(page.len() <= limit, "{} items on a page of {limit}", page.len());
        next = reply.next_page();
        assert!(next.is_none() || page.len() == limit, "only the last page may be short");
        found.extend(page);
        pages += 1;
        assert!(pages < 2000, "the list never ends");
    }
    found
}
