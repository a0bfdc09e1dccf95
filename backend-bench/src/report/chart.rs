//! Plots as SVG: bars of medians with the range of the repetitions, and latency percentiles on a logarithmic scale.
//!
//! Every mark has its value beside it in the table that follows, and its subject's name above it, so colour says nothing
//! that words do not. The colours are Okabe and Ito's, which people with any kind of colour blindness tell apart.

use std::fmt::Write;

use super::html::escape;
use super::number::time;
use super::{Latency, Row, figure};

const WIDTH: f64 = 360.0;
const LEFT: f64 = 2.0;
/// Of a bar, with the name above it.
const PITCH: f64 = 34.0;
const BAR: f64 = 12.0;

/// One bar for each subject: position among all subjects, name, figure.
pub(super) fn bars(title: &str, rows: &[(usize, &str, &Row)]) -> String {
    let most = rows.iter().map(|(_, _, row)| row.max).fold(0.0, f64::max);
    let scale = if most > 0.0 { (WIDTH - LEFT - 6.0) / most } else { 0.0 };
    let words = rows.iter().map(|(_, name, row)| format!("{name} {} {}", figure(row.median), row.unit));
    let mut svg = open(title, &words.collect::<Vec<_>>().join(", "), rows.len() as f64 * PITCH + 4.0);
    for (at, (subject, name, row)) in rows.iter().enumerate() {
        let top = at as f64 * PITCH;
        label(&mut svg, top, name, &format!("{} {}", figure(row.median), row.unit));
        let (y, middle) = (top + 17.0, top + 17.0 + BAR / 2.0);
        let width = (row.median * scale).max(1.0);
        let _ = write!(
            svg,
            "<rect class=\"s{}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>",
            colour(*subject)
        );
        let (from, to) = (LEFT + row.min * scale, LEFT + row.max * scale);
        if to - from >= 1.0 {
            let (low, high) = (middle - 3.5, middle + 3.5);
            let _ = write!(
                svg,
                "<path class=\"range\" d=\"M{from:.1} {low:.1}V{high:.1}M{from:.1} {middle:.1}H{to:.1}M{to:.1} {low:.1}V{high:.1}\"/>"
            );
        }
    }
    svg + "</svg>"
}

/// For each subject a line from the median to the 99.9th percentile, with marks at the percentiles between.
pub(super) fn latencies(title: &str, rows: &[(usize, &str, &Latency)]) -> String {
    let least = rows.iter().map(|(_, _, it)| it.p50).fold(f64::INFINITY, f64::min).max(0.001);
    let most = rows.iter().map(|(_, _, it)| it.p999).fold(0.0, f64::max).max(least * 1.01);
    // Whole decades, so that two plots of one range look alike.
    let (first, last) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
    let right = WIDTH - 10.0;
    let x = |micros: f64| 8.0 + (micros.max(0.001).log10() - first) / (last - first) * (right - 8.0);
    let words =
        rows.iter().map(|(_, name, it)| format!("{name} half within {}, 99 % within {}", time(it.p50), time(it.p99)));
    let bottom = rows.len() as f64 * PITCH + 4.0;
    let mut svg = open(title, &words.collect::<Vec<_>>().join("; "), bottom + 18.0);
    let step = if last - first > 5.0 { 2 } else { 1 };
    for decade in (first as i32..=last as i32).step_by(step) {
        let at = x(10_f64.powi(decade));
        let anchor = if decade == first as i32 {
            "start"
        } else if decade == last as i32 {
            "end"
        } else {
            "middle"
        };
        let shift = if anchor == "start" {
            -6.0
        } else if anchor == "end" {
            8.0
        } else {
            0.0
        };
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} 0V{bottom:.1}\"/><text class=\"tick\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at + shift,
            bottom + 13.0,
            tick(decade)
        );
    }
    for (at, (subject, name, it)) in rows.iter().enumerate() {
        let top = at as f64 * PITCH;
        label(&mut svg, top, name, "");
        let (y, colour) = (top + 23.0, colour(*subject));
        let [p50, p90, p99, p999] = [it.p50, it.p90, it.p99, it.p999].map(x);
        let _ = write!(
            svg,
            "<path class=\"l{colour}\" d=\"M{p50:.1} {y:.1}H{p999:.1}\"/>\
             <circle class=\"s{colour}\" cx=\"{p50:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <circle class=\"o{colour}\" cx=\"{p90:.1}\" cy=\"{y:.1}\" r=\"4\"/>\
             <path class=\"o{colour}\" d=\"M{p99:.1} {:.1}l4.5 4.5l-4.5 4.5l-4.5 -4.5z\"/>\
             <path class=\"l{colour}\" d=\"M{p999:.1} {:.1}V{:.1}\"/>",
            y - 4.5,
            y - 5.0,
            y + 5.0
        );
    }
    svg + "</svg>"
}

fn tick(decade: i32) -> String {
    let (value, unit) = match decade {
        ..0 => (10_f64.powi(decade + 3), "ns"),
        0..3 => (10_f64.powi(decade), "µs"),
        3..6 => (10_f64.powi(decade - 3), "ms"),
        6.. => (10_f64.powi(decade - 6), "s"),
    };
    format!("{value} {unit}")
}

/// Subjects beyond the colours begin again; their names still tell them apart.
fn colour(subject: usize) -> usize {
    subject % super::html::COLOURS.len()
}

fn open(title: &str, words: &str, height: f64) -> String {
    let (title, words) = (escape(title), escape(words));
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}: {words}\"><title>{title}: {words}</title>"
    )
}

fn label(svg: &mut String, top: f64, name: &str, value: &str) {
    let y = top + 12.0;
    let _ = write!(svg, "<text x=\"{LEFT}\" y=\"{y:.1}\">{}</text>", escape(name));
    if !value.is_empty() {
        let _ = write!(
            svg,
            "<text class=\"value\" text-anchor=\"end\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            WIDTH - 4.0,
            escape(value)
        );
    }
}
