//! Who may sign pushes: the file that `git.allowed_signers` names, in the format of git's `gpg.ssh.allowedSignersFile`.
//!
//! - A line is `PRINCIPALS [OPTIONS] TYPE BASE64 [COMMENT]`. What verified certificates are recorded under are the principals,
//!   as they stand.
//! - Of the options there are `namespaces="..."`, which must take `git` in, `valid-after="..."` and `valid-before="..."`, whose
//!   times are UTC with or without the `Z` behind them. A line with any other option (`cert-authority`), or that cannot be read, is left out and logged.
//! - The file is read for each signed push, so that a key that is taken out is good for no further one. When it cannot be
//!   read, nobody may sign.
//!
//! Source: `ssh-keygen(1)`, "ALLOWED SIGNERS".

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use russh::keys::PublicKey;

use super::signature::NAMESPACE;
use crate::ssh::{BLANKS, parse_key, split_outside_quotes, unquoted};

/// Some ten thousand keys.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The longest name that is recorded, in characters.
const NAME_LEN_MAX: usize = 200;

/// The file.
pub(super) struct AllowedSigners {
    path: PathBuf,
    /// What was wrong with it, as it was logged.
    complaints: Mutex<Vec<String>>,
}

/// A key that may sign.
#[derive(Debug, PartialEq, Eq)]
struct Signer {
    principals: String,
    key: PublicKey,
    /// In seconds since the epoch.
    valid_after: Option<i64>,
    valid_before: Option<i64>,
}

impl AllowedSigners {
    /// Reads the file once. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let signers = Self { path, complaints: Mutex::default() };
        let count = signers.read()?.len();
        tracing::info!(path = %signers.path.display(), keys = count, "keys that may sign pushes");
        Ok(signers)
    }

    /// Whose key this is that may sign at a time in seconds since the epoch; `None` if nobody's. Blocks.
    pub(super) fn find(&self, key: &PublicKey, now_seconds: i64) -> Option<String> {
        let signers = self.read().unwrap_or_else(|error| {
            let path = self.path.display();
            tracing::error!(%path, %error, "nobody may sign pushes: the file cannot be read (git.allowed_signers)");
            Vec::new()
        });
        let is_valid = |signer: &Signer| {
            signer.valid_after.is_none_or(|after| now_seconds >= after)
                && signer.valid_before.is_none_or(|before| now_seconds <= before)
        };
        let mut found = signers.into_iter().filter(|signer| signer.key.key_data() == key.key_data());
        found.find(is_valid).map(|signer| signer.principals)
    }

    fn read(&self) -> io::Result<Vec<Signer>> {
        let mut text = Vec::new();
        File::open(&self.path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            let text = format!("it has more than {FILE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let (signers, complaints) = parse(&text);
        let mut logged = self.complaints.lock();
        if *logged != complaints {
            for complaint in &complaints {
                tracing::warn!(path = %self.path.display(), "{complaint}: the line is left out");
            }
            *logged = complaints;
        }
        Ok(signers)
    }
}

/// The keys of a file's text, and what is wrong with it, line by line.
fn parse(text: &[u8]) -> (Vec<Signer>, Vec<String>) {
    let (mut signers, mut complaints) = (Vec::new(), Vec::new());
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()).and_then(parse_line) {
            Ok(Some(signer)) => signers.push(signer),
            Ok(None) => {}
            Err(reason) => complaints.push(format!("line {}: {reason}", index + 1)),
        }
    }
    (signers, complaints)
}

/// A line; `None` if its key is not for git.
fn parse_line(line: &str) -> Result<Option<Signer>, String> {
    let (principals, rest) = split_outside_quotes(line, BLANKS).ok_or("there is no key")?;
    let rest = rest.trim_start_matches(BLANKS);
    let (options, (key, _comment)) = match parse_key(rest) {
        Ok(parsed) => ("", parsed),
        Err(error) => {
            let cannot_be_read = || format!("the key cannot be read: {error}");
            let (options, rest) = split_outside_quotes(rest, BLANKS).ok_or_else(cannot_be_read)?;
            (options, parse_key(rest).map_err(|_| cannot_be_read())?)
        }
    };
    let principals: String = unquoted(principals).chars().filter(|c| !c.is_control()).take(NAME_LEN_MAX).collect();
    if principals.is_empty() {
        return Err("it names nobody".to_owned());
    }
    let mut signer = Signer { principals, key, valid_after: None, valid_before: None };
    let mut is_for_git = true;
    let mut seen = Vec::new();
    let mut rest = options;
    while !rest.is_empty() {
        let (option, after) = split_outside_quotes(rest, &[',']).unwrap_or((rest, ""));
        rest = after;
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(unquoted(value))));
        let name = name.to_ascii_lowercase();
        if seen.contains(&name) {
            return Err(format!("the option '{name}' comes twice"));
        }
        match (name.as_str(), value) {
            ("namespaces", Some(patterns)) => is_for_git = takes(&patterns, NAMESPACE),
            ("valid-after", Some(text)) => signer.valid_after = Some(time(&text)?),
            ("valid-before", Some(text)) => signer.valid_before = Some(time(&text)?),
            _ => return Err(format!("the option '{name}' is not known here")),
        }
        seen.push(name);
    }
    Ok(is_for_git.then_some(signer))
}

