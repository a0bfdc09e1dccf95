//! Clones that get most by plain HTTP: packs that a fetch is pointed at (`packfile-uris`) and bundles (`bundle-uri`), by the
//! real git, and the downloads by hand.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{
    client::newer_git,
    git::{Git, assert_same},
    history::noise,
    http::Reply,
    pack::{command_head, line, lines},
    server::{Launch, Place, Server},
    tested,
};

/// More than what comes beside a pack that is had elsewhere.
const LARGE: usize = 300_000;
/// More than a server with a data folder keeps in memory.
const ON_DISK: usize = 9 << 20;

/// A server that points at packs, with `repo` and a checkout whose `main` it has.
struct Site<'a> {
    place: &'a Place,
    git: Git,
    server: Server,
    work: PathBuf,
    /// What `main` was first.
    first: String,
}

/// A server with everything in memory, for which packs of any size are large enough.
fn in_memory(place: &Place) -> Launch {
    let data = place.path("memory");
    let launch = Launch::bare().with(&["--listen", "127.0.0.1:0", "--backend", "memory"]);
    pointing(launch.with(&["--data", data.to_str().expect("text")]))
}

/// A file of which a change is small.
fn text(change: &str) -> Vec<u8> {
    (0..200)
        .map(|line| format!("line {line} of {}\n", if line == 77 { change } else { "many" }))
        .collect::<String>()
        .into()
}

fn pointing(launch: Launch) -> Launch {
    let launch = launch.env("GOVC_BUNDLE_URIS", "true").env("GOVC_PACKFILE_URIS", "true");
    launch.env("GOVC_URI_MIN_PACK", "100K").env("GOVC_LOG_LEVEL", "debug")
}

impl<'a> Site<'a> {
    fn new(place: &'a Place, launch: Launch, bytes: usize) -> Self {
        let git = Git::new(&place.path("home")).with("protocol.version", "2");
        let (server, work) = (launch.start(), place.path("work"));
        server.create("repo");
        git.init(&work);
        git.commit(&work, "large", &noise(7, bytes), "large");
        for at in 0..20 {
            git.commit(&work, &format!("dir/file{}", at % 3), &text(&at.to_string()), "small");
        }
        git.ok(&work, &["branch", "old", "HEAD~5"]);
        git.ok(&work, &["tag", "-a", "-m", "version 1", "v1", "HEAD~2"]);
        let first = git.ok(&work, &["rev-parse", "HEAD"]);
        git.ok(&work, &["push", "-q", &server.url("repo"), "main", "old"]);
        // By itself, so that the first pack does not have it.
        git.ok(&work, &["push", "-q", &server.url("repo"), "v1"]);
        Self { place, git, server, work, first }
    }

    fn url(&self) -> String {
        self.server.url("repo")
    }

