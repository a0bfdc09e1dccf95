//! The report's forms: JSON that is read as it was written, a page that has all of it, a table that fits.

use govc_backend_bench::report::{FORMAT, Failure};
use govc_backend_bench::{ErrorKind, Profile, Report};

use crate::subjects::Memory;
use crate::{ROWS, brief, measured};

fn report() -> Report {
    measured(&brief(Profile::Ci, 1), vec![Box::new(Memory)])
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = report();
    let inner = folder.path().join("made/for/it");
    report.write(&inner).expect("write");
    // Again, over what is there.
    report.write(&inner).expect("write again");
    assert_eq!(Report::read(&inner).expect("read the folder"), report);
    assert_eq!(Report::read(&inner.join(Report::JSON)).expect("read the file"), report);
    assert_eq!(std::fs::read_to_string(inner.join(Report::HTML)).expect("the page"), report.html());
    assert_eq!(std::fs::read_dir(&inner).expect("list").count(), 2, "no other file stays");
}

#[test]
fn another_format_is_refused_and_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let newer = format!("{{\"format\": {}, \"all\": \"else\"}}", FORMAT + 1);
    for (text, words) in [(newer.as_str(), "this program knows"), ("{}", "format"), ("nonsense", "no report")] {
        std::fs::write(folder.path().join(Report::JSON), text).expect("write");
        let error = Report::read(folder.path()).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_page_has_every_row_and_asks_for_nothing() {
    let page = report().html();
    for id in &ROWS[..28] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for forbidden in ["http:", "https:", "<script", "<link", "url(", "@import", "src="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    // Every plot has its text, and a table after it.
    let cards = page.split("<article").skip(1);
    for card in cards {
        assert!(card.contains("aria-label=") && card.contains("<table>"), "{card}");
    }
}

#[test]
fn names_and_errors_are_escaped() {
    let mut report = report();
    let evil = "<script>alert('\"&\")</script>";
    evil.clone_into(&mut report.subjects[0].name);
    evil.clone_into(&mut report.plan.history);
    evil.clone_into(&mut report.machine.processor);
    report.subjects[0].rows[0].note = Some(evil.to_owned());
    report.subjects[0].rows[0].work = evil.to_owned();
    report.subjects[0].failures.push(Failure {
        workload: evil.to_owned(),
        error: evil.to_owned(),
        wrong_contents: false,
        ended: true,
    });
    let page = report.html();
    assert!(!page.contains("<script") && !page.contains("alert('"), "not escaped");
    assert!(page.contains("&lt;script&gt;alert(&#39;&quot;&amp;&quot;)&lt;/script&gt;"));
}

#[test]
fn urls_are_named_by_their_scheme() {
    let mut report = report();
    let mut other = report.subjects[0].clone();
    "postgres://somebody@a.host:6543/a_database".clone_into(&mut report.subjects[0].name);
    "postgres://somebody@a.host:6543/another".clone_into(&mut other.name);
    let alone = report.table();
    assert!(alone.contains("postgres is postgres://somebody@a.host:6543/a_database"), "{alone}");
    assert!(alone.contains("\n  postgres  "), "{alone}");
    report.subjects.push(other);
    let both = report.table();
    assert!(both.contains("\n  postgres 1  ") && both.contains("\n  postgres 2  "), "{both}");
    let page = report.html();
    assert!(
        page.contains("<th>postgres 2</th>") && page.contains("<small>postgres://somebody@a.host:6543/another</small>")
    );
}

#[test]
fn the_table_fits_a_terminal() {
    let mut report = report();
    report.subjects[0].failures.push(Failure {
        workload: "reads".to_owned(),
        error: "a rather long message ".repeat(20),
        wrong_contents: false,
        ended: false,
    });
    "a backend with quite a long name, longer than most".clone_into(&mut report.subjects[0].name);
    let table = report.table();
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
    }
    assert!(report.subjects[0].rows.iter().all(|row| table.contains(&row.work[..10])), "{table}");
}
