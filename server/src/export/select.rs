//! Which references are meant: by full name, by short name as git looks it up, or by a pattern.

use govc_engine::{Error, Oid, RefName, Result, Snapshot};

/// Where a short name is looked for, in git's order.
const PREFIXES: [&str; 5] = ["", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"];

/// The references that `wanted` names, each once, in the order of their names; all of them if it names none.
///
/// # Errors
/// [`govc_engine::ErrorKind::NotFound`] for what names nothing.
pub(super) fn references(snapshot: &Snapshot, wanted: &[String]) -> Result<Vec<(RefName, Oid)>> {
    let all = || snapshot.references().map(|(name, oid)| (name.clone(), *oid));
    if wanted.is_empty() {
        return Ok(all().collect());
    }
    let mut found = Vec::new();
    for wanted in wanted {
        let before = found.len();
        if wanted.contains('*') {
            found.extend(all().filter(|(name, _)| matches(wanted.as_bytes(), name.as_bytes())));
        } else if wanted == "HEAD" {
            found.extend(snapshot.reference(snapshot.head()).map(|oid| (snapshot.head().clone(), oid)));
        } else {
            let named = PREFIXES.iter().find_map(|prefix| {
                let name = RefName::new(format!("{prefix}{wanted}")).ok()?;
                snapshot.reference(&name).map(|oid| (name, oid))
            });
            found.extend(named);
        }
        if found.len() == before {
            return Err(Error::not_found(format!("no reference is called {wanted}")));
        }
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    found.dedup();
    Ok(found)
}

/// Whether a pattern, in which `*` is any text, is a whole name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        // The earliest place leaves most for what follows.
        let Some(at) = (0..=rest.len()).find(|at| rest.get(*at..).is_some_and(|rest| rest.starts_with(part))) else {
            return false;
        };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_are_any_text() {
        for (pattern, name, expected) in [
            ("refs/heads/*", "refs/heads/a/b", true),
            ("refs/heads/*", "refs/heads", false),
            ("*", "refs/notes/x", true),
            ("refs/*/x", "refs/a/b/x", true),
            ("refs/*/x", "refs/a/xy", false),
            ("*/v1.*", "refs/tags/v1.2", true),
            ("*a*a", "refs/a", false),
            ("*a*a", "refs/aa", true),
            ("refs/heads/main*", "refs/heads/main", true),
            ("refs/heads/ab*bc", "refs/heads/abc", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
