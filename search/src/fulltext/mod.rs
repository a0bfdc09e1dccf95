//! Full text search: the files that have any of some words, best first.
//!
//! 1. The query is taken apart (`words`): words to rank by, and conditions.
//! 2. Each distinct content of the places is ranked by BM25 over all of them (`score`): the index says how often each chunk
//!    has a word; contents that it does not have are read. So scores are exact whatever is indexed, and what is in no
//!    place has no part in them. Conditions on files do not change what a word is worth; places that a `repo:` or `fork:`
//!    leaves out are not there at all.
//! 3. The directories are gone through for the files whose contents have a word (`collect`), places with the same tree
//!    together. All are counted; the best of them are kept.
//! 4. The files of the page are read for the lines to show (`lines`).
//!
//! Paths are not words here, and neither case nor the order of words matters.

mod collect;
mod cursor;
mod frequencies;
mod lines;
mod read;
mod score;
mod words;

use std::{collections::HashMap, time::Instant};

use govc_engine::{Error, ErrorKind, Oid, Result};
use roaring::RoaringBitmap;

pub use self::cursor::FullTextCursor;
pub(crate) use self::frequencies::WordCounts;
use self::{
    collect::{Best, Collected, Root},
    read::Reader,
    score::{Ground, Scores},
    words::{Tokens, Wanted},
};
use crate::{
    corpus::Corpus,
    deadline,
    find::{Candidates, Facets, File, Partial, Plan, Reading, Term, fingerprint},
    index::Generation,
    language::Language,
    line::GrepLine,
    place::Place,
    query::Query,
};

/// Files of a page.
const FILES_MAX: usize = 1000;
/// What the lines of a page may take, in bytes, about: it ends with the file in front of the one that takes more.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// How to answer a search by relevance.
#[derive(Debug, Clone)]
pub struct FullTextOptions {
    /// Files of a page; a thousand at most.
    pub files_max: usize,
    /// Lines that are shown of a file; a hundred at most.
    pub lines_max: usize,
    /// Neighbours that are shown on each side of a line.
    pub context_lines: usize,
    /// Where the page begins.
    pub cursor: Option<FullTextCursor>,
    /// How many directories of a path its facet has.
    pub path_depth: usize,
    /// When to end, with what there is.
    pub deadline: Option<Instant>,
}

impl Default for FullTextOptions {
    fn default() -> Self {
        Self { files_max: 50, lines_max: 3, context_lines: 0, cursor: None, path_depth: 1, deadline: None }
    }
}

/// The files that have any of some words.
#[derive(Debug, Clone)]
pub struct FullText {
    /// The files of the page, best first; of as good ones, in the order of importance, place and path.
    pub files: Vec<FullTextHit>,
    /// How many files there are on all pages.
    pub total_files: u64,
    /// How often they have any of the words.
    pub total_matches: u64,
    /// Whether the totals, the scores and the order are those of everything that was to be searched.
    pub is_exact: bool,
    /// Files that are taken to define nothing because their definitions cannot be told.
    pub untold_files: u64,
    /// The files by repository, language and path.
    pub facets: Facets,
    /// The words, as they are looked for, in the order of the query.
    pub words: Vec<FullTextWord>,
    /// How many distinct texts the places have: those that words are rare or usual among.
    pub contents: u64,
    /// Why that is not everything. After a deadline, some contents may be missing, which the scores then know nothing of.
    pub partial: Option<Partial>,
    /// Where the next page begins, if there is one; none after a deadline, since better files may have been missed.
    pub next: Option<FullTextCursor>,
}

/// A word that files are ranked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullTextWord {
    /// The word in lower case.
    pub word: String,
    /// How many distinct texts of the places have it, whatever the query's conditions say.
    pub contents: u64,
}

/// A file that has some of the words.
#[derive(Debug, Clone)]
pub struct FullTextHit {
    /// The repository's name.
    pub repo: String,
    /// What was asked for.
    pub rev: String,
    /// The commit.
    pub commit: Oid,
    /// The path as stored.
    pub path: Vec<u8>,
    /// The blob.
    pub blob: Oid,
    /// Its size in bytes.
    pub size: u64,
    /// Its language, if it is known.
    pub language: Option<Language>,
    /// How well it answers, above 0; the same content has the same score in each of its places.
    pub score: f64,
    /// The words that it has, and how often, in the order of the query.
    pub words: Vec<(String, u64)>,
    /// The lines that show most of the words, in the order of the file; matches are the words in them.
    pub lines: Vec<GrepLine>,
}

