//! Who may come in: the file that `server.ssh_authorized_keys` names, in the format of OpenSSH's `authorized_keys`.
//!
//! - A line is `[OPTIONS] TYPE BASE64 [COMMENT]`. The person is the option `name="..."`, else the comment, else the key's
//!   fingerprint. With the option `read-only` a key may not push.
//! - Options that only take away what is never given here (`restrict`, `no-pty`, ...) are accepted. A line with any other
//!   option, such as `from=` or `command=`, or that cannot be read is left out and logged: a key must not get more than its
//!   line says. So are keys of security devices: whether one was touched, or its owner known to it, is not checked here.
//! - Blanks are spaces and tabs. A line that is not UTF-8 is left out as well; a byte order mark is not part of the first.
//! - The file is looked at for each login, so a key that is taken out cannot come in any more; connections that are open
//!   go on. A file that cannot be read lets nobody in.
//!
//! Source: OpenSSH's `sshd(8)`, "AUTHORIZED_KEYS FILE FORMAT".

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use russh::keys::{Algorithm, HashAlg, PublicKey};

/// Some ten thousand keys.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// A name's longest part that is kept, in characters.
const NAME_LEN_MAX: usize = 100;

/// A file that was written less than this before it was read may change again without its time showing it.
const TIME_STEP: Duration = Duration::from_secs(2);

pub(crate) const BLANKS: &[char] = &[' ', '\t'];

/// What takes away what nobody has here.
const HARMLESS: [&str; 6] =
    ["restrict", "no-pty", "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc"];

/// Whose key it is, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    /// The name that pushes are recorded under.
    pub(super) name: Arc<str>,
    /// Whether the key may push.
    pub(super) may_write: bool,
}

/// People by the fingerprints of their keys.
type People = HashMap<String, Person>;

/// The file, and what was last read of it.
pub(super) struct AuthorizedKeys {
    path: PathBuf,
    read: Mutex<Option<ReadFile>>,
}

struct ReadFile {
    stamp: Stamp,
    /// Whether the file was old enough that any later change shows in its stamp.
    is_settled: bool,
    /// What was wrong with it, as it was logged.
    complaints: Vec<String>,
    people: Arc<People>,
}

/// What tells a file from its next version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl AuthorizedKeys {
    /// Reads the file once. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let keys = Self { path, read: Mutex::new(None) };
        let count = keys.people()?.len();
        tracing::info!(path = %keys.path.display(), keys = count, "SSH keys that may come in");
        Ok(keys)
    }

    /// Whose key this is, as the file is now; `None` if nobody's. Blocks.
    pub(super) fn find(&self, key: &PublicKey) -> Option<Person> {
        match self.people() {
            Ok(people) => people.get(&fingerprint(key)).cloned(),
            Err(error) => {
                let path = self.path.display();
                tracing::error!(%path, %error, "nobody can log in: the file cannot be read (server.ssh_authorized_keys)");
                None
            }
        }
    }

    fn people(&self) -> io::Result<Arc<People>> {
        let mut read = self.read.lock();
        let now = Stamp::of(&std::fs::metadata(&self.path)?);
        if let Some(read) = read.as_ref().filter(|read| read.is_settled && read.stamp == now) {
            return Ok(Arc::clone(&read.people));
        }
        let file = File::open(&self.path)?;
        let metadata = file.metadata()?;
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {FILE_BYTES_MAX} bytes"),
            ));
        }
        let (people, complaints) = parse(&text);
        if read.as_ref().is_none_or(|read| read.complaints != complaints) {
            for complaint in &complaints {
                tracing::warn!(path = %self.path.display(), "{complaint}: the line is left out");
            }
        }
        let is_settled = metadata
            .modified()
            .is_ok_and(|modified| SystemTime::now().duration_since(modified).is_ok_and(|age| age > TIME_STEP));
        let people = Arc::new(people);
        *read = Some(ReadFile { stamp: Stamp::of(&metadata), is_settled, complaints, people: Arc::clone(&people) });
        Ok(people)
    }
}

