//! Values: what is read is what was written, what must be refused is, and trees keep git's order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

fn oid(byte: u8) -> Oid {
    Oid::from_bytes(&[byte; Oid::LEN]).unwrap()
}

fn commit_text(author: &str, headers: &str, message: &str) -> Vec<u8> {
    let committer = "C O Mitter <c@example.com> 1700000001 -0800";
    format!("tree {EMPTY_TREE}\nauthor {author}\ncommitter {committer}\n{headers}\n{message}").into_bytes()
}

fn tree_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    entries.iter().flat_map(|(mode, name)| [mode.as_bytes(), b" ", name, b"\0", &[7; Oid::LEN]].concat()).collect()
}

#[test]
fn ids_are_those_of_git() {
    let author = "A U Thor <a@example.com> 1700000000 +0130";
    let tag =
        format!("object {EMPTY_TREE}\ntype tree\ntag v1\ntagger A U Thor <a@example.com> 1700000000 +0000\n\nfirst\n");
    for (kind, data, expected) in [
        (Kind::Blob, b"".to_vec(), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (Kind::Blob, b"hello\n".to_vec(), "ce013625030ba8dba906f756967f9e9ca394464a"),
        (Kind::Tree, b"".to_vec(), EMPTY_TREE),
        (Kind::Commit, commit_text(author, "", "subject\n\nbody\n"), "b1cd5310483780fb1c264786c070fcf6ead405c8"),
        (Kind::Tag, tag.into_bytes(), "0afed997cf5e7fce3c7b94a479557df7cdbeeecb"),
    ] {
        assert_eq!(hash_object(kind, &data).unwrap().to_string(), expected, "{kind}");
        let mut pieces = ObjectHasher::new(kind, data.len() as u64);
        data.chunks(3).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish().unwrap().to_string(), expected, "{kind} in pieces");
    }
    assert_eq!(Oid::empty_tree().to_string(), EMPTY_TREE);
}

#[test]
fn ids_are_read_strictly() {
    assert_eq!(EMPTY_TREE.to_uppercase().parse::<Oid>().unwrap(), Oid::empty_tree());
    assert!(Oid::null().is_null() && !Oid::empty_tree().is_null());
    for bad in ["", "4b82", &EMPTY_TREE[1..], &format!("{EMPTY_TREE}0"), &EMPTY_TREE.replace('b', "g")] {
        assert_eq!(bad.parse::<Oid>().unwrap_err().kind(), &ErrorKind::Invalid, "{bad:?}");
    }
    assert!(Oid::from_bytes(&[0; 19]).is_err() && Oid::from_bytes(&[0; 21]).is_err());
}