    /// Main goes on, and so do branches and tags.
    fn go_on(&self, round: &str) {
        let git = &self.git;
        git.commit(&self.work, "dir/file0", &text(round), round);
        git.ok(&self.work, &["branch", &format!("branch-{round}"), "HEAD~1"]);
        git.ok(&self.work, &["tag", "-a", "-m", round, &format!("tag-{round}")]);
        git.ok(&self.work, &["push", "-q", &self.url(), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"]);
    }

    fn get(&self, path: &str) -> Reply {
        self.server.http().get(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// What the command `bundle-uri` answers.
    fn bundle_lines(&self) -> Vec<String> {
        let body = [command_head("bundle-uri"), b"0000".to_vec()].concat();
        said(&post(&self.server, &[], &body))
    }

    /// The path of the bundle that the server names, if it names one.
    fn bundle(&self) -> Option<String> {
        let lines = self.bundle_lines();
        assert_eq!(lines[..2], ["bundle.version=1", "bundle.mode=all"], "{lines:?}");
        let uri = lines.get(2)?.split_once(".uri=").expect("a link").1;
        Some(path_of(&self.server, uri))
    }

    /// What a fetch of everything by a client that takes packs over HTTP is answered.
    fn fetch(&self, headers: &[(&str, &str)], more: &[&str]) -> Vec<String> {
        let tips = self.git.ok(&self.work, &["ls-remote", &self.url()]);
        let mut wants: Vec<String> = tips
            .lines()
            .filter(|line| !line.ends_with("^{}"))
            .map(|line| format!("want {}", line.split('\t').next().expect("an id")))
            .collect();
        wants.extend(["ofs-delta", "no-progress", "done"].into_iter().chain(more.iter().copied()).map(str::to_owned));
        let arguments: Vec<u8> = wants.iter().flat_map(|argument| line(format!("{argument}\n").as_bytes())).collect();
        let body = [command_head("fetch"), b"0001".to_vec(), arguments, b"0000".to_vec()].concat();
        said(&post(&self.server, headers, &body))
    }

    /// The path of the pack that such a fetch is pointed at.
    fn pack(&self) -> Option<String> {
        let said = self.fetch(&[], &["packfile-uris http,https"]);
        let at = said.iter().position(|line| line == "packfile-uris")?;
        let (checksum, uri) = said[at + 1].split_once(' ').expect("a checksum and a link");
        assert!(uri.ends_with(&format!("/info/packs/pack-{checksum}.pack")), "{uri}");
        assert_eq!(said[at + 2], "packfile");
        Some(path_of(&self.server, uri))
    }

    fn hide(&self, names: &[&str]) {
        let reply = self.server.http().patch("/api/v1/repos/repo", &json!({ "git": { "hidden_refs": names } }));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

fn post(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let fixed = [("content-type", "application/x-git-upload-pack-request"), ("git-protocol", "version=2")];
    server.http().send("POST", "/repo.git/git-upload-pack", &[&fixed, headers].concat(), body)
}

/// The lines of an answer up to the pack.
fn said(reply: &Reply) -> Vec<String> {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = |line: &Vec<u8>| String::from_utf8_lossy(line).trim_end().to_owned();
    lines(&reply.body).iter().map(text).take_while(|line| !line.contains("PACK")).collect()
}

fn path_of(server: &Server, uri: &str) -> String {
    let base = format!("http://{}", server.address());
    uri.strip_prefix(&base).unwrap_or_else(|| panic!("{uri} does not lead to {base}")).to_owned()
}

/// The packs of a bare repository with their bytes, the largest first.
fn packs(dir: &Path) -> Vec<(String, u64)> {
    let mut packs: Vec<(String, u64)> = std::fs::read_dir(dir.join("objects/pack"))
        .expect("packs")
        .map(|file| file.expect("a file"))
        .map(|file| (file.file_name().into_string().expect("text"), file.metadata().expect("a file").len()))
        .filter(|(name, _)| name.ends_with(".pack"))
        .collect();
    packs.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    packs
}

/// The old git and the newer one.
fn both(git: &Git) -> [(&'static str, Git); 2] {
    [("old", git.clone()), ("new", git.by(newer_git()))]
}

#[test]
fn a_clone_gets_a_pack_by_a_link_and_the_rest_as_ever() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place), LARGE);
    for round in ["same", "more", "much-more"] {
        // First there is nothing else to send.
        if round != "same" {
            site.go_on(round);
        }
        let plain = site.path(&format!("{round}-plain"));
        site.git.clone_repo(&site.url(), &plain, &["--mirror"]);
        for (age, git) in both(&site.git) {
            let git = git.with("fetch.uriProtocols", "http").with("transfer.fsckObjects", "true");
            let copy = site.path(&format!("{round}-{age}"));
            git.clone_repo(&site.url(), &copy, &["--mirror"]);
            assert_same(&site.git, &plain, &copy);
            let pointed = site.pack().expect("it is pointed at");
            let packs = packs(&copy);
            let name = pointed.rsplit('/').next().expect("a name");
            assert_eq!(packs[0].0, name, "{packs:?}");
            let rest: u64 = packs[1..].iter().map(|(_, bytes)| *bytes).sum();
            assert!(packs[0].1 > LARGE as u64 && rest < 10_000, "{round}, {age}: {packs:?}");
            // It goes on as any clone does.
            git.ok(&copy, &["fetch", "-q"]);
            assert!(!copy.join(format!("objects/pack/{}", name.replace(".pack", ".keep"))).exists());
        }
    }
    // With a work tree, and one branch, where the tags of what is there come too.
    let git = site.git.with("fetch.uriProtocols", "https,http");
    for options in [&[][..], &["--single-branch"], &["--single-branch", "--no-tags"], &["--branch=v1"]] {
        let name = options.join("").replace("--", "-");
        let [plain, copy] = ["plain", "copy"].map(|which| site.path(&format!("tree-{which}{name}")));
        site.git.clone_repo(&site.url(), &plain, options);
        git.clone_repo(&site.url(), &copy, options);
        assert_same(&site.git, &plain, &copy);
        assert_eq!(git.ok(&copy, &["status", "--porcelain"]), "");
    }
    // A fetch into what has something else is a clone, too.
    let other = site.path("other");
    git.init(&other);
    git.commit(&other, "other", b"other\n", "other");
    git.ok(&other, &["fetch", "-q", &site.url(), "refs/heads/*:refs/remotes/o/*"]);
    assert_eq!(git.ok(&other, &["rev-parse", "o/main"]), git.ok(&site.work, &["rev-parse", "main"]));
    git.ok(&other, &["fsck"]);
}

#[test]
fn only_who_takes_everything_is_pointed_elsewhere() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place), LARGE);
    site.go_on("more");
    assert!(site.pack().is_some());
    let head = site.git.ok(&site.work, &["rev-parse", "HEAD~3"]);
    let have = format!("have {head}");
    let shallow = format!("shallow {head}");
    let takes = "packfile-uris http,https";
    for more in [
        &[][..],
        &["packfile-uris https"],
        &["packfile-uris "],
        &[takes, "deepen 2"],
        &[takes, "filter blob:none"],
        &[takes, &have],
        &[takes, &shallow],
    ] {
        let said = site.fetch(&[], more);
        assert!(!said.iter().any(|line| line == "packfile-uris"), "{more:?}: {said:?}");
        assert!(said.iter().any(|line| line == "packfile"), "{more:?}: {said:?}");
    }
    // The link would be one that the client does not take, or that asks for what it has and the download does not say.
    for headers in [("x-forwarded-proto", "https"), ("authorization", "Basic YTpi")] {
        let said = site.fetch(&[headers], &["packfile-uris http"]);
        assert!(!said.iter().any(|line| line == "packfile-uris"), "{headers:?}: {said:?}");
    }
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "git.example.org")];
    let said = site.fetch(&forwarded, &[takes]);
    assert!(said.iter().any(|line| line.contains(" https://git.example.org/repo.git/info/packs/pack-")), "{said:?}");
    // In bands, too.
    let banded = site.fetch(&[], &[takes, "sideband-all"]);
    assert_eq!(banded[0], "\u{1}packfile-uris");
    // Real clients of forms that are not pointed elsewhere.
    let git = site.git.with("fetch.uriProtocols", "http");
    git.clone_repo(&site.url(), &site.path("shallow"), &["--depth=2"]);
    assert_eq!(git.ok(&site.path("shallow"), &["rev-list", "--count", "HEAD"]), "2");
    git.clone_repo(&site.url(), &site.path("partial"), &["--bare", "--filter=blob:none"]);
    assert_eq!(packs(&site.path("partial")).len(), 1);
    assert!(packs(&site.path("partial"))[0].1 < LARGE as u64);
}

