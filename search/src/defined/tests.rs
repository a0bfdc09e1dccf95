//! Records alone: names against patterns, what comes out against what went in, torn and foreign files, limits.

use std::{collections::BTreeSet, fs, path::Path};

use govc_engine::{Kind, ObjectFormat, Oid, hash_object};
use proptest::prelude::*;

use super::{
    Records, code,
    file::{self, FileRecord, Frame, Told},
    names::{NameNo, Names},
    rows::Rows,
};
use crate::{
    find::Matcher,
    index::{BlobNo, Index},
    language::Language,
    query::Pattern,
    symbols::{Limits, Skipped, Symbol, SymbolKind, symbols},
};

const VERSION: u64 = 0x0102_0304_0506_0708;

fn matcher(text: &str, regex: bool, case_sensitive: bool) -> Matcher {
    Matcher::new(&Pattern { text: text.into(), regex, case_sensitive, span: 0..0 }).expect("a pattern")
}

fn rust() -> Language {
    Language::from_name("rust").expect("Rust")
}

fn oid(content: &[u8]) -> Oid {
    hash_object(ObjectFormat::Sha1, Kind::Blob, content).expect("a hash")
}

/// Adds what a file defines, and commits it.
fn add(records: &Records, index: &Index, content: &[u8]) -> BlobNo {
    let blob = index.number(oid(content));
    let told = symbols(rust(), content, &Limits::default());
    assert!(records.add((blob, oid(content)), rust(), content, &told).expect("added"));
    records.commit().expect("committed");
    blob
}

/// The files of three commits.
const FILES: [&[u8]; 3] = [
    b"struct Point { x: u32 }\nimpl Point { fn new() {} fn old() {} }\n",
    b"// nothing\n",
    b"fn new() {}\nfn newer() {}\n",
];

fn defined(records: &Records, index: &Index) -> Vec<Option<Option<Vec<Symbol>>>> {
    let of = |content: &[u8]| {
        let defined = records.defined(index.number(oid(content)), rust());
        defined.map(|defined| defined.map(|symbols| symbols.to_vec()))
    };
    FILES.map(of).to_vec()
}

fn expected(count: usize) -> Vec<Option<Option<Vec<Symbol>>>> {
    let told = |content: &[u8]| symbols(rust(), content, &Limits::default()).ok();
    FILES.iter().enumerate().map(|(at, content)| (at < count).then(|| told(content))).collect()
}

fn opened(folder: &Path, version: u64) -> (Records, Index) {
    let index = Index::in_memory().expect("an index");
    let records = Records::open(folder, &index, version).expect("opened");
    (records, index)
}

proptest! {
    #[test]
    fn a_pattern_is_matched_against_each_name(
        names in proptest::collection::btree_set("[abB_kK\u{212a}é\n]{0,5}", 0..60),
        cuts in proptest::collection::btree_set(0..60_u32, 0..4),
    ) {
        let mut table = Names::default();
        for (number, name) in (0..).zip(&names) {
            prop_assert_eq!(table.number(name.as_bytes()), None);
            prop_assert_eq!(table.add(name.as_bytes()), number);
        }
        for (number, name) in (0..).zip(&names) {
            prop_assert_eq!((table.number(name.as_bytes()), table.get(number)), (Some(number), Some(name.as_bytes())));
        }
        let patterns = [
            ("a", false, true), ("ab", false, false), ("K", false, false), ("k", false, true), ("é", false, false),
            ("^a", true, true), ("b$", true, true), ("^ab?$", true, false), (r"\Aa", true, true), (r"b\z", true, true),
            (r"\bab\b", true, true), (r"\Bb", true, true), ("a*", true, true), ("|a", true, true), ("b??", true, true),
            (".", true, true), ("[^a]+", true, true), (r"\s", true, true), ("a|_", true, true), ("a{2,}", true, false),
        ];
        for (text, regex, case_sensitive) in patterns {
            let matcher = matcher(text, regex, case_sensitive);
            let mut found = Vec::new();
            let bounds: Vec<NameNo> = [0].into_iter().chain(cuts.iter().copied()).chain([60]).collect();
            for pair in bounds.windows(2) {
                let block = pair[0].min(table.count())..pair[1].min(table.count());
                table.matching(&matcher, block, &mut |number| found.push(number));
            }
            found.sort_unstable();
            let naive = (0..).zip(&names).filter(|(_, name)| matcher.is_match(name.as_bytes()));
            prop_assert_eq!(found, naive.map(|(number, _)| number).collect::<Vec<_>>(), "{}", text);
        }
        // All of them are in some block.
        let mut first = 0;
        while first < table.count() {
            let end = table.block_end(first);
            prop_assert!(end > first && end <= table.count());
            first = end;
        }
    }

    #[test]
    fn what_is_read_is_what_was_written(
        symbols in proptest::collection::vec(
            (0..5000_usize, 0..40_usize, 0..100_u32, 0..12_usize, proptest::option::of((0..5000_usize, 0..9_usize))),
            0..30,
        ),
    ) {
        let symbols: Vec<Symbol> = symbols.into_iter().map(|(start, bytes, line, kind, parent)| Symbol {
            name: start..start + bytes,
            kind: SymbolKind::ALL[kind],
            line,
            parent: parent.map(|(start, bytes)| start..start + bytes),
        }).collect();
        let encoded = code::encode(symbols.iter().zip(7..)).expect("encoded");
        let mut decoder = code::Decoder::new(&encoded);
        for (number, symbol) in (7..).zip(&symbols) {
            let decoded = decoder.next().expect("a definition");
            prop_assert_eq!(decoded.name, number);
            prop_assert_eq!(decoded.symbol(symbol.name.len()), Some(symbol.clone()));
        }
        prop_assert!(decoder.is_at_end() && decoder.next().is_none());
    }
}

