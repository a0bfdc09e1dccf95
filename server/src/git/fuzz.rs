//! Entries for fuzzing: each takes any bytes as what a client sends, and must return, in bounded memory.

use govc_engine::{ObjectFormat, PathRule as _};

use super::bundle_uri;
use super::command::{self, Command};
use super::fetch_request::FetchRequest;
use super::filter::FilterSpec;
use super::ls_refs::LsRefs;
use super::object_info::ObjectInfo;
use super::pkt::{self, Line, Reader};
use super::push_cert;
use super::push_request::PushRequest;
use super::sparse::{Allowance, Patterns};

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
        let mut reader = Reader::new(data);
        if let Ok(Some(head)) = command::read_head(format, &mut reader)
            && head.arguments
        {
            match head.command {
                Command::LsRefs => drop(LsRefs::read(&mut reader)),
                Command::Fetch => drop(FetchRequest::read_v2(format, &mut reader)),
                Command::ObjectInfo => drop(ObjectInfo::read(format, &mut reader)),
                Command::BundleUri => drop(bundle_uri::read_arguments(&mut reader)),
            }
        }
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
        let mut request = PushRequest::new(format);
        if request.read(&mut Reader::new(data), 1000).is_ok() {
            for command in &request.commands {
                assert!(!command.name.contains(&b'\n') && !command.name.contains(&0), "a name is one word of a report");
            }
            request.certificate.as_ref().into_iter().for_each(push_cert::fuzz_certificate);
        }
    }
}

/// Feeds arbitrary bytes to the receiving of packs, with a right checksum and without; a fuzz target.
pub fn fuzz_pack(data: &[u8]) {
    use govc_engine::{Limits, RepoName, RepoSettings, Store, StoreOptions, object::PackHasher};
    use std::sync::{Arc, OnceLock};

    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| {
        let backend = Arc::new(govc_backends::MemoryBackend::new());
        Store::open(backend, StoreOptions::default()).expect("an empty store opens")
    });
    let limits = Limits {
        object_bytes_max: 1 << 20,
        pack_objects_max: 1 << 16,
        pack_expanded_bytes_max: 1 << 24,
        ..Limits::default()
    };
    for object_format in ObjectFormat::ALL {
        let name = RepoName::new(object_format.as_str()).expect("a valid name");
        let settings = RepoSettings { object_format, ..RepoSettings::default() };
        let repo = store.repo(&name).or_else(|_| store.create(&name, settings, "fuzz")).expect("an empty repository");
        let mut hasher = PackHasher::new(object_format);
        hasher.update(data);
        let mut sealed = data.to_vec();
        if let Ok(checksum) = hasher.finish() {
            sealed.extend_from_slice(checksum.as_bytes());
        }
        for bytes in [data, &sealed] {
            let before = store.stats().last_seq;
            let received = super::pack::receive::receive_pack(None, limits, &repo, &mut &bytes[..], None, &mut |_| {});
            drop(received);
            assert_eq!(store.stats().last_seq, before, "receiving publishes nothing");
        }
    }
}
