//! Which lines two texts differ in, by Myers' algorithm with the heuristics of git, as the engine counts lines.
//!
//! What both texts begin and end with is not compared. Beyond that, an insertion or a removal may often stand at several
//! places, as in front of any of several equal lines. The lines are the same wherever it stands, so that is of no
//! interest where lines are only counted; where they are shown, it is put where git would put it, for which some of the
//! equal lines around are compared, too.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput, Token};

/// Lines of both texts together that are compared, at most: that bounds the time, to which no deadline puts an end. A
/// million lines of the worst kind take a quarter of a minute, a hundred thousand a second.
const COMPARED_LINES_MAX: usize = 100_000;
/// Steps that may be spent on lines that stand in both texts often, of which the library asks what is around them: that
/// grows with the square of the lines if there are no others.
const STEPS_MAX: u64 = 200_000_000;
/// Of more lines together, none is moved to where git would put it.
const MOVED_LINES_MAX: usize = 50_000;
/// How far lines that are shown may move from where they were found, in lines, about.
const NEIGHBOURS: usize = 256;
/// Bytes that are compared at once.
const STEP_BYTES: usize = 64;

/// Lines that stand in one text and not, at this place, in the other: ranges of bytes of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hunk {
    pub(super) old: Range<usize>,
    pub(super) new: Range<usize>,
    /// The numbers of the first lines, from 1.
    pub(super) old_line: u64,
    pub(super) new_line: u64,
}

/// Two texts without the lines that both begin and end with.
pub(super) struct Middle<'a> {
    pub(super) old: &'a [u8],
    pub(super) new: &'a [u8],
    /// Lines in front.
    lines_before: u64,
    /// Whether some of the equal lines around are left, so that lines may move.
    has_neighbours: bool,
}

impl<'a> Middle<'a> {
    /// Leaves out all lines that both begin and end with.
    pub(super) fn new(old: &'a [u8], new: &'a [u8]) -> Self {
        Self::with(old, new, 0)
    }

    /// Leaves out most of them.
    pub(super) fn with_neighbours(old: &'a [u8], new: &'a [u8]) -> Self {
        Self::with(old, new, NEIGHBOURS)
    }

    fn with(old: &'a [u8], new: &'a [u8], neighbours: usize) -> Self {
        let equal = old.get(..equal_begin(old, new)).unwrap_or_default();
        let begin = memchr::memrchr(b'\n', equal).map_or(0, |newline| newline + 1);
        let (old_rest, new_rest) = (old.get(begin..).unwrap_or_default(), new.get(begin..).unwrap_or_default());
        let end = whole_lines(old_rest, new_rest, equal_end(old_rest, new_rest));
        let begin = lines_back(old, begin, neighbours);
        let end = lines_back_from_end(old, end, neighbours);
        let middle = |text: &'a [u8]| text.get(begin..text.len().saturating_sub(end)).unwrap_or_default();
        Self {
            old: middle(old),
            new: middle(new),
            lines_before: line_count(old.get(..begin).unwrap_or_default()) as u64,
            has_neighbours: neighbours > 0,
        }
    }

    /// Where the texts differ, in order; `None` if there are too many lines to compare, or too many equal ones among them.
    pub(super) fn hunks(&self) -> Option<Vec<Hunk>> {
        let first = self.lines_before + 1;
        if self.old.is_empty() || self.new.is_empty() {
            let hunk = Hunk { old: 0..self.old.len(), new: 0..self.new.len(), old_line: first, new_line: first };
            return Some(if hunk.old == hunk.new { Vec::new() } else { vec![hunk] });
        }
        let lines = line_count(self.old) + line_count(self.new);
        // What is shown was compared before, without its neighbours.
        if !self.has_neighbours && lines > COMPARED_LINES_MAX {
            return None;
        }
        let input = InternedInput::new(self.old, self.new);
        if !self.has_neighbours && steps(&input) > STEPS_MAX {
            return None;
        }
        let mut diff = Diff::compute(Algorithm::Myers, &input);
        if self.has_neighbours && lines <= MOVED_LINES_MAX {
            diff.postprocess_lines(&input);
        }
        let (mut old, mut new) = (Place::new(self.old), Place::new(self.new));
        let hunk = |hunk: imara_diff::Hunk| Hunk {
            old: old.reach(hunk.before.start)..old.reach(hunk.before.end),
            new: new.reach(hunk.after.start)..new.reach(hunk.after.end),
            old_line: first + u64::from(hunk.before.start),
            new_line: first + u64::from(hunk.after.start),
        };
        Some(diff.hunks().map(hunk).collect())
    }
}

