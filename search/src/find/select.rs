//! `select:symbol`: what of a file that is found is a definition.

use std::ops::Range;

use govc_engine::Result;

use super::{
    file::{CLOCK_MATCHES, File, Matches},
    pattern::Matcher,
    plan::Reported,
};
use crate::{deadline, defined::Named, language::Language};

/// A line on which something is defined, and which of the definitions are on it.
struct Line {
    bytes: Range<usize>,
    definitions: Range<usize>,
}

/// The definitions of a file whose names match, or on whose lines something matches, of what is `reported`; each counts once.
///
/// # Errors
/// Cancelled at the deadline; else when the file cannot be read.
pub(super) fn definitions(file: &mut File<'_>, reported: &[Reported], language: Option<Language>) -> Result<Matches> {
    let mut found = Matches::default();
    let Some(language) = language.filter(|_| !reported.is_empty()) else { return Ok(found) };
    let Some(named) = file.named(language)? else {
        found.is_untold = true;
        return Ok(found);
    };
    let mut is_found = vec![false; named.iter().count()];
    for what in reported {
        let (Reported::Symbol(number) | Reported::Content(number)) = what;
        let Some(matcher) = file.reading().matchers.get(*number) else { continue };
        match what {
            Reported::Content(_) => find_lines(file, matcher, &named, &mut is_found)?,
            Reported::Symbol(_) => is_found.iter_mut().zip(named.iter()).for_each(|(is_found, (_, name))| {
                *is_found = *is_found || matcher.is_match(name);
            }),
        }
    }
    let definitions = named.iter().zip(&is_found).filter(|(_, is_found)| **is_found);
    definitions.for_each(|((symbol, _), _)| found.add_definition(&symbol.name));
    Ok(found)
}

/// Marks the definitions on whose lines a pattern matches.
fn find_lines(file: &mut File<'_>, matcher: &Matcher, named: &Named, is_found: &mut [bool]) -> Result<()> {
    if is_found.is_empty() {
        return Ok(());
    }
    let until = file.reading().until;
    deadline::check(until)?;
    let content = file.whole()?;
    let lines = lines(&content, named);
    let (mut rest, mut steps, mut is_late) = (lines.as_slice(), 0_u32, false);
    matcher.matches(&content, |found| {
        steps += 1;
        is_late = steps % CLOCK_MATCHES == 0 && deadline::is_past(until);
        if !found.is_empty() {
            let passed = rest.iter().take_while(|line| line.bytes.end < found.start).count();
            rest = rest.get(passed..).unwrap_or_default();
            if let Some(line) = rest.first().filter(|line| line.bytes.start <= found.start) {
                is_found.get_mut(line.definitions.clone()).unwrap_or_default().fill(true);
                rest = rest.get(1..).unwrap_or_default();
            }
        }
        !is_late && !rest.is_empty()
    });
    if is_late { deadline::check(until) } else { Ok(()) }
}

/// The lines on which definitions begin, which are in order.
fn lines(content: &[u8], named: &Named) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, (symbol, _)) in named.iter().enumerate() {
        let at = symbol.name.start;
        if let Some(last) = lines.last_mut().filter(|last| last.bytes.end >= at) {
            last.definitions.end = number + 1;
            continue;
        }
        let (front, behind) = content.split_at_checked(at).unwrap_or_default();
        let start = memchr::memrchr(b'\n', front).map_or(0, |newline| newline + 1);
        let end = memchr::memchr(b'\n', behind).map_or(content.len(), |length| at + length);
        lines.push(Line { bytes: start..end, definitions: number..number + 1 });
    }
    lines
}
