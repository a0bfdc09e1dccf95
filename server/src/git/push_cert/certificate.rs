//! The text of a certificate: who pushes where, with which nonce and options, what changes; then the signature of all that.
//!
//! ```text
//! certificate version 0.1
//! pusher SHA256:... 1700000000 +0100
//! pushee https://host/repo.git
//! nonce 1700000000000-...
//! push-option ci.skip
//!
//! OLD NEW refs/heads/main
//! -----BEGIN SSH SIGNATURE-----
//! ```

use bytes::Bytes;
use govc_engine::{Error, Result};

/// The longest certificate in bytes: of some hundred thousand references.
pub(crate) const CERTIFICATE_BYTES_MAX: usize = 16 << 20;

/// The longest header that is looked at; addresses and nonces are far shorter.
const HEADER_LEN_MAX: usize = 64 << 10;

/// Headers that are looked at: what is said with every push, and its options.
const HEADERS_MAX: usize = 1024;

const FIRST_LINE: &[u8] = b"certificate version 0.1";

/// What a signature begins with, and its kind.
const BEGINNINGS: [(&[u8], SignatureKind); 4] = [
    (b"-----BEGIN SSH SIGNATURE-----", SignatureKind::Ssh),
    (b"-----BEGIN PGP SIGNATURE-----", SignatureKind::OpenPgp),
    (b"-----BEGIN PGP MESSAGE-----", SignatureKind::OpenPgp),
    (b"-----BEGIN SIGNED MESSAGE-----", SignatureKind::X509),
];

/// How a certificate is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureKind {
    Ssh,
    OpenPgp,
    X509,
}

impl SignatureKind {
    /// The word used in answers: git's `gpg.format`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SignatureKind::Ssh => "ssh",
            SignatureKind::OpenPgp => "openpgp",
            SignatureKind::X509 => "x509",
        }
    }
}

/// A certificate whose parts are known; whether it is right is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// All of it.
    pub(crate) text: Bytes,
    /// What the signature is of.
    signed_len: usize,
    kind: SignatureKind,
    commands_at: usize,
    pusher: Bytes,
    pushee: Option<Bytes>,
    nonce: Option<Bytes>,
    options: Vec<Bytes>,
}

impl Certificate {
    /// Reads a certificate's text.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub(crate) fn parse(text: Bytes) -> Result<Self> {
        let malformed = |what: &str| Error::invalid(format!("protocol error: malformed push certificate: {what}"));
        let mut lines = Lines { text: &text, at: 0 };
        if lines.next() != Some(FIRST_LINE) {
            return Err(malformed("it is not of version 0.1"));
        }
        let (mut pusher, mut pushee, mut nonce, mut options) = (None, None, None, Vec::new());
        let mut headers = 0;
        loop {
            let line = lines.next().ok_or_else(|| malformed("it ends within its headers"))?;
            if line.is_empty() {
                break;
            }
            headers += 1;
            if headers > HEADERS_MAX || line.len() > HEADER_LEN_MAX {
                return Err(malformed("its headers are too long"));
            }
            let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
            let value = text.slice_ref(line.get(space + 1..).unwrap_or_default());
            let once = match line.get(..space).unwrap_or_default() {
                b"pusher" => &mut pusher,
                b"pushee" => &mut pushee,
                b"nonce" => &mut nonce,
                b"push-option" => {
                    options.push(value);
                    continue;
                }
                // As git does with what later versions may add.
                _ => continue,
            };
            if once.replace(value).is_some() {
                return Err(malformed("a header comes twice"));
            }
        }
        let pusher = pusher.ok_or_else(|| malformed("it does not say who pushes"))?;
        let commands_at = lines.at;
        loop {
            let begin = lines.at;
            let line = lines.next().ok_or_else(|| malformed("it is not signed"))?;
            if let Some((_, kind)) = BEGINNINGS.into_iter().find(|(beginning, _)| *beginning == line) {
                return Ok(Self { signed_len: begin, kind, commands_at, pusher, pushee, nonce, options, text });
            }
        }
    }

    /// The lines of its commands, one after the other.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &[u8]> {
        Lines { text: self.text.get(self.commands_at..self.signed_len).unwrap_or_default(), at: 0 }
    }

    /// What the signature is of.
    pub(super) fn signed(&self) -> &[u8] {
        self.text.get(..self.signed_len).unwrap_or_default()
    }

    /// The signature.
    pub(super) fn signature(&self) -> &[u8] {
        self.text.get(self.signed_len..).unwrap_or_default()
    }

    /// How it is signed.
    pub(crate) fn kind(&self) -> SignatureKind {
        self.kind
    }

    /// Who pushed, and when: as the client says, a key's name or a person's, and a date.
    pub(crate) fn pusher(&self) -> &[u8] {
        &self.pusher
    }

    /// Where to, as the client says.
    pub(crate) fn pushee(&self) -> Option<&[u8]> {
        self.pushee.as_deref()
    }

    /// The nonce.
    pub(crate) fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// The push options, in their order.
    pub(crate) fn options(&self) -> &[Bytes] {
        &self.options
    }
}

