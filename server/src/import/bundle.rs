//! A bundle file: references, what must be there already, and a pack. Versions 2 and 3.
//!
//! Source: git's `Documentation/gitformat-bundle.adoc`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use govc_engine::{Error, ObjectFormat, Oid, Result, Snapshot};

use super::source::{Head, References, Scope};
use super::watch::read_error;

/// The longest line of the header: a name, an id, and a comment.
const LINE_LEN_MAX: u64 = 64 << 10;
/// Lines of the header beside twice the references that may come: `HEAD`, and what the bundle stands on.
const OTHER_LINES_MAX: usize = 1000;
/// The largest header: far more than a million references take.
const HEADER_BYTES_MAX: usize = 512 << 20;

/// A bundle whose header has been read; the pack comes next.
pub(crate) struct Bundle {
    path: PathBuf,
    input: Box<dyn BufRead>,
    /// What its ids are.
    format: ObjectFormat,
    /// What the receiver must have.
    needs: Vec<Oid>,
    references: Vec<(Vec<u8>, Oid)>,
}

impl Bundle {
    /// Reads the header, of so many references at most, and about as many that are not meant.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] for what is no bundle, or one that leaves objects out;
    /// [`govc_engine::ErrorKind::TooLarge`] for a header over the limit.
    pub(super) fn open(path: &Path, references_max: usize) -> Result<Self> {
        let file = File::open(path).map_err(|error| read_error(error, &path.display().to_string()))?;
        Self::read(path, Box::new(BufReader::with_capacity(1 << 20, file)), references_max)
    }

    /// The same from what the file at `path` holds.
    pub(super) fn read(path: &Path, input: Box<dyn BufRead>, references_max: usize) -> Result<Self> {
        let format = ObjectFormat::default();
        let mut bundle = Self { path: path.to_owned(), input, format, needs: Vec::new(), references: Vec::new() };
        let version = bundle.line()?;
        let is_v3 = match &version[..] {
            b"# v2 git bundle" => false,
            b"# v3 git bundle" => true,
            _ => return Err(bundle.wrong("it is no repository's folder and no bundle of version 2 or 3")),
        };
        let mut bytes = 0usize;
        for _ in 0..references_max.saturating_mul(2).saturating_add(OTHER_LINES_MAX) {
            let line = bundle.line()?;
            bytes += line.len();
            if bytes > HEADER_BYTES_MAX {
                return Err(Error::too_large(format!(
                    "the header of {} has more than {HEADER_BYTES_MAX} bytes",
                    path.display()
                )));
            }
            if line.is_empty() {
                return Ok(bundle);
            }
            if let Some(capability) = line.strip_prefix(b"@").filter(|_| is_v3) {
                bundle.capability(capability)?;
            } else if let Some(line) = line.strip_prefix(b"-") {
                let (oid, _) = bundle.id(line)?;
                bundle.needs.push(oid);
            } else {
                let (oid, name) = bundle.id(&line)?;
                bundle.references.push((name, oid));
            }
        }
        let path = path.display();
        Err(Error::too_large(format!(
            "the header of {path} names far more than {references_max} references (limits.references)"
        )))
    }

    fn wrong(&self, why: &str) -> Error {
        Error::invalid(format!("cannot import {}: {why}", self.path.display()))
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| read_error(error, &self.path.display().to_string()))?;
        match line.pop() {
            Some(b'\n') => Ok(line),
            _ => Err(self.wrong("it is no repository's folder, and no bundle or a damaged one")),
        }
    }

    fn capability(&mut self, capability: &[u8]) -> Result<()> {
        if capability.starts_with(b"filter=") {
            return Err(self.wrong("it is a partial bundle: objects are left out"));
        }
        // All ids that follow are of the format.
        let is_ahead = self.needs.is_empty() && self.references.is_empty();
        let format = capability.strip_prefix(b"object-format=").filter(|_| is_ahead);
        match format.and_then(|word| str::from_utf8(word).ok()?.parse().ok()) {
            Some(format) => self.format = format,
            None => {
                let shown: String = String::from_utf8_lossy(capability).chars().take(100).collect();
                return Err(self.wrong(&format!("it asks for what is not known here: {}", shown.escape_debug())));
            }
        }
        Ok(())
    }

    /// An id and what follows it.
    fn id(&self, line: &[u8]) -> Result<(Oid, Vec<u8>)> {
        let mut parts = line.splitn(2, |byte| *byte == b' ');
        let hex = parts.next().unwrap_or_default();
        let oid = self.format.oid_from_hex(hex).map_err(|_| self.wrong("a line of its header has no id"))?;
        Ok((oid, parts.next().unwrap_or_default().to_vec()))
    }

    pub(super) fn references(&mut self, scope: Scope, limit: usize) -> Result<References> {
        let mut references = References::new(self.format);
        for (name, oid) in &self.references {
            if name == b"HEAD" {
                // Which branch it names, a bundle does not say.
                references.head = Head::Detached(*oid);
            }
            references.take(name, *oid, scope, limit)?;
        }
        if references.all.is_empty() && !self.references.is_empty() {
            return Err(self.wrong("it has neither branches nor tags (--mirror takes all references under refs/)"));
        }
        Ok(references)
    }

    /// The pack, if the repository has what the bundle stands on.
    pub(super) fn pack(&mut self, snapshot: &Snapshot) -> Result<impl Read + '_> {
        let mut lacks = Vec::new();
        for need in &self.needs {
            if snapshot.kind_to_build_on(need)?.is_none() {
                lacks.push(need.to_string());
            }
        }
        if !lacks.is_empty() {
            let (count, few) = (lacks.len(), lacks.get(..3).unwrap_or(&lacks).join(", "));
            let repo = snapshot.repo().name();
            return Err(self.wrong(&format!("it stands on commits that {repo} does not have, {count} of them: {few}")));
        }
        Ok(&mut self.input)
    }
}
