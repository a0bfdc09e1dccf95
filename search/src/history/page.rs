//! A page of what is listed: the rows behind the cursor, in the order of commits.

use std::ops::ControlFlow;

use govc_engine::{Oid, Result};

use super::{
    FileTransition, HistoryCommit, HistoryEvent, HistoryList, HistoryOptions, HistoryRows, Transition,
    count::{Counted, Turn, turned_files},
    cursor::After,
    test::{Scope, Test},
    verdict,
};
use crate::{corpus::Corpus, index::Bits, presence::CommitNo};

/// Rows of a page.
const ROWS_MAX: usize = 1000;
/// Files of an event that are shown.
const EVENT_FILES_MAX: usize = 100;
/// What the paths of a page may take, in bytes, about: it ends earlier then.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// What a page is made of.
pub(super) struct Pages<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) options: &'a HistoryOptions,
    pub(super) test: &'a Test<'a>,
    pub(super) scope: &'a Scope<'a>,
    pub(super) counted: &'a Counted,
    /// The commits whose events and files are listed.
    pub(super) listed: &'a Bits,
}

/// A page.
pub(super) struct Page {
    pub(super) rows: HistoryRows,
    pub(super) total_rows: u64,
    /// The last row, if there are more.
    pub(super) end: Option<After>,
}

impl Pages<'_> {
    /// The page behind `after`.
    ///
    /// # Errors
    /// When a commit of it cannot be read.
    pub(super) fn page(&self, after: Option<&After>) -> Result<Page> {
        match self.options.list {
            HistoryList::Commits => self.commits(after),
            HistoryList::Events => self.events(after),
            HistoryList::Files => self.files(after),
        }
    }

    /// A commit for people.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn describe(&self, number: CommitNo) -> Result<HistoryCommit> {
        let oid = self.key(number).1;
        Ok(HistoryCommit::new(oid, self.scope.snapshot.commit(&oid)?, self.counted.files(number)))
    }

    /// A commit's place in the order.
    pub(super) fn key(&self, number: CommitNo) -> (i64, Oid) {
        let row = self.scope.ground.commit(number);
        row.map_or_else(
            || (i64::MIN, self.scope.snapshot.object_format().null()),
            |row| (row.corrected_seconds, row.oid),
        )
    }

    fn rows_max(&self) -> usize {
        self.options.rows_max.clamp(1, ROWS_MAX)
    }

    /// Those of `all` that are behind `after`, or at it where that is told, in order: no more than a page and what tells that there is another.
    fn behind<T: Copy>(
        &self,
        all: &[T],
        number: impl Fn(&T) -> CommitNo,
        after: Option<&After>,
        at_too: bool,
    ) -> Vec<T> {
        let after = after.and_then(After::key);
        let oldest_first = self.options.oldest_first;
        let is_behind = |key: (i64, Oid)| match after {
            None => true,
            Some(after) if key == after => at_too,
            Some(after) => (key > after) == oldest_first,
        };
        let mut rows: Vec<((i64, Oid), T)> = all.iter().map(|row| (self.key(number(row)), *row)).collect();
        rows.retain(|(key, _)| is_behind(*key));
        let order = |left: &((i64, Oid), T), right: &((i64, Oid), T)| match oldest_first {
            true => left.0.cmp(&right.0),
            false => right.0.cmp(&left.0),
        };
        // Of the commit of the cursor, nothing may be left.
        let most = self.rows_max() + 1 + usize::from(at_too);
        if rows.len() > most {
            rows.select_nth_unstable_by(most, order);
            rows.truncate(most);
        }
        rows.sort_unstable_by(order);
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn after(&self, number: CommitNo, path: Option<&[u8]>) -> After {
        let (corrected_seconds, oid) = self.key(number);
        After { corrected_seconds, commit: oid.as_bytes().to_vec(), path: path.map(<[u8]>::to_vec) }
    }

    fn commits(&self, after: Option<&After>) -> Result<Page> {
        let commits = self.scope.commits.iter().copied();
        let all: Vec<CommitNo> = commits.filter(|commit| self.counted.files(*commit) > 0).collect();
        let mut page = self.behind(&all, |number| *number, after, false);
        let is_more = page.len() > self.rows_max();
        page.truncate(self.rows_max());
        let end = page.last().filter(|_| is_more).map(|last| self.after(*last, None));
        let rows = page.iter().map(|number| self.describe(*number)).collect::<Result<_>>()?;
        Ok(Page { rows: HistoryRows::Commits(rows), total_rows: all.len() as u64, end })
    }

    fn events(&self, after: Option<&After>) -> Result<Page> {
        let is_event = |turn: &&Turn| self.listed.contains(turn.commit) && (turn.before == 0) != (turn.after() == 0);
        let all: Vec<Turn> = self.counted.turns.iter().filter(is_event).copied().collect();
        let page = self.behind(&all, |turn| turn.commit, after, false);
        let (mut rows, mut bytes, mut end) = (Vec::new(), 0, None);
        for turn in page {
            if rows.len() == self.rows_max() || bytes > PAGE_BYTES_MAX {
                end = rows.last().map(|(last, _)| self.after(*last, None));
                break;
            }
            let files = self.turned(turn.commit, EVENT_FILES_MAX)?;
            bytes += files.iter().map(|file| file.path.len()).sum::<usize>();
            let transition = if turn.before == 0 { Transition::Appeared } else { Transition::Gone };
            rows.push((turn.commit, HistoryEvent { commit: self.describe(turn.commit)?, transition, files }));
        }
        let rows = HistoryRows::Events(rows.into_iter().map(|(_, event)| event).collect());
        Ok(Page { rows, total_rows: all.len() as u64, end })
    }

    fn files(&self, after: Option<&After>) -> Result<Page> {
        let all: Vec<Turn> =
            self.counted.turns.iter().filter(|turn| self.listed.contains(turn.commit)).copied().collect();
        let total_rows = all.iter().map(|turn| u64::from(turn.appeared) + u64::from(turn.gone)).sum();
        let (mut rows, mut bytes, mut last, mut end) = (Vec::new(), 0, None, None);
        'page: for turn in self.behind(&all, |turn| turn.commit, after, true) {
            let commit = self.describe(turn.commit)?;
            let begun = after.filter(|after| after.key() == Some(self.key(turn.commit)));
            let begun = begun.and_then(|after| after.path.as_deref());
            for file in self.turned(turn.commit, usize::MAX)? {
                if begun.is_some_and(|begun| file.path.as_slice() <= begun) {
                    continue;
                }
                if rows.len() == self.rows_max() || bytes > PAGE_BYTES_MAX {
                    end = last.map(|(number, path): (CommitNo, Vec<u8>)| self.after(number, Some(&path)));
                    break 'page;
                }
                bytes += file.path.len();
                last = Some((turn.commit, file.path.clone()));
                rows.push((commit.clone(), file));
            }
        }
        Ok(Page { rows: HistoryRows::Files(rows), total_rows, end })
    }

    /// The files of a commit whose match appeared or went, by path, at most `most`.
    fn turned(&self, commit: CommitNo, most: usize) -> Result<Vec<FileTransition>> {
        let mut files = Vec::new();
        turned_files(self.test, self.scope, commit, &mut |change, is_new| {
            let (transition, blob) =
                if is_new { (Transition::Appeared, change.new) } else { (Transition::Gone, change.old) };
            let path = self.scope.ground.path(change.path).to_vec();
            files.push(FileTransition { path, transition, blob: verdict::oid(self.corpus, blob) });
            if files.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        // A tree's own order, which a broken one does not keep.
        files.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(files)
    }
}
