//! What commits change as a naive comparison sees it: every file, every line, with regular expressions.

use std::collections::BTreeSet;

use govc_engine::{ChangeStatus, EntryMode, Kind, Oid, Repo, Snapshot, hash_object};
use govc_search::{
    DiffCursor, DiffHit, DiffOptions, DiffsFound, LineSign, Place, find_diffs,
    language::{Language, detect},
    places,
    query::{Atom, Expr, PathPattern, Pattern, Query, glob_regex},
};

use super::super::{
    past::{Files, Past},
    world::query_of,
};

/// A line of a diff: sign, number, text, where it matches.
pub(super) type Line = (LineSign, u64, String, Vec<(usize, usize)>);
/// A file of one: path, what became of it, its blobs, how many lines were added and removed, the first ones.
pub(super) type Row = (Vec<u8>, ChangeStatus, [Option<Oid>; 2], [u64; 2], Vec<Line>);

/// A commit as it is expected or was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) oid: Oid,
    pub(super) files: Vec<Row>,
    pub(super) totals: (u64, u64),
}

impl Told {
    pub(super) fn of(hit: DiffHit) -> Self {
        let line = |line: govc_search::DiffLine| {
            let spans = line.matches.iter().map(|span| (span.start, span.end)).collect();
            (line.sign, line.line_number, line.content, spans)
        };
        let file = |file: govc_search::DiffFile| {
            let lines = file.lines.into_iter().map(line).collect();
            (file.path, file.status, [file.old, file.new], [file.lines_added, file.lines_removed], lines)
        };
        assert!(hit.is_whole);
        let files = hit.files.into_iter().map(file).collect();
        Self { oid: hit.oid, files, totals: (hit.total_files, hit.total_lines) }
    }

    /// The first files and lines alone.
    fn cut(mut self, files_max: usize, lines_max: usize) -> Self {
        self.files.truncate(files_max);
        self.files.iter_mut().for_each(|file| file.4.truncate(lines_max));
        self
    }
}

/// All pages.
pub(super) fn all(past: &Past, query: &Query, places: &[Place], options: &DiffOptions) -> (Vec<Told>, DiffsFound) {
    let (mut told, mut options) = (Vec::new(), options.clone());
    loop {
        let mut found = find_diffs(&past.corpus, query, places, &options).expect("found");
        assert!(found.commits.len() <= options.commits_max);
        assert_eq!(found.partial, None);
        told.extend(std::mem::take(&mut found.commits).into_iter().map(Told::of));
        let Some(next) = &found.next else { return (told, found) };
        assert_ne!(Some(next), options.cursor.as_ref(), "it goes on");
        options.cursor = Some(DiffCursor::decode(&next.encode()).expect("the same cursor"));
    }
}

fn regex(pattern: &Pattern) -> regex::bytes::Regex {
    let source = if pattern.regex { pattern.text.clone() } else { regex_syntax::escape(&pattern.text) };
    let mut builder = regex::bytes::RegexBuilder::new(&source);
    builder.case_insensitive(!pattern.case_sensitive).multi_line(true).build().expect("a regex")
}

fn spans(pattern: &Pattern, line: &[u8]) -> Vec<(usize, usize)> {
    let regex = regex(pattern);
    regex.find_iter(line).filter(|found| !found.is_empty()).map(|found| (found.start(), found.end())).collect()
}

/// A changed file as a naive comparison sees it.
struct Changed<'a> {
    repo: &'a Repo,
    message: &'a [u8],
    seconds: i64,
    path: &'a str,
    /// What it is, or was.
    data: &'a [u8],
    lines: Vec<(LineSign, u64, &'a [u8])>,
}

impl<'a> Changed<'a> {
    /// The lines that differ, as git shows them.
    fn lines(old: &'a [u8], new: &'a [u8]) -> Vec<(LineSign, u64, &'a [u8])> {
        let input = imara_diff::InternedInput::new(old, new);
        let mut diff = imara_diff::Diff::compute(imara_diff::Algorithm::Myers, &input);
        diff.postprocess_lines(&input);
        let mut lines = Vec::new();
        for hunk in diff.hunks() {
            let mut side = |sign, range: std::ops::Range<u32>, tokens: &[imara_diff::Token]| {
                for at in range {
                    let line = input.interner[tokens[at as usize]];
                    lines.push((sign, u64::from(at) + 1, line.strip_suffix(b"\n").unwrap_or(line)));
                }
            };
            side(LineSign::Removed, hunk.before, &input.before);
            side(LineSign::Added, hunk.after, &input.after);
        }
        lines
    }