#[test]
fn names_of_many_blocks_are_all_found() {
    let mut names = Names::default();
    let name = |number: u32| format!("{}_{number}_{}", "a_long_name".repeat(8), number % 7);
    (0..20_000).for_each(|number| assert_eq!(names.add(name(number).as_bytes()), number));
    let (mut first, mut blocks, mut found) = (0, 0, 0);
    while first < names.count() {
        let end = names.block_end(first);
        names.matching(&matcher("_3$", true, true), first..end, &mut |_| found += 1);
        (first, blocks) = (end, blocks + 1);
    }
    assert!(blocks > 3);
    assert_eq!(found, (0..20_000).filter(|number| number % 7 == 3).count());
    assert_eq!(names.number(name(12_345).as_bytes()), Some(12_345));
}

#[test]
fn a_file_that_is_torn_anywhere_has_what_is_whole_and_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("symbols");
    let mut ends = Vec::new();
    let (records, index) = opened(folder.path(), VERSION);
    for content in FILES {
        ends.push(usize::try_from(fs::metadata(&path).expect("a file").len()).expect("short"));
        add(&records, &index, content);
    }
    assert_eq!(defined(&records, &index), expected(3));
    let figures = records.figures();
    assert_eq!((figures.files, figures.symbols, figures.names), (3, 6, 5));
    drop((records, index));
    let whole = fs::read(&path).expect("read");
    ends.push(whole.len());
    for torn in 0..=whole.len() {
        fs::write(&path, &whole[..torn]).expect("written");
        let (records, index) = opened(folder.path(), VERSION);
        let left = ends.iter().skip(1).filter(|end| **end <= torn).count();
        assert_eq!(defined(&records, &index), expected(left), "torn at {torn}");
        for content in &FILES[left..] {
            add(&records, &index, content);
        }
        drop((records, index));
        let (records, index) = opened(folder.path(), VERSION);
        assert_eq!(defined(&records, &index), expected(3), "torn at {torn}, and added to");
        assert_eq!(records.figures().names, 5, "torn at {torn}");
    }
    // A bit that is wrong, anywhere.
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, &damaged).expect("written");
        let (records, index) = opened(folder.path(), VERSION);
        let left = ends.iter().skip(1).filter(|end| **end <= at).count();
        assert_eq!(defined(&records, &index), expected(if at < ends[0] { 0 } else { left }), "damaged at {at}");
    }
}

#[test]
fn records_of_another_version_are_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (records, index) = opened(folder.path(), VERSION);
    for content in FILES {
        add(&records, &index, content);
    }
    drop((records, index));
    let (records, index) = opened(folder.path(), VERSION + 1);
    assert_eq!(defined(&records, &index), expected(0));
    add(&records, &index, FILES[0]);
    drop((records, index));
    let (records, index) = opened(folder.path(), VERSION + 1);
    assert_eq!(defined(&records, &index), expected(1));
}

#[test]
fn a_frame_that_no_writer_wrote_is_refused_whole() {
    let encoded = |names: &[NameNo]| {
        let symbol = Symbol { name: 3..6, kind: SymbolKind::Function, line: 0, parent: None };
        code::encode(names.iter().map(|name| (&symbol, *name))).expect("encoded")
    };
    let file = |told| FileRecord { oid: oid(b"x").as_bytes().to_vec(), language: rust().stable_id(), told };
    let frame =
        |names: &[&str], files| Frame { names: names.iter().map(|name| name.as_bytes().to_vec()).collect(), files };
    let sound = || file(Told::Symbols(encoded(&[0])));
    let mut cut = encoded(&[0]);
    cut.pop();
    let bad = [
        frame(&["a", "a"], vec![sound()]),
        frame(&["a"], vec![sound(), file(Told::Symbols(encoded(&[1])))]),
        frame(&["a"], vec![file(Told::Symbols(cut))]),
        frame(&["a"], vec![FileRecord { language: u32::MAX, ..sound() }]),
        frame(&["a"], vec![FileRecord { oid: vec![1; 3], ..sound() }]),
    ];
    for (number, bad) in bad.into_iter().enumerate() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = file::open(folder.path(), VERSION, |_| true).expect("opened");
        let head = file.end();
        file.append(&bad).expect("appended");
        assert!(file.end() > head);
        drop(file);
        let (records, index) = opened(folder.path(), VERSION);
        let figures = records.figures();
        assert_eq!((figures.files, figures.names, figures.stored_bytes), (0, 0, head), "{number}");
        add(&records, &index, FILES[0]);
        assert_eq!(defined(&records, &index), expected(1));
    }
    let mut rows = Rows::default();
    assert!(rows.add(&frame(&["a"], vec![sound()]), &[0]).is_some(), "the sound one is not refused");
    assert!(rows.add(&frame(&["a"], vec![]), &[]).is_none(), "a name is there already");
}

