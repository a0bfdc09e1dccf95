//! Packs made by hand, sound and broken, and pushes of them without git: it would refuse to send what these tests send.
//!
//! The format is git's `Documentation/gitformat-pack.adoc`, the exchange its `gitprotocol-pack.adoc`.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use govc_engine::{Kind, ObjectFormat, Oid, PackHasher};

use crate::{
    http::{Http, Reply},
    tested,
};

/// Pack type numbers of the two delta forms.
pub(crate) const OFS_DELTA: u8 = 6;
pub(crate) const REF_DELTA: u8 = 7;

/// Puts entries together into a pack.
#[derive(Clone)]
pub(crate) struct Pack {
    bytes: Vec<u8>,
    count: u32,
}

/// One command of a push.
#[derive(Clone)]
pub(crate) struct RefChange {
    pub(crate) old: Oid,
    pub(crate) new: Oid,
    pub(crate) name: Vec<u8>,
}

/// What the server reported about a push.
#[derive(Debug)]
pub(crate) struct Report {
    /// `ok`, or why the pack was refused.
    pub(crate) unpack: String,
    /// Each reference, with the reason if it was refused.
    pub(crate) references: Vec<(String, Result<(), String>)>,
}

impl Pack {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), count: 0 }
    }

    /// Adds a whole object and returns its id.
    pub(crate) fn object(&mut self, kind: Kind, data: &[u8]) -> Oid {
        self.entry(kind as u8, data.len() as u64, &[], &deflate(data));
        tested::hash(kind, data)
    }

    /// Adds a blob, a tree with it and a commit of the tree that nobody else has; returns the commit's id.
    pub(crate) fn commit(&mut self, subject: &str) -> Oid {
        let blob = self.object(Kind::Blob, format!("content of {subject}\n").as_bytes());
        let tree = self.object(Kind::Tree, &tree_entry("100644", b"file", blob));
        self.object(Kind::Commit, &commit_of(tree, &[], subject))
    }

    /// Adds a delta against the object `base`.
    pub(crate) fn ref_delta(&mut self, base: Oid, delta: &[u8]) {
        self.entry(REF_DELTA, delta.len() as u64, base.as_bytes(), &deflate(delta));
    }

    /// Adds a delta against the entry `distance` bytes before this one.
    pub(crate) fn ofs_delta(&mut self, distance: u64, delta: &[u8]) {
        self.entry(OFS_DELTA, delta.len() as u64, &offset_varint(distance), &deflate(delta));
    }

    /// Adds an entry as told: a type number, the size it declares, what precedes the stream, the stream.
    pub(crate) fn entry(&mut self, number: u8, declared: u64, base: &[u8], stream: &[u8]) {
        let mut byte = (number << 4) | (declared & 15) as u8;
        let mut rest = declared >> 4;
        while rest > 0 {
            self.bytes.push(byte | 0x80);
            byte = (rest & 0x7f) as u8;
            rest >>= 7;
        }
        self.bytes.push(byte);
        self.bytes.extend_from_slice(base);
        self.bytes.extend_from_slice(stream);
        self.count += 1;
    }

    /// Where the next entry will begin in the finished pack.
    pub(crate) fn next_offset(&self) -> u64 {
        12 + self.bytes.len() as u64
    }

    /// How many entries it has.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The finished pack.
    pub(crate) fn finish(&self) -> Vec<u8> {
        self.finish_as(2, self.count)
    }

    /// The finished pack with a header that says something else; the trailer matches.
    pub(crate) fn finish_as(&self, version: u32, count: u32) -> Vec<u8> {
        let mut pack = b"PACK".to_vec();
        pack.extend_from_slice(&version.to_be_bytes());
        pack.extend_from_slice(&count.to_be_bytes());
        pack.extend_from_slice(&self.bytes);
        let mut hasher = PackHasher::new(tested::format());
        hasher.update(&pack);
        let trailer = hasher.finish().expect("an ordinary pack");
        pack.extend_from_slice(trailer.as_bytes());
        pack
    }
}

/// A zlib stream.
pub(crate) fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A zlib stream of `length` zeros, made without holding them.
pub(crate) fn deflate_zeros(length: u64) -> Vec<u8> {
    let chunk = vec![0u8; 1 << 20];
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut left = length;
    while left > 0 {
        let now = left.min(chunk.len() as u64);
        encoder.write_all(&chunk[..now as usize]).expect("memory takes it");
        left -= now;
    }
    encoder.finish().expect("memory takes it")
}

/// Git's instructions over a base: the two sizes, then copies and insertions.
pub(crate) fn delta(base_size: u64, result_size: u64, instructions: &[u8]) -> Vec<u8> {
    let mut out = size_varint(base_size);
    out.extend(size_varint(result_size));
    out.extend_from_slice(instructions);
    out
}

/// The instruction that inserts up to 127 bytes.
pub(crate) fn insert(bytes: &[u8]) -> Vec<u8> {
    assert!((1..128).contains(&bytes.len()), "one insertion holds 1 to 127 bytes");
    [&[bytes.len() as u8][..], bytes].concat()
}

/// The instruction that copies from the base, with all four offset and all three size bytes.
pub(crate) fn copy(offset: u32, size: u32) -> Vec<u8> {
    let mut out = vec![0xff];
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes()[..3]);
    out
}

