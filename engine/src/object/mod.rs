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

#[cfg(test)]
mod tests;
