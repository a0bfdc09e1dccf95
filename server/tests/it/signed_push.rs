//! `git push --signed`: certificates that are recorded, verified and asked for, and those that are not what they claim to be.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    admin,
    git::Git,
    pack::{Pack, RECEIVE_HEADERS, Report, line},
    server::{Launch, Place, Server},
    ssh_client::{Keys, text, until, url},
    tested,
};

/// A key that may sign, and the file that says so.
struct Signer {
    key: PathBuf,
    file: PathBuf,
}

impl Signer {
    fn new(place: &Place, keys: &Keys, kind: &str) -> Self {
        let key = keys.make(&format!("signer-{kind}"), kind);
        let file = place.path("signers");
        let signer = Self { key, file };
        signer.allow("namespaces=\"git\"");
        signer
    }

    fn public(&self) -> String {
        std::fs::read_to_string(self.key.with_extension("pub")).expect("a public key").trim().to_owned()
    }

    /// Writes the file anew, with these options.
    fn allow(&self, options: &str) {
        std::fs::write(&self.file, format!("ada@example.org {options} {}\n", self.public())).expect("a file");
    }

    fn launch(&self, launch: Launch) -> Launch {
        launch.env("GOVC_ALLOWED_SIGNERS", text(&self.file))
    }
}

/// A git that signs with a key.
fn signing(git: &Git, key: &Path) -> Git {
    git.with("gpg.format", "ssh").with("user.signingKey", text(key))
}

/// The newest versions of a repository, newest first.
pub(crate) fn versions(server: &Server, repo: &str) -> Vec<Value> {
    let page = server.http().get(&format!("/api/v1/repos/{repo}/versions")).expect(200);
    page["versions"].as_array().expect("versions").clone()
}

fn certificate(server: &Server, repo: &str, version: &Value) -> Value {
    server.http().get(&format!("/api/v1/repos/{repo}/versions/{version}/push-cert")).expect(200)
}

pub(crate) fn require(server: &Server, repo: &str, what: &str) {
    let path = format!("/api/v1/repos/{repo}");
    let reply = server.http().patch(&path, &json!({ "git": { "require_signed_push": what } })).expect(200);
    assert_eq!(reply["git"]["require_signed_push"], what);
}

/// Whether OpenSSH finds that `file` says that Ada has signed the certificate.
fn openssh_verifies(place: &Place, file: &Path, content: &str) -> bool {
    let at = content.find("-----BEGIN SSH SIGNATURE-----").expect("a signature");
    let signature = place.path("signature");
    std::fs::write(&signature, &content[at..]).expect("a file");
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", "git", "-I", "ada@example.org", "-f", text(file), "-s", text(&signature)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("OpenSSH's client is installed");
    child.stdin.take().expect("a pipe").write_all(&content.as_bytes()[..at]).expect("it reads");
    child.wait().expect("it ends").success()
}