#[test]
fn prefixes_have_four_to_thirty_nine_digits() {
    let prefix = OidPrefix::parse("4B82").unwrap();
    assert!(prefix.matches(&Oid::empty_tree()) && !prefix.matches(&oid(0x4b)));
    let (from, to) = prefix.range();
    assert_eq!(from.to_string(), format!("4b82{}", "0".repeat(36)));
    assert_eq!(to.to_string(), format!("4b82{}", "f".repeat(36)));
    assert!(OidPrefix::parse(&EMPTY_TREE[..39]).unwrap().matches(&Oid::empty_tree()));
    for bad in ["", "4b8", EMPTY_TREE, "4b8g", "é4b8", "4b82 "] {
        assert_eq!(OidPrefix::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn commits_round_trip_to_the_byte() {
    let signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEzBAABCAAdFiEE\n -----END PGP SIGNATURE-----\n";
    let mergetag = format!("mergetag object {EMPTY_TREE}\n type tree\n tag v1\n tagger A <a@b> 1 +0000\n \n text\n");
    for headers in [
        String::new(),
        format!("parent {}\n", oid(1)),
        "encoding ISO-8859-1\n".to_owned(),
        signature.to_owned(),
        format!("{mergetag}{signature}"),
        format!("encoding latin1\n{signature}x-own value with  spaces\n"),
    ] {
        for message in ["", "one line", "subject\n\nbody\n", "\n\nlate subject\n"] {
            let data = match headers.strip_prefix("parent") {
                Some(_) => format!(
                    "tree {EMPTY_TREE}\n{headers}author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n{message}"
                )
                .into_bytes(),
                None => commit_text("Ä <a@b> 1700000000 +0130", &headers, message),
            };
            let commit = Commit::parse(&data).unwrap();
            assert_eq!(commit.to_bytes(), data, "{}", String::from_utf8_lossy(&data));
            assert_eq!(commit.message, message.as_bytes());
        }
    }
    let commit = Commit::parse(&commit_text("A <a@b> 1700000000 +0130", "", "\nsubject\n\nbody\n")).unwrap();
    assert_eq!((commit.author.seconds, commit.author.offset_minutes), (1_700_000_000, 90));
    assert_eq!((commit.committer.seconds, commit.committer.offset_minutes), (1_700_000_001, -480));
    assert_eq!(commit.subject(), "subject");
}

#[test]
fn odd_identities_are_kept() {
    let latin1 = [&commit_text("", "", "")[..], &[]].concat();
    let at = latin1.windows(8).position(|window| window == b"author \n").unwrap() + 7;
    let latin1 = [&latin1[..at], b"Andr\xe9 <a@b> 1 +0000", &latin1[at..]].concat();
    assert_eq!(Commit::parse(&latin1).unwrap().to_bytes(), latin1);

    for (line, name, email, seconds, offset) in [
        ("<a@b> 5 +0000", "", "a@b", 5, 0),
        ("A <> 5 -0000", "A", "", 5, 0),
        ("A <a@b>", "A", "a@b", 0, 0),
        ("A <a@b> 5", "A", "a@b", 5, 0),
        ("A <a <b>> 5 +0100", "A", "a <b>", 5, 60),
        ("A <a@b> 99999999999999999999 +0000", "A", "a@b", 0, 0),
        ("A <a@b> 5 +51800", "A", "a@b", 5, 31_080),
    ] {
        let commit = Commit::parse(&commit_text(line, "", "m")).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let author = &commit.author;
        assert_eq!((author.name_lossy().as_str(), author.email_lossy().as_str()), (name, email), "{line:?}");
        assert_eq!((author.seconds, author.offset_minutes), (seconds, offset), "{line:?}");
    }
}

/// What the checks let in must be readable afterwards, or one old commit makes a whole history unreadable.
#[test]
fn every_commit_that_is_accepted_can_be_parsed() {
    for author in
        ["no brackets 5 +0000", "A a@b> 5 +0000", "A <a@b 5 +0000", "A <a@b> 5 +0000 junk", "A <a@b> Thu, 1 Jan", ""]
    {
        let data = commit_text(author, "", "m");
        assert!(
            check_object(Kind::Commit, &data).is_none_or(|finding| finding.level == CheckLevel::Accept),
            "{author:?}"
        );
        assert!(Commit::parse(&data).is_ok(), "author {author:?} is accepted but cannot be parsed");
    }
    let headers_only = commit_text("A <a@b> 5 +0000", "", "");
    let headers_only = &headers_only[..headers_only.len() - 1];
    assert_eq!(check_object(Kind::Commit, headers_only), None);
    assert!(Commit::parse(headers_only).is_ok(), "a commit without a message and its blank line");
}

#[test]
fn malformed_commits_and_tags_are_errors() {
    let good = commit_text("A <a@b> 5 +0000", "", "m");
    for bad in [&b""[..], b"tree", &good[5..], &good[..60], b"tree 4b82\nauthor A <a@b> 5 +0000\n\n"] {
        assert_eq!(Commit::parse(bad).unwrap_err().kind(), &ErrorKind::Corrupt);
    }
    for bad in [
        "",
        "object 4b82\ntype tree\ntag v\n\n",
        &format!("object {EMPTY_TREE}\ntype bush\ntag v\n\n"),
        &format!("object {EMPTY_TREE}\ntype tree\n\n"),
    ] {
        assert_eq!(Tag::parse(bad.as_bytes()).unwrap_err().kind(), &ErrorKind::Corrupt, "{bad:?}");
    }
}

#[test]
fn tags_round_trip_to_the_byte() {
    for tagger in ["", "\ntagger A U Thor <a@example.com> 1700000000 -0130"] {
        for message in ["", "first\n", "first\n\n-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n"] {
            let data = format!("object {}\ntype commit\ntag v1{tagger}\n\n{message}", oid(3)).into_bytes();
            let tag = Tag::parse(&data).unwrap();
            assert_eq!((tag.target, tag.target_kind, tag.name.as_slice()), (oid(3), Kind::Commit, &b"v1"[..]));
            assert_eq!(tag.tagger.is_some(), !tagger.is_empty());
            assert_eq!(tag.to_bytes(), data);
        }
    }
}

#[test]
fn signatures_that_git_cannot_store_are_refused() {
    let signature = Signature::new(" A ", " a@b ", 5, -90).unwrap();
    assert_eq!((signature.name.as_slice(), signature.email.as_slice()), (&b"A"[..], &b"a@b"[..]));
    for (name, email, seconds, offset) in [
        ("", "a@b", 5, 0),
        ("  ", "a@b", 5, 0),
        ("A<", "a@b", 5, 0),
        ("A", "a>", 5, 0),
        ("A\nB", "a@b", 5, 0),
        ("A", "a\0b", 5, 0),
        ("A", "a@b", -1, 0),
        ("A", "a@b", i64::MAX, 0),
        ("A", "a@b", 5, 1440),
        ("A", "a@b", 5, -1440),
    ] {
        assert_eq!(
            Signature::new(name, email, seconds, offset).unwrap_err().kind(),
            &ErrorKind::Invalid,
            "{name:?} {email:?}"
        );
    }
}

#[test]
fn links_name_what_an_object_needs() {
    let (tree, parent) = (Oid::empty_tree(), oid(9));
    let data =
        format!("tree {tree}\nparent {parent}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 42 +0000\n\nparent {tree}\n");
    let found = links(Kind::Commit, data.as_bytes()).unwrap();
    assert_eq!(found.targets.as_slice(), [(tree, Some(Kind::Tree)), (parent, Some(Kind::Commit))]);
    assert_eq!(found.commit_seconds, 42);

    let data = tree_of(&[("100644", b"a"), ("40000", b"d"), ("120000", b"l"), ("160000", b"s")]);
    let kinds: Vec<_> = links(Kind::Tree, &data).unwrap().targets.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, [Some(Kind::Blob), Some(Kind::Tree), Some(Kind::Blob)], "a submodule is no link");

    let data = format!("object {parent}\ntype tag\ntag v\n\n");
    assert_eq!(links(Kind::Tag, data.as_bytes()).unwrap().targets.as_slice(), [(parent, Some(Kind::Tag))]);
    assert!(links(Kind::Blob, b"tree").unwrap().targets.is_empty());
    assert!(links(Kind::Tree, &tree_of(&[("100644", b"a")])[..9]).is_err());
    assert!(links(Kind::Commit, b"tree x\n").is_err() && links(Kind::Tag, b"object x\n").is_err());
}

fn found(kind: Kind, data: &[u8]) -> Option<(CheckLevel, &'static str)> {
    check_object(kind, data).map(|finding| (finding.level, finding.id))
}

#[test]
fn names_that_attack_a_checkout_are_refused() {
    for (name, id) in [
        (&b"."[..], "hasDot"),
        (b"..", "hasDotdot"),
        (b"", "emptyName"),
        (b"a/b", "fullPathname"),
        (b"/", "fullPathname"),
        (b".git", "hasDotgit"),
        (b".GiT", "hasDotgit"),
        (b".git ", "hasDotgit"),
        (b".git...", "hasDotgit"),
        (b".git::$INDEX_ALLOCATION", "hasDotgit"),
        (b"git~1", "hasDotgit"),
        (b"GIT~1", "hasDotgit"),
        (b"a\\.git", "hasDotgit"),
        (b"a\\git~1\\b", "hasDotgit"),
        (".g\u{200c}it".as_bytes(), "hasDotgit"),
        ("\u{feff}.git".as_bytes(), "hasDotgit"),
        ("\u{206a}.Git".as_bytes(), "hasDotgit"),
        (&[b'n'; 4097], "largePathname"),
    ] {
        let expected = Some((CheckLevel::Refuse, id));
        assert_eq!(found(Kind::Tree, &tree_of(&[("100644", name)])), expected, "{}", name.escape_ascii());
        assert_eq!(check_path_component(name, false).map(|finding| finding.id), Some(id), "{}", name.escape_ascii());
    }
    for name in [
        &b".gitignore"[..],
        b".gitmodules",
        b"git~2",
        b"git",
        b"...",
        b"a..b",
        b"a\\b",
        b"\xe9",
        b"CON",
        b"\xe2\x80",
        &[b'n'; 4096],
    ] {
        assert_eq!(found(Kind::Tree, &tree_of(&[("100644", name)])), None, "{}", name.escape_ascii());
    }
    for name in [&b".gitmodules"[..], b"GITMOD~1", b"gi7eba~1", b".GitModules "] {
        let expected = Some((CheckLevel::Refuse, "gitmodulesSymlink"));
        assert_eq!(found(Kind::Tree, &tree_of(&[("120000", name)])), expected, "{}", name.escape_ascii());
    }
    assert_eq!(check_path_component(b"a\0b", false).map(|finding| finding.id), Some("nulInName"));
}

#[test]
fn tree_findings_have_git_s_severities() {
    let (accept, refuse) = (CheckLevel::Accept, CheckLevel::Refuse);
    type Entries<'a> = &'a [(&'a str, &'a [u8])];
    let table: &[(Entries<'_>, Option<(CheckLevel, &str)>)] = &[
        (&[], None),
        (&[("100644", b"a"), ("100755", b"b"), ("120000", b"c"), ("40000", b"d"), ("160000", b"e")], None),
        (&[("100644", b"a.b"), ("40000", b"a"), ("100644", b"a0")], None),
        (&[("040000", b"a")], Some((accept, "zeroPaddedFilemode"))),
        (&[("100664", b"a")], Some((accept, "badFilemode"))),
        (&[("40755", b"a")], Some((accept, "badFilemode"))),
        (&[("0", b"a")], Some((refuse, "badFilemode"))),
        (&[("60000", b"a")], Some((refuse, "badFilemode"))),
        (&[("100644", b"b"), ("100644", b"a")], Some((refuse, "treeNotSorted"))),
        (&[("40000", b"a"), ("100644", b"a.b")], Some((refuse, "treeNotSorted"))),
        (&[("100644", b"a"), ("100644", b"a")], Some((refuse, "duplicateEntries"))),
        (&[("100644", b"a"), ("40000", b"a")], Some((refuse, "duplicateEntries"))),
        (
            &[("100644", b"a"), ("100644", b"a-b"), ("100644", b"a.b"), ("40000", b"a")],
            Some((refuse, "duplicateEntries")),
        ),
        (
            &[("100644", b"a"), ("40000", b"a.b"), ("100644", b"a.c"), ("40000", b"a")],
            Some((refuse, "duplicateEntries")),
        ),
    ];
    for (entries, expected) in table {
        assert_eq!(found(Kind::Tree, &tree_of(entries)), *expected, "{entries:?}");
    }
    let whole = tree_of(&[("100644", b"a")]);
    for end in 1..whole.len() {
        assert_eq!(found(Kind::Tree, &whole[..end]), Some((refuse, "badTree")), "cut at {end}");
    }
    assert_eq!(found(Kind::Tree, &tree_of(&[("100648", b"a")])), Some((refuse, "badTree")));
    let null = [b"100644 a\0".as_slice(), &[0; Oid::LEN]].concat();
    assert_eq!(found(Kind::Tree, &null), Some((refuse, "nullSha1")));
    assert_eq!(found(Kind::Blob, b"\0anything"), None);
}

#[test]
fn commit_and_tag_findings_have_git_s_severities() {
    let (accept, refuse) = (CheckLevel::Accept, CheckLevel::Refuse);
    let commit = String::from_utf8(commit_text("A <a@b> 5 +0000", "", "m\n")).unwrap();
    let tag = format!("object {EMPTY_TREE}\ntype tree\ntag v1\ntagger A <a@b> 5 +0000\n\nm\n");
    let author = |line: &str| commit.replace("author A <a@b> 5 +0000", &format!("author {line}"));
    let author_line = "author A <a@b> 5 +0000\n";
    for (kind, data, expected) in [
        (Kind::Commit, commit.clone(), None),
        (Kind::Commit, commit.replace("tree ", "bush "), Some((refuse, "missingTree"))),
        (Kind::Commit, commit.replace("4b82", "zzzz"), Some((refuse, "badTreeSha1"))),
        (Kind::Commit, commit.replace("author", "parent x\nauthor"), Some((refuse, "badParentSha1"))),
        (Kind::Commit, commit.replace(author_line, ""), Some((refuse, "missingAuthor"))),
        (Kind::Commit, commit.replace(author_line, &author_line.repeat(2)), Some((refuse, "multipleAuthors"))),
        (Kind::Commit, commit.replace("committer ", "comitter "), Some((refuse, "missingCommitter"))),
        (Kind::Commit, commit.replace("C O", "C\0O"), Some((refuse, "nulInHeader"))),
        (Kind::Commit, commit[..commit.len() - 4].to_owned(), Some((refuse, "unterminatedHeader"))),
        (Kind::Commit, format!("{commit}\0"), Some((accept, "nulInCommit"))),
        (Kind::Commit, author("A 5 +0000"), Some((accept, "missingEmail"))),
        (Kind::Commit, author("<a@b> 5 +0000"), Some((accept, "missingNameBeforeEmail"))),
        (Kind::Commit, author("A> <a@b> 5 +0000"), Some((accept, "badName"))),
        (Kind::Commit, author("A<a@b> 5 +0000"), Some((accept, "missingSpaceBeforeEmail"))),
        (Kind::Commit, author("A <a<b> 5 +0000"), Some((accept, "badEmail"))),
        (Kind::Commit, author("A <a@b>5 +0000"), Some((accept, "missingSpaceBeforeDate"))),
        (Kind::Commit, author("A <a@b> x +0000"), Some((accept, "badDate"))),
        (Kind::Commit, author("A <a@b> 05 +0000"), Some((accept, "zeroPaddedDate"))),
        (Kind::Commit, author("A <a@b> 99999999999999999999 +0000"), Some((accept, "badDateOverflow"))),
        (Kind::Commit, author("A <a@b> 5 +51800"), Some((accept, "badTimezone"))),
        (Kind::Tag, tag.clone(), None),
        (Kind::Tag, tag.replace("object", "objekt"), Some((refuse, "missingObject"))),
        (Kind::Tag, tag.replace("4b82", "zzzz"), Some((refuse, "badObjectSha1"))),
        (Kind::Tag, tag.replace("type", "typo"), Some((refuse, "missingTypeEntry"))),
        (Kind::Tag, tag.replace("tree", "bush"), Some((refuse, "badType"))),
        (Kind::Tag, tag.replace("tag v1", "tug v1"), Some((refuse, "missingTagEntry"))),
        (Kind::Tag, tag.replace("tag v1", "tag v..1"), Some((accept, "badTagName"))),
        (Kind::Tag, tag.replace("tagger A <a@b> 5 +0000\n", ""), Some((accept, "missingTaggerEntry"))),
    ] {
        assert_eq!(found(kind, data.as_bytes()), expected, "{data}");
    }
}

#[test]
fn modes_that_may_be_written_are_five() {
    for (octal, mode) in [
        ("100644", EntryMode::BLOB),
        ("100755", EntryMode::EXECUTABLE),
        ("120000", EntryMode::SYMLINK),
        ("040000", EntryMode::TREE),
        ("40000", EntryMode::TREE),
        ("160000", EntryMode::COMMIT),
    ] {
        assert_eq!(EntryMode::parse(octal), Some(mode));
    }
    for bad in ["", "644", "100664", "100648", "0x1", "é", "-1", "777777777777777"] {
        assert_eq!(EntryMode::parse(bad), None, "{bad:?}");
    }
    assert_eq!(EntryMode::TREE.to_octal(), "040000");
}

/// A tree by the definition: sorted by name, directories as if they ended in a slash.
fn naive_tree(entries: &BTreeMap<Vec<u8>, (EntryMode, Oid)>) -> Vec<u8> {
    let key = |name: &[u8], mode: EntryMode| [name, if mode.is_tree() { &b"/"[..] } else { b"" }].concat();
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(name, (mode, _))| key(name, *mode));
    let entry = |(name, (mode, oid)): (&Vec<u8>, &(EntryMode, Oid))| {
        [mode.to_octal().trim_start_matches('0').as_bytes(), b" ", name.as_slice(), b"\0", oid.as_bytes()].concat()
    };
    sorted.into_iter().flat_map(entry).collect()
}

#[test]
fn untouched_entries_keep_their_bytes() {
    let old = tree_of(&[("0100644", b"a"), ("100664", b"b"), ("040000", b"c")]);
    let edits =
        BTreeMap::from([(b"b".to_vec(), TreeEdit::Remove), (b"bb".to_vec(), TreeEdit::Set(EntryMode::BLOB, oid(7)))]);
    assert_eq!(edit_tree(&old, &edits).unwrap(), tree_of(&[("0100644", b"a"), ("100644", b"bb"), ("040000", b"c")]));
    assert_eq!(edit_tree(&old[..20], &edits).unwrap_err().kind(), &ErrorKind::Corrupt);
}

fn any_entries(max: usize) -> impl Strategy<Value = BTreeMap<Vec<u8>, (EntryMode, Oid)>> {
    let mode = prop::sample::select(vec![EntryMode::BLOB, EntryMode::TREE, EntryMode::EXECUTABLE, EntryMode::COMMIT]);
    let name = "[ab.\\-0]{1,3}".prop_map(String::into_bytes);
    prop::collection::btree_map(name, (mode, (1..=255u8).prop_map(oid)), 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edits_splice_as_a_new_sort_would(old in any_entries(24), sets in any_entries(8), removed in any_entries(8)) {
        let mut edits: BTreeMap<Vec<u8>, TreeEdit> = removed.into_keys().map(|name| (name, TreeEdit::Remove)).collect();
        edits.extend(sets.into_iter().map(|(name, (mode, oid))| (name, TreeEdit::Set(mode, oid))));
        let mut expected = old.clone();
        for (name, edit) in &edits {
            match edit {
                TreeEdit::Set(mode, oid) => expected.insert(name.clone(), (*mode, *oid)),
                TreeEdit::Remove => expected.remove(name),
            };
        }
        let edited = edit_tree(&naive_tree(&old), &edits).unwrap();
        prop_assert_eq!(&edited, &naive_tree(&expected));
        let read = Tree::parse(&edited).unwrap();
        prop_assert_eq!(read.entries.len(), expected.len());
        prop_assert!(read.entries.iter().all(|entry| expected.get(&*entry.name) == Some(&(entry.mode, entry.oid))));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(data in prop::collection::vec(any::<u8>(), 0..200), cut in 0..150usize) {
        let mut near = commit_text("A <a@b> 5 +0000", "encoding x\n", "m");
        near.truncate(cut);
        near.extend_from_slice(&data);
        for kind in [Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag] {
            for bytes in [&data, &near] {
                let _ = (check_object(kind, bytes), links(kind, bytes), Commit::parse(bytes), Tag::parse(bytes));
                let _ = Tree::parse(bytes);
            }
        }
    }
}
