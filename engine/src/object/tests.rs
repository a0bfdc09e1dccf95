//! Values: what is read is what was written, what must be refused is, and trees keep git's order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

/// The empty tree's id, by SHA-1 and by SHA-256.
const EMPTY_TREES: [&str; 2] =
    ["4b825dc642cb6eb9a060e54bf8d69288fbee4904", "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"];

fn oid(format: ObjectFormat, byte: u8) -> Oid {
    Oid::from_bytes(&vec![byte; format.len()]).unwrap()
}

fn commit_text(format: ObjectFormat, author: &str, headers: &str, message: &str) -> Vec<u8> {
    let committer = "C O Mitter <c@example.com> 1700000001 -0800";
    let tree = format.empty_tree();
    format!("tree {tree}\nauthor {author}\ncommitter {committer}\n{headers}\n{message}").into_bytes()
}

fn tree_of(format: ObjectFormat, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let oid = oid(format, 7);
    entries.iter().flat_map(|(mode, name)| [mode.as_bytes(), b" ", name, b"\0", oid.as_bytes()].concat()).collect()
}

#[test]
fn ids_are_those_of_git() {
    let author = "A U Thor <a@example.com> 1700000000 +0130";
    let ids = [
        [
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
            "ce013625030ba8dba906f756967f9e9ca394464a",
            EMPTY_TREES[0],
            "b1cd5310483780fb1c264786c070fcf6ead405c8",
            "0afed997cf5e7fce3c7b94a479557df7cdbeeecb",
        ],
        [
            "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
            "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4",
            EMPTY_TREES[1],
            "e2b1db31baad07efbc9d5476dce363895f8907ea9a2ee247cabf2b2632bca401",
            "bcc100223854a5048f09d66d3ef6aba2b8dfe99cbf77f93eada49041e397c19f",
        ],
    ];
    for (format, ids) in ObjectFormat::ALL.into_iter().zip(ids) {
        let tree = format.empty_tree();
        let tag =
            format!("object {tree}\ntype tree\ntag v1\ntagger A U Thor <a@example.com> 1700000000 +0000\n\nfirst\n");
        let objects = [
            (Kind::Blob, b"".to_vec()),
            (Kind::Blob, b"hello\n".to_vec()),
            (Kind::Tree, b"".to_vec()),
            (Kind::Commit, commit_text(format, author, "", "subject\n\nbody\n")),
            (Kind::Tag, tag.into_bytes()),
        ];
        for ((kind, data), expected) in objects.into_iter().zip(ids) {
            let oid = hash_object(format, kind, &data).unwrap();
            assert_eq!((oid.to_string().as_str(), oid.format()), (expected, format), "{kind}");
            let mut pieces = ObjectHasher::new(format, kind, data.len() as u64);
            data.chunks(3).for_each(|piece| pieces.update(piece));
            assert_eq!(pieces.finish().unwrap(), oid, "{kind} in pieces");
        }
        assert!(tree.is_empty_tree() && !format.null().is_empty_tree());
    }
}

#[test]
fn formats_go_by_git_s_words() {
    for (format, word, len) in [(ObjectFormat::Sha1, "sha1", 20), (ObjectFormat::Sha256, "sha256", 32)] {
        assert_eq!((format.to_string().as_str(), word.parse::<ObjectFormat>().unwrap()), (word, format));
        assert_eq!((format.len(), format.hex_len()), (len, 2 * len));
    }
    assert_eq!(ObjectFormat::default(), ObjectFormat::Sha1);
    for bad in ["", "SHA1", "sha-1", "sha512"] {
        assert_eq!(bad.parse::<ObjectFormat>().unwrap_err().kind(), &ErrorKind::Invalid, "{bad:?}");
    }
}

