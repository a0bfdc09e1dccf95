//! The folder of a store: who may use it, and whether what lies there is ours.
//!
//! `lock` is held, locked, as long as the store is open; the lock goes with the process, however it ends.
//! `govc.sqlite` comes into being complete: it is made under another name, synced and renamed. Its first page says
//! whose it is and of which version, and is read before SQLite sees the file, because SQLite would replay a foreign
//! log or journal before it could be asked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use govc_engine::backend::{BackendError, BackendErrorKind, BackendResult, Family};

use rusqlite::MAIN_DB;
use rusqlite::wal::CheckpointMode;

use super::{failure, options, schema};

const LOCK: &str = "lock";
const FILE: &str = "govc.sqlite";
const NEW_FILE: &str = "govc.sqlite.new";
/// What SQLite appends to the database's name.
const LOG_SUFFIX: &str = "-wal";
const INDEX_SUFFIX: &str = "-shm";

/// Bytes of a page. A large value costs two system calls a page in the log and ends somewhere within its last one; a
/// small one costs a page. Of 4, 8 and 16 KiB the first is slow for blocks, the last for ids.
const PAGE_BYTES: i32 = 8 << 10;

/// The database header: <https://www.sqlite.org/fileformat2.html>, section 1.3.
const HEADER_BYTES: usize = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const VERSION_AT: usize = 60;
const APPLICATION_AT: usize = 68;

/// What lies in a folder, or will.
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn of(folder: &Path) -> Self {
        // Absolute where that can be had, so that SQLite takes no name for a URI.
        Self { folder: fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf()) }
    }

    pub(super) fn folder(&self) -> &PathBuf {
        &self.folder
    }

    /// The database.
    pub(super) fn database(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The database's log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join(format!("{FILE}{LOG_SUFFIX}"))
    }

    /// Bytes of the files.
    pub(super) fn disk_bytes(&self) -> u64 {
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        bytes(&self.database()).saturating_add(bytes(&self.log()))
    }
}

/// A folder that this value alone may use.
pub(super) struct Folder {
    files: Files,
    /// Held for its lock.
    _lock: File,
}

impl Folder {
    /// Locks a folder, which is created if it is not there, and sees to it that there is a database in it, of this
    /// version.
    pub(super) fn open(path: &Path) -> BackendResult<Self> {
        make_folders(path)?;
        let files = Files::of(path);
        let lock = lock(files.folder())?;
        let folder = Self { files, _lock: lock };
        if folder.file().exists() {
            check(&folder.file())?;
        } else {
            folder.create()?;
        }
        Ok(folder)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.files.folder
    }

    /// What lies in it.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// The database.
    pub(super) fn file(&self) -> PathBuf {
        self.files.database()
    }

    /// The database's log.
    pub(super) fn log(&self) -> PathBuf {
        self.files.log()
    }

    /// Makes the names of the files in the folder durable.
    pub(super) fn sync(&self) -> BackendResult<()> {
        sync(&self.files.folder)
    }

    /// Makes an empty database. Whatever goes wrong, the next open begins anew.
    fn create(&self) -> BackendResult<()> {
        if self.log().exists() {
            let message = format!("{} is a log without its database", self.log().display());
            return Err(BackendError::new(BackendErrorKind::Corrupt, message));
        }
        let new = self.files.folder.join(NEW_FILE);
        let beside = [LOG_SUFFIX, INDEX_SUFFIX].map(|suffix| self.files.folder.join(format!("{NEW_FILE}{suffix}")));
        remove(&new)?;
        beside.iter().try_for_each(|file| remove(file))?;
        fill(&new).map_err(|error| failure::of_open(&self.files.folder, &error))?;
        // Both are empty, and would be of a database of that name.
        beside.iter().try_for_each(|file| remove(file))?;
        File::open(&new)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&new, self.file()))
            .map_err(|error| failure::of_file(&new, "put in place", &error))?;
        self.sync()?;
        // Its own name may be new as well, though another made it.
        self.files.folder.parent().map_or(Ok(()), sync)
    }
}

fn sync(folder: &Path) -> BackendResult<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failure::of_file(folder, "sync the folder", &error))
}

/// Makes a folder and those above it that are not there, and their names durable.
fn make_folders(path: &Path) -> BackendResult<()> {
    let new =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect::<Vec<_>>();
    fs::create_dir_all(path).map_err(|error| failure::of_file(path, "create the folder", &error))?;
    new.into_iter().filter_map(Path::parent).try_for_each(sync)
}

fn remove(file: &Path) -> BackendResult<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure::of_file(file, "remove", &error)),
        _ => Ok(()),
    }
}

/// Reads the first page's header and refuses what is not a store of this version.
pub(super) fn check(file: &Path) -> BackendResult<()> {
    let mut header = [0_u8; HEADER_BYTES];
    let read = File::open(file).and_then(|mut file| {
        let read = file.read(&mut header)?;
        Ok(&header[..read])
    });
    let header = read.map_err(|error| failure::of_file(file, "read", &error))?;
    let refuse = |kind, why: String| Err(BackendError::new(kind, format!("{} {why}", file.display())));
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) {
        return refuse(BackendErrorKind::Corrupt, "is not a SQLite database".to_owned());
    }
    let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| i32::from_be_bytes(*bytes));
    if number(APPLICATION_AT) != schema::APPLICATION {
        return refuse(BackendErrorKind::Failed, "is a SQLite database of another program".to_owned());
    }
    let version = number(VERSION_AT);
    if version != schema::VERSION {
        let why = format!("has version {version}; this program reads version {}", schema::VERSION);
        return refuse(BackendErrorKind::Failed, why);
    }
    Ok(())
}

fn lock(folder: &Path) -> BackendResult<File> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| failure::of_file(&path, "open", &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("the store in {} is in use: its lock file is held", folder.display());
            Err(BackendError::new(BackendErrorKind::Locked, message))
        }
        Err(TryLockError::Error(error)) => Err(failure::of_file(&path, "lock", &error)),
    }
}

/// Makes all tables in a new database, which is complete, without a log, when this returns.
fn fill(file: &Path) -> rusqlite::Result<()> {
    let connection = options::create(file)?;
    // No journal, which would be a file more to be left behind, and no syncs: the file is synced when it is whole.
    connection.pragma_update(None, "journal_mode", "MEMORY")?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    // Freed pages are used again by later writes; to move them to the file's end costs more than they take.
    connection.pragma_update(None, "auto_vacuum", "NONE")?;
    connection.pragma_update(None, "application_id", schema::APPLICATION)?;
    connection.pragma_update(None, "user_version", schema::VERSION)?;
    for family in Family::ALL {
        connection.execute_batch(schema::of(family).create)?;
    }
    connection.execute_batch(schema::CREATE_SIZES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::TRUNCATE)?;
    connection.close().map_err(|(_, error)| error)
}
