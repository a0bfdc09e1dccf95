//! URLs: what is asked, what is shown, what is secret, and which redirects are followed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use govc_engine::{Error, Result};
use http::Uri;
use percent_encoding::percent_decode_str;

/// What a repository's URL gets appended to find out what is there.
pub(super) const ADVERTISEMENT: &str = "/info/refs?service=git-upload-pack";
/// The user whom a token belongs to, where the URL names none: what servers expect who do not care.
const TOKEN_USER: &str = "x-access-token";

/// Where a repository is. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    is_tls: bool,
    host: String,
    port: u16,
    /// Scheme, host, and path without a slash at the end.
    url: String,
}

/// A value for the header `Authorization`.
pub(super) struct Credentials(String);

impl Credentials {
    pub(super) fn header(&self) -> &str {
        &self.0
    }
}

impl Address {
    /// Takes a URL apart; what it holds of a user's name and password comes back as credentials, as does the token.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`]; the message holds nothing of the URL, which may hold a password.
    pub(super) fn parse(url: &str, token: Option<&str>) -> Result<(Self, Option<Credentials>)> {
        let invalid = |why: &str| Error::invalid(format!("the URL is not one that can be asked: {why}"));
        let uri: Uri = url.parse().map_err(|_| invalid("expected http://HOST/PATH or https://HOST/PATH"))?;
        if uri.query().is_some() {
            return Err(invalid("a repository's URL has no query"));
        }
        let user = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(user, _)| user);
        let (name, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((name, password)) => (decoded(name), decoded(password)),
            None => (String::new(), String::new()),
        };
        let secret = token.map(str::to_owned).or((!password.is_empty()).then_some(password));
        let credentials = secret.map(|secret| {
            let name = if name.is_empty() { TOKEN_USER } else { &name };
            Credentials(format!("Basic {}", STANDARD.encode(format!("{name}:{secret}"))))
        });
        Ok((Self::of(&uri).ok_or_else(|| invalid("expected http://HOST/PATH or https://HOST/PATH"))?, credentials))
    }

    fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let usual = if is_tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        let scheme = if is_tls { "https" } else { "http" };
        let shown_port = if port == usual { String::new() } else { format!(":{port}") };
        let url = format!("{scheme}://{host}{shown_port}{}", uri.path().trim_end_matches('/'));
        Some(Self { is_tls, host, port, url })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where the repository is instead, as `location` says that was asked for its advertisement, and whether that is at
    /// the same host.
    ///
    /// # Errors
    /// [`govc_engine::ErrorKind::Invalid`] for what is no repository's URL, and for giving up TLS.
    pub(super) fn redirected(&self, location: &str) -> Result<(Self, bool)> {
        let refused = |why: &str| Error::invalid(format!("{} redirects {why}", self.url));
        let whole = match location.strip_prefix('/') {
            Some(path) if !path.starts_with('/') => {
                let root = self.url.find("://").and_then(|at| {
                    let host = self.url.get(at + 3..)?;
                    self.url.get(..at + 3 + host.find('/').unwrap_or(host.len()))
                });
                format!("{}{location}", root.unwrap_or_default())
            }
            _ => location.to_owned(),
        };
        let base = whole.strip_suffix(ADVERTISEMENT).ok_or_else(|| refused("to what is no Git repository"))?;
        let uri: Uri = base.parse().map_err(|_| refused("to what is no URL"))?;
        let to = Self::of(&uri).ok_or_else(|| refused("to what cannot be asked"))?;
        if self.is_tls && !to.is_tls {
            return Err(refused("from https:// to http://, which is not followed"));
        }
        let is_upgrade = !self.is_tls && to.is_tls && (self.port, to.port) == (80, 443);
        let is_same = self.host == to.host && (is_upgrade || (self.is_tls, self.port) == (to.is_tls, to.port));
        Ok((to, is_same))
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, token: Option<&str>) -> (String, Option<String>) {
        let (address, credentials) = Address::parse(url, token).expect("a URL");
        let clear = credentials.map(|credentials| {
            let text = credentials.header().strip_prefix("Basic ").expect("basic").to_owned();
            String::from_utf8(STANDARD.decode(text).expect("base 64")).expect("text")
        });
        (address.url().to_owned(), clear)
    }

    #[test]
    fn secrets_are_taken_out_of_urls() {
        let plain = "https://example.org/team/x.git";
        for (url, token, secret) in [
            ("https://example.org/team/x.git", None, None),
            ("HTTPS://Example.org:443/team/x.git/", None, None),
            ("https://ada:s%40cret@example.org/team/x.git", None, Some("ada:s@cret")),
            ("https://example.org/team/x.git", Some("t0ken"), Some("x-access-token:t0ken")),
            ("https://oauth2@example.org/team/x.git", Some("t0ken"), Some("oauth2:t0ken")),
            ("https://ada:old@example.org/team/x.git", Some("t0ken"), Some("ada:t0ken")),
            ("https://ada@example.org/team/x.git", None, None),
        ] {
            assert_eq!(parse(url, token), (plain.to_owned(), secret.map(str::to_owned)), "{url}");
        }
        assert_eq!(parse("http://[::1]:8080/x", None).0, "http://[::1]:8080/x");
        for bad in ["https://", "ftp://x/y", "https://u:secret@", "http://x/y?z=secret", "http:///secret"] {
            let error = Address::parse(bad, None).map(|(address, _)| address).expect_err(bad);
            assert!(!error.message().contains("secret"), "{error}");
        }
    }

    #[test]
    fn redirects_stay_at_the_host_and_keep_tls() {
        let from = |url: &str| Address::parse(url, None).expect("a URL").0;
        let to = |from: &Address, location: &str| from.redirected(location).map(|(to, same)| (to.url, same));
        let plain = from("http://a.example/x");
        let ok = |url: &str, same| Ok((url.to_owned(), same));
        let check = |from: &Address, location: &str, expected: Result<(String, bool), ()>| {
            assert_eq!(to(from, location).map_err(drop), expected, "{location}");
        };
        check(&plain, "/y.git/info/refs?service=git-upload-pack", ok("http://a.example/y.git", true));
        check(&plain, "https://a.example/x/info/refs?service=git-upload-pack", ok("https://a.example/x", true));
        check(&plain, "http://b.example/x/info/refs?service=git-upload-pack", ok("http://b.example/x", false));
        check(&plain, "//b.example/x/info/refs?service=git-upload-pack", Err(()));
        check(&plain, "http://a.example:81/x/info/refs?service=git-upload-pack", ok("http://a.example:81/x", false));
        check(&plain, "https://a.example:81/x/info/refs?service=git-upload-pack", ok("https://a.example:81/x", false));
        check(&plain, "http://a.example/login", Err(()));
        let tls = from("https://a.example/x");
        check(&tls, "http://a.example/x/info/refs?service=git-upload-pack", Err(()));
        check(&tls, "http://a.example@b.example/x/info/refs?service=git-upload-pack", Err(()));
        check(
            &tls,
            "https://a.example@b.example/x/info/refs?service=git-upload-pack",
            ok("https://b.example/x", false),
        );
    }
}