#[test]
fn ids_are_read_strictly() {
    for (format, text) in ObjectFormat::ALL.into_iter().zip(EMPTY_TREES) {
        let empty = format.empty_tree();
        assert_eq!(text.to_uppercase().parse::<Oid>().unwrap(), empty);
        assert_eq!(format.oid_from_hex(text.as_bytes()).unwrap(), empty);
        assert_eq!(format.oid_from_bytes(empty.as_bytes()).unwrap(), empty);
        assert!(format.null().is_null() && !empty.is_null());
        for bad in ["", "4b82", &text[1..], &format!("{text}0"), &text.replace('b', "g")] {
            assert_eq!(bad.parse::<Oid>().unwrap_err().kind(), &ErrorKind::Invalid, "{bad:?}");
        }
        let len = format.len();
        assert!(Oid::from_bytes(&vec![0; len - 1]).is_err() && Oid::from_bytes(&vec![0; len + 1]).is_err());
    }
    for (format, other) in [(ObjectFormat::Sha1, EMPTY_TREES[1]), (ObjectFormat::Sha256, EMPTY_TREES[0])] {
        let foreign: Oid = other.parse().unwrap();
        for refused in [format.oid_from_hex(other.as_bytes()), format.oid_from_bytes(foreign.as_bytes())] {
            assert_eq!(refused.unwrap_err().kind(), &ErrorKind::Invalid, "{other} as {format}");
        }
        assert_eq!(format.check(&foreign).unwrap_err().kind(), &ErrorKind::Invalid);
    }
}

#[test]
fn prefixes_have_four_to_sixty_three_digits() {
    for (format, text) in ObjectFormat::ALL.into_iter().zip(EMPTY_TREES) {
        let prefix = OidPrefix::parse(&text[..4].to_uppercase()).unwrap();
        assert!(prefix.matches(&format.empty_tree()) && !prefix.matches(&oid(format, 0x4b)));
        let (from, to) = prefix.range(format).unwrap();
        assert_eq!(from.to_string(), format!("{}{}", &text[..4], "0".repeat(format.hex_len() - 4)));
        assert_eq!(to.to_string(), format!("{}{}", &text[..4], "f".repeat(format.hex_len() - 4)));
        let longest = OidPrefix::parse(&text[..format.hex_len() - 1]).unwrap();
        assert!(longest.matches(&format.empty_tree()) && longest.range(format).is_some());
        for bad in ["", "4b8", EMPTY_TREES[1], "4b8g", "é4b8", "4b82 "] {
            assert_eq!(OidPrefix::parse(bad), None, "{bad:?}");
        }
    }
    for digits in [40, 63] {
        let long = OidPrefix::parse(&EMPTY_TREES[1][..digits]).unwrap();
        assert!(long.range(ObjectFormat::Sha1).is_none() && long.range(ObjectFormat::Sha256).is_some());
    }
}

/// Runs git in a fresh repository of a format, with `input`; its standard output if it succeeds.
fn git(format: ObjectFormat, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], input: &[u8]| {
        let mut command = Command::new("git");
        command.current_dir(folder.path()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // It may end without reading all of it.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        output.status.success().then_some(output.stdout)
    };
    run(&["init", "-q", "--bare", &format!("--object-format={format}"), "."], b"").unwrap();
    run(arguments, input)
}