#[test]
fn what_is_offered_depends_on_the_settings() {
    let place = Place::new();
    let advertised = |launch: Launch, headers: &[(&str, &str)]| {
        let server = launch.start();
        server.create("repo");
        let headers = [&[("git-protocol", "version=2")], headers].concat();
        let said = server.http().get_with("/repo.git/info/refs?service=git-upload-pack", &headers).text();
        let refused = post(&server, &[], &[command_head("bundle-uri"), b"0000".to_vec()].concat());
        assert_eq!(said.contains("bundle-uri\n"), !refused.text().contains("invalid command 'bundle-uri'"), "{said}");
        // Only a help for others: who asks for a pack elsewhere is not refused.
        (said.contains(" packfile-uris\n"), said.contains("bundle-uri\n"))
    };
    let bare = || Launch::bare().with(&["--listen", "127.0.0.1:0", "--backend", "memory"]);
    assert_eq!(advertised(bare(), &[]), (false, false));
    let public = || bare().env("GOVC_PUBLIC_URL", "https://git.example.org");
    assert_eq!(advertised(public(), &[]), (true, false));
    assert_eq!(advertised(public().env("GOVC_PACKFILE_URIS", "false"), &[]), (false, false));
    assert_eq!(advertised(in_memory(&place), &[]), (true, true));
    assert_eq!(advertised(in_memory(&place), &[("authorization", "Bearer x")]), (false, true));
    let site = Site::new(&place, in_memory(&place), LARGE);
    let body = [command_head("bundle-uri"), b"0001".to_vec(), line(b"all\n"), b"0000".to_vec()].concat();
    assert_eq!(said(&post(&site.server, &[], &body)), ["ERR bundle-uri: unexpected argument: 'all'"]);
    let body = [command_head("bundle-uri"), b"00010000".to_vec()].concat();
    assert_eq!(said(&post(&site.server, &[], &body)), site.bundle_lines());
}

