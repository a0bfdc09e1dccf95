//! The benchmark from outside: brief runs, whose figures nobody looks at.

mod compare;
mod history;
mod page;
mod subjects;
mod verification;

use govc_backend_bench::{Amounts, ErrorKind, Plan, Profile, Report, Silent, Subject, run};
use subjects::{Defect, Faulty, Memory};

/// A plan that ends by its amounts, so that equal seeds do equal work.
fn brief(profile: Profile, seed: u64) -> Plan {
    Plan { seed, seconds: 600, amounts: Amounts::brief(), ..Plan::new(profile) }
}

fn measured(plan: &Plan, mut subjects: Vec<Box<dyn Subject>>) -> Report {
    run(plan, &mut subjects, &mut Silent).expect("a run")
}

/// What every backend gives.
const ROWS: [&str; 30] = [
    "raw-write-alone",
    "raw-write-together",
    "commit-alone",
    "commit-together",
    "raw-rows-64",
    "raw-group-64",
    "group-64",
    "raw-rows-512",
    "raw-group-512",
    "group-512",
    "raw-import",
    "import-storage",
    "import",
    "raw-get-id",
    "raw-get-block",
    "raw-get-absent",
    "raw-get-many",
    "raw-scan-blocks",
    "raw-scan-ids",
    "object-hot",
    "object-absent",
    "object-past-memory",
    "clone",
    "raw-mixed",
    "raw-mixed-writes",
    "mixed",
    "mixed-writes",
    "open",
    "wrapper-get",
    "wrapper-write",
];

/// What a backend with a folder gives as well.
#[cfg(feature = "rocksdb")]
const ROWS_ON_DISK: [&str; 3] = ["raw-get-block-cold", "disk-size", "raw-open"];

fn assert_has(report: &Report, subject: &str, ids: &[&str]) {
    let found = report.subjects.iter().find(|found| found.name == subject).expect("the subject");
    assert!(found.failures.is_empty(), "{:?}", found.failures);
    for id in ids {
        let row = found.row(id).unwrap_or_else(|| panic!("{subject} has no row {id}"));
        assert!(row.median > 0.0 && row.min <= row.median && row.median <= row.max, "{row:?}");
        assert!(row.operations > 0, "{row:?}");
        assert!(!row.verified.is_empty() && row.contents.len() == 16 && !row.durability.is_empty(), "{row:?}");
        assert!(row.contents != "0000000000000000", "nothing was compared: {row:?}");
    }
}

#[test]
fn every_profile_gives_every_row() {
    for profile in Profile::ALL {
        let plan = Plan { wrapper: Some(subjects::wrapper()), ..brief(profile, 1) };
        let report = measured(&plan, vec![Box::new(Memory)]);
        assert_has(&report, "memory", &ROWS);
        assert!(report.is_complete());
    }
}

#[test]
fn one_workload_alone_is_run() {
    let plan = Plan { only: vec!["groups".to_owned()], ..brief(Profile::Ci, 1) };
    let report = measured(&plan, vec![Box::new(Memory)]);
    let ids: Vec<&str> = report.subjects[0].rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ROWS[4..10]);
    let plan = Plan { only: vec!["grups".to_owned()], ..plan };
    let error = run(&plan, &mut [Box::new(Memory) as Box<dyn Subject>], &mut Silent).expect_err("no such workload");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("\"grups\"; there are writes, commits, groups"), "{error}");
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocksdb_gives_every_row_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = Plan { wrapper: Some(subjects::wrapper()), ..brief(Profile::Agents, 1) };
    let rocks = subjects::Rocks::new(folder.path());
    let report = measured(&plan, vec![Box::new(Memory), Box::new(rocks)]);
    assert_has(&report, "memory", &ROWS);
    assert_has(&report, "rocksdb", &ROWS);
    assert_has(&report, "rocksdb", &ROWS_ON_DISK);
    // Both did the same work, to the bit.
    let [memory, rocks] = &report.subjects[..] else { panic!("two subjects") };
    for row in &memory.rows {
        assert_eq!(rocks.row(&row.id).map(|row| &row.contents), Some(&row.contents), "{}", row.id);
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
}

#[test]
fn equal_seeds_do_equal_work_and_others_do_other_work() {
    let contents = |seed| {
        let report = measured(&brief(Profile::Monorepo, seed), vec![Box::new(Memory)]);
        let rows = &report.subjects[0].rows;
        let rows: Vec<_> = rows.iter().map(|row| (row.id.clone(), row.contents.clone(), row.operations)).collect();
        (report.plan.inputs, rows)
    };
    let (first, again, other) = (contents(7), contents(7), contents(8));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    for (one, two) in first.1.iter().zip(&other.1) {
        assert!(one.0 == two.0 && one.1 != two.1, "{} has the same contents for two seeds", one.0);
    }
}

#[test]
fn a_failing_backend_is_told_and_the_others_are_measured() {
    let faulty = |defect| Box::new(Faulty::new("faulty", defect)) as Box<dyn Subject>;
    for (defect, words) in [(Defect::Full, "no room"), (Defect::Fails, "the disk is gone")] {
        let report = measured(&brief(Profile::Agents, 1), vec![faulty(defect), Box::new(Memory)]);
        let found = &report.subjects[0];
        let [failure] = &found.failures[..] else { panic!("one failure: {:?}", found.failures) };
        assert!(failure.error.contains(words) && failure.ended && !failure.wrong_contents, "{failure:?}");
        assert!(found.rows.iter().all(|row| row.id.starts_with("raw-write")), "{:?}", found.rows);
        assert_has(&report, "memory", &ROWS[..28]);
        assert!(report.table().contains(words) && report.html().contains(words));
    }
}

#[test]
fn a_run_that_is_stopped_clears_its_subjects() {
    let plan = brief(Profile::Agents, 1);
    let (subject, cleared) = subjects::Stopping::new(plan.stop.clone());
    let error = run(&plan, &mut [Box::new(subject)], &mut Silent).expect_err("it was stopped");
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(cleared.load(std::sync::atomic::Ordering::SeqCst));
}

#[test]
fn a_plan_that_cannot_be_carried_out_is_refused() {
    let refused = |plan: &Plan, mut subjects: Vec<Box<dyn Subject>>| {
        let error = run(plan, &mut subjects, &mut Silent).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    };
    let plan = brief(Profile::Agents, 1);
    refused(&plan, Vec::new());
    refused(&plan, vec![Box::new(Memory), Box::new(Memory)]);
    refused(&Plan { seconds: 0, ..plan.clone() }, vec![Box::new(Memory)]);
    refused(&Plan { history: Some("/nowhere/at/all".into()), ..plan }, vec![Box::new(Memory)]);
}
