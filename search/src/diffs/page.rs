//! One page of commits, what is counted for it, and where the next one begins.

use govc_engine::{Commit, Oid};

use super::{
    DiffOptions,
    answer::{DiffHit, DiffsFound},
    change::Found,
    cursor::{Counted, DiffCursor, Seen},
};
use crate::{find::Partial, place::Place, query::Count};

/// What the commits of a page may take, in bytes, about: it ends in front of the one that takes more.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// What a commit takes without its message and files, in bytes, about.
const COMMIT_BYTES: usize = 512;

/// A page that is being filled.
pub(super) struct Page<'a> {
    /// How far commits are counted.
    most: Count,
    options: &'a DiffOptions,
    commits: Vec<DiffHit>,
    bytes: usize,
    /// With the pages in front.
    pub(super) counted: Counted,
    /// The last commit that was looked at.
    last: Option<Seen>,
    /// The last one of the page, once that is full.
    end: Option<Seen>,
    /// Whether the time is over.
    pub(super) is_late: bool,
    is_too_large: bool,
    /// Whether there are as many commits as the query counts.
    is_counted: bool,
    pub(super) commits_read: u64,
    files_compared: u64,
}

/// What the look at a commit ends with.
#[derive(PartialEq, Eq)]
pub(super) enum Flow {
    /// The next commit is looked at.
    On,
    /// This was the last one.
    End,
    /// It was not this one's turn: the next page begins with it.
    Before,
}

impl<'a> Page<'a> {
    pub(super) fn new(most: Count, options: &'a DiffOptions) -> Self {
        Self {
            most,
            options,
            commits: Vec::new(),
            bytes: 0,
            counted: options.cursor.as_ref().map(|cursor| cursor.seen.counted).unwrap_or_default(),
            last: None,
            end: None,
            is_late: false,
            is_too_large: false,
            is_counted: false,
            commits_read: 0,
            files_compared: 0,
        }
    }

    /// Whether no more commits are shown.
    pub(super) fn is_full(&self) -> bool {
        self.end.is_some() || self.commits.len() >= self.options.commits_max
    }

    /// What the next commit may take, in bytes.
    pub(super) fn budget_bytes(&self) -> usize {
        PAGE_BYTES_MAX.saturating_sub(self.bytes)
    }

    /// Whether a commit was looked at.
    pub(super) fn has_passed(&self) -> bool {
        self.last.is_some()
    }

    /// Goes past a commit: a page may begin behind it.
    pub(super) fn pass(&mut self, place: u32, oid: &Oid) {
        let seen = Seen { place, commit: oid.as_bytes().to_vec(), counted: self.counted };
        if self.end.is_none() && self.commits.len() >= self.options.commits_max {
            self.end = Some(seen.clone());
        }
        self.last = Some(seen);
    }

    /// Counts a commit of which not all is told.
    pub(super) fn skip_commit(&mut self, is_unreadable: bool) {
        self.counted.commits_skipped = self.counted.commits_skipped.saturating_add(1);
        self.counted.is_unreadable |= is_unreadable;
    }

    /// Takes what was found in a commit, which is given if there is anything.
    pub(super) fn add(
        &mut self,
        place: &Place,
        oid: Oid,
        commit: Option<Commit>,
        found: Found,
        is_whole: bool,
    ) -> Flow {
        self.files_compared += found.files_compared;
        let Some(commit) = commit else {
            self.count(&found);
            return if self.is_late { Flow::End } else { Flow::On };
        };
        let more = found.bytes.saturating_add(commit.message.len()).saturating_add(COMMIT_BYTES);
        if !self.is_full() && !self.commits.is_empty() && (found.is_too_large || more > self.budget_bytes()) {
            self.is_too_large = true;
            if self.most != Count::All {
                return Flow::Before;
            }
            self.end.clone_from(&self.last);
        }
        self.count(&found);
        if !self.is_full() {
            self.is_too_large |= found.is_too_large;
            self.bytes = self.bytes.saturating_add(more);
            let (repo, rev) = (place.repo.clone(), place.rev.clone());
            let Found { files, total_files, total_lines, .. } = found;
            self.commits.push(DiffHit { repo, rev, oid, commit, files, total_files, total_lines, is_whole });
        }
        match self.most {
            _ if self.is_late => Flow::End,
            Count::All => Flow::On,
            Count::Files(most) if self.counted.commits >= most as u64 => {
                self.is_counted = true;
                Flow::End
            }
            _ if self.commits.len() < self.options.commits_max => Flow::On,
            _ => Flow::End,
        }
    }

    fn count(&mut self, found: &Found) {
        let counted = &mut self.counted;
        counted.commits = counted.commits.saturating_add(u64::from(found.total_files > 0));
        counted.files = counted.files.saturating_add(found.total_files);
        counted.lines = counted.lines.saturating_add(found.total_lines);
        counted.files_skipped = counted.files_skipped.saturating_add(found.files_skipped);
        counted.is_unreadable |= found.is_unreadable;
        counted.is_incomplete |= found.is_incomplete;
    }

    /// The answer, with where the next page begins. Whether everything was searched is for the search to say.
    pub(super) fn finish(self, fingerprint: u64, is_searched: bool) -> DiffsFound {
        let counted = self.counted;
        let end =
            match self.end {
                Some(end) => Some(end).filter(|end| !is_searched || counted.commits > end.counted.commits),
                None if is_searched => None,
                // The time was over before the page was full, perhaps before anything was looked at.
                None => Some(self.last.unwrap_or_else(|| {
                    self.options.cursor.as_ref().map(|cursor| cursor.seen.clone()).unwrap_or_default()
                })),
            };
        let next = end.filter(|_| !self.is_counted).map(|seen| DiffCursor { fingerprint, seen });
        let partial = match () {
            () if self.is_late => Some(Partial::Deadline),
            () if self.is_counted => Some(Partial::Count),
            () if counted.is_unreadable => Some(Partial::Unreadable),
            () if self.is_too_large => Some(Partial::Size),
            () => None,
        };
        let is_told = counted.commits_skipped == 0 && !counted.is_incomplete;
        let is_exact = is_searched && is_told && matches!(partial, None | Some(Partial::Size));
        DiffsFound {
            commits: self.commits,
            total: counted.commits,
            total_files: counted.files,
            total_lines: counted.lines,
            is_exact,
            partial,
            next,
            files_skipped: counted.files_skipped,
            commits_skipped: counted.commits_skipped,
            commits_read: self.commits_read,
            files_compared: self.files_compared,
        }
    }
}
