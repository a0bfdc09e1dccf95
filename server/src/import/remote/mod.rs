//! A Git server over HTTP, asked as `git fetch` asks: protocol version 2, or 0 and 1 where the server has no other.
//!
//! | file | owns |
//! |---|---|
//! | `address` | URLs, credentials, which redirects are followed |
//! | `transport` | requests and answers over HTTP |
//! | `message` | what is asked, and the lines of what comes |
//! | `pump` | waiting for answers, until there is no patience left |
//! | `sideband` | the pack within an answer |
//!
//! There is one request for each pack: what is here is told at once, and no rounds are negotiated. Nothing that the server
//! sends is believed before it is checked, and nothing of it is unbounded.
//! Source: git's `Documentation/gitprotocol-http`, `gitprotocol-v2`, `gitprotocol-pack`.

mod address;
mod message;
mod pump;
mod sideband;
mod transport;

use std::io::Read;
use std::time::Duration;

use govc_engine::{Error, ObjectFormat, Oid, Result};

pub(super) use self::message::is_refusal;
use self::message::{Abilities, Lines};
use self::sideband::Pack;
use self::transport::Http;
use super::source::{References, Scope, shallow_source};
use super::watch::Patience;
use crate::git::pkt::Line;

/// How a server is asked.
#[derive(Default)]
pub(crate) struct RemoteOptions {
    /// Sent as the password.
    pub(crate) token: Option<String>,
    /// Whether another host may answer instead.
    pub(crate) follow_redirects: bool,
    /// Certificates to trust instead of the usual ones, PEM.
    pub(crate) ca_pem: Option<Vec<u8>>,
    /// How long a server may say nothing.
    pub(crate) silence_max: Duration,
}

/// A repository of a server.
pub(crate) struct Remote {
    http: Http,
    silence_max: Duration,
    /// Since it was met.
    abilities: Option<Abilities>,
}

/// What is asked for.
pub(super) struct Ask<'a> {
    pub(super) wants: &'a [Oid],
    /// What is here with all that it reaches, up to `shallow`.
    pub(super) haves: &'a [Oid],
    /// Commits that are here without their parents.
    pub(super) shallow: Vec<Oid>,
    /// How many commits deep, from the wants on.
    pub(super) depth: Option<u32>,
    /// Whether deltas may stand on what is here.
    pub(super) is_thin: bool,
}

/// What is answered.
pub(super) struct Answer<'a> {
    /// Commits that come without their parents.
    pub(super) shallow: Vec<Oid>,
    /// Commits that are whole from now on.
    pub(super) unshallow: Vec<Oid>,
    pub(super) pack: Box<dyn Read + 'a>,
}

impl Remote {
    /// Takes a URL, which may hold a user's name and password.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] for what is none; nothing has been asked yet.
    pub(super) fn new(url: &str, options: RemoteOptions) -> Result<Self> {
        let silence_max = options.silence_max;
        Ok(Self { http: Http::new(url, options)?, silence_max, abilities: None })
    }

    /// The URL without any secret.
    pub(super) fn url(&self) -> &str {
        self.http.url()
    }

    /// Whether the server can send histories in slices. Known once it has been asked for its references.
    pub(super) fn can_deepen(&self) -> bool {
        self.abilities.as_ref().is_none_or(|abilities| abilities.can_deepen)
    }

    /// What the server offers now.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Unavailable`] when it cannot be reached, [`govc_engine::ErrorKind::NotFound`] when it has
    /// no such repository or shows none, [`govc_engine::ErrorKind::Invalid`] for what is no answer of a Git server.
    pub(super) fn references(&mut self, scope: Scope, limit: usize, patience: Patience<'_>) -> Result<References> {
        let (abilities, offered) = self.meet(scope, limit, patience)?;
        if let Some(references) = offered {
            return Ok(references);
        }
        let mut references = References::new(abilities.format);
        let url = self.http.url().to_owned();
        let body = message::ls_refs(&abilities, scope);
        let mut lines = Lines::new(self.http.post(body, true, patience)?, &url);
        message::read_ls_refs(&mut lines, &mut references, scope, limit)?;
        Ok(references)
    }

    /// Finds out whether the server answers who asks, which version it speaks and what it can. One of version 0 says at once
    /// what it offers.
    ///
    /// # Errors
    /// As [`Remote::references`].
    pub(super) fn meet(
        &mut self,
        scope: Scope,
        limit: usize,
        patience: Patience<'_>,
    ) -> Result<(Abilities, Option<References>)> {
        let input = self.http.advertisement(patience)?;
        let url = self.http.url().to_owned();
        let met = message::read_advertisement(&mut Lines::new(input, &url), scope, limit)?;
        self.abilities = Some(met.0.clone());
        Ok(met)
    }

    /// Asks for a pack, once the server has been met.
    ///
    /// # Errors
    /// As [`Remote::references`]; one that [`is_refusal`] is the server's own word that it does not send what is wanted. The
    /// pack's own failures come when it is read.
    pub(super) fn fetch<'a>(&self, ask: &Ask<'_>, patience: Patience<'a>) -> Result<Answer<'a>> {
        let url = self.http.url().to_owned();
        let abilities = self.abilities.as_ref().ok_or_else(|| not_git(&url, "it has not said what it can"))?;
        let body = message::fetch(abilities, ask, &url)?;
        let mut lines = Lines::new(self.http.post(body, abilities.is_v2, patience)?, &url);
        let (mut shallow, mut unshallow, mut first) = (Vec::new(), Vec::new(), None);
        if abilities.is_v2 {
            loop {
                let line = lines.next()?;
                match line.text() {
                    Some(b"shallow-info") => {
                        message::read_borders(abilities.format, &mut lines, &mut shallow, &mut unshallow)?
                    }
                    Some(b"packfile") => break,
                    // Nothing else was asked for.
                    _ => return Err(lines.unexpected()),
                }
            }
        } else {
            if ask.depth.is_some() {
                message::read_borders(abilities.format, &mut lines, &mut shallow, &mut unshallow)?;
            }
            // Lines that say what is in common, at least one; the pack follows without a border.
            let mut is_told = false;
            loop {
                match lines.next()? {
                    Line::Data(data) if data.starts_with(b"NAK") || data.starts_with(b"ACK ") => is_told = true,
                    Line::Data(data) if is_told => {
                        first = Some(data.to_vec());
                        break;
                    }
                    _ => return Err(lines.unexpected()),
                }
            }
        }
        if ask.depth.is_none() && !shallow.is_empty() {
            return Err(shallow_source(&url));
        }
        Ok(Answer { shallow, unshallow, pack: Box::new(Pack::new(lines, first, self.silence_max)) })
    }
}

/// Something that a Git server would not say.
fn not_git(url: &str, why: &str) -> Error {
    Error::invalid(format!("{url} does not answer as a Git server: {why}"))
}

/// Takes any bytes as each part of a server's answer.
pub(super) fn fuzz(data: &[u8]) {
    let lines = || Lines::new(Box::new(std::io::Cursor::new(data.to_vec())), "http://x/y");
    // What is refused is refused with an error; only a panic, or no end, is a finding.
    let _ = message::read_advertisement(&mut lines(), Scope::Mirror, 1000);
    for format in ObjectFormat::ALL {
        let _ = message::read_ls_refs(&mut lines(), &mut References::new(format), Scope::Mirror, 1000);
        let _ = message::read_borders(format, &mut lines(), &mut Vec::new(), &mut Vec::new());
    }
    let _ = std::io::copy(&mut Pack::new(lines(), None, Duration::from_secs(1)), &mut std::io::sink());
}