/// Finds the files of `places` that have any of the query's words, ranked by BM25.
///
/// The words are those that stand alone or in quotes, cut into tokens as the files are; how they are joined does not matter.
/// Every other condition (`path:`, `lang:`, `repo:`, `content:`, what is negated) a file must satisfy.
/// A cursor is good for the same commits: after a push, a page of the new ones begins at the first.
///
/// # Errors
/// Invalid if the query has no words, more than 1 KiB or 32 tokens of them, something that has no meaning here (`type:`,
/// `select:`, a number in `count:`, a regex to rank by), or the cursor belongs to another query; cancelled if the time is
/// over before the query is compiled; else when stored data cannot be read. A deadline that comes later is no error: the
/// answer is then partial.
pub fn fulltext(corpus: &Corpus, query: &Query, places: &[Place], options: &FullTextOptions) -> Result<FullText> {
    let wanted = Wanted::new(query)?;
    let plan = Plan::new(&wanted.filter, options.deadline)?;
    if plan.condition.asks_definitions() && !corpus.definitions.can_tell() {
        return Err(Error::invalid("definitions (sym:) cannot be searched here"));
    }
    let fingerprint = fingerprint(query, places);
    if options.cursor.as_ref().is_some_and(|cursor| cursor.fingerprint != fingerprint) {
        return Err(Error::invalid("the cursor belongs to another query"));
    }
    let generation = corpus.index.generation();
    let mut search = Search { corpus, places, options, tokens: &wanted.tokens, partial: None };
    let roots = search.roots(&plan)?;
    let candidates = search.candidates(&plan, &roots, &generation);
    let reading = Reading {
        corpus,
        generation: &generation,
        matchers: &plan.patterns,
        sources: &plan.sources,
        candidates: &candidates,
        until: options.deadline,
    };
    let scores = search.scores(&roots, &reading)?;
    let after = options.cursor.as_ref().map(|cursor| &cursor.after);
    let files_max = options.files_max.min(FILES_MAX);
    let mut collected = Collected::new(&plan, &reading, &scores, (after, files_max, options.path_depth));
    for root in &roots {
        // Reading may have ended before, so that there is time for this.
        if deadline::is_past(options.deadline) {
            search.partial = Some(Partial::Deadline);
            break;
        }
        match collected.root(root, &mut |error| search.is_passed_over(error)) {
            Err(error) if *error.kind() == ErrorKind::Cancelled => search.partial = Some(Partial::Deadline),
            done => done?,
        }
    }
    search.finish(collected, fingerprint)
}

/// A search under way.
struct Search<'a> {
    corpus: &'a Corpus,
    places: &'a [Place],
    options: &'a FullTextOptions,
    tokens: &'a Tokens,
    partial: Option<Partial>,
}

