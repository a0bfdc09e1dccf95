//! Commits by what they say, against a scan of each commit of a walk: histories of any shape, whatever of them is indexed.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use govc_engine::{Cause, Commit, ErrorKind, Kind, Oid, Repo};
use govc_search::{
    CommitCursor, CommitOptions, CommitsFound, Corpus, GroupBy, Indexer, Interval, Partial, Place, Search,
    SearchOptions, aggregate, find_commits, places,
    query::{Atom, Expr, Pattern, Query},
};

use super::{
    past::{Past, entries},
    world::{create, place, point, publish, query_of},
};

/// Who writes: names as stored, of any bytes.
pub(super) const AUTHORS: [&[u8]; 6] =
    [b"Ann Lee <ann@example.org>", b"Bob <bob@fix.example>", b"\xff\xfe <x@y>", b"no address", b"<>", b"ann <BOB@z>"];
/// Messages that a history may have anywhere.
pub(super) const HOSTILE: [&[u8]; 8] = [
    b"",
    b"\n\n\n",
    b"fix\0 a leak",
    b"\0\0\0\xff\xfe fix",
    b"Ann Lee <ann@example.org>\nfix",
    b"\r\nfix\r\n",
    b"fi\nx",
    b"\xe2\x84\xaaelvin",
];
pub(super) const QUERIES: [&str; 31] = [
    "fix",
    "Fix",
    "case:yes message:fix",
    "message:\"memory leak\"",
    "fix OR merge",
    "fix leak",
    "fix -leak",
    "-fix",
    "NOT (fix OR merge)",
    "(fix OR author:bob) -author:ann",
    "fi",
    "x",
    "/f.x/",
    "/^fix/",
    "/leak$/",
    r"/\Afix/",
    r"/fix\z/",
    "/[0-9]+/",
    "/fix|leak [0-9]/",
    "author:ann",
    "ann",
    "author:bob fix",
    "author:/^Bob <.*>$/",
    "-author:ann leak",
    "before:@150",
    "after:@150 fix",
    "after:@100 before:@101",
    "fix OR before:@60",
    "kelvin",
    "nowhere_qzx",
    "repo:demo fix OR repo:fork leak",
];

/// Adds a commit to the repository and points a branch at it.
pub(super) fn say(
    past: &Past,
    repo: &Repo,
    branch: &str,
    parents: &[Oid],
    (author, seconds): (&[u8], i64),
    message: &[u8],
) -> Oid {
    let mut transaction = repo.begin("test", Cause::Push);
    let tree = transaction.put(Kind::Tree, Bytes::from(entries(&[]))).expect("a tree");
    let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
    let head = format!("tree {tree}\n{parents}author ");
    let committer = format!(" 7 +0000\ncommitter Carl <carl@x> {seconds} +0000\n\n");
    let data = [head.as_bytes(), author, committer.as_bytes(), message].concat();
    let oid = transaction.put(Kind::Commit, Bytes::from(data)).expect("a commit");
    point(&mut transaction, branch, oid);
    publish(transaction);
    assert!(past.store.repo(&repo.name()).is_ok());
    oid
}

fn matches(pattern: &Pattern, text: &[u8]) -> bool {
    let source = if pattern.regex { pattern.text.clone() } else { regex_syntax::escape(&pattern.text) };
    let mut regex = regex::bytes::RegexBuilder::new(&source);
    let regex = regex.case_insensitive(!pattern.case_sensitive).multi_line(true).build().expect("a regex");
    let is_whole = source.contains(r"\A") || source.contains(r"\z");
    let mut lines = text.split(|byte| !is_whole && *byte == b'\n');
    lines.any(|line| regex.find_iter(line).any(|found| !found.is_empty()))
}

fn author(commit: &Commit) -> Vec<u8> {
    [&commit.author.name[..], b" <", &commit.author.email, b">"].concat()
}

