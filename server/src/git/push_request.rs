//! What a client that pushes asks for: commands and capabilities, before the pack.
//!
//! The lines naming the borders of a shallow clone are read and not used: what is pushed must be whole on this side,
//! which the check of connectivity finds out by itself. So a push from a shallow clone works when the repository has
//! what lies behind the borders, and no border is ever stored.
//! Source: git's `receive-pack.c` (`read_head_info`), `Documentation/gitprotocol-pack`.

use std::io::Read;

use bytes::Bytes;
use govc_engine::{Error, ObjectFormat, Oid, Promotion, Result};

use super::pkt::{self, Line, Reader};
use super::push_cert::{CERTIFICATE_BYTES_MAX, Certificate};
use super::sideband::Bands;

/// The most borders that a push may name.
const BORDERS_MAX: usize = 1 << 17;

/// The most push options.
const OPTIONS_MAX: usize = 256;

/// The longest name that is looked at; the rules for names are far stricter.
const NAME_LEN_MAX: usize = 4096;

/// The most bytes of all names together: on their way, compressed, a million long ones are a few megabytes.
const NAMES_BYTES_MAX: usize = 128 << 20;

/// A wanted change of one reference; an all-zero id stands for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// What the client takes the reference to be.
    pub(crate) old: Oid,
    /// What it is to become.
    pub(crate) new: Oid,
    /// The reference's full name, unchecked; no line break and no NUL.
    pub(crate) name: Vec<u8>,
}

/// A parsed push, without its pack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PushRequest {
    /// What the ids of the repository are.
    pub(crate) format: ObjectFormat,
    /// The changes, in order.
    pub(crate) commands: Vec<Command>,
    /// Whether the client wants to know what became of them.
    pub(crate) report: bool,
    /// Whether the report may say that a reference got another id than the client sent.
    pub(crate) report_ids: bool,
    /// How the answer is framed.
    pub(crate) bands: Bands,
    /// All changes or none.
    pub(crate) atomic: bool,
    /// No progress.
    pub(crate) quiet: bool,
    /// Whether push options follow the commands.
    pub(crate) has_options: bool,
    /// What becomes of branches that have moved: with `None` they are refused, else what was pushed is brought to them.
    /// The push option `govc.on-conflict`.
    pub(crate) on_conflict: Option<Promotion>,
    /// What the client has signed; the commands are the certificate's then.
    pub(crate) certificate: Option<Certificate>,
    /// Whether the push options are those of the certificate, if there is one.
    pub(crate) is_certified_whole: bool,
}

impl PushRequest {
    /// A request that is still to be read, to a repository of the `format`.
    pub(crate) fn new(format: ObjectFormat) -> Self {
        Self { format, ..Self::default() }
    }

    /// Reads the commands up to the flush, and the push options; the pack comes next. A body without commands is the probe that clients
    /// send before a large push. After an error, `bands` says how the client can be told.
    ///
    /// # Errors
    /// `Invalid` for what git would refuse, `TooLarge` beyond the limits.
    pub(crate) fn read<R: Read>(&mut self, reader: &mut Reader<R>, references_max: usize) -> Result<()> {
        let mut names_bytes = 0;
        for seen in 0..references_max.saturating_add(BORDERS_MAX) {
            let line = reader.read()?;
            let text = match line {
                Line::Flush => {
                    let options = if self.has_options { self.read_options(reader)? } else { Vec::new() };
                    let is_signed = |certificate: &Certificate| certificate.options() == options;
                    self.is_certified_whole = self.certificate.as_ref().is_none_or(is_signed);
                    return Ok(());
                }
                Line::Eof if seen == 0 => return Ok(()),
                Line::Data(_) => line.text().unwrap_or_default(),
                _ => return Err(Error::invalid("protocol error: the request ended within its commands")),
            };
            if let Some(hex) = text.strip_prefix(b"shallow ") {
                let border = self.format.oid_from_hex(hex);
                border.map_err(|_| Error::invalid("protocol error: expected shallow object ID"))?;
                continue;
            }
            let mut halves = text.splitn(2, |b| *b == 0);
            let command = halves.next().unwrap_or_default();
            if let Some(features) = halves.next() {
                self.features(features)?;
            }
            if command == b"push-cert" {
                self.read_certificate(reader, references_max)?;
                continue;
            }
            if self.certificate.is_some() {
                return Err(Error::invalid("protocol error: got both push certificate and unsigned commands"));
            }
            if self.commands.len() >= references_max {
                return Err(too_many(references_max));
            }
            let command = command_line(self.format, command)?;
            names_bytes += command.name.len();
            if names_bytes > NAMES_BYTES_MAX {
                let most = NAMES_BYTES_MAX;
                return Err(Error::too_large(format!(
                    "the references of a push have names of at most {most} bytes together"
                )));
            }
            self.commands.push(command);
        }
        Err(Error::too_large(format!("a push names at most {BORDERS_MAX} borders")))
    }