impl Search<'_> {
    fn is_late(&self) -> bool {
        self.partial == Some(Partial::Deadline)
    }

    /// Whether something that cannot be read is left out, as one of many, which the answer then says.
    fn is_passed_over(&mut self, error: &Error) -> bool {
        let is_one_of_many = self.places.len() > 1 && *error.kind() != ErrorKind::Cancelled;
        if is_one_of_many && !self.is_late() {
            self.partial = Some(Partial::Unreadable);
        }
        is_one_of_many
    }

    /// The places' directories, each once for what is demanded of its files.
    fn roots(&mut self, plan: &Plan) -> Result<Vec<Root>> {
        let (mut roots, mut by_tree): (Vec<Root>, HashMap<Oid, Vec<usize>>) = (Vec::new(), HashMap::new());
        for (number, place) in (0..).zip(self.places) {
            let condition = plan.condition.given(&|term| match term {
                Term::Repo(number) => plan.patterns.get(*number).map(|matcher| matcher.is_match(place.repo.as_bytes())),
                Term::Fork(wanted) => Some(*wanted == place.is_fork),
                _ => None,
            });
            if condition == crate::find::Condition::Const(false) {
                continue;
            }
            let root = place.snapshot.commit(&place.commit).and_then(|commit| {
                let (views, until) = (&self.corpus.views, self.options.deadline);
                Ok((commit.tree, views.dir(&place.snapshot, &self.corpus.index, commit.tree, until)?))
            });
            let (tree, dir) = match root {
                Ok(root) => root,
                Err(error) if *error.kind() == ErrorKind::Cancelled => {
                    self.partial = Some(Partial::Deadline);
                    break;
                }
                Err(error) if self.is_passed_over(&error) => continue,
                Err(error) => return Err(error.context(format!("{} at {}", place.repo, place.rev))),
            };
            let same = by_tree.entry(tree).or_default();
            let is_same = |at: &&usize| roots.get(**at).is_some_and(|root| root.condition == condition);
            let at = same.iter().find(is_same).copied().unwrap_or_else(|| {
                same.push(roots.len());
                roots.push(Root::new(dir, condition, place.snapshot.clone()));
                roots.len() - 1
            });
            roots.get_mut(at).into_iter().for_each(|root| root.add(number, &place.repo));
        }
        Ok(roots)
    }

    /// What the index says of the patterns that contents are asked for.
    fn candidates(&mut self, plan: &Plan, roots: &[Root], generation: &Generation) -> Vec<Candidates> {
        let mut asked = vec![false; plan.patterns.len()];
        for root in roots {
            let mut ask = |number: usize| asked.get_mut(number).into_iter().for_each(|is_asked| *is_asked = true);
            root.condition.contents(&mut ask);
        }
        let mut all = Vec::with_capacity(asked.len());
        for (matcher, is_asked) in plan.patterns.iter().zip(asked) {
            let found = match is_asked {
                true => Candidates::find(matcher, &self.corpus.index, generation, self.options.deadline),
                false => Ok(Candidates::anywhere()),
            };
            all.push(found.unwrap_or_else(|error| {
                match *error.kind() == ErrorKind::Cancelled {
                    true => self.partial = Some(Partial::Deadline),
                    // A damaged index rules nothing out; its owner makes it anew.
                    false => self.corpus.index.is_unreadable(&error),
                }
                Candidates::anywhere()
            }));
        }
        all
    }

    /// Ranks all contents of the roots.
    fn scores(&mut self, roots: &[Root], reading: &Reading<'_>) -> Result<Scores> {
        let mut scope = RoaringBitmap::new();
        roots.iter().for_each(|root| scope |= root.dir.blobs());
        let mut indexed: RoaringBitmap =
            scope.iter().filter(|blob| reading.generation.indexed.contains(*blob)).collect();
        let mut reader = Reader::new(reading, self.tokens);
        loop {
            let mut pending = &scope - &indexed;
            pending -= &reader.seen;
            for root in roots {
                if pending.is_empty() || self.is_late() {
                    break;
                }
                let some = root.dir.blobs() & &pending;
                pending -= &some;
                if !reader.read(&root.snapshot, &some, &mut |error| self.is_passed_over(error))? {
                    self.partial = Some(Partial::Deadline);
                }
            }
            let ground = Ground {
                corpus: self.corpus,
                generation: reading.generation,
                indexed: &indexed,
                read: &reader.counted,
                until: self.options.deadline,
            };
            match Scores::new(&ground, self.tokens) {
                Err(error) if *error.kind() == ErrorKind::Cancelled => {
                    self.partial = Some(Partial::Deadline);
                    return Ok(Scores::default());
                }
                // Without an index, everything is read; its owner makes it anew.
                Err(error) if !indexed.is_empty() => {
                    self.corpus.index.is_unreadable(&error);
                    indexed.clear();
                }
                scores => return scores,
            }
        }
    }

    fn finish(mut self, collected: Collected<'_>, fingerprint: u64) -> Result<FullText> {
        let Collected { reading, scores, best, behind, total_files, total_matches, facets, untold_files, .. } =
            collected;
        let (mut files, mut budget_bytes, mut last) = (Vec::with_capacity(best.len()), PAGE_BYTES_MAX, None);
        let (mut passed, mut is_whole) = (0, true);
        for best in best.into_sorted_vec() {
            if !files.is_empty() && deadline::is_past(self.options.deadline) {
                self.partial = Some(Partial::Deadline);
                break;
            }
            match self.hit(&best, reading, &mut budget_bytes) {
                Err(error) if self.is_passed_over(&error) => {}
                // With this file the next page begins, unless it would be too large even alone.
                Ok(_) if budget_bytes == 0 && !files.is_empty() => is_whole = false,
                hit => files.extend(hit?),
            }
            if is_whole {
                passed += 1;
                last = Some(best.rank);
            }
            if budget_bytes == 0 {
                break;
            }
        }
        if budget_bytes == 0 && self.partial.is_none() {
            self.partial = Some(Partial::Size);
        }
        let next = last.filter(|_| behind > passed && !self.is_late());
        let word = |(word, contents): (&str, &u64)| FullTextWord { word: word.to_owned(), contents: *contents };
        Ok(FullText {
            files,
            total_files,
            total_matches,
            is_exact: matches!(self.partial, None | Some(Partial::Size)),
            untold_files,
            facets,
            words: self.tokens.iter().zip(&scores.contents).map(word).collect(),
            contents: scores.len(),
            partial: self.partial,
            next: next.map(|after| FullTextCursor { fingerprint, after }),
        })
    }

    /// Shows a file.
    fn hit(&self, best: &Best, reading: &Reading<'_>, budget_bytes: &mut usize) -> Result<Option<FullTextHit>> {
        let Some(place) = self.places.get(best.rank.place as usize) else { return Ok(None) };
        let mut file = File::new(reading, &place.snapshot, best.blob);
        let sizes = (self.options.lines_max, self.options.context_lines);
        let shown = lines::shown(&best.rank.path, &file.whole()?, self.tokens, sizes, budget_bytes);
        let counts = self.tokens.iter().zip(shown.counts).filter(|(_, count)| *count > 0);
        Ok(Some(FullTextHit {
            repo: place.repo.clone(),
            rev: place.rev.clone(),
            commit: place.commit,
            path: best.rank.path.clone(),
            blob: file.oid(),
            size: best.score.bytes,
            language: best.language,
            score: best.score.score,
            words: counts.map(|(word, count)| (word.to_owned(), count)).collect(),
            lines: shown.lines,
        }))
    }
}
