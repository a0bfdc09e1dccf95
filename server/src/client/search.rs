//! `govc search`: asks a server and prints what it found, as grep does.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::ask::{SERVER_DEFAULT, get};

/// Nothing was found; as with grep.
const EXIT_NOTHING: u8 = 1;
/// The query was refused, or the server not reached.
const EXIT_FAILURE: u8 = 2;
/// What stands for itself in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const PATH: &str = "\x1b[35m";
const NUMBER: &str = "\x1b[32m";
const MATCH: &str = "\x1b[1;31m";
const RESET: &str = "\x1b[0m";

/// `govc search`
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// The query: words, "phrases", /regexes/, AND OR NOT - ( ), repo: path: lang: sym: rev: type: and more; several
    /// arguments are joined by spaces; one that begins with - stands behind --
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,

    /// The server
    #[arg(long, value_name = "URL", default_value = SERVER_DEFAULT)]
    server: String,

    /// Search this repository only; may be given several times
    #[arg(long, value_name = "REPO")]
    repo: Vec<String>,

    /// How many files, or commits, are shown of each search
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,

    /// How many lines are shown of each file
    #[arg(long, value_name = "N", default_value_t = 10)]
    lines: usize,

    /// How many lines are shown around each
    #[arg(long, short = 'C', value_name = "N", default_value_t = 0)]
    context: usize,

    /// Print the server's answers as they are, one a line
    #[arg(long)]
    json: bool,

    /// Whether to use colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// If the output is a terminal.
    Auto,
    Always,
    Never,
}

impl SearchArgs {
    /// Runs the command: 0 if something was found, 1 if nothing, 2 if it could not be asked.
    pub(crate) fn run(self) -> ExitCode {
        let mut total = 0;
        for url in self.urls() {
            let answer = match get(&url) {
                Ok(answer) => answer,
                Err(message) => {
                    eprintln!("govc: {message}");
                    return ExitCode::from(EXIT_FAILURE);
                }
            };
            total += answer["total_commits"].as_u64().or(answer["total_files"].as_u64()).unwrap_or(0);
            let text = if self.json { format!("{answer}\n") } else { self.text(&answer) };
            // Nobody needs to read it to the end.
            if io::stdout().write_all(text.as_bytes()).is_err() {
                break;
            }
        }
        if total > 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOTHING) }
    }

    fn urls(&self) -> Vec<String> {
        let server = self.server.trim_end_matches('/');
        let query = self.query.join(" ");
        let encode = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
        let rest = format!("q={}&limit={}&lines={}&context={}", encode(&query), self.limit, self.lines, self.context);
        if self.repo.is_empty() {
            return vec![format!("{server}/api/v1/search?{rest}")];
        }
        let of_repo = |repo: &String| format!("{server}/api/v1/repos/{}/search/content?{rest}", encode(repo));
        self.repo.iter().map(of_repo).collect()
    }

    fn text(&self, answer: &Value) -> String {
        let is_colored = match self.color {
            Color::Auto => io::stdout().is_terminal(),
            Color::Always => true,
            Color::Never => false,
        };
        let mut text = Printer { text: String::new(), is_colored };
        for result in answer["results"].as_array().into_iter().flatten() {
            if result["path"].is_string() { text.file(result) } else { text.commit(result) }
        }
        text.summary(answer);
        text.text
    }
}

/// What is printed, with or without colours.
struct Printer {
    text: String,
    is_colored: bool,
}

impl Printer {
    fn colored(&mut self, color: &str, text: &str) {
        // Writing to a text cannot fail.
        let _ = match self.is_colored {
            true => write!(self.text, "{color}{}{RESET}", printable(text)),
            false => write!(self.text, "{}", printable(text)),
        };
    }

    fn plain(&mut self, text: &str) {
        self.text.push_str(&printable(text));
    }

    fn file(&mut self, file: &Value) {
        let field = |name: &str| file[name].as_str().unwrap_or_default();
        self.colored(PATH, &format!("{}:{}", field("repo"), field("path")));
        self.plain("\n");
        let mut last = 0;
        for line in file["lines"].as_array().into_iter().flatten() {
            let number = line["line_number"].as_u64().unwrap_or(0);
            let around = |name: &str| line[name].as_array().into_iter().flatten().filter_map(Value::as_str);
            let before = around("before").count() as u64;
            for (neighbour, at) in around("before").zip(number.saturating_sub(before)..) {
                // Neighbours of neighbours are shown once.
                if at > last {
                    self.neighbour(at, neighbour);
                }
            }
            if number > last {
                self.line(number, line);
                last = number;
            }
            for (neighbour, at) in around("after").zip(number + 1..) {
                if at > last && !is_match(file, at) {
                    self.neighbour(at, neighbour);
                    last = at;
                }
            }
        }
        self.plain("\n");
    }

    fn neighbour(&mut self, number: u64, content: &str) {
        self.colored(NUMBER, &number.to_string());
        self.plain("-");
        self.plain(content);
        self.plain("\n");
    }

    fn line(&mut self, number: u64, line: &Value) {
        self.colored(NUMBER, &number.to_string());
        self.plain(":");
        let content = line["content"].as_str().unwrap_or_default();
        self.highlighted(content, &line["matches"]);
        self.plain("\n");
    }

