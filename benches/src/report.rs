//! Rows and their two forms: JSON for programs, an aligned Markdown table for people.
//!
//! A row states one figure beside its peer's from the same run. A row without a peer has none to be
//! compared with; it is never filled in.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::error::{Context, Result};
use crate::machine::Machine;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) suite: &'static str,
    /// What was done, and to what.
    pub(crate) work: String,
    pub(crate) subject: &'static str,
    pub(crate) peer: Option<String>,
    pub(crate) value: f64,
    pub(crate) peer_value: Option<f64>,
    pub(crate) unit: &'static str,
    /// Value by the peer's value.
    pub(crate) ratio: Option<f64>,
    /// What the subject promises about its writes; `-` for reads.
    pub(crate) durability: &'static str,
    /// Whether the contents were compared after the work and found equal.
    pub(crate) verified: bool,
}

impl Row {
    /// A figure of govc, not yet verified and without a peer.
    pub(crate) fn new(suite: &'static str, work: impl Into<String>, unit: &'static str, value: f64) -> Row {
        Row {
            suite,
            work: work.into(),
            subject: "govc",
            peer: None,
            value,
            peer_value: None,
            unit,
            ratio: None,
            durability: "-",
            verified: false,
        }
    }

    pub(crate) fn beside(mut self, peer: impl Into<String>, value: f64) -> Row {
        self.peer = Some(peer.into());
        self.peer_value = Some(value);
        self.ratio = (value > 0.0).then(|| self.value / value);
        self
    }

    pub(crate) fn durability(mut self, durability: &'static str) -> Row {
        self.durability = durability;
        self
    }

    pub(crate) fn verified(mut self, verified: bool) -> Row {
        self.verified = verified;
        self
    }
}

/// The middle value, or the mean of the middle two; 0 for none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), half.checked_sub(1).and_then(|below| values.get(below))) {
        (Some(high), Some(low)) if values.len().is_multiple_of(2) => (low + high) / 2.0,
        (Some(middle), _) => *middle,
        (None, _) => 0.0,
    }
}

/// Writes `<suite>.json` and `<suite>.md` into a folder and returns the table's text.
pub(crate) fn write(folder: &Path, suite: &str, rows: &[Row], machine: &Machine, command: &str) -> Result<String> {
    let json = serde_json::to_string_pretty(rows).context(|| "cannot write rows as JSON".into())?;
    let json_path = folder.join(format!("{suite}.json"));
    fs::write(&json_path, json + "\n").context(|| format!("cannot write {}", json_path.display()))?;
    let text = format!("## {suite}\n\n{command}\n\n{machine}\n\n{}", table(rows));
    let table_path = folder.join(format!("{suite}.md"));
    fs::write(&table_path, &text).context(|| format!("cannot write {}", table_path.display()))?;
    Ok(text)
}

fn table(rows: &[Row]) -> String {
    let mut cells: Vec<[String; 9]> = vec![
        ["work", "subject", "value", "peer", "peer's value", "unit", "ratio", "durability", "verified"]
            .map(str::to_owned),
    ];
    cells.extend(rows.iter().map(|row| {
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
        [
            row.work.clone(),
            row.subject.to_owned(),
            number(row.value),
            row.peer.clone().unwrap_or_else(|| "-".to_owned()),
            optional(row.peer_value),
            row.unit.to_owned(),
            optional(row.ratio),
            row.durability.to_owned(),
            if row.verified { "yes" } else { "NO" }.to_owned(),
        ]
    }));
    let width_of = |column: usize| cells.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width_of);
    let is_number = |column: usize| matches!(column, 2 | 4 | 6);
    let mut text = String::new();
    for (index, line) in cells.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let padded = if is_number(column) { format!("| {cell:>width$} ") } else { format!("| {cell:<width$} ") };
            text += &padded;
        }
        text += "|\n";
        if index == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                text += &if is_number(column) { format!("|{dashes}:") } else { format!("|{dashes}-") };
            }
            text += "|\n";
        }
    }
    text
}

/// Three significant digits, and whole numbers from 100 on.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, median, table};

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(vec![5.0]), 5.0);
        assert_eq!(median(Vec::new()), 0.0);
    }

    #[test]
    fn table_lines_are_equally_long() {
        let rows = [
            Row::new("push", "short", "s", 1.0).beside("a peer", 4.0).verified(true),
            Row::new("push", "a longer piece of work", "s", 1234.0),
        ];
        let text = table(&rows);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths.len(), 4);
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{text}");
        assert!(text.contains("0.250") && text.contains("yes") && text.contains("NO"), "{text}");
    }

    #[test]
    fn no_ratio_to_nothing() {
        assert_eq!(Row::new("push", "w", "s", 1.0).beside("p", 0.0).ratio, None);
    }
}
