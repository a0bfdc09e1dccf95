//! Packs made to harm: each is refused with a reason, leaves nothing, and costs bounded memory.
//!
//! Every pack also carries a sound commit as the tip, so that a server which took what it understood would be seen.

use govc_engine::{Kind, Oid, hash_object};

use crate::{
    git::Git,
    pack::{Pack, REF_DELTA, commit_of, copy, deflate, deflate_zeros, delta, insert, push_new, tree_entry},
    refused::assert_gone,
    server::{Place, Server},
};

/// What no hostile pack may make the server hold; the largest of them claims a thousand times as much.
const PEAK_BYTES_MAX: u64 = 1 << 30;

/// A server with an ordinary `repo`, and what `git ls-remote` says of it.
struct Target {
    // Before the folder, so that the process ends before its data are removed.
    server: Server,
    place: Place,
    git: Git,
    before: String,
    tried: usize,
}

impl Target {
    fn new() -> Self {
        let place = Place::new();
        let git = Git::new(&place.path("home"));
        let server = place.serve();
        server.create("repo");
        let mut built = Pack::new();
        let head = built.commit("ordinary");
        let report = push_new(&server.http(), "repo", "refs/heads/main", head, &built.finish());
        assert!(report.accepted(), "{report:?}");
        let before = git.ok(&place.path("home"), &["ls-remote", &server.url("repo")]);
        Self { server, place, git, before, tried: 0 }
    }

    /// A pack with a sound commit of its own, to be spoiled.
    fn spoiled(&mut self) -> (Pack, Oid) {
        self.tried += 1;
        let mut built = Pack::new();
        let tip = built.commit(&format!("tip of pack {}", self.tried));
        (built, tip)
    }

    /// Sends `pack`, which must be refused with a reason and leave nothing.
    #[track_caller]
    fn refuses(&mut self, what: &str, tip: Oid, pack: &[u8]) -> String {
        let report = push_new(&self.server.http(), "repo", "refs/heads/hostile", tip, pack);
        let reasons = report.reasons();
        assert!(!report.accepted(), "{what} was accepted");
        assert!(reasons.len() > 3, "{what}: no reason was given: {report:?}");
        assert_eq!(report.references.len(), 1, "{what}: {report:?}");
        assert!(report.references[0].1.is_err(), "{what}: {report:?}");
        assert!(self.server.alive(), "{what} ended the server");
        let now = self.git.ok(&self.place.path("home"), &["ls-remote", &self.server.url("repo")]);
        assert_eq!(now, self.before, "{what} changed a reference");
        assert_gone(&self.server, tip);
        reasons
    }

    /// Asserts what must hold after everything was tried.
    fn unharmed(self) {
        let peak = self.server.peak_bytes();
        assert!(peak < PEAK_BYTES_MAX, "the server took {peak} bytes");
        let mut built = Pack::new();
        let tip = built.commit("afterwards");
        let report = push_new(&self.server.http(), "repo", "refs/heads/afterwards", tip, &built.finish());
        assert!(report.accepted(), "{report:?}");
        // What refused pushes left would show at the next opening too.
        let server = self.server.stop().start();
        let copy = self.place.path("copy.git");
        self.git.clone_repo(&server.url("repo"), &copy, &["--mirror"]);
        assert_eq!(self.git.objects(&copy).len(), 6, "two commits, two trees, two blobs");
        self.git.ok(&copy, &["fsck", "--strict"]);
    }
}

#[test]
fn broken_frames_are_refused() {
    let mut target = Target::new();
    let (built, tip) = target.spoiled();
    let whole = built.finish();
    for cut in [1, 4, 11, 12, 13, 40, whole.len() / 2, whole.len() - 20, whole.len() - 1] {
        target.refuses(&format!("a pack cut after {cut} bytes"), tip, &whole[..cut]);
    }
    target.refuses("a push without its pack", tip, b"");
    for at in [whole.len() - 1, whole.len() - 20, 14, 30] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        target.refuses(&format!("a pack with a flipped bit in byte {at}"), tip, &bytes);
    }
    target.refuses("bytes after the trailer", tip, &[&whole[..], b"and more"].concat());
    target.refuses("two packs", tip, &[&whole[..], &whole[..]].concat());
    target.refuses("no pack at all", tip, b"PACKED LUNCH, not a pack, but long enough for a header");
    target.refuses("version 4", tip, &built.finish_as(4, 3));
    target.refuses("version 0", tip, &built.finish_as(0, 3));
    target.refuses("2^32-1 objects claimed", tip, &built.finish_as(2, u32::MAX));
    target.refuses("one object too many claimed", tip, &built.finish_as(2, 4));
    target.refuses("one object too few claimed", tip, &built.finish_as(2, 2));
    target.refuses("no object claimed", tip, &built.finish_as(2, 0));
    target.unharmed();
}

