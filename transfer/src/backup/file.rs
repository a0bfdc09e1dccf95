//! The format of a backup file, version 1.
//!
//! ```text
//! file   = "GOVCBAK1" frame*
//! frame  = kind (1 byte) length (u32 le) crc (u32 le: CRC-32C of kind, length and payload) payload
//! kind   = 1 header: JSON of [`Header`]         first, once
//!          2 rows: zstd of row*                 any number
//!          3 end: rows (u64 le) digest (16 bytes: XXH3 of every byte before this frame)   last, once
//! row    = op (1 byte) family (1 byte) key (length varint, bytes) rest
//! op     = 1 put: rest is the value (length varint, bytes)
//!          2 same as in the backup before: rest is the XXH3 of the value (16 bytes)
//!          3 gone since the backup before: no rest
//! ```
//!
//! Rows are in order: by family, then by key. Puts and sames together are everything that the store held, so that each file
//! is enough to make the next incremental one from. Nothing after the end is allowed, and nothing without one is believed.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use govc_engine::{Family, Holding};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"GOVCBAK1";
const VERSION: u32 = 1;
const HEADER: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;
const PUT: u8 = 1;
const SAME: u8 = 2;
const GONE: u8 = 3;
/// Bytes of rows after which a frame is written.
const FRAME_BYTES: usize = 1 << 20;
/// A header is a few hundred bytes.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// A frame holds one row, however large, or about a MiB of them. No value that the engine writes comes near this.
const ROWS_BYTES_MAX: u64 = if cfg!(fuzzing) { 1 << 24 } else { 1 << 30 };
/// Most values are zstd frames already; what gains are keys and references.
const LEVEL: i32 = 1;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The format's version.
    pub version: u32,
    /// This backup: 32 hexadecimal digits, drawn at random.
    pub backup: String,
    /// The backup that it is built on, if it holds only what has changed.
    pub since: Option<String>,
    /// The store's identity.
    pub store: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_millis: i64,
    /// What kind of backend it is of.
    pub backend: String,
}

impl Header {
    pub(super) fn new(backup: String, since: Option<String>, store: String, millis: i64, backend: &str) -> Self {
        let backend = backend.to_owned();
        Self { version: VERSION, backup, since, store, created_millis: millis, backend }
    }
}

/// What a file says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowOp {
    Put(Bytes),
    Same([u8; 16]),
    Gone,
}

/// A backup file that is written.
pub(super) struct Writer<W> {
    out: W,
    hash: Xxh3,
    frame: Vec<u8>,
    rows: u64,
    /// Bytes of the file so far.
    bytes: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, header: &Header) -> Result<Self> {
        let mut writer = Self { out, hash: Xxh3::new(), frame: Vec::new(), rows: 0, bytes: 0 };
        writer.write(MAGIC)?;
        let header = serde_json::to_vec(header).map_err(|error| Error::damaged(error.to_string()))?;
        writer.write_frame(HEADER, &header)?;
        Ok(writer)
    }

    pub(super) fn row(&mut self, family: Family, key: &[u8], op: &RowOp) -> Result<()> {
        let tag = match op {
            RowOp::Put(_) => PUT,
            RowOp::Same(_) => SAME,
            RowOp::Gone => GONE,
        };
        self.frame.extend([tag, family as u8]);
        put_bytes(&mut self.frame, key);
        match op {
            RowOp::Put(value) => put_bytes(&mut self.frame, value),
            RowOp::Same(hash) => self.frame.extend(hash),
            RowOp::Gone => {}
        }
        self.rows += 1;
        if self.frame.len() as u64 > ROWS_BYTES_MAX {
            return Err(Error::refused(format!("a row of {} bytes fits no backup", self.frame.len())));
        }
        if self.frame.len() >= FRAME_BYTES {
            self.write_rows()?;
        }
        Ok(())
    }

    fn write_rows(&mut self) -> Result<()> {
        let encoded =
            zstd::bulk::compress(&self.frame, LEVEL).map_err(|error| Error::file("cannot compress", error))?;
        self.frame.clear();
        self.write_frame(ROWS, &encoded)
    }

    /// Ends the file; gives what is behind it, and the file's size in bytes.
    pub(super) fn finish(mut self) -> Result<(W, u64)> {
        if !self.frame.is_empty() {
            self.write_rows()?;
        }
        let end = [&self.rows.to_le_bytes()[..], &self.hash.digest128().to_le_bytes()].concat();
        self.write_frame(END, &end)?;
        self.out.flush().map_err(|error| Error::file("cannot write the backup", error))?;
        Ok((self.out, self.bytes))
    }

    fn write_frame(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let len = u32::try_from(payload.len()).map_err(|_| Error::refused("a row of 4 GiB fits no backup"))?;
        let len = len.to_le_bytes();
        let crc = frame_crc(kind, len, payload);
        self.write(&[kind])?;
        self.write(&len)?;
        self.write(&crc.to_le_bytes())?;
        self.write(payload)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|error| Error::file("cannot write the backup", error))
    }
}

