//! Which grams a text must have for a pattern to match in it: the part of a query that the index answers.
//!
//! The pattern's syntax tree is walked once. A part that can only be one of a few texts keeps them all, so that
//! neighbours can be joined and have grams across their border; where there would be too many, what is there becomes
//! a condition and only its last two bytes go on. Whatever has no such texts (`.*`, a large class) is no condition.
//! After Russ Cox, "Regular Expression Matching with a Trigram Index" (2012), with exact sets alone.

use std::{collections::BTreeSet, fmt};

use regex_syntax::hir::{Class, Hir, HirKind};

use super::gram::{GRAM_BYTES, Gram, Pair, fold};

/// Texts that a part may be, at most.
const TEXTS_MAX: usize = 64;
/// Bytes that such a text has at most before it becomes a condition.
const TEXT_BYTES_MAX: usize = 64;
/// Characters of a class that are taken one by one, at most.
const CLASS_MAX: u32 = 16;

/// Pairs of bytes that are alternatives, and conditions with pairs that hold together, at most: each takes hundreds of lists.
const PAIRS_MAX: usize = 4;

/// A condition on the grams of a text; necessary for a match, not sufficient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GramQuery {
    /// No condition.
    All,
    /// Nothing can match.
    None,
    /// Each of these grams, which are sorted.
    Grams(Vec<Gram>),
    /// These two bytes in one line.
    Pair(Pair),
    /// All of these.
    And(Vec<GramQuery>),
    /// Any of these.
    Or(Vec<GramQuery>),
}

impl GramQuery {
    /// The condition that a pattern brings; whether it is compiled with or without regard to case is in `hir`.
    pub(crate) fn of(hir: &Hir) -> Self {
        let mut walk = Walk::default();
        walk.add(hir);
        walk.finish()
    }

    fn and(parts: Vec<Self>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::All => {}
                Self::None => return Self::None,
                Self::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        // Grams that are all wanted are one list.
        let (lists, mut others): (Vec<_>, Vec<_>) = flat.into_iter().partition(|part| matches!(part, Self::Grams(_)));
        let grams: BTreeSet<Gram> =
            lists.into_iter().flat_map(|list| if let Self::Grams(grams) = list { grams } else { Vec::new() }).collect();
        others.dedup();
        // Pairs rule out little where there are grams.
        let mut pairs_max = if grams.is_empty() { PAIRS_MAX } else { 0 };
        others.retain(|part| {
            let is_kept = !part.has_pairs() || pairs_max > 0;
            pairs_max -= usize::from(part.has_pairs() && is_kept);
            is_kept
        });
        if !grams.is_empty() {
            others.insert(0, Self::Grams(grams.into_iter().collect()));
        }
        match others.len() {
            0 => Self::All,
            1 => others.remove(0),
            _ => Self::And(others),
        }
    }

    fn or(parts: Vec<Self>) -> Self {
        let mut flat: Vec<Self> = Vec::new();
        for part in parts {
            match part {
                Self::All => return Self::All,
                Self::None => {}
                Self::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        let mut distinct: Vec<Self> = Vec::new();
        for part in flat {
            if !distinct.contains(&part) {
                distinct.push(part);
            }
        }
        if distinct.iter().filter(|part| part.has_pairs()).count() > PAIRS_MAX {
            return Self::All;
        }
        match distinct.len() {
            0 => Self::None,
            1 => distinct.remove(0),
            _ => Self::Or(distinct),
        }
    }

    fn has_pairs(&self) -> bool {
        match self {
            Self::All | Self::None | Self::Grams(_) => false,
            Self::Pair(_) => true,
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::has_pairs),
        }
    }

    /// What one of `texts` being there demands.
    fn any_of(texts: &BTreeSet<Vec<u8>>) -> Self {
        let parts = texts.iter().map(|text| {
            let grams: BTreeSet<Gram> = Gram::of(text).collect();
            match Pair::of(text) {
                Some(pair) => Self::Pair(pair),
                None if grams.is_empty() => Self::All,
                None => Self::Grams(grams.into_iter().collect()),
            }
        });
        Self::or(parts.collect())
    }
}

impl fmt::Display for GramQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, parts: &[Self], sign: &str| {
            f.write_str("(")?;
            for (at, part) in parts.iter().enumerate() {
                write!(f, "{}{part}", if at == 0 { "" } else { sign })?;
            }
            f.write_str(")")
        };
        match self {
            Self::All => f.write_str("all"),
            Self::None => f.write_str("none"),
            Self::Grams(grams) => f.write_str(&grams.iter().map(Gram::as_str).collect::<Vec<_>>().join("&")),
            Self::Pair(pair) => pair.fmt(f),
            Self::And(parts) => list(f, parts, " and "),
            Self::Or(parts) => list(f, parts, " or "),
        }
    }
}

/// A walk over a concatenation: what it demands so far, and the folded texts that end where it stands.
struct Walk {
    demands: Vec<GramQuery>,
    /// One of these stands in front; `{""}` if nothing is known.
    texts: BTreeSet<Vec<u8>>,
    /// Whether no text can match.
    is_impossible: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self { demands: Vec::new(), texts: BTreeSet::from([Vec::new()]), is_impossible: false }
    }
}

