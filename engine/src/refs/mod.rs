//! References: names by git's rules, the edits that transactions make, and the maps of all of them.

mod edit;
mod map;
mod name;

pub use edit::{Expected, RefChange, RefEdit};
pub(crate) use map::{NameCheck, RefMap};
pub use map::{Origin, Reality};
pub use name::RefName;

#[cfg(test)]
mod tests;