fn holds(expr: &Expr, place: &Place, commit: &Commit) -> bool {
    match expr {
        Expr::Const(holds) => *holds,
        Expr::And(parts) => parts.iter().all(|part| holds(part, place, commit)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, place, commit)),
        Expr::Not(inner) => !holds(inner, place, commit),
        Expr::Atom(Atom::Text(pattern) | Atom::Message(pattern)) => matches(pattern, &commit.message),
        Expr::Atom(Atom::Author(pattern)) => matches(pattern, &author(commit)),
        Expr::Atom(Atom::Repo(pattern)) => matches(pattern, place.repo.as_bytes()),
        Expr::Atom(Atom::Before(seconds)) => commit.committer.seconds < *seconds,
        Expr::Atom(Atom::After(seconds)) => commit.committer.seconds >= *seconds,
        Expr::Atom(other) => panic!("{other:?} is not asked"),
    }
}

/// What a scan of each commit finds, in the order of a walk.
fn scan(places: &[Place], query: &Query) -> Vec<(Oid, Commit)> {
    let mut found = Vec::new();
    for group in places.chunk_by(|left, right| left.repo == right.repo) {
        let mut walk = group[0].snapshot.walk();
        group.iter().for_each(|place| walk.follow(place.commit).expect("a commit"));
        for met in walk {
            let (oid, _) = met.expect("a commit");
            let commit = group[0].snapshot.commit(&oid).expect("a commit");
            if holds(&query.expr, &group[0], &commit) {
                found.push((oid, commit));
            }
        }
    }
    found
}

fn options(commits_max: usize, cursor: Option<CommitCursor>) -> CommitOptions {
    CommitOptions { commits_max, cursor, group_by: None, deadline: None }
}

pub(super) fn ask(corpus: &Corpus, query: &str, places: &[Place]) -> CommitsFound {
    find_commits(corpus, &query_of(&format!("type:commit ({query})")), places, &options(10, None)).expect("found")
}

/// What is found page by page, compared with a scan.
pub(super) fn check(corpus: &Corpus, text: &str, places: &[Place], page: usize) {
    let query = query_of(&format!("type:commit ({text})"));
    let expected = scan(places, &query);
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let answer = find_commits(corpus, &query, places, &options(page, cursor)).expect("found");
        assert_eq!(answer.partial, None, "{text}");
        found.extend(answer.commits.iter().map(|hit| (hit.oid, hit.commit.clone())));
        let Some(next) = answer.next else {
            assert!(answer.is_exact, "{text}");
            assert_eq!(answer.total, expected.len() as u64, "{text}");
            break;
        };
        assert_eq!(answer.commits.len(), page, "{text}: a page that is not the last one is full");
        cursor = Some(CommitCursor::decode(&next.encode()).expect("the same cursor"));
    }
    assert_eq!(found, expected, "{text}, {page} a page");
    let by = |by: GroupBy| {
        let counted = aggregate(corpus, &query, places, by, 1000, None).expect("counted");
        assert_eq!((counted.total, counted.is_exact), (expected.len() as u64, true), "{text}");
        counted.groups.into_iter().map(|group| (group.value, group.results)).collect::<BTreeMap<_, _>>()
    };
    let (mut authors, mut years) = (BTreeMap::new(), BTreeMap::new());
    for (_, commit) in &expected {
        *authors.entry(String::from_utf8_lossy(&author(commit)).into_owned()).or_default() += 1;
        let year = 1970 + commit.committer.seconds.div_euclid(365 * 86_400 + 21_600);
        *years.entry(format!("{year:04}")).or_default() += 1;
    }
    assert_eq!(by(GroupBy::Author), authors, "{text}");
    assert_eq!(by(GroupBy::Time(Interval::Year)), years, "{text}");
}

/// The places that a query without `branch:` and `rev:` is to search of some repositories: main, and all topics.
pub(super) fn places_of(repos: &[Repo], options: &str) -> Vec<Place> {
    let query = query_of(&format!("type:commit {options} x"));
    let of = |repo: &Repo| places(repo, &repo.snapshot(), &query.options, true, None).expect("places");
    repos.iter().flat_map(of).collect()
}

fn seen(past: &Past) -> u64 {
    past.corpus.figures().messages
}

