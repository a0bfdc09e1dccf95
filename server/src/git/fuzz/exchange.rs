//! Whole exchanges on repositories in memory, of both object formats: pushes into one that begins anew each time, fetches from
//! one with neighbours.
//!
//! Nobody may get what other repositories have, what only a hidden reference leads to, or what nothing leads to: all of that,
//! its names too, has the word `SECRET` in it.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use govc_backends::{Location, MemoryBackend};
use govc_engine::backend::{Backend as _, Family, Scan};
use govc_engine::{
    Cause, Expected, Fsck, GitRules, Kind, ObjectFormat, Oid, RefEdit, RefName, Repo, RepoName, RepoSettings, Silent,
    Store, StoreOptions, Transaction,
};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::{LIMITS, REFERENCES_MAX, sealed};
use crate::App;
use crate::config::Config;
use crate::git::advertise::{Service, Version};
use crate::git::bridge::{self, Flow, STALL_MAX};
use crate::git::duplex::{self, Call, Inlet, Outlet};
use crate::git::pack::{self, spool::Spool};
use crate::git::pkt::{Line, Reader};
use crate::git::receive_pack::{self, Incoming, Target};
use crate::git::upload_pack;

/// The first byte of a push: the connection goes on after the pack, the repository's rules are strict, the pack's checksum is
/// still to be put behind it.
const IS_LIVE: u8 = 1;
const IS_STRICT: u8 = 2;
const IS_UNSEALED: u8 = 4;

/// The first byte of a fetch: its form, and whether the client reads nothing after the advertisement.
const FORM: u8 = 7;
const IS_DEAF: u8 = 16;

/// In the first byte of either: the repository is of SHA-256.
const IS_SHA256: u8 = 8;

const MEMORY_BYTES: u64 = 64 << 20;

/// Answers `data` as a push: a byte that says how it comes, the commands, the pack. What is refused must leave nothing behind,
/// and what is taken must be sound.
pub fn fuzz_push(data: &[u8]) {
    let _ = push(data);
}

/// What the client is told, and whether anything was published.
pub(super) fn push(data: &[u8]) -> (Vec<u8>, bool) {
    static APP: OnceLock<Arc<App>> = OnceLock::new();
    let Some((&mode, body)) = data.split_first() else { return (Vec::new(), false) };
    let (format, mut body) = (format_of(mode), body.to_vec());
    if let Some(at) = body.windows(4).position(|word| word == b"PACK").filter(|_| mode & IS_UNSEALED != 0) {
        let pack = sealed(format, &body.split_off(at));
        body.extend(pack);
    }
    let backend = Arc::new(begun(format, mode & IS_STRICT != 0).fork().expect("it is open"));
    let store = Store::open(backend.clone(), store_options()).expect("it was sound");
    let repo = store.repo(&name()).expect("it was made");
    let (version, before) = (repo.snapshot().version().number, rows(&backend));
    let hidden = |repo: &Repo| repo.snapshot().reference(&reference("refs/internal/SECRET"));
    let was_hidden = hidden(&repo);

    let is_live = mode & IS_LIVE != 0;
    let target = Target { repo: repo.clone(), is_draft: false, actor: "fuzz".into(), is_live, nonce: None };
    let mut answer = Vec::new();
    let incoming = Incoming { input: &mut &body[..], came: SystemTime::now(), begun: Ok(Spool::new(None)) };
    let _ = receive_pack::serve(APP.get_or_init(app), &target, incoming, &mut answer, &Flow::default());

    let is_published = repo.snapshot().version().number != version;
    let told = |words: &[u8]| contains(&answer, words);
    assert!(!is_published || !told(b"unpack ") || told(b"ok refs/"), "nothing was reported as done");
    if is_published {
        let found = Fsck::run(Arc::new(backend.fork().expect("it is open")), store_options(), &Silent);
        let found = found.expect("memory does not fail");
        assert!(found.is_clean(), "{:?}", found.findings);
    } else {
        assert_eq!(rows(&backend), before, "what is refused leaves nothing behind");
    }
    assert!(mode & IS_STRICT == 0 || hidden(&repo) == was_hidden, "hidden references are not pushed to");
    (answer, is_published)
}

