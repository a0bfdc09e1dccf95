//! Side-bands: pack data, progress and errors in one stream of packets, or the bare data when the client wants none.
//!
//! Each packet goes out at once, so that whoever carries the stream may put a keep-alive between any two of them. Progress is shown at most ten times a second, save for lines that are complete.
//! Source: git's `sideband.c`, `Documentation/gitprotocol-pack`.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant};

use super::pkt;

/// What a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Bands {
    /// Bare data; progress and errors are not sent.
    #[default]
    None,
    /// `side-band`: packets of at most 1000 bytes.
    Small,
    /// `side-band-64k`: packets of at most 65520 bytes.
    Large,
}

impl Bands {
    /// The most bytes of content in a packet.
    fn content_len_max(self) -> Option<usize> {
        match self {
            Bands::None => None,
            Bands::Small => Some(1000 - HEADER_LEN),
            Bands::Large => Some(65520 - HEADER_LEN),
        }
    }
}

/// Four digits of length.
const PREFIX_LEN: usize = 4;
/// Four digits of length and the band's number.
const HEADER_LEN: usize = 5;
/// Packets of at most so many bytes are small: copying one costs less than memory of its own.
const SMALL_LEN_MAX: usize = 32 << 10;
const DATA: u8 = 1;
const PROGRESS: u8 = 2;
const ERROR: u8 = 3;

/// Ten times a second is as much as anybody reads.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Where packets go, and data without any.
pub(crate) trait Carrier: Write {
    /// Takes a packet, all of it at once; what is left of it does not matter.
    ///
    /// # Errors
    /// As writing does.
    fn packet(&mut self, packet: &mut Vec<u8>) -> io::Result<()>;
}

impl Carrier for &mut dyn Write {
    fn packet(&mut self, packet: &mut Vec<u8>) -> io::Result<()> {
        self.write_all(packet)
    }
}

/// Packets that wait to be taken away.
#[derive(Debug, Default)]
pub(crate) struct Packets(Vec<u8>);

impl Packets {
    /// Bytes of them.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes them away.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        mem::take(&mut self.0)
    }
}

impl Carrier for Packets {
    fn packet(&mut self, packet: &mut Vec<u8>) -> io::Result<()> {
        // A large one mostly comes alone, and is not copied.
        match self.0.is_empty() && packet.len() > SMALL_LEN_MAX {
            true => mem::swap(&mut self.0, packet),
            false => self.0.extend_from_slice(packet),
        }
        Ok(())
    }
}

impl Write for Packets {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames what is sent to a client. Data and progress may be written by turns, from the same thread.
pub(crate) struct Sideband<W> {
    frames: RefCell<Frames<W>>,
    progress_wanted: Cell<bool>,
    progress_shown: Cell<Option<Instant>>,
    /// Progress that will be overwritten anyway is not sent more often than this.
    progress_every: Duration,
}

struct Frames<W> {
    out: W,
    content_len_max: Option<usize>,
    /// Room for a header, then band 1's content that waits for a full packet.
    packet: Vec<u8>,
    /// A failure to write progress, which the next write of data reports.
    failure: Option<io::Error>,
}

impl<W: Carrier> Sideband<W> {
    /// Frames for `out`.
    pub(crate) fn new(out: W, bands: Bands, progress_wanted: bool) -> Self {
        let frames =
            Frames { out, content_len_max: bands.content_len_max(), packet: vec![0; HEADER_LEN], failure: None };
        Self {
            frames: RefCell::new(frames),
            progress_wanted: Cell::new(progress_wanted && bands != Bands::None),
            progress_shown: Cell::new(None),
            progress_every: PROGRESS_EVERY,
        }
    }

    /// A writer of band 1. What it takes may wait until a packet is full, a flush, or [`Sideband::finish`].
    pub(crate) fn data(&self) -> Data<'_, W> {
        Data(self)
    }

    /// Shows progress. A text that ends with a carriage return is overwritten by the next and may be left out.
    pub(crate) fn progress(&self, text: &str) {
        if !self.progress_wanted.get() || text.is_empty() {
            return;
        }
        let passing = text.ends_with('\r');
        let now = Instant::now();
        if passing && self.progress_shown.get().is_some_and(|shown| now.duration_since(shown) < self.progress_every) {
            return;
        }
        self.progress_shown.set(passing.then_some(now));
        let complete = passing || text.ends_with('\n');
        self.message(PROGRESS, text, if complete { "" } else { "\n" });
    }

