//! `govc import` from servers: the real git's, ours, and such that break off, or lie.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use crate::{
    admin::text,
    git::{Git, assert_same},
    history::noise,
    http_backend::{Asked, Given, HttpBackend},
    import::{empty_store, exists, exported, git_dir, import, odd, on_store, refused, run},
    server::{Place, govc},
    tls::Authority,
};

/// The script of a server that does as git does.
fn honest(_: &Asked, given: Given) -> Given {
    given
}

/// How many imports are kept half-done.
pub(crate) fn kept_imports(place: &Place) -> usize {
    let stores = std::fs::read_dir(place.path("data").join("imports")).into_iter().flatten();
    stores.map(|store| std::fs::read_dir(store.expect("an entry").path()).expect("a folder").count()).sum()
}

#[test]
fn servers_of_every_version_are_asked_for_all_and_then_for_what_is_new() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = odd(&git, &place, 200);
    let root = source.parent().expect("a folder").to_owned();
    let name = source.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let new = HttpBackend::start(&git, &root, honest);
    let work = place.path("work");
    git.clone_repo(text(&source), &work, &["--no-local"]);
    for (at, (server, slice)) in [(&new, "1"), (&new, "0"), (&new, "1000")].into_iter().enumerate() {
        let into = format!("copy-{at}");
        let said = import(&place, &[&server.url(&name), "--mirror", "--into", &into, "--slice", slice]);
        assert!(said.contains("which is new"), "{said}");
        let fetches: Vec<_> = server.take_asked().into_iter().filter(|asked| asked.text().contains("want ")).collect();
        match slice {
            "0" => assert!(fetches.len() == 1 && !fetches[0].text().contains("deepen"), "one pack"),
            "1" => assert!(fetches.len() > 1 && fetches[1].text().contains("shallow "), "slices"),
            _ => assert!(fetches.len() == 1, "a history that is not so deep comes in one slice"),
        }
        let out = exported(&place, &into, "out.git");
        assert_same(&git, &source, &out);
        assert_eq!(git.ok(&out, &["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert_eq!(kept_imports(&place), 0);
    }
    let commit = git.commit(&work, "new", b"new\n", "new");
    git.ok(&work, &["push", "-q", "origin", "HEAD:main", ":refs/tags/many/7"]);
    let said = import(&place, &[&new.url(&name), "--mirror", "--into", "copy-0"]);
    assert!(said.contains("0 added, 1 changed, 1 deleted") && said.contains("3 objects"), "{said}");
    let asked = new.take_asked();
    let fetch = asked.iter().find(|asked| asked.text().contains("want ")).expect("a fetch").text();
    assert!(fetch.contains(&commit) && fetch.contains("have ") && fetch.contains("thin-pack"), "{fetch}");
    assert_same(&git, &source, &exported(&place, "copy-0", "out.git"));
    let said = import(&place, &[&new.url(&name), "--mirror", "--into", "copy-0"]);
    assert!(said.contains("up to date") && new.fetches() == 0, "{said}");

    // Branches and tags alone, from git as it once was, and from our own server.
    let server = HttpBackend::start_old(&git, &root);
    for slice in ["1", "0"] {
        let into = format!("old-{slice}");
        import(&place, &[&server.url(&name), "--mirror", "--into", &into, "--slice", slice]);
        assert!(server.take_asked().iter().all(|asked| !asked.text().contains("command=")), "version 0");
        assert_same(&git, &source, &exported(&place, &into, "out.git"));
    }
    let commit = git.commit(&work, "newer", b"newer\n", "newer");
    git.ok(&work, &["push", "-q", "origin", "HEAD:main"]);
    let said = import(&place, &[&server.url(&name), "--mirror", "--into", "old-0"]);
    assert!(said.contains("3 objects"), "{said}");
    let out = exported(&place, "old-0", "out.git");
    assert_same(&git, &source, &out);
    assert_eq!(git.ok(&out, &["rev-parse", "main"]), commit);

    let second = Place::new();
    let ours = second.serve();
    ours.create("odd");
    git.ok(&source, &["push", "-q", ours.url("odd").as_str(), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"]);
    for slice in ["1", "0"] {
        import(&place, &[&ours.url("odd"), "--into", &format!("ours-{slice}"), "--slice", slice]);
        let kept = place.path(&format!("kept-{slice}.git"));
        git.clone_repo(&ours.url("odd"), &kept, &["--mirror"]);
        assert_same(&git, &kept, &exported(&place, &format!("ours-{slice}"), "out.git"));
    }
}

/// A history of one line, as deep as it is long.
pub(crate) fn long(git: &Git, place: &Place) -> PathBuf {
    let source = git_dir(git, place, "long.git");
    let mut stream = String::new();
    for at in 1..=200 {
        let text: String = (0..100).map(|line| format!("line {line} of {}\n", at - line % 7)).collect();
        stream
            .push_str(&format!("commit refs/heads/main\nmark :{at}\ncommitter A <a@b> {} +0000\n", 1_700_000_000 + at));
        stream.push_str(&format!("data 5\nmore\n\nM 100644 inline dir/{}\ndata {}\n{text}\n", at % 9, text.len()));
    }
    stream.push_str("reset refs/heads/side\nfrom :100\n\n");
    git.ok_fed(&source, &["fast-import", "--quiet"], stream.as_bytes());
    source
}

/// What the server of a test does to the packs that it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    /// From this one on they break off in the middle.
    Cut(usize),
    /// From this one on nothing comes any more after the middle.
    Stall(usize),
    /// What was wanted is said to be gone.
    Gone,
}

#[test]
fn an_interrupted_import_goes_on_with_what_is_missing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = long(&git, &place);
    let root = source.parent().expect("a folder").to_owned();
    empty_store(&place);
    let fault = Arc::new(Mutex::new(Fault::None));
    let (shared, packs) = (fault.clone(), Arc::new(AtomicUsize::new(0)));
    let (counter, git_for_later) = (packs.clone(), git.clone());
    let server = HttpBackend::start(&git, &root, move |asked, given| {
        if !asked.text().contains("want ") {
            return given;
        }
        let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
        let half = given.body.len() / 2;
        match *shared.lock().expect("not poisoned") {
            Fault::Cut(from) if number >= from => Given { cut: Some(half), ..given },
            Fault::Stall(from) if number >= from => Given { stall: Some(half), ..given },
            Fault::Gone if number == 1 => Given { body: b"0018ERR not our ref 1234".to_vec(), ..given },
            _ => given,
        }
    });
    let set = |new: Fault| {
        *fault.lock().expect("not poisoned") = new;
        packs.store(0, Ordering::SeqCst);
        server.take_asked();
    };
    let url = server.url("long.git");
    let begin = |into: &str| {
        set(Fault::Cut(3));
        let (code, out, err) = run(&place, &["import", &url, "--mirror", "--into", into, "--slice", "5"]);
        assert!(code == 1 && err.contains(&url) && err.contains("broke"), "{out}{err}");
        assert_eq!((server.fetches(), kept_imports(&place)), (3, 1));
        assert!(!exists(&place, into), "a part of a history is not to be seen");
    };
    let go_on = |into: &str| {
        let said = import(&place, &[&url, "--mirror", "--into", into, "--slice", "5"]);
        assert_same(&git_for_later, &source, &exported(&place, into, "out.git"));
        assert_eq!(kept_imports(&place), 0);
        said
    };
    let sent = |asked: Vec<Asked>| asked.into_iter().filter(|asked| asked.text().contains("want ")).collect::<Vec<_>>();

    // A connection that broke.
    begin("cut");
    set(Fault::None);
    let said = go_on("cut");
    assert!(said.contains("going on with an interrupted import: 2 slices"), "{said}");
    let first = &sent(server.take_asked())[0].text();
    assert!(first.contains("shallow ") && first.contains("have "), "what is here is not asked for again: {first}");

    // A process that was killed.
    set(Fault::Stall(3));
    let mut child = govc()
        .args(on_store(&place, &["import", &url, "--mirror", "--into", "killed", "--slice", "5"]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    while packs.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    child.kill().expect("the process can be killed");
    child.wait().expect("the process can be waited for");
    assert!(!exists(&place, "killed"));
    set(Fault::None);
    assert!(go_on("killed").contains("2 slices"));
    assert!(sent(server.take_asked())[0].text().contains("shallow "));

    // A source that has gone on meanwhile is brought up to date.
    begin("later");
    let work = place.path("work");
    git.clone_repo(text(&source), &work, &["--no-local"]);
    git.commit(&work, "new", b"new\n", "meanwhile");
    git.ok(&work, &["push", "-q", "origin", "HEAD:main", ":side"]);
    set(Fault::None);
    go_on("later");

    // One that has not what it had begins from the beginning.
    begin("gone");
    set(Fault::Gone);
    let said = go_on("gone");
    assert!(said.contains("not our ref") && said.contains("beginning again"), "{said}");
    let fetches = sent(server.take_asked());
    assert!(fetches[0].text().contains("shallow ") && !fetches[1].text().contains("shallow "));

    // What was kept and is damaged does no harm.
    begin("damaged");
    let stores = std::fs::read_dir(place.path("data").join("imports")).expect("a folder");
    let import_folder =
        |store: PathBuf| std::fs::read_dir(store).expect("a folder").next().expect("one").expect("an entry").path();
    let folder = stores.map(|store| import_folder(store.expect("an entry").path())).next().expect("an import");
    let pack = folder.join("1.pack");
    let mut bytes = std::fs::read(&pack).expect("a slice");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(&pack, &bytes).expect("writable");
    set(Fault::None);
    refused(&place, &[&url, "--mirror", "--into", "damaged", "--slice", "5"], &[""]);
    assert_eq!((kept_imports(&place), exists(&place, "damaged")), (0, false));
    go_on("damaged");
}

/// A pkt-line.
fn line(content: &[u8]) -> Vec<u8> {
    [format!("{:04x}", content.len() + 4).as_bytes(), content].concat()
}

/// An answer with a pack.
fn with_pack(pack: &[u8]) -> Vec<u8> {
    let mut body = line(b"packfile\n");
    for piece in pack.chunks(60_000) {
        body.extend(line(&[&[1], piece].concat()));
    }
    [&body[..], b"0000"].concat()
}

#[test]
fn a_server_that_lies_changes_nothing() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"one\n", "one");
    git.commit(&work, "file", b"two\n", "two");
    let root = place.path("root");
    std::fs::create_dir(&root).expect("a folder");
    git.clone_repo(text(&work), &root.join("x.git"), &["--mirror"]);
    let pack_of = |objects: &str| {
        let output = git.feed(&work, &["pack-objects", "-q", "--stdout"], objects.as_bytes());
        assert!(output.status.success());
        output.stdout
    };
    let head = git.ok(&work, &["rev-parse", "HEAD"]);
    let tree = git.ok(&work, &["rev-parse", "HEAD^{tree}"]);
    let all = git.ok(&work, &["rev-list", "--objects", "--no-object-names", "--all"]);
    let whole = pack_of(&all);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let endless = [line(b"packfile\n"), line(&[&[2][..], &[b'.'; 60_000]].concat()).repeat(400)].concat();
    let lies: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a pack that is damaged", with_pack(&flipped), "pack"),
        ("objects that are missing", with_pack(&pack_of(&format!("{head}\n{tree}\n"))), "missing"),
        ("another pack", with_pack(&pack_of("")), head.get(..12).expect("an id")),
        ("a pack that ends early", with_pack(&whole[..whole.len() - 30]), "pack"),
        ("bytes after the pack", with_pack(&[&whole[..], b"more"].concat()), "pack"),
        ("no pack", b"0000".to_vec(), "not what was asked for"),
        ("an error", line(b"ERR access \x1b[31mdenied\n"), "says: access  [31mdenied"),
        (
            "an error within the pack",
            [line(b"packfile\n"), line(b"\x03out of memory\n")].concat(),
            "says: out of memory",
        ),
        ("talk without end", endless, "sends no pack"),
        ("lines that are none", b"zzzz".to_vec(), "not made of lines"),
        (
            "a shallow history",
            [line(b"shallow-info\n"), line(format!("shallow {head}").as_bytes()), b"0001".to_vec(), with_pack(&whole)]
                .concat(),
            "shallow clone",
        ),
    ];
    for (what, body, word) in lies {
        let lie = body.clone();
        let server = HttpBackend::start(&git, &root, move |asked, given| match asked.text().contains("want ") {
            true => Given { body: lie.clone(), ..given },
            false => given,
        });
        for slice in ["0", "1000"] {
            let err = refused(&place, &[&server.url("x.git"), "--into", "x", "--slice", slice], &[]);
            // In slices a shallow answer is what was asked for, and the next one shows that it does not end.
            assert!(err.contains(word) || (slice == "1000" && what == "a shallow history"), "{what}, {slice}: {err}");
            assert!(!err.contains('\x1b'), "{err}");
            assert!(!exists(&place, "x"), "{what}");
        }
    }
    // What is there stays when a later run is lied to.
    let honest = HttpBackend::start(&git, &root, honest);
    import(&place, &[&honest.url("x.git"), "--into", "x"]);
    let before = git.references(&exported(&place, "x", "out.git"));
    git.commit(&work, "file", b"three\n", "three");
    git.ok(&work, &["push", "-q", text(&root.join("x.git")), "main"]);
    let liar = HttpBackend::start(&git, &root, move |asked, given| match asked.text().contains("want ") {
        true => Given { body: with_pack(&whole), ..given },
        false => given,
    });
    refused(&place, &[&liar.url("x.git"), "--into", "x"], &["refs/heads/main"]);
    assert_eq!(git.references(&exported(&place, "x", "out.git")), before);

    // Other answers than a Git server's.
    for (status, kind, body, word) in [
        (200, "text/html", "<!doctype html>", "it answers with \"text/html\""),
        (200, "application/x-git-upload-pack-advertisement", "<!doctype html>", "does not answer as a Git server"),
        (404, "text/plain", "", "404"),
        (500, "text/plain", "", "500"),
        (418, "text/plain", "", "418"),
    ] {
        let server = HttpBackend::start(&git, &root, move |_, _| Given {
            status,
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.into(),
            ..Given::default()
        });
        refused(&place, &[&server.url("x.git"), "--into", "y"], &[word, &server.url("x.git")]);
    }
    // Nobody there, more than is wanted, and silence.
    refused(&place, &["http://127.0.0.1:1/x.git", "--into", "y"], &["cannot ask http://127.0.0.1:1/x.git"]);
    refused(&place, &[&honest.url("x.git"), "--into", "y", "--max-size", "100"], &["more than 100 bytes"]);
    let silent = HttpBackend::start(&git, &root, |asked, given| match asked.text().contains("want ") {
        true => Given { stall: Some(given.body.len() - 10), ..given },
        false => given,
    });
    refused(&place, &[&silent.url("x.git"), "--into", "y", "--silence", "300ms"], &["timeout"]);
    assert!(!exists(&place, "y"));
}

#[test]
fn over_https_who_answers_must_be_known_and_be_who_was_asked() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let source = odd(&git, &place, 20);
    let root = source.parent().expect("a folder").to_owned();
    let name = source.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let (ours, theirs) = (Place::new(), Place::new());
    let (known, unknown) = (Authority::new(&ours), Authority::new(&theirs));
    let backend = |pair| HttpBackend::start_secure(&git, &root, &pair);

    let before = place.left();
    let garbage = place.path("garbage.pem");
    std::fs::write(&garbage, "nothing of the kind\n").expect("a file");
    let good = backend(known.pair(2999));
    for (server, ca, word) in [
        // Of the same name as the one that is known.
        (&good, Some(unknown.ca()), "BadSignature"),
        (&good, None, "UnknownIssuer"),
        (&backend(known.pair_of(&["elsewhere.example"], 2999)), Some(known.ca()), "not valid for name"),
        (&backend(known.pair(2002)), Some(known.ca()), "certificate expired"),
        (&good, Some(text(&garbage)), "--ca-file holds no certificate"),
    ] {
        let url = server.url(&name);
        let mut arguments = vec![&url[..], "--mirror", "--into", "x"];
        arguments.extend(ca.iter().flat_map(|ca| ["--ca-file", ca]));
        let said = refused(&place, &arguments, &[word]);
        let told = word.starts_with("--") || said.contains(&format!("cannot ask {url}"));
        assert!(told && said.lines().count() == 1, "{said}");
        assert!(server.take_asked().is_empty(), "{word}: nothing is said to who is not trusted");
        assert_eq!((exists(&place, "x"), kept_imports(&place)), (false, 0), "{word}");
    }
    assert_eq!(place.left(), before);
    // TLS where there is none.
    let plain = HttpBackend::start(&git, &root, honest);
    let url = plain.url(&name).replace("http://", "https://");
    refused(&place, &[&url, "--into", "x", "--ca-file", known.ca()], &["cannot ask https://"]);

    // All at once, and in slices.
    for slice in ["0", "1"] {
        let into = format!("x{slice}");
        let arguments = [&good.url(&name)[..], "--mirror", "--into", &into, "--slice", slice, "--ca-file", known.ca()];
        let said = import(&place, &arguments);
        assert!(said.contains("which is new"), "{said}");
        assert!(good.fetches() >= if slice == "0" { 1 } else { 2 });
        assert_same(&git, &source, &exported(&place, &into, "out.git"));
        good.take_asked();
    }
    // From our own server.
    let served = Place::new();
    known.fresh();
    let server = known.trusted(served.launch()).start();
    server.create("odd");
    let trusting = git.with("http.sslCAInfo", known.ca());
    trusting.ok(&source, &["push", "-q", &server.url("odd"), "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*"]);
    import(&place, &[&server.url("odd"), "--into", "ours", "--ca-file", known.ca()]);
    let mirror = place.path("mirror.git");
    trusting.clone_repo(&server.url("odd"), &mirror, &["--mirror"]);
    assert_same(&git, &mirror, &exported(&place, "ours", "out.git"));
}

