//! Entries for fuzzing: each takes any bytes as what a client sends, and must return, in bounded memory.
//!
//! `exchange` has those that answer whole requests, on repositories that it makes. Every file of `fuzz/seeds` goes through its
//! entry in the tests.

mod exchange;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use govc_engine::{
    Limits, ObjectFormat, PackHasher, PathRule as _, RepoName, RepoSettings, Result, Store, StoreOptions,
};

use super::bundle_uri;
use super::command::{self, Command};
use super::fetch_request::FetchRequest;
use super::filter::FilterSpec;
use super::ls_refs::LsRefs;
use super::object_info::ObjectInfo;
use super::pack::{receive::Intake, workers::IngestThreads};
use super::pkt::{self, Line, Reader};
use super::push_cert;
use super::push_request::PushRequest;
use super::sparse::{Allowance, Patterns};

pub use super::cache::fuzz_kept_index;
pub use exchange::{fuzz_fetch, fuzz_push};

/// References that a push may change here: few enough that an input can have more.
const REFERENCES_MAX: usize = 50;

/// Reads `data` as pkt-lines, and checks that what was read is written back the same.
pub fn fuzz_pkt_line(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut written = Vec::new();
    let complete = loop {
        let result = match reader.read() {
            Ok(Line::Data(content)) => pkt::data(&mut written, content),
            Ok(Line::Flush) => pkt::flush(&mut written),
            Ok(Line::Delimiter) => pkt::delimiter(&mut written),
            Ok(Line::ResponseEnd) => {
                written.extend_from_slice(b"0002");
                Ok(())
            }
            Ok(Line::Eof) => break true,
            Err(_) => break false,
        };
        assert!(result.is_ok(), "what was read can be written");
    };
    assert!(!complete || written.eq_ignore_ascii_case(data), "what was read is what was sent");
}

/// Reads `data` as a request of `git-upload-pack`, in both forms and both object formats.
pub fn fuzz_upload_request(data: &[u8]) {
    for format in ObjectFormat::ALL {
        // What is refused is refused with an error; only a panic is a finding.
        let _ = FetchRequest::read_v0(format, &mut Reader::new(data));
        let _ = read_v2(format, data);
    }
}

fn read_v2(format: ObjectFormat, data: &[u8]) -> Result<()> {
    let mut reader = Reader::new(data);
    match command::read_head(format, &mut reader)? {
        Some(head) if head.arguments => match head.command {
            Command::LsRefs => LsRefs::read(&mut reader).map(drop),
            Command::Fetch => FetchRequest::read_v2(format, &mut reader).map(drop),
            Command::ObjectInfo => ObjectInfo::read(format, &mut reader).map(drop),
            Command::BundleUri => bundle_uri::read_arguments(&mut reader),
        },
        _ => Ok(()),
    }
}

/// Reads `data` as a filter's specification, and as a list of sparse patterns with a path, one after the other at the last
/// NUL.
pub fn fuzz_filter(data: &[u8]) {
    drop(FilterSpec::parse(data));
    let at = data.iter().rposition(|b| *b == 0).unwrap_or(data.len());
    let (text, path) = data.split_at(at);
    // Paths come from trees, whose names are neither empty nor hold a slash.
    let path: Vec<&[u8]> = path.split(|b| matches!(b, 0 | b'/')).filter(|name| !name.is_empty()).collect();
    let path = path.join(&b'/');
    if let Ok(patterns) = Patterns::parse(text, &mut Allowance::default()) {
        for is_tree in [false, true] {
            let _ = patterns.takes(&path, is_tree);
        }
    }
}

/// Reads `data` as the commands of a push, in both object formats.
pub fn fuzz_receive_commands(data: &[u8]) {
    for format in ObjectFormat::ALL {
        let _ = read_commands(format, data);
    }
}

fn read_commands(format: ObjectFormat, data: &[u8]) -> Result<()> {
    let mut request = PushRequest::new(format);
    request.read(&mut Reader::new(data), REFERENCES_MAX)?;
    for command in &request.commands {
        assert!(!command.name.contains(&b'\n') && !command.name.contains(&0), "a name is one word of a report");
    }
    request.certificate.as_ref().into_iter().for_each(push_cert::fuzz_certificate);
    Ok(())
}

/// Feeds arbitrary bytes to the receiving of packs of both object formats, with a right checksum and without; a fuzz target.
pub fn fuzz_pack(data: &[u8]) {
    for format in ObjectFormat::ALL {
        for bytes in [data, &sealed(format, data)] {
            let _ = receive_pack(format, bytes);
        }
    }
}

/// A pack with the checksum that it lacks.
fn sealed(format: ObjectFormat, pack: &[u8]) -> Vec<u8> {
    let mut hasher = PackHasher::new(format);
    hasher.update(pack);
    let checksum = hasher.finish();
    [pack, checksum.as_ref().map_or(&[][..], |checksum| checksum.as_bytes())].concat()
}

/// Receives a pack into an empty repository, which keeps nothing of it; how many objects it has.
fn receive_pack(object_format: ObjectFormat, data: &[u8]) -> Result<u64> {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| {
        let backend = Arc::new(govc_backends::MemoryBackend::new());
        Store::open(backend, StoreOptions::default()).expect("an empty store opens")
    });
    let name = RepoName::new(object_format.as_str()).expect("a valid name");
    let settings = RepoSettings { object_format, ..RepoSettings::default() };
    let repo = store.repo(&name).or_else(|_| store.create(&name, settings, "fuzz")).expect("an empty repository");
    let before = store.stats().last_seq;
    let receive = |processors| {
        let intake = Intake { folder: None, limits: LIMITS, threads: &IngestThreads::new(processors) };
        intake.receive(&repo, &mut &data[..], None, &mut |_| {}).map(|received| received.objects())
    };
    let objects = receive(1);
    // Which of several errors it is may depend on who was first.
    assert_eq!(receive(3).ok(), objects.as_ref().ok().copied(), "threads make no difference");
    assert_eq!(store.stats().last_seq, before, "receiving publishes nothing");
    objects
}

/// What an input can reach, and a machine with little memory can hold.
const LIMITS: Limits = Limits {
    object_bytes_max: 1 << 18,
    pack_objects_max: 1 << 16,
    pack_expanded_bytes_max: 1 << 22,
    references_max: REFERENCES_MAX,
    changes_max: 100_000,
    realities_max: 100_000,
};
