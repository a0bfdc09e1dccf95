//! Finding commits: each once on however many branches, page by page, as of one moment.

use govc_engine::{Cause, ErrorKind, Oid};
use govc_search::{CommitCursor, CommitOptions, CommitsFound, Partial, Place, find_commits, places, query::parse};

use super::world::{World, place, point, publish, query_of, request};

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;

impl World {
    /// A commit without changes; it begins a branch at the head of another one.
    fn say(&self, branch: &str, message: &str, seconds: i64) -> Oid {
        let committed = self.repo.commit(request(branch, message, seconds, Vec::new())).expect("commit");
        committed.published.ticket.wait().expect("durable");
        committed.oid
    }

    fn branch(&self, branch: &str, commit: Oid) {
        let mut transaction = self.repo.begin("test", Cause::Api);
        point(&mut transaction, branch, commit);
        publish(transaction);
    }

    /// What a query searches of the repository.
    fn places(&self, query: &str) -> Vec<Place> {
        places(&self.repo, &self.repo.snapshot(), &query_of(query).options, true, None).expect("places")
    }
}

fn page(
    world: &World,
    query: &str,
    places: &[Place],
    commits_max: usize,
    cursor: Option<CommitCursor>,
) -> CommitsFound {
    let options = CommitOptions { commits_max, cursor, group_by: None, deadline: None };
    find_commits(&world.corpus, &query_of(query), places, &options).expect("found")
}

/// The messages of all pages, and the last page.
fn messages(world: &World, query: &str, places: &[Place], commits_max: usize) -> (Vec<String>, CommitsFound) {
    let (mut messages, mut cursor) = (Vec::new(), None);
    loop {
        let found = page(world, query, places, commits_max, cursor);
        assert!(found.commits.len() <= commits_max);
        let text = |message: &[u8]| String::from_utf8_lossy(message).trim().to_owned();
        messages.extend(found.commits.iter().map(|hit| text(&hit.commit.message)));
        let Some(next) = &found.next else { return (messages, found) };
        assert!(!found.commits.is_empty(), "a page of nothing");
        cursor = Some(CommitCursor::decode(&next.encode()).expect("the same"));
    }
}

#[test]
fn a_commit_on_several_branches_is_found_once() {
    let world = World::new();
    let mut tip = super::FORMAT.null();
    for number in 0..5 {
        tip = world.say("main", &format!("fix {number}"), NOW + number);
    }
    for branch in ["same", "release/one", "topic", "other"] {
        world.branch(branch, tip);
    }
    world.say("topic", "fix of the topic", NOW + 10);
    world.say("other", "fix of the other", NOW + 11);
    let newest_first = ["fix of the other", "fix of the topic", "fix 4", "fix 3", "fix 2", "fix 1", "fix 0"];
    for query in ["type:commit branch:* fix", "type:commit branch:* branch:** rev:main rev:HEAD~2 rev:topic fix"] {
        let places = world.places(query);
        for commits_max in [1, 2, 5, 7, 50] {
            let (found, last) = messages(&world, query, &places, commits_max);
            assert_eq!(found, newest_first, "{query}, {commits_max} a page");
            assert_eq!((last.total, last.is_exact), (7, true));
        }
        let counted = page(&world, &format!("{query} count:all"), &places, 2, None);
        assert_eq!((counted.commits.len(), counted.total, counted.is_exact), (2, 7, true));
    }
}

#[test]
fn pages_of_commits_add_up_to_the_count_that_the_query_asks_for() {
    let world = World::new();
    for number in 0..12 {
        world.say("main", &format!("fix {number}"), NOW + number);
    }
    for count in [1, 4, 5, 6, 10, 11, 12, 20] {
        let query = format!("type:commit fix count:{count}");
        let (found, last) = messages(&world, &query, &world.places(&query), 5);
        assert_eq!((found.len(), last.total), (count.min(12), count.min(12) as u64), "{query}");
        assert_eq!(last.partial, (count <= 12).then_some(Partial::Count), "{query}");
    }
}

#[test]
fn relative_dates_mean_the_moment_of_the_first_page() {
    let world = World::new();
    let edge = NOW - 2 * DAY;
    for (message, seconds) in [("too old", edge - 1), ("just in time", edge), ("later", edge + 5), ("now", NOW)] {
        world.say("main", message, seconds);
    }
    let places = [place(&world.repo, "main")];
    let find = |now: i64, cursor: Option<CommitCursor>| {
        let query = parse("type:commit after:2d", now).expect("a query");
        let options = CommitOptions { commits_max: 2, cursor, group_by: None, deadline: None };
        find_commits(&world.corpus, &query, &places, &options)
    };
    let first = find(NOW, None).expect("found");
    assert_eq!(first.commits.len(), 2);
    // Whoever asks for the next page says when the first one was.
    let second = find(NOW, first.next.clone()).expect("found");
    let messages: Vec<_> = second.commits.iter().map(|hit| hit.commit.message.trim_ascii_end()).collect();
    assert_eq!((messages, second.total, second.is_exact), (vec![&b"just in time"[..]], 3, true));
    // A second later, the rest of the page would be another one.
    let error = find(NOW + 1, first.next).expect_err("refused");
    assert_eq!(*error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("another query"), "{error}");
    assert_eq!(find(NOW + 1, None).expect("found").commits.len(), 2);
}

#[test]
fn a_cursor_of_commits_that_are_not_there_is_refused() {
    let world = World::new();
    for number in 0..5 {
        world.say("main", &format!("fix {number}"), NOW + number);
    }
    let (query, places) = ("type:commit fix", [place(&world.repo, "main")]);
    let given = page(&world, query, &places, 2, None).next.expect("more").encode();
    let refused = |text: &str| {
        let cursor = CommitCursor::decode(text).expect("a cursor");
        let options = CommitOptions { commits_max: 2, cursor: Some(cursor), group_by: None, deadline: None };
        let error = find_commits(&world.corpus, &query_of(query), &places, &options).expect_err("refused");
        assert_eq!(*error.kind(), ErrorKind::Invalid, "{error}");
        error.message().to_owned()
    };
    // The commit that the page ended with, as its length and bytes; behind it is how many were found.
    let head = &given[..given.len() - 2 * (1 + super::FORMAT.len() + 1)];
    let len = format!("{:02x}", super::FORMAT.len());
    assert!(given.starts_with(&format!("{head}{len}")), "{given}");
    for commit in [len + &"ab".repeat(super::FORMAT.len()), "03010203".to_owned()] {
        assert!(refused(&format!("{head}{commit}02")).contains("commit"), "{commit}");
    }
    // A repository that is not searched.
    let nowhere = format!("{}07{}", &head[..head.len() - 2], &given[head.len()..]);
    assert!(refused(&nowhere).contains("commit"));
}
