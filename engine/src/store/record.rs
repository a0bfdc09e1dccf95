//! The encodings of journal records, catalog rows, versions and feed rows; `engine/FORMAT.md` is their document.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    feed::Publication,
    fork::ForkOf,
    ids::{Cause, Durability, RepoId, RepoName, Seq},
    push_certificate::PushCertificate,
    rules::GitRules,
    state::{RepoRecord, RepoState},
    transaction::Fresh,
    version::{Changes, HeadChange, Previous, Version},
};
use crate::{
    Error, Result,
    backend::key::{Reader, check_version, put_bytes, put_varint, seal, unseal},
    object::{Kind, ObjectFormat, Oid},
    refs::{Origin, RefChange, RefMap, RefName},
};

const JOURNAL_VERSION: u8 = 2;
const CATALOG_VERSION: u8 = 2;
/// Of version and feed rows: 1 with ids of SHA-1, 2 with those of SHA-256.
const HISTORY_VERSION: u8 = 2;

/// One entry of a journal record.
pub(crate) enum Entry {
    /// A transaction.
    Transaction(TransactionEntry),
    /// A repository was created, or its record changed.
    Repo(RepoId, CatalogRow),
    /// A repository was deleted.
    Deleted(RepoId),
}

/// A transaction in the journal.
pub(crate) struct TransactionEntry {
    pub(crate) repo: RepoId,
    pub(crate) format: ObjectFormat,
    pub(crate) seq: Seq,
    pub(crate) number: u64,
    pub(crate) time_millis: i64,
    pub(crate) actor: Arc<str>,
    pub(crate) cause: Cause,
    pub(crate) changes: Changes,
    pub(crate) certificate: Option<Arc<PushCertificate>>,
    pub(crate) objects: Vec<Fresh>,
}

/// What the catalog holds of a repository: its record, and its settled version without the references.
#[derive(Debug, Clone)]
pub(crate) struct CatalogRow {
    pub(crate) record: RepoRecord,
    pub(crate) number: u64,
    pub(crate) time_millis: i64,
    pub(crate) actor: Arc<str>,
    pub(crate) cause: Cause,
    pub(crate) head: RefName,
    pub(crate) fork: Option<ForkRow>,
    /// Whether the repository has been deleted, and its objects and references stay for its forks.
    pub(crate) is_retired: bool,
}

/// What the catalog holds of a fork's source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForkRow {
    pub(crate) source: RepoId,
    /// The source's version.
    pub(crate) version: u64,
    /// Whether the fork's reference rows are only what differs from that version's.
    pub(crate) shares_references: bool,
}

const IS_FORK: u8 = 1;
const SHARES_REFERENCES: u8 = 2;
const IS_RETIRED: u8 = 4;
const HAS_RULES: u8 = 8;
const IS_SHA256: u8 = 16;

impl CatalogRow {
    pub(crate) fn new(repo: &RepoState, record: &RepoRecord, version: &Version) -> Self {
        Self {
            record: record.clone(),
            number: version.number,
            time_millis: version.time_millis,
            actor: version.actor.clone(),
            cause: version.cause,
            head: version.head.clone(),
            fork: repo.fork_of.as_deref().map(ForkOf::row),
            is_retired: false,
        }
    }

