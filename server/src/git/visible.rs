//! The references that Git's protocol shows of a repository: all but those that its rules hide.

use std::sync::Arc;

use govc_engine::{GitRules, Oid, Reality, RefName, Snapshot};

/// A snapshot's references as clients see them. `HEAD` is seen as its branch is.
pub(crate) struct Visible<'a> {
    snapshot: &'a Snapshot,
    rules: Arc<GitRules>,
}

impl<'a> Visible<'a> {
    /// By the repository's rules as they are now.
    pub(crate) fn of(snapshot: &'a Snapshot) -> Self {
        Self { snapshot, rules: snapshot.repo().git_rules() }
    }

    /// The rules.
    pub(crate) fn rules(&self) -> &Arc<GitRules> {
        &self.rules
    }

    fn is_shown(&self, name: &RefName) -> bool {
        !self.rules.hides(name.as_bytes())
    }

    /// Whether `HEAD` is shown, born or not.
    pub(crate) fn shows_head(&self) -> bool {
        self.is_shown(self.snapshot.head())
    }

    /// The commit that `HEAD` leads to.
    pub(crate) fn head(&self) -> Option<Oid> {
        self.reference(self.snapshot.head())
    }

    /// What a reference names.
    pub(crate) fn reference(&self, name: &RefName) -> Option<Oid> {
        self.snapshot.reference(name).filter(|_| self.is_shown(name))
    }

    /// All references, by name.
    pub(crate) fn references(&self) -> impl Iterator<Item = (&RefName, &Oid)> {
        self.snapshot.references().filter(|(name, _)| self.is_shown(name))
    }

    /// The references whose names begin so.
    pub(crate) fn with_prefix<'s>(&'s self, prefix: &'s [u8]) -> impl Iterator<Item = (&'s RefName, &'s Oid)> {
        self.snapshot.references_with_prefix(prefix).filter(|(name, _)| self.is_shown(name))
    }

    /// The realities whose names begin so.
    pub(crate) fn realities<'s>(&'s self, prefix: &'s [u8]) -> impl Iterator<Item = (&'s RefName, &'s Reality)> {
        self.snapshot.realities_with_prefix(prefix).filter(|(name, _)| self.is_shown(name))
    }
}
