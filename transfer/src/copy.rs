//! Copies a store from one backend to another.
//!
//! Both sides are walked in key order; what differs is written, what is too much is removed. So a copy that was ended goes
//! on when it is begun again, whatever the source did meanwhile, and a finished copy is brought up to date the same way:
//! what is there already is read, not written. The target is marked from the first row to the end, and no store is opened
//! on it until then. In the end everything is read back and compared.

use govc_engine::{Backend, Family, Holding, StoreId};

use crate::{
    Count, Digest, Error, ErrorKind, Progress, Result,
    digest::Tally,
    error::check_cancelled,
    load::Load,
    rows::{Found, Side, rows},
};

/// How a store is copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Whether a target that holds a finished copy of the same store is brought up to date. A copy that has been served
    /// itself since is refused.
    pub update: bool,
}

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The store's identity, the copy's too.
    pub store: StoreId,
    /// What source and target hold, by family.
    pub families: Vec<(Family, Count, Digest)>,
    /// Rows that were written.
    pub written: u64,
    /// Rows that were removed.
    pub removed: u64,
}

impl Copied {
    /// All rows.
    pub fn rows(&self) -> u64 {
        self.families.iter().map(|(_, count, _)| count.rows).sum()
    }

    /// The bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.families.iter().map(|(_, count, _)| count.bytes).sum()
    }
}

/// Copies the store in `from` to `to`, and compares both in the end. `from` must not change meanwhile.
///
/// # Errors
/// [`ErrorKind::Refused`] if `from` holds no finished store, or `to` holds one already, or something else;
/// [`ErrorKind::Unequal`] if what was written is not what is read; [`ErrorKind::Backend`] and [`ErrorKind::Cancelled`]:
/// the target is not finished, and the same copy goes on when it is begun again.
pub fn copy(from: &dyn Backend, to: &dyn Backend, options: CopyOptions, progress: &dyn Progress) -> Result<Copied> {
    let store = source_of(from)?;
    let is_empty = begin(store, from, to, options)?;
    let bytes = from.usage()?.families.iter().map(|(_, bytes)| bytes).sum();
    let (mut written, mut removed, mut families) = (0, 0, Vec::new());
    progress.begin("copying", Some(bytes));
    for family in Family::ALL {
        let mut tally = Tally::default();
        let mut load = Load::new(to, progress);
        // Nothing needs to be looked for where nothing was.
        let there = (!is_empty).then(|| rows(to, family)).transpose()?.into_iter().flatten();
        for found in Side::by_side(rows(from, family)?, there) {
            match found? {
                Found::Right(key, _) => {
                    removed += 1;
                    load.delete(family, &key)?;
                }
                Found::Both(key, wanted, found) if wanted == found => note(&mut tally, progress, &key, &wanted)?,
                Found::Left(key, wanted) | Found::Both(key, wanted, _) => {
                    note(&mut tally, progress, &key, &wanted)?;
                    written += 1;
                    load.put(family, &key, wanted)?;
                }
            }
        }
        load.finish()?;
        families.push((family, tally.count, tally.digest()));
    }
    progress.end();
    let copied = Copied { store, families, written, removed };
    compare(&copied, to, progress)?;
    Holding::end_filling(to)?;
    Ok(copied)
}

fn note(tally: &mut Tally, progress: &dyn Progress, key: &[u8], value: &[u8]) -> Result<()> {
    tally.add(key, value);
    progress.advance((key.len() + value.len()) as u64);
    // Long stretches that are equal write nothing.
    if tally.count.rows.is_multiple_of(1000) { check_cancelled(progress) } else { Ok(()) }
}

/// The store that is to be moved.
pub(crate) fn source_of(from: &dyn Backend) -> Result<StoreId> {
    match Holding::of(from)? {
        Holding::Store(id) => Ok(id),
        Holding::Nothing => Err(Error::refused(format!("there is no store in {}", from.describe().location))),
        Holding::Unfinished(note) => {
            Err(Error::refused(format!("the store in {} is not finished: {note}", from.describe().location)))
        }
    }
}

/// Marks the target; whether it was empty.
fn begin(store: StoreId, from: &dyn Backend, to: &dyn Backend, options: CopyOptions) -> Result<bool> {
    let (note, location) = (format!("a copy of store {store}"), to.describe().location);
    let is_empty = match Holding::of(to) {
        Ok(Holding::Nothing) => true,
        Ok(Holding::Unfinished(found)) if found == note => false,
        Ok(Holding::Store(found)) if found == store && options.update => {
            if Holding::openings(to)? > Holding::openings(from)? {
                let message = format!(
                    "{location} has been served since it was copied; it is newer than {}, and would lose what it has",
                    from.describe().location
                );
                return Err(Error::refused(message));
            }
            false
        }
        Ok(Holding::Store(found)) if found == store => {
            let message = format!("{location} holds a copy of this store already; it can be brought up to date");
            return Err(Error::refused(message));
        }
        Ok(Holding::Store(_)) => return Err(Error::refused(format!("{location} holds another store"))),
        Ok(Holding::Unfinished(found)) => {
            return Err(Error::refused(format!("{location} is being filled with something else: {found}")));
        }
        Err(error) if *error.kind() == govc_engine::ErrorKind::Corrupt => {
            return Err(Error::refused(format!("{location} is not empty: {error}")));
        }
        Err(error) => return Err(error.into()),
    };
    Holding::begin_filling(to, &note)?;
    Ok(is_empty)
}

/// Reads everything back.
fn compare(copied: &Copied, to: &dyn Backend, progress: &dyn Progress) -> Result<()> {
    progress.begin("comparing", Some(copied.bytes()));
    for (family, count, digest) in &copied.families {
        let mut tally = Tally::default();
        for row in rows(to, *family)? {
            let (key, value) = row?;
            note(&mut tally, progress, &key, &value)?;
        }
        if (tally.count, tally.digest()) != (*count, *digest) {
            let message = format!(
                "family {} of the copy has {} rows of {} bytes, checksum {}; the source has {} of {}, {digest}",
                family.name(),
                tally.count.rows,
                tally.count.bytes,
                tally.digest(),
                count.rows,
                count.bytes,
            );
            return Err(Error::new(ErrorKind::Unequal, message));
        }
    }
    progress.end();
    Ok(())
}
