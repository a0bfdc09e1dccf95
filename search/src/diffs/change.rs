//! The changed files of one commit under the eyes of a query: what the index rules out is not read, and of two versions
//! that it has only the chunks are compared that they do not both begin and end with.

use bytes::Bytes;
use govc_engine::{ChangeStatus, Error, ErrorKind, Oid, Result, Snapshot};

use super::{
    DiffOptions,
    answer::{DiffFile, DiffLine, LineSign},
    lines::{Hunk, Middle, line_count},
    matching::{LineSearch, has_match},
};
use crate::{
    deadline,
    find::{Answer, Condition, File, Matcher, PatternNo, Reading, Term},
    index::{BlobNo, BlobState, ChunkNo, Text, is_binary},
    language::{Language, by_path},
    line::GrepLine,
    presence::NONE,
};

/// Larger files are not compared, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files between two looks at the clock.
const CLOCK_FILES: u64 = 64;

/// A commit whose changes are gone through.
pub(super) struct Look<'a> {
    reading: &'a Reading<'a>,
    snapshot: &'a Snapshot,
    /// What a changed file must satisfy.
    condition: &'a Condition,
    /// What its lines are shown for.
    shown: LineSearch<'a>,
    /// How many files are shown, and lines of each.
    files_max: usize,
    lines_max: usize,
    /// What they may take, in bytes.
    budget_bytes: usize,
    files_seen: u64,
    pub(super) found: Found,
}

/// What was found in a commit.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<DiffFile>,
    pub(super) total_files: u64,
    pub(super) total_lines: u64,
    pub(super) files_skipped: u64,
    /// Whether some of these may be texts that match.
    pub(super) is_incomplete: bool,
    pub(super) files_compared: u64,
    /// Whether a file could not be read.
    pub(super) is_unreadable: bool,
    /// What the files that are shown take, in bytes, about.
    pub(super) bytes: usize,
    /// Whether that would be more than was allowed.
    pub(super) is_too_large: bool,
}

/// One side of a changed file.
struct Side {
    blob: BlobNo,
    /// Unless it is made of chunks.
    whole: Option<Bytes>,
}

/// What was removed and what was added, or what contains it.
type Texts = [Bytes; 2];

/// A file's language, once that is known; files may have none.
type Known = Option<Option<Language>>;

impl<'a> Look<'a> {
    /// Looks for changed files that satisfy `condition`, of which nothing is shown unless [`Look::showing`] says so.
    pub(super) fn new(reading: &'a Reading<'a>, snapshot: &'a Snapshot, condition: &'a Condition) -> Self {
        let mut numbers: Vec<PatternNo> = Vec::new();
        condition.positive(&mut |term| {
            if let Term::Content(number) = term
                && !numbers.contains(number)
            {
                numbers.push(*number);
            }
        });
        let matchers = numbers.iter().filter_map(|number| reading.matchers.get(*number)).collect();
        let shown = LineSearch { matchers, until: reading.until };
        let (files_max, lines_max, budget_bytes) = (0, 0, 0);
        let found = Found::default();
        Self { reading, snapshot, condition, shown, files_max, lines_max, budget_bytes, files_seen: 0, found }
    }

    /// Shows the first files and lines, of at most `budget_bytes`.
    pub(super) fn showing(self, options: &DiffOptions, budget_bytes: usize) -> Self {
        Self { files_max: options.files_max, lines_max: options.lines_max, budget_bytes, ..self }
    }

    /// Looks at a changed file.
    ///
    /// # Errors
    /// Cancelled at the deadline; else when the store cannot be read. A file that it has lost is not compared.
    pub(super) fn change(&mut self, path: &[u8], old: BlobNo, new: BlobNo) -> Result<()> {
        if self.files_seen.is_multiple_of(CLOCK_FILES) {
            deadline::check(self.reading.until)?;
        }
        self.files_seen += 1;
        if self.ask(path, None, &|_| Answer::Maybe) == Answer::No {
            return Ok(());
        }
        match self.compare(path, old, new) {
            Err(error) if is_lost(&error) => {
                self.found.is_unreadable = true;
                Ok(())
            }
            compared => compared,
        }
    }

    /// What is known of the condition by the path, the language, if that is known, and what `content` says of patterns.
    fn ask(&self, path: &[u8], language: Known, content: &dyn Fn(PatternNo) -> Answer) -> Answer {
        self.condition.may_hold(&mut |term| match term {
            Term::Content(number) => content(*number),
            term => self.ask_term(term, path, language),
        })
    }

    /// What is known of a term that is not about lines.
    fn ask_term(&self, term: &Term, path: &[u8], language: Known) -> Answer {
        match term {
            Term::Path(number) => sure(self.matcher(*number).is_some_and(|matcher| matcher.is_match(path))),
            Term::Lang(wanted) => match language.or_else(|| by_path(path).map(Some)) {
                Some(language) => sure(language == Some(*wanted)),
                None => Answer::Maybe,
            },
            Term::Content(_) => Answer::Maybe,
            // Refused, or known for the repository and the commit.
            Term::Symbol(_) | Term::Repo(_) | Term::Fork(_) | Term::Commit(_) => Answer::No,
        }
    }

