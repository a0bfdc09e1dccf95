//! What a client is told first: references and capabilities (versions 0 and 1), or capabilities alone (version 2).
//!
//! Source: git's `Documentation/gitprotocol-http`, `gitprotocol-capabilities`, `upload-pack.c`, `receive-pack.c`.

use std::fmt;
use std::io::Write;

use govc_engine::{ErrorKind, ObjectFormat, Oid, Result, Snapshot, TAG_DEPTH_MAX};

use super::pkt;
use super::pointers::Pointers;
use super::visible::Visible;

/// How the server names itself; visible ASCII without spaces.
pub(crate) const AGENT: &str = concat!("govc/", env!("CARGO_PKG_VERSION"));

const FETCH_CAPABILITIES: &str = "multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since \
     deepen-not deepen-relative no-progress include-tag multi_ack_detailed allow-tip-sha1-in-want \
     allow-reachable-sha1-in-want no-done filter";

const PUSH_CAPABILITIES: &str =
    "report-status report-status-v2 delete-refs side-band-64k quiet atomic ofs-delta push-options";

/// The two programs of git that a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends packs: clone, fetch, ls-remote.
    UploadPack,
    /// Takes packs: push.
    ReceivePack,
}

impl Service {
    /// The service of git's name for it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "git-upload-pack" => Some(Service::UploadPack),
            "git-receive-pack" => Some(Service::ReceivePack),
            _ => None,
        }
    }

    /// Git's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::UploadPack => "git-upload-pack",
            Service::ReceivePack => "git-receive-pack",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The protocol's version, as the `Git-Protocol` header asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Version {
    /// The original protocol.
    #[default]
    V0,
    /// The original protocol with its number in front.
    V1,
    /// Commands and capabilities.
    V2,
}

impl Version {
    /// The highest version that a header's `key=value` list names; what is unknown is passed over, as git does.
    pub(crate) fn from_header(header: &str) -> Self {
        let known = |part: &str| match part {
            "version=1" => Some(Version::V1),
            "version=2" => Some(Version::V2),
            _ => None,
        };
        header.split(':').filter_map(known).max().unwrap_or_default()
    }
}

/// Writes the advertisement for fetching in version 2. It is the same for every repository of a format, but for what it may
/// point at.
///
/// # Errors
/// What `out` fails with.
pub(crate) fn capabilities_v2(format: ObjectFormat, pointers: &Pointers, out: &mut dyn Write) -> std::io::Result<()> {
    pkt::text(out, format_args!("version 2\n"))?;
    pkt::text(out, format_args!("agent={AGENT}\n"))?;
    pkt::text(out, format_args!("ls-refs=unborn\n"))?;
    let packfile_uris = if pointers.has_packs() { " packfile-uris" } else { "" };
    pkt::text(out, format_args!("fetch=shallow wait-for-done filter ref-in-want sideband-all{packfile_uris}\n"))?;
    pkt::text(out, format_args!("server-option\n"))?;
    pkt::text(out, format_args!("object-format={format}\n"))?;
    pkt::text(out, format_args!("object-info=size\n"))?;
    if pointers.has_bundles() {
        pkt::text(out, format_args!("bundle-uri\n"))?;
    }
    pkt::flush(out)
}

/// Writes the advertisement of all references with the service's line in front, as it goes over HTTP. With a `nonce`, clients
/// may sign what they push.
///
/// # Errors
/// What reading the tags or `out` fails with.
pub(crate) fn references(
    snapshot: &Snapshot,
    service: Service,
    version: Version,
    nonce: Option<&str>,
    out: &mut dyn Write,
) -> Result<()> {
    write_service(service, out).map_err(pkt::input_error)?;
    list(snapshot, service, version, nonce, out)
}

/// Writes the advertisement of all references as it goes over a connection that serves nothing else.
///
/// # Errors
/// As [`references`].
pub(crate) fn list(
    snapshot: &Snapshot,
    service: Service,
    version: Version,
    nonce: Option<&str>,
    out: &mut dyn Write,
) -> Result<()> {
    write_version(version, out).map_err(pkt::input_error)?;
    let visible = Visible::of(snapshot);
    let (format, head) = (snapshot.object_format(), visible.head());
    let capabilities = capabilities(format, service, head.map(|_| snapshot.head().as_bytes()), nonce);
    let mut lines = Lines::new(format, out, capabilities);
    match service {
        Service::UploadPack => {
            if let Some(oid) = head {
                // HEAD names a branch, and a branch a commit: there is nothing to peel.
                lines.line(&oid, b"HEAD")?;
            }
            for (name, oid) in visible.references() {
                lines.line(oid, name.as_bytes())?;
                if let Some(peeled) = peeled(snapshot, name.is_branch(), oid)? {
                    lines.line(&peeled, &[name.as_bytes(), b"^{}"].concat())?;
                }
            }
        }
        Service::ReceivePack => {
            for (name, oid) in visible.references() {
                lines.line(oid, name.as_bytes())?;
            }
        }
    }
    lines.finish()
}

