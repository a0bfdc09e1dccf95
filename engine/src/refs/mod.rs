//! References: names by git's rules, and the edits that transactions make.

mod edit;
mod name;

pub(crate) use edit::check_directory_conflicts;
pub use edit::{Expected, RefChange, RefEdit};
pub use name::RefName;

#[cfg(test)]
mod tests;
