//! Wrong queries: what is said, and where.

use super::super::*;
use super::NOW;

fn error_of(text: &str) -> QueryError {
    match parse(text, NOW) {
        Ok(query) => panic!("{text} parsed: {query}"),
        Err(error) => error,
    }
}

/// A query with the wrong part between `«` and `»`, a part of the message, and the suggestion (or nothing).
#[test]
fn messages_places_and_suggestions() {
    let table: &[(&str, &str, &str)] = &[
        ("«»", "empty", ""),
        ("«  »", "empty", ""),
        ("a «)»", "without an opening", "\")\""),
        ("«(»a", "not closed", ""),
        ("a «(»b (c)", "not closed", ""),
        ("(a b)«)»", "without an opening", "\")\""),
        ("«()»", "group is empty", "\"()\""),
        ("ü «\"»foo", "no closing quote", ""),
        ("«\"\"»", "phrase is empty", ""),
        ("\"a«\"»b", "closing quote", ""),
        ("«OR» a", "on its left", "\"OR\""),
        ("a «or»", "on its right", "\"or\""),
        ("a «OR» OR b", "on its right", "\"OR\""),
        ("a «AND»", "on its right", "\"AND\""),
        ("a AND «AND» b", "on its left", "\"AND\""),
        ("«NOT»", "on its right", "\"NOT\""),
        ("(a «NOT»)", "on its right", "\"NOT\""),
        ("-«case:yes»", "negated", ""),
        ("«lnag:rust»", "not a field", "lang:rust"),
        ("x «Repo:y»", "not a field", "repo:y"),
        ("«contnet:y»", "not a field", "content:y"),
        ("«public:yes»", "public: is not known", ""),
        ("«org:rust»", "not known", "repo:rust/*"),
        ("«is:fork»", "not known", "fork:yes"),
        ("«repo:» x", "needs a value", "\"repo:\""),
        ("(«lang:»)", "needs a value", "\"lang:\""),
        ("lang:«(rust» OR go)", "takes one value", ""),
        ("lang:«/x/»", "takes no regex", ""),
        ("case:«maybe»", "one of yes, no, auto", ""),
        ("type:«commits» x", "one of file", "commit"),
        ("count:«0» x", "above 0", ""),
        ("count:«+3» x", "above 0", ""),
        ("type:file «type:diff»", "another value", ""),
        ("case:yes «case:no» a", "differently", ""),
        ("(«type:diff» a)", "whole query", ""),
        ("-«rev:x»", "whole query", ""),
        ("«rev:x» a OR b", "whole query", ""),
        ("type:file «author:x»", "type:file", ""),
        ("type:symbol ü «before:now»", "type:symbol", ""),
        ("before:«soon»", "not a date", ""),
        ("before:«3fortnights»", "not a unit", ""),
        ("after:«99999999years»", "too long ago", ""),
        ("after:«2026-02-30»", "not a date", ""),
        ("after:«1780000000»", "not a date", ""),
        ("/a«(»b/", "unclosed group", ""),
        ("ü /a\\/«(»b/", "unclosed group", ""),
        ("/«*»a/", "repetition operator", ""),
        ("/a«(?=»b)/", "look-around", ""),
        ("/«\\1»/", "backreferences", ""),
        ("path:a$«[»", "unclosed character class", ""),
        ("path:^x«)»", "unopened group", ""),
        ("path:«a*[»", "invalid glob", ""),
        ("branch:«[z-a]» x", "invalid glob", ""),
        ("/«^»/", "empty text", ""),
        ("/«(|)»/", "empty text", ""),
        ("/a«\\n»b/", "line break", ""),
        ("/«[\\n]»/", "nothing within a line", ""),
        ("/a«\\x0A»/", "line break", ""),
        ("/«[a&&b]»/", "nothing within a line", ""),
        ("/«(\\w{1000}){1000}»/", "too large", ""),
        ("regex:\"«\\\\1»\"", "backreferences", ""),
        ("«/a[b»", "no closing slash", "\"/a[b\""),
        ("«/a/b+/»", "first slash", "\"/a/b+/\""),
        ("a«\u{0}»", "U+0000", ""),
        ("ü«\u{85}»", "U+0085", ""),
    ];
    for (marked, message, suggestion) in table {
        let Some(((before, wrong), after)) =
            marked.split_once('«').and_then(|(b, rest)| rest.split_once('»').map(|(w, a)| ((b, w), a)))
        else {
            panic!("{marked} has no marks")
        };
        let text = format!("{before}{wrong}{after}");
        let error = error_of(&text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(!error.message.contains('\n') && !error.message.ends_with('.'), "{text}: {error}");
        if !text.contains("\\\\") {
            assert_eq!(error.span, before.len()..before.len() + wrong.len(), "{text}: {error}");
        }
        assert_eq!(error.suggestion.as_deref().unwrap_or_default(), *suggestion, "{text}: {error}");
    }
}

#[test]
fn a_suggestion_in_its_place_parses() {
    for text in ["lnag:rust x", "org:rust", "a OR", "a )", "repo: x", "type:commits x", "/a[b", "is:archived"] {
        let error = error_of(text);
        let mut fixed = text.to_owned();
        fixed.replace_range(error.span.clone(), &error.suggestion.unwrap_or_default());
        assert!(parse(&fixed, NOW).is_ok(), "{text} became {fixed}");
    }
}

#[test]
fn a_query_at_its_limits_parses_again_once_it_is_written_out() {
    let words = (1..TERMS_MAX).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
    let nest = |inner: String, depth: usize| match depth % 2 {
        0 => format!("(c{depth} OR {inner})"),
        _ => format!("(c{depth} {inner})"),
    };
    let deep = (1..DEPTH_MAX).fold("(case:yes a)".to_owned(), nest);
    for text in [format!("X (case:yes {words})"), deep] {
        let written = parse(&text, NOW).expect("within the limits").to_string();
        let again = parse(&written, NOW).map(|again| again.to_string());
        assert_eq!(again.as_deref(), Ok(written.as_str()), "{text}");
    }
}

#[test]
fn limits() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(DEPTH_MAX), NOW).is_ok());
    assert_eq!(error_of(&nested(DEPTH_MAX + 1)).span, DEPTH_MAX..DEPTH_MAX + 1);
    assert!(error_of(&"(".repeat(QUERY_BYTES_MAX)).message.contains("deeper"));
    assert!(error_of(&"NOT ".repeat(4000)).message.contains("deeper"));

    let words = |count: usize| (0..count).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
    assert!(parse(&words(TERMS_MAX), NOW).is_ok());
    assert!(error_of(&words(TERMS_MAX + 1)).message.contains("64 terms"));

    assert!(parse(&"x".repeat(QUERY_BYTES_MAX), NOW).is_ok());
    let long = format!("{}é", "x".repeat(QUERY_BYTES_MAX - 1));
    assert_eq!(error_of(&long).span, QUERY_BYTES_MAX - 1..QUERY_BYTES_MAX + 1);

    let regex = |length: usize| format!("/{}/", "x".repeat(length));
    assert!(parse(&regex(PATTERN_BYTES_MAX), NOW).is_ok());
    assert!(error_of(&regex(PATTERN_BYTES_MAX + 1)).message.contains("4096"));
    assert!(error_of(&format!("/{}a{}/", "(".repeat(101), ")".repeat(101))).message.contains("nest"));
    assert!(parse(&format!("/{}/", r"\pL".repeat(16)), NOW).is_ok());
    assert!(error_of(&format!("/{}/", r"[\pL]".repeat(17))).message.contains("Unicode classes"));
    assert!(error_of(&format!("path:*{}", "{".repeat(40))).message.contains("braces"));
}