#[test]
fn broken_entries_are_refused() {
    let mut target = Target::new();
    for number in [0, 5] {
        let (mut built, tip) = target.spoiled();
        built.entry(number, 3, &[], &deflate(b"abc"));
        target.refuses(&format!("type {number}"), tip, &built.finish());
    }
    let (mut built, tip) = target.spoiled();
    built.entry(3, 3, &[], b"\xff\xff this is no zlib stream");
    target.refuses("an entry that is no zlib stream", tip, &built.finish());

    let (mut built, tip) = target.spoiled();
    let mut stream = deflate(b"checked by adler32");
    let last = stream.len() - 1;
    stream[last] ^= 1;
    built.entry(3, 18, &[], &stream);
    target.refuses("a zlib stream with a wrong checksum", tip, &built.finish());

    let (mut built, tip) = target.spoiled();
    let stream = deflate(b"half of this is missing");
    built.entry(3, 23, &[], &stream[..stream.len() / 2]);
    target.refuses("half a zlib stream", tip, &built.finish());

    // A size in more than 64 bits.
    let (built, tip) = target.spoiled();
    let mut bytes = built.finish_as(2, 4);
    bytes.truncate(bytes.len() - 20);
    bytes.extend_from_slice(&[0xbf; 1]);
    bytes.extend_from_slice(&[0xff; 12]);
    bytes.extend_from_slice(&[0x7f; 21]);
    target.refuses("a size of more than 64 bits", tip, &bytes);
    target.unharmed();
}

#[test]
fn bombs_are_refused_in_bounded_memory() {
    let mut target = Target::new();
    let sizes: [(&str, u64, u64); 4] = [
        ("ten bytes declared, 256 MiB sent", 10, 256 << 20),
        ("1 GiB declared, ten bytes sent", 1 << 30, 10),
        ("1 GiB declared and sent", 1 << 30, 1 << 30),
        ("2^62 bytes declared, ten sent", 1 << 62, 10),
    ];
    for (what, declared, sent) in sizes {
        let (mut built, tip) = target.spoiled();
        built.entry(3, declared, &[], &deflate_zeros(sent));
        target.refuses(what, tip, &built.finish());
    }

    let (mut built, tip) = target.spoiled();
    let base = built.object(Kind::Blob, &[7; 1000]);
    built.ref_delta(base, &delta(1000, 1 << 40, &copy(0, 1000)));
    target.refuses("a delta that declares 1 TiB", tip, &built.finish());

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
    target.refuses("a chain of deltas that multiply", tip, &built.finish());

    // One entry a byte: many small objects of one large base, each 100 MB when whole.
    let (mut built, tip) = target.spoiled();
    built.entry(3, 120 << 20, &[], &deflate_zeros(120 << 20));
    let base = hash_zeros(120 << 20);
    for _ in 0..40 {
        built.ref_delta(base, &delta(120 << 20, 1 << 40, &insert(b"x")));
    }
    target.refuses("forty lies about one large base", tip, &built.finish());
    target.unharmed();
}

#[test]
fn broken_deltas_are_refused() {
    let mut target = Target::new();
    let base_data = b"the base of a delta, fifty-one bytes long, no more\n";
    let size = base_data.len() as u64;
    let missing: Oid = "56".repeat(20).parse().expect("an id");

    let (mut built, tip) = target.spoiled();
    built.ref_delta(missing, &delta(size, 1, &insert(b"x")));
    let reasons = target.refuses("a base that nobody has", tip, &built.finish());
    assert!(reasons.contains(&missing.to_string()) || reasons.contains("base"), "{reasons}");

    // Two deltas, each the other's base: both results are right, neither can be computed.
    let (mut built, tip) = target.spoiled();
    let (a, b) = (b"cycle: one".as_slice(), b"cycle: two".as_slice());
    let (oid_a, oid_b) = (hash_object(Kind::Blob, a), hash_object(Kind::Blob, b));
    let (oid_a, oid_b) = (oid_a.expect("an id"), oid_b.expect("an id"));
    built.ref_delta(oid_b, &delta(10, 10, &insert(a)));
    built.ref_delta(oid_a, &delta(10, 10, &insert(b)));
    target.refuses("a cycle of two deltas", tip, &built.finish());

    let (mut built, tip) = target.spoiled();
    built.ref_delta(oid_a, &delta(10, 10, &insert(a)));
    target.refuses("a delta against itself", tip, &built.finish());

    for (what, distance) in [("itself", 0), ("the header", u64::MAX), ("before the pack", 1 << 40), ("no entry", 3)] {
        let (mut built, tip) = target.spoiled();
        let distance = if distance == u64::MAX { built.next_offset() - 4 } else { distance };
        built.ofs_delta(distance, &delta(size, 1, &insert(b"x")));
        target.refuses(&format!("an offset delta against {what}"), tip, &built.finish());
    }

    let lies: [(&str, Vec<u8>); 10] = [
        ("a copy past the end", delta(size, 60, &copy(0, 60))),
        ("a copy that begins past the end", delta(size, 10, &copy(1000, 10))),
        ("a copy at 2^32-1", delta(size, 10, &copy(u32::MAX, 10))),
        ("a copy of 2^24-1 bytes", delta(size, 0xff_ffff, &copy(0, 0xff_ffff))),
        ("a wrong base size", delta(size + 1, 5, &copy(0, 5))),
        ("a result too short", delta(size, 6, &copy(0, 5))),
        ("a result too long", delta(size, 4, &copy(0, 5))),
        ("the reserved instruction", delta(size, 5, &[&[0u8][..], copy(0, 5).as_slice()].concat())),
        ("an insertion that is cut off", delta(size, 100, &[100, b'x'])),
        ("a copy that is cut off", delta(size, 5, &[0xff, 0, 0])),
    ];
    for (what, bytes) in lies {
        let (mut built, tip) = target.spoiled();
        let base = built.object(Kind::Blob, base_data);
        built.ref_delta(base, &bytes);
        target.refuses(what, tip, &built.finish());
    }
    let empty: [(&str, &[u8]); 3] =
        [("an empty delta", b""), ("a delta of sizes alone", &[0x80, 0x80, 0x80]), ("endless sizes", &[0xff; 30])];
    for (what, bytes) in empty {
        let (mut built, tip) = target.spoiled();
        let base = built.object(Kind::Blob, base_data);
        built.entry(REF_DELTA, bytes.len() as u64, base.as_bytes(), &deflate(bytes));
        target.refuses(what, tip, &built.finish());
    }
    target.unharmed();
}

