//! Going through the files in scope whose contents have a word: which satisfy the conditions, and which are the best.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Instant,
};

use govc_engine::{Error, Result, Snapshot};
use roaring::RoaringBitmap;

use super::{
    cursor::Rank,
    score::{Score, Scores},
};
use crate::{
    deadline,
    find::{Answer, Condition, Facets, File, Plan, Reading, Term},
    importance::Tier,
    index::BlobNo,
    language::{Language, is_by_path},
    view::{Child, Dir},
};

/// A directory with no more files than this is gone through.
const SMALL_DIR_FILES: u64 = 16;
/// Entries, and files, between two looks at the clock.
const CLOCK_ENTRIES: u64 = 4096;
const CLOCK_FILES: u64 = 32;
/// Answers about contents that are remembered.
const KNOWN_MAX: usize = 1 << 20;

/// The places with the same files, of which the same is demanded.
pub(super) struct Root {
    pub(super) dir: Arc<Dir>,
    pub(super) condition: Condition,
    /// Their numbers, in order.
    pub(super) places: Vec<u32>,
    /// How many of them are of which repository.
    pub(super) repos: Vec<(String, u64)>,
    pub(super) snapshot: Snapshot,
}

impl Root {
    pub(super) fn new(dir: Arc<Dir>, condition: Condition, snapshot: Snapshot) -> Self {
        Self { dir, condition, places: Vec::new(), repos: Vec::new(), snapshot }
    }

    /// Adds a place, behind those that were added; places of one repository come together.
    pub(super) fn add(&mut self, place: u32, repo: &str) {
        self.places.push(place);
        match self.repos.last_mut() {
            Some((last, count)) if last == repo => *count += 1,
            _ => self.repos.push((repo.to_owned(), 1)),
        }
    }
}

/// A file that may be on the page.
#[derive(Debug, PartialEq)]
pub(super) struct Best {
    pub(super) rank: Rank,
    pub(super) blob: BlobNo,
    pub(super) language: Option<Language>,
    pub(super) score: Score,
}

impl Eq for Best {}

impl PartialOrd for Best {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Best {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// What the files in scope come to.
pub(super) struct Collected<'a> {
    pub(super) plan: &'a Plan,
    pub(super) reading: &'a Reading<'a>,
    pub(super) scores: &'a Scores,
    /// The contents that have a word.
    pub(super) having: RoaringBitmap,
    pub(super) after: Option<&'a Rank>,
    pub(super) files_max: usize,
    pub(super) path_depth: usize,
    pub(super) until: Option<Instant>,
    /// The best files behind `after`, the last of them on top.
    pub(super) best: BinaryHeap<Best>,
    /// How many files are behind `after`.
    pub(super) behind: u64,
    pub(super) total_files: u64,
    pub(super) total_matches: u64,
    pub(super) facets: Facets,
    pub(super) untold_files: u64,
    /// What contents were found to have of the conditions.
    known: HashMap<(BlobNo, usize), bool>,
    entries_seen: u64,
    files_seen: u64,
}

impl<'a> Collected<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        reading: &'a Reading<'a>,
        scores: &'a Scores,
        (after, files_max, path_depth): (Option<&'a Rank>, usize, usize),
    ) -> Self {
        Self {
            plan,
            reading,
            scores,
            having: scores.having(),
            after,
            files_max,
            path_depth,
            until: reading.until,
            best: BinaryHeap::new(),
            behind: 0,
            total_files: 0,
            total_matches: 0,
            facets: Facets::default(),
            untold_files: 0,
            known: HashMap::new(),
            entries_seen: 0,
            files_seen: 0,
        }
    }

    /// Takes the files of some places. `pass` says whether a file that cannot be read is passed over.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when a file cannot be read.
    pub(super) fn root(&mut self, root: &Root, pass: &mut dyn FnMut(&Error) -> bool) -> Result<()> {
        let (files, matches) = (self.total_files, self.total_matches);
        let done = self.dir(root, &root.dir, Tier::Source, &mut Vec::new(), pass);
        // Each place has as many of them.
        let places = root.places.len().max(1) as u64;
        let (files, matches) = ((self.total_files - files) / places, (self.total_matches - matches) / places);
        for (repo, count) in &root.repos {
            self.facets.repositories.add_many(repo, files.saturating_mul(*count), matches.saturating_mul(*count));
        }
        done
    }

    fn dir(
        &mut self,
        root: &Root,
        dir: &Dir,
        tier: Tier,
        path: &mut Vec<u8>,
        pass: &mut dyn FnMut(&Error) -> bool,
    ) -> Result<()> {
        if dir.files() > SMALL_DIR_FILES && self.having.is_disjoint(dir.blobs()) {
            return Ok(());
        }
        for (name, child_tier, child) in dir.children() {
            self.entries_seen += 1;
            if self.entries_seen.is_multiple_of(CLOCK_ENTRIES) {
                deadline::check(self.until)?;
            }
            let length = path.len();
            path.extend_from_slice(name);
            let tier = tier.max(child_tier);
            let done = match child {
                Child::File(blob) if !self.having.contains(blob) => Ok(()),
                Child::File(blob) => match self.file(root, blob, tier, path) {
                    Err(error) if pass(&error) => Ok(()),
                    done => done,
                },
                Child::Dir(child) => {
                    path.push(b'/');
                    self.dir(root, child, tier, path, pass)
                }
            };
            path.truncate(length);
            done?;
        }
        Ok(())
    }

