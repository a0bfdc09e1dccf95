//! The head of a version 2 request: which command, with which capabilities.
//!
//! What the server has not advertised is an error, as with git: a client that relies on it would be misled.
//! Source: git's `serve.c`, `Documentation/gitprotocol-v2`.

use std::io::Read;

use govc_engine::{Error, ObjectFormat, Result};

use super::pkt::{self, Line, Reader};

/// What a version 2 request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// List references.
    LsRefs,
    /// Negotiate and send a pack.
    Fetch,
    /// Say how large objects are.
    ObjectInfo,
    /// Say where bundles are.
    BundleUri,
}

/// A command, what was said with it, and whether arguments follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The command.
    pub(crate) command: Command,
    /// The client's `--server-option`s, in order. They mean nothing here.
    pub(crate) server_options: Vec<String>,
    /// Whether a delimiter came, so that lines of arguments follow up to a flush.
    pub(crate) arguments: bool,
}

/// More lines than any client sends in a head.
const LINES_MAX: usize = 64;

/// Reads the head of a request to a repository of the `format`; `None` when the client asked nothing.
///
/// # Errors
/// `Invalid` for anything but known capabilities and exactly one known command, and for a client of another format.
pub(crate) fn read_head<R: Read>(format: ObjectFormat, reader: &mut Reader<R>) -> Result<Option<Head>> {
    let mut command = None;
    // What a client takes that does not say it.
    let mut client = b"sha1".to_vec();
    let mut server_options = Vec::new();
    for seen in 0..LINES_MAX {
        let line = reader.read()?;
        let arguments = match line {
            Line::Data(_) => {
                let text = line.text().unwrap_or_default();
                match text.strip_prefix(b"server-option=") {
                    Some(option) => server_options.push(pkt::one_line(&String::from_utf8_lossy(option))),
                    None => read_line(text, &mut command, &mut client)?,
                }
                continue;
            }
            Line::Delimiter => true,
            Line::Flush if seen == 0 => return Ok(None),
            Line::Flush => false,
            Line::Eof if seen == 0 => return Ok(None),
            Line::Eof | Line::ResponseEnd => {
                return Err(Error::invalid("protocol error: the request ended within its capabilities"));
            }
        };
        let command = command.ok_or_else(|| Error::invalid("no command requested"))?;
        if client != format.as_str().as_bytes() {
            let client = shown(&client);
            return Err(Error::invalid(format!("mismatched object format: server {format}; client {client}")));
        }
        return Ok(Some(Head { command, server_options, arguments }));
    }
    Err(Error::invalid("protocol error: too many capabilities"))
}

/// Whether a request begins with `ls-refs`, the most frequent of all.
pub(crate) fn lists_references(request: &[u8]) -> bool {
    let begins: [&[u8]; 2] = [b"0014command=ls-refs\n", b"0013command=ls-refs"];
    begins.iter().any(|begin| request.starts_with(begin))
}

fn shown(text: &[u8]) -> String {
    pkt::one_line(&String::from_utf8_lossy(text))
}

fn read_line(line: &[u8], command: &mut Option<Command>, client: &mut Vec<u8>) -> Result<()> {
    if let Some(name) = line.strip_prefix(b"command=") {
        let named = match name {
            b"ls-refs" => Command::LsRefs,
            b"fetch" => Command::Fetch,
            b"object-info" => Command::ObjectInfo,
            b"bundle-uri" => Command::BundleUri,
            _ => return Err(Error::invalid(format!("invalid command '{}'", shown(name)))),
        };
        if command.replace(named).is_some() {
            return Err(Error::invalid(format!("command '{}' requested after another command", shown(name))));
        }
        return Ok(());
    }
    if let Some(format) = line.strip_prefix(b"object-format=") {
        *client = format.to_vec();
        return Ok(());
    }
    if line == b"agent" || line.starts_with(b"agent=") {
        return Ok(());
    }
    Err(Error::invalid(format!("unknown capability '{}'", shown(line))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[&str], end: &[u8]) -> Result<Option<Head>> {
        head_of(ObjectFormat::Sha1, lines, end)
    }

    fn head_of(format: ObjectFormat, lines: &[&str], end: &[u8]) -> Result<Option<Head>> {
        let mut request = Vec::new();
        for line in lines {
            pkt::data(&mut request, line.as_bytes()).unwrap();
        }
        request.extend_from_slice(end);
        read_head(format, &mut Reader::new(&request[..]))
    }

    #[test]
    fn the_frequent_request_is_recognised() {
        assert!(lists_references(b"0014command=ls-refs\n0000"));
        assert!(lists_references(b"0013command=ls-refs0000"));
        assert!(!lists_references(b"0012command=fetch\n0000"));
    }

    #[test]
    fn commands_are_read_with_and_without_arguments() {
        let lines = ["command=fetch", "agent=git/2.39.5", "object-format=sha1\n"];
        let plain = |command, arguments| Some(Head { command, server_options: Vec::new(), arguments });
        assert_eq!(head(&lines, b"0001").unwrap(), plain(Command::Fetch, true));
        assert_eq!(head(&["command=ls-refs\n"], b"0000").unwrap(), plain(Command::LsRefs, false));
        assert_eq!(head(&["command=object-info\n"], b"0001").unwrap(), plain(Command::ObjectInfo, true));
        assert_eq!(head(&["command=bundle-uri\n"], b"0000").unwrap(), plain(Command::BundleUri, false));
        let options = head(&["server-option=a=b\n", "command=fetch", "server-option=\u{1b}c"], b"0000").unwrap();
        assert_eq!(options.unwrap().server_options, ["a=b", " c"]);
        assert_eq!(head(&[], b"0000").unwrap(), None);
        assert_eq!(head(&[], b"").unwrap(), None);
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let refused: [(&[&str], &str); 6] = [
            (&["command=push"], "invalid command 'push'"),
            (&["agent=x"], "no command requested"),
            (&["command=fetch", "command=ls-refs"], "after another command"),
            (&["command=fetch", "bundle-uri=x"], "unknown capability 'bundle-uri=x'"),
            (&["command=fetch", "object-format=sha256"], "client sha256"),
            (&["command=fetch\0"], "invalid command"),
        ];
        for (lines, reason) in refused {
            let error = head(lines, b"0000").unwrap_err();
            assert!(error.to_string().contains(reason), "{lines:?}: {error}");
        }
        let sha256 = |lines: &[&str]| head_of(ObjectFormat::Sha256, lines, b"0000");
        assert!(sha256(&["object-format=sha256", "command=fetch"]).is_ok());
        let error = sha256(&["command=fetch"]).unwrap_err();
        assert_eq!(error.message(), "mismatched object format: server sha256; client sha1", "who says none takes that");
        assert!(head(&["command=fetch"], b"").is_err(), "no end");
        assert!(head(&["agent=x"; LINES_MAX + 1], b"0000").is_err(), "endless");
    }
}
