//! Packs made to harm: each is refused with a reason, leaves nothing, and costs bounded memory.
//!
//! Every pack also carries a sound commit as the tip, so that a server which took what it understood would be seen.

use govc_engine::{Kind, Oid};
use serde_json::json;

use crate::{
    git::Git,
    pack::{Pack, REF_DELTA, commit_of, copy, deflate, deflate_zeros, delta, insert, push_new, tree_entry},
    refused::assert_gone,
    server::{Left, Place, Server},
    tested,
};

/// What no hostile pack may make the server hold; the largest of them claims a thousand times as much.
const PEAK_BYTES_MAX: u64 = 1 << 30;

/// What all packs of a test may take of the processor; they take a tenth of it.
const CPU_SECONDS_MAX: u64 = 30;

/// More than a push holds back until it has all been seen.
const STORED_BYTES: usize = (1 << 20) + 1;

/// A server with an ordinary `repo`, what `git ls-remote` says of it, and what is in its data folder.
struct Target {
    // Before the folder, so that the process ends before its data are removed.
    server: Server,
    place: Place,
    git: Git,
    before: String,
    left: Left,
    /// What each pack begins with.
    beginning: Pack,
    tried: usize,
}

/// Runs a test with packs that are in memory until they have been checked, and with such as are being stored by then.
fn with_small_and_large_packs(test: impl Fn(&mut Target)) {
    let mut large = Pack::new();
    large.object(Kind::Blob, &vec![b'f'; STORED_BYTES]);
    for beginning in [Pack::new(), large] {
        let mut target = Target::new(beginning);
        test(&mut target);
        target.unharmed();
    }
}

impl Target {
    fn new(beginning: Pack) -> Self {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let server = place.serve();
        server.create("repo");
        let mut built = Pack::new();
        let head = built.commit("ordinary");
        let report = push_new(&server.http(), "repo", "refs/heads/main", head, &built.finish());
        assert!(report.accepted(), "{report:?}");
        let (server, left) = server.restarted(&place);
        let before = git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]);
        Self { server, place, git, before, left, beginning, tried: 0 }
    }

    /// A pack with a sound commit of its own, to be spoiled.
    fn spoiled(&mut self) -> (Pack, Oid) {
        self.tried += 1;
        let mut built = self.beginning.clone();
        let tip = built.commit(&format!("tip of pack {}", self.tried));
        (built, tip)
    }

    /// Sends `pack`, which must be refused for this reason and leave nothing.
    #[track_caller]
    fn refuses(&mut self, what: &str, reason: &str, tip: Oid, pack: &[u8]) {
        let report = push_new(&self.server.http(), "repo", "refs/heads/hostile", tip, pack);
        assert!(!report.accepted(), "{what} was accepted");
        assert!(report.unpack.contains(reason), "{what}: {report:?} does not say {reason:?}");
        assert_eq!(report.references.len(), 1, "{what}: {report:?}");
        assert!(report.references[0].1.is_err(), "{what}: {report:?}");
        assert!(self.server.alive(), "{what} ended the server");
        let now = self.git.ok(&self.place.path("home"), &["ls-remote", &self.server.url("repo")]);
        assert_eq!(now, self.before, "{what} changed a reference");
        assert_gone(&self.server, tip);
    }

    /// Asserts what must hold after everything was tried.
    fn unharmed(self) {
        let (peak, cpu) = (self.server.peak_bytes(), self.server.cpu_seconds());
        assert!(peak < PEAK_BYTES_MAX, "the server took {peak} bytes");
        assert!(cpu < CPU_SECONDS_MAX, "the server took {cpu} seconds of the processor");
        let (server, left) = self.server.restarted(&self.place);
        assert_eq!(left, self.left, "something stayed of what was refused");
        let mut built = Pack::new();
        let tip = built.commit("afterwards");
        let report = push_new(&server.http(), "repo", "refs/heads/afterwards", tip, &built.finish());
        assert!(report.accepted(), "{report:?}");
        let copy = self.place.path("copy.git");
        self.git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
        assert_eq!(self.git.objects(&copy).len(), 6, "two commits, two trees, two blobs");
        self.git.ok(&copy, &["fsck", "--strict"]);
    }
}

