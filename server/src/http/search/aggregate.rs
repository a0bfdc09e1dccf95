//! Counts over HTTP: everything that a query finds, by one property.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, response::Response};
use govc_engine::Repo;
use govc_search::{Aggregate, GroupBy, Interval, query::SearchKind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        answer,
        extract::{InRepo, Params},
        page,
        problem::Problem,
    },
    request::Request,
    shapes::{AsOfInfo, PartialInfo, took_ms},
};
use crate::app::App;

/// How many directories a path is cut to at most.
const DEPTH_MAX: usize = 16;

/// What to count, and by what.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AggregateParams {
    /// The query, as of a search; all of what it finds is counted.
    #[param(example = "unsafe lang:rust")]
    q: String,
    /// `repository`, `language` or `path` of files; `repository`, `author` or `time` of commits.
    #[param(inline)]
    by: Property,
    /// With `by=path`: how many directories; 1 if absent, at most 16.
    depth: Option<usize>,
    /// With `by=time`: `day`, `week`, `month` or `year`; months if absent.
    #[param(inline)]
    interval: Option<IntervalParam>,
    /// How many groups; 50 if absent, at most 1000.
    limit: Option<usize>,
    /// The version or time to search; the newest if absent.
    at: Option<String>,
}

/// What results are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Property {
    Repository,
    Language,
    Path,
    Author,
    Time,
}

/// How long a time is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum IntervalParam {
    Day,
    Week,
    Month,
    Year,
}

/// Everything that was found, counted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AggregateResponse {
    by: Property,
    /// The largest first; times from the newest on.
    groups: Vec<GroupInfo>,
    /// How many groups there are.
    total_groups: usize,
    /// How many files, or commits, were found.
    total: u64,
    /// How many matches the files have in their contents.
    total_matches: u64,
    /// Results in none of the groups, because there are more than 10 000, or their values are very long.
    others: u64,
    /// Whether this is all.
    exact: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<PartialInfo>,
    as_of: AsOfInfo,
    took_ms: f64,
}

/// A value, and how much has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GroupInfo {
    /// A repository's id; a language, or `Other`; directories, empty for the root; `name <address>`; `2026-11-22`,
    /// `2026-W47`, `2026-11` or `2026`, in UTC.
    value: String,
    /// Files, or commits.
    count: u64,
    /// Matches in the contents of the files.
    matches: u64,
}

/// Count what a query finds in all repositories
#[utoipa::path(
    get, path = "/api/v1/search/aggregate", tag = "search", operation_id = "aggregateAll", params(AggregateParams),
    responses((status = 200, description = "The counts", body = AggregateResponse)),
)]
pub(in crate::http) async fn everywhere(
    State(app): State<Arc<App>>,
    Params(params): Params<AggregateParams>,
) -> Result<Response, Problem> {
    respond(app, params, None).await
}

/// Count what a query finds in a repository
#[utoipa::path(
    get, path = "/api/v1/repos/{id}/search/aggregate", tag = "search", operation_id = "aggregate",
    params(("id" = String, Path, description = "The repository, percent-encoded"), AggregateParams),
    responses((status = 200, description = "The counts", body = AggregateResponse)),
)]
pub(in crate::http) async fn within(
    State(app): State<Arc<App>>,
    InRepo(repo): InRepo,
    Params(params): Params<AggregateParams>,
) -> Result<Response, Problem> {
    respond(app, params, Some(repo)).await
}

async fn respond(app: Arc<App>, params: AggregateParams, repo: Option<Repo>) -> Result<Response, Problem> {
    let begun = Instant::now();
    let by = params.group_by()?;
    let groups_max = page::limit(params.limit)?;
    let worker = Arc::clone(&app);
    let work = move || {
        let kind = by.is_of_commits().then_some(SearchKind::Commit);
        let request = Request::new(&params.q, None, params.at.as_deref(), kind)?;
        let deadline = Some(worker.work.deadline());
        let scope = request.scope(&worker, repo, deadline)?;
        let corpus = worker.search.corpus();
        let counted = govc_search::aggregate(&corpus, &request.query, &scope.places, by, groups_max, deadline)?;
        Ok(answer::ok(&AggregateResponse::new(params.by, counted, scope.as_of, took_ms(begun))))
    };
    app.work.run_in_turn(work).await?
}

impl AggregateParams {
    fn group_by(&self) -> Result<GroupBy, Problem> {
        if self.depth.is_some() && self.by != Property::Path {
            return Err(Problem::invalid("depth is for by=path alone"));
        }
        if self.interval.is_some() && self.by != Property::Time {
            return Err(Problem::invalid("interval is for by=time alone"));
        }
        let depth = self.depth.unwrap_or(1);
        if !(1..=DEPTH_MAX).contains(&depth) {
            return Err(Problem::invalid(format!("depth is from 1 to {DEPTH_MAX}")));
        }
        Ok(match self.by {
            Property::Repository => GroupBy::Repository,
            Property::Language => GroupBy::Language,
            Property::Path => GroupBy::Path(depth),
            Property::Author => GroupBy::Author,
            Property::Time => GroupBy::Time(match self.interval.unwrap_or(IntervalParam::Month) {
                IntervalParam::Day => Interval::Day,
                IntervalParam::Week => Interval::Week,
                IntervalParam::Month => Interval::Month,
                IntervalParam::Year => Interval::Year,
            }),
        })
    }
}

impl AggregateResponse {
    fn new(by: Property, counted: Aggregate, as_of: AsOfInfo, took_ms: f64) -> Self {
        let group =
            |group: govc_search::Group| GroupInfo { value: group.value, count: group.results, matches: group.matches };
        Self {
            by,
            groups: counted.groups.into_iter().map(group).collect(),
            total_groups: counted.groups_total,
            total: counted.total,
            total_matches: counted.matches,
            others: counted.others,
            exact: counted.is_exact,
            partial: counted.partial.map(PartialInfo::from),
            as_of,
            took_ms,
        }
    }
}