#[test]
fn a_clone_begins_with_a_bundle() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place), LARGE);
    for round in ["same", "more"] {
        if round != "same" {
            site.go_on(round);
        }
        let plain = site.path(&format!("{round}-plain"));
        site.git.clone_repo(&site.url(), &plain, &["--mirror"]);
        // All references of a mirror are the server's, so a bare clone is compared.
        site.git.clone_repo(&site.url(), &site.path(&format!("{round}-wanted")), &["--bare"]);
        let list = format!("{}/info/bundles", site.url());
        let bundle = format!("http://{}{}", site.server.address(), site.bundle().expect("a bundle"));
        let check = |git: &Git, name: &str, options: &[&str]| {
            let copy = site.path(&format!("{round}-{name}"));
            git.clone_repo(&site.url(), &copy, &[&["--bare"], options].concat());
            let packs = packs(&copy);
            let rest: u64 = packs[1..].iter().map(|(_, bytes)| *bytes).sum();
            assert!(packs[0].1 > LARGE as u64 && rest < 10_000, "{round}, {name}: {packs:?}");
            let bundled = git.ok(&copy, &["for-each-ref", "--format=%(refname)", "refs/bundles/"]);
            assert_eq!(bundled.lines().count(), 1, "{round}, {name}: {bundled}");
            git.ok(&copy, &["update-ref", "-d", &bundled]);
            assert_same(&site.git, &site.path(&format!("{round}-wanted")), &copy);
            // Nothing makes the client come again for all of it.
            let settings = git.ok(&copy, &["config", "--list", "--local"]);
            assert!(!settings.to_lowercase().contains("bundle"), "{settings}");
        };
        let newer = site.git.by(newer_git());
        check(&newer.with("transfer.bundleURI", "true"), "told", &[]);
        for (age, git) in both(&site.git) {
            check(&git, &format!("list-{age}"), &[&format!("--bundle-uri={list}")]);
            check(&git, &format!("file-{age}"), &[&format!("--bundle-uri={bundle}")]);
        }
    }
    // As a file, it is a bundle like any other.
    let file = site.path("some.bundle");
    std::fs::write(&file, site.get(&site.bundle().expect("a bundle")).body).expect("a file");
    let name = file.to_str().expect("text");
    site.git.ok(&site.work, &["bundle", "verify", "-q", name]);
    let heads = site.git.ok(&site.work, &["bundle", "list-heads", name]);
    assert_eq!(heads, format!("{0} refs/heads/{0}", site.first));
    let list = site.get("/repo.git/info/bundles");
    assert_eq!(list.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(list.header("cache-control").is_some_and(|value| value.starts_with("no-cache")));
    assert_eq!(site.server.http().send("POST", "/repo.git/info/bundles", &[], b"").status, 405);
    assert_eq!(site.get("/none.git/info/bundles").status, 404);
}

