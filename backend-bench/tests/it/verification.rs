//! What a backend does wrong is found, told, and gives no figure.

use govc_backend_bench::Profile;

use crate::subjects::{Defect, Faulty, Memory};
use crate::{ROWS, assert_has, brief, measured};

/// The workloads that a defect spoils, at least; the rows that must then not be there; the others are measured all the same.
fn check(defect: Defect, workloads: &[&str], rows: &[&str]) {
    let report = measured(&brief(Profile::Agents, 3), vec![Box::new(Faulty::new("faulty", defect)), Box::new(Memory)]);
    let found = &report.subjects[0];
    for workload in workloads {
        let failure = found.failures.iter().find(|failure| failure.workload == *workload);
        let failure = failure.unwrap_or_else(|| panic!("{defect:?}: {workload} did not fail: {:?}", found.failures));
        assert!(failure.wrong_contents && !failure.ended, "{defect:?}: {failure:?}");
    }
    for row in rows {
        assert!(found.row(row).is_none(), "{defect:?}: {row} is there");
    }
    assert!(report.html().contains("wrong contents") && report.table().contains("FAILED"));
    assert_has(&report, "memory", &ROWS[..28]);
}

#[test]
fn a_lost_value_is_found() {
    check(Defect::Loses, &["writes"], &["raw-write-alone", "raw-write-together"]);
}

#[test]
fn an_altered_value_is_found() {
    check(Defect::Alters, &["writes"], &["raw-write-alone", "raw-write-together"]);
}

#[test]
fn a_value_that_is_read_wrongly_is_found() {
    check(Defect::ReadsWrong, &["reads", "objects", "mixed"], &["raw-get-block", "object-past-memory", "raw-mixed"]);
}

#[test]
fn a_value_that_is_not_there_and_read_is_found() {
    check(Defect::FindsAbsent, &["reads"], &["raw-get-absent"]);
}

#[test]
fn an_entry_that_nobody_wrote_is_found() {
    check(Defect::Adds, &["writes"], &["raw-write-alone", "raw-write-together"]);
}

#[test]
fn a_backend_that_forgets_is_found_in_every_workload() {
    let all = ["writes", "commits", "groups", "import", "reads", "objects", "mixed", "opening"];
    check(Defect::Forgets, &all, &ROWS[..28]);
}