#[test]
fn where_nobody_watches_progress_is_lines() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "noise", &noise(1, 400_000), "more than one packet of the side-band");
    let root = place.path("root");
    let source = root.join("noise.git");
    std::fs::create_dir(&root).expect("a folder");
    git.clone_repo(text(&work), &source, &["--mirror"]);
    empty_store(&place);
    // The pack takes longer than what lies between two lines.
    let server = HttpBackend::start(&git, &root, |asked, given| match asked.text().contains("want ") {
        true => Given { pause: Some((given.body.len() / 2, Duration::from_millis(5500))), ..given },
        false => given,
    });
    let arguments = ["import", &server.url("noise.git"), "--mirror", "--into", "x", "--slice", "0"];
    let (code, out, err) = run(&place, &arguments);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.starts_with("imported into x, which is new: 1 references") && out.lines().count() == 1, "{out}");
    let objects = git.objects(&source).len();
    // No line is written over, and each says who says it; sizes are not the same with every git.
    let masked = err.replace(|digit: char| digit.is_ascii_digit(), "#");
    let masked: Vec<String> =
        masked.lines().map(|line| line.split('#').filter(|part| !part.is_empty()).collect()).collect();
    let wanted = ["govc: receiving  objects", "govc: receiving  objects:  KiB", "govc: receiving  objects:  KiB, done"];
    assert_eq!(masked, wanted, "{err:?}");
    let numbers = |at: usize| -> Vec<usize> {
        let line = err.lines().nth(at).expect("a line");
        line.split(|char: char| !char.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    for at in 0..3 {
        assert_eq!(numbers(at)[0], objects, "{err}");
    }
    assert!(numbers(1)[1] < numbers(2)[1], "{err}");
}

#[test]
fn secrets_are_sent_where_they_belong_and_nowhere_else() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    empty_store(&place);
    let work = place.path("work");
    git.init(&work);
    for at in 0..10 {
        git.commit(&work, "file", format!("{at}\n").as_bytes(), "again");
    }
    let root = place.path("root");
    std::fs::create_dir(&root).expect("a folder");
    git.clone_repo(text(&work), &root.join("x.git"), &["--mirror"]);
    let guarded = |wanted: &'static str| {
        HttpBackend::start(&git, &root, move |asked, given| match asked.header("authorization") {
            Some(found) if found == wanted => given,
            _ => Given { status: 401, ..Given::default() },
        })
    };
    // x-access-token:s3cret-token and ada:s3cret-token.
    let by_token = guarded("Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0LXRva2Vu");
    let by_url = guarded("Basic YWRhOnMzY3JldC10b2tlbg==");
    let url = by_token.url("x.git");
    refused(&place, &[&url, "--into", "a"], &["asks for credentials", "--token-env"]);
    let said = import(&place, &[&url, "--into", "a", "--token-env", "IMPORT_TOKEN"]);
    assert!(!said.contains("s3cret"), "{said}");
    let url = by_url.url("x.git").replace("http://", "http://ada:s3cret-token@");
    let said = import(&place, &[&url, "--into", "b"]);
    assert!(!said.contains("s3cret"), "{said}");
    let url = by_token.url("x.git").replace("http://", "http://ada:s3cret-token@");
    let said = refused(&place, &[&url, "--into", "c"], &["does not accept the credentials"]);
    assert!(!said.contains("s3cret"), "{said}");

    // Another host is not gone to, and if it is, without the secret.
    let other = HttpBackend::start(&git, &root, honest);
    let target = format!("{}/info/refs?service=git-upload-pack", other.url("x.git"));
    let redirecting = HttpBackend::start(&git, &root, move |_, _| Given {
        status: 302,
        headers: vec![("Location".to_owned(), target.clone())],
        body: Vec::new(),
        ..Given::default()
    });
    let url = redirecting.url("x.git").replace("http://", "http://ada:s3cret-token@");
    let said = refused(&place, &[&url, "--into", "d"], &["redirects to", "--follow-redirects"]);
    assert!(!said.contains("s3cret"), "{said}");
    assert!(other.take_asked().is_empty());
    import(&place, &[&url, "--into", "d", "--follow-redirects"]);
    let asked = other.take_asked();
    assert!(asked.len() >= 3 && asked.iter().all(|asked| asked.header("authorization").is_none()), "{asked:?}");

    // A state on the disk holds no secret either.
    let cut = HttpBackend::start(&git, &root, |asked, given| match asked.text().contains("shallow ") {
        true => Given { cut: Some(30), ..given },
        false => given,
    });
    let url = cut.url("x.git").replace("http://", "http://ada:s3cret-token@");
    refused(&place, &[&url, "--into", "e", "--slice", "1"], &["broke"]);
    assert_eq!(kept_imports(&place), 1);
    let output = Command::new("grep").args(["-rc", "s3cret", text(&place.path("data"))]).output().expect("grep runs");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
}
