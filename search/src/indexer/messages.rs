//! Indexing what commits say: with the commit when it comes, and at each start for those that lack it, because the index
//! was made before there were messages in it, or a crash came between the two files.

use govc_engine::{Kind, Oid, Repo, Result, Snapshot};

use super::{COMMIT_BYTES, Indexer, Stop, tips};
use crate::index::{Bits, messages::text_of};

impl Indexer {
    /// Adds what some commits say. What cannot be read, or is too large, is read by who asks for it.
    pub(super) fn add_messages(
        &mut self,
        repo: &Repo,
        snapshot: &Snapshot,
        commits: &[Oid],
        stop: Stop<'_>,
    ) -> Result<()> {
        for oid in commits {
            if stop() {
                return Ok(());
            }
            if self.corpus.index.has_message(oid) {
                continue;
            }
            match snapshot.commit(oid) {
                Ok(commit) => {
                    text_of(&commit).map_or(Ok(()), |text| self.corpus.index.add_message(*oid, &text))?;
                }
                Err(error) => self.allow_missing(repo, Err(error))?,
            }
            if self.corpus.index.pending_bytes() >= COMMIT_BYTES {
                self.commit_between(stop)?;
            }
        }
        Ok(())
    }

    /// Adds what those commits say of which the presence index is all that there is. If none lacks it, nothing is read; a commit
    /// that no repository has any more goes on to lack it.
    pub(super) fn add_missing_messages(&mut self, stop: Stop<'_>) -> Result<()> {
        let numbers = self.corpus.message_numbers();
        let rows = self.corpus.presence.rows();
        let mut missing = Bits::none(rows.commit_count());
        (0..).take(rows.commit_count()).filter(|at| numbers.get(*at).is_none()).for_each(|at| missing.insert(at));
        if missing.len() == 0 {
            return Ok(());
        }
        for repo in self.list() {
            let snapshot = repo.snapshot();
            let commit = |tip| snapshot.peel(tip).ok().filter(|(_, kind)| *kind == Kind::Commit).map(|(oid, _)| oid);
            let tips = tips(&snapshot).into_iter().filter_map(commit);
            let tips: Vec<_> = tips.filter_map(|oid| self.corpus.presence.number(&rows, &oid)).collect();
            let mut wanted = rows.reached(&tips);
            wanted.intersect(&missing);
            let commits: Vec<Oid> = wanted.iter().filter_map(|at| rows.commit(at)).map(|row| row.oid).collect();
            self.add_messages(&repo, &snapshot, &commits, stop)?;
            missing.subtract(&wanted);
            if stop() || missing.len() == 0 {
                break;
            }
        }
        Ok(())
    }
}
