//! Revisions that requests name. Most are found at once; a walk through a history, or a search for an abbreviated id,
//! runs on the pool of blocking threads, until the request's deadline.

use std::time::Instant;

use govc_engine::{ObjectFormat, Oid, OidPrefix, Snapshot};

use super::problem::{Problem, Thing, about};
use crate::app::App;

/// Whether finding what `rev` names in a repository of the `format` may take long.
pub(super) fn may_walk(format: ObjectFormat, rev: &str) -> bool {
    rev.contains(['~', '^']) || (rev.len() < format.hex_len() && OidPrefix::parse(rev).is_some())
}

/// The object that `rev` names.
pub(super) async fn object(app: &App, snapshot: &Snapshot, rev: &str) -> Result<Oid, Problem> {
    find(app, snapshot, rev, Snapshot::resolve_until).await
}

/// The commit that `rev` names, through tags.
pub(super) async fn commit(app: &App, snapshot: &Snapshot, rev: &str) -> Result<Oid, Problem> {
    find(app, snapshot, rev, Snapshot::resolve_commit_until).await
}

type Resolve = fn(&Snapshot, &str, Option<Instant>) -> govc_engine::Result<Oid>;

async fn find(app: &App, snapshot: &Snapshot, rev: &str, resolve: Resolve) -> Result<Oid, Problem> {
    let found = if may_walk(snapshot.object_format(), rev) {
        let (snapshot, rev, deadline) = (snapshot.clone(), rev.to_owned(), app.work.deadline());
        app.work.run(move || resolve(&snapshot, &rev, Some(deadline))).await?
    } else {
        resolve(snapshot, rev, None)
    };
    found.map_err(about(Thing::Rev))
}

#[cfg(test)]
mod tests {
    use govc_engine::ObjectFormat;

    use super::may_walk;

    #[test]
    fn walks_and_searches_are_told_from_names() {
        for rev in ["main~1", "main^", "v1^{commit}", "@~299998", "beef", &"a".repeat(39)] {
            assert!(may_walk(ObjectFormat::Sha1, rev), "{rev}");
        }
        for rev in ["HEAD", "main", "refs/heads/main", "v1.0", &"a".repeat(40)] {
            assert!(!may_walk(ObjectFormat::Sha1, rev), "{rev}");
        }
        let walks = |digits| may_walk(ObjectFormat::Sha256, &"a".repeat(digits));
        assert!(walks(40) && walks(63) && !walks(64));
    }
}
