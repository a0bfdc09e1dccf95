//! Finding files: the query against the trees of the places that are searched, with the index for what it knows.
//!
//! 1. The query becomes a [`plan::Plan`]: patterns compiled once, conditions, cheapest first.
//! 2. The index says in which chunks and blobs each pattern may match ([`candidates`]); of what it does not have, it says
//!    nothing, and those files are read.
//! 3. The places' directories are gone through in the order of results ([`scan`]); each file that may match is read, as far
//!    as needed, and matched ([`file`]). So an answer is exact at the moment of the snapshots, whatever is indexed.
//! 4. The scan stops when there are enough files to rank, unless everything is to be counted, or at the deadline, and
//!    says so ([`Partial`]).

mod answer;
mod candidates;
mod cursor;
mod file;
mod pattern;
mod plan;
mod runs;
mod scan;
mod select;

use std::{collections::HashMap, ops::ControlFlow, sync::Arc, time::Instant};

use govc_engine::{Error, ErrorKind, Result};

pub use self::answer::{Explain, ExplainPattern, Facets, FileHit, Found, Partial};
pub use self::cursor::Cursor;
use self::{
    answer::{Ranked, WINDOW_FILES_MAX, Window},
    plan::Reported,
    scan::{Demand, Ground, Position, Scan},
};
pub(crate) use self::{
    candidates::Candidates,
    cursor::fingerprint,
    file::{File, Reading},
    pattern::Matcher,
    plan::{Answer, CommitTerm, Condition, PatternNo, Plan, Term},
};
use crate::{
    corpus::Corpus,
    deadline,
    index::{Bits, BlobNo, Generation},
    language::Language,
    place::Place,
    query::{Count, Query, SearchKind, Select},
};

/// Files that are ranked together: a page is the best of so many.
const WINDOW_FILES: usize = 128;
/// Files between two looks at the clock.
const CLOCK_FILES: u64 = 32;
/// What the lines of a page may take, in bytes, about: it ends with the file in front of the one that takes more.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// How to answer.
#[derive(Debug, Clone)]
pub struct FindOptions {
    /// Files of a page; a thousand at most.
    pub files_max: usize,
    /// Lines that are shown of a file.
    pub lines_max: usize,
    /// Neighbours that are shown on each side of a line.
    pub context_lines: usize,
    /// Where the page begins.
    pub cursor: Option<Cursor>,
    /// How many directories of a path its facet has.
    pub path_depth: usize,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
    /// Whether [`Explain::patterns`] says how many candidates there were.
    pub counts_candidates: bool,
}

impl Default for FindOptions {
    fn default() -> Self {
        Self {
            files_max: 50,
            lines_max: 10,
            context_lines: 0,
            cursor: None,
            path_depth: 1,
            deadline: None,
            counts_candidates: false,
        }
    }
}

/// Searches the files of `places`.
///
/// # Errors
/// Invalid if the query or the cursor cannot be used; cancelled if the time is over before the query is compiled; else when
/// stored data cannot be read. A deadline that comes later is no error: the answer is then partial.
pub fn find(corpus: &Corpus, query: &Query, places: &[Place], options: &FindOptions) -> Result<Found> {
    let begun = Instant::now();
    if query.options.kind == SearchKind::Diff {
        return Err(Error::invalid("the query asks for changed lines (type:diff), which files do not have"));
    }
    let plan = Plan::new(query, options.deadline)?;
    let asks_definitions = plan.condition.asks_definitions() || query.options.select == Some(Select::Symbol);
    if asks_definitions && !corpus.definitions.can_tell() {
        return Err(Error::invalid("definitions (sym:, type:symbol, select:symbol) cannot be searched here"));
    }
    let fingerprint = cursor::fingerprint(query, places);
    if options.cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != fingerprint) {
        return Err(Error::invalid("the cursor belongs to another query"));
    }
    let generation = corpus.index.generation();
    let mut search = Search {
        corpus,
        query,
        places,
        options,
        window: Window::new(options.cursor.as_ref(), options.path_depth),
        partial: None,
        selected: HashMap::new(),
    };
    let conditions: Vec<Condition> = places.iter().map(|place| search.given(&plan, place)).collect();
    let candidates = search.candidates(&plan, &conditions, &generation);
    let index_time = begun.elapsed();
    let (grounds, scope) = search.grounds(&plan, conditions, &candidates, &generation.indexed)?;
    let reading = Reading {
        corpus,
        generation: &generation,
        matchers: &plan.patterns,
        sources: &plan.sources,
        candidates: &candidates,
        until: options.deadline,
    };
    let files_seen = search.scan(&plan, &grounds, &reading)?;
    let counts = (files_seen, search.window.files_read);
    let times = (index_time, begun.elapsed());
    let candidates_of = |candidates: &Candidates| {
        options.counts_candidates.then(|| candidates.count_within(&scope, &corpus.index, options.deadline)).flatten()
    };
    let explain = Explain::new(&plan, candidates.iter().map(candidates_of), &grounds, counts, times);
    search.finish(&reading, fingerprint, explain)
}