#[test]
fn git_makes_the_same_ids_of_either_format() {
    for format in ObjectFormat::ALL {
        let tree = tree_of(format, &[("100644", b"a"), ("40000", b"d"), ("160000", b"s")]);
        let commit = commit_text(format, "A U Thor <a@example.com> 1700000000 +0130", "", "subject\n");
        let tag = format!("object {}\ntype commit\ntag v1\ntagger A <a@b> 1700000000 +0000\n\nm\n", oid(format, 3));
        for (kind, data) in [
            (Kind::Blob, b"hello\n".to_vec()),
            (Kind::Tree, Vec::new()),
            (Kind::Tree, tree),
            (Kind::Commit, commit),
            (Kind::Tag, tag.into_bytes()),
        ] {
            let hashed = git(format, &["hash-object", "-t", kind.as_str(), "--stdin"], &data).unwrap();
            let expected = hash_object(format, kind, &data).unwrap().to_string();
            assert_eq!(String::from_utf8(hashed).unwrap().trim_end(), expected, "{format} {kind}");
        }
        let lines: String =
            [("100644 blob", "a.b"), ("040000 tree", "a"), ("100755 blob", "a0"), ("160000 commit", "s")]
                .map(|(kind, name)| format!("{kind} {}\t{name}\n", oid(format, 7)))
                .concat();
        let made = git(format, &["mktree", "--missing"], lines.as_bytes()).unwrap();
        let edits =
            [("a.b", EntryMode::BLOB), ("a", EntryMode::TREE), ("a0", EntryMode::EXECUTABLE), ("s", EntryMode::COMMIT)]
                .map(|(name, mode)| (name.as_bytes().to_vec(), TreeEdit::Set(mode, oid(format, 7))));
        let tree = edit_tree(format, &[], &BTreeMap::from(edits)).unwrap();
        let expected = hash_object(format, Kind::Tree, &tree).unwrap().to_string();
        assert_eq!(String::from_utf8(made).unwrap().trim_end(), expected, "{format}");
    }
}

/// Git takes for damage what has ids of the other width.
#[test]
fn ids_of_the_other_format_are_refused_as_git_does() {
    for (format, other) in [(ObjectFormat::Sha1, ObjectFormat::Sha256), (ObjectFormat::Sha256, ObjectFormat::Sha1)] {
        let line = "A <a@b> 5 +0000";
        let commit = |tree: Oid, parent: Oid| {
            format!("tree {tree}\nparent {parent}\nauthor {line}\ncommitter {line}\n\nm\n").into_bytes()
        };
        let tag = |target: Oid| format!("object {target}\ntype tree\ntag v1\ntagger {line}\n\nm\n").into_bytes();
        let tree = |oid: Oid| [b"100644 a\0", oid.as_bytes()].concat();
        let (own, foreign, parent) = (format.empty_tree(), other.empty_tree(), oid(format, 9));
        for (kind, data, id) in [
            (Kind::Commit, commit(own, parent), None),
            (Kind::Commit, commit(foreign, parent), Some("badTreeSha1")),
            (Kind::Commit, commit(own, foreign), Some("badParentSha1")),
            (Kind::Tag, tag(own), None),
            (Kind::Tag, tag(foreign), Some("badObjectSha1")),
            (Kind::Tree, tree(own), None),
            (Kind::Tree, tree(foreign), Some("badTree")),
        ] {
            let stored = git(format, &["hash-object", "-t", kind.as_str(), "--stdin"], &data);
            let expected = id.map(|id| (CheckLevel::Refuse, id));
            assert_eq!(found(format, kind, &data), expected, "{format} {kind}");
            assert_eq!(stored.is_some(), id.is_none(), "git's own check of {format} {kind}");
            assert_eq!(links(format, kind, &data).is_ok(), id.is_none(), "{format} {kind}");
        }
        assert!(Commit::parse(&commit(own, foreign)).is_err(), "ids of both formats");
        let edits = BTreeMap::from([(b"a".to_vec(), TreeEdit::Set(EntryMode::COMMIT, foreign))]);
        assert_eq!(edit_tree(format, &[], &edits).unwrap_err().kind(), &ErrorKind::Invalid);
    }
}