/// Answers `data` as a fetch: a byte that says in which form, one that says in pieces of how many bytes it comes where that
/// may matter, the requests. Nothing secret may be told.
pub fn fuzz_fetch(data: &[u8]) {
    let _ = fetch(data);
}

/// What the client is told.
pub(super) fn fetch(data: &[u8]) -> Vec<u8> {
    static SERVED: [OnceLock<Served>; 2] = [OnceLock::new(), OnceLock::new()];
    let Some((&[mode, piece], body)) = data.split_first_chunk() else { return Vec::new() };
    let format = format_of(mode);
    let served = SERVED[format as usize].get_or_init(|| Served::new(format));
    let heard = Heard { bytes: Mutex::default(), is_deaf: mode & IS_DEAF != 0 };
    let answer = match mode & FORM {
        0 => served.answer(Version::V0, body),
        1 => served.answer(Version::V1, body),
        2 => served.answer(Version::V2, body),
        3 => served.converse(Version::V0, body, piece, heard),
        _ => served.converse(Version::V2, body, piece, heard),
    };
    served.assert_secrets_kept(body, &answer);
    answer
}

fn format_of(mode: u8) -> ObjectFormat {
    if mode & IS_SHA256 == 0 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 }
}

/// A repository, a fork of it and another one.
struct Served {
    app: Arc<App>,
    repo: Repo,
    runtime: Runtime,
    /// Ids of what is secret, in hexadecimal digits.
    secrets: Vec<String>,
}

impl Served {
    fn new(object_format: ObjectFormat) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        let app = app();
        let git = GitRules { hidden_refs: vec!["refs/hidden".to_owned()], ..GitRules::default() };
        let settings = RepoSettings { object_format, ..RepoSettings::default() };
        let repo = app.store.create(&name(), RepoSettings { git, ..settings.clone() }, "fuzz").expect("a new name");
        let mut secrets = Vec::new();
        let mut begin = repo.begin("fuzz", Cause::Push);
        let [one, two, tag] = history(&mut begin);
        let [commit, ..] = secret(&mut begin, Some(two), "hidden", &mut secrets);
        secret(&mut begin, Some(two), "loose", &mut secrets);
        let references = [("heads/main", two), ("heads/old", one), ("tags/tag", tag), ("hidden/SECRET", commit)];
        publish(begin, &references);
        let neighbours = ["fork", "other"].map(|name| RepoName::new(name).expect("a valid name"));
        let fork = app.store.fork(&name(), &neighbours[0], "fuzz").expect("a new name");
        let other = app.store.create(&neighbours[1], settings, "fuzz").expect("a new name");
        for (neighbour, parent, what) in [(fork, Some(two), "fork"), (other, None, "other")] {
            let mut begin = neighbour.begin("fuzz", Cause::Push);
            let [commit, ..] = secret(&mut begin, parent, what, &mut secrets);
            publish(begin, &[("heads/SECRET", commit)]);
        }
        Self { app, repo, runtime, secrets }
    }

    /// As over HTTP.
    fn answer(&self, version: Version, body: &[u8]) -> Vec<u8> {
        let (repo, body, flow) = (self.repo.clone(), body.to_vec(), Arc::new(Flow::default()));
        let work_flow = Arc::clone(&flow);
        self.runtime.block_on(async {
            let mut response = bridge::start(&self.app, STALL_MAX, flow, move |app, out| {
                upload_pack::serve(app, &repo, version, &mut &body[..], out, &work_flow)
            });
            let mut answer = Vec::new();
            while let Some(Ok(chunk)) = response.next().await {
                answer.extend_from_slice(&chunk);
            }
            answer
        })
    }

    /// As over SSH.
    fn converse(&self, version: Version, body: &[u8], piece: u8, heard: Heard) -> Vec<u8> {
        let pieces = if piece == 0 { body.len().max(1) } else { usize::from(piece) };
        let (path, actor) = (name().to_string(), "fuzz".into());
        let call = Call { service: Service::UploadPack, path, version, actor, may_write: false };
        self.runtime.block_on(async {
            let (sender, input) = Inlet::new(self.app.config.server.body_timeout);
            let send = async move {
                for piece in body.chunks(pieces) {
                    if sender.send(Ok(Bytes::copy_from_slice(piece))).await.is_err() {
                        break;
                    }
                }
            };
            let _ = tokio::join!(duplex::converse(&self.app, &call, input, &heard), send);
        });
        heard.bytes.into_inner()
    }

    fn assert_secrets_kept(&self, request: &[u8], answer: &[u8]) {
        // What the client has said itself may be told back.
        let (asked, told) = (request.to_ascii_lowercase(), answer.to_ascii_lowercase());
        let words = self.secrets.iter().map(String::as_bytes).chain([&b"secret"[..]]);
        words.for_each(|word| assert!(!contains(&told, word) || contains(&asked, word), "something secret is told"));
        let mut reader = Reader::new(answer);
        let format = self.repo.object_format();
        let (mut banded, mut is_whole, mut any_bands) = (Vec::new(), true, false);
        loop {
            match reader.read() {
                Ok(Line::Data([1, content @ ..])) => banded.extend_from_slice(content),
                Ok(Line::Data([3, ..])) => is_whole = false,
                Ok(Line::Flush) => {
                    any_bands |= !banded.is_empty();
                    assert_pack_without_secrets(format, &banded, is_whole);
                    (banded, is_whole) = (Vec::new(), true);
                }
                Ok(Line::Data(_) | Line::Delimiter | Line::ResponseEnd) => {}
                Ok(Line::Eof) | Err(_) => break,
            }
        }
        assert_pack_without_secrets(format, &banded, false);
        if !any_bands {
            assert_pack_without_secrets(format, answer, false);
        }
    }
}

