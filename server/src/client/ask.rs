//! Asking a server, and what it says if it cannot answer.

use std::time::Duration;

use serde_json::Value;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How long an answer may take: longer than a server works on it.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Where a server listens that was not told otherwise.
pub(super) const SERVER_DEFAULT: &str = "http://127.0.0.1:8080";

/// Gets an answer, or says why there is none.
pub(super) fn get(url: &str) -> Result<Value, String> {
    read(url, agent().get(url).call())
}

/// Posts nothing, and gets an answer, or says why there is none.
pub(super) fn post(url: &str) -> Result<Value, String> {
    read(url, agent().post(url).send_empty())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build().into()
}

fn read(url: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut response = answer.map_err(|error| format!("cannot ask {url}: {error}"))?;
    let status = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let body = body.map_err(|error| format!("cannot read the answer of {url}: {error}"))?;
    let answer: Value = serde_json::from_str(&body).map_err(|_| format!("{url} gave no JSON ({status})"))?;
    if status.is_success() {
        return Ok(answer);
    }
    Err(answer["detail"].as_str().map_or_else(|| format!("{url} answered {status}"), str::to_owned))
}
