//! The clients that people bring: clone, shallow clone, fetch and push by seven of them, judged by `git`.
//!
//! Each is driven through a program in its own language in `tests/clients`, where a README says which client can do
//! what; `scripts/clients` installs them. All programs take the same commands, and each runs in a process of its own:
//!
//! | command | |
//! |---|---|
//! | `clone URL DIR` | all branches and tags, with a work tree |
//! | `shallow URL DIR DEPTH` | the same to a depth |
//! | `partial URL DIR FILTER` | a bare clone without what the filter leaves out |
//! | `fetch DIR` | from `origin`, whatever is new |
//! | `deepen DIR DEPTH`, `unshallow DIR` | a fetch that moves the border of a shallow clone, or takes it away |
//! | `push DIR REFSPEC...` | to `origin`; `+` forces, an empty source deletes |
//!
//! A program that fails because a reference was refused says `refused: ` and why; anything else it says is a defect.
//! The oracle is the same command by git against the source through git's own upload-pack.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    client::{Client, newer_git},
    history::noise,
    server::{Launch, Place, Server},
    ssh_client::ssh_address,
    tls::Authority,
    trial::{State, Trial, said, text},
};

/// All that a client can do, with a durable repository over HTTP; the main things over HTTPS and SSH with a server that
/// has everything in memory alone.
fn check(client: Client) {
    let place = Place::new();
    let mut trial = Trial::new(client, &place);
    let server = place.serve();
    server.create("repo");
    let url = server.url("repo");
    trial.publish(&url);
    let whole = trial.cloned(&url, "whole", None);
    let shallow = trial.cloned(&url, "shallow", Some("2"));
    deepen(&trial, &shallow);
    if client.filters() {
        partial(&trial, &url);
    }
    trial.go_on();
    trial.publish(&url);
    fetch(&trial, &whole, "fetch");
    fetch(&trial, &shallow, "fetch of a shallow clone");
    unshallow(&trial, &shallow);
    if client.pushes() {
        let shallow = trial.cloned(&url, "shallow again", Some("1"));
        push(&trial, &url, &whole[1]);
        push_one(&trial, &url, &shallow[1], "from-shallow");
    }
    drop(server);
    elsewhere(&mut trial, &place);
}

fn deepen(trial: &Trial<'_>, shallow: &[PathBuf; 2]) {
    // With less, dulwich takes some references to be deep enough, through a merge, and does not ask for them.
    trial.git.ok(&shallow[0], &["fetch", "-q", "--depth", "6"]);
    trial.ok(&["deepen", text(&shallow[1]), "6"]);
    trial.assert_same(shallow, "deepen");
}

fn fetch(trial: &Trial<'_>, clones: &[PathBuf; 2], step: &str) {
    trial.git.ok(&clones[0], &["fetch", "-q"]);
    trial.ok(&["fetch", text(&clones[1])]);
    trial.assert_same(clones, step);
}

fn unshallow(trial: &Trial<'_>, shallow: &[PathBuf; 2]) {
    trial.git.ok(&shallow[0], &["fetch", "-q", "--unshallow"]);
    trial.ok(&["unshallow", text(&shallow[1])]);
    trial.assert_same(shallow, "unshallow");
    assert!(State::of(&trial.git, &shallow[1]).shallow.is_empty(), "{:?}", trial.client);
}

fn partial(trial: &Trial<'_>, url: &str) {
    let git = &trial.git;
    git.ok(&trial.source, &["config", "uploadpack.allowFilter", "true"]);
    let [wanted, got] = ["wanted", "got"].map(|which| trial.place.path(&format!("partial-{which}")));
    let local = format!("file://{}", trial.source.display());
    git.clone_repo(&local, &wanted, &["--bare", "--filter=blob:none"]);
    trial.ok(&["partial", url, text(&got), "blob:none"]);
    assert_eq!(git.objects(&wanted), git.objects(&got), "{:?}, partial", trial.client);
}