    /// The certificate up to the line that ends it, and its commands.
    fn read_certificate<R: Read>(&mut self, reader: &mut Reader<R>, references_max: usize) -> Result<()> {
        if self.certificate.is_some() || !self.commands.is_empty() {
            return Err(Error::invalid("protocol error: got both push certificate and unsigned commands"));
        }
        let mut text = Vec::new();
        loop {
            match reader.read()? {
                Line::Data(b"push-cert-end\n" | b"push-cert-end") => break,
                Line::Data(data) if text.len() + data.len() > CERTIFICATE_BYTES_MAX => {
                    let most = CERTIFICATE_BYTES_MAX;
                    return Err(Error::too_large(format!("a push certificate has at most {most} bytes")));
                }
                Line::Data(data) => text.extend_from_slice(data),
                _ => return Err(Error::invalid("protocol error: the request ended within its push certificate")),
            }
        }
        let certificate = Certificate::parse(text.into())?;
        for line in certificate.commands() {
            if self.commands.len() >= references_max {
                return Err(too_many(references_max));
            }
            self.commands.push(command_line(self.format, line)?);
        }
        self.certificate = Some(certificate);
        Ok(())
    }

    /// The options; those of a push that is not signed only as far as they mean something.
    fn read_options<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<Vec<Bytes>> {
        let mut options = Vec::new();
        for _ in 0..=OPTIONS_MAX {
            let line = reader.read()?;
            match line {
                Line::Flush => return Ok(options),
                Line::Data(_) => {
                    let option = line.text().unwrap_or_default();
                    if self.certificate.is_some() {
                        options.push(Bytes::copy_from_slice(option));
                    }
                    self.option(option)?;
                }
                _ => return Err(Error::invalid("protocol error: the request ended within its push options")),
            }
        }
        Err(Error::too_large(format!("a push has at most {OPTIONS_MAX} options")))
    }

    /// Takes an option. Those of other systems mean nothing here, and are let through as git does.
    fn option(&mut self, option: &[u8]) -> Result<()> {
        let Some(own) = option.strip_prefix(b"govc.") else { return Ok(()) };
        self.on_conflict = match own {
            b"on-conflict=fail" => None,
            b"on-conflict=rebase" => Some(Promotion::Rebase),
            b"on-conflict=merge" => Some(Promotion::Merge),
            _ => {
                let shown = String::from_utf8_lossy(option.get(..100).unwrap_or(option)).into_owned();
                let known = "govc.on-conflict=fail, rebase or merge";
                return Err(Error::invalid(format!("push option '{shown}' is not known; there is {known}")));
            }
        };
        Ok(())
    }

    /// Whether no pack follows: every command deletes.
    pub(crate) fn only_deletes(&self) -> bool {
        self.commands.iter().all(|command| command.new.is_null())
    }

