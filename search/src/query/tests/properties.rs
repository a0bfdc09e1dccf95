//! What holds for all texts and all queries.

use proptest::prelude::*;

use super::super::*;
use super::NOW;

/// Texts that are likely to get far into the parser.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "(",
            ")",
            " ",
            " ",
            " ",
            "-",
            "\"",
            "/",
            "\\",
            "OR",
            "AND",
            "NOT",
            "or",
            "a",
            "Foo",
            "ü",
            "*",
            "[",
            "]",
            "{",
            "}",
            ",",
            "?",
            "^",
            "$",
            ".*",
            "+",
            "|",
            ":",
            "repo:",
            "path:",
            "c:",
            "sym:",
            "lang:",
            "case:yes",
            "case:no",
            "type:commit",
            "author:",
            "before:",
            "after:",
            "2weeks",
            "@1",
            "rev:",
            "branch:",
            "count:all",
            "regex:",
            "\\n",
            "\\S",
            "\n",
            "\t",
            "1-1",
            "lnag:",
            "--",
            "->",
            "foo(",
            "bar)",
            "\\/",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..25).prop_map(|pieces| pieces.concat())
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let literal = prop_oneof![
        "[a-zA-Z0-9_./:\"\\\\() ü*^$-]{1,8}",
        prop::sample::select(vec!["OR", "or", "NOT", "-x", "/x/", "repo:x", "(", ")"]).prop_map(str::to_owned),
    ];
    let sources = vec!["a", "A", "a/b", r"\S+x", "[^/]", r"a\\", r"^a$", r"(x|Y) z", r"\\\\/", "\"", r"\)", "((("];
    let regex = prop::sample::select(sources).prop_filter("valid", |s| *s != "(((").prop_map(str::to_owned);
    let text = prop_oneof![literal.prop_map(|text| (text, false)), regex.prop_map(|text| (text, true))];
    (text, any::<bool>()).prop_map(|((text, regex), case_sensitive)| Pattern {
        text,
        regex,
        case_sensitive,
        span: 0..0,
    })
}

/// Conditions, those of commits among them.
fn atom() -> impl Strategy<Value = Atom> {
    let glob = prop::sample::select(vec!["*.rs", "src/**/a?", "[a-c]*", "/x/*", "*.{A,b}", "a\"*", "/a*/"]);
    prop_oneof![
        pattern().prop_map(Atom::Text),
        pattern().prop_map(Atom::Content),
        pattern().prop_map(Atom::Repo),
        pattern().prop_map(Atom::Symbol),
        pattern().prop_map(Atom::Author),
        pattern().prop_map(Atom::Message),
        pattern().prop_map(|p| Atom::Path(PathPattern::Pattern(p))),
        (glob, any::<bool>()).prop_filter("bare", |(g, _)| *g != "/a*/").prop_map(|(glob, case_sensitive)| {
            Atom::Path(PathPattern::Glob { glob: glob.to_owned(), case_sensitive, span: 0..0 })
        }),
        "[a-zA-Z+# -]{1,6}".prop_map(Atom::Lang),
        any::<i64>().prop_map(Atom::Before),
        any::<i64>().prop_map(Atom::After),
        any::<bool>().prop_map(Atom::Archived),
        any::<bool>().prop_map(Atom::Fork),
    ]
}

fn expr_of(atom: impl Strategy<Value = Atom> + 'static) -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![8 => atom.prop_map(Expr::Atom), 1 => any::<bool>().prop_map(Expr::Const)];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::Or),
            inner.prop_map(|e| Expr::Not(Box::new(e))),
        ]
    })
}

fn options() -> impl Strategy<Value = Options> {
    let kind = prop_oneof![Just(SearchKind::Commit), Just(SearchKind::Diff)];
    let revs = prop::sample::subsequence(vec!["v1", "HEAD~2", "-x", "or", "a b", "a\"\\"], 0..4);
    let branches = prop::sample::subsequence(vec!["main", "release/*", "[ab]", "/x/"], 0..3);
    let selects = [Select::Repo, Select::File, Select::Directory, Select::Content, Select::Symbol];
    let select = prop::option::of(prop::sample::select(selects.to_vec()));
    let count = prop_oneof![Just(Count::Page), Just(Count::All), (1usize..).prop_map(Count::Files)];
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    (kind, revs, branches, select, count).prop_map(move |(kind, revs, branches, select, count)| Options {
        kind,
        revs: owned(revs),
        branches: owned(branches),
        select,
        count,
    })
}

