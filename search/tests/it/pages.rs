//! Pages: each file once, whatever ends one: the query's own count, the time, too many bytes. Cursors that no search gave.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use govc_engine::{ErrorKind, Result};
use govc_search::{
    CommitCursor, Cursor, Definer, FindOptions, Found, Partial, Place, find,
    language::Language,
    query::Query,
    symbols::{Skipped, Symbol},
};

use super::world::{World, all_pages, create, place, put, query_of};

#[test]
fn pages_are_all_of_it_once() {
    let world = World::new();
    let files: Vec<(String, Vec<u8>)> = (0..700)
        .map(|number| {
            let folder = ["src", "tests", "docs", "vendor/x"][number % 4];
            (format!("{folder}/file{number}.rs"), format!("fn number{number}() {{ common(); }}\n").into_bytes())
        })
        .collect();
    world.commit("main", files.iter().map(|(path, data)| put(path, data)).collect());
    let places = [world.place("HEAD")];
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
        }
        let (paths, total, matches) = all_pages(&world.corpus, &query_of("common"), &places, 33);
        assert_eq!((paths.len(), total, matches), (700, 700, 700));
        let counted = world.find("common count:all", "HEAD");
        assert_eq!((counted.files.len(), counted.total_files, counted.is_exact), (50, 700, true));
        assert!(counted.files.iter().all(|file| file.path.starts_with(b"src/")), "sources first");
        let some = world.find("common count:10", "HEAD");
        assert_eq!((some.files.len(), some.partial.map(govc_search::Partial::as_str)), (10, Some("count")));
        let (directories, total, _) = all_pages(&world.corpus, &query_of("common select:directory"), &places, 1);
        assert_eq!((directories.len(), total), (4, 4));
    }
    // A cursor is of its query.
    let next = world.find("common", "HEAD").next.expect("there is more");
    let options = FindOptions { cursor: Some(next), ..FindOptions::default() };
    assert!(find(&world.corpus, &query_of("number"), &places, &options).is_err());
}

#[test]
fn a_page_goes_on_after_an_indexing() {
    let world = World::new();
    let files = (0..600).map(|number| put(&format!("f{number}.rs"), format!("common {number}\n").as_bytes()));
    world.commit("main", files.collect());
    let places = [world.place("HEAD")];
    let query = query_of("common");
    let first =
        find(&world.corpus, &query, &places, &FindOptions { files_max: 300, ..FindOptions::default() }).expect("found");
    world.index();
    let options = FindOptions { files_max: 400, cursor: first.next, ..FindOptions::default() };
    let second = find(&world.corpus, &query, &places, &options).expect("found");
    let paths: BTreeSet<_> = first.files.iter().chain(&second.files).map(|file| file.path.clone()).collect();
    assert_eq!((paths.len(), second.next.is_none()), (600, true));
}

/// The paths of all pages of `options`, each of which must come once, and the last page. A page that says nothing of a
/// deadline must bring something or be the last.
fn paths_of_pages(world: &World, query: &Query, options: &FindOptions) -> (BTreeSet<Vec<u8>>, Found) {
    let places = [world.place("HEAD")];
    let (mut paths, mut cursor) = (BTreeSet::new(), None);
    loop {
        let found = find(&world.corpus, query, &places, &FindOptions { cursor, ..options.clone() }).expect("found");
        assert!(found.files.len() <= options.files_max);
        for file in &found.files {
            assert!(paths.insert(file.path.clone()), "{:?} comes twice", String::from_utf8_lossy(&file.path));
        }
        let Some(next) = found.next.clone() else { return (paths, found) };
        assert!(!found.files.is_empty(), "a page of nothing");
        cursor = Some(next);
    }
}