    fn holds(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Const(holds) => *holds,
            Expr::And(parts) => parts.iter().all(|part| self.holds(part)),
            Expr::Or(parts) => parts.iter().any(|part| self.holds(part)),
            Expr::Not(inner) => !self.holds(inner),
            Expr::Atom(Atom::Text(pattern) | Atom::Content(pattern)) => {
                self.lines.iter().any(|(_, _, line)| !spans(pattern, line).is_empty())
            }
            Expr::Atom(Atom::Path(PathPattern::Pattern(pattern))) => regex(pattern).is_match(self.path.as_bytes()),
            Expr::Atom(Atom::Path(PathPattern::Glob { glob, case_sensitive, span })) => {
                let text = glob_regex(glob);
                let pattern = Pattern { text, regex: true, case_sensitive: *case_sensitive, span: span.clone() };
                regex(&pattern).is_match(self.path.as_bytes())
            }
            Expr::Atom(Atom::Lang(name)) => detect(self.path.as_bytes(), self.data) == Language::from_name(name),
            Expr::Atom(atom) => self.of_commit(atom).unwrap_or_else(|| panic!("{atom:?} is not asked")),
        }
    }

    /// Whether a condition on the commit holds; `None` for others.
    fn of_commit(&self, atom: &Atom) -> Option<bool> {
        Some(match atom {
            Atom::Message(pattern) => regex(pattern).is_match(self.message),
            Atom::Author(pattern) => regex(pattern).is_match(b"Test <test@example.com>"),
            Atom::Before(seconds) => self.seconds < *seconds,
            Atom::After(seconds) => self.seconds >= *seconds,
            Atom::Repo(pattern) => regex(pattern).is_match(self.repo.name().as_str().as_bytes()),
            Atom::Fork(wanted) => *wanted == self.repo.forked_from().is_some(),
            _ => return None,
        })
    }

    /// The texts that speak for a result, once it is known what holds for the commit.
    fn shown<'q>(&self, expr: &'q Expr, is_positive: bool, shown: &mut Vec<&'q Pattern>) {
        let known = |part: &Expr| match part {
            Expr::Atom(atom) => self.of_commit(atom),
            Expr::Not(inner) => match &**inner {
                Expr::Atom(atom) => self.of_commit(atom).map(|holds| !holds),
                _ => None,
            },
            _ => None,
        };
        match expr {
            Expr::Or(parts) if parts.iter().any(|part| known(part) == Some(true)) => {}
            Expr::And(parts) if parts.iter().any(|part| known(part) == Some(false)) => {}
            Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| self.shown(part, is_positive, shown)),
            Expr::Not(inner) => self.shown(inner, !is_positive, shown),
            Expr::Atom(Atom::Text(pattern) | Atom::Content(pattern)) if is_positive => shown.push(pattern),
            _ => {}
        }
    }
}

