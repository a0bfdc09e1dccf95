//! How fast and how exact is code search, beside those who have an index and those who read everything?
//!
//! The corpus is pushed to a server as one repository. Every query is first counted to its end, by govc over HTTP and by
//! ripgrep and git grep; files and matches must be equal. Then everyone is timed warm: a page of 50 files, and
//! counting all. govc is asked over HTTP and also says itself what a search took; zoekt answers in its own process, which
//! costs it no HTTP; the others are processes that print counts by file. Peers that leave files out are named with
//! the number of queries on which they do.

mod asked;
mod beside;
mod corpus;
mod grep;
mod indexed;
mod messages;
mod queries;

use std::collections::BTreeMap;

use asked::{Searcher, Taken};
use corpus::Corpus;
use grep::{Counts, Grep};
use indexed::{Answered, Built, Indexed};
use queries::Query;

use crate::bench::{Bench, progress};
use crate::error::Result;
use crate::report::{Row, median};
use crate::server::{Govc, NewRepository};
use crate::subject::Subject;

const SUITE: &str = "search";
const REPOSITORY: &str = "source";
/// Searches that take milliseconds are repeated more often than others.
const QUICK_RUNS: u32 = 5;

pub(crate) fn run(bench: &Bench) -> Result<Vec<Row>> {
    let folder = bench.fresh_folder()?;
    progress("search: copying the corpus");
    let corpus = Corpus::make(&bench.git, folder.path())?;
    let indexed = Indexed::make(&corpus, folder.path())?;
    let queries = queries::all();
    // What is pushed would be compacted beside everything that is measured.
    let settings = [("GOVC_COMPACTION_ENABLED", "false")];
    let server = Govc::start_with(&bench.govc, &folder.path().join("data"), &settings)?;
    server.create(&NewRepository { name: REPOSITORY, default_branch: "main", durability: "durable" })?;
    progress("search: pushing the corpus");
    corpus.git(&bench.git, &["push", "--quiet", &server.url(REPOSITORY), "HEAD:refs/heads/main"])?;
    let mut rows = index_rows(bench, &server, &corpus, &indexed)?;
    let measured = measure_queries(bench, &server, &corpus, &indexed, &queries)?;
    let texts: Vec<String> = queries.iter().map(Query::govc).collect();
    let mut all = measured.rows(&queries);
    all.append(&mut rows);
    all.extend(beside::searchers(bench, &server, REPOSITORY, &texts)?);
    all.extend(beside::visibility(bench, &server, REPOSITORY)?);
    server.stop()?;
    drop(folder);
    all.extend(messages::rows(bench)?);
    all.extend(beside::publishing(bench)?);
    Ok(all)
}

/// What making the index costs, and how large it is.
fn index_rows(bench: &Bench, server: &Govc, corpus: &Corpus, indexed: &Indexed) -> Result<Vec<Row>> {
    progress("search: govc indexes");
    let mut seconds = Vec::new();
    for _ in 0..bench.runs {
        seconds.push(asked::rebuild_seconds(server)?);
    }
    let statistics = asked::await_all(server, 1)?;
    let megabytes = corpus.bytes as f64 / 1e6;
    let text = corpus.bytes as f64;
    let rate = megabytes / median(seconds);
    let of = format!("{} files, {megabytes:.0} MB", corpus.files);
    let built = |peer: &str, built: &Built| {
        Row::new(SUITE, format!("index of {of}, made anew, text per CPU second"), "MB/s", rate)
            .beside(peer, megabytes / built.cpu_seconds)
            .verified(true)
    };
    let sized = |what: &str, bytes: u64, peer: &str, peer_bytes: u64| {
        Row::new(SUITE, format!("index of {of}, {what}, by text"), "", bytes as f64 / text)
            .beside(peer, peer_bytes as f64 / text)
            .durability("durable")
            .verified(true)
    };
    let (zoekt, cindex) = (&indexed.zoekt_build, &indexed.cindex_build);
    Ok(vec![
        built("zoekt, without ctags", zoekt),
        built("cindex", cindex),
        sized("size", statistics.index_bytes, "cindex", cindex.bytes),
        sized(
            "size with its texts",
            statistics.index_bytes + statistics.text_bytes,
            "zoekt, with its texts",
            zoekt.bytes,
        ),
    ])
}