#[test]
fn pages_add_up_to_the_count_that_the_query_asks_for() {
    let world = World::new();
    let files = (0..320).map(|number| put(&format!("f{number}.rs"), format!("common {number}\n").as_bytes()));
    world.commit("main", files.collect());
    // Below, at and above a page of 33 files, and what is ranked together; all that there is, and more.
    for count in [1, 32, 33, 34, 256, 257, 300, 320, 1000] {
        let query = query_of(&format!("common count:{count}"));
        let options = FindOptions { files_max: 33, ..FindOptions::default() };
        let (paths, last) = paths_of_pages(&world, &query, &options);
        assert_eq!((paths.len(), last.total_files), (count.min(320), count.min(320) as u64), "count:{count}");
        let is_reached = count <= 320;
        assert_eq!((last.partial, last.is_exact), (is_reached.then_some(Partial::Count), !is_reached), "count:{count}");
    }
    // What stands for a directory is counted once.
    let query = query_of("common select:directory count:2");
    world.put("main", &[("a/f.rs", b"common\n"), ("b/f.rs", b"common\n"), ("b/g.rs", b"common\n")]);
    let (paths, last) = paths_of_pages(&world, &query, &FindOptions { files_max: 1, ..FindOptions::default() });
    assert_eq!((paths.len(), last.total_files), (2, 2));
}

/// The bytes of a cursor's text.
fn bytes(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).expect("digits")).collect()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long the fingerprint of a cursor is, in bytes: the first number, of seven bits a byte.
fn fingerprint_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte < 0x80).expect("a number") + 1
}

/// A cursor with the fingerprint of `given` and anything behind it.
fn forged(given: &Cursor, rest: &[&[u8]]) -> Result<Cursor> {
    let given = bytes(&given.encode());
    Cursor::decode(&text(&[&given[..fingerprint_len(&given)], &rest.concat()].concat()))
}

/// The largest numbers of 32 and 64 bits as a cursor has them.
const MAX_32: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f];
const MAX_64: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];

#[track_caller]
fn refused<T>(result: Result<T>, part: &str) {
    let error = result.err().expect("refused");
    assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains(part), "{error}");
}

#[test]
fn cursors_that_no_search_gave_are_refused() {
    let world = World::new();
    world.commit("main", (0..9).map(|number| put(&format!("f{number}.rs"), b"common\n")).collect());
    let (query, places) = (query_of("common"), [world.place("HEAD")]);
    let options = FindOptions { files_max: 4, ..FindOptions::default() };
    let next = find(&world.corpus, &query, &places, &options).expect("found").next.expect("more");
    let given = next.encode();
    assert_eq!(Cursor::decode(&given).expect("the same"), next);
    let mut texts: Vec<String> = (0..given.len()).map(|end| given[..end].to_owned()).collect();
    texts.extend(["zz", "+1", "\u{e9}", "v1.2", "0x00"].map(str::to_owned));
    texts.extend([given.replace('0', "g"), given[1..].to_owned(), "0".repeat(64 << 20), "f".repeat(100_000)]);
    for text in &texts {
        refused(Cursor::decode(text), "not one that a search has given");
    }
    refused(CommitCursor::decode(&"0".repeat(64 << 20)), "not one that a search has given");
    // A path that is said to be longer than all memory.
    refused(forged(&next, &[&[1, 0, 0], MAX_64]), "not one that a search has given");

    // Those of other queries, commits and repositories.
    let with = |query: &str, places: &[Place]| {
        find(&world.corpus, &query_of(query), places, &FindOptions { cursor: Some(next.clone()), ..options.clone() })
    };
    assert_eq!(with("common", &places).expect("its own").files.len(), 4);
    refused(with("commons", &places), "another query");
    refused(with("common case:yes", &places), "another query");
    let other = create(&world.store, "other");
    super::world::commit(&other, "main", (0..9).map(|number| put(&format!("f{number}.rs"), b"common\n")).collect());
    refused(with("common", &[place(&other, "HEAD")]), "another query");
    refused(with("common", &[places[0].clone(), place(&other, "HEAD")]), "another query");
    world.put("main", &[("new.rs", b"common\n")]);
    refused(with("common", &[world.place("HEAD")]), "another query");
}

