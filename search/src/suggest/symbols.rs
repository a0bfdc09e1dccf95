//! Names that files define.

use std::{collections::HashSet, sync::Arc};

use govc_engine::Result;

use super::{Asked, Given, SuggestionKind, is_sayable, paths};
use crate::{
    deadline,
    defined::RecordNo,
    index::Bits,
    query::value_text,
    view::{Child, Dir},
};

/// Recorded names that begin with what is typed, those that most files define first.
pub(super) fn symbols(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let scope = recorded(asked)?;
    let records = &asked.corpus.definitions.records;
    // One more, since what is typed in full is none.
    let mut names = Vec::new();
    let in_scope = |record: RecordNo| scope.contains(record);
    let done = records.names_with_prefix(asked.typed, in_scope, asked.count_max + 1, asked.until, &mut names);
    let names = names.into_iter().filter(|(name, _)| is_sayable(name) && name != asked.typed);
    let name = |(name, files): (String, usize)| Given {
        kind: SuggestionKind::Symbol,
        value: value_text(&name),
        count: Some(files as u64),
    };
    given.extend(names.map(name));
    done
}

/// The records of the files in scope, in the languages that they are in there: what the same text is elsewhere is nobody's
/// business.
fn recorded(asked: &Asked<'_>) -> Result<Bits> {
    let (mut scope, mut seen) = (Bits::default(), HashSet::new());
    let mut queue = paths::roots(asked)?;
    while let Some(dir) = queue.pop() {
        // A language is told from the name alone and the content, wherever the directory is.
        if !seen.insert(Arc::as_ptr(&dir)) {
            continue;
        }
        deadline::check(asked.until)?;
        add(asked, &dir, &mut scope, &mut queue);
    }
    Ok(scope)
}

fn add(asked: &Asked<'_>, dir: &Dir, scope: &mut Bits, queue: &mut Vec<Arc<Dir>>) {
    for (name, _, child) in dir.children() {
        match child {
            Child::Dir(child) => queue.push(child.clone()),
            Child::File(blob) => {
                let language = asked.corpus.known_language(blob, name).flatten();
                let record = language.and_then(|language| asked.corpus.definitions.records.number(blob, language));
                record.into_iter().for_each(|record| scope.insert(record));
            }
        }
    }
}