#[test]
fn the_index_rules_commits_out_and_what_was_looked_at_is_remembered() {
    let past = Past::new();
    let mut tip = Vec::new();
    for number in 0..1500_i64 {
        let message = if number % 500 == 7 { "a rare word\n" } else { "fix something ordinary\n" };
        tip = vec![say(
            &past,
            &past.repo,
            "main",
            &tip,
            (AUTHORS[number as usize % 2], 100 + number),
            message.as_bytes(),
        )];
    }
    let places = [place(&past.repo, "main")];
    let looked = |query: &str| {
        let found = ask(&past.corpus, query, &places);
        let all = find_commits(
            &past.corpus,
            &query_of(&format!("type:commit {query} count:all")),
            &places,
            &options(1, None),
        );
        (found.total, found.commits_read, all.expect("found").total)
    };
    assert_eq!(looked("rare"), (3, 1500, 3), "all are read");
    past.index();
    assert_eq!((seen(&past), past.corpus.presence_figures().commits), (1500, 1500));
    assert_eq!(past.corpus.figures().blobs, 0, "messages are not files");
    assert_eq!(looked("rare"), (3, 3, 3));
    assert_eq!(looked("rare"), (3, 0, 3), "it is remembered");
    assert_eq!(looked("nowhere_qzx"), (0, 0, 0));
    assert_eq!(looked("-rare after:@200 before:@210"), (10, 0, 10));
    assert_eq!(looked("after:@200 before:@210"), (10, 0, 10));
    assert_eq!(looked("fix"), (10, 10, 1497), "a page costs what it shows");
    assert_eq!(looked("author:bob rare"), (3, 3, 3));
    // What comes now is found at once, though it is not indexed.
    say(&past, &past.repo, "main", &tip, (AUTHORS[0], 5000), b"one more rare word");
    let places = [place(&past.repo, "main")];
    assert_eq!(ask(&past.corpus, "rare", &places).total, 4);
}

#[test]
fn messages_of_any_bytes_are_found_as_they_are() {
    let past = Past::new();
    let long = [vec![b'a'; 5 << 20], b" fix ".to_vec(), vec![b'b'; 1 << 20]].concat();
    let lines = b"a line of it\n".repeat(2000);
    let many = [&lines[..], b"the fix is here\n", &lines].concat();
    let mut tip = Vec::new();
    for (number, message) in HOSTILE.iter().copied().chain([&long[..], &many]).enumerate() {
        let by = (AUTHORS[number % AUTHORS.len()], -500 + 100 * number as i64);
        tip = vec![say(&past, &past.repo, "main", &tip, by, message)];
    }
    let places = [place(&past.repo, "main")];
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
            assert_eq!(seen(&past), 10);
        }
        for query in QUERIES {
            check(&past.corpus, query, &places, 3);
        }
        let whole = ask(&past.corpus, "/a fix b/", &places);
        assert_eq!((whole.total, whole.commits[0].message_matches.len()), (1, 1));
        assert_eq!(whole.commits[0].message_matches[0], (5 << 20) - 1..(5 << 20) + 6);
        assert_eq!(ask(&past.corpus, r"author:/\A <>\z/", &places).total, 1);
    }
}

#[test]
fn only_what_is_searched_is_told() {
    let past = Past::new();
    let first = say(&past, &past.repo, "main", &[], (AUTHORS[0], 100), b"begin");
    say(&past, &past.repo, "hidden", &[first], (AUTHORS[1], 200), b"the hidden fix");
    let other = create(&past.store, "other");
    say(&past, &other, "main", &[], (AUTHORS[1], 300), b"another hidden fix");
    past.index();
    assert_eq!(seen(&past), 3);
    let places = [place(&past.repo, "main")];
    for (query, read) in [("hidden", 0), ("fix", 0), ("author:bob", 0), ("NOT begin", 1), ("after:@150", 0)] {
        let found = ask(&past.corpus, query, &places);
        assert_eq!((found.total, found.commits_read, found.is_exact), (0, read, true), "{query}");
    }
    // A file that a tree names by a commit's id is not what the commit says.
    let tree = entries(&[("f", govc_engine::EntryMode::BLOB, first)]);
    let id = govc_engine::hash_object(super::FORMAT, Kind::Tree, &tree).expect("an id");
    let commit = super::past::commit(id, &[], 400, "a commit for a file");
    past.publish("odd", vec![(Kind::Tree, tree), (Kind::Commit, commit)]);
    past.index();
    let found = govc_search::find(&past.corpus, &query_of("begin"), &[place(&past.repo, "odd")], &Default::default());
    assert!(found.is_err() || found.is_ok_and(|found| found.total_files == 0));
}