#[test]
fn forged_cursors_get_no_more_than_a_page() {
    let world = World::new();
    let files = (0..1100).map(|number| put(&format!("f{number:04}.rs"), format!("common {number}\n").as_bytes()));
    world.commit("main", files.collect());
    let (query, places) = (query_of("common"), [world.place("HEAD")]);
    let page = |cursor: Option<Cursor>, files_max: usize| {
        let options = FindOptions { files_max, lines_max: 1, cursor, ..FindOptions::default() };
        find(&world.corpus, &query, &places, &options).expect("found")
    };
    let first = page(None, usize::MAX);
    assert_eq!(first.files.len(), 1000, "a page has a thousand files at most");
    let next = first.next.expect("more");
    assert_eq!(page(Some(next.clone()), usize::MAX).files.len(), 100);

    // A window over everything, as if it had been given.
    let whole = forged(&next, &[&[0, 1, 3, 0, 1, b'z', 1, 0, 0, 0]]).expect("a cursor");
    let found = page(Some(whole), usize::MAX);
    assert_eq!((found.files.len(), found.next), (1000, None));
    // Numbers that add up to more than there is room for.
    let many = forged(&next, &[&[0, 0], MAX_32, MAX_64, MAX_64]).expect("a cursor");
    let found = page(Some(many), 10);
    assert_eq!((found.files.len(), found.total_files, found.total_matches), (0, u64::MAX, u64::MAX));
    // A place that is not searched.
    let nowhere = forged(&next, &[&[1, 0], MAX_32, &[0, 0, 0, 0, 0]]).expect("a cursor");
    assert_eq!(page(Some(nowhere), 10).files.len(), 0);
}

#[test]
fn no_forged_cursor_gets_a_file_twice() {
    let world = World::new();
    let paths = ["a.rs", "b/c.rs", "d.md", "tests/e.rs", "vendor/f.rs", "g.rs"];
    world.commit("main", paths.iter().map(|path| put(path, b"common common\n")).collect());
    let (query, places) = (query_of("common"), [world.place("HEAD")]);
    let find =
        |cursor| find(&world.corpus, &query, &places, &FindOptions { files_max: 2, cursor, ..FindOptions::default() });
    let mut given = Vec::new();
    let mut cursor = None;
    while let Some(next) = find(cursor).expect("found").next {
        given.push(next.clone());
        cursor = Some(next);
    }
    assert!(given.len() >= 2);
    for given in given {
        let given = bytes(&given.encode());
        for at in fingerprint_len(&given)..given.len() {
            for byte in (0..8).map(|bit| given[at] ^ 1 << bit).chain([0, 0x7f, 0xff]) {
                let mut changed = given.clone();
                changed[at] = byte;
                let Ok(cursor) = Cursor::decode(&text(&changed)) else { continue };
                let found = find(Some(cursor)).expect("an answer");
                let distinct: BTreeSet<_> = found.files.iter().map(|file| &file.path).collect();
                assert_eq!(distinct.len(), found.files.len(), "{changed:x?}");
                assert!(found.files.len() <= 2, "{changed:x?}");
            }
        }
    }
}

/// Never tells what a file defines, so that it is asked each time, and takes all the time that is left when it is asked
/// for the given times.
struct Slow {
    asked: AtomicUsize,
    stops: &'static [usize],
    deadline: Mutex<Option<Instant>>,
}

impl Definer for Slow {
    fn definitions(&self, _: Language, _: &[u8]) -> std::result::Result<Vec<Symbol>, Skipped> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let deadline = *self.deadline.lock().expect("not poisoned");
        if let Some(deadline) = deadline.filter(|_| self.stops.contains(&number)) {
            thread::sleep(deadline.saturating_duration_since(Instant::now()));
        }
        Err(Skipped::NoAnswer)
    }
}