/// Whether a list of patterns takes a word: one of them fits, and none with `!` in front does.
fn takes(patterns: &str, word: &str) -> bool {
    let mut fits_any = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits(pattern.as_bytes(), word.as_bytes()) => return false,
            Some(_) => {}
            None => fits_any |= fits(pattern.as_bytes(), word.as_bytes()),
        }
    }
    fits_any
}

/// Whether a pattern with `*` and `?` fits a word.
fn fits(pattern: &[u8], word: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where the last star was, and how much of the word it had taken.
    let mut star = None;
    while from < word.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == word.get(from) => (at, from) = (at + 1, from + 1),
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, from) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with or without `Z`, in seconds since the epoch.
fn time(text: &str) -> Result<i64, String> {
    let wrong = || format!("'{text}' is not a time such as 20240131 or 20240131235959Z");
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| digits.get(from..to).map_or(Ok(0), str::parse::<i16>).map_err(|_| wrong());
    let small = |from| i8::try_from(number(from, from + 2)?).map_err(|_| wrong());
    let date = Date::new(number(0, 4)?, small(4)?, small(6)?).map_err(|_| wrong())?;
    let moment = jiff::civil::Time::new(small(8)?, small(10)?, small(12)?, 0).map_err(|_| wrong())?;
    let zoned = date.to_datetime(moment).to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
    Ok(zoned.timestamp().as_second())
}

/// Takes any bytes as a file; how many keys it has that may sign.
pub(crate) fn fuzz(data: &[u8]) -> usize {
    let (signers, _complaints) = parse(data);
    for signer in &signers {
        let is_shown = !signer.principals.is_empty() && signer.principals.chars().count() <= NAME_LEN_MAX;
        assert!(is_shown && !signer.principals.contains(char::is_control), "a name is a line of a log");
    }
    signers.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const BOB: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    type Named = (String, Option<i64>, Option<i64>);

    fn one(line: &str) -> Result<Option<Named>, String> {
        let parsed = parse_line(line)?;
        Ok(parsed.map(|signer| (signer.principals, signer.valid_after, signer.valid_before)))
    }

    #[test]
    fn a_line_says_who_and_when() {
        let named = |name: &str, after, before| Ok(Some((name.to_owned(), after, before)));
        assert_eq!(one(&format!("ada@example.org {ADA} laptop")), named("ada@example.org", None, None));
        assert_eq!(one(&format!("a@x,*@y\t {ADA}")), named("a@x,*@y", None, None));
        assert_eq!(one(&format!("\"Ada Lovelace\" {ADA}")), named("Ada Lovelace", None, None));
        let line = format!("a namespaces=\"file,git\",valid-after=\"20240101\",valid-before=\"202401311200Z\" {ADA} c");
        assert_eq!(one(&line), named("a", Some(1_704_067_200), Some(1_706_702_400)));
        assert_eq!(one(&format!("a Valid-Before=20240101000001 {ADA}")), named("a", None, Some(1_704_067_201)));
        for other in ["file", "file,!git,*", "", "g?"] {
            assert_eq!(one(&format!("a namespaces=\"{other}\" {ADA}")), Ok(None), "{other}");
        }
        for git in ["*", "g*t", "gi?", "x,git"] {
            assert!(one(&format!("a namespaces=\"{git}\" {ADA}")).is_ok_and(|found| found.is_some()), "{git}");
        }
    }

    #[test]
    fn what_is_not_understood_gives_nobody_anything() {
        for options in [
            "cert-authority",
            "valid-after=\"2024\"",
            "valid-after=\"20241301\"",
            "valid-before=soon",
            "namespaces",
            "namespaces=\"file\",Namespaces=\"git\"",
            "x=1",
        ] {
            assert!(one(&format!("a {options} {ADA}")).is_err(), "{options}");
        }
        for bad in ["a", "a ssh-ed25519", "a ssh-ed25519 AAAA", "\"\" ssh-ed25519 x", ADA] {
            assert!(one(bad).is_err(), "{bad}");
        }
        let (signers, complaints) = parse(format!("# x\n\nbad\na {ADA}\r\n\u{feff}\nb {BOB}").as_bytes());
        assert_eq!(signers.iter().map(|signer| &*signer.principals).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("line 3:") && complaints[1].starts_with("line 5:"), "{complaints:?}");
    }

    #[test]
    fn a_key_may_sign_while_its_line_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signers");
        let text = format!("a valid-before=\"19700101000010Z\" {ADA}\nb valid-after=\"19700101000020Z\" {ADA}\n");
        std::fs::write(&path, text).unwrap();
        let signers = AllowedSigners::open(path.clone()).unwrap();
        let (ada, bob) = (PublicKey::from_openssh(ADA).unwrap(), PublicKey::from_openssh(BOB).unwrap());
        let at = |seconds| signers.find(&ada, seconds);
        assert_eq!((at(10).as_deref(), at(11), at(19), at(20).as_deref()), (Some("a"), None, None, Some("b")));
        assert_eq!(signers.find(&bob, 10), None);
        std::fs::write(&path, format!("bob {BOB}\n")).unwrap();
        assert_eq!((at(10), signers.find(&bob, 10).as_deref()), (None, Some("bob")));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(signers.find(&bob, 10), None, "a file that is gone lets nobody sign");
        assert!(AllowedSigners::open(path).is_err());
    }
}