    /// The version without references.
    pub(crate) fn version(&self) -> Version {
        Version {
            number: self.number,
            time_millis: self.time_millis,
            actor: self.actor.clone(),
            cause: self.cause,
            certificate: None,
            head: self.head.clone(),
            refs: RefMap::default(),
            lineage: 0,
            acknowledged: 0,
            previous: Previous::default(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![CATALOG_VERSION];
        self.write(&mut out);
        seal(&mut out);
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(unseal(value, "a catalog row")?);
        let version = check_version(&mut reader, CATALOG_VERSION, "a catalog row")?;
        Self::read(&mut reader, version)
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.record.name.as_str().as_bytes());
        put_bytes(out, self.record.description.as_bytes());
        out.push(self.record.durability as u8);
        put_varint(out, self.record.created_millis as u64);
        put_varint(out, self.number);
        write_stamp(out, self.time_millis, &self.actor, self.cause);
        put_bytes(out, self.head.as_bytes());
        let shares = self.fork.is_some_and(|fork| fork.shares_references);
        let has_rules = *self.record.git != GitRules::default();
        let flags = [
            (self.fork.is_some(), IS_FORK),
            (shares, SHARES_REFERENCES),
            (self.is_retired, IS_RETIRED),
            (has_rules, HAS_RULES),
            (self.record.format == ObjectFormat::Sha256, IS_SHA256),
        ];
        out.push(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        if let Some(fork) = self.fork {
            put_varint(out, fork.source.0);
            put_varint(out, fork.version);
        }
        if has_rules {
            self.record.git.write(out);
        }
    }

    /// Reads what a row, or a journal record, of this version holds.
    fn read(reader: &mut Reader<'_>, version: u8) -> Result<Self> {
        let name = RepoName::new(reader.string()?).map_err(|error| Error::corrupt(error.message()))?;
        let description = reader.string()?.to_owned();
        let durability = match reader.byte()? {
            1 => Durability::Relaxed,
            2 => Durability::Durable,
            _ => return Err(Error::corrupt("a catalog row has an unknown durability")),
        };
        let created_millis = reader.varint()? as i64;
        if version == 1 {
            // The number of the pool, which was always the repository's.
            reader.varint()?;
        }
        let number = reader.varint()?;
        let (time_millis, actor, cause) = read_stamp(reader)?;
        let head = RefName::from_stored(reader.bytes()?);
        let flags = if version == 1 { 0 } else { reader.byte()? };
        if flags > IS_FORK + SHARES_REFERENCES + IS_RETIRED + HAS_RULES + IS_SHA256 {
            return Err(Error::corrupt("a catalog row has unknown parts"));
        }
        let fork = match flags & IS_FORK {
            0 => None,
            _ => Some(ForkRow {
                source: RepoId(reader.varint()?),
                version: reader.varint()?,
                shares_references: flags & SHARES_REFERENCES != 0,
            }),
        };
        let git = if flags & HAS_RULES == 0 { GitRules::default() } else { GitRules::read(reader)? };
        let format = if flags & IS_SHA256 == 0 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 };
        let record = RepoRecord { name, description, durability, created_millis, git: Arc::new(git), format };
        Ok(Self { record, number, time_millis, actor, cause, head, fork, is_retired: flags & IS_RETIRED != 0 })
    }
}

const HAS_ORIGIN: u8 = 1;
const HAS_CERTIFICATE: u8 = 2;

fn write_stamp(out: &mut Vec<u8>, time_millis: i64, actor: &str, cause: Cause) {
    put_varint(out, time_millis as u64);
    put_bytes(out, actor.as_bytes());
    out.push(cause as u8);
}

fn read_stamp(reader: &mut Reader<'_>) -> Result<(i64, Arc<str>, Cause)> {
    let time_millis = reader.varint()? as i64;
    Ok((time_millis, reader.string()?.into(), Cause::from_number(reader.byte()?)?))
}

/// Each change: name; 1 if there is an id before, 2 if there is one after; the ids. Then `HEAD` before and after, and what
/// else belongs to the version.
fn write_changes(out: &mut Vec<u8>, changes: &Changes, certificate: Option<&PushCertificate>) {
    put_varint(out, changes.refs.len() as u64);
    for change in changes.refs.iter() {
        put_bytes(out, change.name.as_bytes());
        out.push(u8::from(change.before.is_some()) | u8::from(change.after.is_some()) << 1);
        for oid in change.before.iter().chain(&change.after) {
            out.extend_from_slice(oid.as_bytes());
        }
    }
    let head = changes.head.as_ref();
    put_bytes(out, head.map_or(&[][..], |head| head.before.as_bytes()));
    if let Some(head) = head {
        put_bytes(out, head.after.as_bytes());
    }
    let parts = [(changes.origin.is_some(), HAS_ORIGIN), (certificate.is_some(), HAS_CERTIFICATE)];
    out.push(parts.into_iter().filter(|(is_there, _)| *is_there).map(|(_, part)| part).sum());
    if let Some(origin) = &changes.origin {
        write_origin(out, origin);
    }
    if let Some(certificate) = certificate {
        certificate.write(out);
    }
}

fn write_origin(out: &mut Vec<u8>, origin: &Origin) {
    put_varint(out, origin.version);
    out.extend_from_slice(origin.base.as_bytes());
    put_bytes(out, origin.from.as_ref().map_or(&[][..], RefName::as_bytes));
    put_varint(out, origin.created_millis as u64);
    // A time to live ends after it begins.
    let lives = origin.expires_millis.map_or(0, |expires| expires.saturating_sub(origin.created_millis).max(1));
    put_varint(out, lives as u64);
}

fn read_origin(reader: &mut Reader<'_>, format: ObjectFormat) -> Result<Origin> {
    let version = reader.varint()?;
    let base = reader.oid(format)?;
    let from = reader.bytes()?;
    let from = (!from.is_empty()).then(|| RefName::from_stored(from));
    let created_millis = reader.varint()? as i64;
    let lives = reader.varint()? as i64;
    let expires_millis = (lives > 0).then(|| created_millis.saturating_add(lives));
    Ok(Origin { version, base, from, created_millis, expires_millis })
}

/// A reference's row: its id; a reality's has its origin behind it. Of a fork that shares references, an empty row
/// stands for one that it has no more.
pub(crate) struct RefRow;

impl RefRow {
    pub(crate) fn encode(oid: &Oid, origin: Option<&Origin>) -> Vec<u8> {
        let mut out = oid.as_bytes().to_vec();
        if let Some(origin) = origin {
            write_origin(&mut out, origin);
        }
        out
    }

