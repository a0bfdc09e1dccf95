//! What the workloads write and read: the same for every backend, made once for a run.

mod generate;
mod read;
mod recorder;

use std::ops::Range;

use bytes::Bytes;
use govc_engine::{Kind, ObjectFormat, Oid, hash_object};

pub(crate) use recorder::Recorded;

use crate::error::{Error, Result};
use crate::measure::Digest;
use crate::plan::{Plan, Shape};
use crate::random::Random;

/// Commits whose bytes are written again and again as values; more would only take memory.
const RECORDS: usize = 2000;
/// Lines that contents are put together from, so that making them costs little beside writing them.
const LINES: usize = 4096;
/// Lines of an object of a group, some 600 bytes, and of a file of a commit, some 1.5 KB.
const OBJECT_LINES: usize = 12;
const FILE_LINES: usize = 30;

/// A Git object.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) oid: Oid,
    pub(crate) kind: Kind,
    pub(crate) data: Bytes,
}

/// An object as it comes in with a history: whole, or as a delta.
#[derive(Clone)]
pub(crate) struct Incoming {
    pub(crate) oid: Oid,
    pub(crate) kind: Kind,
    /// Bytes of the object itself.
    pub(crate) size: u64,
    /// The position of the object that `body` is a delta against; an earlier one.
    pub(crate) base: Option<usize>,
    pub(crate) body: Bytes,
}

impl Incoming {
    fn whole(oid: Oid, kind: Kind, data: Bytes) -> Self {
        Self { oid, kind, size: data.len() as u64, base: None, body: data }
    }

    /// Checks what was read as this object.
    pub(crate) fn check(&self, kind: Kind, data: &[u8]) -> Result<()> {
        let is_it = kind == self.kind
            && match self.base {
                None => data == self.body,
                Some(_) => data.len() as u64 == self.size && hash_object(self.oid.format(), kind, data)? == self.oid,
            };
        if is_it { Ok(()) } else { Err(Error::wrong(format!("object {} is not what was imported", self.oid))) }
    }
}

/// The objects of a history in the order in which they come in.
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) objects: Vec<Incoming>,
    /// A commit that a branch can name.
    pub(crate) head: Oid,
    /// Bytes of all bodies.
    pub(crate) bytes: u64,
    /// The objects that each commit brought; of generated histories only.
    commits: Vec<Range<usize>>,
}

/// What the workloads of a run write and read.
pub(crate) struct Inputs {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    /// The bytes of small commits, as a journal holds them: all objects of one, one after the other.
    records: Vec<Bytes>,
    lines: Vec<String>,
    pub(crate) history: History,
    /// What the engine writes when the history is imported.
    pub(crate) import: Recorded,
    /// Of all of the above.
    pub(crate) digest: Digest,
}

impl Inputs {
    pub(crate) fn make(plan: &Plan) -> Result<Self> {
        let shape = plan.profile.shape();
        let commits = plan.amounts.history_commits.unwrap_or(shape.commits);
        let made = |commits| generate::history(plan.seed, shape, commits, &plan.stop);
        let (history, records) = match &plan.history {
            None => {
                let history = made(commits)?;
                let records = records(&history);
                (history, records)
            }
            Some(path) => (read::history(path, plan)?, records(&made(commits.min(RECORDS))?)),
        };
        let mut random = Random::of(plan.seed, 2);
        let lines: Vec<String> = (0..LINES).map(|_| random.line()).collect();
        let import = Recorded::of(&history, &plan.stop)?;
        let mut digest = import.digest();
        records.iter().for_each(|record| digest.add(&[record]));
        lines.iter().for_each(|line| digest.add(&[line.as_bytes()]));
        Ok(Self { seed: plan.seed, shape, records, lines, history, import, digest })
    }

    /// The value of a write: a commit's bytes, and the number that makes it like no other.
    pub(crate) fn record(&self, number: u64) -> Bytes {
        let record = &self.records[(number % self.records.len() as u64) as usize];
        let mut value = Vec::with_capacity(8 + record.len());
        value.extend_from_slice(&number.to_be_bytes());
        value.extend_from_slice(record);
        value.into()
    }

    /// An object of a group, like no other of another number.
    pub(crate) fn object(&self, number: u64) -> Result<Object> {
        let data = Bytes::from(self.text(number, OBJECT_LINES));
        Ok(Object { oid: hash_object(ObjectFormat::Sha1, Kind::Blob, &data)?, kind: Kind::Blob, data })
    }

    /// The text of a file, like no other of another number.
    pub(crate) fn file(&self, number: u64) -> String {
        self.text(number, FILE_LINES)
    }

    fn text(&self, number: u64, lines: usize) -> String {
        let mut random = Random::of(self.seed, number);
        let mut text = format!("/* {number:016x} */\n");
        (0..lines).for_each(|_| text.push_str(&self.lines[random.below(LINES)]));
        text
    }
}

fn records(history: &History) -> Vec<Bytes> {
    let bytes_of = |range: &Range<usize>| {
        let objects = &history.objects[range.clone()];
        Bytes::from(objects.iter().flat_map(|object| object.body.iter().copied()).collect::<Vec<u8>>())
    };
    // The first commit brings every file; what repeats in a store is the others.
    let later = history.commits.iter().skip(usize::from(history.commits.len() > 1));
    later.take(RECORDS).map(bytes_of).collect()
}
