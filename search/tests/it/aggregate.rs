//! Counting what a query finds: the same as counting its results one by one, by each property.

use std::collections::BTreeMap;

use govc_engine::ErrorKind;
use govc_search::{
    Aggregate, Cursor, FindOptions, GroupBy, Interval, aggregate, find,
    language::Language,
    query::{Count, parse},
};

use super::world::{World, commit, create, place, put, query_of, request};

fn shown(counted: &Aggregate) -> Vec<(&str, u64, u64)> {
    counted.groups.iter().map(|group| (group.value.as_str(), group.results, group.matches)).collect()
}

#[test]
fn files_are_counted_as_if_one_by_one() {
    let world = World::new();
    let name = |number: usize| format!("d{}/e{}/f{number}.{}", number % 3, number % 2, ["rs", "c", "x"][number % 3]);
    let changes = (0..700).map(|number| put(&name(number), "needle here\n".repeat(1 + number % 4).as_bytes()));
    world.commit("main", changes.chain([put("top.md", b"needle\n"), put("none.md", b"hay\n")]).collect());
    let other = create(&world.store, "other");
    commit(&other, "main", vec![put("a.rs", b"needle\n")]);
    let places = [world.place("HEAD"), place(&other, "HEAD")];

    // More than a window of results, page by page.
    let query = query_of("needle");
    let mut expected: BTreeMap<(&str, String), (u64, u64)> = BTreeMap::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let options = FindOptions { files_max: 90, cursor, ..FindOptions::default() };
        let found = find(&world.corpus, &query, &places, &options).expect("found");
        for file in &found.files {
            let path = String::from_utf8(file.path.clone()).expect("a text");
            let parts: Vec<&str> = path.split_inclusive('/').collect();
            let directories = |depth: usize| parts[..depth.min(parts.len() - 1)].concat();
            let language = file.language.map_or("Other", Language::name);
            for (property, value) in [
                ("repository", file.repo.clone()),
                ("language", language.to_owned()),
                ("path 1", directories(1)),
                ("path 2", directories(2)),
            ] {
                let count = expected.entry((property, value)).or_default();
                *count = (count.0 + 1, count.1 + file.match_count);
            }
        }
        cursor = found.next;
        if cursor.is_none() {
            break;
        }
    }
    for is_indexed in [false, true] {
        if is_indexed {
            world.index();
        }
        for (property, by) in [
            ("repository", GroupBy::Repository),
            ("language", GroupBy::Language),
            ("path 1", GroupBy::Path(1)),
            ("path 2", GroupBy::Path(2)),
        ] {
            let mut groups: Vec<_> = expected
                .iter()
                .filter(|((of, _), _)| *of == property)
                .map(|((_, value), (files, matches))| (value.as_str(), *files, *matches))
                .collect();
            groups.sort_by_key(|(value, files, _)| (std::cmp::Reverse(*files), *value));
            // A query's own count changes nothing.
            for query in ["needle", "needle count:3"] {
                let counted = aggregate(&world.corpus, &query_of(query), &places, by, 100, None).expect("counted");
                assert_eq!(shown(&counted), groups, "{property}");
                assert_eq!((counted.total, counted.is_exact, counted.partial), (702, true, None));
                assert_eq!(counted.matches, groups.iter().map(|group| group.2).sum::<u64>());
                assert_eq!(counted.groups_total, groups.len());
            }
            let counted = aggregate(&world.corpus, &query, &places, by, 1, None).expect("counted");
            assert_eq!((shown(&counted), counted.groups_total), (groups[..1].to_vec(), groups.len()));
        }
    }
}

#[test]
fn commits_are_counted_by_author_and_time() {
    let world = World::new();
    let january = 1_609_459_200;
    for (message, seconds) in [("fix a", january), ("fix b", january + 40 * 86_400), ("fix c", january + 41 * 86_400)] {
        let committed = world.repo.commit(request("main", message, seconds, Vec::new())).expect("commit");
        committed.published.ticket.wait().expect("durable");
    }
    let place = world.place("HEAD");
    let counted =
        |query: &str, by| aggregate(&world.corpus, &query_of(query), std::slice::from_ref(&place), by, 10, None);
    let author = counted("type:commit fix", GroupBy::Author).expect("counted");
    assert_eq!(shown(&author), [("Test <test@example.com>", 3, 0)]);
    let months = counted("type:commit fix", GroupBy::Time(Interval::Month)).expect("counted");
    assert_eq!(shown(&months), [("2021-02", 2, 0), ("2021-01", 1, 0)]);
    assert_eq!((months.total, months.is_exact), (3, true));
    let one = counted("type:commit message:b", GroupBy::Repository).expect("counted");
    assert_eq!(shown(&one), [("demo", 1, 0)]);
    for (query, by) in [
        ("fix", GroupBy::Author),
        ("fix", GroupBy::Time(Interval::Day)),
        ("type:commit fix", GroupBy::Language),
        ("type:commit fix", GroupBy::Path(1)),
    ] {
        assert_eq!(*counted(query, by).expect_err("no such property").kind(), ErrorKind::Invalid, "{query}");
    }
}

#[test]
fn a_cursor_goes_on_whatever_is_counted() {
    let world = World::new();
    world.commit("main", (0..9).map(|number| put(&format!("f{number}"), b"needle\n")).collect());
    let places = [world.place("HEAD")];
    let mut query = parse("needle count:all", 0).expect("a query");
    let options = FindOptions { files_max: 4, ..FindOptions::default() };
    let first = find(&world.corpus, &query, &places, &options).expect("found");
    assert_eq!((first.total_files, first.is_exact), (9, true));
    query.options.count = Count::Page;
    let options = FindOptions { cursor: first.next, ..options };
    let second = find(&world.corpus, &query, &places, &options).expect("found");
    assert_eq!((second.files.len(), &second.files[0].path), (4, &b"f4".to_vec()));
}
