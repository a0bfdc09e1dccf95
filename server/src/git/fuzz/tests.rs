//! Every seed goes through its entry: what is called `bad-*` is refused for its reason, everything else is taken. Where there is
//! `NAME-sha256`, it is `NAME` for a repository of that format.

use std::collections::BTreeMap;

use super::*;

/// Runs the seeds of a target, which are these and no others: sound ones, and bad ones with a part of the reason.
#[track_caller]
fn check(
    target: &str,
    sound: &[&str],
    bad: &[(&str, &str)],
    read: impl Fn(&str, ObjectFormat, &[u8]) -> Result<(), String>,
) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files = std::fs::read_dir(&folder).expect("the seeds are there").map(|file| file.expect("a file").path());
    let mut seeds: BTreeMap<String, Vec<u8>> = files
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("a readable file"))
        })
        .collect();
    let mut wrong = Vec::new();
    for (name, reason) in
        sound.iter().map(|name| (*name, None)).chain(bad.iter().map(|(name, why)| (*name, Some(*why))))
    {
        let sha1 = seeds.remove(name).unwrap_or_else(|| panic!("{target}/{name} is missing"));
        let sha256 = seeds.remove(&format!("{name}-sha256"));
        for (format, data) in ObjectFormat::ALL.into_iter().zip([Some(sha1), sha256]) {
            let Some(data) = data else { continue };
            match (read(name, format, &data), reason) {
                (Ok(()), None) => {}
                (Ok(()), Some(_)) => wrong.push(format!("{name} of {format} is taken")),
                (Err(given), None) => wrong.push(format!("{name} of {format} is refused: {given}")),
                (Err(given), Some(reason)) if given.contains(reason) => {}
                (Err(given), Some(reason)) => {
                    wrong.push(format!("{name} of {format}: {given:?} does not say {reason:?}"))
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{target}:\n{}", wrong.join("\n"));
    assert!(seeds.is_empty(), "{target}: not in the list: {:?}", seeds.into_keys());
}

fn told<T>(result: Result<T>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

#[test]
fn seeds_of_pkt_line() {
    let sound = [
        "flush",
        "push-many",
        "v0-fetch",
        "v0-partial",
        "v0-push",
        "v0-shallow",
        "v0-signed-ecdsa",
        "v0-signed-ed25519",
        "v0-signed-rsa",
        "v2-bundle-uri",
        "v2-deepen-not",
        "v2-fetch",
        "v2-ls-refs",
        "v2-object-info",
        "v2-packfile-uris",
        "v2-partial",
        "v2-shallow",
    ];
    let bad = [
        ("bad-short", "bad line length '0003'"),
        ("bad-long", "bad line length 'fff1'"),
        ("bad-end", "expected flush"),
        ("bad-depth", "Invalid deepen"),
        ("bad-since", "Invalid deepen-since"),
        ("bad-relative", "Invalid deepen"),
        ("bad-not", "more than 1024 'deepen-not' lines"),
        ("bad-deepen-both", "cannot be used together"),
        ("bad-bundle-uri", "unexpected argument"),
        ("bad-filter", "invalid filter-spec"),
        ("bad-nested", "more than 16 deep"),
        ("bad-v0-short", "bad line length '0003'"),
        ("bad-v0-long", "bad line length 'fff1'"),
        ("bad-v0-end", "expected flush after wants"),
        ("bad-v0-delimiter", "expected flush after haves"),
        ("bad-v0-depth", "Invalid deepen"),
        ("bad-v0-filter", "not negotiated"),
        ("bad-push-short", "bad line length '0003'"),
        ("bad-push-long", "bad line length 'fff1'"),
        ("bad-push-delimiter", "ended within its commands"),
        ("bad-push-end", "ended within its commands"),
        ("bad-push-cut", "ended within its commands"),
        ("bad-push-command", "expected old/new/ref"),
        ("bad-push-many", "at most 50 references"),
        ("bad-push-cert-long", "bad line length 'fff1'"),
        ("bad-push-cert-flush", "within its push certificate"),
    ];
    check("pkt_line", &sound, &bad, |name, format, data| {
        fuzz_pkt_line(data);
        fuzz_upload_request(data);
        fuzz_receive_commands(data);
        let is = |word: &str| name.contains(word);
        if is("push") || is("signed") {
            told(read_commands(format, data))
        } else if is("v0") {
            told(FetchRequest::read_v0(format, &mut Reader::new(data)))
        } else {
            told(read_v2(format, data))
        }
    });
}

#[test]
fn seeds_of_filter() {
    let listed: Vec<String> = (1..=25).map(|number| format!("bad-{number:02}")).collect();
    let mut bad = vec![("bad-nested", "more than 16 deep"), ("bad-many", "more than 64 parts")];
    bad.extend(listed.iter().map(|name| (&**name, "")));
    check("filter", &["backtracking", "combined", "limit", "nested", "patterns"], &bad, |name, _, data| {
        fuzz_filter(data);
        let is_pattern = matches!(name, "backtracking" | "patterns");
        if is_pattern { Ok(()) } else { told(FilterSpec::parse(data)) }
    });
}

#[test]
fn seeds_of_pack() {
    let sound = [
        "chain-256",
        "chain-257",
        "deep-tags",
        "deep-trees",
        "duplicate",
        "empty",
        "missing-tree",
        "offset-delta",
        "ref-delta",
        "sound",
        "whole",
        "wide-tree",
    ];
    let bad = [
        ("bad-version-0", "version 0 is not supported"),
        ("bad-version-4", "version 4 is not supported"),
        ("bad-count-more", "pack"),
        ("bad-count-fewer", "its checksum does not match"),
        ("bad-count-none", "its checksum does not match"),
        ("bad-count-huge", "it claims 4294967295 objects"),
        ("bad-trailer", "checksum"),
        ("bad-trailing", "after its end"),
        ("bad-cut", "ends early"),
        ("bad-type-0", "unknown object type 0"),
        ("bad-type-5", "unknown object type 5"),
        ("bad-size-less", "more than the 10 bytes"),
        ("bad-size-more", "10 bytes instead of the 1000"),
        ("bad-size-2-59", "an object of 576460752303423488 bytes"),
        ("bad-size-2-62", "the size of an object is too long"),
        ("bad-size-endless", "the size of an object is too long"),
        ("bad-bomb", "an object of 4194304 bytes"),
        ("bad-many-bombs", "more than 4194304 bytes in all"),
        ("bad-adler", "the zlib stream is damaged"),
        ("bad-ofs-self", "its base is no entry of the pack"),
        ("bad-ofs-header", "its base is no entry of the pack"),
        ("bad-ofs-before", "its base is no entry of the pack"),
        ("bad-ofs-between", "its base is no entry of the pack"),
        ("bad-ref-self", "missing bases"),
        ("bad-ref-cycle", "missing bases"),
        ("bad-ref-missing", "missing bases"),
        ("bad-delta-copy-past", "copies from outside of its base"),
        ("bad-delta-copy-far", "copies from outside of its base"),
        ("bad-delta-copy-cut", "delta copy ends early"),
        ("bad-delta-insert-cut", "inserts more than it carries"),
        ("bad-delta-reserved", "reserved instruction 0"),
        ("bad-delta-base-size", "for a base of 52 bytes, not 51"),
        ("bad-delta-result-short", "makes 5 bytes but announces 6"),
        ("bad-delta-result-long", "makes more than it announces"),
        ("bad-delta-sizes-alone", "delta header ends early"),
        ("bad-delta-sizes-endless", "a number that is too long"),
        ("bad-delta-empty", "delta header ends early"),
        ("bad-delta-bomb", "1099511627776"),
        ("bad-delta-doubling", "40000000"),
        ("bad-tree-dotgit", "hasDotgit"),
        ("bad-tree-dotdot", "hasDotdot"),
        ("bad-tree-slash", "fullPathname"),
        ("bad-tree-duplicate", "duplicateEntries"),
        ("bad-tree-unsorted", "treeNotSorted"),
        ("bad-tree-null", "nullSha1"),
        ("bad-tree-cut", "badTree"),
        ("bad-tree-mode", "badTree"),
        ("bad-tree-of-a-blob", "is a blob but pointed at as a tree"),
        ("bad-commit", "badTreeSha1"),
        ("bad-deep-trees", "nested deeper than 1024"),
        ("bad-wide-tree", "an object of 330000 bytes"),
        // On what a repository has; this one has nothing.
        ("thin", "missing bases"),
    ];
    check("pack", &sound, &bad, |_, format, data| {
        fuzz_pack(data);
        told(receive_pack(format, data))
    });
}

#[test]
fn seeds_of_push() {
    let sound = [
        "delete",
        "deep-tags",
        "duplicate",
        "known",
        "live",
        "many",
        "merge",
        "rebase",
        "sound",
        "spilled",
        "strict",
        "thin",
        "thin-live",
        "thin-strict",
        "unsealed",
        "unsealed-duplicate",
        "unsealed-tags",
        "unsealed-thin",
        "wide-tree",
    ];
    let bad = [
        ("bad-atomic", "atomic push failure"),
        ("bad-branch-of-a-blob", "a branch points to a commit"),
        ("bad-cut", "ends early"),
        ("bad-deep-tags", "64 tags"),
        ("bad-deep-trees", "nested deeper than 1024"),
        ("bad-delete-denied", "deletion prohibited"),
        ("bad-delete-head", "deletion of the current branch prohibited"),
        ("bad-hidden", "deny deleting a hidden ref"),
        ("bad-live-cut", "ends early"),
        ("bad-many", "at most 50 references"),
        ("bad-missing-tree", "5656565656"),
        ("bad-moved", "failed to update ref (moved)"),
        ("bad-nothing", "ng refs/heads/new"),
        ("bad-ref-missing", "missing bases"),
        ("bad-signed", "ng refs/heads/main"),
        ("bad-spilled-hole", "5656565656"),
        ("bad-spilled-trailer", "its checksum does not match"),
        ("bad-trailing", "bytes after its end"),
        ("bad-tree-dotgit", "hasDotgit"),
        ("bad-unsealed-hole", "5656565656"),
        ("bad-wide-tree", "an object of 330000 bytes"),
    ];
    check("push", &sound, &bad, |_, _, data| {
        let (answer, is_published) = exchange::push(data);
        if is_published { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
    });
}

#[test]
fn seeds_of_fetch() {
    let sound = [
        "ssh-v0-nothing",
        "ssh-v0-rounds",
        "ssh-v2-commands",
        "v0-clone-without-bands",
        "v0-fetch",
        "v1-depth",
        "v2-all",
        "v2-blob",
        "v2-by-name",
        "v2-clone",
        "v2-depth",
        "v2-fetch",
        "v2-filter",
        "v2-have-hidden",
        "v2-ls-refs",
        "v2-negotiate",
        "v2-not",
        "v2-object-info",
        "v2-relative",
        "v2-since",
        "v2-sparse",
    ];
    let bad = [
        ("bad-want-hidden", "not our ref"),
        ("bad-want-fork", "not our ref"),
        ("bad-want-other", "not our ref"),
        ("bad-want-loose", "not our ref"),
        ("bad-want-unknown", "not our ref 1111111111111111111111111111111111111111"),
        ("bad-want-hidden-blob", "not our ref"),
        ("bad-v0-want-hidden", "not our ref"),
        ("bad-ssh-want-hidden", "not our ref"),
        ("bad-want-ref-hidden", "unknown ref refs/hidden/SECRET"),
        ("bad-not-hidden", "deepen-not is not a ref: refs/hidden/SECRET"),
        ("bad-sparse-hidden", "unable to access sparse blob"),
        ("bad-short", "bad line length '0003'"),
        ("bad-cut", "expected flush after fetch arguments"),
        ("bad-ssh-cut", "expected flush after fetch arguments"),
        ("bad-ssh-v0-cut", "the request ended within a line"),
        // All that it hears is the advertisement.
        ("bad-ssh-deaf", "version 2"),
    ];
    check("fetch", &sound, &bad, |name, _, data| {
        let answer = exchange::fetch(data);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let without_pack = ["ssh-v0-nothing", "v2-ls-refs", "v2-negotiate", "v2-object-info"];
        let is_served = text.contains("PACK") || without_pack.contains(&name);
        if is_served && !text.contains("ERR ") { Ok(()) } else { Err(text) }
    });
}

#[test]
fn seeds_of_all_other_targets() {
    type Entry = (&'static str, &'static [&'static str], fn(&[u8]));
    let entries: [Entry; 2] = [
        ("attributes", &["backtracking", "rules"], crate::fuzz_attributes),
        (
            "import",
            &["bands", "borders", "bundle", "state", "v0-references", "v2-capabilities", "v2-references"],
            crate::fuzz_import,
        ),
    ];
    for (target, seeds, entry) in entries {
        check(target, seeds, &[], |_, _, data| {
            entry(data);
            Ok(())
        });
    }
    check("kept_index", &["form", "whole"], &[], |name, format, data| match fuzz_kept_index(data) {
        // Without its checksum it is refused, with it it is taken.
        1 => Ok(()),
        taken => Err(format!("{name} of {format} is taken {taken} times")),
    });
    let keys = ["allowed-signers", "authorized-keys", "command"];
    check("keys", &keys, &[], |name, _, data| {
        let wanted = match name {
            // Options of people are names of signers, too.
            "authorized-keys" => [2, 2, 0],
            "allowed-signers" => [0, 1, 0],
            _ => [0, 0, 1],
        };
        let found = crate::fuzz_keys(data);
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    });
}