#[test]
fn a_certificate_is_recorded_and_stays_with_its_version() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let signer = Signer::new(&place, &keys, "ed25519");
    let server = signer.launch(place.launch()).start();
    let git = signing(&Git::new(&place.path("home")), &signer.key);
    let work = place.path("work");
    git.init(&work);
    git.commit(&work, "file", b"one\n", "one");
    git.ok(&work, &["branch", "side"]);
    for durability in ["durable", "relaxed", "memory"] {
        let made = server.http().post("/api/v1/repos", &json!({ "id": durability, "durability": durability }));
        assert_eq!(made.status, 201, "{}", made.text());
        let remote = server.url(durability);
        let push = ["push", "-q", "--signed", "--atomic", "-o", "ci.skip", "-o", "note=a b", &remote, "main", "side"];
        git.ok(&work, &push);
        git.with("push.gpgSign", "if-asked").ok(&work, &["push", "-q", &remote, ":side"]);
        git.ok(&work, &["push", "-q", &remote, "main:unsigned"]);
        let found = versions(&server, durability);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].get("push_cert").is_none() && found[3].get("push_cert").is_none(), "{found:?}");
        for version in &found[1..3] {
            let recorded = &version["push_cert"];
            assert_eq!((&recorded["signature"], &recorded["nonce_status"]), (&json!("verified"), &json!("ok")));
            assert_eq!(recorded["signer"], "ada@example.org");
            let whole = certificate(&server, durability, &version["version"]);
            for name in ["hash", "signature", "nonce_status", "signer", "key"] {
                assert_eq!(whole[name], recorded[name], "{name}");
            }
        }
        let whole = certificate(&server, durability, &found[2]["version"]);
        // git puts a slash behind it.
        assert_eq!(whole["pushee"].as_str().map(|url| url.trim_end_matches('/')), Some(&*remote));
        assert_eq!(whole["format"], "ssh");
        assert_eq!(whole["push_options"], json!(["ci.skip", "note=a b"]));
        let content = whole["content"].as_str().expect("a text");
        assert!(
            whole["pusher"].as_str().expect("a text").starts_with(whole["key"].as_str().expect("a key")),
            "{whole}"
        );
        let main = git.ok(&work, &["rev-parse", "main"]);
        assert!(content.contains(&format!("\n{} {main} refs/heads/side\n", tested::null())), "{content}");
        let hashed = git.feed(&work, &["hash-object", "--stdin"], content.as_bytes()).stdout;
        assert_eq!(whole["hash"], String::from_utf8_lossy(&hashed).trim());
        assert!(openssh_verifies(&place, &signer.file, content));
        assert!(!openssh_verifies(&place, &signer.file, &content.replace("ci.skip", "ci.skid")));
        for (version, status) in [("1", 404), ("4", 404), ("9", 404), ("x", 400)] {
            let path = format!("/api/v1/repos/{durability}/versions/{version}/push-cert");
            assert_eq!(server.http().get(&path).status, status, "{version}");
        }
        // Nothing leads to it but its version.
        let copy = place.path(&format!("copy-{durability}"));
        git.init(&copy);
        git.fails(&copy, &["fetch", "-q", &remote, whole["hash"].as_str().expect("an id")]);
    }
    let before = certificate(&server, "durable", &json!(2));
    let fork = server.http().post("/api/v1/repos/durable/fork", &json!({ "id": "fork" }));
    assert_eq!(fork.status, 201, "{}", fork.text());
    assert_eq!(server.http().get("/api/v1/repos/fork/versions/1/push-cert").status, 404);
    // From the journal, from where that is settled to, and stored anew.
    let server = server.kill().start();
    assert_eq!(certificate(&server, "durable", &json!(2)), before);
    let server = server.stop().start();
    assert_eq!(certificate(&server, "durable", &json!(2)), before);
    assert_eq!(server.http().delete("/api/v1/repos/fork").status, 204);
    let compacted = server.http().post("/api/v1/repos/durable/compact", &json!({}));
    assert!(compacted.status < 300, "{}", compacted.text());
    let http = server.http();
    until("the compaction's end", || http.get("/api/v1/repos/durable/compaction").expect(200)["state"] == "idle");
    assert_eq!(certificate(&server, "durable", &json!(2)), before);
    drop(server.stop());

    let (data, backup) = (place.path("data"), place.path("backup.govc"));
    admin::ok(&["backup", text(&backup), "--data", text(&data)]);
    let restored = place.path("restored");
    admin::ok(&["restore", text(&backup), "--backend", &format!("sqlite://{}", text(&restored))]);
    admin::ok(&["fsck", "--data", text(&data)]);
    let location = format!("sqlite://{}", text(&restored));
    let other = place.path("other");
    let server = Launch::bare().with(&["--listen", "127.0.0.1:0", "--data", text(&other), "--backend", &location]);
    let server = server.start();
    assert_eq!(certificate(&server, "durable", &json!(2)), before);
    // A push goes on with the nonces of the store.
    git.ok(&work, &["push", "-q", "--signed", &server.url("durable"), "main:later"]);
    assert_eq!(versions(&server, "durable")[0]["push_cert"]["signature"], "untrusted", "nobody is known here");
}

