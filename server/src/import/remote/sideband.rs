//! The pack within an answer: band 1, with the server's progress left out and its errors told.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use govc_engine::{Error, ErrorKind, Result};

use super::message::{Lines, told};
use super::not_git;
use crate::git::pkt::Line;

/// What a server may say beside a pack that was asked for without progress.
const CHATTER_BYTES_MAX: u64 = 16 << 20;
/// How many times as long as it may be silent a server may say nothing but that it is there.
const IDLE_FACTOR: u32 = 6;

/// A pack on its way. Its errors wrap the engine's.
pub(super) struct Pack<'a> {
    lines: Lines<'a>,
    /// A packet that was read already.
    first: Option<Vec<u8>>,
    /// Content of the newest packet that was not read: `packet[at..]`.
    packet: Vec<u8>,
    at: usize,
    chatter_bytes: u64,
    idle_max: Duration,
    moved: Instant,
    ended: bool,
}

impl<'a> Pack<'a> {
    /// A pack that begins with the packet `first`, if that was read already.
    pub(super) fn new(lines: Lines<'a>, first: Option<Vec<u8>>, silence_max: Duration) -> Self {
        let idle_max = silence_max.saturating_mul(IDLE_FACTOR);
        Self {
            lines,
            first,
            packet: Vec::new(),
            at: 0,
            chatter_bytes: 0,
            idle_max,
            moved: Instant::now(),
            ended: false,
        }
    }

    /// Reads packets up to one with content, or the end.
    fn next(&mut self) -> Result<()> {
        while !self.ended {
            let packet = match self.first.take() {
                Some(first) => first,
                None => match self.lines.next()? {
                    Line::Flush => {
                        self.ended = true;
                        return Ok(());
                    }
                    Line::Data(content) => content.to_vec(),
                    _ => return Err(self.lines.unexpected()),
                },
            };
            if self.take(packet)? {
                return Ok(());
            }
            if self.moved.elapsed() > self.idle_max {
                let (url, seconds) = (self.lines.url(), self.idle_max.as_secs());
                let message = format!("{url} has sent nothing of the pack for {seconds} s");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(())
    }

    /// Takes a packet; whether it is of the pack.
    fn take(&mut self, packet: Vec<u8>) -> Result<bool> {
        let url = self.lines.url();
        match packet.split_first() {
            Some((1, data)) if !data.is_empty() => {
                // After its band.
                (self.packet, self.at, self.moved) = (packet, 1, Instant::now());
                return Ok(true);
            }
            Some((1 | 2, _)) => {}
            Some((3, text)) => return Err(told(url, text)),
            _ => return Err(not_git(url, "a packet of its pack is of no band")),
        }
        self.chatter_bytes += packet.len() as u64;
        if self.chatter_bytes > CHATTER_BYTES_MAX {
            return Err(not_git(url, "it talks and sends no pack"));
        }
        Ok(false)
    }
}

impl Read for Pack<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.packet.len() && !self.ended {
            self.next().map_err(io::Error::other)?;
        }
        let rest = self.packet.get(self.at..).unwrap_or_default();
        let len = rest.len().min(into.len());
        if let (Some(into), Some(rest)) = (into.get_mut(..len), rest.get(..len)) {
            into.copy_from_slice(rest);
        }
        self.at += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pkt;

    fn pack(packets: &[&[u8]], end: &[u8]) -> (Vec<u8>, Option<String>) {
        pack_after(None, packets, end)
    }

    fn pack_after(first: Option<&[u8]>, packets: &[&[u8]], end: &[u8]) -> (Vec<u8>, Option<String>) {
        let mut bytes = Vec::new();
        for packet in packets {
            pkt::data(&mut bytes, packet).expect("room");
        }
        bytes.extend_from_slice(end);
        let lines = Lines::new(Box::new(io::Cursor::new(bytes)), "http://x/y");
        let mut out = Vec::new();
        let read = Pack::new(lines, first.map(<[u8]>::to_vec), Duration::from_secs(60)).read_to_end(&mut out);
        (out, read.err().map(|error| error.to_string()))
    }

    #[test]
    fn only_the_first_band_is_the_pack() {
        let (out, error) = pack(&[b"\x02counting\r", b"\x01PA", b"\x01", b"\x02", b"\x01CK"], b"0000");
        assert_eq!((&out[..], error), (&b"PACK"[..], None));
        let (out, error) = pack_after(Some(b"\x01PA"), &[b"\x01CK"], b"0000");
        assert_eq!((&out[..], error), (&b"PACK"[..], None));
    }

    #[test]
    fn errors_cuts_and_endless_talk_end_it() {
        for (packets, end, word) in [
            (&[&b"\x01PACK"[..], b"\x03out of\nmemory\n"][..], &b"0000"[..], "says: out of memory"),
            (&[b"\x01PACK"], b"", "ends early"),
            (&[b"\x01PACK"], b"00", "breaks off"),
            (&[b"\x01PACK"], b"0001", "not what was asked for"),
            (&[b"\x04PACK"], b"0000", "of no band"),
        ] {
            let (_, error) = pack(packets, end);
            let error = error.expect(word);
            assert!(error.contains(word), "{error}");
        }
        let talk = [&b"\x02"[..], &[b'x'; 60_000]].concat();
        let talk = vec![&talk[..]; 300];
        assert!(pack(&talk, b"0000").1.expect("an error").contains("sends no pack"));
    }
}