/// What comparing takes before it begins, in steps, at most.
fn steps(input: &InternedInput<&[u8]>) -> u64 {
    let counts = |tokens: &[Token]| {
        let mut counts = vec![0_usize; input.interner.num_tokens() as usize];
        for token in tokens {
            if let Some(count) = counts.get_mut(token.0 as usize) {
                *count += 1;
            }
        }
        counts
    };
    let side = |tokens: &[Token], others: &[usize]| {
        // The library's own limit is up to twice as high.
        let often = (tokens.len().isqrt() / 2).min(1024);
        let (mut begin, mut steps) = (0, 0);
        for (at, token) in tokens.iter().enumerate() {
            match others.get(token.0 as usize).copied().unwrap_or(0) {
                0 => {}
                count if count < often => begin = at,
                _ => steps += (at - begin) as u64,
            }
        }
        steps
    };
    side(&input.before, &counts(&input.after)) + side(&input.after, &counts(&input.before))
}

/// A place in a text, which only moves forward.
struct Place<'a> {
    text: &'a [u8],
    line: u32,
    byte: usize,
}

impl<'a> Place<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, line: 0, byte: 0 }
    }

    /// Where a line begins.
    fn reach(&mut self, line: u32) -> usize {
        while self.line < line {
            let rest = self.text.get(self.byte..).unwrap_or_default();
            self.byte += memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
            self.line += 1;
        }
        self.byte
    }
}

/// How many bytes two texts begin with alike.
fn equal_begin(old: &[u8], new: &[u8]) -> usize {
    let steps = old.chunks(STEP_BYTES).zip(new.chunks(STEP_BYTES)).take_while(|(old, new)| old == new);
    let equal: usize = steps.map(|(old, _)| old.len()).sum();
    let (old, new) = (old.get(equal..).unwrap_or_default(), new.get(equal..).unwrap_or_default());
    equal + old.iter().zip(new).take_while(|(old, new)| old == new).count()
}

/// How many bytes they end with alike.
fn equal_end(old: &[u8], new: &[u8]) -> usize {
    let steps = old.rchunks(STEP_BYTES).zip(new.rchunks(STEP_BYTES)).take_while(|(old, new)| old == new);
    let equal: usize = steps.map(|(old, _)| old.len()).sum();
    let rest = |text: &[u8]| text.len() - equal;
    let (old, new) = (old.get(..rest(old)).unwrap_or_default(), new.get(..rest(new)).unwrap_or_default());
    equal + old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count()
}

/// Of the last `equal` bytes, how many are whole lines of both texts.
fn whole_lines(old: &[u8], new: &[u8], equal: usize) -> usize {
    let begins_line = |text: &[u8]| text.len() == equal || text.get(text.len() - equal - 1) == Some(&b'\n');
    if begins_line(old) && begins_line(new) {
        return equal;
    }
    let end = old.get(old.len() - equal..).unwrap_or_default();
    memchr::memchr(b'\n', end).map_or(0, |newline| equal - newline - 1)
}

/// Where the line begins that is `count` lines in front of the one that begins at `byte`.
fn lines_back(text: &[u8], byte: usize, count: usize) -> usize {
    let mut at = byte;
    for _ in 0..count {
        let Some(front) = at.checked_sub(1).and_then(|newline| text.get(..newline)) else { break };
        at = memchr::memrchr(b'\n', front).map_or(0, |newline| newline + 1);
    }
    at
}

