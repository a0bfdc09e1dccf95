//! The report as one page: no script, nothing from elsewhere, for a phone, a screen and paper, light and dark.

use std::fmt::Write;

use super::number::time;
use super::{Better, Report, Row, bytes, chart, figure};

/// Okabe and Ito's colours, for a light and a dark page: the light yellow and black that they also have do not show on one
/// of the two.
pub(super) const COLOURS: [(&str, &str); 6] = [
    ("#0072b2", "#4aa8e0"),
    ("#d55e00", "#f08a3c"),
    ("#009e73", "#2cc79c"),
    ("#b8578f", "#dd93bd"),
    ("#b07d00", "#e6b13c"),
    ("#3f8fc4", "#8ccbf2"),
];

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#5b6570;--line:#d9dee4;--card:#f7f8fa;--bad:#a32018}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--ink:#e6e9ec;--soft:#a2abb5;--line:#333a42;--card:#1b1f24;--bad:#ff9a8f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:76rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.2;margin:.3rem 0}h2{font-size:1.2rem;margin:2rem 0 .4rem}h3{font-size:1rem;line-height:1.35;margin:0 0 .5rem}h4{font-size:.85rem;color:var(--soft);margin:.9rem 0 .2rem}
p{margin:.3rem 0 .7rem;max-width:46rem}.soft,.note,caption{color:var(--soft)}.note{font-size:.85rem;margin:.4rem 0 0}
.cards{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));align-items:start}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;padding:.9rem;min-width:0;break-inside:avoid}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.85rem}th,td{padding:.25rem .5rem .25rem 0;border-top:1px solid var(--line);text-align:right;vertical-align:top}
th:first-child,td:first-child,td.words,th.words{text-align:left}td{white-space:nowrap}td.words{white-space:normal;min-width:5.5rem}thead th{border-top:0;font-weight:600;color:var(--soft)}small{font-weight:400;color:var(--soft);overflow-wrap:anywhere}tbody th{font-weight:600}
svg{display:block;width:100%;max-width:30rem;height:auto;margin:.2rem 0 .6rem}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}svg .tick{font-size:10.5px;fill:var(--soft)}svg .value{font-weight:600}
.grid{stroke:var(--line);stroke-width:1}.range{stroke:var(--ink);stroke-width:1.2;fill:none}
.failed{border-left:.3rem solid var(--bad);padding:.1rem .8rem;margin:.6rem 0}.failed b{color:var(--bad)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:.15em;margin-right:.35em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem;font-size:.9rem;margin:.5rem 0}dt{color:var(--soft)}dd{margin:0;min-width:0;overflow-wrap:anywhere}
@media print{:root{color-scheme:light;--page:#fff;--ink:#000;--soft:#444;--line:#bbb;--card:#fff;--bad:#800}
body{max-width:none;padding:0;font-size:10pt}.cards{grid-template-columns:1fr 1fr}.scroll{overflow:visible}h2{break-after:avoid}svg{print-color-adjust:exact;max-width:15rem}.card{padding:.6rem}.note,caption{font-size:7.5pt}table{font-size:7.5pt}td.words{min-width:0}}
";

/// The parts of the page: a heading, what it shows, and which rows belong to it.
const PARTS: [(&str, &str, &[&str]); 6] = [
    (
        "Writes",
        "Each write is on the disk before it counts, as far as the backend promises it. Engine rows go through the \
         store; raw rows give the backend the same records directly.",
        &["raw-write", "commit", "raw-rows", "raw-group", "group"],
    ),
    (
        "Import",
        "A whole history at once. The raw row writes the very batches that the engine writes.",
        &["raw-import", "import"],
    ),
    (
        "Size",
        "What the import leaves on the disk, and what was written on the way.",
        &["disk-size", "write-amplification"],
    ),
    (
        "Reads",
        "Of the imported history. Each value is compared outside the time that counts.",
        &["raw-get", "raw-scan", "object", "clone"],
    ),
    ("Mixed load", "Readers and writers at once.", &["raw-mixed", "mixed"]),
    ("Opening, and other costs", "", &[""]),
];

pub(super) fn page(report: &Report) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>govc: backends compared</title><style>",
    );
    page += STYLE;
    page += &colours();
    page += "</style></head><body><main>";
    head(&mut page, report);
    failures(&mut page, report);
    let labels = report.labels();
    let mut left: Vec<&str> = report.row_ids();
    for (title, about, prefixes) in PARTS {
        let (here, others): (Vec<&str>, Vec<&str>) =
            left.iter().partition(|id| prefixes.iter().any(|prefix| id.starts_with(prefix)));
        left = others;
        if here.is_empty() {
            continue;
        }
        let _ = write!(page, "<section><h2>{title}</h2><p class=\"soft\">{about}</p><div class=\"cards\">");
        here.iter().for_each(|id| card(&mut page, report, &labels, id));
        page += "</div></section>";
    }
    page + "</main></body></html>\n"
}

