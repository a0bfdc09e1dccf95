//! The index alone: what is added is found, after commits, crashes and reopening.

use std::path::Path;

use govc_engine::{ErrorKind, Kind, ObjectFormat, Oid, Seq, hash_object};
use tempfile::TempDir;

use super::{BlobState, GramQuery, Index};

fn oid(data: &[u8]) -> Oid {
    hash_object(ObjectFormat::Sha1, Kind::Blob, data).expect("a hash")
}

fn grams(text: &str) -> GramQuery {
    GramQuery::of(&regex_syntax::parse(&regex_syntax::escape(text)).expect("a pattern"))
}

/// A file of a few hundred lines, different for each `seed`.
fn file(seed: usize) -> Vec<u8> {
    (0..300).flat_map(|line| format!("seed{seed} line {} of it\n", line * seed % 311).into_bytes()).collect()
}

fn add(index: &Index, data: &[u8]) {
    index.add(oid(data), data).expect("added");
}

/// The blobs that have a candidate for `text`.
fn found(index: &Index, text: &str) -> Vec<Oid> {
    let chunks = index.generation().chunks(&grams(text), None).expect("chunks").expect("a condition");
    let tables = index.tables();
    let mut blobs: Vec<Oid> =
        chunks.iter().flat_map(|chunk| tables.holders(chunk)).filter_map(|blob| tables.oid(*blob)).collect();
    blobs.sort();
    blobs.dedup();
    blobs
}

/// The text of a blob, from its chunks.
fn text(index: &Index, oid: &Oid) -> Vec<u8> {
    let tables = index.tables();
    let blob = tables.number(oid).expect("a number");
    tables.chunks(blob).iter().flat_map(|chunk| tables.text(*chunk).expect("text").to_vec()).collect()
}

#[test]
fn what_is_committed_is_found() {
    let index = Index::in_memory().expect("index");
    let (one, two) = (file(1), file(2));
    add(&index, &one);
    assert!(found(&index, "seed1").is_empty(), "not before the commit");
    index.commit(None).expect("commit");
    add(&index, &two);
    index.commit(Some(Seq(7))).expect("commit");
    assert_eq!(found(&index, "seed1"), [oid(&one)]);
    assert_eq!(found(&index, "seed2"), [oid(&two)]);
    assert_eq!(found(&index, " of it").len(), 2);
    assert!(found(&index, "seed3").is_empty());
    assert_eq!(text(&index, &oid(&one)), one);
    assert_eq!(text(&index, &oid(&two)), two);
    assert_eq!(index.position(), Some(Seq(7)));
}

#[test]
fn two_bytes_are_found() {
    let index = Index::in_memory().expect("index");
    let filler = |seed: usize| -> String {
        (0..300).map(|line| format!("a line {} of text\n", "x".repeat((line * seed) % 97))).collect()
    };
    let with = |line: &str, seed| format!("{}{line}\n{}", filler(seed), filler(seed + 1)).into_bytes();
    let files =
        [with("q7", 1), with("xq7", 3), with("Q7x", 5), with("xq7x", 7), with("q", 9), with("7q", 11), b"q7".to_vec()];
    files.iter().for_each(|file| add(&index, file));
    index.commit(None).expect("commit");
    let mut wanted: Vec<Oid> = [0, 1, 2, 3, 6].iter().map(|at: &usize| oid(&files[*at])).collect();
    wanted.sort();
    assert_eq!(found(&index, "q7"), wanted);
    let everywhere = index.generation().chunks(&grams("li"), None).expect("chunks");
    assert!(everywhere.is_none(), "what is nearly everywhere is no condition");
    // A segment that has it nearly everywhere hides nothing that others rule out.
    add(&index, b"(q7) q7\n");
    index.commit(None).expect("commit");
    assert!(index.figures().segments > 1);
    wanted.push(oid(b"(q7) q7\n"));
    wanted.sort();
    assert_eq!(found(&index, "q7"), wanted);
}

#[test]
fn what_is_common_is_found_by_sets() {
    let index = Index::in_memory().expect("index");
    // More chunks than it takes for a gram to be common; about every third has the first word.
    let text = |at: usize| {
        let word = if (at / 50).is_multiple_of(3) { "common" } else { "comma" };
        format!("{at} {word} word {}\n", "x".repeat(300))
    };
    for part in 0..3 {
        let lines: String = (0..6000).map(|at| text(part * 6000 + at)).collect();
        add(&index, lines.as_bytes());
        index.commit(None).expect("commit");
    }
    let generation = index.generation();
    let chunks = |query: &str| generation.chunks(&grams(query), None).expect("chunks").expect("a condition");
    let tables = index.tables();
    for query in ["common", "word", "17860 common", "comma word"] {
        let wanted: Vec<u32> = (0..tables.chunk_count() as u32)
            .filter(|chunk| memchr::memmem::find(&tables.text(*chunk).expect("text"), query.as_bytes()).is_some())
            .collect();
        assert!(!wanted.is_empty(), "{query}");
        assert_eq!(chunks(query).iter().collect::<Vec<_>>(), wanted, "{query}");
    }
}