/// What the server has, by name.
fn on_server(trial: &Trial<'_>, url: &str) -> BTreeMap<String, String> {
    let listed = trial.git.ok(&trial.home, &["ls-remote", "--refs", url]);
    let pair = |line: &str| line.split_once('\t').map(|(oid, name)| (name.to_owned(), oid.to_owned()));
    listed.lines().map(|line| pair(line).expect("an id and a name")).collect()
}

/// Pushes from `dir`, a clone of `url`, whose commits are made by git.
fn push(trial: &Trial<'_>, url: &str, dir: &Path) {
    let git = &trial.git;
    let mut wanted = on_server(trial, url);
    let rev = |name: &str| git.ok(dir, &["rev-parse", name]);
    let named = |short: &str| match short.strip_prefix("tags/") {
        Some(_) => format!("refs/{short}"),
        None => format!("refs/heads/{short}"),
    };
    let specs = |pairs: &[(&str, &str)]| -> Vec<String> {
        let full = |short: &str| if short.is_empty() { String::new() } else { named(short) };
        let spec = |&(from, to): &(&str, &str)| match from.strip_prefix('+') {
            Some(from) => format!("+{}:{}", full(from), full(to)),
            None => format!("{}:{}", full(from), full(to)),
        };
        pairs.iter().map(spec).collect()
    };
    let arguments = |pairs: &[(&str, &str)]| [vec!["push".to_owned(), text(dir).to_owned()], specs(pairs)].concat();
    let ok = |pairs: &[(&str, &str)], wanted: &mut BTreeMap<String, String>| {
        trial.ok(&arguments(pairs).iter().map(String::as_str).collect::<Vec<_>>());
        for (from, to) in pairs {
            match from.trim_start_matches('+') {
                "" => wanted.remove(&named(to)),
                from => wanted.insert(named(to), rev(&named(from))),
            };
        }
        assert_eq!(*wanted, on_server(trial, url), "{:?}, push {pairs:?}", trial.client);
    };
    let refused = |pairs: &[(&str, &str)]| {
        let arguments = arguments(pairs);
        trial.refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };

    git.ok(dir, &["checkout", "-q", "-B", "main", "origin/main"]);
    git.ok(dir, &["checkout", "-q", "-b", "topic"]);
    git.commit(dir, "topic/\u{2603}", b"topic\n", "topic");
    git.ok(dir, &["tag", "-a", "-m", "pushed", "pushed"]);
    git.ok(dir, &["branch", "other", "HEAD~2"]);
    ok(&[("topic", "topic"), ("other", "other"), ("tags/pushed", "tags/pushed")], &mut wanted);

    // On top of what is there, with more than a client sends at once.
    git.commit(dir, "large", &noise(2, 2 << 20), "large");
    ok(&[("topic", "topic")], &mut wanted);

    // Beside what is there.
    git.ok(dir, &["reset", "-q", "--hard", "HEAD~1"]);
    git.commit(dir, "instead", b"instead\n", "instead");
    refused(&[("topic", "topic")]);
    assert_eq!(wanted, on_server(trial, url), "{:?}, push without force", trial.client);
    ok(&[("+topic", "topic")], &mut wanted);

    // By the server's own word, and only the one of both.
    let said = refused(&[("other", "another"), ("", "main")]);
    assert!(said.contains("deletion of the current branch prohibited"), "{:?}: {said}", trial.client);
    wanted.insert(named("another"), rev("other"));
    assert_eq!(wanted, on_server(trial, url), "{:?}, push of which a part is refused", trial.client);

    ok(&[("", "another"), ("", "tags/pushed")], &mut wanted);

    // What came that way is whole.
    let copy = trial.place.path("pushed");
    git.clone_repo(url, &copy, &["--mirror"]);
    assert_eq!(git.findings(&copy), (Some(0), Vec::new()), "{:?}", trial.client);
}

