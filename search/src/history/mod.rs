//! Questions about a history: which commits contain something, when it appeared and went, on which branches it is now.
//!
//! 1. The query becomes a plan, as for [`crate::find()`]; the commits are those that its `branch:` and `rev:` reach, or all
//!    branches and tags do ([`tips`]). What the presence index does not have of them is read ([`ground`]).
//! 2. Paths are matched once each. Contents are matched once for each distinct piece of text that any version of any
//!    file has ([`verdict`]), so that each condition is a set of blobs ([`test`]).
//! 3. One pass over the commits, parents first, counts the matching files of each: those of the first parent, and what the
//!    commit adds and removes ([`count`]). First and last commit, events and pages ([`page`]) are read off that.
//!
//! What a commit adds is told against its first parent, as `git log --first-parent --diff-merges=first-parent` does; which
//! commits contain a match is told of all that are reached, by whatever parents.
//!
//! Only what the snapshot's references reach is in an answer: a `rev:` that they do not reach is not found.

mod answer;
mod count;
mod cursor;
mod ground;
mod page;
mod test;
mod tips;
mod verdict;

use std::time::Instant;

use govc_engine::{Error, ErrorKind, Result, Snapshot};

pub(crate) use self::verdict::Verdicts;
pub use self::{
    answer::{
        FileTransition, HistoryAnswer, HistoryCommit, HistoryEvent, HistoryExplain, HistoryList, HistoryRef,
        HistoryRows, Transition,
    },
    cursor::HistoryCursor,
};
use self::{
    count::Counted,
    ground::Ground,
    page::Pages,
    test::{Scope, Test},
    tips::Tip,
};
use crate::{
    corpus::Corpus,
    find::{Condition, Partial, Plan, Term},
    presence::CommitNo,
    query::{Count, Query, SearchKind},
};

/// References of an answer.
const REFS_MAX: usize = 1000;

/// How to answer.
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    /// What is listed.
    pub list: HistoryList,
    /// Rows of a page; a thousand at most.
    pub rows_max: usize,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// Whether events and files are listed of all commits, each against its first parent, and not only of those that are
    /// reached by first parents alone.
    pub all_parents: bool,
    /// Whether tags are reported beside branches.
    pub with_tags: bool,
    /// Where the page begins.
    pub cursor: Option<HistoryCursor>,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
}

impl Default for HistoryOptions {
    fn default() -> Self {
        Self {
            list: HistoryList::default(),
            rows_max: 50,
            oldest_first: false,
            all_parents: false,
            with_tags: false,
            cursor: None,
            deadline: None,
        }
    }
}

/// Asks about the history of a repository. The query may ask for content, path and language; its `branch:` and `rev:` say
/// where to begin.
///
/// # Errors
/// Invalid if the query or the cursor cannot be used; not found if a revision is not there; too large or a limit exceeded
/// if commits that are not indexed change millions of files; else when a commit or directory cannot be read. A file that
/// cannot is taken not to match, and the answer is partial. The deadline is no error either: the answer is then partial, and what was found out is remembered for the next call.
pub fn history(corpus: &Corpus, snapshot: &Snapshot, query: &Query, options: &HistoryOptions) -> Result<HistoryAnswer> {
    let begun = Instant::now();
    check(query)?;
    let fingerprint = cursor::fingerprint(query, options);
    if options.cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != fingerprint) {
        return Err(Error::invalid("the cursor belongs to another query"));
    }
    match (Question { corpus, snapshot, query, options, begun }).answer(fingerprint) {
        Err(error) if *error.kind() == ErrorKind::Cancelled => {
            let begin = || HistoryCursor { fingerprint, after: None };
            let next = options.cursor.clone().unwrap_or_else(begin);
            let explain = HistoryExplain { total_time: begun.elapsed(), ..HistoryExplain::default() };
            let partial = Some(Partial::Deadline);
            Ok(HistoryAnswer { partial, next: Some(next), explain, ..HistoryAnswer::none(options.list) })
        }
        answer => answer,
    }
}

/// # Errors
/// Invalid if the query asks for what histories are not asked for.
fn check(query: &Query) -> Result<()> {
    if !matches!(query.options.kind, SearchKind::File | SearchKind::Path) {
        return Err(Error::invalid("a history is asked for files: no other type: can be used"));
    }
    if query.options.select.is_some() || query.options.count != Count::Page {
        return Err(Error::invalid("select: and count: cannot be used when a history is asked for"));
    }
    Ok(())
}

struct Question<'a> {
    corpus: &'a Corpus,
    snapshot: &'a Snapshot,
    query: &'a Query,
    options: &'a HistoryOptions,
    begun: Instant,
}