fn frame_crc(kind: u8, len: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&[&[kind][..], &len].concat()), payload)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(bytes);
}

/// A backup file that is read, checked on the way: each frame before it is believed, order and completeness at the end.
pub(super) struct Reader<R = BufReader<File>> {
    path: PathBuf,
    input: R,
    hash: Xxh3,
    header: Header,
    /// What is left of the frame of rows that is being read.
    rows: Bytes,
    count: u64,
    last: Option<(Family, Bytes)>,
    is_ended: bool,
    /// The file's size in bytes, for progress.
    pub(super) len: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::file(path.display(), error))?;
        let len = file.metadata().map_err(|error| Error::file(path.display(), error))?.len();
        Self::begin(path, BufReader::with_capacity(1 << 20, file), len)
    }
}

impl<R: Read> Reader<R> {
    fn begin(path: &Path, input: R, len: u64) -> Result<Self> {
        let header = Header::new(String::new(), None, String::new(), 0, "");
        let mut reader = Self {
            path: path.to_path_buf(),
            input,
            hash: Xxh3::new(),
            header,
            rows: Bytes::new(),
            count: 0,
            last: None,
            is_ended: false,
            len,
        };
        let mut magic = [0; MAGIC.len()];
        reader.read(&mut magic)?;
        if magic != *MAGIC {
            return Err(reader.damaged("it is no backup of govc"));
        }
        let (HEADER, payload) = reader.frame()? else { return Err(reader.damaged("it has no header")) };
        let header: Header = serde_json::from_slice(&payload)
            .map_err(|error| reader.damaged(format!("its header cannot be read: {error}")))?;
        if header.version != VERSION {
            return Err(reader.damaged(format!("it has version {}; this program reads {VERSION}", header.version)));
        }
        reader.header = header;
        Ok(reader)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next row; `None` at the end, when everything has been found right.
    pub(super) fn next_row(&mut self) -> Result<Option<(Family, Bytes, RowOp)>> {
        while self.rows.is_empty() {
            if self.is_ended {
                return Ok(None);
            }
            let before = self.hash.digest128();
            match self.frame()? {
                (ROWS, payload) => self.rows = self.decode(&payload)?,
                (END, payload) => self.end(&payload, before)?,
                (kind, _) => return Err(self.damaged(format!("it has a frame of unknown kind {kind}"))),
            }
        }
        let (family, key, op) = self.row()?;
        if self.last.as_ref().is_some_and(|last| (last.0, &last.1) >= (family, &key)) {
            return Err(self.damaged("its rows are out of order"));
        }
        self.last = Some((family, key.clone()));
        self.count += 1;
        Ok(Some((family, key, op)))
    }

    fn row(&mut self) -> Result<(Family, Bytes, RowOp)> {
        let (tag, number) = (self.byte()?, self.byte()?);
        let family = Family::ALL.get(usize::from(number)).copied();
        let family = family.ok_or_else(|| self.damaged(format!("it has a row of unknown family {number}")))?;
        let key = self.bytes()?;
        if Holding::is_note(family, &key) {
            return Err(self.damaged("it holds the mark of an unfinished store"));
        }
        let op = match tag {
            PUT => RowOp::Put(self.bytes()?),
            SAME => {
                let hash = self.take(16)?;
                RowOp::Same(<[u8; 16]>::try_from(&hash[..]).map_err(|_| self.damaged("a row ends early"))?)
            }
            GONE => RowOp::Gone,
            _ => return Err(self.damaged(format!("it has a row of unknown kind {tag}"))),
        };
        if self.header.since.is_none() && !matches!(op, RowOp::Put(_)) {
            return Err(self.damaged("it is whole, and has rows of an incremental one"));
        }
        Ok((family, key, op))
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let mut len = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            len |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return self.take(usize::try_from(len).unwrap_or(usize::MAX));
            }
        }
        Err(self.damaged("a row's length is too long"))
    }

    fn take(&mut self, len: usize) -> Result<Bytes> {
        if len > self.rows.len() {
            return Err(self.damaged("a row ends early"));
        }
        Ok(self.rows.split_to(len))
    }

    fn decode(&self, payload: &[u8]) -> Result<Bytes> {
        let wrong = |error| self.damaged(format!("its rows cannot be decompressed: {error}"));
        let decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(wrong)?;
        let mut rows = Vec::new();
        // Grows with what is there, whatever a frame claims.
        decoder.take(ROWS_BYTES_MAX + 1).read_to_end(&mut rows).map_err(wrong)?;
        if rows.len() as u64 > ROWS_BYTES_MAX {
            return Err(self.damaged("it has a frame that is too large"));
        }
        if rows.is_empty() {
            return Err(self.damaged("it has a frame without rows"));
        }
        Ok(rows.into())
    }

    fn end(&mut self, payload: &[u8], digest: u128) -> Result<()> {
        if *payload != [&self.count.to_le_bytes()[..], &digest.to_le_bytes()].concat() {
            return Err(self.damaged("its count of rows or its checksum is wrong"));
        }
        let mut more = [0];
        match self.input.read(&mut more) {
            Ok(0) => {}
            Ok(_) => return Err(self.damaged("it goes on after its end")),
            Err(error) => return Err(Error::file(self.path.display(), error)),
        }
        self.is_ended = true;
        Ok(())
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let [kind, len @ .., _, _, _, _] = head;
        let crc = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
        let wanted = u32::from_le_bytes(len) as usize;
        if kind == HEADER && wanted > HEADER_BYTES_MAX {
            return Err(self.damaged("its header is too long"));
        }
        let mut payload = Vec::new();
        // Grows with what is there, whatever a frame claims.
        let read = (&mut self.input).take(wanted as u64).read_to_end(&mut payload);
        read.map_err(|error| Error::file(self.path.display(), error))?;
        if payload.len() < wanted {
            return Err(self.damaged("it ends early"));
        }
        self.hash.update(&payload);
        if frame_crc(kind, len, &payload) != crc {
            return Err(self.damaged("a frame fails its checksum"));
        }
        Ok((kind, payload))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.hash.update(bytes);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.damaged("it ends early")),
            Err(error) => Err(Error::file(self.path.display(), error)),
        }
    }

    fn damaged(&self, what: impl std::fmt::Display) -> Error {
        Error::damaged(format!("the backup {}: {what}", self.path.display()))
    }
}