/// What is wrong around the entries of a pack: in words, the reason that is given, and the bytes.
pub(crate) fn broken_frames(built: &Pack) -> Vec<(String, &'static str, Vec<u8>)> {
    let (whole, count) = (built.finish(), built.count());
    let mut frames = vec![
        ("a push without its pack".to_owned(), "pack: it ends in its header", Vec::new()),
        (
            "bytes after the trailer".to_owned(),
            "pack: there are bytes after its end",
            [&whole[..], b"and more"].concat(),
        ),
        ("two packs".to_owned(), "pack: there are bytes after its end", [&whole[..], &whole].concat()),
        ("no pack at all".to_owned(), "pack: it does not begin with PACK", b"LUNCH, packed, and long".to_vec()),
        ("version 4".to_owned(), "pack: version 4 is not supported", built.finish_as(4, count)),
        ("version 0".to_owned(), "pack: version 0 is not supported", built.finish_as(0, count)),
        ("2^32-1 objects claimed".to_owned(), "pack: it claims 4294967295 objects", built.finish_as(2, u32::MAX)),
        ("one object too many claimed".to_owned(), "pack", built.finish_as(2, count + 1)),
        ("one object too few claimed".to_owned(), "pack: its checksum", built.finish_as(2, count - 1)),
        ("no object claimed".to_owned(), "pack: its checksum", built.finish_as(2, 0)),
    ];
    for cut in [1, 4, 11, 12, 13, 40, whole.len() / 2, whole.len() - 20, whole.len() - 1] {
        let reason = if cut < 12 { "pack: it ends in its header" } else { "it ends early" };
        frames.push((format!("a pack cut after {cut} bytes"), reason, whole[..cut].to_vec()));
    }
    for (at, reason) in [
        (whole.len() - 1, "pack: its checksum"),
        (whole.len() - 20, "pack: its checksum"),
        (14, "pack entry at 12"),
        (30, "pack entry at 12"),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        frames.push((format!("a pack with a flipped bit in byte {at}"), reason, bytes));
    }
    frames
}

#[test]
fn broken_frames_are_refused() {
    with_small_and_large_packs(|target| {
        let (built, tip) = target.spoiled();
        for (what, reason, pack) in broken_frames(&built) {
            target.refuses(&what, reason, tip, &pack);
        }
    });
}

#[test]
fn broken_entries_are_refused() {
    with_small_and_large_packs(|target| {
        for number in [0, 5] {
            let (mut built, tip) = target.spoiled();
            built.entry(number, 3, &[], &deflate(b"abc"));
            target.refuses(&format!("type {number}"), &format!("unknown object type {number}"), tip, &built.finish());
        }
        let (mut built, tip) = target.spoiled();
        built.entry(3, 3, &[], b"\xff\xff this is no zlib stream");
        target.refuses("an entry that is no zlib stream", "zlib stream is damaged", tip, &built.finish());

        let (mut built, tip) = target.spoiled();
        let mut stream = deflate(b"checked by adler32");
        let last = stream.len() - 1;
        stream[last] ^= 1;
        built.entry(3, 18, &[], &stream);
        target.refuses("a zlib stream with a wrong checksum", "zlib stream is damaged", tip, &built.finish());

        let (mut built, tip) = target.spoiled();
        let stream = deflate(b"half of this is missing");
        built.entry(3, 23, &[], &stream[..stream.len() / 2]);
        target.refuses("half a zlib stream", "pack entry", tip, &built.finish());

        // A size in more than 64 bits.
        let (built, tip) = target.spoiled();
        let mut bytes = built.finish_as(2, built.count() + 1);
        bytes.truncate(bytes.len() - tested::format().len());
        bytes.extend_from_slice(&[0xbf; 1]);
        bytes.extend_from_slice(&[0xff; 12]);
        bytes.extend_from_slice(&[0x7f; 21]);
        target.refuses("a size of more than 64 bits", "size of an object is too long", tip, &bytes);
    });
}

