//! Two reports beside each other: changes are found, noise is not, and what cannot be compared is refused.

use govc_backend_bench::compare::Change;
use govc_backend_bench::{Comparison, ErrorKind, Profile, Report};

use crate::subjects::Memory;
use crate::{brief, measured};

/// Sets the figures of a row.
fn set(report: &mut Report, id: &str, median: f64, (min, max): (f64, f64)) {
    let row = report.subjects[0].rows.iter_mut().find(|row| row.id == id).expect("the row");
    (row.median, row.min, row.max) = (median, min, max);
}

fn change(before: &Report, after: &Report, id: &str) -> Change {
    let comparison = Comparison::of(before, after).expect("comparable");
    comparison.rows.iter().find(|row| row.id == id).expect("the row").change
}

#[test]
fn a_change_beyond_the_spread_is_found_and_noise_is_not() {
    let before = measured(&brief(Profile::Agents, 1), vec![Box::new(Memory)]);
    let mut before = before;
    // More is better, then less is.
    set(&mut before, "raw-get-id", 100.0, (95.0, 105.0));
    set(&mut before, "open", 100.0, (95.0, 105.0));
    for (median, spread, rate, time) in [
        (150.0, 5.0, Change::Better, Change::Worse),
        (60.0, 5.0, Change::Worse, Change::Better),
        (108.0, 5.0, Change::Same, Change::Same),
        // Far off, but so are its own repetitions from each other.
        (150.0, 40.0, Change::Same, Change::Same),
    ] {
        let mut after = before.clone();
        set(&mut after, "raw-get-id", median, (median - spread, median + spread));
        set(&mut after, "open", median, (median - spread, median + spread));
        assert_eq!(change(&before, &after, "raw-get-id"), rate, "{median} ± {spread}");
        assert_eq!(change(&before, &after, "open"), time, "{median} ± {spread}");
        let comparison = Comparison::of(&before, &after).expect("comparable");
        let marked = comparison.rows.iter().filter(|row| row.change != Change::Same).count();
        assert_eq!(marked, if rate == Change::Same { 0 } else { 2 });
        let table = comparison.table();
        assert_eq!(table.contains("WORSE"), marked > 0, "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    }
}

#[test]
fn what_only_one_has_is_told() {
    let before = measured(&brief(Profile::Agents, 1), vec![Box::new(Memory)]);
    let mut after = before.clone();
    after.subjects[0].rows.retain(|row| row.id != "clone");
    let comparison = Comparison::of(&before, &after).expect("comparable");
    assert_eq!(comparison.missing, ["memory, clone is in the first report only"]);
    let comparison = Comparison::of(&after, &before).expect("comparable");
    assert_eq!(comparison.missing, ["memory, clone is in the second report only"]);
    "other".clone_into(&mut after.subjects[0].name);
    after.machine.cores += 1;
    let comparison = Comparison::of(&before, &after).expect("comparable");
    assert_eq!(comparison.missing.len(), 2, "{:?}", comparison.missing);
    assert!(comparison.rows.is_empty() && comparison.differences.len() == 1, "{:?}", comparison.differences);
}

#[test]
fn other_plans_are_refused() {
    let before = measured(&brief(Profile::Agents, 1), vec![Box::new(Memory)]);
    type Alter = fn(&mut Report);
    let alter: [(&str, Alter); 5] = [
        ("format", |report| report.format += 1),
        ("profile", |report| report.plan.profile = Profile::Ci),
        ("seed", |report| report.plan.seed += 1),
        ("seconds", |report| report.plan.seconds += 1),
        ("history", |report| report.plan.history.push('x')),
    ];
    for (what, alter) in alter {
        let mut after = before.clone();
        alter(&mut after);
        let error = Comparison::of(&before, &after).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Incomparable);
        assert!(error.to_string().contains(what), "{error}");
    }
}