    fn features(&mut self, features: &[u8]) -> Result<()> {
        for feature in features.split(|b| *b == b' ') {
            match feature {
                b"report-status" => self.report = true,
                b"report-status-v2" => (self.report, self.report_ids) = (true, true),
                b"push-options" => self.has_options = true,
                b"side-band-64k" => self.bands = Bands::Large,
                b"atomic" => self.atomic = true,
                b"quiet" => self.quiet = true,
                _ => {}
            }
        }
        let format = features.split(|b| *b == b' ').find_map(|feature| feature.strip_prefix(b"object-format="));
        // What a client takes that does not say it.
        let format = format.unwrap_or(b"sha1");
        if format != self.format.as_str().as_bytes() {
            let other = pkt::one_line(&String::from_utf8_lossy(format));
            return Err(Error::invalid(format!("unsupported object format '{other}'")));
        }
        Ok(())
    }
}

fn too_many(references_max: usize) -> Error {
    Error::too_large(format!("a push changes at most {references_max} references"))
}

fn command_line(format: ObjectFormat, line: &[u8]) -> Result<Command> {
    let malformed = || {
        let shown = String::from_utf8_lossy(line.get(..100).unwrap_or(line)).into_owned();
        Error::invalid(format!("protocol error: expected old/new/ref, got '{shown}'"))
    };
    let mut parts = line.splitn(3, |b| *b == b' ');
    let (Some(old), Some(new), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(malformed());
    };
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.iter().any(|byte| matches!(byte, b'\n' | 0)) {
        return Err(malformed());
    }
    let oid = |hex| format.oid_from_hex(hex).map_err(|_| malformed());
    Ok(Command { old: oid(old)?, new: oid(new)?, name: name.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pkt;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn parse(lines: &[String], end: &[u8]) -> (PushRequest, Result<()>) {
        let mut out = Vec::new();
        for line in lines {
            pkt::data(&mut out, line.as_bytes()).unwrap();
        }
        out.extend_from_slice(end);
        let mut request = PushRequest::default();
        let result = request.read(&mut Reader::new(&out[..]), 10);
        (request, result)
    }

    #[test]
    fn commands_and_capabilities_are_read_and_the_pack_is_left() {
        let mut out = Vec::new();
        let first = format!(
            "{ZERO} {A} refs/heads/a b\0 report-status-v2 side-band-64k atomic quiet object-format=sha1 agent=x"
        );
        for line in [format!("shallow {B}"), first, format!("{A} {ZERO} refs/heads/old\n")] {
            pkt::data(&mut out, line.as_bytes()).unwrap();
        }
        out.extend_from_slice(b"0000PACK");
        let mut reader = Reader::new(&out[..]);
        let mut request = PushRequest::default();
        request.read(&mut reader, 10).unwrap();
        assert_eq!(reader.into_inner(), b"PACK");
        let command = |old: &str, new: &str, name: &str| Command {
            old: old.parse().unwrap(),
            new: new.parse().unwrap(),
            name: name.as_bytes().to_vec(),
        };
        let expected = PushRequest {
            commands: vec![command(ZERO, A, "refs/heads/a b"), command(A, ZERO, "refs/heads/old")],
            report: true,
            report_ids: true,
            bands: Bands::Large,
            atomic: true,
            quiet: true,
            is_certified_whole: true,
            ..PushRequest::default()
        };
        assert_eq!(request, expected);
        assert!(!request.only_deletes());
        request.commands.remove(0);
        assert!(request.only_deletes());
    }

    #[test]
    fn a_probe_has_no_commands() {
        for end in [&b"0000"[..], b""] {
            let (request, result) = parse(&[], end);
            result.unwrap();
            assert!(request.commands.is_empty() && request.certificate.is_none());
        }
    }

    #[test]
    fn nonsense_is_refused_and_the_bands_are_known_by_then() {
        let bad = [
            format!("{A} {B}"),
            format!("{A} {B} "),
            format!("{A} x refs/heads/a"),
            format!("{A}  {B} refs/heads/a"),
            format!("{A} {B} {}", "x".repeat(NAME_LEN_MAX + 1)),
            format!("{A} {B} refs/heads/a\nng refs"),
            "shallow x".to_owned(),
            "push-cert".to_owned(),
        ];
        for line in bad {
            assert!(parse(std::slice::from_ref(&line), b"0000").1.is_err(), "{line:?}");
        }
        let sha256 = format!("{ZERO} {A} refs/heads/a\0side-band-64k object-format=sha256");
        let (request, result) = parse(&[sha256], b"0000");
        assert!(result.unwrap_err().to_string().contains("'sha256'"));
        assert_eq!(request.bands, Bands::Large);
        assert!(parse(&[format!("{ZERO} {A} refs/heads/a")], b"").1.is_err(), "no flush");
        assert!(parse(&[format!("{ZERO} {A} refs/heads/a")], b"0001").1.is_err(), "no flush");
    }

    #[test]
    fn ids_have_the_width_of_the_format() {
        let (zero, long) = ("0".repeat(64), "c".repeat(64));
        let read = |line: &str| {
            let mut out = Vec::new();
            pkt::data(&mut out, line.as_bytes()).unwrap();
            pkt::flush(&mut out).unwrap();
            let mut request = PushRequest::new(ObjectFormat::Sha256);
            request.read(&mut Reader::new(&out[..]), 10).map(|()| request)
        };
        let request = read(&format!("{zero} {long} refs/heads/a\0side-band-64k object-format=sha256")).unwrap();
        assert!(request.commands[0].old.is_null() && request.commands[0].new.to_string() == long);
        assert!(!request.only_deletes());
        let unsaid = read(&format!("{zero} {long} refs/heads/a\0side-band-64k")).unwrap_err();
        assert!(unsaid.message().contains("'sha1'"), "who says none takes that: {unsaid}");
        assert!(read(&format!("{zero} {A} refs/heads/a\0object-format=sha256")).is_err());
        assert!(read(&format!("{ZERO} {A} refs/heads/a\0object-format=sha256")).is_err());
        assert!(read(&format!("shallow {A}")).is_err() && read(&format!("shallow {long}")).is_ok());
        assert!(parse(&[format!("{ZERO} {long} refs/heads/a")], b"0000").1.is_err());
    }

    #[test]
    fn options_say_what_becomes_of_conflicts() {
        let with = |options: &[&str]| {
            let mut end = b"0000".to_vec();
            for option in options {
                pkt::data(&mut end, option.as_bytes()).unwrap();
            }
            end.extend_from_slice(b"0000");
            parse(&[format!("{ZERO} {A} refs/heads/a\0push-options")], &end)
        };
        for (options, expected) in [
            (&["ci.skip", "govc.on-conflict=rebase"][..], Some(Promotion::Rebase)),
            (&["govc.on-conflict=merge\n"], Some(Promotion::Merge)),
            (&["govc.on-conflict=merge", "govc.on-conflict=fail"], None),
            (&[], None),
        ] {
            let (request, result) = with(options);
            result.unwrap();
            assert_eq!(request.on_conflict, expected, "{options:?}");
        }
        for bad in ["govc.on-conflict", "govc.on-conflict=ours", "govc.other=1"] {
            assert!(with(&[bad]).1.unwrap_err().message().contains("is not known"), "{bad}");
        }
        assert!(with(&["x"; OPTIONS_MAX + 1]).1.is_err());
        let cut = parse(&[format!("{ZERO} {A} refs/heads/a\0push-options")], b"0000");
        assert!(cut.1.is_err(), "options that were announced and did not come");
    }

    /// A signed push of one reference, with what stands between its lines and the signature's.
    fn signed(options: &str, commands: &str) -> Vec<String> {
        let text = format!(
            "certificate version 0.1\npusher x 1 +0000\nnonce 1-a\n{options}\n{commands}-----BEGIN SSH SIGNATURE-----\nx\n"
        );
        let lines = text.split_inclusive('\n').map(str::to_owned);
        let first = "push-cert\0report-status side-band-64k push-options".to_owned();
        std::iter::once(first).chain(lines).chain(["push-cert-end\n".to_owned()]).collect()
    }

    #[test]
    fn the_commands_of_a_signed_push_are_its_certificates() {
        let options = |options: &[&str]| {
            let mut end = b"0000".to_vec();
            options.iter().for_each(|option| pkt::data(&mut end, option.as_bytes()).unwrap());
            end.extend_from_slice(b"0000");
            end
        };
        let commands = format!("{ZERO} {A} refs/heads/a\n{A} {ZERO} refs/heads/b c\n");
        let lines = signed("push-option one\npush-option govc.on-conflict=merge\n", &commands);
        let (request, result) = parse(&lines, &options(&["one", "govc.on-conflict=merge"]));
        result.unwrap();
        assert_eq!(request.commands.len(), 2);
        assert_eq!(request.commands[1].name, b"refs/heads/b c");
        assert_eq!((request.bands, request.on_conflict), (Bands::Large, Some(Promotion::Merge)));
        assert!(request.is_certified_whole);
        assert_eq!(request.certificate.unwrap().text, lines[1..lines.len() - 1].concat().into_bytes());
        for others in [&["one"][..], &[], &["govc.on-conflict=merge", "one"], &["one", "govc.on-conflict=merge", "two"]]
        {
            let (request, result) = parse(&lines, &options(others));
            result.unwrap();
            assert!(!request.is_certified_whole, "{others:?}");
        }
    }

    #[test]
    fn a_signed_push_has_one_certificate_and_nothing_beside_it() {
        let command = format!("{ZERO} {A} refs/heads/a");
        let lines = signed("", &format!("{command}\n"));
        let refused = |lines: &[String]| parse(lines, b"00000000").1.unwrap_err();
        assert!(
            refused(&[&lines[..], std::slice::from_ref(&command)].concat()).message().contains("unsigned commands")
        );
        assert!(
            refused(&[std::slice::from_ref(&command), &lines[..]].concat()).message().contains("unsigned commands")
        );
        assert!(refused(&[&lines[..], &lines[..]].concat()).message().contains("unsigned commands"));
        assert!(refused(&lines[..lines.len() - 1]).message().contains("within its push certificate"));
        assert!(parse(&lines[..3], b"").1.is_err() && parse(&lines[..3], b"0001").1.is_err());
        assert!(refused(&signed("", "not a command\n")).message().contains("old/new/ref"));
        assert!(refused(&signed("", &format!("{command}\0report-status\n"))).message().contains("old/new/ref"));
        assert!(refused(&signed("", &format!("{command}\n").repeat(11))).message().contains("at most 10"));
        let long = vec!["x".repeat(60_000); CERTIFICATE_BYTES_MAX / 60_000 + 1];
        let long = [&lines[..3], &long].concat();
        assert_eq!(*refused(&long).kind(), govc_engine::ErrorKind::TooLarge);
    }

    #[test]
    fn endless_requests_are_refused() {
        let lines = vec![format!("shallow {A}"); BORDERS_MAX + 10 + 1];
        assert_eq!(*parse(&lines, b"0000").1.unwrap_err().kind(), govc_engine::ErrorKind::TooLarge);
        let changes =
            |count: usize| -> Vec<String> { (0..count).map(|at| format!("{ZERO} {A} refs/heads/{at}")).collect() };
        assert_eq!(parse(&changes(10), b"0000").0.commands.len(), 10);
        assert!(parse(&changes(10), b"0000").1.is_ok());
        assert_eq!(*parse(&changes(11), b"0000").1.unwrap_err().kind(), govc_engine::ErrorKind::TooLarge);
    }
}