/// Reads `data` as a backup file, as what follows a header, and as the rows of one frame; rows that are read can be written and
/// read again. For fuzzing.
pub fn fuzz_backup(data: &[u8]) {
    let _ = read_all(data);
    for since in [None, Some("0".repeat(32))] {
        let header = Header::new("1".repeat(32), since, "2".repeat(32), 0, "memory");
        for payload in [data.to_vec(), zstd::bulk::compress(data, LEVEL).unwrap_or_default()] {
            let mut writer = Writer::new(Vec::new(), &header).expect("memory takes it");
            writer.write_frame(ROWS, &payload).expect("memory takes it");
            let (file, _) = writer.finish().expect("memory takes it");
            // Its count of rows is wrong; what comes before that is what matters.
            let (rows, _) = read_all(&file);
            let mut writer = Writer::new(Vec::new(), &header).expect("memory takes it");
            for (family, key, op) in &rows {
                writer.row(*family, key, op).expect("it fits");
            }
            let (file, len) = writer.finish().expect("memory takes it");
            assert_eq!(len, file.len() as u64);
            let (again, end) = read_all(&file);
            end.expect("what is written can be read");
            assert_eq!(again, rows);
        }
        let mut file = Writer::new(Vec::new(), &header).expect("memory takes it").out;
        file.extend_from_slice(data);
        let _ = read_all(&file);
    }
}

type Row = (Family, Bytes, RowOp);

/// The rows of a file up to its end, or to what is wrong.
fn read_all(file: &[u8]) -> (Vec<Row>, Result<()>) {
    let mut rows = Vec::new();
    let mut read = || {
        let mut reader = Reader::begin(Path::new("backup"), file, file.len() as u64)?;
        while let Some(row) = reader.next_row()? {
            rows.push(row);
        }
        Ok(())
    };
    let end = read();
    (rows, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_backup() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/backup");
        assert_eq!(std::fs::read_dir(&folder).expect("the seeds are there").count(), 2);
        for (name, since, wanted) in [("rows", None, 2), ("changes", Some(String::new()), 3)] {
            let data = std::fs::read(folder.join(name)).expect(name);
            fuzz_backup(&data);
            let header = Header::new(String::new(), since, String::new(), 0, "memory");
            let mut writer = Writer::new(Vec::new(), &header).expect("memory takes it");
            (writer.frame, writer.rows) = (data, wanted);
            let (rows, end) = read_all(&writer.finish().expect("memory takes it").0);
            end.expect(name);
            assert_eq!(rows.len() as u64, wanted, "{name}");
        }
    }

    #[test]
    fn what_claims_to_be_large_is_not_believed() {
        let header = Header::new(String::new(), None, String::new(), 0, "memory");
        let mut file = Writer::new(Vec::new(), &header).expect("memory takes it").out;
        file.extend([&[ROWS][..], &u32::MAX.to_le_bytes(), &[0; 4], b"short"].concat());
        assert!(read_all(&file).1.expect_err("it ends").to_string().contains("it ends early"));
    }
}