#[test]
fn a_signed_push_goes_over_ssh_and_makes_a_repository() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let key = keys.allowed("ada");
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let signer = Signer::new(&place, &keys, kind);
        let server = signer.launch(keys.launch(&place)).with(&["--create-on-push"]).start();
        let git = signing(&keys.git(&place, &key), &signer.key);
        let work = place.path("work");
        git.init(&work);
        git.commit(&work, "file", kind.as_bytes(), kind);
        for (version, remote) in [
            ("0", url(&server, &format!("{kind}/ssh-0"))),
            ("1", url(&server, &format!("{kind}/ssh-1"))),
            ("2", server.url(&format!("{kind}/http"))),
        ] {
            let git = git.with("protocol.version", version);
            git.ok(&work, &["push", "-q", "--signed=if-asked", &remote, "main"]);
            git.commit(&work, "file", format!("{kind} {version}").as_bytes(), "more");
            git.ok(&work, &["push", "-q", "--signed=true", &remote, "main"]);
            let name = remote.trim_end_matches(".git").rsplit('/').next().expect("a name").to_owned();
            let found = versions(&server, &format!("{kind}%2F{name}"));
            assert_eq!(found.len(), 3, "{found:?}");
            for version in &found[..2] {
                assert_eq!(version["push_cert"]["signature"], "verified", "{version}");
                assert_eq!(version["push_cert"]["nonce_status"], "ok", "{version}");
            }
        }
    }
}