#[test]
fn rendering() {
    assert_eq!(error_of("ü lnag:x y").render("ü lnag:x y").lines().nth(1).map(|l| l.find('^')), Some(Some(2)));
    let text = "日本 \tOR";
    let rendered = error_of(text).render(text);
    let lines: Vec<&str> = rendered.lines().collect();
    assert_eq!(lines[0], "日本  OR");
    assert!(lines[1].starts_with("    ^^ OR has no condition"), "{rendered}");
    assert_eq!(lines.len(), 2);

    let text = format!("{} ) {}", "é".repeat(200), "b".repeat(200));
    let rendered = error_of(&text).render(&text);
    let lines: Vec<&str> = rendered.lines().collect();
    let column = lines[1].chars().take_while(|c| *c == ' ').count();
    assert_eq!(lines[0].chars().nth(column), Some(')'));
    assert!(lines[0].chars().count() < 130);

    assert_eq!(error_of("a\u{1b}").render("a\u{1b}").lines().next(), Some("a\u{fffd}"));
    assert_eq!(
        error_of("a )").to_string().split(';').next(),
        Some("at byte 2: a closing parenthesis without an opening one")
    );
    // Any other text is answered too.
    assert!(error_of("aaaaaaaaaa )").render("ü").contains('^'));
}
