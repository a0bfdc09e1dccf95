//! What a store takes, by family and repository: a walk over all rows.

use std::collections::BTreeMap;

use super::{
    ids::{RepoId, RepoName},
    record::CatalogRow,
};
use crate::{
    Error, ErrorKind, Progress, Result,
    backend::{Backend, Family, Scan, key},
    object::ObjectFormat,
};

/// Rows and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// What one repository takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSize {
    /// Its number, which rows are kept under.
    pub id: RepoId,
    /// Its name; `None` if it has been deleted and its forks need what it had, or its rows are to be removed.
    pub name: Option<RepoName>,
    /// The hash that names its objects; `None` if there is no catalog row of it.
    pub object_format: Option<ObjectFormat>,
    /// By family, in the order of [`Family::ALL`]; journal and meta belong to all repositories.
    pub families: [Size; Family::ALL.len()],
}

impl RepoSize {
    /// All of it.
    pub fn total(&self) -> Size {
        sum(&self.families)
    }
}

/// What a store takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    /// By family, in the order of [`Family::ALL`].
    pub families: [Size; Family::ALL.len()],
    /// By repository, the largest first.
    pub repositories: Vec<RepoSize>,
}

impl Sizes {
    /// Measures what a backend holds, which should not change meanwhile. Reads all of it.
    ///
    /// # Errors
    /// When the backend fails, and [`ErrorKind::Cancelled`].
    pub fn of(backend: &dyn Backend, progress: &dyn Progress) -> Result<Self> {
        let mut families = [Size::default(); Family::ALL.len()];
        let mut repositories: BTreeMap<RepoId, RepoSize> = BTreeMap::new();
        let expected = backend.usage()?.families.iter().map(|(_, bytes)| bytes).sum();
        progress.begin("measuring", Some(expected));
        for family in Family::ALL {
            for row in backend.scan(family, Scan::all())? {
                let (row_key, value) = row?;
                let bytes = (row_key.len() + value.len()) as u64;
                let all = &mut families[family as usize];
                all.add(bytes);
                progress.advance(bytes);
                if all.rows % 1000 == 1 && progress.is_cancelled() {
                    return Err(Error::new(ErrorKind::Cancelled, "ended on request"));
                }
                let Some(id) = owner(family, &row_key) else { continue };
                let repo = repositories.entry(id).or_insert_with(|| RepoSize {
                    id,
                    name: None,
                    object_format: None,
                    families: Default::default(),
                });
                repo.families[family as usize].add(bytes);
                if family == Family::Catalog
                    && let Ok(row) = CatalogRow::decode(&value)
                {
                    repo.object_format = Some(row.record.format);
                    repo.name = (!row.is_retired).then_some(row.record.name);
                }
            }
        }
        progress.end();
        let mut repositories: Vec<_> = repositories.into_values().collect();
        repositories.sort_by_key(|repo| std::cmp::Reverse(repo.total().bytes));
        Ok(Self { families, repositories })
    }

    /// All of it.
    pub fn total(&self) -> Size {
        sum(&self.families)
    }
}

impl Size {
    fn add(&mut self, bytes: u64) {
        self.rows += 1;
        self.bytes += bytes;
    }
}

fn sum(sizes: &[Size]) -> Size {
    let add = |sum: Size, size: &Size| Size { rows: sum.rows + size.rows, bytes: sum.bytes + size.bytes };
    sizes.iter().fold(Size::default(), add)
}

/// The repository that a row belongs to.
fn owner(family: Family, row_key: &[u8]) -> Option<RepoId> {
    let number = match family {
        Family::Catalog | Family::Refs | Family::Blocks | Family::Ids => row_key,
        Family::History => row_key.strip_prefix(&[key::VERSION])?,
        Family::Journal | Family::Meta => return None,
    };
    Some(RepoId(u64::from_be_bytes(*number.first_chunk::<8>()?)))
}
