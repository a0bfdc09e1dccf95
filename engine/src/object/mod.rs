//! Git's values: identities, kinds, parsed commits, trees and tags, and the checks git's fsck makes.
//!
//! Objects are bytes; parsing never normalises, so whatever real histories contain stays byte-exact.

mod check;
mod format;
mod hash;
mod oid;
mod parse;
mod tree;

pub(crate) use check::check_path_component;
pub use check::{CheckLevel, Finding, check_object};
pub use format::ObjectFormat;
pub use hash::{ObjectHasher, PackHasher, hash_object};
pub(crate) use oid::OidBytes;
pub use oid::{Kind, Oid, OidPrefix};
pub use parse::{Commit, Links, Signature, Tag, links};
pub(crate) use tree::name_order;
pub use tree::{EntryMode, Tree, TreeEdit, TreeEntry, edit_tree, tree_entries};

use crate::error::Result;

#[cfg(test)]
mod tests;

/// Reads `data` as an object of both formats, its kind's number in front; what may be stored can be read. A fuzz target.
pub fn fuzz_object(data: &[u8]) {
    for format in ObjectFormat::ALL {
        let _ = read_as_object(format, data);
    }
}

fn read_as_object(format: ObjectFormat, data: &[u8]) -> Result<()> {
    let Some((kind, data)) = data.split_first() else { return Ok(()) };
    let Some(kind) = Kind::from_number(*kind) else { return Ok(()) };
    let refused = check_object(format, kind, data).filter(|finding| finding.level == CheckLevel::Refuse);
    let read = match kind {
        Kind::Blob => Ok(()),
        Kind::Commit => Commit::parse(data).map(|commit| {
            assert_eq!(Commit::tree_of(data).expect("it begins with its tree"), commit.tree);
            let again = Commit::parse(&commit.to_bytes()).expect("what is written can be read");
            assert_eq!((again.tree, again.parents), (commit.tree, commit.parents));
        }),
        Kind::Tag => Tag::parse(data).map(|tag| {
            let again = Tag::parse(&tag.to_bytes()).expect("what is written can be read");
            assert_eq!((again.target, again.name), (tag.target, tag.name));
        }),
        Kind::Tree => Tree::parse(format, data).map(|tree| {
            let Some(entry) = tree.entries.first() else { return };
            let name = entry.name.to_vec();
            let gone = edit_tree(format, data, &[(name.clone(), TreeEdit::Remove)].into()).expect("it can be read");
            let left = tree_entries(format, &gone).map(|entry| entry.expect("what is written can be read"));
            assert_eq!(left.count(), tree.entries.iter().filter(|entry| *entry.name != name).count());
            assert_eq!(edit_tree(format, data, &[].into()).expect("it can be read"), data);
        }),
    };
    let links = links(format, kind, data);
    if let Some(finding) = refused {
        return Err(crate::Error::invalid(finding.to_string()));
    }
    read.expect("what is not refused can be read");
    links.map(drop)
}