    /// Shows a text although progress may not be wanted: a warning.
    pub(crate) fn warning(&self, text: &str) {
        self.message(PROGRESS, &pkt::one_line(text), "\n");
    }

    /// Sends the error that ends the conversation. Without side-bands there is no way to say it.
    pub(crate) fn error(&self, text: &str) {
        self.message(ERROR, &pkt::one_line(text), "\n");
    }

    fn message(&self, band: u8, text: &str, end: &str) {
        let mut frames = self.frames.borrow_mut();
        if let Err(error) = frames.message(band, format!("{text}{end}").as_bytes()) {
            frames.failure.get_or_insert(error);
        }
    }

    /// Where whole packets have gone, and nothing else.
    pub(crate) fn out(&mut self) -> &mut W {
        &mut self.frames.get_mut().out
    }

    /// Sends what waits, then the flush that ends side-bands.
    ///
    /// # Errors
    /// What writing fails with, now or before when progress was written.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let frames = self.frames.get_mut();
        frames.check()?;
        frames.send_data()?;
        if frames.content_len_max.is_some() {
            pkt::flush(&mut frames.out)?;
        }
        frames.out.flush()
    }
}

impl<W: Carrier> Frames<W> {
    fn check(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn message(&mut self, band: u8, content: &[u8]) -> io::Result<()> {
        let Some(content_len_max) = self.content_len_max else { return Ok(()) };
        for content in content.chunks(content_len_max) {
            let mut packet = vec![0; HEADER_LEN];
            packet.extend_from_slice(content);
            seal(&mut packet, band)?;
            self.out.packet(&mut packet)?;
        }
        self.out.flush()
    }

    fn write_data(&mut self, content: &[u8]) -> io::Result<usize> {
        self.check()?;
        let Some(content_len_max) = self.content_len_max else { return self.out.write(content) };
        let mut rest = content;
        while !rest.is_empty() {
            let room = (HEADER_LEN + content_len_max).saturating_sub(self.packet.len());
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.packet.extend_from_slice(now);
            if self.packet.len() >= HEADER_LEN + content_len_max {
                self.send_data()?;
            }
            rest = later;
        }
        Ok(content.len())
    }

    fn send_data(&mut self) -> io::Result<()> {
        if self.packet.len() > HEADER_LEN {
            seal(&mut self.packet, DATA)?;
            self.out.packet(&mut self.packet)?;
            self.packet.resize(HEADER_LEN, 0);
        }
        Ok(())
    }
}

/// A response of which every line goes over band 1, as `sideband-all` asks. Takes what [`pkt`] writes, and passes on
/// whole lines.
pub(crate) struct Banded<'a> {
    out: &'a mut dyn Write,
    /// What has come of a line.
    line: Vec<u8>,
}

impl<'a> Banded<'a> {
    /// A writer of lines to `out`.
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, line: Vec::new() }
    }

    /// Writes the error that ends the conversation, over its band.
    ///
    /// # Errors
    /// What `out` fails with.
    pub(crate) fn error(self, text: &str) -> io::Result<()> {
        let mut packet = vec![0; HEADER_LEN];
        packet.extend_from_slice(pkt::one_line(text).as_bytes());
        packet.push(b'\n');
        send(self.out, &mut packet, ERROR)
    }

    /// How many bytes the line has, its length included, once that has come.
    fn len(&self) -> Option<usize> {
        let digits = std::str::from_utf8(self.line.get(..PREFIX_LEN)?).ok()?;
        usize::from_str_radix(digits, 16).ok().map(|len| len.max(PREFIX_LEN))
    }
}

impl Write for Banded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        while let Some(len) = self.len().filter(|len| *len <= self.line.len()) {
            let content = self.line.get(PREFIX_LEN..len).unwrap_or_default();
            match content {
                // A flush or a delimiter belongs to no band.
                [] => self.out.write_all(self.line.get(..len).unwrap_or_default())?,
                _ => {
                    let mut packet = vec![0; HEADER_LEN];
                    packet.extend_from_slice(content);
                    send(self.out, &mut packet, DATA)?;
                }
            }
            self.line.drain(..len);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Fills in the header of `packet` and writes it at once.
fn send(out: &mut dyn Write, packet: &mut [u8], band: u8) -> io::Result<()> {
    seal(packet, band)?;
    out.write_all(packet)
}

/// Fills in the header of `packet`.
fn seal(packet: &mut [u8], band: u8) -> io::Result<()> {
    let len = packet.len();
    match packet.get_mut(..HEADER_LEN) {
        Some(mut header) => write!(header, "{len:04x}").and_then(|()| header.write_all(&[band])),
        None => Ok(()),
    }
}

/// Band 1 of a [`Sideband`].
pub(crate) struct Data<'s, W>(&'s Sideband<W>);

