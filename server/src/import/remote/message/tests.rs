//! What servers of both versions say, and what none should.

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// An answer of these lines; an empty one is a flush.
fn lines(texts: &[&str]) -> Lines<'static> {
    let mut bytes = Vec::new();
    for text in texts {
        match *text {
            "" => pkt::flush(&mut bytes).expect("room"),
            text => pkt::data(&mut bytes, text.as_bytes()).expect("room"),
        }
    }
    Lines::new(Box::new(std::io::Cursor::new(bytes)), "http://x/y")
}

#[test]
fn both_versions_of_a_server_are_met() {
    let service = "# service=git-upload-pack\n";
    let mut v2 = lines(&[service, "", "version 2\n", "agent=x\n", "ls-refs=unborn\n", "fetch=shallow filter\n", ""]);
    let read = |lines: &mut Lines<'_>| read_advertisement(lines, Scope::Mirror, 10);
    let (abilities, offered) = read(&mut v2).expect("an advertisement");
    assert!(abilities.is_v2 && abilities.can_deepen && abilities.tells_unborn && offered.is_none());

    let first = format!("{A} HEAD\0side-band-64k shallow symref=HEAD:refs/heads/main\n");
    let texts = [
        &first,
        &format!("{A} refs/heads/main\n"),
        &format!("{B} refs/tags/v1\n"),
        &format!("{A} refs/tags/v1^{{}}\n"),
    ];
    let mut v0 = lines(&[service, "", texts[0], texts[1], texts[2], texts[3], ""]);
    let (abilities, offered) = read(&mut v0).expect("an advertisement");
    assert!(!abilities.is_v2 && abilities.can_deepen && !abilities.is_thin);
    let References { format: _, all, head, left_out } = offered.expect("references");
    let names: Vec<_> = all.keys().map(govc_engine::RefName::as_bytes).collect();
    assert_eq!(names, [&b"refs/heads/main"[..], b"refs/tags/v1"]);
    assert_eq!(head, Head::Branch(govc_engine::RefName::branch("main").expect("a name")));
    assert!(left_out.is_empty(), "{left_out:?}");

    let nothing = format!("{} capabilities^{{}}\0side-band-64k\n", ObjectFormat::Sha1.null());
    for texts in [&[service, "", &nothing, ""][..], &[service, "", ""]] {
        let (_, offered) = read(&mut lines(texts)).expect("an advertisement");
        assert!(offered.expect("references").all.is_empty());
    }
}