fn colours() -> String {
    let (mut light, mut dark) = (String::new(), String::new());
    for (at, (on_light, on_dark)) in COLOURS.iter().enumerate() {
        let _ = write!(light, "--c{at}:{on_light};");
        let _ = write!(dark, "--c{at}:{on_dark};");
    }
    let mut style = format!(":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}");
    for at in 0..COLOURS.len() {
        let _ = write!(
            style,
            ".s{at}{{fill:var(--c{at});background:var(--c{at})}}.l{at}{{stroke:var(--c{at});stroke-width:2;fill:none}}\
             .o{at}{{stroke:var(--c{at});stroke-width:2;fill:var(--card)}}"
        );
    }
    style
}

fn head(page: &mut String, report: &Report) {
    let plan = &report.plan;
    let _ = write!(
        page,
        "<h1>Backends compared</h1><p>Profile <b>{}</b>, seed {}, {}</p>",
        plan.profile,
        plan.seed,
        escape(&report.date)
    );
    if report.debug_build {
        *page += "<div class=\"failed\"><p><b>Built without optimisation:</b> the figures mean little.</p></div>";
    }
    let amounts = plan.amounts;
    *page += "<dl>";
    for (term, text) in [
        ("machine", report.machine.to_string()),
        (
            "history",
            format!(
                "{}, {} as it comes in, {} stored",
                plan.history,
                bytes(plan.history_bytes),
                bytes(plan.stored_bytes)
            ),
        ),
        ("time", format!("{} s a workload, {} repetitions", plan.seconds, amounts.repetitions)),
        ("inputs", plan.inputs.clone()),
        ("govc", report.version.clone()),
    ] {
        let _ = write!(page, "<dt>{term}</dt><dd>{}</dd>", escape(&text));
    }
    *page += "</dl><h2>Backends</h2><div class=\"scroll\"><table><thead><tr><th>backend</th><th class=\"words\">durability</th>\
              <th class=\"words\">file system</th><th>workloads failed</th></tr></thead><tbody>";
    for (at, (label, subject)) in report.labels().iter().zip(&report.subjects).enumerate() {
        let url =
            if *label == subject.name { String::new() } else { format!(" <small>{}</small>", escape(&subject.name)) };
        let _ = write!(
            page,
            "<tr><th><span class=\"key s{}\"></span>{}{url}</th><td class=\"words\">{}</td><td class=\"words\">{}</td><td>{}</td></tr>",
            at % COLOURS.len(),
            escape(label),
            subject.survival.in_words(),
            subject.file_system.as_deref().map_or_else(|| "–".to_owned(), escape),
            subject.failures.len()
        );
    }
    *page += "</tbody></table></div><p class=\"note\">Bars are medians, the thin line on them goes from the least to the most of \
              the repetitions. Latency plots are logarithmic: a dot at the median, a ring at 90 %, a diamond at 99 %, the \
              line ends at 99.9 %. A row is here only if its contents were compared and found right. Ratios count; absolute \
              figures belong to this machine.</p>";
}

