//! What texts mean, as tables; wrong ones are in `errors`, what holds for all texts in `properties`.

mod errors;
mod properties;

use super::*;

/// 2026-05-31T10:00:00Z, a Sunday.
const NOW: i64 = 1_780_221_600;

/// Each text has this canonical form, and so has the form itself.
fn check_all(table: &[(&str, &str)]) {
    for (text, canonical) in table {
        let query = parse(text, NOW).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(query.to_string(), *canonical, "the canonical form of {text}");
        let again = parse(canonical, NOW).unwrap_or_else(|e| panic!("{canonical}: {e}"));
        assert_eq!(again.to_string(), *canonical, "canonical form, again");
    }
}

fn only_atom(text: &str) -> Atom {
    match parse(text, NOW).unwrap_or_else(|e| panic!("{text}: {e}")).expr {
        Expr::Atom(atom) => atom,
        expr => panic!("{text}: {expr:?}"),
    }
}

#[test]
fn operators_and_groups() {
    check_all(&[
        ("a b", "a b"),
        ("a AND b", "a b"),
        ("a b OR c d", "(a b) OR (c d)"),
        ("a or b", "a OR b"),
        ("a (b or c)", "a (b OR c)"),
        ("NOT a -b", "-a -b"),
        ("-(a b)", "-(a b)"),
        ("NOT(a OR b)", "-(a OR b)"),
        ("a AND(b OR c)", "a (b OR c)"),
        ("a AND NOT b", "a -b"),
        ("NOT NOT a", "a"),
        ("((a) ((b)))", "a b"),
        ("(a)(b)c", "a b c"),
        ("a a A", "a A"),
        ("a (a OR a)", "a"),
        ("a\t\nb\u{a0}c", "a b c"),
        ("-foo", "-foo"),
        ("and not", "and not"),
        ("ORDER ANDROID", "ORDER ANDROID"),
    ]);
}

