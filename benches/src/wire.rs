//! A raw clone: the requests that `git clone` sends in protocol v2, replayed without its work.
//!
//! A real client spends most of a clone's time on itself (it indexes the pack). Here the pack goes where
//! the caller says, mostly nowhere, and only the server is left. Formats: gitprotocol-v2(5),
//! gitprotocol-common(5).

use std::io::{BufReader, Read, Write};

use crate::error::{Context, Error, Result};
use crate::http::Client;

pub(crate) const FETCH_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "application/x-git-upload-pack-request"),
    ("Accept", "application/x-git-upload-pack-result"),
    ("Git-Protocol", "version=2"),
];
const DELIMITER: &[u8] = b"0001";
/// What ends a request, and every whole answer.
pub(crate) const FLUSH: &[u8] = b"0000";

/// What a fetch asks for.
#[derive(Default)]
pub(crate) struct Fetch<'a> {
    /// Ids in hexadecimal, as often as they may be given.
    pub(crate) wants: Vec<&'a str>,
    pub(crate) haves: Vec<&'a str>,
    /// Commits from each want on, for a shallow clone.
    pub(crate) depth: Option<u32>,
    /// Whether tags of what is sent are wanted, and deltas on what the client has.
    pub(crate) is_like_git: bool,
}

impl Fetch<'_> {
    /// The request's body.
    pub(crate) fn request(&self) -> Vec<u8> {
        let mut wants = self.wants.clone();
        wants.sort_unstable();
        wants.dedup();
        let mut request = Vec::new();
        line(&mut request, "command=fetch");
        line(&mut request, "object-format=sha1");
        request.extend_from_slice(DELIMITER);
        line(&mut request, "no-progress");
        line(&mut request, "ofs-delta");
        if self.is_like_git {
            line(&mut request, "thin-pack");
            line(&mut request, "include-tag");
        }
        if let Some(depth) = self.depth {
            line(&mut request, &format!("deepen {depth}\n"));
        }
        for (word, ids) in [("want", &wants), ("have", &self.haves)] {
            for id in ids {
                line(&mut request, &format!("{word} {id}\n"));
            }
        }
        line(&mut request, "done\n");
        request.extend_from_slice(FLUSH);
        request
    }
}

/// The body of a request for the references whose names begin with one of `prefixes`; for all of them, if there is none.
pub(crate) fn list_request(prefixes: &[&str]) -> Vec<u8> {
    let mut request = Vec::new();
    line(&mut request, "command=ls-refs\n");
    line(&mut request, "object-format=sha1\n");
    request.extend_from_slice(DELIMITER);
    line(&mut request, "peel\n");
    line(&mut request, "symrefs\n");
    for prefix in prefixes {
        line(&mut request, &format!("ref-prefix {prefix}\n"));
    }
    request.extend_from_slice(FLUSH);
    request
}

/// Where both go.
pub(crate) fn fetch_path(repository: &str) -> String {
    format!("/{repository}.git/git-upload-pack")
}

/// The references of a repository as `<id> <name>`, `HEAD` included, in the server's order.
pub(crate) fn list(client: &mut Client, repository: &str) -> Result<Vec<String>> {
    list_by(client, repository, &list_request(&[]))
}

/// The references that a request of [`list_request`] finds.
pub(crate) fn list_by(client: &mut Client, repository: &str, request: &[u8]) -> Result<Vec<String>> {
    let mut answer = post(client, repository, request)?;
    let mut references = Vec::new();
    let mut packet = Vec::new();
    while let Packet::Data = read_packet(&mut answer, &mut packet)? {
        let text = String::from_utf8_lossy(&packet);
        let mut words = text.split_ascii_whitespace();
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(Error::new(format!("the reference line {text:?} is not understood")));
        };
        references.push(format!("{id} {name}"));
    }
    drain(answer)?;
    Ok(references)
}

/// Fetches everything that `references` (from [`list`]) reach and writes the pack to `sink`. Returns the
/// pack's size in bytes.
pub(crate) fn fetch(client: &mut Client, repository: &str, references: &[String], sink: &mut dyn Write) -> Result<u64> {
    let wants = references.iter().filter_map(|line| line.split(' ').next()).collect();
    send(client, repository, &Fetch { wants, is_like_git: true, ..Fetch::default() }.request(), sink)
}