/// A search under way.
struct Search<'a> {
    corpus: &'a Corpus,
    query: &'a Query,
    places: &'a [Place],
    options: &'a FindOptions,
    window: Window,
    partial: Option<Partial>,
    /// What `select:` has reported, and how often.
    selected: HashMap<Vec<u8>, u64>,
}

impl Search<'_> {
    /// What the plan demands of the files of one place.
    fn given(&self, plan: &Plan, place: &Place) -> Condition {
        plan.condition.given(&|term| match term {
            Term::Repo(number) => plan.patterns.get(*number).map(|matcher| matcher.is_match(place.repo.as_bytes())),
            Term::Fork(wanted) => Some(*wanted == place.is_fork),
            _ => None,
        })
    }

    /// Asks the index for each pattern that a place's contents are asked for.
    fn candidates(&mut self, plan: &Plan, conditions: &[Condition], generation: &Generation) -> Vec<Candidates> {
        let (mut asked, mut names) = (vec![false; plan.patterns.len()], vec![false; plan.patterns.len()]);
        conditions.iter().for_each(|condition| condition.contents(&mut |number| asked[number] = true));
        conditions.iter().for_each(|condition| condition.names(&mut |number| names[number] = true));
        let mut all = Vec::with_capacity(plan.patterns.len());
        for ((matcher, is_asked), is_name) in plan.patterns.iter().zip(&asked).zip(&names) {
            let found = match is_asked {
                true => Candidates::find(matcher, &self.corpus.index, generation, self.options.deadline),
                false => Ok(Candidates::anywhere()),
            };
            let found = match is_name {
                true => found.and_then(|found| found.with_names(matcher, self.corpus, self.options.deadline)),
                false => found,
            };
            all.push(match found {
                Err(error) if *error.kind() == ErrorKind::Cancelled => {
                    self.partial = Some(Partial::Deadline);
                    Candidates::anywhere()
                }
                // A damaged index rules nothing out; its owner makes it anew.
                Err(error) => {
                    self.corpus.index.is_unreadable(&error);
                    Candidates::anywhere()
                }
                Ok(found) => found,
            });
        }
        all
    }

    fn grounds(
        &mut self,
        plan: &Plan,
        conditions: Vec<Condition>,
        candidates: &[Candidates],
        indexed: &Bits,
    ) -> Result<(Vec<Ground>, Arc<Bits>)> {
        let (mut roots, mut scopes) = (Vec::new(), Vec::new());
        for (number, (place, condition)) in (0..).zip(self.places.iter().zip(conditions)) {
            if matches!(condition, Condition::Const(false)) {
                continue;
            }
            let root = place.snapshot.commit(&place.commit).and_then(|commit| {
                let views = &self.corpus.views;
                let root = views.dir(&place.snapshot, &self.corpus.index, commit.tree, self.options.deadline)?;
                Ok((views.scope(commit.tree, &root), root))
            });
            match root {
                Ok((scope, root)) => {
                    scopes.push(scope);
                    roots.push((number, root, condition));
                }
                Err(error) if *error.kind() == ErrorKind::Cancelled => {
                    self.partial = Some(Partial::Deadline);
                    break;
                }
                Err(error) if self.is_passed_over(&error) => {}
                Err(error) => return Err(error.context(format!("{} at {}", place.repo, place.rev))),
            }
        }
        let scope = scopes.into_iter().reduce(|mut all, more| {
            Arc::make_mut(&mut all).unite(&more);
            all
        });
        let scope = scope.unwrap_or_default();
        let mut demands: Vec<Arc<Demand>> = Vec::new();
        let ground = |(number, root, condition)| {
            let known = demands.iter().find(|demand| demand.condition == condition).cloned();
            let demand = known.unwrap_or_else(|| {
                let demand = Arc::new(Demand::new(condition, plan, candidates, indexed, &scope));
                demands.push(demand.clone());
                demand
            });
            Ground { number, root, demand }
        };
        let grounds = roots.into_iter().map(ground).collect();
        Ok((grounds, scope))
    }

    /// Whether everything is gone through from the beginning for each page.
    fn counts_all(&self) -> bool {
        // Which files stand for a repository or directory is only known from the beginning on.
        self.query.options.count == Count::All
            || matches!(self.query.options.select, Some(Select::Repo | Select::Directory))
    }

    /// Goes through the files; how many were not passed over.
    fn scan(&mut self, plan: &Plan, grounds: &[Ground], reading: &Reading<'_>) -> Result<u64> {
        if self.partial == Some(Partial::Deadline) {
            return Ok(0);
        }
        let counts_all = self.counts_all();
        let cursor = self.options.cursor.as_ref();
        let after = cursor.and_then(|cursor| cursor.after.clone()).filter(|_| !counts_all);
        let end = cursor.and_then(|cursor| cursor.end.as_ref()).filter(|_| !counts_all).map(|end| &end.position);
        let reported = plan.reported();
        let mut scan = Scan {
            corpus: reading.corpus,
            plan,
            candidates: reading.candidates,
            indexed: &reading.generation.indexed,
            after: after.as_ref(),
            until: self.options.deadline,
            files_seen: 0,
            entries_seen: 0,
            is_late: false,
        };
        let flow = scan.run(grounds, &mut |ground, path, blob, tier| {
            let position = Position { tier, place: ground.number, path: path.to_vec() };
            if end.is_some_and(|end| position > *end) {
                self.window.is_behind_end = true;
                return Ok(ControlFlow::Break(()));
            }
            if self.window.files_read.is_multiple_of(CLOCK_FILES) {
                deadline::check(self.options.deadline)?;
            }
            let flow = self.look(&position, ground, blob, reading, plan, &reported);
            let flow = match flow {
                Err(error) if self.is_passed_over(&error) => ControlFlow::Continue(()),
                flow => flow?,
            };
            self.window.last = Some(position);
            Ok(flow)
        });
        let flow = match flow {
            Err(error) if *error.kind() == ErrorKind::Cancelled => {
                scan.is_late = true;
                ControlFlow::Break(())
            }
            flow => flow?,
        };
        if scan.is_late {
            self.partial = Some(Partial::Deadline);
        }
        self.window.is_whole = flow.is_continue();
        Ok(scan.files_seen)
    }

    /// Whether something that cannot be read is left out, as one of many, which the answer then says.
    fn is_passed_over(&mut self, error: &Error) -> bool {
        let is_one_of_many = self.places.len() > 1 && *error.kind() != ErrorKind::Cancelled;
        if is_one_of_many && self.partial != Some(Partial::Deadline) {
            self.partial = Some(Partial::Unreadable);
        }
        is_one_of_many
    }

    /// Looks at one file; breaks when there are enough results.
    fn look(
        &mut self,
        position: &Position,
        ground: &Ground,
        blob: BlobNo,
        reading: &Reading<'_>,
        plan: &Plan,
        reported: &[Reported],
    ) -> Result<ControlFlow<()>> {
        let Some(place) = self.places.get(position.place as usize) else { return Ok(ControlFlow::Continue(())) };
        let mut file = File::new(reading, &place.snapshot, blob);
        self.window.files_read += 1;
        let untold = self.window.untold;
        if !holds(plan, &ground.demand.condition, &mut file, &position.path, &mut self.window.untold)?
            || !self.is_selected(position)
        {
            return Ok(ControlFlow::Continue(()));
        }
        let language = language_of(&position.path, &mut file)?;
        let mut reduced = None;
        if self.query.options.select == Some(Select::Symbol) {
            let definitions = select::definitions(&mut file, reported, language)?;
            self.window.untold = untold + u64::from(definitions.is_untold || self.window.untold > untold);
            if !definitions.any {
                return Ok(ControlFlow::Continue(()));
            }
            reduced = Some(definitions);
        }
        let mut ranked = Ranked::new(position.clone(), &mut file, reported, plan, language, reduced)?;
        if self.query.options.select == Some(Select::Content) && !ranked.is_by_content() {
            return Ok(ControlFlow::Continue(()));
        }
        let window_max = WINDOW_FILES.max(self.options.files_max).min(WINDOW_FILES_MAX);
        let is_full = self.window.add(ranked, &place.repo, window_max, self.options.cursor.as_ref());
        if let Count::Files(files_max) = self.query.options.count
            && self.window.totals(self.counts_all()).0 >= files_max as u64
        {
            self.partial = Some(Partial::Count);
            return Ok(ControlFlow::Break(()));
        }
        Ok(if is_full && !self.counts_all() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Whether what `select:` asks for is new with this file.
    fn is_selected(&mut self, position: &Position) -> bool {
        let repo = || self.places[position.place as usize].repo.as_bytes().to_vec();
        let key = match self.query.options.select {
            Some(Select::Repo) => repo(),
            Some(Select::Directory) => {
                let end = position.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                [&repo()[..], b":", position.path.get(..end).unwrap_or_default()].concat()
            }
            _ => return true,
        };
        let count = self.selected.entry(key).or_default();
        *count += 1;
        *count == 1
    }

    fn finish(mut self, reading: &Reading<'_>, fingerprint: u64, explain: Explain) -> Result<Found> {
        let shows_lines = !matches!(self.query.options.select, Some(Select::Repo | Select::File | Select::Directory));
        let lines_max = if shows_lines { self.options.lines_max } else { 0 };
        let (total_files, total_matches) = self.window.totals(self.counts_all());
        let counts_all = self.counts_all();
        let cursor = self.options.cursor.as_ref();
        let mut page = self.window.page(self.options.files_max, cursor);
        let is_last = page.as_ref().is_some_and(|page| page.is_last);
        let ranked_files = page.as_mut().map_or_else(Vec::new, |page| std::mem::take(&mut page.files));
        let (mut files, mut budget_bytes, mut passed) = (Vec::with_capacity(ranked_files.len()), PAGE_BYTES_MAX, 0);
        for ranked in ranked_files {
            let Some(place) = self.places.get(ranked.position.place as usize) else { continue };
            let file = File::new(reading, &place.snapshot, ranked.blob);
            let context_lines = self.options.context_lines;
            match FileHit::new(place, ranked, file, lines_max, context_lines, &mut budget_bytes) {
                Err(error) if self.is_passed_over(&error) => {}
                // With this file the next page begins, unless it would be too large even alone.
                Ok(_) if budget_bytes == 0 && !files.is_empty() => break,
                file => files.push(file?),
            }
            passed += 1;
            if budget_bytes == 0 {
                break;
            }
        }
        if budget_bytes == 0 && self.partial.is_none() {
            self.partial = Some(Partial::Size);
        }
        let next = page.map_or_else(|| cursor.cloned(), |page| page.next(passed, fingerprint));
        let is_counted = if counts_all { self.window.is_whole } else { is_last };
        Ok(Found {
            files,
            total_files,
            total_matches,
            is_exact: is_counted && matches!(self.partial, None | Some(Partial::Size)),
            untold_files: self.window.untold,
            facets: self.window.facets,
            // What the query's own count leaves out is not another page; what the page leaves out is.
            next: next.filter(|next| self.partial != Some(Partial::Count) || next.shown > 0),
            partial: self.partial,
            explain,
        })
    }
}

/// Whether a file satisfies a condition; counts it in `untold` if its definitions cannot be told.
fn holds(plan: &Plan, condition: &Condition, file: &mut File<'_>, path: &[u8], untold: &mut u64) -> Result<bool> {
    let mut is_untold = false;
    let holds = condition.holds(&mut |term| {
        Ok(match term {
            Term::Path(number) => plan.patterns.get(*number).is_some_and(|matcher| matcher.is_match(path)),
            Term::Content(number) => file.matches(*number)?.any,
            Term::Lang(language) => language_of(path, file)? == Some(*language),
            Term::Symbol(number) => {
                let language = language_of(path, file)?;
                let found = file.definitions(*number, language)?;
                is_untold |= found.is_untold;
                found.any
            }
            // Known for each place, or not asked of files.
            Term::Repo(_) | Term::Fork(_) | Term::Commit(_) => false,
        })
    })?;
    *untold += u64::from(is_untold);
    Ok(holds)
}

/// The language of a file.
fn language_of(path: &[u8], file: &mut File<'_>) -> Result<Option<Language>> {
    let corpus = file.corpus();
    corpus.language(file.blob(), path, || file.head())
}