#[test]
fn a_repository_takes_what_is_signed_as_it_wants() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let signer = Signer::new(&place, &keys, "ed25519");
    let server = signer.launch(place.launch()).start();
    server.create("repo");
    let plain = Git::new(&place.path("home"));
    let (ada, bob) = (signing(&plain, &signer.key), signing(&plain, &keys.make("stranger", "ed25519")));
    // What stands in for a program that signs in another way.
    let program = place.path("gpg");
    let script = "#!/bin/sh\ncat > /dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\n\
        printf -- '-----BEGIN PGP SIGNATURE-----\\n\\niQ==\\n-----END PGP SIGNATURE-----\\n'\n";
    std::fs::write(&program, script).expect("a file");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).expect("a file of our own");
    let pgp = plain.with("gpg.program", text(&program)).with("user.signingKey", "ada");
    let work = place.path("work");
    plain.init(&work);
    plain.commit(&work, "file", b"one\n", "one");
    let remote = server.url("repo");
    let push = |git: &Git, signed: &str| {
        plain.commit(&work, "file", b"more\n", "more");
        let output = git.run(&work, &["push", "-q", signed, &remote, "main", "main:side"]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let newest = || versions(&server, "repo")[0].clone();

    assert!(push(&plain, "--no-signed").0);
    assert!(push(&bob, "--signed").0);
    assert_eq!(newest()["push_cert"]["signature"], "untrusted");
    require(&server, "repo", "recorded");
    let refused = |(succeeded, said): (bool, String), reason: &str| {
        let version = newest()["version"].clone();
        assert!(!succeeded && said.contains(reason), "{said}");
        for name in ["main -> main", "main -> side"] {
            assert!(said.contains(&format!("[remote rejected] {name} ({reason}")), "{said}");
        }
        assert_eq!(newest()["version"], version);
    };
    refused(push(&plain, "--no-signed"), "a signed push is required");
    assert!(push(&bob, "--signed").0);
    assert!(push(&pgp, "--signed").0);
    assert_eq!(newest()["push_cert"]["signature"], "unchecked");
    let whole = certificate(&server, "repo", &newest()["version"]);
    assert_eq!((&whole["format"], whole.get("key")), (&json!("openpgp"), None));
    require(&server, "repo", "verified");
    refused(push(&plain, "--no-signed"), "a signed push is required");
    refused(push(&bob, "--signed"), "the key SHA256:");
    refused(push(&pgp, "--signed"), "signatures of this kind are not verified here");
    assert!(push(&ada, "--signed").0);
    assert_eq!(newest()["push_cert"]["signer"], "ada@example.org");
    // A change of the file counts for the next push.
    for options in ["valid-before=\"20200101\"", "namespaces=\"file\""] {
        signer.allow(options);
        refused(push(&ada, "--signed"), "the key SHA256:");
    }
    signer.allow("valid-after=\"20200101\",valid-before=\"21000101Z\"");
    assert!(push(&ada, "--signed").0);
    std::fs::remove_file(&signer.file).expect("it is there");
    refused(push(&ada, "--signed"), "the key SHA256:");
    let bad = server.http().patch("/api/v1/repos/repo", &json!({ "git": { "require_signed_push": "maybe" } }));
    assert_eq!(bad.status, 400, "{}", bad.text());
    let server = server.kill();
    let said = server.refused();
    assert!(said.contains("git.allowed_signers"), "{said}");
}

/// What a client is given to sign with.
pub(crate) fn nonce(server: &Server, repo: &str) -> String {
    let text = server.http().get(&format!("/{repo}.git/info/refs?service=git-receive-pack")).text();
    let (_, rest) = text.split_once(" push-cert=").expect("certificates are offered");
    rest.split([' ', '\n']).next().expect("a nonce").to_owned()
}

/// A certificate of one command, signed in a way that nobody looks at.
pub(crate) fn written(headers: &str, name: &str) -> String {
    // Nobody has the reference: its removal needs no pack, and does nothing.
    let command = format!("{} {} refs/heads/{name}\n", tested::null(), tested::null());
    let signature = "-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n";
    format!("certificate version 0.1\npusher ada 1700000000 +0000\n{headers}\n{command}{signature}")
}

/// Pushes a certificate by hand, with options and what comes behind.
fn push_written(server: &Server, repo: &str, certificate: &str, options: Option<&[&str]>, rest: &[u8]) -> Vec<u8> {
    let body = certified(certificate, options, rest);
    let reply = server.http().send("POST", &format!("/{repo}.git/git-receive-pack"), RECEIVE_HEADERS, &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.body
}

/// A push with a certificate, options and what comes behind.
pub(crate) fn certified(certificate: &str, options: Option<&[&str]>, rest: &[u8]) -> Vec<u8> {
    let capabilities = if options.is_some() { "report-status push-options" } else { "report-status" };
    let mut body = line(format!("push-cert\0{capabilities}{}", tested::capability()).as_bytes());
    body.extend(certificate.split_inclusive('\n').flat_map(|text| line(text.as_bytes())));
    body.extend(line(b"push-cert-end\n"));
    body.extend_from_slice(b"0000");
    if let Some(options) = options {
        body.extend(options.iter().flat_map(|option| line(option.as_bytes())));
        body.extend_from_slice(b"0000");
    }
    body.extend_from_slice(rest);
    body
}

#[test]
fn a_certificate_is_good_for_one_push_to_one_repository() {
    let place = Place::new();
    let server = place.serve();
    for repo in ["one", "two"] {
        server.create(repo);
        require(&server, repo, "recorded");
    }
    let push = |repo: &str, headers: &str, options| {
        Report::parse(&push_written(&server, repo, &written(headers, "x"), options, b"")).reasons()
    };
    let fresh = |repo: &str| format!("nonce {}\n", nonce(&server, repo));
    assert_eq!(push("one", &fresh("one"), None), "");
    assert_eq!(push("one", &format!("{}push-option a\n", fresh("one")), Some(&["a"])), "");
    assert_eq!(push("two", &fresh("one"), None), "the push certificate was not made for this push");
    assert_eq!(push("one", "nonce 1700000000000-00\n", None), "the push certificate was not made for this push");
    assert_eq!(push("one", "", None), "the push certificate has no nonce");
    let other = format!("{}push-option a\n", fresh("one"));
    for options in [None, Some(&["b"][..]), Some(&[]), Some(&["a", "a"])] {
        assert_eq!(push("one", &other, options), "inconsistent push options", "{options:?}");
    }
    // Where nothing is asked for it is recorded all the same, as what it is.
    require(&server, "two", "none");
    let mut pack = Pack::new();
    let commit = pack.commit("certified");
    let mut statuses = Vec::new();
    for (number, headers) in [fresh("two"), fresh("one"), String::new()].iter().enumerate() {
        let text = written(headers, "x");
        let command = format!("{} {commit} refs/heads/{number}\n", tested::null());
        let text = text.replace(&format!("{} {} refs/heads/x\n", tested::null(), tested::null()), &command);
        let report = Report::parse(&push_written(&server, "two", &text, None, &pack.finish()));
        assert!(report.accepted(), "{report:?}");
        statuses.push(versions(&server, "two")[0]["push_cert"]["nonce_status"].clone());
        assert_eq!(certificate(&server, "two", &json!(number + 2))["content"], text);
    }
    assert_eq!(statuses, ["ok", "bad", "missing"]);

    // Nonces outlive the server, and grow old.
    let kept = fresh("one");
    let server = server.kill().env("GOVC_CERT_NONCE_SLOP", "24h").start();
    let push = |server: &Server, headers: &str| {
        Report::parse(&push_written(server, "one", &written(headers, "x"), None, b"")).reasons()
    };
    assert_eq!(push(&server, &kept), "");
    let server = server.stop().env("GOVC_CERT_NONCE_SLOP", "1ms").start();
    assert_eq!(push(&server, &kept), "the push certificate is too old; push again");
}

#[test]
fn a_signature_is_of_what_is_pushed() {
    let place = Place::new();
    let keys = Keys::new(&place);
    let signer = Signer::new(&place, &keys, "ed25519");
    let server = signer.launch(place.launch()).start();
    server.create("repo");
    let text_of = |headers: &str, name: &str| {
        let whole = written(headers, name);
        let unsigned = whole.split_once("-----BEGIN").expect("a signature").0.to_owned();
        let mut child = Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", "git", "-f", text(&signer.key)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("OpenSSH's client is installed");
        child.stdin.take().expect("a pipe").write_all(unsigned.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        (unsigned, String::from_utf8(output.stdout).expect("a signature"))
    };
    let push = |certificate: &str| Report::parse(&push_written(&server, "repo", certificate, None, b"")).reasons();
    let headers = format!("nonce {}\n", nonce(&server, "repo"));
    let (unsigned, signature) = text_of(&headers, "x");
    for rule in ["recorded", "verified"] {
        require(&server, "repo", rule);
        assert_eq!(push(&format!("{unsigned}{signature}")), "", "{rule}");
        let wrong = "the push certificate's signature is wrong";
        let tampered = unsigned.replace("refs/heads/x", "refs/heads/y");
        assert_eq!(push(&format!("{tampered}{signature}")), wrong, "{rule}");
        assert_eq!(push(&format!("{unsigned}-----BEGIN SSH SIGNATURE-----\n")), wrong, "{rule}");
        let begun = unsigned.replace("pusher ada", "pusher bob");
        assert_eq!(push(&format!("{begun}{signature}")), wrong, "{rule}");
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let place = Place::new();
    let server = place.serve();
    server.create("repo");
    let headers = format!("nonce {}\n", nonce(&server, "repo"));
    let good = written(&headers, "x");
    let refused = |certificate: &str, rest: &[u8]| {
        let said = push_written(&server, "repo", certificate, None, rest);
        String::from_utf8_lossy(&said).into_owned()
    };
    for (from, to, word) in [
        ("0.1", "0.9", "malformed push certificate"),
        ("pusher", "pushes", "malformed push certificate"),
        ("\n\n", "\n", "malformed push certificate"),
        ("-----BEGIN", "-----BEGUN", "malformed push certificate"),
        (" refs/heads/x", "", "expected old/new/ref"),
    ] {
        let said = refused(&good.replacen(from, to, 1), b"");
        assert!(said.contains("ERR ") && said.contains(word), "{from}: {said}");
    }
    let long = good.replacen("pusher", &format!("{}pusher", "padding of a line\n".repeat(1 << 20)), 1);
    let said = refused(&long, b"");
    assert!(said.contains("a push certificate has at most 16777216 bytes"), "{said}");
    assert_eq!(versions(&server, "repo").len(), 1, "nothing was published");
    assert!(Report::parse(&push_written(&server, "repo", &good, None, b"")).accepted());
}