/// HTTPS and SSH, as far as the client speaks them.
fn elsewhere(trial: &mut Trial<'_>, place: &Place) {
    let authority = Authority::new(place);
    authority.fresh();
    let keys = place.path("home/.ssh");
    let key = keys.join("id_ed25519");
    std::fs::create_dir(&keys).expect("a folder");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o700)).expect("a folder of one's own");
    let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", text(&key)];
    let made = Command::new("ssh-keygen").args(arguments).output();
    let made = made.expect("OpenSSH's client is installed (scripts/prerequisites --tests)");
    assert!(made.status.success(), "{}", said(&made));
    let public = key.with_extension("pub");
    // The data folder is for the host's key alone.
    let launch = Launch::bare().with(&["--listen", "127.0.0.1:0", "--backend", "memory", "--create-on-push"]);
    let launch = launch.with(&["--data", text(&place.path("memory")), "--ssh-listen", "127.0.0.1:0"]);
    let server = authority.secure(launch.with(&["--ssh-authorized-keys", text(&public)])).start();
    let known = keys.join("known_hosts");
    let port = ssh_address(&server).port().to_string();
    let host =
        Command::new("ssh-keyscan").args(["-p", &port, "127.0.0.1"]).output().expect("OpenSSH's client is installed");
    std::fs::write(&known, host.stdout).expect("a file");
    // Where OpenSSH's client looks is not the HOME that the others go by.
    let ssh = format!(
        "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o UserKnownHostsFile={}",
        key.display(),
        known.display()
    );
    trial.set("core.sshCommand", &ssh);
    trial.set("http.sslCAInfo", authority.ca());
    trial.ca = Some(authority.ca().into());

    if trial.client.speaks_https() {
        let url = format!("https://{}/https.git", server.address());
        trial.publish(&url);
        let clones = trial.cloned(&url, "https", None);
        push_one(trial, &url, &clones[1], "pushed");
    }
    if trial.client.speaks_ssh() {
        let url = ssh_url(&server);
        trial.publish(&url);
        let clones = trial.cloned(&url, "ssh", None);
        trial.git.commit(&trial.source, "later", b"later\n", "later");
        trial.publish(&url);
        fetch(trial, &clones, "fetch over SSH");
        if trial.client.pushes() {
            push_one(trial, &url, &clones[1], "pushed");
        }
    }
}

fn ssh_url(server: &Server) -> String {
    format!("ssh://git@{}/ssh.git", ssh_address(server))
}

/// Pushes one new branch.
fn push_one(trial: &Trial<'_>, url: &str, dir: &Path, branch: &str) {
    trial.git.ok(dir, &["checkout", "-q", "-b", branch]);
    let tip = trial.git.commit(dir, "pushed", &noise(3, 100_000), "pushed");
    let name = format!("refs/heads/{branch}");
    trial.ok(&["push", text(dir), &format!("{name}:{name}")]);
    assert_eq!(on_server(trial, url).get(&name), Some(&tip), "{:?}, push to {url}", trial.client);
}

#[test]
fn git_does_it_all() {
    check(Client::Git);
}

#[test]
fn a_newer_git_does_it_all() {
    let version = Command::new(newer_git()).arg("version").output().expect("it is installed");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let minor =
        version.trim().strip_prefix("git version 2.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    assert!(minor.is_some_and(|minor| minor >= 47), "{version}");
    check(Client::NewerGit);
}

#[test]
fn libgit2_does_it_all() {
    check(Client::Pygit2);
}

#[test]
fn dulwich_does_it_all() {
    check(Client::Dulwich);
}

#[test]
fn jgit_does_it_all() {
    check(Client::Jgit);
}

#[test]
fn isomorphic_git_does_it_all_but_ssh() {
    check(Client::IsomorphicGit);
}

#[test]
fn gix_clones_and_fetches() {
    check(Client::Gix);
}