/// Writes the advertisement of a repository that a push would create with the `format`: no references.
///
/// # Errors
/// What `out` fails with.
pub(crate) fn unborn(format: ObjectFormat, version: Version, nonce: Option<&str>, out: &mut dyn Write) -> Result<()> {
    write_service(Service::ReceivePack, out).map_err(pkt::input_error)?;
    list_nothing(format, version, nonce, out)
}

/// The same as it goes over a connection that serves nothing else.
///
/// # Errors
/// As [`unborn`].
pub(crate) fn list_nothing(
    format: ObjectFormat,
    version: Version,
    nonce: Option<&str>,
    out: &mut dyn Write,
) -> Result<()> {
    write_version(version, out).map_err(pkt::input_error)?;
    Lines::new(format, out, capabilities(format, Service::ReceivePack, None, nonce)).finish()
}

/// What an annotated tag leads to in the end; `None` for every other object.
///
/// # Errors
/// What reading the object fails with.
pub(crate) fn peeled(snapshot: &Snapshot, is_branch: bool, oid: &Oid) -> Result<Option<Oid>> {
    if is_branch {
        return Ok(None);
    }
    let mut at = *oid;
    for _ in 0..TAG_DEPTH_MAX {
        match snapshot.tag_target(&at) {
            Ok(Some(target)) => at = target,
            Ok(None) => return Ok((at != *oid).then_some(at)),
            Err(error) if *error.kind() == ErrorKind::Corrupt => break,
            Err(error) => return Err(error),
        }
    }
    // What is behind more tags than are followed is not told; the others are.
    Ok(None)
}

fn write_service(service: Service, out: &mut dyn Write) -> std::io::Result<()> {
    pkt::text(out, format_args!("# service={service}\n"))?;
    pkt::flush(out)
}

fn write_version(version: Version, out: &mut dyn Write) -> std::io::Result<()> {
    // Pushing has no version 2; a client that asks for it gets version 0, as from git.
    if version == Version::V1 { pkt::text(out, format_args!("version 1\n")) } else { Ok(()) }
}

fn capabilities(format: ObjectFormat, service: Service, head_target: Option<&[u8]>, nonce: Option<&str>) -> Vec<u8> {
    let list = match service {
        Service::UploadPack => FETCH_CAPABILITIES,
        Service::ReceivePack => PUSH_CAPABILITIES,
    };
    let mut capabilities = list.as_bytes().to_vec();
    if let (Service::UploadPack, Some(target)) = (service, head_target) {
        capabilities.extend_from_slice(b" symref=HEAD:");
        capabilities.extend_from_slice(target);
    }
    if let (Service::ReceivePack, Some(nonce)) = (service, nonce) {
        capabilities.extend_from_slice(format!(" push-cert={nonce}").as_bytes());
    }
    capabilities.extend_from_slice(format!(" object-format={format} agent={AGENT}").as_bytes());
    capabilities
}

