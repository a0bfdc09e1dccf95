//! Where a store is: how a person names it, and how it is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use govc_engine::backend::{Backend, BackendError, BackendErrorKind, BackendResult};

use crate::MemoryBackend;

/// Where a store is.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// In this process's memory: nothing is kept.
    Memory,
    /// In a folder of RocksDB files.
    Rocksdb(PathBuf),
    /// In a folder with a SQLite database.
    Sqlite(PathBuf),
    /// In a PostgreSQL database, by its URL, which may hold a password.
    Postgres(String),
}

/// What backends are opened with; each takes what concerns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// Free bytes that writes leave on the file system of an embedded backend.
    pub reserve_bytes: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { reserve_bytes: 64 << 20 }
    }
}

impl Location {
    /// Reads a word (`memory`, `rocksdb`, `sqlite`: the latter two mean a folder of that name under `data`) or a URL
    /// (`memory://`, `rocksdb://PATH`, `sqlite://PATH`, `postgres://...`, `postgresql://...`). A path is taken as it is
    /// written, absolute or from the current folder.
    ///
    /// # Errors
    /// What was expected instead, in words.
    pub fn parse(text: &str, data: &Path) -> Result<Self, String> {
        const EXPECTED: &str = "expected rocksdb, sqlite or memory, or a URL: rocksdb://PATH, sqlite://PATH, postgres://USER@HOST/DATABASE";
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "memory" => Ok(Self::Memory),
                "rocksdb" => Ok(Self::Rocksdb(data.join("rocksdb"))),
                "sqlite" => Ok(Self::Sqlite(data.join("sqlite"))),
                _ => Err(EXPECTED.to_owned()),
            };
        };
        let path = || match rest {
            "" => Err(format!("{scheme}:// needs a path, as in {scheme}:///srv/govc/{scheme}")),
            path if path.contains('\0') => Err("a path holds no zero byte".to_owned()),
            path => Ok(PathBuf::from(path)),
        };
        match scheme {
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "rocksdb" => Ok(Self::Rocksdb(path()?)),
            "sqlite" => Ok(Self::Sqlite(path()?)),
            "postgres" | "postgresql" => Ok(Self::Postgres(text.to_owned())),
            _ => Err(EXPECTED.to_owned()),
        }
    }

    /// The backend's word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Rocksdb(_) => "rocksdb",
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// The folder of an embedded backend.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Rocksdb(folder) | Self::Sqlite(folder) => Some(folder),
            Self::Memory | Self::Postgres(_) => None,
        }
    }

    /// Opens the backend to be written; begins an empty one where there is none.
    ///
    /// # Errors
    /// As the backend's own opening; [`BackendErrorKind::Failed`] if this program was built without it.
    pub fn open(&self, options: &OpenOptions) -> BackendResult<Arc<dyn Backend>> {
        if let Some(folder) = self.folder() {
            make_folder(folder)?;
        }
        match self {
            Self::Memory => Ok(Arc::new(MemoryBackend::new())),
            Self::Rocksdb(folder) => open_rocksdb(folder, options),
            Self::Sqlite(folder) => open_sqlite(folder, options),
            Self::Postgres(url) => open_postgres(url),
        }
    }

    /// Opens one moment of the backend, which a server may have open and go on to write. Every write to it fails.
    ///
    /// # Errors
    /// [`BackendErrorKind::Failed`] if there is nothing, or this program was built without the backend; else as the
    /// backend's own opening.
    pub fn open_to_read(&self) -> BackendResult<Arc<dyn Backend>> {
        if let Some(folder) = self.folder()
            && !folder.is_dir()
        {
            return Err(failed(format!("there is no folder {}", folder.display())));
        }
        match self {
            Self::Memory => Err(failed("a memory backend has no past: nothing is in it to be read".to_owned())),
            Self::Rocksdb(folder) => read_rocksdb(folder),
            Self::Sqlite(folder) => read_sqlite(folder),
            Self::Postgres(url) => read_postgres(url),
        }
    }
}

fn failed(message: String) -> BackendError {
    BackendError::new(BackendErrorKind::Failed, message)
}

/// Makes a folder for nobody but this user: repositories may be private.
fn make_folder(folder: &Path) -> BackendResult<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| failed(format!("cannot make the folder {}: {error}", folder.display())))
}

#[cfg(not(all(feature = "rocksdb", feature = "sqlite", feature = "postgres")))]
fn missing<T>(kind: &str) -> BackendResult<T> {
    Err(failed(format!("this program was built without {kind}")))
}

#[cfg(feature = "rocksdb")]
fn open_rocksdb(folder: &Path, options: &OpenOptions) -> BackendResult<Arc<dyn Backend>> {
    use crate::{RocksBackend, RocksOptions};
    let options = RocksOptions { reserve_bytes: options.reserve_bytes, ..RocksOptions::default() };
    Ok(Arc::new(RocksBackend::open(folder, options)?))
}

#[cfg(feature = "rocksdb")]
fn read_rocksdb(folder: &Path) -> BackendResult<Arc<dyn Backend>> {
    Ok(Arc::new(crate::RocksBackend::open_to_read(folder)?))
}

#[cfg(not(feature = "rocksdb"))]
fn open_rocksdb(_folder: &Path, _options: &OpenOptions) -> BackendResult<Arc<dyn Backend>> {
    missing("RocksDB")
}

#[cfg(not(feature = "rocksdb"))]
fn read_rocksdb(_folder: &Path) -> BackendResult<Arc<dyn Backend>> {
    missing("RocksDB")
}