    fn file(&mut self, root: &Root, blob: BlobNo, tier: Tier, path: &[u8]) -> Result<()> {
        let Some(score) = self.scores.of(blob) else { return Ok(()) };
        if self.files_seen.is_multiple_of(CLOCK_FILES) {
            deadline::check(self.until)?;
        }
        self.files_seen += 1;
        if root.condition.may_hold(&mut |term| self.ask(term, path)) == Answer::No {
            return Ok(());
        }
        let mut file = File::new(self.reading, &root.snapshot, blob);
        if !self.holds(root, &mut file, path)? {
            return Ok(());
        }
        let language = language_of(path, &mut file)?;
        self.add(root, Best { rank: Rank::of(score, tier, 0, Vec::new()), blob, language, score }, path);
        Ok(())
    }

    /// What the path says of a condition.
    fn ask(&self, term: &Term, path: &[u8]) -> Answer {
        let sure = |holds: bool| if holds { Answer::Yes } else { Answer::No };
        match term {
            Term::Path(number) => sure(self.plan.patterns.get(*number).is_some_and(|matcher| matcher.is_match(path))),
            Term::Lang(wanted) => is_by_path(path, *wanted).map_or(Answer::Maybe, sure),
            _ => Answer::Maybe,
        }
    }

    fn holds(&mut self, root: &Root, file: &mut File<'_>, path: &[u8]) -> Result<bool> {
        let (plan, known) = (self.plan, &mut self.known);
        let mut is_untold = false;
        let holds = root.condition.holds(&mut |term| {
            Ok(match term {
                Term::Path(number) => plan.patterns.get(*number).is_some_and(|matcher| matcher.is_match(path)),
                Term::Lang(language) => language_of(path, file)? == Some(*language),
                Term::Content(number) => match known.get(&(file.blob(), *number)) {
                    Some(any) => *any,
                    None => {
                        let any = file.matches(*number)?.any;
                        if known.len() >= KNOWN_MAX {
                            known.clear();
                        }
                        known.insert((file.blob(), *number), any);
                        any
                    }
                },
                Term::Symbol(number) => {
                    let language = language_of(path, file)?;
                    let found = file.definitions(*number, language)?;
                    is_untold |= found.is_untold;
                    found.any
                }
                // Known for each place, or asked of commits alone.
                Term::Repo(_) | Term::Fork(_) | Term::Commit(_) => false,
            })
        })?;
        self.untold_files += if is_untold { root.places.len() as u64 } else { 0 };
        Ok(holds)
    }

    /// Counts a file in each of its places, and keeps it where it is among the best.
    fn add(&mut self, root: &Root, file: Best, path: &[u8]) {
        let places = root.places.len() as u64;
        let matches = file.score.matches.saturating_mul(places);
        self.total_files = self.total_files.saturating_add(places);
        self.total_matches = self.total_matches.saturating_add(matches);
        self.facets.languages.add_many(file.language.map_or("Other", Language::name), places, matches);
        let top = memchr::memchr_iter(b'/', path).take(self.path_depth).last().map_or(0, |slash| slash + 1);
        let top = String::from_utf8_lossy(path.get(..top).unwrap_or_default());
        self.facets.paths.add_many(&top, places, matches);
        let shown = self.after.map_or(0, |after| shown(root, after, &file.rank, path));
        let behind = root.places.get(shown..).unwrap_or_default();
        self.behind = self.behind.saturating_add(behind.len() as u64);
        for place in behind {
            let rank = Rank { place: *place, path: path.to_vec(), ..file.rank.clone() };
            let is_full = self.best.len() >= self.files_max;
            if is_full && self.best.peek().is_none_or(|last| last.rank <= rank) {
                // The places behind come later.
                break;
            }
            if is_full {
                self.best.pop();
            }
            self.best.push(Best { rank, ..file });
        }
    }
}

/// How many of the places of a root are not behind `after` with the file at `path`.
fn shown(root: &Root, after: &Rank, rank: &Rank, path: &[u8]) -> usize {
    match (rank.score_bits, rank.tier).cmp(&(after.score_bits, after.tier)) {
        Ordering::Less => root.places.len(),
        Ordering::Greater => 0,
        Ordering::Equal => {
            let is_shown = |place: &u32| (*place, path) <= (after.place, after.path.as_slice());
            root.places.partition_point(is_shown)
        }
    }
}

/// The language of a file.
fn language_of(path: &[u8], file: &mut File<'_>) -> Result<Option<Language>> {
    let corpus = file.corpus();
    corpus.language(file.blob(), path, || file.head())
}
