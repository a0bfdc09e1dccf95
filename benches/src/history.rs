//! The histories that suites push, clone and open: bare repositories of the reader's choice, or one that
//! is generated, the same everywhere.

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::generate;
use crate::git::Git;

/// A bare repository and the name that it gets on the servers.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// What must be true of every true copy of a history.
pub(crate) struct Facts {
    /// `<id> <name>`, sorted by name.
    pub(crate) references: Vec<String>,
    /// Ids of all reachable objects, sorted.
    pub(crate) objects: Vec<String>,
}

impl History {
    /// The histories of a list of `name=path`; an empty list gives the generated one, made in `folder`.
    pub(crate) fn all(list: &[String], git: &Git, folder: &Path) -> Result<Vec<History>> {
        if list.is_empty() {
            let path = folder.join("generated.git");
            generate::history(git, &path)?;
            return Ok(vec![History { name: "generated".into(), path }]);
        }
        list.iter().map(|item| History::parse(item)).collect()
    }

    fn parse(item: &str) -> Result<History> {
        let (name, path) = item.split_once('=').context(|| format!("a history is written name=path, not {item:?}"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || name.starts_with(['-', '_']) || !name.bytes().all(plain) {
            return Err(Error::new(format!("the history name {name:?} must be letters, digits, - and _")));
        }
        let path = std::fs::canonicalize(path).context(|| format!("cannot open the history {path}"))?;
        Ok(History { name: name.to_owned(), path })
    }

    /// Reads what a copy is compared with.
    pub(crate) fn facts(&self, git: &Git) -> Result<Facts> {
        Ok(Facts { references: git.references(&self.path)?, objects: git.reachable_objects(&self.path)? })
    }

    /// The branch that `HEAD` names, without `refs/heads/`.
    pub(crate) fn default_branch(&self, git: &Git) -> String {
        let named = git.lines(&self.path, ["symbolic-ref", "--short", "HEAD"]).ok();
        named.and_then(|lines| lines.into_iter().next()).unwrap_or_else(|| "main".into())
    }

    /// Pushes all of it with the real client.
    pub(crate) fn push(&self, git: &Git, url: &str) -> Result<()> {
        git.run(&self.path, ["push", "--quiet", "--mirror", url]).map(drop)
    }

    /// Clones a pushed copy with the real client into `folder` and compares every reference and object.
    pub(crate) fn verify_remote(&self, facts: &Facts, git: &Git, url: &str, folder: &Path) -> Result<bool> {
        let copy = tempfile::tempdir_in(folder).context(|| "cannot make a folder for a clone".into())?;
        let path = copy.path().join("copy.git");
        let mut command = git.command(folder);
        command.args(["clone", "--quiet", "--mirror", url]).arg(&path);
        crate::git::finish(command)?;
        Ok(git.references(&path)? == facts.references && git.stored_objects(&path)? == facts.objects)
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn list_items_are_checked() {
        assert!(History::parse("noequals").is_err());
        assert!(History::parse("a/b=.").is_err());
        assert!(History::parse("=.").is_err());
        assert!(History::parse("x=/nowhere/at/all").is_err());
        assert_eq!(History::parse("here=.").map(|history| history.name).ok().as_deref(), Some("here"));
    }
}
