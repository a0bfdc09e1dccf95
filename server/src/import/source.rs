//! Where an import comes from: what is offered there, and the packs of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use govc_engine::{Error, Limits, ObjectFormat, Oid, RefName, Result, Snapshot};

use super::bundle::Bundle;
use super::haves;
use super::local::Local;
use super::remote::{Ask, Remote, RemoteOptions};
use super::watch::Patience;

/// Which references are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Branches and tags; what else is in the repository stays.
    BranchesAndTags,
    /// All as they are: what the source has not goes.
    Mirror,
}

impl Scope {
    /// Whether a reference of this name is meant.
    pub(super) fn means(self, name: &[u8]) -> bool {
        match self {
            Self::Mirror => name.starts_with(b"refs/"),
            Self::BranchesAndTags => name.starts_with(b"refs/heads/") || name.starts_with(b"refs/tags/"),
        }
    }
}

/// Where the source's `HEAD` is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Head {
    /// It is not said.
    #[default]
    Unknown,
    /// It names a branch, which need not exist.
    Branch(RefName),
    /// It is an object by itself.
    Detached(Oid),
}

/// What a source offers.
#[derive(Debug, Clone, Default)]
pub(super) struct References {
    /// What the ids are.
    pub(super) format: ObjectFormat,
    pub(super) all: BTreeMap<RefName, Oid>,
    pub(super) head: Head,
    /// What cannot be taken, in words.
    pub(super) left_out: Vec<String>,
}

/// References that are left out are named one by one, up to so many.
const LEFT_OUT_MAX: usize = 20;

impl References {
    /// None yet, of a source of the `format`.
    pub(super) fn new(format: ObjectFormat) -> Self {
        Self { format, ..Self::default() }
    }

    /// Takes a reference if it is meant and can be.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::TooLarge`] for too many.
    pub(super) fn take(&mut self, name: &[u8], oid: Oid, scope: Scope, limit: usize) -> Result<()> {
        if !scope.means(name) {
            return Ok(());
        }
        match RefName::new(name) {
            Ok(name) if name.is_reality() => self.leave_out(name.as_bytes(), "realities are made here, not imported"),
            Ok(name) => {
                self.all.insert(name, oid);
            }
            Err(error) => self.leave_out(name, error.message()),
        }
        if self.all.len() > limit {
            return Err(Error::too_large(format!("the source has more than {limit} references (limits.references)")));
        }
        Ok(())
    }

    /// Notes that a reference is not taken, and why.
    pub(super) fn leave_out(&mut self, name: &[u8], why: &str) {
        if self.left_out.len() < LEFT_OUT_MAX {
            let name: String = String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect();
            self.left_out.push(format!("{name} is left out: {why}"));
        } else if self.left_out.len() == LEFT_OUT_MAX {
            self.left_out.push("further references are left out".to_owned());
        }
    }

    /// Notes where `HEAD` is said to be; what is no branch is nothing that it can name here.
    pub(super) fn set_head(&mut self, name: &[u8]) {
        if let Some(branch) = RefName::new(name).ok().filter(RefName::is_branch) {
            self.head = Head::Branch(branch);
        }
    }
}

/// A place to import from.
pub(crate) enum Source {
    Local(Box<Local>),
    Bundle(Bundle),
    Remote(Box<Remote>),
}

impl Source {
    /// Finds what a person names: a URL with `http://` or `https://`, a bundle file, or the folder of a repository.
    ///
    /// # Errors
    /// When it is nothing of that, or cannot be opened.
    pub(crate) fn open(text: &str, options: RemoteOptions, limits: &Limits) -> Result<Self> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Ok(Self::Remote(Box::new(Remote::new(text, options)?))),
                "file" => Self::at(Path::new(rest), limits),
                // Only the scheme: the rest may hold a password.
                _ => Err(Error::invalid(format!("{scheme}:// is not spoken; use http://, https:// or a path"))),
            };
        }
        let path = Path::new(text);
        if path.symlink_metadata().is_err() && text.split_once(':').is_some_and(|(host, _)| !host.contains('/')) {
            return Err(Error::invalid("ssh is not spoken; use http://, https:// or a path"));
        }
        Self::at(path, limits)
    }

    fn at(path: &Path, limits: &Limits) -> Result<Self> {
        let found = std::fs::metadata(path)
            .map_err(|error| Error::not_found(format!("cannot read {}: {error}", path.display())))?;
        match found.is_dir() {
            true => Local::open(path, limits.object_bytes_max).map(|local| Self::Local(Box::new(local))),
            false => Bundle::open(path, limits.references_max).map(Self::Bundle),
        }
    }

    /// What the source offers now.
    ///
    /// # Errors
    /// When it cannot be read or asked, or is not as it must be; what `patience` ends with.
    pub(super) fn references(&mut self, scope: Scope, limit: usize, patience: Patience<'_>) -> Result<References> {
        match self {
            Self::Local(local) => local.references(scope, limit),
            Self::Bundle(bundle) => bundle.references(scope, limit),
            Self::Remote(remote) => remote.references(scope, limit, patience),
        }
    }

    /// A pack with what `wants` reach and the repository lacks.
    ///
    /// # Errors
    /// As [`Source::references`]; also when the source has not what is wanted.
    pub(super) fn pack<'a>(
        &'a mut self,
        wants: &[Oid],
        snapshot: &'a Snapshot,
        patience: Patience<'a>,
    ) -> Result<Box<dyn Read + 'a>> {
        match self {
            Self::Local(local) => Ok(Box::new(local.pack(wants, snapshot, patience)?)),
            Self::Bundle(bundle) => Ok(Box::new(bundle.pack(snapshot)?)),
            Self::Remote(remote) => {
                let haves = haves(snapshot)?;
                let ask = Ask { wants, haves: &haves, shallow: Vec::new(), depth: None, is_thin: true };
                let answer = remote.fetch(&ask, patience)?;
                if !answer.shallow.is_empty() {
                    return Err(shallow_source(remote.url()));
                }
                Ok(answer.pack)
            }
        }
    }
}

/// A source whose history ends early.
pub(super) fn shallow_source(place: &str) -> Error {
    Error::invalid(format!("{place} is a shallow clone: its history is not whole, so it cannot be imported"))
}