/// The truth of an expression over `lang:0`, `lang:1`, … when bit `i` of `facts` says whether `lang:i` holds.
fn holds(expr: &Expr, facts: u32) -> bool {
    match expr {
        Expr::Const(value) => *value,
        Expr::And(parts) => parts.iter().all(|part| holds(part, facts)),
        Expr::Or(parts) => parts.iter().any(|part| holds(part, facts)),
        Expr::Not(inner) => !holds(inner, facts),
        Expr::Atom(Atom::Lang(name)) => facts >> name.parse::<u32>().unwrap() & 1 == 1,
        Expr::Atom(atom) => panic!("{atom:?}"),
    }
}

/// Whether nothing is left that [`simplify`] promises to remove.
fn is_simple(expr: &Expr) -> bool {
    let distinct = |parts: &[Expr]| (1..parts.len()).all(|i| !parts[..i].contains(&parts[i]));
    match expr {
        Expr::Const(_) | Expr::Atom(_) => true,
        Expr::Not(inner) => !matches!(**inner, Expr::Not(_) | Expr::Const(_)) && is_simple(inner),
        Expr::And(parts) | Expr::Or(parts) => {
            let same_kind = |part: &Expr| std::mem::discriminant(part) == std::mem::discriminant(expr);
            let part_is_simple = |part: &Expr| !matches!(part, Expr::Const(_)) && !same_kind(part) && is_simple(part);
            parts.len() > 1 && distinct(parts) && parts.iter().all(part_is_simple)
        }
    }
}

fn check_any_text(text: &str) -> Result<(), TestCaseError> {
    match parse(text, NOW) {
        Ok(query) => {
            let canonical = query.to_string();
            let again = parse(&canonical, NOW).map_err(|e| TestCaseError::fail(format!("{canonical:?}: {e}")))?;
            prop_assert_eq!(without_spans(&again.expr), without_spans(&query.expr), "{}", canonical);
            prop_assert_eq!(again.options, query.options, "{}", canonical);
        }
        Err(error) => {
            prop_assert!(text.get(error.span.clone()).is_some(), "{:?} at {:?}", error, text);
            prop_assert_eq!(error.render(text).lines().count(), 2);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_characters_are_answered(text in any::<String>(), now in any::<i64>()) {
        check_any_text(&text)?;
        let _ = parse(&format!("before:{text}"), now);
        let _ = parse(&format!("/{text}/ path:*{text}"), now);
    }

    #[test]
    fn any_pieces_are_answered(text in texts()) {
        check_any_text(&text)?;
    }

    #[test]
    fn a_query_displays_as_itself(expr in expr_of(atom()), options in options()) {
        let query = Query { expr: simplify(expr.clone()), options: options.clone() };
        let text = query.to_string();
        let parsed = parse(&text, NOW).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")))?;
        prop_assert_eq!(&without_spans(&parsed.expr), &query.expr, "{}", text);
        prop_assert_eq!(&parsed.options, &query.options, "{}", text);
        // One that is not simplified parses to what it simplifies to.
        let text = Query { expr, options }.to_string();
        let parsed = parse(&text, NOW).map_err(|e| TestCaseError::fail(format!("{text:?}: {e}")))?;
        prop_assert_eq!(&without_spans(&parsed.expr), &query.expr, "{}", text);
    }

    #[test]
    fn simplifying_keeps_the_meaning(expr in expr_of((0u32..4).prop_map(|i| Atom::Lang(i.to_string())))) {
        let simple = simplify(expr.clone());
        for facts in 0..16 {
            prop_assert_eq!(holds(&expr, facts), holds(&simple, facts), "{:?} became {:?}", expr, simple);
        }
        prop_assert!(is_simple(&simple), "{:?}", simple);
    }

    /// globset agrees with our regexes on ASCII paths, but that its negated classes match a slash.
    #[test]
    fn globs_mean_what_globset_says(glob in "[ab*?/{},.-]{1,8}|\\*\\*/[ab?]{1,3}|[ab]?\\[[!^]?[ab]-?[bc]\\]\\*", path in "[abc]{0,2}([/.-][abc]{1,2}){0,3}") {
        let Ok(built) = globset::GlobBuilder::new(&glob).literal_separator(true).empty_alternates(true).build() else {
            return Ok(());
        };
        // Inside braces `**` has no meaning of its own for us.
        prop_assume!(!glob.contains("**") || !glob.contains('{'));
        // No path ends with a slash; globset lets `**/` match without it.
        prop_assume!(!glob.starts_with('/') && !glob.ends_with('/') && !path.is_empty());
        let name = path.rsplit('/').next().unwrap_or_default();
        let subject = if glob.contains('/') { path.as_str() } else { name };
        let ours = regex_automata::meta::Regex::new(&glob_regex(&glob)).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let theirs = built.compile_matcher().is_match(subject);
        prop_assert_eq!(ours.is_match(path.as_str()), theirs, "{} on {}", glob, path);
    }
}

#[test]
fn seeds_of_query() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/query");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
    for name in ["cases", "diffs", "fields"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        parse(&text, NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
        crate::fuzz_query(text.as_bytes());
    }
}