#[test]
fn a_repository_without_a_large_pack_has_an_empty_list() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place).env("GOVC_URI_MIN_PACK", "10M"), LARGE);
    assert_eq!((site.bundle(), site.pack()), (None, None));
    let list = site.get("/repo.git/info/bundles");
    assert_eq!((list.status, list.text()), (200, "[bundle]\n\tversion = 1\n\tmode = all\n".to_owned()));
    let git = site.git.by(newer_git()).with("transfer.bundleURI", "true").with("fetch.uriProtocols", "http");
    git.clone_repo(&site.url(), &site.path("copy"), &[]);
    let list = format!("--bundle-uri={}/info/bundles", site.url());
    for (age, git) in both(&site.git) {
        git.clone_repo(&site.url(), &site.path(age), &[&list]);
    }
}

#[test]
fn downloads_can_be_resumed_and_cached() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place), LARGE);
    let http = site.server.http();
    for path in [site.pack().expect("a pack"), site.bundle().expect("a bundle")] {
        let whole = http.get(&path);
        assert_eq!(whole.status, 200);
        let size = whole.body.len();
        assert_eq!(whole.header("content-length"), Some(size.to_string().as_str()));
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        assert_eq!(whole.header("cache-control"), Some("max-age=3600, immutable"));
        let etag = whole.header("etag").expect("a tag").to_owned();
        let head = http.head(&path);
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
        assert_eq!(head.header("etag"), Some(etag.as_str()));
        let unchanged = http.get_with(&path, &[("if-none-match", &etag)]);
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        for (first, last) in [(0, 0), (0, 99), (3, 70_000), (size - 30, size - 1), (size - 5, size - 1), (40, 80)] {
            let part = http.get_with(&path, &[("range", &format!("bytes={first}-{last}"))]);
            assert_eq!(part.status, 206);
            assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/{size}").as_str()));
            assert_eq!(part.body, whole.body[first..=last], "{first}-{last} of {path}");
        }
        let rest = http.get_with(&path, &[("range", "bytes=1000-"), ("if-range", &etag)]);
        assert_eq!((rest.status, &rest.body[..]), (206, &whole.body[1000..]));
        let changed = http.get_with(&path, &[("range", "bytes=1000-"), ("if-range", "\"other\"")]);
        assert_eq!((changed.status, changed.body == whole.body), (200, true));
        let beyond = http.get_with(&path, &[("range", &format!("bytes={size}-"))]);
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
        for method in ["POST", "PUT", "DELETE"] {
            let refused = http.send(method, &path, &[], b"");
            assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{method}");
        }
        // Without the ending of the repository, too, as everywhere.
        assert_eq!(http.get(&path.replace(".git/", "/")).body, whole.body);
    }
    let pack = http.get(&site.pack().expect("a pack"));
    assert_eq!(pack.header("content-type"), Some("application/x-git-packed-objects"));
    site.git.ok_fed(&site.work, &["index-pack", "--stdin", "--strict"], &pack.body);
}

