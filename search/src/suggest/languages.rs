//! Languages by the beginnings of their names, those that the places have first.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use govc_engine::{ErrorKind, Result};

use super::{Asked, Given, SuggestionKind, begins_in_any_case, paths};
use crate::{
    deadline,
    language::{Language, detect},
    query::value_text,
    view::{Child, Dir},
};

/// Files whose names are looked at; beyond, languages are not counted.
const FILES_MAX: usize = 200_000;
/// Files between two looks at the clock.
const CLOCK_FILES: usize = 4096;

/// Languages whose name, or another name of which is all that is typed, begins with what is typed.
pub(super) fn languages(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let counted = match count(asked) {
        Err(error) if *error.kind() == ErrorKind::Cancelled => HashMap::new(),
        counted => counted?,
    };
    let (named, typed) = (Language::from_name(asked.typed), asked.typed.to_lowercase());
    let is_meant = |language: &Language| {
        (begins_in_any_case(language.name(), &typed) || named == Some(*language)) && language.name() != asked.typed
    };
    let mut found: Vec<Language> = Language::all().filter(is_meant).collect();
    found.sort_by_key(|language| (Reverse(counted.get(language)), language.name().to_lowercase()));
    found.truncate(asked.count_max);
    given.extend(found.into_iter().map(|language| Given {
        kind: SuggestionKind::Language,
        value: value_text(language.name()),
        count: counted.get(&language).copied(),
    }));
    Ok(())
}

/// How many files are in each language by their names alone, each directory once.
fn count(asked: &Asked<'_>) -> Result<HashMap<Language, u64>> {
    let roots = paths::roots(asked)?;
    let (mut counted, mut seen, mut files) = (HashMap::new(), HashSet::new(), 0_usize);
    let mut queue: Vec<&Arc<Dir>> = roots.iter().collect();
    while let Some(dir) = queue.pop() {
        if !seen.insert(Arc::as_ptr(dir)) {
            continue;
        }
        for (name, _, child) in dir.children() {
            files += 1;
            if files.is_multiple_of(CLOCK_FILES) {
                deadline::check(asked.until)?;
            }
            if files > FILES_MAX {
                return Ok(HashMap::new());
            }
            match child {
                Child::Dir(child) => queue.push(child),
                // Where several languages have an ending, that is the most usual one.
                Child::File(_) => {
                    let language = detect(name, &[]);
                    language.into_iter().for_each(|language| *counted.entry(language).or_default() += 1);
                }
            }
        }
    }
    Ok(counted)
}