#[test]
fn versions_share_chunks() {
    let index = Index::in_memory().expect("index");
    let old = file(5);
    let new = [&old[..], b"one more line\n"].concat();
    add(&index, &old);
    index.commit(None).expect("commit");
    let before = index.figures();
    add(&index, &new);
    index.commit(None).expect("commit");
    let after = index.figures();
    assert!(after.chunks - before.chunks <= 2, "{} new chunks", after.chunks - before.chunks);
    assert_eq!((after.blobs, after.raw_bytes), (2, (old.len() + new.len()) as u64));
    assert!(after.text_bytes < before.text_bytes + 6000);
    assert_eq!(text(&index, &oid(&new)), new);
    assert_eq!(found(&index, "seed5").len(), 2);
}

#[test]
fn binary_and_empty_files_have_no_chunks() {
    let index = Index::in_memory().expect("index");
    add(&index, b"\0binary");
    add(&index, b"");
    index.commit(None).expect("commit");
    let tables = index.tables();
    let state = |data: &[u8]| tables.state(tables.number(&oid(data)).expect("a number"));
    assert_eq!(state(b"\0binary"), BlobState::Binary);
    assert_eq!(state(b""), BlobState::Text { start: 0, count: 0 });
    drop(tables);
    assert_eq!((index.generation().indexed.len(), index.figures().blobs), (2, 1));
}

#[test]
fn it_is_there_after_reopening() {
    let folder = TempDir::new().expect("folder");
    let (one, two) = (file(1), file(2));
    {
        let index = Index::open(folder.path()).expect("open");
        assert_eq!(index.position(), None);
        add(&index, &one);
        index.commit(Some(Seq(3))).expect("commit");
        add(&index, &two);
    }
    {
        // What was not committed is gone, and can be added again.
        let index = Index::open(folder.path()).expect("open again");
        assert_eq!(index.position(), Some(Seq(3)));
        assert_eq!(found(&index, "seed1"), [oid(&one)]);
        assert!(found(&index, "seed2").is_empty());
        add(&index, &two);
        index.commit(None).expect("commit");
        assert_eq!(index.position(), Some(Seq(3)));
    }
    let index = Index::open(folder.path()).expect("and again");
    assert_eq!((text(&index, &oid(&one)), text(&index, &oid(&two))), (one, two));
    assert_eq!(index.figures().blobs, 2);
}

/// Appends to a file of the index.
fn append(folder: &Path, prefix: &str, bytes: &[u8]) {
    use std::io::Write as _;
    let path = std::fs::read_dir(folder)
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .expect("the file");
    std::fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(bytes)).expect("append");
}

#[test]
fn what_a_crash_left_behind_is_cut_off() {
    let folder = TempDir::new().expect("folder");
    let (one, two) = (file(1), file(2));
    {
        let index = Index::open(folder.path()).expect("open");
        add(&index, &one);
        index.commit(None).expect("commit");
    }
    append(folder.path(), "text-", b"texts of a commit that was cut off");
    append(folder.path(), "blobs", b"\x40\0\0\0\0\0\0\0half a fr");
    std::fs::write(folder.path().join("text-00000000ffffffff"), b"a new file").expect("write");
    {
        let index = Index::open(folder.path()).expect("open");
        assert_eq!(text(&index, &oid(&one)), one);
        add(&index, &two);
        index.commit(None).expect("commit");
    }
    let index = Index::open(folder.path()).expect("open");
    assert_eq!((text(&index, &oid(&one)), text(&index, &oid(&two))), (one, two));
}

#[test]
fn what_is_damaged_is_said_to_be() {
    for (name, bytes) in [("text-0000000000000000", 10), ("blobs", 10)] {
        let folder = TempDir::new().expect("folder");
        {
            let index = Index::open(folder.path()).expect("open");
            add(&index, &file(1));
            index.commit(None).expect("commit");
        }
        let path = folder.path().join(name);
        std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(bytes)).expect("shorten");
        let error = Index::open(folder.path()).err().expect("damage is seen");
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{name}: {error}");
    }
    // A flipped bit in the log.
    let folder = TempDir::new().expect("folder");
    {
        let index = Index::open(folder.path()).expect("open");
        add(&index, &file(1));
        index.commit(None).expect("commit");
    }
    let path = folder.path().join("blobs");
    let mut bytes = std::fs::read(&path).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).expect("write");
    assert_eq!(*Index::open(folder.path()).err().expect("damage is seen").kind(), ErrorKind::Corrupt);
}

#[test]
fn one_has_it_open() {
    let folder = TempDir::new().expect("folder");
    let _index = Index::open(folder.path()).expect("open");
    assert!(Index::open(folder.path()).is_err());
}
