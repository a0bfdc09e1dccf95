//! What files define, told by processes of their own.
//!
//! Tree-sitter's grammars are C and run over whatever people push: some inputs end the process, some take all memory. So
//! the server starts copies of its own program that do nothing but parse (`govc definitions`, not for people): they have
//! an empty environment, a limit on memory, and a few seconds for each file, and end with the server. One that ends or does
//! not answer costs the definitions of one file; the next file gets a new one.
//!
//! A request is the language's number, the content's length and the content; an answer is a length and a
//! `Result<Vec<Symbol>, Skipped>` in postcard. Numbers are 32 bits, little-endian.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use govc_search::{
    Definer,
    language::Language,
    symbols::{Limits, Skipped, Symbol, symbols},
};
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit},
};

/// The command that makes a process of the program a parser.
pub(crate) const COMMAND: &str = "definitions";
/// Parsers that wait for work at most; more are started when needed, and ended afterwards.
const IDLE_MAX: usize = 2;
/// How long a file may take. The parser itself gives up sooner, where its grammar lets it.
const FILE_TIME_MAX: Duration = Duration::from_secs(3);
/// What a parser may take of addresses: half a gigabyte is the stack that it reserves for the largest file.
const ADDRESS_BYTES_MAX: u64 = 2 << 30;
/// What a pipe takes without waiting, once it takes anything, in bytes (pipe(7)).
const PIPE_BUF: usize = 4096;
/// The longest answer that is believed, in bytes.
const ANSWER_BYTES_MAX: u32 = 64 << 20;

/// The program of this process, if it can be a parser.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says that the program of this process understands [`COMMAND`].
pub(crate) fn is_able() {
    if let Ok(program) = std::env::current_exe() {
        let _ = PROGRAM.set(program);
    }
}

/// Parsers, started when they are needed.
pub(crate) struct Parsers {
    program: PathBuf,
    idle: Mutex<Vec<Parser>>,
}

impl Parsers {
    /// Parsers of this process's own program; `None` within another one, which could not be a parser.
    pub(crate) fn new() -> Option<Self> {
        PROGRAM.get().map(|program| Self { program: program.clone(), idle: Mutex::default() })
    }
}

impl Definer for Parsers {
    fn definitions(&self, language: Language, content: &[u8]) -> Result<Vec<Symbol>, Skipped> {
        let limits = Limits::default();
        if content.len() > limits.content_bytes_max {
            return Err(Skipped::TooLarge);
        }
        // One that waited may have ended meanwhile; its place is taken by a new one.
        let waiting = self.idle.lock().pop();
        let asked = waiting.and_then(|mut parser| Some((parser.ask(language, content).ok()?, parser)));
        let asked = asked.map_or_else(
            || Parser::start(&self.program).and_then(|mut parser| Ok((parser.ask(language, content)?, parser))),
            Ok,
        );
        match asked {
            Ok((answer, parser)) => {
                let mut idle = self.idle.lock();
                if idle.len() < IDLE_MAX {
                    idle.push(parser);
                }
                answer
            }
            Err(error) => {
                tracing::warn!(%error, language = language.name(), bytes = content.len(), "a parser gave no answer");
                Err(Skipped::NoAnswer)
            }
        }
    }
}

/// A process that parses; ended when it is dropped.
struct Parser {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Parser {
    fn start(program: &PathBuf) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg(COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        Ok(Self { child, input, output })
    }

