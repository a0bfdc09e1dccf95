//! Names that are in no file: fields and their values, repositories, branches.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

use govc_engine::Result;

use super::{Asked, Given, SuggestionKind, is_sayable};
use crate::{
    deadline,
    query::{self, Field, field_names, value_text},
};

/// References of all repositories that are looked at.
const REFERENCES_MAX: usize = 100_000;
/// References and repositories between two looks at the clock.
const CLOCK_NAMES: usize = 1024;

/// Fields by their names.
pub(super) fn fields(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let field = |name: &str| Given { kind: SuggestionKind::Field, value: format!("{name}:"), count: None };
    given.extend(field_names(asked.typed).map(field));
    Ok(())
}

/// The words that the field takes.
pub(super) fn values(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let words = asked.field.map(|field| query::values(field, asked.typed)).unwrap_or_default();
    let value = |word: &str| Given { kind: SuggestionKind::Value, value: word.to_owned(), count: None };
    given.extend(words.into_iter().filter(|word| *word != asked.typed).map(value));
    Ok(())
}

/// Repositories whose name, or its last part, begins with what is typed; the former first.
pub(super) fn repos(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let mut found = HashSet::new();
    for (number, place) in asked.places.iter().enumerate() {
        if number % CLOCK_NAMES == 0 {
            deadline::check(asked.until)?;
        }
        let last = place.repo.rsplit('/').next().unwrap_or_default();
        let is_begun = asked.begins(&place.repo);
        if (is_begun || asked.begins(last)) && is_sayable(&place.repo) && place.repo != asked.typed {
            found.insert((!is_begun, place.repo.as_str()));
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable();
    found.truncate(asked.count_max);
    let repo = |(_, name)| Given { kind: SuggestionKind::Repo, value: value_text(name), count: None };
    given.extend(found.into_iter().map(repo));
    Ok(())
}

/// Branches whose name begins with what is typed, in the very case, as `branch:` compares them; for `rev:`, tags too.
pub(super) fn branches(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let kinds: &[&str] =
        if asked.field == Some(Field::Rev) { &["refs/heads/", "refs/tags/"] } else { &["refs/heads/"] };
    let (mut repos, mut found, mut count): (_, BTreeMap<String, (bool, u64)>, _) =
        (HashSet::new(), BTreeMap::new(), 0_usize);
    for place in &asked.places {
        if !repos.insert(place.repo.as_str()) {
            continue;
        }
        deadline::check(asked.until)?;
        for kind in kinds {
            let prefix = format!("{kind}{}", asked.typed);
            for (name, _) in place.snapshot.references_with_prefix(prefix.as_bytes()) {
                count += 1;
                if count % CLOCK_NAMES == 0 {
                    deadline::check(asked.until)?;
                }
                let short =
                    name.as_bytes().strip_prefix(kind.as_bytes()).and_then(|short| std::str::from_utf8(short).ok());
                let Some(short) = short.filter(|short| is_branch(asked, short)) else { continue };
                let of_all = found.entry(short.to_owned()).or_default();
                *of_all = (of_all.0 || name == place.snapshot.head(), of_all.1 + 1);
                if count >= REFERENCES_MAX {
                    break;
                }
            }
        }
        if count >= REFERENCES_MAX {
            break;
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, (is_head, repos))| Reverse((*is_head, *repos)));
    found.truncate(asked.count_max);
    let branch = |(name, (_, repos)): (String, _)| Given {
        kind: SuggestionKind::Branch,
        value: value_text(&name),
        count: Some(repos),
    };
    given.extend(found.into_iter().map(branch));
    Ok(())
}

/// Whether a name can be suggested: as a glob, it must mean itself.
fn is_branch(asked: &Asked<'_>, name: &str) -> bool {
    let is_plain = asked.field == Some(Field::Rev) || !name.contains(['*', '?', '[', ']', '{', '}', '\\']);
    is_plain && is_sayable(name) && name != asked.typed
}
