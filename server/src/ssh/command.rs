//! What a client asks to be executed: one of Git's services, or where Git LFS is, and a repository, quoted as for a shell that is not there.
//!
//! Source: git's `connect.c`, `quote.c` (`sq_quote_buf`): the path is in single quotes, with `'\''` and `'\!'` inside.

use super::lfs::Operation;
use crate::git::Service;

/// Where Git LFS is.
pub(super) const LFS: &str = "git-lfs-authenticate";

/// Longer than any name, however quoted.
const LEN_MAX: usize = 4096;

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Git(Service),
    /// `git-lfs-authenticate`.
    Lfs(Operation),
}

/// Something that is served, and the path that it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) program: Program,
    pub(super) path: String,
}

/// Reads a command.
///
/// # Errors
/// The reason, for the client, when it is nothing that is served, or not with one path.
pub(super) fn parse(line: &[u8]) -> Result<Command, String> {
    if line.len() > LEN_MAX {
        return Err("the command is too long".to_owned());
    }
    let text = std::str::from_utf8(line).map_err(|_| "the command is not UTF-8".to_owned())?;
    let words = words(text).ok_or_else(|| "the command has a quote without end".to_owned())?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, arguments) = match &words[..] {
        ["git", name, arguments @ ..] => (format!("git-{name}"), arguments),
        [name, arguments @ ..] => ((*name).to_owned(), arguments),
        [] => (String::new(), &[][..]),
    };
    if name == LFS {
        return match arguments {
            // Older clients name an object as well.
            [path, operation] | [path, operation, _] if !path.is_empty() => match Operation::from_name(operation) {
                Some(operation) => Ok(Command { program: Program::Lfs(operation), path: (*path).to_owned() }),
                None => Err(format!("{LFS} is for download or upload")),
            },
            _ => Err(format!("{LFS} needs the path of a repository, and download or upload")),
        };
    }
    let Some(service) = Service::from_name(&name) else {
        let shown: String = name.chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
        return Err(format!("'{shown}' is not served here; git-upload-pack and git-receive-pack are"));
    };
    match arguments {
        [path] if !path.is_empty() => Ok(Command { program: Program::Git(service), path: (*path).to_owned() }),
        [] | [_] => Err(format!("{service} needs the path of a repository")),
        _ => Err(format!("{service} takes one path and no options")),
    }
}

/// Splits as a shell would, without ever expanding anything; `None` for a quote that does not end.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => match letters.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(letters.next()?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, service: Service, path: &str) {
        let program = Program::Git(service);
        assert_eq!(parse(line.as_bytes()), Ok(Command { program, path: path.to_owned() }), "{line}");
    }

    #[test]
    fn what_clients_send_is_understood() {
        check("git-upload-pack 'ada/hello.git'", Service::UploadPack, "ada/hello.git");
        check("git-upload-pack '/ada/hello.git'", Service::UploadPack, "/ada/hello.git");
        check("git upload-pack '/ada/hello'", Service::UploadPack, "/ada/hello");
        check("git-receive-pack ada/hello", Service::ReceivePack, "ada/hello");
        check("  git  receive-pack\t\"ada/hello\" ", Service::ReceivePack, "ada/hello");
        check(r"git-upload-pack 'it'\''s'\!", Service::UploadPack, "it's!");
        check(r#"git-upload-pack "a\"b\c" "#, Service::UploadPack, r#"a"b\c"#);
        check(r"git-upload-pack two\ words", Service::UploadPack, "two words");
        check("git-upload-pack '$(reboot); `reboot` *'", Service::UploadPack, "$(reboot); `reboot` *");
    }

    #[test]
    fn git_lfs_asks_where_it_is() {
        for (line, operation) in [
            ("git-lfs-authenticate '/ada/hello.git' download", Operation::Download),
            ("git-lfs-authenticate /ada/hello.git upload", Operation::Upload),
            ("git-lfs-authenticate '/ada/hello.git' 'upload' 'oid'", Operation::Upload),
        ] {
            let command = Command { program: Program::Lfs(operation), path: "/ada/hello.git".to_owned() };
            assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        let cases = [
            ("", "not served"),
            ("ls", "'ls' is not served"),
            ("git", "'git' is not served"),
            ("git-upload-archive 'x'", "git-upload-archive"),
            ("git upload-pack", "needs the path"),
            ("git-upload-pack ''", "needs the path"),
            ("git-upload-pack --strict x", "one path"),
            ("git-upload-pack x; reboot", "one path"),
            ("git-upload-pack 'x", "quote without end"),
            ("git-upload-pack \"x", "quote without end"),
            ("git-upload-pack x\\", "quote without end"),
            ("/bin/git-upload-pack x", "not served"),
            ("git-lfs-transfer x upload", "not served"),
            ("git-lfs-authenticate", "needs the path"),
            ("git-lfs-authenticate x", "needs the path"),
            ("git-lfs-authenticate '' upload", "needs the path"),
            ("git-lfs-authenticate x verify", "download or upload"),
            ("git-lfs-authenticate x upload 1 2", "needs the path"),
        ];
        for (line, words) in cases {
            let reason = parse(line.as_bytes()).expect_err(line);
            assert!(reason.contains(words), "{line}: {reason}");
        }
        assert!(parse(&[b'a'; LEN_MAX + 1]).is_err());
        assert!(parse(b"git-upload-pack \xff").is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_git_quotes_comes_back(path in "[^\u{0}]{1,60}") {
            let quoted = path.replace('\'', r"'\''").replace('!', r"'\!'");
            let line = format!("git-receive-pack '{quoted}'");
            assert_eq!(parse(line.as_bytes()).map(|command| command.path), Ok(path));
        }
    }
}
