//! A client of HTTP/2 in a few lines: one request a connection, and windows that open when a test says so.

use std::io::{ErrorKind, Read as _, Write as _};

use crate::http::{Http, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The stream of the one request.
const STREAM: u32 = 1;

/// What each side may send at first of a connection or of a stream, in bytes.
const FIRST_WINDOW: u32 = 65_535;

/// A window's most bytes.
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// What any server takes in one frame, in bytes.
const FRAME_BYTES_MAX: usize = 16_384;

/// `:status: 200` as the table of HPACK has it.
const STATUS_200: u8 = 0x88;

/// One request and its answer, of which the server may send [`FIRST_WINDOW`] until the windows are opened.
pub(crate) struct Exchange {
    wire: Wire,
    /// What the server takes on the connection, and of the request: the second one may have become negative.
    windows: [i64; 2],
    head: Option<Vec<u8>>,
    came: Vec<u8>,
    end: Option<End>,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// By a reset of the stream, or with the connection.
    CutOff,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl Exchange {
    /// Asks, on a connection of its own, with such headers beyond those that every request has; the body comes later.
    pub(crate) fn begin(http: &Http, path: &str, headers: &[(&str, &str)]) -> Self {
        let text = |text: &str| {
            assert!(text.len() < 127, "longer ones have another length");
            [&[text.len() as u8], text.as_bytes()].concat()
        };
        // POST, http; then the names :path and :authority of the table, and names as they are.
        let mut head = [&[0x83, 0x86, 0x04][..], &text(path), &[0x01], &text("x")].concat();
        for (name, value) in headers {
            head.extend([&[0x00][..], &text(name), &text(value)].concat());
        }
        let wire = http.wire(Some("h2")).expect("the server accepts connections");
        let windows = [i64::from(FIRST_WINDOW); 2];
        let mut exchange = Self { wire, windows, head: None, came: Vec::new(), end: None };
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, b""), &frame(HEADERS, END_HEADERS, STREAM, &head)];
        exchange.write(&hello.concat());
        exchange
    }

    /// Writes as far as the server takes it: who was refused need not have sent everything.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.wire.write_all(bytes).and_then(|()| self.wire.flush());
    }

    /// Sends a part of the body, as the server opens its windows.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.end.is_none() {
            let room = usize::try_from(self.windows[0].min(self.windows[1])).unwrap_or(0);
            if room == 0 {
                self.read_frame();
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(room).min(FRAME_BYTES_MAX));
            self.write(&frame(DATA, 0, STREAM, now));
            self.windows = self.windows.map(|window| window - now.len() as i64);
            bytes = later;
        }
    }

    /// Ends the body.
    pub(crate) fn end(&mut self) {
        self.write(&frame(DATA, END_STREAM, STREAM, b""));
    }

    /// Reads until so much of the answer has come, which must come.
    pub(crate) fn read(&mut self, bytes: usize) {
        while self.came.len() < bytes {
            assert_eq!(self.end, None, "{} bytes came", self.came.len());
            self.read_frame();
        }
    }

    /// Reads to the end, which must be none of a whole answer, without opening a window.
    pub(crate) fn await_cut_off(&mut self) {
        while self.end.is_none() {
            self.read_frame();
        }
        assert_eq!(self.end, Some(End::CutOff));
    }

    /// Opens the windows and reads the answer, which must be one of 200; what came of its body, and how it ended.
    pub(crate) fn answer(mut self) -> (Vec<u8>, End) {
        let more = (WINDOW_MAX - FIRST_WINDOW).to_be_bytes();
        self.write(&[frame(WINDOW_UPDATE, 0, 0, &more), frame(WINDOW_UPDATE, 0, STREAM, &more)].concat());
        while self.end.is_none() {
            self.read_frame();
        }
        if let Some(head) = &self.head {
            assert_eq!(head.first(), Some(&STATUS_200), "{head:x?}");
        }
        (self.came, self.end.expect("it has ended"))
    }

    fn read_frame(&mut self) {
        let Some((kind, flags, stream, payload)) = self.next_frame() else {
            self.end.get_or_insert(End::CutOff);
            return;
        };
        let number = |at: usize| i64::from(u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes")));
        match kind {
            SETTINGS if flags & ACK == 0 => {
                // SETTINGS_INITIAL_WINDOW_SIZE.
                for at in (0..payload.len()).step_by(6).filter(|at| payload[*at..at + 2] == [0, 4]) {
                    self.windows[1] += number(at + 2) - i64::from(FIRST_WINDOW);
                }
                self.write(&frame(SETTINGS, ACK, 0, b""));
            }
            PING if flags & ACK == 0 => self.write(&frame(PING, ACK, 0, &payload)),
            WINDOW_UPDATE => self.windows[usize::from(stream)] += number(0),
            HEADERS => self.head = Some(payload),
            DATA => self.came.extend(payload),
            RST_STREAM => self.end = self.end.or(Some(End::CutOff)),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.end = Some(End::Whole);
        }
    }

    /// The next frame: its kind, its flags, its stream, and what it holds; `None` at the end of the connection.
    fn next_frame(&mut self) -> Option<(u8, u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.read_exact(&mut payload)?;
        Some((head[3], head[4], head[8], payload))
    }

    fn read_exact(&mut self, into: &mut [u8]) -> Option<()> {
        match self.wire.read_exact(into) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing came for a long time"),
            Err(_) => None,
        }
    }
}