#[test]
fn other_links_lead_nowhere() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place), LARGE);
    let path = site.pack().expect("a pack");
    let name = path.rsplit('/').next().expect("a name").to_owned();
    let http = site.server.http();
    site.server.create("other");
    assert_eq!(http.get(&format!("/other.git/info/packs/{name}")).status, 404, "it is another repository's");
    assert_eq!(http.get(&format!("/none.git/info/packs/{name}")).status, 404);
    let hex = name.trim_start_matches("pack-").trim_end_matches(".pack");
    for wrong in [
        format!("/repo.git/info/packs/pack-{}.pack", tested::id_of("0")),
        format!("/repo.git/info/packs/pack-{}.bundle", tested::id_of("0")),
        format!("/repo.git/info/packs/pack-{}.pack", hex.to_uppercase()),
        format!("/repo.git/info/packs/pack-{hex}.idx"),
        format!("/repo.git/info/packs/{hex}"),
        format!("/repo.git/info/packs/{hex}.pack"),
        format!("/repo.git/info/packs/{name}/"),
        format!("/repo.git/info/packs/../packs/{name}"),
        format!("/repo.git/info/packs/..%2Fpacks%2F{name}"),
        "/repo.git/info/packs/..%2f..%2f..%2fetc%2fpasswd".to_owned(),
        "/repo.git/info/packs/%00".to_owned(),
        "/repo.git/info/packs/%ff".to_owned(),
        "/repo.git/info/packs/".to_owned(),
        "/repo.git/info/packs".to_owned(),
        format!("/../repo.git/info/packs/{name}"),
    ] {
        let refused = http.get(&wrong);
        assert_eq!(refused.status, 404, "{wrong}: {}", refused.text());
    }
    // A repository that is called like what stands in the links is one all the same.
    for odd in ["x/info/packs", "x/info/bundles", "info/packs", "packs"] {
        site.server.create(odd);
        let url = site.server.url(odd);
        for url in [url.clone(), url.trim_end_matches(".git").to_owned()] {
            site.git.ok(&site.work, &["push", "-q", &url, "main"]);
            assert_eq!(site.git.ok(&site.work, &["ls-remote", &url, "refs/heads/main"]).lines().count(), 1, "{url}");
            let copy = site.path(&format!("odd-{}", url.replace([':', '/', '.'], "-")));
            site.git.with("fetch.uriProtocols", "http").clone_repo(&url, &copy, &[]);
        }
    }
    // With the repository its packs are gone, also for one of the same name.
    let bundle = site.bundle().expect("a bundle");
    assert_eq!(http.send("DELETE", "/api/v1/repos/repo", &[], b"").status, 204);
    assert_eq!((http.get(&path).status, http.get(&bundle).status), (404, 404));
    site.server.create("repo");
    assert_eq!((http.get(&path).status, http.get(&bundle).status), (404, 404));
}

#[test]
fn what_a_client_may_not_see_is_not_pointed_at() {
    let place = Place::new();
    let site = Site::new(&place, in_memory(&place).env("GOVC_FETCH_GRACE", "1ms"), LARGE);
    site.server.create("other");
    // One push, so one pack, with a branch that will be hidden.
    let (git, work) = (&site.git, &site.work);
    git.ok(work, &["checkout", "-q", "-b", "secret"]);
    git.commit(work, "secret", &noise(9, LARGE), "secret");
    git.ok(work, &["checkout", "-q", "main"]);
    let http = site.server.http();
    assert_eq!(http.send("DELETE", "/api/v1/repos/repo", &[], b"").status, 204);
    site.server.create("repo");
    git.ok(work, &["push", "-q", &site.url(), "main", "secret"]);
    let bundle = site.bundle().expect("nothing is hidden yet");
    assert_eq!(http.get(&bundle).status, 200);
    let pack = bundle.replace(".bundle", ".pack");
    assert_eq!(http.get(&pack).status, 200);
    site.hide(&["refs/heads/secret"]);
    assert_eq!((site.bundle(), site.pack()), (None, None));
    assert_eq!((http.get(&bundle).status, http.get(&pack).status), (404, 404));
    site.hide(&[]);
    assert_eq!((site.bundle(), http.get(&pack).status), (Some(bundle.clone()), 200));
    // A fetch that was pointed there may still come, whatever happens to the branch; nobody else is told any more.
    let pointed = site.pack().expect("nothing is hidden");
    assert_eq!(pointed, pack);
    git.ok(work, &["push", "-q", &site.url(), ":secret"]);
    assert_eq!((site.bundle(), site.pack()), (None, None));
    assert_eq!((http.get(&bundle).status, http.get(&pack).status), (404, 200));
    // What is left is cloned as ever, and is all that one gets.
    let newer = git.by(newer_git()).with("fetch.uriProtocols", "http").with("transfer.bundleURI", "true");
    let copy = site.path("copy");
    newer.clone_repo(&site.url(), &copy, &["--bare"]);
    let objects: u64 = packs(&copy).iter().map(|(_, bytes)| *bytes).sum();
    assert!(objects < 2 * LARGE as u64, "{objects}");
    newer.fails(&copy, &["cat-file", "-e", &git.ok(work, &["rev-parse", "secret"])]);
}