    /// The row of a reference that the fork's source had and the fork has not.
    pub(crate) const REMOVED: &'static [u8] = &[];

    /// The reference, or `None` if it is [`RefRow::REMOVED`].
    pub(crate) fn decode(format: ObjectFormat, value: &[u8]) -> Result<Option<(Oid, Option<Origin>)>> {
        if value == Self::REMOVED {
            return Ok(None);
        }
        let mut reader = Reader::new(value);
        let oid = reader.oid(format)?;
        let origin = if reader.is_empty() { None } else { Some(read_origin(&mut reader, format)?) };
        Ok(Some((oid, origin)))
    }
}

fn read_changes(reader: &mut Reader<'_>, format: ObjectFormat) -> Result<(Changes, Option<Arc<PushCertificate>>)> {
    let count = reader.usize()?;
    let mut refs = Vec::with_capacity(count.min(reader.len()));
    for _ in 0..count {
        let name = RefName::from_stored(reader.bytes()?);
        let tag = reader.byte()?;
        if tag > 3 {
            return Err(Error::corrupt("a stored change has unknown parts"));
        }
        let before = (tag & 1 != 0).then(|| reader.oid(format)).transpose()?;
        let after = (tag & 2 != 0).then(|| reader.oid(format)).transpose()?;
        refs.push(RefChange { name, before, after });
    }
    let before = reader.bytes()?;
    let head = match before {
        [] => None,
        before => {
            let after = RefName::from_stored(reader.bytes()?);
            Some(HeadChange { before: RefName::from_stored(before), after })
        }
    };
    let parts = reader.byte()?;
    if parts > HAS_ORIGIN + HAS_CERTIFICATE {
        return Err(Error::corrupt("stored changes have unknown parts"));
    }
    let origin = (parts & HAS_ORIGIN != 0).then(|| read_origin(reader, format).map(Arc::new)).transpose()?;
    let certificate =
        (parts & HAS_CERTIFICATE != 0).then(|| PushCertificate::read(reader, format).map(Arc::new)).transpose()?;
    Ok((Changes { refs: refs.into(), head, origin }, certificate))
}

/// Builds the journal record of one group commit.
pub(crate) struct RecordWriter {
    out: Vec<u8>,
}

const TRANSACTION: u8 = 1;
const REPO: u8 = 2;
const DELETED: u8 = 3;
const TRANSACTION_SHA256: u8 = 4;

impl RecordWriter {
    /// A record of about `bytes` in the memory of `spare`.
    pub(crate) fn new(spare: Vec<u8>, bytes: usize) -> Self {
        let mut out = spare;
        out.reserve(bytes);
        out.push(JOURNAL_VERSION);
        Self { out }
    }