/// How many bytes are behind the line that is `count` lines behind what the last `bytes` bytes begin with.
fn lines_back_from_end(text: &[u8], bytes: usize, count: usize) -> usize {
    let mut place = Place::new(text.get(text.len().saturating_sub(bytes)..).unwrap_or_default());
    bytes - place.reach(u32::try_from(count).unwrap_or(u32::MAX)).min(bytes)
}

/// How many lines a text has.
pub(super) fn line_count(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count() + usize::from(text.last().is_some_and(|last| *last != b'\n'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Hunk, Middle};

    /// The lines of a text, each with its newline.
    fn lines(text: &[u8]) -> Vec<&[u8]> {
        text.split_inclusive(|byte| *byte == b'\n').collect()
    }

    /// The lines that are removed and those that are added, by number; checks that nothing else differs.
    fn changed<'a>(old: &'a [u8], new: &'a [u8], middle: &Middle<'a>) -> [Vec<(u64, &'a [u8])>; 2] {
        let hunks = middle.hunks().expect("few lines");
        let side = |text: &'a [u8], whole: &'a [u8], part: &dyn Fn(&Hunk) -> (std::ops::Range<usize>, u64)| {
            let numbered = hunks.iter().flat_map(|hunk| {
                let (range, first) = part(hunk);
                (first..).zip(lines(&text[range]))
            });
            let numbered: Vec<(u64, &[u8])> = numbered.collect();
            let whole = lines(whole);
            for (number, line) in &numbered {
                assert_eq!(whole[*number as usize - 1], *line);
            }
            let is_changed = |number: u64| numbered.iter().any(|(changed, _)| *changed == number);
            let kept: Vec<&[u8]> =
                (1..).zip(whole).filter(|(number, _)| !is_changed(*number)).map(|(_, line)| line).collect();
            (numbered, kept)
        };
        let (removed, kept_old) = side(middle.old, old, &|hunk| (hunk.old.clone(), hunk.old_line));
        let (added, kept_new) = side(middle.new, new, &|hunk| (hunk.new.clone(), hunk.new_line));
        assert_eq!(kept_old, kept_new);
        [removed, added]
    }

    /// How many lines two texts have in common at most, in the same order.
    fn common(old: &[&[u8]], new: &[&[u8]]) -> usize {
        let mut row = vec![0_usize; new.len() + 1];
        for line in old {
            let before = row.clone();
            for (at, other) in new.iter().enumerate() {
                row[at + 1] = if line == other { before[at] + 1 } else { before[at + 1].max(row[at]) };
            }
        }
        row[new.len()]
    }

    fn sorted(mut changed: Vec<(u64, &[u8])>) -> Vec<&[u8]> {
        changed.sort_by_key(|(_, line)| *line);
        changed.into_iter().map(|(_, line)| line).collect()
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let line = prop::sample::select(vec!["a", "b", "", "  c", "ab", "\t", "d\r", "}"]);
        (prop::collection::vec(line, 0..14), any::<bool>()).prop_map(|(lines, ends)| {
            let mut text = lines.join("\n").into_bytes();
            if ends {
                text.push(b'\n');
            }
            text
        })
    }

    /// What one text becomes another by: edits here and there, or all of it.
    fn texts() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let edited = (text(), text(), text(), text()).prop_map(|(before, old, new, after)| {
            let (old, new) = ([&before[..], &old, &after].concat(), [&before[..], &new, &after].concat());
            (old, new)
        });
        prop_oneof![edited, (text(), text())]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn lines_change_and_nothing_else_does((old, new) in texts()) {
            let [removed, added] = changed(&old, &new, &Middle::new(&old, &new));
            let (before, after) = (lines(&old), lines(&new));
            let common = common(&before, &after);
            // Lines that stand there twice are not always found again.
            let is_single = |line: &&[u8]| [&before, &after].iter().all(|all| all.iter().filter(|other| *other == line).count() < 2);
            if before.iter().chain(&after).all(is_single) {
                prop_assert_eq!((removed.len(), added.len()), (before.len() - common, after.len() - common));
            }
            let [removed_shown, added_shown] = changed(&old, &new, &Middle::with_neighbours(&old, &new));
            prop_assert_eq!(sorted(removed), sorted(removed_shown));
            prop_assert_eq!(sorted(added), sorted(added_shown));
        }

        /// What is left out in front and behind changes nothing but where equal lines are said to stand.
        #[test]
        fn any_equal_ends_may_be_left_out((old, new) in texts(), around in (text(), text())) {
            let of = |text: &[u8]| [&around.0[..], b"\n", text, b"\n", &around.1].concat();
            let (old_whole, new_whole) = (of(&old), of(&new));
            let (old, new) = ([&old[..], b"\n"].concat(), [&new[..], b"\n"].concat());
            let [removed, added] = changed(&old_whole, &new_whole, &Middle::new(&old_whole, &new_whole));
            let [removed_part, added_part] = changed(&old, &new, &Middle::new(&old, &new));
            prop_assert_eq!(sorted(removed), sorted(removed_part));
            prop_assert_eq!(sorted(added), sorted(added_part));
        }
    }

    #[test]
    fn lines_stand_where_git_puts_them() {
        let old = b"/// Says it.\nfn three() {}\n";
        let new = b"/// Says it.\nfn two() {}\n\n/// Says it.\nfn three() {}\n";
        let numbers = |middle: &Middle<'_>| {
            let hunks = middle.hunks().expect("few lines");
            hunks.iter().map(|hunk| (hunk.new_line, hunk.new.len())).collect::<Vec<_>>()
        };
        // Both begin with the comment of another function.
        assert_eq!(numbers(&Middle::new(old, new)), [(2, 26)]);
        assert_eq!(numbers(&Middle::with_neighbours(old, new)), [(1, 26)]);
    }

    #[test]
    fn a_line_without_its_newline_is_another() {
        let [removed, added] = changed(b"a\nb", b"a\nb\n", &Middle::new(b"a\nb", b"a\nb\n"));
        assert_eq!((removed, added), (vec![(2, &b"b"[..])], vec![(2, &b"b\n"[..])]));
        let [removed, added] = changed(b"", b"x\ny", &Middle::new(b"", b"x\ny"));
        assert_eq!((removed.len(), added), (0, vec![(1, &b"x\n"[..]), (2, &b"y"[..])]));
        assert_eq!(Middle::new(b"", b"").hunks(), Some(Vec::new()));
    }

    #[test]
    fn far_away_lines_have_their_numbers() {
        let of = |line: &str| {
            let numbered = |from: u32| (from..from + 5000).map(|at| format!("line {at}\n")).collect::<String>();
            format!("{}{line}{}", numbered(0), numbered(9000)).into_bytes()
        };
        let (old, new) = (of("old\n"), of("new\nnewer\n"));
        for middle in [Middle::new(&old, &new), Middle::with_neighbours(&old, &new)] {
            assert!(middle.old.len() < 10_000);
            let [removed, added] = changed(&old, &new, &middle);
            assert_eq!(removed, [(5001, &b"old\n"[..])]);
            assert_eq!(added, [(5001, &b"new\n"[..]), (5002, &b"newer\n"[..])]);
        }
    }

    #[test]
    fn too_many_lines_are_not_compared() {
        let lines = |line: &str, count: usize| line.repeat(count).into_bytes();
        let (old, new) = (lines("a\nb\n", 30_000), lines("b\nb\na\n", 15_000));
        assert_eq!(Middle::new(&old, &new).hunks(), None);
        // Lines that stand in both very often, in another order.
        let (old, new) = (lines("a\nb\n", 20_000), lines("b\nb\na\n", 13_000));
        assert_eq!(Middle::new(&old, &new).hunks(), None);
        // All of a file is not compared with anything.
        assert_eq!(Middle::new(b"", &new).hunks().map(|hunks| hunks.len()), Some(1));
    }
}