/// One entry of a tree.
pub(crate) fn tree_entry(mode: &str, name: &[u8], oid: Oid) -> Vec<u8> {
    [mode.as_bytes(), b" ", name, b"\0", oid.as_bytes()].concat()
}

/// The bytes of a commit.
pub(crate) fn commit_of(tree: Oid, parents: &[Oid], subject: &str) -> Vec<u8> {
    let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
    let person = "Ada Test <ada@example.com> 1700000000 +0100";
    format!("tree {tree}\n{parents}author {person}\ncommitter {person}\n\n{subject}\n").into_bytes()
}

/// A pkt-line.
pub(crate) fn line(payload: &[u8]) -> Vec<u8> {
    [format!("{:04x}", payload.len() + 4).as_bytes(), payload].concat()
}

/// The head of a request in version 2.
pub(crate) fn command_head(name: &str) -> Vec<u8> {
    let format = match tested::format() {
        // What a server takes that is not told.
        ObjectFormat::Sha1 => Vec::new(),
        ObjectFormat::Sha256 => line(b"object-format=sha256"),
    };
    [line(format!("command={name}").as_bytes()), format].concat()
}

/// The body of a push: commands, flush, pack.
pub(crate) fn push_body(changes: &[RefChange], capabilities: &str, pack: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (at, change) in changes.iter().enumerate() {
        let mut command = format!("{} {} ", change.old, change.new).into_bytes();
        command.extend_from_slice(&change.name);
        if at == 0 {
            command.extend_from_slice(format!("\0 {capabilities}{}", tested::capability()).as_bytes());
        }
        body.extend(line(&command));
    }
    body.extend_from_slice(b"0000");
    body.extend_from_slice(pack);
    body
}

/// Sends a push without side-band and returns the answer as it came.
pub(crate) fn push_raw(http: &Http, repo: &str, changes: &[RefChange], pack: &[u8]) -> Reply {
    let body = push_body(changes, "report-status agent=test/1", pack);
    http.send("POST", &format!("/{repo}.git/git-receive-pack"), RECEIVE_HEADERS, &body)
}

/// The headers of a push.
pub(crate) const RECEIVE_HEADERS: &[(&str, &str)] =
    &[("content-type", "application/x-git-receive-pack-request"), ("accept", "application/x-git-receive-pack-result")];

/// Pushes `new` as a new reference and returns the report.
#[track_caller]
pub(crate) fn push_new(http: &Http, repo: &str, name: &str, new: Oid, pack: &[u8]) -> Report {
    let change = RefChange { old: tested::null(), new, name: name.as_bytes().to_vec() };
    let reply = push_raw(http, repo, &[change], pack);
    assert_eq!(reply.status, 200, "a push is answered with a report: {}", reply.text());
    Report::parse(&reply.body)
}

impl Report {
    /// Reads a report-status, not wrapped in side-band.
    #[track_caller]
    pub(crate) fn parse(body: &[u8]) -> Self {
        let mut report = Report { unpack: String::new(), references: Vec::new() };
        for text in lines(body) {
            let text = String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned();
            if let Some(result) = text.strip_prefix("unpack ") {
                report.unpack = result.to_owned();
            } else if let Some(name) = text.strip_prefix("ok ") {
                report.references.push((name.to_owned(), Ok(())));
            } else if let Some(rest) = text.strip_prefix("ng ") {
                let (name, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                report.references.push((name.to_owned(), Err(reason.to_owned())));
            } else {
                panic!("not a line of a report: {text:?}");
            }
        }
        assert!(!report.unpack.is_empty(), "a report begins with unpack: {:?}", String::from_utf8_lossy(body));
        report
    }

    /// Whether everything was accepted.
    pub(crate) fn accepted(&self) -> bool {
        self.unpack == "ok" && !self.references.is_empty() && self.references.iter().all(|(_, result)| result.is_ok())
    }

    /// All reasons that were given.
    pub(crate) fn reasons(&self) -> String {
        let mut reasons = if self.unpack == "ok" { String::new() } else { self.unpack.clone() };
        for reason in self.references.iter().filter_map(|(_, result)| result.as_ref().err()) {
            reasons.push('\n');
            reasons.push_str(reason);
        }
        reasons.trim().to_owned()
    }
}

/// The payloads of pkt-lines; flush, delimiter and response-end packets give nothing.
#[track_caller]
pub(crate) fn lines(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let head = bytes.get(..4).expect("a pkt-line has four digits");
        let head = std::str::from_utf8(head).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let length = head.unwrap_or_else(|| panic!("not a pkt-line: {:?}", String::from_utf8_lossy(bytes)));
        if length < 4 {
            bytes = &bytes[4..];
            continue;
        }
        out.push(bytes.get(4..length).expect("a whole pkt-line").to_vec());
        bytes = &bytes[length..];
    }
    out
}

/// Seven bits a byte, least significant first.
fn size_varint(mut size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (size & 0x7f) as u8;
        size >>= 7;
        if size == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}

/// The distance of an ofs-delta: most significant first, each continuation counting one more.
fn offset_varint(mut distance: u64) -> Vec<u8> {
    let mut out = vec![(distance & 0x7f) as u8];
    while distance >> 7 > 0 {
        distance = (distance >> 7) - 1;
        out.push(0x80 | (distance & 0x7f) as u8);
    }
    out.reverse();
    out
}