#[test]
fn what_the_deadline_cut_off_is_gone_on_with() {
    // After 25 files; after ten of these, when they are gone through for their next page; after 25 more.
    let definer = Arc::new(Slow { asked: AtomicUsize::new(0), stops: &[25, 35, 110], deadline: Mutex::new(None) });
    let world = World::with_definer(definer.clone());
    let files =
        (0..60).map(|number| put(&format!("f{number}.rs"), format!("fn common() {{}} // {number}\n").as_bytes()));
    world.commit("main", files.collect());
    let (query, places) = (query_of("common OR sym:common"), [world.place("HEAD")]);
    let (mut cursor, mut paths, mut cuts) = (None, BTreeSet::new(), 0);
    let last = loop {
        let deadline = Some(Instant::now() + Duration::from_millis(300));
        *definer.deadline.lock().expect("not poisoned") = deadline;
        let options = FindOptions { files_max: 10, cursor: cursor.clone(), deadline, ..FindOptions::default() };
        let found = find(&world.corpus, &query, &places, &options).expect("an answer");
        for file in &found.files {
            assert!(paths.insert(file.path.clone()), "{:?} comes twice", String::from_utf8_lossy(&file.path));
        }
        let is_cut = found.partial == Some(Partial::Deadline);
        cuts += u32::from(is_cut);
        let Some(next) = found.next.clone() else { break found };
        assert_eq!((found.partial.is_some(), found.is_exact), (is_cut, false), "there is more");
        assert!(is_cut || !found.files.is_empty(), "a page of nothing");
        cursor = Some(next);
    };
    assert_eq!((paths.len(), last.total_files, last.total_matches, last.is_exact), (60, 60, 60, true));
    assert!(cuts >= 2, "the time was over {cuts} times");
}

#[test]
fn a_page_that_becomes_too_large_ends_early_and_says_so() {
    let world = World::new();
    // A line with all its neighbours is about a megabyte.
    let long = |name: &str| format!("needle of {name} {}\n", "x".repeat(10_000)).repeat(100);
    let names = ["a.rs", "b.rs", "c.rs", "d.rs", "e.rs"];
    world.commit("main", names.iter().map(|name| put(name, long(name).as_bytes())).collect());
    let (query, places) = (query_of("needle"), [world.place("HEAD")]);
    let (mut cursor, mut paths, mut early) = (None, BTreeSet::new(), 0);
    let options = FindOptions { lines_max: 7, context_lines: 100, ..FindOptions::default() };
    loop {
        let found = find(&world.corpus, &query, &places, &FindOptions { cursor, ..options.clone() }).expect("found");
        let bytes = found.files.iter().flat_map(|file| &file.lines).fold(0, |sum, line| {
            sum + line.content.len() + line.before.iter().chain(&line.after).map(String::len).sum::<usize>()
        });
        assert!(bytes <= 16 << 20, "{bytes}");
        for file in &found.files {
            assert_eq!(file.lines.len(), 7, "a file that is shown is shown with its lines");
            assert!(paths.insert(file.path.clone()));
        }
        assert_eq!((found.total_files, found.total_matches, found.is_exact), (5, 500, true));
        early += usize::from(found.partial == Some(Partial::Size));
        assert_eq!(found.partial.is_some(), found.next.is_some());
        let Some(next) = found.next else { break };
        cursor = Some(next);
    }
    assert_eq!((paths.len(), early), (5, 2));

    // Of a single file that is too large, some lines are left out.
    let options = FindOptions { lines_max: 100, files_max: 1, ..options };
    let found = find(&world.corpus, &query, &places, &options).expect("found");
    assert_eq!((found.files.len(), found.partial, found.next.is_some()), (1, Some(Partial::Size), true));
    assert!((1..100).contains(&found.files[0].lines.len()));
    let (paths, last) = paths_of_pages(&world, &query, &FindOptions { files_max: 50, ..options });
    assert_eq!((paths.len(), last.total_files, last.partial), (5, 5, Some(Partial::Size)));
}