/// Sends a request of [`Fetch`] and writes the pack to `sink`. Returns its size in bytes.
pub(crate) fn send(client: &mut Client, repository: &str, request: &[u8], sink: &mut dyn Write) -> Result<u64> {
    let mut answer = post(client, repository, request)?;
    let mut packet = Vec::new();
    loop {
        match read_packet(&mut answer, &mut packet)? {
            Packet::Data if packet == b"packfile\n" => break,
            Packet::Data if packet.starts_with(b"ERR ") => {
                return Err(Error::new(format!("the server refused: {}", String::from_utf8_lossy(&packet))));
            }
            Packet::Data | Packet::Delimiter => {}
            Packet::Flush => return Err(Error::new("the answer has no pack")),
        }
    }
    let mut pack_bytes = 0;
    while let Packet::Data = read_packet(&mut answer, &mut packet)? {
        match packet.split_first() {
            Some((1, data)) => {
                pack_bytes += data.len() as u64;
                sink.write_all(data).context(|| "cannot write a pack".into())?;
            }
            Some((2, _)) => {}
            Some((3, reason)) => {
                return Err(Error::new(format!("the server broke off: {}", String::from_utf8_lossy(reason))));
            }
            _ => return Err(Error::new("the pack came on an unknown side band")),
        }
    }
    drain(answer)?;
    Ok(pack_bytes)
}

fn post<'a>(client: &'a mut Client, repository: &str, request: &[u8]) -> Result<BufReader<crate::http::Body<'a>>> {
    let body = client.post(&fetch_path(repository), &FETCH_HEADERS, request)?;
    Ok(BufReader::with_capacity(128 * 1024, body))
}

/// Appends a pkt-line.
pub(crate) fn line(request: &mut Vec<u8>, text: &str) {
    request.extend_from_slice(format!("{:04x}", text.len() + 4).as_bytes());
    request.extend_from_slice(text.as_bytes());
}

#[derive(Debug, PartialEq)]
enum Packet {
    Data,
    Delimiter,
    Flush,
}

fn read_packet(stream: &mut impl Read, packet: &mut Vec<u8>) -> Result<Packet> {
    let cut = || "the answer was cut off".to_owned();
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).context(cut)?;
    let length = std::str::from_utf8(&prefix).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
    match length {
        Some(0) => Ok(Packet::Flush),
        Some(1) => Ok(Packet::Delimiter),
        Some(length @ 4..) => {
            packet.resize(length - 4, 0);
            stream.read_exact(packet).context(cut)?;
            Ok(Packet::Data)
        }
        _ => Err(Error::new(format!("{prefix:?} is not the length of a pkt-line"))),
    }
}

/// Reads what is left so that the connection can be used again.
fn drain(mut answer: impl Read) -> Result<()> {
    std::io::copy(&mut answer, &mut std::io::sink()).map(drop).context(|| "the answer was cut off".into())
}

#[cfg(test)]
mod tests {
    use super::{Fetch, Packet, read_packet};

    #[test]
    fn packets_are_framed_by_their_own_length() {
        let mut stream: &[u8] = b"0006ab00010000zzzz";
        let mut packet = Vec::new();
        assert_eq!(read_packet(&mut stream, &mut packet).ok(), Some(Packet::Data));
        assert_eq!(packet, b"ab");
        assert_eq!(read_packet(&mut stream, &mut packet).ok(), Some(Packet::Delimiter));
        assert_eq!(read_packet(&mut stream, &mut packet).ok(), Some(Packet::Flush));
        assert!(read_packet(&mut stream, &mut packet).is_err());
    }

    #[test]
    fn an_id_is_wanted_once() {
        let id = "0123456789012345678901234567890123456789";
        let request = Fetch { wants: vec![id, id], haves: vec![id], depth: Some(1), is_like_git: true }.request();
        let text = String::from_utf8_lossy(&request);
        assert_eq!((text.matches("want ").count(), text.matches("have ").count()), (1, 1));
        assert!(text.contains("000ddeepen 1\n"), "{text}");
        assert!(text.ends_with("0009done\n0000"));
    }
}
