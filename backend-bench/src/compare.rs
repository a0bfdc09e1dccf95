//! Two reports beside each other: which rows differ by more than their repetitions do among themselves.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::report::{Better, Report, Row, figure, wrap};

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Better by more than the spread of the repetitions.
    Better,
    /// Worse by more than the spread of the repetitions.
    Worse,
    /// Within the spread.
    Same,
}

/// A row of both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// The subject.
    pub subject: String,
    /// The row.
    pub id: String,
    /// What was done.
    pub work: String,
    /// What the figures count.
    pub unit: String,
    /// The first report's median.
    pub before: f64,
    /// The second report's median.
    pub after: f64,
    /// The second by the first.
    pub ratio: f64,
    /// Whether they differ, and how.
    pub change: Change,
}

/// Two reports beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The rows that both have, in the order of the first.
    pub rows: Vec<Compared>,
    /// What one has and the other has not, in words.
    pub missing: Vec<String>,
    /// What else is different and may explain the rows, in words.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Compares the second report with the first.
    ///
    /// # Errors
    /// [`ErrorKind::Incomparable`] unless both measured the same: format, profile, seconds, seed, amounts, history.
    pub fn of(before: &Report, after: &Report) -> Result<Self> {
        check(before, after)?;
        let (mut rows, mut missing, mut differences) = (Vec::new(), Vec::new(), Vec::new());
        for subject in &before.subjects {
            let Some(other) = after.subjects.iter().find(|other| other.name == subject.name) else {
                missing.push(format!("{} is in the first report only", subject.name));
                continue;
            };
            for row in &subject.rows {
                match other.row(&row.id) {
                    Some(again) => rows.push(compared(&subject.name, row, again)),
                    None => missing.push(format!("{}, {} is in the first report only", subject.name, row.id)),
                }
            }
            let new = other.rows.iter().filter(|row| subject.row(&row.id).is_none());
            missing.extend(new.map(|row| format!("{}, {} is in the second report only", subject.name, row.id)));
            if subject.survival != other.survival {
                differences.push(format!("{}: what a synced write survives is not the same", subject.name));
            }
            if subject.file_system != other.file_system {
                differences.push(format!("{}: the file systems are not the same", subject.name));
            }
        }
        let known = |name: &str| before.subjects.iter().any(|subject| subject.name == name);
        let new = after.subjects.iter().filter(|subject| !known(&subject.name));
        missing.extend(new.map(|subject| format!("{} is in the second report only", subject.name)));
        if before.machine != after.machine {
            differences.push(format!("machines: {}; {}", before.machine, after.machine));
        }
        if before.debug_build != after.debug_build {
            differences.push("one of the two was built without optimisation".to_owned());
        }
        Ok(Self { rows, missing, differences })
    }

    /// The comparison as text for a terminal of 100 columns.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let marked = self.rows.iter().filter(|row| row.change != Change::Same).count();
        wrap(
            &mut text,
            &format!("{} rows compared, {marked} differ by more than their repetitions do", self.rows.len()),
        );
        for line in self.differences.iter().chain(&self.missing) {
            wrap(&mut text, &format!("NOTE {line}"));
        }
        let widest =
            |of: &dyn Fn(&Compared) -> usize, most: usize| self.rows.iter().map(of).max().unwrap_or(0).min(most);
        let subjects = widest(&|row| row.subject.chars().count(), 20);
        let ids = widest(&|row| row.id.chars().count(), 24);
        for row in &self.rows {
            let subject: String = row.subject.chars().take(subjects).collect();
            let id: String = row.id.chars().take(ids).collect();
            let change = match row.change {
                Change::Better => "better",
                Change::Worse => "WORSE",
                Change::Same => "",
            };
            let line = format!(
                "{subject:subjects$} {id:ids$} {:>11} {:>11} {:<9} ×{:<6} {change}",
                figure(row.before),
                figure(row.after),
                row.unit,
                figure(row.ratio)
            );
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn check(before: &Report, after: &Report) -> Result<()> {
    let (one, two) = (&before.plan, &after.plan);
    let same = [
        ("format", before.format == after.format),
        ("profile", one.profile == two.profile),
        ("seconds", one.seconds == two.seconds),
        ("seed", one.seed == two.seed),
        ("amounts", one.amounts == two.amounts),
        ("history", one.history == two.history),
        ("inputs", one.inputs == two.inputs),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => {
            let message = format!(
                "the reports differ in their {what} (first: profile {}, {} s, seed {}; second: profile {}, {} s, seed {}), so \
                 they did not measure the same",
                one.profile, one.seconds, one.seed, two.profile, two.seconds, two.seed
            );
            Err(Error::new(ErrorKind::Incomparable, message))
        }
    }
}

fn compared(subject: &str, before: &Row, after: &Row) -> Compared {
    let spread = (before.max - before.min).max(after.max - after.min);
    let is_higher = after.median > before.median;
    let change = match (after.median - before.median).abs() > spread {
        false => Change::Same,
        true if is_higher == (before.better == Better::Higher) => Change::Better,
        true => Change::Worse,
    };
    let ratio = if before.median == 0.0 { 0.0 } else { after.median / before.median };
    Compared {
        subject: subject.to_owned(),
        id: before.id.clone(),
        work: before.work.clone(),
        unit: before.unit.clone(),
        before: before.median,
        after: after.median,
        ratio,
        change,
    }
}
