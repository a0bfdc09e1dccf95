//! Names of revisions: what `git rev-parse` takes for an object, without reflogs and searches.

use std::time::Instant;

use super::check_deadline;
use crate::{
    Error, ErrorKind, Result,
    object::{Kind, Oid, OidPrefix},
    refs::RefName,
    store::Snapshot,
};

/// The longest text that can name a revision, in bytes.
const REV_LEN_MAX: usize = 2048;
/// Tags that point at tags are followed this far.
pub const TAG_DEPTH_MAX: usize = 64;

impl Snapshot {
    /// The object that `rev` names: `HEAD` or `@`, a full or short reference, a full or abbreviated id, each followed
    /// by any of `~N`, `^N`, `^{commit}`, `^{tree}`, `^{blob}`, `^{tag}`, `^{}`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such thing, [`ErrorKind::Invalid`] if the text is malformed or an
    /// abbreviation fits several objects.
    pub fn resolve(&self, rev: &str) -> Result<Oid> {
        self.resolve_until(rev, None)
    }

    /// As [`Snapshot::resolve`], which may walk a whole history, but only until `deadline`.
    ///
    /// # Errors
    /// As [`Snapshot::resolve`], and [`ErrorKind::Cancelled`] after the deadline.
    pub fn resolve_until(&self, rev: &str, deadline: Option<Instant>) -> Result<Oid> {
        if rev.is_empty() || rev.len() > REV_LEN_MAX {
            return Err(Error::invalid("a revision is a text of 1 to 2048 bytes"));
        }
        let end = rev.find(['~', '^']).unwrap_or(rev.len());
        let mut oid = self.resolve_name(&rev[..end])?;
        let mut rest = &rev[end..];
        while let Some(step) = rest.chars().next() {
            rest = &rest[step.len_utf8()..];
            check_deadline(deadline)?;
            if step == '^' && rest.starts_with('{') {
                let close = rest.find('}').ok_or_else(|| malformed(rev))?;
                oid = self.peel_to(oid, &rest[1..close], rev)?;
                rest = &rest[close + 1..];
                continue;
            }
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let count = if digits == 0 { 1 } else { rest[..digits].parse::<u32>().map_err(|_| malformed(rev))? };
            rest = &rest[digits..];
            oid = match step {
                '~' => self.ancestor(oid, count, rev, deadline)?,
                '^' => self.parent(oid, count, rev)?,
                _ => return Err(malformed(rev)),
            };
        }
        Ok(oid)
    }

    /// The commit that `rev` names, through tags.
    ///
    /// # Errors
    /// As [`Snapshot::resolve`]; [`ErrorKind::Invalid`] if it names something else than a commit.
    pub fn resolve_commit(&self, rev: &str) -> Result<Oid> {
        self.resolve_commit_until(rev, None)
    }

    /// As [`Snapshot::resolve_commit`], but only until `deadline`.
    ///
    /// # Errors
    /// As [`Snapshot::resolve_commit`], and [`ErrorKind::Cancelled`] after the deadline.
    pub fn resolve_commit_until(&self, rev: &str, deadline: Option<Instant>) -> Result<Oid> {
        match self.peel(self.resolve_until(rev, deadline)?)? {
            (oid, Kind::Commit) => Ok(oid),
            (oid, kind) => Err(Error::invalid(format!("{rev:?} names the {kind} {oid}, not a commit"))),
        }
    }

    /// What an object is in the end, through tags.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it or a tag's target is missing, [`ErrorKind::Corrupt`] for a chain without end.
    pub fn peel(&self, oid: Oid) -> Result<(Oid, Kind)> {
        let mut at = oid;
        for _ in 0..TAG_DEPTH_MAX {
            let header = self.header(&at)?;
            match header {
                Some((Kind::Tag, _)) => at = self.tag(&at)?.target,
                Some((kind, _)) => return Ok((at, kind)),
                None => return Err(Error::not_found(format!("object {at} does not exist"))),
            }
        }
        Err(Error::corrupt(format!("tag {oid} points through {TAG_DEPTH_MAX} tags or more")))
    }

    fn resolve_name(&self, name: &str) -> Result<Oid> {
        let unknown = || Error::not_found(format!("revision {name:?} does not exist"));
        if name == "HEAD" || name == "@" {
            let unborn = || Error::not_found(format!("HEAD names {}, which does not exist yet", self.head()));
            return self.reference(self.head()).ok_or_else(unborn);
        }
        if let Ok(oid) = self.object_format().oid_from_hex(name.as_bytes()) {
            return if self.contains(&oid)? { Ok(oid) } else { Err(unknown()) };
        }
        // The order of git: as it is, tags, branches, remotes.
        for prefix in ["", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"] {
            if let Ok(full) = RefName::new(format!("{prefix}{name}"))
                && let Some(oid) = self.reference(&full)
            {
                if full.is_reality() {
                    self.reality(&full)?;
                }
                return Ok(oid);
            }
        }
        let prefix = OidPrefix::parse(name).ok_or_else(unknown)?;
        match self.ids_with_prefix(&prefix, 2)?.as_slice() {
            [] => Err(unknown()),
            [oid] => Ok(*oid),
            _ => Err(Error::invalid(format!("the abbreviated id {name} fits several objects"))),
        }
    }

    fn peel_to(&self, oid: Oid, wanted: &str, rev: &str) -> Result<Oid> {
        let header = self.header(&oid)?.ok_or_else(|| Error::not_found(format!("object {oid} does not exist")))?;
        if wanted == "tag" {
            return if header.0 == Kind::Tag { Ok(oid) } else { Err(not_a(rev, "tag")) };
        }
        let (peeled, kind) = self.peel(oid)?;
        match (wanted, kind) {
            ("" | "object", _) | ("commit", Kind::Commit) | ("tree", Kind::Tree) | ("blob", Kind::Blob) => Ok(peeled),
            ("tree", Kind::Commit) => Ok(self.commit(&peeled)?.tree),
            ("commit" | "tree" | "blob", _) => Err(not_a(rev, wanted)),
            _ => Err(malformed(rev)),
        }
    }

    fn ancestor(&self, oid: Oid, generations: u32, rev: &str, deadline: Option<Instant>) -> Result<Oid> {
        let mut at = self.peel_to(oid, "commit", rev)?;
        for _ in 0..generations {
            check_deadline(deadline)?;
            at = self.parent(at, 1, rev)?;
        }
        Ok(at)
    }

    fn parent(&self, oid: Oid, number: u32, rev: &str) -> Result<Oid> {
        let at = self.peel_to(oid, "commit", rev)?;
        let Some(index) = number.checked_sub(1) else { return Ok(at) };
        let parents = self.commit(&at)?.parents;
        let parent = parents.get(index as usize).copied();
        parent.ok_or_else(|| Error::not_found(format!("revision {rev:?} does not exist: {at} has no such parent")))
    }
}

fn malformed(rev: &str) -> Error {
    Error::invalid(format!("revision {rev:?} is malformed"))
}

fn not_a(rev: &str, kind: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("revision {rev:?} names no {kind}"))
}