    fn ask(&mut self, language: Language, content: &[u8]) -> io::Result<Result<Vec<Symbol>, Skipped>> {
        let bytes = u32::try_from(content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let until = Instant::now() + FILE_TIME_MAX;
        self.write(&[language.stable_id().to_le_bytes(), bytes.to_le_bytes()].concat(), until)?;
        self.write(content, until)?;
        let mut length = [0; 4];
        self.read(&mut length, until)?;
        let length = u32::from_le_bytes(length);
        if length > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut answer = vec![0; length as usize];
        self.read(&mut answer, until)?;
        let answer: Result<Vec<Symbol>, Skipped> = postcard::from_bytes(&answer).map_err(io::Error::other)?;
        // Of what a process says that may be broken, nothing is taken on trust.
        let is_sound = |symbol: &Symbol| symbol.name.start <= symbol.name.end && symbol.name.end <= content.len();
        match answer {
            Ok(symbols) if !symbols.iter().all(is_sound) => Err(io::ErrorKind::InvalidData.into()),
            answer => Ok(answer),
        }
    }

    /// Writes all of `bytes`, waiting no longer than `until`: a pipe takes little, and a parser may hang before it reads.
    fn write(&mut self, bytes: &[u8], until: Instant) -> io::Result<()> {
        // A pipe that can be written to at all has room for so much.
        for piece in bytes.chunks(PIPE_BUF) {
            wait(self.input.as_fd(), PollFlags::OUT, until)?;
            self.input.write_all(piece)?;
        }
        Ok(())
    }

    /// Fills `buffer`, waiting no longer than `until`.
    fn read(&mut self, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            wait(self.output.as_fd(), PollFlags::IN, until)?;
            match self.output.read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buffer = buffer.get_mut(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }
}

/// Waits until a pipe can be read or written, or its other end is closed, no longer than `until`.
fn wait(pipe: BorrowedFd<'_>, flags: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(pipe, flags)], Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::INTR) => {}
            polled => return Ok(polled.map(drop)?),
        }
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a parser does: answers until its input ends.
pub(crate) fn serve() -> ExitCode {
    // Also when the server is killed in the midst of a file. (It is the thread that counts, which ends at the latest with
    // the server; who asks an ended parser starts another.)
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return ExitCode::FAILURE;
    }
    for (resource, most) in [(Resource::As, ADDRESS_BYTES_MAX), (Resource::Core, 0)] {
        if setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).is_err() {
            return ExitCode::FAILURE;
        }
    }
    match answer_all(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer_all(input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut head = [0; 8];
    loop {
        match input.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let (number, bytes) = head.split_at(4);
        let number = u32::from_le_bytes(number.try_into().unwrap_or_default());
        let bytes = u32::from_le_bytes(bytes.try_into().unwrap_or_default());
        let limits = Limits::default();
        if bytes as usize > limits.content_bytes_max {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut content = vec![0; bytes as usize];
        input.read_exact(&mut content)?;
        let language = Language::from_stable_id(number).ok_or(Skipped::Unsupported);
        let told = language.and_then(|language| symbols(language, &content, &limits));
        let answer = postcard::to_stdvec(&told).map_err(io::Error::other)?;
        let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
        output.write_all(&length.to_le_bytes())?;
        output.write_all(&answer)?;
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use govc_search::{
        language::Language,
        symbols::{Skipped, Symbol},
    };

    use super::answer_all;

    #[test]
    fn a_parser_answers_what_it_is_asked() {
        let rust = Language::from_name("rust").expect("Rust");
        let code = b"fn main() {}\n";
        let mut input = Vec::new();
        for (number, content) in [(rust.stable_id(), &code[..]), (u32::MAX, b"?")] {
            input.extend(number.to_le_bytes());
            input.extend(u32::try_from(content.len()).expect("short").to_le_bytes());
            input.extend(content);
        }
        let mut output = Vec::new();
        answer_all(&mut input.as_slice(), &mut output).expect("answers");
        let mut rest = output.as_slice();
        let mut answers = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (answer, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            answers.push(postcard::from_bytes::<Result<Vec<Symbol>, Skipped>>(answer).expect("an answer"));
            rest = behind;
        }
        let names: Vec<_> = answers[0].as_ref().expect("symbols").iter().map(|symbol| symbol.name.clone()).collect();
        assert_eq!(names, std::slice::from_ref(&(3..7)));
        assert_eq!(answers[1], Err(Skipped::Unsupported));
        // Half a file, and one that is too large.
        assert!(answer_all(&mut &input[..10], &mut Vec::new()).is_err());
        assert!(answer_all(&mut [0xff; 8].as_slice(), &mut Vec::new()).is_err());
    }
}