    fn matcher(&self, number: PatternNo) -> Option<&'a Matcher> {
        self.reading.matchers.get(number)
    }

    fn compare(&mut self, path: &[u8], old: BlobNo, new: BlobNo) -> Result<()> {
        let (Some(old), Some(new)) = (self.open(old)?, self.open(new)?) else {
            self.found.files_skipped += 1;
            return Ok(());
        };
        let by_blobs = |number| maybe([&old, &new].iter().any(|side| self.may_match(number, side.blob)));
        if self.ask(path, None, &by_blobs) == Answer::No {
            return Ok(());
        }
        deadline::check(self.reading.until)?;
        let language = self.language(path, &old, &new)?;
        let Some([before, after]) = self.texts(path, language, &old, &new)? else { return Ok(()) };
        let middle = Middle::new(&before, &after);
        let by_text = |number| match self.matcher(number) {
            // In a line it may match all the same.
            Some(matcher) if matcher.is_whole() => Answer::Maybe,
            Some(matcher) => maybe(matcher.is_match(middle.old) || matcher.is_match(middle.new)),
            None => Answer::No,
        };
        if self.ask(path, language, &by_text) == Answer::No {
            return Ok(());
        }
        self.found.files_compared += 1;
        let Some(hunks) = middle.hunks() else {
            self.found.files_skipped += 1;
            self.found.is_incomplete = true;
            return Ok(());
        };
        if hunks.is_empty() || !self.holds(path, language, &middle, &hunks)? {
            return Ok(());
        }
        let [lines_removed, lines_added] = self.count(&middle, &hunks)?;
        self.found.total_files += 1;
        self.found.total_lines = self.found.total_lines.saturating_add(lines_removed).saturating_add(lines_added);
        if self.found.files.len() < self.files_max && !self.found.is_too_large {
            self.show(path, [&old, &new], [lines_removed, lines_added])?;
        }
        Ok(())
    }

    /// One side of a change; `None` if it is not compared. What the index does not have is read.
    fn open(&mut self, blob: BlobNo) -> Result<Option<Side>> {
        if blob == NONE {
            return Ok(Some(Side { blob, whole: Some(Bytes::new()) }));
        }
        match self.reading.corpus.index.tables().state(blob) {
            BlobState::Binary => return Ok(None),
            BlobState::Text { .. } => return Ok(Some(Side { blob, whole: None })),
            BlobState::Large | BlobState::Unknown => {}
        }
        let mut file = File::new(self.reading, self.snapshot, blob);
        if file.size()? > FILE_BYTES_MAX {
            self.found.is_incomplete = true;
            return Ok(None);
        }
        deadline::check(self.reading.until)?;
        let whole = file.whole()?;
        Ok((!is_binary(&whole)).then_some(Side { blob, whole: Some(whole) }))
    }

    /// Whether a pattern may match in a blob, by what the index says of it.
    fn may_match(&self, number: PatternNo, blob: BlobNo) -> bool {
        let is_indexed = self.reading.generation.indexed.contains(blob);
        let tables = self.reading.corpus.index.tables();
        let candidates = self.reading.candidates.get(number);
        blob != NONE && (!is_indexed || candidates.is_none_or(|candidates| candidates.has_blob(blob, &tables)))
    }

    /// The file's language, as it is or was, if the condition asks for it.
    fn language(&self, path: &[u8], old: &Side, new: &Side) -> Result<Known> {
        if !self.condition.asks(|term| matches!(term, Term::Lang(_))) {
            return Ok(None);
        }
        let blob = if new.blob == NONE { old.blob } else { new.blob };
        let head = || File::new(self.reading, self.snapshot, blob).head();
        self.reading.corpus.language(blob, path, head).map(Some)
    }

    /// What of the two versions has to be compared; `None` if the index rules out that the condition holds.
    fn texts(&self, path: &[u8], language: Known, old: &Side, new: &Side) -> Result<Option<Texts>> {
        if [old, new].iter().any(|side| side.blob != NONE && side.whole.is_some()) {
            return Ok(Some([self.whole(old)?, self.whole(new)?]));
        }
        let tables = self.reading.corpus.index.tables();
        let parts = differing(tables.chunks(old.blob), tables.chunks(new.blob));
        let by_chunks = |number: PatternNo| {
            maybe([old, new].iter().zip(&parts).any(|(side, part)| {
                let is_indexed = self.reading.generation.indexed.contains(side.blob);
                let candidates = self.reading.candidates.get(number).filter(|_| is_indexed);
                part.iter().any(|chunk| candidates.is_none_or(|candidates| candidates.has_chunk(*chunk)))
            }))
        };
        if self.ask(path, language, &by_chunks) == Answer::No {
            return Ok(None);
        }
        let texts = parts.map(|part| part.iter().filter_map(|chunk| tables.text(*chunk)).collect::<Vec<Text>>());
        drop(tables);
        Ok(Some(texts.map(|texts| texts.iter().map(|text| &**text).collect::<Vec<&[u8]>>().concat().into())))
    }

    fn whole(&self, side: &Side) -> Result<Bytes> {
        match &side.whole {
            Some(whole) => Ok(whole.clone()),
            None => File::new(self.reading, self.snapshot, side.blob).whole(),
        }
    }

    fn holds(&self, path: &[u8], language: Known, middle: &Middle<'_>, hunks: &[Hunk]) -> Result<bool> {
        self.condition.holds(&mut |term| {
            let Term::Content(number) = term else { return Ok(self.ask_term(term, path, language) == Answer::Yes) };
            let Some(matcher) = self.matcher(*number) else { return Ok(false) };
            for (_, text) in hunks.iter().flat_map(|hunk| sides(middle, hunk)) {
                if has_match(matcher, text, self.reading.until)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// How many removed lines match, and how many added ones.
    fn count(&self, middle: &Middle<'_>, hunks: &[Hunk]) -> Result<[u64; 2]> {
        let (mut removed, mut added) = (0, 0);
        for (sign, text) in hunks.iter().flat_map(|hunk| sides(middle, hunk)) {
            let count = match self.shown.matchers.is_empty() {
                true => line_count(text) as u64,
                false => self.shown.count(text)?,
            };
            *(if sign == LineSign::Added { &mut added } else { &mut removed }) += count;
        }
        Ok([removed, added])
    }

    /// Adds a file to what is shown.
    fn show(&mut self, path: &[u8], [old, new]: [&Side; 2], [lines_removed, lines_added]: [u64; 2]) -> Result<()> {
        let (old_oid, new_oid) = (self.oid(old.blob), self.oid(new.blob));
        let status = match (old_oid, new_oid) {
            (None, _) => ChangeStatus::Added,
            (_, None) => ChangeStatus::Deleted,
            _ => ChangeStatus::Modified,
        };
        let path = path.to_vec();
        let lines = Vec::new();
        let mut file = DiffFile { path, status, old: old_oid, new: new_oid, lines_added, lines_removed, lines };
        if !self.found.spend(file.weight_bytes(), self.budget_bytes) {
            return Ok(());
        }
        if self.lines_max > 0 {
            let (before, after) = (self.whole(old)?, self.whole(new)?);
            self.show_lines(&mut file, &Middle::with_neighbours(&before, &after))?;
        }
        self.found.files.push(file);
        Ok(())
    }

    fn show_lines(&mut self, file: &mut DiffFile, middle: &Middle<'_>) -> Result<()> {
        let hunks = middle.hunks().unwrap_or_default();
        for ((sign, text), first) in hunks.iter().flat_map(|hunk| sides(middle, hunk).into_iter().zip(firsts(hunk))) {
            let (mut at, mut number, mut goes_on) = (0, first, true);
            let (shown, found, budget_bytes) = (&self.shown, &mut self.found, self.budget_bytes);
            shown.each(text, &mut |line| {
                number += memchr::memchr_iter(b'\n', text.get(at..line.start).unwrap_or_default()).count() as u64;
                at = line.start;
                let spans = shown.spans(text.get(line).unwrap_or_default());
                let GrepLine { content, cut, matches, .. } = GrepLine::new(b"", text, at, number, &spans, 0);
                let line = DiffLine { sign, line_number: number, content, cut, matches };
                goes_on = found.spend(line.weight_bytes(), budget_bytes);
                if goes_on {
                    file.lines.push(line);
                    goes_on = file.lines.len() < self.lines_max;
                }
                goes_on
            })?;
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    fn oid(&self, blob: BlobNo) -> Option<Oid> {
        self.reading.corpus.index.tables().oid(blob).filter(|_| blob != NONE)
    }
}

impl Found {
    /// Takes from what may be shown; whether there was as much.
    fn spend(&mut self, bytes: usize, budget_bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.is_too_large |= self.bytes > budget_bytes;
        !self.is_too_large
    }
}

/// The removed and the added lines of a hunk.
fn sides<'m>(middle: &Middle<'m>, hunk: &Hunk) -> [(LineSign, &'m [u8]); 2] {
    let (old, new) = (middle.old, middle.new);
    [
        (LineSign::Removed, old.get(hunk.old.clone()).unwrap_or_default()),
        (LineSign::Added, new.get(hunk.new.clone()).unwrap_or_default()),
    ]
}

/// The numbers of the first removed and the first added line.
fn firsts(hunk: &Hunk) -> [u64; 2] {
    [hunk.old_line, hunk.new_line]
}

/// Two lists of chunks without those that both begin and end with.
fn differing<'t>(old: &'t [ChunkNo], new: &'t [ChunkNo]) -> [&'t [ChunkNo]; 2] {
    let begin = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (old.get(begin..).unwrap_or_default(), new.get(begin..).unwrap_or_default());
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    [old, new].map(|chunks| chunks.get(..chunks.len() - end).unwrap_or_default())
}

fn maybe(may_hold: bool) -> Answer {
    if may_hold { Answer::Maybe } else { Answer::No }
}

fn sure(holds: bool) -> Answer {
    if holds { Answer::Yes } else { Answer::No }
}

/// Whether the store does not have an object, or has it damaged.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid)
}