    fn highlighted(&mut self, content: &str, matches: &Value) {
        let mut done = 0;
        for span in matches.as_array().into_iter().flatten() {
            let bound = |name: &str| span[name].as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
            let (start, end) = (bound("start"), bound("end"));
            let (Some(between), Some(found)) = (content.get(done..start), content.get(start..end)) else { continue };
            self.plain(between);
            self.colored(MATCH, found);
            done = end;
        }
        self.plain(content.get(done..).unwrap_or_default());
    }

    fn commit(&mut self, commit: &Value) {
        let field = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        self.colored(PATH, &format!("{}:{}", field(commit, "repo"), field(commit, "hash")));
        let author = &commit["author"];
        self.plain(&format!("  {} <{}>  {}\n", field(author, "name"), field(author, "email"), field(author, "date")));
        let message = field(commit, "message");
        let mut with_margin = String::new();
        message.trim_end().lines().for_each(|line| {
            let _ = writeln!(with_margin, "    {line}");
        });
        self.plain(&with_margin);
        self.plain("\n");
        for file in commit["files"].as_array().into_iter().flatten() {
            self.changed_file(file);
        }
    }

    /// A file of a commit whose changes match.
    fn changed_file(&mut self, file: &Value) {
        self.colored(PATH, file["path"].as_str().unwrap_or_default());
        self.plain("\n");
        for line in file["lines"].as_array().into_iter().flatten() {
            self.plain(line["sign"].as_str().unwrap_or_default());
            self.colored(NUMBER, &line["line_number"].as_u64().unwrap_or(0).to_string());
            self.plain(":");
            self.highlighted(line["content"].as_str().unwrap_or_default(), &line["matches"]);
            self.plain("\n");
        }
        self.plain("\n");
    }

    fn summary(&mut self, answer: &Value) {
        let (count, what) = match answer["total_commits"].as_u64() {
            Some(count) => (count, if count == 1 { "commit" } else { "commits" }),
            None => {
                let count = answer["total_files"].as_u64().unwrap_or(0);
                (count, if count == 1 { "file" } else { "files" })
            }
        };
        let least = if answer["exact"].as_bool() == Some(true) { "" } else { "at least " };
        let partial = answer["partial"]["detail"].as_str().map(|detail| format!("; {detail}")).unwrap_or_default();
        let skipped = match answer["skipped_files"].as_u64() {
            Some(files) => format!("; {files} changed files are binary or too large to be compared"),
            None => String::new(),
        };
        let took = answer["took_ms"].as_f64().unwrap_or(0.0);
        self.plain(&format!("{least}{count} {what} in {took:.1} ms{partial}{skipped}\n"));
    }
}

/// Whether a line of a file is itself shown as a match.
fn is_match(file: &Value, number: u64) -> bool {
    file["lines"].as_array().into_iter().flatten().any(|line| line["line_number"].as_u64() == Some(number))
}

/// Without what would steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Printer, printable};

    #[test]
    fn matches_stand_out_and_neighbours_come_once() {
        let file = json!({"repo": "a/b", "path": "src/x.rs", "lines": [
            {"line_number": 2, "content": "let foo = 1;", "matches": [{"start": 4, "end": 7}], "before": ["one"], "after": ["foo"]},
            {"line_number": 3, "content": "foo", "matches": [{"start": 0, "end": 3}], "before": ["let foo = 1;"], "after": ["four"]},
        ]});
        let mut printer = Printer { text: String::new(), is_colored: false };
        printer.file(&file);
        assert_eq!(printer.text, "a/b:src/x.rs\n1-one\n2:let foo = 1;\n3:foo\n4-four\n\n");
        let mut printer = Printer { text: String::new(), is_colored: true };
        printer.highlighted("a foo b", &json!([{"start": 2, "end": 5}, {"start": 100, "end": 200}]));
        assert_eq!(printer.text, "a \x1b[1;31mfoo\x1b[0m b");
    }

    #[test]
    fn changes_have_their_signs() {
        let commit = json!({"repo": "a/b", "hash": "12ab", "message": "Change\n",
        "author": {"name": "Ann", "email": "a@b", "date": "2026-01-02T03:04:05+00:00"},
        "files": [{"path": "x.rs", "lines": [
            {"sign": "-", "line_number": 7, "content": "old", "matches": []},
            {"sign": "+", "line_number": 8, "content": "new", "matches": [{"start": 0, "end": 3}]},
        ]}]});
        let mut printer = Printer { text: String::new(), is_colored: false };
        printer.commit(&commit);
        printer.summary(&json!({"total_commits": 1, "total_files": 2, "exact": true, "took_ms": 0.25}));
        let expected = "a/b:12ab  Ann <a@b>  2026-01-02T03:04:05+00:00\n    Change\n\nx.rs\n-7:old\n+8:new\n\n1 commit in 0.2 ms\n";
        assert_eq!(printer.text, expected);
    }

    #[test]
    fn contents_do_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\r"), "a\u{fffd}[2Jb\tc\u{fffd}");
    }
}