impl Walk {
    fn add(&mut self, hir: &Hir) {
        match exact(hir) {
            Some(texts) if texts.is_empty() => self.is_impossible = true,
            Some(texts) => self.join(&texts),
            None => self.add_open(hir),
        }
    }

    /// Adds a part that has too many texts to keep.
    fn add_open(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.add(part)),
            HirKind::Capture(capture) => self.add(&capture.sub),
            HirKind::Repetition(repetition) if repetition.min > 0 => {
                // Once it stands behind what is in front; where its last time ends is not known.
                self.add(&repetition.sub);
                self.cut();
            }
            HirKind::Alternation(parts) => {
                self.cut();
                self.demands.push(GramQuery::or(parts.iter().map(GramQuery::of).collect()));
            }
            _ => self.cut(),
        }
    }

    /// Puts each of `texts` behind each that stands.
    fn join(&mut self, texts: &BTreeSet<Vec<u8>>) {
        if self.texts.len() * texts.len() > TEXTS_MAX || self.longest() > TEXT_BYTES_MAX {
            self.demand();
            let tail = |text: &Vec<u8>| text[text.len().saturating_sub(GRAM_BYTES - 1)..].to_vec();
            self.texts = self.texts.iter().map(tail).collect();
            if self.texts.len() * texts.len() > TEXTS_MAX {
                self.texts = BTreeSet::from([Vec::new()]);
            }
        }
        self.texts = self.texts.iter().flat_map(|left| texts.iter().map(|right| [&left[..], right].concat())).collect();
    }

    fn longest(&self) -> usize {
        self.texts.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn demand(&mut self) {
        self.demands.push(GramQuery::any_of(&self.texts));
    }

    /// What comes next is not known.
    fn cut(&mut self) {
        self.demand();
        self.texts = BTreeSet::from([Vec::new()]);
    }

    fn finish(mut self) -> GramQuery {
        if self.is_impossible {
            return GramQuery::None;
        }
        self.demand();
        GramQuery::and(self.demands)
    }
}

/// The folded texts that `hir` can match, if they are few; empty if it can match none.
fn exact(hir: &Hir) -> Option<BTreeSet<Vec<u8>>> {
    let nothing = || BTreeSet::from([Vec::new()]);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Some(nothing()),
        HirKind::Literal(literal) => {
            let text: Vec<u8> = literal.0.iter().map(|byte| fold(*byte)).collect();
            (text.len() <= TEXT_BYTES_MAX * 64).then(|| BTreeSet::from([text]))
        }
        HirKind::Class(class) => class_texts(class),
        HirKind::Capture(capture) => exact(&capture.sub),
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max) {
            (0, Some(0)) => Some(nothing()),
            (0, Some(1)) => few(exact(&repetition.sub)?.into_iter().chain([Vec::new()])),
            (1, Some(1)) => exact(&repetition.sub),
            (min, Some(max)) if min == max && max <= 16 => {
                let once = exact(&repetition.sub)?;
                (0..min).try_fold(nothing(), |texts, _| product(&texts, &once))
            }
            _ => None,
        },
        HirKind::Concat(parts) => parts.iter().try_fold(nothing(), |texts, part| product(&texts, &exact(part)?)),
        HirKind::Alternation(parts) => {
            let mut all = BTreeSet::new();
            for part in parts {
                all = few(all.into_iter().chain(exact(part)?))?;
            }
            Some(all)
        }
    }
}

fn product(left: &BTreeSet<Vec<u8>>, right: &BTreeSet<Vec<u8>>) -> Option<BTreeSet<Vec<u8>>> {
    let longest = |texts: &BTreeSet<Vec<u8>>| texts.iter().map(Vec::len).max().unwrap_or(0);
    if left.len() * right.len() > TEXTS_MAX || longest(left) + longest(right) > TEXT_BYTES_MAX * 64 {
        return None;
    }
    Some(left.iter().flat_map(|left| right.iter().map(|right| [&left[..], right].concat())).collect())
}

fn few(texts: impl Iterator<Item = Vec<u8>>) -> Option<BTreeSet<Vec<u8>>> {
    let texts: BTreeSet<Vec<u8>> = texts.collect();
    (texts.len() <= TEXTS_MAX).then_some(texts)
}

fn class_texts(class: &Class) -> Option<BTreeSet<Vec<u8>>> {
    match class {
        Class::Unicode(class) => {
            let count = class.iter().try_fold(0_u32, |count, range| {
                let more = u32::from(range.end()) - u32::from(range.start()) + 1;
                Some(count + more).filter(|count| *count <= CLASS_MAX)
            });
            count?;
            let characters = class.iter().flat_map(|range| range.start()..=range.end());
            Some(characters.map(|character| character.to_string().bytes().map(fold).collect()).collect())
        }
        Class::Bytes(class) => {
            let count: u32 = class.iter().map(|range| u32::from(range.end()) - u32::from(range.start()) + 1).sum();
            (count <= CLASS_MAX).then(|| {
                class.iter().flat_map(|range| range.start()..=range.end()).map(|byte| vec![fold(byte)]).collect()
            })
        }
    }
}

#[cfg(test)]
mod tests;