/// What all of them gave, by query.
struct Measured {
    /// Whether files and matches were the same for govc and ripgrep, and files for govc and git grep.
    equal: Vec<(bool, bool)>,
    pages: Vec<Taken>,
    counts: Vec<Taken>,
    zoekt: Vec<Answered>,
    /// Milliseconds of those who print counts, with the queries on which they leave files out.
    greps: Vec<(String, Vec<f64>)>,
    /// On how many queries zoekt finds other files.
    zoekt_differs: usize,
}

fn measure_queries(
    bench: &Bench,
    server: &Govc,
    corpus: &Corpus,
    indexed: &Indexed,
    queries: &[Query],
) -> Result<Measured> {
    let mut searcher = Searcher::connect(server, REPOSITORY)?;
    progress("search: counting everything");
    let oracle = Grep::Ripgrep { matches: true };
    let truth = queries.iter().map(|query| Ok(oracle.ask(corpus, query, 1)?.0)).collect::<Result<Vec<Counts>>>()?;
    let mut ours = Vec::new();
    for query in queries {
        ours.push(searcher.count(&query.govc())?);
    }
    progress("search: timing govc");
    let runs = QUICK_RUNS * bench.runs;
    let (mut pages, mut counts) = (Vec::new(), Vec::new());
    for query in queries {
        pages.push(searcher.time_page(&query.govc(), runs)?);
        counts.push(searcher.time_count(&query.govc(), bench.runs.max(3))?);
    }
    progress("search: timing zoekt");
    let zoekt = indexed.zoekt(queries, runs)?;
    let zoekt_differs = zoekt.iter().zip(&truth).filter(|(answer, truth)| answer.files != truth.files).count();
    let mut equal: Vec<(bool, bool)> = ours.iter().zip(&truth).map(|(ours, truth)| (ours == truth, true)).collect();
    let mut greps = Vec::new();
    for grep in [indexed.csearch(), Grep::Ripgrep { matches: false }, Grep::Git(&bench.git)] {
        progress(&format!("search: timing {}", grep.name()));
        let (mut taken, mut differs) = (Vec::new(), 0);
        for ((query, ours), equal) in queries.iter().zip(&ours).zip(&mut equal) {
            let (counts, millis) = grep.ask(corpus, query, bench.runs)?;
            taken.push(millis);
            differs += usize::from(counts.files != ours.files);
            if let Grep::Git(_) = grep {
                equal.1 = counts.files == ours.files;
            }
        }
        let name = match (&grep, differs) {
            (_, 0) => grep.name().to_owned(),
            _ => format!("{}, other files on {differs}", grep.name()),
        };
        greps.push((name, taken));
    }
    for (((query, ours), truth), equal) in queries.iter().zip(&ours).zip(&truth).zip(&equal) {
        if !equal.0 || !equal.1 {
            progress(&format!("search: {}: {ours:?}, by rg {truth:?}, git grep the same: {}", query.govc(), equal.1));
        }
    }
    for (index, query) in queries.iter().enumerate() {
        let (page, count, zoekt) = (pages[index], counts[index], &zoekt[index]);
        progress(&format!(
            "search: {:8.2} ms a page (it says {:.2}, zoekt {:.2}), {:8.2} ms all ({:.2}), {} files: {}",
            page.http,
            page.said,
            zoekt.page_ms,
            count.http,
            zoekt.exhaustive_ms,
            ours[index].files,
            query.govc()
        ));
    }
    Ok(Measured { equal, pages, counts, zoekt, greps, zoekt_differs })
}