/// What tells a key from all others.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Whether a security device holds the key.
pub(super) fn is_of_device(key: &PublicKey) -> bool {
    matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

/// The people of a file's text, and what is wrong with it, line by line.
fn parse(text: &[u8]) -> (People, Vec<String>) {
    let mut people = People::new();
    let mut complaints = Vec::new();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let parsed = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()).and_then(parse_line);
        match parsed {
            Ok((key, person)) => match people.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(person);
                }
                Entry::Occupied(_) => complaints.push(format!("line {}: the key stands above already", index + 1)),
            },
            Err(reason) => complaints.push(format!("line {}: {reason}", index + 1)),
        }
    }
    (people, complaints)
}

fn parse_line(line: &str) -> Result<(String, Person), String> {
    let (options, (key, comment)) = match parse_key(line) {
        Ok(parsed) => ("", parsed),
        Err(error) => {
            let cannot_be_read = || format!("the key cannot be read: {error}");
            let (options, rest) = split_outside_quotes(line, BLANKS).ok_or_else(cannot_be_read)?;
            (options, parse_key(rest).map_err(|_| cannot_be_read())?)
        }
    };
    if is_of_device(&key) {
        return Err("keys of security devices are not taken".to_owned());
    }
    let mut person = Person { name: Arc::from(""), may_write: true };
    let mut rest = options;
    while !rest.is_empty() {
        let (option, after) = split_outside_quotes(rest, &[',']).unwrap_or((rest, ""));
        rest = after;
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        match (name.to_ascii_lowercase().as_str(), value) {
            ("name", Some(value)) => person.name = unquoted(value).into(),
            ("read-only", None) => person.may_write = false,
            (name, None) if HARMLESS.contains(&name) => {}
            _ => return Err(format!("the option '{name}' is not known here")),
        }
    }
    let key_id = fingerprint(&key);
    let name = [&*person.name, comment, key_id.as_str()].map(shown).into_iter().find(|name| !name.is_empty());
    person.name = name.unwrap_or_default().into();
    Ok((key_id, person))
}

/// A key and its comment.
pub(crate) fn parse_key(text: &str) -> Result<(PublicKey, &str), russh::keys::ssh_key::Error> {
    let word = |text: &str| text.find(BLANKS).unwrap_or(text.len());
    let text = text.trim_matches(BLANKS);
    let (kind, rest) = text.split_at(word(text));
    let rest = rest.trim_start_matches(BLANKS);
    let (data, comment) = rest.split_at(word(rest));
    Ok((PublicKey::from_openssh(&format!("{kind} {data}"))?, comment))
}

/// Splits at the first of these separators outside of quotes.
pub(crate) fn split_outside_quotes<'a>(text: &'a str, separators: &[char]) -> Option<(&'a str, &'a str)> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            c if separators.contains(&c) && !is_quoted => {
                let (before, after) = text.split_at(at);
                return Some((before, after.strip_prefix(separators).unwrap_or(after)));
            }
            _ => {}
        }
    }
    None
}

pub(crate) fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    inner.replace("\\\"", "\"")
}

/// A name on one line and of bounded length.
fn shown(name: &str) -> String {
    let name = name.trim().chars().map(|c| if c == '\t' { ' ' } else { c });
    let clean: String = name.filter(|c| !c.is_control()).take(NAME_LEN_MAX).collect();
    clean.trim().to_owned()
}