#[test]
fn only_what_stays_so_is_recorded() {
    let index = Index::in_memory().expect("an index");
    let records = Records::in_memory();
    for (with, is_recorded) in [
        (Skipped::TooLarge, true),
        (Skipped::Hazardous, true),
        (Skipped::TooMany, true),
        (Skipped::TooSlow, false),
        (Skipped::NoAnswer, false),
        (Skipped::NoThread, false),
        (Skipped::Unsupported, false),
    ] {
        let content = with.to_string();
        let blob = index.number(oid(content.as_bytes()));
        let added = records.add((blob, oid(content.as_bytes())), rust(), content.as_bytes(), &Err(with));
        assert_eq!(added.expect("added"), is_recorded, "{with:?}");
        assert_eq!(records.has(blob, rust()), is_recorded, "{with:?}: before the commit");
        records.commit().expect("committed");
        assert_eq!(records.has(blob, rust()), is_recorded, "{with:?}");
        assert_eq!(records.defined(blob, rust()), is_recorded.then_some(None), "{with:?}");
        assert!(records.named(blob, rust()).is_none());
    }
    assert_eq!((records.figures().files, records.figures().untold_files), (3, 3));
    // Definitions that are not in the content, or take more than it.
    let symbol = |name| Symbol { name, kind: SymbolKind::Function, line: 0, parent: None };
    for told in [vec![symbol(2..9)], vec![symbol(0..3), symbol(1..4)]] {
        assert!(!records.add((99, oid(b"abcd")), rust(), b"abcd", &Ok(told)).expect("added"));
    }
}

#[test]
fn a_search_knows_the_records_of_its_beginning_alone() {
    let index = Index::in_memory().expect("an index");
    let records = Records::in_memory();
    let old = add(&records, &index, FILES[0]);
    let pattern = matcher("new", false, true);
    let before = records.find(&pattern, None).expect("found");
    let newer = add(&records, &index, FILES[2]);
    assert_eq!(records.defines(&before, old, rust()), Some(true));
    assert_eq!(records.defines(&before, newer, rust()), None, "it came later");
    let after = records.find(&pattern, None).expect("found");
    assert_eq!(records.defines(&after, newer, rust()), Some(true));
    let other = records.find(&matcher("newer", false, true), None).expect("found");
    assert_eq!(
        (records.defines(&other, old, rust()), records.defines(&other, newer, rust())),
        (Some(false), Some(true))
    );
    let python = Language::from_name("python").expect("Python");
    assert_eq!(records.defines(&after, newer, python), None, "in another language it may define something else");
}

#[test]
fn records_end_at_the_limit_of_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut records, index) = opened(folder.path(), VERSION);
    records.resident_bytes_max = records.figures().resident_bytes;
    add(&records, &index, FILES[0]);
    assert!(records.is_full());
    add(&records, &index, FILES[2]);
    assert_eq!(defined(&records, &index), expected(1), "what is beyond it is not taken up");
    drop((records, index));
    let (records, index) = opened(folder.path(), VERSION);
    assert_eq!(defined(&records, &index), expected(1));
}

#[test]
fn suggested_names_are_those_in_scope() {
    let index = Index::in_memory().expect("an index");
    let records = Records::in_memory();
    let blobs: Vec<BlobNo> = FILES.iter().map(|content| add(&records, &index, content)).collect();
    let names = |prefix: &str, scope: &[BlobNo], limit| {
        let (mut found, number) = (Vec::new(), |blob| records.number(blob, rust()).expect("a record"));
        let scope: Vec<_> = scope.iter().map(|blob| number(*blob)).collect();
        records.names_with_prefix(prefix, |record| scope.contains(&record), limit, None, &mut found).expect("names");
        found
    };
    let owned =
        |names: &[(&str, usize)]| names.iter().map(|(name, files)| ((*name).to_owned(), *files)).collect::<Vec<_>>();
    assert_eq!(names("ne", &blobs, 9), owned(&[("new", 2), ("newer", 1)]));
    assert_eq!(names("ne", &blobs, 1), owned(&[("new", 2)]));
    assert_eq!(names("ne", &blobs[..1], 9), owned(&[("new", 1)]));
    assert_eq!(names("p", &blobs, 9), owned(&[("Point", 1)]));
    assert_eq!(names("P", &blobs, 9), owned(&[("Point", 1)]));
    assert_eq!(names("N", &blobs, 9), []);
    let all: BTreeSet<String> = names("", &blobs, 9).into_iter().map(|(name, _)| name).collect();
    assert_eq!(all.len(), 5);
    assert_eq!(names("", &[], 9), []);
}