/// Lines without their ends.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let len = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        self.at += len + 1;
        rest.get(..len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "certificate version 0.1\npusher SHA256:x 1700000000 +0100\npushee http://host/a\nnonce 12-ab\n\
        push-option a b\nlater header\npush-option \n\nOLD NEW refs/heads/a\nOLD NEW refs/heads/b c\n\
        -----BEGIN SSH SIGNATURE-----\nabc\n-----BEGIN SSH SIGNATURE-----\n";

    fn parse(text: &str) -> Result<Certificate> {
        Certificate::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_parts_are_found() {
        let found = parse(TEXT).unwrap();
        assert_eq!(found.pusher(), b"SHA256:x 1700000000 +0100");
        assert_eq!(found.pushee(), Some(&b"http://host/a"[..]));
        assert_eq!(found.nonce(), Some(&b"12-ab"[..]));
        assert_eq!(found.options(), [&b"a b"[..], b""]);
        assert_eq!(found.commands().collect::<Vec<_>>(), [&b"OLD NEW refs/heads/a"[..], b"OLD NEW refs/heads/b c"]);
        assert_eq!(found.kind(), SignatureKind::Ssh);
        assert_eq!([found.signed(), found.signature()].concat(), TEXT.as_bytes());
        assert!(found.signature().starts_with(b"-----BEGIN SSH SIGNATURE-----\nabc"), "the first beginning counts");
    }

    #[test]
    fn what_may_be_absent_may() {
        let text = "certificate version 0.1\npusher x\n\nO N r\n-----BEGIN PGP SIGNATURE-----";
        let found = parse(text).unwrap();
        assert_eq!((found.pushee(), found.nonce(), found.options().len()), (None, None, 0));
        assert_eq!(found.kind(), SignatureKind::OpenPgp);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for (from, to) in [
            ("version 0.1", "version 0.2"),
            ("certificate", "Certificate"),
            ("pusher", "pushed"),
            ("pushee", "pusher"),
            ("later header", "nonce 12-ab"),
            ("\n\n", "\n"),
            ("-----BEGIN SSH", "----- BEGIN SSH"),
        ] {
            assert!(parse(&TEXT.replace(from, to)).is_err(), "{from}");
        }
        let mut cut = 0;
        while !TEXT[..cut].ends_with("SIGNATURE-----") {
            assert!(parse(&TEXT[..cut]).is_err(), "{cut}");
            cut += 1;
        }
        let options = "push-option a\n".repeat(HEADERS_MAX);
        assert!(parse(&TEXT.replace("later header\n", &options)).is_err());
        let long = format!("later {}", "x".repeat(HEADER_LEN_MAX));
        assert!(parse(&TEXT.replace("later header", &long)).is_err());
    }
}
