//! Objects that today's git would not write but that real histories contain: each must pass through unchanged.
//!
//! All of them are at most warnings to git's fsck; what fsck calls an error is refused (see `hostile`).

use std::path::Path;

use crate::git::Git;

const PERSON: &str = "Ada Test <ada@example.com> 1000000000 +0000";

/// Adds every oddity to the bare repository `dir`, each below a reference of its own.
pub(crate) fn add(git: &Git, dir: &Path) {
    let parent = git.ok(dir, &["rev-parse", "refs/heads/main"]);
    let blob = git.object(dir, "blob", b"odd\n");
    let tree = git.ok_fed(dir, &["mktree"], format!("100644 blob {blob}\tfile\n").as_bytes());
    commits(git, dir, &tree, &parent);
    trees(git, dir, &blob, &tree);
    tags(git, dir, &blob, &tree, &parent);
}

fn commits(git: &Git, dir: &Path, tree: &str, parent: &str) {
    let head = format!("tree {tree}\nparent {parent}\nauthor {PERSON}\ncommitter {PERSON}\n");
    let signature =
        "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQIzBAABCAAdFiEE\n =wxyz\n -----END PGP SIGNATURE-----\n";
    let mergetag = format!(
        "mergetag object {parent}\n type commit\n tag v9\n tagger {PERSON}\n \n merged tag\n -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n"
    );
    let nameless =
        format!("tree {tree}\nauthor  <nobody@example.com> 0 -0000\ncommitter  <nobody@example.com> 0 -0000\n");
    let odd: [(&str, Vec<u8>); 8] = [
        ("gpgsig", format!("{head}{signature}\nsigned\n").into_bytes()),
        ("mergetag", format!("{head}{mergetag}\nmerge of a tag\n").into_bytes()),
        ("both", format!("{head}{mergetag}{signature}\nboth\n").into_bytes()),
        ("unknown-header", format!("{head}x-tool one\n two\nHG:rename-source hg\n\nfrom another tool\n").into_bytes()),
        ("encoding", [format!("{head}encoding cp1252\n\n").as_bytes(), b"sm\xf8rrebr\xf8d\n"].concat()),
        ("nul", [format!("{head}\n").as_bytes(), b"a NUL \0 in the message\n"].concat()),
        ("nameless", format!("{nameless}\nno name, no zone\n").into_bytes()),
        ("messageless", format!("{head}\n").into_bytes()),
    ];
    for (name, data) in odd {
        let oid = git.object(dir, "commit", &data);
        git.ok(dir, &["update-ref", &format!("refs/heads/odd/commit-{name}"), &oid]);
    }
}

fn trees(git: &Git, dir: &Path, blob: &str, tree: &str) {
    let empty = git.object(dir, "tree", b"");
    let odd: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("holds-empty", entry("40000", b"nothing", &empty)),
        // Written by some forges around 2009; fsck warns of zeroPaddedFilemode.
        ("zero-padded", [entry("040000", b"dir", tree), entry("0100644", b"file", blob)].concat()),
        // Group-writable, from git's first months; fsck mentions badFilemode.
        ("group-writable", entry("100664", b"file", blob)),
        // Sorted as git sorts: a directory as if its name ended in a slash.
        ("order", [entry("100644", b"a.b", blob), entry("40000", b"a", tree), entry("100644", b"a0", blob)].concat()),
    ];
    for (name, data) in odd {
        let oid = git.object(dir, "tree", &data);
        let commit = format!("tree {oid}\nauthor {PERSON}\ncommitter {PERSON}\n\na tree: {name}\n");
        let commit = git.object(dir, "commit", commit.as_bytes());
        git.ok(dir, &["update-ref", &format!("refs/heads/odd/tree-{name}"), &commit]);
    }
}

fn tags(git: &Git, dir: &Path, blob: &str, tree: &str, commit: &str) {
    let of = |target: &str, kind: &str, name: &str| {
        format!("object {target}\ntype {kind}\ntag {name}\ntagger {PERSON}\n\nthe tag {name}\n")
    };
    let inner = git.object(dir, "tag", of(commit, "commit", "inner").as_bytes());
    let odd: [(&str, Vec<u8>); 6] = [
        ("of-blob", of(blob, "blob", "of-blob").into_bytes()),
        ("of-tree", of(tree, "tree", "of-tree").into_bytes()),
        ("nested", of(&inner, "tag", "nested").into_bytes()),
        // Before 2005-07 tags had no tagger; linux has such.
        ("no-tagger", format!("object {commit}\ntype commit\ntag no-tagger\n\nold\n").into_bytes()),
        ("other-name", of(commit, "commit", "renamed-since").into_bytes()),
        ("messageless", format!("object {commit}\ntype commit\ntag messageless\ntagger {PERSON}\n\n").into_bytes()),
    ];
    for (name, data) in odd {
        let oid = git.object(dir, "tag", &data);
        git.ok(dir, &["update-ref", &format!("refs/tags/odd-{name}"), &oid]);
    }
    git.ok(dir, &["update-ref", "refs/tags/odd-light-blob", blob]);
    git.ok(dir, &["update-ref", "refs/tags/odd-light-tree", tree]);
}

/// One entry of a tree, from an id in hexadecimal.
fn entry(mode: &str, name: &[u8], oid: &str) -> Vec<u8> {
    let oid = govc_engine::Oid::from_hex(oid.as_bytes()).expect("git's ids are ids");
    crate::pack::tree_entry(mode, name, oid)
}