impl Question<'_> {
    fn answer(&self, fingerprint: u64) -> Result<HistoryAnswer> {
        let until = self.options.deadline;
        let plan = Plan::new(self.query, until)?;
        let condition = self.given(&plan);
        if condition.asks_definitions() {
            return Err(Error::invalid("definitions (sym:) cannot be asked for in a history"));
        }
        let tips = tips::tips(self.snapshot, &self.query.options, until)?;
        let mut ground = Ground::new(self.corpus, self.snapshot, until);
        let numbers = tips.iter().map(|tip| ground.find(tip.commit)).collect::<Result<Vec<CommitNo>>>()?;
        self.check_revs(&mut ground, &tips, &numbers)?;
        let reached = ground.reached(&numbers);
        ground.read_changes(&reached)?;
        let commits: Vec<CommitNo> = reached.iter().collect();
        let scope = Scope { ground: &ground, snapshot: self.snapshot, commits: &commits };
        let walk_time = self.begun.elapsed();

        let test = Test::new(self.corpus, &plan, &condition, &scope, until)?;
        let match_time = self.begun.elapsed();
        let counted = Counted::new(&test, &scope, until)?;

        let chain;
        let listed = if self.options.all_parents {
            &reached
        } else {
            chain = ground.first_parents(&numbers);
            &chain
        };
        let (corpus, options) = (self.corpus, self.options);
        let pages = Pages { corpus, options, test: &test, scope: &scope, counted: &counted, listed };
        let page = pages.page(options.cursor.as_ref().and_then(|cursor| cursor.after.as_ref()))?;
        let (mut first, mut last, mut total_commits) = (None, None, 0);
        for commit in commits.iter().copied().filter(|commit| counted.files(*commit) > 0) {
            let key = pages.key(commit);
            total_commits += 1;
            first = first.filter(|(other, _)| *other < key).or(Some((key, commit)));
            last = last.filter(|(other, _)| *other > key).or(Some((key, commit)));
        }
        let describe = |found: Option<(_, CommitNo)>| found.map(|(_, commit)| pages.describe(commit)).transpose();
        let (branches, total_branches) = self.refs(&tips, &numbers, &counted, false);
        let (tags, total_tags) = self.refs(&tips, &numbers, &counted, true);
        let explain = HistoryExplain {
            commits: commits.len() as u64,
            commits_read: ground.read_count() as u64,
            chunks_read: test.looked.chunks,
            files_read: test.looked.blobs,
            walk_time,
            match_time,
            total_time: self.begun.elapsed(),
        };
        Ok(HistoryAnswer {
            rows: page.rows,
            total_rows: page.total_rows,
            first: describe(first)?,
            last: describe(last)?,
            total_commits,
            branches,
            total_branches,
            tags,
            total_tags,
            partial: test.is_incomplete().then_some(Partial::Unreadable),
            next: page.end.map(|after| HistoryCursor { fingerprint, after: Some(after) }),
            explain,
        })
    }

    /// What the plan demands of this repository's files.
    fn given(&self, plan: &Plan) -> Condition {
        let repo = self.snapshot.repo();
        let (name, is_fork) = (repo.name(), repo.forked_from().is_some());
        plan.condition.given(&|term| match term {
            Term::Repo(number) => plan.patterns.get(*number).map(|matcher| matcher.is_match(name.as_str().as_bytes())),
            Term::Fork(wanted) => Some(*wanted == is_fork),
            _ => None,
        })
    }

    /// A revision may be the id of a commit that the store still has and no reference reaches: it is not there.
    ///
    /// # Errors
    /// Not found if there is such a one; else as [`Ground::find`].
    fn check_revs(&self, ground: &mut Ground<'_>, tips: &[Tip], numbers: &[CommitNo]) -> Result<()> {
        if tips.iter().all(|tip| tip.name.is_some()) {
            return Ok(());
        }
        let named = tips::all_tips(self.snapshot, self.options.deadline)?;
        let is_hidden = |tip: &Tip| tip.name.is_none() && !named.contains(&tip.commit);
        if !tips.iter().any(is_hidden) {
            return Ok(());
        }
        let all = named.iter().map(|oid| ground.find(*oid)).collect::<Result<Vec<CommitNo>>>()?;
        let reached = ground.reached(&all);
        match tips.iter().zip(numbers).find(|(tip, number)| is_hidden(tip) && !reached.contains(**number)) {
            // Without its id, which nobody else would have told.
            Some(_) => Err(Error::not_found("a revision of the query does not exist")),
            None => Ok(()),
        }
    }

    /// The branches, or the tags, on whose tips files match, and how many these are.
    fn refs(&self, tips: &[Tip], numbers: &[CommitNo], counted: &Counted, is_tag: bool) -> (Vec<HistoryRef>, u64) {
        let (mut refs, mut total) = (Vec::new(), 0);
        for (tip, number) in tips.iter().zip(numbers) {
            let Some(name) = tip.name.as_ref().filter(|name| name.is_tag() == is_tag) else { continue };
            let files = u64::from(counted.files(*number));
            if files == 0 || (is_tag && !self.options.with_tags) {
                continue;
            }
            total += 1;
            if refs.len() < REFS_MAX {
                refs.push(HistoryRef { name: name.clone(), commit: tip.commit, files });
            }
        }
        (refs, total)
    }
}

impl HistoryAnswer {
    /// Of nothing.
    fn none(list: HistoryList) -> Self {
        Self {
            rows: HistoryRows::none(list),
            total_rows: 0,
            first: None,
            last: None,
            total_commits: 0,
            branches: Vec::new(),
            total_branches: 0,
            tags: Vec::new(),
            total_tags: 0,
            partial: None,
            next: None,
            explain: HistoryExplain::default(),
        }
    }
}