#[test]
fn commits_round_trip_to_the_byte() {
    for format in ObjectFormat::ALL {
        let empty_tree = format.empty_tree();
        let signature = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQEzBAABCAAdFiEE\n -----END PGP SIGNATURE-----\n";
        let mergetag =
            format!("mergetag object {empty_tree}\n type tree\n tag v1\n tagger A <a@b> 1 +0000\n \n text\n");
        for headers in [
            String::new(),
            format!("parent {}\n", oid(format, 1)),
            "encoding ISO-8859-1\n".to_owned(),
            signature.to_owned(),
            format!("{mergetag}{signature}"),
            format!("encoding latin1\n{signature}x-own value with  spaces\n"),
        ] {
            for message in ["", "one line", "subject\n\nbody\n", "\n\nlate subject\n"] {
                let data = match headers.strip_prefix("parent") {
                    Some(_) => format!(
                        "tree {empty_tree}\n{headers}author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n{message}"
                    )
                    .into_bytes(),
                    None => commit_text(format, "Ä <a@b> 1700000000 +0130", &headers, message),
                };
                let commit = Commit::parse(&data).unwrap();
                assert_eq!(commit.to_bytes(), data, "{}", String::from_utf8_lossy(&data));
                assert_eq!(commit.message, message.as_bytes());
            }
        }
        let commit =
            Commit::parse(&commit_text(format, "A <a@b> 1700000000 +0130", "", "\nsubject\n\nbody\n")).unwrap();
        assert_eq!((commit.author.seconds, commit.author.offset_minutes), (1_700_000_000, 90));
        assert_eq!((commit.committer.seconds, commit.committer.offset_minutes), (1_700_000_001, -480));
        assert_eq!(commit.subject(), "subject");
    }
}

#[test]
fn odd_identities_are_kept() {
    for format in ObjectFormat::ALL {
        let latin1 = [&commit_text(format, "", "", "")[..], &[]].concat();
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
            let commit =
                Commit::parse(&commit_text(format, line, "", "m")).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            let author = &commit.author;
            assert_eq!((author.name_lossy().as_str(), author.email_lossy().as_str()), (name, email), "{line:?}");
            assert_eq!((author.seconds, author.offset_minutes), (seconds, offset), "{line:?}");
        }
    }
}

/// What the checks let in must be readable afterwards, or one old commit makes a whole history unreadable.
#[test]
fn every_commit_that_is_accepted_can_be_parsed() {
    for format in ObjectFormat::ALL {
        for author in [
            "no brackets 5 +0000",
            "A a@b> 5 +0000",
            "A <a@b 5 +0000",
            "A <a@b> 5 +0000 junk",
            "A <a@b> Thu, 1 Jan",
            "",
        ] {
            let data = commit_text(format, author, "", "m");
            assert!(
                check_object(format, Kind::Commit, &data).is_none_or(|finding| finding.level == CheckLevel::Accept),
                "{author:?}"
            );
            assert!(Commit::parse(&data).is_ok(), "author {author:?} is accepted but cannot be parsed");
        }
        let headers_only = commit_text(format, "A <a@b> 5 +0000", "", "");
        let headers_only = &headers_only[..headers_only.len() - 1];
        assert_eq!(check_object(format, Kind::Commit, headers_only), None);
        assert!(Commit::parse(headers_only).is_ok(), "a commit without a message and its blank line");
    }
}

#[test]
fn malformed_commits_and_tags_are_errors() {
    for format in ObjectFormat::ALL {
        let empty_tree = format.empty_tree();
        let good = commit_text(format, "A <a@b> 5 +0000", "", "m");
        for bad in [&b""[..], b"tree", &good[5..], &good[..60], b"tree 4b82\nauthor A <a@b> 5 +0000\n\n"] {
            assert_eq!(Commit::parse(bad).unwrap_err().kind(), &ErrorKind::Corrupt);
        }
        for bad in [
            "",
            "object 4b82\ntype tree\ntag v\n\n",
            &format!("object {empty_tree}\ntype bush\ntag v\n\n"),
            &format!("object {empty_tree}\ntype tree\n\n"),
        ] {
            assert_eq!(Tag::parse(bad.as_bytes()).unwrap_err().kind(), &ErrorKind::Corrupt, "{bad:?}");
        }
    }
}