#[cfg(feature = "sqlite")]
fn open_sqlite(folder: &Path, options: &OpenOptions) -> BackendResult<Arc<dyn Backend>> {
    use crate::{SqliteBackend, SqliteOptions};
    let options = SqliteOptions { reserve_bytes: options.reserve_bytes, ..SqliteOptions::default() };
    Ok(Arc::new(SqliteBackend::open(folder, options)?))
}

#[cfg(feature = "sqlite")]
fn read_sqlite(folder: &Path) -> BackendResult<Arc<dyn Backend>> {
    Ok(Arc::new(crate::SqliteBackend::open_to_read(folder)?))
}

#[cfg(not(feature = "sqlite"))]
fn open_sqlite(_folder: &Path, _options: &OpenOptions) -> BackendResult<Arc<dyn Backend>> {
    missing("SQLite")
}

#[cfg(not(feature = "sqlite"))]
fn read_sqlite(_folder: &Path) -> BackendResult<Arc<dyn Backend>> {
    missing("SQLite")
}

#[cfg(feature = "postgres")]
fn open_postgres(url: &str) -> BackendResult<Arc<dyn Backend>> {
    Ok(Arc::new(crate::PostgresBackend::open(url, crate::PostgresOptions::default())?))
}

#[cfg(feature = "postgres")]
fn read_postgres(url: &str) -> BackendResult<Arc<dyn Backend>> {
    Ok(Arc::new(crate::PostgresBackend::open_to_read(url, crate::PostgresOptions::default())?))
}

#[cfg(not(feature = "postgres"))]
fn open_postgres(_url: &str) -> BackendResult<Arc<dyn Backend>> {
    missing("PostgreSQL")
}

#[cfg(not(feature = "postgres"))]
fn read_postgres(_url: &str) -> BackendResult<Arc<dyn Backend>> {
    missing("PostgreSQL")
}

impl fmt::Display for Location {
    /// As it can be parsed again, but without a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Rocksdb(folder) => write!(f, "rocksdb://{}", folder.display()),
            Self::Sqlite(folder) => write!(f, "sqlite://{}", folder.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL without a password, and without parameters that may hold one.
///
/// What stands before the last `@` is user and password, whatever characters they are of; of the rest only parameters are
/// shown that are known to be harmless.
fn without_password(url: &str) -> String {
    const SHOWN: [&str; 6] = ["host", "port", "user", "dbname", "schema", "sslmode"];
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (user, place) = match rest.rsplit_once('@') {
        Some((credentials, place)) => {
            let end = credentials.find([':', '/', '?', '@']).unwrap_or(credentials.len());
            (format!("{}@", &credentials[..end]), place)
        }
        None => (String::new(), rest),
    };
    let (address, query) = place.split_once('?').unwrap_or((place, ""));
    let harmless = |parameter: &&str| SHOWN.contains(&parameter.split('=').next().unwrap_or_default());
    let kept: Vec<&str> = query.split('&').filter(harmless).collect();
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    format!("{scheme}://{user}{address}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, String> {
        Location::parse(text, Path::new("data"))
    }

    #[test]
    fn words_are_under_the_data_folder_and_urls_are_not() {
        assert_eq!(parse("memory"), Ok(Location::Memory));
        assert_eq!(parse("memory://"), Ok(Location::Memory));
        assert_eq!(parse(" rocksdb "), Ok(Location::Rocksdb("data/rocksdb".into())));
        assert_eq!(parse("sqlite"), Ok(Location::Sqlite("data/sqlite".into())));
        assert_eq!(parse("rocksdb:///srv/a"), Ok(Location::Rocksdb("/srv/a".into())));
        assert_eq!(parse("sqlite://a b/c"), Ok(Location::Sqlite("a b/c".into())));
        let url = "postgres://ada@db.example.org/govc";
        assert_eq!(parse(url), Ok(Location::Postgres(url.to_owned())));
        for text in ["", "mysql", "rocks", "file:///srv/a", "memory://x", "/srv/a"] {
            assert!(parse(text).unwrap_err().starts_with("expected rocksdb, sqlite or memory"), "{text}");
        }
        assert!(parse("sqlite://").unwrap_err().contains("needs a path"));
        assert!(parse("rocksdb://a\0b").unwrap_err().contains("zero byte"));
    }

    #[test]
    fn a_location_is_shown_without_its_password_and_read_again() {
        for (url, shown) in [
            ("postgres://ada:se:cr@et@h:5432/db?sslmode=require", "postgres://ada@h:5432/db?sslmode=require"),
            ("postgresql://h/db?user=ada&password=secret", "postgresql://h/db?user=ada"),
            ("postgresql:///db?host=/run&PassWord=secret", "postgresql:///db?host=/run"),
            ("postgres://ada@h/db", "postgres://ada@h/db"),
            ("postgres://ada:se?cret@h/db", "postgres://ada@h/db"),
            ("postgres://ada:s@cret/x?y@h/db?sslmode=disable", "postgres://ada@h/db?sslmode=disable"),
            ("postgres:///db?host=/run&p%61ssword=secret", "postgres:///db?host=/run"),
        ] {
            let location = parse(url).unwrap();
            assert_eq!((location.to_string(), format!("{location:?}")), (shown.to_owned(), shown.to_owned()));
        }
        for text in ["memory", "rocksdb", "sqlite:///a/b"] {
            let location = parse(text).unwrap();
            assert_eq!(parse(&location.to_string()), Ok(location));
        }
    }

    #[test]
    fn nothing_is_made_by_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none");
        for location in [Location::Rocksdb(path.clone()), Location::Sqlite(path.clone()), Location::Memory] {
            assert_eq!(location.open_to_read().map(drop).unwrap_err().kind, BackendErrorKind::Failed);
        }
        assert!(!path.exists());
    }
}