    pub(crate) fn transaction<'a>(
        &mut self,
        (repo, format): (RepoId, ObjectFormat),
        seq: Seq,
        version: &Version,
        changes: &Changes,
        objects: impl ExactSizeIterator<Item = &'a Fresh>,
    ) {
        let out = &mut self.out;
        out.push(match format {
            ObjectFormat::Sha1 => TRANSACTION,
            ObjectFormat::Sha256 => TRANSACTION_SHA256,
        });
        put_varint(out, repo.0);
        put_varint(out, seq.0);
        put_varint(out, version.number);
        write_stamp(out, version.time_millis, &version.actor, version.cause);
        write_changes(out, changes, version.certificate.as_deref());
        put_varint(out, objects.len() as u64);
        for object in objects {
            out.push(object.kind as u8);
            out.extend_from_slice(object.oid.as_bytes());
            put_bytes(out, &object.data);
        }
    }

    pub(crate) fn repo(&mut self, repo: RepoId, row: &CatalogRow) {
        self.out.push(REPO);
        put_varint(&mut self.out, repo.0);
        row.write(&mut self.out);
    }

    pub(crate) fn deleted(&mut self, repo: RepoId) {
        self.out.push(DELETED);
        put_varint(&mut self.out, repo.0);
    }

    pub(crate) fn finish(mut self) -> Bytes {
        seal(&mut self.out);
        self.out.into()
    }
}

/// Reads a journal record.
///
/// # Errors
/// [`crate::ErrorKind::Corrupt`] for anything but what [`RecordWriter`] makes, or a newer version.
pub(crate) fn read_record(value: &Bytes) -> Result<Vec<Entry>> {
    let body = unseal(value, "a journal record")?;
    let mut reader = Reader::new(body);
    let version = check_version(&mut reader, JOURNAL_VERSION, "a journal record")?;
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(match reader.byte()? {
            TRANSACTION => Entry::Transaction(read_transaction(&mut reader, ObjectFormat::Sha1)?),
            TRANSACTION_SHA256 => Entry::Transaction(read_transaction(&mut reader, ObjectFormat::Sha256)?),
            REPO => Entry::Repo(RepoId(reader.varint()?), CatalogRow::read(&mut reader, version)?),
            DELETED => Entry::Deleted(RepoId(reader.varint()?)),
            _ => return Err(Error::corrupt("a journal record has an unknown entry")),
        });
    }
    Ok(entries)
}

fn read_transaction(reader: &mut Reader<'_>, format: ObjectFormat) -> Result<TransactionEntry> {
    let repo = RepoId(reader.varint()?);
    let seq = Seq(reader.varint()?);
    let number = reader.varint()?;
    let (time_millis, actor, cause) = read_stamp(reader)?;
    let (changes, certificate) = read_changes(reader, format)?;
    let count = reader.usize()?;
    let mut objects = Vec::with_capacity(count.min(reader.len()));
    for _ in 0..count {
        let kind = Kind::from_number(reader.byte()?).ok_or_else(|| Error::corrupt("a journal object has no kind"))?;
        let oid = reader.oid(format)?;
        objects.push(Fresh { oid, kind, data: Bytes::copy_from_slice(reader.bytes()?) });
    }
    Ok(TransactionEntry { repo, format, seq, number, time_millis, actor, cause, changes, certificate, objects })
}

fn history_version(format: ObjectFormat) -> u8 {
    match format {
        ObjectFormat::Sha1 => 1,
        ObjectFormat::Sha256 => 2,
    }
}

/// The ids in a version or feed row of this version.
fn format_of_history(version: u8) -> ObjectFormat {
    if version == 1 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 }
}