#[test]
fn tags_round_trip_to_the_byte() {
    for format in ObjectFormat::ALL {
        for tagger in ["", "\ntagger A U Thor <a@example.com> 1700000000 -0130"] {
            for message in ["", "first\n", "first\n\n-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n"]
            {
                let data = format!("object {}\ntype commit\ntag v1{tagger}\n\n{message}", oid(format, 3)).into_bytes();
                let tag = Tag::parse(&data).unwrap();
                assert_eq!(
                    (tag.target, tag.target_kind, tag.name.as_slice()),
                    (oid(format, 3), Kind::Commit, &b"v1"[..])
                );
                assert_eq!(tag.tagger.is_some(), !tagger.is_empty());
                assert_eq!(tag.to_bytes(), data);
            }
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
    for format in ObjectFormat::ALL {
        let (tree, parent) = (format.empty_tree(), oid(format, 9));
        let data = format!(
            "tree {tree}\nparent {parent}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 42 +0000\n\nparent {tree}\n"
        );
        let found = links(format, Kind::Commit, data.as_bytes()).unwrap();
        assert_eq!(found.targets.as_slice(), [(tree, Some(Kind::Tree)), (parent, Some(Kind::Commit))]);
        assert_eq!(found.commit_seconds, 42);

        let data = tree_of(format, &[("100644", b"a"), ("40000", b"d"), ("120000", b"l"), ("160000", b"s")]);
        let kinds: Vec<_> = links(format, Kind::Tree, &data).unwrap().targets.iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [Some(Kind::Blob), Some(Kind::Tree), Some(Kind::Blob)], "a submodule is no link");

        let data = format!("object {parent}\ntype tag\ntag v\n\n");
        assert_eq!(links(format, Kind::Tag, data.as_bytes()).unwrap().targets.as_slice(), [(parent, Some(Kind::Tag))]);
        assert!(links(format, Kind::Blob, b"tree").unwrap().targets.is_empty());
        assert!(links(format, Kind::Tree, &tree_of(format, &[("100644", b"a")])[..9]).is_err());
        assert!(links(format, Kind::Commit, b"tree x\n").is_err() && links(format, Kind::Tag, b"object x\n").is_err());
    }
}

fn found(format: ObjectFormat, kind: Kind, data: &[u8]) -> Option<(CheckLevel, &'static str)> {
    check_object(format, kind, data).map(|finding| (finding.level, finding.id))
}

#[test]
fn names_that_attack_a_checkout_are_refused() {
    for format in ObjectFormat::ALL {
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
            assert_eq!(
                found(format, Kind::Tree, &tree_of(format, &[("100644", name)])),
                expected,
                "{}",
                name.escape_ascii()
            );
            assert_eq!(
                check_path_component(name, false).map(|finding| finding.id),
                Some(id),
                "{}",
                name.escape_ascii()
            );
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
            assert_eq!(
                found(format, Kind::Tree, &tree_of(format, &[("100644", name)])),
                None,
                "{}",
                name.escape_ascii()
            );
        }
        for name in [&b".gitmodules"[..], b"GITMOD~1", b"gi7eba~1", b".GitModules "] {
            let expected = Some((CheckLevel::Refuse, "gitmodulesSymlink"));
            assert_eq!(
                found(format, Kind::Tree, &tree_of(format, &[("120000", name)])),
                expected,
                "{}",
                name.escape_ascii()
            );
        }
        assert_eq!(check_path_component(b"a\0b", false).map(|finding| finding.id), Some("nulInName"));
    }
}

#[test]
fn tree_findings_have_git_s_severities() {
    for format in ObjectFormat::ALL {
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
            assert_eq!(found(format, Kind::Tree, &tree_of(format, entries)), *expected, "{entries:?}");
        }
        let whole = tree_of(format, &[("100644", b"a")]);
        for end in 1..whole.len() {
            assert_eq!(found(format, Kind::Tree, &whole[..end]), Some((refuse, "badTree")), "cut at {end}");
        }
        assert_eq!(found(format, Kind::Tree, &tree_of(format, &[("100648", b"a")])), Some((refuse, "badTree")));
        let null = [b"100644 a\0".as_slice(), &vec![0; format.len()]].concat();
        assert_eq!(found(format, Kind::Tree, &null), Some((refuse, "nullSha1")));
        assert_eq!(found(format, Kind::Blob, b"\0anything"), None);
    }
}