#[test]
fn bombs_are_refused_in_bounded_memory() {
    with_small_and_large_packs(|target| {
        let sizes = [
            ("ten bytes declared, 256 MiB sent", 10, 256 << 20, "more than the 10 bytes"),
            ("1 GiB declared, ten bytes sent", 1 << 30, 10, "the limit is 134217728"),
            ("1 GiB declared and sent", 1 << 30, 1 << 30, "the limit is 134217728"),
            ("2^62 bytes declared, ten sent", 1 << 62, 10, "size of an object is too long"),
        ];
        for (what, declared, sent, reason) in sizes {
            let (mut built, tip) = target.spoiled();
            built.entry(3, declared, &[], &deflate_zeros(sent));
            target.refuses(what, reason, tip, &built.finish());
        }

        let (mut built, tip) = target.spoiled();
        let base = built.object(Kind::Blob, &[7; 1000]);
        built.ref_delta(base, &delta(1000, 1 << 40, &copy(0, 1000)));
        target.refuses("a delta that declares 1 TiB", "delta makes an object of", tip, &built.finish());

        // Each step copies its base 200 times: ten steps would be 10^26 bytes.
        let (mut built, tip) = target.spoiled();
        let mut size = 1000u64;
        let mut before = built.next_offset();
        built.object(Kind::Blob, &[9; 1000]);
        for _ in 0..10 {
            let here = built.next_offset();
            let instructions: Vec<u8> =
                (0..200).flat_map(|_| copy(0, u32::try_from(size.min(0xff_ffff)).expect("24 bits"))).collect();
            let result = size.min(0xff_ffff) * 200;
            built.ofs_delta(here - before, &delta(size, result, &instructions));
            size = result;
            before = here;
        }
        target.refuses("a chain of deltas that multiply", "delta makes an object of", tip, &built.finish());

        // One entry a byte: many small objects of one large base, each 100 MB when whole.
        let (mut built, tip) = target.spoiled();
        built.entry(3, 120 << 20, &[], &deflate_zeros(120 << 20));
        let base = hash_zeros(120 << 20);
        for _ in 0..40 {
            built.ref_delta(base, &delta(120 << 20, 1 << 40, &insert(b"x")));
        }
        target.refuses("forty lies about one large base", "delta makes an object of", tip, &built.finish());
    });
}

#[test]
fn broken_deltas_are_refused() {
    with_small_and_large_packs(|target| {
        let base_data = b"the base of a delta, fifty-one bytes long, no more\n";
        let size = base_data.len() as u64;
        let missing: Oid = tested::id_of("56").parse().expect("an id");

        let (mut built, tip) = target.spoiled();
        built.ref_delta(missing, &delta(size, 1, &insert(b"x")));
        target.refuses(
            "a base that nobody has",
            &format!("missing bases, among them on {missing}"),
            tip,
            &built.finish(),
        );

        // Deltas in a ring, each the next one's base.
        let (mut built, tip) = target.spoiled();
        let content = |at: usize| format!("{at:08}\n").into_bytes();
        for at in 0..1000 {
            let base = tested::hash(Kind::Blob, &content((at + 1) % 1000));
            built.ref_delta(base, &delta(9, 9, &insert(&content(at))));
        }
        target.refuses("a cycle of a thousand deltas", "1000 deltas have missing bases", tip, &built.finish());

        // Two deltas, each the other's base: both results are right, neither can be computed.
        let (mut built, tip) = target.spoiled();
        let (a, b) = (b"cycle: one".as_slice(), b"cycle: two".as_slice());
        let (oid_a, oid_b) = (tested::hash(Kind::Blob, a), tested::hash(Kind::Blob, b));
        built.ref_delta(oid_b, &delta(10, 10, &insert(a)));
        built.ref_delta(oid_a, &delta(10, 10, &insert(b)));
        target.refuses("a cycle of two deltas", "2 deltas have missing bases", tip, &built.finish());

        let (mut built, tip) = target.spoiled();
        built.ref_delta(oid_a, &delta(10, 10, &insert(a)));
        target.refuses("a delta against itself", "1 deltas have missing bases", tip, &built.finish());

        for (what, distance) in [("itself", 0), ("the header", u64::MAX), ("before the pack", 1 << 40), ("no entry", 3)]
        {
            let (mut built, tip) = target.spoiled();
            let distance = if distance == u64::MAX { built.next_offset() - 4 } else { distance };
            built.ofs_delta(distance, &delta(size, 1, &insert(b"x")));
            target.refuses(
                &format!("an offset delta against {what}"),
                "its base is no entry of the pack",
                tip,
                &built.finish(),
            );
        }

        let lies = [
            ("a copy past the end", "outside of its base", delta(size, 60, &copy(0, 60))),
            ("a copy that begins past the end", "outside of its base", delta(size, 10, &copy(1000, 10))),
            ("a copy at 2^32-1", "outside of its base", delta(size, 10, &copy(u32::MAX, 10))),
            ("a copy of 2^24-1 bytes", "outside of its base", delta(size, 0xff_ffff, &copy(0, 0xff_ffff))),
            ("a wrong base size", "delta is for a base of", delta(size + 1, 5, &copy(0, 5))),
            ("a result too short", "makes 5 bytes but announces 6", delta(size, 6, &copy(0, 5))),
            ("a result too long", "makes more than it announces", delta(size, 4, &copy(0, 5))),
            (
                "the reserved instruction",
                "reserved instruction 0",
                delta(size, 5, &[&[0u8][..], copy(0, 5).as_slice()].concat()),
            ),
            ("an insertion that is cut off", "inserts more than it carries", delta(size, 100, &[100, b'x'])),
            ("a copy that is cut off", "delta copy ends early", delta(size, 5, &[0xff, 0, 0])),
        ];
        for (what, reason, bytes) in lies {
            let (mut built, tip) = target.spoiled();
            let base = built.object(Kind::Blob, base_data);
            built.ref_delta(base, &bytes);
            target.refuses(what, reason, tip, &built.finish());
        }
        let empty: [(&str, &str, &[u8]); 3] = [
            ("an empty delta", "delta header ends early", b""),
            ("a delta of sizes alone", "delta header ends early", &[0x80, 0x80, 0x80]),
            ("endless sizes", "number that is too long", &[0xff; 30]),
        ];
        for (what, reason, bytes) in empty {
            let (mut built, tip) = target.spoiled();
            let base = built.object(Kind::Blob, base_data);
            built.entry(REF_DELTA, bytes.len() as u64, base.as_bytes(), &deflate(bytes));
            target.refuses(what, reason, tip, &built.finish());
        }
    });
}