#[test]
fn other_formats_shallow_sources_and_nonsense_are_refused() {
    let shallow = format!("shallow {A}\n");
    let first = format!("{A} HEAD\0side-band-64k\n");
    let sha3 = format!("{A} HEAD\0side-band-64k object-format=sha3\n");
    let short = format!("{A} HEAD\0side-band-64k object-format=sha256\n");
    let narrow = format!("{A} HEAD\0ofs-delta\n");
    for (texts, word) in [
        (&["version 2\n", "object-format=sha3\n", "fetch\n", ""][..], "sha3 ids, which are not known"),
        (&[&sha3, ""], "sha3 ids, which are not known"),
        (&[&short, ""], "does not answer as a Git server"),
        (&[&first, &shallow, ""], "shallow clone"),
        (&[&narrow, ""], "side-band"),
        (&["version 2\n", "ls-refs\n", ""], "does not answer as a Git server"),
        (&["<!doctype html>\n", ""], "does not answer as a Git server"),
        (&["version 2\n", "fetch\n"], "ends early"),
        (&["ERR go\x1b away\n"], "says: go  away"),
        (&[], "ends early"),
    ] {
        let error = read_advertisement(&mut lines(texts), Scope::Mirror, 10).map(drop).expect_err(word);
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn the_format_is_taken_from_what_the_server_says() {
    let long = "c".repeat(64);
    let read = |texts: &[&str]| read_advertisement(&mut lines(texts), Scope::Mirror, 10).expect("an advertisement");
    let (v2, _) = read(&["version 2\n", "object-format=sha256\n", "fetch\n", ""]);
    assert_eq!(v2.format, ObjectFormat::Sha256);
    assert_eq!(read(&["version 2\n", "fetch\n", ""]).0.format, ObjectFormat::Sha1);
    let first = format!("{long} refs/heads/main\0side-band-64k object-format=sha256\n");
    let (v0, offered) = read(&[&first, ""]);
    let offered = offered.expect("references");
    assert_eq!((v0.format, offered.format), (ObjectFormat::Sha256, ObjectFormat::Sha256));
    assert!(offered.all.values().all(|oid| oid.to_string() == long) && offered.all.len() == 1);

    let mut references = References::new(ObjectFormat::Sha256);
    let main = format!("{long} refs/heads/main\n");
    read_ls_refs(&mut lines(&[&main, ""]), &mut references, Scope::Mirror, 10).expect("references");
    assert!(
        read_ls_refs(&mut lines(&[&format!("{A} refs/heads/a\n"), ""]), &mut references, Scope::Mirror, 10).is_err()
    );
    let (wants, haves) = ([A.parse().expect("an id")], []);
    let ask = Ask { wants: &wants, haves: &haves, shallow: Vec::new(), depth: None, is_thin: false };
    assert!(super::super::is_refusal(&fetch(&v2, &ask, "http://x/y").expect_err("other ids")));
    let ask = Ask { wants: &[long.parse().expect("an id")], ..ask };
    let body = String::from_utf8(fetch(&v2, &ask, "http://x/y").expect("a request")).expect("text");
    assert!(body.contains("object-format=sha256") && body.contains(&format!("want {long}")), "{body}");
}

#[test]
fn offered_references_are_bounded_and_unborn_heads_are_known() {
    let read = |texts: &[&str], limit| {
        let mut references = References::default();
        read_ls_refs(&mut lines(texts), &mut references, Scope::BranchesAndTags, limit).map(|()| references)
    };
    let (main, note) = (format!("{A} refs/heads/main\n"), format!("{A} refs/notes/x\n"));
    let head = format!("{A} HEAD symref-target:refs/heads/trunk\n");
    let references = read(&[&head, &main, &note, ""], 10).expect("references");
    assert_eq!(references.all.len(), 1);
    assert_eq!(references.head, Head::Branch(govc_engine::RefName::branch("trunk").expect("a name")));
    let unborn = read(&["unborn HEAD symref-target:refs/heads/dev\n", ""], 10).expect("references");
    assert_eq!(unborn.head, Head::Branch(govc_engine::RefName::branch("dev").expect("a name")));
    let other = format!("{A} refs/heads/other\n");
    assert!(read(&[&main, &other, ""], 1).is_err());
    let endless = vec![&note[..]; 3000];
    assert!(read(&endless, 10).expect_err("endless").message().contains("too many"));
    assert!(read(&["refs/heads/main\n", ""], 10).is_err());
}

#[test]
fn what_a_server_of_version_0_offers_is_bounded_too() {
    let first = format!("{A} HEAD\0side-band-64k\n");
    let read = |line: &dyn Fn(usize) -> String, count: usize, scope| {
        let mut bytes = Vec::new();
        pkt::data(&mut bytes, first.as_bytes()).expect("room");
        (0..count).for_each(|at| pkt::data(&mut bytes, line(at).as_bytes()).expect("room"));
        pkt::flush(&mut bytes).expect("room");
        let (length, mut input) = (bytes.len() as u64, std::io::Cursor::new(bytes));
        let read = read_advertisement(&mut Lines::new(Box::new(&mut input), "http://x/y"), scope, 10);
        (read.map(|(_, offered)| offered.expect("references").all.len()), length - input.position())
    };
    let branch = |at: usize| format!("{A} refs/heads/{at}\n");
    assert_eq!(read(&branch, 10, Scope::BranchesAndTags).0.expect("references"), 10);
    let (error, unread) = read(&branch, 5000, Scope::BranchesAndTags);
    assert!(error.expect_err("too many").message().contains("limits.references") && unread > 0);
    // What is not meant, what tags stand for, and names that are none.
    let other = |at: usize| format!("{A} refs/pull/{at}\n");
    let peeled = |at: usize| format!("{A} refs/tags/{at}^{{}}\n");
    let long = |at: usize| format!("{A} refs/heads/{at}{}\n", "x".repeat(2000));
    for line in [&other as &dyn Fn(usize) -> String, &peeled, &long] {
        assert_eq!(read(line, 500, Scope::BranchesAndTags).0.expect("references"), 0);
        let (error, unread) = read(line, 5000, Scope::BranchesAndTags);
        assert!(error.expect_err("endless").message().contains("too many") && unread > 0);
    }
}