impl Measured {
    fn rows(&self, queries: &[Query]) -> Vec<Row> {
        let verified = self.equal.iter().all(|(rg, git)| *rg && *git);
        let count = queries.len();
        let zoekt_name = |what: &str| match self.zoekt_differs {
            0 => format!("zoekt in process, {what}"),
            differs => format!("zoekt in process, {what}, other files on {differs}"),
        };
        let row = |work: String, unit, value, peer: &str, peer_value| {
            Row::new(SUITE, work, unit, value).beside(peer, peer_value).verified(verified)
        };
        let equal = |is: fn(&(bool, bool)) -> bool| self.equal.iter().filter(|equal| is(equal)).count() as f64;
        let http: Vec<f64> = self.pages.iter().map(|taken| taken.http).collect();
        let said: Vec<f64> = self.pages.iter().map(|taken| taken.said).collect();
        let all: Vec<f64> = self.counts.iter().map(|taken| taken.http).collect();
        let all_said: Vec<f64> = self.counts.iter().map(|taken| taken.said).collect();
        let zoekt: Vec<f64> = self.zoekt.iter().map(|answer| answer.page_ms).collect();
        let zoekt_all: Vec<f64> = self.zoekt.iter().map(|answer| answer.exhaustive_ms).collect();
        let (page, every) = (&zoekt_name("page"), &zoekt_name("all"));
        let total = count as f64;
        let mut rows = vec![
            row("queries with equal files and matches".into(), "", equal(|equal| equal.0), "rg -uuu", total),
            row("queries with equal files".into(), "", equal(|equal| equal.1), "git grep", total),
        ];
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("max", 1.0)] {
            let work = format!("page of 50 files over HTTP, {count} queries, {name}");
            rows.push(row(work, "ms", quantile(&http, share), page, quantile(&zoekt, share)));
        }
        let over_http = |what: &str| format!("{what} over HTTP, {count} queries, geomean");
        let as_said = |what: &str| format!("{what}, as the answer says, {count} queries, geomean");
        rows.push(row(over_http("page of 50 files"), "ms", geomean(&http), page, geomean(&zoekt)));
        rows.push(row(as_said("page of 50 files"), "ms", geomean(&said), page, geomean(&zoekt)));
        rows.push(row(over_http("all counted"), "ms", geomean(&all), every, geomean(&zoekt_all)));
        rows.push(row(as_said("all counted"), "ms", geomean(&all_said), every, geomean(&zoekt_all)));
        for (name, taken) in &self.greps {
            let name = format!("{name}, process");
            rows.push(row(over_http("all counted"), "ms", geomean(&all), &name, geomean(taken)));
        }
        let mut classes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, query) in queries.iter().enumerate() {
            classes.entry(query.class).or_default().push(index);
        }
        for (class, indexes) in classes {
            let of = |values: &[f64]| {
                geomean(&indexes.iter().filter_map(|index| values.get(*index).copied()).collect::<Vec<_>>())
            };
            rows.push(row(format!("{class}: page over HTTP"), "ms", of(&http), page, of(&zoekt)));
            rows.push(row(format!("{class}: all counted over HTTP"), "ms", of(&all), every, of(&zoekt_all)));
        }
        rows
    }
}

/// The geometric mean; 0 for none.
fn geomean(values: &[f64]) -> f64 {
    let logarithms: f64 = values.iter().map(|value| value.max(1e-6).ln()).sum();
    if values.is_empty() { 0.0 } else { (logarithms / values.len() as f64).exp() }
}

/// The value that the given share of all does not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len().saturating_sub(1) as f64 * share).ceil() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{geomean, quantile};

    #[test]
    fn means_and_quantiles() {
        assert!((geomean(&[1.0, 100.0]) - 10.0).abs() < 1e-9);
        assert_eq!(geomean(&[]), 0.0);
        let values: Vec<f64> = (1..=11).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.9), quantile(&values, 1.0)), (6.0, 10.0, 11.0));
    }
}
