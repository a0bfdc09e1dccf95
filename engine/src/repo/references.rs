//! Creating and deleting references and tags.

use super::{TAG_DEPTH_MAX, commit::message_bytes};
use crate::{
    Error, ErrorKind, Result,
    object::{Kind, Oid, Signature, Tag},
    refs::{Expected, RefEdit, RefName},
    store::{Cause, Published, Repo, Transaction},
};

impl Repo {
    /// Creates a reference.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if it is there, or another one is in its way; [`ErrorKind::NotFound`] if the target is
    /// missing.
    pub fn create_ref(&self, name: RefName, target: Oid, actor: &str) -> Result<Published> {
        let mut transaction = self.begin(actor, Cause::Api);
        transaction.edit(RefEdit { name: name.clone(), expected: Expected::Absent, target: Some(target) })?;
        transaction.prepare().and_then(|prepared| prepared.publish()).map_err(|error| exists(error, &name))
    }

    /// Deletes a reference.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it is absent, [`ErrorKind::Conflict`] if it is not as expected,
    /// [`ErrorKind::Invalid`] for the branch that `HEAD` names.
    pub fn delete_ref(&self, name: RefName, expected: Expected, actor: &str) -> Result<Published> {
        let lineage = self.lineage();
        let mut transaction = self.begin(actor, Cause::Api);
        let tip = transaction.tip();
        let target = tip.reference(&name).ok_or_else(|| {
            // It may be there for readers until a deletion is durable.
            self.confirm(Error::not_found(format!("reference {name} does not exist")), lineage)
        })?;
        if *tip.head() == name {
            return Err(Error::invalid(format!("{name} is the default branch and cannot be deleted")));
        }
        let expected = match expected {
            Expected::Any => Expected::Is(target),
            expected => expected,
        };
        transaction.edit(RefEdit { name, expected, target: None })?;
        transaction.prepare()?.publish()
    }

    /// Creates an annotated tag; gives the tag object's id.
    ///
    /// # Errors
    /// As [`Repo::create_ref`]; [`ErrorKind::Invalid`] for an empty message or a name that is no tag's,
    /// [`ErrorKind::TooLarge`] for a target behind which there are too many tags.
    pub fn create_tag(
        &self,
        name: &RefName,
        target: Oid,
        tagger: Signature,
        message: &str,
        actor: &str,
    ) -> Result<(Oid, Published)> {
        let short = name.as_bytes().strip_prefix(b"refs/tags/");
        let short = short.ok_or_else(|| Error::invalid(format!("{name} is not under refs/tags/")))?;
        let mut transaction = self.begin(actor, Cause::Api);
        transaction.check_tags(target, 1)?;
        let target_kind: Kind = transaction.object(&target)?.kind;
        let tag =
            Tag { target, target_kind, name: short.to_vec(), tagger: Some(tagger), message: message_bytes(message)? };
        let oid = transaction.put(Kind::Tag, tag.to_bytes().into())?;
        transaction.edit(RefEdit { name: name.clone(), expected: Expected::Absent, target: Some(oid) })?;
        let published = transaction.prepare().and_then(|prepared| prepared.publish());
        Ok((oid, published.map_err(|error| exists(error, name))?))
    }
}

impl Transaction {
    /// Checks that behind an object there are fewer tags than are followed anywhere, with so many that are to be put on top of it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if there are not; as [`Transaction::object`].
    pub fn check_tags(&self, target: Oid, on_top: usize) -> Result<()> {
        let mut at = target;
        for _ in on_top..TAG_DEPTH_MAX {
            let object = self.object(&at)?;
            if object.kind != Kind::Tag {
                return Ok(());
            }
            at = Tag::parse(&object.data)?.target;
        }
        Err(Error::too_large(format!("tag {target} points through {} tags or more", TAG_DEPTH_MAX - on_top)))
    }
}

/// Says of a creation that failed its expectation what the caller can do about it.
fn exists(error: Error, name: &RefName) -> Error {
    match error.kind() {
        ErrorKind::Conflict(_) => Error::new(ErrorKind::Exists, format!("reference {name} exists already")),
        _ => error,
    }
}
