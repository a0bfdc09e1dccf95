//! Contents made to hurt: they may be skipped, but end soon and harm nothing.
//!
//! A crash of native code would end the whole test process, so that these tests pass says that there was none. They
//! run on threads with a small stack, as a server's worker may.

use std::thread;
use std::time::{Duration, Instant};

use super::{LANGUAGES, find};
use crate::language::Language;
use crate::symbols::grammar::Grammar;
use crate::symbols::{Limits, Skipped, extract, symbols};

/// Far more than the limit of 500 ms, for machines that do other things too.
const PATIENCE: Duration = Duration::from_secs(20);

fn survives(what: &str, content: &[u8]) {
    survives_in(&LANGUAGES, what, content);
}

fn survives_in(languages: &[&str], what: &str, content: &[u8]) {
    thread::scope(|scope| {
        let work = || {
            for language in languages {
                let start = Instant::now();
                let found = find(language, content).map(|found| found.len());
                assert!(start.elapsed() < PATIENCE, "{what} in {language} took {:?}: {found:?}", start.elapsed());
            }
        };
        let small = thread::Builder::new().stack_size(256 << 10);
        small.spawn_scoped(scope, work).expect("a thread").join().expect("no panic");
    });
}

#[test]
fn endless_nesting() {
    for open in ["(", "<", "!", "a?", "if(a){", "else if(a)", "x=>", "f(", "`${", "\"#{", "<div>", "/*"] {
        survives(open, open.repeat(100_000).as_bytes());
    }
    survives("balanced", format!("x = {}1{}", "(".repeat(100_000), ")".repeat(100_000)).as_bytes());
    // Below the limit of open brackets, so that the parsers see it.
    survives("4 999", format!("x = {}1{}", "(".repeat(4_999), ")".repeat(4_999)).as_bytes());
}

/// Overflows a stack of 2 MiB in C's parser, where two readings of the same tokens meet. The limit of open brackets
/// keeps this text from the parser, others like it may not be.
#[test]
fn recursion_of_the_parser_fits_its_stack() {
    let content = "%w[".repeat(100_000);
    assert_eq!(find("C", content.as_bytes()), Err(Skipped::Hazardous));
    let c = Grammar::of(Language::from_name("C").expect("C")).expect("a grammar");
    let found = extract::definitions(c.compiled().expect("a query"), content.as_bytes(), &Limits::default());
    assert!(matches!(found, Ok(_) | Err(Skipped::TooSlow)));
}

/// 50 000 of these take 24 GB, in one step of the parser.
#[test]
fn readings_that_multiply_are_told() {
    for language in ["C#", "Java"] {
        let nested = |depth: usize| format!("<?php int f() {{ return {}", "a</*;>*/".repeat(depth));
        assert!(find(language, nested(500).as_bytes()).is_ok());
        assert_eq!(find(language, nested(5_001).as_bytes()), Err(Skipped::Hazardous));
    }
}

#[test]
fn brackets_beyond_the_limit_are_told() {
    let nested = |depth: usize| format!("int x = {}1{};", "(".repeat(depth), ")".repeat(depth));
    assert!(find("C", nested(300).as_bytes()).is_ok());
    assert_eq!(find("C", nested(5_001).as_bytes()), Err(Skipped::Hazardous));
}

#[test]
fn huge_lines_and_no_text() {
    survives("letters", &b"a".repeat(1 << 20));
    survives("blanks", &b" ".repeat(1 << 20));
    survives("nul", &[0; 1 << 16]);
    survives("not UTF-8", &b"\xff\xc3(\xed\xa0\x80 def f class \x00 {".repeat(4_000));
    survives("one line", format!("x = [{}];", "1,".repeat(400_000)).as_bytes());
    survives("quotes", &b"\"'`".repeat(50_000));
    survives("empty", b"");
}

#[test]
fn truncated_samples() {
    let samples: [(&str, &[u8]); 5] = [
        ("Ruby", include_bytes!("fixtures/sample.rb")),
        ("Python", include_bytes!("fixtures/sample.py")),
        ("PHP", include_bytes!("fixtures/sample.php")),
        ("C++", include_bytes!("fixtures/sample.cpp")),
        ("TypeScript", include_bytes!("fixtures/sample.ts")),
    ];
    for (language, sample) in samples {
        for end in 0..sample.len() {
            assert!(find(language, &sample[..end]).is_ok(), "{language} up to {end}");
        }
    }
}

/// Python's scanner writes behind its buffer at 511 indentations and an odd number of open strings.
#[test]
fn python_indentation_that_overflows_its_scanner() {
    let nested: String = (0..511).map(|level| format!("{}if x:\n", " ".repeat(level))).collect();
    let indent = " ".repeat(511);
    for inner in ["f'{x", "x", "'''", "f'{f'{"] {
        assert_eq!(find("Python", format!("{nested}{indent}{inner}").as_bytes()), Err(Skipped::Hazardous));
    }
    let continued: String = (0..511).map(|level| format!("{}if x:\n", " \\\n".repeat(level))).collect();
    assert_eq!(find("Python", continued.as_bytes()), Err(Skipped::Hazardous));
    let usual: String = (0..90).map(|level| format!("{}if x:\n", "\t".repeat(level / 3))).collect();
    assert!(find("Python", usual.as_bytes()).is_ok());
}

/// Ruby's scanner cuts a word's length to a byte, and writes behind its buffer when the words fill it just so.
#[test]
fn ruby_heredocs_that_overflow_its_scanner() {
    for length in [256, 257, 300, 1_000, 70_000] {
        let word = "A".repeat(length);
        assert_eq!(find("Ruby", format!("x = <<{word}\nfoo\n{word}\n").as_bytes()), Err(Skipped::Hazardous));
        assert_eq!(find("Ruby", format!("x = <<~'{word}'\nfoo\n").as_bytes()), Err(Skipped::Hazardous));
    }
    let many = "<<AB, ".repeat(200);
    assert_eq!(find("Ruby", format!("f({many})\n").as_bytes()), Err(Skipped::Hazardous));
    let usual = "def a\n  puts <<~TEXT\n    #{x}\n  TEXT\nend\n".repeat(20);
    assert_eq!(find("Ruby", usual.as_bytes()).map(|found| found.len()), Ok(20));
}

#[test]
fn limits_hold() {
    let c = Language::from_name("C").expect("C");
    let content = "int a;\n".repeat(10);
    let limited = |limits: Limits| symbols(c, content.as_bytes(), &limits).map(|found| found.len());
    assert_eq!(limited(Limits::default()), Ok(10));
    assert_eq!(limited(Limits { symbols_max: 9, ..Limits::default() }), Err(Skipped::TooMany));
    assert_eq!(limited(Limits { symbols_max: 10, ..Limits::default() }), Ok(10));
    assert_eq!(limited(Limits { content_bytes_max: 69, ..Limits::default() }), Err(Skipped::TooLarge));
    let long = "int a = 1 + 2;\n".repeat(50_000);
    let quick = Limits { time_max: Duration::from_millis(2), ..Limits::default() };
    let start = Instant::now();
    assert_eq!(symbols(c, long.as_bytes(), &quick), Err(Skipped::TooSlow));
    assert!(start.elapsed() < Duration::from_secs(2));
    let text = Language::from_name("Markdown").expect("Markdown");
    assert_eq!(symbols(text, b"# A", &Limits::default()), Err(Skipped::Unsupported));
}
