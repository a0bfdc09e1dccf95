//! Counting everything that a query finds by one property of it.
//!
//! Files are counted by what the facets of a search count, over all of it; commits by what the index has of them, or by reading them.

use std::time::Instant;

use govc_engine::{Error, Result};
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    commits::{CommitOptions, find_commits},
    corpus::Corpus,
    find::{FindOptions, Partial, find},
    groups::Group,
    place::Place,
    query::{Count, Query, SearchKind},
};

/// What results are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// The repository's name; of files and commits.
    Repository,
    /// The language's name, `Other` if it is not known; of files.
    Language,
    /// The first so many directories of the path, each with its slash, empty for the root; of files.
    Path(usize),
    /// The author's name and address as git shows them; of commits.
    Author,
    /// When it was committed, in UTC; of commits.
    Time(Interval),
}

/// How long a time is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// `2026-11-22`.
    Day,
    /// The week of ISO 8601, from Monday on: `2026-W47`.
    Week,
    /// `2026-11`.
    Month,
    /// `2026`.
    Year,
}

/// Everything that a query finds, counted.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The largest groups first; times from the newest on.
    pub groups: Vec<Group>,
    /// How many groups there are.
    pub groups_total: usize,
    /// Files or commits that were found.
    pub total: u64,
    /// Matches in the contents of the files.
    pub matches: u64,
    /// Results in no group, because there are too many of them.
    pub others: u64,
    /// Whether that is all, each in its group.
    pub is_exact: bool,
    /// Why it is not.
    pub partial: Option<Partial>,
}

impl GroupBy {
    /// Whether commits have this property alone, and files do not.
    pub fn is_of_commits(self) -> bool {
        matches!(self, Self::Author | Self::Time(_))
    }

    /// The value of a commit, by who wrote it, as `name <address>`, and when it was committed; empty if commits have none.
    pub(crate) fn of_commit(self, place: &Place, author: &[u8], seconds: i64) -> String {
        match self {
            Self::Repository => place.repo.clone(),
            Self::Author => String::from_utf8_lossy(author).into_owned(),
            Self::Time(interval) => interval.of(seconds),
            Self::Language | Self::Path(_) => String::new(),
        }
    }
}

impl Interval {
    /// The interval that a moment is in; a moment that no calendar has is in the first or last one.
    fn of(self, seconds: i64) -> String {
        let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let date = Timestamp::from_second(seconds).unwrap_or(end).to_zoned(TimeZone::UTC).date();
        match self {
            Self::Day => date.to_string(),
            Self::Week => {
                let week = date.iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Self::Month => format!("{:04}-{:02}", date.year(), date.month()),
            Self::Year => format!("{:04}", date.year()),
        }
    }
}

/// Counts what the query finds in `places`: files, or commits if it says `type:commit`; all of it, whatever its `count:` says.
///
/// # Errors
/// Invalid if what is searched does not have the property, and as [`find`] and [`find_commits`]. The deadline is no error:
/// the counts are then partial.
pub fn aggregate(
    corpus: &Corpus,
    query: &Query,
    places: &[Place],
    by: GroupBy,
    groups_max: usize,
    deadline: Option<Instant>,
) -> Result<Aggregate> {
    let mut query = query.clone();
    query.options.count = Count::All;
    match query.options.kind {
        SearchKind::Commit => commits(corpus, &query, places, by, groups_max, deadline),
        _ => files(corpus, &query, places, by, groups_max, deadline),
    }
}

fn files(
    corpus: &Corpus,
    query: &Query,
    places: &[Place],
    by: GroupBy,
    groups_max: usize,
    deadline: Option<Instant>,
) -> Result<Aggregate> {
    let path_depth = if let GroupBy::Path(depth) = by { depth } else { 1 };
    let options = FindOptions { files_max: 1, lines_max: 0, path_depth, deadline, ..FindOptions::default() };
    let found = find(corpus, query, places, &options)?;
    let groups = match by {
        GroupBy::Repository => &found.facets.repositories,
        GroupBy::Language => &found.facets.languages,
        GroupBy::Path(_) => &found.facets.paths,
        GroupBy::Author | GroupBy::Time(_) => {
            return Err(Error::invalid("author and time are those of commits: search them with type:commit"));
        }
    };
    Ok(Aggregate {
        groups: groups.largest(groups_max),
        groups_total: groups.values(),
        total: found.total_files,
        matches: found.total_matches,
        others: groups.others(),
        is_exact: found.is_exact && groups.others() == 0,
        partial: found.partial,
    })
}

fn commits(
    corpus: &Corpus,
    query: &Query,
    places: &[Place],
    by: GroupBy,
    groups_max: usize,
    deadline: Option<Instant>,
) -> Result<Aggregate> {
    if let GroupBy::Language | GroupBy::Path(_) = by {
        return Err(Error::invalid("commits have no language and no path: they are those of files"));
    }
    let options = CommitOptions { commits_max: 1, cursor: None, group_by: Some(by), deadline };
    let found = find_commits(corpus, query, places, &options)?;
    let groups = &found.groups;
    Ok(Aggregate {
        groups: if let GroupBy::Time(_) = by { groups.newest(groups_max) } else { groups.largest(groups_max) },
        groups_total: groups.values(),
        total: found.total,
        matches: 0,
        others: groups.others(),
        is_exact: found.is_exact && groups.others() == 0,
        partial: found.partial,
    })
}

#[cfg(test)]
mod tests {
    use super::Interval;

    #[test]
    fn moments_are_in_intervals() {
        // Friday, 2021-01-01, is in the last week of 2020.
        let new_year = 1_609_459_200;
        for (interval, expected) in [
            (Interval::Day, "2021-01-01"),
            (Interval::Week, "2020-W53"),
            (Interval::Month, "2021-01"),
            (Interval::Year, "2021"),
        ] {
            assert_eq!(interval.of(new_year), expected);
        }
        assert_eq!(Interval::Day.of(new_year - 1), "2020-12-31");
        assert_eq!((Interval::Year.of(i64::MAX), Interval::Year.of(i64::MIN)), ("9999".into(), "-9999".into()));
    }
}