#[test]
fn words_are_literal() {
    check_all(&[
        ("std::vec", r#""std::vec""#),
        ("Path::new", r#""Path::new""#),
        ("file::open", r#""file::open""#),
        ("https://x.y file://z", r#""https://x.y" "file://z""#),
        ("foo:bar a:b C:\\dir", r#""foo:bar" "a:b" "C:\\dir""#),
        ("title: fiel:", r#""title:" "fiel:""#),
        ("main() foo(bar) arr[0] x->y", r#""main()" "foo(bar)" "arr[0]" "x->y""#),
        ("foo( bar) f(a, b)", r#""foo(" "bar)" "f(a," "b)""#),
        ("(main() OR foo(bar))", r#""main()" OR "foo(bar)""#),
        ("(x f(y)) z", r#"x "f(y)" z"#),
        ("- -- --flag -> -= ->x", r#""-" "--" "--flag" "->" "-=" "->x""#),
        ("(a -)", r#"a "-""#),
        (r#""-flag""#, r#""-flag""#),
        ("/usr/local/bin /usr // //x/", r#""/usr/local/bin" "/usr" "//" "//x/""#),
        (r#"printf("hi")"#, r#""printf(\"hi\")""#),
        (r#""a \"b\" \\ \n""#, r#""a \"b\" \\ \\n""#),
        (r#""OR" "or" "AND" "NOT""#, r#""OR" "or" "AND" "NOT""#),
        ("a.b* ^x$ ü", r#""a.b*" "^x$" "ü""#),
        ("or(x)", r#""or(x)""#),
    ]);
}

#[test]
fn regexes() {
    check_all(&[
        (r"/foo.*bar/", r"/foo.*bar/"),
        (r"/a b/ c", r"/a b/ c"),
        (r"/a\/b\\/", r"/a\/b\\/"),
        (r"(/a/)", r"/a/"),
        (r"-/a/", r"-/a/"),
        (r"regex:a.*b", r"/a.*b/"),
        (r"regex:a/b", r"/a\/b/"),
        (r"content:/x+/ sym:/^y$/", r"content:/x+/ symbol:/^y$/"),
        (r"/[^a]\s\W*/", r"/[^a]\s\W*/"),
        (r"/a*/", r"/a*/"),
    ]);
    let Atom::Text(pattern) = only_atom(r"/a\/b/") else { panic!("not a text") };
    assert_eq!((pattern.text.as_str(), pattern.regex, pattern.span), ("a/b", true, 0..6));
}

#[test]
fn fields() {
    check_all(&[
        ("r:x repo:y", "repo:x repo:y"),
        ("f:x file:y path:z", "path:x path:y path:z"),
        ("c:x content:y", "content:x content:y"),
        ("l:Go lang:\"Emacs Lisp\" language:C++", r#"lang:Go lang:"Emacs Lisp" lang:"C++""#),
        ("sym:x symbol:\"y z\"", r#"symbol:x symbol:"y z""#),
        ("archived:no fork:yes", "archived:no fork:yes"),
        ("-repo:x -lang:go", "-repo:x -lang:go"),
        ("(lang:go)", "lang:go"),
        ("author:ann", "type:commit author:ann"),
        ("type:diff message:\"a b\"", r#"type:diff message:"a b""#),
        ("author:a OR b", "type:commit (author:a OR b)"),
        ("content:f(x)", r#"content:"f(x)""#),
    ]);
}

#[test]
fn paths_and_repositories() {
    check_all(&[
        (r"file:\.go$", r"path:/\.go$/"),
        (r"repo:^github", r"repo:/^github/"),
        ("file:(a|b)", "path:/(a|b)/"),
        ("path:src/.*x", r"path:/src\/.*x/"),
        ("path:src/**/*.rs", "path:src/**/*.rs"),
        ("path:/src/*.rs", "path:/src/*.rs"),
        ("path:a?[0-9] path:*.{js,ts}", "path:a?[0-9] path:*.{js,ts}"),
        ("path:src/main.rs path:/src/x", r#"path:src/main.rs path:"/src/x""#),
        (r#"path:"a*b$""#, r#"path:"a*b$""#),
        ("path:/a.b/", "path:/a.b/"),
        ("repo:go/*", r"repo:/^go\/[^\/]*$/"),
        ("repo:*-server", r"repo:/(?:^|\/)[^\/]*\-server$/"),
        ("repo:a.b", "repo:a.b"),
    ]);
    assert!(matches!(only_atom("path:*.rs"), Atom::Path(PathPattern::Glob { glob, .. }) if glob == "*.rs"));
}

#[test]
fn options() {
    check_all(&[
        ("type:symbol x", "type:symbol x"),
        ("t:filename x", "type:path x"),
        ("t:filematch x", "x"),
        ("t:repo x", "select:repo x"),
        ("x rev:v1 rev:\"HEAD~2\" rev:v1", r#"rev:v1 rev:"HEAD~2" x"#),
        ("b:main branch:release/* x", r#"branch:main branch:"release/*" x"#),
        ("count:all select:directory x", "select:directory count:all x"),
        ("count:10 count:10 x", "count:10 x"),
        ("type:commit (a OR b)", "type:commit (a OR b)"),
        ("type:commit", "type:commit"),
        ("type:commit AND a", "type:commit a"),
    ]);
}

#[test]
fn case_belongs_to_its_group() {
    check_all(&[
        ("case:yes foo", "case:yes foo"),
        ("foo case:no Bar", "case:no foo Bar"),
        ("case:auto foo", "foo"),
        ("case:no foo", "foo"),
        ("case:yes foo (case:no bar Baz)", "(case:yes foo) bar (case:no Baz)"),
        ("(foo case:yes) bar", "(case:yes foo) bar"),
        ("case:yes a OR b", "case:yes (a OR b)"),
        ("case:yes path:*.rs", "case:yes path:*.rs"),
        ("case:yes (x (y))", "case:yes x y"),
        ("case:auto", "case:auto"),
        ("-(case:yes)", "-(case:auto)"),
    ]);
}

#[test]
fn case_auto_looks_at_letters() {
    let table = [
        ("foo", false),
        ("Foo", true),
        ("Ü", true),
        (r"/foo\S\W\B/", false),
        (r"/\p{Lu}/", false),
        (r"/[A-Z]/", true),
        (r"/[aB]/", true),
        (r"/(?P<Name>x)/", false),
        (r"/fooB/", true),
    ];
    for (text, sensitive) in table {
        let Atom::Text(pattern) = only_atom(text) else { panic!("{text} is not a text") };
        assert_eq!(pattern.case_sensitive, sensitive, "{text}");
    }
}

#[test]
fn dates() {
    const DAY: i64 = 86_400;
    const TODAY: i64 = NOW - 10 * 3600;
    let table = [
        ("@12", 12),
        ("@-5", -5),
        ("1970-01-02", DAY),
        ("1970-01-01T00:00:10Z", 10),
        ("1970-01-01T01:00:00+01:00", 0),
        ("\"1970-01-01 00:00:07\"", 7),
        ("now", NOW),
        ("today", TODAY),
        ("yesterday", TODAY - DAY),
        ("2weeks", NOW - 14 * DAY),
        ("3.days.ago", NOW - 3 * DAY),
        ("\"2 Hours ago\"", NOW - 2 * 3600),
        ("90min", NOW - 5400),
        ("last.week", NOW - 7 * DAY),
        // From 31 May a month back is 30 April.
        ("1month", NOW - 31 * DAY),
        ("1y", NOW - 365 * DAY),
    ];
    for (text, seconds) in table {
        assert_eq!(only_atom(&format!("after:{text}")), Atom::After(seconds), "{text}");
        assert_eq!(only_atom(&format!("before:{text}")), Atom::Before(seconds), "{text}");
    }
}

#[test]
fn spans_cover_values() {
    let span = |text| match only_atom(text) {
        Atom::Text(p) | Atom::Repo(p) => p.span,
        Atom::Path(PathPattern::Glob { span, .. }) => span,
        atom => panic!("{atom:?}"),
    };
    assert_eq!(span("  foo "), 2..5);
    assert_eq!(span("r:ü"), 2..4);
    assert_eq!(span("(\"a b\")"), 1..6);
    assert_eq!(span("f:*.c"), 2..5);
}

#[test]
fn examples_of_the_document_parse() {
    let document = include_str!("../../QUERY.md");
    let mut examples = 0;
    for row in document.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default().replace("\\|", "|");
        for example in cell.split('`').skip(1).step_by(2) {
            parse(example, NOW).unwrap_or_else(|e| panic!("{example}: {e}"));
            examples += 1;
        }
    }
    assert!(examples > 40, "only {examples} examples were found");
}