/// Looks into the pack that is in there, if there is one.
fn assert_pack_without_secrets(format: ObjectFormat, answer: &[u8], is_whole: bool) {
    let Some(at) = answer.windows(8).position(|word| word == b"PACK\0\0\0\x02") else { return };
    let read = pack::inflate(format, &mut &answer[at..], LIMITS, &mut |data| {
        assert!(!contains(data, b"SECRET"), "something secret is sent");
    });
    assert!(read.is_ok() || !is_whole, "the pack is broken: {read:?}");
}

/// What a client hears on a connection that stays, or has shut down its end of after the first that was sent.
struct Heard {
    bytes: Mutex<Vec<u8>>,
    is_deaf: bool,
}

impl Outlet for Heard {
    async fn send(&self, bytes: Bytes) -> io::Result<()> {
        let mut heard = self.bytes.lock();
        if self.is_deaf && !heard.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        heard.extend_from_slice(&bytes);
        Ok(())
    }
}

/// A server without repositories.
fn app() -> Arc<App> {
    let mut config = Config::default();
    config.storage.backend = Location::Memory;
    (config.storage.memory_bytes, config.git.pack_cache_memory_bytes) = (2 * MEMORY_BYTES, MEMORY_BYTES / 8);
    config.storage.object_bytes_max = LIMITS.object_bytes_max;
    config.limits.references_max = REFERENCES_MAX;
    (config.search.enabled, config.compaction.enabled) = (false, false);
    App::open(config).expect("memory")
}

fn store_options() -> StoreOptions {
    StoreOptions { memory_budget_bytes: MEMORY_BYTES, limits: LIMITS, ..StoreOptions::default() }
}

