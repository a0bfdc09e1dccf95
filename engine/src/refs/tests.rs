//! Names by git's rules, and the rule that no reference is another's directory.

use imbl::OrdMap;

use super::*;
use crate::{ErrorKind, ObjectFormat, Oid};

#[test]
fn names_follow_git_check_ref_format() {
    for good in [
        "refs/heads/main",
        "refs/heads/a/b/c",
        "refs/tags/v1.0",
        "refs/x",
        "refs/heads/@",
        "refs/heads/a@b",
        "refs/heads/-a",
        "refs/heads/ä",
        "refs/heads/a{b}",
        "refs/heads/lock",
        "refs/heads/a.lockx",
        "refs/heads/$(x)",
        "refs/pull/1/head",
    ] {
        assert_eq!(RefName::new(good).unwrap().as_str(), good);
    }
    assert_eq!(RefName::new(b"refs/heads/\xff").unwrap().as_bytes(), b"refs/heads/\xff");
    for bad in [
        "",
        "refs",
        "refs/",
        "HEAD",
        "main",
        "heads/main",
        "/refs/heads/a",
        "refs/heads/",
        "refs/heads//a",
        "refs/heads/a/",
        "refs/heads/.a",
        "refs/heads/a/.b",
        "refs/heads/a..b",
        "refs/heads/a.",
        "refs/heads/a.lock",
        "refs/heads/a.lock/b",
        "refs/heads/a b",
        "refs/heads/a~",
        "refs/heads/a^",
        "refs/heads/a:b",
        "refs/heads/a?",
        "refs/heads/a*",
        "refs/heads/[a",
        "refs/heads/a\\b",
        "refs/heads/a@{b",
        "refs/heads/a\u{7f}",
        "refs/heads/a\n",
        "refs/heads/a\0",
        "@",
        "refsx/heads/a",
    ] {
        assert_eq!(RefName::new(bad).unwrap_err().kind(), &ErrorKind::Invalid, "{bad:?}");
    }
    let longest = format!("refs/heads/{}", "a".repeat(RefName::LEN_MAX - 11));
    assert!(RefName::new(&longest).is_ok());
    assert!(RefName::new(format!("{longest}a")).is_err());
}

#[test]
fn branches_and_tags_have_short_names() {
    for (full, short, branch, tag) in [
        ("refs/heads/a/b", "a/b", true, false),
        ("refs/tags/v1", "v1", false, true),
        ("refs/remotes/origin/a", "origin/a", false, false),
        ("refs/notes/commits", "notes/commits", false, false),
        ("refs/headsx/a", "headsx/a", false, false),
    ] {
        let name = RefName::new(full).unwrap();
        assert_eq!((&*name.short(), name.is_branch(), name.is_tag()), (short, branch, tag), "{full}");
    }
    assert_eq!(RefName::branch("a").unwrap().as_str(), "refs/heads/a");
    assert_eq!(RefName::tag("a").unwrap().as_str(), "refs/tags/a");
    for bad in ["", "HEAD", "-a", "a..b", "a b"] {
        assert_eq!(RefName::branch(bad).unwrap_err().kind(), &ErrorKind::Invalid, "{bad:?}");
    }
    assert!(RefName::tag("-a").is_err() && RefName::tag("").is_err());
}

#[test]
fn no_reference_is_another_s_directory() {
    let existing = ["refs/heads/a/b", "refs/heads/c", "refs/heads/d-e", "refs/heads/f/g/h"];
    let refs: OrdMap<RefName, Oid> =
        existing.iter().map(|name| (RefName::new(name).unwrap(), ObjectFormat::Sha1.empty_tree())).collect();
    for (name, in_the_way) in [
        ("refs/heads/a", Some("refs/heads/a/b")),
        ("refs/heads/a/b/x", Some("refs/heads/a/b")),
        ("refs/heads/a/b/x/y", Some("refs/heads/a/b")),
        ("refs/heads/c/x", Some("refs/heads/c")),
        ("refs/heads/f", Some("refs/heads/f/g/h")),
        ("refs/heads/f/g", Some("refs/heads/f/g/h")),
        ("refs/heads", Some("refs/heads/a/b")),
        ("refs/heads/a/c", None),
        ("refs/heads/a-b", None),
        ("refs/heads/d", None),
        ("refs/heads/cc", None),
        ("refs/heads/f/g/i", None),
        ("refs/heads/a/b", None),
    ] {
        match (edit::DirectoryCheck::default().check(&refs, &RefName::new(name).unwrap()), in_the_way) {
            (Ok(()), None) => {}
            (Err(error), Some(other)) => {
                assert_eq!(error.kind(), &ErrorKind::Exists, "{name}");
                assert!(error.message().contains(name) && error.message().contains(other), "{error}");
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

#[test]
fn expectations_hold_or_not() {
    let (one, other) = (ObjectFormat::Sha1.empty_tree(), ObjectFormat::Sha1.null());
    for (expected, absent, same, different) in [
        (Expected::Any, true, true, true),
        (Expected::Absent, true, false, false),
        (Expected::Is(one), false, true, false),
    ] {
        assert_eq!(
            (expected.holds(None), expected.holds(Some(one)), expected.holds(Some(other))),
            (absent, same, different)
        );
    }
}