#[test]
fn what_lacks_after_a_crash_is_added() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut past = Past::with(Some(folder.path()));
    let mut tip = Vec::new();
    for number in 0..40 {
        let message = format!("fix {number}");
        tip = vec![say(&past, &past.repo, "main", &tip, (AUTHORS[0], number), message.as_bytes())];
    }
    past.index();
    let places = [place(&past.repo, "main")];
    let check_all =
        |past: &Past| ["fix", "/fix .?7/", "author:ann 12"].map(|query| check(&past.corpus, query, &places, 7));
    let stored = past.corpus.figures();
    past.reopen(|_| {});
    past.index();
    assert_eq!((seen(&past), past.corpus.figures().log_bytes), (40, stored.log_bytes), "nothing is added twice");
    check_all(&past);
    // Presence was committed and the index not.
    past.reopen(without_index);
    assert_eq!((seen(&past), past.corpus.presence_figures().commits), (0, 40));
    check_all(&past);
    past.index();
    assert_eq!(seen(&past), 40);
    check_all(&past);
    assert_eq!(ask(&past.corpus, "/fix 3[0-4]$/", &places).commits_read, 5, "they are candidates");
    // The other way round.
    past.reopen(|folder| fs::remove_file(folder.join("history")).expect("removed"));
    assert_eq!((seen(&past), past.corpus.presence_figures().commits), (40, 0));
    check_all(&past);
    past.index();
    assert_eq!((seen(&past), past.corpus.presence_figures().commits), (40, 40));
    check_all(&past);
    // Texts behind the end were never committed.
    past.reopen(|folder| {
        let path = folder.join("messages-0000000000000000");
        let bytes = fs::read(&path).expect("texts");
        fs::write(path, [&bytes[..], b"half a message"].concat()).expect("written");
    });
    assert_eq!((seen(&past), past.corpus.figures().message_bytes), (40, stored.message_bytes));
    check_all(&past);
}

/// Removes the index in a folder, but for the presence index.
pub(super) fn without_index(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.file_name().is_some_and(|name| name == "history") {
            true => {}
            false if path.is_dir() => fs::remove_dir_all(path).expect("removed"),
            false => fs::remove_file(path).expect("removed"),
        }
    }
}

#[test]
fn a_damaged_index_of_messages_is_said_to_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut past = Past::with(Some(folder.path()));
    say(&past, &past.repo, "main", &[], (AUTHORS[0], 1), b"fix");
    past.index();
    past.corpus = Arc::new(Corpus::in_memory(1 << 20, None).expect("corpus"));
    fs::write(folder.path().join("messages-0000000000000000"), b"short").expect("written");
    let error = Corpus::open(folder.path(), 1 << 20, None).err().expect("damaged");
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
}

#[test]
fn an_index_that_is_made_anew_has_the_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let past = Past::new();
    let first = say(&past, &past.repo, "main", &[], (AUTHORS[0], 1), b"fix");
    let open = || {
        let options = SearchOptions { folder: Some(folder.path().to_owned()), ..SearchOptions::default() };
        Search::open(past.store.clone(), options).expect("open")
    };
    let wait = |search: &Search, messages: u64| {
        while search.status().figures.messages < messages {
            assert_eq!(search.status().last_error, None);
            std::thread::yield_now();
        }
    };
    let search = open();
    wait(&search, 1);
    say(&past, &past.repo, "main", &[first], (AUTHORS[1], 2), b"fix again");
    let places = [place(&past.repo, "main")];
    check(&search.corpus(), "fix", &places, 1);
    wait(&search, 2);
    check(&search.corpus(), "fix", &places, 1);
    assert!(search.rebuild());
    while search.status().rebuilds == 0 {
        std::thread::yield_now();
    }
    assert_eq!(search.status().figures.messages, 2);
    check(&search.corpus(), "fix", &places, 1);
    drop(search);
    let search = open();
    assert_eq!(search.status().figures.messages, 2, "at once");
    check(&search.corpus(), "fix", &places, 1);
}