impl<W: Carrier> Write for Data<'_, W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.0.frames.borrow_mut().write_data(content)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut frames = self.0.frames.borrow_mut();
        frames.check()?;
        frames.send_data()?;
        frames.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::pkt::{Line, Reader};

    /// The packets of a stream: band and content.
    fn packets(stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut reader = Reader::new(stream);
        let mut seen = Vec::new();
        loop {
            match reader.read().expect("valid packets") {
                Line::Data(data) => seen.push((data[0], data[1..].to_vec())),
                Line::Flush => seen.push((0, Vec::new())),
                Line::Eof => return seen,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    #[test]
    fn lines_go_over_a_band_and_what_ends_them_does_not() {
        let mut out = Vec::new();
        let mut banded = Banded::new(&mut out);
        pkt::text(&mut banded, format_args!("acknowledgments\n")).unwrap();
        pkt::delimiter(&mut banded).unwrap();
        pkt::data(&mut banded, b"x").unwrap();
        pkt::flush(&mut banded).unwrap();
        banded.error("no\nmore").unwrap();
        assert_eq!(out, b"0015\x01acknowledgments\n00010006\x01x0000000d\x03no more\n");
    }

    #[test]
    fn data_is_cut_at_the_limit_of_the_band() {
        for (bands, limit) in [(Bands::Small, 995), (Bands::Large, 65515)] {
            let mut out = Vec::new();
            let content: Vec<u8> = (0..limit * 2 + 7).map(|n| (n % 251) as u8).collect();
            let mut sideband = Sideband::new(&mut out as &mut dyn Write, bands, true);
            for part in content.chunks(313) {
                sideband.data().write_all(part).unwrap();
            }
            sideband.finish().unwrap();
            let packets = packets(&out);
            let lens: Vec<_> = packets.iter().map(|(band, data)| (*band, data.len())).collect();
            assert_eq!(lens, [(1, limit), (1, limit), (1, 7), (0, 0)]);
            let joined: Vec<u8> = packets.into_iter().flat_map(|(_, data)| data).collect();
            assert_eq!(joined, content);
        }
    }

    #[test]
    fn progress_and_errors_have_bands_of_their_own() {
        let mut out = Vec::new();
        let mut sideband = Sideband::new(&mut out as &mut dyn Write, Bands::Large, true);
        sideband.progress_every = Duration::MAX;
        sideband.data().write_all(b"PACK").unwrap();
        sideband.progress("Counting: 1\r");
        sideband.progress("Counting: 2\r");
        sideband.progress("Counting: 3, done.\n");
        sideband.error("broken\nhere");
        sideband.finish().unwrap();
        let expected: [(u8, &[u8]); 5] =
            [(2, b"Counting: 1\r"), (2, b"Counting: 3, done.\n"), (3, b"broken here\n"), (1, b"PACK"), (0, b"")];
        assert_eq!(packets(&out), expected.map(|(band, data)| (band, data.to_vec())));
    }

    #[test]
    fn unwanted_progress_is_not_sent_but_warnings_are() {
        let mut out = Vec::new();
        let mut sideband = Sideband::new(&mut out as &mut dyn Write, Bands::Large, false);
        sideband.progress("Counting: 1\n");
        sideband.warning("careful");
        sideband.finish().unwrap();
        assert_eq!(packets(&out), [(2, b"careful\n".to_vec()), (0, Vec::new())]);
    }

    #[test]
    fn without_bands_only_the_data_is_sent() {
        let mut out = Vec::new();
        let mut sideband = Sideband::new(&mut out as &mut dyn Write, Bands::None, true);
        sideband.progress("Counting: 1\n");
        sideband.data().write_all(b"PACK").unwrap();
        sideband.error("broken");
        sideband.finish().unwrap();
        assert_eq!(out, b"PACK");
    }

    #[test]
    fn a_client_that_left_is_noticed_by_the_next_data() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Gone;
        let sideband = Sideband::new(&mut out as &mut dyn Write, Bands::Large, true);
        sideband.progress("Counting: 1\n");
        assert_eq!(sideband.data().write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