/// Takes any bytes as a file; how many people it names.
pub(super) fn fuzz(data: &[u8]) -> usize {
    let (people, complaints) = parse(data);
    for person in people.values() {
        let is_shown = !person.name.is_empty() && person.name.chars().count() <= NAME_LEN_MAX;
        assert!(is_shown && !person.name.contains(char::is_control), "a name is a line of a log");
    }
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(people.len() + complaints.len() <= lines, "each line is one or the other");
    people.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const BOB: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn person(line: &str) -> Result<(String, bool), String> {
        parse_line(line).map(|(_, person)| (person.name.to_string(), person.may_write))
    }

    #[test]
    fn a_person_is_the_option_or_the_comment_or_the_key() {
        let named = |name: &str| Ok((name.to_owned(), true));
        assert_eq!(person(&format!("{ADA} ada@example.com")), named("ada@example.com"));
        assert_eq!(person(&format!("{ADA} Ada of  the Analytical Engine")), named("Ada of  the Analytical Engine"));
        assert_eq!(person(&format!("name=\"Ada Lovelace, Countess\" {ADA} laptop")), named("Ada Lovelace, Countess"));
        assert_eq!(person(&format!("restrict,name=ada {ADA}")), named("ada"));
        assert!(person(ADA).unwrap().0.starts_with("SHA256:"));
        assert!(person(&format!("name=\"\u{7}\" {ADA}")).unwrap().0.starts_with("SHA256:"));
        assert_eq!(person(&format!("{ADA} {}", "a".repeat(500))).unwrap().0.len(), NAME_LEN_MAX);
    }

    #[test]
    fn a_key_gets_no_more_than_its_line_says() {
        assert_eq!(person(&format!("read-only,no-pty {ADA} ci")), Ok(("ci".to_owned(), false)));
        for options in [
            "from=\"10.0.0.1\"",
            "command=\"ls -l\",restrict",
            "cert-authority",
            "expiry-time=\"20200101\"",
            "Read-Only=no",
        ] {
            let reason = person(&format!("{options} {ADA} ci")).expect_err(options);
            assert!(reason.contains("option"), "{options}: {reason}");
        }
        for bad in ["ssh-ed25519", "ssh-ed25519 AAAA x", "hello world and more", "name=\"open ssh-ed25519 AAAA"] {
            assert!(person(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_the_rest_holds() {
        let text = format!("# people\n\n{ADA} ada\nnonsense\n{ADA} again\n  {BOB} bob\n");
        let (people, complaints) = parse(text.as_bytes());
        let mut names: Vec<&str> = people.values().map(|person| &*person.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["ada", "bob"]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("line 4:") && complaints[1].starts_with("line 5:"), "{complaints:?}");
    }

    #[test]
    fn a_line_that_is_no_text_takes_no_other_with_it() {
        let text = [b"\xef\xbb\xbf", ADA.as_bytes(), b" ada\r\n", BOB.as_bytes(), b" Ren\xe9\n# Ren\xe9\n"].concat();
        let (people, complaints) = parse(&text);
        assert_eq!(people.into_values().map(|person| person.name.to_string()).collect::<Vec<_>>(), ["ada"]);
        assert_eq!(complaints, ["line 2: it is not UTF-8"]);
    }

    #[test]
    fn tabs_are_blanks() {
        let (kind, data) = ADA.split_once(' ').unwrap();
        let named = |name: &str| Ok((name.to_owned(), true));
        assert_eq!(person(&format!("{kind}\t{data}\tAda\tLovelace")), named("Ada Lovelace"));
        assert_eq!(person(&format!("restrict,name=\"Ada L\"\t{kind} \t {data} laptop")), named("Ada L"));
    }

    #[test]
    fn keys_of_security_devices_are_left_out() {
        let key =
            "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo=";
        for line in
            [format!("sk-ssh-ed25519@openssh.com {key} ada"), format!("restrict sk-ssh-ed25519@openssh.com {key}")]
        {
            assert!(person(&line).unwrap_err().contains("security devices"), "{line}");
        }
    }

    #[test]
    fn a_changed_file_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("{ADA} ada\n")).unwrap();
        let keys = AuthorizedKeys::open(path.clone()).unwrap();
        let (ada, bob) = (PublicKey::from_openssh(ADA).unwrap(), PublicKey::from_openssh(BOB).unwrap());
        assert_eq!(keys.find(&ada).map(|person| person.name.to_string()), Some("ada".to_owned()));
        assert_eq!(keys.find(&bob), None);
        // Of the same length, and within the same step of the file's clock.
        std::fs::write(&path, format!("{BOB} bob\n")).unwrap();
        assert_eq!(keys.find(&ada), None);
        assert!(keys.find(&bob).is_some());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(keys.find(&bob), None, "a file that is gone lets nobody in");
        assert!(AuthorizedKeys::open(path).is_err());
    }
}