#[test]
fn a_history_that_cannot_be_read_is_left_out_of_many() {
    let past = Past::new();
    let missing = Oid::from_hex(&vec![b'2'; super::FORMAT.hex_len()]).expect("an id");
    say(&past, &past.repo, "main", &[], (AUTHORS[0], 1), b"fix one");
    let broken = create(&past.store, "broken");
    let lost = say(&past, &broken, "main", &[missing], (AUTHORS[0], 9), b"fix of the lost");
    say(&past, &broken, "main", &[lost], (AUTHORS[0], 10), b"fix two");
    let odd = create(&past.store, "odd");
    let mut transaction = odd.begin("test", Cause::Push);
    let oid = transaction
        .put(Kind::Commit, Bytes::from(format!("tree {}\nfix\n", super::FORMAT.empty_tree())))
        .expect("a commit");
    point(&mut transaction, "main", oid);
    publish(transaction);
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        let places = [place(&past.repo, "main"), place(&broken, "main"), place(&odd, "main")];
        for page in [2, 3, 10] {
            let found = find_commits(&past.corpus, &query_of("type:commit fix"), &places, &options(page, None));
            let found = found.expect("found");
            assert_eq!((found.commits.len(), found.total), (2, 2), "{page}");
            match page {
                2 => assert!(found.next.is_some(), "a full page"),
                _ => {
                    assert_eq!((found.partial, found.is_exact), (Some(Partial::Unreadable), false));
                    assert_eq!(found.next, None, "no page of nothing");
                }
            }
        }
        for alone in [&broken, &odd] {
            let found =
                find_commits(&past.corpus, &query_of("type:commit fix"), &[place(alone, "main")], &options(9, None));
            assert!(found.is_err(), "{}", alone.name());
        }
    }
}

#[test]
fn time_that_is_over_is_gone_on_from() {
    let past = Past::new();
    let mut tip = Vec::new();
    for number in 0..700 {
        tip = vec![say(&past, &past.repo, "main", &tip, (AUTHORS[0], number), b"fix")];
    }
    let places = [place(&past.repo, "main")];
    for is_indexed in [false, true] {
        if is_indexed {
            past.index();
        }
        let query = query_of("type:commit fix count:all");
        let mut options = CommitOptions { deadline: Some(Instant::now()), ..options(1, None) };
        let late = find_commits(&past.corpus, &query, &places, &options).expect("found");
        assert_eq!((late.partial, late.total, late.is_exact), (Some(Partial::Deadline), 0, false));
        // Ever more time: some of it ends in the midst.
        let mut micros = 1;
        let total = loop {
            options.deadline = Some(Instant::now() + std::time::Duration::from_micros(micros));
            let found = find_commits(&past.corpus, &query, &places, &options).expect("found");
            if found.partial.is_none() {
                break found.total;
            }
            options.cursor = found.next.or(options.cursor);
            micros *= 2;
        };
        assert_eq!(total, 700);
    }
}

#[test]
fn answers_are_exact_while_the_index_grows() {
    let past = Past::new();
    let is_over = AtomicBool::new(false);
    let indexer = || Indexer::new(past.store.clone(), past.corpus.clone(), Arc::default());
    let index = || {
        let mut indexer = indexer();
        while !is_over.load(Ordering::Relaxed) {
            indexer.index_all(&|| false).expect("indexed");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(index);
        let mut tip = Vec::new();
        for number in 1..=300 {
            tip = vec![say(&past, &past.repo, "main", &tip, (AUTHORS[0], number), b"fix\n")];
            let places = [place(&past.repo, "main")];
            for (query, total) in [("fix count:all", number), ("-fix count:all", 0), ("author:bob count:all", 0)] {
                let query = query_of(&format!("type:commit {query}"));
                let found = find_commits(&past.corpus, &query, &places, &options(1, None)).expect("found");
                if found.total != total as u64 {
                    is_over.store(true, Ordering::Relaxed);
                }
                assert_eq!((found.total, found.is_exact), (total as u64, true));
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    past.index();
    assert_eq!(seen(&past), 300);
}
