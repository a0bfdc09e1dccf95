//! Makes a store again from backups.
//!
//! The target must be empty. It is marked from the first row to the end, and no store is opened on it until then; a
//! restoration that was ended begins anew. In the end all of it is read back and compared with the last file's listing.

use std::path::PathBuf;

use govc_engine::{Backend, Batch, Family, Holding};

use super::{
    create::Listing,
    file::{Header, Reader, RowOp},
};
use crate::{
    Count, Error, ErrorKind, Progress, Result,
    digest::value_hash,
    error::check_cancelled,
    load::Load,
    rows::{Found, Side, rows},
};

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The header of the last file.
    pub header: Header,
    /// What the store holds.
    pub held: Count,
}

/// Fills an empty backend from backups: a whole one, and those that are built on it, in their order.
///
/// # Errors
/// [`ErrorKind::Refused`] if the target is not empty or the files do not follow each other, [`ErrorKind::Damaged`] if one is
/// damaged (the target is left marked as unfinished), [`ErrorKind::Unequal`] if what was written is not what is read; else
/// when the backend or the file system fails.
pub fn restore(files: &[PathBuf], to: &dyn Backend, progress: &dyn Progress) -> Result<Restored> {
    let readers = files.iter().map(|path| Reader::open(path)).collect::<Result<Vec<_>>>()?;
    check_chain(&readers)?;
    let Some(last) = readers.last() else { return Err(Error::refused("no backup was named")) };
    let header = last.header().clone();
    let last = last.path().to_path_buf();
    begin(&header, to)?;
    for reader in readers {
        load(reader, to, progress)?;
    }
    let held = compare(Reader::open(&last)?, to, progress)?;
    check_identity(&header, to)?;
    Holding::end_filling(to)?;
    Ok(Restored { header, held })
}

/// Makes sure that the files hold the store that the header names.
fn check_identity(header: &Header, to: &dyn Backend) -> Result<()> {
    match Holding::stored_id(to)? {
        Some(id) if id.to_string() == header.store => Ok(()),
        _ => Err(Error::damaged(format!("the backup {} does not hold the store that it names", header.backup))),
    }
}

fn check_chain(readers: &[Reader]) -> Result<()> {
    let mut before: Option<&Reader> = None;
    for reader in readers {
        let (path, header) = (reader.path().display(), reader.header());
        match (before, &header.since) {
            (None, None) => {}
            (None, Some(since)) => {
                let message = format!("the backup {path} is built on backup {since}, which must come before it");
                return Err(Error::refused(message));
            }
            (Some(before), since) if since.as_ref() != Some(&before.header().backup) => {
                let message = format!("the backup {path} is not built on {}", before.path().display());
                return Err(Error::refused(message));
            }
            _ => {}
        }
        before = Some(reader);
    }
    Ok(())
}

fn begin(header: &Header, to: &dyn Backend) -> Result<()> {
    const NOTE: &str = "a restoration of backup ";
    let location = to.describe().location;
    match Holding::of(to) {
        Ok(Holding::Nothing) => {}
        Ok(Holding::Unfinished(note)) if note.starts_with(NOTE) => clear(to)?,
        Ok(Holding::Unfinished(note)) => {
            return Err(Error::refused(format!("{location} is being filled with something else: {note}")));
        }
        Ok(Holding::Store(_)) => return Err(Error::refused(format!("{location} holds a store already"))),
        Err(error) if *error.kind() == govc_engine::ErrorKind::Corrupt => {
            return Err(Error::refused(format!("{location} is not empty: {error}")));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Holding::begin_filling(to, &format!("{NOTE}{}", header.backup))?)
}

/// Removes what an earlier attempt left, but not its mark.
fn clear(to: &dyn Backend) -> Result<()> {
    for family in Family::ALL {
        let mut batch = Batch::new();
        for row in rows(to, family)? {
            batch.delete(family, row?.0.to_vec());
            if batch.ops.len() >= 20_000 {
                to.write(std::mem::take(&mut batch), govc_engine::backend::Sync::No)?;
            }
        }
        to.write(batch, govc_engine::backend::Sync::No)?;
    }
    Ok(())
}

fn load(mut reader: Reader, to: &dyn Backend, progress: &dyn Progress) -> Result<()> {
    progress.begin(&format!("restoring {}", reader.path().display()), Some(reader.len));
    let mut load = Load::new(to, progress);
    while let Some((family, key, op)) = reader.next_row()? {
        match op {
            RowOp::Put(value) => {
                progress.advance((key.len() + value.len()) as u64);
                load.put(family, &key, value)?;
            }
            RowOp::Gone => load.delete(family, &key)?,
            RowOp::Same(_) => {}
        }
    }
    load.finish()?;
    progress.end();
    Ok(())
}

fn compare(reader: Reader, to: &dyn Backend, progress: &dyn Progress) -> Result<Count> {
    progress.begin("comparing", None);
    let mut held = Count::default();
    let mut listing = Listing::new(reader);
    for family in Family::ALL {
        let wanted = std::iter::from_fn(|| listing.next_of(family).transpose());
        for found in Side::by_side(rows(to, family)?, wanted) {
            check_cancelled(progress)?;
            match found? {
                Found::Both(key, value, hash) if value_hash(&value) == hash => {
                    progress.advance((key.len() + value.len()) as u64);
                    held.add(&key, &value);
                }
                Found::Left(key, _) => return Err(unequal(family, &key, "is there and should not be")),
                Found::Right(key, _) => return Err(unequal(family, &key, "is missing")),
                Found::Both(key, ..) => return Err(unequal(family, &key, "has another value")),
            }
        }
    }
    listing.finish()?;
    progress.end();
    Ok(held)
}

fn unequal(family: Family, key: &[u8], what: &str) -> Error {
    let message = format!("row {} of family {} {what} after the restoration", key.escape_ascii(), family.name());
    Error::new(ErrorKind::Unequal, message)
}