#[test]
fn commit_and_tag_findings_have_git_s_severities() {
    for format in ObjectFormat::ALL {
        let empty_tree = format.empty_tree();
        let (accept, refuse) = (CheckLevel::Accept, CheckLevel::Refuse);
        let commit = String::from_utf8(commit_text(format, "A <a@b> 5 +0000", "", "m\n")).unwrap();
        let tag = format!("object {empty_tree}\ntype tree\ntag v1\ntagger A <a@b> 5 +0000\n\nm\n");
        let author = |line: &str| commit.replace("author A <a@b> 5 +0000", &format!("author {line}"));
        let author_line = "author A <a@b> 5 +0000\n";
        for (kind, data, expected) in [
            (Kind::Commit, commit.clone(), None),
            (Kind::Commit, commit.replace("tree ", "bush "), Some((refuse, "missingTree"))),
            (Kind::Commit, commit.replace(&empty_tree.to_string()[..4], "zzzz"), Some((refuse, "badTreeSha1"))),
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
            (Kind::Tag, tag.replace(&empty_tree.to_string()[..4], "zzzz"), Some((refuse, "badObjectSha1"))),
            (Kind::Tag, tag.replace("type", "typo"), Some((refuse, "missingTypeEntry"))),
            (Kind::Tag, tag.replace("tree", "bush"), Some((refuse, "badType"))),
            (Kind::Tag, tag.replace("tag v1", "tug v1"), Some((refuse, "missingTagEntry"))),
            (Kind::Tag, tag.replace("tag v1", "tag v..1"), Some((accept, "badTagName"))),
            (Kind::Tag, tag.replace("tagger A <a@b> 5 +0000\n", ""), Some((accept, "missingTaggerEntry"))),
        ] {
            assert_eq!(found(format, kind, data.as_bytes()), expected, "{data}");
        }
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
    for format in ObjectFormat::ALL {
        let old = tree_of(format, &[("0100644", b"a"), ("100664", b"b"), ("040000", b"c")]);
        let edits = BTreeMap::from([
            (b"b".to_vec(), TreeEdit::Remove),
            (b"bb".to_vec(), TreeEdit::Set(EntryMode::BLOB, oid(format, 7))),
        ]);
        assert_eq!(
            edit_tree(format, &old, &edits).unwrap(),
            tree_of(format, &[("0100644", b"a"), ("100644", b"bb"), ("040000", b"c")])
        );
        assert_eq!(edit_tree(format, &old[..20], &edits).unwrap_err().kind(), &ErrorKind::Corrupt);
    }
}

type Entries = BTreeMap<Vec<u8>, (EntryMode, Oid)>;

fn any_entries(format: ObjectFormat, max: usize) -> impl Strategy<Value = Entries> {
    let mode = prop::sample::select(vec![EntryMode::BLOB, EntryMode::TREE, EntryMode::EXECUTABLE, EntryMode::COMMIT]);
    let name = "[ab.\\-0]{1,3}".prop_map(String::into_bytes);
    prop::collection::btree_map(name, (mode, (1..=255u8).prop_map(move |byte| oid(format, byte))), 0..max)
}

fn any_edits() -> impl Strategy<Value = (ObjectFormat, Entries, Entries, Entries)> {
    prop::sample::select(&ObjectFormat::ALL[..])
        .prop_flat_map(|format| (Just(format), any_entries(format, 24), any_entries(format, 8), any_entries(format, 8)))
}

#[test]
fn a_carriage_return_is_part_of_its_line() {
    let person = "A <a@b> 5 +0000";
    for format in ObjectFormat::ALL {
        let id = format.empty_tree();
        let with_cr = |text: &str, line: &str| text.replace(line, &format!("{line}\r")).into_bytes();
        let sound = format!("tree {id}\nparent {id}\nauthor {person}\ncommitter {person}\nx y\r\n\nm");
        assert_eq!(Commit::parse(sound.as_bytes()).unwrap().to_bytes(), sound.as_bytes());
        for line in [format!("tree {id}"), format!("parent {id}")] {
            let spoiled = with_cr(&sound, &line);
            assert_eq!(check_object(format, Kind::Commit, &spoiled).unwrap().level, CheckLevel::Refuse);
            assert!(Commit::parse(&spoiled).is_err(), "{line}");
            assert!(links(format, Kind::Commit, &spoiled).is_err(), "{line}");
        }
        let tag = format!("object {id}\ntype tree\ntag v1\n\nm");
        for line in [format!("object {id}"), "type tree".to_owned()] {
            let spoiled = with_cr(&tag, &line);
            assert!(Tag::parse(&spoiled).is_err() && links(format, Kind::Tag, &spoiled).is_err(), "{line}");
        }
    }
}

/// The seeds of the fuzz target: what is called `bad-*` is refused for its reason, everything else is read.
#[test]
fn seeds_of_object() {
    let seeds = [
        ("commit", None),
        ("tag", None),
        ("tree", None),
        ("bad-carriage-return", Some("badTreeSha1")),
        ("bad-tree-cut", Some("badTree")),
        ("bad-tree-dotdot", Some("hasDotdot")),
        ("bad-tree-dotgit", Some("hasDotgit")),
        ("bad-tree-duplicate", Some("duplicateEntries")),
        ("bad-tree-mode", Some("badTree")),
        ("bad-tree-null", Some("nullSha1")),
        ("bad-tree-slash", Some("fullPathname")),
        ("bad-tree-unsorted", Some("treeNotSorted")),
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/object");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2 * seeds.len());
    for (name, reason) in seeds {
        for (format, name) in ObjectFormat::ALL.into_iter().zip([name.to_owned(), format!("{name}-sha256")]) {
            let data = std::fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            fuzz_object(&data);
            let refused = read_as_object(format, &data).err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), reason.is_some(), "{name}: {refused:?}");
            assert!(refused.as_deref().unwrap_or_default().contains(reason.unwrap_or_default()), "{name}: {refused:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edits_splice_as_a_new_sort_would((format, old, sets, removed) in any_edits()) {
        let mut edits: BTreeMap<Vec<u8>, TreeEdit> = removed.into_keys().map(|name| (name, TreeEdit::Remove)).collect();
        edits.extend(sets.into_iter().map(|(name, (mode, oid))| (name, TreeEdit::Set(mode, oid))));
        let mut expected = old.clone();
        for (name, edit) in &edits {
            match edit {
                TreeEdit::Set(mode, oid) => expected.insert(name.clone(), (*mode, *oid)),
                TreeEdit::Remove => expected.remove(name),
            };
        }
        let edited = edit_tree(format, &naive_tree(&old), &edits).unwrap();
        prop_assert_eq!(&edited, &naive_tree(&expected));
        let read = Tree::parse(format, &edited).unwrap();
        prop_assert_eq!(read.entries.len(), expected.len());
        prop_assert!(read.entries.iter().all(|entry| expected.get(&*entry.name) == Some(&(entry.mode, entry.oid))));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        format in prop::sample::select(&ObjectFormat::ALL[..]),
        data in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0..150usize,
    ) {
        let mut near = commit_text(format, "A <a@b> 5 +0000", "encoding x\n", "m");
        near.truncate(cut);
        near.extend_from_slice(&data);
        for kind in [Kind::Commit, Kind::Tree, Kind::Blob, Kind::Tag] {
            for bytes in [&data, &near] {
                let _ = (check_object(format, kind, bytes), links(format, kind, bytes), Tree::parse(format, bytes));
                let _ = (Commit::parse(bytes), Commit::tree_of(bytes), Tag::parse(bytes));
            }
        }
    }
}