/// What nothing leads to can be read by its id over the API as well, so that it may be a base, as in git. What is another
/// repository's may not.
#[test]
fn a_base_is_an_object_of_the_same_repository() {
    let place = Place::new();
    let git = Git::new(&place.path("home"));
    let server = place.serve();
    let http = server.http();
    server.create("repo");
    server.create("other");
    let mut built = Pack::new();
    let shared = built.commit("shared");
    assert!(push_new(&http, "repo", "refs/heads/main", shared, &built.finish()).accepted());
    http.post("/api/v1/repos/repo/fork", &json!({ "id": "fork" })).expect(201);
    // A blob of each, by what leads to it.
    let pushed = |repo: &str, name: &str| {
        let mut built = Pack::new();
        let content = format!("content of {name} in {repo}\n");
        let tip = built.commit(&format!("{name} in {repo}"));
        assert!(push_new(&http, repo, name, tip, &built.finish()).accepted());
        (tested::hash(Kind::Blob, content.as_bytes()), content, tip)
    };
    let [other, later, hidden, gone] = [
        pushed("other", "refs/heads/main"),
        pushed("fork", "refs/heads/later"),
        pushed("repo", "refs/heads/hidden"),
        pushed("repo", "refs/heads/gone"),
    ];
    let rules = json!({ "git": { "hidden_refs": ["refs/heads/hidden"] } });
    http.patch("/api/v1/repos/repo", &rules).expect(200);
    assert_eq!(http.delete("/api/v1/repos/repo/branches/gone").status, 204);
    for (at, ((base, content, _), is_taken)) in
        [(&other, false), (&later, false), (&hidden, true), (&gone, true)].into_iter().enumerate()
    {
        let mut built = Pack::new();
        let new = [content.as_bytes(), b"and more\n"].concat();
        let (before, after) = (content.len() as u64, new.len() as u64);
        let instructions = [copy(0, before as u32), insert(b"and more\n")].concat();
        built.ref_delta(*base, &delta(before, after, &instructions));
        let blob = tested::hash(Kind::Blob, &new);
        let tip = commit_with(&mut built, &tree_entry("100644", b"file", blob), at);
        let report = push_new(&http, "repo", &format!("refs/heads/thin{at}"), tip, &built.finish());
        assert_eq!(report.accepted(), is_taken, "{content}: {report:?}");
        let refusal = format!("1 deltas have missing bases, among them on {base}");
        assert!(is_taken || report.unpack.contains(&refusal), "{content}: {report:?}");
    }
    let copy = place.path("copy.git");
    git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
    assert_eq!(git.objects(&copy).len(), 3 * 3);
    git.ok(&copy, &["fsck", "--strict"]);
}