/// The moment in which a push begins, by strict rules or none.
fn begun(object_format: ObjectFormat, is_strict: bool) -> &'static MemoryBackend {
    static BEGUN: [[OnceLock<MemoryBackend>; 2]; 2] = [const { [const { OnceLock::new() }; 2] }; 2];
    BEGUN[object_format as usize][usize::from(is_strict)].get_or_init(|| {
        let backend = Arc::new(MemoryBackend::new());
        let store = Store::open(backend.clone(), store_options()).expect("an empty store opens");
        let git = GitRules {
            deny_non_fast_forwards: is_strict,
            deny_deletes: is_strict,
            object_bytes_max: is_strict.then_some(4096),
            hidden_refs: Vec::from_iter(is_strict.then(|| "refs/internal".to_owned())),
            ..GitRules::default()
        };
        let repo = store.create(&name(), RepoSettings { git, object_format, ..RepoSettings::default() }, "fuzz");
        let mut begin = repo.expect("a new name").begin("fuzz", Cause::Push);
        let [one, _, tag] = history(&mut begin);
        publish(begin, &[("heads/main", one), ("heads/old", one), ("tags/tag", tag), ("internal/SECRET", one)]);
        store.settle();
        backend.fork().expect("it is open")
    })
}

/// What a backend holds, but for the ceiling of segment numbers, which are never given twice.
fn rows(backend: &MemoryBackend) -> Vec<(Family, Bytes, Bytes)> {
    let of = |family: &Family| {
        let rows = backend.scan(*family, Scan::all()).expect("it is open");
        let rows = rows.map(|row| row.expect("memory does not fail"));
        rows.map(|(key, value)| (*family, key, value)).collect::<Vec<_>>()
    };
    Family::ALL.iter().flat_map(of).filter(|(_, key, _)| key != "next_segment").collect()
}

/// Two commits of a file, and a tag of the first: what `scripts/fuzz-seeds` makes with git.
fn history(begin: &mut Transaction) -> [Oid; 3] {
    let text: String = (0..60).map(|at| format!("line {at} of the file\n")).collect();
    let [one, ..] = commit(begin, None, "file", &text, "one");
    let [two, ..] = commit(begin, Some(one), "file", &text.replace("line 30", "another 30"), "two");
    let tag = format!("object {one}\ntype commit\ntag tag\ntagger {PERSON}\n\ntag\n");
    let tag = put(begin, Kind::Tag, tag.into_bytes());
    [one, two, tag]
}

/// A commit that must not become known, as `scripts/fuzz-seeds` makes it; its ids are added to `secrets`.
fn secret(begin: &mut Transaction, parent: Option<Oid>, what: &str, secrets: &mut Vec<String>) -> [Oid; 3] {
    let oids = commit(begin, parent, "SECRET", &format!("SECRET {what}\n"), &format!("SECRET {what}"));
    secrets.extend(oids.map(|oid| oid.to_string()));
    oids
}

/// A commit of one file; its id, the tree's and the file's.
fn commit(begin: &mut Transaction, parent: Option<Oid>, name: &str, text: &str, message: &str) -> [Oid; 3] {
    let blob = put(begin, Kind::Blob, text.to_owned().into_bytes());
    let tree = put(begin, Kind::Tree, [format!("100644 {name}\0").as_bytes(), blob.as_bytes()].concat());
    let parent = parent.map_or(String::new(), |parent| format!("parent {parent}\n"));
    let commit = format!("tree {tree}\n{parent}author {PERSON}\ncommitter {PERSON}\n\n{message}\n");
    [put(begin, Kind::Commit, commit.into_bytes()), tree, blob]
}

const PERSON: &str = "a <a@b> 1700000000 +0000";

fn put(begin: &mut Transaction, kind: Kind, data: Vec<u8>) -> Oid {
    begin.put(kind, data.into()).expect("a sound object")
}

/// Publishes a transaction with these references, all new.
fn publish(mut transaction: Transaction, references: &[(&str, Oid)]) {
    for (name, target) in references {
        let name = reference(&format!("refs/{name}"));
        let edit = RefEdit { name, expected: Expected::Absent, target: Some(*target) };
        transaction.edit(edit).expect("a new reference");
    }
    let published = transaction.prepare().and_then(|prepared| prepared.publish()).expect("nobody else is here");
    published.ticket.wait().expect("memory does not fail");
}

fn name() -> RepoName {
    RepoName::new("repo").expect("a valid name")
}

fn reference(name: &str) -> RefName {
    RefName::new(name).expect("a valid name")
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window == word)
}