/// Lines `ID NAME`, the first of them with the capabilities.
struct Lines<'a> {
    format: ObjectFormat,
    out: &'a mut dyn Write,
    /// Taken by the first line.
    capabilities: Option<Vec<u8>>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(format: ObjectFormat, out: &'a mut dyn Write, capabilities: Vec<u8>) -> Self {
        Self { format, out, capabilities: Some(capabilities), line: Vec::new() }
    }

    fn line(&mut self, oid: &Oid, name: &[u8]) -> Result<()> {
        self.line.clear();
        oid.write_hex(&mut self.line);
        self.line.push(b' ');
        self.line.extend_from_slice(name);
        if let Some(capabilities) = self.capabilities.take() {
            self.line.push(0);
            self.line.extend_from_slice(&capabilities);
        }
        self.line.push(b'\n');
        pkt::data(self.out, &self.line).map_err(pkt::input_error)
    }

    fn finish(mut self) -> Result<()> {
        if self.capabilities.is_some() {
            self.line(&Oid::null(self.format), b"capabilities^{}")?;
        }
        pkt::flush(self.out).map_err(pkt::input_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pkt::{Line, Reader};

    fn read(stream: &[u8]) -> Vec<String> {
        let mut reader = Reader::new(stream);
        let mut lines = Vec::new();
        loop {
            match reader.read().expect("valid lines") {
                Line::Data(data) => lines.push(String::from_utf8_lossy(data).into_owned()),
                Line::Eof => return lines,
                other => lines.push(format!("{other:?}")),
            }
        }
    }

    #[test]
    fn the_highest_version_that_is_known_wins() {
        let cases = [
            ("", Version::V0),
            ("version=2", Version::V2),
            ("version=1:version=2:version=1", Version::V2),
            ("version=1:key", Version::V1),
            ("version=3", Version::V0),
            ("Version=2", Version::V0),
        ];
        for (header, version) in cases {
            assert_eq!(Version::from_header(header), version, "{header:?}");
        }
    }

    #[test]
    fn version_2_lists_capabilities_one_a_line() {
        let mut out = Vec::new();
        capabilities_v2(ObjectFormat::Sha1, &Pointers::default(), &mut out).unwrap();
        let agent = format!("agent={AGENT}\n");
        let expected = [
            "version 2\n",
            &agent,
            "ls-refs=unborn\n",
            "fetch=shallow wait-for-done filter ref-in-want sideband-all\n",
            "server-option\n",
            "object-format=sha1\n",
            "object-info=size\n",
            "Flush",
        ];
        assert_eq!(read(&out), expected);
        let mut out = Vec::new();
        capabilities_v2(ObjectFormat::Sha256, &Pointers::for_tests("http://localhost", true), &mut out).unwrap();
        let lines = read(&out);
        assert_eq!(lines[3], "fetch=shallow wait-for-done filter ref-in-want sideband-all packfile-uris\n");
        assert_eq!(lines[5], "object-format=sha256\n");
        assert_eq!(lines[7..], ["bundle-uri\n", "Flush"]);
    }

    #[test]
    fn only_the_first_line_carries_capabilities() {
        let mut out = Vec::new();
        let head = Oid::empty_tree(ObjectFormat::Sha1);
        let capabilities = capabilities(ObjectFormat::Sha1, Service::UploadPack, Some(b"refs/heads/main"), Some("1-a"));
        let mut lines = Lines::new(ObjectFormat::Sha1, &mut out, capabilities);
        lines.line(&head, b"HEAD").unwrap();
        lines.line(&head, b"refs/heads/main").unwrap();
        lines.finish().unwrap();
        let lines = read(&out);
        assert_eq!(lines.len(), 3);
        let (name, capabilities) = lines[0].split_once('\0').expect("capabilities after a NUL");
        assert_eq!(name, format!("{head} HEAD"));
        let words: Vec<_> = capabilities.trim_end().split(' ').collect();
        assert!(words.contains(&"symref=HEAD:refs/heads/main"), "{words:?}");
        assert!(words.contains(&"side-band-64k") && words.contains(&"no-done"), "{words:?}");
        assert!(!lines[0].contains("push-cert"), "only pushes are signed");
        assert!(words.contains(&"filter") && !words.contains(&""), "{words:?}");
        assert_eq!(lines[1], format!("{head} refs/heads/main\n"));
    }

    #[test]
    fn an_empty_repository_still_names_its_capabilities() {
        for (format, digits) in [(ObjectFormat::Sha1, 40), (ObjectFormat::Sha256, 64)] {
            let mut out = Vec::new();
            let capabilities = capabilities(format, Service::ReceivePack, None, Some("1-a"));
            Lines::new(format, &mut out, capabilities).finish().unwrap();
            let lines = read(&out);
            let expected = format!("{} capabilities^{{}}\0report-status ", "0".repeat(digits));
            assert!(lines[0].starts_with(&expected), "{}", lines[0]);
            assert!(!lines[0].contains("symref"), "{}", lines[0]);
            assert!(lines[0].contains(&format!(" push-cert=1-a object-format={format} ")), "{}", lines[0]);
            assert_eq!(lines[1], "Flush");
            let mut unborn_out = Vec::new();
            unborn(format, Version::V0, Some("1-a"), &mut unborn_out).unwrap();
            let mut expected = Vec::new();
            write_service(Service::ReceivePack, &mut expected).unwrap();
            expected.extend_from_slice(&out);
            assert_eq!(unborn_out, expected, "nor does one that is yet to be created");
        }
    }

    #[test]
    fn the_service_comes_first_and_version_1_says_so() {
        let mut out = Vec::new();
        write_service(Service::UploadPack, &mut out).unwrap();
        write_version(Version::V1, &mut out).unwrap();
        assert_eq!(read(&out), ["# service=git-upload-pack\n", "Flush", "version 1\n"]);
        let mut out = Vec::new();
        write_service(Service::ReceivePack, &mut out).unwrap();
        write_version(Version::V2, &mut out).unwrap();
        assert_eq!(read(&out), ["# service=git-receive-pack\n", "Flush"]);
    }
}
