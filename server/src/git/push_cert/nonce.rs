//! Nonces: what makes a certificate good for one repository and a short while.
//!
//! A nonce is the time in milliseconds since the epoch, `-`, and a keyed hash (HMAC-SHA-256) of the repository's name and that time, so nothing
//! has to be remembered: over HTTP the push is another request than the one that gave the nonce out, maybe of another server
//! of the same store. The seed is made when it is needed first, and kept in the store.
//! Source: git's `prepare_push_cert_nonce` and `check_nonce`; `receive.certNonceSeed` and `receive.certNonceSlop`.

use std::time::Duration;

use bytes::Bytes;
use govc_engine::{NonceStatus, RepoName, Store};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Under which name the store keeps the seed.
const NOTE: &[u8] = b"push_cert_seed";

const SEED_LEN: usize = 32;

/// Gives nonces out, and knows them again.
pub(super) struct Nonces {
    seed: [u8; SEED_LEN],
    slop_millis: i64,
}

impl Nonces {
    /// With the store's seed.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub(super) fn open(store: &Store, slop: Duration) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("the seed of push certificates: {error}");
        let slop_millis = i64::try_from(slop.as_millis()).unwrap_or(i64::MAX);
        let notes = store.notes(NOTE).map_err(|error| failed(&error))?;
        if let Some((_, seed)) = notes.into_iter().find(|(name, _)| name == NOTE) {
            let seed = <[u8; SEED_LEN]>::try_from(&seed[..]).map_err(|_| failed(&"it is damaged"))?;
            return Ok(Self { seed, slop_millis });
        }
        let mut seed = [0; SEED_LEN];
        getrandom::fill(&mut seed).map_err(|error| failed(&error))?;
        if let Err(error) = store.set_note(NOTE, Some(Bytes::copy_from_slice(&seed))) {
            // A store on a full disk is still read, and its pushes are refused for another reason.
            tracing::warn!(%error, "the seed of push certificates is a new one at the next start: it cannot be kept");
        }
        Ok(Self { seed, slop_millis })
    }

    /// A nonce for a push to a repository.
    pub(super) fn make(&self, repo: &RepoName, now_millis: i64) -> String {
        let mut nonce = format!("{now_millis}-");
        for byte in self.mac(repo, now_millis).finalize().into_bytes() {
            nonce.push_str(&format!("{byte:02x}"));
        }
        nonce
    }

    /// What a certificate's nonce is worth. Where one connection has both the nonce and the push, it is the one that was `given`
    /// there or none.
    pub(super) fn check(
        &self,
        repo: &RepoName,
        nonce: Option<&[u8]>,
        given: Option<&str>,
        now_millis: i64,
    ) -> NonceStatus {
        let Some(nonce) = nonce else { return NonceStatus::Missing };
        let Some(made_millis) = self.time_of(repo, nonce) else { return NonceStatus::Bad };
        if let Some(given) = given {
            return if given.as_bytes() == nonce { NonceStatus::Ok } else { NonceStatus::Bad };
        }
        let age = now_millis.saturating_sub(made_millis);
        if age.unsigned_abs() <= self.slop_millis.unsigned_abs() { NonceStatus::Ok } else { NonceStatus::Slop(age) }
    }

    /// When a nonce was made for this repository; `None` if it was not.
    fn time_of(&self, repo: &RepoName, nonce: &[u8]) -> Option<i64> {
        let nonce = std::str::from_utf8(nonce).ok()?;
        let (time, mac) = nonce.split_once('-')?;
        let millis: i64 = time.parse().ok().filter(|millis: &i64| millis.to_string() == time)?;
        let digits = mac.as_bytes().chunks_exact(2);
        if !digits.remainder().is_empty() || !mac.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
        // Takes as long for one that is nearly right as for any other.
        self.mac(repo, millis).verify_slice(&bytes).ok().map(|()| millis)
    }

    fn mac(&self, repo: &RepoName, millis: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.seed).expect("a key of any length");
        mac.update(format!("{repo}:{millis}").as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn a_nonce_is_good_for_one_repository_and_a_while() {
        let nonces = Nonces { seed: [7; SEED_LEN], slop_millis: 60_000 };
        let others = Nonces { seed: [8; SEED_LEN], slop_millis: 60_000 };
        let (one, two) = (RepoName::new("a/one").unwrap(), RepoName::new("a/two").unwrap());
        let nonce = nonces.make(&one, NOW);
        assert!(nonce.bytes().all(|byte| byte.is_ascii_graphic()), "{nonce}");
        let check = |nonces: &Nonces, repo, nonce: &str, now| nonces.check(repo, Some(nonce.as_bytes()), None, now);
        assert_eq!(check(&nonces, &one, &nonce, NOW), NonceStatus::Ok);
        assert_eq!(check(&nonces, &one, &nonce, NOW + 60_000), NonceStatus::Ok);
        assert_eq!(check(&nonces, &one, &nonce, NOW + 60_001), NonceStatus::Slop(60_001));
        assert_eq!(check(&nonces, &one, &nonce, NOW - 60_000), NonceStatus::Ok);
        assert_eq!(check(&nonces, &one, &nonce, NOW - 60_001), NonceStatus::Slop(-60_001));
        assert_eq!(check(&nonces, &two, &nonce, NOW), NonceStatus::Bad);
        assert_eq!(check(&others, &one, &nonce, NOW), NonceStatus::Bad);
        assert_eq!(nonces.check(&one, None, None, NOW), NonceStatus::Missing);
        let later = nonce.replacen("1700000000000", "1700000000001", 1);
        for bad in [
            &later,
            "",
            "-",
            "1700000000000",
            "1700000000000-",
            &nonce[..nonce.len() - 2],
            &format!("+{nonce}"),
            &nonce.to_uppercase(),
        ] {
            assert_eq!(check(&nonces, &one, bad, NOW), NonceStatus::Bad, "{bad}");
        }
        // Of one connection only the nonce that it got counts, however long the client took.
        let given = |nonce: &str, given: &str, now| nonces.check(&one, Some(nonce.as_bytes()), Some(given), now);
        assert_eq!(given(&nonce, &nonce, NOW + 900_000), NonceStatus::Ok);
        assert_eq!(given(&nonce, &nonces.make(&one, NOW + 1), NOW + 1), NonceStatus::Bad);
        assert_eq!(given("x", "x", NOW), NonceStatus::Bad);
    }

    #[test]
    fn the_seed_is_the_stores() {
        let mut backend = std::sync::Arc::new(govc_backends::MemoryBackend::new());
        let name = RepoName::new("a").unwrap();
        let slop = Duration::from_secs(1);
        let mut made = Vec::new();
        for _ in 0..2 {
            let store = Store::open(backend.clone(), govc_engine::StoreOptions::default()).unwrap();
            made.push(Nonces::open(&store, slop).unwrap().make(&name, NOW));
            backend = backend.fork().unwrap().into();
        }
        assert_eq!(made[0], made[1]);
        let store =
            Store::open(std::sync::Arc::new(govc_backends::MemoryBackend::new()), govc_engine::StoreOptions::default());
        let store = store.unwrap();
        assert_ne!(Nonces::open(&store, slop).unwrap().make(&name, NOW), made[0]);
        store.set_note(NOTE, Some(Bytes::from_static(b"short"))).unwrap();
        assert!(Nonces::open(&store, slop).is_err());
    }
}
