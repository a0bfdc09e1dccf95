//! Conversations with clients that take their time, end early or send a lot.
//!
//! A client here waits for ten times as long as it may in the middle of something, or has no end of time for all but what is
//! tested; so what a test shows does not depend on how fast it runs.

use std::time::Duration;

use govc_backends::Location;
use govc_engine::SignedPush;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Config;
use crate::git::inlet::Waits;
use crate::git::route::COMMANDS_BYTES_MAX;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(10);

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const ZERO: &str = "0000000000000000000000000000000000000000";

/// The client's end.
struct Client {
    sender: mpsc::Sender<io::Result<Bytes>>,
    answers: mpsc::UnboundedReceiver<Bytes>,
    conversation: JoinHandle<Result<(), Trouble>>,
    advertised: String,
}

struct Out(mpsc::UnboundedSender<Bytes>);

impl Outlet for Out {
    async fn send(&self, bytes: Bytes) -> io::Result<()> {
        self.0.send(bytes).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Client {
    /// Calls a service of the repository `repo`, and reads the advertisement.
    async fn call(app: &Arc<App>, service: Service, version: Version, waits: Waits) -> Self {
        let (sender, mut input) = Inlet::new(LONG);
        input.waits = waits;
        let (out, answers) = mpsc::unbounded_channel();
        let app = Arc::clone(app);
        let call = Call { service, path: "repo".to_owned(), version, actor: "ada".into(), may_write: true };
        let conversation = tokio::spawn(async move { converse(&app, &call, input, &Out(out)).await });
        let mut client = Self { sender, answers, conversation, advertised: String::new() };
        client.advertised = client.answer().await;
        client
    }

    async fn send(&self, text: impl Into<Bytes>) {
        self.sender.send(Ok(text.into())).await.expect("the server reads");
    }

    async fn answer(&mut self) -> String {
        String::from_utf8_lossy(&self.answers.recv().await.expect("an answer")).into_owned()
    }

    /// What the server still says, and how it ends; it is the first to leave.
    async fn end(mut self) -> (Result<(), Trouble>, String) {
        let mut said = String::new();
        while let Some(bytes) = self.answers.recv().await {
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
        (self.conversation.await.expect("no panic"), said)
    }
}

/// A server in memory with the repository `repo`.
async fn app(set: impl FnOnce(&mut Config) + Send + 'static) -> Arc<App> {
    let opening = tokio::task::spawn_blocking(move || {
        let mut config = Config::default();
        config.storage.backend = Location::Memory;
        config.search.enabled = false;
        config.compaction.enabled = false;
        set(&mut config);
        let app = App::open(config).expect("memory");
        app.store
            .create(&RepoName::new("repo").expect("a name"), govc_engine::RepoSettings::default(), "test")
            .expect("a repository");
        app
    });
    opening.await.expect("no panic")
}

/// Lines with a flush.
fn lines(lines: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        pkt::data(&mut out, line.as_bytes()).expect("short enough");
    }
    out.extend_from_slice(b"0000");
    out
}

/// Commands that create `count` references.
fn creations(count: usize) -> Vec<u8> {
    let features = |n| if n == 0 { "\0report-status" } else { "" };
    lines(&(0..count).map(|n| format!("{ZERO} {A} refs/heads/branch-{n:06}{}", features(n))).collect::<Vec<_>>())
}

fn list_references() -> Vec<u8> {
    lines(&["command=ls-refs\n".to_owned()])
}

async fn think() {
    tokio::time::sleep(10 * SHORT).await;
}

#[tokio::test]
async fn bundles_are_offered_where_it_is_known_how_to_get_them() {
    for (public_url, expected) in
        [(None, "invalid command 'bundle-uri'"), (Some("https://git.example.org"), "bundle.version=1")]
    {
        let app = app(move |config| {
            config.server.public_url = public_url.map(str::to_owned);
            (config.git.bundle_uris, config.git.packfile_uris) = (true, true);
        });
        let waits = Waits { begin: LONG, stall: LONG };
        let mut client = Client::call(&app.await, Service::UploadPack, Version::V2, waits).await;
        assert_eq!(client.advertised.contains("bundle-uri\n"), public_url.is_some(), "{}", client.advertised);
        assert!(!client.advertised.contains("packfile-uris"), "who comes by a key may have no other way");
        client.send(lines(&["command=bundle-uri\n".to_owned()])).await;
        let said = client.answer().await;
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn an_error_ends_the_conversation() {
    let app = app(|_| {}).await;
    let commands = |command: &str| lines(&[format!("command={command}\n")]).repeat(3);
    for (sent, reason) in [
        (b"zzzz".repeat(1000), "bad line length 'zzzz'"),
        (commands("nothing"), "invalid command 'nothing'"),
        (lines(&["command=ls-refs\n".to_owned(), "command=fetch\n".to_owned()]).repeat(3), "after another command"),
    ] {
        let client = Client::call(&app, Service::UploadPack, Version::V2, Waits { begin: LONG, stall: LONG }).await;
        client.send(sent).await;
        let (ended, said) = client.end().await;
        assert!(ended.is_ok() && said.contains(reason), "{ended:?}: {said}");
        assert_eq!(said.matches("ERR ").count(), 1, "{said}");
    }
}

#[tokio::test]
async fn before_it_begins_something_a_client_may_take_long() {
    let app = app(|_| {}).await;
    let waits = Waits { begin: LONG, stall: SHORT };

    // Its hooks run, and then it makes its pack.
    let client = Client::call(&app, Service::ReceivePack, Version::V0, waits).await;
    think().await;
    client.send(creations(1)).await;
    think().await;
    assert_eq!(app.work.stats().running, 0, "no thread waits with it");
    client.send(&b"PACK, and nothing of the kind"[..]).await;
    let (ended, said) = client.end().await;
    assert!(ended.is_ok() && said.contains("unpack "), "{ended:?}: {said}");

    let mut client = Client::call(&app, Service::UploadPack, Version::V2, waits).await;
    for _ in 0..2 {
        think().await;
        client.send(list_references()).await;
        assert!(client.answer().await.ends_with("0000"));
    }
    think().await;
    client.send(&b"0000"[..]).await;
    assert!(client.end().await.0.is_ok());

    let client = Client::call(&app, Service::UploadPack, Version::V0, waits).await;
    think().await;
    client.send(&b"0000"[..]).await;
    assert!(client.end().await.0.is_ok());
}

#[tokio::test]
async fn a_push_may_have_more_commands_than_are_held() {
    const REFERENCES: usize = 70_000;
    let app = app(|_| {}).await;
    let mut client = Client::call(&app, Service::ReceivePack, Version::V0, Waits { begin: LONG, stall: LONG }).await;
    let features = |n| if n == 0 { "\0report-status" } else { "" };
    let command = |n| format!("{ZERO} {A} refs/heads/{n:0900}{}", features(n));
    let commands = lines(&(0..REFERENCES).map(command).collect::<Vec<_>>());
    assert!(commands.len() as u64 > COMMANDS_BYTES_MAX);
    for piece in commands.chunks(1 << 20) {
        client.send(piece.to_vec()).await;
    }
    client.send(&b"PACK, and nothing of the kind"[..]).await;
    // What the server does not read is drained to its end.
    client.sender = mpsc::channel(1).0;
    let (ended, said) = client.end().await;
    assert!(ended.is_ok() && said.contains("unpack pack: "), "{ended:?}: {said:.300}");
    assert_eq!(said.matches("ng refs/heads/").count(), REFERENCES);
}

#[tokio::test]
async fn a_certificate_has_the_nonce_of_its_own_connection() {
    let app = app(|_| {}).await;
    let store = app.store.clone();
    let require = move || {
        let name = RepoName::new("repo").expect("a name");
        let mut settings = store.repo(&name).expect("the repository").settings();
        settings.git.require_signed_push = SignedPush::Recorded;
        store.alter(&name, None, Some(settings)).expect("a rule");
    };
    tokio::task::spawn_blocking(require).await.expect("no panic");
    let waits = Waits { begin: LONG, stall: LONG };
    let nonce_of = |client: &Client| {
        let (_, rest) = client.advertised.split_once(" push-cert=").expect("certificates are offered");
        rest.split(' ').next().expect("a nonce").to_owned()
    };
    let first = Client::call(&app, Service::ReceivePack, Version::V0, waits).await;
    think().await;
    let second = Client::call(&app, Service::ReceivePack, Version::V0, waits).await;
    let nonce = nonce_of(&first);
    assert_ne!(nonce, nonce_of(&second));
    for (client, said_of_it) in [(first, "ok refs/heads/x"), (second, "was not made for this push")] {
        let text = format!(
            "certificate version 0.1\npusher a\nnonce {nonce}\n\n{ZERO} {ZERO} refs/heads/x\n-----BEGIN PGP SIGNATURE-----\n"
        );
        let certificate = text.split_inclusive('\n').map(str::to_owned);
        let begin = ["push-cert\0report-status".to_owned()].into_iter();
        let all: Vec<String> = begin.chain(certificate).chain(["push-cert-end\n".to_owned()]).collect();
        client.send(lines(&all)).await;
        let (ended, said) = client.end().await;
        assert!(ended.is_ok() && said.contains(said_of_it), "{ended:?}: {said}");
    }
}

#[tokio::test]
async fn a_push_of_many_references_may_make_its_pack_as_long() {
    let app = app(|_| {}).await;
    let client = Client::call(&app, Service::ReceivePack, Version::V0, Waits { begin: LONG, stall: SHORT }).await;
    // Some 200 KiB, of which both halves are there before the server looks.
    let commands = creations(1 << 11);
    let (head, rest) = commands.split_at(commands.len() / 2);
    client.send(head.to_vec()).await;
    client.send(rest.to_vec()).await;
    think().await;
    assert!(!client.conversation.is_finished(), "it waits for the pack");
    client.send(&b"PACK, and nothing of the kind"[..]).await;
    let (ended, said) = client.end().await;
    assert!(ended.is_ok() && said.contains("refs/heads/branch-002047"), "{ended:?}");
}

#[tokio::test]
async fn commands_that_find_no_memory_are_refused() {
    let app = app(|config| config.server.buffered_bytes_max = 1 << 20).await;
    // Others have all of it.
    let _held = app.bodies.hold(1 << 20).await.expect("free");
    let client = Client::call(&app, Service::ReceivePack, Version::V0, Waits { begin: LONG, stall: LONG }).await;
    let commands = creations(1 << 12);
    let (head, rest) = commands.split_at(commands.len() / 2);
    client.send(head.to_vec()).await;
    client.send(rest.to_vec()).await;
    let (ended, _) = client.end().await;
    assert!(matches!(&ended, Err(Trouble::Failed(text)) if text.contains("memory")), "{ended:?}");
}

#[tokio::test]
async fn silence_comes_to_an_end() {
    let app = app(|_| {}).await;
    let gone = |client: Client| async move {
        let (ended, _) = client.end().await;
        assert!(matches!(ended, Err(Trouble::Gone(_))), "{ended:?}");
    };
    let impatient = Waits { begin: SHORT, stall: LONG };
    for (service, version) in
        [(Service::ReceivePack, Version::V0), (Service::UploadPack, Version::V0), (Service::UploadPack, Version::V2)]
    {
        gone(Client::call(&app, service, version, impatient).await).await;
        // In the middle of its first line.
        let client = Client::call(&app, service, version, Waits { begin: LONG, stall: SHORT }).await;
        client.send(&b"00"[..]).await;
        gone(client).await;
    }
    let client = Client::call(&app, Service::ReceivePack, Version::V0, impatient).await;
    // Gone already, where this machine is slow.
    let _ = client.sender.send(Ok(creations(1).into())).await;
    gone(client).await;
    // When the server stops, nobody waits for hooks.
    app.drain();
    gone(Client::call(&app, Service::ReceivePack, Version::V0, Waits { begin: LONG, stall: SHORT }).await).await;
}

#[tokio::test]
async fn what_is_sent_to_a_push_that_finds_no_thread_is_taken_to_its_end() {
    let app = app(|config| {
        config.server.work_threads = 1;
        config.server.work_timeout = SHORT;
    })
    .await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let busy = Arc::clone(&app);
    let other = tokio::spawn(async move {
        let work = move || {
            let _ = begun.send(());
            let _ = released.recv();
        };
        busy.work.run(work).await
    });
    begins.await.expect("the only thread");
    let client = Client::call(&app, Service::ReceivePack, Version::V0, Waits { begin: LONG, stall: LONG }).await;
    client.send(creations(1)).await;
    client.send(&b"PACK"[..]).await;
    // Far more than the queue holds, also after the refusal.
    for _ in 0..100 {
        think_shortly().await;
        client.send(&b"more of it"[..]).await;
    }
    assert!(!client.conversation.is_finished(), "it listens to the end");
    drop(release);
    other.await.expect("no panic").expect("an end");
    let Client { sender, conversation, .. } = client;
    drop(sender);
    let ended = conversation.await.expect("no panic");
    assert!(matches!(ended, Err(Trouble::Failed(_))), "{ended:?}");
}

async fn think_shortly() {
    tokio::time::sleep(SHORT / 10).await;
}