#[test]
fn harmful_trees_are_refused_by_name() {
    let mut target = Target::new();
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
            let child = if mode == "40000" { built.object(Kind::Tree, b"") } else { built.object(Kind::Blob, b"x") };
            let tip = commit_with(&mut built, &tree_entry(mode, name, child), target.tried);
            let reasons = target.refuses(&format!("{:?}", String::from_utf8_lossy(name)), tip, &built.finish());
            assert!(reasons.contains(id), "{:?}: {reasons}", String::from_utf8_lossy(name));
        }
    }
}

#[test]
fn misshapen_objects_are_refused_by_name() {
    let mut target = Target::new();
    let blob = hash_object(Kind::Blob, b"x").expect("an id");
    let entry = |name: &[u8]| tree_entry("100644", name, blob);
    let tree = |name: &[u8]| tree_entry("40000", name, Oid::empty_tree());
    let cases: [(&str, &str, Vec<u8>); 9] = [
        ("two equal names", "duplicateEntries", [entry(b"a"), entry(b"a")].concat()),
        ("a file and a directory of one name", "duplicateEntries", [entry(b"a"), tree(b"a")].concat()),
        ("the same with another between", "duplicateEntries", [entry(b"a"), entry(b"a.b"), tree(b"a")].concat()),
        ("unsorted names", "treeNotSorted", [entry(b"b"), entry(b"a")].concat()),
        ("a directory sorted as a file", "treeNotSorted", [tree(b"a"), entry(b"a.b")].concat()),
        ("no object", "nullSha1", tree_entry("100644", b"a", Oid::null())),
        ("a cut entry", "badTree", entry(b"a")[..20].to_vec()),
        ("no name's end", "badTree", b"100644 abc".to_vec()),
        ("no octal mode", "badTree", tree_entry("10x644", b"a", blob)),
    ];
    for (what, id, bytes) in cases {
        let (mut built, _) = target.spoiled();
        built.object(Kind::Blob, b"x");
        built.object(Kind::Tree, b"");
        let tip = commit_with(&mut built, &bytes, target.tried);
        let reasons = target.refuses(what, tip, &built.finish());
        assert!(reasons.contains(id), "{what}: {reasons}");
    }
    let empty = Oid::empty_tree();
    let person = "Ada <ada@example.com> 1 +0000";
    let commits: [(&str, String); 5] = [
        ("no tree", format!("author {person}\ncommitter {person}\n\nx\n")),
        ("no author", format!("tree {empty}\ncommitter {person}\n\nx\n")),
        ("no committer", format!("tree {empty}\nauthor {person}\n\nx\n")),
        ("a tree that is no id", format!("tree xyz\nauthor {person}\ncommitter {person}\n\nx\n")),
        ("nothing", String::new()),
    ];
    for (what, text) in commits {
        let (mut built, _) = target.spoiled();
        built.object(Kind::Tree, b"");
        let tip = built.object(Kind::Commit, text.as_bytes());
        target.refuses(&format!("a commit with {what}"), tip, &built.finish());
    }
}

/// Adds a tree and a commit of it that nobody else has.
fn commit_with(built: &mut Pack, tree: &[u8], number: usize) -> Oid {
    let tree = built.object(Kind::Tree, tree);
    built.object(Kind::Commit, &commit_of(tree, &[], &format!("harmful {number}")))
}

/// The id of a blob of zeros, hashed without holding it.
fn hash_zeros(length: u64) -> Oid {
    let mut hasher = govc_engine::ObjectHasher::new(Kind::Blob, length);
    let chunk = vec![0u8; 1 << 20];
    for _ in 0..length / (1 << 20) {
        hasher.update(&chunk);
    }
    hasher.finish().expect("an id")
}