/// A version's row, in the family `history` or in the memory of a memory repository.
pub(crate) struct VersionRow;

impl VersionRow {
    pub(crate) fn encode(publication: &Publication, format: ObjectFormat) -> Vec<u8> {
        let mut out = vec![history_version(format)];
        write_publication(&mut out, publication);
        seal(&mut out);
        out
    }

    /// The publication that made version `number` of `repo`; its position is not known here.
    pub(crate) fn decode(repo: RepoId, number: u64, value: &[u8]) -> Result<Publication> {
        let mut reader = Reader::new(unseal(value, "a version row")?);
        let version = check_version(&mut reader, HISTORY_VERSION, "a version row")?;
        read_publication(&mut reader, Seq(0), repo, number, format_of_history(version))
    }
}

/// A position of the feed in the family `history`.
pub(crate) struct FeedRow;

impl FeedRow {
    pub(crate) fn encode(publication: &Publication, format: ObjectFormat) -> Vec<u8> {
        let mut out = vec![history_version(format)];
        put_varint(&mut out, publication.repo.0);
        put_varint(&mut out, publication.version);
        write_publication(&mut out, publication);
        seal(&mut out);
        out
    }

    pub(crate) fn decode(seq: Seq, value: &[u8]) -> Result<Publication> {
        let mut reader = Reader::new(unseal(value, "a feed row")?);
        let format = format_of_history(check_version(&mut reader, HISTORY_VERSION, "a feed row")?);
        let repo = RepoId(reader.varint()?);
        let version = reader.varint()?;
        read_publication(&mut reader, seq, repo, version, format)
    }
}

fn write_publication(out: &mut Vec<u8>, publication: &Publication) {
    write_stamp(out, publication.time_millis, &publication.actor, publication.cause);
    write_changes(out, &publication.changes, publication.certificate.as_deref());
}