fn failures(page: &mut String, report: &Report) {
    for subject in &report.subjects {
        for failure in &subject.failures {
            let end = if failure.ended { " Nothing was measured on it after that." } else { "" };
            let kind = if failure.wrong_contents { "wrong contents" } else { "failed" };
            let (name, workload, error) = (escape(&subject.name), escape(&failure.workload), escape(&failure.error));
            let _ = write!(page, "<div class=\"failed\"><p><b>{name}, {workload}: {kind}.</b> {error}.{end}</p></div>");
        }
    }
}

fn card(page: &mut String, report: &Report, labels: &[String], id: &str) {
    let named = labels.iter().zip(&report.subjects).enumerate();
    let rows: Vec<(usize, &str, &Row)> =
        named.filter_map(|(at, (label, subject))| Some((at, label.as_str(), subject.row(id)?))).collect();
    let Some((_, _, first)) = rows.first() else { return };
    let better = if first.better == Better::Lower { ", lower is better" } else { "" };
    let layer = first.layer.word();
    let (work, unit) = (escape(&first.work), escape(&first.unit));
    let _ = write!(page, "<article class=\"card\" id=\"{}\"><h3>{work}</h3>", escape(id));
    *page += &chart::bars(&first.work, &rows);
    let _ = write!(page, "<div class=\"scroll\"><table><caption>{unit}{better} · {layer} · {}</caption>", escape(id));
    *page += "<thead><tr><th>backend</th><th>median</th><th>least–most</th>";
    let beside = rows.iter().find_map(|(_, _, row)| row.baseline.as_ref());
    if beside.is_some() {
        *page += "<th>ratio</th>";
    }
    *page += "<th class=\"words\">durability</th></tr></thead><tbody>";
    for (_, label, row) in &rows {
        let range = format!("{}–<wbr>{}", figure(row.min), figure(row.max));
        let _ = write!(page, "<tr><th>{}</th><td>{}</td><td>{range}</td>", escape(label), figure(row.median));
        match &row.baseline {
            Some(beside) => *page += &format!("<td>×{}</td>", figure(beside.ratio)),
            None if beside.is_some() => *page += "<td>–</td>",
            None => {}
        }
        let _ = write!(page, "<td class=\"words\">{}</td></tr>", escape(&row.durability));
    }
    *page += "</tbody></table></div>";
    latencies(page, &first.work, &rows);
    let mut notes = Vec::new();
    notes.extend(beside.map(|beside| format!("ratio to {}", beside.row)));
    for (_, _, row) in &rows {
        notes.extend(row.note.clone().filter(|note| !notes.contains(note)));
    }
    notes.push(format!("verified: {}", first.verified));
    let _ = write!(page, "<p class=\"note\">{}</p></article>", escape(&notes.join("; ")));
}

/// How long single operations took, of the rows that were timed so.
fn latencies(page: &mut String, work: &str, rows: &[(usize, &str, &Row)]) {
    let timed: Vec<_> = rows.iter().filter_map(|(at, label, row)| Some((*at, *label, row.latency.as_ref()?))).collect();
    if timed.is_empty() {
        return;
    }
    *page += "<h4>Latency</h4>";
    *page += &chart::latencies(&format!("Latency: {work}"), &timed);
    *page += "<div class=\"scroll\"><table><thead><tr><th>backend</th><th>50 %</th><th>90 %</th><th>99 %</th><th>99.9 %</th>\
              </tr></thead><tbody>";
    for (_, name, it) in timed {
        let cells = [it.p50, it.p90, it.p99, it.p999].map(|at| format!("<td>{}</td>", time(at))).concat();
        let _ = write!(page, "<tr><th>{}</th>{cells}</tr>", escape(name));
    }
    *page += "</tbody></table></div>";
}

/// Text as it may stand in a page, also in an attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}
