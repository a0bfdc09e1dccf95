//! Names that files define.

use govc_engine::Result;
use roaring::RoaringBitmap;

use super::{Asked, Given, SuggestionKind, is_sayable, paths};
use crate::query::value_text;

/// Recorded names that begin with what is typed, those that most files define first.
pub(super) fn symbols(asked: &Asked<'_>, given: &mut Vec<Given>) -> Result<()> {
    let mut scope = RoaringBitmap::new();
    paths::roots(asked)?.iter().for_each(|root| scope |= root.blobs());
    let records = &asked.corpus.definitions.records;
    // One more, since what is typed in full is none.
    let names =
        records.names_with_prefix(asked.typed, |blob| scope.contains(blob), asked.count_max + 1, asked.until)?;
    let names = names.into_iter().filter(|(name, _)| is_sayable(name) && name != asked.typed);
    let name = |(name, files): (String, usize)| Given {
        kind: SuggestionKind::Symbol,
        value: value_text(&name),
        count: Some(files as u64),
    };
    given.extend(names.map(name));
    Ok(())
}
