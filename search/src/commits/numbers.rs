//! The message of each commit, by their numbers: presence and index count commits and messages each in the order in which
//! they came, and neither is to know the other.

use std::sync::Arc;

use govc_engine::Oid;
use parking_lot::Mutex;

use crate::{
    index::{Index, MessageNo},
    presence::{CommitNo, NONE, Presence, Rows},
};

/// Messages and commits that are looked up before others may change the tables.
const LOOKUP: usize = 4096;

/// The messages of commits. What is asked for later has those that came in between.
#[derive(Default)]
pub(crate) struct MessageNumbers {
    kept: Mutex<Arc<Numbered>>,
}

/// The messages of commits as of one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Numbered {
    /// By the numbers of commits; [`NONE`] for those without.
    messages: Vec<MessageNo>,
    /// How many messages were looked at.
    messages_seen: MessageNo,
}

impl Numbered {
    /// The message of a commit, if it is indexed.
    pub(crate) fn get(&self, commit: CommitNo) -> Option<MessageNo> {
        self.messages.get(commit as usize).copied().filter(|message| *message != NONE)
    }

    fn add_commits(&mut self, rows: &Rows, index: &Index) {
        while self.messages.len() < rows.commit_count() {
            let tables = index.tables();
            let end = (self.messages.len() + LOOKUP).min(rows.commit_count());
            for number in (0..).take(end).skip(self.messages.len()) {
                let message = rows.commit(number).and_then(|row| tables.messages.number(&row.oid));
                self.messages.push(message.unwrap_or(NONE));
            }
        }
    }

    fn add_messages(&mut self, rows: &Rows, presence: &Presence, index: &Index, count: MessageNo) {
        while self.messages_seen < count {
            let tables = index.tables();
            let some = (self.messages_seen..count).take(LOOKUP);
            let commits: Vec<(MessageNo, Oid)> =
                some.filter_map(|message| Some((message, *tables.messages.commit(message)?))).collect();
            drop(tables);
            self.messages_seen = count.min(self.messages_seen.saturating_add(LOOKUP as MessageNo));
            for (message, commit) in commits {
                let at = presence.number(rows, &commit).map(|number| number as usize);
                if let Some(known) = at.and_then(|at| self.messages.get_mut(at)) {
                    *known = message;
                }
            }
        }
    }
}

impl MessageNumbers {
    /// The messages of all commits, as of now.
    pub(crate) fn of(&self, presence: &Presence, index: &Index) -> Arc<Numbered> {
        let rows = presence.rows();
        let mut kept = self.kept.lock();
        let count = index.tables().messages.count();
        if kept.messages.len() < rows.commit_count() || kept.messages_seen < count {
            let numbered = Arc::make_mut(&mut kept);
            numbered.add_commits(&rows, index);
            numbered.add_messages(&rows, presence, index, count);
        }
        kept.clone()
    }

    /// What they take, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        (self.kept.lock().messages.capacity() * size_of::<MessageNo>()) as u64
    }
}
