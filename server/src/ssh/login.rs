//! Connections on their way in: how many there are, who makes way, and what became of each.
//!
//! No more than so many are logging in; a further one displaces the oldest, so that connections which stay silent never close
//! the door to others. Every [`Login`] is counted and logged exactly once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::telemetry::{LoginResult, SshFigures};

/// The longest user name that is logged, in characters.
const USER_LEN_MAX: usize = 100;

/// All connections that are logging in.
#[derive(Debug)]
pub(super) struct Logins {
    max: usize,
    under_way: Mutex<UnderWay>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// By the order in which they came.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
}

impl Logins {
    /// At most `max` at once.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, under_way: Mutex::default() })
    }

    /// One more, for which the oldest may have to go. The answer's second half is resolved when it has to go itself.
    pub(super) fn begin(self: &Arc<Self>, peer: SocketAddr, figures: &SshFigures) -> (Login, oneshot::Receiver<()>) {
        let (displace, displaced) = oneshot::channel();
        let mut under_way = self.under_way.lock();
        while under_way.waiting.len() >= self.max && under_way.displace_oldest() {}
        let id = under_way.next;
        under_way.next += 1;
        under_way.waiting.insert(id, displace);
        drop(under_way);
        let login =
            Login { logins: Arc::clone(self), id, peer, figures: figures.clone(), tried: Arc::default(), result: None };
        (login, displaced)
    }

    /// Makes the oldest go; false when nobody is logging in.
    pub(super) fn displace_oldest(&self) -> bool {
        self.under_way.lock().displace_oldest()
    }
}

impl UnderWay {
    fn displace_oldest(&mut self) -> bool {
        let Some((_, displace)) = self.waiting.pop_first() else { return false };
        // One that is just ending needs not be told.
        let _ = displace.send(());
        true
    }
}

/// What a client has tried in order to come in.
#[derive(Debug, Default)]
pub(super) struct Tried {
    user: Option<String>,
    keys: usize,
    /// The fingerprint of the last key.
    key: Option<String>,
    /// Whether a key was one that may come in, so that somebody may now be asked for its passphrase.
    is_invited: bool,
}

impl Tried {
    /// Notes an attempt without a key.
    pub(super) fn user(&mut self, user: &str) {
        self.user = Some(user.chars().take(USER_LEN_MAX).collect());
    }

    /// Notes an attempt with a key, by its fingerprint.
    pub(super) fn key(&mut self, user: &str, fingerprint: String, is_invited: bool) {
        self.user(user);
        self.keys += 1;
        self.key = Some(fingerprint);
        self.is_invited |= is_invited;
    }

    /// Whether a key was offered that may come in.
    pub(super) fn is_invited(&self) -> bool {
        self.is_invited
    }
}

/// One connection that is logging in; dropped when it has, or will not.
#[derive(Debug)]
pub(super) struct Login {
    logins: Arc<Logins>,
    id: u64,
    peer: SocketAddr,
    figures: SshFigures,
    /// Written by the connection's handler.
    tried: Arc<Mutex<Tried>>,
    /// Unless the client ends it.
    result: Option<LoginResult>,
}

impl Login {
    /// Where the handler notes what is tried.
    pub(super) fn tried(&self) -> &Arc<Mutex<Tried>> {
        &self.tried
    }

    /// Says how it ended.
    pub(super) fn end(mut self, result: LoginResult) {
        self.result = Some(result);
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.logins.under_way.lock().waiting.remove(&self.id);
        let tried = self.tried.lock();
        let result = match self.result {
            Some(result) => result,
            None if tried.user.is_some() => LoginResult::Refused,
            None => LoginResult::Left,
        };
        self.figures.login(result);
        if result != LoginResult::Accepted {
            tracing::info!(
                remote_addr = %self.peer,
                ssh_login = result.name(),
                user = tried.user.as_deref(),
                keys_tried = tried.keys,
                key = tried.key.as_deref(),
                "SSH login failed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn the_oldest_makes_way() {
        let figures = Metrics::new().ssh().clone();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let logins = Logins::new(2);
        let (first, mut first_displaced) = logins.begin(peer, &figures);
        let (second, mut second_displaced) = logins.begin(peer, &figures);
        assert!(first_displaced.try_recv().is_err());
        let (_third, mut third_displaced) = logins.begin(peer, &figures);
        assert!(first_displaced.try_recv().is_ok());
        drop(first);
        // One that has ended leaves its place.
        second.end(LoginResult::Accepted);
        let (_fourth, mut fourth_displaced) = logins.begin(peer, &figures);
        assert!(second_displaced.try_recv().is_err());
        assert!(third_displaced.try_recv().is_err());
        assert!(logins.displace_oldest() && third_displaced.try_recv().is_ok());
        assert!(logins.displace_oldest() && fourth_displaced.try_recv().is_ok());
        assert!(!logins.displace_oldest());
    }
}
