//! Requests and answers over HTTP. The one file of `import` that knows `ureq`.

use std::io::{self, Read};
use std::time::Duration;

use govc_engine::{Error, ErrorKind, Result};
use ureq::http::Response;
use ureq::http::response::Parts;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::RemoteOptions;
use super::address::{ADVERTISEMENT, Address, Credentials};
use super::not_git;
use super::pump::{self, Pump};
use crate::import::watch::Patience;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 5;
/// The beginning is what servers look for that serve more than Git.
const USER_AGENT: &str = concat!("git/2.0 (govc ", env!("CARGO_PKG_VERSION"), ")");

/// A repository's URL and the connections to it.
pub(super) struct Http {
    agent: ureq::Agent,
    address: Address,
    credentials: Option<Credentials>,
    follow_redirects: bool,
}

type Input<'a> = Box<dyn Read + 'a>;

impl Http {
    pub(super) fn new(url: &str, options: RemoteOptions) -> Result<Self> {
        let (address, credentials) = Address::parse(url, options.token.as_deref())?;
        let mut tls = TlsConfig::builder();
        if let Some(pem) = &options.ca_pem {
            tls = tls.root_certs(roots(pem)?);
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(options.silence_max))
            .timeout_per_write(Some(options.silence_max))
            .user_agent(USER_AGENT)
            .tls_config(tls.build())
            .build();
        Ok(Self { agent: agent.into(), address, credentials, follow_redirects: options.follow_redirects })
    }

    pub(super) fn url(&self) -> &str {
        self.address.url()
    }

    /// What the server says of the repository; from then on it is asked where this came from.
    pub(super) fn advertisement<'a>(&mut self, patience: Patience<'a>) -> Result<Input<'a>> {
        for _ in 0..=REDIRECTS_MAX {
            let mut request =
                self.agent.get(format!("{}{ADVERTISEMENT}", self.url())).header("Git-Protocol", "version=2");
            if let Some(credentials) = &self.credentials {
                request = request.header("Authorization", credentials.header());
            }
            let (head, body) = self.ask(patience, move || request.call())?;
            if let 301 | 302 | 303 | 307 | 308 = head.status.as_u16() {
                let location = head.headers.get("location").and_then(|location| location.to_str().ok());
                self.redirect(location.unwrap_or_default())?;
                continue;
            }
            return self.body(&head, body, "application/x-git-upload-pack-advertisement");
        }
        Err(not_git(self.url(), "it redirects without end"))
    }

    /// Asks the repository something.
    pub(super) fn post<'a>(&self, body: Vec<u8>, is_v2: bool, patience: Patience<'a>) -> Result<Input<'a>> {
        let mut request = self
            .agent
            .post(format!("{}/git-upload-pack", self.url()))
            .header("Content-Type", "application/x-git-upload-pack-request")
            .header("Accept", "application/x-git-upload-pack-result");
        if is_v2 {
            request = request.header("Git-Protocol", "version=2");
        }
        if let Some(credentials) = &self.credentials {
            request = request.header("Authorization", credentials.header());
        }
        let (head, body) = self.ask(patience, move || request.send(body))?;
        self.body(&head, body, "application/x-git-upload-pack-result")
    }

    fn ask<'a>(
        &self,
        patience: Patience<'a>,
        request: impl FnOnce() -> std::result::Result<Response<ureq::Body>, ureq::Error> + Send + 'static,
    ) -> Result<(Parts, Pump<'a>)> {
        let answer = pump::ask::<Parts, ureq::Error>(patience, move || {
            let (head, body) = request()?.into_parts();
            Ok((head, Box::new(body.into_reader()) as Box<dyn Read + Send>))
        });
        answer?.map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &ureq::Error) -> Error {
        Error::new(ErrorKind::Unavailable, format!("cannot ask {}: {error}", self.url()))
    }

    fn redirect(&mut self, location: &str) -> Result<()> {
        let (to, is_same_host) = self.address.redirected(location)?;
        if !is_same_host {
            if !self.follow_redirects {
                let (from, to) = (self.url(), to.url());
                return Err(Error::invalid(format!("{from} redirects to {to} (--follow-redirects goes there)")));
            }
            // Not meant for that one.
            self.credentials = None;
        }
        self.address = to;
        Ok(())
    }

    fn body<'a>(&self, head: &Parts, body: Pump<'a>, wanted: &str) -> Result<Input<'a>> {
        let (url, status) = (self.url(), head.status);
        match status.as_u16() {
            200 => {}
            401 if self.credentials.is_some() => {
                return Err(Error::not_found(format!("{url} does not accept the credentials")));
            }
            401 => {
                let how = "--token-env VAR, or USER:PASSWORD@ in the URL";
                return Err(Error::not_found(format!("{url} asks for credentials ({how})")));
            }
            403 | 404 | 410 => {
                let who = if self.credentials.is_some() { "" } else { ", at least to nobody without credentials" };
                return Err(Error::not_found(format!("{url} shows no repository{who}: {status}")));
            }
            // What may be otherwise when it is asked again: too slow, too early, too often.
            408 | 425 | 429 => return Err(Error::new(ErrorKind::Unavailable, format!("{url} answers {status}"))),
            400..=499 => return Err(not_git(url, &format!("it answers {status}"))),
            _ => return Err(Error::new(ErrorKind::Unavailable, format!("{url} answers {status}"))),
        }
        let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !is_of_type(kind, wanted) {
            let shown: String = kind.chars().take(100).collect();
            return Err(not_git(url, &format!("it answers with {shown:?}, not with {wanted}")));
        }
        Ok(Box::new(Answer { input: body, url: url.to_owned() }))
    }
}

/// Whether a header names a type, with parameters or without, as git looks at it.
fn is_of_type(header: &str, wanted: &str) -> bool {
    header.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// The certificates in a PEM file.
fn roots(pem: &[u8]) -> Result<RootCerts> {
    let mut certificates = Vec::new();
    for item in parse_pem(pem) {
        let item = item.map_err(|error| Error::invalid(format!("--ca-file is not PEM: {error}")))?;
        if let PemItem::Certificate(certificate) = item {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(Error::invalid("--ca-file holds no certificate"));
    }
    Ok(RootCerts::from(certificates))
}

/// The body of an answer; its errors wrap the engine's.
struct Answer<'a> {
    input: Pump<'a>,
    url: String,
}

impl Read for Answer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.input.read(into).map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                return error;
            }
            let message = format!("the connection to {} broke: {error}", self.url);
            io::Error::other(Error::new(ErrorKind::Unavailable, message))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_type;

    #[test]
    fn a_type_may_have_parameters() {
        let wanted = "application/x-git-upload-pack-result";
        for (header, expected) in [
            ("application/x-git-upload-pack-result", true),
            ("application/x-git-upload-pack-result; charset=utf-8", true),
            ("Application/X-Git-Upload-Pack-Result ;charset=utf-8", true),
            ("application/x-git-upload-pack-results", false),
            ("text/html; application/x-git-upload-pack-result", false),
            ("", false),
        ] {
            assert_eq!(is_of_type(header, wanted), expected, "{header}");
        }
    }
}