#[test]
fn what_was_promised_is_there_through_pushes_evictions_and_restarts() {
    let place = Place::new();
    let launch = pointing(place.launch()).env("GOVC_PACK_CACHE_DISK", "40M");
    let site = Site::new(&place, launch, ON_DISK);
    let (pack, bundle) = (site.pack().expect("a pack"), site.bundle().expect("a bundle"));
    let [whole, bundled] = [&pack, &bundle].map(|path| site.get(path).body);
    let same = |site: &Site<'_>| {
        assert_eq!(site.get(&pack).status, 200);
        assert!(site.get(&pack).body == whole && site.get(&bundle).body == bundled);
    };
    // Others come and take more room than there is; of the same repository as well.
    for at in 0..5 {
        let name = format!("other{at}");
        site.server.create(&name);
        let work = site.path(&name);
        site.git.init(&work);
        site.git.commit(&work, "large", &noise(100 + at, ON_DISK), "large");
        site.git.ok(&work, &["push", "-q", &site.server.url(&name), "main"]);
    }
    site.go_on("more");
    same(&site);
    let Site { server, git, work, first, .. } = site;
    let server = server.kill().start();
    let site = Site { place: &place, git, server, work, first };
    same(&site);
    // What is in memory alone would not outlive that, so nobody is sent there.
    site.server.create("small");
    site.git.ok(&site.work, &["checkout", "-q", "--orphan", "small"]);
    site.git.ok(&site.work, &["rm", "-qrf", "."]);
    site.git.commit(&site.work, "large", &noise(8, LARGE), "large");
    site.git.ok(&site.work, &["push", "-q", &site.server.url("small"), "small:main"]);
    assert_eq!(site.get("/small.git/info/bundles").text(), "[bundle]\n\tversion = 1\n\tmode = all\n");
}

#[test]
fn a_damaged_pack_is_sent_once_at_most() {
    let place = Place::new();
    let site = Site::new(&place, pointing(place.launch()), ON_DISK);
    let path = site.pack().expect("a pack");
    let whole = site.get(&path).body;
    let folder = std::fs::read_dir(site.path("data/packs")).expect("packs").next().expect("a store").expect("a folder");
    let file = std::fs::read_dir(folder.path())
        .expect("packs")
        .map(|file| file.expect("a file").path())
        .find(|file| file.extension().is_some_and(|extension| extension == "pack"))
        .expect("a pack");
    let damage = |at: u64| {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).open(&file).expect("a file");
        file.write_all_at(&[!whole[usize::try_from(at).expect("small")]], at).expect("a byte");
    };
    damage(5_000_000);
    let mut connection = site.server.http().connect();
    connection.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    connection.try_reply().expect_err("it is broken off");
    assert_eq!(site.get(&path).status, 404);
    // The next clone is as good as any.
    let git = site.git.with("fetch.uriProtocols", "http");
    let copy = site.path("copy");
    git.clone_repo(&site.url(), &copy, &["--bare"]);
    git.ok(&copy, &["fsck"]);
}
