//! govc, asked over HTTP: pages, exhaustive counts, and how its index is doing.

use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::grep::Counts;
use crate::error::{Context, Error, Result};
use crate::http::Client;
use crate::report::median;
use crate::server::Govc;
use crate::subject::Subject;

/// How long the index may take.
const INDEX_MAX: Duration = Duration::from_secs(1800);

/// One connection to a server that searches one repository.
pub(super) struct Searcher {
    client: Client,
    repository: String,
}

/// The median of some runs, in milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    /// From the request to the last byte of the answer.
    pub(super) http: f64,
    /// What the answer itself says.
    pub(super) said: f64,
}

/// The part of an answer that counts.
#[derive(Deserialize)]
struct Totals {
    total_files: u64,
    total_matches: u64,
    exact: bool,
    partial: Option<serde_json::Value>,
}

/// What the server says of its index.
#[derive(Deserialize)]
pub(super) struct Statistics {
    state: String,
    behind: u64,
    rebuilding: bool,
    rebuilds: u64,
    history_commits: u64,
    messages: u64,
    symbols_complete: bool,
    pub(super) text_bytes: u64,
    pub(super) index_bytes: u64,
}

impl Statistics {
    fn is_current(&self) -> bool {
        self.state == "following" && self.behind == 0 && !self.rebuilding
    }
}

impl Searcher {
    pub(super) fn connect(server: &Govc, repository: &str) -> Result<Searcher> {
        Ok(Searcher { client: Client::connect(server.address())?, repository: repository.to_owned() })
    }

    /// The first page of 50 files; its text.
    pub(super) fn page(&mut self, query: &str) -> Result<String> {
        let path = self.path(query, 50);
        self.client.get_text(&path)
    }

    /// How long a page takes.
    pub(super) fn time_page(&mut self, query: &str, runs: u32) -> Result<Taken> {
        let path = self.path(query, 50);
        self.time(&path, runs)
    }

    /// How long it takes to count all.
    pub(super) fn time_count(&mut self, query: &str, runs: u32) -> Result<Taken> {
        let path = self.path(&format!("{query} count:all"), 50);
        self.time(&path, runs)
    }

    /// All files and matches.
    pub(super) fn count(&mut self, query: &str) -> Result<Counts> {
        let path = self.path(&format!("{query} count:all"), 1);
        let text = self.client.get_text(&path)?;
        let totals: Totals = serde_json::from_str(&text).context(|| format!("{query}: not understood: {text:.200}"))?;
        if !totals.exact || totals.partial.is_some() {
            return Err(Error::new(format!("{query}: the counts are not exact: {:?}", totals.partial)));
        }
        Ok(Counts { files: totals.total_files, matches: totals.total_matches })
    }

    /// Whether any file has it.
    pub(super) fn finds(&mut self, query: &str) -> Result<bool> {
        let path = self.path(query, 1);
        let text = self.client.get_text(&path)?;
        Ok(!text.starts_with("{\"total_files\":0,"))
    }

    fn path(&self, query: &str, limit: u32) -> String {
        format!("/api/v1/repos/{}/search/content?limit={limit}&q={}", self.repository, percent_encoded(query))
    }

    fn time(&mut self, path: &str, runs: u32) -> Result<Taken> {
        let (mut http, mut said) = (Vec::new(), Vec::new());
        // The first is not counted: the figures are those of a warm server.
        for number in 0..=runs {
            let start = Instant::now();
            let text = self.client.get_text(path)?;
            let taken = start.elapsed().as_secs_f64() * 1e3;
            if number > 0 {
                http.push(taken);
                said.push(took_ms(&text)?);
            }
        }
        Ok(Taken { http: median(http), said: median(said) })
    }
}

/// The part of a page that is the same whenever it is asked for.
pub(super) fn results(page: &str) -> &str {
    let from = page.find("\"results\":").unwrap_or_default();
    let to = page.rfind("\"facets\":").unwrap_or(page.len());
    page.get(from..to).unwrap_or_default()
}

fn took_ms(answer: &str) -> Result<f64> {
    let (_, rest) = answer.rsplit_once("\"took_ms\":").context(|| "an answer does not say what it took".into())?;
    let number = rest.split([',', '}']).next().and_then(|number| number.parse().ok());
    number.context(|| "what an answer took is not understood".into())
}

/// Waits until everything is indexed that `commits` have: contents, messages, definitions.
pub(super) fn await_all(server: &Govc, commits: u64) -> Result<Statistics> {
    await_statistics(server, |now| {
        now.is_current() && now.history_commits.min(now.messages) >= commits && now.symbols_complete
    })
}

/// Waits until all contents are indexed.
fn await_index(server: &Govc, rebuilds_min: u64) -> Result<Statistics> {
    await_statistics(server, |now| now.is_current() && now.rebuilds >= rebuilds_min)
}

fn await_statistics(server: &Govc, is_enough: impl Fn(&Statistics) -> bool) -> Result<Statistics> {
    let start = Instant::now();
    let mut client = Client::connect(server.address())?;
    loop {
        let text = client.get_text("/api/v1/search/statistics")?;
        let now: Statistics = serde_json::from_str(&text).context(|| format!("not understood: {text}"))?;
        if is_enough(&now) {
            return Ok(now);
        }
        if start.elapsed() > INDEX_MAX {
            return Err(Error::new(format!("the index was not made within {} s: {text}", INDEX_MAX.as_secs())));
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// CPU seconds that the server takes to make its index anew from the stored objects.
pub(super) fn rebuild_seconds(server: &Govc) -> Result<f64> {
    // Definitions come later, at leisure; a peer has none.
    let before = await_all(server, 1)?;
    let cost = crate::subject::measure(server, || {
        Client::connect(server.address())?.post_json("/api/v1/search/rebuild", &serde_json::json!({}))?;
        await_index(server, before.rebuilds + 1)
    })?;
    Ok(cost.cpu.whole)
}

/// A text as the value of a URL's parameter.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{percent_encoded, results, took_ms};

    #[test]
    fn answers_are_read() {
        let page =
            r#"{"total_files":1,"exact":true,"results":[{"path":"a"}],"facets":{},"took_ms":0.125,"partial":{}}"#;
        assert_eq!(took_ms(page).unwrap(), 0.125);
        assert_eq!(results(page), r#""results":[{"path":"a"}],"#);
        assert!(took_ms("{}").is_err());
    }

    #[test]
    fn parameters_are_encoded() {
        assert_eq!(percent_encoded("a b&ü+"), "a%20b%26%C3%BC%2B");
    }
}
