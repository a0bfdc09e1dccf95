//! `files`: those of a revision's tree, submodules among them.

use std::{cell::OnceCell, ffi::CStr, hash::Hasher, sync::Arc};

use bytes::Bytes;
use govc_engine::{EntryMode, Oid, Result};

use super::{
    run::{Rev, Run},
    table::{Estimate, Given, Rows, Slot, Table, Test, Tests},
    tree::{Bounds, TreeWalk},
    value::Cell,
};
use crate::{
    index::is_binary,
    language::{Language, head},
    view::is_file,
};

const PATH: usize = 0;
const REV: usize = 11;

const BY_REV: usize = 0;
const BY_PATH: usize = 1;
const FROM_PATH: usize = 2;
const TO_PATH: usize = 3;
const LIKE_PATH: usize = 4;
const GLOB_PATH: usize = 5;

pub(super) struct Files;

impl Table for Files {
    const DECLARATION: &'static CStr = c"CREATE TABLE files(
        path TEXT, name TEXT, dir TEXT, extension TEXT, mode TEXT, size INTEGER, hash TEXT, language TEXT,
        lines INTEGER, content, is_binary INTEGER, rev TEXT HIDDEN)";
    const SLOTS: &'static [Slot] = &[
        Slot { column: REV, test: Test::Argument },
        Slot { column: PATH, test: Test::Equal },
        Slot { column: PATH, test: Test::AtLeast },
        Slot { column: PATH, test: Test::AtMost },
        Slot { column: PATH, test: Test::Like },
        Slot { column: PATH, test: Test::Glob },
    ];
    type Rows = FileRows;

    fn estimate(_: &Run, given: Given) -> Estimate {
        let part = part_of_paths(given);
        Estimate { cost: 20.0 + 20_000.0 * part, rows: (20_000.0 * part).max(1.0) as i64, is_unique: false }
    }

    fn scan(run: &Arc<Run>, tests: &Tests) -> Result<Option<FileRows>> {
        let Some(rev) = run.rev(tests.get(BY_REV))? else { return Ok(None) };
        let root = run.snapshot.root_tree(rev.oid)?;
        let walk = TreeWalk::new(run, root, Bounds::new(Self::SLOTS, PATH, tests))?;
        Ok(Some(FileRows { run: Arc::clone(run), rev, walk, file: None }))
    }
}

/// Which part of all paths tests are expected to leave. The slots are the same for all tables that walk trees.
pub(super) fn part_of_paths(given: Given) -> f64 {
    if given.has(BY_PATH) {
        return 0.0;
    }
    let ends = given.has(FROM_PATH) as i32 + given.has(TO_PATH) as i32;
    let patterns = given.has(LIKE_PATH) as i32 + given.has(GLOB_PATH) as i32;
    0.4_f64.powi(ends) * 0.1_f64.powi(patterns)
}

pub(super) struct FileRows {
    run: Arc<Run>,
    rev: Rev,
    walk: TreeWalk,
    file: Option<File>,
}

/// The file that a scan is at.
struct File {
    mode: EntryMode,
    oid: Oid,
    data: OnceCell<Bytes>,
}

impl Rows for FileRows {
    fn advance(&mut self) -> Result<bool> {
        let found = self.walk.advance()?;
        self.file = found.map(|(mode, oid)| File { mode, oid, data: OnceCell::new() });
        Ok(self.file.is_some())
    }

    fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let (Some(file), path) = (&self.file, self.walk.path()) else { return Ok(Cell::Null) };
        let (dir, name) = split(path);
        Ok(match column {
            PATH => Cell::text(path),
            1 => Cell::text(name),
            2 => Cell::text(dir),
            3 => Cell::maybe(extension(name), Cell::text),
            4 => Cell::string(file.mode.to_octal()),
            5 if file.mode.is_blob() => Cell::maybe(self.size(file)?, Cell::count),
            6 => Cell::string(file.oid),
            7 if is_file(file.mode) => Cell::maybe(self.language(path, file)?, Cell::string),
            8 if file.mode.is_blob() => Cell::maybe(lines(self.data(file)?), Cell::count),
            9 if file.mode.is_blob() => self.content(file)?,
            10 if file.mode.is_blob() => Cell::Integer(i64::from(is_binary(self.data(file)?))),
            REV => Cell::text(&self.rev.name),
            _ => Cell::Null,
        })
    }

    fn identify(&self, hasher: &mut dyn Hasher) {
        hasher.write(&self.rev.name);
        hasher.write_u8(0);
        hasher.write(self.walk.path());
    }
}

impl FileRows {
    fn size(&self, file: &File) -> Result<Option<u64>> {
        Ok(self.run.snapshot.header(&file.oid)?.map(|(_, size)| size))
    }

    fn language(&self, path: &[u8], file: &File) -> Result<Option<&'static str>> {
        let corpus = &self.run.corpus;
        let blob = corpus.number(file.oid);
        let language = corpus.language(blob, path, || Ok(head(self.data(file)?).to_vec()))?;
        Ok(language.map(Language::name))
    }

    fn data<'a>(&self, file: &'a File) -> Result<&'a Bytes> {
        if let Some(data) = file.data.get() {
            return Ok(data);
        }
        let data = self.run.blob(&file.oid)?;
        Ok(file.data.get_or_init(|| data))
    }

    fn content<'a>(&self, file: &'a File) -> Result<Cell<'a>> {
        if self.run.leaves_out(&file.oid)? {
            return Ok(Cell::Null);
        }
        let data = self.data(file)?;
        Ok(if is_binary(data) { Cell::Blob((&data[..]).into()) } else { Cell::text(data) })
    }
}

/// A text's lines; the last one need not end.
fn lines(data: &[u8]) -> Option<u64> {
    let ended = memchr::memchr_iter(b'\n', data).count() as u64;
    let rest = u64::from(data.last().is_some_and(|byte| *byte != b'\n'));
    (!is_binary(data)).then_some(ended + rest)
}

/// Directory, without its slash, and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// What follows the last dot of a name that does not begin with it.
fn extension(name: &[u8]) -> Option<&[u8]> {
    let dot = memchr::memrchr(b'.', name).filter(|dot| *dot > 0)?;
    name.get(dot + 1..).filter(|extension| !extension.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{extension, lines, split};

    #[test]
    fn paths_come_apart() {
        assert_eq!(split(b"a/b/c.d"), (&b"a/b"[..], &b"c.d"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
        assert_eq!(extension(b"a.tar.gz"), Some(&b"gz"[..]));
        for name in ["a", ".gitignore", "a.", ""] {
            assert_eq!(extension(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn the_last_line_counts_if_anything_is_on_it() {
        for (text, expected) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2)] {
            assert_eq!(lines(text.as_bytes()), Some(expected), "{text:?}");
        }
        assert_eq!(lines(b"a\0b\n"), None);
    }
}