fn read_publication(
    reader: &mut Reader<'_>,
    seq: Seq,
    repo: RepoId,
    version: u64,
    format: ObjectFormat,
) -> Result<Publication> {
    let (time_millis, actor, cause) = read_stamp(reader)?;
    let (changes, certificate) = read_changes(reader, format)?;
    Ok(Publication { seq, repo, version, time_millis, actor, cause, certificate, changes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 had a pool's number and nothing of forks.
    #[test]
    fn rows_of_the_first_version_are_read() {
        let mut row = vec![1];
        put_bytes(&mut row, b"a/b");
        put_bytes(&mut row, b"text");
        row.push(2);
        for number in [77, 5, 9] {
            put_varint(&mut row, number);
        }
        write_stamp(&mut row, 99, "ada", Cause::Push);
        put_bytes(&mut row, b"refs/heads/main");
        seal(&mut row);
        let found = CatalogRow::decode(&row).expect("a row of version 1");
        assert_eq!((found.record.name.as_str(), found.record.created_millis, found.number), ("a/b", 77, 9));
        assert_eq!((found.time_millis, found.head.as_bytes()), (99, &b"refs/heads/main"[..]));
        assert!(found.fork.is_none() && !found.is_retired);

        let mut journal = vec![1, REPO, 5];
        journal.extend_from_slice(&row[1..row.len() - 4]);
        journal.extend_from_slice(&[DELETED, 5]);
        seal(&mut journal);
        let entries = read_record(&journal.into()).expect("a record of version 1");
        assert!(matches!(&entries[..], [Entry::Repo(RepoId(5), _), Entry::Deleted(RepoId(5))]));
    }

    fn row(format: ObjectFormat) -> CatalogRow {
        let record = RepoRecord {
            name: RepoName::new("a/b").expect("a name"),
            description: "text".to_owned(),
            durability: Durability::Durable,
            created_millis: 77,
            git: Arc::default(),
            format,
        };
        let (actor, head) = ("ada".into(), RefName::from_stored(b"refs/heads/main"));
        let (cause, fork) = (Cause::Push, None);
        CatalogRow { record, number: 9, time_millis: 99, actor, cause, head, fork, is_retired: false }
    }

    fn publication(format: ObjectFormat) -> Publication {
        let oid = |byte: u8| Oid::from_bytes(&vec![byte; format.len()]).expect("an id");
        let origin = Origin { version: 3, base: oid(1), from: None, created_millis: 5, expires_millis: Some(9) };
        let change =
            |name: &str, before, after| RefChange { name: RefName::from_stored(name.as_bytes()), before, after };
        let refs = [
            change("refs/heads/a", None, Some(oid(2))),
            change("refs/heads/b", Some(oid(3)), Some(oid(4))),
            change("refs/realities/c", Some(oid(5)), None),
        ];
        let certificate = PushCertificate {
            oid: oid(6),
            nonce: super::super::NonceStatus::Slop(7),
            signature: super::super::SignatureStatus::Unchecked,
            key: "key".into(),
            signer: "".into(),
        };
        Publication {
            seq: Seq(11),
            repo: RepoId(5),
            version: 12,
            time_millis: 99,
            actor: "ada".into(),
            cause: Cause::Push,
            certificate: Some(Arc::new(certificate)),
            changes: Changes { refs: refs.into(), head: None, origin: Some(Arc::new(origin)) },
        }
    }

    /// The format is a flag, which rows of SHA-1 repositories have not.
    #[test]
    fn catalog_rows_tell_the_object_format() {
        let [sha1, sha256] = ObjectFormat::ALL.map(|format| row(format).encode());
        for (format, encoded) in ObjectFormat::ALL.into_iter().zip([&sha1, &sha256]) {
            assert_eq!(CatalogRow::decode(encoded).expect("what was written").record.format, format);
        }
        let body = sha1.len() - 4;
        assert_eq!(sha1[..body - 1], sha256[..body - 1]);
        assert_eq!((sha1[body - 1], sha256[body - 1]), (0, IS_SHA256));
        let mut unknown = sha1[..body].to_vec();
        *unknown.last_mut().expect("flags") = 32;
        seal(&mut unknown);
        assert!(CatalogRow::decode(&unknown).is_err());
    }

    #[test]
    fn versions_journal_and_references_come_back_in_either_format() {
        for (format, version) in ObjectFormat::ALL.into_iter().zip([1, 2]) {
            let made = publication(format);
            let encoded = VersionRow::encode(&made, format);
            assert_eq!(encoded[0], version);
            let found = VersionRow::decode(made.repo, made.version, &encoded).expect("what was written");
            assert_eq!((&found.changes.refs, &found.changes.origin), (&made.changes.refs, &made.changes.origin));
            assert_eq!(found.certificate, made.certificate);
            let encoded = FeedRow::encode(&made, format);
            assert_eq!(encoded[0], version);
            let found = FeedRow::decode(made.seq, &encoded).expect("what was written");
            assert_eq!((&found.changes.refs, found.version), (&made.changes.refs, made.version));

            let oid = format.empty_tree();
            let origin = made.changes.origin.as_deref();
            for origin in [None, origin] {
                let encoded = RefRow::encode(&oid, origin);
                let found = RefRow::decode(format, &encoded).expect("what was written").expect("a reference");
                assert_eq!(found, (oid, origin.cloned()));
                assert_eq!(encoded[..format.len()], *oid.as_bytes());
            }

            let fresh = Fresh { oid, kind: Kind::Tree, data: Bytes::from_static(b"data") };
            let after = Version { number: 12, certificate: made.certificate.clone(), ..row(format).version() };
            let mut writer = RecordWriter::new(Vec::new(), 0);
            writer.repo(made.repo, &row(format));
            writer.transaction((made.repo, format), made.seq, &after, &made.changes, [&fresh].into_iter());
            let entries = read_record(&writer.finish()).expect("what was written");
            let [Entry::Repo(_, created), Entry::Transaction(found)] = &entries[..] else { panic!("two entries") };
            assert_eq!((created.record.format, found.format, found.repo), (format, format, made.repo));
            assert_eq!((&found.changes.refs, found.objects[0].oid), (&made.changes.refs, oid));
            assert_eq!(found.certificate, made.certificate);
        }
    }
}
