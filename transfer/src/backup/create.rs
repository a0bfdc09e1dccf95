//! Writes a backup.
//!
//! An incremental one reads the listing of the backup before it beside the store, in the same order: a value of another
//! checksum is put, a key that is no longer there is gone, the rest is the same. It therefore reads all of the store and
//! writes little.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use govc_engine::{Backend, Family};

use super::file::{Header, Reader, RowOp, Writer};
use crate::{
    Count, Error, Progress, Result,
    copy::source_of,
    digest::value_hash,
    error::check_cancelled,
    rows::{Found, Side, rows},
};

/// What a backup is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOptions {
    /// The backup, whole or incremental, on which this one is built.
    pub since: Option<PathBuf>,
    /// Now, in milliseconds since the Unix epoch.
    pub now_millis: i64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The file's header.
    pub header: Header,
    /// What the store holds.
    pub held: Count,
    /// Rows with their values.
    pub put: u64,
    /// Rows that are gone since the backup before.
    pub gone: u64,
    /// The size of the file in bytes.
    pub file_bytes: u64,
}

/// Writes one moment of the store in `from` to a new file. The file is there whole and durable, or not at all.
///
/// # Errors
/// [`crate::ErrorKind::Refused`] if the file exists, there is no store, or the backup before is of another store;
/// [`crate::ErrorKind::Damaged`] if that one is damaged; else when the backend or the file system fails.
pub fn create(from: &dyn Backend, path: &Path, options: &BackupOptions, progress: &dyn Progress) -> Result<Made> {
    let store = source_of(from)?.to_string();
    let base = options.since.as_deref().map(Reader::open).transpose()?;
    if let Some(base) = &base
        && base.header().store != store
    {
        let message = format!("the backup {} is of another store", base.path().display());
        return Err(Error::refused(message));
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::refused(format!("{} exists already", path.display())));
    }
    let since = base.as_ref().map(|base| base.header().backup.clone());
    let header = Header::new(random_id()?, since, store, options.now_millis, from.describe().kind);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Removed when it is dropped before it has its name.
    let file = tempfile::Builder::new().prefix(".govc-backup-").tempfile_in(folder);
    let file = file.map_err(|error| Error::file(folder.display(), error))?;
    let writer = Writer::new(BufWriter::with_capacity(1 << 20, file), &header)?;
    let bytes = from.usage()?.families.iter().map(|(_, bytes)| bytes).sum();
    progress.begin("backing up", Some(bytes));
    let mut made = Made { header, held: Count::default(), put: 0, gone: 0, file_bytes: 0 };
    let (out, file_bytes) = write_rows(from, base, writer, &mut made, progress)?;
    made.file_bytes = file_bytes;
    let file = out.into_inner().map_err(|error| Error::file(path.display(), error.into_error()))?;
    file.as_file().sync_all().map_err(|error| Error::file(path.display(), error))?;
    file.persist_noclobber(path).map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::refused(format!("{} exists already", path.display())),
        _ => Error::file(path.display(), error.error),
    })?;
    // The name, too.
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::file(folder.display(), error))?;
    progress.end();
    Ok(made)
}

type Out = BufWriter<tempfile::NamedTempFile>;

fn write_rows(
    from: &dyn Backend,
    base: Option<Reader>,
    mut writer: Writer<Out>,
    made: &mut Made,
    progress: &dyn Progress,
) -> Result<(Out, u64)> {
    let is_whole = base.is_none();
    let mut base = base.map(Listing::new);
    for family in Family::ALL {
        let before = std::iter::from_fn(|| base.as_mut()?.next_of(family).transpose());
        for found in Side::by_side(rows(from, family)?, before) {
            check_cancelled(progress)?;
            let (key, value, before) = match found? {
                Found::Left(key, value) => (key, value, None),
                Found::Both(key, value, before) => (key, value, Some(before)),
                Found::Right(key, _) => {
                    made.gone += 1;
                    writer.row(family, &key, &RowOp::Gone)?;
                    continue;
                }
            };
            made.held.add(&key, &value);
            progress.advance((key.len() + value.len()) as u64);
            let hash = if is_whole { None } else { Some(value_hash(&value)) };
            match hash.filter(|hash| before.as_ref() == Some(hash)) {
                Some(hash) => writer.row(family, &key, &RowOp::Same(hash))?,
                None => {
                    made.put += 1;
                    writer.row(family, &key, &RowOp::Put(value))?;
                }
            }
        }
    }
    if let Some(base) = &mut base {
        base.finish()?;
    }
    writer.finish()
}

/// What a store held, by a backup: keys with the checksums of their values.
pub(super) struct Listing {
    pub(super) reader: Reader,
    next: Option<(Family, Bytes, [u8; 16])>,
}

impl Listing {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader, next: None }
    }

    /// The next row, if it is of this family. Families must be asked for in order.
    pub(super) fn next_of(&mut self, family: Family) -> Result<Option<(Bytes, [u8; 16])>> {
        while self.next.is_none() {
            let Some((found, key, op)) = self.reader.next_row()? else { return Ok(None) };
            match op {
                RowOp::Put(value) => self.next = Some((found, key, value_hash(&value))),
                RowOp::Same(hash) => self.next = Some((found, key, hash)),
                RowOp::Gone => {}
            }
        }
        Ok(self.next.take_if(|(found, ..)| *found == family).map(|(_, key, hash)| (key, hash)))
    }

    /// Reads to the end, where the file says that it was whole.
    pub(super) fn finish(&mut self) -> Result<()> {
        while self.reader.next_row()?.is_some() {}
        Ok(())
    }
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(crate::ErrorKind::File, format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
