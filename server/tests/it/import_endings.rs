//! How imports from servers end before they are done, and what stays of what was received.

use std::io::Read as _;
use std::process::Stdio;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    git::{Git, assert_same},
    http_backend::{Given, HttpBackend},
    import::{empty_store, exists, exported, import, on_store, refused, run},
    import_server::{kept_imports, long},
    server::{Place, govc},
};

/// What the server of a test answers.
#[derive(Clone, Debug, PartialEq)]
enum Trouble {
    /// What git does.
    None,
    /// From the third pack on they break off.
    Cut,
    /// Only this status, to everything.
    Always(u16),
    /// This status to who wants a pack.
    Packs(u16),
    /// What is wanted is said to be gone, and then this status to who asks what is there.
    Gone(u16),
    /// Asked for a pack, what is there or who it is: the beginning of an answer, and nothing more.
    Silent(&'static str),
}

/// A server with trouble that can be changed, and how many requests it has read.
fn troubled(git: &Git, place: &Place) -> (HttpBackend, Arc<Mutex<Trouble>>, Arc<AtomicUsize>) {
    let trouble = Arc::new(Mutex::new(Trouble::None));
    let (shared, packs, asked_for) = (trouble.clone(), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let count = asked_for.clone();
    let root = place.path("long.git").parent().expect("a folder").to_owned();
    let server = HttpBackend::start(git, &root, move |asked, given| {
        let plain = |status: u16| Given {
            status,
            headers: vec![("Location".to_owned(), "http://127.0.0.1:1/x/info/refs?service=git-upload-pack".to_owned())],
            body: Vec::new(),
            ..Given::default()
        };
        let what = match (&asked.method[..], asked.text()) {
            ("GET", _) => "who",
            (_, text) if text.contains("want ") => "pack",
            _ => "what",
        };
        let half = given.body.len() / 2;
        let trouble = shared.lock().expect("not poisoned").clone();
        let given = match trouble {
            Trouble::Cut if what == "pack" && packs.fetch_add(1, Ordering::SeqCst) >= 2 => {
                Given { cut: Some(half), ..given }
            }
            Trouble::Always(status) => plain(status),
            Trouble::Packs(status) if what == "pack" => plain(status),
            Trouble::Gone(_) if what == "pack" => Given { body: b"0018ERR not our ref 1234".to_vec(), ..given },
            Trouble::Gone(status) if what == "what" => plain(status),
            Trouble::Silent(at) if what == at => Given { stall: Some(half), ..given },
            _ => given,
        };
        count.fetch_add(1, Ordering::SeqCst);
        given
    });
    (server, trouble, asked_for)
}

#[test]
fn what_was_received_stays_whatever_the_server_answers_later() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = long(&git, &place);
    empty_store(&place);
    let (server, trouble, _) = troubled(&git, &place);
    let url = server.url("long.git");
    let arguments = [&url[..], "--mirror", "--into", "x", "--slice", "5"];
    *trouble.lock().expect("not poisoned") = Trouble::Cut;
    refused(&place, &arguments, &["broke"]);
    assert_eq!((kept_imports(&place), exists(&place, "x")), (1, false));
    let mut troubles = Vec::new();
    for status in [400, 401, 403, 404, 408, 410, 418, 429, 500, 503] {
        troubles.extend([Trouble::Always(status), Trouble::Packs(status)]);
    }
    troubles.extend([Trouble::Always(302), Trouble::Packs(302), Trouble::Gone(429), Trouble::Gone(401)]);
    for now in troubles {
        *trouble.lock().expect("not poisoned") = now.clone();
        let said = refused(&place, &arguments, &[&url]);
        assert!(said.contains("going on") && !said.contains("beginning again"), "{now:?}: {said}");
        assert_eq!((kept_imports(&place), exists(&place, "x")), (1, false), "{now:?}: {said}");
    }
    *trouble.lock().expect("not poisoned") = Trouble::None;
    server.take_asked();
    let said = import(&place, &arguments);
    assert!(said.contains("going on with an interrupted import: 2 slices"), "{said}");
    let first = server.take_asked().into_iter().find(|asked| asked.text().contains("want ")).expect("a fetch").text();
    assert!(first.contains("shallow ") && first.contains("have "), "what is here is not asked for again: {first}");
    assert_same(&git, &source, &exported(&place, "x", "out.git"));
    assert_eq!(kept_imports(&place), 0);
}

#[test]
fn a_limit_that_was_too_small_costs_no_second_download() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let source = long(&git, &place);
    empty_store(&place);
    let (server, _, _) = troubled(&git, &place);
    let arguments = ["import", &server.url("long.git"), "--mirror", "--into", "x", "--slice", "5"];
    let limited = |name: &str, value: &str| {
        let output = govc().args(on_store(&place, &arguments)).env(name, value).output().expect("the binary runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = limited("GOVC_MAX_OBJECT", "1KiB");
    assert!(code == Some(1) && said.contains("1024"), "{said}");
    assert_eq!((kept_imports(&place), exists(&place, "x")), (1, false), "{said}");
    let fetches = server.fetches();
    let (code, said) = limited("GOVC_MAX_OBJECT", "1MiB");
    assert!(code == Some(0) && said.contains("going on with an interrupted import"), "{said}");
    assert_eq!(server.fetches(), fetches, "nothing was missing");
    assert_same(&git, &source, &exported(&place, "x", "out.git"));
    assert_eq!(kept_imports(&place), 0);
}

#[test]
fn a_server_that_says_nothing_holds_up_neither_the_clock_nor_who_waits() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    long(&git, &place);
    empty_store(&place);
    let (server, trouble, asked_for) = troubled(&git, &place);
    let url = server.url("long.git");
    for (at, silent) in ["who", "what", "pack"].into_iter().enumerate() {
        *trouble.lock().expect("not poisoned") = Trouble::Silent(silent);
        for slice in ["0", "5"] {
            // Longer than the test may take: only the other limit can end it.
            let waiting = ["import", &url, "--into", "x", "--slice", slice, "--silence", "10h"];
            let (code, _, said) = run(&place, &[&waiting[..], &["--timeout", "1s"]].concat());
            assert!(code == 1 && said.contains("(--timeout)"), "{silent}: {said}");

            let before = asked_for.load(Ordering::SeqCst);
            let mut child = govc()
                .args(on_store(&place, &waiting))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary runs");
            while asked_for.load(Ordering::SeqCst) <= before + at {
                std::thread::yield_now();
            }
            let command = format!("kill -INT {}", child.id());
            assert!(std::process::Command::new("sh").args(["-c", &command]).status().expect("sh runs").success());
            let mut said = String::new();
            child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
            assert_eq!(child.wait().expect("an end").code(), Some(130), "{silent}: {said}");
            assert!(said.contains("the import was interrupted"), "{silent}: {said}");
        }
    }
    assert_eq!((kept_imports(&place), exists(&place, "x")), (0, false));
}