#[test]
fn harmful_trees_are_refused_by_name() {
    with_small_and_large_packs(|target| {
        let names: [(&[u8], &str); 15] = [
            (b"..", "hasDotdot"),
            (b".", "hasDot"),
            (b".git", "hasDotgit"),
            (b".GIT", "hasDotgit"),
            (b".gIt", "hasDotgit"),
            (b"git~1", "hasDotgit"),
            (b"GIT~1", "hasDotgit"),
            (b".git ", "hasDotgit"),
            (b".git.", "hasDotgit"),
            (b".git::$INDEX_ALLOCATION", "hasDotgit"),
            // U+200C, which HFS+ ignores.
            (b".g\xe2\x80\x8cit", "hasDotgit"),
            (b"..\\.git\\config", "hasDotgit"),
            (b"a/b", "fullPathname"),
            (b"/etc", "fullPathname"),
            (b"", "emptyName"),
        ];
        for (name, id) in names {
            for mode in ["100644", "40000"] {
                let (mut built, _) = target.spoiled();
                let child =
                    if mode == "40000" { built.object(Kind::Tree, b"") } else { built.object(Kind::Blob, b"x") };
                let tip = commit_with(&mut built, &tree_entry(mode, name, child), target.tried);
                target.refuses(&format!("{:?}", String::from_utf8_lossy(name)), id, tip, &built.finish());
            }
        }
    });
}

#[test]
fn misshapen_objects_are_refused_by_name() {
    with_small_and_large_packs(|target| {
        let blob = tested::hash(Kind::Blob, b"x");
        let entry = |name: &[u8]| tree_entry("100644", name, blob);
        let tree = |name: &[u8]| tree_entry("40000", name, Oid::empty_tree(tested::format()));
        let cases: [(&str, &str, Vec<u8>); 9] = [
            ("two equal names", "duplicateEntries", [entry(b"a"), entry(b"a")].concat()),
            ("a file and a directory of one name", "duplicateEntries", [entry(b"a"), tree(b"a")].concat()),
            ("the same with another between", "duplicateEntries", [entry(b"a"), entry(b"a.b"), tree(b"a")].concat()),
            ("unsorted names", "treeNotSorted", [entry(b"b"), entry(b"a")].concat()),
            ("a directory sorted as a file", "treeNotSorted", [tree(b"a"), entry(b"a.b")].concat()),
            ("no object", "nullSha1", tree_entry("100644", b"a", tested::null())),
            ("a cut entry", "badTree", entry(b"a")[..20].to_vec()),
            ("no name's end", "badTree", b"100644 abc".to_vec()),
            ("no octal mode", "badTree", tree_entry("10x644", b"a", blob)),
        ];
        for (what, id, bytes) in cases {
            let (mut built, _) = target.spoiled();
            built.object(Kind::Blob, b"x");
            built.object(Kind::Tree, b"");
            let tip = commit_with(&mut built, &bytes, target.tried);
            target.refuses(what, id, tip, &built.finish());
        }
        let empty = Oid::empty_tree(tested::format());
        let person = "Ada <ada@example.com> 1 +0000";
        let commits = [
            ("no tree", "missingTree", format!("author {person}\ncommitter {person}\n\nx\n")),
            ("no author", "missingAuthor", format!("tree {empty}\ncommitter {person}\n\nx\n")),
            ("no committer", "missingCommitter", format!("tree {empty}\nauthor {person}\n\nx\n")),
            ("a tree that is no id", "badTreeSha1", format!("tree xyz\nauthor {person}\ncommitter {person}\n\nx\n")),
            ("nothing", "unterminatedHeader", String::new()),
        ];
        for (what, id, text) in commits {
            let (mut built, _) = target.spoiled();
            built.object(Kind::Tree, b"");
            let tip = built.object(Kind::Commit, text.as_bytes());
            target.refuses(&format!("a commit with {what}"), id, tip, &built.finish());
        }
    });
}

/// Adds a tree and a commit of it that nobody else has.
fn commit_with(built: &mut Pack, tree: &[u8], number: usize) -> Oid {
    let tree = built.object(Kind::Tree, tree);
    built.object(Kind::Commit, &commit_of(tree, &[], &format!("harmful {number}")))
}

/// The id of a blob of zeros, hashed without holding it.
fn hash_zeros(length: u64) -> Oid {
    let mut hasher = govc_engine::ObjectHasher::new(tested::format(), Kind::Blob, length);
    let chunk = vec![0u8; 1 << 20];
    for _ in 0..length / (1 << 20) {
        hasher.update(&chunk);
    }
    hasher.finish().expect("an id")
}