/// What a naive comparison tells, and how many files it skips.
fn naive(past: &Past, snapshot: &Snapshot, query: &Query, tips: &[Oid]) -> (Vec<Told>, u64) {
    let mut walk = snapshot.walk();
    tips.iter().for_each(|tip| walk.follow(*tip).expect("a commit"));
    let (mut told, mut skipped) = (Vec::new(), 0);
    let none = Files::new();
    for commit in walk {
        let oid = commit.expect("a commit").0;
        let made = past.commits.iter().find(|made| made.oid == oid).expect("it was made");
        let before = made.parents.first().map_or(&none, |parent| &past.commits[*parent].files);
        let is_file = |mode: EntryMode| mode == EntryMode::BLOB || mode == EntryMode::EXECUTABLE;
        let side = |files: &'_ Files, path: &str| -> Option<Vec<u8>> {
            files.get(path).filter(|(mode, _)| is_file(*mode)).map(|(_, data)| data.clone())
        };
        let mut rows = Vec::new();
        // In git's order; these paths have no directory beside a file with its name and a dot.
        let paths: BTreeSet<&String> = before.keys().chain(made.files.keys()).collect();
        for path in paths {
            let (old, new) = (side(before, path), side(&made.files, path));
            if old == new {
                continue;
            }
            let texts = [&old, &new].map(|side| side.clone().unwrap_or_default());
            let is_binary = texts.iter().any(|text| text.iter().take(8000).any(|byte| *byte == 0));
            let message = snapshot.commit(&oid).expect("a commit").message;
            let data = if new.is_some() { &texts[1] } else { &texts[0] };
            let lines = if is_binary { Vec::new() } else { Changed::lines(&texts[0], &texts[1]) };
            let changed =
                Changed { repo: snapshot.repo(), message: &message, seconds: made.seconds, path, data, lines };
            if is_binary {
                skipped += u64::from(may_hold(&changed, &query.expr) != Some(false));
                continue;
            }
            if changed.lines.is_empty() || !changed.holds(&query.expr) {
                continue;
            }
            let mut shown = Vec::new();
            changed.shown(&query.expr, true, &mut shown);
            let line = |(sign, number, line): &(LineSign, u64, &[u8])| {
                let mut all: Vec<(usize, usize)> = shown.iter().flat_map(|pattern| spans(pattern, line)).collect();
                all.sort_unstable();
                let mut kept: Vec<(usize, usize)> = Vec::new();
                for span in all {
                    if kept.last().is_none_or(|last| last.1 <= span.0) {
                        kept.push(span);
                    }
                }
                let is_shown = shown.is_empty() || !kept.is_empty();
                // Not all of these texts are UTF-8: then only whether there are spans is compared, below.
                is_shown.then(|| (*sign, *number, String::from_utf8_lossy(line).into_owned(), kept))
            };
            let lines: Vec<Line> = changed.lines.iter().filter_map(line).collect();
            let count = |sign| lines.iter().filter(|line| line.0 == sign).count() as u64;
            let counts = [count(LineSign::Added), count(LineSign::Removed)];
            let status = match (&old, &new) {
                (None, _) => ChangeStatus::Added,
                (_, None) => ChangeStatus::Deleted,
                _ => ChangeStatus::Modified,
            };
            let blobs = [old, new]
                .map(|side| side.map(|data| hash_object(super::super::FORMAT, Kind::Blob, &data).expect("an id")));
            rows.push((path.clone().into_bytes(), status, blobs, counts, lines));
        }
        if !rows.is_empty() {
            let lines = rows.iter().map(|row: &Row| row.3[0] + row.3[1]).sum();
            told.push(Told { oid, totals: (rows.len() as u64, lines), files: rows });
        }
    }
    (told, skipped)
}

/// What is known of a condition if nothing is known of lines, and of languages what the path says.
fn may_hold(changed: &Changed<'_>, expr: &Expr) -> Option<bool> {
    let all = |parts: &[Expr], ends_at: bool| {
        let known: Vec<Option<bool>> = parts.iter().map(|part| may_hold(changed, part)).collect();
        match () {
            () if known.contains(&Some(ends_at)) => Some(ends_at),
            () if known.contains(&None) => None,
            () => Some(!ends_at),
        }
    };
    match expr {
        Expr::And(parts) => all(parts, false),
        Expr::Or(parts) => all(parts, true),
        Expr::Not(inner) => may_hold(changed, inner).map(|holds| !holds),
        Expr::Atom(Atom::Text(_) | Atom::Content(_)) => None,
        // Only of these the path tells the language.
        Expr::Atom(Atom::Lang(_)) if !changed.path.ends_with(".rs") && !changed.path.ends_with(".c") => None,
        expr => Some(changed.holds(expr)),
    }
}

/// Compares all pages of a query about one repository with a naive comparison.
pub(super) fn check(past: &Past, repo: &Repo, text: &str, options: &DiffOptions) {
    let query = query_of(text);
    let snapshot = repo.snapshot();
    let searched = places(repo, &snapshot, &query.options, false, None).expect("places");
    let tips: Vec<Oid> = searched.iter().map(|place| place.commit).collect();
    let (expected, skipped) = naive(past, &snapshot, &query, &tips);
    let (found, last) = all(past, &query, &searched, options);
    let sums = expected.iter().fold((0, 0), |sum, told| (sum.0 + told.totals.0, sum.1 + told.totals.1));
    let cut: Vec<Told> = expected.into_iter().map(|told| told.cut(options.files_max, options.lines_max)).collect();
    assert_eq!(lossless(found), lossless(cut.clone()), "{text} {options:?}");
    assert_eq!((last.total, last.total_files, last.total_lines), (cut.len() as u64, sums.0, sums.1), "{text}");
    assert_eq!((last.is_exact, last.files_skipped, last.commits_skipped), (true, skipped, 0), "{text}");
}

/// Spans count bytes of the line as it is told, so they are compared where that is the line.
fn lossless(mut all: Vec<Told>) -> Vec<Told> {
    for line in all.iter_mut().flat_map(|told| &mut told.files).flat_map(|file| &mut file.4) {
        if line.2.contains(char::REPLACEMENT_CHARACTER) {
            line.3.clear();
        }
    }
    all
}
