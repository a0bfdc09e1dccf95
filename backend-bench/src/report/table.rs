//! The figures as text for a terminal of 100 columns.

use super::{Better, Report, Row, bytes, figure};
use crate::report::number::time;

const WIDTH: usize = 100;

/// One line for each subject under each piece of work, columns aligned.
pub(super) fn of(report: &Report) -> String {
    let mut text = String::new();
    for line in heading(report) {
        wrap(&mut text, &line);
    }
    let labels = report.labels();
    let names = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).min(20);
    for id in report.row_ids() {
        let rows: Vec<(&String, &Row)> = labels
            .iter()
            .zip(&report.subjects)
            .filter_map(|(label, subject)| Some((label, subject.row(id)?)))
            .collect();
        let Some((_, first)) = rows.first() else { continue };
        text.push('\n');
        wrap(&mut text, &format!("{}: {} ({}{})", first.layer.word(), first.work, first.unit, better(first)));
        for (label, row) in rows {
            text += &line(label, names, row);
        }
    }
    for subject in &report.subjects {
        for failure in &subject.failures {
            text.push('\n');
            let end = if failure.ended { "; nothing was measured after it" } else { "" };
            wrap(&mut text, &format!("FAILED  {}, {}: {}{end}", subject.name, failure.workload, failure.error));
        }
    }
    text
}

fn heading(report: &Report) -> Vec<String> {
    let plan = &report.plan;
    let mut lines = vec![
        format!(
            "Backends, profile {}, {} s a workload, seed {}, {}",
            plan.profile, plan.seconds, plan.seed, report.date
        ),
        report.machine.to_string(),
        format!(
            "History: {}, {} as it comes in, {} stored",
            plan.history,
            bytes(plan.history_bytes),
            bytes(plan.stored_bytes)
        ),
    ];
    if report.debug_build {
        lines.push("Built without optimisation: the figures mean little.".to_owned());
    }
    for (label, subject) in report.labels().iter().zip(&report.subjects) {
        let is = if *label == subject.name { String::new() } else { format!(" is {}", subject.name) };
        let on = subject.file_system.as_ref().map_or_else(String::new, |kind| format!(", on {kind}"));
        lines.push(format!("{label}{is}: {}{on}", subject.survival.in_words()));
    }
    lines.push(
        "Figures are medians (least to most of the repetitions); ratios are to the row named in the report.".into(),
    );
    lines
}

fn better(row: &Row) -> &'static str {
    match row.better {
        Better::Higher => "",
        Better::Lower => ", lower is better",
    }
}

fn line(name: &str, names: usize, row: &Row) -> String {
    let name: String = name.chars().take(names).collect();
    let range = format!("({}–{})", figure(row.min), figure(row.max));
    let ratio = row.baseline.as_ref().map_or_else(String::new, |beside| format!("×{}", figure(beside.ratio)));
    let latency = row.latency.as_ref();
    let latency = latency.map_or_else(String::new, |it| format!("p50 {:>8} p99 {:>8}", time(it.p50), time(it.p99)));
    let line = format!("  {name:names$} {:>11} {range:<21} {ratio:<7} {latency:<25}", figure(row.median));
    let durability: String = row.durability.chars().take(WIDTH.saturating_sub(line.chars().count() + 1)).collect();
    format!("{line} {durability}").trim_end().to_owned() + "\n"
}

/// Adds a paragraph, broken at spaces.
pub(crate) fn wrap(text: &mut String, paragraph: &str) {
    let mut length = 0;
    for word in paragraph.split_whitespace() {
        let more = word.chars().count();
        if length > 0 && length + 1 + more > WIDTH {
            text.push_str("\n  ");
            length = 2;
        } else if length > 0 {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += more;
    }
    text.push('\n');
}
