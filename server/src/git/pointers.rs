//! Kept packs that clients are pointed at: which, and by which links.
//!
//! A kept pack of all that some tips reach is, with its checksum, a file that never changes: it can be had by plain HTTP,
//! resumed, and kept by caches on the way, and only what came since is asked of this server's processor. A client that
//! cannot fetch from there must not be worse off than without: one that goes on without a bundle may always be told of it;
//! one that would fail is told only where the link leads where the client already is, and needs nothing that this request
//! did not.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use govc_engine::{Error, Oid, Repo, RepoName, Result, Snapshot};

use super::cache::KeptPack;
use crate::App;
use crate::http::links::base_url;

/// What of a request decides about links in its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pointers {
    /// Where the client reaches the repository by HTTP, if that is known.
    repo_url: Option<String>,
    /// Whether a client may ask for bundles.
    bundles: bool,
    /// Whether a fetch may be pointed at packs.
    packs: bool,
}

impl Pointers {
    /// For a request over HTTP.
    pub(crate) fn over_http(app: &App, request: &Request, repo: &RepoName) -> Self {
        let git = &app.config.git;
        let base = base_url(app.config.server.public_url.as_deref(), request).ok();
        // Git's client gives a download of packs no credentials, and fails without it.
        let packs = git.packfile_uris && !request.headers().contains_key(AUTHORIZATION);
        Self::at(base, repo, git.bundle_uris, packs)
    }

    /// For a call over SSH: clients that come in with a key may be unable to over HTTP, so what they could not do without
    /// is not left there.
    pub(crate) fn over_ssh(app: &App, repo: &RepoName) -> Self {
        Self::at(app.config.server.public_url.clone(), repo, app.config.git.bundle_uris, false)
    }

    fn at(base: Option<String>, repo: &RepoName, bundles: bool, packs: bool) -> Self {
        let repo_url = base.map(|base| format!("{base}/{repo}.git"));
        Self { bundles: bundles && repo_url.is_some(), packs: packs && repo_url.is_some(), repo_url }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(base: &str, packs: bool) -> Self {
        Self::at(Some(base.to_owned()), &RepoName::new("repo").expect("a name"), true, packs)
    }

    /// Whether the command `bundle-uri` is offered.
    pub(crate) fn has_bundles(&self) -> bool {
        self.bundles
    }

    /// Whether `packfile-uris` is offered.
    pub(crate) fn has_packs(&self) -> bool {
        self.packs
    }

    /// The protocol of all links, such as `https`.
    pub(crate) fn protocol(&self) -> Option<&str> {
        Some(self.repo_url.as_deref()?.split_once("://")?.0)
    }

    /// The link of a pack or its bundle.
    pub(crate) fn link(&self, pack: &KeptPack, form: FileForm) -> Option<String> {
        let file = FileName { checksum: pack.checksum(), form };
        Some(format!("{}/info/packs/{file}", self.repo_url.as_deref()?))
    }
}

/// As what a kept pack is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileForm {
    /// A pack.
    Pack,
    /// A bundle: the pack behind a list of references.
    Bundle,
}

impl FileForm {
    fn extension(self) -> &'static str {
        match self {
            FileForm::Pack => "pack",
            FileForm::Bundle => "bundle",
        }
    }
}

/// The name of a download, the last part of its link: `pack-CHECKSUM.pack`, as git calls such a file, or
/// `pack-CHECKSUM.bundle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileName {
    pub(crate) checksum: Oid,
    pub(crate) form: FileForm,
}

impl FileName {
    /// Reads a name; only the very form that [`FileName`] is written in.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (checksum, extension) = name.strip_prefix("pack-")?.split_once('.')?;
        let form = [FileForm::Pack, FileForm::Bundle].into_iter().find(|form| form.extension() == extension)?;
        let parsed = Self { checksum: Oid::from_hex(checksum.as_bytes()).ok()?, form };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack-{}.{}", self.checksum, self.form.extension())
    }
}

/// The packs of a repository that are worth a link, those with most objects first.
pub(crate) fn worthy(app: &App, repo: &Repo) -> Vec<Arc<KeptPack>> {
    let mut packs = app.packs.of(repo.id());
    packs.retain(|pack| pack.form.is_whole() && pack.len() >= app.config.git.uri_pack_bytes_min);
    packs.sort_by_key(|pack| Reverse(pack.entries.len()));
    packs
}

/// Whether a client may see all that is in a pack: it holds what its tips reach.
///
/// # Errors
/// As [`super::Reachable::missing`].
pub(crate) fn is_visible(app: &App, snapshot: &Snapshot, pack: &KeptPack, deadline: Instant) -> Result<bool, Error> {
    Ok(app.reachable.missing(snapshot, &app.packs, &pack.tips, deadline)?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        for (form, extension) in [(FileForm::Pack, "pack"), (FileForm::Bundle, "bundle")] {
            let name = format!("pack-{hex}.{extension}");
            let parsed = FileName::parse(&name).expect("a name");
            assert_eq!((parsed.form, parsed.to_string()), (form, name));
        }
        let upper = hex.to_uppercase();
        for name in [
            "",
            "pack-.pack",
            "pack-01.pack",
            &format!("{hex}.pack"),
            &format!("pack-{hex}"),
            &format!("pack-{hex}.idx"),
            &format!("pack-{hex}.pack.bundle"),
            &format!("pack-{upper}.pack"),
            &format!("pack-../{hex}.pack"),
            "../../etc/passwd",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn links_need_an_address() {
        let repo = RepoName::new("ada/hello").expect("a name");
        let nowhere = Pointers::at(None, &repo, true, true);
        assert!(!nowhere.has_bundles() && !nowhere.has_packs() && nowhere.protocol().is_none());
        let somewhere = Pointers::at(Some("https://git.example.org/code".to_owned()), &repo, true, false);
        assert!(somewhere.has_bundles() && !somewhere.has_packs());
        assert_eq!(somewhere.protocol(), Some("https"));
        assert_eq!(somewhere.repo_url.as_deref(), Some("https://git.example.org/code/ada/hello.git"));
    }
}
